package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/secrets"
	"ringmaster/pkg/worker"
)

func TestATaskIsClaimedCarriedOutAndEnded(t *testing.T) {
	t.Parallel()
	s := newSite(t, long)
	s.task("c1")
	seen := make(chan operation.Task, 1)
	s.start("w1", func(ctx context.Context, job mover.Job) error {
		slices, err := job.Slices(ctx)
		if err != nil || len(slices) != 1 {
			return fmt.Errorf("slices: %v, %w", slices, err)
		}
		if err := job.Guard(); err != nil {
			return err
		}
		if err := succeed(ctx, job); err != nil {
			return err
		}
		seen <- job.Task()
		return nil
	})
	during := await(t, seen, "the handler runs")
	require.Equal(t, operation.TaskRunning, during.State)
	require.Equal(t, "w1", during.Holder)
	require.Equal(t, 1, during.Attempt)
	require.NotNil(t, during.StartedAt)

	done := s.awaitState("c1", operation.TaskDone)
	require.Equal(t, int64(3), done.Points.Copied)
	require.NotNil(t, done.FinishedAt)
	require.Empty(t, done.History)
	s.awaitQueue(0)
	require.False(t, s.leased("c1"))
}

func TestAFailureOfTheTaskIsItsEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t, long)
	s.task("c1")
	s.start("w1", func(ctx context.Context, job mover.Job) error {
		return fmt.Errorf("copying: %w", &operation.Error{Code: "type_ambiguous", Detail: "why"})
	})
	failed := s.awaitState("c1", operation.TaskFailed)
	require.Equal(t, &operation.Error{Code: "type_ambiguous", Detail: "why"}, failed.Error)
	require.Len(t, failed.History, 1)
	require.Equal(t, 1, failed.Attempt)
	s.awaitQueue(0)
}

func TestAnInterruptedTaskGoesOn(t *testing.T) {
	t.Parallel()
	s := newSite(t, long)
	s.task("c1")
	s.start("w1", func(ctx context.Context, job mover.Job) error {
		if job.Task().Attempt == 1 {
			return errors.New("the connection broke")
		}
		return succeed(ctx, job)
	})
	done := s.awaitState("c1", operation.TaskDone)
	require.Equal(t, 2, done.Attempt)
	require.Zero(t, done.Setbacks, "a checkpoint is progress")
	require.Len(t, done.History, 1)
	require.Equal(t, "the connection broke", done.History[0].Detail)
}

// A task that makes its worker die is not handed to every worker in turn.
func TestATaskThatComesToNothingTooOftenFails(t *testing.T) {
	t.Parallel()
	s := newSite(t, long)
	var ran atomic.Int64
	s.task("died", func(t *operation.Task) {
		t.State, t.Holder, t.Attempt, t.Setbacks = operation.TaskRunning, "gone", 40, 9
	})
	s.task("refused", func(t *operation.Task) { t.Attempt, t.Setbacks = 40, 9 })
	s.task("fine", func(t *operation.Task) {
		t.State, t.Holder, t.Attempt, t.Setbacks = operation.TaskRunning, "gone", 40, 8
	})
	s.start("w1", func(ctx context.Context, job mover.Job) error {
		ran.Add(1)
		if job.Task().ID == "refused" {
			return errors.New("no luck")
		}
		return succeed(ctx, job)
	})
	died := s.awaitState("died", operation.TaskFailed)
	require.Equal(t, "too_many_attempts", died.Error.Code)
	require.Contains(t, died.Error.Detail, "worker gone went away")
	require.Equal(t, 40, died.Attempt, "it was not tried again")
	refused := s.awaitState("refused", operation.TaskFailed)
	require.Contains(t, refused.Error.Detail, "no luck")
	fine := s.awaitState("fine", operation.TaskDone)
	require.Equal(t, 41, fine.Attempt)
	require.Equal(t, int64(2), ran.Load())
	s.awaitQueue(0)
}

