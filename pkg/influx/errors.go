package influx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// Class says what an error means for whoever asked.
type Class uint8

// The classes of an [Error].
const (
	// Transient: the same request may succeed later.
	Transient Class = iota + 1
	// Permanent: the same request will be refused again.
	Permanent
	// PartialWrite: some of the points were refused for good.
	PartialWrite
)

// String returns the name of the class.
func (c Class) String() string {
	switch c {
	case Transient:
		return "transient"
	case Permanent:
		return "permanent"
	case PartialWrite:
		return "partial write"
	default:
		return fmt.Sprintf("class(%d)", uint8(c))
	}
}

// Error is a request that failed: refused by the server, or broken on the way.
// A cancelled context is not an Error.
type Error struct {
	Class Class
	// Op says what was being tried, with the server's URL.
	Op string
	// Status is the HTTP status, 0 if there was none. It is 200 if the server
	// reported the error inside an answer.
	Status int
	// Message is what the server said, in its words, or what happened on the
	// way. Long ones are cut.
	Message string
	// Dropped is the number of points that a partial write names as dropped,
	// and of lines that could not be parsed.
	Dropped int
	// StoredRest is whether the text of a refused write says that the points it
	// does not count as dropped are stored. InfluxDB answers with the first
	// refusal of any shard, so the proof is only as good as the batch: it holds
	// for a batch that lies in one shard group.
	StoredRest bool
	// RetryAfter is how long the server asks to wait, 0 if it does not.
	RetryAfter time.Duration

	cause error
}

// Error implements error.
func (e *Error) Error() string {
	if e.Status != 0 && e.Status != http.StatusOK {
		return fmt.Sprintf("%s: status %d: %s", e.Op, e.Status, e.Message)
	}
	return e.Op + ": " + e.Message
}

// Server is the base URL of the server, with which every Op ends.
func (e *Error) Server() string { return e.Op[strings.LastIndexByte(e.Op, ' ')+1:] }

// Unwrap returns what broke the request on the way, if anything did.
func (e *Error) Unwrap() error { return e.cause }

// OutOfTime reports whether what ended the request was time: the connection was
// silent for too long in the middle of it, or the server gave it up itself. The
// same request for less may succeed. A connection that could not be made in time is
// not meant.
func (e *Error) OutOfTime() bool {
	switch e.Status {
	case 0:
		return errors.Is(e.cause, os.ErrDeadlineExceeded)
	case http.StatusGatewayTimeout, http.StatusRequestTimeout:
		return true
	case http.StatusInternalServerError:
		return e.Message == "timeout" // a write that took longer than write-timeout
	default:
		return strings.HasPrefix(e.Message, "query-timeout limit exceeded")
	}
}

// IsTransient reports whether err is an [Error] that trying again may mend.
func IsTransient(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Class == Transient
}

// ErrGuard is wrapped by the error of a Write that [Options.Guard] stopped.
var ErrGuard = errors.New("write stopped by its guard")

// ErrUnaddressable is wrapped by the error of reading what InfluxQL has no words
// for, where the server answers with nothing or makes values up: the measurements
// `_fieldKeys`, `_series` and `_tagKeys`; the fields `_name`, `_seriesKey`,
// `_fieldKey`, `_tagKey` and `_tagValue` of any measurement; and a field without a
// name, which a read gives as `val0`. (If that is the only field, or sorts before
// the others, only the counts can tell.)
var ErrUnaddressable = errors.New("cannot be read by InfluxQL")

// guardError carries a guard's answer through net/http.
type guardError struct{ err error }

func (e *guardError) Error() string   { return ErrGuard.Error() + ": " + e.err.Error() }
func (e *guardError) Unwrap() []error { return []error{ErrGuard, e.err} }

// broke makes the error of a request that broke on the way.
func (c *Client) broke(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", op, context.Cause(ctx))
	}
	if guarded, ok := errors.AsType[*guardError](err); ok {
		return fmt.Errorf("%s: %w", op, guarded)
	}
	e := &Error{Class: Transient, Op: op, Message: clip(err.Error()), cause: err}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		e.Message = fmt.Sprintf("no byte came or went for %v", c.silence)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		e.Message = "the server closed the connection before the answer was complete"
	}
	return e
}

// maxMessage bounds what is kept of a server's words: a partial write may
// repeat a whole batch.
const maxMessage = 2 << 10

func clip(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	const half = maxMessage / 2
	return fmt.Sprintf("%s … (%d bytes left out) … %s", s[:half], len(s)-2*half, s[len(s)-half:])
}
