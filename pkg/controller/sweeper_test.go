package controller_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/controller"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// sweeping is a sweeper whose clock stands still until it is moved on.
type sweeping struct {
	*rig
	*controller.Sweeper

	clock time.Time
}

// newSweeping returns a sweeper on a rig whose leases live long.
func newSweeping(t *testing.T) *sweeping {
	t.Helper()
	s := &sweeping{rig: newRig(t, time.Minute), clock: time.Now()}
	s.Sweeper = &controller.Sweeper{
		Ledger: s.ledger, Queue: s.queue, Leases: s.leases, Scopes: s.bus.Scopes(), ID: "sweeper",
		Logger: s.log, Now: func() time.Time { return s.clock },
	}
	return s
}

// sweep looks twice, as far apart as it must be, and requires that what was repaired is
// what is given, and nothing at the first look.
func (s *sweeping) sweep(want map[string]int64) {
	s.t.Helper()
	before := s.Repaired()
	require.NoError(s.t, s.Round(s.t.Context()))
	for _, what := range []string{controller.RepairLease, controller.RepairNudge, controller.RepairLetter, controller.RepairScope, controller.RepairTask} {
		require.Equal(s.t, before[what], s.Repaired()[what], "%s was repaired at first sight", what)
	}
	s.clock = s.clock.Add(2 * time.Minute)
	require.NoError(s.t, s.Round(s.t.Context()))
	got := map[string]int64{}
	for what, n := range s.Repaired() {
		if n != before[what] {
			got[what] = n - before[what]
		}
	}
	if want == nil {
		want = map[string]int64{}
	}
	require.Equal(s.t, want, got)
	// There is nothing left to be repaired.
	require.NoError(s.t, s.Round(s.t.Context()))
	s.clock = s.clock.Add(2 * time.Minute)
	require.NoError(s.t, s.Round(s.t.Context()))
	for what, n := range got {
		require.Equal(s.t, before[what]+n, s.Repaired()[what], what)
	}
}

// audited requires that the audit trail says why something was repaired.
func (s *sweeping) audited(id, reason string) {
	s.t.Helper()
	trail, err := s.ledger.AuditTrail(s.t.Context(), id)
	require.NoError(s.t, err)
	for _, e := range trail {
		if e.Action == "sweep" {
			require.Contains(s.t, e.Reason, reason)
			return
		}
	}
	s.t.Errorf("the audit trail says nothing of %q: %+v", reason, trail)
}

// move takes an operation through states.
func (s *sweeping) move(v ledger.Versioned[operation.Operation], states ...operation.State) ledger.Versioned[operation.Operation] {
	s.t.Helper()
	for _, to := range states {
		next, err := v.Value.Move(to)
		require.NoError(s.t, err)
		if to.Terminal() {
			now := time.Now().UTC()
			next.FinishedAt = &now
		}
		v, err = s.ledger.UpdateOperation(s.t.Context(), v, next)
		require.NoError(s.t, err)
	}
	return v
}

func (s *sweeping) version(id string) ledger.Versioned[operation.Operation] {
	s.t.Helper()
	v, err := s.ledger.Operation(s.t.Context(), id)
	require.NoError(s.t, err)
	return v
}

// task makes a task record in a state.
func (s *sweeping) task(op, id string, state operation.TaskState) operation.Task {
	s.t.Helper()
	t := operation.Task{ID: id, OperationID: op, Kind: operation.KindRebalance, Phase: operation.PhaseCopy, State: state}
	if state == operation.TaskRunning {
		t.Holder = "dead"
	}
	require.NoError(s.t, s.ledger.CreateTask(s.t.Context(), t))
	return t
}

// lease takes the lease of a task for a worker.
func (s *sweeping) lease(op, task, worker string) *bus.Lease {
	s.t.Helper()
	value, err := json.Marshal(map[string]string{"worker": worker, "operation_id": op, "task_id": task})
	require.NoError(s.t, err)
	l, err := s.leases.Claims().Acquire(s.t.Context(), ledger.TaskLease(op, task), value)
	require.NoError(s.t, err)
	return l
}

func (s *sweeping) nudge(t operation.Task) {
	s.t.Helper()
	m, err := s.ledger.Nudge(&t)
	require.NoError(s.t, err)
	require.NoError(s.t, s.queue.Publish(s.t.Context(), m))
}

func (s *sweeping) nudges() (subjects []string) {
	s.t.Helper()
	for r, err := range s.queue.Nudges(s.t.Context()) {
		require.NoError(s.t, err)
		subjects = append(subjects, r.Subject)
	}
	return subjects
}

