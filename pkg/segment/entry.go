package segment

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"time"
)

// State is what the catalog says of a segment.
type State string

// The states of a segment. Live and damaged ones are current: they are what the
// archive has of their window.
const (
	// Live: it is in its stores, as far as is known.
	Live State = "live"
	// Damaged: no store has an undamaged copy.
	Damaged State = "damaged"
	// Tombstoned: it was removed, and can come back if its object does.
	Tombstoned State = "tombstoned"
	// Superseded: its window has been archived again.
	Superseded State = "superseded"
)

// Current reports whether a segment of the state is what the archive has of its
// window.
func (s State) Current() bool { return s == Live || s == Damaged }

// Valid reports whether it is one of the four.
func (s State) Valid() bool {
	return s.Current() || s == Tombstoned || s == Superseded
}

// Entry is what the catalog knows of one segment. Its datasource is that of its page.
type Entry struct {
	ID ID `json:"id"`
	// Digest is the SHA-256 of the file. The id follows from it.
	Digest Digest `json:"sha256"`
	Window Window `json:"window"`
	// Part is which of the Parts of the window it is, from 1.
	Part  int `json:"part"`
	Parts int `json:"parts"`
	// Points, Values and Series are how many it has, MinTime and MaxTime its first and
	// last times in nanoseconds.
	Points  int64 `json:"points"`
	Values  int64 `json:"values"`
	Series  int64 `json:"series"`
	MinTime int64 `json:"min_time"`
	MaxTime int64 `json:"max_time"`
	// Size is how many bytes the file has, Raw how many its lines have.
	Size  int64 `json:"bytes"`
	Raw   int64 `json:"raw_bytes"`
	State State `json:"state"`
	// Holders are the identities of the stores that have it, sorted.
	Holders []string `json:"holders"`

	ArchivedAt  time.Time `json:"archived_at"`
	ArchivedBy  string    `json:"archived_by,omitempty"`
	OperationID string    `json:"operation_id,omitempty"`

	// Damage is what is wrong with it, since DamagedAt.
	DamagedAt time.Time `json:"damaged_at,omitzero"`
	Damage    string    `json:"damage,omitempty"`

	DeletedAt time.Time `json:"deleted_at,omitzero"`
	DeletedBy string    `json:"deleted_by,omitempty"`

	// SupersededBy is the first segment of those that took its place.
	SupersededAt time.Time `json:"superseded_at,omitzero"`
	SupersededBy ID        `json:"superseded_by,omitzero"`
}

// NewEntry is the entry of a file that has been written or verified; parts is how many
// its window has. The caller adds who holds it and how it came to be.
func NewEntry(s *Summary, parts int) Entry {
	return Entry{
		ID: s.ID, Digest: s.Digest, Window: s.Window, Part: s.Part, Parts: parts,
		Points: s.Points, Values: s.Values, Series: s.Series, MinTime: s.MinTime, MaxTime: s.MaxTime,
		Size: s.Size, Raw: s.Raw, State: Live,
	}
}

// Check returns an error if the entry can't be one of a catalog.
func (e *Entry) Check() error {
	switch {
	case e.ID != IDOf(e.Digest):
		return fmt.Errorf("segment %s: its id is not that of its SHA-256", e.ID)
	case e.Part < 1 || e.Part > e.Parts:
		return fmt.Errorf("segment %s: part %d of %d", e.ID, e.Part, e.Parts)
	case e.Points < 0 || e.Values < e.Points || e.Series < 0 || e.Series > e.Points || e.Size < 0 || e.Raw < 0:
		return fmt.Errorf("segment %s: %d points, %d values, %d series, %d and %d bytes", e.ID, e.Points, e.Values, e.Series, e.Size, e.Raw)
	case e.MinTime > e.MaxTime || e.MinTime < e.Window.From || e.MaxTime > e.Window.To:
		return fmt.Errorf("segment %s: times %d to %d in the window %v", e.ID, e.MinTime, e.MaxTime, e.Window)
	case !e.State.Valid():
		return fmt.Errorf("segment %s: unknown state %.32q", e.ID, e.State)
	}
	if err := e.Window.Check(); err != nil {
		return fmt.Errorf("segment %s: %w", e.ID, err)
	}
	return nil
}

// Compare is the order of entries in a page: by window and part, then by age.
func (e *Entry) Compare(f *Entry) int {
	return cmp.Or(e.Window.Compare(f.Window), cmp.Compare(e.Part, f.Part), e.ArchivedAt.Compare(f.ArchivedAt), bytes.Compare(e.ID[:], f.ID[:]))
}

// sameSet reports whether two entries are different parts of what was archived of one
// window at one time.
func (e *Entry) sameSet(f *Entry) bool {
	return e.Window == f.Window && e.Parts == f.Parts && e.Part != f.Part &&
		e.OperationID == f.OperationID && e.ArchivedAt.Equal(f.ArchivedAt)
}

// clone returns a copy that shares nothing that changes.
func (e *Entry) clone() Entry {
	c := *e
	c.Holders = append([]string(nil), e.Holders...)
	return c
}

// Errors of what is asked of a catalog.
var (
	// ErrNoEntry says that a page has no such segment.
	ErrNoEntry = errors.New("no such segment")
	// ErrIncomplete says that not all parts of a window are there.
	ErrIncomplete = errors.New("the parts of the window are not complete")
)

// StateError says that a segment can't be asked for something in its state.
type StateError struct {
	ID    ID
	State State
	Verb  string
}

// Error names the segment, its state and what was asked.
func (e *StateError) Error() string {
	return fmt.Sprintf("segment %s is %s: it can't be %s", e.ID, e.State, e.Verb)
}

// OverlapError says that a segment would be current beside another one that has a part
// of its window.
type OverlapError struct {
	Window Window
	// Other is the one that is current, and OtherWindow its window.
	Other       ID
	OtherWindow Window
}

// Error names the windows and the other segment.
func (e *OverlapError) Error() string {
	return fmt.Sprintf("the window %v overlaps segment %s, which has %v", e.Window, e.Other, e.OtherWindow)
}
