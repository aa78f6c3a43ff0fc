package operation

import "time"

// AuditEntry says who did what to an operation, from where and why.
type AuditEntry struct {
	At          time.Time `json:"at"`
	OperationID string    `json:"operation_id"`
	// Action is the verb: "submit", later "approve", "pause" and so on.
	Action string `json:"action"`
	Who    string `json:"who"`
	Origin string `json:"origin"`
	Reason string `json:"reason,omitempty"`
	// Change is what was changed: the values before and after.
	Change string `json:"change,omitempty"`
}
