package influx

import (
	"errors"
	"fmt"
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
	// Server is the server's base URL, as Client.URL gives it.
	Server string
	// Status is the HTTP status, 0 if there was none.
	Status int
	// Message is what the server said, in its words, or the network's error.
	Message string
	// Dropped is the number of points that a partial write names as dropped.
	Dropped int
	// StoredRest is whether the text of a refused write proves that the points
	// it does not count as dropped were stored. InfluxDB answers with the first
	// refusal of any shard, so the proof is only as good as the batch: it holds
	// for a batch that lies in one shard group.
	StoredRest bool
	// RetryAfter is how long the server asks to wait, 0 if it does not.
	RetryAfter time.Duration

	cause error
}

// Error implements error.
func (e *Error) Error() string {
	if e.Status != 0 {
		return fmt.Sprintf("%s: status %d: %s", e.Op, e.Status, e.Message)
	}
	return e.Op + ": " + e.Message
}

// Unwrap returns what broke the request on the way, if anything did.
func (e *Error) Unwrap() error { return e.cause }

// IsTransient reports whether err is an [Error] that trying again may mend.
func IsTransient(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Class == Transient
}

// ErrGuard is wrapped by the error of a Write that [Options.Guard] stopped.
var ErrGuard = errors.New("write stopped by its guard")

// ErrUnaddressable is wrapped when a name cannot be written in InfluxQL so that
// the server reads the same: one that is not valid UTF-8.
var ErrUnaddressable = errors.New("name cannot be addressed by InfluxQL")

// guardError carries a guard's answer through net/http.
type guardError struct{ err error }

func (e *guardError) Error() string   { return ErrGuard.Error() + ": " + e.err.Error() }
func (e *guardError) Unwrap() []error { return []error{ErrGuard, e.err} }
