package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// taskSet is all tasks of an operation, as last read.
type taskSet map[string]ledger.Versioned[operation.Task]

// runTasks makes the tasks of a phase, sees to it that each is carried out, and
// moves the operation on when all have ended. It can be left and entered again at
// any point: what there is to do is read from the task records.
func (t *turn) runTasks(ctx context.Context, phase operation.Phase) error {
	if err := t.check(ctx); err != nil {
		return err
	}
	plan, err := t.ledger.Plan(ctx, &t.record.Value)
	if err != nil {
		return err
	}
	if err := checkPlan(&plan); err != nil {
		return err
	}
	t.plan, t.published, t.barred = &plan, map[string]time.Time{}, 0
	if err := t.readProgress(ctx); err != nil {
		return err
	}
	first := phase != operation.PhaseVerify && t.record.Value.Round == 1
	if phase != operation.PhaseVerify {
		if err := t.beginCopy(ctx); err != nil {
			return err
		}
	}
	if first {
		op := t.record.Value
		if err := t.planner.Prepare(ctx, &op, &plan, t); err != nil {
			return err
		}
	}
	if t.tasks, err = t.readTasks(ctx); err != nil {
		return err
	}
	if !first {
		if err := t.checkCopied(ctx); err != nil {
			return err
		}
	}
	if err := t.createTasks(ctx, phase); err != nil {
		return err
	}
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	changes, err := t.ledger.WatchTasks(watching, t.record.Value.ID)
	if err != nil {
		return err
	}
	if t.view == nil {
		if t.view, err = t.newView(ctx); err != nil {
			return err
		}
	}
	t.view.update(t.tasks)
	return t.watchOver(ctx, phase, changes)
}

// readProgress reads how far an operation is that was begun before, for what is shown
// until its tasks are watched.
func (t *turn) readProgress(ctx context.Context) error {
	var err error
	if t.tasks, err = t.readTasks(ctx); err != nil || len(t.tasks) == 0 {
		return err
	}
	t.view, err = t.newView(ctx)
	return err
}

// readTasks reads all tasks. It fails when one cannot be read: nothing may be
// concluded from the others.
func (t *turn) readTasks(ctx context.Context) (taskSet, error) {
	all := taskSet{}
	err := t.ledger.Tasks(ctx, t.record.Value.ID, func(v ledger.Versioned[operation.Task]) error {
		all[v.Value.ID] = v
		return nil
	})
	return all, err
}

