package planner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
)

// Budgets of an estimate: looking at every measurement of a large cluster would
// take longer than moving it.
const (
	surveyBudget     = 5 * time.Second
	surveyStatements = 100
	// probePart is the part of a measurement's time that is counted to estimate
	// the rest.
	probePart = 16
)

// look is one window of a measurement that moves, by indexes into its survey: a
// cluster may have millions of them.
type look struct {
	database, moving, window int32
	// policy is anyPolicy for a window of all of them.
	policy int32
	// span is the index of its span plus 1, 0 while it has not been looked at.
	span int32
	// points is the estimate, 0 where there is none.
	points int64
}

// anyPolicy stands for all policies of a database together.
const anyPolicy = -1

// span is the time between the first and the last point of a window. series are
// those of its measurement, where they have been counted.
type span struct{ first, last, series int64 }

// candidate writes a look out.
func (s *survey) candidate(l *look) operation.Candidate {
	d := &s.databases[l.database]
	mv := &d.moving[l.moving]
	r := &d.routes[mv.route]
	c := operation.Candidate{
		From: s.index, To: r.to, Wave: r.wave, Rule: r.rule,
		Database: d.name, Measurement: mv.measurement, Points: l.points, PointBytes: d.pointBytes,
	}
	if r.back {
		c.From, c.To = c.To, c.From
	}
	if l.policy == anyPolicy {
		c.Window = r.windows[0][l.window]
	} else {
		c.RetentionPolicy, c.Window = d.policies[l.policy].Name, r.windows[l.policy][l.window]
	}
	if l.span > 0 {
		at := &s.spans[l.span-1]
		c.First, c.Last, c.Looked, c.Series = at.first, at.last, true, at.series
	}
	return c
}

func (s *survey) selection(l *look) influx.Selection {
	c := s.candidate(l)
	return influx.Selection{
		Database: c.Database, RetentionPolicy: c.RetentionPolicy, Measurement: c.Measurement,
		Window: influx.Window{From: c.Window.From, To: c.Window.To, Last: c.Window.Last},
	}
}

// estimation looks at what moves.
type estimation struct {
	*Planner

	sources []*survey
	started time.Time
	// deadline is when the looking at one backend ends and the rest is estimated
	// from what was seen.
	deadline time.Time
	period   operation.Period
	// units: all policies of a window go together.
	units bool
	// told is set when somebody is going to look at the numbers, and gets what the
	// operation would trip over.
	told *preview
}

// of finds, for every measurement and window that moves, whether there is
// anything and about how much. When the time it may take is over, the rest is
// estimated from what was seen, so that a hundred thousand measurements are
// planned in seconds. What lies before the retention cutoff is expired.
func (e estimation) of(ctx context.Context, s *survey) ([]look, error) {
	e.deadline = e.now().Add(surveyBudget)
	var out []look
	for i := range s.databases {
		d := &s.databases[i]
		if len(d.moving) == 0 {
			continue
		}
		e.cutWindows(s, d)
		order := sampleOrder(d.moving)
		begin := len(out)
		for j := range d.policies {
			first := len(out)
			out = s.looks(out, i, j, order)
			looks := out[first:]
			seen := 0
			// A policy of which nothing is known would be planned blindly, so
			// each gets a first look.
			for seen < len(looks) && (seen == 0 || e.now().Before(e.deadline)) {
				n := min(seen+surveyStatements, len(looks))
				if err := e.lookAt(ctx, s, looks[seen:n]); err != nil {
					return nil, err
				}
				if err := e.weigh(ctx, s, d, looks[seen:n]); err != nil {
					return nil, err
				}
				e.countSeries(ctx, s, looks[seen:n])
				seen = n
			}
			s.sampled += extrapolate(looks, seen)
			looks = slices.DeleteFunc(looks, func(l look) bool { return l.points == 0 })
			out = out[:first+len(looks)]
		}
		if e.units {
			out = append(out[:begin], s.join(out[begin:])...)
		}
	}
	return out, nil
}

