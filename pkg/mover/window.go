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
	type edge struct {
		at           int64
		source, dest int
	}
	edges := make([]edge, 0, 2*(len(source)+len(destination))+1)
	closed := false
	for _, g := range source {
		edges = append(edges, edge{at: g.From, source: 1}, edge{at: g.To, source: -1})
		closed = closed || g.ToInclusive
	}
	for _, g := range destination {
		edges = append(edges, edge{at: g.From, dest: 1}, edge{at: g.To, dest: -1})
	}
	if c.set {
		edges = append(edges, edge{at: c.at})
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Compare(a.at, b.at) })
	var out []operation.Window
	here, there, from := 0, 0, int64(0)
	for _, e := range edges {
		if here > 0 && e.at > from {
			out = append(out, operation.Window{
				From: from, To: e.at, Overlap: here > 1 || there > 1,
				Expired: c.set && e.at <= c.at,
			})
		}
		here, there = here+e.source, there+e.dest
		from = e.at
	}
	if n := len(out); n > 0 && closed {
		// Only the group that reaches the end of legal time is closed, and it is
		// the last.
		out[n-1].Last = true
	}
	return out
}
