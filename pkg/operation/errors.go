package operation

import (
	"errors"
	"fmt"
	"time"
)

// PersonMustAct is the end of every failure that no further try would mend: what a
// person has to do before the operation is started again, or retried. What is copied
// stays copied.
func PersonMustAct(remedy string) string { return "a person must act: " + remedy }

// ErrNotFound says that there is no operation of that id.
var ErrNotFound = errors.New("no such operation")

// ErrKeyReused says that the idempotency key belongs to a request with another
// body.
var ErrKeyReused = errors.New("the idempotency key was used before with another request")

// NotImplementedError refuses a kind or a verb this release does not carry out.
type NotImplementedError struct{ What string }

func (e *NotImplementedError) Error() string {
	return e.What + " is not carried out by this release yet; nothing was started"
}

// StateError refuses a verb that the operation's state forbids.
type StateError struct {
	ID    string
	State State
	// Verb is what was asked for: approve, pause, resume, cancel, retry or limits.
	Verb string
	// Remedy says what can be done instead; empty where nothing can.
	Remedy string
}

func (e *StateError) Error() string {
	return fmt.Sprintf("the operation is %s, which does not allow %s", e.State, e.Verb)
}

// OutdatedError refuses to carry on what was planned for another topology or
// another schema.
type OutdatedError struct {
	ID string
	// Code is "epoch_changed" or "schema_changed".
	Code   string
	Detail string
}

func (e *OutdatedError) Error() string { return e.Detail }

// Hint says what can be done about it.
func (e *OutdatedError) Hint() string {
	if e.Code == CodeSchemaChanged {
		return "retry the operation: it is planned anew and held again"
	}
	return "start the operation again"
}

// Codes of what makes a plan outdated, in errors of operations and of requests.
const (
	CodeEpochChanged  = "epoch_changed"
	CodeSchemaChanged = "schema_changed"
)

// ScopeHeldError refuses a request whose scope another operation holds.
type ScopeHeldError struct {
	Scope string
	// HolderID is the operation that holds it; Kind, State and Since, when it was
	// submitted, describe it as far as it could be read.
	HolderID string
	Kind     Kind
	State    State
	Since    time.Time
}

func (e *ScopeHeldError) Error() string {
	if !e.Described() {
		return fmt.Sprintf("%s is held by operation %s, whose record cannot be read", e.Scope, e.HolderID)
	}
	return fmt.Sprintf("%s is held by %s operation %s (%s, submitted at %s)",
		e.Scope, e.Kind, e.HolderID, e.State, e.Since.UTC().Format(time.RFC3339))
}

// Described reports whether the holder's record could be read.
func (e *ScopeHeldError) Described() bool { return e.State != "" && !e.Since.IsZero() }

// Age is how long ago the holder was submitted; 0 when that is not known.
func (e *ScopeHeldError) Age(now time.Time) time.Duration {
	if !e.Described() {
		return 0
	}
	return max(now.Sub(e.Since), 0)
}

// Holder describes the holder in a few words: its kind, state and age.
func (e *ScopeHeldError) Holder(now time.Time) string {
	if !e.Described() {
		return "its record cannot be read"
	}
	return fmt.Sprintf("%s, %s, submitted %s ago", e.Kind, e.State, e.Age(now).Round(time.Second))
}

// Hint says what can be done about it.
func (e *ScopeHeldError) Hint() string {
	at := "/v1/operations/" + e.HolderID
	switch e.State {
	case Paused:
		return "that operation is paused: POST " + at + "/resume lets it go on, POST " + at + "/cancel ends it"
	case AwaitingApproval:
		return "that operation waits for a person: POST " + at + "/approve lets it go on, POST " + at + "/cancel ends it"
	default:
		return "wait for that operation to end; GET " + at + " shows how far it is"
	}
}

// FlaggedError refuses a request because of a flag that a person has set by hand,
// which only a person takes back.
type FlaggedError struct {
	// Circle is the circle that counts as migrating, unless Resyncing is what is
	// set.
	Circle    int
	Resyncing bool
}

func (e *FlaggedError) Error() string {
	if e.Resyncing {
		return "the cluster is set to resyncing by hand"
	}
	return fmt.Sprintf("circle %d is set to migrating by hand", e.Circle)
}

// Hint says how the flag is taken back.
func (e *FlaggedError) Hint() string {
	if e.Resyncing {
		return "POST /migrate/state?resyncing=false takes that back"
	}
	return fmt.Sprintf("POST /migrate/state?circle_id=%d&migrating=false takes that back", e.Circle)
}

// DiskFullError refuses an operation while the disk under the records is nearly full.
type DiskFullError struct{ Free, MinFree int64 }

func (e *DiskFullError) Error() string {
	return fmt.Sprintf("the disk under the records is nearly full: %d bytes are free, %d must be; nothing was started", e.Free, e.MinFree)
}

// Hint says what can be done about it.
func (e *DiskFullError) Hint() string {
	return "make room on the disk of the data directory; what is under way goes on by itself then"
}

// StoreFullError refuses an operation whose plan would find no room.
type StoreFullError struct{ Bytes, MaxBytes uint64 }

func (e *StoreFullError) Error() string {
	return fmt.Sprintf("plans and reports take %d of the %d bytes there are for them; nothing was started", e.Bytes, e.MaxBytes)
}

// Hint says what can be done about it.
func (e *StoreFullError) Hint() string {
	return "operations that have ended give way within a minute or two; if that does not help, those that have not ended fill it: cancel some"
}
