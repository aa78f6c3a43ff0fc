package planner

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/operation"
)

// TestNothingIsLostInABalance: copying loses no point anywhere and makes none up; a
// clear, at once or later, takes only what the owner holds.
func TestNothingIsLostInABalance(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 4).Draw(t, "places")
		owner := rapid.IntRange(0, n-1).Draw(t, "owner")
		g := &cohort{holders: rapid.IntRange(1, n).Draw(t, "holders"), clears: rapid.Bool().Draw(t, "clears"), names: []string{"m"}, database: "db"}
		for k := range n {
			g.at, g.stays = append(g.at, 10*k), append(g.stays, k == owner)
			if k != owner && k < g.holders {
				mutual := !g.clears && rapid.Bool().Draw(t, "mutual")
				g.ways = append(g.ways, way{from: k, to: owner, wave: k, mutual: mutual})
			}
		}
		var counted [][]int64
		for range rapid.IntRange(0, 5).Draw(t, "windows") {
			points := make([]int64, g.holders)
			for k := range points {
				points[k] = rapid.Int64Range(0, 9).Draw(t, "points")
			}
			counted = append(counted, points)
			g.grid = append(g.grid, gridWindow{weight: 1, moves: rapid.Bool().Draw(t, "moves")})
		}
		g.add(counted)
		sum := func(of []float64) (total float64) {
			for _, n := range of {
				total += n
			}
			return total
		}
		for k := range g.at {
			require.LessOrEqual(t, g.left[k], g.after[k])
			switch {
			case g.clears:
				require.LessOrEqual(t, g.after[k], g.before[k])
			default:
				require.GreaterOrEqual(t, g.after[k], g.before[k])
			}
		}
		require.GreaterOrEqual(t, g.after[owner], g.before[owner], "the owner keeps everything")
		require.InDelta(t, g.after[owner], g.left[owner], 0.001)
		// No window has more anywhere than it had somewhere before.
		for i, points := range counted {
			full, now := make([]int64, n), make([]int64, n)
			copy(full, points)
			g.outcome(full, now, g.grid[i].moves)
			most := int64(0)
			for _, p := range full {
				most = max(most, p)
			}
			held := int64(0)
			for k := range now {
				require.LessOrEqual(t, now[k], most)
				held = max(held, now[k])
			}
			require.Equal(t, most, held, "what is held somewhere is held somewhere afterwards")
			if !g.grid[i].moves {
				require.Equal(t, full, now)
			}
		}
		total := tallied([]*cohort{g})
		require.InDelta(t, sum(g.before), float64(sumOf(total.before)), 0.001)
		require.InDelta(t, sum(g.after), float64(sumOf(total.after)), 0.001)
	})
}

func sumOf(all map[int]map[string]float64) (total int64) {
	for _, points := range all {
		total += sum(points)
	}
	return total
}

// TestWindowsAreDividedAtAPeriod: together the parts are the whole, and only what lies
// in the period moves.
func TestWindowsAreDividedAtAPeriod(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := operation.Window{From: rapid.Int64Range(0, 50).Draw(t, "from"), To: rapid.Int64Range(51, 100).Draw(t, "to"), Last: rapid.Bool().Draw(t, "last"), Expired: rapid.Bool().Draw(t, "expired")}
		var p operation.Period
		if rapid.Bool().Draw(t, "begins") {
			p.From = new(rapid.Int64Range(0, 120).Draw(t, "period from"))
		}
		if rapid.Bool().Draw(t, "ends") {
			p.To = new(rapid.Int64Range(0, 120).Draw(t, "period to"))
		}
		parts := divided("rp", []operation.Window{w}, p)
		for at := range int64(131) {
			covers := func(w operation.Window) bool { return w.From <= at && (at < w.To || w.Last && at == w.To) }
			moves, covered := false, 0
			for _, part := range parts {
				if covers(part.Window) {
					covered++
					moves = part.moves
				}
			}
			inside := (p.From == nil || *p.From <= at) && (p.To == nil || at < *p.To)
			if !covers(w) {
				require.Zero(t, covered, "%d: %+v", at, parts)
				continue
			}
			require.Equal(t, 1, covered, "%d of %+v: %+v", at, w, parts)
			require.Equal(t, inside && !w.Expired, moves, "%d of %+v: %+v", at, w, parts)
		}
	})
}
