package httpapi

import "time"

// BackendStatus is what the last probe of a backend found. Answers are served
// from it; no request waits for a backend.
type BackendStatus struct {
	// Active is whether the backend answered.
	Active bool
	// Version is what it said it is; empty when it never answered.
	Version string
	// CheckedAt is when it was asked; zero when it has not been yet.
	CheckedAt time.Time
	// Error says why it is not active or, if it is, why it does not store what is
	// written; without credentials.
	Error string
	// Unwritable is whether the last probe that wrote to it failed.
	Unwritable bool
	// WroteAt is when that was; zero when nothing has been written to it, for
	// which Note may give a reason.
	WroteAt time.Time
	Note    string
}

// Healthy reports whether the backend answers, and no probe has shown that it
// does not store what is written to it.
func (s BackendStatus) Healthy() bool { return s.Active && !s.Unwritable }
