package influx

import (
	"context"
	"errors"
)

// Write posts one batch of line protocol with times in nanoseconds. It returns
// nil only when the server has answered 204: every point is stored. batch may
// be used again as soon as Write returns.
func (c *Client) Write(ctx context.Context, db, rp string, batch []byte) error {
	return errors.ErrUnsupported
}
