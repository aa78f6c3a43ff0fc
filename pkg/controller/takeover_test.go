package controller_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
	"ringmaster/pkg/controller"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/worker"
)

// dice returns the source of random moments; TAKEOVER_SEED repeats a run, as far
// as the machine allows.
func dice(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("TAKEOVER_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("TAKEOVER_SEED=%d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 1))
}

// mixed is a plan with everything in it that an operation which succeeds can
// have; expect is what its end must be, whatever happened on the way.
func mixed() []work {
	return []work{
		{0, 1, 0, []string{"a", "b", "unequal-once-1"}},
		{1, 2, 0, []string{"large-c", "d"}},
		{2, 0, 0, []string{"e", "large-unequal-once-2"}},
		{0, 2, 1, []string{"f", "g"}},
		{1, 0, 1, []string{"unequal-once-3"}},
	}
}

func (r *rig) expectMixed(id string) {
	r.t.Helper()
	end := r.finish(id, operation.Succeeded)
	report := r.report(&end)
	require.True(r.t, report.Equal, "%+v", report)
	require.Equal(r.t, 12, report.Slices.Total)
	require.Equal(r.t, int64(10*pointsPerSlice), report.Points.Source)
	require.Empty(r.t, report.Problems)
	p := end.Progress
	require.Equal(r.t, int64(10*pointsPerSlice), p.Points.Copied, "nothing is counted twice")
	require.Equal(r.t, int64(10*pointsPerSlice), p.Points.Verified)
	require.Equal(r.t, p.Tasks.Total, p.Tasks.Done, "%+v", p.Tasks)
	require.Equal(r.t, operation.Done{Total: 10, Done: 10}, p.Measurements)
	require.Equal(r.t, 2, end.Round)
	open, err := r.ledger.OpenOperations(context.Background())
	require.NoError(r.t, err)
	require.NotContains(r.t, open, id)
	for task, v := range r.tasks(id) {
		if v.Parent == "" {
			require.Equal(r.t, operation.TaskDone, v.State, task)
		}
	}
	// A nudge that was published as the operation ended is taken by a worker.
	r.awaitQueue(0)
}

// Controllers die at random moments: cut off in the middle of whatever they do,
// or as a process that is killed, whose lease has to run out. Whoever goes on, the
// operation ends as if nothing had happened.
func TestTakeoverAtRandomMoments(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, mixed()...)
	random := dice(t)
	changes := r.changes(events.BucketOperations, events.BucketTasks, events.BucketLeases)
	for range 3 {
		workers := []*running{r.work(2), r.work(1)}
		op := r.submit(add)
		for range 16 {
			moment := random.IntN(14)
			if random.IntN(4) == 0 {
				r.killed(op.ID, changes, moment)
			} else {
				c := r.control()
				r.awaitChanges(op.ID, changes, moment)
				c.stop()
			}
			if random.IntN(3) == 0 { // a worker leaves, another one comes
				workers[0].stop()
				workers = append(workers[1:], r.work(1+random.IntN(2)))
			}
			if r.read(op.ID).State.Terminal() {
				break
			}
		}
		last := r.control()
		r.expectMixed(op.ID)
		last.stop()
		for _, w := range workers {
			w.stop()
		}
	}
}

// changes tells of every change of a record in some buckets.
func (r *rig) changes(buckets ...string) <-chan struct{} {
	r.t.Helper()
	told := make(chan struct{}, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	var telling sync.WaitGroup
	for _, name := range buckets {
		watch, err := r.bus.Bucket(name).Watch(ctx, "")
		require.NoError(r.t, err)
		telling.Go(func() {
			for range watch {
				select {
				case told <- struct{}{}:
				default:
				}
			}
		})
	}
	r.t.Cleanup(func() {
		cancel()
		telling.Wait()
	})
	return told
}

// awaitChanges waits for that many changes, or until the operation has ended.
func (r *rig) awaitChanges(id string, changes <-chan struct{}, n int) {
	r.t.Helper()
	for len(changes) > 0 {
		<-changes
	}
	look := time.NewTicker(10 * tick)
	defer look.Stop()
	for n > 0 {
		select {
		case <-changes:
			n--
		case <-look.C:
			if r.read(id).State.Terminal() {
				return
			}
		}
	}
}

// killed runs a controller that loses its connection before it can give anything
// back, like a process that is killed.
func (r *rig) killed(id string, changes <-chan struct{}, moment int) {
	r.t.Helper()
	b := r.system.Connect(r.t, time.Second)
	l, q, leases := parts(r.t, b, r.log)
	c := r.controlOn(l, q, leases)
	r.awaitChanges(id, changes, moment)
	b.Close()
	c.stop()
}

// Two controllers drive one operation at once, because its lease is taken from
// them again and again: fan-out, conclusion and end are right all the same.
func TestTwoDriversOfOneOperation(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, mixed()...)
	random := dice(t)
	for range 3 {
		r.control(func(o *controller.Options) { o.Poll = 20 * time.Millisecond })
	}
	r.work(2)
	changes := r.changes(events.BucketOperations, events.BucketTasks)
	for range 3 {
		op := r.submit(add)
		bucket := r.leases.Bucket()
		for !r.read(op.ID).State.Terminal() {
			r.awaitChanges(op.ID, changes, 1+random.IntN(6))
			if e, err := bucket.Get(t.Context(), ledger.OperationLease(op.ID)); err == nil {
				_ = bucket.Delete(t.Context(), e.Key, e.Revision) // it may be gone by now
			}
		}
		r.expectMixed(op.ID)
	}
}

