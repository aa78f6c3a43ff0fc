package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"ringmaster/events"
	"ringmaster/pkg/bus"
)

// Note says that clients have written points of a measurement in a span of time
// while an operation was copying.
type Note struct {
	Database string `json:"database"`
	// RetentionPolicy is empty for the default one.
	RetentionPolicy string `json:"retention_policy,omitempty"`
	Measurement     string `json:"measurement"`
	// From and To bound the times in nanoseconds; To is included.
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// AddNotes makes notes of one round of an operation durable.
func (l *Ledger) AddNotes(ctx context.Context, operation string, round int, notes []Note) error {
	raw, err := json.Marshal(notes)
	if err != nil {
		return fmt.Errorf("noting what was written: %w", err)
	}
	if _, err := l.notes.Append(ctx, events.NoteSubject(operation, round), l.options.NewID(), raw); err != nil {
		return fmt.Errorf("noting what was written: %w", err)
	}
	return nil
}

// Notes returns the notes of one round of an operation, in no particular order and
// perhaps some of them twice. A note that cannot be read is an error: what it was
// about would be taken for untouched.
func (l *Ledger) Notes(ctx context.Context, operation string, round int) ([]Note, error) {
	var all []Note
	for from := uint64(0); ; {
		page, err := l.notes.Page(ctx, from, events.NoteSubject(operation, round), bus.MaxPage)
		// What is gone belongs to other operations: notes are purged by operation.
		if gap := (*bus.GapError)(nil); err != nil && !errors.As(err, &gap) {
			return nil, fmt.Errorf("reading the notes of operation %s: %w", operation, err)
		}
		if len(page) == 0 {
			return all, nil
		}
		for i := range page {
			var notes []Note
			if err := json.Unmarshal(page[i].Data, &notes); err != nil {
				return nil, fmt.Errorf("reading the notes of operation %s: %w: %w", operation, ErrUnreadable, err)
			}
			all = append(all, notes...)
		}
		from = page[len(page)-1].Sequence + 1
	}
}

// ForgetNotes removes all notes of an operation that has ended.
func (l *Ledger) ForgetNotes(ctx context.Context, operation string) error {
	return l.notes.Purge(ctx, events.NoteSubjects(operation))
}
