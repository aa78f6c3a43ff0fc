package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

const (
	// stoppingPause is how often it is looked whether the workers have stopped.
	stoppingPause = 100 * time.Millisecond
	// releaseTimeout bounds what is given back after a step was cut off.
	releaseTimeout = 10 * time.Second
)

// rest leaves a paused operation to whoever resumes it: no worker is nudged to its
// tasks any more, and no write waits for it.
func (t *turn) rest(ctx context.Context) error {
	if t.copies() {
		if err := t.release(ctx); err != nil {
			return err
		}
	}
	return t.queue.PurgeOperation(ctx, t.record.Value.ID)
}

// tellPause says how far a paused operation is once nobody works for it any more: at no
// rate, and with no time left that could be told. What cannot be told disturbs nothing.
func (t *turn) tellPause(ctx context.Context) error {
	if t.record.Value.Plan == nil {
		return nil // it is made anew
	}
	err := t.tellAtRest(ctx)
	if err != nil && ctx.Err() == nil && !errors.Is(err, ledger.ErrConflict) {
		t.options.Logger.WarnContext(ctx, "telling how far a paused operation is", "operation", t.record.Value.ID, "error", err)
		return nil
	}
	return err
}

// tellAtRest waits until nobody works for the operation and tells its progress.
func (t *turn) tellAtRest(ctx context.Context) error {
	if err := t.readView(ctx); err != nil {
		return err
	}
	for {
		// Whoever resumes or cancels it is not kept waiting.
		now, err := t.ledger.Operation(ctx, t.record.Value.ID)
		if err != nil {
			return err
		}
		if now.Revision != t.record.Revision {
			return ledger.ErrConflict
		}
		alive, err := t.liveTasks(ctx)
		if err != nil {
			return err
		}
		if len(alive) == 0 {
			if t.tasks, err = t.readTasks(ctx); err != nil {
				return err
			}
			t.tell(ctx, t.view.update(atRest(t.tasks)).progress(t.options.Now()), nil)
			return nil
		}
		if err := pauseFor(ctx, stoppingPause); err != nil {
			return err
		}
	}
}

// atRest are the tasks of an operation that nobody works for, as they are then: those
// that still say that they run lost their workers. The sweeper mends their records.
func atRest(tasks taskSet) taskSet {
	out := maps.Clone(tasks)
	for id, v := range out {
		if v.Value.State == operation.TaskRunning {
			v.Value.State, v.Value.Waits = operation.TaskWaiting, nil
			out[id] = v
		}
	}
	return out
}

// readView reads the plan and the tasks of an operation, and adds them up.
func (t *turn) readView(ctx context.Context) (err error) {
	if err := t.readPlan(ctx); err != nil {
		return err
	}
	t.view, err = t.newView(ctx)
	return err
}

// readPlan reads the plan and the tasks of an operation.
func (t *turn) readPlan(ctx context.Context) error {
	plan, err := t.ledger.Plan(ctx, &t.record.Value)
	if err != nil {
		return err
	}
	if err := checkPlan(&plan); err != nil {
		return err
	}
	t.plan = &plan
	t.tasks, err = t.readTasks(ctx)
	return err
}

// cancel ends an operation once nobody works for it, with a report of what is where.
func (t *turn) cancel(ctx context.Context) error {
	if err := t.rest(ctx); err != nil {
		return err
	}
	if err := t.awaitWorkers(ctx); err != nil {
		return err
	}
	if t.record.Value.Plan == nil {
		return t.move(ctx, operation.Cancelled, func(op *operation.Operation) {
			op.Result = &operation.Result{Note: "cancelled while it was planned: nothing was copied and nothing was deleted"}
		})
	}
	err := t.reportCancelled(ctx)
	if errors.Is(err, ledger.ErrUnreadable) || errors.Is(err, ledger.ErrNoDocument) {
		// It ends all the same: nothing is held for what cannot be read.
		return t.move(ctx, operation.Cancelled, func(op *operation.Operation) {
			op.Result = &operation.Result{Note: "cancelled; copies are left where they are and nothing was deleted, but how far it was cannot be told: " + err.Error()}
		})
	}
	return err
}

// reportCancelled ends the operation with a report of what is where.
func (t *turn) reportCancelled(ctx context.Context) error {
	if err := t.readView(ctx); err != nil {
		return err
	}
	progress := t.view.update(atRest(t.tasks)).progress(t.options.Now())
	verdict := t.verdict(false)
	if t.record.Value.Kind == operation.KindVerify {
		verdict = t.verdictOfVerify(false)
	}
	return t.finish(ctx, operation.Cancelled, verdict, func(op *operation.Operation) {
		op.Progress = progress
		op.Result = &operation.Result{Note: cancelledNote(op.Kind, t.standing())}
	})
}

