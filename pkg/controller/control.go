package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// Controls are the verbs by which people steer operations that exist. Each is a
// compare-and-set on the operation's record, which whoever drives or works for it
// heeds within a second, and an entry in the audit trail.
//
// Refusals are operation.ErrNotFound, *operation.StateError,
// *operation.OutdatedError, *operation.ScopeHeldError and *operation.FlaggedError;
// they change nothing.
type Controls struct {
	Ledger *ledger.Ledger
	Now    func() time.Time
}

// conditionPaused is shown beside the state of a paused operation.
const conditionPaused = "paused"

// Pause stops an operation where it is: what its workers have finished is kept, what
// they have in hand is given back, and its scopes stay taken.
func (c *Controls) Pause(ctx context.Context, id string, by operation.Intent) (operation.Operation, error) {
	return c.change(ctx, id, "pause", by, func(op *operation.Operation) error {
		next, err := op.Move(operation.Paused)
		if err != nil {
			return c.refused(op, "pause", "")
		}
		if op.Cancel != nil {
			return &operation.StateError{ID: id, State: op.State, Verb: "pause", Remedy: "it is being cancelled; retry it when it is"}
		}
		*op = next
		op.Waits = []operation.Wait{}
		op.Conditions = append(withoutStalled(op.Conditions), operation.Condition{
			Type: conditionPaused, Reason: pausedReason(op, by), Since: by.At,
		})
		return nil
	})
}

// pausedReason says what a pause holds on to.
func pausedReason(op *operation.Operation, by operation.Intent) string {
	reason := "paused by " + by.Who
	if by.Reason != "" {
		reason += ": " + by.Reason
	}
	if len(op.Scope) > 0 {
		reason += "; stays taken: " + strings.Join(op.Scope, ", ")
	}
	return operation.Clip(reason)
}

// Resume lets a paused operation go on in the state that it was paused in.
func (c *Controls) Resume(ctx context.Context, id string, by operation.Intent) (operation.Operation, error) {
	return c.change(ctx, id, "resume", by, func(op *operation.Operation) error {
		if op.State != operation.Paused || op.Cancel != nil {
			return c.refused(op, "resume", "")
		}
		next, err := op.Move(op.PausedIn)
		if err != nil {
			return c.refused(op, "resume", "")
		}
		*op = next
		op.Conditions = slices.DeleteFunc(slices.Clone(op.Conditions), isPaused)
		return nil
	})
}

func isPaused(c operation.Condition) bool { return c.Type == conditionPaused }

// Cancel ends an operation. One that nobody works for ends at once and gives its
// scopes back; any other ends as soon as its workers have stopped, and shows until
// then what it waits for. Copies stay where they are; nothing is deleted.
func (c *Controls) Cancel(ctx context.Context, id string, by operation.Intent) (operation.Operation, error) {
	op, err := c.change(ctx, id, "cancel", by, func(op *operation.Operation) error {
		switch {
		case op.Cancel != nil && !op.State.Terminal():
			return errAlready
		case op.State.Terminal():
			return c.refused(op, "cancel", "")
		}
		op.Cancel = &by
		if !begun(op) {
			next, err := op.Move(operation.Cancelled)
			if err != nil {
				return err
			}
			*op = next
			op.FinishedAt = &by.At
			op.Waits, op.Conditions = []operation.Wait{}, []operation.Condition{}
			op.Progress.Phase, op.Progress.AsOf = operation.PhaseDone, by.At
			op.Result = &operation.Result{Note: "cancelled before anything was begun: nothing was copied and nothing was deleted"}
		}
		return nil
	})
	if err != nil || op.State != operation.Cancelled {
		return op, err
	}
	// Whoever drives it would do this, too, a moment later.
	return op, c.Ledger.Close(ctx, id)
}

// begun reports whether somebody may be at work for an operation that is not
// terminal.
func begun(op *operation.Operation) bool {
	state := op.State
	if state == operation.Paused {
		state = op.PausedIn
	}
	return state != operation.Queued && state != operation.AwaitingApproval
}

// approvalPatience is how long Approve waits for what comes of it.
const (
	approvalPatience = 10 * time.Second
	approvalPause    = 50 * time.Millisecond
)

// Approve lets a held operation carry out exactly the slices of its plan. If the
// topology or the schema has changed since the plan was made, the operation fails
// instead, with an *operation.OutdatedError. When that cannot be told within a few
// seconds, the operation is returned as it is and decides by itself.
func (c *Controls) Approve(ctx context.Context, id string, by operation.Intent) (operation.Operation, error) {
	op, err := c.change(ctx, id, "approve", by, func(op *operation.Operation) error {
		if op.State != operation.AwaitingApproval {
			return c.refused(op, "approve", approveRemedy(op))
		}
		if op.Approval != nil {
			return errAlready
		}
		op.Approval = &by
		return nil
	})
	if err != nil {
		return op, err
	}
	ctx, cancel := context.WithTimeout(ctx, approvalPatience)
	defer cancel()
	ticker := time.NewTicker(approvalPause)
	defer ticker.Stop()
	for op.State == operation.AwaitingApproval {
		select {
		case <-ctx.Done():
			return op, nil
		case <-ticker.C:
		}
		now, err := c.Ledger.Operation(ctx, id)
		if err != nil {
			continue // it is approved, whether that can be seen or not
		}
		op = now.Value
	}
	if e := op.Error; op.State == operation.Failed && e != nil && (e.Code == operation.CodeEpochChanged || e.Code == operation.CodeSchemaChanged) {
		return op, &operation.OutdatedError{ID: id, Code: e.Code, Detail: e.Detail}
	}
	return op, nil
}

