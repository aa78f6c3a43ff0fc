package controller_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
	"ringmaster/pkg/controller"
	"ringmaster/pkg/gateway/session"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/operation"
	waiting "ringmaster/pkg/patience"
	"ringmaster/pkg/planner"
	"ringmaster/pkg/secrets"
	"ringmaster/pkg/topology"
	"ringmaster/pkg/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = time.Minute
	tick     = 10 * time.Millisecond
)

// rig is a system in one process whose planner and task handler are made up:
// embedded NATS, an intake, and controllers and workers that tests start and stop.
type rig struct {
	t       *testing.T
	system  *bustest.System
	bus     *bus.Bus
	ledger  *ledger.Ledger
	queue   *bus.Queue
	leases  *bus.Leases
	keys    *secrets.Keyring
	session *session.Session
	atlas   *controller.Atlas
	intake  *controller.Intake
	planner *plans
	carrier *carrier
	log     *slog.Logger
	names   int
}

func newRig(t *testing.T, ttl time.Duration, tasks ...work) *rig {
	t.Helper()
	return newRigOn(t, bustest.StartSystem(t, bus.WithLeaseTTL(ttl)), tasks...)
}

// newRigOn is newRig on a NATS that the test has chosen.
func newRigOn(t *testing.T, system *bustest.System, tasks ...work) *rig {
	t.Helper()
	r := &rig{t: t, planner: &plans{tasks: tasks}, carrier: newCarrier(), log: newRigLog(t)}
	r.system, r.bus = system, system.Bus
	r.open()
	return r
}

// newRigLog shows what happens when the test is verbose.
func newRigLog(t *testing.T) *slog.Logger {
	t.Helper()
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.DiscardHandler)
}

// open builds everything on the rig's bus.
func (r *rig) open() {
	r.t.Helper()
	var err error
	if r.keys == nil {
		r.keys, err = secrets.OpenOrCreate(r.t.TempDir() + "/key")
		require.NoError(r.t, err)
	}
	r.ledger, r.queue, r.leases = parts(r.t, r.bus, r.log)
	require.NoError(r.t, r.configure(config(r.t, 3), false))
	r.session = r.join("here")
	r.atlas = controller.NewAtlas(r.ledger, r.session)
	r.intake = &controller.Intake{Ledger: r.ledger, Topology: r.atlas, Sealer: r.keys, Now: time.Now, NewID: newID}
}

// configure applies a configuration, as a process does that starts.
func (r *rig) configure(t *topology.Topology, accept bool) error {
	c := controller.Configuration{Ledger: r.ledger, Sealer: r.keys, Accept: accept, Logger: r.log, Now: time.Now}
	return c.Start(context.Background(), t)
}

