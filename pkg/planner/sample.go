package planner

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
)

// Bounds of what is counted to show a balance, beside surveyBudget.
const (
	// sampledMeasurements is how many measurements are counted at each backend that
	// holds them, sampledWindows in how many windows of each policy, and
	// sampledAtOnce how many windows are asked for together.
	sampledMeasurements = 1000
	sampledWindows      = 32
	sampledAtOnce       = 200
	// countedWhole is the estimate up to which the points of a window are counted
	// rather than estimated, where somebody is going to look at the numbers.
	countedWhole = 20_000
)

// sampling counts points for a balance.
type sampling struct {
	*Planner

	sources []*survey
	period  operation.Period
	started cutoffs
	cohorts []*cohort
	// of are the sources by place.
	of map[int]*survey
	// counted and all are measurements, for people.
	counted, all int
}

// cutoffs gives the retention cutoff of a policy.
type cutoffs func(p *influx.RetentionPolicy) cutoff

// drawn is one measurement whose points are counted.
type drawn struct {
	g    *cohort
	name string
	// counted are points by window of the cohort's grid and by holder.
	counted [][]int64
}

// sample counts some measurements of each cohort, first one of each and then more of
// all, as far as the time allows.
func (s *sampling) sample(ctx context.Context) error {
	s.of = map[int]*survey{}
	for _, o := range s.sources {
		if _, ok := s.of[o.place]; !ok && len(o.listings) > 0 {
			s.of[o.place] = o
		}
	}
	// What is known to be large comes first, then the large cohorts: they weigh most.
	slices.SortStableFunc(s.cohorts, func(a, b *cohort) int {
		if a.large != b.large {
			if a.large {
				return -1
			}
			return 1
		}
		return cmp.Compare(len(b.names), len(a.names))
	})
	for _, g := range s.cohorts {
		g.shuffle()
		s.all += len(g.names)
	}
	deadline := s.now().Add(surveyBudget)
	var batch []drawn
	size := 0
	flush := func() error {
		if err := s.count(ctx, batch); err != nil {
			return err
		}
		for i := range batch {
			batch[i].g.add(batch[i].counted)
		}
		s.counted += len(batch)
		batch, size = batch[:0], 0
		return nil
	}
	for turn, more := 0, true; more; turn++ {
		more = false
		for _, g := range s.cohorts {
			if turn >= len(g.names) {
				continue
			}
			if s.counted+len(batch) >= sampledMeasurements || s.counted > 0 && !s.now().Before(deadline) {
				return flush()
			}
			more = true
			if turn == 0 {
				s.cut(g)
			}
			batch = append(batch, drawn{g: g, name: g.names[turn]})
			if size += len(g.grid) * g.holders; size < sampledAtOnce {
				continue
			}
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// cut finds the windows that are counted of a cohort's measurements.
func (s *sampling) cut(g *cohort) {
	policies := map[string]influx.RetentionPolicy{}
	for _, place := range g.at[:g.holders] {
		for _, p := range s.of[place].listed(g.database).policies {
			if known, ok := policies[p.Name]; !ok || keepsLonger(p.Duration, known.Duration) {
				policies[p.Name] = p
			}
		}
	}
	for _, name := range sortedKeys(policies) {
		var held [][]influx.ShardGroup
		for _, place := range g.at[:g.holders] {
			if groups := s.of[place].groups[policyName{g.database, name}]; len(groups) > 0 {
				held = append(held, groups)
			}
		}
		if len(held) == 0 {
			continue
		}
		p := policies[name]
		g.grid = append(g.grid, thin(divided(name, windows(held, nil, s.started(&p)), s.period))...)
	}
}

// divided marks what a period has of windows, and what it has not.
func divided(policy string, all []operation.Window, p operation.Period) []gridWindow {
	var out []gridWindow
	for _, w := range all {
		inside := within([]operation.Window{w}, p)
		out = append(out, gridWindow{policy: policy, Window: w, weight: 1, moves: len(inside) > 0 && !w.Expired})
		if len(inside) == 0 || inside[0] == w {
			continue
		}
		out[len(out)-1].Window = inside[0]
		if before := w; before.From < inside[0].From {
			before.To, before.Last = inside[0].From, false
			out = append(out, gridWindow{policy: policy, Window: before, weight: 1})
		}
		if after := w; inside[0].To < w.To || w.Last && !inside[0].Last {
			after.From = inside[0].To
			out = append(out, gridWindow{policy: policy, Window: after, weight: 1})
		}
	}
	return out
}

// thin keeps some windows, evenly spread, that stand for the others.
func thin(all []gridWindow) []gridWindow {
	if len(all) <= sampledWindows {
		return all
	}
	var out []gridWindow
	for i := range sampledWindows {
		w := all[i*len(all)/sampledWindows]
		w.weight = float64(len(all)) / sampledWindows
		out = append(out, w)
	}
	return out
}

// count counts the drawn measurements at all that hold them.
func (s *sampling) count(ctx context.Context, batch []drawn) error {
	places := map[int]bool{}
	for i := range batch {
		d := &batch[i]
		d.counted = make([][]int64, len(d.g.grid))
		for w := range d.counted {
			d.counted[w] = make([]int64, d.g.holders)
		}
		for _, place := range d.g.at[:d.g.holders] {
			places[place] = true
		}
	}
	var asked []*survey
	for _, place := range sortedKeys(places) {
		asked = append(asked, s.of[place])
	}
	return surveyAll(ctx, asked, func(ctx context.Context, o *survey) error { return s.countAt(ctx, o, batch) })
}

// countAt counts the drawn measurements at one backend.
func (s *sampling) countAt(ctx context.Context, o *survey, batch []drawn) error {
	var sels []influx.Selection
	var into []*int64
	for i := range batch {
		d := &batch[i]
		k := slices.Index(d.g.at[:d.g.holders], o.place)
		if k < 0 {
			continue
		}
		for n := range d.g.grid {
			w := &d.g.grid[n]
			if !slices.ContainsFunc(o.groups[policyName{d.g.database, w.policy}], func(g influx.ShardGroup) bool {
				return g.From < w.To && w.From < g.To || g.ToInclusive && w.Last
			}) {
				continue
			}
			sels = append(sels, influx.Selection{
				Database: d.g.database, RetentionPolicy: w.policy, Measurement: d.name,
				Window: influx.Window{From: w.From, To: w.To, Last: w.Last},
			})
			into = append(into, &d.counted[n][k])
		}
	}
	var points []int64
	err := s.patiently(ctx, "counting points at", o, func(ctx context.Context) (err error) {
		points, err = countEach(ctx, o.client, sels)
		return err
	})
	if err != nil {
		return err
	}
	for i, n := range points {
		*into[i] = n
	}
	return nil
}

func (s *sampling) patiently(ctx context.Context, what string, o *survey, f func(context.Context) error) error {
	return o.patiently(ctx, s.Planner, what, o, f)
}

// countEach estimates the points of selections; those that the server refuses to read
// have none that anybody could count.
func countEach(ctx context.Context, c *influx.Client, sels []influx.Selection) ([]int64, error) {
	points, err := countAll(ctx, c, sels)
	switch {
	case err == nil, !refusedForGood(err):
		return points, err
	case len(sels) == 1:
		return []int64{0}, nil
	}
	points = make([]int64, len(sels))
	for i := range sels {
		one, err := countEach(ctx, c, sels[i:i+1])
		if err != nil {
			return nil, err
		}
		points[i] = one[0]
	}
	return points, nil
}

func countAll(ctx context.Context, c *influx.Client, sels []influx.Selection) ([]int64, error) {
	if len(sels) == 0 {
		return nil, nil
	}
	extents, err := c.Extents(ctx, sels)
	if err != nil {
		return nil, fmt.Errorf("looking for points: %w", err)
	}
	return pointsIn(ctx, c, sels, extents, true)
}

// pointsIn estimates how many points selections have between their first and last
// ones, 0 where there is none: a part of the time between is counted. With whole, what
// is not much is counted itself.
func pointsIn(ctx context.Context, c *influx.Client, sels []influx.Selection, extents []influx.Extent, whole bool) ([]int64, error) {
	points := make([]int64, len(sels))
	var probes []influx.Selection
	var of []int
	for n, e := range extents {
		if e.Empty {
			continue
		}
		probe := sels[n]
		probe.Window = probeWindow(e.First, e.Last)
		probes, of = append(probes, probe), append(of, n)
	}
	totals, err := totalsOf(ctx, c, probes)
	if err != nil {
		return nil, err
	}
	var again []int
	for k, n := range of {
		points[n] = max(totals[k]*share(extents[n].First, extents[n].Last), 1)
		if whole && share(extents[n].First, extents[n].Last) > 1 && points[n] <= countedWhole {
			again = append(again, n)
		}
	}
	probes = probes[:0]
	for _, n := range again {
		probes = append(probes, sels[n])
	}
	if totals, err = totalsOf(ctx, c, probes); err != nil {
		return nil, err
	}
	for k, n := range again {
		points[n] = max(totals[k], 1)
	}
	return points, nil
}

func totalsOf(ctx context.Context, c *influx.Client, sels []influx.Selection) ([]int64, error) {
	if len(sels) == 0 {
		return nil, nil
	}
	totals, err := c.Totals(ctx, sels)
	if err != nil {
		return nil, fmt.Errorf("counting a sample: %w", err)
	}
	return totals, nil
}
