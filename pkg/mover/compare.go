package mover

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
)

// difference is what comparing the points of one slice at both ends found.
type difference struct {
	// source and destination count the points at each end.
	source, destination int64
	// missing counts points of the source of which the destination lacks the
	// whole or a field; different those of which it holds another value or type.
	missing, different int64
	// extra counts points of which the destination holds more than the source.
	extra   int64
	example string
}

// point is a row of a source, valid during the call it is given to.
type point struct {
	slice int
	// newSeries says that series or fields differ from the point before.
	newSeries bool
	series    *lineproto.Series
	fields    []string
	ns        int64
	values    []lineproto.Value
}

// comparison walks the same slices at both ends at once, in constant memory.
// Both ends answer series by series in the order of their tags, and each series
// in order of time; an end that does not is an error, never a difference.
type comparison struct {
	source, destination cursor
	// seen, when set, is called for every source point.
	seen func(*point) error
	// missing, when set, is called for each source point the destination lacks
	// in whole or in part, with the values that are missing and Null for the
	// others; newSeries is then relative to its own last call.
	missing func(*point) error
	// alive, when set, is called now and then.
	alive func()

	row     point
	rows    int
	diffs   []difference
	lacking []lineproto.Value
	// at maps the source's fields to the destination's columns, -1 for none.
	at []int
	// paired is whether at belongs to the rows at hand.
	paired bool
	// matched is whether the destination's row has met its source row.
	matched bool
	// reported is whether the series at hand has been given to missing.
	reported bool
}

// cursor is one end of a comparison.
type cursor struct {
	stream *influx.Stream
	name   string
	open   bool
	// previous is a copy of the last series' tags, to prove the order.
	previous []lineproto.Tag
	slice    int
	any      bool
}

func (c *cursor) next() (newSeries bool, err error) {
	c.open = c.stream.Next()
	if !c.open {
		return false, c.stream.Err()
	}
	if !c.stream.NewSeries() {
		return false, nil
	}
	s := c.stream.Series()
	slice := c.stream.Statement()
	if c.any && (slice < c.slice || slice == c.slice && compareTags(s.Tags, c.previous) < 0) {
		return false, fmt.Errorf("comparing points: %s answers series out of order at %s", c.name, seriesName(s))
	}
	c.any, c.slice = true, slice
	// The stream reuses what its series points to.
	c.previous = c.previous[:0]
	for _, t := range s.Tags {
		c.previous = append(c.previous, lineproto.Tag{Key: strings.Clone(t.Key), Value: strings.Clone(t.Value)})
	}
	return true, nil
}

// compareTags orders series as the server does: by the values of all tag keys
// in key order, an absent tag counting as empty.
func compareTags(a, b []lineproto.Tag) int {
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Key < b[0].Key:
			if a[0].Value != "" {
				return 1
			}
			a = a[1:]
		case len(a) == 0 || b[0].Key < a[0].Key:
			if b[0].Value != "" {
				return -1
			}
			b = b[1:]
		default:
			if c := strings.Compare(a[0].Value, b[0].Value); c != 0 {
				return c
			}
			a, b = a[1:], b[1:]
		}
	}
	return 0
}

// run compares n slices and returns a difference for each.
func (c *comparison) run(source, destination *influx.Stream, n int) ([]difference, error) {
	c.diffs = make([]difference, n)
	c.source = cursor{stream: source, name: "the source"}
	c.destination = cursor{stream: destination, name: "the destination"}
	if err := c.advanceDestination(); err != nil {
		return nil, err
	}
	for {
		fresh, err := c.source.next()
		if err != nil {
			return nil, err
		}
		if !c.source.open {
			break
		}
		if fresh {
			c.paired, c.reported = false, false
		}
		if c.rows++; c.rows%aliveEvery == 0 && c.alive != nil {
			c.alive()
		}
		if err := c.take(fresh); err != nil {
			return nil, err
		}
	}
	// What the destination still has is more than the source.
	for c.destination.open {
		if err := c.passDestination(); err != nil {
			return nil, err
		}
	}
	return c.diffs, nil
}