// cutWindows finds the windows of every route and policy of a database.
func (e *estimation) cutWindows(s *survey, d *databaseSurvey) {
	for i := range d.routes {
		r := &d.routes[i]
		r.windows = make([][]operation.Window, len(d.policies))
		if e.units {
			var held, others [][]influx.ShardGroup
			for j := range d.policies {
				name := policyName{d.name, d.policies[j].Name}
				held, others = append(held, s.groups[name]), append(others, e.sources[r.to].groups[name])
			}
			all := within(windows(held, others, cutoff{}), e.period)
			for j := range r.windows {
				r.windows[j] = all
			}
			continue
		}
		for j := range d.policies {
			p := &d.policies[j]
			name := policyName{d.name, p.Name}
			held, others := [][]influx.ShardGroup{s.groups[name]}, [][]influx.ShardGroup{}
			for _, end := range r.ends {
				held = append(held, e.sources[end].groups[name])
			}
			if !slices.Contains(r.ends, r.to) {
				others = append(others, e.sources[r.to].groups[name])
			}
			c := cutoff{at: e.started.Add(-p.Duration).UnixNano(), set: p.Duration > 0}
			r.windows[j] = within(windows(held, others, c), e.period)
		}
	}
}

// looks appends the windows of the measurements that move, of one policy.
func (s *survey) looks(out []look, database, policy int, order []int) []look {
	d := &s.databases[database]
	for _, i := range order {
		w := d.routes[d.moving[i].route].windows[policy]
		out = slices.Grow(out, len(w))
		for n := range w {
			out = append(out, look{database: int32(database), policy: int32(policy), moving: int32(i), window: int32(n)})
		}
	}
	return out
}

// join makes one look of those of several policies at one window.
func (s *survey) join(looks []look) []look {
	slices.SortFunc(looks, func(a, b look) int { return cmp.Or(cmp.Compare(a.moving, b.moving), cmp.Compare(a.window, b.window)) })
	var out []look
	for _, l := range looks {
		l.policy = anyPolicy
		if n := len(out); n > 0 && out[n-1].moving == l.moving && out[n-1].window == l.window {
			out[n-1].points += l.points
			out[n-1].span = s.joinSpans(out[n-1].span, l.span)
			continue
		}
		out = append(out, l)
	}
	return out
}

// joinSpans covers two spans; what is unknown of one is unknown of both.
func (s *survey) joinSpans(a, b int32) int32 {
	if a == 0 || b == 0 {
		return 0
	}
	x, y := &s.spans[a-1], s.spans[b-1]
	x.first, x.last, x.series = min(x.first, y.first), max(x.last, y.last), max(x.series, y.series)
	return a
}

// sampleOrder returns the indexes in an order that has nothing to do with
// names, so that the first ones are a fair sample; it is always the same.
func sampleOrder(all []moving) []int {
	keys := make([]uint64, len(all))
	order := make([]int, len(all))
	for i := range all {
		order[i] = i
		keys[i] = xxhash.Sum64String(all[i].measurement)
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(keys[a], keys[b]) })
	return order
}

