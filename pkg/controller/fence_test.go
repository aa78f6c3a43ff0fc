package controller_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/controller"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/serving"
)

// TestNothingIsDroppedBesideAnotherEpoch: not while a process works with another
// epoch, not once the epoch is another, not when the operation is not running.
func TestNothingIsDroppedBesideAnotherEpoch(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 1)})
	fence := &controller.Fence{Ledger: r.ledger, Leases: r.leases}
	control := r.control()
	submitted := r.submit(add)
	require.Eventually(t, func() bool { return r.read(submitted.ID).State == operation.Running }, patience, tick)
	op := r.read(submitted.ID)
	control.stop() // it would end the operation when the epoch changes

	mine := r.run("session", r.session.Run)
	require.Eventually(t, func() bool { return r.present() == 1 }, patience, tick)
	require.NoError(t, fence.MayDrop(t.Context(), &op), "a process of the same epoch")

	// A process that has not seen the new epoch yet stands in the way until it has.
	mine.stop()
	require.Eventually(t, func() bool { return r.present() == 0 }, patience, tick, "a session ends with its process")
	r.join("behind")
	r.adopt(config(t, 4))
	later := op
	later.Epoch = 2
	var ended *operation.Error
	require.ErrorAs(t, fence.MayDrop(t.Context(), &op), &ended)
	require.Equal(t, "epoch_changed", ended.Code)

	// So does a circle whose former owners are still served.
	require.ErrorAs(t, fence.MayDrop(t.Context(), &later), &ended)
	require.Equal(t, "transition_open", ended.Code)
	was, err := r.ledger.Topology(t.Context())
	require.NoError(t, err)
	require.NoError(t, r.ledger.StoreServing(t.Context(), was, serving.State{}))
	waiting, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, fence.MayDrop(waiting, &later), context.DeadlineExceeded)
	require.Eventually(t, func() bool { return r.present() == 0 }, patience, tick, "a session that nobody keeps runs out")
	require.NoError(t, fence.MayDrop(t.Context(), &later))

	later.Attempt++
	require.ErrorAs(t, fence.MayDrop(t.Context(), &later), &ended)
	require.Equal(t, "not_running", ended.Code)
}
