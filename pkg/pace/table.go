package pace

import (
	"slices"
	"time"

	"ringmaster/pkg/operation"
)

const (
	// silence is for how long a pass may ask nothing before it counts as gone.
	silence = 3 * time.Second
	// gathering is how long a new table gives slots only to those who say that they
	// have them: another table has given them before.
	gathering = 2 * time.Second
	// retryMost bounds when it is asked again, so that a changed limit takes effect
	// soon for those who wait, too.
	retryMost = 250 * time.Millisecond
	// idle is when a limit that nobody asked for is forgotten.
	idle = 10 * time.Second
)

// Table decides who may send how much when, for all processes together. It lives in
// the memory of one of them, and ends with it; those who wait ask the next one. Time
// is given to it and does not go back. It is for one goroutine.
type Table struct {
	began   time.Time
	swept   time.Time
	passes  map[string]*pass
	buckets map[bucketKey]*bucket
	arrived uint64
}

// pass is one attempt at a task, as far as the table knows of it.
type pass struct {
	id      string
	work    Work
	seen    time.Time
	arrived uint64
	// gates are the slots it needs; given says that it has them.
	gates   []gate
	given   uint64 // when it was given them, in order; 0: not
	tickets map[uint64]*ticket
}

// ticket is a charge that was asked for.
type ticket struct {
	pass string
	// open counts the limits that it waits for.
	open int
	seen time.Time
}

type bucketKey struct {
	backend   string
	operation string
	unit      unit
}

// gate is a limit on slots.
type gate struct {
	backend, operation string
	limit              int
}

func (g gate) key() gate { g.limit = 0; return g }

// NewTable returns a table of which nobody has asked anything yet.
func NewTable(now time.Time) *Table {
	return &Table{began: now, swept: now, passes: map[string]*pass{}, buckets: map[bucketKey]*bucket{}}
}

// Ask answers a question by the limits that apply to its work at this moment.
func (t *Table) Ask(now time.Time, a *Ask, by Applied) Answer {
	t.sweep(now)
	if a.Left {
		t.forget(a.PassID)
		return Answer{Slots: true}
	}
	p := t.pass(now, a)
	t.drop(p, a.Drop)
	p.gates = gates(&a.Work, by)
	if why := t.slots(now, p, a.Held); why != nil {
		return Answer{RetryMillis: millis(retryMost), Why: why}
	}
	answer := Answer{Slots: true, Granted: a.Ticket == 0}
	applied := t.apply(now, &a.Work, by)
	if a.Ticket != 0 {
		answer.Granted, answer.RetryMillis, answer.Why = t.grant(now, p, a, applied)
	}
	for _, l := range applied {
		l.bucket.asked[p.id] = now
		share := l.bucket.share(now)
		if l.key.unit == unitPoints {
			answer.MaxPoints = least(answer.MaxPoints, share)
		} else {
			answer.MaxBytes = least(answer.MaxBytes, share)
		}
	}
	return answer
}

