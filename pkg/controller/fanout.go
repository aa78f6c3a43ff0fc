package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// permanent reports whether a backend has refused something for good.
func permanent(err error) bool {
	var refusal *influx.Error
	return errors.As(err, &refusal) && refusal.Class != influx.Transient
}

// taskSet is all tasks of an operation, as last read.
type taskSet map[string]ledger.Versioned[operation.Task]

// runTasks makes the tasks of a phase, sees to it that each is carried out, and
// moves the operation on when all have ended. It can be left and entered again at
// any point: what there is to do is read from the task records.
func (t *turn) runTasks(ctx context.Context, phase operation.Phase) error {
	plan, err := t.ledger.Plan(ctx, &t.record.Value)
	if err != nil {
		return err
	}
	t.plan, t.published = &plan, map[string]time.Time{}
	if phase == operation.PhaseCopy && t.record.Value.Round == 1 {
		if err := t.planner.Prepare(ctx, &t.record.Value, &plan, t); err != nil {
			return t.failOn(ctx, err)
		}
	}
	tasks, err := t.readTasks(ctx)
	if err != nil {
		return err
	}
	if err := t.createTasks(ctx, phase, tasks); err != nil {
		return err
	}
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	changes, err := t.ledger.WatchTasks(watching, t.record.Value.ID)
	if err != nil {
		return err
	}
	// Read again: the watch tells only of what comes after it.
	if tasks, err = t.readTasks(ctx); err != nil {
		return err
	}
	if t.view, err = t.newView(ctx, tasks); err != nil {
		return err
	}
	return t.watchOver(ctx, phase, tasks, changes)
}

func (t *turn) readTasks(ctx context.Context) (taskSet, error) {
	all := taskSet{}
	err := t.ledger.Tasks(ctx, t.record.Value.ID, func(v ledger.Versioned[operation.Task]) error {
		all[v.Value.ID] = v
		return nil
	})
	return all, err
}

// watchOver publishes tasks, tells of progress, and ends when all have ended.
func (t *turn) watchOver(ctx context.Context, phase operation.Phase, tasks taskSet, changes <-chan bus.Entry) error {
	poll := time.NewTicker(t.options.Poll)
	defer poll.Stop()
	sweep := true
	for {
		current := t.of(phase, t.record.Value.Round, tasks)
		if ended(current) {
			return t.conclude(ctx, phase, tasks, current)
		}
		if sweep {
			if err := t.check(ctx); err != nil {
				return t.failOn(ctx, err)
			}
			if err := t.publish(ctx, current); err != nil {
				return err
			}
		}
		t.tellProgress(ctx, tasks)
		sweep = false
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case e, ok := <-changes:
			if !ok {
				changes = nil
				continue
			}
			// What is held back by a wave or a limit may have room now.
			sweep = applyChange(tasks, e) && t.heldBack
		case <-poll.C:
			read, err := t.readTasks(ctx)
			if err != nil {
				return err
			}
			tasks, sweep = read, true
		}
	}
}

// check fails with ledger.ErrConflict when somebody else has changed the
// operation (a pause, a cancellation, another controller), and with an
// *operation.Error when the topology is no longer the one it was planned for.
func (t *turn) check(ctx context.Context) error {
	now, err := t.ledger.Operation(ctx, t.record.Value.ID)
	if err != nil {
		return err
	}
	if now.Revision != t.record.Revision {
		return ledger.ErrConflict
	}
	epochs, err := t.ledger.Topology(ctx)
	if err != nil {
		return err
	}
	if current := epochs.Value.Current; current == nil || current.Epoch != now.Value.Epoch {
		return errEpochChanged(now.Value.Epoch)
	}
	return nil
}

// applyChange takes a watched change in, and reports whether a task has ended
// or been given back by it.
func applyChange(tasks taskSet, e bus.Entry) bool {
	v, ok := ledger.TaskOf(e)
	if !ok || v.Revision <= tasks[v.Value.ID].Revision {
		return false
	}
	tasks[v.Value.ID] = v
	return v.Value.State != operation.TaskRunning
}

// counts reports whether a task belongs to the operation: a child does only
// when its parent's checkpoint names it.
func counts(task *operation.Task, tasks taskSet) bool {
	if task.Parent == "" {
		return true
	}
	parent := tasks[task.Parent].Value
	return slices.Contains(parent.Children, task.ID) && counts(&parent, tasks)
}

