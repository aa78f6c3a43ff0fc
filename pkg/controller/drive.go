package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/planner"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// turn is one operation being driven by this process.
type turn struct {
	*Controller

	record ledger.Versioned[operation.Operation]
	plan   *operation.Plan
	// view is made of tasks, as they were last read or watched.
	view  *aggregate
	tasks taskSet
	// wanted are the tasks that the phase begins with, by id; others come to be
	// only as children of these.
	wanted map[string]*operation.Task
	// published is when each task was last nudged; heldBack is set while tasks
	// wait for a wave or a limit, idle since when tasks wait and none runs.
	published map[string]time.Time
	heldBack  bool
	idle      time.Time
	// full are the backends at which tasks wait for a slot.
	full map[string]fullBackend
	// barred is the last wave that has been looked at for what it must not begin.
	barred int
	// crew says how many workers there are, while no task is taken.
	crew string

	// telling guards sequence, which numbers progress events, and, while it is planned,
	// the record: a survey waits for several backends at once. told is when the last
	// progress was sent.
	telling  sync.Mutex
	sequence uint64
	told     time.Time
}

// drive takes an operation from where its record says it stands to its end. It
// returns nil when the operation is terminal and closed, or when it is somebody
// else's move, and an error when something has to be tried again.
func (c *Controller) drive(ctx context.Context, id string) error {
	for {
		record, err := c.ledger.Operation(ctx, id)
		if errors.Is(err, operation.ErrNotFound) {
			// A command without a record: a submission that was taken back.
			return c.ledger.Close(ctx, id)
		}
		if err != nil {
			return err
		}
		if !record.Value.Kind.Implemented() {
			return nil // of a later release, whose controllers drive it
		}
		t := &turn{Controller: c, record: record}
		again, err := t.interruptibly(ctx)
		if errors.Is(err, errForeign) {
			return nil // its lease is free for a controller that knows them
		}
		if err != nil && !errors.Is(err, ledger.ErrConflict) && !errors.Is(err, errInterrupted) {
			again, err = true, t.failOn(ctx, err)
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errInterrupted):
			// The record says what was asked for.
		case errors.Is(err, ledger.ErrConflict):
			// Somebody has changed the record: it says what there is to do now.
		case err != nil, !again:
			return err
		}
	}
}

// interruptibly is step, cut off with errInterrupted when somebody asks something
// else of the operation.
func (t *turn) interruptibly(ctx context.Context) (again bool, err error) {
	op := &t.record.Value
	if op.State.Terminal() || interrupts(op) {
		return t.step(ctx)
	}
	// Whoever showed a stall may have died before it was told.
	t.ensureNotices(ctx)
	ctx, stop := t.interruptible(ctx, op)
	defer stop()
	again, err = t.step(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errInterrupted) {
		return true, errInterrupted
	}
	return again, err
}

// ensureNotices makes the webhook's notices that follow from the record. When JetStream
// is away so is all else that the step needs, and it is done again; anything else that
// is wrong with them is not to disturb the operation.
func (t *turn) ensureNotices(ctx context.Context) {
	if err := t.ledger.EnsureNotices(ctx, t.record); err != nil && ctx.Err() == nil {
		t.options.Logger.ErrorContext(ctx, "making the webhook's notices", "operation", t.record.Value.ID, "error", err)
	}
}

// step does what the operation's state asks for. again says that there is more.
func (t *turn) step(ctx context.Context) (again bool, err error) {
	op := &t.record.Value
	switch {
	case op.State.Terminal():
		return false, t.close(ctx)
	case op.Cancel != nil:
		return true, t.cancel(ctx)
	}
	switch op.State {
	case operation.Queued:
		now := t.options.Now().UTC()
		return true, t.move(ctx, operation.Planning, func(op *operation.Operation) {
			op.StartedAt = &now
			op.Progress.Phase = operation.PhasePlan
		})
	case operation.Planning:
		if op.Plan != nil {
			return true, t.reopen(ctx)
		}
		return true, t.makePlan(ctx)
	case operation.AwaitingApproval:
		if op.Approval == nil {
			return false, nil
		}
		return true, t.carryApproved(ctx)
	case operation.Paused:
		t.resting(op.ID)
		if err := t.rest(ctx); err != nil {
			return false, err
		}
		return false, t.tellPause(ctx)
	case operation.Running:
		return true, t.runTasks(ctx, op.Kind.Work())
	case operation.Verifying:
		return true, t.runTasks(ctx, operation.PhaseVerify)
	default:
		return false, fmt.Errorf("operation %s: %w: it is %q", op.ID, ledger.ErrUnreadable, op.State)
	}
}

