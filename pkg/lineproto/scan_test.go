package lineproto_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/influxdata/influxdb1-client/models"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/lineproto"
)

// scanNow is the present in these tests; no unit of time divides it.
const scanNow = 1_700_000_123_456_789_012

// scanned is what a Scanner makes of a request.
type scanned struct {
	names, keys, lines []string
	times              []int64
	refused            string
	bad                int
}

func scan(body string, p lineproto.Precision) (r scanned) {
	var s lineproto.Scanner
	for s.Reset([]byte(body), p, scanNow); s.Next(); {
		r.names = append(r.names, string(s.Measurement()))
		r.keys = append(r.keys, string(s.Key()))
		r.lines = append(r.lines, string(s.AppendLine(nil)))
		r.times = append(r.times, s.Time())
	}
	r.refused, r.bad = s.Refused()
	return r
}

// ambiguous ends the words about lines that only the Scanner refuses.
const ambiguous = ": its escaping means another point among other lines"

// agrees requires that the Scanner has found the points that InfluxDB's parser
// finds, except those that it refuses as ambiguous, and that its lines mean these
// points, each alone and all together. It returns how many were ambiguous.
func agrees(t require.TestingT, body string, p lineproto.Precision) (refused int) {
	want, wantErr := models.ParsePointsWithPrecision([]byte(body), time.Unix(0, scanNow).UTC(), p.String())
	got := scan(body, p)
	refused = strings.Count(got.refused, ambiguous)
	if refused == 0 {
		if wantErr == nil {
			require.Empty(t, got.refused, "%q", body)
			require.Zero(t, got.bad, "%q", body)
		} else {
			require.Equal(t, wantErr.Error(), got.refused, "%q", body)
		}
		require.Len(t, got.lines, len(want), "%q", body)
	}

	together, err := models.ParsePointsWithPrecision([]byte(strings.Join(got.lines, "")), time.Unix(0, 0), "n")
	require.NoError(t, err, "%q", body)
	require.Len(t, together, len(got.lines), "%q became %q", body, got.lines)
	next := 0
	for i, line := range got.lines {
		alone, err := models.ParsePointsWithPrecision([]byte(line), time.Unix(0, 0), "n")
		require.NoError(t, err, "%q", body)
		require.Len(t, alone, 1)
		for refused > 0 && next < len(want) && want[next].String() != alone[0].String() {
			next++
		}
		require.Less(t, next, len(want), "%q became %q", body, got.lines)
		w := want[next]
		next++
		for _, g := range []models.Point{alone[0], together[i]} {
			require.Equal(t, w.String(), g.String(), "%q", body)
			require.Equal(t, string(w.Key()), string(g.Key()), "%q", body)
			require.Equal(t, string(w.Name()), string(g.Name()), "%q", body)
			require.Equal(t, w.Tags(), g.Tags(), "%q", body)
			require.Equal(t, w.UnixNano(), g.UnixNano(), "%q", body)
			wf, wErr := w.Fields()
			gf, gErr := g.Fields()
			require.Equal(t, fmt.Sprint(wErr), fmt.Sprint(gErr), "%q", body)
			require.Equal(t, fmt.Sprintf("%#v", wf), fmt.Sprintf("%#v", gf), "%q", body)
		}
		require.Equal(t, string(w.Name()), got.names[i], "%q", body)
		require.Equal(t, w.UnixNano(), got.times[i], "%q", body)
		require.Len(t, got.keys[i], len(w.Key()), "%q", body)
	}
	return refused
}

// ordinary are lines as clients write them.
func ordinary() []string {
	return []string{
		"cpu,host=server01,region=us-west usage_user=12.5,usage_system=3.25,count=42i 1700000000000000000",
		"m f=1",
		"m f=1 ",
		"m f=1 5  ",
		"m,b=1,a=2 f=1 5",
		`we\ at\,her,lo\ cation=new\ york,k\=e\,y=a\=b tem\ perature=82,f\,g=1,h\=i=2 1465839830100400200`,
		`m s="",t="a b",u="with \"quotes\", commas= and \\",v="two` + "\n" + `lines" 1`,
		"m a=t,b=T,c=true,d=True,e=TRUE,f=f,g=F,h=false,i=False,j=FALSE 1",
		"m a=1,b=-1,c=1.5,d=-0.25,e=1e10,f=1E-7,g=2.5e+22,h=1.,i=00,j=123456789012345.12345678 1",
		"m a=1i,b=-1i,c=9223372036854775807i,d=-9223372036854775807i,e=0i,f=123456789012345678i 1",
		"m f=1 -9223372036854775806",
		"m f=1 9223372036854775806",
		"m f=1 0000000000000000001",
		"m f=1 -0",
		"m   f=1   12",
		"=a=b,c=\"d\" \"f\"=1 1",
		"größe,straße=weiß länge=1 1",
		"m " + strings.Repeat("f=1,", 200) + "f=1 1",
	}
}