// TestTheSameErrorForTooLongFailsTheTask: over attempts and processes, and however
// often it is told otherwise in words that differ from one time to the next.
func TestTheSameErrorForTooLongFailsTheTask(t *testing.T) {
	t.Parallel()
	s := newSite(t, long)
	hour := time.Now().Add(-time.Hour).UTC()
	earlier := func(text string) func(*operation.Task) {
		return func(t *operation.Task) {
			t.Attempt, t.Setbacks, t.SameErrors, t.ErrorSince = 2, 2, 2, &hour
			t.History = []operation.TaskError{{Attempt: 1, Detail: text}, {Attempt: 2, Detail: text}}
		}
	}
	s.task("same", earlier("writing to http://b1:1: port 4711 broke"))
	s.task("other", earlier("writing to http://b2:1: port 4711 broke"))
	s.task("further", earlier("writing to http://b1:1: port 4711 broke"))
	s.start("w1", func(ctx context.Context, job mover.Job) error {
		task := job.Task()
		if task.Attempt > 3 {
			return succeed(ctx, job)
		}
		if task.ID == "further" {
			if err := job.Checkpoint(ctx, func(t *operation.Task) { t.Points.Copied++ }); err != nil {
				return err
			}
		}
		return errors.New("writing to http://b1:1: port 815 broke")
	})
	same := s.awaitState("same", operation.TaskFailed)
	require.Equal(t, "same_error", same.Error.Code)
	require.Contains(t, same.Error.Detail, "3 attempts in a row have ended with the same error, for 1h0m0s (given up after 10m0s): writing to http://b1:1: port 815 broke; a person must act: ")
	for _, id := range []string{"other", "further"} {
		done := s.awaitState(id, operation.TaskDone)
		require.Equal(t, 4, done.Attempt)
		require.Nil(t, done.ErrorSince)
		require.Zero(t, done.SameErrors)
	}
}

// A worker that cannot open the credentials of a task leaves it to those who can,
// however often it tries.
func TestAWorkerWithAnotherKeyDoesNotUseATaskUp(t *testing.T) {
	t.Parallel()
	s := newSite(t, long)
	s.task("c1", func(t *operation.Task) { t.Setbacks = 9 })
	s.start("w1", func(ctx context.Context, job mover.Job) error {
		if task := job.Task(); task.Attempt == 1 {
			return fmt.Errorf("opening the source: %w", secrets.ErrWrongKey)
		}
		return succeed(ctx, job)
	})
	done := s.awaitState("c1", operation.TaskDone)
	require.Equal(t, 2, done.Attempt)
	require.Empty(t, done.Waits)
	require.Empty(t, done.History, "it was no attempt at the task")
}

// A stopping worker gives its tasks back at once: nobody waits for a lease, and
// it counts as no failure.
func TestDrainGivesTheTaskBackAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, long)
	s.task("c1")
	started := make(chan struct{})
	first := s.start("w1", func(ctx context.Context, job mover.Job) error {
		if err := succeed(ctx, job); err != nil {
			return err
		}
		close(started)
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), worker.ErrStop) {
			t.Errorf("the cause is %v", context.Cause(ctx))
		}
		return ctx.Err() // as a handler does that knows nothing of causes
	})
	await(t, started, "the first worker has the task")
	began := time.Now()
	first.stop()
	given := s.read("c1")
	require.Equal(t, operation.TaskWaiting, given.State)
	require.Empty(t, given.Holder)
	require.Empty(t, given.History)
	require.False(t, s.leased("c1"))
	s.start("w2", succeed)
	done := s.awaitState("c1", operation.TaskDone)
	require.Equal(t, "w2", done.Holder)
	require.Equal(t, 2, done.Attempt)
	require.Equal(t, int64(6), done.Points.Copied)
	require.Less(t, time.Since(began), long/2)
}

