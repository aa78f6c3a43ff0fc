package influx

import (
	"bytes"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/lineproto"
)

// decoded is a copy of a row.
type decoded struct {
	statement int
	series    string
	fresh     bool
	columns   []string
	cells     []string
}

func decodeAll(r io.Reader, statements int) (rows []decoded, err error) {
	d := newDecoder(r, statements)
	for {
		if err := d.next(); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return rows, err
		}
		row := decoded{statement: d.statement, series: string(d.current.AppendKey(nil)), fresh: d.fresh, columns: slices.Clone(d.columns)}
		d.fresh = false
		for _, v := range d.cells {
			row.cells = append(row.cells, v.String())
		}
		rows = append(rows, row)
	}
}

func key(measurement string, tags ...lineproto.Tag) string {
	s := lineproto.Series{Measurement: measurement, Tags: tags}
	return string(s.AppendKey(nil))
}

// Series are told apart by statement, name, tags and columns, whatever the order
// of the tags; one that goes on in the next chunk is the same.
func TestDecoderTellsSeriesApart(t *testing.T) {
	t.Parallel()
	a, b := lineproto.Tag{Key: "a", Value: "1"}, lineproto.Tag{Key: "b", Value: "2"}
	none := lineproto.Tag{Key: "c"}
	tv := []string{"time", "v"}
	one := [][]any{{int64(1), int64(2)}}
	w := newWire().
		result(0, true, wireSeries{name: "m", tags: []lineproto.Tag{b, none, a}, columns: tv, rows: one, partial: true}).
		result(0, true, wireSeries{name: "m", tags: []lineproto.Tag{a, b, none}, columns: tv, rows: one}).
		result(0, true, wireSeries{name: "m", tags: []lineproto.Tag{none, a}, columns: tv, rows: one}).
		result(0, true, wireSeries{name: "m", columns: tv, rows: one}, wireSeries{name: "n", columns: tv, rows: one}).
		result(0, false, wireSeries{name: "n", columns: tv}, wireSeries{name: "n", columns: []string{"time", "w"}, rows: one}).
		result(1, false, wireSeries{name: "n", columns: []string{"time", "w"}, rows: one}, wireSeries{name: "n", columns: []string{"time", "w", "x"}, rows: [][]any{{int64(1), nil, nil}}}).
		result(2, false)
	got, err := decodeAll(bytes.NewReader(w.bytes()), 3)
	require.NoError(t, err)
	cells := []string{"1i", "2i"}
	require.Equal(t, []decoded{
		{0, key("m", a, b), true, tv, cells},
		{0, key("m", a, b), false, tv, cells},
		{0, key("m", a), true, tv, cells},
		{0, key("m"), true, tv, cells},
		{0, key("n"), true, tv, cells},
		{0, key("n"), true, []string{"time", "w"}, cells},
		{1, key("n"), true, []string{"time", "w"}, cells},
		{1, key("n"), true, []string{"time", "w", "x"}, []string{"1i", "null", "null"}},
	}, got)
}

// What a Stream has given out as fields stays as it was when the series changes.
func TestDecoderDoesNotChangeColumnsThatAreKnown(t *testing.T) {
	t.Parallel()
	names := [][]string{{"time", "a", "b"}, {"time", "a", "c"}, {"time", "a"}, {"time", "a", "b", "c"}, {"time", "x", "y", "z"}}
	w := newWire()
	for i, columns := range names {
		row := make([]any, len(columns))
		row[0] = int64(i)
		w.result(i, false, wireSeries{name: "m", columns: columns, rows: [][]any{row}})
	}
	d := newDecoder(bytes.NewReader(w.bytes()), len(names))
	var known [][]string
	for d.next() == nil {
		known = append(known, d.columns)
	}
	require.Equal(t, names, known)
}

func TestDecoderReadsEveryValue(t *testing.T) {
	t.Parallel()
	value := rapid.OneOf(
		rapid.Just[any](nil),
		rapid.Map(rapid.Float64(), func(f float64) any { return f }),
		rapid.Map(rapid.Int64(), func(i int64) any { return i }),
		rapid.Map(rapid.Int64Range(-300, 300), func(i int64) any { return i }),
		rapid.Map(rapid.Uint64Min(128), func(u uint64) any { return u }),
		rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Map(rapid.String(), func(s string) any { return s }),
		rapid.Map(rapid.IntRange(0, 3*stringStep), func(n int) any { return strings.Repeat("x", n) }),
	)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 4).Draw(t, "columns")
		columns := make([]string, n)
		for i := range columns {
			columns[i] = strings.Repeat("c", i+1)
		}
		rows := rapid.SliceOfN(rapid.SliceOfN(value, n, n), 0, 4).Draw(t, "rows")
		wire := newWire().result(0, false, wireSeries{name: "m", columns: columns, rows: rows}).bytes()
		var reader io.Reader = bytes.NewReader(wire)
		if rapid.Bool().Draw(t, "byte by byte") {
			reader = iotest.OneByteReader(reader)
		}
		d := newDecoder(reader, 1)
		for _, want := range rows {
			require.NoError(t, d.next())
			require.Len(t, d.cells, n)
			for i, v := range want {
				require.True(t, d.cells[i].Equal(valueOf(v)), "%v became %v", v, d.cells[i])
			}
		}
		require.ErrorIs(t, d.next(), io.EOF)
	})
}

