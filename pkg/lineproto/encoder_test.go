package lineproto_test

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/lineproto"
)

func encode(t require.TestingT, s lineproto.Series, fields []string, ns int64, values ...lineproto.Value) string {
	var e lineproto.Encoder
	require.NoError(t, e.SetSeries(&s, fields))
	line, err := e.AppendRow(nil, ns, values)
	require.NoError(t, err)
	return string(line)
}

func TestEncoderWritesNames(t *testing.T) {
	t.Parallel()
	one := []lineproto.Value{lineproto.IntegerValue(1)}
	for name, c := range map[string]struct {
		series lineproto.Series
		field  string
		want   string
	}{
		"plain":          {lineproto.Series{Measurement: "m", Tags: []lineproto.Tag{{"k", "v"}}}, "f", `m,k=v f=1i 0`},
		"specials":       {lineproto.Series{Measurement: "a b,c=d", Tags: []lineproto.Tag{{"k ,=", "v ,="}}}, "f ,=", `a\ b\,c=d,k\ \,\==v\ \,\= f\ \,\==1i 0`},
		"quotes":         {lineproto.Series{Measurement: `"m"`, Tags: []lineproto.Tag{{`"k`, `"v`}}}, `"f"`, `"m","k="v \"f\"=1i 0`},
		"backslash":      {lineproto.Series{Measurement: `a\b`, Tags: []lineproto.Tag{{`k\k`, `\v`}}}, `f\f`, `a\b,k\k=\v f\f=1i 0`},
		"pair in tag":    {lineproto.Series{Measurement: "m", Tags: []lineproto.Tag{{"k", `a\ b`}}}, "f", `m,k=a\\ b f=1i 0`},
		"not ASCII":      {lineproto.Series{Measurement: "温度", Tags: []lineproto.Tag{{"🔑", "é"}}}, "ü", `温度,🔑=é ü=1i 0`},
		"no valid UTF-8": {lineproto.Series{Measurement: "m\xff", Tags: []lineproto.Tag{{"k", "\xfe"}}}, "f\xc3", "m\xff,k=\xfe f\xc3=1i 0"},
		"control":        {lineproto.Series{Measurement: "a\tb\r", Tags: []lineproto.Tag{{"\x01", "\x00"}}}, "a\t", "a\tb\r,\x01=\x00 a\t=1i 0"},
		"newline":        {lineproto.Series{Measurement: "a\\\nb", Tags: []lineproto.Tag{{"\\\n", "\\\nv"}}}, "f\\\n", "a\\\nb,\\\n=\\\nv f\\\n=1i 0"},
		"empty tag":      {lineproto.Series{Measurement: "m", Tags: []lineproto.Tag{{"a", ""}, {"b", "c"}}}, "f", `m,b=c f=1i 0`},
		"hash inside":    {lineproto.Series{Measurement: "a#", Tags: []lineproto.Tag{{"#", "#"}}}, "#", `a#,#=# #=1i 0`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			line := encode(t, c.series, []string{c.field}, 0, one...)
			require.Equal(t, c.want+"\n", line)
			got, err := readLines(line)
			require.NoError(t, err)
			require.Len(t, got, 1)
			require.Contains(t, got[0].fields, c.field)
		})
	}
}

