package bus_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
)

func objects(t *testing.T, b *bus.Bus) *bus.Objects {
	t.Helper()
	o, err := b.Objects(t.Context(), events.ObjectStorePlans)
	require.NoError(t, err)
	return o
}

func randomBytes(n int) []byte {
	content := make([]byte, n)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(content) // never fails
	return content
}

func testObjects(t *testing.T, e env) {
	ctx, name := t.Context(), unique(t)
	here, there := objects(t, e.here), objects(t, e.there)
	_, err := there.Get(ctx, name)
	require.ErrorIs(t, err, bus.ErrNotFound)
	_, err = there.GetBytes(ctx, name)
	require.ErrorIs(t, err, bus.ErrNotFound)

	for _, size := range []int{0, 1, 256 << 10, 256<<10 + 1, 5 << 20} {
		name := fmt.Sprintf("%s/plan of ä, %d bytes", name, size)
		content := randomBytes(size)
		stored, err := here.Put(ctx, name, iotest.HalfReader(bytes.NewReader(content)))
		require.NoError(t, err)
		require.EqualValues(t, size, stored.Size)
		require.Contains(t, stored.Digest, "SHA-256=")

		got, err := there.GetBytes(ctx, name)
		require.NoError(t, err)
		require.True(t, bytes.Equal(content, got))

		r, err := here.Get(ctx, name)
		require.NoError(t, err)
		require.Equal(t, stored.Digest, r.Object().Digest)
		require.NoError(t, iotest.TestReader(io.LimitReader(r, int64(size)), content))
		n, err := r.Read(make([]byte, 1))
		require.Zero(t, n)
		require.ErrorIs(t, err, io.EOF)
	}
	listed, err := there.List(ctx)
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(listed), 5)
}

func testObjectsReplace(t *testing.T, e env) {
	ctx, name := t.Context(), unique(t)
	o := objects(t, e.here)
	_, err := o.PutBytes(ctx, name, randomBytes(3<<20))
	require.NoError(t, err)
	reading, err := o.Get(ctx, name)
	require.NoError(t, err)
	_, err = o.PutBytes(ctx, name, []byte("second"))
	require.NoError(t, err)
	got, err := objects(t, e.there).GetBytes(ctx, name)
	require.NoError(t, err)
	require.Equal(t, "second", string(got))
	_, err = io.Copy(io.Discard, reading)
	require.ErrorIs(t, err, bus.ErrDamaged, "what is replaced cannot be read to the end")

	require.NoError(t, o.Delete(ctx, name))
	require.NoError(t, o.Delete(ctx, name), "what is gone is no error")
	_, err = objects(t, e.there).GetBytes(ctx, name)
	require.ErrorIs(t, err, bus.ErrNotFound)
	eventually(t, func() bool { // a replica may be behind
		listed, err := o.List(ctx)
		require.NoError(t, err)
		return !slices.ContainsFunc(listed, func(object bus.Object) bool { return object.Name == name })
	})
}

func testObjectsFailedPut(t *testing.T, e env) {
	ctx, name := t.Context(), unique(t)
	o := objects(t, e.here)
	_, err := o.PutBytes(ctx, name, []byte("first"))
	require.NoError(t, err)
	broken := errors.New("broken")
	_, err = o.Put(ctx, name, io.MultiReader(bytes.NewReader(randomBytes(1<<20)), iotest.ErrReader(broken)))
	require.ErrorIs(t, err, broken)
	got, err := o.GetBytes(ctx, name)
	require.NoError(t, err)
	require.Equal(t, "first", string(got))
}

// What a Put leaves that dies before it has named its chunks goes, and nothing else.
func TestStrayChunks(t *testing.T) {
	t.Parallel()
	b, s := bustest.Start(t)
	js := raw(t, s)
	o := objects(t, b)
	ctx := t.Context()
	_, err := o.PutBytes(ctx, "whole", randomBytes(300<<10))
	require.NoError(t, err)
	for range 2 {
		_, err = js.Publish(ctx, "$O."+events.ObjectStorePlans+".C.died", []byte("chunk"))
		require.NoError(t, err)
	}
	n, err := o.RemoveStray(ctx, time.Now().Add(-time.Hour))
	require.NoError(t, err)
	require.Zero(t, n, "it may go on")
	before, err := o.Size(ctx)
	require.NoError(t, err)
	n, err = o.RemoveStray(ctx, time.Now().Add(time.Hour))
	require.NoError(t, err)
	require.Equal(t, 1, n)
	after, err := o.Size(ctx)
	require.NoError(t, err)
	require.Equal(t, before.Messages-2, after.Messages)
	require.Less(t, after.Bytes, before.Bytes)
	_, err = o.GetBytes(ctx, "whole")
	require.NoError(t, err)
}

// A full store says so and keeps what it has.
func TestAFullObjectStoreSaysSo(t *testing.T) {
	t.Parallel()
	s := bustest.StartSystem(t)
	o := objects(t, s.Bus)
	ctx := t.Context()
	_, err := o.PutBytes(ctx, "first", randomBytes(10<<10))
	require.NoError(t, err)
	s.Bound(t, "OBJ_"+events.ObjectStorePlans, 100<<10)
	_, err = o.PutBytes(ctx, "second", randomBytes(300<<10))
	require.ErrorIs(t, err, bus.ErrFull)
	_, err = o.GetBytes(ctx, "first")
	require.NoError(t, err)
	_, err = o.GetBytes(ctx, "second")
	require.ErrorIs(t, err, bus.ErrNotFound)
}

// Remove leaves no marker, and takes nothing away that has come since; EraseAll takes a
// prefix of whole tokens.
func TestKeysAreRemovedWithoutATrace(t *testing.T) {
	t.Parallel()
	b, _ := bustest.Start(t)
	k := b.Bucket(events.BucketTasks)
	ctx := t.Context()
	first, err := k.Create(ctx, "a.x", []byte("1"))
	require.NoError(t, err)
	require.ErrorIs(t, k.Remove(ctx, "a.x", first+1), bus.ErrConflict)
	require.NoError(t, k.Remove(ctx, "a.x", first))
	require.ErrorIs(t, k.Remove(ctx, "a.x", first), bus.ErrNotFound)
	size, err := k.Size(ctx)
	require.NoError(t, err)
	require.Zero(t, size.Messages)
	for _, key := range []string{"a.x", "a.y", "ab.x"} {
		_, err = k.Create(ctx, key, []byte("2"))
		require.NoError(t, err)
	}
	require.NoError(t, k.EraseAll(ctx, "a"))
	keys, err := k.Keys(ctx, "")
	require.NoError(t, err)
	require.Equal(t, []string{"ab.x"}, keys)
	require.Error(t, k.EraseAll(ctx, ""))
}