func TestSweepingASystemThatIsWhole(t *testing.T) {
	t.Parallel()
	s := newSweeping(t)
	op := s.submit(add)
	s.move(s.version(op.ID), operation.Planning, operation.Running)
	s.nudge(s.task(op.ID, "t", operation.TaskWaiting))
	s.task(op.ID, "u", operation.TaskRunning)
	s.lease(op.ID, "u", "w")
	s.sweep(nil)
	require.Len(t, s.holds(op.ID), 2)
	require.Len(t, s.nudges(), 1)
}

// Lease without task: whoever holds it is gone, and so is what it is about.
func TestSweepingLeasesWithoutTask(t *testing.T) {
	t.Parallel()
	s := newSweeping(t)
	op := s.submit(add)
	s.move(s.version(op.ID), operation.Planning, operation.Running)
	s.task(op.ID, "done", operation.TaskDone)
	s.task(op.ID, "running", operation.TaskRunning)
	alive, err := s.leases.Acquire(t.Context(), ledger.WorkerLease("alive"), nil)
	require.NoError(t, err)
	for _, task := range []string{"done", "none", "running"} {
		s.lease(op.ID, task, "dead")
	}
	s.lease("no-such-operation", "t", "dead")
	kept := s.lease(op.ID, "living", "alive")
	s.sweep(map[string]int64{controller.RepairLease: 3})
	s.audited(op.ID, "was held for nothing")
	require.NoError(t, kept.Renew(t.Context()), "a worker that lives gives its leases back itself")
	_, err = s.leases.Claims().Holder(t.Context(), ledger.TaskLease(op.ID, "running"))
	require.NoError(t, err, "a task that runs keeps its lease")
	require.NoError(t, alive.Release(t.Context()))
	s.sweep(map[string]int64{controller.RepairLease: 1})
}

// Message without record: of an operation that is over it means nothing any more; of
// one that lives it is kept with the reason.
func TestSweepingNudgesWithoutRecord(t *testing.T) {
	t.Parallel()
	s := newSweeping(t)
	op := s.submit(add)
	s.move(s.version(op.ID), operation.Planning, operation.Running)
	waiting := s.task(op.ID, "t", operation.TaskWaiting)
	s.nudge(waiting)
	lost := waiting
	lost.ID = "lost"
	s.nudge(lost)
	over := waiting
	over.OperationID = newID()
	s.nudge(over)
	s.sweep(map[string]int64{controller.RepairNudge: 1, controller.RepairLetter: 1})
	require.Equal(t, []string{events.TaskSubject("rebalance", op.ID, "t")}, s.nudges())
	letters, err := s.bus.Log(events.StreamDeadLetters).Page(t.Context(), 0, events.AllDeadLetters, 10)
	require.NoError(t, err)
	require.Len(t, letters, 1)
	_, p, err := events.Decode(letters[0].Data)
	require.NoError(t, err)
	letter := p.(events.MessageReject)
	require.Equal(t, events.TaskSubject("rebalance", op.ID, "lost"), letter.Subject)
	require.Contains(t, letter.Reason, "has no task lost")
	s.audited(op.ID, "has no task lost")
}

// A scope that is held without a command, by an operation that is over, is freed.
func TestSweepingScopesWithoutCommand(t *testing.T) {
	t.Parallel()
	s := newSweeping(t)
	ctx := t.Context()
	op := s.submit(add)
	s.move(s.version(op.ID), operation.Planning, operation.Failed)
	s.dropCommand(op.ID)
	require.Len(t, s.holds(op.ID), 1)
	s.sweep(map[string]int64{controller.RepairScope: 1})
	require.Empty(t, s.holds(op.ID))
	s.audited(op.ID, "circle/0")

	// One that lives keeps it: it is for the controller to end it first.
	live := s.submit(add)
	s.dropCommand(live.ID)
	s.sweep(nil)
	require.Len(t, s.holds(live.ID), 1)
	require.NoError(t, s.ledger.Close(ctx, live.ID))
}

// dropCommand loses an operation's command.
func (s *sweeping) dropCommand(id string) {
	s.t.Helper()
	for r, err := range s.bus.Scopes().Open(s.t.Context(), events.AllCommands) {
		require.NoError(s.t, err)
		if _, of, ok := events.ParseCommandSubject(r.Subject); ok && of == id {
			require.NoError(s.t, s.bus.Scopes().Release(s.t.Context(), []uint64{r.Sequence}))
		}
	}
}