// close gives back what a terminal operation holds.
func (t *turn) close(ctx context.Context) error {
	t.ensureNotices(ctx)
	if err := t.endCopy(ctx); err != nil {
		return err
	}
	if err := t.queue.PurgeOperation(ctx, t.record.Value.ID); err != nil {
		return err
	}
	return t.ledger.Close(ctx, t.record.Value.ID)
}

// move changes the operation's state, and what else belongs to the same step.
func (t *turn) move(ctx context.Context, to operation.State, change func(*operation.Operation)) error {
	next, err := t.record.Value.Move(to)
	if err != nil {
		return err
	}
	next.Waits, next.Conditions = []operation.Wait{}, slices.DeleteFunc(withoutStalled(next.Conditions), isPaused)
	if change != nil {
		change(&next)
	}
	if to.Terminal() {
		now := t.options.Now().UTC()
		next.FinishedAt = &now
		next.Progress.Phase, next.Progress.AsOf = operation.PhaseDone, now
		next.Progress.ETASeconds, next.Progress.PointsPerSecond = nil, 0
	}
	t.record, err = t.ledger.UpdateOperation(ctx, t.record, next)
	if err == nil {
		t.fine(next.ID)
		t.options.Logger.InfoContext(ctx, "operation moved", "operation", next.ID, "state", next.State)
	}
	return err
}

// fail ends the operation with an error for a person.
func (t *turn) fail(ctx context.Context, code, detail string) error {
	if t.view != nil {
		// What the workers have stored since the last look is done, too.
		if tasks, err := t.readTasks(ctx); err == nil {
			t.tasks = tasks
		}
	}
	return t.move(ctx, operation.Failed, func(op *operation.Operation) {
		op.Error = &operation.Error{Code: code, Detail: operation.Clip(detail)}
		if t.view != nil {
			op.Progress = t.view.update(t.tasks).progress(t.options.Now())
		}
	})
}

// failOn fails the operation when err is about it, and returns err when it is
// about this process or may pass. What does not pass for long fails it too: its
// scopes are not to be held for ever.
func (t *turn) failOn(ctx context.Context, err error) error {
	var own *operation.Error
	var invalid *operation.InvalidError
	switch {
	case ctx.Err() != nil, errors.Is(err, bus.ErrUnavailable), errors.Is(err, bus.ErrClosed):
		return err
	case errors.As(err, &own):
		return t.fail(ctx, own.Code, own.Detail)
	case permanent(err):
		return t.fail(ctx, "backend_refused", err.Error())
	case errors.Is(err, ledger.ErrUnreadable), errors.Is(err, ledger.ErrNoDocument):
		return t.fail(ctx, "record_unreadable", err.Error()+"; "+operation.PersonMustAct("start it again: what is copied stays copied"))
	case errors.As(err, &invalid):
		return t.fail(ctx, "invalid_parameters", err.Error())
	}
	since := t.trouble(t.record.Value.ID)
	after := t.options.Now().Sub(since)
	if after >= t.options.GiveUp {
		gaveUp := t.fail(ctx, "gave_up", fmt.Sprintf("%v (for %s; %s)", err, after.Round(time.Second),
			operation.PersonMustAct("mend what it says and retry the operation: what is copied stays copied")))
		if gaveUp != nil {
			return errors.Join(err, gaveUp)
		}
		return nil
	}
	t.waitAt(ctx, &operation.Wait{
		Gate: "controller", Measured: operation.Clip(err.Error()),
		Limit: "given up after " + t.options.GiveUp.String(), Since: since.UTC(),
	})
	return err
}

// permanent reports whether a backend has refused something for good.
func permanent(err error) bool {
	var refusal *influx.Error
	return errors.As(err, &refusal) && refusal.Class != influx.Transient
}

// layout reads where things belong, if the operation's epoch still holds.
func (t *turn) layout(ctx context.Context) (planner.Layout, error) {
	op := &t.record.Value
	epochs, err := t.ledger.Topology(ctx)
	if err != nil {
		return planner.Layout{}, err
	}
	current := epochs.Value.Current
	if current == nil || current.Epoch != op.Epoch {
		return planner.Layout{}, errEpochChanged(op.Epoch)
	}
	p, err := operation.ParseMove(op.Kind, op.Parameters)
	if err != nil {
		return planner.Layout{}, err
	}
	state := &epochs.Value.Serving
	if err := t.transitionInTheWay(state, p.Circles(len(current.Circles))); err != nil && !op.DryRun {
		return planner.Layout{}, err
	}
	var former *topology.Topology
	if current.Parent != 0 {
		former, err = t.ledger.TopologyAt(ctx, current.Parent)
		if err != nil && !errors.Is(err, bus.ErrNotFound) {
			return planner.Layout{}, err
		}
	}
	at := planner.Layout{Epoch: current.Epoch}
	for _, id := range operation.Surveyed(p, len(current.Circles)) {
		circle, err := layoutOf(current, former, state.In(id), id)
		if err != nil {
			return planner.Layout{}, err
		}
		circle.Proven = slices.Contains(state.Proven, id)
		at.Circles = append(at.Circles, circle)
	}
	return at, nil
}