// nasty are lines that clients should not write.
func nasty() []string {
	return []string{
		"", "\n", "\n\n\n", " ", "\t\n", "\x00\n", "\r\n", "# comment", "  # comment\nm f=1 1", "# a=\"b\nm f=1 1\nm f=2 2\"\nm f=3 3",
		"m f=1 1\r\nm f=2 2\r\n", "m f=1\r\n", "m,t=a\r\n", "m f=\"a\r\" 1",
		"  m f=1 1", "\tm f=1 1", "\x00m f=1 1", "m\tf=1 1", "m,t=a\tb f=1 1", "m \tf=1 1", "m f=1\t1", "m f=1 \t1", "m f=1 1\t", "m f=1 1 x",
		"m", "m ", "m,", "m,t", "m,t=", "m,t= f=1", "m,=a f=1", "m,t=a", "m,t=a ", "m,t=a=b f=1", "m,,t=a f=1", "m,t=a, f=1", ",t=a f=1", " f=1",
		"m,t=a,t=b f=1", "m,t=a,s=b,t=c f=1", "m,s=a,t=b,s=c f=1", "m,t=a,t=a f=1", "m,time=1 f=1", "m,b=1,a=2,c=3 f=1", "m,b=1,a\\ =2,a=3 f=1",
		"m f", "m f=", "m =1", "m f=1,", "m f=1,g", "m f=1,g=", "m f=1,=2", "m f=1,,g=2", "m f==1", "m f=1=2", "m f=1,f=2 1", "m time=1 1",
		"m f=a", "m f=tru", "m f=trUe", "m f=true1", "m f=ffalse", "m f=nan", "m f=NaN", "m f=N", "m f=inf", "m f=+Inf", "m f=-", "m f=.", "m f=-.", "m f=.5", "m f=-.5",
		"m f=1.2.3", "m f=1e", "m f=1e+", "m f=1e5.", "m f=1e400", "m f=1e-400", "m f=1e99", "m f=1e100", "m f=1e1e1", "m f=e1", "m f=1-1", "m f=1+1", "m f=0x1", "m f=1_0",
		"m f=123456789012345678901234567890", "m f=1234567890123456789012345", "m f=" + strings.Repeat("9", 400), "m f=-" + strings.Repeat("9", 309),
		"m f=i", "m f=-i", "m f=1ii", "m f=1i1", "m f=1.5i", "m f=1e5i", "m f=9223372036854775808i", "m f=-9223372036854775808i", "m f=-9223372036854775809i", "m f=0009223372036854775808i", "m f=00000000000000000000001i",
		"m f=1u", "m f=-1u", "m f=18446744073709551615u", "m f=18446744073709551616u", "m f=1ui", "m f=u",
		`m f="`, `m f="a`, `m f="a"b`, `m f="a"b"c"`, `m f=""a`, `m f="a" "b"`, `m f="a\`, `m f="a\"`, `m f="a\" 1`, `m f="a\\" 1`, `m f="a\\\" 1`, `m f="a\n" 1`, `m f="a\,b\ c" 1`, "m f=\"a\x00b\" 1",
		"m f=\"a\nb\" 1\nn f=1 1", "m f=\"a\nb 1\nn f=1 1", "m f=\"\\\n\" 1", "m f=\"a\n", "m f=\"a\"\n1",
		`m\ f=1 1`, `m\,t=a f=1 1`, `m\`, `m\ `, `\`, `\m f=1 1`, `\\ f=1 1`, `m\\ f=1 1`, `m\\,t=a f=1 1`, `m\\\ x f=1 1`, `m\=x f=1 1`, `m\"x f=1 1`, `m\x f=1 1`, "m\\\nx f=1 1", `m\`, "m\\\n",
		`m,t\=a f=1 1`, `m,t=a\ f=1 1`, `m,t=a\\ f=1 1`, `m,t=a\\,u=b f=1 1`, `m,t=C:\x f=1 1`, `m,t=C:\,u=b f=1 1`, `m,t=a\=b f=1 1`, `m,t\ t=a f=1 1`, `m,\=x=a f=1 1`, "m,t=a\\\nb f=1 1", "m,t=a\nb f=1 1",
		`m f\ g=1 1`, `m f\,g=1 1`, `m f\=g=1 1`, `m f\"g=1 1`, `m f\\=1 1`, `m f\\g=1 1`, `m f\=1 1`, `m \=f=1 1`, `m \ f=1 1`, `m \,f=1 1`, `m "f"=1 1`, `m f"=1 1`, `m f=1,"g h"=2 1`, "m f\ng=1 1",
		`m\\ x="a,t=b f=1`, `m,t\\ ="x f=1 1`, ` m,t="a f=1 1`, ` m,t="a b" f=1 1`, `m\\ ="a f=1 1`,
		"m f=1 a", "m f=1 1.5", "m f=1 1e5", "m f=1 -", "m f=1 +1", "m f=1 --1", "m f=1 1-", "m f=1 9223372036854775807", "m f=1 9223372036854775808", "m f=1 -9223372036854775807", "m f=1 -9223372036854775808",
		"m f=1 99999999999999999999", "m f=1 00000000000000000000000001", "m f=1 9223372036854775", "m f=1 9223372036854776", "m f=1 -9223372036854776", "m f=1 9223372036", "m f=1 9223372037", "m f=1 153722867", "m f=1 153722868", "m f=1 2562047", "m f=1 2562048", "m f=1 -2562048",
		"m f=1 1m f=1 1", "m f=1 1,", "m f=1,g=2", "m f=1 , 1", "m f =1", "m f= 1", "m f=1 ,g=2 1",
		"\xff\xfe f=1 1", "m,t=\xff f=\"\xff\" 1", "\u2028 f=1 1", "m\x7f f=1 1",
		"a f=1 1\nbad\nb f=2 2\nworse,\nc f=3 3",
		strings.Repeat("k", 65534) + " f=1 1", strings.Repeat("k", 65530) + " f=1 1", strings.Repeat("k", 65531) + " f=1 1", strings.Repeat("k", 70000) + " f=1 1",
		"m f=\"" + strings.Repeat("s", 70000) + "\" 1", "m " + strings.Repeat("f", 65530) + "=1 1", "m " + strings.Repeat("f", 65531) + "=1 1",
	}
}

