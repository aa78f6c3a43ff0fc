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

// Bounds of what is read for one page of tasks: a record may have the evidence of
// thousands of slices.
const (
	pageTasks = 2000
	pageBytes = 4 << 20
	pageRead  = 64
)

// TaskPage returns at most limit tasks of an operation in the order of their
// ids, those in one state or all, and the cursor of the next page, empty at the
// end. A page may have fewer tasks than limit, even none, and still not be the last:
// what is read for one is bounded. Records
// that cannot be read are left out and logged; so are tasks that a worker made
// and did not live to name in its checkpoint, since they do not belong to the
// operation. A cursor it did not make is an *operation.InvalidError.
func (l *Ledger) TaskPage(ctx context.Context, op string, state operation.TaskState, cursor string, limit int) ([]operation.Task, string, error) {
	after, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return nil, "", &operation.InvalidError{Field: "cursor", Problem: "is not one of this list", Hint: "use next_cursor of the page before"}
	}
	ids, err := l.taskIDs(ctx, op, string(after))
	if err != nil {
		return nil, "", err
	}
	limit = max(limit, 1)
	page := make([]operation.Task, 0, min(limit, pageRead))
	known := map[string]operation.Task{}
	read, size := 0, 0
	for read < len(ids) && len(page) < limit && read < pageTasks && size < pageBytes {
		next := ids[read:min(len(ids), read+min(pageRead, limit-len(page)))]
		read += len(next)
		tasks, bytes, err := l.tasksOf(ctx, op, next)
		if err != nil {
			return nil, "", err
		}
		size += bytes
		for i := range tasks {
			if state != "" && tasks[i].State != state {
				continue
			}
			belongs, err := l.belongs(ctx, &tasks[i], known)
			if err != nil {
				return nil, "", err
			}
			if belongs {
				page = append(page, tasks[i])
			}
		}
	}
	if read == len(ids) {
		return page, "", nil
	}
	return page, base64.RawURLEncoding.EncodeToString([]byte(ids[read-1])), nil
}

// taskIDs returns the ids of an operation's tasks that come after one, sorted.
func (l *Ledger) taskIDs(ctx context.Context, op, after string) ([]string, error) {
	prefix := events.EscapeToken(op)
	keys, err := l.tasks.Keys(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("listing the tasks of operation %s: %w", op, err)
	}
	ids := make([]string, 0, len(keys))
	for _, key := range keys {
		id, ok := events.UnescapeToken(strings.TrimPrefix(key, prefix+"."))
		if ok && id > after {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids) // by what they mean
	return ids, nil
}

// tasksOf reads some tasks, in the order of their ids, and tells how large they are.
func (l *Ledger) tasksOf(ctx context.Context, op string, ids []string) (tasks []operation.Task, size int, err error) {
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = taskKey(op, id)
	}
	entries, err := l.tasks.GetSome(ctx, keys)
	if err != nil {
		return nil, 0, fmt.Errorf("listing the tasks of operation %s: %w", op, err)
	}
	tasks = make([]operation.Task, 0, len(entries))
	for _, e := range entries {
		size += len(e.Value)
		v, err := decode[operation.Task](e)
		if err != nil {
			l.options.Logger.ErrorContext(ctx, "task left out of a list", "operation", op, "error", err)
			continue
		}
		tasks = append(tasks, v.Value)
	}
	return tasks, size, nil
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
