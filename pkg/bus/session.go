package bus

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// attemptTimeout bounds one try of a call that may be repeated.
	attemptTimeout = 3 * time.Second
	// electionTimeout is the same in a cluster, for calls that change nothing: while
	// a stream has no leader, nobody answers what is asked of it, also later.
	electionTimeout = 700 * time.Millisecond
	// electionTries is how often, until an election has long been over.
	electionTries = 20
	// retryPause is the pause before a repeated try.
	retryPause = 50 * time.Millisecond
)

// begin opens a session: the connection stands.
func (b *Bus) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end()
	b.session, b.end = context.WithCancel(context.Background())
	select {
	case <-b.up:
	default:
		close(b.up)
	}
}

// interrupt ends the session.
func (b *Bus) interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end()
	select {
	case <-b.up:
		b.up = make(chan struct{})
	default:
	}
}

// bounded gives a call its deadline.
func (b *Bus) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, b.timeout, ErrUnavailable)
}

// connected waits for the connection and returns a context that also ends when
// the connection breaks.
func (b *Bus) connected(ctx context.Context) (context.Context, context.CancelFunc, error) {
	b.mu.Lock()
	up := b.up
	b.mu.Unlock()
	select {
	case <-up:
	case <-b.closed:
	case <-ctx.Done():
		return nil, nil, classify(fmt.Errorf("waiting for the connection: %w", context.Cause(ctx)))
	}
	select {
	case <-b.closed:
		return nil, nil, ErrClosed
	default:
	}
	b.mu.Lock()
	session := b.session
	b.mu.Unlock()
	inSession, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(session, func() { cancel(errInterrupted) })
	return inSession, func() { stop(); cancel(nil) }, nil
}

// attempt runs one try of a call, when connected.
func (b *Bus) attempt(ctx context.Context, try func(context.Context) error) error {
	return b.attemptFor(ctx, attemptTimeout, try)
}

func (b *Bus) attemptFor(ctx context.Context, timeout time.Duration, try func(context.Context) error) error {
	inSession, done, err := b.connected(ctx)
	if err != nil {
		return err
	}
	defer done()
	limited, cancel := context.WithTimeout(inSession, timeout)
	defer cancel()
	return inSessionError(inSession, classify(try(limited)))
}

// errInterrupted is the cause of what ended because the connection broke.
var errInterrupted = fmt.Errorf("%w: the connection broke", ErrUnavailable)

// inSessionError tells a broken connection from a caller that gave up.
func inSessionError(inSession context.Context, err error) error {
	if err != nil && errors.Is(err, context.Canceled) && errors.Is(context.Cause(inSession), errInterrupted) {
		return errInterrupted
	}
	return err
}

// repeat runs try until it succeeds, fails for a reason of its own, or ctx ends.
// Only for calls that may be carried out twice.
func (b *Bus) repeat(ctx context.Context, try func(context.Context) error) error {
	for {
		err := b.attempt(ctx, try)
		if err == nil || !errors.Is(err, ErrUnavailable) {
			return err
		}
		if pause(ctx, retryPause) != nil {
			return err
		}
	}
}

// ask is repeat for what changes nothing.
func (b *Bus) ask(ctx context.Context, try func(context.Context) error) error {
	for n := 0; ; n++ {
		timeout := attemptTimeout
		if n < electionTries && b.clustered() {
			timeout = electionTimeout
		}
		err := b.attemptFor(ctx, timeout, try)
		if err == nil || !errors.Is(err, ErrUnavailable) {
			return err
		}
		if pause(ctx, retryPause) != nil {
			return err
		}
	}
}

// pause waits for d or until ctx ends, whose error it then returns.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
