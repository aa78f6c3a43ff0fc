package controller

import (
	"context"
	"fmt"

	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// reopen begins another attempt with the plan of the one before: tasks that have done
// their work stay as they are, the others are opened for what they have not done, and
// what is not proven will be verified anew. Doing it again does nothing more.
func (t *turn) reopen(ctx context.Context) error {
	op := &t.record.Value
	if _, err := t.layout(ctx); err != nil { // does its epoch still hold?
		return err
	}
	if err := t.readPlan(ctx); err != nil {
		return err
	}
	reopenTask := t.reopenTask
	if op.Kind == operation.KindVerify {
		reopenTask = t.reopenComparison
	}
	for _, task := range t.of(op.Kind.Work(), 1) {
		if err := reopenTask(ctx, task); err != nil {
			return err
		}
	}
	if err := t.dropRounds(ctx); err != nil {
		return err
	}
	to := operation.Running
	if op.Hold && op.Approval == nil {
		to = operation.AwaitingApproval
	}
	var err error
	if t.view, err = t.newView(ctx); err != nil {
		return err
	}
	progress := t.view.progress(t.options.Now())
	return t.move(ctx, to, func(op *operation.Operation) {
		op.Progress = progress
		op.Progress.Phase = op.Kind.Work()
	})
}

// reopenTask opens a work task, and the verification of it, for what is not done.
func (t *turn) reopenTask(ctx context.Context, task *operation.Task) error {
	unproven, latest, err := t.sinceFirstRound(task)
	if err != nil {
		return err
	}
	next, open := task.Reopened(unproven, latest)
	if open || len(latest) > 0 || next.State != task.State {
		if err := t.replace(ctx, next); err != nil {
			return err
		}
	}
	v, ok := t.tasks[verifyTaskID(1, task.ID)]
	if !ok || !open && len(latest) == 0 && settledBy(&v.Value) {
		return nil
	}
	return t.replace(ctx, v.Value.Renewed())
}

// settledBy reports whether a task that judges slices has found all of them proven.
func settledBy(v *operation.Task) bool {
	return v.State == operation.TaskDone && v.Verdict != nil && len(v.Verdict.Unproven) == 0 &&
		v.Verdict.NotVerified == 0 && v.Verdict.Slices.Unequal == 0
}

// sinceFirstRound returns which slices of a copy task of the first round were not
// proven in the end, and the evidence of those that a later round copied again.
func (t *turn) sinceFirstRound(task *operation.Task) (unproven []int, latest map[int]operation.Evidence, err error) {
	latest = map[int]operation.Evidence{}
	v, ok := t.tasks[verifyTaskID(1, task.ID)]
	if !ok || v.Value.Verdict == nil {
		return nil, latest, nil
	}
	unproven = v.Value.Verdict.Unproven
	again, ok := t.tasks[recopyTaskID(maxRounds, task.ID)]
	if !ok {
		return unproven, latest, nil
	}
	if len(again.Value.Slices) != len(unproven) {
		return nil, nil, fmt.Errorf("task %s: %w: it is not about the slices that were not proven", again.Value.ID, ledger.ErrUnreadable)
	}
	// Of those copied again, the ones that are still not proven.
	var still []int
	left := map[int]bool{}
	second, ok := t.tasks[verifyTaskID(maxRounds, again.Value.ID)]
	if ok && second.Value.Verdict != nil {
		for _, n := range second.Value.Verdict.Unproven {
			left[n] = true
		}
	}
	for n, i := range unproven {
		if n < len(again.Value.Checkpoint) {
			latest[i] = again.Value.Checkpoint[n]
		}
		if left[n] || n >= len(again.Value.Checkpoint) || !again.Value.Checkpoint[n].State.Finished() {
			still = append(still, i)
		}
	}
	return still, latest, nil
}

// dropRounds removes the tasks of later rounds: what they have done is on record in
// the first.
func (t *turn) dropRounds(ctx context.Context) error {
	for id := range t.tasks {
		v := t.tasks[id]
		if v.Value.Round < maxRounds {
			continue
		}
		if err := t.ledger.RemoveTask(ctx, v); err != nil {
			return err
		}
		delete(t.tasks, id)
	}
	return nil
}

// replace stores a changed task.
func (t *turn) replace(ctx context.Context, next operation.Task) error {
	stored, err := t.ledger.UpdateTask(ctx, t.tasks[next.ID], next)
	if err == nil {
		t.tasks[next.ID] = stored
	}
	return err
}

// carryApproved begins to carry out the plan of an operation that was held, if what
// it was made from is still so.
func (t *turn) carryApproved(ctx context.Context) error {
	at, err := t.layout(ctx)
	if err != nil {
		return err
	}
	plan, err := t.ledger.Plan(ctx, &t.record.Value)
	if err != nil {
		return err
	}
	if err := checkPlan(&plan); err != nil {
		return err
	}
	asked := t.record.Value // what it waits for is shown in the record meanwhile
	difference, err := t.planner.Changed(ctx, &asked, at, &plan, t)
	if err != nil {
		return err
	}
	if difference != "" {
		return &operation.Error{
			Code:   operation.CodeSchemaChanged,
			Detail: operation.Clip(difference + " since the plan was made, so it is not carried out; nothing was copied; a retry plans it anew"),
		}
	}
	return t.move(ctx, operation.Running, func(op *operation.Operation) { op.Progress.Phase = op.Kind.Work() })
}
