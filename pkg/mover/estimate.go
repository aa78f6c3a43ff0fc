package mover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"ringmaster/pkg/influx"
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
	database, policy, moving, window int32
	// span is the index of its span plus 1, 0 while it has not been looked at.
	span int32
	// points is the estimate, 0 where there is none.
	points int64
}

// span is the time between the first and the last point of a window. series are
// those of its measurement, where they have been counted.
type span struct{ first, last, series int64 }

// candidate writes a look out.
func (s *survey) candidate(l *look) operation.Candidate {
	d := &s.databases[l.database]
	mv := &d.moving[l.moving]
	c := operation.Candidate{
		From: s.index, To: mv.owner, Wave: mv.wave,
		Database: d.name, RetentionPolicy: d.policies[l.policy].Name, Measurement: mv.measurement,
		Window: d.windows[l.policy][mv.owner][l.window], Points: l.points,
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

// estimate finds, for every measurement and window that moves, whether there is
// anything and about how much. When the time it may take is over, the rest is
// estimated from what was seen, so that a hundred thousand measurements are
// planned in seconds. What lies before the retention cutoff of started is
// expired.
func (s *survey) estimate(ctx context.Context, m *Mover, all []*survey, started time.Time) ([]look, error) {
	var out []look
	deadline := m.config.Now().Add(surveyBudget)
	for i := range s.databases {
		d := &s.databases[i]
		order := sampleOrder(d.moving)
		d.windows = make([]map[int][]operation.Window, len(d.policies))
		for j := range d.policies {
			first := len(out)
			out = s.looks(out, i, j, order, all, started)
			looks := out[first:]
			seen := 0
			// A policy of which nothing is known would be planned blindly, so
			// each gets a first look.
			for seen < len(looks) && (seen == 0 || m.config.Now().Before(deadline)) {
				n := min(seen+surveyStatements, len(looks))
				if err := s.lookAt(ctx, m, looks[seen:n]); err != nil {
					return nil, err
				}
				s.countSeries(ctx, m, looks[seen:n], deadline)
				seen = n
			}
			s.sampled += extrapolate(looks, seen)
			looks = slices.DeleteFunc(looks, func(l look) bool { return l.points == 0 })
			out = out[:first+len(looks)]
		}
	}
	return out, nil
}

// looks appends the windows of the measurements that move, of one policy.
func (s *survey) looks(out []look, database, policy int, order []int, all []*survey, started time.Time) []look {
	d := &s.databases[database]
	p := &d.policies[policy]
	name := policyName{d.name, p.Name}
	c := cutoff{at: started.Add(-p.Duration).UnixNano(), set: p.Duration > 0}
	byOwner := map[int][]operation.Window{}
	d.windows[policy] = byOwner
	for _, i := range order {
		to := d.moving[i].owner
		w, ok := byOwner[to]
		if !ok {
			w = windows(s.groups[name], all[to].groups[name], c)
			byOwner[to] = w
		}
		out = slices.Grow(out, len(w))
		for n := range w {
			out = append(out, look{database: int32(database), policy: int32(policy), moving: int32(i), window: int32(n)})
		}
	}
	return out
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
func (s *survey) lookAt(ctx context.Context, m *Mover, batch []look) error {
	err := s.patiently(ctx, m, "estimating points at", func(ctx context.Context) error { return s.probe(ctx, batch) })
	var refusal *influx.Error
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, influx.ErrUnaddressable) && !(errors.As(err, &refusal) && refusal.Class == influx.Permanent):
		return err
	case len(batch) == 1:
		batch[0].points = 1
		return nil
	}
	for i := range batch {
		if err := s.lookAt(ctx, m, batch[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// probe finds first and last times, and counts a part of the time between.
func (s *survey) probe(ctx context.Context, batch []look) error {
	sels := make([]influx.Selection, len(batch))
	for i := range batch {
		sels[i] = s.selection(&batch[i])
	}
	extents, err := s.client.Extents(ctx, sels)
	if err != nil {
		return fmt.Errorf("looking for points: %w", err)
	}
	var probes []influx.Selection
	var of []int
	for i, e := range extents {
		batch[i].points, batch[i].span = 0, 0
		if e.Empty {
			if batch[i].points, err = s.hidden(ctx, &batch[i], &sels[i]); err != nil {
				return err
			}
			continue
		}
		s.spans = append(s.spans, span{first: e.First, last: e.Last})
		batch[i].span = int32(len(s.spans))
		probe := sels[i]
		probe.Window = probeWindow(e.First, e.Last)
		probes, of = append(probes, probe), append(of, i)
	}
	if len(probes) == 0 {
		return nil
	}
	totals, err := s.client.Totals(ctx, probes)
	if err != nil {
		return fmt.Errorf("counting a sample: %w", err)
	}
	for n, i := range of {
		at := s.spans[batch[i].span-1]
		batch[i].points = max(totals[n]*share(at.first, at.last), 1)
	}
	return nil
}

// countSeries counts the series of measurements with large windows, as long as
// there is time. It is a help for cutting them well, so an error is none.
func (s *survey) countSeries(ctx context.Context, m *Mover, batch []look, deadline time.Time) {
	large := operation.DefaultBudget().SlicePoints // what is larger may be cut
	known, of := int64(0), int32(-1)
	for i := range batch {
		l := &batch[i]
		if l.span == 0 || l.points <= large {
			continue
		}
		// The windows of one measurement follow one another.
		if l.moving != of {
			left := deadline.Sub(m.config.Now())
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
func (s *survey) hidden(ctx context.Context, l *look, sel *influx.Selection) (int64, error) {
	c := s.candidate(l)
	if !c.Window.Overlap {
		return 0, nil
	}
	mixed, err := s.types.of(ctx, s.client, sel)
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
