package operation

import (
	"errors"
	"fmt"
	"time"
)

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

// ScopeHeldError refuses a request whose scope another operation holds.
type ScopeHeldError struct {
	Scope string
	// HolderID is the operation that holds it; Kind, State and Since describe
	// it as far as it could be read.
	HolderID string
	Kind     Kind
	State    State
	Since    time.Time
}

func (e *ScopeHeldError) Error() string {
	return fmt.Sprintf("%s is held by %s operation %s (%s since %s)",
		e.Scope, e.Kind, e.HolderID, e.State, e.Since.UTC().Format(time.RFC3339))
}
