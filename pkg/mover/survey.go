package mover

import (
	"context"
	"slices"

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
	types  fieldTypes
	// databases has those with something to move.
	databases []databaseSurvey
	// spans are the times of points where the estimate has looked.
	spans []span
	// sampled counts the windows whose points are estimated from others.
	sampled int
}

type policyName struct{ database, policy string }

type databaseSurvey struct {
	name     string
	policies []influx.RetentionPolicy
	moving   []moving
	// windows are those of each policy, by owner.
	windows []map[int][]operation.Window
}

// moving is a measurement that belongs elsewhere.
type moving struct {
	measurement string
	owner       int
	wave        int
}

// surveySources is how many backends are surveyed at once.
const surveySources = 4

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

// surveyAll reads and estimates all sources, a few at a time.
func surveyAll(ctx context.Context, sources []*survey, f func(context.Context, *survey) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(surveySources)
	for _, s := range sources {
		g.Go(func() error { return f(ctx, s) })
	}
	return g.Wait()
}
