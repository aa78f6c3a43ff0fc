package operation_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/operation"
)

// TestADurationSaysWhatItIsFrom: from earlier operations, or from assumptions, and what bounds it.
func TestADurationSaysWhatItIsFrom(t *testing.T) {
	t.Parallel()
	totals := operation.PlanTotals{Points: 10_000_000, Slices: 100, Tasks: 40, Bytes: 500_000_000}
	for name, c := range map[string]struct {
		pace      operation.Pace
		low, high float64
		basis     []string
	}{
		"nothing": {operation.Pace{}, 0, 0, []string{"nothing to do"}},
		"assumed": {
			operation.Pace{Kind: operation.KindRebalance, Totals: totals, Slots: 2},
			17, 176,
			[]string{"no rebalance of this cluster has ended yet", "2 tasks at once (2 live task slots)"},
		},
		"no worker": {
			operation.Pace{Kind: operation.KindRebalance, Totals: totals},
			33.9, 346,
			[]string{"no worker is live, one slot is assumed"},
		},
		"workers": {
			operation.Pace{Kind: operation.KindRebalance, Totals: totals, Slots: 100, Sources: 2, PerSource: 1},
			17, 176,
			[]string{"1 at each of 2 sources"},
		},
		"past": {
			operation.Pace{Kind: operation.KindResync, Totals: totals, Slots: 2, Past: []operation.Past{{Work: 1_000_000, Seconds: 10}, {Work: 1_000_000, Seconds: 5}}},
			35.3, 155,
			[]string{"the last 2 operations of kind resync that ended, which handled 100000 to 200000 points a second"},
		},
		"limit": {
			operation.Pace{Kind: operation.KindResync, Totals: totals, Slots: 2, Limits: operation.Limits{PointsPerSecond: new(int64(10_000))}},
			1000, 3005,
			[]string{"a limit of 10000 points a second makes it 1000 seconds at least"},
		},
		"backend": {
			operation.Pace{Kind: operation.KindResync, Totals: totals, Slots: 2, Bounded: []operation.Bounded{{URL: "http://a", Points: 4_000_000, Limits: operation.Limits{PointsPerSecond: new(int64(10_000))}}}},
			400, 1205,
			[]string{"a limit of 10000 points a second at http://a makes it 400 seconds at least"},
		},
		"bytes": {
			operation.Pace{Kind: operation.KindResync, Totals: totals, Slots: 2, Limits: operation.Limits{BytesPerSecond: new(int64(1_000_000)), SlotsPerBackend: new(1)}},
			500, 1505,
			[]string{"a limit of 1000000 bytes a second makes it 500 seconds at least"},
		},
	} {
		d := c.pace.Duration()
		require.InDelta(t, c.low, d.LowSeconds, 1, name)
		require.InDelta(t, c.high, d.HighSeconds, 1, name)
		for _, basis := range c.basis {
			require.Contains(t, d.Basis, basis, name)
		}
	}
}

// TestADurationIsARange: never empty, never turned round, and longer for more points,
// fewer slots and lower limits.
func TestADurationIsARange(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := operation.Pace{
			Kind: rapid.SampledFrom([]operation.Kind{operation.KindRebalance, operation.KindClear}).Draw(t, "kind"),
			Totals: operation.PlanTotals{
				Points: rapid.Int64Range(0, 1<<40).Draw(t, "points"), Slices: rapid.IntRange(1, 1<<20).Draw(t, "slices"),
				Tasks: rapid.IntRange(1, 1<<12).Draw(t, "tasks"), Bytes: rapid.Int64Range(0, 1<<46).Draw(t, "bytes"),
			},
			Sources: rapid.IntRange(0, 9).Draw(t, "sources"), PerSource: rapid.IntRange(0, 3).Draw(t, "per source"), Slots: rapid.IntRange(0, 99).Draw(t, "slots"),
		}
		for range rapid.IntRange(0, 7).Draw(t, "past") {
			p.Past = append(p.Past, operation.Past{
				Work: rapid.Int64Range(operation.PastWork, 1<<40).Draw(t, "work"), Seconds: rapid.Float64Range(operation.PastSeconds, 1e6).Draw(t, "seconds"),
			})
		}
		d := p.Duration()
		require.Positive(t, d.LowSeconds)
		require.Less(t, d.LowSeconds, d.HighSeconds)
		require.NotEmpty(t, d.Basis)
		more, fewer, slow := p, p, p
		more.Totals.Points *= 2
		fewer.Slots = max(p.Slots/2, 1)
		slow.Limits.PointsPerSecond = new(int64(1000))
		for _, o := range []operation.Pace{more, fewer, slow} {
			if longer := o.Duration(); p.Slots > 0 || o.Slots == p.Slots {
				require.GreaterOrEqual(t, longer.LowSeconds, d.LowSeconds)
				require.GreaterOrEqual(t, longer.HighSeconds, d.HighSeconds)
			}
		}
	})
}
