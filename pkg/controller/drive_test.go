package controller_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/controller"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/operation"
	waiting "ringmaster/pkg/patience"
	"ringmaster/pkg/planner"
	"ringmaster/pkg/topology"
	"ringmaster/pkg/worker"
)

const ttl = time.Second

func TestAnOperationSucceeds(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 3)}, work{0, 2, 0, named("large", 2)}, work{1, 2, 0, named("c", 1)})
	r.control()
	r.work(2)
	op := r.submit(add)
	end := r.finish(op.ID, operation.Succeeded)
	require.Equal(t, []operation.State{operation.Queued, operation.Planning, operation.Running, operation.Verifying, operation.Succeeded}, r.states(op.ID))
	require.Nil(t, end.Error)
	require.NotNil(t, end.StartedAt)

	report := r.report(&end)
	require.True(t, report.Equal)
	require.Equal(t, 8, report.Slices.Total, "each large slice is two in the end")
	require.Equal(t, int64(6*pointsPerSlice), report.Points.Source)
	p := end.Progress
	require.Equal(t, operation.PhaseDone, p.Phase)
	require.Equal(t, int64(6*pointsPerSlice), p.Points.Copied)
	require.Equal(t, int64(6*pointsPerSlice), p.Points.Verified)
	require.Equal(t, operation.TaskCounts{Total: 14, Done: 14}, p.Tasks)
	require.Equal(t, operation.Done{Total: 6, Done: 6}, p.Measurements)
	require.Equal(t, int64(120), p.Bytes.Read)
	require.Len(t, p.Backends, 3)
	require.Equal(t, 5, p.Backends["http://b0:1"].Moved)
	require.Equal(t, operation.Done{Total: 100, Done: 100}, p.Backends["http://b0:1"].Measurements)
	for id, task := range r.tasks(op.ID) {
		require.Equal(t, operation.TaskDone, task.State, id)
	}
	trail, err := r.ledger.AuditTrail(t.Context(), op.ID)
	require.NoError(t, err)
	require.Len(t, trail, 1)
}

func TestADryRunEndsWithItsPlan(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 3)})
	r.control()
	// It takes no scope, so one that runs is not in its way.
	holder := r.submit(add)
	q := request(add)
	q.DryRun = true
	op, _, err := r.intake.Submit(t.Context(), q)
	require.NoError(t, err)
	require.Empty(t, op.Scope)
	end := r.finish(op.ID, operation.Planned)
	require.Equal(t, 3, end.Plan.Totals.Slices)
	plan, err := r.ledger.Plan(t.Context(), &end)
	require.NoError(t, err)
	require.Len(t, plan.Tasks, 1)
	require.Empty(t, r.tasks(op.ID))
	r.work(1)
	r.finish(holder.ID, operation.Succeeded)
}

func TestNothingToDo(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	r.control()
	op := r.submit(add)
	end := r.finish(op.ID, operation.Succeeded)
	require.Contains(t, end.Result.Note, "nothing to do: all 300 measurements on 3 backends")
	require.True(t, r.report(&end).Equal)
	require.Zero(t, r.planner.prepared, "nothing is touched")
}

func TestWhatIsNotProvenIsCopiedOnceMore(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, []string{"a", "unequal-once-1", "b"}}, work{1, 2, 0, []string{"c"}}, work{2, 0, 0, []string{"unequal-once-2", "large-unequal-once"}})
	r.control()
	r.work(2)
	op := r.submit(add)
	end := r.finish(op.ID, operation.Succeeded)
	require.Equal(t, []operation.State{
		operation.Queued, operation.Planning, operation.Running, operation.Verifying, operation.Running, operation.Verifying, operation.Succeeded,
	}, r.states(op.ID))
	require.Equal(t, 2, end.Round)
	report := r.report(&end)
	require.True(t, report.Equal, "%+v", report)
	require.Equal(t, 7, report.Slices.Total)
	require.Empty(t, report.Problems)
	require.Equal(t, 1, r.carrier.copied["a/0/1"])
	require.Zero(t, r.carrier.copied["a/0/2"], "what is proven is left alone")
	require.Equal(t, 1, r.carrier.copied["unequal-once-1/0/2"])
	require.Equal(t, int64(6*pointsPerSlice), end.Progress.Points.Copied, "a second round copies nothing new")
	require.Equal(t, int64(6*pointsPerSlice), end.Progress.Points.Verified)
	require.Equal(t, end.Progress.Tasks.Total, end.Progress.Tasks.Done)
	require.Equal(t, end.Progress.Measurements.Total, end.Progress.Measurements.Done)
}

