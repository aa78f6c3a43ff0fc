package prom_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/prom"
)

const limit = 1 << 20

func TestDecodeWrite(t *testing.T) {
	t.Parallel()
	w, err := prom.DecodeWrite([]byte("before f=1 1\n"), writeBody(
		series{
			[]label{{"job", "node"}, {"__name__", "up"}, {"empty", ""}, {"instance", `a b,c="d"`}},
			[]sample{{1, 1700000000000}, {math.NaN(), 1}, {math.Inf(1), 1}, {math.Inf(-1), 1}, {-0.5, -1}},
		},
		series{[]label{{"a", "1"}, {"a", "2"}}, []sample{{1e300, 5}}},
		series{[]label{{"__name__", "nothing"}}, nil},
		series{[]label{{"__name__", "bad"}, {"path", `C:\`}}, []sample{{1, 1}, {2, 2}}},
		series{[]label{{"__name__", "bad"}, {"path", `C:\`}}, []sample{{math.NaN(), 1}}},
	), limit)
	require.NoError(t, err)
	require.Equal(t, []string{
		"before f=1 1",
		`up,__name__=up,instance=a\ b\,c\="d",job=node value=1 1700000000000000000`,
		`up,__name__=up,instance=a\ b\,c\="d",job=node value=-0.5 -1000000`,
		"prom_metric_not_specified,a=2 value=1e+300 5000000",
		"",
	}, strings.Split(string(w.Lines), "\n"))
	require.Equal(t, 3, w.Points)
	require.Equal(t, []int{2, 1, 1}, []int{w.NaN, w.PositiveInf, w.NegativeInf})
	require.Equal(t, 2, w.Refused)
	require.Contains(t, w.Reason, `tag "path"="C:\\" of measurement "bad"`)
}

// wrapped is a time in milliseconds that is the smallest one in nanoseconds, once
// it has overflowed.
func wrapped() int64 {
	for inverse, odd := uint64(1), uint64(15625); ; inverse *= 2 - odd*inverse {
		if odd*inverse == 1 {
			return int64(inverse << 57)
		}
	}
}

func TestDecodeWriteRefuses(t *testing.T) {
	t.Parallel()
	long := []label{{"__name__", "m"}, {"t", strings.Repeat(" ", 40000)}}
	good := series{[]label{{"__name__", "m"}}, []sample{{1, 1}}}
	for _, c := range []struct {
		name string
		body []byte
		says string
	}{
		{"nothing", nil, "snappy: corrupt input"},
		{"noise", []byte("noise"), "snappy: corrupt input"},
		{"a length that cannot be", binary.AppendUvarint(nil, 1<<31), "snappy: corrupt input"},
		{"too much", snappy.Encode(nil, make([]byte, limit+1)), "request entity too large"},
		{"cut off", snappy.Encode(nil, []byte{1<<3 | 2, 5, 1}), "unexpected EOF"},
		{"wrong type", snappy.Encode(nil, []byte{1 << 3, 5}), "proto: wrong wireType = 0 for field Timeseries"},
		{"no field", snappy.Encode(nil, []byte{2, 0}), "proto: WriteRequest: illegal tag 0 (wire type 2)"},
		{"end of a group", snappy.Encode(nil, []byte{4}), "proto: WriteRequest: wiretype end group for non-group"},
		{"no type", snappy.Encode(nil, []byte{9<<3 | 7}), "proto: illegal wireType 7"},
		{"a long number", snappy.Encode(nil, []byte(strings.Repeat("\xff", 11))), "proto: integer overflow"},
		{"a long length", snappy.Encode(nil, append([]byte{1<<3 | 2}, binary.AppendUvarint(nil, math.MaxUint64)...)), "proto: negative length found during unmarshaling"},
		{"many groups", snappy.Encode(nil, []byte(strings.Repeat("\x4b", 1000))), "proto: groups are nested too deep"},
		{"a long key", writeBody(good, series{long, []sample{{1, 1}}}), "max key length exceeded: 80024 > 65535"},
		{"a time", writeBody(good, series{[]label{{"a", "b"}}, []sample{{1, wrapped()}}}), "time outside range -9223372036854775806 - 9223372036854775806"},
	} {
		w, err := prom.DecodeWrite([]byte("before"), c.body, limit)
		require.ErrorContains(t, err, c.says, c.name)
		require.Equal(t, prom.Write{Lines: []byte("before")}, w, c.name)
	}
	_, err := prom.DecodeWrite(nil, snappy.Encode(nil, make([]byte, limit+1)), limit)
	require.ErrorIs(t, err, prom.ErrTooLarge)
	// A group that nobody knows is skipped.
	w, err := prom.DecodeWrite(nil, snappy.Encode(nil, []byte{9<<3 | 3, 1 << 3, 5, 2<<3 | 3, 2<<3 | 4, 9<<3 | 4}), limit)
	require.NoError(t, err)
	require.Zero(t, w.Points)
}

func TestDecodeRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		matchers []matcher
		one      string
		yes, no  []string
	}{
		{[]matcher{{equal, "__name__", "up"}, {matching, "job", "("}}, "up", []string{"up"}, []string{"upper", ""}},
		{[]matcher{{equal, "_measurement", "up"}}, "up", []string{"up"}, nil},
		{[]matcher{{equal, "__name__", ""}}, "", nil, []string{"up"}},
		{[]matcher{{matching, "__name__", "up|down"}}, "", []string{"up", "xdowny"}, []string{"u"}},
		{[]matcher{{notMatching, "__name__", "^go_"}, {notEqual, "__name__", "up"}}, "", []string{"x"}, []string{"up", "go_x"}},
		{[]matcher{{equal, "__name__", "up"}, {equal, "__name__", "down"}}, "", nil, []string{"up", "down"}},
		{[]matcher{{equal, "job", "up"}}, "", []string{"up", "x"}, nil},
		{[]matcher{{matching, "__name__", "("}}, "", nil, []string{"up", "("}},
		{[]matcher{{notMatching, "__name__", "("}}, "", nil, []string{"up", "("}},
	} {
		r, err := prom.DecodeRead(readBody(1, 2, c.matchers...), limit)
		require.NoError(t, err)
		one, ok := r.Measurement()
		require.Equal(t, c.one, one)
		require.Equal(t, c.one != "", ok)
		for _, name := range c.yes {
			require.True(t, r.Matches(name), "%v %q", c.matchers, name)
		}
		for _, name := range c.no {
			require.False(t, r.Matches(name), "%v %q", c.matchers, name)
		}
	}
}

func TestDecodeReadRefuses(t *testing.T) {
	t.Parallel()
	two := snappy.Encode(nil, sized(sized(nil, 1, nil), 1, nil))
	for _, c := range []struct {
		body []byte
		says string
	}{
		{nil, "snappy: corrupt input"},
		{two, "Prometheus read endpoint currently only supports one query at a time"},
		{snappy.Encode(nil, nil), "Prometheus read endpoint currently only supports one query at a time"},
		{readBody(1, 2), "expected matcher"},
		{readBody(1, 2, matcher{7, "a", "b"}), "unknown match type 7"},
		{snappy.Encode(nil, sized(nil, 1, []byte{3<<3 | 1})), "proto: wrong wireType = 1 for field Matchers"},
		{snappy.Encode(nil, sized(nil, 1, []byte{1<<3 | 2})), "proto: wrong wireType = 2 for field StartTimestampMs"},
		{snappy.Encode(nil, make([]byte, limit+1)), "request entity too large"},
	} {
		_, err := prom.DecodeRead(c.body, limit)
		require.ErrorContains(t, err, c.says)
	}
}

// A restricted request reads what both the request and the restriction name.
func TestRestrict(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfN(rapid.StringN(1, 5, -1), 1, 5).Draw(t, "names")
		r, err := prom.DecodeRead(readBody(1, 2, matcher{notMatching, "__name__", "a"}, matcher{equal, "job", "x"}), limit)
		require.NoError(t, err)
		narrow, err := prom.DecodeRead(r.Restrict(names), limit)
		require.NoError(t, err)
		_, ok := narrow.Measurement()
		require.False(t, ok)
		for _, name := range append(names, "other") {
			require.Equal(t, r.Matches(name) && slices.Contains(names, name), narrow.Matches(name), "%q in %q", name, names)
		}
	})
}

func TestMergeReads(t *testing.T) {
	t.Parallel()
	of := func(name, job string) series {
		return series{[]label{{"__name__", name}, {"job", job}}, []sample{{1, 1}}}
	}
	bare := series{[]label{{"job", "x"}}, []sample{{2, 2}}}
	got, err := prom.MergeReads([][]byte{
		answerBody(of("a", "1"), of("a", "2"), bare, of("d", "1")), answerBody(), answerBody(of("b", "1"), of("c", "0"), of("e", "1")),
	}, limit)
	require.NoError(t, err)
	require.Equal(t, answerBody(of("a", "1"), of("a", "2"), bare, of("b", "1"), of("c", "0"), of("d", "1"), of("e", "1")), got)
	got, err = prom.MergeReads(nil, limit)
	require.NoError(t, err)
	require.Equal(t, answerBody(), got)
	_, err = prom.MergeReads([][]byte{answerBody(), []byte("noise")}, limit)
	require.ErrorContains(t, err, "answer 2 of 2: snappy: corrupt input")
	_, err = prom.MergeReads([][]byte{snappy.Encode(nil, sized(nil, 1, sized(nil, 1, []byte{1<<3 | 2, 9})))}, limit)
	require.ErrorContains(t, err, "answer 1 of 1: unexpected EOF")
}

// FuzzPayload decodes anything as every payload, compressed and not.
func FuzzPayload(f *testing.F) {
	f.Add(writeBody(series{[]label{{"__name__", "m"}, {"t", "v"}}, []sample{{1, 2}, {math.NaN(), 3}}}))
	f.Add(readBody(1, 2, matcher{equal, "__name__", "m"}, matcher{matching, "__name__", "m.*"}))
	f.Add(answerBody(series{[]label{{"__name__", "m"}}, []sample{{1, 2}}}))
	f.Add([]byte{9<<3 | 3, 1 << 3, 5, 9<<3 | 4})
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, body := range [][]byte{raw, snappy.Encode(nil, raw)} {
			w, err := prom.DecodeWrite(nil, body, limit)
			require.Equal(t, w.Points, strings.Count(string(w.Lines), "\n")-strings.Count(string(w.Lines), "\\\n"))
			if err != nil {
				require.Equal(t, prom.Write{}, w)
			}
			if r, err := prom.DecodeRead(body, limit); err == nil {
				again, err := prom.DecodeRead(r.Restrict([]string{"m", "n"}), 2*limit)
				require.NoError(t, err)
				require.Equal(t, r.Matches("m"), again.Matches("m"))
				require.False(t, again.Matches("o"))
			}
			if merged, err := prom.MergeReads([][]byte{body, body}, limit); err == nil {
				_, err = prom.MergeReads([][]byte{merged}, 2*limit+100)
				require.NoError(t, err)
			}
		}
	})
}

func BenchmarkDecodeWrite(b *testing.B) {
	const n = 5000
	var all []series
	for i := range n {
		all = append(all, series{
			[]label{{"__name__", "http_requests_total"}, {"code", "200"}, {"instance", fmt.Sprintf("host%d:9100", i)}, {"job", "node"}},
			[]sample{{float64(i), 1700000000000}},
		})
	}
	body := writeBody(all...)
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		w, err := prom.DecodeWrite(dst[:0], body, 64<<20)
		if err != nil || w.Points != n {
			b.Fatal(w.Points, err)
		}
		dst = w.Lines
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/point")
}
