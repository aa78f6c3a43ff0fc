package influx_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
)

// Where shard groups overlap, one window holds several types of a field; the
// server reads one of them and is silent about the others, which can be counted.
func TestKindsOfAFieldInOverlappingGroups(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	ctx := t.Context()
	database(t, c, "d")
	const day = 24 * time.Hour
	rp := influx.RetentionPolicy{Name: "r", ShardDuration: day, Replication: 1}
	require.NoError(t, c.CreateRetentionPolicy(ctx, "d", rp))
	at := func(d time.Duration) int64 { return (10*week + d).Nanoseconds() }
	write := func(value string, d time.Duration) {
		t.Helper()
		require.NoError(t, c.Write(ctx, "d", "r", []byte(sprint("m \"v\"=%s,w=%s %d\n", value, value, at(d)))))
	}
	write("1i", 0)
	write("2i", time.Hour)
	rp.ShardDuration = week
	require.NoError(t, c.AlterRetentionPolicy(ctx, "d", rp))
	sel := everything("d", "r", "m")
	sel.Window = influx.Window{From: at(-week), To: at(week)}

	kinds := func() influx.Kinds {
		t.Helper()
		k, err := c.Kinds(ctx, sel, "w")
		require.NoError(t, err)
		return k
	}
	require.Equal(t, influx.Kinds{Read: lineproto.Integer, Numbers: 2}, kinds())
	write(`"text"`, 2*day)
	require.Equal(t, influx.Kinds{Read: lineproto.Integer, Numbers: 2, Strings: 1}, kinds())
	require.Len(t, read(t, c, sel), 2, "the string is read after all")

	// A field that is not there has none, and one that cannot be named is told.
	k, err := c.Kinds(ctx, sel, "none")
	require.NoError(t, err)
	require.Equal(t, influx.Kinds{}, k)
	for _, field := range []string{"a\rb", "a\x00", "\xff", "", "_name", "_seriesKey"} {
		_, err = c.Kinds(ctx, sel, field)
		require.ErrorIs(t, err, influx.ErrUnaddressable, "%q", field)
	}
	sel.Measurement = "_series"
	_, err = c.Kinds(ctx, sel, "w")
	require.ErrorIs(t, err, influx.ErrUnaddressable)
}

func TestStreamCountsItsBytes(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	database(t, c, "d", "m v=1i 1", "m v=2i 2")
	st, err := c.Read(t.Context(), nil)
	require.NoError(t, err)
	require.Zero(t, st.Bytes())
	st, err = c.Read(t.Context(), []influx.Selection{everything("d", "autogen", "m")})
	require.NoError(t, err)
	defer st.Close()
	for st.Next() {
	}
	require.NoError(t, st.Err())
	require.Greater(t, st.Bytes(), int64(20))
	require.Less(t, st.Bytes(), int64(200))
}