// join opens the session of a process, which nobody keeps yet.
func (r *rig) join(id string) *session.Session {
	r.t.Helper()
	s, err := session.Open(r.t.Context(), session.Options{ID: id, Ledger: r.ledger, Leases: r.leases, Sealer: r.keys, Logger: r.log})
	require.NoError(r.t, err)
	return s
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

func parts(t *testing.T, b *bus.Bus, log *slog.Logger) (*ledger.Ledger, *bus.Queue, *bus.Leases) {
	t.Helper()
	l, err := ledger.New(t.Context(), b, ledger.Options{Source: "test", Logger: log})
	require.NoError(t, err)
	q, err := b.Queue(t.Context())
	require.NoError(t, err)
	leases, err := b.Leases(t.Context())
	require.NoError(t, err)
	return l, q, leases
}

// config is a configuration of one circle with n backends that nobody listens at.
func config(t *testing.T, n int) *topology.Topology {
	t.Helper()
	var backends []string
	for i := range n {
		backends = append(backends, fmt.Sprintf(`{"name":"b%d","url":"http://b%d:1","username":"u","password":"pass-of-b%d"}`, i, i, i))
	}
	c, err := topology.Parse("proxy.json", []byte(`{"circles":[{"name":"c0","backends":[`+strings.Join(backends, ",")+`]}]}`))
	require.NoError(t, err)
	return c.Topology()
}

// running is a service that runs.
type running struct {
	stop func()
	done chan struct{}
}

func (r *rig) run(what string, service func(context.Context) error) *running {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &running{done: make(chan struct{})}
	go func() {
		defer close(s.done)
		if err := service(ctx); err != nil {
			r.t.Errorf("%s: %v", what, err)
		}
	}()
	s.stop = sync.OnceFunc(func() {
		cancel()
		await(r.t, s.done, what+" stops")
	})
	r.t.Cleanup(s.stop)
	return s
}

// control starts a controller on the rig's own connection.
func (r *rig) control(change ...func(*controller.Options)) *running {
	r.t.Helper()
	return r.controlOn(r.ledger, r.queue, r.leases, change...)
}

func (r *rig) controlOn(l *ledger.Ledger, q *bus.Queue, leases *bus.Leases, change ...func(*controller.Options)) *running {
	r.t.Helper()
	r.names++
	o := controller.Options{
		ID: fmt.Sprintf("controller-%d", r.names), Poll: 100 * time.Millisecond, Tell: 20 * time.Millisecond,
		Logger: r.log.With("controller", r.names),
	}
	for _, c := range change {
		c(&o)
	}
	return r.run(o.ID, controller.New(l, q, leases, r.planner, o).Run)
}

// work starts a worker.
func (r *rig) work(slots int, change ...func(*worker.Options)) *running {
	r.t.Helper()
	r.names++
	o := worker.Options{ID: fmt.Sprintf("worker-%d", r.names), Slots: slots, Logger: r.log.With("worker", r.names)}
	for _, c := range change {
		c(&o)
	}
	return r.run(o.ID, worker.New(r.ledger, r.queue, r.leases, r.carrier, o).Run)
}

// await waits for a channel to be closed or to give something.
func await[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Errorf("this did not happen: %s", what)
	}
	return v
}

func request(parameters string) operation.Request {
	return operation.Request{Kind: operation.KindRebalance, Parameters: json.RawMessage(parameters), RequestedBy: "test", Origin: "127.0.0.1"}
}

const add = `{"circle_id":0,"operation":"add"}`

func (r *rig) submit(parameters string) operation.Operation {
	r.t.Helper()
	op, created, err := r.intake.Submit(r.t.Context(), request(parameters))
	require.NoError(r.t, err)
	require.True(r.t, created)
	return op
}

func (r *rig) read(id string) operation.Operation {
	r.t.Helper()
	v, err := r.ledger.Operation(context.Background(), id)
	require.NoError(r.t, err)
	return v.Value
}

// finish waits until an operation has ended in a state and has given back all
// that it held.
func (r *rig) finish(id string, want operation.State) operation.Operation {
	r.t.Helper()
	var op operation.Operation
	require.Eventually(r.t, func() bool {
		op = r.read(id)
		return op.State.Terminal()
	}, patience, tick, "the operation ends")
	require.Equal(r.t, want, op.State, "%+v", op.Error)
	require.NotNil(r.t, op.FinishedAt)
	require.Nil(r.t, op.Progress.ETASeconds)
	require.Eventually(r.t, func() bool { return len(r.holds(id)) == 0 }, patience, tick, "its scopes are free")
	return op
}

// holds returns the subjects of what an operation holds in the command stream.
func (r *rig) holds(id string) []string {
	r.t.Helper()
	var held []string
	for _, filter := range []string{events.AllCommands, events.AllScopes} {
		for m, err := range r.bus.Scopes().Open(context.Background(), filter) {
			require.NoError(r.t, err)
			if _, of, ok := events.ParseCommandSubject(m.Subject); ok && of == id || string(m.Data) == id {
				held = append(held, m.Subject)
			}
		}
	}
	return held
}

func (r *rig) report(op *operation.Operation) operation.Report {
	r.t.Helper()
	report, err := r.ledger.Report(r.t.Context(), op)
	require.NoError(r.t, err)
	return report
}

func (r *rig) tasks(id string) map[string]operation.Task {
	r.t.Helper()
	all := map[string]operation.Task{}
	require.NoError(r.t, r.ledger.Tasks(r.t.Context(), id, func(v ledger.Versioned[operation.Task]) error {
		all[v.Value.ID] = v.Value
		return nil
	}))
	return all
}

