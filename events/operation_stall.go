package events

import (
	"errors"
	"time"

	"ringmaster/pkg/operation"
)

// TypeOperationStall is the type string of OperationStall.
const TypeOperationStall = "ringmaster.operation.stall.v1"

// OperationStall tells that an operation has made no progress for as long as is
// configured, or that it makes progress again. Its record shows the same as the
// condition "stalled".
type OperationStall struct {
	OperationID string `json:"operation_id"`
	// Revision is the revision of the operation's record that the event belongs to.
	Revision uint64          `json:"revision"`
	Kind     operation.Kind  `json:"kind"`
	State    operation.State `json:"state"`
	// Stalled is true when the stall is shown first, false when it is over.
	Stalled bool `json:"stalled"`
	// Since is when the operation last made progress before the stall.
	Since time.Time `json:"since"`
	// LimitSeconds is how long it may make none before it counts as stalled.
	LimitSeconds float64 `json:"limit_seconds"`
	// Reason says what it waits for: the gate, the backend, what is measured there,
	// the limit, and since when.
	Reason string `json:"reason"`
	// Waits has the wait that it stalled at, if that is known.
	Waits []operation.Wait `json:"waits"`
}

// EventType returns TypeOperationStall.
func (OperationStall) EventType() string { return TypeOperationStall }

// About returns the operation's id.
func (s OperationStall) About() string { return s.OperationID }

func (s OperationStall) check() error {
	if s.Since.IsZero() {
		return errors.New("since is missing")
	}
	return missing("operation_id", s.OperationID)
}
