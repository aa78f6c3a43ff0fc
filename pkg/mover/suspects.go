package mover

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
)

// suspects are points of which two ends held different things when they were
// looked at: it may only have been the moment, since what a client writes does not
// come to two circles at the same time.
type suspects struct {
	points map[uint64]suspect
	// full says that there were too many to remember: every point is one.
	full bool
	// spans are the times of those of each slice, by its number.
	spans []timeSpan
	hash  hasher
}

type timeSpan struct{ first, last int64 }

// suspect is what is remembered of a point.
type suspect struct {
	// slice is its number.
	slice int32
	// source and destination tell what each end held from what it holds later; 0 is
	// nothing.
	source, destination uint64
}

// maxSuspects bounds what is remembered, to a few megabytes.
const maxSuspects = 100_000

func newSuspects(slices int) *suspects {
	s := &suspects{points: map[uint64]suspect{}, spans: make([]timeSpan, slices)}
	for i := range s.spans {
		s.spans[i] = timeSpan{math.MaxInt64, math.MinInt64}
	}
	return s
}

// key names a point: the slices of one look have no point in common.
func (s *suspects) key(series *lineproto.Series, ns int64) uint64 {
	return mix(s.hash.series(series)^0x9e3779b97f4a7c15, uint64(ns)^0xd1b54a32d192ed03)
}

func (s *suspects) add(key uint64, ns int64, now suspect) {
	at := &s.spans[now.slice]
	at.first, at.last = min(at.first, ns), max(at.last, ns)
	if len(s.points) >= maxSuspects {
		s.full = true
		return
	}
	s.points[key] = now
}

// still reports whether a point that differs now has done so for the same reason
// before. Where both ends hold something else than they did, it is written again and
// again, and comes to both.
func (s *suspects) still(key uint64, now suspect) bool {
	if s.full {
		return true
	}
	was, ok := s.points[key]
	return ok && (was.source == now.source || was.destination == now.destination)
}

// suspect reports whether a point that differs counts, and remembers it if so; here
// and there are what the ends hold of it.
func (c *comparison) suspect(slice int, series *lineproto.Series, ns int64, here, there held) bool {
	if c.found == nil && c.among == nil {
		return true
	}
	if c.numbers != nil {
		slice = c.numbers[slice]
	}
	now := suspect{slice: int32(slice), source: here.fingerprint(), destination: there.fingerprint()}
	keys := c.found
	if keys == nil {
		keys = c.among
	}
	key := keys.key(series, ns)
	if c.among != nil && !c.among.still(key, now) {
		return false
	}
	if c.found != nil {
		c.found.add(key, ns, now)
	}
	return true
}

// held is what an end holds of a point.
type held struct {
	fields []string
	values []lineproto.Value
}

// fingerprint tells values from others; 0 stands for none.
func (h held) fingerprint() uint64 {
	sum := uint64(0)
	for i := range h.values {
		v := &h.values[i]
		if v.Kind == lineproto.Null {
			continue
		}
		n := v.Num
		if v.Kind == lineproto.String {
			n = xxhash.Sum64(v.Str)
		}
		sum += mix(fieldHash(uint64(v.Kind), h.fields[i]), n^0xd1b54a32d192ed03) | 1
	}
	return sum
}

// looked is what a first look at some slices has found, for further ones.
type looked struct {
	chosen []operation.Slice
	diffs  []difference
	found  *suspects
}

// look compares slices for the first time. c is what else is to be done on the way.
func (t *transfer) look(ctx context.Context, chosen []operation.Slice, c *comparison) (*looked, error) {
	c.found = newSuspects(len(chosen))
	diffs, err := t.compare(ctx, chosen, c)
	if err != nil {
		return nil, err
	}
	return &looked{chosen, diffs, c.found}, nil
}

// only leaves out all slices but some.
func (l *looked) only(which []int) *looked {
	out := &looked{chosen: pick(l.chosen, which), found: &suspects{points: map[uint64]suspect{}, full: l.found.full}}
	renumbered := make(map[int]int, len(which))
	for n, i := range which {
		out.diffs = append(out.diffs, l.diffs[i])
		out.found.spans = append(out.found.spans, l.found.spans[i])
		renumbered[i] = n
	}
	for key, at := range l.found.points {
		if n, ok := renumbered[int(at.slice)]; ok {
			at.slice = int32(n)
			out.found.points[key] = at
		}
	}
	return out
}

// differ counts what differs.
func (l *looked) differ(matters func(*difference) bool) (which []int, points int64) {
	for i := range l.diffs {
		if d := &l.diffs[i]; matters(d) {
			which, points = append(which, i), points+d.missing+d.extra+d.different
		}
	}
	return which, points
}

// lookPauses returns how long to wait before each further look at what differs, in
// parts of Config.Lasting. After the first two, nothing is looked at again of which
// nothing has come right.
func (c *Config) lookPauses() []time.Duration {
	return []time.Duration{c.Lasting / 4, c.Lasting * 3 / 4, c.Lasting * 3 / 2, c.Lasting * 5 / 2}
}

