package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
	"ringmaster/pkg/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 20 * time.Second
	tick     = 10 * time.Millisecond
	// short is the lease of tests that wait for one to run out, long that of
	// tests that show that nobody has to.
	short = time.Second
	long  = time.Minute
)

// handler is a task handler made of a function.
type handler func(ctx context.Context, job mover.Job) error

func (h handler) Run(ctx context.Context, job mover.Job) error { return h(ctx, job) }

// site is a server with one open operation, whose tasks the test makes.
type site struct {
	t      *testing.T
	system *bustest.System
	bus    *bus.Bus
	ledger *ledger.Ledger
	queue  *bus.Queue
	leases *bus.Leases
	op     ledger.Versioned[operation.Operation]
}

func newSite(t *testing.T, ttl time.Duration) *site {
	t.Helper()
	s := &site{t: t}
	s.system = bustest.StartSystem(t, bus.WithLeaseTTL(ttl))
	s.bus = s.system.Bus
	s.ledger, s.queue, s.leases = open(t, s.bus)
	s.adopt(1)
	s.op = s.operation("01980000-0000-7000-8000-000000000001")
	return s
}

func open(t *testing.T, b *bus.Bus) (*ledger.Ledger, *bus.Queue, *bus.Leases) {
	t.Helper()
	l, err := ledger.New(t.Context(), b, ledger.Options{Source: "test"})
	require.NoError(t, err)
	q, err := b.Queue(t.Context())
	require.NoError(t, err)
	leases, err := b.Leases(t.Context())
	require.NoError(t, err)
	return l, q, leases
}

// adopt makes a topology epoch the current one.
func (s *site) adopt(epoch uint64) {
	s.t.Helper()
	was, err := s.ledger.Topology(s.t.Context())
	require.NoError(s.t, err)
	require.NoError(s.t, s.ledger.StoreTopology(s.t.Context(), was, &topology.Topology{Epoch: epoch, Digest: fmt.Sprint(epoch)}, serving.State{}))
}

// operation stores an operation that is running.
func (s *site) operation(id string) ledger.Versioned[operation.Operation] {
	s.t.Helper()
	v, err := s.ledger.CreateOperation(s.t.Context(), operation.Operation{
		ID: id, Kind: operation.KindRebalance, State: operation.Running, Epoch: 1, Attempt: 1, Round: 1,
		Parameters: json.RawMessage(`{"circle_id":0,"operation":"add"}`),
	})
	require.NoError(s.t, err)
	return v
}

// move changes the state of the operation.
func (s *site) move(to operation.State) {
	s.t.Helper()
	next, err := s.op.Value.Move(to)
	require.NoError(s.t, err)
	s.op, err = s.ledger.UpdateOperation(s.t.Context(), s.op, next)
	require.NoError(s.t, err)
}

// task stores a task of the operation, changed as wanted, and nudges for it.
func (s *site) task(id string, change ...func(*operation.Task)) {
	s.t.Helper()
	t := operation.Task{
		ID: id, OperationID: s.op.Value.ID, Kind: operation.KindRebalance, Phase: operation.PhaseCopy, Round: 1,
		Source: "http://a", Destination: "http://b", State: operation.TaskWaiting, CreatedAt: time.Now().UTC(),
		Slices: []operation.Slice{{Database: "db", Measurement: "m", From: 0, To: 10, Points: 3}},
	}
	for _, c := range change {
		c(&t)
	}
	require.NoError(s.t, s.ledger.CreateTask(s.t.Context(), t))
	s.nudge(t)
}

func (s *site) nudge(t operation.Task) {
	s.t.Helper()
	m, err := s.ledger.Nudge(&t)
	require.NoError(s.t, err)
	require.NoError(s.t, s.queue.Publish(s.t.Context(), m))
}

func (s *site) read(id string) operation.Task {
	s.t.Helper()
	v, err := s.ledger.Task(s.t.Context(), s.op.Value.ID, id)
	require.NoError(s.t, err)
	return v.Value
}

// await waits until a task's record is as wanted.
func (s *site) await(id, what string, wanted func(operation.Task) bool) operation.Task {
	s.t.Helper()
	var last operation.Task
	require.Eventually(s.t, func() bool {
		last = s.read(id)
		return wanted(last)
	}, patience, tick, "task %s: %s", id, what)
	return last
}

func (s *site) awaitState(id string, state operation.TaskState) operation.Task {
	s.t.Helper()
	return s.await(id, "is "+string(state), func(t operation.Task) bool { return t.State == state })
}

// awaitQueue waits until that many nudges are left.
func (s *site) awaitQueue(n uint64) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		depth, err := s.queue.Depth(s.t.Context())
		return err == nil && depth == n
	}, patience, tick, "%d nudges are left", n)
}

// leased reports whether the task's lease is held.
func (s *site) leased(id string) bool {
	s.t.Helper()
	_, err := s.leases.Claims().Holder(s.t.Context(), ledger.TaskLease(s.op.Value.ID, id))
	if err != nil {
		require.ErrorIs(s.t, err, bus.ErrNotFound)
	}
	return err == nil
}

// running is a worker that runs.
type running struct {
	stop func()
	done chan struct{}
}

// start runs a worker until the test or the caller stops it.
func (s *site) start(id string, h handler, change ...func(*worker.Options)) *running {
	s.t.Helper()
	return startOn(s.t, s.ledger, s.queue, s.leases, id, h, change...)
}

func startOn(t *testing.T, l *ledger.Ledger, q *bus.Queue, leases *bus.Leases, id string, h handler, change ...func(*worker.Options)) *running {
	t.Helper()
	o := worker.Options{ID: id, Slots: 1, Info: worker.Info{Host: "here"}}
	if testing.Verbose() {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("worker", id)
	}
	for _, c := range change {
		c(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{done: make(chan struct{})}
	w := worker.New(l, q, leases, h, o)
	go func() {
		defer close(r.done)
		if err := w.Run(ctx); err != nil {
			t.Errorf("worker %s: %v", id, err)
		}
	}()
	r.stop = sync.OnceFunc(func() {
		cancel()
		await(t, r.done, "worker "+id+" stops")
	})
	t.Cleanup(r.stop)
	return r
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

// succeed is a handler that does everything at once.
func succeed(ctx context.Context, job mover.Job) error {
	return job.Checkpoint(ctx, func(t *operation.Task) { t.Points.Copied += 3 })
}

// letters returns the dead letters.
func (s *site) letters() []events.MessageReject {
	s.t.Helper()
	records, err := s.bus.Log(events.StreamDeadLetters).Page(s.t.Context(), 0, events.AllDeadLetters, 100)
	require.NoError(s.t, err)
	var out []events.MessageReject
	for _, r := range records {
		_, p, err := events.Decode(r.Data)
		require.NoError(s.t, err)
		out = append(out, p.(events.MessageReject))
	}
	return out
}