func TestEndsThatAreNoSuccess(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		tasks    []work
		state    operation.State
		code     string
		total    int
		unequal  int
		problems int
	}{
		{"some refused", []work{{0, 1, 0, []string{"a", "refused", "b"}}, {1, 2, 0, []string{"c"}}}, operation.PartiallyFailed, "slice_refused", 4, 1, 1},
		{"all refused", []work{{0, 1, 0, []string{"refused"}}, {1, 2, 0, []string{"refused-2"}}}, operation.Failed, "slice_refused", 2, 2, 2},
		{"unequal twice", []work{{0, 1, 0, []string{"a", "unequal"}}}, operation.PartiallyFailed, "unequal", 2, 1, 1},
		{"all unequal", []work{{0, 1, 0, []string{"unequal"}}}, operation.Failed, "unequal", 1, 1, 1},
		{"not compared", []work{{0, 1, 0, []string{"a", "unverified"}}}, operation.PartiallyFailed, operation.CodeNotVerified, 2, 1, 1},
		{"refused in a part", []work{{0, 1, 0, []string{"a", "large-refused"}}}, operation.PartiallyFailed, "slice_refused", 3, 2, 2},
		{"counts as done and is not", []work{{0, 1, 0, []string{"a", "lie"}}}, operation.PartiallyFailed, "incomplete", 2, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, ttl, c.tasks...)
			r.control()
			r.work(2)
			op := r.submit(add)
			end := r.finish(op.ID, c.state)
			require.Equal(t, c.code, end.Error.Code)
			require.NotEmpty(t, end.Error.Detail)
			report := r.report(&end)
			require.False(t, report.Equal)
			require.Equal(t, c.total, report.Slices.Total)
			require.Equal(t, c.unequal, report.Slices.Unequal)
			require.Len(t, report.Problems, c.problems)
			require.Equal(t, end.Progress.Tasks.Total, end.Progress.Tasks.Done+end.Progress.Tasks.Failed)
		})
	}
}

// The errors of planning and preparing: those that are about the operation end
// it, those that may pass do not.
func TestErrorsWhileDriving(t *testing.T) {
	t.Parallel()
	refusal := &influx.Error{Class: influx.Permanent, Op: "reading the schema of http://b0:1", Status: 401, Message: "authorization failed"}
	for _, c := range []struct {
		name, code string
		planning   func(n int, job planner.Job) error
		preparing  func(n int, w waiting.Waiter) error
	}{
		{name: "of the operation", code: "no_way", planning: func(int, planner.Job) error {
			return fmt.Errorf("planning: %w", &operation.Error{Code: "no_way", Detail: "d"})
		}},
		{name: "refused for good", code: "backend_refused", planning: func(int, planner.Job) error { return fmt.Errorf("planning: %w", refusal) }},
		{name: "preparing", code: "backend_refused", preparing: func(int, waiting.Waiter) error { return refusal }},
		{name: "that pass", planning: func(n int, _ planner.Job) error {
			if n < 3 {
				return errors.New("passing")
			}
			return nil
		}, preparing: func(n int, _ waiting.Waiter) error {
			if n < 3 {
				return fmt.Errorf("passing: %w", bus.ErrUnavailable)
			}
			return nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, ttl, work{0, 1, 0, named("a", 1)})
			r.planner.planning, r.planner.preparing = c.planning, c.preparing
			r.control()
			r.work(1)
			op := r.submit(add)
			if c.code == "" {
				r.finish(op.ID, operation.Succeeded)
				return
			}
			end := r.finish(op.ID, operation.Failed)
			require.Equal(t, c.code, end.Error.Code)
		})
	}
}

