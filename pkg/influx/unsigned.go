package influx

import (
	"context"
	"errors"
	"strings"
)

// TakesUnsigned reports whether the server knows unsigned integers, as only some
// builds do. It asks with a line that no server stores, since its time is out of
// range: which of the two mistakes is named tells. One that may not write says
// nothing and is taken to know them.
func (c *Client) TakesUnsigned(ctx context.Context, db string) (bool, error) {
	err := c.Write(ctx, db, "", []byte("m v=1u 9223372036854775807\n"))
	var refusal *Error
	if errors.As(err, &refusal) && refusal.Class != Transient {
		return !strings.Contains(refusal.Message, "invalid number"), nil
	}
	return true, err
}
