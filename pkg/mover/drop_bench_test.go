package mover_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/operation"
)

// benchLines are points of 5 fields and 3 tags, as the peers of this program were
// measured with.
func benchLines(measurement string, series, from, points int) string {
	var b strings.Builder
	for s := range series {
		for p := range points {
			i := s*points + p
			fmt.Fprintf(&b, "%s,host=server%02d,region=region-%d,rack=r%d bytes=%di,host_load=%d.5,idle=%d.25,ok=%t,temp=%d.125 %d\n",
				measurement, s, s%4, s%7, i*1021, i%97, i%100, i%3 == 0, i%1000, start+int64(from+p)*int64(10*time.Second))
		}
	}
	return b.String()
}

// benchSliceCut is about how many points the plan gives a slice.
const benchSliceCut = 25_000

// BenchmarkClear proves and drops 21 measurements of 50,000 points, and says how
// fast each is.
func BenchmarkClear(b *testing.B) {
	const measurements, series, points = 21, 50, 1000
	c := newClearEnv(b)
	for b.Loop() {
		b.StopTimer()
		c.both("CREATE DATABASE db", "", "")
		var units []operation.Slice
		for m := range measurements {
			name := fmt.Sprintf("m%d", m)
			for from := 0; from < points; from += 100 {
				c.both("", "", benchLines(name, series, from, 100))
			}
			s := operation.Slice{Database: "db", Measurement: name, From: start, To: start + int64(points)*int64(10*time.Second), Points: series * points}
			units = append(units, s.Split(series*points/benchSliceCut)...)
		}
		c.store(operation.Task{ID: "d", Phase: operation.PhaseDrop, Source: c.from, Destination: c.to, Slices: units})
		m := c.mover()
		b.StartTimer()

		// To prove is to be stopped before the first delete, each time.
		began := time.Now()
		proven, err := m.RunProofs(b.Context(), &job{env: c.env, id: "d"})
		require.NoError(b, err)
		proof := time.Since(began)
		require.EqualValues(b, measurements*series*points, proven)
		began = time.Now()
		require.NoError(b, m.RunClear(b.Context(), &job{env: c.env, id: "d"}, c.clearing))
		all := time.Since(began)
		require.EqualValues(b, proven, c.task("d").Points.Dropped)
		b.ReportMetric(float64(proven)/proof.Seconds(), "proven/s")
		b.ReportMetric(float64(proven)/all.Seconds(), "cleared/s")
		b.ReportMetric(float64(len(units))/(all-proof).Seconds(), "drops/s")
	}
}
