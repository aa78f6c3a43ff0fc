package controller_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/controller"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// retention removes what is older than age or more than bytes; now is its clock.
func (r *rig) retention(age time.Duration, bytes int64, now func() time.Time) *controller.Retention {
	r.t.Helper()
	return &controller.Retention{
		Ledger: r.ledger, Leases: r.leases, ID: "retention", MaxAge: age, MaxBytes: bytes,
		Grace: time.Nanosecond, Logger: r.log, Now: now,
	}
}

// ended makes an operation that has ended, with everything that an operation can
// have, through the engine's own doors.
func (r *rig) ended(key string, state operation.State, end time.Time) ledger.Versioned[operation.Operation] {
	r.t.Helper()
	ctx := r.t.Context()
	op, _, err := r.intake.Submit(ctx, keyed(key, add))
	require.NoError(r.t, err)
	require.NoError(r.t, r.ledger.Close(ctx, op.ID))
	for i := range 3 {
		require.NoError(r.t, r.ledger.CreateTask(ctx, operation.Task{ID: fmt.Sprintf("c1-%06d", i+1), OperationID: op.ID, Kind: op.Kind, Phase: operation.PhaseCopy, State: operation.TaskDone}))
	}
	plan, err := r.ledger.PutDocument(ctx, op.ID, "plan", operation.Plan{OperationID: op.ID})
	require.NoError(r.t, err)
	for attempt := range 2 {
		_, err = r.ledger.PutDocument(ctx, op.ID, "report", operation.Report{OperationID: fmt.Sprint(op.ID, attempt)})
		require.NoError(r.t, err)
	}
	require.NoError(r.t, r.ledger.AddNotes(ctx, op.ID, 1, []ledger.Note{{Database: "db", Measurement: "m"}}))
	v, err := r.ledger.Operation(ctx, op.ID)
	require.NoError(r.t, err)
	for _, next := range []operation.State{operation.Planning, operation.Running, state} {
		moved, err := v.Value.Move(next)
		require.NoError(r.t, err)
		moved.Plan = &operation.PlanRef{Document: plan}
		if next.Terminal() {
			moved.FinishedAt = &end
		}
		v, err = r.ledger.UpdateOperation(ctx, v, moved)
		require.NoError(r.t, err)
	}
	return v
}

// leftOf says what there is of an operation, anywhere.
func (r *rig) leftOf(id, key string) []string {
	r.t.Helper()
	ctx := r.t.Context()
	var left []string
	note := func(what string, is bool, err error) {
		require.NoError(r.t, err)
		if is {
			left = append(left, what)
		}
	}
	_, err := r.ledger.Operation(ctx, id)
	note("record", err == nil, ignore(err, operation.ErrNotFound))
	tasks := 0
	err = r.ledger.Tasks(ctx, id, func(ledger.Versioned[operation.Task]) error { tasks++; return nil })
	note("tasks", tasks > 0, err)
	documents, err := r.ledger.Documents(ctx)
	note("documents", len(documents[id]) > 0, err)
	notes, err := r.ledger.Notes(ctx, id, 1)
	note("notes", len(notes) > 0, err)
	claims, err := r.ledger.Claims(ctx, time.Now().Add(time.Hour))
	for _, c := range claims {
		note("key", c.OperationID == id, err)
	}
	keys, err := r.bus.Bucket(events.BucketOperations).Keys(ctx, "")
	for _, k := range keys {
		note("entry", k == events.EscapeToken(id), err)
	}
	return left
}

func ignore(err, target error) error {
	if errors.Is(err, target) {
		return nil
	}
	return err
}

var everything = []string{"record", "tasks", "documents", "notes", "key", "entry"}