// What does not pass is shown while it is tried again, and ends the operation
// after a while: its scopes are not held for ever.
func TestWhatDoesNotPassIsGivenUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 1)})
	r.planner.planning = func(int, planner.Job) error {
		return errors.New("the credentials do not open with this key")
	}
	r.control(func(o *controller.Options) { o.GiveUp = time.Second })
	op := r.submit(add)
	wait := r.awaitWait(op.ID, "controller")
	require.Contains(t, wait.Measured, "do not open")
	require.Equal(t, "given up after 1s", wait.Limit)
	end := r.finish(op.ID, operation.Failed)
	require.Equal(t, "gave_up", end.Error.Code)
	require.Contains(t, end.Error.Detail, "do not open")
}

func TestPlanningShowsWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 1)})
	r.planner.planning = func(_ int, job planner.Job) error {
		done := make(chan struct{}, 4)
		for i := range 4 { // several backends at once
			go func() {
				job.Alive()
				job.Wait(&operation.Wait{Gate: "backend_answers", Backend: fmt.Sprint(i)})
				job.Wait(nil)
				done <- struct{}{}
			}()
		}
		for range 4 {
			<-done
		}
		return nil
	}
	r.control()
	r.work(1)
	op := r.submit(add)
	r.finish(op.ID, operation.Succeeded)
	r.awaitWait(op.ID, "backend_answers")
	last := uint64(0)
	for _, p := range r.events(op.ID, events.NounProgress) {
		require.Greater(t, p.(events.OperationProgress).Seq, last)
		last = p.(events.OperationProgress).Seq
	}
}

func TestAnOperationOfAnotherEpochEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 2)})
	blocked := make(chan struct{})
	r.carrier.before = func(ctx context.Context, _ operation.Task, s *operation.Slice) error {
		if s.Measurement == "a-1" {
			close(blocked)
			<-ctx.Done()
			return context.Cause(ctx)
		}
		return nil
	}
	r.control()
	r.work(1)
	op := r.submit(add)
	await(t, blocked, "half of it is copied")
	r.adopt(config(t, 4))
	end := r.finish(op.ID, operation.Failed)
	require.Equal(t, "epoch_changed", end.Error.Code)
	require.Eventually(t, func() bool { // the worker lets go as well
		task := r.tasks(op.ID)["c1-000001"]
		return task.State == operation.TaskWaiting && task.Points.Copied == pointsPerSlice
	}, patience, tick)
	require.Equal(t, int64(pointsPerSlice), end.Progress.Points.Copied, "what was done is not forgotten")

	// One that waits for its turn meanwhile ends as well.
	r.carrier.mu.Lock()
	r.carrier.before = nil
	r.carrier.mu.Unlock()
	r.intake.Topology = r.join("there")
	r.finish(r.submit(add).ID, operation.Succeeded)
	r.intake.Topology = r.atlas // a process that has not heard of it
	late := r.submit(add)
	require.Equal(t, "epoch_changed", r.finish(late.ID, operation.Failed).Error.Code)
}

// adopt makes a topology the current one, as another process does.
func (r *rig) adopt(next *topology.Topology) {
	r.t.Helper()
	require.NoError(r.t, r.configure(next, false))
}

// Nudges may be lost, purged or late: whoever watches over the tasks publishes
// them again.
func TestLostNudgesAreRepublished(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 1)}, work{0, 2, 0, named("b", 1)})
	r.control()
	op := r.submit(add)
	r.awaitQueue(2)
	require.NoError(t, r.queue.PurgeOperation(t.Context(), op.ID))
	r.awaitQueue(2)
	wait := r.awaitWait(op.ID, "worker")
	require.Equal(t, "no worker has taken a task: 0 workers are alive, 0 of their 0 slots are busy", wait.Measured)
	r.work(1)
	r.finish(op.ID, operation.Succeeded)
	r.awaitQueue(0)
}

