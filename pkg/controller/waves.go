package controller

import (
	"context"
	"errors"
	"fmt"

	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// codeEarlierFailed is the code of a task that was not begun because it was to
// follow a copy that has failed.
const codeEarlierFailed = "earlier_copy_failed"

// barBehindFailures ends the tasks of a wave that would copy a measurement of
// which an earlier wave has failed to copy a part: the waves are in the order of
// whose value wins, and a value that arrived in place of another one would stay.
// Tasks about other measurements go on. It returns the tasks that are left.
func (t *turn) barBehindFailures(ctx context.Context, current []*operation.Task, wave int, alive map[string]bool) ([]*operation.Task, error) {
	if wave <= t.barred {
		return current, nil
	}
	t.barred = wave
	failed := map[measurementName]bool{}
	for _, task := range current {
		if task.Wave >= wave || task.State != operation.TaskFailed || task.Phase == operation.PhaseVerify {
			continue
		}
		if err := t.notCopiedBy(ctx, task, failed); err != nil {
			return nil, err
		}
	}
	if len(failed) == 0 {
		return current, nil
	}
	left := current[:0:0]
	for _, task := range current {
		if task.Wave != wave || task.State.Ended() || alive[task.ID] {
			left = append(left, task)
			continue
		}
		name, err := t.touches(ctx, task, failed)
		if err != nil {
			return nil, err
		}
		if name == nil {
			left = append(left, task)
			continue
		}
		t.heldBack = true
		if err := t.bar(ctx, task.ID, *name); err != nil {
			return nil, err
		}
	}
	return left, nil
}

// measurementName is a measurement wherever it lies.
type measurementName struct{ database, name string }

// notCopiedBy adds the measurements of which a failed task has not copied all.
func (t *turn) notCopiedBy(ctx context.Context, task *operation.Task, failed map[measurementName]bool) error {
	all, err := t.ledger.Slices(ctx, &t.record.Value, task)
	if err != nil {
		return err
	}
	for i := range all {
		if state := sliceState(task.Checkpoint, i); !state.Finished() || state == operation.SliceFailed {
			failed[measurementName{all[i].Database, all[i].Measurement}] = true
		}
	}
	return nil
}

// touches returns the first of some measurements that a task is about.
func (t *turn) touches(ctx context.Context, task *operation.Task, some map[measurementName]bool) (*measurementName, error) {
	all, err := t.ledger.Slices(ctx, &t.record.Value, task)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if name := (measurementName{all[i].Database, all[i].Measurement}); some[name] {
			return &name, nil
		}
	}
	return nil, nil //nolint:nilnil // none of them is an answer
}

// bar fails a task that nobody has begun.
func (t *turn) bar(ctx context.Context, id string, name measurementName) error {
	was := t.tasks[id]
	task := was.Value
	now := t.options.Now().UTC()
	task.State, task.FinishedAt, task.UpdatedAt = operation.TaskFailed, &now, now
	task.Error = &operation.Error{
		Code: codeEarlierFailed, TaskID: id,
		Detail: operation.Clip(fmt.Sprintf("measurement %q of database %q could not be copied from where it is to be copied from first; start the operation again once that is mended", name.name, name.database)),
	}
	next, err := t.ledger.UpdateTask(ctx, was, task)
	if errors.Is(err, ledger.ErrConflict) {
		return nil // somebody has begun it, or ended it; the next turn sees it
	}
	if err == nil {
		t.tasks[id] = next
	}
	return err
}
