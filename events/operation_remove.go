package events

import (
	"errors"
	"time"
)

// TypeOperationRemove is the type string of OperationRemove.
const TypeOperationRemove = "ringmaster.operation.remove.v1"

// OperationRemove tells that an operation that had ended has been removed from the
// history, with its plan, tasks and reports.
type OperationRemove struct {
	OperationID string `json:"operation_id"`
	// RemovedAt is when that was decided.
	RemovedAt time.Time `json:"removed_at"`
	// Reason says which bound of the history it lay beyond.
	Reason string `json:"reason"`
}

// EventType returns TypeOperationRemove.
func (OperationRemove) EventType() string { return TypeOperationRemove }

// About returns the operation's id.
func (r OperationRemove) About() string { return r.OperationID }

func (r OperationRemove) check() error {
	if r.RemovedAt.IsZero() {
		return errors.New("removed_at is missing")
	}
	return missing("operation_id", r.OperationID, "reason", r.Reason)
}
