package influx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/lineproto"
)

// The shape of the points in all benchmarks: 5 fields, 3 tags, as the peers of
// this program were measured with.
const (
	benchSeries = 50
	benchRows   = 1000 // of a series
)

var benchFields = []string{"bytes", "host_load", "idle", "ok", "temp"}

func benchTags(i int) []lineproto.Tag {
	return []lineproto.Tag{
		{Key: "host", Value: fmt.Sprintf("server%02d", i)},
		{Key: "region", Value: fmt.Sprintf("region-%d", i%4)},
		{Key: "rack", Value: fmt.Sprintf("r%d", i%7)},
	}
}

func benchRow(series, row int) []any {
	i := series*benchRows + row
	return []any{
		1_600_000_000_000_000_000 + int64(row)*10_000_000_000,
		int64(i * 1021), float64(i%977) / 10, float64(i%100) + 0.25, i%3 == 0, 20 + float64(i%1000)/100,
	}
}

// benchAnswer is a whole answer, in chunks as the server sends them.
func benchAnswer() []byte {
	w := newWire()
	for s := range benchSeries {
		series := wireSeries{name: "measurement", tags: benchTags(s), columns: append([]string{"time"}, benchFields...)}
		for r := range benchRows {
			series.rows = append(series.rows, benchRow(s, r))
		}
		w.result(0, s < benchSeries-1, series)
	}
	return w.bytes()
}

// benchBatch is one batch of lines, as the mover writes them.
func benchBatch(rows int) []byte {
	d := newDecoder(bytes.NewReader(benchAnswer()), 1)
	var enc lineproto.Encoder
	var out []byte
	for range rows {
		if d.next() != nil {
			break
		}
		if d.fresh {
			d.fresh = false
			_ = enc.SetSeries(&d.current, d.columns[1:])
		}
		out, _ = enc.AppendRow(out, int64(d.cells[0].Num), d.cells[1:])
	}
	return out
}

func BenchmarkDecode(b *testing.B) {
	answer := benchAnswer()
	b.ReportAllocs()
	for n := 0; n < b.N; {
		d := newDecoder(bytes.NewReader(answer), 1)
		for d.next() == nil {
			n++
		}
	}
	b.ReportMetric(float64(len(answer))/(benchSeries*benchRows), "wire-B/point")
}

// BenchmarkDecodeEncode is what a mover does for each point, without the
// network.
func BenchmarkDecodeEncode(b *testing.B) {
	answer := benchAnswer()
	var enc lineproto.Encoder
	var batch []byte
	b.ReportAllocs()
	for n := 0; n < b.N; {
		d := newDecoder(bytes.NewReader(answer), 1)
		for d.next() == nil {
			n++
			if d.fresh {
				d.fresh = false
				require.NoError(b, enc.SetSeries(&d.current, d.columns[1:]))
			}
			var err error
			if batch, err = enc.AppendRow(batch, int64(d.cells[0].Num), d.cells[1:]); err != nil {
				b.Fatal(err)
			}
			if len(batch) > 500_000 {
				batch = batch[:0]
			}
		}
	}
}

// BenchmarkGzip compares what compressing a batch costs a point and what is left
// of it.
func BenchmarkGzip(b *testing.B) {
	const rows = 5000
	batch := benchBatch(rows)
	levels := []struct {
		name  string
		level int
	}{
		{"stateless", gzip.StatelessCompression},
		{"huffman", gzip.HuffmanOnly},
		{"level1", gzip.BestSpeed},
		{"level3", 3},
		{"level6", 6},
	}
	for _, l := range levels {
		b.Run(l.name, func(b *testing.B) {
			var buf bytes.Buffer
			w, err := gzip.NewWriterLevel(&buf, l.level)
			require.NoError(b, err)
			b.SetBytes(int64(len(batch)))
			for b.Loop() {
				buf.Reset()
				w.Reset(&buf)
				_, _ = w.Write(batch)
				_ = w.Close()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/point")
			b.ReportMetric(float64(buf.Len())/float64(len(batch)), "ratio")
		})
	}
}

// benchServer is a real server with measurements of benchSeries × benchRows
// points.
func benchServer(b *testing.B, measurements int) (*Client, []Selection) {
	b.Helper()
	s := influxtest.Start(b)
	c, err := New(Endpoint{URL: s.URL()}, Options{})
	require.NoError(b, err)
	b.Cleanup(c.Close)
	ctx := b.Context()
	require.NoError(b, c.CreateDatabase(ctx, "bench"))
	sels := make([]Selection, measurements)
	lines := benchBatch(benchSeries * benchRows)
	for i := range sels {
		name := fmt.Sprintf("m%010d", i) // as long as the name it replaces
		sels[i] = Selection{
			Database: "bench", RetentionPolicy: "autogen", Measurement: name,
			Window: Window{From: lineproto.MinTime, To: lineproto.MaxTime, Last: true},
		}
		require.NoError(b, c.Write(ctx, "bench", "autogen", bytes.ReplaceAll(lines, []byte("measurement"), []byte(name))))
	}
	return c, sels
}

func drain(ctx context.Context, c *Client, sels []Selection, row func(*Stream) error) (n int, err error) {
	st, err := c.Read(ctx, sels)
	if err != nil {
		return 0, err
	}
	defer st.Close()
	for st.Next() {
		n++
		if row != nil {
			if err := row(st); err != nil {
				return n, err
			}
		}
	}
	return n, st.Err()
}

// BenchmarkRead streams points of a real server, two readers at a time.
func BenchmarkRead(b *testing.B) {
	c, sels := benchServer(b, 20)
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	for n < b.N {
		counts := make(chan int, 2)
		for half := range 2 {
			go func() {
				n, err := drain(b.Context(), c, sels[half*10:half*10+10], nil)
				if err != nil && !errors.Is(err, io.EOF) {
					b.Error(err)
				}
				counts <- n
			}()
		}
		n += <-counts + <-counts
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "points/s")
}

// BenchmarkWrite writes prepared batches of 5,000 lines, plain and compressed.
func BenchmarkWrite(b *testing.B) {
	for _, compressed := range []bool{false, true} {
		b.Run(fmt.Sprintf("gzip=%t", compressed), func(b *testing.B) {
			s := influxtest.Start(b)
			c, err := New(Endpoint{URL: s.URL()}, Options{Gzip: compressed})
			require.NoError(b, err)
			defer c.Close()
			require.NoError(b, c.CreateDatabase(b.Context(), "bench"))
			const rows = 5000
			batch := benchBatch(rows)
			b.ResetTimer()
			n := 0
			for ; n < b.N; n += rows {
				if err := c.Write(b.Context(), "bench", "autogen", batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "points/s")
		})
	}
}
