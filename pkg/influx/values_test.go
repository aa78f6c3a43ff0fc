package influx_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/lineproto"
)

func sprint(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// copyAll reads a selection from one server and writes it to another, as a
// mover does.
func copyAll(t testing.TB, from, to *influx.Client, sel influx.Selection) {
	t.Helper()
	st, err := from.Read(t.Context(), []influx.Selection{sel})
	require.NoError(t, err)
	defer st.Close()
	var enc lineproto.Encoder
	var batch []byte
	for st.Next() {
		if st.NewSeries() {
			require.NoError(t, enc.SetSeries(st.Series(), st.Fields()))
		}
		batch, err = enc.AppendRow(batch, st.Time(), st.Values())
		require.NoError(t, err)
	}
	require.NoError(t, st.Err())
	require.NoError(t, to.Write(t.Context(), sel.Database, sel.RetentionPolicy, batch))
}

// Trap: every legal value survives encoder, server, msgpack reader, encoder and
// a second server, byte for byte.
func TestEveryLegalValueSurvivesAMove(t *testing.T) {
	t.Parallel()
	_, a := start(t)
	_, b := start(t, influxtest.WithIndex("tsi1"))
	ctx := t.Context()
	require.NoError(t, a.CreateDatabase(ctx, "d"))
	require.NoError(t, b.CreateDatabase(ctx, "d"))

	texts := []string{
		"", "plain", `"`, `""`, `\`, `\\`, `\"`, `"\`, `a"b\c`, "a\nb", "\n", "a\r\nb", ",", " ", "=", "a, b=c d", `\n`, `\,`,
		"é", "日本語", "🎪🔥", "tab\there", "\x00", "\x01\x7f", "\xff\xfe", "#", "'", "`", "%s", "NULL", "true", "1i",
		strings.Repeat("x", 64<<10), strings.Repeat(`"\`+"\n", 32<<10/3),
	}
	floats := []float64{
		0, math.Copysign(0, -1), 1, -1, 0.1, 1e21, 1e-7, 123456789.123456789, math.Pi,
		math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64, -math.SmallestNonzeroFloat64, 1 << 53, 1<<53 + 2,
	}
	integers := []int64{0, 1, -1, 127, 128, -32, -33, -128, -129, 32767, 32768, 1 << 31, 1<<53 + 1, -(1<<53 + 1), math.MaxInt64, math.MinInt64}
	var rows [][]lineproto.Value
	for i := range max(len(texts), len(floats), len(integers)) {
		r := make([]lineproto.Value, 4)
		if i < len(texts) {
			r[0] = lineproto.StringValue(texts[i])
		}
		if i < len(floats) {
			r[1] = lineproto.FloatValue(floats[i])
		}
		if i < len(integers) {
			r[2] = lineproto.IntegerValue(integers[i])
		}
		if i < 2 {
			r[3] = lineproto.BooleanValue(i == 1)
		}
		rows = append(rows, r)
	}
	fields := []string{"a text", "b,float", "c=integer", `d"bool`}
	series := lineproto.Series{Measurement: `m, "=é`, Tags: []lineproto.Tag{{Key: `k ,=`, Value: `v ,="\x🎪`}}}
	var enc lineproto.Encoder
	require.NoError(t, enc.SetSeries(&series, fields))
	var batch []byte
	for i, r := range rows {
		var err error
		batch, err = enc.AppendRow(batch, int64(i), r)
		require.NoError(t, err)
	}
	require.NoError(t, a.Write(ctx, "d", "autogen", batch))
	sel := everything("d", "autogen", series.Measurement)
	copyAll(t, a, b, sel)

	for _, c := range []*influx.Client{a, b} {
		st, err := c.Read(ctx, []influx.Selection{sel})
		require.NoError(t, err)
		defer st.Close()
		n := 0
		for ; st.Next(); n++ {
			require.Equal(t, n == 0, st.NewSeries())
			require.True(t, st.Series().Equal(&series), "%q", st.Series())
			require.Equal(t, fields, st.Fields())
			require.Equal(t, int64(n), st.Time())
			for i, v := range st.Values() {
				require.True(t, v.Equal(rows[n][i]), "row %d field %q: %.100v became %.100v", n, fields[i], rows[n][i], v)
			}
		}
		require.NoError(t, st.Err())
		require.Equal(t, len(rows), n)
	}
}

// Names with backslashes, newlines after one, control characters and what is no
// UTF-8 survive wherever the encoder takes them.
func TestEveryWritableNameSurvivesAMove(t *testing.T) {
	t.Parallel()
	_, a := start(t)
	_, b := start(t)
	ctx := t.Context()
	require.NoError(t, a.CreateDatabase(ctx, "d"))
	require.NoError(t, b.CreateDatabase(ctx, "d"))
	names := []string{
		"plain", "with space", "a,b", "a=b", `a"b`, `"a"`, "'a'", `a\b`, `a\\b`, "a\\\nb", "tab\tx", "a\rb", "n\x00l", "\x01", "é", "日本",
		"🎪", "\xff", "a\xffb", "a\xfeb", "a\ufffdb", "SELECT", "a.b", "a/b", "/^a/", "a;b", "$a", "(a)", "a#", "%", "1", "-", "*", "Time",
		"_name", "_measurements", "_tagKey", "_tags", "_foo",
	}
	// Each is the name of a measurement, a tag, its value and a field, but for
	// the fields that cannot be read; see TestMadeUpFieldsAreRefused.
	fieldOf := func(name string) string {
		if name == "_name" || name == "_tagKey" {
			return "field"
		}
		return name
	}
	for i, name := range names {
		s := lineproto.Series{Measurement: name, Tags: []lineproto.Tag{{Key: name, Value: name}}}
		var enc lineproto.Encoder
		require.NoError(t, enc.SetSeries(&s, []string{fieldOf(name)}), "%q", name)
		line, err := enc.AppendRow(nil, 1, []lineproto.Value{lineproto.IntegerValue(int64(i))})
		require.NoError(t, err)
		require.NoError(t, a.Write(ctx, "d", "autogen", line), "%q", name)
	}
	for i, name := range names {
		sel := everything("d", "autogen", name)
		copyAll(t, a, b, sel)
		for _, c := range []*influx.Client{a, b} {
			st, err := c.Read(ctx, []influx.Selection{sel})
			require.NoError(t, err)
			defer st.Close()
			require.True(t, st.Next(), "nothing of %q: %v", name, st.Err())
			want := lineproto.Series{Measurement: name, Tags: []lineproto.Tag{{Key: name, Value: name}}}
			require.True(t, st.Series().Equal(&want), "%q became %q", want, st.Series())
			for j, v := range st.Values() {
				// What cannot be told apart in a pattern shares its columns.
				if st.Fields()[j] == fieldOf(name) {
					require.True(t, v.Equal(lineproto.IntegerValue(int64(i))), "%q: %v %v", name, st.Fields(), st.Values())
				} else {
					require.Equal(t, lineproto.Null, v.Kind)
				}
			}
			require.False(t, st.Next(), "more than one point of %q", name)
			require.NoError(t, st.Err())

			n, err := c.Totals(ctx, []influx.Selection{sel})
			require.NoError(t, err)
			require.Equal(t, []int64{1}, n)
			keys, err := c.FieldKeys(ctx, "d", "autogen", name)
			require.NoError(t, err)
			require.Equal(t, map[string][]lineproto.Kind{fieldOf(name): {lineproto.Integer}}, keys)
			tags, err := c.TagKeys(ctx, "d", "autogen", name)
			require.NoError(t, err)
			require.Equal(t, []string{name}, tags)
		}
	}
	var got []string
	for name, err := range b.Measurements(ctx, "d") {
		require.NoError(t, err)
		got = append(got, name)
	}
	require.ElementsMatch(t, names, got)
}

// Trap: unsigned integers exist only where the server has them, and msgpack does
// not tell the small ones apart.
func TestUnsignedOnlyWhereTheServerHasIt(t *testing.T) {
	t.Parallel()
	_, without := start(t)
	_, with := start(t, influxtest.WithUnsigned())
	ctx := t.Context()
	batch := []byte("m s=1u,l=18446744073709551615u,i=1i 1\n")
	require.NoError(t, without.CreateDatabase(ctx, "d"))
	e := requireError(t, without.Write(ctx, "d", "autogen", batch), influx.Permanent, 400)
	require.Contains(t, e.Message, "invalid number")

	require.NoError(t, with.CreateDatabase(ctx, "d"))
	require.NoError(t, with.Write(ctx, "d", "autogen", batch))
	keys, err := with.FieldKeys(ctx, "d", "autogen", "m")
	require.NoError(t, err)
	require.Equal(t, []lineproto.Kind{lineproto.Unsigned}, keys["s"])
	sel := everything("d", "autogen", "m")
	require.Equal(t, map[string]string{"s": "1i", "l": "18446744073709551615u", "i": "1i"}, read(t, with, sel)[0].Fields)
	sel.Unsigned = []string{"s", "l"}
	require.Equal(t, map[string]string{"s": "1u", "l": "18446744073709551615u", "i": "1i"}, read(t, with, sel)[0].Fields)
}
