package ledger_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

func errorIs(err, target error) bool { return errors.Is(err, target) }

// scope makes a scope that belongs to one test.
func scope(t *testing.T, name string) string {
	return "test/" + strings.ReplaceAll(t.Name(), "/", "-") + "/" + name
}

func (e env) openIDs(t *testing.T) map[string]bool {
	t.Helper()
	ids, err := e.there.OpenOperations(t.Context())
	require.NoError(t, err)
	open := map[string]bool{}
	for _, id := range ids {
		open[id] = true
	}
	return open
}

func testAccept(t *testing.T, e env) {
	both, one := scope(t, "a"), scope(t, "b")
	first := e.stored(t, both, one).Value
	require.NoError(t, e.here.Accept(t.Context(), &first))
	require.NoError(t, e.there.Accept(t.Context(), &first), "repeating it is harmless")
	require.True(t, e.openIDs(t)[first.ID])

	second := e.stored(t, one).Value
	err := e.there.Accept(t.Context(), &second)
	var held *operation.ScopeHeldError
	require.ErrorAs(t, err, &held)
	require.Equal(t, first.ID, held.HolderID)
	require.Equal(t, one, held.Scope)
	require.Equal(t, operation.Queued, held.State)
	require.Equal(t, operation.KindRebalance, held.Kind)
	require.False(t, e.openIDs(t)[second.ID], "all or nothing")

	dry := e.stored(t).Value
	require.NoError(t, e.here.Accept(t.Context(), &dry), "a dry run takes no scope")
	require.True(t, e.openIDs(t)[dry.ID])
	require.NoError(t, e.here.Close(t.Context(), first.ID))
	require.NoError(t, e.there.Accept(t.Context(), &second))
}

func testAcceptOneWinner(t *testing.T, e env) {
	s := scope(t, "a")
	const n = 40
	ops := make([]operation.Operation, n)
	for i := range ops {
		ops[i] = e.stored(t, s).Value
	}
	var won atomic.Int64
	together(n, func(i int) {
		l := e.here
		if i%2 == 1 {
			l = e.there
		}
		err := l.Accept(context.Background(), &ops[i])
		var held *operation.ScopeHeldError
		switch {
		case err == nil:
			won.Add(1)
		case !errors.As(err, &held):
			t.Errorf("accepting: %v", err)
		}
	})
	require.Equal(t, int64(1), won.Load())
	open := e.openIDs(t)
	left := 0
	for i := range ops {
		if open[ops[i].ID] {
			left++
		}
	}
	require.Equal(t, 1, left)
}

// Whoever finds a scope held by an operation that has ended, or that was taken
// back, cleans up after it.
func testAcceptStaleHolders(t *testing.T, e env) {
	a, b := scope(t, "a"), scope(t, "b")
	ended := e.stored(t, a)
	require.NoError(t, e.here.Accept(t.Context(), &ended.Value))
	next, err := ended.Value.Move(operation.Cancelled)
	require.NoError(t, err)
	_, err = e.here.UpdateOperation(t.Context(), ended, next)
	require.NoError(t, err)
	takenBack := e.stored(t, b)
	require.NoError(t, e.here.Accept(t.Context(), &takenBack.Value))
	require.NoError(t, e.here.RemoveOperation(t.Context(), takenBack))

	op := e.stored(t, a, b).Value
	require.NoError(t, e.there.Accept(t.Context(), &op))
	open := e.openIDs(t)
	require.True(t, open[op.ID])
	require.False(t, open[ended.Value.ID])
	require.False(t, open[takenBack.Value.ID])
}

func testAcceptUnreadableHolder(t *testing.T, e env) {
	s := scope(t, "a")
	holder := e.stored(t, s)
	require.NoError(t, e.here.Accept(t.Context(), &holder.Value))
	bucket := e.bus.Bucket(events.BucketOperations)
	torn, err := bucket.Update(t.Context(), holder.Value.ID, []byte(`{`), holder.Revision)
	require.NoError(t, err)

	op := e.stored(t, s).Value
	err = e.there.Accept(t.Context(), &op)
	var held *operation.ScopeHeldError
	require.ErrorAs(t, err, &held, "nobody can tell whether it has ended")
	require.Equal(t, holder.Value.ID, held.HolderID)
	require.NoError(t, bucket.Delete(t.Context(), holder.Value.ID, torn))
}

func testClose(t *testing.T, e env) {
	a, b := scope(t, "a"), scope(t, "b")
	one, other := e.stored(t, a).Value, e.stored(t, b).Value
	require.NoError(t, e.here.Accept(t.Context(), &one))
	require.NoError(t, e.here.Accept(t.Context(), &other))
	require.NoError(t, e.here.Close(t.Context(), one.ID))
	require.NoError(t, e.there.Close(t.Context(), one.ID), "repeating it is harmless")
	require.NoError(t, e.there.Close(t.Context(), e.operation().ID), "one that holds nothing")
	open := e.openIDs(t)
	require.False(t, open[one.ID])
	require.True(t, open[other.ID], "only what was its own is released")
	_, err := e.bus.Scopes().Holder(t.Context(), a)
	require.ErrorIs(t, err, bus.ErrNotFound)
	lock, err := e.bus.Scopes().Holder(t.Context(), b)
	require.NoError(t, err)
	require.Equal(t, other.ID, lock.Holder)
}

func testFlags(t *testing.T, e env) {
	v, err := e.here.Flags(t.Context())
	require.NoError(t, err)
	require.Empty(t, v.Value.Migrating)
	together(20, func(i int) {
		l := e.here
		if i%2 == 1 {
			l = e.there
		}
		if err := l.ChangeFlags(context.Background(), func(f *ledger.Flags) { f.Migrating = append(f.Migrating, i) }); err != nil {
			t.Errorf("changing flags: %v", err)
		}
	})
	v, err = e.there.Flags(t.Context())
	require.NoError(t, err)
	var want []int
	for i := range 20 {
		want = append(want, i)
	}
	require.ElementsMatch(t, want, v.Value.Migrating, "no change is lost")
	require.False(t, v.Value.Resyncing)
}