// take handles the source's current row.
func (c *comparison) take(fresh bool) error {
	s := c.source.stream
	slice := s.Statement()
	d := &c.diffs[slice]
	d.source++
	c.row = point{slice: slice, newSeries: fresh, series: s.Series(), fields: s.Fields(), ns: s.Time(), values: s.Values()}
	if c.seen != nil {
		if err := c.seen(&c.row); err != nil {
			return err
		}
	}
	for c.destination.open && c.order() < 0 {
		if err := c.passDestination(); err != nil {
			return err
		}
	}
	if !c.destination.open || c.order() != 0 {
		d.missing++
		c.keepExample(d, "missing", s.Series(), s.Time())
		return c.report(s.Values())
	}
	// The destination's row stays until the source has passed its time: over
	// overlapping shard groups a source may hold two rows of one time.
	return c.match(d)
}

// order says whether the destination's row comes before, at or after the
// source's row.
func (c *comparison) order() int {
	s, t := c.source.stream, c.destination.stream
	if n := t.Statement() - s.Statement(); n != 0 {
		return n
	}
	if n := compareTags(t.Series().Tags, s.Series().Tags); n != 0 {
		return n
	}
	switch {
	case t.Time() < s.Time():
		return -1
	case t.Time() > s.Time():
		return 1
	default:
		return 0
	}
}

// match compares the values of two rows of one point.
func (c *comparison) match(d *difference) error {
	s, t := c.source.stream, c.destination.stream
	if !c.paired {
		c.pair(s.Fields(), t.Fields())
	}
	values, there := s.Values(), t.Values()
	c.lacking = append(c.lacking[:0], values...)
	missing, different, known := false, false, 0
	for i := range values {
		if values[i].Kind == lineproto.Null {
			continue
		}
		held := lineproto.Value{}
		if c.at[i] >= 0 {
			held = there[c.at[i]]
		}
		if held.Kind == lineproto.Null {
			missing = true
			continue
		}
		known++
		c.lacking[i] = lineproto.Value{}
		if !sameValue(&values[i], &held) {
			different = true
		}
	}
	if !c.matched {
		c.matched = true
		d.destination++
		if known < countValues(there) {
			d.extra++
			c.keepExample(d, "more fields at the destination", s.Series(), s.Time())
		}
	}
	if different {
		d.different++
		c.keepExample(d, "different", s.Series(), s.Time())
	}
	if missing {
		d.missing++
		c.keepExample(d, "fields missing", s.Series(), s.Time())
		return c.report(c.lacking)
	}
	return nil
}

func countValues(values []lineproto.Value) int {
	n := 0
	for i := range values {
		if values[i].Kind != lineproto.Null {
			n++
		}
	}
	return n
}

func sameValue(a, b *lineproto.Value) bool {
	if a.Kind != b.Kind {
		return false
	}
	if a.Kind == lineproto.String {
		return bytes.Equal(a.Str, b.Str)
	}
	return a.Num == b.Num
}

// pair finds each source field among the destination's columns.
func (c *comparison) pair(from, to []string) {
	c.at = c.at[:0]
	for _, f := range from {
		at := -1
		for i, g := range to {
			if f == g {
				at = i
				break
			}
		}
		c.at = append(c.at, at)
	}
	c.paired = true
}

// passDestination counts the destination's row as extra unless it was matched,
// and moves on.
func (c *comparison) passDestination() error {
	if !c.matched {
		t := c.destination.stream
		d := &c.diffs[t.Statement()]
		d.destination++
		d.extra++
		c.keepExample(d, "only at the destination", t.Series(), t.Time())
	}
	return c.advanceDestination()
}

func (c *comparison) advanceDestination() error {
	c.matched = false
	fresh, err := c.destination.next()
	if fresh {
		c.paired = false
	}
	return err
}

func (c *comparison) report(values []lineproto.Value) error {
	if c.missing == nil {
		return nil
	}
	c.row.newSeries, c.reported = !c.reported, true
	c.row.values = values
	return c.missing(&c.row)
}

// keepExample remembers the first difference of a slice. A difference of value
// or a missing point tells more than an extra one, so it replaces that.
func (c *comparison) keepExample(d *difference, what string, s *lineproto.Series, ns int64) {
	extra := d.missing == 0 && d.different == 0
	if d.example == "" || !extra && d.missing+d.different == 1 {
		d.example = what + ": " + seriesName(s) + " at " + strconv.FormatInt(ns, 10)
	}
}

const maxExample = 300

// seriesName names a series for a person.
func seriesName(s *lineproto.Series) string {
	var b strings.Builder
	b.WriteString(strconv.Quote(s.Measurement))
	for _, t := range s.Tags {
		fmt.Fprintf(&b, ",%q=%q", t.Key, t.Value)
		if b.Len() > maxExample {
			b.WriteString(",…")
			break
		}
	}
	return b.String()
}
