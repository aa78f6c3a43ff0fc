package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/operation"
)

// ErrRemoved says that the operation was part of the history and is being removed, or
// has been. It comes together with operation.ErrNotFound.
var ErrRemoved = errors.New("the operation has been removed from the history")

// removal is what stands in the place of an operation's record while everything that
// belongs to it is removed. It is the one step that decides: from then on there is no
// such operation, nothing can begin it again, and whoever finds the removal finishes
// it.
type removal struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
	// Key is the operation's IdempotencyKey.
	Key string `json:"idempotency_key_hash,omitempty"`
}

// stored is an operation's record, or the removal in its place.
type stored struct {
	operation.Operation

	Removed *removal `json:"removed,omitempty"`
}

// Buried is an operation of which something may be left to remove.
type Buried struct {
	ID       string
	key      string
	revision uint64
}

// Bury takes an operation that has ended out of the history: from now on there is no
// such operation. What belongs to it is removed by Clear. ErrConflict when anybody has
// changed the record since it was read; one that has not ended is refused.
func (l *Ledger) Bury(ctx context.Context, v Versioned[operation.Operation], reason string) (Buried, error) {
	op := &v.Value
	if !op.State.Terminal() {
		return Buried{}, fmt.Errorf("removing operation %s: %w", op.ID, &operation.StateError{ID: op.ID, State: op.State, Verb: "remove"})
	}
	at := l.options.Now().UTC()
	raw, err := json.Marshal(struct {
		ID      string   `json:"id"`
		Removed *removal `json:"removed"`
	}{op.ID, &removal{At: at, Reason: reason, Key: op.IdempotencyKey}})
	if err != nil {
		return Buried{}, fmt.Errorf("removing operation %s: %w", op.ID, err)
	}
	revision, err := l.operations.Update(ctx, events.EscapeToken(op.ID), raw, v.Revision)
	if err != nil {
		return Buried{}, fmt.Errorf("removing operation %s: %w", op.ID, conflict(err))
	}
	l.Emit(ctx, op.ID+"/removed", events.OperationRemove{OperationID: op.ID, RemovedAt: at, Reason: reason})
	return Buried{ID: op.ID, key: op.IdempotencyKey, revision: revision}, nil
}

// BuriedOperations returns the operations whose removal has been begun and not ended.
func (l *Ledger) BuriedOperations(ctx context.Context) ([]Buried, error) {
	var all []Buried
	for e, err := range l.operations.List(ctx, "") {
		if err != nil {
			return nil, fmt.Errorf("listing operations: %w", err)
		}
		if v, err := decode[stored](e); err == nil && v.Value.Removed != nil {
			all = append(all, Buried{ID: v.Value.ID, key: v.Value.Removed.Key, revision: v.Revision})
		}
	}
	return all, nil
}

// Clear removes everything that belongs to a buried operation, and at last what stands
// in the place of its record. It may be cut off anywhere and repeated. documents are
// the names under which Documents found plans and reports of the operation.
func (l *Ledger) Clear(ctx context.Context, b Buried, documents []string) error {
	if err := l.forgetKey(ctx, b.key, b.ID); err != nil {
		return err
	}
	if err := l.EraseTasks(ctx, b.ID); err != nil {
		return err
	}
	if err := l.RemoveDocuments(ctx, documents); err != nil {
		return err
	}
	if err := l.ForgetNotes(ctx, b.ID); err != nil {
		return err
	}
	err := l.operations.Remove(ctx, events.EscapeToken(b.ID), b.revision)
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		return fmt.Errorf("removing operation %s: %w", b.ID, conflict(err))
	}
	return nil
}

// EraseTasks removes all tasks of an operation that is no more.
func (l *Ledger) EraseTasks(ctx context.Context, op string) error {
	if err := l.tasks.EraseAll(ctx, events.EscapeToken(op)); err != nil {
		return fmt.Errorf("removing the tasks of operation %s: %w", op, err)
	}
	return nil
}

