package influx_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/lineproto"
)

// parser asks InfluxDB 1.8.3's own parser what it reads from a batch.
type parser struct {
	in  io.WriteCloser
	out *bufio.Scanner
}

// parsed is the answer; integration/influxd/lineparse documents it.
type parsed struct {
	Points []struct {
		Name   []byte
		Tags   []struct{ Key, Value []byte }
		Fields []struct {
			Key  []byte
			Type string
			Num  string
			Str  []byte
		}
		Time  int64
		Found bool
	}
	Error string
}

func startParser(t testing.TB) *parser {
	t.Helper()
	binary, err := influxtest.BuildParser(t.Context())
	require.NoError(t, err)
	cmd := exec.Command(binary)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p := &parser{in: in, out: bufio.NewScanner(out)}
	p.out.Buffer(nil, 64<<20)
	t.Cleanup(func() {
		in.Close()
		require.NoError(t, cmd.Wait())
	})
	return p
}

func (p *parser) parse(t require.TestingT, batch []byte) (a parsed) {
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(batch)))
	_, err := p.in.Write(append(frame, batch...))
	require.NoError(t, err)
	require.True(t, p.out.Scan(), "the parser is gone: %v", p.out.Err())
	require.NoError(t, json.Unmarshal(p.out.Bytes(), &a))
	return a
}

// names are made of all that any scanner of the parser looks at.
func names() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringOfN(rapid.SampledFrom([]rune("\\\\\\,,= \"\n\t\x00#abN1t.")), 0, 7, -1),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 5), func(b []byte) string { return string(b) }),
		rapid.SampledFrom([]string{"time", "_name", "_field", "_measurement", "é", "🎪", "m"}),
	)
}

func values() *rapid.Generator[lineproto.Value] {
	return rapid.OneOf(
		rapid.Map(rapid.Uint64(), func(bits uint64) lineproto.Value {
			f := math.Float64frombits(bits)
			if math.IsNaN(f) || math.IsInf(f, 0) {
				f = math.Copysign(0, -1)
			}
			return lineproto.FloatValue(f)
		}),
		rapid.Map(rapid.Float64Range(-1e6, 1e6), lineproto.FloatValue),
		rapid.Map(rapid.Int64(), lineproto.IntegerValue),
		rapid.Map(rapid.Uint64(), lineproto.UnsignedValue),
		rapid.Map(rapid.Bool(), lineproto.BooleanValue),
		rapid.Map(names(), lineproto.StringValue),
	)
}

// What the encoder writes is what InfluxDB's parser reads, wherever in a batch,
// and under a key that the server finds again; so what it refuses is the
// question that is left, and TestEncoderRefusesOnlyWhatCannotBeWritten answers
// it.
func TestEncoderAgreesWithTheServersParser(t *testing.T) {
	t.Parallel()
	p := startParser(t)
	rapid.Check(t, func(t *rapid.T) {
		s := lineproto.Series{Measurement: names().Draw(t, "measurement")}
		for k, v := range rapid.MapOfN(names(), names(), 0, 3).Draw(t, "tags") {
			if v != "" {
				s.Tags = append(s.Tags, lineproto.Tag{Key: k, Value: v})
			}
		}
		sortTags(&s)
		fields := rapid.SliceOfNDistinct(names(), 1, 4, rapid.ID[string]).Draw(t, "fields")
		row := rapid.SliceOfN(values(), len(fields), len(fields)).Draw(t, "values")
		ns := rapid.OneOf(rapid.Int64Range(lineproto.MinTime, lineproto.MaxTime), rapid.SampledFrom([]int64{lineproto.MinTime, -1, 0, lineproto.MaxTime})).Draw(t, "time")
		var enc lineproto.Encoder
		if err := enc.SetSeries(&s, fields); err != nil {
			require.ErrorIs(t, err, lineproto.ErrUnrepresentable)
			return
		}
		batch, err := enc.AppendRow([]byte("before,t=v f=1i 1\n"), ns, row)
		if err != nil {
			require.ErrorContains(t, err, "a string in field")
			return
		}
		batch = append(batch, "after f=\"x\",g=2 2\n"...)
		a := p.parse(t, batch)
		require.Empty(t, a.Error, "%q", batch)
		require.Len(t, a.Points, 3, "%q", batch)
		got := a.Points[1]
		require.True(t, got.Found, "%q is stored under a key that is not found", batch)
		series := lineproto.Series{Measurement: string(got.Name)}
		for _, tag := range got.Tags {
			series.Tags = append(series.Tags, lineproto.Tag{Key: string(tag.Key), Value: string(tag.Value)})
		}
		sortTags(&series)
		require.True(t, s.Equal(&series), "%q became %q in %q", s, series, batch)
		require.Equal(t, ns, got.Time)
		require.Len(t, got.Fields, len(fields), "%q", batch)
		for i, f := range got.Fields {
			require.Equal(t, fields[i], string(f.Key), "%q", batch)
			kind, ok := lineproto.ParseKind(f.Type)
			require.True(t, ok)
			num, err := strconv.ParseUint(f.Num, 10, 64)
			require.NoError(t, err)
			v := lineproto.Value{Kind: kind, Num: num, Str: f.Str}
			require.True(t, v.Equal(row[i]), "%v became %v in %q", row[i], v, batch)
		}
	})
}

