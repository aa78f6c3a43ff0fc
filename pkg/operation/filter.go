package operation

import (
	"slices"
	"time"
)

// Filter selects operations in a list; zero values select all.
type Filter struct {
	State State
	Kind  Kind
	// Scope selects operations that hold, or held, this scope.
	Scope string
	// Since and Until bound when the operation was created; Until is not included.
	Since, Until time.Time
}

// Match reports whether o is selected.
func (f Filter) Match(o *Operation) bool {
	switch {
	case f.State != "" && o.State != f.State,
		f.Kind != "" && o.Kind != f.Kind,
		!f.Since.IsZero() && o.CreatedAt.Before(f.Since),
		!f.Until.IsZero() && !o.CreatedAt.Before(f.Until):
		return false
	}
	return f.Scope == "" || slices.Contains(o.Scope, f.Scope)
}