// states returns the states that an operation's events tell of, in order.
func (r *rig) states(id string) []operation.State {
	r.t.Helper()
	var out []operation.State
	for _, p := range r.events(id, events.NounOperation) {
		if s := p.(events.OperationChange).Operation.State; len(out) == 0 || out[len(out)-1] != s {
			out = append(out, s)
		}
	}
	return out
}

func (r *rig) events(id, noun string) []events.Payload {
	r.t.Helper()
	var out []events.Payload
	for from := uint64(0); ; {
		page, err := r.bus.Log(events.StreamEvents).Page(r.t.Context(), from, events.EventSubject(id, noun), bus.MaxPage)
		require.NoError(r.t, err)
		if len(page) == 0 {
			return out
		}
		for _, m := range page {
			_, p, err := events.Decode(m.Data)
			require.NoError(r.t, err)
			out = append(out, p)
			from = m.Sequence + 1
		}
	}
}

// awaitWait waits until a progress event shows a wait at a gate.
func (r *rig) awaitWait(id, gate string) operation.Wait {
	r.t.Helper()
	var found operation.Wait
	require.Eventually(r.t, func() bool {
		for _, p := range r.events(id, events.NounProgress) {
			for _, w := range p.(events.OperationProgress).Waits {
				if w.Gate == gate {
					found = w
					return true
				}
			}
		}
		return false
	}, patience, 5*tick, "the wait is shown")
	return found
}

// stall is the condition that says that nothing moves.
func (r *rig) stall(id string) *operation.Condition {
	op := r.read(id)
	return op.Stall()
}

// awaitProgress waits for a progress that has something, and returns it.
func (r *rig) awaitProgress(id string, has func(*operation.Progress) bool) operation.Progress {
	r.t.Helper()
	var found operation.Progress
	require.Eventually(r.t, func() bool {
		for _, p := range r.events(id, events.NounProgress) {
			if e, ok := p.(events.OperationProgress); ok && has(&e.Progress) {
				found = e.Progress
				return true
			}
		}
		return false
	}, patience, 5*tick, "progress")
	return found
}

// present counts the processes that tell their epoch.
func (r *rig) present() int {
	r.t.Helper()
	n := 0
	for _, err := range r.leases.Bucket().List(r.t.Context(), ledger.ProcessLeases()) {
		require.NoError(r.t, err)
		n++
	}
	return n
}

// work is one task of a plan: each of its slices is a measurement whose name
// says what becomes of it; see carrier.
type work struct {
	from, to, wave int
	slices         []string
}

// pointsPerSlice is what every slice is planned with and has.
const pointsPerSlice = 10

// plans makes plans of given tasks.
type plans struct {
	tasks []work

	mu       sync.Mutex
	plans    int
	prepared int
	// planning and preparing, when set, are called first.
	planning  func(n int, job planner.Job) error
	preparing func(n int, w waiting.Waiter) error
	// changed is what Changed says.
	changed string
}

func (p *plans) Changed(context.Context, *operation.Operation, planner.Layout, *operation.Plan, planner.Job) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed, nil
}

