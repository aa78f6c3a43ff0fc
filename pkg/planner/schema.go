package planner

import (
	"context"
	"slices"
	"strings"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/patience"
)

// listing is one database of a backend as the survey read it, whether or not anything
// of it moves. It is kept for previews only.
type listing struct {
	name     string
	policies []influx.RetentionPolicy
	// names are those of its measurements, sorted.
	names []string
}

// has reports whether the database holds a measurement.
func (l *listing) has(measurement string) bool {
	_, ok := slices.BinarySearch(l.names, measurement)
	return ok
}

// listed returns the listing of a database, nil when the backend does not have it.
func (s *survey) listed(database string) *listing {
	i, ok := slices.BinarySearchFunc(s.listings, database, func(l listing, name string) int { return strings.Compare(l.name, name) })
	if !ok {
		return nil
	}
	return &s.listings[i]
}

// Changed says how the backends are not as they were when a plan was made: databases,
// retention policies and measurements, and whose values count. It returns "" when
// nothing has changed that its slices depend on. Like Plan it waits for backends that
// do not answer, for as long as they are put up with.
func (p *Planner) Changed(ctx context.Context, op *operation.Operation, at Layout, plan *operation.Plan, job Job) (difference string, err error) {
	if plan.Schema == nil {
		return "the plan does not say what it was made from", nil
	}
	parameters, err := operation.ParseMove(op.Kind, op.Parameters)
	if err != nil {
		return "", err
	}
	sources, err := p.sources(ctx, op, at, parameters, patience.Share(job))
	for _, s := range sources {
		defer s.client.Close()
	}
	if err != nil {
		return "", err
	}
	r := newRouter(parameters, at, sources)
	err = surveyAll(ctx, sources, func(ctx context.Context, s *survey) error {
		if !r.asks(s) {
			return nil
		}
		s.lists = true
		return s.read(ctx, p, parameters.Tuned().Databases, nil)
	})
	if err != nil {
		return "", err
	}
	now := schemaOf(at, r, sources, false)
	// In a transition clients write to the new owners, too.
	return plan.Schema.Difference(&now, func(url, database, measurement string) bool {
		return slices.ContainsFunc(sources, func(s *survey) bool {
			return s.url == url && r.owns(s, database, measurement) && r.circles[s.circle].FormerRules
		})
	}), nil
}

// schemaOf is what the sources have been found to have. bounded keeps no more names
// than a plan may; whoever compares needs all.
func schemaOf(at Layout, r *router, sources []*survey, bounded bool) operation.PlanSchema {
	var out operation.PlanSchema
	for i := range at.Circles {
		c := &at.Circles[i]
		out.Circles = append(out.Circles, operation.CircleSchema{Circle: c.Circle.ID, FormerRules: c.FormerRules, Proven: c.Proven})
	}
	kept := 0
	for _, s := range sources {
		if !r.asks(s) {
			continue
		}
		b := operation.BackendSchema{URL: s.url}
		for i := range s.listings {
			l := &s.listings[i]
			d := operation.DatabaseSchema{Name: l.name}
			for _, p := range l.policies {
				d.Policies = append(d.Policies, operation.PolicySchema{
					Name: p.Name, Duration: p.Duration, ShardDuration: p.ShardDuration, Replication: p.Replication, Default: p.Default,
				})
			}
			keep := !bounded || kept+len(l.names) <= operation.MaxSchemaNames
			if keep {
				kept += len(l.names)
			}
			d.SetNames(l.names, keep)
			b.Databases = append(b.Databases, d)
		}
		out.Backends = append(out.Backends, b)
	}
	return out
}