// lookUntil looks again, a few times, at the points that have differed: what is left
// are those that differed every time. matters says which differences are worth it.
func (t *transfer) lookUntil(ctx context.Context, all []*looked, matters func(*difference) bool, again func(context.Context, *looked, []int) error) error {
	for n, pause := range t.lookPauses() {
		before := int64(0)
		for _, l := range all {
			_, points := l.differ(matters)
			before += points
		}
		if before == 0 {
			return nil
		}
		if err := t.pause(ctx, pause); err != nil {
			return err
		}
		after := int64(0)
		for _, l := range all {
			which, _ := l.differ(matters)
			if len(which) == 0 {
				continue
			}
			if err := again(ctx, l, which); err != nil {
				return err
			}
			_, points := l.differ(matters)
			after += points
		}
		if after == before && n > 0 {
			return nil
		}
	}
	return nil
}

// compareLasting compares slices as often as lookUntil does.
func (t *transfer) compareLasting(ctx context.Context, chosen []operation.Slice, c *comparison, matters func(*difference) bool) ([]difference, error) {
	l, err := t.look(ctx, chosen, c)
	if err != nil {
		return nil, err
	}
	err = t.lookUntil(ctx, []*looked{l}, matters, t.lookAgain)
	return l.diffs, err
}

// lookAgain compares the points once more that have differed in some slices, and
// corrects what is known of these.
func (t *transfer) lookAgain(ctx context.Context, l *looked, which []int) error {
	narrow := pick(l.chosen, which)
	for n, i := range which {
		narrow[n].From, narrow[n].To, narrow[n].Last = l.found.spans[i].first, l.found.spans[i].last, true
	}
	found := newSuspects(len(l.chosen))
	now, err := t.compare(ctx, narrow, &comparison{among: l.found, found: found, numbers: which})
	if err != nil {
		return err
	}
	for n, i := range which {
		d, was := now[n], l.diffs[i]
		// What has come meanwhile is at both ends.
		d.destination = was.destination + max(was.absent-d.absent, 0)
		d.source = was.source + max(was.alone-d.alone, 0)
		l.diffs[i] = d
	}
	l.found = found
	return nil
}

// pause waits, and shows that the task is alive.
func (t *transfer) pause(ctx context.Context, d time.Duration) error {
	t.job.Alive()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// maxExampleValue bounds a value in an example.
const maxExampleValue = 200

func example(s *lineproto.Series, ns int64, field string, source, destination *lineproto.Value) *operation.Example {
	return &operation.Example{
		Series: seriesName(s), Time: time.Unix(0, ns).UTC(), Field: clipTo(field, maxExample),
		Source: valueText(source), Destination: valueText(destination),
	}
}

// explain completes the examples of a difference by the slice that they are of.
func (d *difference) explain(s *operation.Slice) {
	if d.extra == 0 {
		d.examples.Extra = nil // a further row of the source had the rest
	}
	for _, e := range []*operation.Example{d.examples.Missing, d.examples.Extra, d.examples.Different} {
		if e != nil {
			e.Database, e.RetentionPolicy = clipTo(s.Database, maxExample), clipTo(s.RetentionPolicy, maxExample)
		}
	}
}

func valueText(v *lineproto.Value) string {
	switch {
	case v == nil || v.Kind == lineproto.Null:
		return ""
	case v.Kind == conflict:
		return "several values"
	case v.Kind == lineproto.String && len(v.Str) > maxExampleValue:
		short := *v
		short.Str = v.Str[:maxExampleValue]
		return strings.ToValidUTF8(short.String(), "\uFFFD") + "…"
	default:
		return strings.ToValidUTF8(v.String(), "\uFFFD")
	}
}

func clipTo(text string, most int) string {
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// firstValue is the index of the first value that is not null; 0 if all are.
func firstValue(values []lineproto.Value) int {
	return max(slices.IndexFunc(values, func(v lineproto.Value) bool { return v.Kind != lineproto.Null }), 0)
}

// showMissing keeps an example of a point of which the destination lacks a field.
func (c *comparison) showMissing(d *difference, field int) {
	if d.examples.Missing == nil && len(c.row.fields) > 0 {
		d.examples.Missing = example(c.row.series, c.row.ns, c.row.fields[field], &c.row.values[field], nil)
	}
}

// showDifferent keeps an example of a point whose field has another value at the
// destination.
func (c *comparison) showDifferent(d *difference, field int) {
	if d.examples.Different == nil {
		d.examples.Different = example(c.row.series, c.row.ns, c.row.fields[field], &c.row.values[field], &c.held.values[c.at[field]])
	}
}

// showMore keeps an example of a point of which the destination has more fields.
func (c *comparison) showMore(d *difference) {
	h := &c.held
	if d.examples.Extra != nil {
		return
	}
	for i := range h.values {
		if h.values[i].Kind != lineproto.Null && !h.seen[i] {
			d.examples.Extra = example(c.row.series, c.row.ns, c.to[i], nil, &h.values[i])
			return
		}
	}
}

// showAlone keeps an example of the destination's point, which the source lacks.
func (c *comparison) showAlone(d *difference) {
	t := &c.destination
	if d.examples.Extra != nil || len(t.Fields()) == 0 {
		return
	}
	at := firstValue(t.Values())
	d.examples.Extra = example(t.Series(), t.last, t.Fields()[at], nil, &t.Values()[at])
}
