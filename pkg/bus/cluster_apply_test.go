package bus_test

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
)

// rawIn is raw for a node of a cluster.
func rawIn(t *testing.T, c *bustest.Cluster, node int) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(c.URL(node), nats.Token(c.Token()))
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	return js
}

// replicas lists on how many servers each stream is.
func replicas(t *testing.T, js jetstream.JetStream) map[string]int {
	t.Helper()
	all := map[string]int{}
	ctx, cancel := context.WithTimeout(t.Context(), patience) // while a stream has no leader it takes some seconds
	defer cancel()
	list := js.ListStreams(ctx)
	for info := range list.Info() {
		all[info.Config.Name] = info.Config.Replicas
	}
	require.NoError(t, list.Err())
	return all
}

// What was made on one server of a cluster is on three after the next start, hints
// too, with all that it holds.
func TestApplyRaisesReplicas(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := bustest.StartServers(t, 3)
	b := c.Connect(0)
	require.NoError(t, b.Apply(ctx, 1))
	const backend = "http://a:8086"
	hints, err := b.Hints(ctx, backend, 1<<20)
	require.NoError(t, err)
	require.NoError(t, hints.Append(ctx, [][]byte{[]byte("points")}))
	revision, err := b.Bucket(events.BucketOperations).Create(ctx, "op", []byte("1"))
	require.NoError(t, err)
	held, err := take(t, b, "op", "circle/0")
	require.NoError(t, err)
	js := rawIn(t, c, 1)
	for name, n := range replicas(t, js) {
		require.Equal(t, 1, n, name)
	}

	require.NoError(t, b.Apply(ctx, 0))
	hints, err = b.Hints(ctx, backend, 1<<20)
	require.NoError(t, err)
	for name, n := range replicas(t, js) {
		require.Equal(t, 3, n, name)
	}
	records, err := hints.Read(ctx, 0, 10)
	require.NoError(t, err)
	require.Len(t, records, 1)
	_, err = b.Bucket(events.BucketOperations).Update(ctx, "op", []byte("2"), revision)
	require.NoError(t, err)
	_, err = take(t, b, "other", "circle/0")
	require.ErrorIs(t, err, bus.ErrScopeHeld)
	require.NoError(t, b.Scopes().Release(ctx, held))
}

// A cluster that never had three servers does not get by with fewer copies, and is told
// what is missing.
func TestApplyOnTwoServers(t *testing.T) {
	t.Parallel()
	c := bustest.StartServers(t, 2)
	b := bustest.Connect(t, c.Options(0, 2*leaseTTL))
	err := b.Apply(t.Context(), 0)
	require.ErrorContains(t, err, "3 servers must be up")
}

// A system that is there starts with one of its three servers down, and knows all that
// it has.
func TestApplyWithAServerDown(t *testing.T) {
	t.Parallel()
	b, c := bustest.StartCluster(t, 3)
	_, err := b.Hints(t.Context(), "http://a:8086", 1<<20)
	require.NoError(t, err)
	c.StopNode(1)
	again := c.Connect(0)
	bustest.Apply(t, again)
	_, err = again.Bucket(events.BucketOperations).Create(t.Context(), "op", nil)
	require.NoError(t, err)
	_, err = again.Hints(t.Context(), "http://a:8086", 1<<20)
	require.NoError(t, err)
	all, err := again.ListHints(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 1, "the list is whole, whichever server leads it")
}