// Tasks that no live worker knows wait, and say so.
func TestTasksThatNoWorkerKnowsSaySo(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 1)})
	old, err := r.leases.Acquire(t.Context(), ledger.WorkerLease("old"), []byte(`{"id":"old","knows":["clear/drop"]}`))
	require.NoError(t, err)
	keeping, stop := context.WithCancel(t.Context())
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		ticker := time.NewTicker(ttl / 4)
		defer ticker.Stop()
		for keeping.Err() == nil && old.Renew(keeping) == nil {
			<-ticker.C
		}
	}()
	t.Cleanup(func() { stop(); <-kept })
	r.control()
	op := r.submit(add)
	require.Eventually(t, func() bool {
		return r.awaitWait(op.ID, "worker").Measured == "no worker has taken a task: no live worker (of 1) knows tasks of rebalance/copy"
	}, patience, tick)
	r.work(1)
	r.finish(op.ID, operation.Succeeded)
}

func (r *rig) awaitQueue(n uint64) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		depth, err := r.queue.Depth(r.t.Context())
		return err == nil && depth == n
	}, patience, tick, "%d nudges lie in the queue", n)
}

// While nothing moves, the operation says so beside its state, and why; another
// controller knows it, and it goes when something moves.
func TestAnOperationThatStallsSaysSo(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 100)})
	goOn := make(chan struct{})
	r.carrier.before = func(ctx context.Context, _ operation.Task, _ *operation.Slice) error {
		select {
		case <-goOn:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	soon := func(o *controller.Options) { o.Stalled = 200 * time.Millisecond }
	first := r.control(soon)
	op := r.submit(add)
	stalled := func() []operation.Condition { return r.read(op.ID).Conditions }
	require.Eventually(t, func() bool { return len(stalled()) == 1 }, patience, tick)
	require.Equal(t, operation.Running, r.read(op.ID).State)
	require.Eventually(t, func() bool { return stalled()[0].Wait != nil }, patience, tick, "nobody takes its task")
	c := stalled()[0]
	require.Equal(t, "stalled", c.Type)
	require.InDelta(t, 0.2, c.LimitSeconds, 1e-9)
	require.Equal(t, "worker", c.Wait.Gate)
	for _, part := range []string{"0 workers are alive, 0 of their 0 slots are busy", "one with a free slot", c.Wait.Since.Format(time.RFC3339)} {
		require.Contains(t, c.Reason, part)
	}
	oldest := r.awaitProgress(op.ID, func(p *operation.Progress) bool { return len(p.OldestTasks) > 0 }).OldestTasks[0]
	require.Equal(t, "c1-000001", oldest.ID)
	require.Equal(t, operation.TaskWaiting, oldest.State)
	require.Equal(t, r.tasks(op.ID)["c1-000001"].CreatedAt, oldest.Since)
	first.stop()
	r.control(soon)
	r.work(1)
	require.Eventually(t, func() bool { return r.tasks(op.ID)["c1-000001"].State == operation.TaskRunning }, patience, tick)
	require.Equal(t, c.Since, stalled()[0].Since, "who takes it over has yet to see it move")
	require.Eventually(t, func() bool {
		goOn <- struct{}{}
		return len(stalled()) == 0
	}, patience, 5*tick)
	close(goOn)
	require.Empty(t, r.finish(op.ID, operation.Succeeded).Conditions)
	var told []events.OperationStall
	for _, p := range r.events(op.ID, events.NounStall) {
		told = append(told, p.(events.OperationStall))
	}
	require.GreaterOrEqual(t, len(told), 2)
	require.True(t, told[0].Stalled)
	require.Equal(t, c.Since, told[0].Since)
	require.False(t, told[len(told)-1].Stalled)
	for i := range told {
		require.Equal(t, i%2 == 0, told[i].Stalled, "beginning and end take turns")
	}
}

// admitting carries a task out under a limit that lets a little through now and then.
type admitting struct {
	*carrier

	goOn chan struct{}
}

func (a *admitting) Run(ctx context.Context, job mover.Job) error {
	began := time.Now()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		// A wait that begins is shown at once.
		job.Wait(nil)
		job.Wait(&operation.Wait{Gate: "limit", Measured: "10 points/s", Limit: "10 points/s", Since: began.UTC(), AdmittedAt: time.Now().UTC()})
		select {
		case <-a.goOn:
			return a.carrier.Run(ctx, job)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// What a low limit lets through is progress long before a slice is done.
func TestALimitThatLetsThroughIsNoStall(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 2)})
	r.control(func(o *controller.Options) { o.Stalled = time.Second })
	slow := &admitting{carrier: r.carrier, goOn: make(chan struct{})}
	r.run("worker", worker.New(r.ledger, r.queue, r.leases, slow, worker.Options{ID: "worker", Slots: 1, Logger: r.log}).Run)
	op := r.submit(add)
	began := time.Now()
	r.awaitProgress(op.ID, func(*operation.Progress) bool { return time.Since(began) > 3*time.Second })
	require.Empty(t, r.events(op.ID, events.NounStall))
	close(slow.goOn)
	r.finish(op.ID, operation.Succeeded)
}

