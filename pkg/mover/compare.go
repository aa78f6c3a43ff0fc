package mover

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
)

// difference is what comparing the points of one slice at both ends found. A
// point is a series and a time; it counts once, in however many rows it comes.
type difference struct {
	// source and destination count the points at each end.
	source, destination int64
	// missing counts points of the source of which the destination lacks the
	// whole or a field; different those of which it holds another value or type.
	missing, different int64
	// extra counts points of which the destination holds more than the source.
	extra int64
	// absent counts those of missing of which the destination has nothing, alone
	// those of extra of which the source has nothing.
	absent, alone int64
	example       string
	examples      operation.Examples
	// telling is whether the example is of a missing or different point.
	telling bool
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
type comparison struct {
	source, destination cursor
	// seen, when set, is called for every source row.
	seen func(*point) error
	// missing, when set, is called for each source row of which the destination
	// lacks something, with the values that are missing and Null for the others;
	// newSeries is then relative to its own last call. With overrule, values of
	// which the destination has others count as missing, too.
	missing  func(*point) error
	overrule bool
	// returned, when set, is called likewise for what only the destination holds.
	returned func(*point) error
	// passed, when set, is called for every destination row of a point that the
	// source does not have.
	passed func(slice int, newSeries bool) error
	// found, when set, gets the points that differ; only those of among count, when
	// that is set. Both know slice n by the number numbers[n], unless that is nil.
	found, among *suspects
	numbers      []int
	// alive, when set, is called now and then.
	alive func()
	// tempo, when set, is told of every row that was read.
	tempo *tempo

	row     point
	rows    int
	diffs   []difference
	lacking []lineproto.Value
	// series is how the destination's series compares with the source's.
	series int
	// held is what the destination holds of the source's point.
	held heldPoint
	// at maps the source's fields to the columns of held, -1 for none; from and
	// to are the names it was made from.
	at       []int
	from, to []string
	// reported is whether the series at hand has been given to missing.
	reported bool
	back     returns
}

// returns is what comparison.returned was last given.
type returns struct {
	// series is the source's, as it was when held was found, for slice.
	series lineproto.Series
	slice  int
	// given says what the last call was about, so that the next one knows whether
	// its series is another.
	given  given
	values []lineproto.Value
}

// given is what a returned point was part of.
type given uint8

const (
	givenNothing given = iota
	// givenWhole: a point of which the source has nothing.
	givenWhole
	// givenRest: the rest of a point of which the source has a part.
	givenRest
)

// run compares n slices and returns a difference for each. An end that answers
// out of order is an error that wraps errDisorder, never a difference.
func (c *comparison) run(source, destination *influx.Stream, n int) ([]difference, error) {
	c.diffs = make([]difference, n)
	c.source = cursor{Stream: source, name: "the source"}
	c.destination = cursor{Stream: destination, name: "the destination"}
	if err := c.destination.next(); err != nil {
		return nil, err
	}
	for {
		before := c.source.last
		if err := c.source.next(); err != nil {
			return nil, err
		}
		if !c.source.open {
			break
		}
		if err := c.take(c.source.fresh || c.source.last != before); err != nil {
			return nil, err
		}
	}
	if err := c.settle(); err != nil {
		return nil, err
	}
	// What the destination still has is more than the source.
	for c.destination.open {
		if err := c.pass(); err != nil {
			return nil, err
		}
	}
	return c.diffs, c.tempo.end()
}

// take handles the source's current row, the first of its point or a further one.
func (c *comparison) take(first bool) error {
	s := &c.source
	if c.rows++; c.rows%aliveEvery == 0 && c.alive != nil {
		c.alive()
	}
	if err := c.tempo.count(0); err != nil {
		return err
	}
	if first {
		if err := c.settle(); err != nil {
			return err
		}
	}
	c.row = point{slice: s.Statement(), newSeries: s.fresh, series: s.Series(), fields: s.Fields(), ns: s.Time(), values: s.Values()}
	if c.seen != nil {
		if err := c.seen(&c.row); err != nil {
			return err
		}
	}
	if s.fresh {
		c.reported, c.back.given = false, givenNothing
		c.relate()
		if c.returned != nil {
			c.back.series, c.back.slice = c.row.series.Clone(), c.row.slice
		}
	}
	d := &c.diffs[c.row.slice]
	if first {
		d.source++
		if err := c.find(d); err != nil {
			return err
		}
	}
	return c.match(d)
}

// relate compares the series of both ends, after either has changed.
func (c *comparison) relate() {
	if !c.destination.open || !c.source.open {
		return
	}
	if c.series = c.destination.slice - c.source.slice; c.series == 0 {
		c.series = lineproto.CompareTags(c.destination.tags, c.source.tags)
	}
}

// find moves the destination to the source's point and takes what it holds of it.
func (c *comparison) find(d *difference) error {
	t := &c.destination
	for t.open && (c.series < 0 || c.series == 0 && t.last < c.row.ns) {
		if err := c.pass(); err != nil {
			return err
		}
	}
	c.held.begin(c.row.ns, 0)
	c.held.any = t.open && c.series == 0 && t.last == c.row.ns
	if !c.held.any {
		return nil
	}
	d.destination++
	c.pair(c.row.fields, t.Fields())
	c.held.begin(c.row.ns, len(t.Fields()))
	for {
		c.held.merge(t.Values())
		if err := c.advance(); err != nil {
			return err
		}
		if !t.open || t.fresh || t.last != c.held.ns {
			return nil
		}
	}
}

// match compares the source's row with what the destination holds of its point.
func (c *comparison) match(d *difference) error {
	h := &c.held
	if !h.any {
		if c.count(&h.missing, &d.missing, "missing") {
			d.absent++
			c.showMissing(d, firstValue(c.row.values))
		}
		return c.report(c.row.values)
	}
	values := c.row.values
	c.lacking = append(c.lacking[:0], values...)
	missing, different, lacks, other := false, false, 0, 0
	for i := range values {
		if values[i].Kind == lineproto.Null {
			continue
		}
		if c.at[i] < 0 || h.values[c.at[i]].Kind == lineproto.Null {
			missing, lacks = true, i
			continue
		}
		h.seen[c.at[i]] = true
		if sameValue(&values[i], &h.values[c.at[i]]) {
			c.lacking[i] = lineproto.Value{}
			continue
		}
		different, other = true, i
		if !c.overrule {
			c.lacking[i] = lineproto.Value{}
		}
	}
	if different {
		if c.count(&h.different, &d.different, "different") {
			c.showDifferent(d, other)
		}
	}
	if more := h.more(); more && !h.extra {
		if c.count(&h.extra, &d.extra, "more fields at the destination") {
			c.showMore(d)
		}
	} else if !more && h.extra {
		// A further row of the source has the rest.
		h.extra = false
		d.extra--
	}
	if missing {
		if c.count(&h.missing, &d.missing, "fields missing") {
			c.showMissing(d, lacks)
		}
	}
	if missing || different && c.overrule {
		return c.report(c.lacking)
	}
	return nil
}

// settle gives back what the destination holds of the source's last point beyond
// it, once all rows of the point have been seen.
func (c *comparison) settle() error {
	h := &c.held
	if c.returned == nil || !h.any || !h.more() {
		return nil
	}
	b := &c.back
	b.values = append(b.values[:0], h.values...)
	for i := range b.values {
		if h.seen[i] || b.values[i].Kind == conflict {
			b.values[i] = lineproto.Value{}
		}
	}
	return c.giveBack(givenRest, &point{slice: b.slice, series: &b.series, fields: c.to, ns: h.ns, values: b.values})
}

// giveBack calls returned.
func (c *comparison) giveBack(what given, p *point) error {
	p.newSeries = c.back.given != what
	c.back.given = what
	return c.returned(p)
}

// count counts a point once, unless it is not one of those that count, and
// remembers the first of its kind.
func (c *comparison) count(counted *bool, n *int64, what string) bool {
	if *counted || !c.suspect(c.row.slice, c.row.series, c.row.ns, held{c.row.fields, c.row.values}, held{c.to, c.held.values}) {
		return false
	}
	*counted = true
	*n++
	c.keepExample(&c.diffs[c.row.slice], what, n, c.row.series, c.row.ns)
	return true
}

// pass counts the destination's point as extra and moves on.
func (c *comparison) pass() error {
	t := &c.destination
	d := &c.diffs[t.slice]
	d.destination++
	if c.suspect(t.slice, t.Series(), t.last, held{}, held{t.Fields(), t.Values()}) {
		d.extra++
		d.alone++
		c.keepExample(d, "only at the destination", &d.extra, t.Series(), t.last)
		c.showAlone(d)
	}
	for ns := t.last; ; {
		if c.passed != nil {
			if err := c.passed(t.slice, t.fresh); err != nil {
				return err
			}
		}
		if c.returned != nil {
			p := point{slice: t.slice, series: t.Series(), fields: t.Fields(), ns: ns, values: t.Values()}
			if err := c.giveBack(givenWhole, &p); err != nil {
				return err
			}
		}
		if err := c.advance(); err != nil {
			return err
		}
		if !t.open || t.fresh || t.last != ns {
			return nil
		}
	}
}

// advance moves the destination to its next row.
func (c *comparison) advance() error {
	if err := c.tempo.count(1); err != nil {
		return err
	}
	if err := c.destination.next(); err != nil {
		return err
	}
	if c.destination.fresh {
		c.back.given = givenNothing
		c.relate()
	}
	return nil
}

// sameValue is lineproto.Value.Equal without copying.
func sameValue(a, b *lineproto.Value) bool {
	if a.Kind != b.Kind || a.Kind == conflict {
		return false
	}
	if a.Kind == lineproto.String {
		return bytes.Equal(a.Str, b.Str)
	}
	return a.Num == b.Num
}

// pair finds each source field among the destination's columns. Both ends sort
// them, so the search goes on where the last one ended.
func (c *comparison) pair(from, to []string) {
	if slices.Equal(from, c.from) && slices.Equal(to, c.to) {
		return
	}
	c.from, c.to = append(c.from[:0], from...), append(c.to[:0], to...)
	c.back.given = givenNothing
	c.at = c.at[:0]
	next := 0
	for _, f := range from {
		at := -1
		for i := range to {
			if j := (next + i) % len(to); to[j] == f {
				at, next = j, j+1
				break
			}
		}
		c.at = append(c.at, at)
	}
}

func (c *comparison) report(values []lineproto.Value) error {
	if c.missing == nil {
		return nil
	}
	c.row.newSeries, c.reported = !c.reported, true
	c.row.values = values
	return c.missing(&c.row)
}

// keepExample remembers the first difference of a slice. A missing point or
// a different value tells more than an extra one, so it replaces that.
func (c *comparison) keepExample(d *difference, what string, counted *int64, s *lineproto.Series, ns int64) {
	telling := counted != &d.extra
	if d.example != "" && (d.telling || !telling) {
		return
	}
	d.telling = telling
	d.example = what + ": " + seriesName(s) + " at " + strconv.FormatInt(ns, 10)
}

// maxExample bounds the names in an example.
const maxExample = 300

// seriesName names a series for a person, shortened.
func seriesName(s *lineproto.Series) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%.*q", maxExample, s.Measurement)
	for _, t := range s.Tags {
		if b.Len() > maxExample {
			b.WriteString(",…")
			break
		}
		fmt.Fprintf(&b, ",%.*q=%.*q", maxExample, t.Key, maxExample, t.Value)
	}
	return b.String()
}