func TestTheHistoryIsBoundedByAge(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	now := time.Now()
	const age = 90 * 24 * time.Hour
	old := r.ended("old", operation.PartiallyFailed, now.Add(-age-time.Hour))
	young := r.ended("young", operation.Cancelled, now.Add(-age+time.Hour))
	live := r.submit(add)
	require.NoError(t, r.retention(age, 1<<40, func() time.Time { return now }).Round(t.Context()))
	require.Empty(t, r.leftOf(old.Value.ID, "old"))
	require.Equal(t, everything, r.leftOf(young.Value.ID, "young"))
	require.Equal(t, operation.Queued, r.read(live.ID).State)
	require.Len(t, r.holds(live.ID), 2)
	removes := 0
	for _, p := range r.events(old.Value.ID, events.NounRemoval) {
		if e, ok := p.(events.OperationRemove); ok {
			removes++
			require.Contains(t, e.Reason, "2160h")
		}
	}
	require.Equal(t, 1, removes)
	trail, err := r.ledger.AuditTrail(t.Context(), old.Value.ID)
	require.NoError(t, err)
	require.NotEmpty(t, trail, "the audit trail outlives the history")

	// Years later everything that has ended goes, and nothing else.
	later := r.retention(age, 1<<40, func() time.Time { return now.Add(10 * 365 * 24 * time.Hour) })
	require.NoError(t, later.Round(t.Context()))
	require.Empty(t, r.leftOf(young.Value.ID, "young"))
	require.Equal(t, operation.Queued, r.read(live.ID).State)
	require.EqualValues(t, 1, later.Removed())
}

func TestTheHistoryIsBoundedByBytes(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	now := time.Now()
	var all []ledger.Versioned[operation.Operation]
	for i := range 4 {
		all = append(all, r.ended(fmt.Sprint(i), operation.Failed, now.Add(-time.Duration(10-i)*time.Hour)))
	}
	usage, err := r.ledger.Usage(t.Context())
	require.NoError(t, err)
	keep := r.retention(time.Hour*1000, int64(usage.Total()), func() time.Time { return now })
	require.NoError(t, keep.Round(t.Context()))
	require.Zero(t, keep.Removed(), "it is not over its bound")

	keep = r.retention(time.Hour*1000, int64(usage.Total()*6/10), func() time.Time { return now })
	require.NoError(t, keep.Round(t.Context()))
	require.EqualValues(t, 2, keep.Removed())
	for i, v := range all {
		left := r.leftOf(v.Value.ID, fmt.Sprint(i))
		if i < 2 {
			require.Empty(t, left, "what ended first goes first")
		} else {
			require.Equal(t, everything, left)
		}
	}
	after, known := keep.Usage()
	require.True(t, known)
	require.LessOrEqual(t, after.Total(), usage.Total()*6/10)

	// What is left is kept for a while after its end, however small the bound.
	keep = r.retention(time.Hour*1000, 1, func() time.Time { return now })
	keep.Grace = 8 * time.Hour
	require.NoError(t, keep.Round(t.Context()))
	require.EqualValues(t, 1, keep.Removed())
}

// What a retry, a controller or another process has in hand is not removed.
func TestWhatIsInHandStays(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	ctx := t.Context()
	old := time.Now().Add(-time.Hour)
	retried := r.ended("retried", operation.Failed, old)
	queued, err := retried.Value.Move(operation.Queued)
	require.NoError(t, err)
	_, err = r.ledger.UpdateOperation(ctx, retried, queued)
	require.NoError(t, err)
	_, err = r.ledger.Bury(ctx, retried, "by what was read before the retry")
	require.ErrorIs(t, err, ledger.ErrConflict)
	_, err = r.ledger.Bury(ctx, ledger.Versioned[operation.Operation]{Value: queued, Revision: 1}, "it lives")
	require.ErrorContains(t, err, "queued")

	third := r.ended("third", operation.Cancelled, old)
	// It has ended, but its command is there: whoever drives it has not closed it.
	unclosed := r.ended("unclosed", operation.Cancelled, old)
	require.NoError(t, r.ledger.Accept(ctx, &unclosed.Value))
	held, err := r.leases.Acquire(ctx, ledger.RetentionLease, []byte("another process"))
	require.NoError(t, err)
	keep := r.retention(time.Minute, 1<<40, time.Now)
	require.NoError(t, keep.Round(ctx))
	require.Equal(t, everything, r.leftOf(third.Value.ID, "third"), "another process is at it")
	require.NoError(t, held.Release(ctx))
	require.NoError(t, keep.Round(ctx))
	require.Empty(t, r.leftOf(third.Value.ID, "third"))
	require.Equal(t, everything, r.leftOf(retried.Value.ID, "retried"))
	require.Equal(t, everything, r.leftOf(unclosed.Value.ID, "unclosed"))
}