// Running without lease, where no controller nudges: it waits, and says what happened.
func TestSweepingTasksWithoutLease(t *testing.T) {
	t.Parallel()
	s := newSweeping(t)
	ctx := t.Context()
	op := s.submit(add)
	v := s.move(s.version(op.ID), operation.Planning, operation.Running)
	for _, task := range []string{"dead", "held"} {
		s.task(op.ID, task, operation.TaskRunning)
	}
	held := s.lease(op.ID, "held", "w")
	s.sweep(nil)
	v = s.move(v, operation.Paused)
	s.sweep(map[string]int64{controller.RepairTask: 1})
	tasks := s.tasks(op.ID)
	require.Equal(t, operation.TaskWaiting, tasks["dead"].State)
	require.Empty(t, tasks["dead"].Holder)
	require.Equal(t, "worker dead went away", tasks["dead"].History[0].Detail)
	require.Equal(t, operation.TaskRunning, tasks["held"].State)
	s.audited(op.ID, "dead")

	s.move(v, operation.Cancelled)
	require.NoError(t, s.ledger.Close(ctx, op.ID))
	require.NoError(t, held.Release(ctx))
	s.sweep(map[string]int64{controller.RepairTask: 1})
	require.Equal(t, operation.TaskWaiting, s.tasks(op.ID)["held"].State)
}

// Running without lease, in an operation that goes on: it is nudged again, also when
// its nudge has been acknowledged, and another worker ends it.
func TestARunningTaskWithoutLeaseAndNudgeIsTakenUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("m", 1)})
	control := r.control()
	op := r.submit(add)
	require.Eventually(t, func() bool { return len(r.tasks(op.ID)) == 1 }, patience, tick)
	nudge, err := r.queue.Fetch(t.Context())
	require.NoError(t, err)
	control.stop()
	// A worker claims it, and dies when it has acknowledged by mistake.
	for id := range r.tasks(op.ID) {
		v, err := r.ledger.Task(t.Context(), op.ID, id)
		require.NoError(t, err)
		claimed := v.Value
		claimed.State, claimed.Holder, claimed.Attempt = operation.TaskRunning, "dead", 1
		_, err = r.ledger.UpdateTask(t.Context(), v, claimed)
		require.NoError(t, err)
	}
	require.NoError(t, nudge.Ack(t.Context()))
	depth, err := r.queue.Depth(t.Context())
	require.NoError(t, err)
	require.Zero(t, depth)
	r.control()
	r.work(2)
	r.finish(op.ID, operation.Succeeded)
}

// Whatever is stored and belongs to no operation goes.
func TestSweepingLeftovers(t *testing.T) {
	t.Parallel()
	s := newSweeping(t)
	ctx := t.Context()
	v := s.ended("kept", operation.Failed, time.Now())
	buried := s.ended("buried", operation.Cancelled, time.Now())
	live := s.submit(add)
	none := newID()
	for i := range 3 {
		s.task(none, fmt.Sprint(i), operation.TaskDone)
	}
	_, err := s.ledger.PutDocument(ctx, none, "plan", operation.Plan{OperationID: none})
	require.NoError(t, err)
	for _, id := range []string{none, live.ID} {
		require.NoError(t, s.ledger.AddNotes(ctx, id, 1, []ledger.Note{{Database: "db", Measurement: "m"}}))
	}
	_, mine, err := s.ledger.ClaimKey(ctx, "orphan", ledger.Claim{OperationID: none, Digest: "d"})
	require.NoError(t, err)
	require.True(t, mine)
	_, err = s.ledger.Bury(ctx, buried, "retention is at it")
	require.NoError(t, err)

	// A key may be of a submission that goes on: an hour must pass.
	s.sweep(map[string]int64{
		controller.RepairTasks: 1, controller.RepairDocuments: 1,
		controller.RepairNotes: 3, // of what has ended as well
	})
	s.clock = s.clock.Add(2 * time.Hour)
	s.sweep(map[string]int64{controller.RepairKey: 1})
	require.Empty(t, s.leftOf(none, "orphan"))
	require.Equal(t, []string{"record", "tasks", "documents", "key", "entry"}, s.leftOf(v.Value.ID, "kept"))
	require.Contains(t, s.leftOf(live.ID, ""), "notes")
	require.Contains(t, s.leftOf(buried.Value.ID, "buried"), "tasks", "this is for retention to finish")
}
