package bus_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/bus"
)

func leases(t *testing.T, b *bus.Bus) *bus.Leases {
	t.Helper()
	l, err := b.Leases(t.Context())
	require.NoError(t, err)
	require.Equal(t, leaseTTL, l.TTL(), "the TTL is the bucket's")
	return l
}

func testLeaseHandover(t *testing.T, e env) {
	ctx, key := t.Context(), unique(t)
	here, there := leases(t, e.here), leases(t, e.there)
	_, err := there.Holder(ctx, key)
	require.ErrorIs(t, err, bus.ErrNotFound)

	before := time.Now()
	lease, err := here.Acquire(ctx, key, []byte("here"))
	require.NoError(t, err)
	require.Equal(t, key, lease.Key())
	require.True(t, lease.Held())
	require.WithinRange(t, lease.Expires(), before.Add(leaseTTL), time.Now().Add(leaseTTL))

	_, err = there.Acquire(ctx, key, []byte("there"))
	require.ErrorIs(t, err, bus.ErrHeld)
	var held *bus.HeldError
	require.ErrorAs(t, err, &held)
	require.Equal(t, "here", string(held.Value))
	holder, err := there.Holder(ctx, key)
	require.NoError(t, err)
	require.Equal(t, "here", string(holder))

	require.NoError(t, lease.Release(ctx))
	require.False(t, lease.Held())
	require.NoError(t, lease.Release(ctx), "twice is no error")
	require.ErrorIs(t, lease.Renew(ctx), bus.ErrLeaseLost)
	next, err := there.Acquire(ctx, key, []byte("there"))
	require.NoError(t, err)
	require.NoError(t, next.Release(ctx))
}

// A holder that is silent loses the lease, and not before its own reckoning says
// so.
func testLeaseRunsOut(t *testing.T, e env) {
	ctx, key := t.Context(), unique(t)
	here, there := leases(t, e.here), leases(t, e.there)
	start := time.Now()
	lease, err := here.Acquire(ctx, key, []byte("here"))
	require.NoError(t, err)
	next := takeOver(t, there, key)
	took := time.Since(start)
	require.False(t, lease.Held())
	require.GreaterOrEqual(t, took, leaseTTL)
	t.Logf("taken over after %v with a TTL of %v", took.Round(time.Millisecond), leaseTTL)

	require.ErrorIs(t, lease.Renew(ctx), bus.ErrLeaseLost)
	require.NoError(t, lease.Release(ctx), "a lost lease is nobody's to release")
	holder, err := there.Holder(ctx, key)
	require.NoError(t, err)
	require.Equal(t, "next", string(holder))
	require.NoError(t, next.Release(ctx))
}

// takeOver waits for a lease and acquires it.
func takeOver(t *testing.T, l *bus.Leases, key string) *bus.Lease {
	t.Helper()
	var next *bus.Lease
	eventually(t, func() bool {
		var err error
		next, err = l.Acquire(t.Context(), key, []byte("next"))
		return err == nil
	}, "lease does not run out")
	return next
}

// A holder that renews keeps the lease far beyond its TTL.
func testLeaseRenewed(t *testing.T, e env) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*leaseTTL/2)
	defer cancel()
	key := unique(t)
	here, there := leases(t, e.here), leases(t, e.there)
	lease, err := here.Acquire(ctx, key, []byte("here"))
	require.NoError(t, err)
	beat := time.NewTicker(leaseTTL / 4)
	defer beat.Stop()
	for ctx.Err() == nil {
		select {
		case <-beat.C:
			if err := lease.Renew(t.Context()); err != nil {
				t.Fatal(err)
			}
			_, err := there.Acquire(t.Context(), key, nil)
			require.ErrorIs(t, err, bus.ErrHeld)
		case <-ctx.Done():
		}
	}
	require.True(t, lease.Held())
	require.NoError(t, lease.Release(t.Context()))
}

// After a takeover the former holder can neither renew nor release.
func testLeaseOvertaken(t *testing.T, e env) {
	ctx, key := t.Context(), unique(t)
	here, there := leases(t, e.here), leases(t, e.there)
	former, err := here.Acquire(ctx, key, []byte("former"))
	require.NoError(t, err)
	next := takeOver(t, there, key)
	require.NoError(t, former.Release(ctx))
	if err := next.Renew(ctx); err != nil && !errors.Is(err, bus.ErrUnavailable) {
		t.Fatal(err)
	}
	require.ErrorIs(t, former.Renew(ctx), bus.ErrLeaseLost)
	require.NoError(t, next.Release(ctx))
}

// What is done under a lease goes on for longer than its TTL, and another may take it
// at once when it has ended.
func testLeaseIsKeptWhile(t *testing.T, e env) {
	ctx, key := t.Context(), unique(t)
	here, there := leases(t, e.here), leases(t, e.there)
	lease, err := here.Acquire(ctx, key, []byte("here"))
	require.NoError(t, err)
	first, why := lease.Expires(), errors.New("why")
	err = lease.While(ctx, func(ctx context.Context) error {
		require.Eventually(t, func() bool { return lease.Expires().After(first.Add(leaseTTL)) }, 10*leaseTTL, leaseTTL/20)
		require.NoError(t, ctx.Err())
		_, err := there.Acquire(ctx, key, []byte("there"))
		require.ErrorIs(t, err, bus.ErrHeld)
		return why
	})
	require.ErrorIs(t, err, why)
	next, err := there.Acquire(ctx, key, []byte("there"))
	require.NoError(t, err)
	require.NoError(t, next.Release(ctx))
}

// What is done under a lease ends when the lease is another's.
func testLeaseIsLostMeanwhile(t *testing.T, e env) {
	ctx, key := t.Context(), unique(t)
	here, there := leases(t, e.here), leases(t, e.there)
	lease, err := here.Acquire(ctx, key, []byte("here"))
	require.NoError(t, err)
	var next *bus.Lease
	err = lease.While(ctx, func(ctx context.Context) error {
		entry, err := there.Bucket().Get(ctx, key)
		require.NoError(t, err)
		require.NoError(t, there.Bucket().Delete(ctx, key, entry.Revision))
		next, err = there.Acquire(ctx, key, []byte("there"))
		require.NoError(t, err)
		<-ctx.Done()
		return context.Cause(ctx)
	})
	require.ErrorIs(t, err, bus.ErrLeaseLost)
	require.NoError(t, next.Renew(ctx), "what was lost is not given up for its next holder")
	require.NoError(t, next.Release(ctx))
}
