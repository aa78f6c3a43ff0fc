package ingest

import (
	"context"
	"time"
)

// laneKey names a lane of a backend.
type laneKey struct {
	db, rp     string
	quarantine bool
}

// lane sends what is written to one database and retention policy of a backend, one
// batch at a time. It has a goroutine while it has work.
type lane struct {
	laneKey
	ingest  *Ingest
	backend *backend

	// queue[head:] are the parts that wait; Ingest's mutex guards them.
	queue   []*part
	head    int
	running bool

	// Of the goroutine.
	group  []*part
	slices [][]byte
	timer  *time.Timer
}

// mostIdleLanes is how many lanes of a backend are kept that have no work: clients
// choose the names.
const mostIdleLanes = 256

// mostGrouped bounds the parts that travel together.
const mostGrouped = 4096

// share is which part of the budget one backend's lanes may hold.
const share = 4

// enqueue puts parts of a write into their lanes, in one step: so every lane has
// the requests in the same order.
func (g *Ingest) enqueue(w *write, parts []*part) error {
	quarantine := w.suspect || g.known.quarantined(w.client)
	if quarantine {
		g.stats.quarantined.Add(1)
	}
	n := int32(len(parts))
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return unavailable("this process is ending")
	}
	for _, p := range parts {
		// An empty queue takes a request of any size.
		if b := p.target.backend; b.parts > 0 && (b.parts >= g.options.MaxQueued || b.bytes+int64(len(p.lines.data)) > g.options.MaxInFlight/share) {
			g.stats.overload.Add(1)
			return overloaded("too many requests wait for backend " + b.url)
		}
	}
	w.pending.Store(n)
	w.users.Add(n)
	for _, p := range parts {
		b := p.target.backend
		b.parts++
		b.bytes += int64(len(p.lines.data))
		g.laneOf(b, laneKey{w.db, w.rp, quarantine}).push(p)
	}
	return nil
}

// laneOf returns a lane; mu is held.
func (g *Ingest) laneOf(b *backend, key laneKey) *lane {
	l := b.lanes[key]
	if l == nil {
		if len(b.lanes) >= mostIdleLanes {
			for other, idle := range b.lanes {
				if !idle.running {
					delete(b.lanes, other)
				}
			}
		}
		l = &lane{laneKey: key, ingest: g, backend: b}
		b.lanes[key] = l
	}
	return l
}

// push adds a part; mu is held.
func (l *lane) push(p *part) {
	l.queue = append(l.queue, p)
	if !l.running {
		l.running = true
		l.ingest.lanes.Go(l.run)
	}
}

// run sends until nothing waits any more.
func (l *lane) run() {
	for l.take() {
		begun := time.Now()
		l.deliver(l.group)
		clear(l.group)
		if l.quarantine && l.besides() {
			l.pause(nil, min(time.Since(begun), longestYield), nil)
		}
	}
}

// longestYield is how long a quarantine lane leaves its backend to the lane beside
// it after a request, at most; otherwise for as long as that took.
const longestYield = 50 * time.Millisecond

// besides reports whether the lane that a quarantine lane stands beside has work.
func (l *lane) besides() bool {
	l.ingest.mu.Lock()
	defer l.ingest.mu.Unlock()
	normal := l.backend.lanes[laneKey{db: l.db, rp: l.rp}]
	return normal != nil && normal.running
}

// take takes what waits as the next group; false if nothing does.
func (l *lane) take() bool {
	l.ingest.mu.Lock()
	defer l.ingest.mu.Unlock()
	l.group = l.group[:0]
	bytes := 0
	for l.head < len(l.queue) {
		p := l.queue[l.head]
		if n := len(l.group); n > 0 && (l.quarantine || n >= mostGrouped || bytes+len(p.lines.data) > l.ingest.options.MaxGroup) {
			break
		}
		l.group = append(l.group, p)
		bytes += len(p.lines.data)
		l.queue[l.head] = nil
		l.head++
	}
	if l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
	} else if l.head > len(l.queue)/2 {
		n := copy(l.queue, l.queue[l.head:])
		clear(l.queue[n:])
		l.queue, l.head = l.queue[:n], 0
	}
	l.running = len(l.group) > 0
	return l.running
}

