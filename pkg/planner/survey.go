package planner

import (
	"context"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/patience"
)

// survey is what one backend holds and has to give.
type survey struct {
	index int
	url   string
	// circle is the index of its circle in the layout, noCircle for a removed
	// backend. place is the index of the first survey of the same server: two
	// backends on one server are one place.
	circle, place int
	client        *influx.Client
	backend       operation.PlanBackend
	// began is when the operation did.
	began  time.Time
	waiter patience.Waiter
	// groups are the shard groups of each policy.
	groups map[policyName][]influx.ShardGroup
	types  influx.MixedTypes
	// databases has those with something to move.
	databases []databaseSurvey
	// spans are the times of points where the estimate has looked.
	spans []span
	// sampled counts the windows whose points are estimated from others.
	sampled int
	// lists is set where every measurement is listed, whether it moves or not:
	// listings then has all databases, sorted by name.
	lists    bool
	listings []listing
	// lost is set where a dry run goes on without the backend.
	lost bool
}

// noCircle is the circle of a backend that has left its own.
const noCircle = -1

type policyName struct{ database, policy string }

type databaseSurvey struct {
	name     string
	policies []influx.RetentionPolicy
	// held are the measurements that may have somewhere to go; moving says where
	// each of them does go, by its routes.
	held   []string
	moving []moving
	routes []route
	// pointBytes is about what a point takes as a line, 0 while none was looked at.
	pointBytes int64
}

// moving is a measurement that goes somewhere; one may go to several places.
type moving struct {
	measurement string
	route       int32
}

// route is a way that measurements of one database take from one backend.
type route struct {
	to, wave int
	rule     operation.Rule
	// ends are further surveys whose points the windows have to cover.
	ends []int
	// back: the backend that holds it is the destination, and what it is to be
	// compared with the source.
	back bool
	// still: nothing is written on this way, both ends are only compared. inward:
	// what is written comes from the other end.
	still, inward bool
	// windows are those of each policy; a clear has the same for all of them.
	windows [][]operation.Window
}

// is reports whether two routes are one.
func (r *route) is(o *route) bool {
	return r.to == o.to && r.wave == o.wave && r.rule == o.rule && r.back == o.back && slices.Equal(r.ends, o.ends)
}

// flows are from where to where points may be written on a route from a source.
func (r *route) flows(source int) [][2]int {
	switch {
	case r.still:
		return nil
	case r.inward:
		return [][2]int{{r.to, source}}
	}
	out := [][2]int{{source, r.to}}
	if r.rule.Mutual {
		for _, end := range r.ends {
			out = append(out, [2]int{end, source})
		}
	}
	return out
}

// add notes that a measurement takes a route.
func (d *databaseSurvey) add(measurement string, r route) {
	at := slices.IndexFunc(d.routes, func(known route) bool { return known.is(&r) })
	if at < 0 {
		at = len(d.routes)
		d.routes = append(d.routes, r)
	}
	d.moving = append(d.moving, moving{measurement, int32(at)})
}

// database returns what the survey knows of a database; they are sorted by name.
func (s *survey) database(name string) *databaseSurvey {
	i, ok := slices.BinarySearchFunc(s.databases, name, func(d databaseSurvey, name string) int { return strings.Compare(d.name, name) })
	if !ok {
		return nil
	}
	return &s.databases[i]
}

// surveySources is how many backends are surveyed at once.
const surveySources = 4

// patiently is patience.Do for what a survey asks one backend, which need not
// be its own.
func (s *survey) patiently(ctx context.Context, p *Planner, what string, of *survey, f func(context.Context) error) error {
	c := patience.Call{What: what + " " + of.url, Clients: []*influx.Client{of.client}, Since: s.began}
	return p.patience.Do(ctx, c, s.waiter, f)
}

// read lists what the backend holds. goes says which measurements may have
// somewhere to go; nil means that none has, and they are not even listed.
func (s *survey) read(ctx context.Context, p *Planner, wanted []string, goes func(db, measurement string) bool) error {
	var databases []string
	err := s.patiently(ctx, p, "reading the schema of", s, func(ctx context.Context) error {
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
	if err != nil || goes == nil && !s.lists {
		return err
	}
	counts := goes != nil
	if !counts {
		goes = func(string, string) bool { return false }
	}
	slices.Sort(databases)
	for _, db := range databases {
		if len(wanted) > 0 && !slices.Contains(wanted, db) {
			continue
		}
		d := databaseSurvey{name: db}
		var total int
		var names []string
		err := s.patiently(ctx, p, "reading the measurements of", s, func(ctx context.Context) (err error) {
			total, names, err = s.readDatabase(ctx, &d, goes)
			return err
		})
		if err != nil {
			return err
		}
		if s.lists {
			slices.Sort(names)
			s.listings = append(s.listings, listing{name: db, policies: slices.Clone(d.policies), names: names})
		}
		if !counts {
			continue
		}
		s.backend.Databases++
		s.backend.Measurements += total
		s.backend.InPlace += total - len(d.held)
		if len(d.held) > 0 {
			s.databases = append(s.databases, d)
		}
	}
	return nil
}

// readDatabase lists the measurements of d that may have somewhere to go, and
// returns how many there are in all, and with lists their names.
func (s *survey) readDatabase(ctx context.Context, d *databaseSurvey, goes func(db, measurement string) bool) (total int, names []string, err error) {
	d.held = d.held[:0]
	for name, err := range s.client.Measurements(ctx, d.name) {
		if err != nil {
			return 0, nil, err
		}
		if s.lists {
			names = append(names, name)
		}
		if total++; total%aliveEvery == 0 {
			s.waiter.Alive()
		}
		if goes(d.name, name) {
			d.held = append(d.held, name)
		}
	}
	d.policies, err = s.client.RetentionPolicies(ctx, d.name)
	return total, names, err
}

// tellApart finds the backends that are one server under two addresses, by asking
// each who it is: whoever deletes must not take two names for two copies.
func (p *Planner) tellApart(ctx context.Context, v *preview) error {
	sources := v.sources
	ids := make([]influx.Identity, len(sources))
	err := v.all(ctx, func(ctx context.Context, s *survey) error {
		return s.patiently(ctx, p, "asking who is", s, func(ctx context.Context) (err error) {
			ids[s.index], err = s.client.Identity(ctx)
			return err
		})
	})
	if err != nil {
		return err
	}
	for i, s := range sources {
		for j := range i {
			if !s.lost && !sources[j].lost && ids[i].Same(ids[j]) {
				s.place = sources[j].place
				break
			}
		}
	}
	return nil
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
