package bus_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
)

// The leader of a stream goes away in the middle of the work: calls wait for
// the next one, nothing acknowledged is lost, nothing is done twice.
func TestClusterOutlivesALeader(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	_, cluster := bustest.StartCluster(t, 3, bus.WithLeaseTTL(leaseTTL))
	stream := "KV_" + events.BucketTasks
	leader := cluster.StreamLeader(stream)
	require.GreaterOrEqual(t, leader, 0)
	b := cluster.Connect((leader + 1) % 3)
	k := b.Bucket(events.BucketTasks)

	revision, err := k.Create(ctx, "counter", []byte("0"))
	require.NoError(t, err)
	stopped := make(chan struct{})
	for i := 1; i <= 60; i++ {
		if i == 20 {
			go func() {
				cluster.StopNode(leader)
				close(stopped)
			}()
		}
		revision, err = k.Update(ctx, "counter", text("%d", i), revision)
		require.NoError(t, err, "%d", i)
	}
	<-stopped
	eventually(t, func() bool { return cluster.StreamLeader(stream) >= 0 })
	got, err := k.Get(ctx, "counter")
	require.NoError(t, err)
	require.Equal(t, "60", string(got.Value))
	require.Equal(t, revision, got.Revision)

	sequences, err := take(t, b, "op", "circle/0", "circle/1")
	require.NoError(t, err)
	cluster.StartNode(leader)
	back := cluster.Connect(leader)
	_, err = take(t, back, "other", "circle/1")
	require.ErrorIs(t, err, bus.ErrScopeHeld)
	require.NoError(t, back.Scopes().Release(ctx, sequences))
}

// A reader goes on without loss and without repetition while each node in turn,
// and so also the one that has its consumer, is restarted.
func TestClusterTailOutlivesEveryNode(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	writer, cluster := bustest.StartCluster(t, 3)
	reader := cluster.Connect(1)
	const records = 90
	written := make(chan error, 1)
	go func() {
		for i := range records {
			if i%30 == 10 {
				cluster.StopNode(i / 30)
			}
			if i%30 == 20 {
				cluster.StartNode(i / 30)
			}
			id := fmt.Sprint("tail-", i)
			if _, err := writer.Log(events.StreamEvents).Append(ctx, events.EventSubject("op", "task"), id, text("%d", i)); err != nil {
				written <- fmt.Errorf("record %d: %w", i, err)
				cancel()
				return
			}
		}
		written <- nil
	}()
	next := 0
	for r, err := range reader.Log(events.StreamEvents).Tail(ctx, 1, events.OperationEvents("op")) {
		if errors.Is(err, context.Canceled) {
			break
		}
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(next), string(r.Data))
		if next++; next == records {
			break
		}
	}
	require.NoError(t, <-written)
	require.Equal(t, records, next)
}

// Without a majority nothing is acknowledged, and the answer says so in time.
func TestClusterWithoutMajority(t *testing.T) {
	t.Parallel()
	_, cluster := bustest.StartCluster(t, 3)
	b := cluster.Connect(0)
	cluster.StopNode(1)
	cluster.StopNode(2)
	ctx, cancel := context.WithTimeout(t.Context(), leaseTTL)
	defer cancel()
	_, err := b.Bucket(events.BucketOperations).Create(ctx, "a", nil)
	require.ErrorIs(t, err, bus.ErrUnavailable)
	require.ErrorIs(t, b.Probe(ctx), bus.ErrUnavailable)
	cluster.StartNode(1)
	_, err = b.Bucket(events.BucketOperations).Create(t.Context(), "b", nil)
	require.NoError(t, err)
}