// A controller of this release does not end what one of a later release has begun: it
// does not know what those tasks were to do.
func TestTasksOfALaterReleaseAreNotPassedOver(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 2)})
	op := r.submit(add)
	later := operation.Task{ID: "z1", OperationID: op.ID, Kind: operation.KindRebalance, Phase: "polish", State: operation.TaskWaiting, CreatedAt: time.Now().UTC()}
	require.NoError(t, r.ledger.CreateTask(t.Context(), later))
	r.control()
	r.work(1)
	shown := func() []operation.Wait {
		all := r.events(op.ID, events.NounProgress)
		if len(all) == 0 {
			return nil
		}
		p, _ := all[len(all)-1].(events.OperationProgress)
		return p.Waits
	}
	require.Eventually(t, func() bool {
		waits := shown()
		return len(waits) == 1 && waits[0].Gate == "release"
	}, patience, tick)
	require.Contains(t, shown()[0].Measured, "rebalance/polish (z1)")
	require.False(t, r.read(op.ID).State.Terminal())
	require.Equal(t, operation.TaskDone, r.tasks(op.ID)["c1-000001"].State)

	// It can be cancelled by whom there is.
	controls := &controller.Controls{Ledger: r.ledger, Now: time.Now}
	_, err := controls.Cancel(t.Context(), op.ID, intent())
	require.NoError(t, err)
	r.finish(op.ID, operation.Cancelled)
}

// TestPlanningThatStallsSaysSo: before there is any task, too, and only until it goes
// on or is paused.
func TestPlanningThatStallsSaysSo(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 4)})
	paused := make(chan struct{})
	r.planner.planning = func(n int, job planner.Job) error {
		if n > 1 {
			return nil
		}
		since := time.Now().Add(-time.Hour)
		job.Wait(&operation.Wait{Gate: "backend_answers", Backend: "http://b2:1", Measured: "status 503: busy", Limit: "given up after 2h0m0s", Since: since})
		<-paused
		return context.Canceled
	}
	r.control()
	op := r.submit(add)
	require.Eventually(t, func() bool { return r.stall(op.ID) != nil }, patience, tick)
	c := r.stall(op.ID)
	require.Equal(t, "http://b2:1", c.Wait.Backend)
	require.Contains(t, c.Reason, "http://b2:1 waits at backend_answers: status 503: busy (given up after 2h0m0s), since ")
	require.InDelta(t, 300, c.LimitSeconds, 1e-9)
	require.Eventually(t, func() bool { return len(r.events(op.ID, events.NounStall)) == 1 }, patience, tick)
	_, err := r.controls().Pause(t.Context(), op.ID, operation.Intent{At: time.Now(), Who: "test"})
	require.NoError(t, err)
	close(paused)
	require.Nil(t, r.stall(op.ID), "what is paused does not stall")
	require.Eventually(t, func() bool { return len(r.events(op.ID, events.NounStall)) == 2 }, patience, tick)
	_, err = r.controls().Resume(t.Context(), op.ID, operation.Intent{At: time.Now(), Who: "test"})
	require.NoError(t, err)
	r.work(1)
	r.finish(op.ID, operation.Succeeded)
}

