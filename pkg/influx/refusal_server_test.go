package influx_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx"
)

// Trap: an unknown retention policy is answered with 500, and is permanent.
func TestUnknownRetentionPolicyIsPermanent(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	database(t, c, "d")
	e := requireError(t, c.Write(t.Context(), "d", "none", []byte("m v=1i 1\n")), influx.Permanent, 500)
	require.Equal(t, "retention policy not found: none", e.Message)
	require.False(t, e.StoredRest)
	e = requireError(t, c.Write(t.Context(), "none", "autogen", []byte("m v=1i 1\n")), influx.Permanent, 404)
	require.Contains(t, e.Message, "database not found")
}

// Trap: a field type conflict that is no partial write has stored nothing of its
// shard, other measurements included.
func TestFieldTypeConflictStoresNothingOfItsShard(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	ctx := t.Context()
	database(t, c, "d")
	// Both types are new to the shard, so that they conflict when they are made.
	err := c.Write(ctx, "d", "autogen", []byte("other v=1i 1\nm v=1i 1\nm v=\"text\" 2\n"))
	e := requireError(t, err, influx.Permanent, 400)
	require.Contains(t, e.Message, "field type conflict")
	require.NotContains(t, e.Message, "partial write")
	require.False(t, e.StoredRest)
	require.Zero(t, e.Dropped)
	require.Empty(t, read(t, c, everything("d", "autogen", "other"), everything("d", "autogen", "m")))
}

// A conflict with a field that the shard has already is a partial write: the
// rest is stored.
func TestPartialWriteHasItsDetail(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	ctx := t.Context()
	database(t, c, "d", "m v=1i 1")
	err := c.Write(ctx, "d", "autogen", []byte("other v=1i 1\nm v=\"text\" 2\nm v=2i 3\nm v=1.5 4\n"))
	e := requireError(t, err, influx.PartialWrite, 400)
	require.Contains(t, e.Message, "partial write: field type conflict")
	require.Equal(t, 2, e.Dropped)
	require.True(t, e.StoredRest)
	require.Len(t, read(t, c, everything("d", "autogen", "other"), everything("d", "autogen", "m")), 3)
}

func TestUnparsableLinesAreAPartialWrite(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	ctx := t.Context()
	database(t, c, "d")
	err := c.Write(ctx, "d", "autogen", []byte("m v=1i 1\nnot a line\nm v=2i 2\nm v=\" dropped=7\n"))
	e := requireError(t, err, influx.PartialWrite, 400)
	require.Equal(t, 2, e.Dropped)
	require.True(t, e.StoredRest)
	require.Len(t, read(t, c, everything("d", "autogen", "m")), 2)

	err = c.Write(ctx, "d", "autogen", []byte("not a line\n"))
	e = requireError(t, err, influx.Permanent, 400)
	require.False(t, e.StoredRest)
}

// Trap: points beyond retention are refused, and counted.
func TestPointsBeyondRetentionAreRefused(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	ctx := t.Context()
	database(t, c, "d")
	rp := influx.RetentionPolicy{Name: "day", Duration: 24 * time.Hour, ShardDuration: time.Hour, Replication: 1}
	require.NoError(t, c.CreateRetentionPolicy(ctx, "d", rp))
	now := time.Now()
	lines := sprint("m v=1i %d\nm v=2i %d\nm v=3i 1\n", now.UnixNano(), now.Add(-25*time.Hour).UnixNano())
	e := requireError(t, c.Write(ctx, "d", "day", []byte(lines)), influx.PartialWrite, 400)
	require.Contains(t, e.Message, "points beyond retention policy")
	require.Equal(t, 2, e.Dropped)
	require.True(t, e.StoredRest)
	require.Len(t, read(t, c, everything("d", "day", "m")), 1)
}

// A batch that lies in several shards is answered with the first refusal of any:
// what StoredRest says holds for one shard.
func TestRefusalsOfSeveralShardsAreToldOnce(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	ctx := t.Context()
	database(t, c, "d", "m v=1i 1", sprint("m v=1i %d", week.Nanoseconds()))
	lines := sprint("m v=1.5 2\nm v=2.5 %d\nm v=3.5 %d\n", week.Nanoseconds()+1, week.Nanoseconds()+2)
	e := requireError(t, c.Write(ctx, "d", "autogen", []byte(lines)), influx.PartialWrite, 400)
	require.Less(t, e.Dropped, 3)
}

func TestWritesAreCompressedAndEmptyOnesNotSent(t *testing.T) {
	t.Parallel()
	s, _ := start(t)
	c := client(t, s.URL(), influx.Options{Gzip: true, UserAgent: "test"})
	database(t, c, "d", "m v=1i 1", "m v=2i 2")
	require.Len(t, read(t, c, everything("d", "autogen", "m")), 2)
	require.NoError(t, c.Write(t.Context(), "no such database", "", nil))
	requireError(t, c.Write(t.Context(), "d", "autogen", []byte("m v=1i 1\nnot a line")), influx.PartialWrite, 400)
}
