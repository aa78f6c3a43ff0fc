package mover

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
)

// TestCutByHistogram: the parts cover the slice once, hold what the buckets
// count, and none but a part of a single bucket is too large.
func TestCutByHistogram(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		width := rapid.Int64Range(1, 50).Draw(t, "width")
		s := operation.Slice{
			Database: "db", RetentionPolicy: "rp", Measurement: "m", From: rapid.SampledFrom([]int64{-1000, 0, 7, math.MinInt64 + 2}).Draw(t, "from"),
			Last: rapid.Bool().Draw(t, "last"), Overlap: rapid.Bool().Draw(t, "overlap"), Points: 5,
		}
		s.To = s.From + rapid.Int64Range(2, 2000).Draw(t, "length")
		var buckets []influx.Bucket
		var counted int64
		for at := s.From; at < s.To; at += width {
			if n := rapid.Int64Range(-10, 40).Draw(t, "rows"); n > 0 {
				buckets = append(buckets, influx.Bucket{From: at, Rows: n})
				counted += n
			}
		}
		limit := rapid.Int64Range(1, 60).Draw(t, "limit")
		parts := cutByHistogram(s, buckets, time.Duration(width), limit)
		covers(t, &s, parts)
		var points int64
		for i := range parts {
			points += parts[i].Points
			if parts[i].Points > limit {
				require.LessOrEqual(t, parts[i].To-parts[i].From, width)
			}
		}
		require.Equal(t, counted, points)

		rows := counted + rapid.Int64Range(1, 500).Draw(t, "more")
		first, last := s.From, s.To-1
		large := cutLarge(s, first, last, buckets, time.Duration(width), rows, limit)
		covers(t, &s, large)
		require.GreaterOrEqual(t, len(large), 2, "what is too large is always cut")
		sum := 0
		for _, b := range bundles(large, 5*limit/2) {
			require.NotEmpty(t, b)
			require.LessOrEqual(t, len(b), operation.MaxSlicesPerTask)
			sum += len(b)
		}
		require.Len(t, large, sum)
	})
}

// covers requires that parts cover the slice once and are like it otherwise.
func covers(t require.TestingT, s *operation.Slice, parts []operation.Slice) {
	at := s.From
	for i := range parts {
		p := &parts[i]
		require.Equal(t, at, p.From)
		require.Less(t, p.From, p.To)
		at = p.To
		require.Equal(t, s.Last && i == len(parts)-1, p.Last)
		require.Equal(t, [3]string{s.Database, s.RetentionPolicy, s.Measurement}, [3]string{p.Database, p.RetentionPolicy, p.Measurement})
		require.Equal(t, s.Overlap, p.Overlap)
	}
	require.Equal(t, s.To, at)
}

func TestHistogramWidthAtTheEndsOfTime(t *testing.T) {
	t.Parallel()
	require.Positive(t, histogramWidth(lineproto.MinTime, lineproto.MaxTime))
	require.EqualValues(t, 1, histogramWidth(5, 6))
}