// Records that vanish: a planned task follows from the plan and is made again;
// what a child had nobody knows.
func TestTaskRecordsThatAreGone(t *testing.T) {
	t.Parallel()
	remove := func(r *rig, id, task string) {
		bucket := r.bus.Bucket(events.BucketTasks)
		require.Eventually(r.t, func() bool {
			e, err := bucket.Get(r.t.Context(), id+"."+task)
			return err == nil && bucket.Delete(r.t.Context(), e.Key, e.Revision) == nil
		}, patience, tick)
	}
	t.Run("planned", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, ttl, work{0, 1, 0, named("a", 1)}, work{0, 2, 0, named("b", 1)})
		r.control()
		op := r.submit(add)
		r.awaitQueue(2)
		remove(r, op.ID, "c1-000002")
		r.work(1)
		end := r.finish(op.ID, operation.Succeeded)
		require.Equal(t, 2, r.report(&end).Slices.Total)
	})
	t.Run("a child", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, ttl, work{0, 1, 0, []string{"large", "a"}})
		blocked, goOn := make(chan struct{}), make(chan struct{})
		r.carrier.before = func(ctx context.Context, _ operation.Task, s *operation.Slice) error {
			if s.Measurement == "a" {
				close(blocked)
				<-goOn
			}
			return nil
		}
		r.control()
		r.work(1)
		op := r.submit(add)
		await(t, blocked, "the children have been made")
		remove(r, op.ID, "c1-000001-1-2")
		close(goOn)
		end := r.finish(op.ID, operation.Failed)
		require.Equal(t, "task_lost", end.Error.Code)
	})
	t.Run("unreadable", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, ttl, work{0, 1, 0, named("a", 1)}, work{0, 2, 0, named("b", 1)})
		r.control()
		op := r.submit(add)
		r.awaitQueue(2)
		bucket := r.bus.Bucket(events.BucketTasks)
		e, err := bucket.Get(t.Context(), op.ID+".c1-000002")
		require.NoError(t, err)
		_, err = bucket.Update(t.Context(), e.Key, []byte("{"), e.Revision)
		require.NoError(t, err)
		r.work(1)
		end := r.finish(op.ID, operation.Failed)
		require.Equal(t, "record_unreadable", end.Error.Code)
		require.Contains(t, end.Error.Detail, "c1-000002")
	})
	t.Run("the plan", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, ttl, work{0, 1, 0, named("a", 1)})
		r.planner.preparing = func(int, waiting.Waiter) error { return errors.New("not yet") }
		control := r.control()
		op := r.submit(add)
		require.Eventually(t, func() bool { return r.read(op.ID).State == operation.Running }, patience, tick)
		control.stop()
		objects, err := r.bus.Objects(t.Context(), events.ObjectStorePlans)
		require.NoError(t, err)
		require.NoError(t, objects.Delete(t.Context(), r.read(op.ID).Plan.Object))
		r.control()
		require.Equal(t, "record_unreadable", r.finish(op.ID, operation.Failed).Error.Code)
	})
}

// A wave begins when the one before it has ended, in the second round as well.
func TestWavesGoOneAfterTheOther(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl,
		work{0, 2, 0, []string{"a", "unequal-once-a"}}, work{1, 2, 0, []string{"large-b", "unequal-once-b"}},
		work{1, 2, 1, []string{"c", "unequal-once-c"}}, work{0, 2, 2, []string{"d", "unequal-once-d"}})
	r.control()
	r.work(4)
	op := r.submit(add)
	r.finish(op.ID, operation.Succeeded)
	waves := map[int][]int{}
	for _, task := range r.carrier.started {
		if task.Phase == operation.PhaseCopy {
			waves[task.Round] = append(waves[task.Round], task.Wave)
		}
	}
	require.Equal(t, []int{0, 0, 0, 0, 1, 2}, waves[1])
	require.Equal(t, []int{0, 0, 1, 2}, waves[2])
}