func (p *plans) Plan(ctx context.Context, op *operation.Operation, at planner.Layout, job planner.Job) (operation.Plan, error) {
	p.mu.Lock()
	p.plans++
	n, planning := p.plans, p.planning
	p.mu.Unlock()
	plan := operation.Plan{OperationID: op.ID, Epoch: at.Epoch, CreatedAt: time.Now().UTC()}
	if planning != nil {
		if err := planning(n, job); err != nil {
			return plan, err
		}
	}
	circle := at.Circles[0].Circle
	for i := range circle.Backends {
		b := &circle.Backends[i]
		plan.Backends = append(plan.Backends, operation.PlanBackend{Name: b.Name, URL: b.URL, Databases: 1, Measurements: 100, InPlace: 100})
	}
	moves := map[[2]int]*operation.PlanMove{}
	for c := 0; c < len(p.tasks); c += 2 { // two tasks a chunk
		var chunk []operation.Slice
		for _, w := range p.tasks[c:min(c+2, len(p.tasks))] {
			t := operation.PlanTask{From: w.from, To: w.to, Wave: w.wave, Span: operation.Span{Chunk: len(plan.Chunks), First: len(chunk), Count: len(w.slices)}}
			for _, name := range w.slices {
				chunk = append(chunk, operation.Slice{Database: "db", RetentionPolicy: "rp", Measurement: name, To: 1000, Points: pointsPerSlice})
				t.Points += pointsPerSlice
			}
			plan.Tasks = append(plan.Tasks, t)
			key := [2]int{w.from, w.to}
			if moves[key] == nil {
				moves[key] = &operation.PlanMove{From: w.from, To: w.to}
			}
			moves[key].Measurements += len(w.slices)
			plan.Backends[w.from].InPlace -= len(w.slices)
			plan.Totals.Slices += len(w.slices)
			plan.Totals.Points += t.Points
			plan.Totals.Measurements += len(w.slices)
		}
		doc, err := job.PutChunk(ctx, len(plan.Chunks), chunk)
		if err != nil {
			return plan, err
		}
		plan.Chunks = append(plan.Chunks, doc)
	}
	for _, m := range moves {
		plan.Moves = append(plan.Moves, *m)
	}
	plan.Totals.Tasks = len(plan.Tasks)
	return plan, nil
}

func (p *plans) Prepare(ctx context.Context, op *operation.Operation, plan *operation.Plan, w waiting.Waiter) error {
	p.mu.Lock()
	p.prepared++
	n, preparing := p.prepared, p.preparing
	p.mu.Unlock()
	if preparing != nil {
		return preparing(n, w)
	}
	return nil
}

// carrier carries out tasks whose slices say by their names what becomes of them:
// unequal-once and unequal are not proven in the first and in any round; refused
// fails to be copied, unverified cannot be compared; large-x is handed over in two
// parts called x; lie counts as done and is not.
type carrier struct {
	mu sync.Mutex
	// now and most are how many copies of each source run, and ran, at once;
	// started and ended are the tasks in that order.
	now, most map[string]int
	started   []operation.Task
	ended     []operation.Task
	// copied is how often each slice was copied to its end, by name and round.
	copied map[string]int
	// before, when set, is called before each slice.
	before func(ctx context.Context, task operation.Task, s *operation.Slice) error
	// mended makes every slice succeed, whatever its name says.
	mended atomic.Bool
}

func newCarrier() *carrier {
	return &carrier{now: map[string]int{}, most: map[string]int{}, copied: map[string]int{}}
}

func (c *carrier) Run(ctx context.Context, job mover.Job) error {
	task := job.Task()
	c.mu.Lock()
	key := string(task.Phase) + " " + task.Source
	c.now[key]++
	c.most[key] = max(c.most[key], c.now[key])
	c.started = append(c.started, task)
	before := c.before
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.now[key]--
		c.ended = append(c.ended, job.Task())
	}()
	pause := func(s *operation.Slice) error {
		if before != nil {
			return before(ctx, task, s)
		}
		return ctx.Err()
	}
	if task.Phase == operation.PhaseCopy {
		return c.copy(ctx, job, pause)
	}
	return verify(ctx, job, pause, c.mended.Load())
}

