package segment_test

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/segment"
)

// allTime is the window of every legal time.
func allTime() segment.Window {
	return segment.Window{From: lineproto.MinTime, To: lineproto.MaxTime, Last: true}
}

func source() segment.Datasource {
	return segment.Datasource{Database: "db", RetentionPolicy: "autogen", Measurement: "m"}
}

// block is rows of one series with the same columns.
type block struct {
	series lineproto.Series
	fields []string
	times  []int64
	rows   [][]lineproto.Value
}

// write writes blocks as one window, in as many parts as it takes.
func write(t require.TestingT, d segment.Datasource, window segment.Window, blocks []block) ([][]byte, []segment.Summary) {
	w, err := segment.NewWriter()
	require.NoError(t, err)
	require.NoError(t, w.Reset(d, window))
	var files [][]byte
	var parts []segment.Summary
	var file bytes.Buffer
	require.NoError(t, w.Begin(&file))
	end := func(final bool) {
		part, err := w.End(final)
		require.NoError(t, err)
		files, parts = append(files, bytes.Clone(file.Bytes())), append(parts, part)
		file.Reset()
	}
	for _, b := range blocks {
		require.NoError(t, w.SetSeries(&b.series, b.fields))
		for i, row := range b.rows {
			err := w.Row(b.times[i], row)
			if errors.Is(err, segment.ErrPartFull) {
				end(false)
				require.NoError(t, w.Begin(&file))
				err = w.Row(b.times[i], row)
			}
			require.NoError(t, err)
		}
	}
	end(true)
	return files, parts
}

// lines are the blocks as line protocol.
func lines(t require.TestingT, blocks []block) string {
	var e lineproto.Encoder
	var out []byte
	for _, b := range blocks {
		require.NoError(t, e.SetSeries(&b.series, b.fields))
		for i, row := range b.rows {
			var err error
			out, err = e.AppendRow(out, b.times[i], row)
			require.NoError(t, err)
		}
	}
	return string(out)
}