// layoutOf is where the measurements of one circle belong, and where they did
// before. In a transition that is what the transition says, and the former owners'
// values count; former and open may be nil.
func layoutOf(current, former *topology.Topology, open *serving.Transition, id int) (planner.CircleLayout, error) {
	circle, ok := current.Circle(id)
	if !ok {
		return planner.CircleLayout{}, &operation.Error{Code: "no_circle", Detail: fmt.Sprintf("the topology has no circle %d", id)}
	}
	at := planner.CircleLayout{Circle: circle}
	var err error
	if at.Placement, err = current.Placement(id); err != nil {
		return at, err
	}
	if open != nil && !open.New() && (open.Step == serving.Opening || open.Step == serving.WriteBoth) {
		at.FormerRules = true
		for _, b := range open.Old.Circles[0].Backends {
			if circle.On(b.URL) == nil {
				at.Left = append(at.Left, b)
			}
		}
		at.Former, err = open.Old.Placement(id)
		return at, err
	}
	if former == nil {
		return at, nil
	}
	if _, ok := former.Circle(id); ok {
		at.Former, err = former.Placement(id)
	}
	return at, err
}

// errEpochChanged ends an operation whose topology is no longer the current one:
// what it would copy may belong elsewhere by now.
func errEpochChanged(epoch uint64) error {
	return &operation.Error{
		Code:   operation.CodeEpochChanged,
		Detail: fmt.Sprintf("the operation belongs to topology epoch %d, which is not the current one; what is copied stays copied; start it again", epoch),
	}
}

// makePlan surveys, plans and stores, and moves the operation on.
func (t *turn) makePlan(ctx context.Context) error {
	if !t.record.Value.DryRun {
		// Who only looks need not wait until all is there to be seen.
		if err := t.awaitOpen(ctx); err != nil {
			return err
		}
	}
	at, err := t.layout(ctx)
	if err != nil {
		return err
	}
	if !t.inTrouble() {
		// Who planned before may have died while it showed a wait.
		t.waitAt(ctx, nil)
	}
	op := t.record.Value // what it waits for is shown in the record meanwhile
	plan, err := t.planner.Plan(ctx, &op, at, t)
	if err != nil {
		return err
	}
	if err := checkPlan(&plan); err != nil {
		return err
	}
	if err := t.preview(ctx, &plan); err != nil {
		return err
	}
	doc, err := t.ledger.PutDocument(ctx, t.record.Value.ID, "plan", plan)
	if err != nil {
		return err
	}
	return t.planned(ctx, &plan, doc)
}

func (t *turn) inTrouble() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, in := t.troubled[t.record.Value.ID]
	return in
}

// checkPlan makes sure that everything a plan refers to is in it.
func checkPlan(p *operation.Plan) error {
	backend := func(i int) bool { return i >= 0 && i < len(p.Backends) }
	ok := true
	for i := range p.Tasks {
		task := &p.Tasks[i]
		ok = ok && backend(task.From) && backend(task.To) && task.Span.Chunk >= 0 && task.Span.Chunk < len(p.Chunks)
	}
	for i := range p.Moves {
		ok = ok && backend(p.Moves[i].From) && backend(p.Moves[i].To)
	}
	for i := range p.Policies {
		ok = ok && backend(p.Policies[i].Backend)
	}
	if !ok {
		return fmt.Errorf("plan of operation %s: %w: it refers to what it does not have", p.OperationID, ledger.ErrUnreadable)
	}
	return nil
}

// planned moves the operation on from planning, by what it asked for.
func (t *turn) planned(ctx context.Context, plan *operation.Plan, doc operation.Document) error {
	with := func(op *operation.Operation) {
		op.Plan = &operation.PlanRef{Document: doc, Totals: plan.Totals}
		op.Progress = planProgress(plan, t.options.Now())
	}
	op := &t.record.Value
	switch {
	case op.DryRun:
		return t.move(ctx, operation.Planned, func(op *operation.Operation) {
			with(op)
			if len(plan.Tasks) == 0 {
				op.Result = t.nothingToDo(plan)
			}
		})
	case len(plan.Tasks) == 0:
		if err := t.settleNothing(ctx); err != nil {
			return err
		}
		return t.finish(ctx, operation.Succeeded, &operation.Verdict{}, func(op *operation.Operation) {
			with(op)
			op.Result = t.nothingToDo(plan)
		})
	case op.Hold:
		return t.move(ctx, operation.AwaitingApproval, with)
	default:
		return t.move(ctx, operation.Running, func(op *operation.Operation) {
			with(op)
			op.Progress.Phase = op.Kind.Work()
		})
	}
}

