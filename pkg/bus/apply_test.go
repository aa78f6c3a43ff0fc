package bus_test

import (
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
)

// raw is a JetStream client that knows nothing of Ringmaster.
func raw(t *testing.T, s *bus.Server) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(s.URL(), nats.Token(s.Token()))
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	return js
}

func streamInfo(t *testing.T, js jetstream.JetStream, name string) *jetstream.StreamInfo {
	t.Helper()
	s, err := js.Stream(t.Context(), name)
	require.NoError(t, err)
	return s.CachedInfo()
}

func TestApplyIsIdempotent(t *testing.T) {
	t.Parallel()
	b, s := bustest.Start(t)
	js := raw(t, s)
	before := map[string]jetstream.StreamConfig{}
	for name := range js.StreamNames(t.Context()).Name() {
		before[name] = streamInfo(t, js, name).Config
	}
	require.Len(t, before, len(events.Streams())+len(events.Buckets())+len(events.ObjectStores()))

	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if err := b.Apply(t.Context(), 0); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for name, config := range before {
		require.Equal(t, config, streamInfo(t, js, name).Config)
		require.Equal(t, jetstream.FileStorage, config.Storage)
		require.Equal(t, 1, config.Replicas)
		require.NotEmpty(t, config.Description)
	}
	commands := before[events.StreamCommands]
	require.Zero(t, commands.MaxAge)
	require.EqualValues(t, -1, commands.MaxBytes)
	require.True(t, commands.AllowAtomicPublish)
	require.Equal(t, events.LeaseTTL, before["KV_"+events.BucketLeases].MaxAge)
}

