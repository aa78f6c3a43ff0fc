// Package pace keeps work within limits: those that people set, which one process
// grants to all (Table), and those that a backend sets by answering 429 or 503, or
// slowly (each process by itself). Whoever works takes what a batch counts for
// before it is sent, and waits there, with what it waits for shown.
package pace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/operation"
)

// Waiter shows what somebody waits for, and that they still do.
type Waiter interface {
	Alive()
	Wait(w *operation.Wait)
}

// Asker asks the process that grants; see bus.Bus.Ask.
type Asker interface {
	Ask(ctx context.Context, subject string, question []byte) ([]byte, error)
}

// Options make a Pacer. Without Asker and Book only backends that fail slow it down.
type Options struct {
	Asker Asker
	Book  *Book
	// NewID names passes; they must be unique among all processes.
	NewID func() string
	Now   func() time.Time
}

// Pacer paces the work of one process. It is safe for concurrent use; a nil one
// paces nothing.
type Pacer struct {
	options Options

	mu        sync.Mutex
	governors map[string]*governor
}

// New returns a pacer.
func New(o Options) *Pacer {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Pacer{options: o, governors: map[string]*governor{}}
}

// limited reports whether limits can apply at all.
func (p *Pacer) limited() bool { return p.options.Asker != nil && p.options.Book != nil }

// Observe tells how a backend has answered a request of this process.
func (p *Pacer) Observe(backend string, a Answered) {
	if p == nil {
		return
	}
	now := p.options.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.governor(backend).observe(now, a)
}

// governor is that of a backend; mu is held.
func (p *Pacer) governor(backend string) *governor {
	g, ok := p.governors[backend]
	if !ok {
		g = &governor{}
		p.governors[backend] = g
	}
	return g
}

// held is what a backend that answers badly is slowed down to.
type held struct {
	wait  time.Duration
	most  int64
	shown operation.Wait
}

// backOff takes points from a backend's bound.
func (p *Pacer) backOff(backend string, points int64) held {
	if points <= 0 {
		return held{}
	}
	now := p.options.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.governor(backend)
	h := held{wait: g.wait(now, points), most: g.most()}
	if h.wait <= 0 {
		return h
	}
	h.shown = operation.Wait{Gate: "backoff", Backend: backend, Measured: g.why, Limit: perSecond(int64(g.rate), unitPoints) + ", rising", Since: g.since.UTC()}
	if d := g.until.Sub(now); d > 0 {
		h.shown.Limit = fmt.Sprintf("nothing for %s, as the backend asks", d.Round(time.Second))
	}
	return h
}

// Pass is one attempt at a task. It may be used by several goroutines.
type Pass struct {
	pacer *Pacer
	work  Work
	id    string
	sign  *sign
	stop  func()

	mu sync.Mutex
	// given says that the pass has its slots, asked that the granting process knows
	// of it; ticket is the last one.
	given, asked bool
	ticket       uint64
	// maxPoints and maxBytes bound the next batch, by the last answer; slowed does
	// by what a backend answers. 0 is no bound.
	maxPoints, maxBytes, slowed int64
}

// Begin begins the work of a task, and waits until it may take slots at both
// backends. End must be called. A nil pass, of a nil pacer, paces nothing.
func (p *Pacer) Begin(ctx context.Context, op *operation.Operation, w Work, waiter Waiter) (*Pass, error) {
	if p == nil {
		return nil, nil
	}
	s := &Pass{pacer: p, work: w, sign: &sign{waiter: waiter, now: p.options.Now}, stop: func() {}}
	if !p.limited() {
		return s, nil
	}
	s.id = p.options.NewID()
	p.options.Book.Seed(op)
	if err := s.obtain(ctx, nil, 1); err != nil {
		s.End()
		return nil, err
	}
	renewing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var done sync.WaitGroup
	done.Go(func() { s.renew(renewing) })
	s.stop = func() { cancel(); done.Wait() }
	return s, nil
}

// renewEvery is how often a pass says that it is there; see silence.
const renewEvery = time.Second

// renew keeps the slots while the task does something else than send.
func (s *Pass) renew(ctx context.Context) {
	ticker := time.NewTicker(renewEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		s.sign.settle()
		by, err := s.pacer.options.Book.Applied(ctx, &s.work)
		if err == nil && !by.None() {
			// Whether it still has its slots it hears with the next batch.
			_, _ = s.ask(ctx, Ask{})
		}
	}
}

// leaveTimeout bounds how long the end of a pass takes to say so; unsaid it is
// noticed a little later.
const leaveTimeout = 200 * time.Millisecond

