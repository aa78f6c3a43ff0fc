package controller_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/controller"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// The lease of a dead holder stands in nobody's way for longer than a person wants.
func TestALeaseThatIsBroken(t *testing.T) {
	t.Parallel()
	r := newRig(t, 30*time.Second, work{0, 1, 0, named("a", 1)})
	book := &controller.Leasebook{Ledger: r.ledger, Leases: r.leases}
	op := r.submit(add)
	key := ledger.OperationLease(op.ID)
	_, err := r.leases.Acquire(t.Context(), key, []byte("api-that-is-dead"))
	require.NoError(t, err)
	r.control()
	r.work(1)
	all, err := book.List(t.Context())
	require.NoError(t, err)
	var found controller.LeaseInfo
	for _, l := range all {
		if l.Key == key {
			found = l
		}
	}
	require.Equal(t, "api-that-is-dead", found.Holder)
	require.Equal(t, op.ID, found.OperationID)
	require.Equal(t, 30*time.Second, found.ExpiresAt.Sub(found.RenewedAt))
	require.Equal(t, operation.Queued, r.read(op.ID).State)

	began := time.Now()
	require.NoError(t, book.Break(t.Context(), key, by("its host is on fire")))
	r.finish(op.ID, operation.Succeeded)
	require.Less(t, time.Since(began), 20*time.Second, "nobody waits for it to run out")
	trail, err := r.ledger.AuditTrail(t.Context(), op.ID)
	require.NoError(t, err)
	require.Equal(t, "lease_break", trail[1].Action)
	require.Contains(t, trail[1].Reason, "api-that-is-dead: its host is on fire")

	require.ErrorIs(t, book.Break(t.Context(), key, by("")), controller.ErrNoLease)
	var invalid *operation.InvalidError
	require.ErrorAs(t, book.Break(t.Context(), ledger.ProcessLease("here"), by("")), &invalid)
}

// Whoever drives an operation under a lease that was broken stops, and whoever takes it
// over goes on; the work in hand is done once more at most.
func TestALeaseThatIsBrokenUnderALiveHolder(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2*time.Second, work{0, 1, 0, named("a", 2)})
	book := &controller.Leasebook{Ledger: r.ledger, Leases: r.leases}
	arrived, open := make(chan struct{}, 100), make(chan struct{})
	r.carrier.before = func(ctx context.Context, _ operation.Task, _ *operation.Slice) error {
		arrived <- struct{}{}
		select {
		case <-open:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	r.control()
	r.control()
	r.work(1)
	r.work(1)
	op := r.submit(add)
	await(t, arrived, "a task is at work")
	require.NoError(t, book.Break(t.Context(), ledger.TaskLease(op.ID, "c1-000001"), by("")))
	require.NoError(t, book.Break(t.Context(), ledger.OperationLease(op.ID), by("")))
	await(t, arrived, "another has taken it up")
	close(open)
	end := r.finish(op.ID, operation.Succeeded)
	require.Equal(t, int64(2*pointsPerSlice), end.Progress.Points.Copied)
}
