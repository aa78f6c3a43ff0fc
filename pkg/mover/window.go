package mover

import (
	"cmp"
	"slices"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
)

// cutoff is the time before which retention no longer admits points.
type cutoff struct {
	at  int64
	set bool
}

// windows returns the elementary windows of one retention policy: the spans
// between all boundaries of shard groups that at least one group of the source
// covers. The boundaries of the destination count too, since its points are read
// for comparison. Groups of one end overlap after ALTER RETENTION POLICY … SHARD
// DURATION; a window under several of them is marked. What lies before the
// cutoff is expired.
func windows(source, destination []influx.ShardGroup, c cutoff) []operation.Window {
	whole := elementary(source, c)
	if len(destination) == 0 {
		return whole
	}
	var edges []int64
	for _, g := range destination {
		edges = append(edges, g.From, g.To)
	}
	slices.Sort(edges)
	edges = slices.Compact(edges)
	var out []operation.Window
	for _, w := range whole {
		out = append(out, cutAt(w, edges, destination)...)
	}
	return out
}

// elementary returns the windows of the source alone.
func elementary(groups []influx.ShardGroup, c cutoff) []operation.Window {
	type edge struct {
		at    int64
		delta int
	}
	edges := make([]edge, 0, 2*len(groups)+1)
	closed := false
	for _, g := range groups {
		edges = append(edges, edge{g.From, 1}, edge{g.To, -1})
		closed = closed || g.ToInclusive
	}
	if c.set {
		edges = append(edges, edge{c.at, 0})
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Compare(a.at, b.at) })
	var out []operation.Window
	covered, from := 0, int64(0)
	for _, e := range edges {
		if covered > 0 && e.at > from {
			out = append(out, operation.Window{From: from, To: e.at, Overlap: covered > 1, Expired: c.set && e.at <= c.at})
		}
		covered += e.delta
		from = e.at
	}
	if n := len(out); n > 0 && closed {
		// Only the group that reaches the end of legal time is closed, and it is
		// the last.
		out[n-1].Last = true
	}
	return out
}

// maxOwnerCuts bounds the boundaries of the destination that cut one window of
// the source: groups of an hour must not make a plan of a year enormous.
const maxOwnerCuts = 16

// cutAt cuts a window at the boundaries of the destination, which are sorted.
// With too many of them it stays whole and is marked as one under several groups,
// so that the types in it are checked before it is read.
func cutAt(w operation.Window, edges []int64, groups []influx.ShardGroup) []operation.Window {
	first, found := slices.BinarySearch(edges, w.From)
	if found {
		first++
	}
	last, _ := slices.BinarySearch(edges, w.To)
	inner := edges[first:max(first, last)]
	if len(inner) > maxOwnerCuts {
		w.Overlap = true
		return []operation.Window{w}
	}
	var out []operation.Window
	for from, i := w.From, 0; i <= len(inner); i++ {
		part := w
		part.From = from
		if i < len(inner) {
			part.To, part.Last = inner[i], false
		}
		covering := 0
		for _, g := range groups {
			if g.From <= part.From && part.To <= g.To {
				covering++
			}
		}
		part.Overlap = w.Overlap || covering > 1
		out = append(out, part)
		from = part.To
	}
	return out
}
