package controller_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/controller"
	"ringmaster/pkg/operation"
	waiting "ringmaster/pkg/patience"
	"ringmaster/pkg/planner"
)

func (r *rig) controls() *controller.Controls {
	return &controller.Controls{Ledger: r.ledger, Now: time.Now}
}

func by(reason string) operation.Intent {
	return operation.Intent{At: time.Now().UTC(), Who: "operator", Origin: "10.0.0.1", Reason: reason}
}

// gate holds slices of one phase up until it is opened; each that arrives is told.
type gate struct {
	phase   operation.Phase
	arrived chan string
	open    chan struct{}
	once    sync.Once
}

func newGate(phase operation.Phase) *gate {
	return &gate{phase: phase, arrived: make(chan string, 1000), open: make(chan struct{})}
}

func (g *gate) before(ctx context.Context, task operation.Task, s *operation.Slice) error {
	if task.Phase != g.phase {
		return ctx.Err()
	}
	g.arrived <- s.Measurement
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (g *gate) free() { g.once.Do(func() { close(g.open) }) }

// actions are the verbs of an operation's audit trail.
func (r *rig) actions(id string) []string {
	r.t.Helper()
	trail, err := r.ledger.AuditTrail(r.t.Context(), id)
	require.NoError(r.t, err)
	out := make([]string, 0, len(trail))
	for _, e := range trail {
		out = append(out, e.Action)
	}
	return out
}

// idle waits until no worker has a task of the operation.
func (r *rig) idle(id string) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		for _, task := range r.tasks(id) {
			if task.State == operation.TaskRunning {
				return false
			}
		}
		return true
	}, patience, tick, "the workers have given everything back")
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	for _, phase := range []operation.Phase{operation.PhaseCopy, operation.PhaseVerify} {
		t.Run(string(phase), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 10*time.Second, work{0, 1, 0, named("a", 3)}, work{0, 2, 0, named("b", 3)})
			g := newGate(phase)
			r.carrier.before = g.before
			r.control()
			r.work(2)
			op := r.submit(add)
			await(t, g.arrived, "a task is at work")
			r.awaitProgress(op.ID, func(p *operation.Progress) bool { return p.Phase == phase && p.Tasks.Running > 0 })
			began := time.Now()
			paused, err := r.controls().Pause(t.Context(), op.ID, by("lunch"))
			require.NoError(t, err)
			require.Equal(t, operation.Paused, paused.State)
			require.Equal(t, "paused", paused.Conditions[0].Type)
			require.Contains(t, paused.Conditions[0].Reason, "lunch")
			require.Contains(t, paused.Conditions[0].Reason, "circle/0", "what stays taken")
			r.idle(op.ID)
			require.Less(t, time.Since(began), 5*time.Second, "the lease is not waited for")
			require.Eventually(t, func() bool {
				all := r.events(op.ID, events.NounProgress)
				p := all[len(all)-1].(events.OperationProgress).Progress
				return p.Phase == phase && p.Tasks.Running == 0 && p.PointsPerSecond == 0 && p.ETASeconds == nil
			}, patience, tick, "nor does the progress say that anybody works")
			require.Len(t, r.holds(op.ID), 2, "command and scope stay")
			_, _, err = r.intake.Submit(t.Context(), request(add))
			var held *operation.ScopeHeldError
			require.ErrorAs(t, err, &held)
			require.Equal(t, operation.Paused, held.State)
			require.Eventually(t, func() bool {
				n, err := r.queue.Depth(t.Context())
				return err == nil && n == 0
			}, patience, tick, "nobody is nudged to what is paused")
			for _, task := range r.tasks(op.ID) {
				require.Empty(t, task.History, "to be told to stop is no failure")
			}
			_, err = r.controls().Pause(t.Context(), op.ID, by(""))
			var refused *operation.StateError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, operation.Paused, refused.State)

			g.free()
			resumed, err := r.controls().Resume(t.Context(), op.ID, by("back"))
			require.NoError(t, err)
			require.Empty(t, resumed.Conditions)
			end := r.finish(op.ID, operation.Succeeded)
			require.Equal(t, int64(6*pointsPerSlice), end.Progress.Points.Copied)
			require.Equal(t, []string{"submit", "pause", "resume"}, r.actions(op.ID))
			for name, n := range r.carrier.copied {
				require.Equal(t, 1, n, "%s is copied once", name)
			}
		})
	}
}

