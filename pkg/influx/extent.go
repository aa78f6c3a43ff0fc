package influx

import (
	"context"
	"fmt"

	"ringmaster/pkg/lineproto"
)

// Extent is the time between the first and the last point of a selection.
type Extent struct {
	// Empty means that there is no point; the times are then 0.
	Empty       bool
	First, Last int64
}

// Extents returns, for each selection, when its first and its last point are.
func (c *Client) Extents(ctx context.Context, sels []Selection) ([]Extent, error) {
	extents := make([]Extent, len(sels))
	for i := range extents {
		extents[i].Empty = true
	}
	const op = "looking for the first and the last point of"
	at := func(d *decoder) (int64, error) {
		if d.cells[0].Kind != lineproto.Integer {
			return 0, fmt.Errorf("%s %s: a row without its time", op, c.URL())
		}
		return int64(d.cells[0].Num), nil
	}
	err := c.table(ctx, op, sels, allFields, " ORDER BY time ASC LIMIT 1", func(sel int, d *decoder) (err error) {
		extents[sel].Empty = false
		extents[sel].First, err = at(d)
		extents[sel].Last = extents[sel].First
		return err
	})
	if err != nil {
		return nil, err
	}
	err = c.table(ctx, op, sels, allFields, " ORDER BY time DESC LIMIT 1", func(sel int, d *decoder) (err error) {
		// A point that came between the two queries makes an empty selection one
		// with points; it has no first time of its own.
		last, err := at(d)
		if extents[sel].Empty {
			extents[sel] = Extent{First: last}
		}
		extents[sel].Last = max(last, extents[sel].First)
		return err
	})
	return extents, err
}
