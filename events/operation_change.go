package events

import (
	"encoding/json"
	"errors"

	"ringmaster/pkg/operation"
)

// TypeOperationChange is the type string of OperationChange.
const TypeOperationChange = "ringmaster.operation.change.v1"

// OperationChange tells that an operation's record has been written. Events
// may come twice, late or not at all; of two the higher revision is the later.
type OperationChange struct {
	// Operation is the record as it may be shown.
	Operation operation.Operation `json:"operation"`
	// Revision is the record's revision.
	Revision uint64 `json:"revision"`
	// Previous is the state before; empty for a new operation and equal to the
	// operation's state where only something else has changed.
	Previous operation.State `json:"previous_state,omitempty"`
}

// MarshalJSON writes the public form of the record whatever it was given, so
// that no event ever shows credentials, not even sealed ones.
func (c OperationChange) MarshalJSON() ([]byte, error) {
	type plain OperationChange
	c.Operation = c.Operation.Public()
	return json.Marshal(plain(c))
}

// EventType returns TypeOperationChange.
func (OperationChange) EventType() string { return TypeOperationChange }

// About returns the operation's id.
func (c OperationChange) About() string { return c.Operation.ID }

func (c OperationChange) check() error {
	if c.Revision == 0 {
		return errors.New("revision is missing")
	}
	return missing("operation.id", c.Operation.ID, "operation.kind", string(c.Operation.Kind),
		"operation.state", string(c.Operation.State))
}
