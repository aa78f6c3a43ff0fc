package bus_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/events"
	"ringmaster/pkg/bus"
)

func testManyAreStoredOnce(t *testing.T, e env) {
	ctx, bucket, op := t.Context(), e.here.Bucket(events.BucketTasks), unique(t)
	_, err := bucket.Create(ctx, op+".7", []byte("mine"))
	require.NoError(t, err)
	pairs := make([]bus.Pair, 20)
	for i := range pairs {
		pairs[i] = bus.Pair{Key: fmt.Sprintf("%s.%d", op, i), Value: fmt.Append(nil, i)}
	}
	// One of them is there: the others are stored all the same, and again by nobody.
	revisions, err := bucket.CreateMany(ctx, pairs)
	require.NoError(t, err)
	require.Zero(t, revisions[7])
	again, err := bucket.CreateMany(ctx, pairs)
	require.NoError(t, err)
	require.Equal(t, make([]uint64, len(pairs)), again)
	for i, p := range pairs {
		found, err := bucket.Get(ctx, p.Key)
		require.NoError(t, err)
		want := string(p.Value)
		if i == 7 {
			want = "mine"
		} else {
			require.Equal(t, revisions[i], found.Revision)
		}
		require.Equal(t, want, string(found.Value))
	}
	whole := make([]bus.Pair, 1200) // more than a batch holds
	for i := range whole {
		whole[i] = bus.Pair{Key: fmt.Sprintf("%s-whole.%d", op, i), Value: []byte("x")}
	}
	revisions, err = bucket.CreateMany(ctx, whole)
	require.NoError(t, err)
	for i := 1; i < len(revisions); i++ {
		require.Greater(t, revisions[i], revisions[i-1])
	}
	last, err := bucket.Get(ctx, whole[len(whole)-1].Key)
	require.NoError(t, err)
	require.Equal(t, revisions[len(whole)-1], last.Revision)
}

// What is read of some keys is what is read of each.
func testSomeKeys(t *testing.T, e env) {
	ctx, bucket, op := t.Context(), e.here.Bucket(events.BucketTasks), unique(t)
	const n = 30
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("%s.%d", op, i)
		if i%3 == 0 {
			continue // is not there
		}
		revision, err := bucket.Create(ctx, keys[i], make([]byte, 200<<10)) // more than an answer holds
		require.NoError(t, err)
		if i%3 == 1 {
			require.NoError(t, bucket.Delete(ctx, keys[i], revision))
		}
	}
	rapid.Check(t, func(r *rapid.T) {
		asked := rapid.SliceOfNDistinct(rapid.SampledFrom(keys), 0, n, rapid.ID[string]).Draw(r, "keys")
		var want []bus.Entry
		for _, key := range asked {
			if one, err := bucket.Get(ctx, key); err == nil {
				want = append(want, one)
			}
		}
		got, err := e.there.Bucket(events.BucketTasks).GetSome(ctx, asked)
		require.NoError(r, err)
		require.Len(r, got, len(want))
		for i := range got {
			require.Equal(r, want[i].Key, got[i].Key)
			require.Equal(r, want[i].Revision, got[i].Revision)
			require.Len(r, got[i].Value, len(want[i].Value))
		}
	})
	_, err := bucket.GetSome(ctx, make([]string, bus.MaxGet+1))
	require.Error(t, err)
}

func testNudgesTogether(t *testing.T, e env) {
	q := queue(t, e.here)
	messages := make([]bus.Message, 12)
	for i := range messages {
		messages[i] = nudge(t, fmt.Sprint(i))
	}
	require.NoError(t, q.Publish(t.Context(), messages[3]))
	before, err := q.Depth(t.Context())
	require.NoError(t, err)
	for range 2 { // those that are there stay the only ones
		require.NoError(t, q.PublishMany(t.Context(), messages))
		depth, err := q.Depth(t.Context())
		require.NoError(t, err)
		require.Equal(t, before+11, depth)
	}
}

// A claim of which the server knows nothing any more is taken again by who has held it
// all along; one that another has had since is not.
func testClaimIsTakenAgain(t *testing.T, e env) {
	ctx, key := t.Context(), unique(t)+".1"
	claims := leases(t, e.here).Claims()
	require.Equal(t, leaseTTL, claims.TTL())
	lease, err := claims.Acquire(ctx, key, []byte("here"))
	require.NoError(t, err)
	require.NoError(t, claims.Bucket().EraseAll(ctx, unique(t))) // as a crash may
	require.ErrorIs(t, lease.Renew(ctx), bus.ErrRetaken)
	require.True(t, lease.Held())
	require.NoError(t, lease.Renew(ctx))

	found, err := claims.Bucket().Get(ctx, key)
	require.NoError(t, err)
	require.NoError(t, claims.Bucket().Delete(ctx, key, found.Revision))
	require.ErrorIs(t, lease.Renew(ctx), bus.ErrLeaseLost)
	require.False(t, lease.Held())
}
