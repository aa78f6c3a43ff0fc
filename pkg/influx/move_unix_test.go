//go:build unix

package influx

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/lineproto"
)

// BenchmarkMove copies between two real servers without any engine: two readers,
// two writers, batches of 5,000 lines. It is what a mover can reach at best, and
// what its parts cost: our-cpu is the time of this process for a point, rss the
// most memory it ever had, the benchmark's own included.
func BenchmarkMove(b *testing.B) {
	for _, compressed := range []bool{false, true} {
		b.Run(fmt.Sprintf("gzip=%t", compressed), func(b *testing.B) {
			from, sels := benchServer(b, 20)
			s := influxtest.Start(b)
			to, err := New(Endpoint{URL: s.URL()}, Options{Gzip: compressed})
			require.NoError(b, err)
			defer to.Close()
			require.NoError(b, to.CreateDatabase(b.Context(), "bench"))
			before := cpuTime(b)
			b.ResetTimer()
			n := 0
			for n < b.N {
				n += moveOnce(b, from, to, sels)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "points/s")
			b.ReportMetric(float64(cpuTime(b)-before)/float64(n), "our-cpu-ns/point")
			var u syscall.Rusage
			require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
			b.ReportMetric(float64(u.Maxrss)/1024, "rss-MiB")
		})
	}
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func moveOnce(b *testing.B, from, to *Client, sels []Selection) (n int) {
	b.Helper()
	const batchRows = 5000
	full, empty := make(chan []byte, 2), make(chan []byte, 6)
	for range cap(empty) {
		empty <- nil
	}
	var readers, writers sync.WaitGroup
	for range 2 {
		writers.Go(func() {
			for batch := range full {
				if err := to.Write(b.Context(), "bench", "autogen", batch); err != nil {
					b.Error(err)
				}
				empty <- batch[:0]
			}
		})
	}
	counts := make([]int, 2)
	for half := range counts {
		readers.Go(func() {
			var enc lineproto.Encoder
			batch, rows := <-empty, 0
			send := func() {
				full <- batch
				batch, rows = <-empty, 0
			}
			part := sels[half*len(sels)/2 : (half+1)*len(sels)/2]
			total, err := drain(b.Context(), from, part, func(st *Stream) (err error) {
				if st.NewSeries() {
					if err := enc.SetSeries(st.Series(), st.Fields()); err != nil {
						return err
					}
				}
				batch, err = enc.AppendRow(batch, st.Time(), st.Values())
				if rows++; rows == batchRows {
					send()
				}
				return err
			})
			if err != nil {
				b.Error(err)
			}
			counts[half] = total
			send()
		})
	}
	readers.Wait()
	close(full)
	writers.Wait()
	return counts[0] + counts[1]
}
