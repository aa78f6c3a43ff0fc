// Package segment is the form in which measurements are archived: files that hold
// the points of one measurement in one window, compressed and checksummed, written
// once and named by what they hold; the catalog's entries and pages about them; and
// the lines in which missing ones are listed. docs/format/segment.md specifies the
// file for those who have only that. The package is pure: it reads and writes what it
// is given.
package segment

import (
	"errors"
	"fmt"

	"ringmaster/pkg/lineproto"
)

// Version is the version of the format that this release writes and reads.
const Version = 1

// Bounds of a segment file. A Writer keeps them, and a reader refuses what is beyond
// them before it asks for memory.
const (
	// MaxSize is how large a file is at most.
	MaxSize = 64 << 20
	// MaxFrame is how many bytes of line protocol a frame holds at most. Frames are
	// ended at FrameTarget, so that only lines that are larger make larger ones.
	MaxFrame = 32 << 20
	// FrameTarget is how many bytes of line protocol a frame has usually.
	FrameTarget = 1 << 20
	// MaxFoot is how many bytes header and index take at most, and MaxFrames how many
	// frames there are.
	MaxFoot   = 8 << 20
	MaxFrames = 1 << 16
)

// Errors that the Writer wraps, beside [lineproto.ErrUnrepresentable].
var (
	// ErrOrder says that points were not given series by series, each in order of
	// time.
	ErrOrder = errors.New("points are out of order")
	// ErrOutside says that a point lies outside the segment's window or measurement.
	ErrOutside = errors.New("point does not belong to the segment")
	// ErrTypes says that a field has values of two types, which it cannot have
	// between two shard-group boundaries.
	ErrTypes = errors.New("field has values of several types")
	// ErrTooLarge says that what no part can hold was given: a line that is larger
	// than a frame, or names that are larger than header and index may be.
	ErrTooLarge = errors.New("too large for a segment")
	// ErrPartFull says that the part has no room for the row, which was not taken: it
	// belongs to the next part.
	ErrPartFull = errors.New("the part is full")
)

// Errors that readers wrap.
var (
	// ErrDamaged says that a file is not what was written. The error is a
	// [*DamagedError].
	ErrDamaged = errors.New("damaged segment")
	// ErrVersion says that a file says it has another version of the format. Its
	// error matches ErrDamaged too, as that may be what a damaged byte says.
	ErrVersion = errors.New("unknown version of the segment format")
)

// DamagedError says what is wrong with a file and where. It matches [ErrDamaged].
type DamagedError struct {
	// Part is the part of the file: "head", "frame 3", "foot" or "tail".
	Part string
	// Offset is where that part begins in the file, -1 if that is not known.
	Offset int64
	// Problem says what is wrong with it.
	Problem string
	// Err is the cause, if there is one.
	Err error
}

// Error names the part, its place and the problem.
func (e *DamagedError) Error() string {
	at := ""
	if e.Offset >= 0 {
		at = fmt.Sprintf(" at byte %d", e.Offset)
	}
	if e.Err != nil {
		return fmt.Sprintf("%v: %s%s: %s: %v", ErrDamaged, e.Part, at, e.Problem, e.Err)
	}
	return fmt.Sprintf("%v: %s%s: %s", ErrDamaged, e.Part, at, e.Problem)
}

// Is makes errors.Is(err, ErrDamaged) true.
func (e *DamagedError) Is(target error) bool { return target == ErrDamaged }

// Unwrap returns the cause.
func (e *DamagedError) Unwrap() error { return e.Err }

func damaged(part string, offset int64, format string, args ...any) *DamagedError {
	return &DamagedError{Part: part, Offset: offset, Problem: fmt.Sprintf(format, args...)}
}

// Datasource is what a segment has points of: one measurement of one retention
// policy. Its database is the repository of LogScale's dialect.
type Datasource struct {
	Database        string `json:"database"`
	RetentionPolicy string `json:"retention_policy"`
	Measurement     string `json:"measurement"`
}

// Check returns an error if one of the names is missing.
func (d Datasource) Check() error {
	if d.Database == "" || d.RetentionPolicy == "" || d.Measurement == "" {
		return fmt.Errorf("database %q, retention policy %q, measurement %q: none may be empty", d.Database, d.RetentionPolicy, d.Measurement)
	}
	return nil
}

// Window is a span of time in nanoseconds: From included, To excluded, unless Last is
// set, which closes the last window of InfluxDB's legal time.
type Window struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
	Last bool  `json:"last,omitempty"`
}

// Check returns an error if the window cannot hold a time.
func (w Window) Check() error {
	if w.From > w.To || w.From == w.To && !w.Last {
		return fmt.Errorf("the window %v is empty", w)
	}
	return nil
}

// Contains reports whether a time lies in the window.
func (w Window) Contains(ns int64) bool {
	return ns >= w.From && (ns < w.To || ns == w.To && w.Last)
}

// Overlaps reports whether there is a time that lies in both windows.
func (w Window) Overlaps(v Window) bool {
	return w.startsBeforeEnd(v) && v.startsBeforeEnd(w)
}

func (w Window) startsBeforeEnd(v Window) bool { return w.From < v.To || w.From == v.To && v.Last }

// Compare orders windows by where they begin, then by where they end.
func (w Window) Compare(v Window) int {
	switch {
	case w.From != v.From:
		return order(w.From < v.From)
	case w.To != v.To:
		return order(w.To < v.To)
	case w.Last != v.Last:
		return order(v.Last)
	default:
		return 0
	}
}

func order(before bool) int {
	if before {
		return -1
	}
	return 1
}

// String renders the window for messages.
func (w Window) String() string {
	if w.Last {
		return fmt.Sprintf("[%d,%d]", w.From, w.To)
	}
	return fmt.Sprintf("[%d,%d)", w.From, w.To)
}

// Field is a field and the one type that it has in a segment.
type Field struct {
	Name string
	Kind lineproto.Kind
}