// requireSame reads a file in every way and holds it against the blocks.
func requireSame(t require.TestingT, file []byte, want segment.Summary, blocks []block) {
	var seen []byte
	got, err := segment.Verify(bytes.NewReader(file), func(lines []byte) error {
		seen = append(seen, lines...)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Equal(t, lines(t, blocks), string(seen))

	r, err := segment.Open(bytes.NewReader(file), int64(len(file)))
	require.NoError(t, err)
	defer r.Close()
	require.Equal(t, want.Header, r.Header())
	rows := r.Rows()
	var raw []byte
	for _, b := range blocks {
		fresh := true
		for i, row := range b.rows {
			if nulls(row) {
				continue
			}
			require.True(t, rows.Next(), "%v", rows.Err())
			raw = append(raw, rows.Line()...)
			if fresh && len(blocks) == 1 {
				require.True(t, rows.NewSeries())
			}
			fresh = false
			require.Equal(t, b.times[i], rows.Time())
			require.Equal(t, withoutEmpty(b.series), *rows.Series())
			values := map[string]lineproto.Value{}
			for _, c := range rows.Present() {
				values[rows.Fields()[c]] = rows.Values()[c]
			}
			n := 0
			for j, v := range row {
				if v.Kind == lineproto.Null {
					continue
				}
				n++
				require.True(t, v.Equal(values[b.fields[j]]), "field %q: %.100v became %.100v", b.fields[j], v, values[b.fields[j]])
			}
			require.Len(t, values, n)
		}
	}
	require.False(t, rows.Next())
	require.NoError(t, rows.Err())
	require.Equal(t, string(seen), string(raw))
}

func nulls(row []lineproto.Value) bool {
	for _, v := range row {
		if v.Kind != lineproto.Null {
			return false
		}
	}
	return true
}

func withoutEmpty(s lineproto.Series) lineproto.Series {
	out := lineproto.Series{Measurement: s.Measurement}
	for _, t := range s.Tags {
		if t.Value != "" {
			out.Tags = append(out.Tags, t)
		}
	}
	return out
}

// awkwardBlocks holds every value and many a name that is legal and often lost.
func awkwardBlocks() (segment.Datasource, []block) {
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
	unsigned := []uint64{0, 1, 1 << 63, math.MaxUint64}
	measurement := `_m, "=é`
	d := segment.Datasource{Database: "d 'b\n", RetentionPolicy: "r\"p", Measurement: measurement}
	b := block{
		series: lineproto.Series{Measurement: measurement, Tags: []lineproto.Tag{{Key: "empty", Value: ""}, {Key: `k ,=`, Value: `v ,="\x🎪`}}},
		fields: []string{"a text", "b,float", "c=integer", `d"bool`, `k ,=`, "e"},
	}
	for i := range texts {
		row := make([]lineproto.Value, 6)
		row[0] = lineproto.StringValue(texts[i])
		if i < len(floats) {
			row[1] = lineproto.FloatValue(floats[i])
		}
		if i < len(integers) {
			row[2] = lineproto.IntegerValue(integers[i])
		}
		if i < 2 {
			row[3] = lineproto.BooleanValue(i == 1)
		}
		if i < len(unsigned) {
			row[4] = lineproto.UnsignedValue(unsigned[i])
		}
		b.rows, b.times = append(b.rows, row), append(b.times, int64(i))
	}
	b.times[0] = lineproto.MinTime
	b.times[len(b.times)-1] = lineproto.MaxTime
	blocks := []block{b}
	names := []string{
		"plain", "with space", "a,b", "a=b", `a"b`, `"a"`, "'a'", `a\b`, `a\\b`, "a\\\nb", "tab\tx", "a\rb", "n\x00l", "\x01", "é", "日本",
		"🎪", "\xff", "a\xffb", "a\ufffdb", "SELECT", "a.b", "/^a/", "a;b", "a#", "%", "1", "-", "*", "Time", "_name", "_measurements", "_tagKey",
	}
	for i, name := range names {
		blocks = append(blocks, block{
			series: lineproto.Series{Measurement: measurement, Tags: []lineproto.Tag{{Key: name, Value: name}}},
			fields: []string{"text of " + name, name}, times: []int64{int64(i), int64(i) + 1, int64(i) + 2},
			rows: [][]lineproto.Value{
				{lineproto.StringValue(name), lineproto.IntegerValue(int64(i))},
				{{}, {}},
				{{}, lineproto.IntegerValue(-1)},
			},
		})
	}
	return d, blocks
}

func TestRoundTripOfAwkwardValues(t *testing.T) {
	t.Parallel()
	d, blocks := awkwardBlocks()
	files, parts := write(t, d, allTime(), blocks)
	require.Len(t, files, 1)
	requireSame(t, files[0], parts[0], blocks)
	require.Equal(t, d, parts[0].Datasource)
	require.EqualValues(t, len(blocks[0].rows)+2*(len(blocks)-1), parts[0].Points)
	require.EqualValues(t, len(blocks), parts[0].Series)
	require.Equal(t, lineproto.MinTime, parts[0].MinTime)
	require.Equal(t, lineproto.MaxTime, parts[0].MaxTime)
	require.True(t, parts[0].Final)

	again, _ := write(t, d, allTime(), blocks)
	require.Equal(t, files, again, "the same points give the same bytes")
}

func awkwardName() *rapid.Generator[string] {
	return rapid.StringOfN(rapid.SampledFrom([]rune("\\\\\\,= \"\n\t\x00#ab\ufffdé🎪")), 0, 8, -1)
}

func anyValue(k lineproto.Kind) *rapid.Generator[lineproto.Value] {
	switch k {
	case lineproto.Float:
		return rapid.Map(rapid.Float64(), func(f float64) lineproto.Value {
			if math.IsInf(f, 0) || math.IsNaN(f) {
				f = 0
			}
			return lineproto.FloatValue(f)
		})
	case lineproto.Integer:
		return rapid.Map(rapid.Int64(), lineproto.IntegerValue)
	case lineproto.Unsigned:
		return rapid.Map(rapid.Uint64(), lineproto.UnsignedValue)
	case lineproto.Boolean:
		return rapid.Map(rapid.Bool(), lineproto.BooleanValue)
	default:
		return rapid.Map(rapid.OneOf(awkwardName(), rapid.String()), lineproto.StringValue)
	}
}

// Whatever the encoder can write comes back as it was.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var e lineproto.Encoder
		d := segment.Datasource{
			Database: rapid.StringN(1, 8, -1).Draw(t, "database"), RetentionPolicy: rapid.StringN(1, 8, -1).Draw(t, "policy"),
			Measurement: awkwardName().Filter(func(s string) bool { return e.SetSeries(&lineproto.Series{Measurement: s}, nil) == nil }).Draw(t, "measurement"),
		}
		fields := rapid.SliceOfNDistinct(awkwardName(), 1, 4, rapid.ID[string]).Draw(t, "fields")
		kinds := make([]lineproto.Kind, len(fields))
		for i := range kinds {
			kinds[i] = lineproto.Kind(rapid.IntRange(1, 5).Draw(t, "kind"))
		}
		var blocks []block
		tags := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-c ,=]{0,3}`), 1, 5, rapid.ID[string]).Draw(t, "tags")
		for _, tag := range tags {
			b := block{series: lineproto.Series{Measurement: d.Measurement, Tags: []lineproto.Tag{{Key: "k", Value: tag}}}, fields: fields}
			if e.SetSeries(&b.series, b.fields) != nil {
				t.Skip("what can't be written")
			}
			ns := rapid.Int64Range(lineproto.MinTime, math.MaxInt64/2).Draw(t, "first")
			for range rapid.IntRange(0, 4).Draw(t, "rows") {
				row := make([]lineproto.Value, len(fields))
				for i := range row {
					if rapid.IntRange(0, 3).Draw(t, "null") > 0 {
						row[i] = anyValue(kinds[i]).Draw(t, "value")
					}
				}
				if _, err := e.AppendRow(nil, ns, row); err != nil {
					t.Skip("what can't be written")
				}
				b.rows, b.times = append(b.rows, row), append(b.times, ns)
				ns += rapid.Int64Range(1, math.MaxInt64/16).Draw(t, "step")
			}
			blocks = append(blocks, b)
		}
		files, parts := write(t, d, allTime(), blocks)
		requireSame(t, files[0], parts[0], blocks)
	})
}

// small is a file to damage.
func small(t require.TestingT) []byte {
	blocks := []block{
		{
			series: lineproto.Series{Measurement: "m", Tags: []lineproto.Tag{{Key: "host", Value: "a"}}}, fields: []string{"x", "y"},
			times: []int64{10, 20},
			rows: [][]lineproto.Value{
				{lineproto.FloatValue(0.5), lineproto.StringValue("text")}, {lineproto.FloatValue(1.5), {}},
			},
		},
		{
			series: lineproto.Series{Measurement: "m", Tags: []lineproto.Tag{{Key: "host", Value: "b"}}}, fields: []string{"x"},
			times: []int64{10}, rows: [][]lineproto.Value{{lineproto.FloatValue(2)}},
		},
	}
	files, _ := write(t, source(), segment.Window{From: 0, To: 100}, blocks)
	return files[0]
}

// readAll opens a file and reads everything.
func readAll(file []byte) error {
	r, err := segment.Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return err
	}
	defer r.Close()
	rows := r.Rows()
	for rows.Next() {
	}
	return rows.Err()
}

func TestEveryDamageIsFound(t *testing.T) {
	t.Parallel()
	file := small(t)
	require.NoError(t, readAll(file))
	check := func(damaged []byte, what string, at int) {
		t.Helper()
		err := readAll(damaged)
		require.ErrorIs(t, err, segment.ErrDamaged, "%s %d", what, at)
		var where *segment.DamagedError
		require.ErrorAs(t, err, &where)
		require.NotEmpty(t, where.Part)
		_, err = segment.Verify(bytes.NewReader(damaged), nil)
		require.ErrorIs(t, err, segment.ErrDamaged, "%s %d, front to back", what, at)
	}
	for i := range file {
		for bit := range 8 {
			flipped := bytes.Clone(file)
			flipped[i] ^= 1 << bit
			check(flipped, "flipped", i)
		}
		check(file[:i], "cut", i)
		check(append(bytes.Clone(file[:i]), file[i+1:]...), "without", i)
	}
	for _, more := range []string{"\x00", "\n", string(file), string(file[:12]), strings.Repeat("\x00", 4096)} {
		check(append(bytes.Clone(file), more...), "more", len(more))
		check(append([]byte(more), file...), "before", len(more))
	}
}