// Draining must not lose the end of a task that is finished at that moment, nor
// of one whose failure only comes of being stopped.
func TestDrainWhileTheTaskEnds(t *testing.T) {
	t.Parallel()
	s := newSite(t, long)
	s.task("finished")
	s.task("failing")
	var started atomic.Int64
	both := make(chan struct{})
	w := s.start("w1", func(ctx context.Context, job mover.Job) error {
		if started.Add(1) == 2 {
			close(both)
		}
		<-ctx.Done()
		if job.Task().ID == "finished" {
			return nil
		}
		return &operation.Error{Code: "backend_refuses", Detail: "context canceled"}
	}, func(o *worker.Options) { o.Slots = 2 })
	await(t, both, "both tasks run")
	w.stop()
	require.Equal(t, operation.TaskDone, s.read("finished").State)
	failing := s.read("failing")
	require.Equal(t, operation.TaskWaiting, failing.State)
	require.Nil(t, failing.Error)
}

// The claim lives for as long as the handler shows signs of life and no longer.
func TestHeartbeatOnlyWithSignsOfLife(t *testing.T) {
	t.Parallel()
	s := newSite(t, short)
	s.task("c1")
	changes, err := s.leases.Claims().Bucket().Watch(t.Context(), ledger.TaskLeases(s.op.Value.ID))
	require.NoError(t, err)
	silent, cause := make(chan struct{}), make(chan error, 1)
	s.start("w1", func(ctx context.Context, job mover.Job) error {
		if job.Task().Attempt > 1 {
			return succeed(ctx, job)
		}
		alive := time.NewTicker(tick)
		defer alive.Stop()
		for {
			select {
			case <-alive.C:
				job.Alive()
			case <-silent:
				<-ctx.Done()
				cause <- context.Cause(ctx)
				return ctx.Err()
			}
		}
	}, func(o *worker.Options) { o.Stuck = 500 * time.Millisecond })
	for range 6 { // far longer than it may be silent, and than its lease
		e := await(t, changes, "the lease is renewed")
		require.False(t, e.Deleted)
	}
	close(silent)
	require.ErrorContains(t, await(t, cause, "the handler is told to stop"), "no progress was made")
	done := s.awaitState("c1", operation.TaskDone)
	require.Equal(t, 2, done.Attempt)
	require.Equal(t, "no progress was made", done.History[0].Detail)
}

// A handler that does not even stop when it is told to loses its task all the
// same, and can change nothing more.
func TestAStuckHandlerLosesItsTask(t *testing.T) {
	t.Parallel()
	s := newSite(t, short)
	s.task("c1")
	var log lockedBuffer
	release, late, started := make(chan struct{}), make(chan error, 1), make(chan struct{})
	s.start("w1", func(ctx context.Context, job mover.Job) error {
		close(started)
		<-release
		late <- job.Checkpoint(context.Background(), func(t *operation.Task) { t.Points.Copied += 1000 })
		return nil
	}, func(o *worker.Options) {
		o.Stuck, o.Logger = 50*time.Millisecond, slog.New(slog.NewTextHandler(&log, nil))
	})
	await(t, started, "the first worker has the task")
	s.start("w2", succeed)
	done := s.awaitState("c1", operation.TaskDone)
	require.Equal(t, "w2", done.Holder)
	require.Equal(t, "worker w1 went away", done.History[0].Detail)
	require.Contains(t, log.String(), "task is stuck: its goroutines")
	require.Contains(t, log.String(), "TestAStuckHandlerLosesItsTask", "where it is")
	close(release)
	require.ErrorIs(t, await(t, late, "the first handler wakes up"), mover.ErrClaimLost)
	s.awaitQueue(0)
	require.Equal(t, done, s.read("c1"), "its end changes nothing")
}