// A measurement that an earlier wave could not copy is not copied by a later one,
// whose value would then stay; all others are, those beside it too, in every wave
// that follows.
func TestAFailedWaveBarsItsMeasurements(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl,
		work{0, 2, 0, []string{"a", "refused-b"}}, work{1, 2, 1, []string{"refused-b", "c", "d"}},
		work{0, 2, 2, []string{"c"}}, work{1, 2, 2, []string{"d", "refused-b"}}, work{1, 2, 3, []string{"a", "d"}})
	r.control()
	r.work(2)
	op := r.finish(r.submit(add).ID, operation.PartiallyFailed)
	tasks := r.tasks(op.ID)
	barred := map[string][]int{}
	for id, task := range tasks {
		if len(task.Barred) > 0 {
			barred[id] = task.Barred
		}
	}
	require.Equal(t, map[string][]int{"c1-000002": {0}, "c1-000004": {1}}, barred)
	require.Equal(t, operation.TaskDone, tasks["c1-000003"].State)
	require.Equal(t, operation.TaskDone, tasks["c1-000005"].State)
	report := r.report(&op)
	require.Equal(t, 3, report.Slices.Unequal, "the refused one and the two that were to follow it")
	require.Equal(t, 7, report.Slices.Equal)
	require.Equal(t, report.Slices.Total, report.Slices.Equal+report.Slices.Unequal)
}

// A limit on workers bounds the tasks of each source, and no wakeup is lost by
// it: with a poll that never comes, every task begins when the one before it ends.
func TestALimitOnWorkersIsRespected(t *testing.T) {
	t.Parallel()
	var tasks []work
	for i := range 12 {
		tasks = append(tasks, work{i % 2, 2, 0, named(fmt.Sprintf("m%d", i), 2)})
	}
	r := newRig(t, time.Minute, tasks...)
	// The first two of a source wait for each other: so many do run at once.
	both := make(chan struct{})
	var arrived atomic.Int64
	r.carrier.before = func(_ context.Context, task operation.Task, _ *operation.Slice) error {
		if task.Phase == operation.PhaseCopy && task.Source == "http://b0:1" {
			if arrived.Add(1) == 2 {
				close(both)
			}
			await(t, both, "two tasks of a source run")
		}
		return nil
	}
	op := r.submit(`{"circle_id":0,"operation":"add","workers":2}`)
	r.control(func(o *controller.Options) { o.Poll = time.Hour })
	r.work(8)
	r.finish(op.ID, operation.Succeeded)
	for source, most := range r.carrier.most {
		require.LessOrEqual(t, most, 2, source)
	}
	require.Equal(t, 2, r.carrier.most["copy http://b0:1"])
}

