package controller

import (
	"context"
	"errors"
	"fmt"

	"ringmaster/pkg/ledger"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/operation"
)

// maxRounds is how often a slice is copied at most.
const maxRounds = 2

// conclude moves the operation on when all tasks of a phase have ended.
func (t *turn) conclude(ctx context.Context, phase operation.Phase) error {
	progress := t.view.update(t.tasks).progress(t.options.Now())
	if t.foreign(ctx) {
		return errForeign
	}
	if phase == operation.PhaseCompare {
		if err := t.awaitRepair(ctx); err != nil {
			return err
		}
	}
	if phase != operation.PhaseVerify {
		return t.move(ctx, operation.Verifying, func(op *operation.Operation) {
			op.Progress = progress
			op.Progress.Phase = operation.PhaseVerify
		})
	}
	if t.record.Value.Kind == operation.KindVerify {
		return t.concludeVerify(ctx, progress)
	}
	again := false
	for _, v := range t.of(operation.PhaseVerify, t.record.Value.Round) {
		again = again || v.Verdict != nil && len(v.Verdict.Unproven) > 0
	}
	if again && t.record.Value.Round < maxRounds {
		return t.move(ctx, operation.Running, func(op *operation.Operation) {
			op.Round++
			op.Progress = progress
			op.Progress.Phase = op.Kind.Work()
		})
	}
	state, failure := t.outcome()
	verdict := t.verdict(false)
	if t.copies() && t.tasksFailed() == 0 {
		var own *operation.Error
		switch err := t.settleUnproven(ctx); {
		case err == nil:
			// What had been unequal was equal when it was looked at for the last time.
			state, failure, verdict = operation.Succeeded, nil, t.verdict(true)
		case errors.As(err, &own):
			if failure == nil {
				state, failure = operation.PartiallyFailed, own
			}
		default:
			return err
		}
	}
	return t.finish(ctx, state, verdict, func(op *operation.Operation) {
		op.Progress = progress
		op.Error = failure
		if state == operation.Succeeded {
			op.Result = nothingMoved(verdict)
		}
	})
}

// errForeign leaves an operation to the controllers of a later release.
var errForeign = errors.New("the operation has tasks that this release does not know")

// foreign reports, and shows, whether the operation has tasks that this release does
// not know: a controller of a later release has driven it, and only such a one can say
// what their ends mean.
func (t *turn) foreign(ctx context.Context) bool {
	var first *operation.Task
	n := 0
	for id := range t.tasks {
		task := t.tasks[id].Value
		if task.Kind.Carries(task.Phase) {
			continue
		}
		if n++; first == nil || task.ID < first.ID {
			first = &task
		}
	}
	if first == nil {
		return false
	}
	t.waitAt(ctx, &operation.Wait{
		Gate:     "release",
		Measured: fmt.Sprintf("%d tasks of a kind that this api does not know, such as %s (%s)", n, first.Kind.TaskName(first.Phase), first.ID),
		Limit:    "an api of the later release that has made them", Since: first.CreatedAt.UTC(), TaskID: first.ID,
	})
	return true
}

// verdict joins the verdicts of all tasks. A slice that was copied again counts
// with its last verdict only; settled says that those which the last verification
// found unequal have been found equal since.
func (t *turn) verdict(settled bool) *operation.Verdict {
	total := &operation.Verdict{}
	for round := 1; round <= t.record.Value.Round; round++ {
		for _, v := range t.of(operation.PhaseVerify, round) {
			own := operation.Verdict{}
			if v.Verdict != nil {
				own.Extend(v.Verdict)
			}
			switch {
			case round < t.record.Value.Round:
				own = own.WithoutUnproven()
			case settled:
				own = own.Settled()
			}
			of := t.tasks[v.Of].Value
			own.AddUnjudged(v, &of)
			total.Add(&own)
		}
	}
	return total
}

