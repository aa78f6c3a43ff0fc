package mover

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
)

// TestTheMedianPartsThePoints: both halves have a point, whatever the buckets say.
func TestTheMedianPartsThePoints(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.Int64Range(-1e18, 1e18).Draw(t, "first")
		last := first + rapid.Int64Range(1, 1e15).Draw(t, "length")
		var buckets []influx.Bucket
		for range rapid.IntRange(0, 20).Draw(t, "n") {
			buckets = append(buckets, influx.Bucket{From: rapid.Int64Range(first-10, last+10).Draw(t, "from"), Rows: rapid.Int64Range(0, 100).Draw(t, "rows")})
		}
		at := median(first, last, buckets)
		require.Greater(t, at, first)
		require.LessOrEqual(t, at, last)
	})
}

// TestHalvesCoverTheirSlice and come to the floor.
func TestHalvesCoverTheirSlice(t *testing.T) {
	t.Parallel()
	tr := &transfer{Config: Config{}.withDefaults()}
	rapid.Check(t, func(t *rapid.T) {
		s := operation.Slice{From: rapid.Int64Range(-1e18, 1e18).Draw(t, "from"), Last: rapid.Bool().Draw(t, "last"), Points: rapid.Int64Range(0, 1e6).Draw(t, "points")}
		s.To = s.From + rapid.Int64Range(1, 1e17).Draw(t, "length")
		steps := 0
		for {
			parts := tr.halvesByTime(&s)
			if len(parts) == 1 {
				break
			}
			require.Len(t, parts, 2)
			require.Equal(t, s.From, parts[0].From)
			require.Equal(t, parts[0].To, parts[1].From)
			require.Equal(t, s.To, parts[1].To)
			require.Equal(t, s.Last, parts[1].Last)
			require.False(t, parts[0].Last)
			require.Equal(t, s.Points, parts[0].Points+parts[1].Points)
			s = parts[rapid.IntRange(0, 1).Draw(t, "half")]
			steps++
			require.Equal(t, steps, s.Halved)
		}
		require.True(t, windowOf(&s) < 2*uint64(time.Second) || steps == maxHalvings)
	})
}

// TestAWalkCoversItsSlice: part after part, whatever is halved on the way and however
// fast the parts are.
func TestAWalkCoversItsSlice(t *testing.T) {
	t.Parallel()
	tr := &transfer{Config: Config{}.withDefaults()}
	rapid.Check(t, func(t *rapid.T) {
		s := operation.Slice{From: rapid.Int64Range(-1e15, 1e15).Draw(t, "from"), Last: rapid.Bool().Draw(t, "last")}
		s.To = s.From + rapid.Int64Range(int64(time.Second), 1e12).Draw(t, "length")
		w := tr.newWalk(&s, rapid.IntRange(0, 3).Draw(t, "halvings"))
		at := s.From
		var parts int64
		for !w.done {
			if rapid.Bool().Draw(t, "narrow") {
				w.slow = time.Second
				w.narrow()
			}
			part := w.part(w.slice, w.at)
			require.Equal(t, at, part.From)
			require.Greater(t, part.To, part.From)
			require.LessOrEqual(t, part.To, s.To)
			at = part.To
			w.add(&part, &difference{source: 1}, time.Duration(rapid.IntRange(0, 1).Draw(t, "took"))*time.Second)
			parts++
		}
		require.Equal(t, s.To, at)
		require.Equal(t, parts, w.sum.source)
	})
}

func TestTimeoutsAreBounded(t *testing.T) {
	t.Parallel()
	tr := &transfer{}
	for i := range 3 * operation.MaxTaskTimeouts {
		require.Equal(t, 1, tr.countTimeout([]int{i}))
	}
	require.Len(t, tr.timeouts, operation.MaxTaskTimeouts)
	require.Equal(t, 2, tr.countTimeout([]int{3*operation.MaxTaskTimeouts - 1}))
	require.True(t, aboutSlices(context.Background(), &slowError{errors.New("why")}))
}
