package mover

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sync/errgroup"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
)

// survey is what one source backend has to give.
type survey struct {
	index   int
	url     string
	client  *influx.Client
	backend operation.PlanBackend
	// databases has those with something to move.
	databases []databaseSurvey
	// sampled counts the windows whose points are estimated from others.
	sampled int
}

type databaseSurvey struct {
	name     string
	policies []policySurvey
	moving   []moving
}

type policySurvey struct {
	policy  influx.RetentionPolicy
	windows []operation.Window
}

// moving is a measurement that belongs elsewhere.
type moving struct {
	measurement string
	owner       int
	wave        int
}

// Budgets of a survey: looking at every measurement of a large cluster would
// take longer than moving it.
const (
	surveyBudget     = 5 * time.Second
	surveyStatements = 100
	surveySources    = 4
	// probePart is the part of a measurement's time that is counted to estimate
	// the rest.
	probePart = 16
)

// read lists what the backend holds and what of it belongs elsewhere. owner
// returns the index of the backend that owns a measurement.
func (s *survey) read(ctx context.Context, m *Mover, w Waiter, started time.Time, wanted []string, owner func(db, measurement string) int) error {
	var groups []influx.ShardGroup
	var databases []string
	err := m.patiently(ctx, "reading the schema of "+s.url, w, func(ctx context.Context) error {
		var err error
		if databases, err = s.client.Databases(ctx); err != nil {
			return err
		}
		groups, err = s.client.ShardGroups(ctx)
		return err
	})
	if err != nil {
		return err
	}
	slices.Sort(databases)
	for _, db := range databases {
		if len(wanted) > 0 && !slices.Contains(wanted, db) {
			continue
		}
		d := databaseSurvey{name: db}
		var total int
		err := m.patiently(ctx, "reading the measurements of "+s.url, w, func(ctx context.Context) error {
			d.moving, d.policies, total = d.moving[:0], d.policies[:0], 0
			for name, err := range s.client.Measurements(ctx, db) {
				if err != nil {
					return err
				}
				if total++; total%aliveEvery == 0 {
					w.Alive()
				}
				if to := owner(db, name); to != s.index {
					d.moving = append(d.moving, moving{measurement: name, owner: to})
				}
			}
			policies, err := s.client.RetentionPolicies(ctx, db)
			for _, p := range policies {
				d.policies = append(d.policies, policySurvey{policy: p})
			}
			return err
		})
		if err != nil {
			return err
		}
		s.backend.Databases++
		s.backend.Measurements += total
		s.backend.InPlace += total - len(d.moving)
		if len(d.moving) == 0 {
			continue
		}
		for i := range d.policies {
			p := &d.policies[i]
			var own []influx.ShardGroup
			for _, g := range groups {
				if g.Database == db && g.RetentionPolicy == p.policy.Name {
					own = append(own, g)
				}
			}
			cutoff := started.Add(-p.policy.Duration).UnixNano()
			p.windows = windows(own, cutoff, p.policy.Duration > 0)
		}
		s.databases = append(s.databases, d)
	}
	return nil
}

// look is one measurement window the estimate has to look at.
type look struct {
	candidate operation.Candidate
	empty     bool
}

// estimate finds, for every measurement and window that moves, whether there is
// anything and about how much. When the time it may take is over, the rest is
// estimated from what was seen, so that a hundred thousand measurements are
// planned in seconds.
func (s *survey) estimate(ctx context.Context, m *Mover, w Waiter) ([]operation.Candidate, error) {
	var out []operation.Candidate
	deadline := m.config.Now().Add(surveyBudget)
	for _, d := range s.databases {
		order := sampleOrder(d.moving)
		for _, p := range d.policies {
			looks := make([]look, 0, len(order)*len(p.windows))
			for _, i := range order {
				for _, win := range p.windows {
					looks = append(looks, look{candidate: operation.Candidate{
						From: s.index, To: d.moving[i].owner, Wave: d.moving[i].wave,
						Database: d.name, RetentionPolicy: p.policy.Name, Measurement: d.moving[i].measurement,
						Window: win,
					}})
				}
			}
			seen := 0
			for seen < len(looks) && m.config.Now().Before(deadline) {
				n := min(seen+surveyStatements, len(looks))
				batch := looks[seen:n]
				err := m.patiently(ctx, "estimating points at "+s.url, w, func(ctx context.Context) error {
					return s.lookAt(ctx, batch)
				})
				if err != nil {
					return nil, err
				}
				seen = n
			}
			s.sampled += extrapolate(looks, seen)
			for i := range looks {
				if !looks[i].empty {
					out = append(out, looks[i].candidate)
				}
			}
		}
	}
	return out, nil
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

// lookAt finds first and last times, and counts a part of the time between.
func (s *survey) lookAt(ctx context.Context, batch []look) error {
	sels := make([]influx.Selection, len(batch))
	for i := range batch {
		sels[i] = candidateSelection(&batch[i].candidate)
	}
	extents, err := s.client.Extents(ctx, sels)
	if err != nil {
		return fmt.Errorf("looking for points: %w", err)
	}
	var probes []influx.Selection
	var of []int
	for i := range batch {
		c := &batch[i].candidate
		if extents[i].Empty {
			batch[i].empty = true
			continue
		}
		c.First, c.Last, c.Looked = extents[i].First, extents[i].Last, true
		probe := sels[i]
		probe.Window = probeWindow(c.First, c.Last)
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
		c := &batch[i].candidate
		c.Points = max(totals[n]*share(c.First, c.Last), 1)
	}
	return nil
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
		points += looks[i].candidate.Points
	}
	mean := int64(1)
	if seen > 0 {
		mean = max(points/int64(seen), 1)
	}
	for i := range looks[seen:] {
		looks[seen+i].candidate.Points = mean
	}
	return len(looks) - seen
}

func candidateSelection(c *operation.Candidate) influx.Selection {
	return influx.Selection{
		Database: c.Database, RetentionPolicy: c.RetentionPolicy, Measurement: c.Measurement,
		Window: influx.Window{From: c.Window.From, To: c.Window.To, Last: c.Window.Last},
	}
}

// surveyAll reads and estimates all sources, a few at a time.
func surveyAll(ctx context.Context, sources []*survey, f func(context.Context, *survey) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(surveySources)
	for _, s := range sources {
		g.Go(func() error { return f(ctx, s) })
	}
	return g.Wait()
}