func precisions() []lineproto.Precision {
	return []lineproto.Precision{
		lineproto.Nanoseconds, lineproto.Microseconds, lineproto.Milliseconds, lineproto.Seconds, lineproto.Minutes, lineproto.Hours,
	}
}

// Every line of the tables, with and without a newline and a neighbour, in each
// precision, is to the Scanner what it is to InfluxDB's parser.
func TestScannerAgreesWithTheParser(t *testing.T) {
	t.Parallel()
	for _, line := range append(ordinary(), nasty()...) {
		for _, p := range precisions() {
			for _, body := range []string{line, line + "\n", line + "\nn g=2 2", "n g=2 2\n" + line + "\n\n"} {
				agrees(t, body, p)
			}
		}
	}
}

// An ordinary line is neither copied nor refused nor allocated for.
func TestScannerAllocatesNothing(t *testing.T) {
	for _, line := range ordinary() {
		for _, p := range precisions()[:2] {
			if len(line) > 19 && strings.Contains(line, "9223372036854775806") && p != lineproto.Nanoseconds {
				continue
			}
			body := []byte(strings.Repeat(strings.ReplaceAll(line, "1465839830100400200", "1465839830100400")+"\n", 3))
			body = []byte(strings.ReplaceAll(string(body), "1700000000000000000", "1700000000000000"))
			var s lineproto.Scanner
			dst := make([]byte, 0, 2*len(body)+100)
			n := 0
			allocs := testing.AllocsPerRun(10, func() {
				n = 0
				dst = dst[:0]
				for s.Reset(body, p, scanNow); s.Next(); n++ {
					_ = s.Measurement()
					dst = s.AppendLine(dst)
				}
			})
			require.Zero(t, allocs, "%q", line)
			require.Equal(t, 3, n, "%q", line)
		}
	}
}