// TaskOwners returns the ids of the operations that have task records.
func (l *Ledger) TaskOwners(ctx context.Context) ([]string, error) {
	keys, err := l.tasks.Keys(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("listing tasks: %w", err)
	}
	return owners(keys, ".", events.UnescapeToken), nil
}

// owners returns what the names begin with, each once, in no particular order.
func owners(names []string, separator string, read func(string) (string, bool)) []string {
	seen := map[string]bool{}
	for _, name := range names {
		first, _, _ := strings.Cut(name, separator)
		seen[first] = true
	}
	ids := make([]string, 0, len(seen))
	for token := range seen {
		if id, ok := read(token); ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// StoredDocument is a part of a plan, or a report, in the object store.
type StoredDocument struct {
	Name     string
	StoredAt time.Time
}

// Documents returns what is stored of plans and reports, by operation.
func (l *Ledger) Documents(ctx context.Context) (map[string][]StoredDocument, error) {
	objects, err := l.objects.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing plans and reports: %w", err)
	}
	all := map[string][]StoredDocument{}
	for i := range objects {
		op, _, _ := strings.Cut(objects[i].Name, "/")
		all[op] = append(all[op], StoredDocument{Name: objects[i].Name, StoredAt: objects[i].Stored})
	}
	return all, nil
}

// RemoveDocuments removes plans and reports by their names.
func (l *Ledger) RemoveDocuments(ctx context.Context, names []string) error {
	for _, name := range names {
		if err := l.objects.Delete(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// RemoveStrayChunks removes what was stored before a moment of documents that were
// never finished. It returns of how many.
func (l *Ledger) RemoveStrayChunks(ctx context.Context, before time.Time) (int, error) {
	return l.objects.RemoveStray(ctx, before)
}

// NoteOwners returns the ids of the operations that have notes.
func (l *Ledger) NoteOwners(ctx context.Context) ([]string, error) {
	subjects, err := l.notes.Subjects(ctx, events.AllNotes)
	if err != nil {
		return nil, fmt.Errorf("listing notes: %w", err)
	}
	ids := map[string]bool{}
	for _, s := range subjects {
		if id, ok := events.ParseNoteSubject(s); ok {
			ids[id] = true
		}
	}
	all := make([]string, 0, len(ids))
	for id := range ids {
		all = append(all, id)
	}
	return all, nil
}

// Usage is how many bytes the history takes, live operations included.
type Usage struct {
	Operations, Tasks, Keys, Documents uint64
	// DocumentsBound is how many bytes of plans and reports there may be at all; 0
	// means any number.
	DocumentsBound uint64
}

// Total is all of it.
func (u Usage) Total() uint64 { return u.Operations + u.Tasks + u.Keys + u.Documents }

// Usage measures the history.
func (l *Ledger) Usage(ctx context.Context) (Usage, error) {
	var u Usage
	for _, part := range []struct {
		bucket *bus.Bucket
		bytes  *uint64
	}{{l.operations, &u.Operations}, {l.tasks, &u.Tasks}, {l.idempotency, &u.Keys}} {
		size, err := part.bucket.Size(ctx)
		if err != nil {
			return u, fmt.Errorf("measuring the history: %w", err)
		}
		*part.bytes = size.Bytes
	}
	size, err := l.objects.Size(ctx)
	if err != nil {
		return u, fmt.Errorf("measuring the history: %w", err)
	}
	u.Documents, u.DocumentsBound = size.Bytes, size.MaxBytes
	return u, nil
}

// storeReserve is the part of the plan store that is kept free for the operations that
// have been accepted already.
const storeReserve = 16

// Room refuses with an *operation.StoreFullError when there is hardly room for the
// plan of another operation.
func (l *Ledger) Room(ctx context.Context) error {
	size, err := l.objects.Size(ctx)
	if err != nil {
		return fmt.Errorf("measuring the plan store: %w", err)
	}
	if size.MaxBytes == 0 || size.Bytes < size.MaxBytes-size.MaxBytes/storeReserve {
		return nil
	}
	return &operation.StoreFullError{Bytes: size.Bytes, MaxBytes: size.MaxBytes}
}
