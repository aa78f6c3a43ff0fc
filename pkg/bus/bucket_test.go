package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
)

func testBucketCompareAndSet(t *testing.T, e env) {
	ctx, key := t.Context(), unique(t)
	k := e.here.Bucket(events.BucketOperations)

	_, err := k.Get(ctx, key)
	require.ErrorIs(t, err, bus.ErrNotFound)
	_, err = k.Update(ctx, key, []byte("x"), 0)
	require.ErrorIs(t, err, bus.ErrConflict)

	first, err := k.Create(ctx, key, []byte("one"))
	require.NoError(t, err)
	_, err = k.Create(ctx, key, []byte("other"))
	require.ErrorIs(t, err, bus.ErrExists)
	require.NotErrorIs(t, err, bus.ErrConflict)

	second, err := k.Update(ctx, key, []byte("two"), first)
	require.NoError(t, err)
	require.Greater(t, second, first)
	_, err = k.Update(ctx, key, []byte("late"), first)
	require.ErrorIs(t, err, bus.ErrConflict)
	require.ErrorIs(t, k.Delete(ctx, key, first), bus.ErrConflict)

	got, err := k.Get(ctx, key)
	require.NoError(t, err)
	require.Equal(t, "two", string(got.Value))
	require.Equal(t, second, got.Revision)
	require.Equal(t, key, got.Key)
	require.False(t, got.Created.IsZero())

	require.NoError(t, k.Delete(ctx, key, second))
	_, err = k.Get(ctx, key)
	require.ErrorIs(t, err, bus.ErrNotFound)
	_, err = k.Update(ctx, key, []byte("late"), second)
	require.ErrorIs(t, err, bus.ErrConflict)
	require.ErrorIs(t, k.Delete(ctx, key, second), bus.ErrNotFound)

	again, err := k.Create(ctx, key, nil)
	require.NoError(t, err)
	require.Greater(t, again, second)
	got, err = k.Get(ctx, key)
	require.NoError(t, err)
	require.Empty(t, got.Value)
}

