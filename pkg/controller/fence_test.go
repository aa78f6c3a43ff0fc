package controller_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/controller"
	"ringmaster/pkg/operation"
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

	require.NoError(t, fence.MayDrop(t.Context(), &op), "nobody else is there")
	mine := r.run("presence", func(ctx context.Context) error { return r.atlas.Present(ctx, r.leases, "mine") })
	require.Eventually(t, func() bool { return r.present() == 1 }, patience, tick)
	require.NoError(t, fence.MayDrop(t.Context(), &op), "a process of the same epoch")

	// A process that has not seen the new epoch yet stands in the way until it has.
	next, err := controller.OpenAtlas(t.Context(), r.ledger, r.keys, config(t, 4), false, r.log, time.Now)
	require.NoError(t, err)
	later := op
	later.Epoch = next.Current().Epoch
	var ended *operation.Error
	require.ErrorAs(t, fence.MayDrop(t.Context(), &op), &ended)
	require.Equal(t, "epoch_changed", ended.Code)
	waiting, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, fence.MayDrop(waiting, &later), context.DeadlineExceeded)
	mine.stop()
	require.Eventually(t, func() bool { return r.present() == 0 }, patience, tick, "a presence ends with its process")
	require.NoError(t, fence.MayDrop(t.Context(), &later))

	later.Attempt++
	require.ErrorAs(t, fence.MayDrop(t.Context(), &later), &ended)
	require.Equal(t, "not_running", ended.Code)
}