// outcome decides how the operation ends: by the set of its tasks, each of which
// has either done all of its work or names what it has not.
func (t *turn) outcome() (operation.State, *operation.Error) {
	op := &t.record.Value
	failed, first := t.shortcomings()
	unproven := 0
	for _, v := range t.of(operation.PhaseVerify, op.Round) {
		if v.Verdict != nil {
			unproven += len(v.Verdict.Unproven)
		}
	}
	switch {
	case failed == 0 && unproven == 0:
		return operation.Succeeded, nil
	case first == nil:
		first = &operation.Error{Code: "unequal", Detail: fmt.Sprintf("%d slices are not equal at their owners although they were copied twice; the report names them", unproven)}
	}
	if op.Kind != operation.KindClear && t.nothingProven() {
		return operation.Failed, first
	}
	return operation.PartiallyFailed, first
}

// shortcomings counts the tasks that have not done their work, and says what the
// first of them lacks.
func (t *turn) shortcomings() (failed int, first *operation.Error) {
	op := &t.record.Value
	for round := 1; round <= op.Round; round++ {
		for _, phase := range []operation.Phase{op.Kind.Work(), operation.PhaseVerify} {
			for _, task := range t.of(phase, round) {
				e := shortcoming(task, t.tasks)
				if e == nil {
					continue
				}
				failed++
				if first == nil {
					own := *e
					own.TaskID = task.ID
					first = &own
				}
			}
		}
	}
	return failed, first
}

func (t *turn) tasksFailed() int {
	failed, _ := t.shortcomings()
	return failed
}

// settleUnproven settles what clients wrote meanwhile, together with what the last
// verification found unequal.
func (t *turn) settleUnproven(ctx context.Context) error {
	var unproven settlements
	for _, v := range t.of(operation.PhaseVerify, t.record.Value.Round) {
		if v.Verdict == nil || len(v.Verdict.Unproven) == 0 {
			continue
		}
		of := t.tasks[v.Of].Value
		all, err := t.ledger.Slices(ctx, &t.record.Value, &of)
		if err != nil {
			return err
		}
		for _, i := range v.Verdict.Unproven {
			if i < 0 || i >= len(all) {
				return fmt.Errorf("task %s: %w: its verdict is about slice %d of %d", v.ID, ledger.ErrUnreadable, i, len(all))
			}
			from, to, rule := t.settles(&of)
			unproven.add(from, to, rule, all[i])
		}
	}
	return t.settled(ctx, []mover.Settlement(unproven))
}

// settleNothing lets a transition go on of which the plan says that nothing has to
// be copied: what clients write meanwhile goes to both owners.
func (t *turn) settleNothing(ctx context.Context) error {
	if !t.copies() {
		return nil
	}
	if err := t.beginCopy(ctx); err != nil {
		return err
	}
	return t.settled(ctx, nil)
}

// shortcoming says why a task has not done its work; nil if it has. A task that
// says that it is done must also show it, slice by slice.
func shortcoming(task *operation.Task, tasks taskSet) *operation.Error {
	if task.State == operation.TaskFailed {
		if task.Error != nil {
			return task.Error
		}
		return &operation.Error{Code: "failed", Detail: "the task has failed and does not say why"}
	}
	of := task
	if task.Phase == operation.PhaseVerify {
		v := tasks[task.Of].Value
		of = &v
	}
	open := 0
	for i := range of.SliceCount() {
		switch sliceState(of.Checkpoint, i) {
		case operation.SliceHandedOver:
			if len(of.Children) == 0 {
				open++
			}
		case operation.SliceCopied, operation.SliceUnchanged, operation.SliceSameCounts, operation.SliceDropped, operation.SliceDiffers:
			if !sliceState(task.Checkpoint, i).Finished() {
				open++
			}
		default:
			// The verification reports what a failed copy has left out.
			if of == task || !sliceState(task.Checkpoint, i).Finished() {
				open++
			}
		}
	}
	if open == 0 {
		return nil
	}
	return &operation.Error{Code: "incomplete", Detail: fmt.Sprintf("task %s counts as done, but %d of its %d slices are not", task.ID, open, of.SliceCount())}
}

func sliceState(c operation.Checkpoint, i int) operation.SliceState {
	if i >= len(c) {
		return operation.SlicePending
	}
	return c[i].State
}

// nothingProven reports whether not one slice has been proven.
func (t *turn) nothingProven() bool {
	v := t.verdict(false)
	return v.Slices.Equal == 0 && v.Slices.Unequal == v.Slices.Total && v.Different == 0
}
