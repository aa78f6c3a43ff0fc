package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	"ringmaster/pkg/operation"
)

// conditionStalled is shown beside the state while nothing moves.
const conditionStalled = "stalled"

// movement is what changes when an operation makes progress.
type movement struct {
	copied, verified int64
	ended            int
}

// watchStall keeps the condition "stalled" true to what goes on: an operation is
// stalled when for a while no point has been copied or verified and no task has
// ended. The reason is what has been waited for the longest.
func (t *turn) watchStall(ctx context.Context) error {
	t.view.update(t.tasks)
	now := t.options.Now()
	at := movement{t.view.points.Copied + t.view.points.Unchanged + t.view.points.Dropped, t.view.points.Verified, t.view.tasks.Done + t.view.tasks.Failed}
	first := t.moved.IsZero()
	moved := first || at != t.movement
	if moved {
		t.movement, t.moved = at, now
	}
	shown := slices.ContainsFunc(t.record.Value.Conditions, isStalled)
	next := t.record.Value
	next.Conditions = withoutStalled(next.Conditions)
	switch {
	case !shown && now.Sub(t.moved) >= t.options.Stalled:
		next.Conditions = append(next.Conditions, operation.Condition{Type: conditionStalled, Reason: t.stallReason(), Since: t.moved.UTC()})
	case shown && moved && !first:
		// Who takes an operation over has yet to see it move.
	default:
		return nil
	}
	var err error
	t.record, err = t.ledger.UpdateOperation(ctx, t.record, next)
	return err
}

func (t *turn) stallReason() string {
	waits := t.view.waits
	if w := t.idleWait(); w != nil {
		waits = append(waits, *w)
	}
	if len(waits) == 0 {
		return fmt.Sprintf("no task has made progress for %s", t.options.Stalled.Round(time.Second))
	}
	w := waits[0]
	reason := fmt.Sprintf("waits at %s: %s (%s)", w.Gate, w.Measured, w.Limit)
	if w.Backend != "" {
		reason = w.Backend + " " + reason
	}
	return operation.Clip(reason)
}

func isStalled(c operation.Condition) bool { return c.Type == conditionStalled }

func withoutStalled(all []operation.Condition) []operation.Condition {
	return slices.DeleteFunc(slices.Clone(all), isStalled)
}