// A pause outlives every process; only what was in hand is done again.
func TestAPauseSurvivesEverybody(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 4)})
	g := newGate(operation.PhaseCopy)
	r.carrier.before = g.before
	c, w := r.control(), r.work(1)
	op := r.submit(add)
	await(t, g.arrived, "a task is at work")
	_, err := r.controls().Pause(t.Context(), op.ID, by(""))
	require.NoError(t, err)
	c.stop()
	w.stop()
	r.control()
	r.work(1)
	g.free()
	r.idle(op.ID)
	require.Equal(t, operation.Paused, r.read(op.ID).State)
	_, err = r.controls().Resume(t.Context(), op.ID, by(""))
	require.NoError(t, err)
	r.finish(op.ID, operation.Succeeded)
}

// What is done stays in sight while a resumed operation waits before its tasks.
func TestAResumedOperationShowsWhatIsDone(t *testing.T) {
	t.Parallel()
	r := newRig(t, 10*time.Second, work{0, 1, 0, named("a", 3)})
	g := newGate(operation.PhaseCopy)
	first := make(chan struct{}, 1)
	first <- struct{}{}
	r.carrier.before = func(ctx context.Context, task operation.Task, s *operation.Slice) error {
		select {
		case <-first: // one slice is copied
			return nil
		default:
			return g.before(ctx, task, s)
		}
	}
	r.planner.preparing = func(n int, w waiting.Waiter) error {
		if n > 1 {
			w.Wait(&operation.Wait{Gate: "backend", Since: time.Now()})
		}
		return nil
	}
	r.control()
	r.work(1)
	op := r.submit(add)
	await(t, g.arrived, "the second slice is at work")
	_, err := r.controls().Pause(t.Context(), op.ID, by(""))
	require.NoError(t, err)
	r.idle(op.ID)
	g.free()
	_, err = r.controls().Resume(t.Context(), op.ID, by(""))
	require.NoError(t, err)
	r.awaitWait(op.ID, "backend")
	for _, p := range r.events(op.ID, events.NounProgress) {
		if e := p.(events.OperationProgress); len(e.Waits) == 1 && e.Waits[0].Gate == "backend" {
			require.Equal(t, int64(pointsPerSlice), e.Progress.Points.Copied)
		}
	}
	r.finish(op.ID, operation.Succeeded)
}

func TestACancelledOperationIsNotPaused(t *testing.T) {
	t.Parallel()
	r := newRig(t, 10*time.Second, work{0, 1, 0, named("a", 1)})
	g := newGate(operation.PhaseCopy)
	r.carrier.before = g.before
	r.control()
	r.work(1)
	op := r.submit(add)
	await(t, g.arrived, "it is at work")
	_, err := r.controls().Pause(t.Context(), op.ID, by(""))
	require.NoError(t, err)
	_, err = r.controls().Cancel(t.Context(), op.ID, by(""))
	require.NoError(t, err)
	require.Empty(t, r.finish(op.ID, operation.Cancelled).Conditions)
}

func TestAPausedPlanIsMadeAnew(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 1)})
	planning, open := make(chan int, 10), make(chan struct{})
	r.planner.planning = func(n int, _ planner.Job) error {
		planning <- n
		if n == 1 {
			<-open
		}
		return nil
	}
	r.control()
	r.work(1)
	op := r.submit(add)
	await(t, planning, "it is planned")
	_, err := r.controls().Pause(t.Context(), op.ID, by(""))
	require.NoError(t, err)
	close(open)
	require.Equal(t, operation.Paused, r.read(op.ID).State)
	_, err = r.controls().Resume(t.Context(), op.ID, by(""))
	require.NoError(t, err)
	require.Equal(t, 2, await(t, planning, "it is planned anew"))
	r.finish(op.ID, operation.Succeeded)
}

