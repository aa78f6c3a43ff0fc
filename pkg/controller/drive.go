package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/operation"
)

// turn is one operation being driven by this process.
type turn struct {
	*Controller
	record ledger.Versioned[operation.Operation]
	plan   *operation.Plan
	view   *aggregate
	// published is when each task was last nudged; heldBack is set while tasks
	// wait for a wave or a limit.
	published map[string]time.Time
	heldBack  bool

	// telling guards sequence, which numbers progress events: a survey waits for
	// several backends at once. told is when the last progress was sent.
	telling  sync.Mutex
	sequence uint64
	told     time.Time
}

// drive takes an operation from where its record says it stands to its end. It
// returns nil when the operation is terminal and closed, or when another process
// has changed it, and an error when something has to be tried again.
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
		t := &turn{Controller: c, record: record}
		again, err := t.step(ctx)
		if errors.Is(err, ledger.ErrConflict) {
			continue
		}
		if err != nil || !again {
			return err
		}
	}
}

// step does what the operation's state asks for. again says that there is more.
func (t *turn) step(ctx context.Context) (again bool, err error) {
	switch op := &t.record.Value; op.State {
	case operation.Queued:
		now := t.options.Now().UTC()
		return true, t.move(ctx, operation.Planning, func(op *operation.Operation) {
			op.StartedAt = &now
			op.Progress.Phase = operation.PhasePlan
		})
	case operation.Planning:
		return true, t.makePlan(ctx)
	case operation.Running:
		return true, t.runTasks(ctx, operation.PhaseCopy)
	case operation.Verifying:
		return true, t.runTasks(ctx, operation.PhaseVerify)
	default:
		if op.State.Terminal() {
			return false, t.close(ctx)
		}
		// Awaiting approval or paused: somebody else's move.
		return false, nil
	}
}

// close gives back what a terminal operation holds.
func (t *turn) close(ctx context.Context) error {
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
	if to.Terminal() {
		now := t.options.Now().UTC()
		next.FinishedAt = &now
		next.Progress.Phase = operation.PhaseDone
		next.Progress.AsOf = now
		next.Progress.ETASeconds = nil
		next.Waits = []operation.Wait{}
	}
	if change != nil {
		change(&next)
	}
	t.record, err = t.ledger.UpdateOperation(ctx, t.record, next)
	if err == nil {
		t.options.Logger.InfoContext(ctx, "operation moved", "operation", next.ID, "state", next.State)
	}
	return err
}

// fail ends the operation with an error for a person.
func (t *turn) fail(ctx context.Context, code, detail string) error {
	return t.move(ctx, operation.Failed, func(op *operation.Operation) {
		op.Error = &operation.Error{Code: code, Detail: detail}
	})
}

// layout reads where things belong, if the operation's epoch still holds.
func (t *turn) layout(ctx context.Context) (mover.Layout, error) {
	op := &t.record.Value
	epochs, err := t.ledger.Topology(ctx)
	if err != nil {
		return mover.Layout{}, err
	}
	current := epochs.Value.Current
	if current == nil || current.Epoch != op.Epoch {
		return mover.Layout{}, errEpochChanged(op.Epoch)
	}
	p, err := operation.ParseRebalance(op.Parameters)
	if err != nil {
		return mover.Layout{}, err
	}
	circle, ok := current.Circle(p.CircleID)
	if !ok {
		return mover.Layout{}, &operation.Error{Code: "no_circle", Detail: fmt.Sprintf("the topology has no circle %d", p.CircleID)}
	}
	at := mover.Layout{Epoch: current.Epoch, Circle: circle}
	if at.Placement, err = current.Placement(circle.ID); err != nil {
		return mover.Layout{}, err
	}
	if current.Parent == 0 {
		return at, nil
	}
	former, err := t.ledger.TopologyAt(ctx, current.Parent)
	if errors.Is(err, bus.ErrNotFound) {
		return at, nil
	}
	if err != nil {
		return mover.Layout{}, err
	}
	if _, ok := former.Circle(p.CircleID); ok {
		at.Former, err = former.Placement(p.CircleID)
	}
	return at, err
}