func (c *carrier) copy(ctx context.Context, job mover.Job, pause func(*operation.Slice) error) error {
	all, err := job.Slices(ctx)
	if err != nil {
		return err
	}
	for i := range all {
		task := job.Task()
		if i < len(task.Checkpoint) && task.Checkpoint[i].State.Finished() {
			continue
		}
		s := &all[i]
		if err := pause(s); err != nil {
			return err
		}
		evidence := make(operation.Checkpoint, len(all))
		copy(evidence, task.Checkpoint)
		e := operation.Evidence{State: operation.SliceCopied, Rows: s.Points}
		var children []string
		switch {
		case slices.Contains(task.Barred, i):
			e = operation.Evidence{State: operation.SliceFailed}
		case strings.HasPrefix(s.Measurement, "lie"):
			continue
		case strings.HasPrefix(s.Measurement, "refused") && !c.mended.Load():
			e = operation.Evidence{State: operation.SliceFailed}
		case strings.HasPrefix(s.Measurement, "large") && s.To == 1000:
			one, other := *s, *s
			one.Measurement = strings.TrimPrefix(s.Measurement, "large-")
			one.To, one.Points = 500, s.Points/2
			other.Measurement, other.From, other.To, other.Points = one.Measurement, 500, 999, s.Points-one.Points
			parts := [][]operation.Slice{{one}, {other}}
			if children, err = job.HandOver(ctx, parts); err != nil {
				return err
			}
			e = operation.Evidence{State: operation.SliceHandedOver}
		}
		evidence[i] = e
		err := job.Checkpoint(ctx, func(t *operation.Task) {
			t.Checkpoint = evidence
			t.Points.Copied += e.Rows
			t.Bytes.Read += 2 * e.Rows
			t.Bytes.Written += 3 * e.Rows
			t.Children = append(slices.Clone(t.Children), children...)
			if e.State == operation.SliceFailed {
				t.AddProblem(operation.SliceError{Index: i, Slice: *s, Code: "slice_refused", Detail: "the server's words"})
			}
		})
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.copied[fmt.Sprintf("%s/%d/%d", s.Measurement, s.From, task.Round)]++
		c.mu.Unlock()
	}
	if p := job.Task().Problems; len(p) > 0 {
		return &operation.Error{Code: p[0].Code, Detail: p[0].Detail}
	}
	return nil
}

func verify(ctx context.Context, job mover.Job, pause func(*operation.Slice) error, mended bool) error {
	task := job.Task()
	of, err := job.Of(ctx, task.Of)
	if err != nil {
		return err
	}
	all, err := job.SlicesOf(ctx, &of)
	if err != nil {
		return err
	}
	for i := range all {
		task := job.Task()
		if i < len(task.Checkpoint) && task.Checkpoint[i].State != operation.SlicePending {
			continue
		}
		s := &all[i]
		if err := pause(s); err != nil {
			return err
		}
		judged := make(operation.Checkpoint, len(all))
		copy(judged, task.Checkpoint)
		judged[i].State = operation.SliceCopied
		verdict, verified := judge(&of, i, s, mended)
		err := job.Checkpoint(ctx, func(t *operation.Task) {
			v := operation.Verdict{}
			if t.Verdict != nil {
				v.Extend(t.Verdict)
			}
			v.Extend(verdict)
			t.Checkpoint, t.Verdict = judged, &v
			t.Points.Verified += verified
		})
		if err != nil {
			return err
		}
	}
	if v := job.Task().Verdict; v != nil && v.NotVerified > 0 {
		return &operation.Error{Code: operation.CodeNotVerified, Detail: "could not be compared"}
	}
	return nil
}

func judge(of *operation.Task, i int, s *operation.Slice, mended bool) (*operation.Verdict, int64) {
	v := &operation.Verdict{}
	found := operation.Findings{Points: operation.ReportPoints{Source: s.Points, Destination: s.Points}}
	unequal := !mended && strings.HasPrefix(s.Measurement, "unequal") && (!strings.HasPrefix(s.Measurement, "unequal-once") || of.Round == 1)
	state := operation.SlicePending
	if i < len(of.Checkpoint) {
		state = of.Checkpoint[i].State
	}
	switch {
	case state == operation.SliceHandedOver:
		return v, 0
	case strings.HasPrefix(s.Measurement, "unverified") && !mended:
		v.Forgo(operation.Problem{Slice: *s}, errors.New("why"))
		return v, 0
	case state != operation.SliceCopied:
		v.Slices.Total++
		v.Slices.Unequal++
		v.AddProblem(operation.Problem{Slice: *s, Code: operation.CodeNotCopied})
		return v, 0
	case unequal:
		v.Slices.Total++
		found.Missing = 1
		v.Reopen(i, found, operation.Problem{Slice: *s})
		return v, 0
	}
	v.Slices.Total++
	v.Slices.Equal++
	v.Slices.ByCount++
	v.Count(found)
	return v, s.Points
}

// named returns n slices of one kind.
func named(kind string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s-%d", kind, i)
	}
	return out
}
