package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/controller"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/patience"
	"ringmaster/pkg/planner"
	"ringmaster/pkg/secrets"
	"ringmaster/pkg/topology"
	"ringmaster/pkg/worker"
)

// Of the disk's own rate of synced writes, the tasks of an operation that have
// nothing to do must reach this share a second.
const overheadGoal = 0.15

// overhead measures what the engine itself takes for a task: an operation of so many
// tasks that do nothing, half of them the verification of the other half, carried
// out by one worker with one slot; from the command to the terminal record.
func (b *bench) overhead(tasks int) error {
	fmt.Fprintf(b.out, "\nengine overhead: %d empty tasks, one worker with one slot, embedded JetStream with SyncAlways\n", tasks)
	best := 0.0
	for range b.rounds {
		before, err := b.syncRate()
		if err != nil {
			return err
		}
		took, err := b.profiled(partOverhead, func() (time.Duration, error) { return b.emptyTasks(tasks) })
		if err != nil {
			return err
		}
		after, err := b.syncRate()
		if err != nil {
			return err
		}
		syncs, rate := (before+after)/2, float64(tasks)/took.Seconds()
		best = max(best, rate/syncs)
		fmt.Fprintf(b.out, "  %.0f tasks/s, the disk %.0f fsync/s (%.0f before, %.0f after): %.3f ×\n", rate, syncs, before, after, rate/syncs)
	}
	fmt.Fprintf(b.out, "  best of %d rounds %.3f × the disk's fsync rate (goal ≥ %.2f)\n", b.rounds, best, overheadGoal)
	return nil
}

// profiled keeps a CPU profile of this process while f runs, if profiles are kept.
func (b *bench) profiled(name string, f func() (time.Duration, error)) (took time.Duration, err error) {
	if b.profiles == "" {
		return f()
	}
	b.made++
	file, err := os.Create(filepath.Join(b.profiles, fmt.Sprintf("%s-%d.pprof", name, b.made)))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := pprof.StartCPUProfile(file); err != nil {
		return 0, err
	}
	defer pprof.StopCPUProfile()
	return f()
}

const (
	syncBytes = 512
	syncFor   = 1500 * time.Millisecond
)