// finish gives parts their answer.
func (l *lane) finish(parts []*part, o outcome) {
	if len(parts) == 0 {
		return
	}
	bytes := int64(0)
	for _, p := range parts {
		bytes += int64(len(p.lines.data))
	}
	l.ingest.mu.Lock()
	l.backend.parts -= len(parts)
	l.backend.bytes -= bytes
	l.ingest.mu.Unlock()
	for _, p := range parts {
		w := p.write
		p.outcome = o
		if w.pending.Add(-1) == 0 {
			w.answered <- struct{}{} // there is room: it is told once
		}
		w.leave()
	}
}

// expire takes out the parts whose requests have no time left: nobody waits for
// them. The others keep their order.
func (l *lane) expire(parts []*part) []*part {
	now := time.Now()
	kept := parts[:0]
	for _, p := range parts {
		if p.write.deadline.After(now) {
			kept = append(kept, p)
			continue
		}
		l.finish([]*part{p}, outcome{state: lost, reason: "backend " + l.backend.url + " could not be written to in time"})
	}
	clear(parts[len(kept):])
	return kept
}

// pause waits for a while, or for what comes first; false when the service ends.
func (l *lane) pause(parts []*part, d time.Duration, wake <-chan struct{}) bool {
	for _, p := range parts {
		d = min(d, time.Until(p.write.deadline))
	}
	if l.timer == nil {
		l.timer = time.NewTimer(d)
	} else {
		l.timer.Reset(d)
	}
	defer l.timer.Stop()
	select {
	case <-wake:
		return true
	case <-l.timer.C:
		return true
	case <-l.ingest.ctx.Done():
		return false
	}
}

// gate holds the sends of a database back while a statement runs that must not meet
// any.
type gate struct {
	paused, sending int
	idle, resumed   chan struct{}
}

// Quiesce returns when nothing of a database is being sent to any backend, or put
// among its hints, by this process; from then on writes of it wait, until resume is
// called. Requests wait for as long as their time allows.
func (g *Ingest) Quiesce(ctx context.Context, db string) (resume func(), err error) {
	g.mu.Lock()
	t := g.gate(db)
	if t.paused == 0 {
		t.resumed = make(chan struct{})
	}
	t.paused++
	var idle chan struct{}
	if t.sending > 0 {
		if t.idle == nil {
			t.idle = make(chan struct{})
		}
		idle = t.idle
	}
	g.mu.Unlock()
	resumed := false
	resume = func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if resumed {
			return
		}
		resumed = true
		if t.paused--; t.paused == 0 {
			close(t.resumed)
			g.closeGate(db, t)
		}
	}
	if idle == nil {
		return resume, nil
	}
	select {
	case <-idle:
		return resume, nil
	case <-ctx.Done():
		resume()
		return nil, context.Cause(ctx)
	}
}

// gate returns the gate of a database; mu is held.
func (g *Ingest) gate(db string) *gate {
	t := g.gates[db]
	if t == nil {
		t = &gate{}
		g.gates[db] = t
	}
	return t
}

// closeGate forgets a gate that nobody uses; mu is held.
func (g *Ingest) closeGate(db string, t *gate) {
	if t.paused == 0 && t.sending == 0 {
		delete(g.gates, db)
	}
}

// enter is asked before something is sent; a channel says that it has to wait.
func (g *Ingest) enter(db string) (wait <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.gate(db)
	if t.paused > 0 {
		return t.resumed
	}
	t.sending++
	return nil
}

// exit says that what was entered is over.
func (g *Ingest) exit(db string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.gates[db]
	if t.sending--; t.sending > 0 {
		return
	}
	if t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
	g.closeGate(db, t)
}
