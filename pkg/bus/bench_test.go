package bus_test

import (
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
)

// What durable calls cost, on one embedded server and on a cluster of three.
func BenchmarkBus(b *testing.B) {
	b.Run("one", func(b *testing.B) {
		x, _ := bustest.Start(b)
		benchmark(b, x)
	})
	b.Run("three", func(b *testing.B) {
		x, _ := bustest.StartCluster(b, 3)
		benchmark(b, x)
	})
}

func benchmark(b *testing.B, x *bus.Bus) {
	k := x.Bucket(events.BucketTasks)
	value := randomBytes(512)
	b.Run("update", func(b *testing.B) {
		key := rand.Text()
		revision, err := k.Create(b.Context(), key, value)
		require.NoError(b, err)
		for b.Loop() {
			revision, err = k.Update(b.Context(), key, value, revision)
			require.NoError(b, err)
		}
	})
	b.Run("get", func(b *testing.B) {
		key := rand.Text()
		_, err := k.Create(b.Context(), key, value)
		require.NoError(b, err)
		for b.Loop() {
			_, err := k.Get(b.Context(), key)
			require.NoError(b, err)
		}
	})
	b.Run("append", func(b *testing.B) {
		for b.Loop() {
			_, err := x.Log(events.StreamEvents).Append(b.Context(), events.EventSubject("op", "task"), "", value)
			require.NoError(b, err)
		}
	})
	b.Run("take and release two scopes", func(b *testing.B) {
		for b.Loop() {
			sequences, err := x.Scopes().Take(b.Context(), "op",
				bus.Message{Subject: events.CommandSubject("kind", "op"), Data: value}, []string{"circle/0", "circle/1"})
			require.NoError(b, err)
			require.NoError(b, x.Scopes().Release(b.Context(), sequences))
		}
	})
	const keys = 2000
	for i := range keys {
		_, err := k.Create(b.Context(), fmt.Sprint("list.", i), value)
		require.NoError(b, err)
	}
	b.Run(fmt.Sprintf("list %d keys", keys), func(b *testing.B) {
		for b.Loop() {
			n := 0
			for _, err := range k.List(b.Context(), "list") {
				require.NoError(b, err)
				n++
			}
			require.Equal(b, keys, n)
		}
	})
}
