package replay

import (
	"errors"
	"fmt"
)

// ErrLimit says that a backend's hints take no more at this moment.
var ErrLimit = errors.New("hints take no more")

// Bound is one of the bounds of hints.
type Bound string

// The bounds.
const (
	// BoundBytes: as many bytes are kept as may be.
	BoundBytes Bound = "bytes"
	// BoundAge: the oldest hint waits too long already.
	BoundAge Bound = "age"
	// BoundSpace: the disk is nearly full.
	BoundSpace Bound = "space"
	// BoundRate: more is written than the backend takes beside what it has missed.
	BoundRate Bound = "rate"
)

// LimitError says which bound is reached; it matches ErrLimit. Nothing was kept.
type LimitError struct {
	Backend string
	Bound   Bound
	// Value is what was measured and Limit what may be, for a person.
	Value, Limit string
}

// Error names the backend, the bound, what was measured and what may be.
func (e *LimitError) Error() string {
	switch e.Bound {
	case BoundBytes:
		return fmt.Sprintf("the hints of %s hold %s of %s", e.Backend, e.Value, e.Limit)
	case BoundAge:
		return fmt.Sprintf("the oldest hint of %s has waited for %s, and the limit is %s", e.Backend, e.Value, e.Limit)
	case BoundSpace:
		return fmt.Sprintf("hints of %s can't be kept: %s", e.Backend, e.Value)
	default:
		return fmt.Sprintf("%s is being brought up to date, and more is written meanwhile than it takes: %s, and the limit is %s", e.Backend, e.Value, e.Limit)
	}
}

// Is makes errors.Is(err, ErrLimit) true.
func (e *LimitError) Is(target error) bool { return target == ErrLimit }

// size puts bytes in words.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, units := float64(n)/unit, "KMGTP"
	for f >= unit && len(units) > 1 {
		f, units = f/unit, units[1:]
	}
	return fmt.Sprintf("%.1f %ciB", f, units[0])
}