func TestCancelOfWhatRuns(t *testing.T) {
	t.Parallel()
	r := newRig(t, 10*time.Second, work{0, 1, 0, named("a", 3)}, work{0, 2, 0, named("b", 3)})
	g := newGate(operation.PhaseCopy)
	first := make(chan struct{}, 1)
	first <- struct{}{}
	r.carrier.before = func(ctx context.Context, task operation.Task, s *operation.Slice) error {
		select {
		case <-first: // one slice is copied
			return nil
		default:
			return g.before(ctx, task, s)
		}
	}
	r.control()
	r.work(2)
	op := r.submit(add)
	for range 2 {
		await(t, g.arrived, "both tasks are at work")
	}
	began := time.Now()
	_, err := r.controls().Cancel(t.Context(), op.ID, by("wrong circle"))
	require.NoError(t, err)
	_, err = r.controls().Resume(t.Context(), op.ID, by(""))
	require.Error(t, err, "what is being cancelled does not go on")
	end := r.finish(op.ID, operation.Cancelled)
	require.Less(t, time.Since(began), 5*time.Second)
	require.Equal(t, "wrong circle", end.Cancel.Reason)
	require.Contains(t, end.Result.Note, "of 6 slices 1 are copied (10 points)")
	report := r.report(&end)
	require.False(t, report.Equal)
	require.Equal(t, 6, report.Slices.Total)
	total := operation.MoveStanding{}
	for i := range report.Moves {
		total.Add(&report.Moves[i])
	}
	require.Equal(t, operation.SliceStanding{Total: 6, Copied: 1}, total.Slices)
	require.Equal(t, []string{"submit", "cancel"}, r.actions(op.ID))
	_, err = r.controls().Cancel(t.Context(), op.ID, by(""))
	var refused *operation.StateError
	require.ErrorAs(t, err, &refused)

	// A retry does only what was not done, under the same id.
	g.free()
	again, err := r.controls().Retry(t.Context(), op.ID, by("right after all"))
	require.NoError(t, err)
	require.Equal(t, operation.Queued, again.State)
	end = r.finish(op.ID, operation.Succeeded)
	require.Equal(t, 2, end.Attempt)
	require.Len(t, end.Attempts, 1)
	require.Equal(t, operation.Cancelled, end.Attempts[0].State)
	require.NotNil(t, end.Attempts[0].Report)
	require.Equal(t, "right after all", end.Attempts[0].Retried.Reason)
	require.Nil(t, end.Cancel)
	for name, n := range r.carrier.copied {
		require.Equal(t, 1, n, "%s is copied once", name)
	}
	require.Equal(t, 1, r.planner.plans, "the plan is the one that was made")
	require.Equal(t, []string{"submit", "cancel", "retry"}, r.actions(op.ID))
}

// A worker that does not stop is waited for, and named.
func TestCancelSaysWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	r := newRig(t, 10*time.Second, work{0, 1, 0, named("a", 1)})
	deaf, arrived := make(chan struct{}), make(chan struct{}, 10)
	r.carrier.before = func(context.Context, operation.Task, *operation.Slice) error {
		arrived <- struct{}{}
		<-deaf
		return nil
	}
	r.control()
	r.work(1)
	op := r.submit(add)
	await(t, arrived, "a task is at work")
	_, err := r.controls().Cancel(t.Context(), op.ID, by(""))
	require.NoError(t, err)
	w := r.awaitWait(op.ID, "cancel")
	require.Contains(t, w.Measured, "1 task")
	require.Equal(t, "c1-000001", w.TaskID)
	require.False(t, r.read(op.ID).State.Terminal())
	require.Len(t, r.holds(op.ID), 2, "its scope stays taken as long as somebody may write")
	close(deaf)
	r.finish(op.ID, operation.Cancelled)
}

func TestCancelOfWhatWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 1)})
	// Nobody has taken it up, and nobody has to.
	queued := r.submit(add)
	end, err := r.controls().Cancel(t.Context(), queued.ID, by(""))
	require.NoError(t, err)
	require.Equal(t, operation.Cancelled, end.State)
	require.NotNil(t, end.FinishedAt)
	require.Empty(t, r.holds(queued.ID), "its scope is free at once")

	r.control()
	q := request(add)
	q.Hold = true
	held, _, err := r.intake.Submit(t.Context(), q)
	require.NoError(t, err)
	r.reach(held.ID, operation.AwaitingApproval)
	_, err = r.controls().Cancel(t.Context(), held.ID, by(""))
	require.NoError(t, err)
	require.Empty(t, r.holds(held.ID))

	// Cancelled before it was approved, it waits for approval once more.
	_, err = r.controls().Retry(t.Context(), held.ID, by(""))
	require.NoError(t, err)
	r.reach(held.ID, operation.AwaitingApproval)
	r.work(1)
	_, err = r.controls().Approve(t.Context(), held.ID, by(""))
	require.NoError(t, err)
	r.finish(held.ID, operation.Succeeded)
}

// reach waits until an operation is in a state.
func (r *rig) reach(id string, state operation.State) operation.Operation {
	r.t.Helper()
	var op operation.Operation
	require.Eventually(r.t, func() bool {
		op = r.read(id)
		return op.State == state
	}, patience, tick, "it becomes %s", state)
	return op
}

