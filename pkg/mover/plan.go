package mover

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/topology"
)

// Layout is where things belong while an operation is planned.
type Layout struct {
	Epoch uint64
	// Circles are those that the operation is about, as it names them: for
	// a recovery first the one that is read.
	Circles []CircleLayout
}

// CircleLayout is where the measurements of one circle belong.
type CircleLayout struct {
	// Circle and Placement are of the operation's epoch.
	Circle    *topology.Circle
	Placement *topology.Placement
	// Former is the placement of the epoch before, nil when there is none. Where
	// two sources hold a point, the former owner's is copied first and stays.
	Former *topology.Placement
}

// PlanJob is what a planner needs of whoever runs it.
type PlanJob interface {
	Alive()
	Wait(w *operation.Wait)
	// PutChunk stores a chunk of the plan.
	PutChunk(ctx context.Context, n int, slices []operation.Slice) (operation.Document, error)
}

// Plan surveys the backends and plans a rebalance: what lies where it does not
// belong, cut into slices, bundled into tasks. The plan has no tasks when
// everything is in place.
func (m *Mover) Plan(ctx context.Context, op *operation.Operation, at Layout, job PlanJob) (operation.Plan, error) {
	started := m.config.Now()
	plan := operation.Plan{OperationID: op.ID, Epoch: at.Epoch, CreatedAt: started.UTC()}
	parameters, err := operation.ParseRebalance(op.Parameters)
	if err != nil {
		return plan, err
	}
	sources, err := m.sources(ctx, op, at.Circles[0].Circle, parameters.RemovedBackends, &sharedWaiter{to: job, waits: map[string]*operation.Wait{}})
	for _, s := range sources {
		defer s.client.Close()
	}
	if err != nil {
		return plan, err
	}
	byURL := map[string]int{}
	for i := range at.Circles[0].Circle.Backends {
		byURL[at.Circles[0].Circle.Backends[i].URL] = i
	}
	owner := func(db, measurement string) int {
		return byURL[at.Circles[0].Placement.Owner(db, measurement).URL]
	}
	err = surveyAll(ctx, sources, func(ctx context.Context, s *survey) error {
		return s.read(ctx, m, parameters.Databases, owner)
	})
	if err != nil {
		return plan, err
	}
	assignWaves(sources, at.Circles[0].Former)
	found := make([][]look, len(sources))
	err = surveyAll(ctx, sources, func(ctx context.Context, s *survey) (err error) {
		found[s.index], err = s.estimate(ctx, m, sources, started)
		return err
	})
	if err != nil {
		return plan, err
	}
	for _, s := range sources {
		plan.Backends = append(plan.Backends, s.backend)
		if s.sampled > 0 {
			plan.Notes = append(plan.Notes, fmt.Sprintf("%s: the points of %d measurement windows are estimated from a sample", s.url, s.sampled))
		}
	}
	plan.Policies = policies(sources, found)
	return plan, bundle(ctx, &plan, sources, found, job)
}

// sources opens a client for every backend of the circle and every removed one.
func (m *Mover) sources(ctx context.Context, op *operation.Operation, circle *topology.Circle, removed []operation.RemovedBackend, w *sharedWaiter) ([]*survey, error) {
	var out []*survey
	add := func(b operation.PlanBackend) error {
		client, err := m.backends.Client(ctx, op, b.URL, nil)
		if err != nil {
			return fmt.Errorf("opening %s: %w", b.URL, err)
		}
		out = append(out, &survey{index: len(out), url: b.URL, client: client, backend: b, waiter: w.of(b.URL)})
		return nil
	}
	for i := range circle.Backends {
		b := &circle.Backends[i]
		if err := add(operation.PlanBackend{Name: b.Name, URL: b.URL}); err != nil {
			return out, err
		}
	}
	for _, b := range removed {
		for i := range circle.Backends {
			if topology.SameServer(circle.Backends[i].URL, b.URL) {
				return out, &operation.Error{
					Code:   "backend_not_removed",
					Detail: fmt.Sprintf("%s is still a backend of circle %d; take it out of the configuration first", b.URL, circle.ID),
				}
			}
		}
		if err := add(operation.PlanBackend{Name: b.Name, URL: b.URL, Removed: true}); err != nil {
			return out, err
		}
	}
	return out, nil
}