// Many goroutines on two connections add to one counter by compare-and-set: no
// update is lost and none counts twice, whatever the server answers in between.
func testBucketOneWinner(t *testing.T, e env) {
	ctx, key := t.Context(), unique(t)
	_, err := e.here.Bucket(events.BucketTasks).Create(ctx, key, []byte("0"))
	require.NoError(t, err)

	const writers, adds = 6, 15
	add := func(k *bus.Bucket) error {
		for {
			got, err := k.Get(ctx, key)
			if err != nil {
				return err
			}
			var n int
			if _, err := fmt.Sscan(string(got.Value), &n); err != nil {
				return err
			}
			if _, err = k.Update(ctx, key, text("%d", n+1), got.Revision); !errors.Is(err, bus.ErrConflict) {
				return err
			}
		}
	}
	failed := make(chan error, writers)
	var wg sync.WaitGroup
	for i := range writers {
		k := []*bus.Bus{e.here, e.there}[i%2].Bucket(events.BucketTasks)
		wg.Go(func() {
			for range adds {
				if err := add(k); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	require.NoError(t, <-failed)
	got, err := e.there.Bucket(events.BucketTasks).Get(ctx, key)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(writers*adds), string(got.Value))
}

// What one connection has written, another finds at once: by key and in a list.
func testBucketReadYourWrites(t *testing.T, e env) {
	ctx, prefix := t.Context(), unique(t)
	for i := range 100 {
		key := fmt.Sprintf("%s.%d", prefix, i)
		revision, err := e.here.Bucket(events.BucketOperations).Create(ctx, key, text("%d", i))
		require.NoError(t, err)
		got, err := e.there.Bucket(events.BucketOperations).Get(ctx, key)
		require.NoError(t, err)
		require.Equal(t, revision, got.Revision)
		if i%10 == 0 {
			_, err := e.here.Bucket(events.BucketOperations).Update(ctx, key, []byte("new"), revision)
			require.NoError(t, err)
			listed := list(t, e.there.Bucket(events.BucketOperations), prefix)
			require.Len(t, listed, i+1)
			require.Equal(t, "new", listed[key])
		}
	}
}

func testBucketList(t *testing.T, e env) {
	ctx, prefix := t.Context(), unique(t)
	k := e.here.Bucket(events.BucketTasks)
	require.Empty(t, list(t, k, prefix))

	const keys = 600 // more than two pages
	var wg sync.WaitGroup
	failed := make(chan error, keys)
	for part := range 8 {
		wg.Go(func() {
			for i := part; i < keys; i += 8 {
				if _, err := k.Create(ctx, fmt.Sprintf("%s.%d", prefix, i), text("%d", i)); err != nil {
					failed <- err
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	require.NoError(t, <-failed)
	_, err := k.Create(ctx, prefix+"-other.1", nil)
	require.NoError(t, err)
	_, err = k.Create(ctx, prefix, []byte("the prefix itself is not below it"))
	require.NoError(t, err)

	gone, err := k.Get(ctx, prefix+".7")
	require.NoError(t, err)
	require.NoError(t, k.Delete(ctx, gone.Key, gone.Revision))
	changed, err := k.Get(ctx, prefix+".0")
	require.NoError(t, err)
	_, err = k.Update(ctx, changed.Key, []byte("changed"), changed.Revision)
	require.NoError(t, err)

	for _, p := range []string{prefix, prefix + "."} {
		got := list(t, k, p)
		require.Len(t, got, keys-1)
		require.Equal(t, "changed", got[prefix+".0"])
		require.Equal(t, "599", got[prefix+".599"])
		require.NotContains(t, got, prefix+".7")
	}
	for range k.List(ctx, prefix) { // a reader may stop at any time
		break
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	for _, err := range k.List(ended, prefix) {
		require.ErrorIs(t, err, context.Canceled)
	}
}

// list reads all keys below prefix and fails when one comes twice.
func list(t *testing.T, k *bus.Bucket, prefix string) map[string]string {
	t.Helper()
	got := map[string]string{}
	for e, err := range k.List(t.Context(), prefix) {
		require.NoError(t, err)
		require.NotContains(t, got, e.Key)
		got[e.Key] = string(e.Value)
	}
	return got
}

// A list that is read while its keys change still has each key exactly once.
func testBucketListWhileWritten(t *testing.T, e env) {
	ctx, prefix := t.Context(), unique(t)
	k := e.here.Bucket(events.BucketTasks)
	const keys = 300
	revisions := make([]uint64, keys)
	for i := range keys {
		var err error
		revisions[i], err = k.Create(ctx, fmt.Sprintf("%s.%d", prefix, i), nil)
		require.NoError(t, err)
	}
	writing, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; writing.Err() == nil; n++ {
			i := n * 7 % keys
			if r, err := k.Update(ctx, fmt.Sprintf("%s.%d", prefix, i), text("%d", n), revisions[i]); err == nil {
				revisions[i] = r
			}
		}
	}()
	for range 10 {
		require.Len(t, list(t, e.there.Bucket(events.BucketTasks), prefix), keys)
	}
	stop()
	<-done
}

func testBucketWatch(t *testing.T, e env) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	prefix := unique(t)
	k := e.here.Bucket(events.BucketOperations)
	before, err := k.Create(ctx, prefix+".before", []byte("1"))
	require.NoError(t, err)

	changes, err := e.there.Bucket(events.BucketOperations).Watch(ctx, prefix)
	require.NoError(t, err)
	created, err := k.Create(ctx, prefix+".a", []byte("1"))
	require.NoError(t, err)
	require.NoError(t, k.Delete(ctx, prefix+".a", created))
	_, err = k.Create(ctx, prefix+"-other.b", nil)
	require.NoError(t, err)
	_, err = k.Update(ctx, prefix+".before", []byte("2"), before)
	require.NoError(t, err)

	// The bucket keeps one revision, so the first may be gone before it is seen.
	seen := map[string]bus.Entry{}
	for change := range changes {
		seen[change.Key] = change
		if change.Key == prefix+".before" {
			break
		}
	}
	require.Len(t, seen, 2)
	require.True(t, seen[prefix+".a"].Deleted)
	require.Equal(t, "2", string(seen[prefix+".before"].Value))

	cancel()
	for range changes { // is closed
	}
}

func testBucketInvalidKeys(t *testing.T, e env) {
	ctx := t.Context()
	k := e.here.Bucket(events.BucketOperations)
	for _, key := range []string{"", ".", "a.", ".a", "a..b", "a b", "a*", ">", "a.>", "ä", "a\n"} {
		_, err := k.Get(ctx, key)
		require.ErrorIs(t, err, bus.ErrInvalidKey, "%q", key)
		_, err = k.Create(ctx, key, nil)
		require.ErrorIs(t, err, bus.ErrInvalidKey, "%q", key)
		_, err = k.Update(ctx, key, nil, 1)
		require.ErrorIs(t, err, bus.ErrInvalidKey, "%q", key)
		require.ErrorIs(t, k.Delete(ctx, key, 1), bus.ErrInvalidKey, "%q", key)
	}
	for _, prefix := range []string{"*", "a.>", "a b"} {
		for _, err := range k.List(ctx, prefix) {
			require.ErrorIs(t, err, bus.ErrInvalidKey)
		}
		_, err := k.Watch(ctx, prefix)
		require.ErrorIs(t, err, bus.ErrInvalidKey)
	}
}