func TestEncoderRefusesNamesThatReadAsOthers(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 65536)
	for name, c := range map[string]struct {
		series lineproto.Series
		field  string
		named  string
	}{
		"no measurement":                 {lineproto.Series{}, "f", `measurement ""`},
		"comment":                        {lineproto.Series{Measurement: "#m"}, "f", "#m"},
		"measurement begins with a tab":  {lineproto.Series{Measurement: "\tm"}, "f", `\tm`},
		"measurement begins with a NUL":  {lineproto.Series{Measurement: "\x00m"}, "f", `\x00m`},
		"measurement ends in backslash":  {lineproto.Series{Measurement: `m\`}, "f", `m\\`},
		"backslash comma in measurement": {lineproto.Series{Measurement: `a\,b`}, "f", `a\\,b`},
		"backslash space in measurement": {lineproto.Series{Measurement: `a\ b`}, "f", `a\\ b`},
		"backslash quote in measurement": {lineproto.Series{Measurement: `a\"b`}, "f", `a\\\"b`},
		"backslash equal in measurement": {lineproto.Series{Measurement: `a\=b`}, "f", `a\\=b`},
		"newline in measurement":         {lineproto.Series{Measurement: "a\nb"}, "f", `a\nb`},
		"tag without a key":              {lineproto.Series{Measurement: "m", Tags: []lineproto.Tag{{"", "v"}}}, "f", `tag ""`},
		"tag called time":                {lineproto.Series{Measurement: "m", Tags: []lineproto.Tag{{"time", "v"}}}, "f", `tag "time"`},
		"tag key ends in backslash":      {lineproto.Series{Measurement: "m", Tags: []lineproto.Tag{{`k\`, "v"}}}, "f", `k\\`},
		"tag value ends in backslash":    {lineproto.Series{Measurement: "m", Tags: []lineproto.Tag{{"k", `v\`}}}, "f", `v\\`},
		"newline in tag":                 {lineproto.Series{Measurement: "m", Tags: []lineproto.Tag{{"k", "a\nb"}}}, "f", `a\nb`},
		"tag key that hides a quote":     {lineproto.Series{Measurement: "m", Tags: []lineproto.Tag{{`k\ `, `"`}}}, "f", `series`},
		"no field name":                  {lineproto.Series{Measurement: "m"}, "", `field ""`},
		"field called time":              {lineproto.Series{Measurement: "m"}, "time", `field "time"`},
		"field begins with a tab":        {lineproto.Series{Measurement: "m"}, "\tf", `\tf`},
		"field ends in backslash":        {lineproto.Series{Measurement: "m"}, `f\`, `f\\`},
		"backslash comma in field":       {lineproto.Series{Measurement: "m"}, `a\,b`, `a\\,b`},
		"backslash space in field":       {lineproto.Series{Measurement: "m"}, `a\ b`, `a\\ b`},
		"backslash equal in field":       {lineproto.Series{Measurement: "m"}, `a\=b`, `a\\=b`},
		"newline in field":               {lineproto.Series{Measurement: "m"}, "a\nb", `a\nb`},
		"key too long":                   {lineproto.Series{Measurement: long}, "f", "65546 bytes"},
		"field too long":                 {lineproto.Series{Measurement: "m"}, long, "65541 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var e lineproto.Encoder
			err := e.SetSeries(&c.series, []string{"before", c.field})
			require.ErrorIs(t, err, lineproto.ErrUnrepresentable)
			require.ErrorContains(t, err, c.named)
			require.Less(t, len(err.Error()), 2000)

			// And nothing can be written for it by mistake.
			_, err = e.AppendRow(nil, 0, make([]lineproto.Value, 2))
			require.ErrorIs(t, err, lineproto.ErrUnrepresentable)
		})
	}
}

func TestEncoderWritesValues(t *testing.T) {
	t.Parallel()
	for want, v := range map[string]lineproto.Value{
		`1`:                       lineproto.FloatValue(1),
		`-0`:                      lineproto.FloatValue(math.Copysign(0, -1)),
		`0.1`:                     lineproto.FloatValue(0.1),
		`5e-324`:                  lineproto.FloatValue(math.SmallestNonzeroFloat64),
		`1.7976931348623157e+308`: lineproto.FloatValue(math.MaxFloat64),
		`1e+21`:                   lineproto.FloatValue(1e21),
		`9007199254740993i`:       lineproto.IntegerValue(1<<53 + 1),
		`-9223372036854775808i`:   lineproto.IntegerValue(math.MinInt64),
		`9223372036854775807i`:    lineproto.IntegerValue(math.MaxInt64),
		`18446744073709551615u`:   lineproto.UnsignedValue(math.MaxUint64),
		`true`:                    lineproto.BooleanValue(true),
		`false`:                   lineproto.BooleanValue(false),
		`""`:                      lineproto.StringValue(""),
		`"a b,c=d"`:               lineproto.StringValue("a b,c=d"),
		`"\"\\\""`:                lineproto.StringValue(`"\"`),
		"\"a\nb\"":                lineproto.StringValue("a\nb"),
		`"\\n"`:                   lineproto.StringValue(`\n`),
		"\"\xff\x00\"":            lineproto.StringValue("\xff\x00"),
	} {
		line := encode(t, lineproto.Series{Measurement: "m"}, []string{"f"}, 7, v)
		require.Equal(t, "m f="+want+" 7\n", line)
		require.Equal(t, want, v.String())
		got, err := readLines(line)
		require.NoError(t, err, line)
		require.True(t, got[0].fields["f"].Equal(v), "%v became %v", v, got[0].fields["f"])
	}
}

func TestEncoderLeavesOutNulls(t *testing.T) {
	t.Parallel()
	var e lineproto.Encoder
	require.NoError(t, e.SetSeries(&lineproto.Series{Measurement: "m"}, []string{"a", "b", "c"}))
	null, one := lineproto.Value{}, lineproto.IntegerValue(1)
	for _, c := range []struct {
		values []lineproto.Value
		want   string
	}{
		{[]lineproto.Value{one, one, one}, "m a=1i,b=1i,c=1i 5\n"},
		{[]lineproto.Value{null, one, null}, "m b=1i 5\n"},
		{[]lineproto.Value{null, null, one}, "m c=1i 5\n"},
		{[]lineproto.Value{null, null, null}, ""},
	} {
		got, err := e.AppendRow([]byte("before\n"), 5, c.values)
		require.NoError(t, err)
		require.Equal(t, "before\n"+c.want, string(got))
	}
}

func TestEncoderRefusesRowsAndLeavesTheBatchAsItWas(t *testing.T) {
	t.Parallel()
	var e lineproto.Encoder
	require.NoError(t, e.SetSeries(&lineproto.Series{Measurement: "m"}, []string{"ok", "odd"}))
	one := lineproto.IntegerValue(1)
	for name, c := range map[string]struct {
		ns     int64
		values []lineproto.Value
		named  string
	}{
		"NaN":           {0, []lineproto.Value{one, lineproto.FloatValue(math.NaN())}, `NaN of field "odd"`},
		"+Inf":          {0, []lineproto.Value{one, lineproto.FloatValue(math.Inf(1))}, `+Inf of field "odd"`},
		"-Inf":          {0, []lineproto.Value{one, lineproto.FloatValue(math.Inf(-1))}, `-Inf of field "odd"`},
		"too early":     {math.MinInt64 + 1, []lineproto.Value{one, one}, "time -9223372036854775807"},
		"too late":      {math.MaxInt64, []lineproto.Value{one, one}, "time 9223372036854775807"},
		"too few":       {0, []lineproto.Value{one}, "1 values for 2 fields"},
		"unknown kinds": {0, []lineproto.Value{one, {Kind: 9}}, `kind(9) in field "odd"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := e
			got, err := e.AppendRow([]byte("before\n"), c.ns, c.values)
			require.ErrorIs(t, err, lineproto.ErrUnrepresentable)
			require.ErrorContains(t, err, c.named)
			require.Equal(t, "before\n", string(got))
		})
	}
	for _, ns := range []int64{lineproto.MinTime, lineproto.MaxTime} {
		_, err := e.AppendRow(nil, ns, []lineproto.Value{one, one})
		require.NoError(t, err)
	}
}

// The line splitter may take a space in a tag key for the beginning of the
// fields; it then sees the quotes in field names too.
func TestEncoderRefusesQuotesInNamesWhereTheyWouldCount(t *testing.T) {
	t.Parallel()
	s := lineproto.Series{Measurement: "m", Tags: []lineproto.Tag{{`k\ `, "v"}}}
	require.Equal(t, "m,k\\\\ =v f=\"x\" 0\n", encode(t, s, []string{"f"}, 0, lineproto.StringValue("x")))
	var e lineproto.Encoder
	require.ErrorIs(t, e.SetSeries(&s, []string{`a\"`}), lineproto.ErrUnrepresentable)
	require.NoError(t, e.SetSeries(&lineproto.Series{Measurement: "m"}, []string{`a\"`}))
}

func TestEncoderRefusesStringsWhoseEndWouldNotBeFound(t *testing.T) {
	t.Parallel()
	s := lineproto.Series{Measurement: "m", Tags: []lineproto.Tag{{"k", `a\ b\,c`}}}
	require.Equal(t, "m,k=a\\\\ b\\\\,c f=1i 0\n", encode(t, s, []string{"f"}, 0, lineproto.IntegerValue(1)))
	var e lineproto.Encoder
	require.NoError(t, e.SetSeries(&s, []string{"f"}))
	_, err := e.AppendRow(nil, 0, []lineproto.Value{lineproto.StringValue("a")})
	require.ErrorIs(t, err, lineproto.ErrUnrepresentable)
	require.ErrorContains(t, err, `a string in field "f"`)

	require.NoError(t, e.SetSeries(&lineproto.Series{Measurement: "m"}, []string{"f"}))
	_, err = e.AppendRow(nil, 0, []lineproto.Value{lineproto.StringValue("a")})
	require.NoError(t, err)
}

// awkward names are made of what the server's scanners look at.
func awkward() *rapid.Generator[string] {
	return rapid.StringOfN(rapid.SampledFrom([]rune("\\\\\\,= \"\n\t\x00#ab\ufffdé🎪")), 0, 8, -1)
}

func awkwardSeries(t *rapid.T) lineproto.Series {
	s := lineproto.Series{Measurement: awkward().Draw(t, "measurement")}
	for key, value := range rapid.MapOfN(awkward(), awkward(), 0, 3).Draw(t, "tags") {
		s.Tags = append(s.Tags, lineproto.Tag{Key: key, Value: value})
	}
	return normal(s)
}

func anyValue() *rapid.Generator[lineproto.Value] {
	return rapid.OneOf(
		rapid.Map(rapid.Float64(), func(f float64) lineproto.Value {
			if math.IsInf(f, 0) || math.IsNaN(f) {
				f = 0
			}
			return lineproto.FloatValue(f)
		}),
		rapid.Map(rapid.Int64(), lineproto.IntegerValue),
		rapid.Map(rapid.Uint64(), lineproto.UnsignedValue),
		rapid.Map(rapid.Bool(), lineproto.BooleanValue),
		rapid.Map(rapid.OneOf(awkward(), rapid.String()), lineproto.StringValue),
	)
}

// What can be written at all is read back as it was, in a batch between other
// lines, and what cannot is refused.
func TestEncoderRoundTrip(t *testing.T) {
	t.Parallel()
	before, after := "before f=1i 1\n", "after,t=v f=\"x\" 2\n"
	rapid.Check(t, func(t *rapid.T) {
		s := awkwardSeries(t)
		fields := rapid.SliceOfNDistinct(awkward(), 1, 3, rapid.ID[string]).Draw(t, "fields")
		values := rapid.SliceOfN(anyValue(), len(fields), len(fields)).Draw(t, "values")
		ns := rapid.Int64Range(lineproto.MinTime, lineproto.MaxTime).Draw(t, "time")
		var e lineproto.Encoder
		if err := e.SetSeries(&s, fields); err != nil {
			require.ErrorIs(t, err, lineproto.ErrUnrepresentable)
			return
		}
		batch, err := e.AppendRow([]byte(before), ns, values)
		if err != nil {
			require.ErrorContains(t, err, "a string in field")
			return
		}
		batch = append(batch, after...)
		got, err := readLines(string(batch))
		require.NoError(t, err, "%q", batch)
		require.Len(t, got, 3, "%q", batch)
		requirePoint(t, got[1], s, fields, values, ns)
	})
}

func requirePoint(t require.TestingT, got point, s lineproto.Series, fields []string, values []lineproto.Value, ns int64) {
	require.True(t, s.Equal(&got.series), "%q became %q", s, got.series)
	require.Equal(t, ns, got.time)
	require.Len(t, got.fields, len(fields))
	for i, f := range fields {
		v, ok := got.fields[f]
		require.True(t, ok, "no field %q", f)
		require.True(t, v.Equal(values[i]), "%v became %v", values[i], v)
	}
}

func FuzzEncoder(f *testing.F) {
	f.Add("m", "k", "v", "f", "s", int64(0))
	f.Add(`a\b`, `k\ `, `"`, `f"`, "\n", int64(-1))
	f.Add("#", "time", `\`, "\t", `\"`, lineproto.MaxTime)
	f.Fuzz(func(t *testing.T, measurement, key, value, field, text string, ns int64) {
		s := normal(lineproto.Series{Measurement: measurement, Tags: []lineproto.Tag{{Key: key, Value: value}}})
		if field == "second" {
			return
		}
		fields := []string{field, "second"}
		values := []lineproto.Value{lineproto.StringValue(text), lineproto.StringValue(text)}
		var e lineproto.Encoder
		if e.SetSeries(&s, fields) != nil {
			return
		}
		line, err := e.AppendRow(nil, ns, values)
		if err != nil {
			if ns >= lineproto.MinTime && ns <= lineproto.MaxTime {
				require.ErrorContains(t, err, "a string in field")
			}
			return
		}
		got, err := readLines(string(line) + "after f=1i 1\n")
		require.NoError(t, err, "%q", line)
		require.Len(t, got, 2, "%q", line)
		requirePoint(t, got[0], s, fields, values, ns)
	})
}

func TestAppendRowDoesNotAllocate(t *testing.T) {
	e, values := benchRow(t)
	dst := make([]byte, 0, 4096)
	allocs := testing.AllocsPerRun(1000, func() {
		var err error
		if dst, err = e.AppendRow(dst[:0], 1_600_000_000_000_000_000, values); err != nil {
			t.Fatal(err)
		}
	})
	require.Zero(t, allocs)

	s, fields := benchSeries()
	allocs = testing.AllocsPerRun(1000, func() { _ = e.SetSeries(s, fields) })
	require.Zero(t, allocs)
}

func benchSeries() (*lineproto.Series, []string) {
	return &lineproto.Series{
		Measurement: "weather station",
		Tags:        []lineproto.Tag{{"country", "de"}, {"host", "server01"}, {"region", "eu,west"}},
	}, []string{"bytes", "load", "ok", "state", "temp"}
}

func benchRow(t testing.TB) (*lineproto.Encoder, []lineproto.Value) {
	e := &lineproto.Encoder{}
	s, fields := benchSeries()
	require.NoError(t, e.SetSeries(s, fields))
	return e, []lineproto.Value{
		lineproto.IntegerValue(123456789), lineproto.FloatValue(0.75), lineproto.BooleanValue(true),
		lineproto.StringValue(`up and "running"`), lineproto.FloatValue(20.125),
	}
}

func BenchmarkAppendRow(b *testing.B) {
	e, values := benchRow(b)
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = e.AppendRow(dst[:0], 1_600_000_000_000_000_000, values)
	}
	b.SetBytes(int64(len(dst)))
}

func BenchmarkSetSeries(b *testing.B) {
	var e lineproto.Encoder
	s, fields := benchSeries()
	b.ReportAllocs()
	for b.Loop() {
		_ = e.SetSeries(s, fields)
	}
}