// syncRate is how often a second this disk makes a small write durable, one after
// the other, as JetStream does for every message.
func (b *bench) syncRate() (rate float64, err error) {
	file, err := os.Create(filepath.Join(b.dir, "synced"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	text := make([]byte, syncBytes)
	n, start := 0, time.Now()
	for ; time.Since(start) < syncFor; n++ {
		if _, err := file.Write(text); err != nil {
			return 0, err
		}
		if err := file.Sync(); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// emptyTasks carries an operation of empty tasks out, and returns how long it took.
func (b *bench) emptyTasks(tasks int) (took time.Duration, err error) {
	b.made++
	dir := filepath.Join(b.dir, "engine-"+strconv.Itoa(b.made))
	log := slog.New(slog.DiscardHandler)
	server, err := bus.StartServer(b.ctx, bus.ServerOptions{Dir: dir, Logger: log})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, server.Close(context.WithoutCancel(b.ctx)), os.RemoveAll(dir)) }()
	e, err := openEngine(b.ctx, server, dir, log)
	if err != nil {
		return 0, err
	}
	defer e.close()
	took, err = e.carryOut(b.ctx, tasks)
	if err != nil {
		return took, err
	}
	size, err := onDisk(dir)
	fmt.Fprintf(b.out, "  %d bytes on disk a task, its events included\n", size/int64(tasks))
	return took, err
}

// engine is controller and worker in this process, on connections of their own, with
// nothing to plan and nothing to carry out.
type engine struct {
	log    *slog.Logger
	buses  []*bus.Bus
	ledger *ledger.Ledger
	keys   *secrets.Keyring
}

func (e *engine) close() {
	for _, b := range e.buses {
		b.Close()
	}
}

func openEngine(ctx context.Context, server *bus.Server, dir string, log *slog.Logger) (_ *engine, err error) {
	e := &engine{log: log}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	// The controller is in the process of the server, the worker comes over TCP.
	for _, o := range []bus.Options{{Server: server, Name: "controller"}, {URL: server.URL(), Token: server.Token(), Name: "worker"}} {
		o.Logger = log
		connection, err := bus.Connect(ctx, o)
		if err != nil {
			return nil, err
		}
		e.buses = append(e.buses, connection)
	}
	if err := e.buses[0].Apply(ctx, 1); err != nil {
		return nil, err
	}
	if e.ledger, err = ledger.New(ctx, e.buses[0], ledger.Options{Source: "bench", Logger: log}); err != nil {
		return nil, err
	}
	if e.keys, err = secrets.OpenOrCreate(filepath.Join(dir, "key")); err != nil {
		return nil, err
	}
	layout, err := topology.Parse("bench.json", []byte(`{"circles":[{"name":"c","backends":[`+
		`{"name":"a","url":"http://127.0.0.1:1"},{"name":"b","url":"http://127.0.0.1:2"}]}]}`))
	if err != nil {
		return nil, err
	}
	configuration := controller.Configuration{Ledger: e.ledger, Sealer: e.keys, Logger: log, Now: time.Now}
	return e, configuration.Start(ctx, layout.Topology())
}

// carryOut submits an operation, runs a controller and a worker until it has ended,
// and returns how long that took.
func (e *engine) carryOut(ctx context.Context, tasks int) (time.Duration, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	services, ctx := errgroup.WithContext(ctx)
	if err := e.serve(ctx, services, tasks/2); err != nil {
		return 0, err
	}
	start := time.Now()
	op, err := e.submit(ctx)
	for err == nil && !op.State.Terminal() {
		var now ledger.Versioned[operation.Operation]
		now, err = e.ledger.Operation(ctx, op.ID)
		op = now.Value
		wait(ctx, 10*time.Millisecond)
	}
	if err == nil && op.State != operation.Succeeded {
		err = fmt.Errorf("the operation ended %s; of its tasks %+v", op.State, op.Progress.Tasks)
	}
	if err == nil && op.Progress.Tasks.Done != tasks {
		err = fmt.Errorf("%d tasks were done, not %d", op.Progress.Tasks.Done, tasks)
	}
	took := time.Since(start)
	stop()
	return took, errors.Join(err, services.Wait())
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (e *engine) serve(ctx context.Context, services *errgroup.Group, copies int) error {
	for i, b := range e.buses {
		l, err := ledger.New(ctx, b, ledger.Options{Source: "bench", Logger: e.log})
		if err != nil {
			return err
		}
		q, err := b.Queue(ctx)
		if err != nil {
			return err
		}
		leases, err := b.Leases(ctx)
		if err != nil {
			return err
		}
		if i == 0 {
			c := controller.New(l, q, leases, emptyPlan(copies), controller.Options{ID: "controller", Logger: e.log})
			services.Go(func() error { return c.Run(ctx) })
			continue
		}
		w := worker.New(l, q, leases, emptyHands{}, worker.Options{ID: "worker", Slots: 1, Logger: e.log})
		services.Go(func() error { return w.Run(ctx) })
	}
	return nil
}

func (e *engine) submit(ctx context.Context) (operation.Operation, error) {
	epochs, err := e.ledger.Topology(ctx)
	if err != nil {
		return operation.Operation{}, err
	}
	op := operation.Operation{
		ID: uuid.Must(uuid.NewV7()).String(), Kind: operation.KindRebalance, Scope: []string{"circle/0"}, State: operation.Queued,
		Parameters: []byte(`{"circle_id":0,"operation":"add"}`), CreatedAt: time.Now().UTC(), Epoch: epochs.Value.Current.Epoch, Attempt: 1, Round: 1,
	}
	if _, err := e.ledger.CreateOperation(ctx, op); err != nil {
		return op, err
	}
	return op, e.ledger.Accept(ctx, &op)
}

// emptyPlan plans so many tasks of one slice each.
type emptyPlan int

// Plan implements controller.Planner.
func (n emptyPlan) Plan(ctx context.Context, op *operation.Operation, at planner.Layout, job planner.Job) (operation.Plan, error) {
	p := operation.Plan{OperationID: op.ID, Epoch: at.Epoch, CreatedAt: time.Now().UTC()}
	for _, backend := range at.Circles[0].Circle.Backends {
		p.Backends = append(p.Backends, operation.PlanBackend{Name: backend.Name, URL: backend.URL, Databases: 1, Measurements: int(n)})
	}
	budget := operation.DefaultBudget()
	budget.TaskSlices, budget.MinTaskPoints = 1, 0
	bundler := operation.NewBundler(budget, int64(n), func(chunk int, slices []operation.Slice) (operation.Document, error) {
		return job.PutChunk(ctx, chunk, slices)
	})
	for i := range int(n) {
		c := operation.Candidate{
			From: 0, To: 1, Database: database, RetentionPolicy: "autogen", Measurement: fmt.Sprintf("m%06d", i),
			Window: operation.Window{From: 0, To: 1000}, Points: 1,
		}
		if err := bundler.Add(c); err != nil {
			return p, err
		}
	}
	return p, bundler.Finish(&p)
}

// Prepare implements controller.Planner.
func (emptyPlan) Prepare(context.Context, *operation.Operation, *operation.Plan, patience.Waiter) error {
	return nil
}

// Changed implements controller.Planner.
func (emptyPlan) Changed(context.Context, *operation.Operation, planner.Layout, *operation.Plan, planner.Job) (string, error) {
	return "", nil
}

// emptyHands carries tasks out that have nothing to do.
type emptyHands struct{}

// Run implements worker.Handler.
func (emptyHands) Run(_ context.Context, job mover.Job) error {
	return job.Finish(func(t *operation.Task) {
		t.Checkpoint = operation.Checkpoint{{State: operation.SliceCopied}}
		if t.Phase == operation.PhaseVerify {
			t.Verdict = &operation.Verdict{Slices: operation.SliceTotals{Total: 1, Equal: 1, ByCount: 1}}
		}
	})
}