// approveRemedy says when an operation can be approved.
func approveRemedy(op *operation.Operation) string {
	switch {
	case op.Hold && (op.State == operation.Queued || op.State == operation.Planning):
		return "it can be approved once it has been planned"
	case op.State == operation.Paused && op.PausedIn == operation.AwaitingApproval:
		return "resume it first"
	case op.Hold && op.Approval != nil:
		return "it has been approved before"
	default:
		return "only an operation that was started with hold waits for approval"
	}
}

// Retry runs once more what an ended operation has not done: the same operation,
// with another attempt. It takes its scopes again.
func (c *Controls) Retry(ctx context.Context, id string, by operation.Intent) (operation.Operation, error) {
	was, err := c.Ledger.Operation(ctx, id)
	if err != nil {
		return operation.Operation{}, err
	}
	next, err := was.Value.Move(operation.Queued)
	if err != nil {
		return was.Value, c.refused(&was.Value, "retry", "only what has failed or was cancelled can be retried")
	}
	if err := c.mayRetry(ctx, &was.Value); err != nil {
		return was.Value, err
	}
	next = again(next, &was.Value, by)
	queued, err := c.Ledger.UpdateOperation(ctx, was, next)
	if errors.Is(err, ledger.ErrConflict) {
		return was.Value, fmt.Errorf("retrying operation %s: somebody else has changed it: %w", id, err)
	}
	if err != nil {
		return was.Value, err
	}
	if err := c.Ledger.Accept(ctx, &next); err != nil {
		// As it was; should this fail, too, it ends as one that was never accepted.
		return was.Value, errors.Join(err, c.Ledger.RestoreOperation(ctx, queued, was.Value))
	}
	return next, c.audit(ctx, &next, "retry", by)
}

// mayRetry looks for what is in the way of another attempt.
func (c *Controls) mayRetry(ctx context.Context, op *operation.Operation) error {
	epochs, err := c.Ledger.Topology(ctx)
	if err != nil {
		return err
	}
	if current := epochs.Value.Current; current == nil || current.Epoch != op.Epoch {
		return &operation.OutdatedError{ID: op.ID, Code: operation.CodeEpochChanged, Detail: errEpochChanged(op.Epoch).Error()}
	}
	if err := flagged(ctx, c.Ledger, op.Scope); err != nil {
		return err
	}
	return c.Ledger.Holder(ctx, op.Scope)
}

// again is the record of an operation's next attempt.
func again(next operation.Operation, was *operation.Operation, by operation.Intent) operation.Operation {
	next.Attempts = append(slices.Clone(was.Attempts), operation.Attempt{
		Attempt: was.Attempt, State: was.State, StartedAt: was.StartedAt, FinishedAt: was.FinishedAt,
		Error: was.Error, Report: was.Report, Retried: by,
	})
	if over := len(next.Attempts) - maxAttempts; over > 0 {
		next.Attempts = next.Attempts[over:]
	}
	next.Attempt++
	next.Round = 1
	next.StartedAt, next.FinishedAt = nil, nil
	next.Error, next.Result, next.Report, next.Cancel = nil, nil, nil, nil
	if e := was.Error; e != nil && e.Code == operation.CodeSchemaChanged {
		// Of a plan that was refused nothing is done: it is made anew, and to be
		// approved again.
		next.Plan, next.Approval = nil, nil
	}
	next.Waits, next.Conditions = []operation.Wait{}, []operation.Condition{}
	next.Progress.Phase, next.Progress.AsOf = operation.PhasePlan, by.At
	return next
}

// maxAttempts bounds the earlier attempts that a record remembers.
const maxAttempts = 100

// errAlready ends a change that somebody has made before: there is nothing to do.
var errAlready = errors.New("that was asked for before")

// change applies what a verb asks for to the record and to the audit trail.
func (c *Controls) change(ctx context.Context, id, verb string, by operation.Intent, apply func(*operation.Operation) error) (operation.Operation, error) {
	op, err := c.changed(ctx, id, apply)
	switch {
	case errors.Is(err, errAlready):
		return op, nil
	case err != nil:
		return op, err
	}
	return op, c.audit(ctx, &op, verb, by)
}

// changed applies what a verb asks for to the record. With errAlready, which apply
// returns, the record is as it was.
func (c *Controls) changed(ctx context.Context, id string, apply func(*operation.Operation) error) (operation.Operation, error) {
	for {
		was, err := c.Ledger.Operation(ctx, id)
		if err != nil {
			return operation.Operation{}, err
		}
		next := was.Value
		if err := apply(&next); err != nil {
			return was.Value, err
		}
		now, err := c.Ledger.UpdateOperation(ctx, was, next)
		switch {
		case errors.Is(err, ledger.ErrConflict):
			continue // whoever drives it was faster
		case err != nil:
			return was.Value, err
		}
		return now.Value, nil
	}
}

func (c *Controls) audit(ctx context.Context, op *operation.Operation, verb string, by operation.Intent) error {
	return c.note(ctx, op, operation.AuditEntry{Action: verb}, by)
}

// note completes an entry of the audit trail and writes it.
func (c *Controls) note(ctx context.Context, op *operation.Operation, entry operation.AuditEntry, by operation.Intent) error {
	entry.At, entry.OperationID, entry.Who, entry.Origin, entry.Reason = by.At, op.ID, by.Who, by.Origin, by.Reason
	if err := c.Ledger.Audit(ctx, entry); err != nil {
		return fmt.Errorf("the operation has taken %s, but: %w", entry.Action, err)
	}
	return nil
}

func (c *Controls) refused(op *operation.Operation, verb, remedy string) error {
	return &operation.StateError{ID: op.ID, State: op.State, Verb: verb, Remedy: remedy}
}
