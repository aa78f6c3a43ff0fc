package pace

import "ringmaster/pkg/operation"

// Work is what a task does for its operation: between two backends, by URL.
type Work struct {
	OperationID string `json:"operation_id"`
	TaskID      string `json:"task_id"`
	Source      string `json:"source"`
	Destination string `json:"destination"`
}

// Amount is what is sent or read at once.
type Amount struct {
	Points int64 `json:"points,omitempty"`
	Bytes  int64 `json:"bytes,omitempty"`
}

// Charge is what one batch counts for: once for the operation, and for each backend
// what is read from it and written to it.
type Charge struct {
	Operation   Amount `json:"operation"`
	Source      Amount `json:"source"`
	Destination Amount `json:"destination"`
}

// Ask is what a process asks of the one that grants, as JSON on the subject of
// grants. Every Ask says that the task is at work.
type Ask struct {
	Work Work `json:"work"`
	// PassID names one attempt at the task.
	PassID string `json:"pass_id"`
	// Held says that the pass has been given its slots by an earlier Answer.
	Held bool `json:"held,omitempty"`
	// Left says that the pass has ended.
	Left bool `json:"left,omitempty"`
	// Ticket numbers the charges of a pass, so that one is granted once however
	// often it is asked for. 0 asks for the slots alone.
	Ticket uint64 `json:"ticket,omitempty"`
	// Drop is a ticket that is not asked for any more.
	Drop   uint64 `json:"drop,omitempty"`
	Charge Charge `json:"charge"`
}

// Answer is the answer to an Ask.
type Answer struct {
	// Slots says that the task may work on its backends now, Granted that what was
	// asked for may be sent.
	Slots   bool `json:"slots"`
	Granted bool `json:"granted"`
	// RetryMillis is when it is worth asking again, in milliseconds.
	RetryMillis float64 `json:"retry_millis,omitempty"`
	// MaxPoints and MaxBytes bound the next batch: what the pass's share of the
	// limits gives in a tenth of a second. 0 is no bound.
	MaxPoints int64 `json:"max_points,omitempty"`
	MaxBytes  int64 `json:"max_bytes,omitempty"`
	// Why says what is waited for, or would be next.
	Why *Why `json:"why,omitempty"`
}

// Why is the limit that holds a pass up.
type Why struct {
	// Backend is that of the limit; OfOperation says that it is the operation's own.
	Backend     string `json:"backend,omitempty"`
	OfOperation bool   `json:"of_operation,omitempty"`
	Unit        unit   `json:"unit"`
	Limit       int64  `json:"limit"`
	// Used is what was granted in the last second, or the slots in use; Passes is how
	// many share it.
	Used   int64 `json:"used"`
	Passes int   `json:"passes"`
}

// unit is what a limit counts.
type unit string

const (
	unitPoints unit = "points"
	unitBytes  unit = "bytes"
	unitSlots  unit = "slots"
)

// Applied are the limits that apply to a piece of work.
type Applied struct {
	Operation, Source, Destination operation.Limits
}

// rates reports whether points or bytes are limited.
func (a Applied) rates() bool {
	rate := func(l operation.Limits) bool { return l.PointsPerSecond != nil || l.BytesPerSecond != nil }
	return rate(a.Operation) || rate(a.Source) || rate(a.Destination)
}

// None reports whether nothing is limited.
func (a Applied) None() bool { return a.Operation.None() && a.Source.None() && a.Destination.None() }
