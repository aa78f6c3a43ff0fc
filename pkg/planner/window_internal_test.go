package planner

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
)

func group(from, to int64) influx.ShardGroup { return influx.ShardGroup{From: from, To: to} }

func TestWindows(t *testing.T) {
	t.Parallel()
	const lo, hi = lineproto.MinTime, lineproto.MaxTime
	whole := influx.ShardGroup{From: lo, To: hi, ToInclusive: true}
	for _, c := range []struct {
		name                string
		source, destination []influx.ShardGroup
		cutoff              cutoff
		want                []operation.Window
	}{
		{name: "no group"},
		{name: "a cutoff alone", cutoff: cutoff{5, true}},
		{
			name: "neighbours and a gap", source: []influx.ShardGroup{group(0, 10), group(10, 20), group(30, 40)},
			want: []operation.Window{{From: 0, To: 10}, {From: 10, To: 20}, {From: 30, To: 40}},
		},
		{
			name: "a longer group over shorter ones", source: []influx.ShardGroup{group(10, 20), group(0, 70), group(40, 50)},
			want: []operation.Window{
				{From: 0, To: 10},
				{From: 10, To: 20, Overlap: true},
				{From: 20, To: 40},
				{From: 40, To: 50, Overlap: true},
				{From: 50, To: 70},
			},
		},
		{
			name: "three deep, with one end", source: []influx.ShardGroup{group(0, 30), group(10, 30), group(20, 30)},
			want: []operation.Window{{From: 0, To: 10}, {From: 10, To: 20, Overlap: true}, {From: 20, To: 30, Overlap: true}},
		},
		{
			name: "the ends of time", source: []influx.ShardGroup{group(lo, 0), whole},
			want: []operation.Window{{From: lo, To: 0, Overlap: true}, {From: 0, To: hi, Last: true}},
		},
		{
			name: "a cutoff inside", source: []influx.ShardGroup{group(0, 10), group(10, 20)}, cutoff: cutoff{14, true},
			want: []operation.Window{{From: 0, To: 10, Expired: true}, {From: 10, To: 14, Expired: true}, {From: 14, To: 20}},
		},
		{
			name: "a cutoff on a boundary", source: []influx.ShardGroup{group(0, 10), group(10, 20)}, cutoff: cutoff{10, true},
			want: []operation.Window{{From: 0, To: 10, Expired: true}, {From: 10, To: 20}},
		},
		{
			name: "a cutoff in the last window", source: []influx.ShardGroup{whole}, cutoff: cutoff{7, true},
			want: []operation.Window{{From: lo, To: 7, Expired: true}, {From: 7, To: hi, Last: true}},
		},
		{
			name: "no cutoff although there is a time", source: []influx.ShardGroup{group(0, 10)}, cutoff: cutoff{at: 5},
			want: []operation.Window{{From: 0, To: 10}},
		},
		{
			name: "boundaries of the destination", source: []influx.ShardGroup{group(0, 70)}, destination: []influx.ShardGroup{group(10, 20), group(15, 25), group(90, 99)},
			want: []operation.Window{
				{From: 0, To: 10}, {From: 10, To: 15}, {From: 15, To: 20, Overlap: true}, {From: 20, To: 25}, {From: 25, To: 70},
			},
		},
		{
			name: "a destination closed where the source is not", source: []influx.ShardGroup{group(0, 10)}, destination: []influx.ShardGroup{whole},
			want: []operation.Window{{From: 0, To: 10}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, windows([][]influx.ShardGroup{c.source}, [][]influx.ShardGroup{c.destination}, c.cutoff))
		})
	}
}

// TestManyBoundariesOfTheDestination do not make many windows; the types in the
// one window are checked instead.
func TestManyBoundariesOfTheDestination(t *testing.T) {
	t.Parallel()
	var hours []influx.ShardGroup
	for h := range int64(1000) {
		hours = append(hours, group(10*h, 10*h+10))
	}
	source := []influx.ShardGroup{group(0, 100), group(100, 9000)}
	got := windows([][]influx.ShardGroup{source}, [][]influx.ShardGroup{hours}, cutoff{})
	require.Len(t, got, 11)
	require.Equal(t, operation.Window{From: 90, To: 100}, got[9])
	require.Equal(t, operation.Window{From: 100, To: 9000, Overlap: true}, got[10])
}

// TestWindowsProperty: each time that a group of the source covers is in exactly
// one window, no other is, and no window crosses any boundary.
func TestWindowsProperty(t *testing.T) {
	t.Parallel()
	anyGroups := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) influx.ShardGroup {
		from := rapid.Int64Range(0, 30).Draw(t, "from")
		return group(from, from+rapid.Int64Range(1, 12).Draw(t, "width"))
	}), 0, 6)
	rapid.Check(t, func(t *rapid.T) {
		source, destination := anyGroups.Draw(t, "source"), anyGroups.Draw(t, "destination")
		c := cutoff{at: rapid.Int64Range(-2, 45).Draw(t, "cutoff"), set: rapid.Bool().Draw(t, "set")}
		got := windows([][]influx.ShardGroup{source}, [][]influx.ShardGroup{destination}, c)
		covering := func(groups []influx.ShardGroup, at int64) (n int) {
			for _, g := range groups {
				if g.From <= at && at < g.To {
					n++
				}
			}
			return n
		}
		for at := int64(-3); at < 50; at++ {
			here, there := covering(source, at), covering(destination, at)
			in := []operation.Window{}
			for _, w := range got {
				if w.From <= at && at < w.To {
					in = append(in, w)
				}
			}
			if here == 0 {
				require.Empty(t, in, "time %d", at)
				continue
			}
			require.Len(t, in, 1, "time %d", at)
			require.Equal(t, here > 1 || there > 1, in[0].Overlap, "time %d", at)
			require.Equal(t, c.set && at < c.at, in[0].Expired, "time %d", at)
			for _, g := range slices.Concat(source, destination) {
				require.False(t, in[0].From < g.From && g.From < in[0].To || in[0].From < g.To && g.To < in[0].To, "%+v crosses %+v", in[0], g)
			}
		}
	})
}
