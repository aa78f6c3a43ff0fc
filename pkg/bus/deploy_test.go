package bus_test

import (
	"context"
	"slices"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
)

// The configuration in deploy/nats makes a cluster in which each program can do
// its work and no more.
func TestDeployedCluster(t *testing.T) {
	d := startDeployed(t)
	connect := func(user string, timeout time.Duration) *bus.Bus {
		return bustest.Connect(t, bus.Options{URL: d.URLs(user, d.Clients()...), TLS: d.TLS, Timeout: timeout})
	}
	api := connect("api", 0)
	// As if all had been restored from a single server: the replicas are raised.
	require.NoError(t, api.Apply(t.Context(), 1))
	bustest.Apply(t, api)
	ctx := t.Context()

	t.Run("the api does its work", func(t *testing.T) {
		require.NoError(t, api.Probe(ctx))
		for _, b := range events.Buckets() {
			k := api.Bucket(b.Name)
			revision, err := k.Create(ctx, "key", []byte("1"))
			require.NoError(t, err, b.Name)
			revision, err = k.Update(ctx, "key", []byte("2"), revision)
			require.NoError(t, err, b.Name)
			require.NoError(t, k.Delete(ctx, "key", revision), b.Name)
		}
		for _, o := range events.ObjectStores() {
			store, err := api.Objects(ctx, o.Name)
			require.NoError(t, err)
			_, err = store.PutBytes(ctx, "plan", []byte("1"))
			require.NoError(t, err)
			_, err = store.PutBytes(ctx, "plan", []byte("2"))
			require.NoError(t, err)
		}
		sequences, err := api.Scopes().Take(ctx, "op", bus.Message{Subject: events.CommandSubject("rebalance", "op")}, []string{"circle/0"})
		require.NoError(t, err)
		require.NoError(t, api.Scopes().Release(ctx, sequences))
		for subject, stream := range map[string]string{
			events.EventSubject("op", events.NounTask): events.StreamEvents,
			events.AuditSubject("op"):                  events.StreamAudit,
			events.DeadLetterSubject("TASKS"):          events.StreamDeadLetters,
		} {
			log := api.Log(stream)
			_, err := log.Append(ctx, subject, subject, nil)
			require.NoError(t, err)
			for _, err := range log.Tail(ctx, 1, subject) {
				require.NoError(t, err)
				break
			}
		}
	})

	t.Run("a worker does its work", func(t *testing.T) {
		worker := connect("worker", 0)
		queue, err := worker.Queue(ctx)
		require.NoError(t, err)
		require.NoError(t, queue.Publish(ctx, nudge(t, "1")))
		n := fetch(t, queue)
		leases, err := worker.Leases(ctx)
		require.NoError(t, err)
		lease, err := leases.Acquire(ctx, "task", []byte("worker"))
		require.NoError(t, err)
		require.NoError(t, lease.Renew(ctx))
		claim, err := leases.Claims().Acquire(ctx, "task", []byte("worker"))
		require.NoError(t, err)
		for _, err := range leases.Bucket().List(ctx, "") {
			require.NoError(t, err)
		}
		require.NoError(t, claim.Release(ctx))
		tasks := worker.Bucket(events.BucketTasks)
		revision, err := tasks.Create(ctx, "op.1", []byte("1"))
		require.NoError(t, err)
		_, err = tasks.Update(ctx, "op.1", []byte("2"), revision)
		require.NoError(t, err)
		for _, b := range events.Buckets() {
			_, err := worker.Bucket(b.Name).Get(ctx, "none")
			require.ErrorIs(t, err, bus.ErrNotFound, b.Name)
		}
		plans, err := worker.Objects(ctx, events.ObjectStorePlans)
		require.NoError(t, err)
		plan, err := plans.GetBytes(ctx, "plan")
		require.NoError(t, err)
		require.Equal(t, "2", string(plan))
		_, err = worker.Log(events.StreamEvents).Append(ctx, events.EventSubject("op", events.NounTask), "id", nil)
		require.NoError(t, err)
		_, err = worker.Log(events.StreamDeadLetters).Append(ctx, events.DeadLetterSubject("TASKS"), "id", nil)
		require.NoError(t, err)
		watching, stop := context.WithCancel(ctx)
		defer stop()
		for _, bucket := range []string{events.BucketOperations, events.BucketTopology} {
			changes, err := worker.Bucket(bucket).Watch(watching, "")
			require.NoError(t, err)
			require.Eventually(t, func() bool { // a watch begins a moment after the call
				revision, err := api.Bucket(bucket).Create(ctx, "watched", nil)
				require.NoError(t, err)
				defer func() { require.NoError(t, api.Bucket(bucket).Delete(ctx, "watched", revision)) }()
				select {
				case <-changes:
					return true
				case <-time.After(100 * time.Millisecond):
					return false
				}
			}, patience, time.Millisecond, bucket)
		}
		serving, end := context.WithCancel(ctx)
		served := make(chan error, 1)
		go func() {
			served <- api.Serve(serving, events.SubjectGrants, func(q []byte) []byte { return append([]byte("answer to "), q...) })
		}()
		require.Eventually(t, func() bool {
			answer, err := worker.Ask(ctx, events.SubjectGrants, []byte("this"))
			return err == nil && string(answer) == "answer to this"
		}, patience, 10*time.Millisecond)
		end()
		require.NoError(t, <-served)
		require.NoError(t, n.Working())
		require.NoError(t, n.Ack(ctx))
		require.NoError(t, lease.Release(ctx))
	})

	t.Run("a worker does no more", func(t *testing.T) {
		sequences, err := api.Scopes().Take(ctx, "mine", bus.Message{Subject: events.CommandSubject("rebalance", "mine")}, []string{"circle/1"})
		require.NoError(t, err)
		worker := connect("worker", 500*time.Millisecond) // what is refused is not answered
		_, err = worker.Scopes().Take(ctx, "op", bus.Message{Subject: events.CommandSubject("rebalance", "op")}, []string{"circle/0"})
		require.ErrorIs(t, err, bus.ErrUnavailable)
		require.ErrorIs(t, worker.Scopes().Release(ctx, sequences), bus.ErrUnavailable)
		for _, name := range []string{events.BucketOperations, events.BucketTopology, events.BucketIdempotency} {
			_, err := worker.Bucket(name).Create(ctx, "key", nil)
			require.ErrorIs(t, err, bus.ErrUnavailable, name)
			_, err = api.Bucket(name).Get(ctx, "key")
			require.ErrorIs(t, err, bus.ErrNotFound, name)
		}
		plans, err := worker.Objects(ctx, events.ObjectStorePlans)
		require.NoError(t, err)
		_, err = plans.PutBytes(ctx, "plan", []byte("3"))
		require.ErrorIs(t, err, bus.ErrUnavailable)
		_, err = worker.Log(events.StreamAudit).Append(ctx, events.AuditSubject("op"), "id2", nil)
		require.ErrorIs(t, err, bus.ErrUnavailable)
		lock, err := api.Scopes().Holder(ctx, "circle/1")
		require.NoError(t, err)
		require.Equal(t, "mine", lock.Holder)
	})

	t.Run("hints come and go", func(t *testing.T) {
		const backend = "http://gone:8086"
		hints, err := api.Hints(ctx, backend, 1<<20)
		require.NoError(t, err)
		require.NoError(t, hints.Append(ctx, [][]byte{[]byte("1"), []byte("2")}))
		records, err := hints.Read(ctx, 0, 10)
		require.NoError(t, err)
		require.Len(t, records, 2)
		require.NoError(t, hints.DeleteThrough(ctx, records[1].Sequence))
		require.NoError(t, api.RemoveHints(ctx, backend))
	})

	t.Run("nobody destroys what matters, and nobody comes in without a name", func(t *testing.T) {
		address := d.Clients()[0]
		conn, err := nats.Connect(d.URLs("api", address), nats.Secure(d.TLS))
		require.NoError(t, err)
		defer conn.Close()
		names := []string{"OBJ_" + events.ObjectStorePlans}
		for _, s := range events.Streams() {
			names = append(names, s.Name)
		}
		for _, b := range events.Buckets() {
			if b.Name != events.BucketClaims { // which is made anew for more replicas
				names = append(names, "KV_"+b.Name)
			}
		}
		// What is refused is not answered.
		inbox := nats.NewInbox()
		answers, err := conn.SubscribeSync(inbox)
		require.NoError(t, err)
		for _, name := range names {
			require.NoError(t, conn.PublishRequest("$JS.API.STREAM.DELETE."+name, inbox, nil))
		}
		_, err = answers.NextMsg(time.Second)
		require.ErrorIs(t, err, nats.ErrTimeout)
		for _, user := range []string{"", "api:worker-password@"} {
			_, err = nats.Connect("tls://"+user+address, nats.Secure(d.TLS))
			require.ErrorIs(t, err, nats.ErrAuthorization)
		}
	})
}

// startDeployed runs three servers with the configuration in deploy/nats.
func startDeployed(t *testing.T) *bustest.Deployed {
	t.Helper()
	d, err := bustest.NewDeployed("../..", t.TempDir(), bustest.DeployedOptions{})
	require.NoError(t, err)
	var nodes []*natsserver.Server
	t.Cleanup(func() {
		for _, s := range nodes {
			s.Shutdown()
		}
		for _, s := range nodes {
			s.WaitForShutdown()
		}
	})
	for _, n := range d.Nodes {
		for name, value := range n.Env {
			t.Setenv(name, value)
		}
		o, err := natsserver.ProcessConfigFile(n.Config)
		require.NoError(t, err)
		require.True(t, o.SyncAlways, "an acknowledgement means that it is on disk")
		require.Positive(t, o.JetStreamMaxStore)
		o.NoSigs, o.NoLog = true, true
		s, err := natsserver.NewServer(o)
		require.NoError(t, err)
		nodes = append(nodes, s)
		s.Start()
	}
	for _, s := range nodes {
		require.True(t, s.ReadyForConnections(patience))
	}
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(nodes, (*natsserver.Server).JetStreamIsLeader)
	}, patience, tick, "the cluster has no leader")
	return d
}
