package influx

import (
	"context"
	"fmt"
	"strings"
	"time"

	"ringmaster/pkg/lineproto"
)

// What a SELECT is of: every field, or how many values each has, in columns that
// begin with countPrefix.
const (
	allFields   = "*::field"
	countAll    = "count(*::field)"
	countPrefix = "count_"
)

// How many selections are asked for at a time where the answers are small, and
// how long their names may be together.
const (
	statementsPerRequest = 1000
	namesPerRequest      = 1 << 20
)

// Counts calls each for every field of every series of the selections with the
// number of its values, streaming, selection by selection. Fields without a
// value are left out. s is valid until each returns. An error of each ends the
// call and is returned as it is.
func (c *Client) Counts(ctx context.Context, sels []Selection, each func(sel int, s *lineproto.Series, field string, n int64) error) error {
	return c.counts(ctx, sels, " GROUP BY *", func(sel int, d *decoder) error {
		for i, v := range d.cells {
			field, ok := strings.CutPrefix(d.columns[i], countPrefix)
			if i == 0 || !ok || v.Kind != lineproto.Integer || v.Num == 0 {
				continue
			}
			if err := each(sel, &d.current, field, int64(v.Num)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Totals returns, for each selection, the largest number of values of any of
// its fields: at most the number of its points, and 0 only if there is none.
func (c *Client) Totals(ctx context.Context, sels []Selection) ([]int64, error) {
	totals := make([]int64, len(sels))
	err := c.counts(ctx, sels, "", func(sel int, d *decoder) error {
		totals[sel] = max(totals[sel], largest(d))
		return nil
	})
	return totals, err
}

// largest is the largest count of the current row.
func largest(d *decoder) (n int64) {
	for _, v := range d.cells[1:] {
		if v.Kind == lineproto.Integer {
			n = max(n, int64(v.Num))
		}
	}
	return n
}

// counts asks for the counts of all fields of the selections and gives each row
// to row.
func (c *Client) counts(ctx context.Context, sels []Selection, suffix string, row func(sel int, d *decoder) error) error {
	return c.table(ctx, "counting points of", sels, countAll, suffix, row)
}

// table runs one SELECT of allFields or countAll a selection, some at a time, and
// gives each row to row.
func (c *Client) table(ctx context.Context, op string, sels []Selection, what, suffix string, row func(sel int, d *decoder) error) error {
	prefix := ""
	if what == countAll {
		prefix = countPrefix
	}
	for first := 0; first < len(sels); {
		part := sels[first : first+oneRequest(sels[first:])]
		q, err := statements(part, what, suffix)
		if err != nil {
			return err
		}
		err = c.run(ctx, op, q, len(part), func(d *decoder) error {
			measurement := part[d.statement].Measurement
			if d.current.Measurement != measurement {
				return nil // a pattern has matched more than its measurement
			}
			if d.fresh {
				d.fresh = false
				if err := checkFields(measurement, d.columns, prefix); err != nil {
					return fmt.Errorf("%s %s: %w", op, c.URL(), err)
				}
			}
			return row(first+d.statement, d)
		})
		if err != nil {
			return err
		}
		first += len(part)
	}
	return nil
}

// oneRequest is how many of sels, at least one, fit into a request.
func oneRequest(sels []Selection) int {
	names := 0
	for i, s := range sels {
		names += len(s.Database) + len(s.RetentionPolicy) + len(s.Measurement)
		if i > 0 && (i == statementsPerRequest || names > namesPerRequest) {
			return i
		}
	}
	return len(sels)
}

// Bucket is the number of rows that begin at From and before the next Bucket.
type Bucket struct {
	From int64
	Rows int64
}

// Histogram counts the points of a selection in buckets of equal width, aligned
// to the epoch; the first begins at the window if that begins inside of it.
// Rows is estimated as by [Client.Totals]. Empty buckets are left out.
func (c *Client) Histogram(ctx context.Context, sel Selection, width time.Duration) ([]Bucket, error) {
	if width <= 0 {
		return nil, fmt.Errorf("counting points of %s: a bucket of %v", c.URL(), width)
	}
	var buckets []Bucket
	suffix := fmt.Sprintf(" GROUP BY time(%dns) fill(none)", width.Nanoseconds())
	err := c.counts(ctx, []Selection{sel}, suffix, func(_ int, d *decoder) error {
		if d.cells[0].Kind != lineproto.Integer {
			return fmt.Errorf("counting points of %s: a bucket without its time", c.URL())
		}
		if n := largest(d); n > 0 {
			buckets = append(buckets, Bucket{From: max(int64(d.cells[0].Num), sel.Window.From), Rows: n})
		}
		return nil
	})
	return buckets, err
}

// Occupied reports for each selection whether any point exists.
func (c *Client) Occupied(ctx context.Context, sels []Selection) ([]bool, error) {
	occupied := make([]bool, len(sels))
	err := c.table(ctx, "looking for points of", sels, allFields, " LIMIT 1", func(sel int, _ *decoder) error {
		occupied[sel] = true
		return nil
	})
	return occupied, err
}