func TestProgressIsSane(t *testing.T) {
	t.Parallel()
	var tasks []work
	for i := range 6 {
		tasks = append(tasks, work{0, 1, 0, named(fmt.Sprintf("m%d", i), 4)})
	}
	r := newRig(t, ttl, tasks...)
	pace := time.NewTicker(15 * time.Millisecond)
	defer pace.Stop()
	r.carrier.before = func(ctx context.Context, _ operation.Task, _ *operation.Slice) error {
		select {
		case <-pace.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	r.control()
	r.work(2)
	op := r.submit(add)
	r.finish(op.ID, operation.Succeeded)
	told := r.events(op.ID, events.NounProgress)
	require.Greater(t, len(told), 5)
	var before operation.Progress
	rates := 0
	for _, e := range told {
		p := e.(events.OperationProgress).Progress
		require.GreaterOrEqual(t, p.Points.Copied, before.Points.Copied)
		require.GreaterOrEqual(t, p.Points.Verified, before.Points.Verified)
		require.GreaterOrEqual(t, p.PointsPerSecond, 0.0)
		require.Less(t, p.PointsPerSecond, 100_000.0)
		require.Equal(t, p.Tasks.Total, p.Tasks.Done+p.Tasks.Failed+p.Tasks.Running+p.Tasks.Waiting)
		if p.ETASeconds != nil {
			rates++
			require.GreaterOrEqual(t, *p.ETASeconds, 0.0)
			require.Less(t, *p.ETASeconds, 3600.0)
		}
		before = p
	}
	require.Positive(t, rates)
}

func TestRecordsWithoutACommandAreSwept(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 1)})
	store := func(state operation.State, created time.Time) string {
		v, err := r.ledger.CreateOperation(t.Context(), operation.Operation{
			ID: newID(), Kind: operation.KindRebalance, State: state, Scope: []string{}, CreatedAt: created, Epoch: 1, Round: 1,
			Parameters: []byte(add),
		})
		require.NoError(t, err)
		return v.Value.ID
	}
	queued := store(operation.Queued, time.Now())
	runs := store(operation.Running, time.Now())
	r.control(func(o *controller.Options) { o.Orphan = 200 * time.Millisecond })
	require.Equal(t, "never_accepted", r.finish(queued, operation.Cancelled).Error.Code)
	require.Equal(t, "command_lost", r.finish(runs, operation.Cancelled).Error.Code)
	// One that is accepted is not, however old it is.
	op := r.submit(add)
	r.work(1)
	r.finish(op.ID, operation.Succeeded)
}

// The age of an orphan is measured by who sweeps, not by the clock of another.
func TestTheClockOfASubmissionSweepsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	v, err := r.ledger.CreateOperation(t.Context(), operation.Operation{
		ID: newID(), Kind: operation.KindRebalance, State: operation.Queued, Scope: []string{"circle/0"},
		CreatedAt: time.Now().Add(-24 * time.Hour), Epoch: 1, Round: 1, Parameters: []byte(add),
	})
	require.NoError(t, err)
	r.control(func(o *controller.Options) { o.Orphan = time.Hour })
	other := r.submit(`{"circle_id":0,"operation":"add"}`)
	r.finish(other.ID, operation.Succeeded)
	require.Equal(t, operation.Queued, r.read(v.Value.ID).State)
	require.NoError(t, r.ledger.Accept(t.Context(), &v.Value))
	r.finish(v.Value.ID, operation.Succeeded)
}

// A command whose operation was taken back holds nothing for long, and records
// that cannot be read hold up no other operation.
func TestOperationsThatCannotBeDriven(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 1)})
	gone := r.submit(add)
	v, err := r.ledger.Operation(t.Context(), gone.ID)
	require.NoError(t, err)
	require.NoError(t, r.ledger.RemoveOperation(t.Context(), v))
	torn := operation.Operation{ID: newID(), Kind: operation.KindRebalance, State: operation.Queued, Scope: []string{"circle/9"}, Parameters: []byte(add)}
	stored, err := r.ledger.CreateOperation(t.Context(), torn)
	require.NoError(t, err)
	require.NoError(t, r.ledger.Accept(t.Context(), &torn))
	_, err = r.bus.Bucket(events.BucketOperations).Update(t.Context(), torn.ID, []byte("{"), stored.Revision)
	require.NoError(t, err)
	r.control(func(o *controller.Options) { o.Orphan = 100 * time.Millisecond })
	r.work(1)
	require.Eventually(t, func() bool { return len(r.holds(gone.ID)) == 0 }, patience, tick)
	r.finish(r.submit(add).ID, operation.Succeeded)
	require.Len(t, r.holds(torn.ID), 2, "nobody knows whether it has ended")
	_, err = r.ledger.Operation(t.Context(), torn.ID)
	require.ErrorIs(t, err, ledger.ErrUnreadable)
}