func TestALostLeaseStopsTheHandler(t *testing.T) {
	t.Parallel()
	s := newSite(t, short)
	s.task("c1")
	started, cause, late := make(chan struct{}), make(chan error, 1), make(chan error, 1)
	s.start("w1", func(ctx context.Context, job mover.Job) error {
		if job.Task().Attempt > 1 {
			return succeed(ctx, job)
		}
		close(started)
		<-ctx.Done()
		cause <- context.Cause(ctx)
		late <- job.Checkpoint(context.Background(), func(t *operation.Task) { t.Points.Copied += 1000 })
		_, err := job.HandOver(context.Background(), nil)
		return err
	})
	await(t, started, "the worker has the task")
	bucket := s.leases.Claims().Bucket()
	require.Eventually(t, func() bool { // between two renewals
		e, err := bucket.Get(t.Context(), ledger.TaskLease(s.op.Value.ID, "c1"))
		return err == nil && bucket.Delete(t.Context(), e.Key, e.Revision) == nil
	}, patience, tick)
	require.ErrorIs(t, await(t, cause, "the handler is told"), mover.ErrClaimLost)
	require.ErrorIs(t, await(t, late, "it tries a checkpoint"), mover.ErrClaimLost)
	done := s.awaitState("c1", operation.TaskDone)
	require.Equal(t, int64(3), done.Points.Copied)
	require.Equal(t, 2, done.Attempt)
}

// The record decides whose the task is, whatever the lease says.
func TestATaskTakenOverIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t, long)
	s.task("c1")
	started, goOn, late := make(chan struct{}), make(chan struct{}), make(chan error, 2)
	w := s.start("w1", func(ctx context.Context, job mover.Job) error {
		close(started)
		<-goOn
		for range 2 {
			late <- job.Checkpoint(ctx, func(t *operation.Task) { t.Points.Copied += 1000 })
		}
		return nil
	})
	await(t, started, "the worker has the task")
	v, err := s.ledger.Task(t.Context(), s.op.Value.ID, "c1")
	require.NoError(t, err)
	other := v.Value
	other.Attempt, other.Holder = other.Attempt+1, "w2"
	taken, err := s.ledger.UpdateTask(t.Context(), v, other)
	require.NoError(t, err)
	close(goOn)
	require.ErrorIs(t, await(t, late, "a checkpoint"), mover.ErrClaimLost)
	require.ErrorIs(t, await(t, late, "another one"), mover.ErrClaimLost)
	w.stop()
	after, err := s.ledger.Task(t.Context(), s.op.Value.ID, "c1")
	require.NoError(t, err)
	require.Equal(t, taken.Revision, after.Revision)
}

// A store whose answer was lost may have gone through: what this claim has
// stored itself is not taken for another's.
func TestAStoreWhoseAnswerWasLostIsItsOwn(t *testing.T) {
	t.Parallel()
	s := newSite(t, long)
	s.task("c1")
	started, goOn := make(chan struct{}), make(chan struct{})
	s.start("w1", func(ctx context.Context, job mover.Job) error {
		close(started)
		<-goOn
		return succeed(ctx, job)
	})
	await(t, started, "the worker has the task")
	v, err := s.ledger.Task(t.Context(), s.op.Value.ID, "c1")
	require.NoError(t, err)
	unheard := v.Value
	unheard.Points.Copied = 100
	_, err = s.ledger.UpdateTask(t.Context(), v, unheard)
	require.NoError(t, err)
	close(goOn)
	done := s.awaitState("c1", operation.TaskDone)
	require.Equal(t, int64(103), done.Points.Copied)
	require.Equal(t, 1, done.Attempt)
}

// Without NATS nothing can be renewed. When the lease has run out by the
// worker's own clock, nothing more is sent; the worker stops all the same.
func TestTheGuardRefusesAfterTheLease(t *testing.T) {
	t.Parallel()
	s := newSite(t, short)
	s.task("c1")
	started, refused := make(chan struct{}), make(chan error, 1)
	w := s.start("w1", func(ctx context.Context, job mover.Job) error {
		if err := job.Guard(); err != nil {
			return err
		}
		close(started)
		look := time.NewTicker(tick)
		defer look.Stop()
		for {
			job.Alive()
			if err := job.Guard(); err != nil {
				refused <- err
				<-ctx.Done()
				return err
			}
			<-look.C
		}
	}, func(o *worker.Options) { o.Drain = 100 * time.Millisecond })
	await(t, started, "the worker has the task")
	s.system.Stop(t)
	require.ErrorIs(t, await(t, refused, "the guard refuses"), mover.ErrClaimLost)
	w.stop()
}

