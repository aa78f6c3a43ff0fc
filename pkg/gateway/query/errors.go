package query

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/statement"
)

// UnavailableError says that no complete owner could be read within the time that
// reads wait.
type UnavailableError struct {
	// Reasons are those of the circles, each with its name.
	Reasons []string
	Waited  time.Duration
}

// Error gives every reason, and what a client may do about it.
func (e *UnavailableError) Error() string {
	return fmt.Sprintf("no circle can answer this completely (waited %v): %s; to read what there is, send the header %s: %s",
		e.Waited, strings.Join(e.Reasons, "; "), StaleHeader, staleAllow)
}

// RefusalError is an answer without results: a status, and a text that takes InfluxDB's
// form of an error.
type RefusalError struct {
	Status int
	Text   string
}

func (e *RefusalError) Error() string { return e.Text }

// ErrAborted is wrapped when an answer that has begun could not be finished: the
// connection must be broken, so that no client takes the part for the whole.
var ErrAborted = errors.New("an answer that had begun was cut off")

// saidError is the failure of a statement in the words that the client is to see.
type saidError struct{ text string }

func (e *saidError) Error() string { return e.text }

// brokenError is a backend that has failed a query.
type brokenError struct {
	backend string
	cause   error
}

func (e *brokenError) Error() string {
	return fmt.Sprintf("backend %s failed while it was answering: %v", e.backend, e.cause)
}
func (e *brokenError) Unwrap() error { return e.cause }

// boundError is a bound that was hit.
type boundError struct{ text string }

func (e *boundError) Error() string { return e.text }

func (b *Bounds) timeError() error {
	return &boundError{fmt.Sprintf("the query was ended: it ran longer than %v, which is the limit", b.Time)}
}

func (b *Bounds) rowsError() error {
	return &boundError{fmt.Sprintf("the query was ended: its answer has more than %d points, which is the limit", b.Rows)}
}

func (b *Bounds) bytesError() error {
	return &boundError{fmt.Sprintf("the query was ended: its answer has more than %d bytes, which is the limit", b.Bytes)}
}

// failure says what an error of asking a backend means: that it is broken, that it
// refuses, or that somebody has ended the request.
func (r *Runner) failure(ctx context.Context, backend string, err error) error {
	if ctx.Err() != nil {
		cause := context.Cause(ctx)
		if b, ok := errors.AsType[*brokenError](cause); ok {
			r.lessons.failedWith(b.backend, b.cause.Error())
		}
		return cause
	}
	if refusal, ok := errors.AsType[*influx.Error](err); ok && refusal.Status != 0 && refusal.Class == influx.Permanent {
		return &saidError{refusal.Message}
	}
	return &brokenError{backend: backend, cause: err}
}

// unanswered is failure where the backend has not even begun to answer: others need
// not try for a while.
func (r *Runner) unanswered(ctx context.Context, backend string, err error) error {
	err = r.failure(ctx, backend, err)
	if broken, is := errors.AsType[*brokenError](err); is {
		r.lessons.failedWith(broken.backend, broken.cause.Error())
	}
	return err
}

// sentence is what a client is told of an error that fails one statement; false for
// one that fails the whole request.
func sentence(err error) (text string, ok bool) {
	if said, is := errors.AsType[*saidError](err); is {
		return said.text, true
	}
	if bound, is := errors.AsType[*boundError](err); is {
		return bound.text, true
	}
	if fault, is := errors.AsType[*statement.Fault](err); is {
		return fault.Message, true
	}
	if refused, is := errors.AsType[*statement.RefusedError](err); is {
		return refused.Reason, true
	}
	return "", false
}