// A line of the fast path is what the client wrote.
func TestScannerCopiesWhatItVouchesFor(t *testing.T) {
	t.Parallel()
	require.Equal(t, scanned{
		names: []string{"m x", "m", "m", "a"},
		keys:  []string{`m\ x,b=1,a=2`, "m", "m", "a"},
		lines: []string{"m\\ x,b=1,a=2 f=1 5\n", "m  f=\"a b\" 007\n", fmt.Sprintf("m f=1 %d\n", int64(scanNow)), "a f=1 9\n"},
		times: []int64{5, 7, scanNow, 9},
	}, scan("m\\ x,b=1,a=2 f=1 5  \n\nm  f=\"a b\" 007\n# no\nm f=1\na f=1 9", lineproto.Nanoseconds))
	got := scan("m f=1 5\nm f=1", lineproto.Seconds)
	require.Equal(t, []string{"m f=1 5000000000\n", "m f=1 1700000123000000000\n"}, got.lines)
	got = scan("m f=1", lineproto.Hours)
	require.Equal(t, []int64{scanNow - scanNow%3_600_000_000_000}, got.times)
}

func TestScannerBoundsWhatItKeepsOfRefusals(t *testing.T) {
	t.Parallel()
	got := scan(strings.Repeat("x\n", 100_000)+"m f=1 1\n", lineproto.Nanoseconds)
	require.Equal(t, 100_000, got.bad)
	require.Len(t, got.lines, 1)
	require.Less(t, len(got.refused), 1<<20+100)
	require.Contains(t, got.refused, "unable to parse 'x': missing fields\nunable to parse")
	require.Regexp(t, `\nand \d+ more lines$`, got.refused)
}

func TestPartialWrite(t *testing.T) {
	t.Parallel()
	require.Equal(t, "partial write: why dropped=3", lineproto.PartialWrite("why", 3))
}