func TestApproval(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 2)})
	r.control()
	r.work(1)
	q := request(add)
	q.Hold = true
	op, _, err := r.intake.Submit(t.Context(), q)
	require.NoError(t, err)
	held := r.reach(op.ID, operation.AwaitingApproval)
	require.Equal(t, 2, held.Plan.Totals.Slices)
	require.Empty(t, r.tasks(op.ID))
	require.Len(t, r.holds(op.ID), 2, "the scope is its own while it waits")
	approved, err := r.controls().Approve(t.Context(), op.ID, by("looks right"))
	require.NoError(t, err)
	require.NotEqual(t, operation.AwaitingApproval, approved.State)
	end := r.finish(op.ID, operation.Succeeded)
	require.Equal(t, "looks right", end.Approval.Reason)
	require.Equal(t, held.Plan.Document, end.Plan.Document)
	_, err = r.controls().Approve(t.Context(), op.ID, by(""))
	var refused *operation.StateError
	require.ErrorAs(t, err, &refused)

	// What has changed since is refused, in words.
	op, _, err = r.intake.Submit(t.Context(), q)
	require.NoError(t, err)
	r.reach(op.ID, operation.AwaitingApproval)
	r.planner.mu.Lock()
	r.planner.changed = "measurement db.cpu is new on http://b0:1"
	r.planner.mu.Unlock()
	_, err = r.controls().Approve(t.Context(), op.ID, by(""))
	var outdated *operation.OutdatedError
	require.ErrorAs(t, err, &outdated)
	require.Equal(t, operation.CodeSchemaChanged, outdated.Code)
	require.Contains(t, outdated.Detail, "db.cpu")
	r.finish(op.ID, operation.Failed)
	require.Empty(t, r.tasks(op.ID))
	// A retry plans anew, and is not let go by an approval of what was refused.
	plans := r.planner.plans
	r.planner.mu.Lock()
	r.planner.changed = ""
	r.planner.mu.Unlock()
	_, err = r.controls().Retry(t.Context(), op.ID, by(""))
	require.NoError(t, err)
	held = r.reach(op.ID, operation.AwaitingApproval)
	require.Nil(t, held.Approval)
	require.Equal(t, plans+1, r.planner.plans)
	_, err = r.controls().Approve(t.Context(), op.ID, by("still right"))
	require.NoError(t, err)
	r.finish(op.ID, operation.Succeeded)

	op, _, err = r.intake.Submit(t.Context(), q)
	require.NoError(t, err)
	r.reach(op.ID, operation.AwaitingApproval)
	require.NoError(t, r.configure(config(t, 4), false))
	_, err = r.controls().Approve(t.Context(), op.ID, by(""))
	require.ErrorAs(t, err, &outdated)
	require.Equal(t, operation.CodeEpochChanged, outdated.Code)
	_, err = r.controls().Retry(t.Context(), op.ID, by(""))
	require.ErrorAs(t, err, &outdated, "nor is it retried")
}

func TestRetryOfWhatFailed(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl,
		work{0, 1, 0, append(named("a", 2), "refused-0")}, work{0, 2, 0, []string{"b", "unequal-0", "large-refused"}},
		work{1, 2, 0, []string{"unverified-0"}}, work{1, 0, 1, named("c", 2)})
	r.control()
	r.work(2)
	op := r.submit(add)
	end := r.finish(op.ID, operation.PartiallyFailed)
	first := end.Report.Object
	r.carrier.mended.Store(true)
	// A held scope is in the way, and leaves the operation as it is.
	q := request(add)
	q.Hold = true
	other, _, err := r.intake.Submit(t.Context(), q)
	require.NoError(t, err)
	r.reach(other.ID, operation.AwaitingApproval)
	_, err = r.controls().Retry(t.Context(), op.ID, by(""))
	var held *operation.ScopeHeldError
	require.ErrorAs(t, err, &held)
	require.Equal(t, operation.PartiallyFailed, r.read(op.ID).State)
	_, err = r.controls().Cancel(t.Context(), other.ID, by(""))
	require.NoError(t, err)

	_, err = r.controls().Retry(t.Context(), op.ID, by("mended"))
	require.NoError(t, err)
	end = r.finish(op.ID, operation.Succeeded)
	report := r.report(&end)
	require.True(t, report.Equal, "%+v", report)
	require.Equal(t, 10, report.Slices.Total)
	require.Equal(t, int64(9*pointsPerSlice), end.Progress.Points.Copied)
	require.Equal(t, int64(9*pointsPerSlice), end.Progress.Points.Verified)
	require.Equal(t, first, end.Attempts[0].Report.Object, "the report of each attempt is kept")
	require.Equal(t, operation.PartiallyFailed, end.Attempts[0].State)
	r.carrier.mu.Lock()
	require.Equal(t, 1, r.carrier.copied["a-0/0/1"], "what was done is not done again: %v", r.carrier.copied)
	require.Equal(t, 1, r.carrier.copied["c-1/0/1"])
	r.carrier.mu.Unlock()
	states := r.states(op.ID)
	require.Equal(t, []operation.State{operation.Queued, operation.Planning, operation.Running, operation.Verifying, operation.Succeeded}, states[len(states)-5:])
	for _, p := range r.events(op.ID, events.NounOperation) {
		require.Empty(t, p.(events.OperationChange).Operation.IdempotencyKey)
	}
}
