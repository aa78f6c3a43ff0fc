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

// Task reads one task, or ErrNoTask; see ErrUnreadable.
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

// Tasks calls each for every task of an operation, in no particular order. When
// there are records that cannot be read, it returns an error that matches
// ErrUnreadable after all others have been given to each: whoever judges by the
// set of tasks must not take it for whole.
func (l *Ledger) Tasks(ctx context.Context, op string, each func(Versioned[operation.Task]) error) error {
	var unreadable error
	for e, err := range l.tasks.List(ctx, events.EscapeToken(op)) {
		if err != nil {
			return fmt.Errorf("listing the tasks of operation %s: %w", op, err)
		}
		v, err := decode[operation.Task](e)
		switch {
		case err == nil:
			if err := each(v); err != nil {
				return err
			}
		case unreadable == nil:
			unreadable = fmt.Errorf("listing the tasks of operation %s: %w", op, err)
		}
	}
	return unreadable
}

// TaskPage returns at most limit tasks of an operation in the order of their
// ids, those in one state or all, and the cursor of the next page, empty at the
// end. A page may have fewer tasks than limit, and still not be the last. Records
// that cannot be read are left out and logged; so are tasks that a worker made
// and did not live to name in its checkpoint, since they do not belong to the
// operation. A cursor it did not make is an *operation.InvalidError.
func (l *Ledger) TaskPage(ctx context.Context, op string, state operation.TaskState, cursor string, limit int) ([]operation.Task, string, error) {
	after, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return nil, "", &operation.InvalidError{Field: "cursor", Problem: "is not one of this list", Hint: "use next_cursor of the page before"}
	}
	first := firstTasks{limit: max(limit, 1) + 1}
	err = l.Tasks(ctx, op, func(v Versioned[operation.Task]) error {
		if (state == "" || v.Value.State == state) && v.Value.ID > string(after) {
			first.add(v.Value)
		}
		return nil
	})
	switch {
	case errors.Is(err, ErrUnreadable):
		l.options.Logger.ErrorContext(ctx, "task left out of a list", "error", err)
	case err != nil:
		return nil, "", err
	}
	all, next := first.sorted(), ""
	if len(all) == first.limit {
		all = all[:first.limit-1]
		next = base64.RawURLEncoding.EncodeToString([]byte(all[len(all)-1].ID))
	}
	page := make([]operation.Task, 0, len(all))
	known := map[string]operation.Task{}
	for i := range all {
		belongs, err := l.belongs(ctx, &all[i], known)
		if err != nil {
			return nil, "", err
		}
		if belongs {
			page = append(page, all[i])
		}
	}
	return page, next, nil
}

// firstTasks keeps the tasks with the smallest ids of all that are added: an
// operation may have far more than a page shows.
type firstTasks struct {
	limit int
	all   []operation.Task
}

func (f *firstTasks) add(t operation.Task) {
	if f.all = append(f.all, t); len(f.all) >= 2*f.limit {
		f.sorted()
	}
}

func (f *firstTasks) sorted() []operation.Task {
	slices.SortFunc(f.all, func(a, b operation.Task) int { return strings.Compare(a.ID, b.ID) })
	if len(f.all) > f.limit {
		clear(f.all[f.limit:])
		f.all = f.all[:f.limit]
	}
	return f.all
}

// belongs reports whether a task is one of its operation: a child is one only if
// its parent names it and is one itself. known remembers parents.
func (l *Ledger) belongs(ctx context.Context, t *operation.Task, known map[string]operation.Task) (bool, error) {
	for child := *t; child.Parent != ""; {
		parent, ok := known[child.Parent]
		if !ok {
			v, err := l.Task(ctx, t.OperationID, child.Parent)
			switch {
			case errors.Is(err, ErrNoTask), errors.Is(err, ErrUnreadable):
				return false, nil
			case err != nil:
				return false, err
			}
			parent = v.Value
			known[child.Parent] = parent
		}
		// An id begins with its parent's, so this comes to an end.
		if !slices.Contains(parent.Children, child.ID) || len(parent.ID) >= len(child.ID) {
			return false, nil
		}
		child = parent
	}
	return true, nil
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

// CreateTasks stores new tasks, many at a time; those that are there already stay as
// they are.
func (l *Ledger) CreateTasks(ctx context.Context, tasks []*operation.Task) error {
	for part := range slices.Chunk(tasks, createAtOnce) {
		pairs := make([]bus.Pair, len(part))
		for i, t := range part {
			raw, err := json.Marshal(t)
			if err != nil {
				return fmt.Errorf("storing task %s: %w", t.ID, err)
			}
			pairs[i] = bus.Pair{Key: taskKey(t.OperationID, t.ID), Value: raw}
		}
		revisions, err := l.tasks.CreateMany(ctx, pairs)
		if err != nil {
			return fmt.Errorf("storing tasks: %w", err)
		}
		for i, revision := range revisions {
			if revision > 0 {
				l.announceTask(ctx, Versioned[operation.Task]{Value: *part[i], Revision: revision})
			}
		}
	}
	return nil
}

// createAtOnce bounds how many tasks are kept encoded.
const createAtOnce = 1000

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

// RemoveTask deletes a task at the revision it was read at; ErrConflict when it has
// changed since. One that is gone already is success.
func (l *Ledger) RemoveTask(ctx context.Context, v Versioned[operation.Task]) error {
	err := l.tasks.Delete(ctx, taskKey(v.Value.OperationID, v.Value.ID), v.Revision)
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		return fmt.Errorf("removing task %s: %w", v.Value.ID, conflict(err))
	}
	return nil
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

// Nudge returns the message that tells workers of a task; see bus.Queue.
func (l *Ledger) Nudge(t *operation.Task) (bus.Message, error) {
	run := events.TaskRun{OperationID: t.OperationID, TaskID: t.ID, Kind: t.Kind, Phase: t.Phase}
	raw, err := l.envelope(l.options.NewID(), run)
	if err != nil {
		return bus.Message{}, fmt.Errorf("nudging task %s: %w", t.ID, err)
	}
	return bus.Message{Subject: events.Address(run), Data: raw}, nil
}