// least is the smaller of a bound, 0 for none, and another.
func least(bound, other int64) int64 {
	if bound == 0 {
		return other
	}
	return min(bound, other)
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// pass returns the pass that asks.
func (t *Table) pass(now time.Time, a *Ask) *pass {
	p, ok := t.passes[a.PassID]
	if !ok {
		t.arrived++
		p = &pass{id: a.PassID, arrived: t.arrived, tickets: map[uint64]*ticket{}}
		t.passes[a.PassID] = p
	}
	p.work, p.seen = a.Work, now
	return p
}

// applied is a limit on points or bytes with what a charge counts for it.
type applied struct {
	key    bucketKey
	bucket *bucket
	of     func(*Charge) int64
}

// apply brings the buckets up to the limits that apply, and returns them.
func (t *Table) apply(now time.Time, w *Work, by Applied) []applied {
	var out []applied
	add := func(key bucketKey, limit *int64, of func(*Charge) int64) {
		b := t.buckets[key]
		switch {
		case limit == nil && b == nil:
			return
		case limit == nil:
			b.lift()
			delete(t.buckets, key)
			return
		case b == nil:
			b = newBucket(now, *limit, Why{Backend: key.backend, OfOperation: key.operation != "", Unit: key.unit, Limit: *limit})
			t.buckets[key] = b
		default:
			b.set(now, *limit)
			if b.sharing(now) == 0 {
				b.saved = 0 // it was not stalled, but idle
			}
		}
		out = append(out, applied{key, b, of})
	}
	both := func(backend, operation string, l *operation.Limits, of func(*Charge) *Amount) {
		add(bucketKey{backend, operation, unitPoints}, l.PointsPerSecond, func(c *Charge) int64 { return of(c).Points })
		add(bucketKey{backend, operation, unitBytes}, l.BytesPerSecond, func(c *Charge) int64 { return of(c).Bytes })
	}
	both("", w.OperationID, &by.Operation, func(c *Charge) *Amount { return &c.Operation })
	both(w.Source, "", &by.Source, func(c *Charge) *Amount { return &c.Source })
	if w.Destination != w.Source {
		both(w.Destination, "", &by.Destination, func(c *Charge) *Amount { return &c.Destination })
	}
	return out
}

// grant puts a ticket in line, once, and answers whether its turn has come.
func (t *Table) grant(now time.Time, p *pass, a *Ask, limits []applied) (granted bool, retry float64, why *Why) {
	k, ok := p.tickets[a.Ticket]
	if !ok {
		k = &ticket{pass: p.id}
		p.tickets[a.Ticket] = k
		for _, l := range limits {
			if amount := l.of(&a.Charge); amount > 0 {
				l.bucket.line(now, k, amount)
			}
		}
	}
	k.seen = now
	var longest time.Duration
	for _, l := range limits {
		l.bucket.advance(now)
		if d := l.bucket.wait(k); d > longest || d > 0 && why == nil {
			longest = d
			w := l.bucket.why
			w.Used, w.Passes = int64(l.bucket.meter.perSecond(now)), l.bucket.sharing(now)
			why = &w
		}
	}
	if k.open <= 0 {
		return true, 0, nil
	}
	return false, millis(max(min(longest, retryMost), time.Millisecond)), why
}

// drop takes a ticket out of everything. What it was given already by some of its
// limits is not given back.
func (t *Table) drop(p *pass, number uint64) {
	k, ok := p.tickets[number]
	if !ok {
		return
	}
	delete(p.tickets, number)
	if k.open <= 0 {
		return
	}
	for _, b := range t.buckets {
		b.leave(func(o *ticket) bool { return o == k })
	}
}

// gates are the limits on slots that apply to a piece of work.
func gates(w *Work, by Applied) []gate {
	var out []gate
	for _, backend := range []string{w.Source, w.Destination} {
		if n := by.Operation.SlotsPerBackend; n != nil {
			out = append(out, gate{backend, w.OperationID, *n})
		}
	}
	if n := by.Source.SlotsPerBackend; n != nil {
		out = append(out, gate{w.Source, "", *n})
	}
	if n := by.Destination.SlotsPerBackend; n != nil {
		out = append(out, gate{w.Destination, "", *n})
	}
	slices.SortFunc(out, func(a, b gate) int {
		if a.backend != b.backend {
			return cmpString(a.backend, b.backend)
		}
		return cmpString(a.operation, b.operation)
	})
	return slices.CompactFunc(out, func(a, b gate) bool { return a.key() == b.key() })
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// slots returns nil when a pass may work, else what it waits for. A pass keeps the
// slots that it was given; when a limit becomes smaller, those wait that were given
// theirs last. Of those who wait, the first in line gets what becomes free.
func (t *Table) slots(now time.Time, p *pass, held bool) *Why {
	if len(p.gates) == 0 {
		p.give(t)
		return nil
	}
	if held && p.given == 0 && now.Sub(t.began) < gathering {
		p.give(t) // by the table before this one
	}
	if p.given != 0 {
		for _, g := range p.gates {
			if before := t.users(g, func(o *pass) bool { return o.given < p.given }); before >= g.limit {
				p.given = 0
				return t.full(g, before)
			}
		}
		return nil
	}
	if now.Sub(t.began) >= gathering {
		t.giveOut()
	}
	if p.given != 0 {
		return nil
	}
	for _, g := range p.gates {
		if used := t.users(g, func(*pass) bool { return true }); used >= g.limit {
			return t.full(g, used)
		}
	}
	g := p.gates[0]
	return t.full(g, t.users(g, func(*pass) bool { return true }))
}

func (p *pass) give(t *Table) {
	if p.given == 0 {
		t.arrived++
		p.given = t.arrived
	}
}

func (t *Table) full(g gate, used int) *Why {
	return &Why{Backend: g.backend, OfOperation: g.operation != "", Unit: unitSlots, Limit: int64(g.limit), Used: int64(used)}
}

// users counts the passes of some kind that have slots at a gate.
func (t *Table) users(g gate, which func(*pass) bool) int {
	n := 0
	for _, o := range t.passes {
		if o.given == 0 || g.operation != "" && o.work.OperationID != g.operation || o.work.Source != g.backend && o.work.Destination != g.backend {
			continue
		}
		if which(o) {
			n++
		}
	}
	return n
}

// giveOut gives the slots that are free to those who wait, in the order in which
// they came.
func (t *Table) giveOut() {
	var waiting []*pass
	for _, p := range t.passes {
		if p.given == 0 {
			waiting = append(waiting, p)
		}
	}
	slices.SortFunc(waiting, func(a, b *pass) int { return int(int64(a.arrived) - int64(b.arrived)) })
	all := func(*pass) bool { return true }
	for _, p := range waiting {
		if !slices.ContainsFunc(p.gates, func(g gate) bool { return t.users(g, all) >= g.limit }) {
			p.give(t)
		}
	}
}

// sweep forgets those who have gone and what nobody asks for.
func (t *Table) sweep(now time.Time) {
	if now.Sub(t.swept) < silence/4 {
		return
	}
	t.swept = now
	for id, p := range t.passes {
		if now.Sub(p.seen) > silence {
			t.forget(id)
			continue
		}
		for n, k := range p.tickets {
			if now.Sub(k.seen) > silence {
				t.drop(p, n)
			}
		}
	}
	for key, b := range t.buckets {
		b.advance(now)
		if len(b.queue) == 0 && b.level >= 0 && b.sharing(now) == 0 && now.Sub(b.meter.began) > idle {
			delete(t.buckets, key)
		}
	}
}

// forget takes a pass out of everything.
func (t *Table) forget(id string) {
	if _, ok := t.passes[id]; !ok {
		return
	}
	for _, b := range t.buckets {
		delete(b.asked, id)
		b.leave(func(k *ticket) bool { return k.pass == id })
	}
	delete(t.passes, id)
}