// An operation that has ended, for whatever reason, is no longer worked for.
func TestNobodyWorksForAnOperationThatHasEnded(t *testing.T) {
	t.Parallel()
	s := newSite(t, short)
	s.task("c1")
	started, cause := make(chan struct{}), make(chan error, 1)
	s.start("w1", func(ctx context.Context, job mover.Job) error {
		close(started)
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return ctx.Err()
	})
	await(t, started, "the worker has the task")
	s.move(operation.Failed)
	require.ErrorContains(t, await(t, cause, "the handler is told"), "the operation has ended")
	s.awaitQueue(0)
	left := s.read("c1")
	require.Equal(t, operation.TaskWaiting, left.State)
	require.Empty(t, left.History)
	require.False(t, s.leased("c1"))
}

// A process with another epoch refuses to write.
func TestNobodyWorksInAnotherEpoch(t *testing.T) {
	t.Parallel()
	s := newSite(t, short)
	s.task("c1")
	started, cause := make(chan struct{}), make(chan error, 1)
	s.start("w1", func(ctx context.Context, job mover.Job) error {
		close(started)
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return ctx.Err()
	})
	await(t, started, "the worker has the task")
	s.adopt(2)
	require.ErrorContains(t, await(t, cause, "the handler is told"), "another epoch")
	s.awaitState("c1", operation.TaskWaiting)
	s.task("c2")
	s.awaitQueue(2)
	require.Zero(t, s.read("c2").Attempt)
	s.move(operation.Failed)
	s.awaitQueue(0)
}

func TestPoisonGoesToTheDeadLetters(t *testing.T) {
	t.Parallel()
	s := newSite(t, long)
	subject := events.TaskSubject("rebalance", s.op.Value.ID, "torn")
	require.NoError(t, s.queue.Publish(t.Context(), bus.Message{Subject: subject, Data: []byte("{torn")}))
	s.start("w1", succeed)
	s.task("c1")
	s.awaitState("c1", operation.TaskDone)
	s.awaitQueue(0)
	letters := s.letters()
	require.Len(t, letters, 1)
	require.Equal(t, subject, letters[0].Subject)
	require.Equal(t, "{torn", string(letters[0].Payload))
	require.NotEmpty(t, letters[0].Reason)
}

// A nudge is worth what the record says.
func TestNudgesForNothingAreTaken(t *testing.T) {
	t.Parallel()
	s := newSite(t, long)
	s.task("done", func(t *operation.Task) { t.State = operation.TaskDone })
	s.nudge(operation.Task{ID: "none", OperationID: s.op.Value.ID, Kind: operation.KindRebalance, Phase: operation.PhaseCopy})
	s.nudge(operation.Task{ID: "c1", OperationID: "01980000-0000-7000-8000-00000000ffff", Kind: operation.KindRebalance, Phase: operation.PhaseCopy})
	s.start("w1", func(ctx context.Context, job mover.Job) error {
		t.Error("there is nothing to carry out")
		return nil
	})
	s.awaitQueue(0)
	require.Zero(t, s.read("done").Attempt)
	letters := s.letters()
	require.Len(t, letters, 1, "an operation that lives should have the task")
	require.Equal(t, events.TaskSubject("rebalance", s.op.Value.ID, "none"), letters[0].Subject)
	require.Contains(t, letters[0].Reason, "no such task")
}