// awaitWorkers waits until no worker has a task of the operation, and shows which has.
func (t *turn) awaitWorkers(ctx context.Context) error {
	since := t.options.Now().UTC()
	for {
		alive, err := t.liveTasks(ctx)
		if err != nil || len(alive) == 0 {
			return err
		}
		task := ""
		for id := range alive {
			if task == "" || id < task {
				task = id
			}
		}
		t.waitAt(ctx, &operation.Wait{
			Gate: "cancel", Measured: fmt.Sprintf("%d tasks are still in the hands of workers", len(alive)),
			Limit: "none, or a lease that has run out", Since: since, TaskID: task,
		})
		if err := pauseFor(ctx, stoppingPause); err != nil {
			return err
		}
	}
}

// pauseFor waits for a time, or until ctx ends.
func pauseFor(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// standing is what each pair of backends has come to, in the order of the plan.
func (t *turn) standing() []operation.MoveStanding {
	var order [][2]string
	all := map[[2]string]*operation.MoveStanding{}
	of := func(from, to string) *operation.MoveStanding {
		key := [2]string{from, to}
		m, ok := all[key]
		if !ok {
			m = &operation.MoveStanding{Source: from, Destination: to}
			all[key] = m
			order = append(order, key)
		}
		return m
	}
	for i := range t.plan.Tasks {
		p := &t.plan.Tasks[i]
		m := of(t.plan.Backends[p.From].URL, t.plan.Backends[p.To].URL)
		m.Slices.Total += p.Span.Count
		if task, ok := t.tasks[copyTaskID(i)]; ok {
			t.addStanding(m, &task.Value)
		}
	}
	out := make([]operation.MoveStanding, 0, len(order))
	for _, key := range order {
		out = append(out, *all[key])
	}
	return out
}

// addStanding counts what a task and those it was cut into have finished.
func (t *turn) addStanding(m *operation.MoveStanding, task *operation.Task) {
	for i := range task.Checkpoint {
		e := &task.Checkpoint[i]
		switch {
		case e.State == operation.SliceHandedOver:
			m.Slices.Total-- // its parts are counted instead
		case e.State == operation.SliceFailed, e.State == operation.SliceKept:
			m.Slices.Failed++
		case e.State == operation.SliceDropped:
			m.Slices.Dropped++
		case e.State.Finished() && task.Phase == operation.PhaseCompare && !e.Repaired():
			m.Slices.Verified++
		case e.State.Finished():
			m.Slices.Copied++
		}
	}
	if task.Phase == operation.PhaseCompare {
		m.Points.Verified += task.Points.Verified
	}
	m.Points.Copied += task.Points.Copied + task.Points.Unchanged
	m.Points.Dropped += task.Points.Dropped
	if v, ok := t.tasks[verifyTaskID(task.Round, task.ID)]; ok {
		m.Points.Verified += v.Value.Points.Verified
		if verdict := v.Value.Verdict; verdict != nil {
			m.Slices.Verified += verdict.Slices.Equal
		}
	}
	for _, id := range task.Children {
		child, ok := t.tasks[id]
		if !ok || !begets(task, id) {
			continue
		}
		m.Slices.Total += child.Value.SliceCount()
		t.addStanding(m, &child.Value)
	}
}

// cancelledNote says in one sentence what a cancelled operation leaves behind.
func cancelledNote(kind operation.Kind, moves []operation.MoveStanding) string {
	var total operation.MoveStanding
	for i := range moves {
		total.Add(&moves[i])
	}
	if kind == operation.KindVerify {
		return fmt.Sprintf("cancelled: of %d slices %d were compared (%d points), and %d that lacked points were repaired; copies are left where they are and nothing was deleted; a retry goes on from here",
			total.Slices.Total, total.Slices.Verified+total.Slices.Copied, total.Points.Verified, total.Slices.Copied)
	}
	if kind.Work() == operation.PhaseDrop {
		return fmt.Sprintf("cancelled: of %d slices %d were dropped, each after its owner was proven to hold it; the others are where they were",
			total.Slices.Total, total.Slices.Dropped)
	}
	return fmt.Sprintf("cancelled: of %d slices %d are copied (%d points), %d of them proven; the copies are left where they are and nothing was deleted; a retry goes on from here",
		total.Slices.Total, total.Slices.Copied, total.Points.Copied, total.Slices.Verified)
}
