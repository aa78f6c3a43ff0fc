package operation

import "slices"

// Filter selects operations in a list; zero values select all.
type Filter struct {
	State State
	Kind  Kind
	// Scope selects operations that hold, or held, this scope.
	Scope string
}

// Match reports whether o is selected.
func (f Filter) Match(o *Operation) bool {
	if f.State != "" && o.State != f.State || f.Kind != "" && o.Kind != f.Kind {
		return false
	}
	return f.Scope == "" || slices.Contains(o.Scope, f.Scope)
}