func valueOf(v any) lineproto.Value {
	switch v := v.(type) {
	case float64:
		return lineproto.Value{Kind: lineproto.Float, Num: math.Float64bits(v)}
	case int64:
		return lineproto.IntegerValue(v)
	case uint64:
		return lineproto.UnsignedValue(v)
	case bool:
		return lineproto.BooleanValue(v)
	case string:
		return lineproto.StringValue(v)
	default:
		return lineproto.Value{}
	}
}

func TestDecoderStopsAtAnError(t *testing.T) {
	t.Parallel()
	one := wireSeries{name: "m", columns: []string{"time"}, rows: [][]any{{int64(1)}}}
	w := newWire().result(0, false, one).failure("words").result(2, false, one)
	rows, err := decodeAll(bytes.NewReader(w.bytes()), 3)
	require.Len(t, rows, 1)
	var said *serverError
	require.ErrorAs(t, err, &said)
	require.Equal(t, "words", said.text)
}

// Every prefix of an answer is either an error or, where it ends, whole.
func TestDecoderTakesNoPrefixForTheWhole(t *testing.T) {
	t.Parallel()
	one := wireSeries{name: "m", tags: []lineproto.Tag{{Key: "k", Value: "v"}}, columns: []string{"time", "v"}, rows: [][]any{{int64(1), "text"}, {int64(2), 1.5}}}
	more := one
	more.partial = true
	whole := newWire().result(0, true, more).result(0, false, one).result(1, false).result(2, false, one).bytes()
	for n := range whole {
		_, err := decodeAll(bytes.NewReader(whole[:n]), 3)
		require.ErrorIs(t, err, errBroken, "%d of %d bytes", n, len(whole))
	}
	_, err := decodeAll(bytes.NewReader(whole), 3)
	require.NoError(t, err)
}

// A broken connection is not taken for a broken answer.
func TestDecoderPassesErrorsOfItsReader(t *testing.T) {
	t.Parallel()
	whole := newWire().result(0, false, wireSeries{name: "m", columns: []string{"time"}, rows: [][]any{{int64(1)}}}).bytes()
	cause := errors.New("cause")
	for n := range whole {
		_, err := decodeAll(io.MultiReader(bytes.NewReader(whole[:n]), iotest.ErrReader(cause)), 1)
		require.ErrorIs(t, err, cause, "after %d bytes", n)
	}
}

func TestDecoderDoesNotAllocateForRows(t *testing.T) {
	const rows = 5000
	series := wireSeries{name: "m", tags: benchTags(1), columns: append([]string{"time", "text"}, benchFields...)}
	for i := range rows {
		row := benchRow(1, i)
		series.rows = append(series.rows, append([]any{row[0], "some text"}, row[1:]...))
	}
	wire := newWire().result(0, false, series).bytes()
	allocs := testing.AllocsPerRun(10, func() {
		d := newDecoder(bytes.NewReader(wire), 1)
		for d.next() == nil {
			continue
		}
	})
	require.Less(t, allocs, 40.0, "for %d rows", rows)
}

// The memory for a row with a large string is not kept.
func TestDecoderGivesMemoryBack(t *testing.T) {
	t.Parallel()
	columns := []string{"time", "text"}
	rows := [][]any{{int64(1), strings.Repeat("x", 4<<20)}, {int64(2), "small"}, {int64(3), "small"}}
	d := newDecoder(bytes.NewReader(newWire().result(0, false, wireSeries{name: "m", columns: columns, rows: rows}).bytes()), 1)
	require.NoError(t, d.next())
	require.Len(t, d.cells[1].Str, 4<<20)
	require.NoError(t, d.next())
	require.LessOrEqual(t, cap(d.arena), arenaKept)
	require.Equal(t, "small", string(d.cells[1].Str))
}

func FuzzDecoder(f *testing.F) {
	one := wireSeries{name: "m", tags: []lineproto.Tag{{Key: "k", Value: "v"}}, columns: []string{"time", "v"}, rows: [][]any{{int64(1), "text"}, {int64(2), 1.5}, {int64(3), nil}, {int64(4), true}}}
	more := one
	more.partial = true
	f.Add(newWire().result(0, false, one).result(1, false).bytes(), 2, false)
	f.Add(newWire().result(0, true, more).result(0, false, one).bytes(), 1, false)
	f.Add(newWire().result(0, false, one).failure("words").bytes(), 2, true)
	f.Add([]byte("\x81\xa5error\xa5words"), 1, false)
	f.Add([]byte("internal error\n"), 1, true)
	f.Fuzz(func(t *testing.T, wire []byte, statements int, loose bool) {
		statements = max(0, min(statements, 1000))
		d := newDecoder(bytes.NewReader(wire), statements)
		d.loose = loose
		rows := 0
		for {
			err := d.next()
			if err == nil {
				rows++
				require.Len(t, d.cells, len(d.columns))
				require.True(t, slices.IsSortedFunc(d.current.Tags, func(a, b lineproto.Tag) int { return strings.Compare(a.Key, b.Key) }))
				require.True(t, d.statement >= 0 && d.statement < statements)
				continue
			}
			if errors.Is(err, io.EOF) {
				require.Equal(t, statements, d.answered)
			}
			break
		}
		require.LessOrEqual(t, rows, len(wire))
	})
}