// End ends the pass: what it has taken is free for others.
func (s *Pass) End() {
	if s == nil {
		return
	}
	s.stop()
	s.mu.Lock()
	asked := s.asked
	s.mu.Unlock()
	if !asked {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	_, _ = s.ask(ctx, Ask{Left: true})
}

// ErrSmaller says that a batch is to be divided, as Points and Bytes say.
var ErrSmaller = errors.New("more than limits admit at once")

// Take waits until a batch may be sent, or what has been read may be followed by
// more. A batch of several parts that was filled before a limit became as small as it
// is now is ErrSmaller: nothing has been taken.
func (s *Pass) Take(ctx context.Context, c Charge, parts int) error {
	if s == nil {
		return nil
	}
	if parts > 1 && s.tooLarge(&c) {
		return ErrSmaller
	}
	began := s.pacer.options.Now()
	if err := s.awaitBackends(ctx, &c, began); err != nil {
		return err
	}
	if s.pacer.limited() {
		if err := s.obtain(ctx, &c, parts); err != nil {
			return err
		}
	}
	s.sign.admit()
	s.sign.settle()
	return nil
}

// awaitBackends waits for what the answers of the backends themselves admit.
func (s *Pass) awaitBackends(ctx context.Context, c *Charge, began time.Time) error {
	var most int64
	for _, b := range []struct {
		backend string
		points  int64
	}{{s.work.Source, c.Source.Points}, {s.work.Destination, c.Destination.Points}} {
		for {
			h := s.pacer.backOff(b.backend, b.points)
			if h.most > 0 {
				most = least(most, h.most)
			}
			if h.wait <= 0 {
				break
			}
			if err := s.sign.rest(ctx, min(h.wait, retryMost), began, &h.shown); err != nil {
				return err
			}
		}
	}
	s.mu.Lock()
	s.slowed = most
	s.mu.Unlock()
	return nil
}

// obtain waits until limits admit a charge, or, without one, the task's beginning.
// It asks nobody when there is no limit.
func (s *Pass) obtain(ctx context.Context, c *Charge, parts int) error {
	began := s.pacer.options.Now()
	var ticket uint64
	for {
		by, err := s.pacer.options.Book.Applied(ctx, &s.work)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !errors.Is(err, bus.ErrUnavailable):
			return fmt.Errorf("reading limits: %w", err)
		case err == nil && by.None():
			s.unbound()
			return nil
		}
		q := Ask{}
		if c != nil && (parts == 1 || !by.rates() || s.bound()) {
			if ticket == 0 {
				ticket = s.nextTicket()
			}
			q.Ticket, q.Charge = ticket, *c
		}
		a, err := s.ask(ctx, q)
		wait := retryMost
		var w operation.Wait
		switch {
		case err == nil && a.Slots && c != nil && q.Ticket == 0:
			// The limit is new: now it is known how large a batch may be.
			if s.tooLarge(c) {
				return ErrSmaller
			}
			if s.bound() {
				continue
			}
			return nil // who grants has not heard of it yet
		case err == nil && a.Slots && a.Granted:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil && a.Slots && parts > 1 && s.tooLarge(c):
			_, _ = s.ask(ctx, Ask{Drop: ticket}) // else it runs out
			return ErrSmaller
		case err == nil:
			w = a.Why.wait()
			wait = min(wait, time.Duration(a.RetryMillis*float64(time.Millisecond)))
		default:
			w = operation.Wait{Gate: "limit", Measured: "no process grants", Limit: "one api process that holds the lease of limits"}
		}
		w.Since = began.UTC()
		if err := s.sign.rest(ctx, wait, began, &w); err != nil {
			return err
		}
	}
}

// tooLarge reports whether a batch is much larger than the next one may be.
func (s *Pass) tooLarge(c *Charge) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	points := max(c.Operation.Points, c.Source.Points, c.Destination.Points)
	bytes := max(c.Operation.Bytes, c.Source.Bytes, c.Destination.Bytes)
	most := s.maxPoints
	if s.slowed > 0 {
		most = least(most, s.slowed)
	}
	return most > 0 && points > 2*most || s.maxBytes > 0 && bytes > 2*s.maxBytes
}

func (s *Pass) nextTicket() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ticket++
	return s.ticket
}

// bound reports whether the next batch is bounded.
func (s *Pass) bound() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.maxPoints > 0 || s.maxBytes > 0
}

// unbound forgets the bounds of limits that are lifted.
func (s *Pass) unbound() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maxPoints, s.maxBytes = 0, 0
}

// ask asks the granting process, in the name of the pass.
func (s *Pass) ask(ctx context.Context, q Ask) (Answer, error) {
	s.mu.Lock()
	q.Work, q.PassID, q.Held = s.work, s.id, s.given
	s.asked = true
	s.mu.Unlock()
	raw, err := json.Marshal(q)
	if err != nil {
		return Answer{}, fmt.Errorf("asking for a grant: %w", err)
	}
	raw, err = s.pacer.options.Asker.Ask(ctx, events.SubjectGrants, raw)
	if err != nil {
		return Answer{}, err
	}
	var a Answer
	if err := json.Unmarshal(raw, &a); err != nil {
		return Answer{}, fmt.Errorf("reading a grant: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = a.Slots
	if a.Slots {
		s.maxPoints, s.maxBytes = a.MaxPoints, a.MaxBytes
	}
	return a, nil
}

// Points bounds the points of the next batch by what limits admit.
func (s *Pass) Points(most int) int {
	if s == nil {
		return most
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return bounded(bounded(most, s.maxPoints), s.slowed)
}

// Bytes bounds the bytes of the next batch by what limits admit.
func (s *Pass) Bytes(most int) int {
	if s == nil {
		return most
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return bounded(most, s.maxBytes)
}

func bounded(most int, by int64) int {
	if by > 0 && by < int64(most) {
		return int(by)
	}
	return most
}

// Show shows that a task rests because of how a backend answers it, until the next
// Take.
func (s *Pass) Show(backend, measured, limit string, since time.Time) {
	if s == nil {
		return
	}
	s.sign.show(&operation.Wait{Gate: "backoff", Backend: backend, Measured: measured, Limit: limit, Since: since.UTC()})
}
