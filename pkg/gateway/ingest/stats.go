package ingest

import "sync/atomic"

// Stats are the counters of the write path, since it was made, and what it holds
// now.
type Stats struct {
	// Requests were begun, Overloaded of them refused at once since a bound was
	// reached, Quarantined of them sent beside the others.
	Requests, Overloaded, Quarantined uint64
	// Groups were sent, of Parts requests and Bytes together; what is sent again
	// counts again. Split of them were refused and sent again in halves.
	Groups, Parts, Bytes, Split uint64
	// Points were stored by backends, Hinted put among hints, Refused in parts that
	// a backend refused, Lost in parts that no backend and no hints have taken.
	Points, Hinted, Refused, Lost uint64
	// InFlight is how many bytes are held.
	InFlight int64
	// Backends are those that something waits for, by URL.
	Backends map[string]Queue
}

// Queue is what waits for a backend, or is under way to it.
type Queue struct {
	Requests int
	Bytes    int64
}

type counters struct {
	requests, overload, quarantined, groups, parts, bytes, split atomic.Uint64
	points, hinted, refused, lost                                atomic.Uint64
}

// sent counts a group.
func (c *counters) sent(parts, size int) {
	c.groups.Add(1)
	c.parts.Add(uint64(parts))
	c.bytes.Add(uint64(size))
}

// count counts what has become of parts.
func (c *counters) count(o outcome, parts []*part) {
	n := uint64(0)
	for _, p := range parts {
		n += uint64(p.points)
	}
	switch o.state {
	case stored:
		c.points.Add(n)
	case hinted:
		c.hinted.Add(n)
	case refused:
		c.refused.Add(n)
	default:
		c.lost.Add(n)
	}
}

// Stats returns the counters.
func (g *Ingest) Stats() Stats {
	c := &g.stats
	s := Stats{
		Requests: c.requests.Load(), Overloaded: c.overload.Load(), Quarantined: c.quarantined.Load(),
		Groups: c.groups.Load(), Parts: c.parts.Load(), Bytes: c.bytes.Load(), Split: c.split.Load(),
		Points: c.points.Load(), Hinted: c.hinted.Load(), Refused: c.refused.Load(), Lost: c.lost.Load(),
		InFlight: g.budget.taken.Load(), Backends: map[string]Queue{},
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for url, b := range g.backends {
		if b.parts > 0 {
			s.Backends[url] = Queue{Requests: b.parts, Bytes: b.bytes}
		}
	}
	return s
}
