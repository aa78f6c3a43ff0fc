// Package planner looks at the backends of circles and plans moves: what has to go
// where and by which rule, in which windows and about how much that is. It also
// prepares destinations. It reads schemas and estimates; it copies nothing.
package planner

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/patience"
	"ringmaster/pkg/topology"
)

// Layout is where things belong while an operation is planned.
type Layout struct {
	Epoch uint64
	// Circles are those that the operation is about, as it names them: for
	// a recovery first the one that is read, for a clear first the one that is
	// cleared and then all others, since a server may serve several.
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
	// FormerRules says that the circle is changing, and its former owners are the
	// ones that are read: their values count, and replace others at the owner.
	// Left are those of them that the circle has no more.
	FormerRules bool
	Left        []topology.Backend
	// Proven says that the owners have been proven since anybody else was one: a
	// leftover with another value is older than theirs.
	Proven bool
}

// Job is what a planner needs of whoever runs it.
type Job interface {
	Alive()
	Wait(w *operation.Wait)
	// PutChunk stores a chunk of the plan.
	PutChunk(ctx context.Context, n int, slices []operation.Slice) (operation.Document, error)
}

// Backends gives the clients that backends are surveyed with; see mover.Backends.
type Backends interface {
	Client(ctx context.Context, op *operation.Operation, url string, guard func() error) (*influx.Client, error)
}

// Planner plans moves.
type Planner struct {
	backends Backends
	patience *patience.Patience
	now      func() time.Time
}

// New returns a planner for the given backends; nil for now means time.Now.
func New(b Backends, p *patience.Patience, now func() time.Time) *Planner {
	if now == nil {
		now = time.Now
	}
	return &Planner{backends: b, patience: p, now: now}
}

// aliveEvery is how many names pass between two signs of life.
const aliveEvery = 10_000

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// Plan surveys the backends and plans a move: what has to go where, cut into
// slices, bundled into tasks. The plan has no tasks when there is nothing to move.
//
// For a dry run, and for an operation that is held for approval, it looks further and
// adds a preview; what is held also keeps the schema that Changed compares with. A dry
// run goes on without a backend that does not answer, and says so.
func (p *Planner) Plan(ctx context.Context, op *operation.Operation, at Layout, job Job) (operation.Plan, error) {
	if op.DryRun {
		brief := *p
		brief.patience = p.patience.Within(dryPatience)
		p = &brief
	}
	started := p.now()
	plan := operation.Plan{OperationID: op.ID, Kind: op.Kind, Epoch: at.Epoch, CreatedAt: started.UTC()}
	parameters, err := operation.ParseMove(op.Kind, op.Parameters)
	if err != nil {
		return plan, err
	}
	sources, err := p.sources(ctx, op, at, parameters, patience.Share(job))
	for _, s := range sources {
		defer s.client.Close()
	}
	if err != nil {
		return plan, err
	}
	r := newRouter(parameters, at, sources)
	v := &preview{Planner: p, op: op, sources: sources, router: r, sizes: map[int]map[string]int64{}, unread: map[operation.Slice]bool{}}
	if err := v.reach(ctx); err != nil {
		return plan, err
	}
	if err := p.survey(ctx, v, parameters); err != nil {
		return plan, err
	}
	if op.Hold {
		schema := schemaOf(at, r, sources, true)
		plan.Schema = &schema
	}
	r.assign()
	e := estimation{
		Planner: p, sources: sources, started: started,
		period: parameters.Period(op.CreatedAt), units: op.Kind == operation.KindClear,
	}
	if v.asked() {
		e.told = v
	}
	found := make([][]look, len(sources))
	err = v.all(ctx, func(ctx context.Context, s *survey) (err error) {
		found[s.index], err = e.of(ctx, s)
		return err
	})
	if err != nil {
		return plan, err
	}
	for _, s := range sources {
		if op.Kind == operation.KindClear && s.circle != 0 {
			continue // looked at only to be left alone; they come last
		}
		plan.Backends = append(plan.Backends, s.backend)
		if s.sampled > 0 {
			plan.Notes = append(plan.Notes, fmt.Sprintf("%s: the points of %d measurement windows are estimated from a sample", s.url, s.sampled))
		}
	}
	if !e.units {
		plan.Policies = policies(sources, found)
	}
	r.describe(&plan)
	if v.asked() {
		if err := v.show(ctx, &plan, &e, found); err != nil {
			return plan, err
		}
	}
	return plan, bundle(ctx, &plan, sources, found, job)
}

