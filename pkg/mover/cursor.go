package mover

import (
	"errors"
	"fmt"
	"slices"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
)

// errDisorder is wrapped when a server answers series or times in another order
// than it always does, so that its points cannot be compared in passing.
var errDisorder = errors.New("points do not come in order")

// cursor is one end of a comparison. It holds the server to its order: selection
// by selection, series by series as lineproto.CompareTags says, each in order of time.
type cursor struct {
	*influx.Stream
	name string
	open bool
	// fresh is whether the current row begins another series.
	fresh bool
	begun bool
	slice int
	last  int64
	// tags is a copy of the current series' tags.
	tags []lineproto.Tag
}

// next moves to the next row; open says whether there is one.
func (c *cursor) next() error {
	if c.Stream == nil {
		return nil
	}
	c.open = c.Next()
	if !c.open {
		return c.Err()
	}
	c.fresh = c.NewSeries()
	ns := c.Time()
	if !c.fresh {
		if ns < c.last {
			return fmt.Errorf("%w: %s has time %d after %d in series %s", errDisorder, c.name, ns, c.last, seriesName(c.Series()))
		}
		c.last = ns
		return nil
	}
	s, slice := c.Series(), c.Statement()
	if c.begun && (slice < c.slice || slice == c.slice && lineproto.CompareTags(s.Tags, c.tags) <= 0) {
		return fmt.Errorf("%w: %s has series %s too late", errDisorder, c.name, seriesName(s))
	}
	c.begun, c.slice, c.last = true, slice, ns
	// The stream may use its memory for the next series.
	c.tags = append(c.tags[:0], s.Tags...)
	return nil
}

// heldPoint is what the destination holds of one point. It is a copy, since
// a server may answer a point in several rows, where shard groups overlap.
type heldPoint struct {
	any    bool
	ns     int64
	values []lineproto.Value
	// seen marks the values that the source has, too.
	seen []bool
	text []byte
	// missing, different and extra say what the point has been counted as.
	missing, different, extra bool
}

// conflict is the kind of a value that the destination gives in two versions;
// it is equal to nothing.
const conflict = lineproto.Kind(0xff)

// begin starts another point.
func (h *heldPoint) begin(ns int64, columns int) {
	h.any, h.ns, h.text = true, ns, h.text[:0]
	h.missing, h.different, h.extra = false, false, false
	h.values = slices.Grow(h.values[:0], columns)[:columns]
	h.seen = slices.Grow(h.seen[:0], columns)[:columns]
	clear(h.values)
	clear(h.seen)
}

// merge adds a row of the point.
func (h *heldPoint) merge(row []lineproto.Value) {
	for i := range row {
		v := row[i]
		switch {
		case v.Kind == lineproto.Null:
			continue
		case h.values[i].Kind == lineproto.Null:
			if v.Kind == lineproto.String {
				from := len(h.text)
				h.text = append(h.text, v.Str...)
				v.Str = h.text[from:]
			}
			h.values[i] = v
		case !sameValue(&h.values[i], &v):
			h.values[i] = lineproto.Value{Kind: conflict}
		}
	}
}

// more reports whether the point has values that the source has not.
func (h *heldPoint) more() bool {
	for i := range h.values {
		if h.values[i].Kind != lineproto.Null && !h.seen[i] {
			return true
		}
	}
	return false
}
