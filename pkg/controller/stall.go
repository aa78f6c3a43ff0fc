package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	"ringmaster/pkg/operation"
)

// movement is what changes when an operation makes progress.
type movement struct {
	copied, verified int64
	ended            int
	// admitted is when a limit last let a task go on: under a low one that is long
	// before anything is counted.
	admitted int64
}

// moving is how far an operation was when it last moved on, at a time.
type moving struct {
	movement

	at time.Time
}

// watchStall keeps the condition "stalled" true to what goes on: an operation is
// stalled when for a while no point has been copied or verified, no task has ended, and
// no limit has let one go on. The reason is what has been waited for the longest.
func (t *turn) watchStall(ctx context.Context) error {
	t.view.update(t.tasks)
	now := t.options.Now()
	at := movement{t.view.points.Copied + t.view.points.Unchanged + t.view.points.Dropped, t.view.points.Verified, t.view.tasks.Done + t.view.tasks.Failed, admitted(t.view.waits)}
	last, moved, first := t.movedOn(at, now)
	var wait *operation.Wait
	if waits := t.waits(); len(waits) > 0 {
		wait = &waits[0]
	}
	shown := t.record.Value.Stall()
	switch {
	case moved && !first:
		return t.showStall(ctx, nil)
	case shown == nil && now.Sub(last) >= t.options.Stalled:
		return t.showStall(ctx, t.stall(last, wait))
	case shown != nil && otherCause(shown.Wait, wait):
		return t.showStall(ctx, t.stall(shown.Since, wait))
	default:
		// Who takes an operation over has yet to see it move.
		return nil
	}
}

// admitted is when one of the gates last let something through.
func admitted(waits []operation.Wait) int64 {
	var last time.Time
	for i := range waits {
		if at := waits[i].AdmittedAt; at.After(last) {
			last = at
		}
	}
	return last.Unix()
}

// waits are what the tasks wait for, the oldest first. While nobody works on any, only
// what they were left with counts: what their workers waited for is not true any more.
func (t *turn) waits() []operation.Wait {
	idle := t.idleWait()
	if idle == nil {
		return append(slices.Clip(t.view.waits[:min(len(t.view.waits), maxWaits)]), t.slotWaits()...)
	}
	var waits []operation.Wait
	for _, w := range t.view.waits {
		if task, ok := t.tasks[w.TaskID]; ok && task.Value.State == operation.TaskWaiting && len(waits) < maxWaits {
			waits = append(waits, w)
		}
	}
	return append(append(waits, *idle), t.slotWaits()...)
}

// movedOn notes how far an operation is, for whichever turn of this process drives
// it, and returns when it last moved on. first says that it has not been noted before.
func (t *turn) movedOn(at movement, now time.Time) (last time.Time, moved, first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := t.record.Value.ID
	before, ok := t.moves[id]
	if moved = !ok || before.movement != at; moved {
		t.moves[id] = moving{at, now}
	}
	return t.moves[id].at, moved, !ok
}

// waitAt shows what the operation as a whole waits for, beside its tasks or before it
// has any; nil means that it goes on. What lasts for long makes it stalled.
func (t *turn) waitAt(ctx context.Context, w *operation.Wait) {
	t.telling.Lock()
	defer t.telling.Unlock()
	shown := t.record.Value.Stall()
	var err error
	switch {
	case w == nil:
		err = t.showStall(ctx, nil)
	case t.options.Now().Sub(w.Since) < t.options.Stalled:
	case shown == nil:
		err = t.showStall(ctx, t.stall(w.Since, w))
	case otherCause(shown.Wait, w):
		err = t.showStall(ctx, t.stall(shown.Since, w))
	}
	if err != nil && ctx.Err() == nil {
		// When somebody has changed the record, whoever reads it next shows it.
		t.options.Logger.DebugContext(ctx, "showing a stall", "operation", t.record.Value.ID, "error", err)
	}
	waits := []operation.Wait{}
	if w != nil {
		waits = append(waits, *w)
	}
	progress := t.record.Value.Progress
	if t.view != nil { // the record's is that of the plan
		progress = t.view.progress(t.options.Now())
	}
	t.emitProgress(ctx, progress, waits)
}

// showStall stores the condition, or that there is none.
func (t *turn) showStall(ctx context.Context, c *operation.Condition) error {
	if c == nil && t.record.Value.Stall() == nil {
		return nil
	}
	next := t.record.Value
	next.Conditions = withoutStalled(next.Conditions)
	if c != nil {
		next.Conditions = append(next.Conditions, *c)
	}
	record, err := t.ledger.UpdateOperation(ctx, t.record, next)
	if err == nil {
		t.record = record
	}
	return err
}

// stall is the condition since a time, because of a wait that may not be known.
func (t *turn) stall(since time.Time, w *operation.Wait) *operation.Condition {
	limit := t.options.Stalled.Round(time.Second)
	c := operation.Condition{
		Type: operation.ConditionStalled, Since: since.UTC(), LimitSeconds: t.options.Stalled.Seconds(),
		Reason: fmt.Sprintf("no task has made progress for %s, and none says what it waits for", limit),
	}
	if w == nil {
		return &c
	}
	own := *w
	c.Wait = &own
	at := "waits"
	if w.Backend != "" {
		at = w.Backend + " waits"
	}
	c.Reason = operation.Clip(fmt.Sprintf("no progress for %s: %s at %s: %s (%s), since %s", limit, at, w.Gate, w.Measured, w.Limit, w.Since.UTC().Format(time.RFC3339)))
	return &c
}

// otherCause reports whether a stall has come to have another cause than is shown.
func otherCause(shown, now *operation.Wait) bool {
	if shown == nil || now == nil {
		return now != nil
	}
	return shown.Gate != now.Gate || shown.Backend != now.Backend
}

func isStalled(c operation.Condition) bool { return c.Type == operation.ConditionStalled }

func withoutStalled(all []operation.Condition) []operation.Condition {
	return slices.DeleteFunc(slices.Clone(all), isStalled)
}
