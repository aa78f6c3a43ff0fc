package controller

import (
	"context"
	"slices"

	"ringmaster/pkg/operation"
)

// barBehindFailures bars the slices of a wave that would copy what an earlier wave
// has failed to copy: the waves are in the order of whose
// value wins, and a value that arrived in place of another one would stay. All
// other slices go on.
func (t *turn) barBehindFailures(ctx context.Context, current []*operation.Task, wave int, alive map[string]bool) error {
	if wave <= t.barred {
		return nil
	}
	failed := failures{}
	for _, task := range current {
		if task.Wave >= wave || task.State != operation.TaskFailed || task.Phase == operation.PhaseVerify {
			continue
		}
		if err := t.notCopiedBy(ctx, task, failed); err != nil {
			return err
		}
	}
	for _, task := range current {
		if len(failed) == 0 || task.Wave != wave || task.State.Ended() || alive[task.ID] {
			continue
		}
		if err := t.bar(ctx, task, failed); err != nil {
			return err
		}
	}
	t.barred = wave
	return nil
}

// failures are the slices that were not copied, by policy and measurement.
type failures map[[3]string][]operation.Slice

func nameOf(s *operation.Slice) [3]string {
	return [3]string{s.Database, s.RetentionPolicy, s.Measurement}
}

// touch reports whether a slice has a time in common with one that was not copied.
func (f failures) touch(s *operation.Slice) bool {
	return slices.ContainsFunc(f[nameOf(s)], func(o operation.Slice) bool {
		return s.From < o.To && o.From < s.To || s.Last && o.Last
	})
}

// notCopiedBy adds the slices that a failed task has not copied.
func (t *turn) notCopiedBy(ctx context.Context, task *operation.Task, failed failures) error {
	all, err := t.ledger.Slices(ctx, &t.record.Value, task)
	if err != nil {
		return err
	}
	for i := range all {
		if state := sliceState(task.Checkpoint, i); !state.Finished() || state == operation.SliceFailed {
			failed[nameOf(&all[i])] = append(failed[nameOf(&all[i])], all[i])
		}
	}
	return nil
}

// bar tells a task that nobody works on which of its slices are not to be copied.
func (t *turn) bar(ctx context.Context, task *operation.Task, failed failures) error {
	all, err := t.ledger.Slices(ctx, &t.record.Value, task)
	if err != nil {
		return err
	}
	var barred []int
	for i := range all {
		if failed.touch(&all[i]) {
			barred = append(barred, i)
		}
	}
	if slices.Equal(barred, task.Barred) {
		return nil
	}
	was := t.tasks[task.ID]
	next := was.Value
	next.Barred, next.UpdatedAt = barred, t.options.Now().UTC()
	// When somebody has begun it meanwhile, this turn begins anew.
	stored, err := t.ledger.UpdateTask(ctx, was, next)
	if err == nil {
		t.tasks[task.ID] = stored
	}
	return err
}
