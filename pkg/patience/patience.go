// Package patience is how backends that fail are tried again: with growing pauses,
// each shown as a wait, for as long as they are put up with, and with one memory
// of outages for all tasks of a process. The package knows nothing of what is
// being tried.
package patience

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
)

// Config says how patient to be.
type Config struct {
	// Refused is how long a backend that answers with errors is tried again,
	// Unreachable one that does not answer at all.
	Refused, Unreachable time.Duration
	// Backoff is the first pause between tries; it doubles up to MaxBackoff.
	Backoff, MaxBackoff time.Duration
	Now                 func() time.Time
}

// Patience tries calls again. It is safe for concurrent use.
type Patience struct {
	config  Config
	outages outages
}

// New returns a Patience that remembers no outage yet.
func New(c Config) *Patience {
	return &Patience{config: c, outages: outages{all: map[trouble]outage{}}}
}

// Within returns a Patience that puts up with trouble for at most d, and that has a
// memory of its own: for who only looks, and tells what does not answer.
func (p *Patience) Within(d time.Duration) *Patience {
	c := p.config
	c.Refused, c.Unreachable = min(c.Refused, d), min(c.Unreachable, d)
	return New(c)
}

// Waiter shows what somebody waits for, and that they still do.
type Waiter interface {
	Alive()
	Wait(w *operation.Wait)
}

// CodeRefuses is the failure of whatever a backend would not do.
const CodeRefuses = "backend_refuses"

// Call is something that backends are asked to do.
type Call struct {
	// What says so for a person.
	What string
	// Clients are those of the backends that have answered queries when the
	// call succeeds.
	Clients []*influx.Client
	// Limit, when not 0, bounds the patience with refusals further.
	Limit time.Duration
	// TimedOut, when not nil, is told of every time that the call runs out of time at
	// a backend that is there. The error that it returns ends the call; nil means that
	// the call is tried again like any other that is refused.
	TimedOut func(ctx context.Context, err error) error
	// Since is when what the call belongs to began: an outage that began before
	// counts from then on, so that every operation has the whole patience.
	Since time.Time
}

// GaveUpError ends a call that was refused for too long. It wraps an
// *operation.Error for a person.
type GaveUpError struct {
	own operation.Error
	// Away: the backend does not answer at all, so that asking it for something
	// else is of no use either.
	Away bool
}

// Because returns the error with a further reason, before what a person has to do.
func (e *GaveUpError) Because(reason string) *GaveUpError {
	own := e.own
	before, remedy, _ := strings.Cut(own.Detail, operation.PersonMustAct(""))
	own.Detail = operation.Clip(before + reason + "; " + operation.PersonMustAct(remedy))
	return &GaveUpError{own: own, Away: e.Away}
}

func (e *GaveUpError) Error() string { return e.own.Error() }
func (e *GaveUpError) Unwrap() error { return &e.own }

// Do runs f until it succeeds, fails for good, or its backend has
// refused or been away for too long. Every pause is shown as a wait.
func (p *Patience) Do(ctx context.Context, c Call, w Waiter, f func(context.Context) error) error {
	if err := p.hopeless(c); err != nil {
		return err
	}
	pause := p.config.Backoff
	waiting := false
	defer func() {
		if waiting {
			w.Wait(nil)
		}
	}()
	began := map[trouble]time.Time{}
	for {
		err := f(ctx)
		w.Alive()
		if err == nil {
			for _, client := range c.Clients {
				p.outages.end(client.URL(), Queries)
			}
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var refusal *influx.Error
		switch {
		case !errors.As(err, &refusal):
			return err
		case refusal.Status == http.StatusUnauthorized, refusal.Status == http.StatusForbidden:
			return gaveUp(c, true, "%v (%s)", err,
				operation.PersonMustAct("check the credentials of this backend and retry the operation"))
		case refusal.Class != influx.Transient:
			return err
		}
		t := c.trouble(ctx, err, refusal)
		if c.TimedOut != nil && t.kind != away && refusal.OutOfTime() {
			if err := c.TimedOut(ctx, err); err != nil {
				return err
			}
		}
		now := p.config.Now()
		if began[t].IsZero() {
			began[t] = now
		}
		// Another task's success may have ended the outage while this one has
		// been refused all the time.
		since := later(p.outages.begin(t, err, now, p.config.Unreachable), c.Since)
		if since.After(began[t]) {
			since = began[t]
		}
		patience := p.with(t)
		left := patience - now.Sub(since)
		if c.Limit > 0 && t.kind != away {
			patience = min(patience, c.Limit)
			left = min(left, c.Limit-now.Sub(began[t]))
		}
		if left <= 0 {
			return tooLong(c, t, err, now.Sub(since))
		}
		waiting = true
		w.Wait(&operation.Wait{
			Gate: "backend_answers", Backend: t.server, Measured: operation.Clip(refusal.Error()),
			Limit: "given up after " + patience.String(), Since: since.UTC(),
		})
		if err := Rest(ctx, w, min(max(pause, refusal.RetryAfter), left)); err != nil {
			return err
		}
		pause = min(2*pause, p.config.MaxBackoff)
	}
}

// with is how long trouble of a kind is put up with.
func (p *Patience) with(t trouble) time.Duration {
	if t.kind == away {
		return p.config.Unreachable
	}
	return p.config.Refused
}

// GivenUp reports whether a backend has been in trouble for longer than it is put
// up with by what began at a time: then every further call of it gets one try.
func (p *Patience) GivenUp(server string, kind Kind, since time.Time) bool {
	t := trouble{server, kind}
	o, ok := p.outages.get(t)
	return ok && p.config.Now().Sub(later(o.since, since)) >= p.with(t)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Answered notes that a backend has done what is asked by calls of a kind.
func (p *Patience) Answered(server string, kind Kind) { p.outages.end(server, kind) }

func gaveUp(c Call, isAway bool, format string, args ...any) error {
	return &GaveUpError{Away: isAway, own: operation.Error{
		Code: CodeRefuses, Detail: operation.Clip(c.What + ": " + fmt.Sprintf(format, args...)),
	}}
}

func tooLong(c Call, t trouble, err error, after time.Duration) error {
	return gaveUp(c, t.kind == away, "%v (for %s; %s)", err, after.Round(time.Second),
		operation.PersonMustAct("make the backend answer and retry the operation: what is copied stays copied"))
}

// hopeless keeps a task from waiting for a backend that has just been given up
// for being away: of all tasks together, one asks it now and then.
func (p *Patience) hopeless(c Call) error {
	now := p.config.Now()
	for _, client := range c.Clients {
		t := trouble{client.URL(), away}
		o, ok := p.outages.get(t)
		since := later(o.since, c.Since)
		if ok && now.Sub(since) >= p.config.Unreachable && now.Sub(o.last) < p.config.MaxBackoff {
			return tooLong(c, t, o.err, now.Sub(since))
		}
	}
	return nil
}

// Rest waits, with signs of life, or returns why it could not.
func Rest(ctx context.Context, w Waiter, d time.Duration) error {
	const step = 10 * time.Second
	for ; d > step; d -= step {
		if err := Sleep(ctx, step); err != nil {
			return err
		}
		w.Alive()
	}
	return Sleep(ctx, d)
}

// Sleep waits, or returns why it could not.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// WriteError marks what a write has met: a backend may refuse writes and answer
// queries, or the other way round.
type WriteError struct{ Err error }

func (e *WriteError) Error() string { return e.Err.Error() }
func (e *WriteError) Unwrap() error { return e.Err }
