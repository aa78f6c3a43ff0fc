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
	// Error says why it is not active, without credentials.
	Error string
}
