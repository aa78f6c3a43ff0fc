package mover_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/planner"
	"ringmaster/pkg/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backends gives plain clients; it counts those that are not closed.
type backends struct {
	options influx.Options
}

func (b *backends) Client(_ context.Context, _ *operation.Operation, url string, guard func() error) (*influx.Client, error) {
	o := b.options
	o.Guard = guard
	return influx.New(influx.Endpoint{URL: url}, o)
}

// errStopped interrupts an attempt; another one follows.
var errStopped = errors.New("stopped for the test")

// job is a mover.Job in memory. It stores its record as JSON, as the ledger
// does, so that whatever a handler keeps besides is lost.
type job struct {
	env *env

	mu    sync.Mutex
	id    string
	waits []operation.Wait // every one that was shown
	// current is the one that is shown now.
	current *operation.Wait
	alive   int
	guards  int
	// before is called before each checkpoint; its error fails it.
	before func(*operation.Task) error
	guard  func() error
}

func (j *job) Operation() *operation.Operation { return &j.env.operation }

func (j *job) Task() operation.Task { return j.env.task(j.id) }

func (j *job) Slices(ctx context.Context) ([]operation.Slice, error) {
	t := j.Task()
	return j.SlicesOf(ctx, &t)
}

func (j *job) Of(_ context.Context, id string) (operation.Task, error) { return j.env.task(id), nil }

func (j *job) SlicesOf(_ context.Context, t *operation.Task) ([]operation.Slice, error) {
	return j.env.slicesOf(t), nil
}

func (j *job) Checkpoint(_ context.Context, change func(*operation.Task)) error {
	t := j.Task()
	change(&t)
	if j.before != nil {
		if err := j.before(&t); err != nil {
			return err
		}
	}
	j.env.store(t)
	return nil
}

func (j *job) Finish(change func(*operation.Task)) error {
	return j.Checkpoint(context.Background(), change)
}

func (j *job) HandOver(_ context.Context, parts [][]operation.Slice) ([]string, error) {
	parent := j.Task()
	var ids []string
	for i, p := range parts {
		id := fmt.Sprintf("%s-%d", parent.ID, len(parent.Children)+i+1)
		j.env.store(operation.Task{
			ID: id, Parent: parent.ID, Phase: parent.Phase, Round: parent.Round, Wave: parent.Wave,
			Rule: parent.Rule, Source: parent.Source, Destination: parent.Destination, Slices: p, State: operation.TaskWaiting,
		})
		ids = append(ids, id)
	}
	return ids, nil
}

func (j *job) Alive() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.alive++
}

func (j *job) Wait(w *operation.Wait) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.current = w
	if w != nil {
		j.waits = append(j.waits, *w)
	}
}

func (j *job) Guard() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.guards++
	if j.guard != nil {
		return j.guard()
	}
	return nil
}

// PutChunk makes a job a planner.Job, too.
func (j *job) PutChunk(_ context.Context, n int, part []operation.Slice) (operation.Document, error) {
	j.env.mu.Lock()
	defer j.env.mu.Unlock()
	j.env.chunks = append(j.env.chunks, slices.Clone(part))
	return operation.Document{Object: fmt.Sprint(n)}, nil
}

// env is a source that was removed from its circle and the backend that is left,
// which owns everything: whatever the source holds is to move.
type env struct {
	t                   testing.TB
	source, destination *influxtest.Server
	// from and to are the URLs that the mover is given.
	from, to string
	// also are further removed backends; former is the placement before.
	also      []string
	former    *topology.Placement
	config    mover.Config
	options   influx.Options
	operation operation.Operation
	parameter map[string]any
	// kind and circles are for moves of another kind: the URLs of each circle's
	// backends.
	kind    operation.Kind
	circles [][]string
	dry     bool

	mu     sync.Mutex
	tasks  map[string][]byte
	chunks [][]operation.Slice
	// planned, when set, sees the job that a plan was made for.
	planned func(*job)
	// watch, when set, sees every job before it runs.
	watch func(*job)
	jobs  []*job
}

func newEnv(t testing.TB, options ...influxtest.Option) *env {
	t.Helper()
	e := &env{t: t, tasks: map[string][]byte{}, parameter: map[string]any{}}
	e.source, e.destination = influxtest.Start(t, options...), influxtest.Start(t, options...)
	e.from, e.to = e.source.URL(), e.destination.URL()
	e.config = impatient()
	return e
}

