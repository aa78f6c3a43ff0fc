package influx

import (
	"context"
	"errors"
	"time"

	"ringmaster/pkg/lineproto"
)

// Counts calls each for every field of every series of the selections with the
// number of its values, streaming. Fields without a value are left out. s is
// valid until the call returns.
func (c *Client) Counts(ctx context.Context, sels []Selection, each func(sel int, s *lineproto.Series, field string, n int64) error) error {
	return errors.ErrUnsupported
}

// Totals returns, for each selection, the largest number of values of any of
// its fields: at most the number of its points, and 0 only if there is none.
func (c *Client) Totals(ctx context.Context, sels []Selection) ([]int64, error) {
	return nil, errors.ErrUnsupported
}

// Bucket is the number of rows that begin at From and before the next Bucket.
type Bucket struct {
	From int64
	Rows int64
}

// Histogram counts the points of a selection in buckets of equal width, aligned
// to the epoch; the first may begin at the window. Rows is estimated as by
// Totals. Empty buckets are left out.
func (c *Client) Histogram(ctx context.Context, sel Selection, width time.Duration) ([]Bucket, error) {
	return nil, errors.ErrUnsupported
}

// Occupied reports for each selection whether any point exists.
func (c *Client) Occupied(ctx context.Context, sels []Selection) ([]bool, error) {
	return nil, errors.ErrUnsupported
}