// ended reports whether every task, and every child any of them names, has ended.
func ended(tasks []*operation.Task) bool {
	if len(tasks) == 0 {
		return false
	}
	known := map[string]bool{}
	for _, task := range tasks {
		known[task.ID] = true
	}
	for _, task := range tasks {
		if !task.State.Ended() {
			return false
		}
		for _, child := range task.Children {
			if !known[child] {
				return false
			}
		}
	}
	return true
}

// createTasks makes the task records of the phase that are not there yet.
func (t *turn) createTasks(ctx context.Context, phase operation.Phase, tasks taskSet) error {
	wanted, err := t.wantedTasks(ctx, phase, tasks)
	if err != nil {
		return err
	}
	for i := range wanted {
		if _, ok := tasks[wanted[i].ID]; ok {
			continue
		}
		if err := t.ledger.CreateTask(ctx, wanted[i]); err != nil {
			return err
		}
	}
	return nil
}

func (t *turn) wantedTasks(ctx context.Context, phase operation.Phase, tasks taskSet) ([]operation.Task, error) {
	op := &t.record.Value
	now := t.options.Now().UTC()
	base := operation.Task{
		OperationID: op.ID, Kind: op.Kind, Phase: phase, Round: op.Round,
		State: operation.TaskWaiting, CreatedAt: now, UpdatedAt: now,
	}
	var wanted []operation.Task
	switch {
	case phase == operation.PhaseCopy && op.Round == 1:
		for i := range t.plan.Tasks {
			p := &t.plan.Tasks[i]
			task := base
			task.ID = copyTaskID(i)
			task.Wave, task.Span, task.Estimated = p.Wave, &p.Span, p.Points
			task.Source, task.Destination = t.plan.Backends[p.From].URL, t.plan.Backends[p.To].URL
			wanted = append(wanted, task)
		}
	case phase == operation.PhaseCopy:
		// Once more, for the slices of the first round that were not proven.
		for _, v := range t.of(operation.PhaseVerify, op.Round-1, tasks) {
			if v.Verdict == nil || len(v.Verdict.Unproven) == 0 {
				continue
			}
			of := tasks[v.Of].Value
			all, err := t.ledger.Slices(ctx, op, &of)
			if err != nil {
				return nil, err
			}
			task := base
			task.ID = recopyTaskID(op.Round, of.ID)
			task.Source, task.Destination = of.Source, of.Destination
			for _, i := range v.Verdict.Unproven {
				task.Slices = append(task.Slices, all[i])
				task.Estimated += all[i].Points
			}
			wanted = append(wanted, task)
		}
	default:
		for _, of := range t.of(operation.PhaseCopy, op.Round, tasks) {
			task := base
			task.ID = verifyTaskID(op.Round, of.ID)
			task.Of, task.Estimated = of.ID, of.Estimated
			task.Source, task.Destination = of.Source, of.Destination
			wanted = append(wanted, task)
		}
	}
	return wanted, nil
}

// The ids of tasks follow from the plan, so that making them again after a
// crash makes the same ones.
func copyTaskID(n int) string                  { return fmt.Sprintf("c1-%06d", n+1) }
func recopyTaskID(round int, id string) string { return fmt.Sprintf("c%d-%s", round, id) }
func verifyTaskID(round int, id string) string { return fmt.Sprintf("v%d-%s", round, id) }

// of returns the tasks of a phase and round that belong to the operation, in the
// order of their ids.
func (t *turn) of(phase operation.Phase, round int, tasks taskSet) []*operation.Task {
	var out []*operation.Task
	for id := range tasks {
		task := tasks[id].Value
		if task.Phase == phase && task.Round == round && counts(&task, tasks) {
			out = append(out, &task)
		}
	}
	slices.SortFunc(out, func(a, b *operation.Task) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// publish nudges the workers to every task that may run and that nobody runs:
// those that wait, and those whose worker is gone. A nudge that may have been
// lost is published again after a while; one that lies in the queue already
// stays the only one. Tasks of a later wave wait for the earlier ones, and a
// limit on workers bounds the tasks of one source.
func (t *turn) publish(ctx context.Context, tasks []*operation.Task) error {
	p, err := operation.ParseRebalance(t.record.Value.Parameters)
	if err != nil {
		return err
	}
	alive, err := t.liveTasks(ctx)
	if err != nil {
		return err
	}
	wave, busy := -1, map[string]int{}
	for _, task := range tasks {
		if !task.State.Ended() && (wave < 0 || task.Wave < wave) {
			wave = task.Wave
		}
		if alive[task.ID] {
			busy[task.Source]++
		}
	}
	t.heldBack = false
	now := t.options.Now()
	for _, task := range tasks {
		if task.State.Ended() || alive[task.ID] {
			continue
		}
		if task.Wave != wave || p.Workers > 0 && busy[task.Source] >= p.Workers {
			t.heldBack = true
			continue
		}
		busy[task.Source]++
		if last, ok := t.published[task.ID]; ok && now.Sub(last) < t.leases.TTL() {
			continue
		}
		nudge, err := t.ledger.Nudge(task)
		if err != nil {
			return err
		}
		if err := t.queue.Publish(ctx, nudge); err != nil {
			return fmt.Errorf("publishing task %s: %w", task.ID, err)
		}
		t.published[task.ID] = now
	}
	return nil
}

// liveTasks returns the tasks of the operation whose claims live.
func (t *turn) liveTasks(ctx context.Context) (map[string]bool, error) {
	alive := map[string]bool{}
	prefix := "task." + events.EscapeToken(t.record.Value.ID)
	for e, err := range t.leases.Bucket().List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("listing claims: %w", err)
		}
		if id, ok := events.UnescapeToken(e.Key[len(prefix)+1:]); ok {
			alive[id] = true
		}
	}
	return alive, nil
}