func (e *env) task(id string) operation.Task {
	e.mu.Lock()
	defer e.mu.Unlock()
	var t operation.Task
	require.NoError(e.t, json.Unmarshal(e.tasks[id], &t))
	return t
}

func (e *env) store(t operation.Task) {
	raw, err := json.Marshal(t)
	require.NoError(e.t, err)
	require.Less(e.t, len(raw), 900<<10, "a record must fit a message")
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tasks[t.ID] = raw
}

func (e *env) slicesOf(t *operation.Task) []operation.Slice {
	if t.Span == nil {
		return t.Slices
	}
	return e.chunks[t.Span.Chunk][t.Span.First : t.Span.First+t.Span.Count]
}

// mover makes the mover of the test.
func (e *env) mover() *engine {
	m := mover.New(&backends{e.options}, e.config)
	return &engine{m, planner.New(&backends{e.options}, m.Patience(), e.config.Now)}
}

// engine plans and carries out.
type engine struct {
	*mover.Mover
	*planner.Planner
}

// newCircles starts circles of some backends each, for a kind of move.
func newCircles(t testing.TB, kind operation.Kind, sizes ...int) (*env, [][]*influxtest.Server) {
	t.Helper()
	e := &env{t: t, tasks: map[string][]byte{}, parameter: map[string]any{}, kind: kind, config: impatient()}
	servers := make([][]*influxtest.Server, len(sizes))
	for i, n := range sizes {
		var urls []string
		for range n {
			s := influxtest.Start(t)
			servers[i], urls = append(servers[i], s), append(urls, s.URL())
		}
		e.circles = append(e.circles, urls)
	}
	return e, servers
}

// impatient makes faults that stay be given up soon.
func impatient() mover.Config {
	return mover.Config{
		Refused: 300 * time.Millisecond, Unreachable: 600 * time.Millisecond,
		Backoff: 5 * time.Millisecond, MaxBackoff: 50 * time.Millisecond, RetryInPlace: 50 * time.Millisecond, Lasting: 20 * time.Millisecond,
	}
}

// topology is that of the circles; names are of a circle and a backend in it.
func (e *env) topology() *topology.Topology {
	var circles []any
	for i, urls := range e.circles {
		var backends []any
		for j, u := range urls {
			backends = append(backends, map[string]any{"name": fmt.Sprintf("b%d%d", i, j), "url": u})
		}
		circles = append(circles, map[string]any{"name": fmt.Sprintf("c%d", i), "backends": backends})
	}
	raw, err := json.Marshal(map[string]any{"circles": circles})
	require.NoError(e.t, err)
	c, err := topology.Parse("proxy.json", raw)
	require.NoError(e.t, err)
	return c.Topology()
}

// layoutOf is the layout of some circles.
func (e *env) layoutOf(ids []int) planner.Layout {
	top := e.topology()
	at := planner.Layout{Epoch: 1}
	for _, id := range ids {
		circle, ok := top.Circle(id)
		require.True(e.t, ok)
		placement, err := top.Placement(id)
		require.NoError(e.t, err)
		at.Circles = append(at.Circles, planner.CircleLayout{Circle: circle, Placement: placement})
	}
	return at
}

func (e *env) layout() planner.Layout {
	raw, err := json.Marshal(map[string]any{"circles": []any{map[string]any{
		"name": "c", "backends": []any{map[string]any{"name": "owner", "url": e.to}},
	}}})
	require.NoError(e.t, err)
	c, err := topology.Parse("proxy.json", raw)
	require.NoError(e.t, err)
	top := c.Topology()
	circle, ok := top.Circle(0)
	require.True(e.t, ok)
	placement, err := top.Placement(0)
	require.NoError(e.t, err)
	return planner.Layout{Epoch: 1, Circles: []planner.CircleLayout{{Circle: circle, Placement: placement, Former: e.former}}}
}