// A worker of an earlier release leaves what it does not know to one that does: it
// neither fails it nor takes it for poison.
func TestWhatAWorkerDoesNotKnowIsLeftToOthers(t *testing.T) {
	t.Parallel()
	s := newSite(t, long)
	future := func(t *operation.Task) { t.Kind, t.Phase = "future", "compare" }
	s.task("c1", future)
	// Told by a nudge of a kind that it knows, too: the record decides.
	s.nudge(operation.Task{ID: "c1", OperationID: s.op.Value.ID, Kind: operation.KindRebalance, Phase: operation.PhaseCopy})
	s.task("c2")
	refused := make(chan operation.Phase, 64)
	s.start("old", func(ctx context.Context, job mover.Job) error {
		if task := job.Task(); task.ID != "c2" {
			refused <- task.Phase
		}
		return nil
	})
	s.awaitState("c2", operation.TaskDone)
	s.awaitQueue(2)
	live, err := worker.Live(t.Context(), s.leases)
	require.NoError(t, err)
	require.Contains(t, live[0].Knows, "rebalance/copy")
	require.NotContains(t, live[0].Knows, "future/compare")
	s.start("new", succeed, func(o *worker.Options) {
		o.Knows = func(operation.Kind, operation.Phase) bool { return true }
	})
	done := s.awaitState("c1", operation.TaskDone)
	require.Equal(t, 1, done.Attempt)
	s.awaitQueue(0)
	require.Empty(t, s.letters())
	require.Empty(t, refused)
}

// The same for nudges of a later version, which cannot be read.
func TestNudgesOfALaterVersionAreLeftAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t, long)
	for task, change := range map[string][2]string{
		"v2":   {`ringmaster.task.run.v1`, `ringmaster.task.run.v2`},
		"more": {`"phase":`, `"priority":"high","phase":`},
	} {
		m, err := s.ledger.Nudge(&operation.Task{ID: task, OperationID: s.op.Value.ID, Kind: operation.KindRebalance, Phase: operation.PhaseCopy})
		require.NoError(t, err)
		data := strings.ReplaceAll(string(m.Data), change[0], change[1])
		require.NotEqual(t, string(m.Data), data)
		require.NoError(t, s.queue.Publish(t.Context(), bus.Message{Subject: m.Subject, Data: []byte(data)}))
	}
	s.start("old", succeed)
	s.task("c1")
	s.awaitState("c1", operation.TaskDone)
	s.awaitQueue(2)
	require.Empty(t, s.letters())
}

// Records that cannot be read hold up nobody else's tasks.
func TestUnreadableRecordsAreLeftAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t, long)
	torn := s.operation("01980000-0000-7000-8000-000000000002")
	_, err := s.bus.Bucket(events.BucketOperations).Update(t.Context(), torn.Value.ID, []byte("{"), torn.Revision)
	require.NoError(t, err)
	for i := range 20 {
		s.nudge(operation.Task{ID: fmt.Sprintf("t%d", i), OperationID: torn.Value.ID, Kind: operation.KindRebalance, Phase: operation.PhaseCopy})
	}
	_, err = s.bus.Bucket(events.BucketTasks).Create(t.Context(), s.op.Value.ID+".torn", []byte("{"))
	require.NoError(t, err)
	s.nudge(operation.Task{ID: "torn", OperationID: s.op.Value.ID, Kind: operation.KindRebalance, Phase: operation.PhaseCopy})
	s.task("c1")
	began := time.Now()
	s.start("w1", succeed)
	s.awaitState("c1", operation.TaskDone)
	require.Less(t, time.Since(began), 10*time.Second, "each of the others would have cost a second")
	s.awaitQueue(21)
}

// What a task refers to and cannot be read fails the task: no other attempt
// would find anything else.
func TestAPlanThatIsGoneFailsTheTask(t *testing.T) {
	t.Parallel()
	s := newSite(t, long)
	s.task("c1", func(t *operation.Task) { t.Slices, t.Span = nil, &operation.Span{Count: 1} })
	s.start("w1", func(ctx context.Context, job mover.Job) error {
		if _, err := job.Of(ctx, "none"); err == nil {
			t.Error("there is no such task")
		}
		if of, err := job.Of(ctx, "c1"); err != nil || of.ID != "c1" {
			t.Errorf("reading a task: %v, %v", of.ID, err)
		}
		_, err := job.Slices(ctx)
		return fmt.Errorf("reading slices: %w", err)
	})
	require.Equal(t, "record_unreadable", s.awaitState("c1", operation.TaskFailed).Error.Code)
}

