package ledger

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/operation"
)

func taskKey(op, id string) string {
	return events.EscapeToken(op) + "." + events.EscapeToken(id)
}

// Task reads one task, or ErrNoTask.
func (l *Ledger) Task(ctx context.Context, op, id string) (Versioned[operation.Task], error) {
	e, err := l.tasks.Get(ctx, taskKey(op, id))
	if errors.Is(err, bus.ErrNotFound) {
		return Versioned[operation.Task]{}, fmt.Errorf("task %s of operation %s: %w", id, op, ErrNoTask)
	}
	if err != nil {
		return Versioned[operation.Task]{}, fmt.Errorf("reading task %s of operation %s: %w", id, op, err)
	}
	return decode[operation.Task](e)
}

// Tasks calls each for every task of an operation, in no particular order.
func (l *Ledger) Tasks(ctx context.Context, op string, each func(Versioned[operation.Task]) error) error {
	for e, err := range l.tasks.List(ctx, events.EscapeToken(op)) {
		if err != nil {
			return fmt.Errorf("listing the tasks of operation %s: %w", op, err)
		}
		v, err := decode[operation.Task](e)
		if err != nil {
			return err
		}
		if err := each(v); err != nil {
			return err
		}
	}
	return nil
}

// TaskPage returns at most limit tasks of an operation in the order of their
// ids, those in one state or all, and the cursor of the next page, empty at the
// end. A cursor it did not make is an *operation.InvalidError.
func (l *Ledger) TaskPage(ctx context.Context, op string, state operation.TaskState, cursor string, limit int) ([]operation.Task, string, error) {
	after, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return nil, "", &operation.InvalidError{Field: "cursor", Problem: "is not one of this list", Hint: "use next_cursor of the page before"}
	}
	all := []operation.Task{}
	err = l.Tasks(ctx, op, func(v Versioned[operation.Task]) error {
		if (state == "" || v.Value.State == state) && v.Value.ID > string(after) {
			all = append(all, v.Value)
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	slices.SortFunc(all, func(a, b operation.Task) int { return strings.Compare(a.ID, b.ID) })
	if len(all) <= limit {
		return all, "", nil
	}
	all = all[:limit]
	return all, base64.RawURLEncoding.EncodeToString([]byte(all[limit-1].ID)), nil
}

// CreateTask stores a new task; one that is there already stays as it is.
func (l *Ledger) CreateTask(ctx context.Context, t operation.Task) error {
	raw, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("storing task %s: %w", t.ID, err)
	}
	revision, err := l.tasks.Create(ctx, taskKey(t.OperationID, t.ID), raw)
	if errors.Is(err, bus.ErrExists) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("storing task %s: %w", t.ID, err)
	}
	l.announceTask(ctx, Versioned[operation.Task]{Value: t, Revision: revision})
	return nil
}

// UpdateTask stores a changed task over the revision it was read at. This
// compare-and-set is the fence: a worker that has lost its claim gets
// ErrConflict. A change of state or attempt is told by an event.
func (l *Ledger) UpdateTask(ctx context.Context, was Versioned[operation.Task], t operation.Task) (Versioned[operation.Task], error) {
	t.UpdatedAt = l.options.Now().UTC()
	raw, err := json.Marshal(t)
	if err != nil {
		return was, fmt.Errorf("storing task %s: %w", t.ID, err)
	}
	revision, err := l.tasks.Update(ctx, taskKey(t.OperationID, t.ID), raw, was.Revision)
	if err != nil {
		return was, fmt.Errorf("storing task %s: %w", t.ID, conflict(err))
	}
	now := Versioned[operation.Task]{Value: t, Revision: revision}
	if t.State != was.Value.State || t.Attempt != was.Value.Attempt {
		l.announceTask(ctx, now)
	}
	return now, nil
}

func (l *Ledger) announceTask(ctx context.Context, t Versioned[operation.Task]) {
	l.Emit(ctx, t.Value.OperationID+"/"+t.Value.ID+"/"+strconv.FormatUint(t.Revision, 10),
		events.TaskChanged(t.Value, t.Revision))
}

// TaskOf reads a task from a watched entry; false when it is none.
func TaskOf(e bus.Entry) (Versioned[operation.Task], bool) {
	if e.Deleted {
		return Versioned[operation.Task]{}, false
	}
	v, err := decode[operation.Task](e)
	return v, err == nil
}

// WatchTasks hints that tasks of an operation have changed; see
// bus.Bucket.Watch.
func (l *Ledger) WatchTasks(ctx context.Context, op string) (<-chan bus.Entry, error) {
	return l.tasks.Watch(ctx, events.EscapeToken(op))
}

// Nudge returns the message that tells workers of a task.
func (l *Ledger) Nudge(t *operation.Task) (bus.Message, error) {
	run := events.TaskRun{OperationID: t.OperationID, TaskID: t.ID, Kind: t.Kind, Phase: t.Phase}
	raw, err := l.envelope(l.options.NewID(), run)
	if err != nil {
		return bus.Message{}, fmt.Errorf("nudging task %s: %w", t.ID, err)
	}
	return bus.Message{Subject: events.Address(run), Data: raw}, nil
}
