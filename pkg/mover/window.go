package mover

import (
	"cmp"
	"slices"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
)

// windows returns the elementary windows of one retention policy: the spans
// between all boundaries of its shard groups that at least one group covers.
// Groups overlap after ALTER RETENTION POLICY … SHARD DURATION; a window under
// several groups is marked. What lies before the cutoff is expired; noCutoff
// means that nothing is.
func windows(groups []influx.ShardGroup, cutoff int64, hasCutoff bool) []operation.Window {
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
	if hasCutoff {
		edges = append(edges, edge{cutoff, 0})
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Compare(a.at, b.at) })
	var out []operation.Window
	covered, from := 0, int64(0)
	for _, e := range edges {
		if covered > 0 && e.at > from {
			out = append(out, operation.Window{
				From: from, To: e.at, Overlap: covered > 1,
				Expired: hasCutoff && e.at <= cutoff,
			})
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
