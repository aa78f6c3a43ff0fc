package operation

import (
	"fmt"
	"slices"
)

// State is where an operation stands.
type State string

// The states of an operation.
const (
	Queued           State = "queued"
	Planning         State = "planning"
	Planned          State = "planned"
	AwaitingApproval State = "awaiting_approval"
	Running          State = "running"
	Verifying        State = "verifying"
	Paused           State = "paused"
	Succeeded        State = "succeeded"
	PartiallyFailed  State = "partially_failed"
	Failed           State = "failed"
	Cancelled        State = "cancelled"
)

// transitions is the whole state machine: from a state to every state that may
// follow. Resuming is not in it, since where it leads depends on PausedIn.
var transitions = map[State][]State{
	Queued:           {Planning, Cancelled},
	Planning:         {Planned, AwaitingApproval, Running, Succeeded, Failed, Paused, Cancelled},
	AwaitingApproval: {Running, Failed, Paused, Cancelled},
	Running:          {Verifying, Paused, PartiallyFailed, Failed, Cancelled},
	Verifying:        {Running, Paused, Succeeded, PartiallyFailed, Failed, Cancelled},
	Paused:           {Cancelled},
	PartiallyFailed:  {Queued},
	Failed:           {Queued},
	Cancelled:        {Queued},
	Planned:          nil,
	Succeeded:        nil,
}

// States lists every state, in the order an operation usually meets them.
func States() []State {
	return []State{
		Queued, Planning, Planned, AwaitingApproval, Running, Verifying, Paused,
		Succeeded, PartiallyFailed, Failed, Cancelled,
	}
}

// Valid reports whether s is one of the states.
func (s State) Valid() bool {
	_, ok := transitions[s]
	return ok
}

// Terminal reports whether nothing runs any more in s. A terminal operation
// holds no scope; some terminal states can be left again by a retry.
func (s State) Terminal() bool {
	switch s {
	case Planned, Succeeded, PartiallyFailed, Failed, Cancelled:
		return true
	default:
		return false
	}
}

// TransitionError is the refusal of a move the state machine does not have.
type TransitionError struct {
	From, To State
}

func (e *TransitionError) Error() string {
	return fmt.Sprintf("an operation that is %s cannot become %s", e.From, e.To)
}

// CanMove reports whether an operation may go from s to the given state;
// pausedIn is the state it was paused in when s is Paused.
func (s State) CanMove(to, pausedIn State) bool {
	if s == Paused && to == pausedIn && pausable(pausedIn) {
		return true
	}
	return slices.Contains(transitions[s], to)
}

// pausable reports whether a paused operation may have been paused in s.
func pausable(s State) bool { return slices.Contains(transitions[s], Paused) }

// Move returns a copy of o in the state to, or a *TransitionError. It keeps
// PausedIn true to the state; times and everything else are the caller's.
func (o Operation) Move(to State) (Operation, error) {
	if !o.State.CanMove(to, o.PausedIn) {
		return o, &TransitionError{From: o.State, To: to}
	}
	if to == Paused {
		o.PausedIn = o.State
	} else {
		o.PausedIn = ""
	}
	o.State = to
	return o, nil
}
