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

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
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
