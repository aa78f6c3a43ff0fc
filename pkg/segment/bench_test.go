package segment_test

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/dataset"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/segment"
)

// benchPoint is a point with everything that is needed to write it.
type benchPoint struct {
	series *lineproto.Series
	fresh  bool
	fields []string
	ns     int64
	values []lineproto.Value
}

// randomFloats is the hardest to compress: 10 series of one float with all its digits,
// one point in ten seconds.
func randomFloats(points int) map[string][]benchPoint {
	r := rand.New(rand.NewPCG(1, 2))
	var out []benchPoint
	for h := range 10 {
		s := &lineproto.Series{Measurement: "measurement", Tags: []lineproto.Tag{{Key: "host", Value: fmt.Sprintf("server%02d", h)}, {Key: "region", Value: "eu"}}}
		fields := []string{"value"}
		for i := range points / 10 {
			out = append(out, benchPoint{s, i == 0, fields, dataset.FirstTime + int64(i)*10_000_000_000, []lineproto.Value{lineproto.FloatValue(r.Float64())}})
		}
	}
	return map[string][]benchPoint{"measurement": out}
}

// points are those of a set by measurement, in the order in which InfluxDB answers them.
func points(t testing.TB, set *dataset.Set) map[string][]benchPoint {
	t.Helper()
	files, err := dataset.Files()
	require.NoError(t, err)
	out := map[string][]benchPoint{}
	for p, err := range set.Points(files) {
		require.NoError(t, err)
		b := benchPoint{series: p.Series, fields: slices.Clone(p.Fields), ns: p.Time}
		for _, v := range p.Values {
			b.values = append(b.values, v.Clone())
		}
		out[p.Series.Measurement] = append(out[p.Series.Measurement], b)
	}
	for _, m := range out {
		slices.SortStableFunc(m, func(a, b benchPoint) int {
			return cmp.Or(lineproto.CompareTags(a.series.Tags, b.series.Tags), cmp.Compare(a.ns, b.ns))
		})
		for i := range m {
			m[i].fresh = i == 0 || !m[i].series.Equal(m[i-1].series) || !slices.Equal(m[i].fields, m[i-1].fields)
		}
	}
	return out
}

// archive writes each measurement as one window.
func archive(t testing.TB, w *segment.Writer, measurements map[string][]benchPoint, out func() io.Writer) (sum segment.Summary) {
	for name, m := range measurements {
		if err := w.Reset(segment.Datasource{Database: "db", RetentionPolicy: "autogen", Measurement: name}, allTime()); err != nil {
			t.Fatal(err)
		}
		if err := w.Begin(out()); err != nil {
			t.Fatal(err)
		}
		for i := range m {
			p := &m[i]
			if p.fresh {
				if err := w.SetSeries(p.series, p.fields); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Row(p.ns, p.values); err != nil {
				t.Fatal(err)
			}
		}
		part, err := w.End(true)
		if err != nil {
			t.Fatal(err)
		}
		sum.Points, sum.Size, sum.Raw = sum.Points+part.Points, sum.Size+part.Size, sum.Raw+part.Raw
	}
	return sum
}

// The public sets become smaller than InfluxDB makes them, and random floats not larger
// than 1.6 times as large. InfluxDB's figures were taken from the TSM files of 1.8.3
// after a snapshot: bytes a point.
func TestSizes(t *testing.T) {
	t.Parallel()
	w, err := segment.NewWriter()
	require.NoError(t, err)
	check := func(name string, tsm, most float64, m map[string][]benchPoint) {
		sum := archive(t, w, m, func() io.Writer { return io.Discard })
		size := float64(sum.Size) / float64(sum.Points)
		t.Logf("%-15s %7d points %7.2f bytes each, %.2f × InfluxDB's", name, sum.Points, size, size/tsm)
		require.LessOrEqual(t, size, most*tsm, name)
	}
	tsm := map[string]float64{
		"daily weather": 29.03, "hourly normals": 16.67, "CO2 since 1958": 18.40, "employment": 13.37, "electricity": 26.37,
		"bird strikes": 904.78, "earthquakes": 241.35,
	}
	for _, set := range dataset.Public() {
		check(set.Name, tsm[set.Name], 1.2, points(t, &set))
	}
	check("random floats", 7.29, 1.6, randomFloats(100_000))
}

func BenchmarkWriter(b *testing.B) {
	metrics := dataset.Metrics(1, 200_000)
	for name, m := range map[string]map[string][]benchPoint{"random": randomFloats(200_000), "sensors": points(b, &metrics)} {
		b.Run(name, func(b *testing.B) {
			w, err := segment.NewWriter()
			require.NoError(b, err)
			b.ReportAllocs()
			var sum segment.Summary
			for b.Loop() {
				sum = archive(b, w, m, func() io.Writer { return io.Discard })
			}
			perSecond(b, &sum)
		})
	}
}

func perSecond(b *testing.B, sum *segment.Summary) {
	b.Helper()
	seconds := b.Elapsed().Seconds() / float64(b.N)
	b.ReportMetric(float64(sum.Points)/seconds, "points/s")
	b.ReportMetric(float64(sum.Raw)/1e6/seconds, "MB/s")
	b.ReportMetric(float64(sum.Size)/float64(sum.Points), "B/point")
}

func BenchmarkReader(b *testing.B) {
	metrics := dataset.Metrics(1, 200_000)
	w, err := segment.NewWriter()
	require.NoError(b, err)
	var file bytes.Buffer
	sum := archive(b, w, points(b, &metrics), func() io.Writer { return &file })
	b.Run("verify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := segment.Verify(bytes.NewReader(file.Bytes()), nil); err != nil {
				b.Fatal(err)
			}
		}
		perSecond(b, &sum)
	})
	b.Run("rows", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := readAll(file.Bytes()); err != nil {
				b.Fatal(err)
			}
		}
		perSecond(b, &sum)
	})
	b.Run("lines", func(b *testing.B) {
		r, err := segment.Open(bytes.NewReader(file.Bytes()), int64(file.Len()))
		require.NoError(b, err)
		defer r.Close()
		for b.Loop() {
			for i := range r.Frames() {
				if _, err := r.Lines(i); err != nil {
					b.Fatal(err)
				}
			}
		}
		perSecond(b, &sum)
	})
}