// A removal that is cut off anywhere leaves an operation that is whole, or none: the
// next round finishes it, and until then nothing can begin it again.
func TestAHalfRemovedOperationIsNoneAndIsFinished(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	ctx := t.Context()
	v := r.ended("key", operation.Failed, time.Now().Add(-time.Hour))
	_, err := r.ledger.Bury(ctx, v, "cut off right after this")
	require.NoError(t, err)

	_, err = r.ledger.Operation(ctx, v.Value.ID)
	require.ErrorIs(t, err, operation.ErrNotFound)
	require.ErrorIs(t, err, ledger.ErrRemoved)
	require.Zero(t, r.records())
	_, err = r.ledger.UpdateOperation(ctx, v, v.Value)
	require.ErrorIs(t, err, ledger.ErrConflict, "a retry comes too late")
	_, err = r.ledger.CreateOperation(ctx, v.Value)
	require.ErrorIs(t, err, ledger.ErrConflict)

	// The same request again is a new operation: the old one's tasks must not count
	// for it.
	again, created, err := r.intake.Submit(ctx, keyed("key", add))
	require.NoError(t, err)
	require.True(t, created)
	require.NotEqual(t, v.Value.ID, again.ID)
	require.Equal(t, ledger.KeyHash("key"), r.read(again.ID).IdempotencyKey)

	keep := r.retention(time.Hour*1000, 1<<40, time.Now)
	require.NoError(t, keep.Round(ctx))
	require.Empty(t, r.leftOf(v.Value.ID, "none"))
	same, created, err := r.intake.Submit(ctx, keyed("key", add))
	require.NoError(t, err)
	require.False(t, created, "the key stands for the second one")
	require.Equal(t, again.ID, same.ID)
}

// An idempotency key is there as long as its operation, and goes with it.
func TestAKeyLivesAsLongAsItsOperation(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	ctx := t.Context()
	v := r.ended("key", operation.Failed, time.Now().Add(-time.Hour))
	same, created, err := r.intake.Submit(ctx, keyed("key", add))
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, v.Value.ID, same.ID)
	_, _, err = r.intake.Submit(ctx, keyed("key", `{"circle_id":0,"operation":"add","workers":2}`))
	require.ErrorIs(t, err, operation.ErrKeyReused)
	require.NoError(t, r.retention(time.Minute, 1<<40, time.Now).Round(ctx))
	_, created, err = r.intake.Submit(ctx, keyed("key", `{"circle_id":0,"operation":"add","workers":2}`))
	require.NoError(t, err, "it may stand for something else now")
	require.True(t, created)
}

// A submission for whose plan there is hardly room is refused before anything is
// written, and is taken when the history has given way.
func TestAFullStoreRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	ctx := t.Context()
	v := r.ended("old", operation.Failed, time.Now().Add(-time.Hour))
	r.shrinkPlanStore()
	_, _, err := r.intake.Submit(ctx, keyed("new", add))
	var full *operation.StoreFullError
	require.ErrorAs(t, err, &full)
	require.Positive(t, full.MaxBytes)
	require.Equal(t, 1, r.records())
	claims, err := r.ledger.Claims(ctx, time.Now().Add(time.Hour))
	require.NoError(t, err)
	require.Len(t, claims, 1)

	require.NoError(t, r.retention(time.Hour*1000, 1<<40, time.Now).Round(ctx))
	require.Empty(t, r.leftOf(v.Value.ID, "old"), "the history gives way before the store is full")
	_, created, err := r.intake.Submit(ctx, keyed("new", add))
	require.NoError(t, err)
	require.True(t, created)
}

// shrinkPlanStore bounds the plan store to little more than it holds.
func (r *rig) shrinkPlanStore() {
	r.t.Helper()
	usage, err := r.ledger.Usage(context.Background())
	require.NoError(r.t, err)
	r.system.Bound(r.t, "OBJ_"+events.ObjectStorePlans, int64(usage.Documents)+16)
}
