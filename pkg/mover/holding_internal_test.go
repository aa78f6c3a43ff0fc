package mover

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
)

func TestMeets(t *testing.T) {
	t.Parallel()
	const second = int64(1e9)
	group := func(from, to int64) influx.ShardGroup {
		return influx.ShardGroup{From: from, To: to, ToInclusive: to == lineproto.MaxTime}
	}
	window := func(from, to int64) *operation.Slice {
		return &operation.Slice{From: from, To: to, Last: to == lineproto.MaxTime}
	}
	for _, c := range []struct {
		group         influx.ShardGroup
		window        *operation.Slice
		exactly, near bool
	}{
		{group(0, 10), window(0, 10), true, true},
		{group(0, 10), window(9, 20), true, true},
		{group(0, 10), window(10, 20), false, true}, // it may end later than it says
		{group(0, 10), window(10+second, 20+second), false, true},
		{group(0, 10), window(11+second, 20+second), false, false},
		{group(10, 20), window(0, 10), false, false},
		{group(10, 20), window(0, 11), true, true},
		{group(0, lineproto.MaxTime), window(lineproto.MaxTime, lineproto.MaxTime), true, true},
		{group(lineproto.MinTime, 0), window(lineproto.MaxTime, lineproto.MaxTime), false, false},
		{group(lineproto.MinTime, lineproto.MinTime+1), window(math.MinInt64, math.MinInt64+2), false, false},
		{group(lineproto.MinTime, lineproto.MinTime+1), window(math.MinInt64, math.MaxInt64), true, true},
		{group(lineproto.MaxTime-1, lineproto.MaxTime), window(lineproto.MinTime, lineproto.MinTime+1), false, false},
	} {
		require.Equal(t, c.exactly, meets(&c.group, c.window, 0), "%+v %+v", c.group, c.window)
		require.Equal(t, c.near, meets(&c.group, c.window, groupSlack), "%+v %+v", c.group, c.window)
	}
}

func TestCutExpired(t *testing.T) {
	t.Parallel()
	s := operation.Slice{Database: "d", From: 10, To: 20, Last: true}
	expired := func(from, to int64, last bool) operation.Slice {
		return operation.Slice{Database: "d", From: from, To: to, Last: last, Expired: true}
	}
	live := func(from int64) operation.Slice {
		return operation.Slice{Database: "d", From: from, To: 20, Last: true}
	}
	require.Equal(t, []operation.Slice{s}, cutExpired(s, cutoff{}))
	require.Equal(t, []operation.Slice{s}, cutExpired(s, cutoff{at: 10, set: true}))
	require.Equal(t, []operation.Slice{expired(10, 15, false), live(15)}, cutExpired(s, cutoff{at: 15, set: true}))
	require.Equal(t, []operation.Slice{expired(10, 20, false), live(20)}, cutExpired(s, cutoff{at: 20, set: true}))
	require.Equal(t, []operation.Slice{expired(10, 20, true)}, cutExpired(s, cutoff{at: 21, set: true}))
	s.Last = false
	require.Equal(t, []operation.Slice{expired(10, 20, false)}, cutExpired(s, cutoff{at: 20, set: true}))
}

func TestCensusAtLeast(t *testing.T) {
	t.Parallel()
	fields := func(n ...int64) *census {
		c := &census{fields: map[uint64]int64{}}
		for i, n := range n {
			c.fields[uint64(i)] = n
			c.sum += uint64(i+7) * uint64(n)
			c.values += n
		}
		return c
	}
	before := fields(3, 5)
	require.True(t, fields(3, 5).atLeast(before))
	require.True(t, fields(3, 6, 1).atLeast(before))
	require.False(t, fields(2, 6).atLeast(before), "more of one does not make up for another")
	require.False(t, fields(3).atLeast(before))
	unknown := *fields(3, 6)
	unknown.fields = nil
	require.False(t, unknown.atLeast(before), "not known field by field")
	require.True(t, (&census{sum: before.sum, values: before.values}).atLeast(before))
}