// checkCopied makes sure that every task of the plan, and every one that has come
// of it, is still there: what is to be verified follows from them.
func (t *turn) checkCopied(ctx context.Context) error {
	var ids []string
	for i := range t.plan.Tasks {
		ids = append(ids, copyTaskID(i))
	}
	for id := range t.tasks {
		if task := t.tasks[id].Value; counts(&task, t.tasks) {
			ids = append(ids, task.Children...)
		}
	}
	for _, id := range ids {
		if _, ok := t.tasks[id]; ok {
			continue
		}
		if err := t.fetch(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// fetch reads a task that a list does not have: it may miss what was written
// while it was read.
func (t *turn) fetch(ctx context.Context, id string) error {
	v, err := t.ledger.Task(ctx, t.record.Value.ID, id)
	if errors.Is(err, ledger.ErrNoTask) {
		return errTaskLost(id)
	}
	if err == nil {
		t.tasks[id] = v
	}
	return err
}

// errTaskLost ends an operation of whose tasks one is gone for good.
func errTaskLost(id string) error {
	return &operation.Error{Code: "task_lost", TaskID: id, Detail: fmt.Sprintf("the record of task %s is gone; %s", id,
		operation.PersonMustAct("retry the operation: what is copied stays copied"))}
}

// readShare bounds the part of the time that is spent on reading all tasks: of a
// large operation they are many megabytes, and a watch tells of most changes.
const readShare = 20

// lookShare bounds, in the same way, the part of the time that is spent on going over
// all tasks when some have changed; lookPause is the least there is between two looks.
const (
	lookShare = 10
	lookPause = 10 * time.Millisecond
)

// watchOver publishes tasks, tells of progress, and ends when all have ended.
func (t *turn) watchOver(ctx context.Context, phase operation.Phase, changes <-chan bus.Entry) error {
	poll := time.NewTicker(t.options.Poll)
	defer poll.Stop()
	later := time.NewTimer(0)
	defer later.Stop()
	var nextRead, nextLook time.Time
	sweep, changed := true, true
	for {
		if now := t.options.Now(); sweep && !now.Before(nextRead) {
			if err := t.readWhole(ctx); err != nil {
				return err
			}
			changed = true
			nextRead = t.options.Now().Add(readShare * t.options.Now().Sub(now))
		}
		if now := t.options.Now(); sweep || changed && !now.Before(nextLook) {
			if done, err := t.look(ctx, phase, sweep, changed); done || err != nil {
				return err
			}
			sweep, changed = false, false
			nextLook = t.options.Now().Add(max(lookPause, lookShare*t.options.Now().Sub(now)))
			later.Reset(nextLook.Sub(t.options.Now()))
		}
		t.tellProgress(ctx)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case e, ok := <-changes:
			if !ok {
				changes = nil
				continue
			}
			changed = applyChange(t.tasks, e) || changed
		case <-later.C:
		case <-poll.C:
			sweep = true
		}
	}
}

// look ends the phase if all tasks have ended, and else publishes what is to be done
// next. done is true when the phase has ended.
func (t *turn) look(ctx context.Context, phase operation.Phase, sweep, changed bool) (done bool, err error) {
	if changed && t.allEnded() {
		return true, t.conclude(ctx, phase)
	}
	if !sweep && !t.heldBack {
		return false, nil
	}
	if err := t.check(ctx); err != nil {
		return false, err
	}
	if err := t.publish(ctx); err != nil {
		return false, err
	}
	return false, t.watchStall(ctx)
}

// readWhole reads all tasks and makes sure that none is missing of those that the
// phase began with and those that have taken slices over.
func (t *turn) readWhole(ctx context.Context) error {
	tasks, err := t.readTasks(ctx)
	if err != nil {
		return err
	}
	t.tasks = tasks
	for _, id := range t.missing() {
		err := t.fetch(ctx, id)
		if planned := t.wanted[id]; err != nil && planned != nil {
			// It follows from the plan; unless it is there, it is made again.
			if err = t.ledger.CreateTask(ctx, *planned); err == nil {
				err = t.fetch(ctx, id)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// missing returns the ids of the tasks that should be there and are not.
func (t *turn) missing() []string {
	var ids []string
	for id := range t.wanted {
		if _, ok := t.tasks[id]; !ok {
			ids = append(ids, id)
		}
	}
	for _, task := range t.current() {
		for _, child := range task.Children {
			if _, ok := t.tasks[child]; !ok {
				ids = append(ids, child)
			}
		}
	}
	return ids
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
	for child := *task; child.Parent != ""; {
		parent := tasks[child.Parent].Value
		if !begets(&parent, child.ID) || !slices.Contains(parent.Children, child.ID) {
			return false
		}
		child = parent
	}
	return true
}

// begets reports whether a task of this id can be the parent's child: ids grow
// from parent to child, so that there is no going round in circles.
func begets(parent *operation.Task, id string) bool {
	return len(id) > len(parent.ID) && strings.HasPrefix(id, parent.ID)
}

// allEnded reports whether every task that the phase began with has ended, and
// every child that any of them names.
func (t *turn) allEnded() bool {
	for id := range t.wanted {
		if !treeEnded(id, t.tasks) {
			return false
		}
	}
	return true
}

func treeEnded(id string, tasks taskSet) bool {
	task, ok := tasks[id]
	if !ok || !task.Value.State.Ended() {
		return false
	}
	for _, child := range task.Value.Children {
		if begets(&task.Value, child) && !treeEnded(child, tasks) {
			return false
		}
	}
	return true
}

// current returns the tasks that the phase began with and all that have come of
// them, in the order of their ids.
func (t *turn) current() []*operation.Task {
	var out []*operation.Task
	var add func(id string)
	add = func(id string) {
		v, ok := t.tasks[id]
		if !ok {
			return
		}
		out = append(out, &v.Value)
		for _, child := range v.Value.Children {
			if begets(&v.Value, child) {
				add(child)
			}
		}
	}
	for id := range t.wanted {
		add(id)
	}
	sortByID(out)
	return out
}

// of returns the tasks of a phase and round that belong to the operation, in the
// order of their ids.
func (t *turn) of(phase operation.Phase, round int) []*operation.Task {
	var out []*operation.Task
	for id := range t.tasks {
		task := t.tasks[id].Value
		if task.Phase == phase && task.Round == round && counts(&task, t.tasks) {
			out = append(out, &task)
		}
	}
	sortByID(out)
	return out
}

func sortByID(tasks []*operation.Task) {
	slices.SortFunc(tasks, func(a, b *operation.Task) int { return strings.Compare(a.ID, b.ID) })
}

// createTasks makes the task records of the phase that are not there yet.
func (t *turn) createTasks(ctx context.Context, phase operation.Phase) error {
	wanted, err := t.wantedTasks(ctx, phase)
	if err != nil {
		return err
	}
	t.wanted = make(map[string]*operation.Task, len(wanted))
	var missing []*operation.Task
	for i := range wanted {
		task := &wanted[i]
		t.wanted[task.ID] = task
		if _, ok := t.tasks[task.ID]; !ok {
			missing = append(missing, task)
		}
	}
	return t.ledger.CreateTasks(ctx, missing)
}

func (t *turn) wantedTasks(ctx context.Context, phase operation.Phase) ([]operation.Task, error) {
	op := &t.record.Value
	now := t.options.Now().UTC()
	base := operation.Task{
		OperationID: op.ID, Kind: op.Kind, Phase: phase, Round: op.Round,
		State: operation.TaskWaiting, CreatedAt: now, UpdatedAt: now,
	}
	var wanted []operation.Task
	switch {
	case phase != operation.PhaseVerify && op.Round == 1:
		for i := range t.plan.Tasks {
			p := &t.plan.Tasks[i]
			task := base
			task.ID = copyTaskID(i)
			task.Wave, task.Rule, task.Span, task.Estimated = p.Wave, p.Rule, &p.Span, p.Points
			task.Source, task.Destination = t.plan.Backends[p.From].URL, t.plan.Backends[p.To].URL
			wanted = append(wanted, task)
		}
	case phase != operation.PhaseVerify:
		// Once more, for the slices of the first round that were not proven.
		for _, v := range t.of(operation.PhaseVerify, op.Round-1) {
			if v.Verdict == nil || len(v.Verdict.Unproven) == 0 {
				continue
			}
			task, err := t.recopy(ctx, base, v)
			if err != nil {
				return nil, err
			}
			wanted = append(wanted, task)
		}
	default:
		for _, of := range t.of(op.Kind.Work(), op.Round) {
			if op.Kind == operation.KindVerify && !repaired(of) {
				continue // it was judged when it was compared
			}
			task := base
			task.ID = verifyTaskID(op.Round, of.ID)
			task.Of, task.Rule, task.Estimated = of.ID, of.Rule, of.Estimated
			task.Source, task.Destination = of.Source, of.Destination
			wanted = append(wanted, task)
		}
	}
	return wanted, nil
}

// recopy is the task that copies once more what a verification has not proven,
// in the same wave: whose value wins does not change with the round.
func (t *turn) recopy(ctx context.Context, task operation.Task, v *operation.Task) (operation.Task, error) {
	of := t.tasks[v.Of].Value
	all, err := t.ledger.Slices(ctx, &t.record.Value, &of)
	if err != nil {
		return task, err
	}
	task.ID = recopyTaskID(task.Round, of.ID)
	task.Wave, task.Rule, task.Source, task.Destination = of.Wave, of.Rule, of.Source, of.Destination
	task.Checkpoint = of.Checkpoint.Settled(v.Verdict.Unproven)
	for _, i := range v.Verdict.Unproven {
		if i < 0 || i >= len(all) {
			return task, fmt.Errorf("task %s: %w: its verdict is about slice %d of %d", v.ID, ledger.ErrUnreadable, i, len(all))
		}
		task.Slices = append(task.Slices, all[i])
		task.Estimated += all[i].Points
	}
	return task, nil
}

// The ids of tasks follow from the plan, so that making them again after a
// crash makes the same ones.
func copyTaskID(n int) string                  { return fmt.Sprintf("c1-%06d", n+1) }
func recopyTaskID(round int, id string) string { return fmt.Sprintf("c%d-%s", round, id) }
func verifyTaskID(round int, id string) string { return fmt.Sprintf("v%d-%s", round, id) }