// Several processes start at once on an empty store.
func TestApplyByManyAtOnce(t *testing.T) {
	t.Parallel()
	s := bustest.StartServer(t, t.TempDir())
	var wg sync.WaitGroup
	for range 6 {
		b := bustest.Connect(t, bus.Options{URL: s.URL(), Token: s.Token()})
		wg.Go(func() {
			if err := b.Apply(t.Context(), 0); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestApplyBringsLimitsUpToDate(t *testing.T) {
	t.Parallel()
	b, s := bustest.Start(t)
	js := raw(t, s)
	ctx := t.Context()
	commands := streamInfo(t, js, events.StreamCommands).Config
	commands.MaxAge = time.Hour // would release locks that are held
	_, err := js.UpdateStream(ctx, commands)
	require.NoError(t, err)
	require.NoError(t, b.Apply(ctx, 0, bus.WithLeaseTTL(3*time.Second)))
	require.Zero(t, streamInfo(t, js, events.StreamCommands).Config.MaxAge)
	require.NoError(t, b.Apply(ctx, 0), "who does not say keeps what there is")
	l, err := b.Leases(ctx)
	require.NoError(t, err)
	require.Equal(t, 3*time.Second, l.TTL())
	consumer, err := js.Consumer(ctx, events.StreamTasks, events.ConsumerWorkers)
	require.NoError(t, err)
	require.Equal(t, 3*time.Second, consumer.CachedInfo().Config.AckWait)
}

// A bucket that an earlier release made with a time to live keeps its keys from then
// on, those that are in it already as well.
func TestApplyLetsABucketKeepItsKeys(t *testing.T) {
	t.Parallel()
	b, s := bustest.Start(t)
	js := raw(t, s)
	ctx := t.Context()
	name := "KV_" + events.BucketIdempotency
	config := streamInfo(t, js, name).Config
	config.MaxAge, config.SubjectDeleteMarkerTTL = 7*24*time.Hour, 5*time.Minute
	_, err := js.UpdateStream(ctx, config)
	require.NoError(t, err)
	bucket := b.Bucket(events.BucketIdempotency)
	_, err = bucket.Create(ctx, "key", []byte("value"))
	require.NoError(t, err)
	require.NoError(t, b.Apply(ctx, 0))
	require.Zero(t, streamInfo(t, js, name).Config.MaxAge)
	require.Zero(t, streamInfo(t, js, name).Config.SubjectDeleteMarkerTTL)
	e, err := bucket.Get(ctx, "key")
	require.NoError(t, err)
	require.Equal(t, "value", string(e.Value))
}

// Whoever holds a lease reckons with the TTL that he has read.
func TestApplyDoesNotShortenLeasesThatAreHeld(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b, _ := bustest.Start(t, bus.WithLeaseTTL(5*time.Second))
	leases, err := b.Leases(ctx)
	require.NoError(t, err)
	lease, err := leases.Acquire(ctx, "process.a", nil)
	require.NoError(t, err)
	ttl := func(apply time.Duration) time.Duration {
		require.NoError(t, b.Apply(ctx, 0, bus.WithLeaseTTL(apply)))
		now, err := b.Leases(ctx)
		require.NoError(t, err)
		return now.TTL()
	}
	require.Equal(t, 5*time.Second, ttl(2*time.Second))
	require.Equal(t, 6*time.Second, ttl(6*time.Second), "longer is what nobody is harmed by")
	require.NoError(t, lease.Release(ctx))
	require.Equal(t, 2*time.Second, ttl(2*time.Second))
}

func TestApplyRefusesWhatIsIncompatible(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		setting, found, wanted string
		config                 jetstream.StreamConfig
	}{
		{
			"retention", "Limits", "WorkQueue",
			jetstream.StreamConfig{Name: events.StreamTasks, Subjects: []string{events.AllTasks}},
		},
		{
			"storage", "Memory", "File",
			jetstream.StreamConfig{Name: events.StreamEvents, Subjects: []string{events.AllEvents}, Storage: jetstream.MemoryStorage},
		},
		{
			"subjects", "ringmaster.command.>", "ringmaster.command.>, ringmaster.scope.>",
			jetstream.StreamConfig{Name: events.StreamCommands, Subjects: []string{events.AllCommands}},
		},
		{
			"discard", "DiscardOld", "DiscardNew",
			jetstream.StreamConfig{Name: events.StreamCommands, Subjects: []string{events.AllCommands, events.AllScopes}, MaxMsgsPerSubject: 1},
		},
		{
			"discard new per subject", "false", "true",
			jetstream.StreamConfig{
				Name: events.StreamCommands, Subjects: []string{events.AllCommands, events.AllScopes},
				Discard: jetstream.DiscardNew, MaxMsgsPerSubject: 1,
			},
		},
		{
			"maximum messages per subject", "64", "1",
			jetstream.StreamConfig{
				Name: "KV_" + events.BucketTasks, Subjects: []string{"$KV." + events.BucketTasks + ".>"},
				Discard: jetstream.DiscardNew, MaxMsgsPerSubject: 64, DenyDelete: true, AllowRollup: true,
			},
		},
		{
			"deny delete", "true", "false",
			jetstream.StreamConfig{
				Name: events.StreamCommands, Subjects: []string{events.AllCommands, events.AllScopes}, DenyDelete: true,
				Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 1,
			},
		},
	} {
		t.Run(c.setting, func(t *testing.T) {
			s := bustest.StartServer(t, t.TempDir())
			js := raw(t, s)
			_, err := js.CreateStream(t.Context(), c.config)
			require.NoError(t, err)
			before := streamInfo(t, js, c.config.Name).Config

			b := bustest.Connect(t, bus.Options{Server: s})
			err = b.Apply(t.Context(), 0)
			require.ErrorIs(t, err, bus.ErrIncompatible)
			var incompatible *bus.IncompatibleError
			require.ErrorAs(t, err, &incompatible)
			require.Equal(t, bus.IncompatibleError{Stream: c.config.Name, Setting: c.setting, Found: c.found, Wanted: c.wanted}, *incompatible)
			require.Contains(t, err.Error(), c.config.Name+": "+c.setting+" is "+c.found+", needs "+c.wanted)
			require.Equal(t, before, streamInfo(t, js, c.config.Name).Config)
			names := 0
			for range js.StreamNames(t.Context()).Name() {
				names++
			}
			require.Equal(t, 1, names, "nothing else was made")
		})
	}
}

// On one server three replicas are an error, not a fallback.
func TestApplyNeedsServersForReplicas(t *testing.T) {
	t.Parallel()
	s := bustest.StartServer(t, t.TempDir())
	b := bustest.Connect(t, bus.Options{Server: s})
	require.ErrorContains(t, b.Apply(t.Context(), 3), "3 servers must be up")
}

// A bucket is readable with the common tools.
func TestBucketIsAnOrdinaryOne(t *testing.T) {
	t.Parallel()
	b, s := bustest.Start(t)
	ctx := t.Context()
	revision, err := b.Bucket(events.BucketOperations).Create(ctx, "a.b", []byte("1"))
	require.NoError(t, err)
	js := raw(t, s)
	kv, err := js.KeyValue(ctx, events.BucketOperations)
	require.NoError(t, err)
	entry, err := kv.Get(ctx, "a.b")
	require.NoError(t, err)
	require.Equal(t, revision, entry.Revision())
	require.NoError(t, kv.Delete(ctx, "a.b"))
	_, err = b.Bucket(events.BucketOperations).Get(ctx, "a.b")
	require.ErrorIs(t, err, bus.ErrNotFound)

	o, err := b.Objects(ctx, events.ObjectStorePlans)
	require.NoError(t, err)
	content := randomBytes(1 << 20)
	_, err = o.PutBytes(ctx, "plan", content)
	require.NoError(t, err)
	store, err := js.ObjectStore(ctx, events.ObjectStorePlans)
	require.NoError(t, err)
	got, err := store.GetBytes(ctx, "plan")
	require.NoError(t, err)
	require.Equal(t, content, got)
	_, err = store.PutBytes(ctx, "theirs", content)
	require.NoError(t, err)
	got, err = o.GetBytes(ctx, "theirs")
	require.NoError(t, err)
	require.Equal(t, content, got)
	require.NoError(t, store.Delete(ctx, "theirs"))
	_, err = o.GetBytes(ctx, "theirs")
	require.ErrorIs(t, err, bus.ErrNotFound)
}