// Lines made of all that any scanner looks at.
func TestScannerAgreesWithTheParserOnAnything(t *testing.T) {
	t.Parallel()
	pieces := append(ordinary(), "m", "f", "t", ",", "=", " ", `"`, `\`, "\n", "\t", "\x00", "#", "\r", "1", "-", "i", "u", ".", "e5", "t=a", "f=1", `f="x"`, "true", "\\\n", "é", " 17", "9223372036854775807")
	pieces = append(pieces, "m,t=a f=1", "m f=1 1\n", "m,t=a", ",t2=b", ",f2=2i", ` f="a`, ` f="`)
	rapid.Check(t, func(t *rapid.T) {
		body := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 12).Draw(t, "pieces"), "")
		agrees(t, body, rapid.SampledFrom(precisions()).Draw(t, "precision"))
	})
}

// No more lines are refused as ambiguous than cannot be written among others.
func TestScannerRefusesOnlyWhatCannotBeWritten(t *testing.T) {
	t.Parallel()
	for _, line := range append(ordinary(), nasty()...) {
		refused := agrees(t, line, lineproto.Nanoseconds)
		if refused > 0 {
			require.Contains(t, line, `\\`, "%q", line)
		}
	}
}

func TestPrecision(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]lineproto.Precision{
		"": 0, "n": 0, "ns": 0, "u": lineproto.Microseconds, "ms": lineproto.Milliseconds, "s": lineproto.Seconds, "m": lineproto.Minutes, "h": lineproto.Hours,
	} {
		p, err := lineproto.ParsePrecision(value)
		require.NoError(t, err)
		require.Equal(t, want, p, value)
		require.Equal(t, p.Unit(), models.GetPrecisionMultiplier(p.String()))
	}
	for value, want := range map[string]lineproto.Precision{"": 0, "ns": 0, "us": lineproto.Microseconds, "ms": lineproto.Milliseconds, "s": lineproto.Seconds} {
		p, err := lineproto.ParsePrecisionV2(value)
		require.NoError(t, err)
		require.Equal(t, want, p, value)
	}
	p, err := lineproto.ParsePrecision("us")
	require.EqualError(t, err, `invalid precision "us" (use n, u, ms, s, m or h)`)
	require.Equal(t, lineproto.Nanoseconds, p)
	p, err = lineproto.ParsePrecisionV2("m")
	require.EqualError(t, err, `invalid precision "m" (use ns, us, ms or s)`)
	require.Equal(t, lineproto.Minutes, p)

	rapid.Check(t, func(t *rapid.T) {
		ns := rapid.Int64Range(math.MinInt64/2, math.MaxInt64).Draw(t, "ns")
		p := rapid.SampledFrom(precisions()).Draw(t, "precision")
		require.Equal(t, time.Unix(0, ns).Truncate(time.Duration(p.Unit())).UnixNano(), p.Truncate(ns))
	})
}

// FuzzScan asks InfluxDB's own parser about anything.
func FuzzScan(f *testing.F) {
	for _, line := range append(ordinary(), nasty()...) {
		if len(line) < 1000 {
			f.Add(line+"\nn g=2 2\n", uint8(0))
			f.Add(line, uint8(3))
		}
	}
	f.Fuzz(func(t *testing.T, body string, unit uint8) {
		agrees(t, body, precisions()[int(unit)%len(precisions())])
	})
}

// benchBody are lines of about a hundred bytes.
func benchBody(lines int) []byte {
	var b []byte
	for i := range lines {
		b = fmt.Appendf(b, "cpu,host=server%02d,region=us-west usage_user=%d.%d,usage_system=3.25,count=%di 17000000%02d123456789\n", i%100, i%100, i%1000, i, i%100)
	}
	return b
}

func BenchmarkScan(b *testing.B) {
	const lines = 10_000
	body := benchBody(lines)
	dst := make([]byte, 0, 2*len(body))
	var s lineproto.Scanner
	names := 0
	for _, p := range precisions()[:2] {
		b.Run(p.String(), func(b *testing.B) {
			if p != lineproto.Nanoseconds {
				body = []byte(strings.ReplaceAll(string(body), "123456789\n", "123456\n"))
			}
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				dst = dst[:0]
				n := 0
				for s.Reset(body, p, scanNow); s.Next(); n++ {
					names += len(s.Measurement())
					dst = s.AppendLine(dst)
				}
				if n != lines {
					b.Fatal(s.Refused())
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/lines, "ns/line")
		})
	}
}

// BenchmarkScanJudged shows what the lines cost that are not vouched for.
func BenchmarkScanJudged(b *testing.B) {
	const lines = 10_000
	body := []byte(strings.ReplaceAll(string(benchBody(lines)), "cpu,", "\tcpu,"))
	var s lineproto.Scanner
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for s.Reset(body, lineproto.Nanoseconds, scanNow); s.Next(); {
			n++
		}
		if n != lines {
			b.Fatal(s.Refused())
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/lines, "ns/line")
}

func TestShapesTellFieldsApart(t *testing.T) {
	shape := func(line string) uint64 {
		var s lineproto.Scanner
		s.Reset([]byte(line), lineproto.Nanoseconds, scanNow)
		require.True(t, s.Next(), line)
		return s.Shape()
	}
	for _, same := range [][]string{
		{"m a=1", "m,t=x a=2.5 7", "other  a=-1e3", "m a=0"},
		{"m a=1i", "m a=-123i 5"},
		{`m a="x"`, `m a="" 1`, `m a="1i"`},
		{"m a=t", "m a=false", "m a=TRUE 1"},
		{"m abcdefghij=1,b=2i", "m abcdefghij=7.5,b=9i"},
		{"m abcdefgh=1", "n abcdefgh=2"},
		{"m abcdefghi=1"},
		{"m abcdefgh=1i"},
		{"m b=1"},
		{"m a=1,b=1"},
		{"m b=1,a=1"},
		{"m ab=1"},
		{"m a=1,b=1i"},
		{"m a=1i,b=1"},
		{`m a\ =1`},
	} {
		for _, line := range same {
			require.Equal(t, shape(same[0]), shape(line), line)
			require.NotZero(t, shape(line))
		}
	}
	seen := map[uint64]string{}
	for _, line := range []string{
		"m a=1", "m a=1i", `m a="x"`, "m a=t", "m b=1", "m ab=1", "m a=1,b=1", "m b=1,a=1", "m a=1,b=1i", "m a=1i,b=1", `m a\ =1`,
		"m abcdefgh=1", "m abcdefghi=1", "m abcdefghj=1", "m abcdefghabcdefgh=1",
	} {
		require.Empty(t, seen[shape(line)], line)
		seen[shape(line)] = line
	}
	require.Zero(t, shape(`m\x a=1`), "not known")
}