// The children of an attempt that died before its checkpoint are never taken for
// part of another cut.
func TestHandOverNamesChildrenByAttempt(t *testing.T) {
	t.Parallel()
	s := newSite(t, long)
	s.task("c1", func(t *operation.Task) { t.Wave = 2 })
	bundles := [][]operation.Slice{{{Measurement: "a", Points: 4}, {Measurement: "b", Points: 5}}, {{Measurement: "c"}}}
	s.start("w1", func(ctx context.Context, job mover.Job) error {
		task := job.Task()
		if task.Parent != "" {
			return succeed(ctx, job)
		}
		ids, err := job.HandOver(ctx, bundles)
		if err != nil {
			return err
		}
		if task.Attempt == 1 {
			return errors.New("died before its checkpoint")
		}
		if err := job.Checkpoint(ctx, func(t *operation.Task) { t.Children = append(t.Children, ids...) }); err != nil {
			return err
		}
		more, err := job.HandOver(ctx, bundles[:1])
		if err != nil {
			return err
		}
		return job.Checkpoint(ctx, func(t *operation.Task) { t.Children = append(t.Children, more...) })
	})
	done := s.awaitState("c1", operation.TaskDone)
	require.Equal(t, []string{"c1-2-1", "c1-2-2", "c1-2-3"}, done.Children)
	child := s.read("c1-2-1")
	require.Equal(t, "c1", child.Parent)
	require.Equal(t, bundles[0], child.Slices)
	require.Equal(t, int64(9), child.Estimated)
	require.Equal(t, 2, child.Wave)
	require.Equal(t, operation.TaskWaiting, child.State)
	require.Equal(t, done.Source, child.Source)
	require.Equal(t, done.Destination, child.Destination)
	orphan := s.read("c1-1-1")
	require.NotContains(t, done.Children, orphan.ID)
}

func TestWaitsAreShownAndCleared(t *testing.T) {
	t.Parallel()
	s := newSite(t, short)
	s.task("c1")
	steps := make(chan struct{})
	s.start("w1", func(ctx context.Context, job mover.Job) error {
		wait := operation.Wait{Gate: "backend_answers", Backend: "http://a", Measured: "503", Limit: "given up after 2m", Since: time.Now().UTC()}
		job.Wait(&wait)
		wait.Measured = "changed behind its back"
		<-steps
		job.Wait(&operation.Wait{Gate: "backend_answers", Measured: "timeout"})
		<-steps
		if err := succeed(ctx, job); err != nil {
			return err
		}
		<-steps
		job.Wait(nil)
		<-steps
		job.Wait(&operation.Wait{Gate: "backend_answers"})
		return nil
	})
	shown := s.await("c1", "shows its wait", func(t operation.Task) bool { return len(t.Waits) == 1 })
	require.Equal(t, "503", shown.Waits[0].Measured)
	require.Equal(t, "c1", shown.Waits[0].TaskID)
	steps <- struct{}{}
	s.await("c1", "shows what has changed, with a heartbeat", func(t operation.Task) bool {
		return len(t.Waits) == 1 && t.Waits[0].Measured == "timeout"
	})
	steps <- struct{}{}
	s.await("c1", "still waits at a checkpoint", func(t operation.Task) bool { return t.Points.Copied == 3 && len(t.Waits) == 1 })
	steps <- struct{}{}
	s.await("c1", "shows that it goes on", func(t operation.Task) bool { return len(t.Waits) == 0 })
	steps <- struct{}{}
	require.Empty(t, s.awaitState("c1", operation.TaskDone).Waits)
}

