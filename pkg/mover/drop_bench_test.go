package mover_test

import (
	"fmt"
	"slices"
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
		j := &job{env: c.env, id: "d"}
		var proving, dropping time.Duration
		stored := time.Now()
		j.before = func(t *operation.Task) error {
			// A checkpoint comes after each group's proof, and after its deletes.
			since := time.Since(stored)
			if slices.ContainsFunc(t.Checkpoint, func(e operation.Evidence) bool { return e.State == operation.SliceProven }) {
				proving += since
			} else {
				dropping += since
			}
			stored = time.Now()
			return nil
		}
		b.StartTimer()
		require.NoError(b, m.Run(b.Context(), j))
		const all = measurements * series * points
		require.EqualValues(b, all, c.task("d").Points.Dropped)
		b.ReportMetric(all/proving.Seconds(), "proven/s")
		b.ReportMetric(float64(len(units))/dropping.Seconds(), "drops/s")
		b.ReportMetric(all/(proving+dropping).Seconds(), "cleared/s")
	}
}