func sortTags(s *lineproto.Series) {
	slices.SortFunc(s.Tags, func(a, b lineproto.Tag) int { return strings.Compare(a.Key, b.Key) })
}

// Whatever a client can write among other lines, and the server finds again, the
// encoder can write. Four exceptions: a field without a name, which a tab before
// the equals sign makes (the server reads it under another name); a field whose
// name begins with white space, which only the second of a line can have; what
// white space before a line does to the quotes in it; and quotes after a tag key
// with a backslash and a space.
func TestEncoderRefusesOnlyWhatCannotBeWritten(t *testing.T) {
	t.Parallel()
	p := startParser(t)
	pieces := []string{"a", "b", "m", ",", " ", `"`, `\`, `\\`, `\,`, `\ `, `\=`, `\"`, "\t", "\\\n", "\n", "#", "1", "1i", `"x"`, "é"}
	field := rapid.SampledFrom(pieces)
	other := rapid.SampledFrom(append(pieces, "=", "t=v", "f=1"))
	written := 0
	rapid.Check(t, func(t *rapid.T) {
		part := func(label string, piece *rapid.Generator[string]) string {
			return strings.Join(rapid.SliceOfN(piece, 1, 5).Draw(t, label), "")
		}
		line := strings.TrimLeft(part("measurement", other), " \t")
		if rapid.Bool().Draw(t, "tagged") {
			line += "," + part("key", other) + "=" + part("value", other)
		}
		line += " " + part("field", field) + "=1i 5\n"
		a := p.parse(t, []byte(line+"after f=1i 1\n"))
		if a.Error != "" || len(a.Points) != 2 || !a.Points[0].Found || string(a.Points[1].Name) != "after" {
			return
		}
		// The parser also takes some lines that are none, and makes a string of the
		// number, say, or of two fields one.
		if f := a.Points[0].Fields; len(f) != 1 || f[0].Type != "integer" {
			return
		}
		got := a.Points[0]
		s := lineproto.Series{Measurement: string(got.Name)}
		for _, tag := range got.Tags {
			if string(tag.Key) == "time" {
				return
			}
			s.Tags = append(s.Tags, lineproto.Tag{Key: string(tag.Key), Value: string(tag.Value)})
		}
		sortTags(&s)
		name := string(got.Fields[0].Key)
		if name == "time" || name == "" || name[0] == '\t' || strings.Contains(line, `\\=`) {
			return
		}
		if len(s.Tags) > 0 && strings.Contains(s.Tags[0].Key, `\ `) && strings.Contains(line, `"`) {
			return
		}
		var enc lineproto.Encoder
		require.NoError(t, enc.SetSeries(&s, []string{name}), "%q", line)
		written++
	})
	require.Positive(t, written)
}