// lookAt looks at some windows. One that cannot be read is planned all the same:
// its copy then says why, and the others go on.
func (e *estimation) lookAt(ctx context.Context, s *survey, batch []look) error {
	err := e.probe(ctx, s, batch)
	switch {
	case err == nil:
		return nil
	case !refusedForGood(err):
		return err
	case len(batch) == 1:
		batch[0].points = 1
		e.refused(s, &batch[0], err)
		return nil
	}
	for i := range batch {
		if err := e.lookAt(ctx, s, batch[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// refusedForGood reports whether asking the same again is of no use.
func refusedForGood(err error) bool {
	var refusal *influx.Error
	return errors.Is(err, influx.ErrUnaddressable) || errors.As(err, &refusal) && refusal.Class == influx.Permanent
}

// refused tells of a window that cannot be looked at.
func (e *estimation) refused(s *survey, l *look, err error) {
	if e.told == nil {
		return
	}
	c := s.candidate(l)
	slice := operation.Slice{
		Database: c.Database, RetentionPolicy: c.RetentionPolicy, Measurement: c.Measurement,
		From: c.Window.From, To: c.Window.To, Last: c.Window.Last,
	}
	e.told.unreadable(s.url, &slice, err)
}

// probe looks at some windows wherever their routes have points.
func (e *estimation) probe(ctx context.Context, s *survey, batch []look) error {
	for i := range batch {
		batch[i].points, batch[i].span = 0, 0
	}
	own := make([]int, len(batch))
	for i := range own {
		own[i] = i
	}
	if err := e.probeHolder(ctx, s, s, batch, own); err != nil {
		return err
	}
	// Where the source has something, the window moves whatever the others have.
	at := map[int][]int{}
	for i := range batch {
		d := &s.databases[batch[i].database]
		for _, end := range d.routes[d.moving[batch[i].moving].route].ends {
			if batch[i].points == 0 {
				at[end] = append(at[end], i)
			}
		}
	}
	for _, end := range sortedKeys(at) {
		if err := e.probeHolder(ctx, s, e.sources[end], batch, at[end]); err != nil {
			return err
		}
	}
	return nil
}

// probeHolder looks at some windows of one policy at one backend.
func (e *estimation) probeHolder(ctx context.Context, s, holder *survey, batch []look, which []int) error {
	first := &batch[which[0]]
	d := &s.databases[first.database]
	if len(holder.groups[policyName{d.name, d.policies[first.policy].Name}]) == 0 {
		return nil // not one point of the policy is there
	}
	return s.patiently(ctx, e.Planner, "estimating points at", holder, func(ctx context.Context) error {
		return s.probeAt(ctx, holder, batch, which)
	})
}

// probeAt finds first and last times at one holder, counts a part of the time
// between, and joins that to what is known of the looks.
func (s *survey) probeAt(ctx context.Context, holder *survey, batch []look, which []int) error {
	sels := make([]influx.Selection, len(which))
	for n, i := range which {
		sels[n] = s.selection(&batch[i])
	}
	extents, err := holder.client.Extents(ctx, sels)
	if err != nil {
		return fmt.Errorf("looking for points: %w", err)
	}
	points, err := pointsIn(ctx, holder.client, sels, extents, s.lists)
	if err != nil {
		return err
	}
	for n, e := range extents {
		if !e.Empty {
			continue
		}
		if points[n], err = s.hidden(ctx, holder, &batch[which[n]], &sels[n]); err != nil {
			return err
		}
	}
	for n, i := range which {
		batch[i].points = max(batch[i].points, points[n])
		if !extents[n].Empty {
			s.spread(&batch[i], extents[n].First, extents[n].Last)
		}
	}
	return nil
}

// spread makes a look's span include the time between two points.
func (s *survey) spread(l *look, first, last int64) {
	if l.span == 0 {
		s.spans = append(s.spans, span{first: first, last: last})
		l.span = int32(len(s.spans))
		return
	}
	known := &s.spans[l.span-1]
	known.first, known.last = min(known.first, first), max(known.last, last)
}

// weighRows is how many points are looked at to know what one takes, weighLooks in
// how many windows at most.
const (
	weighRows  = 200
	weighLooks = 8
)

// weigh finds about what a point of a database takes as line protocol, from the
// first points of some windows. It is told to people only, so what a backend
// refuses to read is left out.
func (e *estimation) weigh(ctx context.Context, s *survey, d *databaseSurvey, looks []look) error {
	var sels []influx.Selection
	for i := range looks {
		if l := &looks[i]; l.span > 0 && len(sels) < weighLooks {
			at := &s.spans[l.span-1]
			sel := s.selection(l)
			sel.Window = influx.Window{From: at.first, To: at.first + int64((uint64(at.last)-uint64(at.first))/weighRows), Last: true}
			sels = append(sels, sel)
		}
	}
	if e.told == nil || d.pointBytes > 0 || len(sels) == 0 {
		return nil
	}
	err := s.patiently(ctx, e.Planner, "looking at points of", s, func(ctx context.Context) (err error) {
		d.pointBytes, err = s.pointBytes(ctx, sels)
		return err
	})
	if refusedForGood(err) {
		return nil
	}
	return err
}

// pointBytes is the mean size of the first points as lines, 0 when there is none.
func (s *survey) pointBytes(ctx context.Context, sels []influx.Selection) (int64, error) {
	rows, err := s.client.Read(ctx, sels)
	if err != nil {
		return 0, err
	}
	defer func() { _ = rows.Close() }() // nothing is lost with it
	var encoder lineproto.Encoder
	var line []byte
	n, size := int64(0), int64(0)
	for n < weighRows && rows.Next() {
		if rows.NewSeries() && encoder.SetSeries(rows.Series(), rows.Fields()) != nil {
			continue // its copy says why it cannot be written
		}
		if line, err = encoder.AppendRow(line[:0], rows.Time(), rows.Values()); err == nil {
			n, size = n+1, size+int64(len(line))
		}
	}
	if n == 0 {
		return 0, rows.Err()
	}
	return max(size/n, 1), rows.Err()
}

// countSeries counts the series of measurements with large windows, as long as
// there is time. It is a help for cutting them well, so an error is none.
func (e *estimation) countSeries(ctx context.Context, s *survey, batch []look) {
	large := operation.DefaultBudget().SlicePoints // what is larger may be cut
	known, of := int64(0), int32(-1)
	for i := range batch {
		l := &batch[i]
		if l.span == 0 || l.points <= large {
			continue
		}
		// The windows of one measurement follow one another.
		if l.moving != of {
			left := e.deadline.Sub(e.now())
			if left <= 0 {
				return
			}
			known, of = s.cardinality(ctx, l, left), l.moving
		}
		s.spans[l.span-1].series = known
	}
}

// manySeries is assumed where the server takes too long to count them.
const manySeries = 1_000_000

func (s *survey) cardinality(ctx context.Context, l *look, limit time.Duration) int64 {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	n, err := s.client.Cardinality(ctx, s.selection(l))
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return manySeries
	}
	return n
}

// hidden returns the points to be expected in a window that looks empty: under
// several groups with several types the server may only hide what there is.
func (s *survey) hidden(ctx context.Context, holder *survey, l *look, sel *influx.Selection) (int64, error) {
	c := s.candidate(l)
	if !c.Window.Overlap {
		return 0, nil
	}
	types := &s.types
	if holder != s {
		types = &influx.MixedTypes{} // the holder's own are its own survey's
	}
	mixed, err := types.Of(ctx, holder.client, sel)
	return int64(min(len(mixed), 1)), err
}

// probeWindow is the middle part of the time between two points, or all of it
// when that is short.
func probeWindow(first, last int64) influx.Window {
	width := uint64(last) - uint64(first)
	if share(first, last) == 1 {
		return influx.Window{From: first, To: last, Last: true}
	}
	part := width / probePart
	from := int64(uint64(first) + (width-part)/2)
	return influx.Window{From: from, To: int64(uint64(from) + part)}
}

// share is how many times a probe's points go into the whole.
func share(first, last int64) int64 {
	if uint64(last)-uint64(first) < uint64(time.Millisecond) {
		return 1
	}
	return probePart
}

// extrapolate gives the windows that were not looked at the mean of the others,
// and returns how many there are.
func extrapolate(looks []look, seen int) int {
	if seen == len(looks) {
		return 0
	}
	var points int64
	for i := range looks[:seen] {
		points += looks[i].points
	}
	mean := max(points/int64(seen), 1)
	for i := range looks[seen:] {
		looks[seen+i].points = mean
	}
	return len(looks) - seen
}