// nothingToDo says why a plan has no tasks.
func (t *turn) nothingToDo(plan *operation.Plan) *operation.Result {
	measurements, elsewhere := 0, 0
	for _, b := range plan.Backends {
		measurements += b.Measurements
		elsewhere += b.Measurements - b.InPlace
	}
	note := fmt.Sprintf("nothing to do: all %d measurements on %d backends are where they belong", measurements, len(plan.Backends))
	if t.record.Value.Kind == operation.KindVerify {
		note = nothingToCompare(plan, measurements)
	} else if measurements == 0 {
		note = fmt.Sprintf("nothing to do: no measurement was found on %d backends", len(plan.Backends))
	} else if kind := t.record.Value.Kind; kind == operation.KindRecovery || kind == operation.KindResync {
		note = fmt.Sprintf("nothing to do: of %d measurements none has a point to be copied", measurements)
	} else if elsewhere > 0 {
		note = fmt.Sprintf("nothing to do: of %d measurements that lie where they do not belong none has a point in the time asked for", elsewhere)
	}
	return &operation.Result{Note: note}
}

// nothingMoved says that a move found everything in its place; nil if it did not.
func nothingMoved(v *operation.Verdict) *operation.Result {
	if v.Slices.Total == 0 || v.Unchanged.Slices < v.Slices.Total {
		return nil
	}
	how := "compared point by point"
	if v.Slices.ByCount > 0 {
		how = fmt.Sprintf("%d slices by their counts alone, as was asked for, %d point by point", v.Slices.ByCount, v.Slices.Total-v.Slices.ByCount)
	}
	note := fmt.Sprintf("nothing to do: all %d points in %d slices were at their destinations already (%s)", v.Unchanged.Points, v.Slices.Total, how)
	if v.Different > 0 {
		note += fmt.Sprintf("; %d of them with other values, which their owners keep", v.Different)
	}
	return &operation.Result{Note: note}
}

// finish stores the report and ends the operation.
func (t *turn) finish(ctx context.Context, state operation.State, v *operation.Verdict, change func(*operation.Operation)) error {
	op := &t.record.Value
	p, err := operation.ParseMove(op.Kind, op.Parameters)
	if err != nil {
		return err
	}
	depth := p.Tuned().Depth
	if op.Kind == operation.KindClear {
		depth = operation.DepthDigest // whatever is dropped was compared point by point
	}
	report := v.Report(op.ID, depth)
	if verify, ok := p.(operation.Verify); ok {
		report = v.VerifyReport(op.ID, verify)
	}
	if t.plan != nil && t.tasks != nil {
		report.Moves = t.standing()
	}
	if state == operation.Cancelled {
		report.Interrupt(cancelledNote(op.Kind, report.Moves))
	}
	doc, err := t.ledger.PutDocument(ctx, op.ID, "report", report)
	if err != nil {
		return err
	}
	return t.move(ctx, state, func(op *operation.Operation) {
		op.Report = &doc
		change(op)
	})
}

// Alive implements planner.Job: while an operation is planned its lease is
// kept by the clock, since a survey is bounded by its own patience.
func (t *turn) Alive() {}

// Wait implements planner.Job: what planning waits for is told as progress.
func (t *turn) Wait(w *operation.Wait) { t.waitAt(context.Background(), w) }

// PutChunk implements planner.Job.
func (t *turn) PutChunk(ctx context.Context, n int, slices []operation.Slice) (operation.Document, error) {
	return t.ledger.PutDocument(ctx, t.record.Value.ID, fmt.Sprintf("slices-%d", n), slices)
}

// tell publishes progress and waits as they are at this moment.
func (t *turn) tell(ctx context.Context, p operation.Progress, waits []operation.Wait) {
	t.telling.Lock()
	defer t.telling.Unlock()
	if waits == nil {
		waits = []operation.Wait{}
	}
	t.emitProgress(ctx, p, waits)
}

// emitProgress is tell for who holds telling.
func (t *turn) emitProgress(ctx context.Context, p operation.Progress, waits []operation.Wait) {
	// The clock makes the sequence rise also from one controller to the next.
	t.sequence = max(t.sequence+1, uint64(max(t.options.Now().UnixMilli(), 1)))
	t.ledger.Emit(ctx, "", events.OperationProgress{
		OperationID: t.record.Value.ID, Revision: t.record.Revision, Seq: t.sequence, Progress: p, Waits: waits,
	})
}