// survey reads what the sources have, as far as the move asks for it.
func (p *Planner) survey(ctx context.Context, v *preview, move operation.Move) error {
	if v.op.Kind == operation.KindClear || v.op.Kind == operation.KindVerify {
		if err := p.tellApart(ctx, v); err != nil {
			return err
		}
	}
	return v.all(ctx, func(ctx context.Context, s *survey) error {
		if !v.router.asks(s) {
			return nil
		}
		s.lists = v.asked()
		return s.read(ctx, p, move.Tuned().Databases, v.router.goes(s))
	})
}

// sources opens a client for every backend of the circles and every removed one.
func (p *Planner) sources(ctx context.Context, op *operation.Operation, at Layout, move operation.Move, w *patience.Shared) ([]*survey, error) {
	var out []*survey
	add := func(circle int, b operation.PlanBackend) error {
		client, err := p.backends.Client(ctx, op, b.URL, nil)
		if err != nil {
			return fmt.Errorf("opening %s: %w", b.URL, err)
		}
		s := &survey{index: len(out), circle: circle, url: b.URL, client: client, backend: b, began: operation.Began(op), waiter: w.Of(b.URL)}
		s.place = s.index
		if first := slices.IndexFunc(out, func(o *survey) bool { return topology.SameServer(o.url, s.url) }); first >= 0 {
			s.place = first
		}
		out = append(out, s)
		return nil
	}
	for i := range at.Circles {
		for _, b := range at.Circles[i].Circle.Backends {
			if err := add(i, operation.PlanBackend{Name: b.Name, URL: b.URL}); err != nil {
				return out, err
			}
		}
	}
	if _, ok := move.(operation.Verify); ok {
		// Those that a circle has left are read all the same until it is cut over.
		for i := range at.Circles {
			for _, b := range at.Circles[i].Left {
				if err := add(i, operation.PlanBackend{Name: b.Name, URL: b.URL, Removed: true}); err != nil {
					return out, err
				}
			}
		}
	}
	rebalance, ok := move.(operation.Rebalance)
	if !ok {
		return out, nil
	}
	for _, b := range at.Circles[0].Left {
		if slices.ContainsFunc(rebalance.RemovedBackends, func(o operation.RemovedBackend) bool { return topology.SameServer(o.URL, b.URL) }) {
			continue
		}
		if err := add(noCircle, operation.PlanBackend{Name: b.Name, URL: b.URL, Removed: true}); err != nil {
			return out, err
		}
	}
	for _, b := range rebalance.RemovedBackends {
		if circle := at.Circles[0].Circle; circle.On(b.URL) != nil {
			return out, &operation.Error{
				Code:   "backend_not_removed",
				Detail: fmt.Sprintf("%s is still a backend of circle %d; take it out of the configuration first", b.URL, circle.ID),
			}
		}
		if err := add(noCircle, operation.PlanBackend{Name: b.Name, URL: b.URL, Removed: true}); err != nil {
			return out, err
		}
	}
	return out, nil
}

// bundle sorts what was found, by what its tasks have in common, and turns it
// into tasks.
func bundle(ctx context.Context, plan *operation.Plan, sources []*survey, found [][]look, job Job) error {
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
			cmp.Compare(a.Wave, b.Wave), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), a.Rule.Compare(b.Rule),
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
	givers := map[target]map[int]bool{}
	give := func(from, to int, database string) {
		t := target{to, database}
		if givers[t] == nil {
			givers[t] = map[int]bool{}
		}
		givers[t][from] = true
	}
	for i, s := range sources {
		for _, l := range found[i] {
			d := &s.databases[l.database]
			r := &d.routes[d.moving[l.moving].route]
			for _, f := range r.flows(i) {
				give(f[0], f[1], d.name)
			}
		}
	}
	var out []operation.PlanPolicy
	for t, from := range givers {
		chosen := map[string]influx.RetentionPolicy{}
		byDefault := ""
		for _, s := range sources {
			d := s.database(t.database)
			if !from[s.index] || d == nil {
				continue
			}
			for _, p := range d.policies {
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

// keepsLonger compares durations of retention; 0 is for ever.
func keepsLonger(a, b time.Duration) bool {
	return b != 0 && (a == 0 || a > b)
}