// maxRounds is how often a slice is copied at most.
const maxRounds = 2

// conclude moves the operation on when all tasks of a phase have ended.
func (t *turn) conclude(ctx context.Context, phase operation.Phase, tasks taskSet, current []*operation.Task) error {
	progress := t.view.update(tasks).progress(t.options.Now())
	if phase == operation.PhaseCopy {
		return t.move(ctx, operation.Verifying, func(op *operation.Operation) {
			op.Progress = progress
			op.Progress.Phase = operation.PhaseVerify
			op.Waits = []operation.Wait{}
		})
	}
	again := false
	for _, v := range current {
		again = again || v.Verdict != nil && len(v.Verdict.Unproven) > 0
	}
	if again && t.record.Value.Round < maxRounds {
		return t.move(ctx, operation.Running, func(op *operation.Operation) {
			op.Round++
			op.Progress = progress
			op.Progress.Phase = operation.PhaseCopy
			op.Waits = []operation.Wait{}
		})
	}
	verdict := t.verdict(tasks)
	state, failure := t.outcome(tasks)
	return t.finish(ctx, state, t.plan, verdict, func(op *operation.Operation) {
		op.Progress = progress
		op.Progress.Phase = operation.PhaseDone
		op.Error = failure
	})
}

// verdict joins the verdicts of all tasks. A slice that was copied again counts
// with its last verdict only.
func (t *turn) verdict(tasks taskSet) *operation.Verdict {
	total := &operation.Verdict{}
	for round := 1; round <= t.record.Value.Round; round++ {
		for _, v := range t.of(operation.PhaseVerify, round, tasks) {
			own := operation.Verdict{}
			if v.Verdict != nil {
				own.Extend(v.Verdict)
			}
			if round < t.record.Value.Round {
				own = own.WithoutUnproven()
			}
			if v.State == operation.TaskFailed {
				of := tasks[v.Of].Value
				own.AddUnjudged(v, &of)
			}
			total.Add(&own)
		}
	}
	return total
}

// outcome decides how the operation ends: by the set of its tasks, each of which
// has either done all of its work or names what it has not.
func (t *turn) outcome(tasks taskSet) (operation.State, *operation.Error) {
	op := &t.record.Value
	failed, done := 0, 0
	var first *operation.Error
	note := func(task *operation.Task) {
		failed++
		if first == nil && task.Error != nil {
			e := *task.Error
			e.TaskID = task.ID
			first = &e
		}
	}
	for round := 1; round <= op.Round; round++ {
		for _, phase := range []operation.Phase{operation.PhaseCopy, operation.PhaseVerify} {
			for _, task := range t.of(phase, round, tasks) {
				if task.State == operation.TaskFailed {
					note(task)
				} else {
					done++
				}
			}
		}
	}
	unproven := 0
	for _, v := range t.of(operation.PhaseVerify, op.Round, tasks) {
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
	if t.nothingProven(tasks) {
		return operation.Failed, first
	}
	return operation.PartiallyFailed, first
}

// nothingProven reports whether not one slice has been proven.
func (t *turn) nothingProven(tasks taskSet) bool {
	v := t.verdict(tasks)
	return v.Slices.Equal == 0 && v.Slices.Unequal == v.Slices.Total && v.Different == 0
}
