package planner

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

// windows returns the elementary windows of what is held: the spans between all
// boundaries of shard groups that at least one group covers. Each list of groups
// is of one retention policy of one server; where several of one list cover a
// window (after ALTER RETENTION POLICY … SHARD DURATION), it is marked. The
// boundaries of others count too, since points are read there for comparison.
// What lies before the cutoff is expired.
func windows(held, others [][]influx.ShardGroup, c cutoff) []operation.Window {
	all := elementary(held, c)
	for _, groups := range others {
		if len(groups) == 0 {
			continue
		}
		var edges []int64
		for _, g := range groups {
			edges = append(edges, g.From, g.To)
		}
		slices.Sort(edges)
		edges = slices.Compact(edges)
		var cut []operation.Window
		for _, w := range all {
			cut = append(cut, cutAt(w, edges, groups)...)
		}
		all = cut
	}
	return all
}

// elementary returns the windows of what is held alone.
func elementary(held [][]influx.ShardGroup, c cutoff) []operation.Window {
	type edge struct {
		at    int64
		list  int
		delta int
	}
	var edges []edge
	closed := false
	for list, groups := range held {
		for _, g := range groups {
			edges = append(edges, edge{g.From, list, 1}, edge{g.To, list, -1})
			closed = closed || g.ToInclusive
		}
	}
	if c.set && len(held) > 0 {
		edges = append(edges, edge{at: c.at})
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Compare(a.at, b.at) })
	var out []operation.Window
	covering := make([]int, len(held))
	from := int64(0)
	for _, e := range edges {
		if deepest := slices.Max(covering); deepest > 0 && e.at > from {
			out = append(out, operation.Window{From: from, To: e.at, Overlap: deepest > 1, Expired: c.set && e.at <= c.at})
		}
		covering[e.list] += e.delta
		from = e.at
	}
	if n := len(out); n > 0 && closed {
		// Only a group that reaches the end of legal time is closed, and it is the
		// last.
		out[n-1].Last = true
	}
	return out
}

// within returns the parts of windows that lie in a period.
func within(all []operation.Window, p operation.Period) []operation.Window {
	if p.From == nil && p.To == nil {
		return all
	}
	var out []operation.Window
	for _, w := range all {
		if p.From != nil {
			w.From = max(w.From, *p.From)
		}
		if p.To != nil && *p.To <= w.To {
			w.To, w.Last = *p.To, false
		}
		if w.From < w.To || w.Last && w.From == w.To {
			out = append(out, w)
		}
	}
	return out
}

// maxOwnerCuts bounds the boundaries of the destination that cut one window of
// the source: groups of an hour must not make a plan of a year enormous.
const maxOwnerCuts = 16

// cutAt cuts a window at boundaries, which are sorted, of further groups. With too many of them it stays whole and is marked as one under several groups,
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