// plan plans the move.
func (e *env) plan(m *engine) operation.Plan {
	e.t.Helper()
	if e.kind != "" {
		return e.planKind(m)
	}
	e.parameter["circle_id"], e.parameter["operation"] = 0, "rm"
	removed := []any{map[string]any{"name": "gone", "url": e.from}}
	for i, u := range e.also {
		removed = append(removed, map[string]any{"name": fmt.Sprintf("gone%d", i+2), "url": u})
	}
	e.parameter["removed_backends"] = removed
	raw, err := json.Marshal(e.parameter)
	require.NoError(e.t, err)
	e.operation = operation.Operation{ID: "op", Kind: operation.KindRebalance, Epoch: 1, Parameters: raw}
	e.chunks = nil
	j := &job{env: e}
	plan, err := m.Plan(e.t.Context(), &e.operation, e.layout(), j)
	require.NoError(e.t, err)
	if e.planned != nil {
		e.planned(j)
	}
	return plan
}

// planKind plans a move of another kind.
func (e *env) planKind(m *engine) operation.Plan {
	e.t.Helper()
	raw, err := json.Marshal(e.parameter)
	require.NoError(e.t, err)
	e.operation = operation.Operation{ID: "op", Kind: e.kind, Epoch: 1, Parameters: raw, CreatedAt: time.Now(), DryRun: e.dry}
	e.chunks, e.tasks = nil, map[string][]byte{}
	parameters, err := operation.ParseMove(e.kind, raw)
	require.NoError(e.t, err)
	plan, err := m.Plan(e.t.Context(), &e.operation, e.layoutOf(operation.Surveyed(parameters, len(e.circles))), &job{env: e})
	require.NoError(e.t, err)
	return plan
}

// result is what a whole move has come to.
type result struct {
	plan   operation.Plan
	report operation.Report
	// failed has the errors of tasks that have failed for good, in order.
	failed []*operation.Error
	rounds int
	waits  []operation.Wait
}