// errEpochChanged ends an operation whose topology is no longer the current one:
// what it would copy may belong elsewhere by now.
func errEpochChanged(epoch uint64) error {
	return &operation.Error{
		Code:   "epoch_changed",
		Detail: fmt.Sprintf("the operation belongs to topology epoch %d, which is not the current one; what is copied stays copied; start it again", epoch),
	}
}

// makePlan surveys, plans and stores, and moves the operation on.
func (t *turn) makePlan(ctx context.Context) error {
	at, err := t.layout(ctx)
	var plan operation.Plan
	if err == nil {
		plan, err = t.planner.Plan(ctx, &t.record.Value, at, t)
	}
	if err == nil {
		var doc operation.Document
		if doc, err = t.ledger.PutDocument(ctx, t.record.Value.ID, "plan", plan); err == nil {
			return t.planned(ctx, &plan, doc)
		}
	}
	return t.failOn(ctx, err)
}

// failOn fails the operation when err is about it and not about this process.
func (t *turn) failOn(ctx context.Context, err error) error {
	var own *operation.Error
	if errors.As(err, &own) && ctx.Err() == nil {
		return t.fail(ctx, own.Code, own.Detail)
	}
	if permanent(err) && ctx.Err() == nil {
		return t.fail(ctx, "backend_refused", err.Error())
	}
	return err
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
			op.Progress.Phase = operation.PhaseDone
			if len(plan.Tasks) == 0 {
				op.Result = nothingToDo(plan)
			}
		})
	case len(plan.Tasks) == 0:
		return t.finish(ctx, operation.Succeeded, plan, &operation.Verdict{}, func(op *operation.Operation) {
			with(op)
			op.Progress.Phase = operation.PhaseDone
			op.Result = nothingToDo(plan)
		})
	case op.Hold:
		return t.move(ctx, operation.AwaitingApproval, with)
	default:
		return t.move(ctx, operation.Running, func(op *operation.Operation) {
			with(op)
			op.Progress.Phase = operation.PhaseCopy
		})
	}
}

func nothingToDo(plan *operation.Plan) *operation.Result {
	measurements := 0
	for _, b := range plan.Backends {
		measurements += b.Measurements
	}
	return &operation.Result{Note: fmt.Sprintf(
		"nothing to do: all %d measurements on %d backends are where they belong", measurements, len(plan.Backends))}
}

// finish stores the report and ends the operation.
func (t *turn) finish(ctx context.Context, state operation.State, plan *operation.Plan, v *operation.Verdict, change func(*operation.Operation)) error {
	op := &t.record.Value
	p, err := operation.ParseRebalance(op.Parameters)
	if err != nil {
		return err
	}
	doc, err := t.ledger.PutDocument(ctx, op.ID, "report", v.Report(op.ID, p.Depth))
	if err != nil {
		return err
	}
	return t.move(ctx, state, func(op *operation.Operation) {
		op.Report = &doc
		if change != nil {
			change(op)
		}
	})
}

// Alive implements mover.PlanJob: while an operation is planned its lease is
// kept by the clock, since a survey is bounded by its own patience.
func (t *turn) Alive() {}

// Wait implements mover.PlanJob: what planning waits for is told as progress.
func (t *turn) Wait(w *operation.Wait) {
	waits := []operation.Wait{}
	if w != nil {
		waits = append(waits, *w)
	}
	t.tell(context.Background(), t.record.Value.Progress, waits)
}

// PutChunk implements mover.PlanJob.
func (t *turn) PutChunk(ctx context.Context, n int, slices []operation.Slice) (operation.Document, error) {
	return t.ledger.PutDocument(ctx, t.record.Value.ID, fmt.Sprintf("slices-%d", n), slices)
}
