package operation_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/operation"
)

// anyTime draws a time, the ends of an int64 among the likely ones.
func anyTime() *rapid.Generator[int64] {
	return rapid.OneOf(
		rapid.Int64(),
		rapid.Int64Range(-100, 100),
		rapid.SampledFrom([]int64{math.MinInt64, math.MinInt64 + 1, math.MinInt64 + 2, 0, math.MaxInt64 - 2, math.MaxInt64 - 1, math.MaxInt64}),
	)
}

// anyWindow draws a window that is not empty.
func anyWindow(t *rapid.T) operation.Window {
	a, b := anyTime().Draw(t, "a"), anyTime().Draw(t, "b")
	if a > b {
		a, b = b, a
	}
	if a == b {
		if b == math.MaxInt64 {
			a--
		} else {
			b++
		}
	}
	return operation.Window{
		From: a, To: b, Last: rapid.Bool().Draw(t, "last"),
		Overlap: rapid.Bool().Draw(t, "overlap"), Expired: rapid.Bool().Draw(t, "expired"),
	}
}

// requireCover checks that parts cover the window once, in order, without a gap.
func requireCover(t require.TestingT, w operation.Window, parts []operation.Slice) {
	require.NotEmpty(t, parts)
	require.Equal(t, w.From, parts[0].From)
	for i, p := range parts {
		require.Less(t, p.From, p.To, "part %d is empty", i)
		if i > 0 {
			require.Equal(t, parts[i-1].To, p.From)
			require.False(t, parts[i-1].Last, "only the last part is closed")
		}
		require.Equal(t, w.Overlap, p.Overlap)
		require.Equal(t, w.Expired, p.Expired)
	}
	last := parts[len(parts)-1]
	require.Equal(t, w.To, last.To)
	require.Equal(t, w.Last, last.Last)
}

func TestSplitCoversAnyWindow(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := anyWindow(t)
		n := rapid.OneOf(rapid.IntRange(-3, 40), rapid.SampledFrom([]int{math.MinInt})).Draw(t, "n")
		s := operation.Slice{From: w.From, To: w.To, Last: w.Last, Overlap: w.Overlap, Expired: w.Expired, Points: rapid.Int64Range(0, 1<<50).Draw(t, "points")}
		parts := s.Split(n)
		requireCover(t, w, parts)
		require.LessOrEqual(t, len(parts), max(n, 1))
		var points int64
		narrow, wide := uint64(math.MaxUint64), uint64(0)
		for _, p := range parts {
			points += p.Points
			narrow, wide = min(narrow, uint64(p.To)-uint64(p.From)), max(wide, uint64(p.To)-uint64(p.From))
		}
		require.Equal(t, s.Points, points)
		require.LessOrEqual(t, wide-narrow, uint64(1), "parts are of equal time")
	})
}

func TestSplitOfMoreThanThereIs(t *testing.T) {
	t.Parallel()
	s := operation.Slice{From: 5, To: 8, Points: 10}
	require.Len(t, s.Split(math.MaxInt), 3)
	whole := operation.Slice{From: math.MinInt64, To: math.MaxInt64, Last: true, Points: 3}
	require.Equal(t, []operation.Slice{
		{From: math.MinInt64, To: -1, Points: 2},
		{From: -1, To: math.MaxInt64, Last: true, Points: 1},
	}, whole.Split(2))
}

func TestCutCoversTheWindow(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := operation.Candidate{
			Database: "db", RetentionPolicy: "rp", Measurement: "m", Window: anyWindow(t),
			Points: rapid.Int64Range(-1, 2000).Draw(t, "points"),
			First:  anyTime().Draw(t, "first"), Last: anyTime().Draw(t, "last"), Looked: rapid.Bool().Draw(t, "looked"),
		}
		limit := rapid.OneOf(rapid.Int64Range(0, 500), rapid.SampledFrom([]int64{math.MaxInt64})).Draw(t, "limit")
		parts := operation.Cut(c, limit)
		requireCover(t, c.Window, parts)
		if limit <= 0 || c.Window.Expired || c.Points <= limit {
			require.Len(t, parts, 1)
			return
		}
		require.LessOrEqual(t, int64(len(parts)), (c.Points-1)/limit+1)
	})
}

func TestCutIsBounded(t *testing.T) {
	t.Parallel()
	w := operation.Window{From: math.MinInt64, To: math.MaxInt64, Last: true}
	for _, limit := range []int64{1, 1000, math.MaxInt64 - 1} {
		parts := operation.Cut(operation.Candidate{Window: w, Points: math.MaxInt64}, limit)
		requireCover(t, w, parts)
		require.LessOrEqual(t, len(parts), 100_000)
	}
}

func TestCutFollowsThePoints(t *testing.T) {
	t.Parallel()
	parts := operation.Cut(operation.Candidate{
		Window: operation.Window{From: 0, To: 1_000_000}, Points: 400, First: 600, Last: 999, Looked: true,
	}, 100)
	require.Equal(t, []operation.Slice{
		{From: 0, To: 700, Points: 100},
		{From: 700, To: 800, Points: 100},
		{From: 800, To: 900, Points: 100},
		{From: 900, To: 1_000_000, Points: 100},
	}, parts)
}