// copies are the copy tasks of a round, parents before their children.
func (e *env) tasksOf(phase operation.Phase, round int) []operation.Task {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []operation.Task
	for _, raw := range e.tasks {
		var t operation.Task
		require.NoError(e.t, json.Unmarshal(raw, &t))
		if t.Phase == phase && t.Round == round {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b operation.Task) int {
		if len(a.ID) != len(b.ID) {
			return len(a.ID) - len(b.ID)
		}
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return out
}

// copyAll plans, prepares and copies.
func (e *env) copyAll(m *engine) result {
	e.t.Helper()
	plan := e.plan(m)
	prepare := &job{env: e}
	require.NoError(e.t, m.Prepare(e.t.Context(), &e.operation, &plan, prepare))
	if e.planned != nil {
		e.planned(prepare)
	}
	for i, p := range plan.Tasks {
		e.store(operation.Task{
			ID: fmt.Sprintf("c%04d", i), Phase: operation.PhaseCopy, Round: 1, Wave: p.Wave, Rule: p.Rule, Span: &p.Span, Estimated: p.Points,
			Source: plan.Backends[p.From].URL, Destination: plan.Backends[p.To].URL, State: operation.TaskWaiting,
		})
	}
	r := result{plan: plan, rounds: 1}
	e.runPhase(m, operation.PhaseCopy, &r)
	return r
}

// verifyAll verifies what the last round has copied.
func (e *env) verifyAll(m *engine, r *result) {
	e.t.Helper()
	for _, of := range e.tasksOf(operation.PhaseCopy, r.rounds) {
		e.store(operation.Task{
			ID: "v-" + of.ID, Of: of.ID, Phase: operation.PhaseVerify, Round: r.rounds, Rule: of.Rule,
			Source: of.Source, Destination: of.Destination, State: operation.TaskWaiting,
		})
	}
	e.runPhase(m, operation.PhaseVerify, r)
}

// run moves everything as the controller does: copy, verify, once more what is
// not proven, report.
func (e *env) run() result {
	e.t.Helper()
	m := e.mover()
	r := e.copyAll(m)
	e.verifyAll(m, &r)
	again := false
	for _, v := range e.tasksOf(operation.PhaseVerify, 1) {
		if v.Verdict == nil || len(v.Verdict.Unproven) == 0 {
			continue
		}
		again = true
		of := e.task(v.Of)
		next := operation.Task{ID: "again-" + of.ID, Phase: operation.PhaseCopy, Round: 2, Rule: of.Rule, Source: of.Source, Destination: of.Destination, State: operation.TaskWaiting}
		next.Checkpoint = of.Checkpoint.Settled(v.Verdict.Unproven)
		for _, i := range v.Verdict.Unproven {
			next.Slices = append(next.Slices, e.slicesOf(&of)[i])
		}
		e.store(next)
	}
	if again {
		r.rounds = 2
		e.runPhase(m, operation.PhaseCopy, &r)
		e.verifyAll(m, &r)
	}
	r.report = e.report(r.rounds)
	return r
}

func (e *env) report(rounds int) operation.Report {
	total := operation.Verdict{}
	for round := 1; round <= rounds; round++ {
		for _, v := range e.tasksOf(operation.PhaseVerify, round) {
			own := operation.Verdict{}
			if v.Verdict != nil {
				own.Extend(v.Verdict)
			}
			if round < rounds {
				own = own.WithoutUnproven()
			}
			if v.State == operation.TaskFailed {
				of := e.task(v.Of)
				own.AddUnjudged(&v, &of)
			}
			total.Add(&own)
		}
	}
	return total.Report("op", operation.DepthCount)
}

// runPhase runs all tasks of a phase and round, those that come up on the way
// too, and stores how they ended.
func (e *env) runPhase(m *engine, phase operation.Phase, r *result) {
	e.t.Helper()
	for {
		ran := false
		for _, t := range e.tasksOf(phase, r.rounds) {
			if t.State.Ended() {
				continue
			}
			ran = true
			err := e.runTask(m, t.ID, r)
			var own *operation.Error
			t = e.task(t.ID)
			switch {
			case err == nil:
				t.State = operation.TaskDone
			case errors.As(err, &own):
				t.State, t.Error = operation.TaskFailed, own
				r.failed = append(r.failed, own)
			case errors.Is(err, errStopped):
				// The next attempt begins where the checkpoint stands.
			default:
				require.NoError(e.t, err)
			}
			e.store(t)
		}
		if !ran {
			return
		}
	}
}

func (e *env) runTask(m *engine, id string, r *result) error {
	j := &job{env: e, id: id}
	claimed := e.task(id)
	claimed.Attempt++
	e.store(claimed)
	if e.watch != nil {
		e.watch(j)
	}
	e.jobs = append(e.jobs, j)
	err := m.Run(e.t.Context(), j)
	r.waits = append(r.waits, j.waits...)
	return err
}

// requireMoved runs the whole move and requires that the owner then holds what
// the source does, and nothing else.
func (e *env) requireMoved(db string) result {
	e.t.Helper()
	r := e.run()
	require.Empty(e.t, r.failed)
	require.True(e.t, r.report.Equal, "%+v", r.report)
	require.Equal(e.t, dump(e.t, e.source.URL(), db), dump(e.t, e.destination.URL(), db))
	return r
}

// dump reads all points of a database as sorted lines of line protocol with
// their policy before them, shard group by shard group, so that types are true.
func dump(t testing.TB, url, db string) []string {
	t.Helper()
	c, err := influx.New(influx.Endpoint{URL: url}, influx.Options{})
	require.NoError(t, err)
	defer c.Close()
	ctx := t.Context()
	groups, err := c.ShardGroups(ctx)
	require.NoError(t, err)
	out := []string{}
	for name, err := range c.Measurements(ctx, db) {
		require.NoError(t, err)
		for _, g := range groups {
			if g.Database != db {
				continue
			}
			fields, err := c.FieldKeys(ctx, db, g.RetentionPolicy, name)
			require.NoError(t, err)
			sel := influx.Selection{
				Database: db, RetentionPolicy: g.RetentionPolicy, Measurement: name,
				Window: influx.Window{From: g.From, To: g.To, Last: g.ToInclusive},
			}
			for f, kinds := range fields {
				if slices.Contains(kinds, lineproto.Unsigned) {
					sel.Unsigned = append(sel.Unsigned, f)
				}
			}
			s, err := c.Read(ctx, []influx.Selection{sel})
			require.NoError(t, err)
			var e lineproto.Encoder
			for s.Next() {
				require.NoError(t, e.SetSeries(s.Series(), s.Fields()))
				line, err := e.AppendRow([]byte(g.RetentionPolicy+" "), s.Time(), s.Values())
				require.NoError(t, err)
				out = append(out, string(line))
			}
			require.NoError(t, s.Err())
			require.NoError(t, s.Close())
		}
	}
	slices.Sort(out)
	return out
}
