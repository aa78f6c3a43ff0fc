// Package operation holds what an operation is: its kinds and parameters, its
// states, its plan, its tasks, their evidence and the report that ends it. The
// package is pure: no I/O, no clock, no messaging. Every other room speaks in
// its types.
package operation

import (
	"encoding/json"
	"time"
)

// Operation is the record of one operation: the truth about it. It is stored
// as JSON under the operation's id and changed only by compare-and-set.
type Operation struct {
	// ID is a UUIDv7, so ids sort by creation.
	ID   string `json:"id"`
	Kind Kind   `json:"kind"`
	// Scope names what the operation holds exclusively, for example "circle/0".
	// It is empty for a dry run and for operations that only read.
	Scope []string `json:"scope"`
	State State    `json:"state"`
	// PausedIn is the state a paused operation returns to; empty otherwise.
	PausedIn   State       `json:"paused_in,omitempty"`
	Conditions []Condition `json:"conditions"`
	DryRun     bool        `json:"dry_run"`
	// Hold stops the operation after planning until it is approved.
	Hold bool `json:"hold,omitempty"`
	// Parameters is the kind's parameter object. Credentials in it are sealed
	// before the record is stored; Public removes even those.
	Parameters  json.RawMessage `json:"parameters"`
	Limits      Limits          `json:"limits"`
	Reason      string          `json:"reason"`
	RequestedBy string          `json:"requested_by"`
	CreatedAt   time.Time       `json:"created_at"`
	StartedAt   *time.Time      `json:"started_at"`
	FinishedAt  *time.Time      `json:"finished_at"`
	// Epoch is the topology epoch the operation is pinned to.
	Epoch uint64 `json:"epoch"`
	// Attempt counts the runs of the operation; a retry adds one.
	Attempt int `json:"attempt"`
	// Round counts the copy rounds: 1, and 2 when slices that did not verify
	// are copied once more.
	Round    int       `json:"round"`
	Progress Progress  `json:"progress"`
	Waits    []Wait    `json:"waits"`
	Error    *Error    `json:"error"`
	Result   *Result   `json:"result"`
	Plan     *PlanRef  `json:"plan,omitempty"`
	Report   *Document `json:"report,omitempty"`
	// Cancel is the request to cancel an operation that is under way: it ends when
	// nobody works for it any more.
	Cancel *Intent `json:"cancel_requested,omitempty"`
	// Approval lets a held operation carry its plan out, if that still holds.
	Approval *Intent `json:"approved,omitempty"`
	// Attempts are the runs that have ended and were followed by another.
	Attempts []Attempt `json:"attempts,omitempty"`
	// IdempotencyKey is the hash under which the request's idempotency key is kept
	// for as long as the operation; it is never shown.
	IdempotencyKey string `json:"idempotency_key_hash,omitempty"`
}

// Intent is what a person has asked of an operation: who, from which address, when
// and why.
type Intent struct {
	At     time.Time `json:"at"`
	Who    string    `json:"who"`
	Origin string    `json:"origin,omitempty"`
	Reason string    `json:"reason,omitempty"`
}

// Attempt is a run of an operation that has ended and was followed by another.
type Attempt struct {
	Attempt    int        `json:"attempt"`
	State      State      `json:"state"`
	StartedAt  *time.Time `json:"started_at"`
	FinishedAt *time.Time `json:"finished_at"`
	Error      *Error     `json:"error,omitempty"`
	Report     *Document  `json:"report,omitempty"`
	// Retried says who asked for the next one.
	Retried Intent `json:"retried"`
}

// Began is when an operation was taken up, or created as long as it is not.
func Began(o *Operation) time.Time {
	if o.StartedAt != nil {
		return *o.StartedAt
	}
	return o.CreatedAt
}

// Condition is something true beside the state, such as "stalled".
type Condition struct {
	Type   string    `json:"type"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
	// LimitSeconds and Wait say of "stalled" for how long nothing may move, and what
	// is waited for the longest.
	LimitSeconds float64 `json:"limit_seconds,omitempty"`
	Wait         *Wait   `json:"wait,omitempty"`
}

// ConditionStalled is the type of the condition that is shown while nothing moves.
const ConditionStalled = "stalled"

// Stall is the condition that says that nothing moves; nil when something does.
func (o *Operation) Stall() *Condition {
	for i := range o.Conditions {
		if o.Conditions[i].Type == ConditionStalled {
			return &o.Conditions[i]
		}
	}
	return nil
}

// Error says why an operation or a task failed. Detail is meant for a person
// and names the remedy where there is one; Code is for programs.
type Error struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
	TaskID string `json:"task_id,omitempty"`
}

// Error lets a task handler return it as an error.
func (e *Error) Error() string { return e.Code + ": " + e.Detail }

// Result is what a successful operation wants to say beyond its report, for
// example why there was nothing to do.
type Result struct {
	Note string `json:"note"`
}

// Document refers to bytes in the object store.
type Document struct {
	Object string `json:"object"`
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
}

// Wait says what work is waiting for: the gate, the backend it belongs to, the
// value measured there and the limit it has to meet.
type Wait struct {
	Gate     string    `json:"gate"`
	Backend  string    `json:"backend,omitempty"`
	Measured string    `json:"measured"`
	Limit    string    `json:"limit"`
	Since    time.Time `json:"since"`
	// AdmittedAt, to ten seconds, is when the gate last let something through: what is
	// limited moves although it waits.
	AdmittedAt time.Time `json:"admitted_at,omitzero"`
	TaskID     string    `json:"task_id,omitempty"`
}

// Request is what a caller asks for, in the words of every dialect at once.
type Request struct {
	Kind       Kind            `json:"kind"`
	Parameters json.RawMessage `json:"parameters"`
	DryRun     bool            `json:"dry_run,omitempty"`
	Hold       bool            `json:"hold,omitempty"`
	Limits     Limits          `json:"limits,omitzero"`
	Reason     string          `json:"reason,omitempty"`
	// IdempotencyKey makes a repeated request return the first one's operation.
	IdempotencyKey string `json:"-"`
	// RequestedBy and Origin (an address) go to the audit trail.
	RequestedBy string `json:"-"`
	Origin      string `json:"-"`
}