func TestLiveWorkers(t *testing.T) {
	t.Parallel()
	s := newSite(t, long)
	none, err := worker.Live(t.Context(), s.leases)
	require.NoError(t, err)
	require.Empty(t, none)
	_, err = s.leases.Acquire(t.Context(), ledger.WorkerLease("w0"), []byte("{torn"))
	require.NoError(t, err)
	s.task("c1")
	block := make(chan struct{})
	busy := s.start("w2", func(ctx context.Context, job mover.Job) error {
		<-block
		return succeed(ctx, job)
	}, func(o *worker.Options) { o.Slots = 3 })
	s.awaitState("c1", operation.TaskRunning)
	s.start("w1", succeed)
	var live []worker.Status
	require.Eventually(t, func() bool {
		live, err = worker.Live(t.Context(), s.leases)
		return err == nil && len(live) == 3
	}, patience, tick)
	require.Equal(t, []string{"w0", "w1", "w2"}, []string{live[0].ID, live[1].ID, live[2].ID})
	require.Equal(t, 3, live[2].Slots)
	require.Equal(t, "here", live[2].Host)
	require.Equal(t, 1, live[2].Busy)
	require.Equal(t, []string{s.op.Value.ID + "/c1"}, live[2].Tasks)
	require.False(t, live[2].SeenAt.IsZero())
	require.Zero(t, live[1].Busy)
	require.False(t, live[2].Draining)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		busy.stop()
	}()
	require.Eventually(t, func() bool {
		live, err = worker.Live(t.Context(), s.leases)
		return err == nil && len(live) == 3 && live[2].Draining && live[2].Busy == 1
	}, patience, tick, "it says that it is draining while it still has its task")
	close(block)
	await(t, stopped, "it stops when its task has been given back")
	live, err = worker.Live(t.Context(), s.leases)
	require.NoError(t, err)
	require.Len(t, live, 2)
}

// Workers come and go while tasks are carried out; in the end each step of each
// task has been done exactly once.
func TestStartStopStress(t *testing.T) {
	t.Parallel()
	const tasks, steps, rounds, workers = 12, 40, 10, 3
	s := newSite(t, short) // a nudge that meets a worker as it stops comes back after it
	for i := range tasks {
		s.task(fmt.Sprintf("c%d", i))
	}
	step := func(ctx context.Context, job mover.Job) error {
		for job.Task().Points.Copied < steps {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := job.Checkpoint(ctx, func(t *operation.Task) { t.Points.Copied++ }); err != nil {
				return err
			}
			if job.Task().Points.Copied%3 == 0 {
				job.Wait(&operation.Wait{Gate: "backend_answers"})
				job.Wait(nil)
			}
		}
		return nil
	}
	var ids atomic.Int64
	for range rounds {
		var running []*running
		for range workers {
			running = append(running, s.start(fmt.Sprintf("w%d", ids.Add(1)), step, func(o *worker.Options) { o.Slots = 2 }))
		}
		before := s.sum(tasks)
		require.Eventually(t, func() bool { return s.sum(tasks) > before || before == tasks*steps }, patience, time.Millisecond)
		for _, r := range running {
			r.stop()
		}
		for i := range tasks {
			state := s.read(fmt.Sprintf("c%d", i)).State
			require.NotEqual(t, operation.TaskRunning, state, "nobody is left who could")
		}
	}
	s.start("last", step, func(o *worker.Options) { o.Slots = 4 })
	for i := range tasks {
		done := s.awaitState(fmt.Sprintf("c%d", i), operation.TaskDone)
		require.Equal(t, int64(steps), done.Points.Copied)
		require.Empty(t, done.History, "being stopped is no failure")
	}
	s.awaitQueue(0)
}

func (s *site) sum(tasks int) (n int64) {
	for i := range tasks {
		n += s.read(fmt.Sprintf("c%d", i)).Points.Copied
	}
	return n
}

// lockedBuffer is what a logger writes to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
