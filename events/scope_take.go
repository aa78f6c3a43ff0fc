package events

// TypeScopeTake is the type string of ScopeTake.
const TypeScopeTake = "ringmaster.scope.take.v1"

// ScopeTake is a lock: as long as the message lies in the command stream, the
// operation holds the scope and no other message fits on its subject. It is
// the one message that is more than a nudge.
type ScopeTake struct {
	// OperationID is the holder.
	OperationID string `json:"operation_id"`
	// Scope is what is held, such as "circle/0".
	Scope string `json:"scope"`
}

// EventType returns TypeScopeTake.
func (ScopeTake) EventType() string { return TypeScopeTake }

// About returns the operation's id.
func (s ScopeTake) About() string { return s.OperationID }

func (s ScopeTake) check() error {
	return missing("operation_id", s.OperationID, "scope", s.Scope)
}
