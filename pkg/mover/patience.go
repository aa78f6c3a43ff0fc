package mover

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
)

// Waiter shows what somebody waits for, and that they still do.
type Waiter interface {
	Alive()
	Wait(w *operation.Wait)
}

// sharedWaiter shows one of the waits of several that work for the same waiter,
// the oldest, and that all of them are alive.
type sharedWaiter struct {
	mu    sync.Mutex
	to    Waiter
	waits map[string]*operation.Wait
}

// of is the waiter of the one with a name.
func (s *sharedWaiter) of(name string) Waiter { return &oneWaiter{s, name} }

type oneWaiter struct {
	shared *sharedWaiter
	name   string
}

func (o *oneWaiter) Alive() {
	o.shared.mu.Lock()
	defer o.shared.mu.Unlock()
	o.shared.to.Alive()
}

func (o *oneWaiter) Wait(w *operation.Wait) {
	s := o.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	if w == nil {
		delete(s.waits, o.name)
	} else {
		s.waits[o.name] = w
	}
	var oldest *operation.Wait
	for _, name := range sortedKeys(s.waits) {
		if w := s.waits[name]; oldest == nil || w.Since.Before(oldest.Since) {
			oldest = w
		}
	}
	s.to.Wait(oldest)
}

// codeBackendRefuses is the failure of whatever a backend would not do.
const codeBackendRefuses = "backend_refuses"

// call is something that backends are asked to do.
type call struct {
	// what says so for a person.
	what string
	// clients are those of the backends that have answered queries when the
	// call succeeds.
	clients []*influx.Client
	// limit, when not 0, bounds the patience with refusals further.
	limit time.Duration
}

// gaveUpError ends a call that was refused for too long.
type gaveUpError struct {
	own operation.Error
	// away: the backend does not answer at all, so that asking it for something
	// else is of no use either.
	away bool
}

func (e *gaveUpError) Error() string { return e.own.Error() }
func (e *gaveUpError) Unwrap() error { return &e.own }

// patiently runs f until it succeeds, fails for good, or its backend has
// refused or been away for too long. Every pause is shown as a wait.
func (m *Mover) patiently(ctx context.Context, c call, w Waiter, f func(context.Context) error) error {
	if err := m.hopeless(c); err != nil {
		return err
	}
	pause := m.config.Backoff
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
			for _, client := range c.clients {
				m.outages.end(client.URL(), refusesQueries)
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
			return gaveUp(c, true, "%v (check the credentials of this backend and start the operation again)", err)
		case refusal.Class != influx.Transient:
			return err
		}
		t := c.trouble(ctx, err, refusal)
		now := m.config.Now()
		if began[t].IsZero() {
			began[t] = now
		}
		// Another task's success may have ended the outage while this one has
		// been refused all the time.
		since := m.outages.begin(t, err, now, m.config.Unreachable)
		if since.After(began[t]) {
			since = began[t]
		}
		patience := m.patience(t)
		left := patience - now.Sub(since)
		if c.limit > 0 && t.kind != away {
			patience = min(patience, c.limit)
			left = min(left, c.limit-now.Sub(began[t]))
		}
		if left <= 0 {
			return tooLong(c, t, err, now.Sub(since))
		}
		waiting = true
		w.Wait(&operation.Wait{
			Gate: "backend_answers", Backend: t.server, Measured: operation.Clip(refusal.Error()),
			Limit: "given up after " + patience.String(), Since: since.UTC(),
		})
		if err := rest(ctx, w, min(max(pause, refusal.RetryAfter), left)); err != nil {
			return err
		}
		pause = min(2*pause, m.config.MaxBackoff)
	}
}

// patience is how long trouble of a kind is put up with.
func (m *Mover) patience(t trouble) time.Duration {
	if t.kind == away {
		return m.config.Unreachable
	}
	return m.config.Refused
}

// givenUp reports whether a backend has been in trouble for longer than it is put
// up with: then every further call gets one try.
func (m *Mover) givenUp(server string, kind troubleKind) bool {
	t := trouble{server, kind}
	o, ok := m.outages.get(t)
	return ok && m.config.Now().Sub(o.since) >= m.patience(t)
}

func gaveUp(c call, isAway bool, format string, args ...any) error {
	return &gaveUpError{away: isAway, own: operation.Error{
		Code: codeBackendRefuses, Detail: operation.Clip(c.what + ": " + fmt.Sprintf(format, args...)),
	}}
}

func tooLong(c call, t trouble, err error, after time.Duration) error {
	return gaveUp(c, t.kind == away, "%v (for %s; make the backend answer and start the operation again: what is copied stays copied)",
		err, after.Round(time.Second))
}

// hopeless keeps a task from waiting for a backend that has just been given up
// for being away: of all tasks together, one asks it now and then.
func (m *Mover) hopeless(c call) error {
	now := m.config.Now()
	for _, client := range c.clients {
		t := trouble{client.URL(), away}
		o, ok := m.outages.get(t)
		if ok && now.Sub(o.since) >= m.config.Unreachable && now.Sub(o.last) < m.config.MaxBackoff {
			return tooLong(c, t, o.err, now.Sub(o.since))
		}
	}
	return nil
}

// rest waits, with signs of life, or returns why it could not.
func rest(ctx context.Context, w Waiter, d time.Duration) error {
	const step = 10 * time.Second
	for ; d > step; d -= step {
		if err := sleep(ctx, step); err != nil {
			return err
		}
		w.Alive()
	}
	return sleep(ctx, d)
}

// sleep waits, or returns why it could not.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// writeError marks what a write has met: a backend may refuse writes and answer
// queries, or the other way round.
type writeError struct{ error }

func (e *writeError) Unwrap() error { return e.error }

// trouble is one way in which one backend fails.
type trouble struct {
	server string
	kind   troubleKind
}

type troubleKind uint8

const (
	// away: no answer at all.
	away troubleKind = iota
	refusesQueries
	refusesWrites
)

// pingTimeout is how long a backend may take to show that it is there.
const pingTimeout = 5 * time.Second

// trouble finds out what kind of trouble an error is. A connection that breaks
// says nothing of the backend as a whole: it is away only if it does not answer
// a ping either.
func (c *call) trouble(ctx context.Context, err error, refusal *influx.Error) trouble {
	server := refusal.Server()
	if refusal.Status == 0 && !c.answers(ctx, server) {
		return trouble{server, away}
	}
	if _, ok := errors.AsType[*writeError](err); ok {
		return trouble{server, refusesWrites}
	}
	return trouble{server, refusesQueries}
}

func (c *call) answers(ctx context.Context, server string) bool {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	for _, client := range c.clients {
		if client.URL() == server {
			_, err := client.Ping(ctx)
			return err == nil
		}
	}
	return false
}

// outages remembers since when backends have been failing, for all tasks of
// this process together: a task that starts during an outage does not begin to
// be patient anew.
type outages struct {
	mu  sync.Mutex
	all map[trouble]outage
}

type outage struct {
	since, last time.Time
	err         error
}

// begin notes a failure and returns when the outage began. After a time in
// which nobody has met it, it is another outage.
func (o *outages) begin(t trouble, err error, now time.Time, over time.Duration) time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	known, ok := o.all[t]
	if !ok || now.Sub(known.last) > over {
		known.since = now
	}
	known.last, known.err = now, err
	o.all[t] = known
	return known.since
}

func (o *outages) get(t trouble) (outage, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	known, ok := o.all[t]
	return known, ok
}

// end notes that a backend has done what is asked by calls of a kind.
func (o *outages) end(server string, kind troubleKind) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.all, trouble{server, kind})
	delete(o.all, trouble{server, away})
}
