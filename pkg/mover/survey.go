package mover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sync/errgroup"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
)

// survey is what one backend holds and has to give.
type survey struct {
	index   int
	url     string
	client  *influx.Client
	backend operation.PlanBackend
	waiter  Waiter
	// groups are the shard groups of each policy.
	groups map[policyName][]influx.ShardGroup
	// databases has those with something to move.
	databases []databaseSurvey
	// sampled counts the windows whose points are estimated from others.
	sampled int
}

type policyName struct{ database, policy string }

type databaseSurvey struct {
	name     string
	policies []influx.RetentionPolicy
	moving   []moving
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

// patiently is Mover.patiently for one backend.
func (s *survey) patiently(ctx context.Context, m *Mover, what string, f func(context.Context) error) error {
	return m.patiently(ctx, call{what: what + " " + s.url, clients: []*influx.Client{s.client}}, s.waiter, f)
}

// read lists what the backend holds and what of it belongs elsewhere. owner
// returns the index of the backend that owns a measurement.
func (s *survey) read(ctx context.Context, m *Mover, wanted []string, owner func(db, measurement string) int) error {
	var databases []string
	err := s.patiently(ctx, m, "reading the schema of", func(ctx context.Context) error {
		var err error
		if databases, err = s.client.Databases(ctx); err != nil {
			return err
		}
		groups, err := s.client.ShardGroups(ctx)
		s.groups = map[policyName][]influx.ShardGroup{}
		for _, g := range groups {
			n := policyName{g.Database, g.RetentionPolicy}
			s.groups[n] = append(s.groups[n], g)
		}
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
		err := s.patiently(ctx, m, "reading the measurements of", func(ctx context.Context) (err error) {
			total, err = s.readDatabase(ctx, &d, owner)
			return err
		})
		if err != nil {
			return err
		}
		s.backend.Databases++
		s.backend.Measurements += total
		s.backend.InPlace += total - len(d.moving)
		if len(d.moving) > 0 {
			s.databases = append(s.databases, d)
		}
	}
	return nil
}

// readDatabase lists the measurements of d that belong elsewhere, and returns
// how many there are in all.
func (s *survey) readDatabase(ctx context.Context, d *databaseSurvey, owner func(db, measurement string) int) (total int, err error) {
	d.moving = d.moving[:0]
	for name, err := range s.client.Measurements(ctx, d.name) {
		if err != nil {
			return 0, err
		}
		if total++; total%aliveEvery == 0 {
			s.waiter.Alive()
		}
		if to := owner(d.name, name); to != s.index {
			d.moving = append(d.moving, moving{measurement: name, owner: to})
		}
	}
	d.policies, err = s.client.RetentionPolicies(ctx, d.name)
	return total, err
}

// look is one measurement window the estimate has to look at.
type look struct {
	candidate operation.Candidate
	empty     bool
}

// estimate finds, for every measurement and window that moves, whether there is
// anything and about how much. When the time it may take is over, the rest is
// estimated from what was seen, so that a hundred thousand measurements are
// planned in seconds. What lies before the retention cutoff of started is
// expired.
func (s *survey) estimate(ctx context.Context, m *Mover, all []*survey, started time.Time) ([]operation.Candidate, error) {
	var out []operation.Candidate
	deadline := m.config.Now().Add(surveyBudget)
	for _, d := range s.databases {
		order := sampleOrder(d.moving)
		for _, p := range d.policies {
			looks := s.looks(&d, &p, order, all, started)
			seen := 0
			// A policy of which nothing is known would be planned blindly, so
			// each gets a first look.
			for seen < len(looks) && (seen == 0 || m.config.Now().Before(deadline)) {
				n := min(seen+surveyStatements, len(looks))
				if err := s.lookAt(ctx, m, looks[seen:n]); err != nil {
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

// looks lists the windows of the measurements that move, of one policy.
func (s *survey) looks(d *databaseSurvey, p *influx.RetentionPolicy, order []int, all []*survey, started time.Time) []look {
	name := policyName{d.name, p.Name}
	c := cutoff{at: started.Add(-p.Duration).UnixNano(), set: p.Duration > 0}
	byOwner := map[int][]operation.Window{}
	var out []look
	for _, i := range order {
		to := d.moving[i].owner
		w, ok := byOwner[to]
		if !ok {
			w = windows(s.groups[name], all[to].groups[name], c)
			byOwner[to] = w
		}
		for _, win := range w {
			out = append(out, look{candidate: operation.Candidate{
				From: s.index, To: to, Wave: d.moving[i].wave,
				Database: d.name, RetentionPolicy: p.Name, Measurement: d.moving[i].measurement,
				Window: win,
			}})
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
		batch[0].candidate.Points = 1
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
		if batch[i].empty = extents[i].Empty; batch[i].empty {
			// Under several groups the server may only hide what there is.
			if c.Window.Overlap {
				mixed, err := mixedTypes(ctx, s.client, &sels[i])
				if err != nil {
					return err
				}
				batch[i].empty, c.Points = len(mixed) == 0, 1
			}
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
