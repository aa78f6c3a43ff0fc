package events

import (
	"errors"

	"ringmaster/pkg/operation"
)

// TypeAuditRecord is the type string of AuditRecord.
const TypeAuditRecord = "ringmaster.audit.record.v1"

// AuditRecord tells who did what, from where and why. It lies in a stream of
// its own that outlives the other events.
type AuditRecord struct {
	operation.AuditEntry
}

// EventType returns TypeAuditRecord.
func (AuditRecord) EventType() string { return TypeAuditRecord }

// About returns the operation's id; empty for what concerns no operation.
func (a AuditRecord) About() string { return a.OperationID }

func (a AuditRecord) check() error {
	if a.At.IsZero() {
		return errors.New("at is missing")
	}
	return missing("action", a.Action, "who", a.Who)
}
