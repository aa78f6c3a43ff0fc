package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"ringmaster/pkg/operation"
)

// watching says how an operation is followed.
type watching struct {
	// quiet shows nothing.
	quiet bool
	// every is how often a line is printed where nothing changes.
	every time.Duration
	// until ends it before the operation has ended; nil means never.
	until func(*opView) bool
}

const (
	// lookEvery is how often the state is read at most while there are events;
	// pollEvery is how often without any.
	lookEvery = time.Second
	pollEvery = 5 * time.Second
	// askEvery takes its place while there is no stream.
	askEvery = 2 * time.Second
	// streamAgain is how long to wait before a stream is asked for again.
	streamAgain = time.Second
	// withoutStream is how long it is left alone where it was refused.
	withoutStream = 30 * time.Second
	// lostAfter is how long the server may be away.
	lostAfter = 5 * time.Minute

	defaultEvery = 10 * time.Second
)

// watch follows an operation until it has ended, and returns it as it was last
// seen. Events only say when to look: what is shown is the record.
func (a *app) watch(id string, how watching) (*opView, error) {
	ctx, cancel := context.WithCancel(a.ctx)
	nudges := newNudges()
	var following sync.WaitGroup
	following.Go(func() { a.listen(ctx, id, nudges) })
	d := a.display(how)
	op, err := a.look(ctx, id, how, nudges, d)
	d.close()
	cancel()
	following.Wait()
	if a.ctx.Err() != nil && (op == nil || !op.State.Terminal()) {
		return nil, &exitError{exitInterrupted, fmt.Sprintf("no longer watching; operation %s goes on: ringctl ops watch %s", id, id)}
	}
	return op, err
}

// nudges say that something has happened.
type nudges struct {
	// soon has room for one: what has happened meanwhile is seen together.
	soon chan struct{}
	// changed is for what should be seen at once.
	changed chan struct{}

	mu        sync.Mutex
	streaming bool
}

func newNudges() *nudges {
	return &nudges{soon: make(chan struct{}, 1), changed: make(chan struct{}, 1)}
}

func (n *nudges) give(to chan struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

func (n *nudges) setStreaming(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.streaming = on
}

// interval is how often to look without a nudge.
func (n *nudges) interval() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.streaming {
		return pollEvery
	}
	return askEvery
}

// listen turns the operation's events into nudges until ctx ends. A stream that
// breaks is taken up after the last event that was read; where there is none, the
// state is read again and again.
func (a *app) listen(ctx context.Context, id string, n *nudges) {
	last := ""
	for ctx.Err() == nil {
		err := a.client.events(ctx, id, last, func(e event) bool {
			n.setStreaming(true)
			if e.id != "" {
				last = e.id
			}
			switch e.kind {
			case "", "gap", "ringmaster.operation.change.v1":
				n.give(n.changed)
			case "ringmaster.operation.progress.v1":
				n.give(n.soon)
			}
			return ctx.Err() == nil
		})
		n.setStreaming(false)
		n.give(n.soon)
		wait := streamAgain
		if errors.Is(err, errNoStream) {
			wait, last = withoutStream, ""
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// look reads the state whenever there is a reason to, and shows it.
func (a *app) look(ctx context.Context, id string, how watching, n *nudges, d display) (*opView, error) {
	var op *opView
	answered := a.now()
	lost := false
	for {
		looked := a.now()
		raw, next, err := a.operation(one{id})
		switch {
		case err == nil:
			if lost {
				d.say("the server answers again")
			}
			op, answered, lost = next, a.now(), false
			d.show(raw, op)
			if op.State.Terminal() || how.until != nil && how.until(op) {
				return op, nil
			}
		case ctx.Err() != nil:
			return op, ctx.Err()
		case !passing(err):
			return op, err
		case a.now().Sub(answered) > lostAfter:
			return op, fmt.Errorf("operation %s may go on, but nothing was heard of it for %s: %w", id, lostAfter, err)
		case !lost:
			lost = true
			d.say("the server does not answer; the operation goes on without it, and so does watching")
		}
		if !n.await(ctx, looked, a.now) {
			return op, ctx.Err()
		}
	}
}

// await waits for a reason to look again; false when ctx has ended.
func (n *nudges) await(ctx context.Context, looked time.Time, now func() time.Time) bool {
	timer := time.NewTimer(n.interval())
	defer timer.Stop()
	select {
	case <-n.changed:
		return true
	case <-n.soon:
		// Not more often than once in a while, unless the state has changed.
		rest := time.NewTimer(max(lookEvery-now().Sub(looked), 0))
		defer rest.Stop()
		select {
		case <-n.changed:
		case <-rest.C:
		case <-ctx.Done():
			return false
		}
		return true
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// passing reports whether an error may be gone after a while: a server that is
// being restarted, or has not read its records yet.
func passing(err error) bool {
	if _, ok := errors.AsType[*unreachableError](err); ok {
		return true
	}
	p, ok := errors.AsType[*problemError](err)
	return ok && (p.Status == http.StatusTooManyRequests || p.Status >= http.StatusInternalServerError)
}

// display shows an operation as it goes.
type display interface {
	// show takes the operation as it is now.
	show(raw []byte, op *opView)
	// say prints a remark between.
	say(remark string)
	close()
}

// display chooses how an operation is shown.
func (a *app) display(how watching) display {
	switch {
	case how.quiet:
		return &silent{app: a}
	case a.options.Output != outputTable:
		return &objects{app: a}
	case isTerminal(a.out):
		return newBars(a)
	default:
		every := how.every
		if every <= 0 {
			every = defaultEvery
		}
		return &lines{app: a, every: every}
	}
}

// silent shows nothing but what a person must do.
type silent struct {
	app    *app
	advice advice
}

func (s *silent) show(_ []byte, op *opView) {
	if text := s.advice.of(op); text != "" {
		s.app.say("ringctl: %s", text)
	}
}

func (s *silent) say(remark string) { s.app.say("ringctl: %s", remark) }

func (*silent) close() {}

// advice says once what an operation needs a person for.
type advice struct{ given operation.State }

func (v *advice) of(op *opView) string {
	if op.State == v.given {
		return ""
	}
	v.given = op.State
	if op.CancelRequested != nil {
		return ""
	}
	switch op.State {
	case operation.AwaitingApproval:
		return fmt.Sprintf("operation %s is planned and held: ringctl ops plan %s, then ringctl ops approve %s", op.ID, op.ID, op.ID)
	case operation.Paused:
		return fmt.Sprintf("operation %s is paused: ringctl ops resume %s", op.ID, op.ID)
	default:
		return ""
	}
}