// assignWaves orders the sources of measurements that several of them hold and
// do not own: the former owner first, then removed backends, then the order of
// the configuration. Each goes a wave after the one before it, so that the
// first value to arrive is the one that stays.
func assignWaves(sources []*survey, former *topology.Placement) {
	type name struct{ database, measurement string }
	holders := map[name]int{}
	for _, s := range sources {
		for _, d := range s.databases {
			for _, mv := range d.moving {
				holders[name{d.name, mv.measurement}]++
			}
		}
	}
	ranks := map[name][]int{}
	for _, s := range sources {
		for _, d := range s.databases {
			for _, mv := range d.moving {
				if n := (name{d.name, mv.measurement}); holders[n] > 1 {
					ranks[n] = append(ranks[n], s.index)
				}
			}
		}
	}
	for n, order := range ranks {
		rank := func(i int) int {
			s := sources[i]
			switch {
			case former != nil && former.Owner(n.database, n.measurement).URL == s.url:
				return 0
			case s.backend.Removed:
				return 1
			default:
				return 2
			}
		}
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(rank(a), rank(b)) })
	}
	for _, s := range sources {
		for _, d := range s.databases {
			for i := range d.moving {
				if order, ok := ranks[name{d.name, d.moving[i].measurement}]; ok {
					d.moving[i].wave = slices.Index(order, s.index)
				}
			}
		}
	}
}

// bundle sorts what was found, by what its tasks have in common, and turns it
// into tasks.
func bundle(ctx context.Context, plan *operation.Plan, sources []*survey, found [][]look, job PlanJob) error {
	type entry struct {
		source int32
		look
	}
	var all []entry
	var total int64
	for i := range found {
		for _, l := range found[i] {
			all = append(all, entry{int32(i), l})
			total += l.points
		}
	}
	clear(found)
	slices.SortFunc(all, func(x, y entry) int {
		a, b := sources[x.source].candidate(&x.look), sources[y.source].candidate(&y.look)
		return cmp.Or(
			cmp.Compare(a.Wave, b.Wave), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To),
			strings.Compare(a.Database, b.Database), strings.Compare(a.RetentionPolicy, b.RetentionPolicy),
			strings.Compare(a.Measurement, b.Measurement), cmp.Compare(a.Window.From, b.Window.From))
	})
	b := operation.NewBundler(operation.DefaultBudget(), total, func(n int, slices []operation.Slice) (operation.Document, error) {
		return job.PutChunk(ctx, n, slices)
	})
	for i := range all {
		if err := b.Add(sources[all[i].source].candidate(&all[i].look)); err != nil {
			return fmt.Errorf("storing the plan: %w", err)
		}
	}
	if err := b.Finish(plan); err != nil {
		return fmt.Errorf("storing the plan: %w", err)
	}
	return nil
}

// policies lists what has to exist at each destination before points arrive:
// all policies of a database that has anything to move there. Where sources
// disagree about a policy, the one that keeps points longest counts, so that no
// point is refused.
func policies(sources []*survey, found [][]look) []operation.PlanPolicy {
	type target struct {
		backend  int
		database string
	}
	from := map[target]map[int]bool{}
	for i, s := range sources {
		for _, l := range found[i] {
			d := &s.databases[l.database]
			t := target{d.moving[l.moving].owner, d.name}
			if from[t] == nil {
				from[t] = map[int]bool{}
			}
			from[t][i] = true
		}
	}
	var out []operation.PlanPolicy
	for t, givers := range from {
		chosen := map[string]influx.RetentionPolicy{}
		byDefault := ""
		for _, s := range sources {
			if !givers[s.index] {
				continue
			}
			for _, p := range s.policies(t.database) {
				known, ok := chosen[p.Name]
				if !ok || keepsLonger(p.Duration, known.Duration) {
					chosen[p.Name] = p
				}
				if p.Default && byDefault == "" {
					byDefault = p.Name
				}
			}
		}
		for _, name := range sortedKeys(chosen) {
			p := chosen[name]
			out = append(out, operation.PlanPolicy{
				Backend: t.backend, Database: t.database, Name: name,
				Duration: p.Duration, ShardDuration: p.ShardDuration, Replication: p.Replication,
				Default: name == byDefault,
			})
		}
	}
	slices.SortFunc(out, func(a, b operation.PlanPolicy) int {
		return cmp.Or(cmp.Compare(a.Backend, b.Backend), strings.Compare(a.Database, b.Database), strings.Compare(a.Name, b.Name))
	})
	return out
}

// policies are those of a database with something to move; databases are sorted
// by name.
func (s *survey) policies(database string) []influx.RetentionPolicy {
	i, ok := slices.BinarySearchFunc(s.databases, database, func(d databaseSurvey, name string) int { return strings.Compare(d.name, name) })
	if !ok {
		return nil
	}
	return s.databases[i].policies
}

// keepsLonger compares durations of retention; 0 is for ever.
func keepsLonger(a, b time.Duration) bool {
	return b != 0 && (a == 0 || a > b)
}