// NATS goes away and comes back while an operation runs.
func TestNATSComesBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := &rig{t: t, planner: &plans{tasks: mixed()}, carrier: newCarrier(), log: newRigLog(t)}
	server := startNATS(t, dir)
	r.bus = bustest.Connect(t, bus.Options{URL: server.URL(), Token: server.Token()})
	bustest.Apply(t, r.bus, bus.WithLeaseTTL(ttl))
	r.open()
	pace := make(chan struct{}, 1000)
	r.carrier.before = func(ctx context.Context, _ operation.Task, _ *operation.Slice) error {
		select {
		case <-pace:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	r.control()
	r.work(2)
	op := r.submit(add)
	for range 3 {
		for range 6 {
			pace <- struct{}{}
		}
		require.Eventually(t, func() bool { return len(pace) == 0 || r.read(op.ID).State.Terminal() }, patience, tick)
		require.NoError(t, server.Close(context.Background()))
		server = startNATS(t, dir)
	}
	for range cap(pace) / 2 {
		pace <- struct{}{}
	}
	r.expectMixed(op.ID)
	require.NoError(t, server.Close(context.Background()))
}

// Clocks of processes disagree by hours, and jump while an operation runs: no task is
// taken for stuck or dead, nothing is swept, and the operation ends as it should.
func TestClocksThatDisagreeAndJump(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, mixed()...)
	var jump atomic.Int64
	clock := func(skew time.Duration) func() time.Time {
		return func() time.Time {
			// Without its monotonic part, as if it came from another machine.
			return time.Now().Round(0).Add(skew + time.Duration(jump.Load()))
		}
	}
	for _, skew := range []time.Duration{3 * time.Hour, -2 * time.Hour} {
		r.control(func(o *controller.Options) { o.Now = clock(skew) })
		r.work(2, func(o *worker.Options) { o.Now = clock(-skew) })
	}
	changes := r.changes(events.BucketOperations, events.BucketTasks)
	op := r.submit(add)
	for _, by := range []time.Duration{time.Hour, -26 * time.Hour, 40 * time.Hour} {
		r.awaitChanges(op.ID, changes, 4)
		jump.Store(int64(by))
	}
	r.expectMixed(op.ID)
}

// Three servers, of which each in turn is restarted while an operation runs.
func TestThreeServersAreRestartedInTurn(t *testing.T) {
	t.Parallel()
	r := newRigOn(t, bustest.StartSystemOfThree(t, bus.WithLeaseTTL(ttl)), mixed()...)
	changes := r.changes(events.BucketOperations, events.BucketTasks)
	r.control()
	r.control()
	r.work(2)
	r.work(1)
	op := r.submit(add)
	for node := range 3 {
		r.awaitChanges(op.ID, changes, 4)
		r.system.RestartNode(t, node)
	}
	r.expectMixed(op.ID)
}

func startNATS(t *testing.T, dir string) *bus.Server {
	t.Helper()
	s, err := bus.StartServer(t.Context(), bus.ServerOptions{Dir: dir})
	require.NoError(t, err)
	return s
}

// Many operations at once, on circles of their own, with several controllers.
func TestManyOperationsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 2)}, work{1, 2, 0, []string{"large-b"}})
	r.control()
	r.control()
	r.work(3)
	var ids []string
	for i := range 12 {
		q := request(add)
		q.DryRun = i%4 != 0
		op, _, err := r.intake.Submit(t.Context(), q)
		if !q.DryRun && len(ids) > 0 {
			var held *operation.ScopeHeldError
			if err != nil {
				require.ErrorAs(t, err, &held, fmt.Sprint(i))
				continue
			}
		}
		require.NoError(t, err)
		ids = append(ids, op.ID)
	}
	for _, id := range ids {
		want := operation.Succeeded
		if r.read(id).DryRun {
			want = operation.Planned
		}
		r.finish(id, want)
	}
}
