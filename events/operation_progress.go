package events

import (
	"errors"

	"ringmaster/pkg/operation"
)

// TypeOperationProgress is the type string of OperationProgress.
const TypeOperationProgress = "ringmaster.operation.progress.v1"

// OperationProgress tells how far an operation is, at most once a second. Its
// totals are absolute, so a lost or repeated one does no harm.
type OperationProgress struct {
	OperationID string `json:"operation_id"`
	// Revision is the revision of the operation's record that the progress
	// belongs to.
	Revision uint64 `json:"revision"`
	// Seq rises with every progress that a controller tells. Of two events the
	// higher revision is the later, and within one revision the higher seq.
	Seq      uint64             `json:"seq"`
	Progress operation.Progress `json:"progress"`
	// Waits is what the operation's tasks are waiting for.
	Waits []operation.Wait `json:"waits"`
}

// EventType returns TypeOperationProgress.
func (OperationProgress) EventType() string { return TypeOperationProgress }

// About returns the operation's id.
func (p OperationProgress) About() string { return p.OperationID }

func (p OperationProgress) check() error {
	if p.Seq == 0 {
		return errors.New("seq is missing")
	}
	return missing("operation_id", p.OperationID)
}
