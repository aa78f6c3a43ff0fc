package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"time"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/secrets"
)

// maxSetbacks is how many attempts in a row may come to nothing before a task
// counts as failed: one that makes its worker die must not take every worker with
// it. Attempts that were only told to stop do not count.
const maxSetbacks = 10

// minSameErrors is how many attempts in a row have to end with the same error before
// it can have lasted too long.
const minSameErrors = 3

// errStuck ends a task that shows no sign of life.
var errStuck = errors.New("no progress was made")

// claim takes the task: first the lease, which says that this worker is alive,
// then the record, which makes the task its own. It returns nil when there is
// nothing to carry out: another worker has it, in which case the nudge comes
// again, or it has come to nothing too often.
func (w *Worker) claim(ctx context.Context, op operation.Operation, task ledger.Versioned[operation.Task], nudge *bus.Nudge) (*claim, error) {
	value, err := json.Marshal(holding{Worker: w.options.ID, OperationID: op.ID, TaskID: task.Value.ID})
	if err != nil {
		return nil, fmt.Errorf("claiming task %s: %w", task.Value.ID, err)
	}
	// Cut off in the middle, it would leave a lease or a claim that nobody has.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.options.Drain)
	defer cancel()
	lease, err := w.leases.Claims().Acquire(ctx, ledger.TaskLease(op.ID, task.Value.ID), value)
	if errors.Is(err, bus.ErrHeld) {
		return nil, nudge.Later(w.leases.TTL() / 2)
	}
	if err != nil {
		return nil, errors.Join(err, nudge.Later(pause))
	}
	// Whoever has asked for a stop since then may have seen no lease yet.
	if op, err = w.admit(ctx, op.ID); err != nil {
		run := events.TaskRun{OperationID: op.ID, TaskID: task.Value.ID}
		return nil, errors.Join(lease.Release(ctx), w.leave(ctx, nudge, &run, err))
	}
	t := task.Value
	now := w.options.Now().UTC()
	if !lacksKey(&t) {
		t.Waits = nil
	}
	if t.State != operation.TaskRunning || !setBack(&t, now, "worker "+t.Holder+" went away", w.options.SameError) {
		t.State, t.Holder, t.Attempt = operation.TaskRunning, w.options.ID, t.Attempt+1
	}
	if t.StartedAt == nil {
		t.StartedAt = &now
	}
	record, err := w.ledger.UpdateTask(ctx, task, t)
	switch {
	case errors.Is(err, ledger.ErrConflict):
		return nil, errors.Join(lease.Release(ctx), nudge.Later(pause))
	case err != nil:
		return nil, errors.Join(err, lease.Release(ctx), nudge.Later(pause))
	case t.State.Ended():
		return nil, errors.Join(lease.Release(ctx), nudge.Done())
	}
	c := &claim{worker: w, id: t.ID, nudge: nudge, lease: lease, record: record}
	c.known.Store(&op)
	return c, nil
}

// gateKey is what a task waits for that no worker so far could open the
// credentials of. The wait is shown until one works on it.
const gateKey = "worker_key"

func lacksKey(t *operation.Task) bool { return len(t.Waits) > 0 && t.Waits[0].Gate == gateKey }

// setBack notes that an attempt came to nothing, and reports whether that was
// the last one: the task has then failed. It counts over all attempts and processes,
// since the task last got further.
func setBack(t *operation.Task, now time.Time, detail string, limit time.Duration) bool {
	if n := len(t.History); n > 0 && t.ErrorSince != nil && sameError(t.History[n-1].Detail, operation.Clip(detail)) {
		t.SameErrors++
	} else {
		t.SameErrors, t.ErrorSince = 1, &now
	}
	t.Remember(now, detail)
	t.Setbacks++
	lasted := now.Sub(*t.ErrorSince)
	remedy := operation.PersonMustAct("mend what it says and retry the operation: what is copied stays copied")
	switch {
	case t.Setbacks >= maxSetbacks:
		t.Error = &operation.Error{Code: "too_many_attempts", TaskID: t.ID, Detail: operation.Clip(fmt.Sprintf(
			"given up after %d attempts in a row without progress; the last ended with: %s; %s", t.Setbacks, detail, remedy))}
	case t.SameErrors >= minSameErrors && lasted >= limit:
		t.Error = &operation.Error{Code: "same_error", TaskID: t.ID, Detail: operation.Clip(fmt.Sprintf(
			"%d attempts in a row have ended with the same error, for %s (given up after %s): %s; %s",
			t.SameErrors, lasted.Round(time.Second), limit, detail, remedy))}
	default:
		return false
	}
	t.State, t.FinishedAt = operation.TaskFailed, &now
	return true
}

// sameError compares two errors but for what differs from one time to the next: words
// with digits in them, such as ports, times and the names of workers. Addresses count.
func sameError(a, b string) bool { return slices.Equal(gist(a), gist(b)) }

func gist(text string) []string {
	words := strings.Fields(text)
	for i, w := range words {
		if !strings.Contains(w, "://") && strings.ContainsAny(w, "0123456789") {
			words[i] = "#"
		}
	}
	return words
}

// carryOut runs the handler and stores how it ended.
func (c *claim) carryOut(ctx context.Context) error {
	w := c.worker
	log := w.options.Logger.With("operation", c.op().ID, "task", c.id, "attempt", c.record.Value.Attempt)
	log.InfoContext(ctx, "task claimed", "phase", c.record.Value.Phase)
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { cancel(ErrStop) })()
	c.work = work
	err := c.whileBeating(ctx, cancel, func() (err error) {
		pprof.Do(work, labels(c.op().ID, c.id), func(ctx context.Context) { err = w.handler.Run(ctx, c) })
		return err
	})
	// What remains is storing; it may take as long as draining may.
	store, done := context.WithTimeout(context.WithoutCancel(ctx), w.options.Drain)
	defer done()
	end := c.end(store, err)
	task, lost := c.standing()
	if lost {
		log.WarnContext(ctx, "task lost to another worker", "error", err)
		return end
	}
	log.InfoContext(ctx, "task given back", "state", task.State, "error", err)
	return end
}

// whileBeating runs f and keeps the claim alive meanwhile, also while a handler
// that was told to stop is still stopping.
func (c *claim) whileBeating(ctx context.Context, cancel context.CancelCauseFunc, f func() error) error {
	// A renewal that is cut off would leave the lease behind for its whole time,
	// so one under way is waited for, within bounds.
	calls, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	beating, rest := context.WithCancel(calls)
	var heart sync.WaitGroup
	heart.Go(func() { c.beat(beating, calls, cancel) })
	heart.Go(func() { c.heed(beating, cancel) })
	err := f()
	rest()
	defer time.AfterFunc(c.worker.options.Drain, hangUp).Stop()
	heart.Wait()
	return err
}

// beat keeps the claim alive for as long as the handler shows signs of life.
func (c *claim) beat(ctx, calls context.Context, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(c.worker.leases.TTL() / 4)
	defer ticker.Stop()
	last, since := c.signs.Load(), c.worker.options.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := c.worker.options.Now()
		if signs := c.signs.Load(); signs != last {
			last, since = signs, now
		} else if now.Sub(since) > c.worker.options.Stuck {
			c.worker.options.Logger.ErrorContext(ctx, "task is stuck: its goroutines", "operation", c.op().ID, "task", c.id,
				"silent_for", now.Sub(since).String(), "goroutines", goroutines(c.op().ID, c.id))
			cancel(errStuck)
			return
		}
		err := c.keep(calls)
		switch {
		case errors.Is(err, bus.ErrLeaseLost):
			c.expired.Store(true)
			cancel(fmt.Errorf("keeping task %s: %w", c.id, mover.ErrClaimLost))
			return
		case err != nil && ctx.Err() == nil:
			c.worker.options.Logger.WarnContext(ctx, "keeping a claim alive", "operation", c.op().ID, "task", c.id, "error", err)
		}
	}
}

// keep renews everything that says that this worker has the task.
func (c *claim) keep(ctx context.Context) error {
	err := c.lease.Renew(ctx)
	if errors.Is(err, bus.ErrRetaken) {
		err = c.confirm(ctx)
	}
	if err != nil {
		return err
	}
	if err := c.nudge.Working(); err != nil {
		return err
	}
	// The next renewal is not to wait for the rest.
	ctx, cancel := context.WithTimeout(ctx, c.worker.leases.TTL()/3)
	defer cancel()
	return c.storeWait(ctx, false)
}

// confirm asks the record whether the task is this worker's still, whose claim was
// away for a while. That it can't be read is no answer: then others may have it.
func (c *claim) confirm(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.reread(ctx); err != nil {
		return fmt.Errorf("%w: %w", bus.ErrLeaseLost, err)
	}
	return nil
}

// end stores how the handler ended. A claim that is lost leaves everything to
// whoever has the task now.
func (c *claim) end(ctx context.Context, err error) error {
	told := context.Cause(c.work) // why the handler was told to stop, if it was
	if err != nil && told != nil {
		err = told
	}
	var failure *operation.Error
	now := c.worker.options.Now().UTC()
	store := c.store(ctx, func(t *operation.Task) {
		t.Waits = nil
		switch {
		case err == nil:
			t.State, t.FinishedAt, t.Error = operation.TaskDone, &now, nil
			t.Advanced()
		case errors.As(err, &failure):
			t.State, t.FinishedAt, t.Error = operation.TaskFailed, &now, failure
			t.Remember(now, failure.Detail)
		case errors.Is(err, ErrStop), errors.Is(err, errOver), errors.Is(err, errEpoch), errors.Is(err, mover.ErrHeld):
			t.State, t.Holder = operation.TaskWaiting, ""
		case errors.Is(err, secrets.ErrWrongKey), errors.Is(err, secrets.ErrNoKey):
			// Others have the key; the task is not to be used up by those who have not.
			t.State, t.Holder = operation.TaskWaiting, ""
			since := now
			if lacksKey(&c.record.Value) {
				since = c.record.Value.Waits[0].Since
			}
			if limit := c.worker.options.SameError; now.Sub(since) >= limit {
				t.State, t.FinishedAt = operation.TaskFailed, &now
				t.Error = &operation.Error{Code: "no_key", TaskID: t.ID, Detail: operation.Clip(fmt.Sprintf(
					"no worker has the key file of the api, for %s (given up after %s): %v; %s", now.Sub(since).Round(time.Second), limit, err,
					operation.PersonMustAct("start a worker with the key file of the api and retry the operation")))}
				t.Remember(now, t.Error.Detail)
				return
			}
			t.Waits = []operation.Wait{{
				Gate: gateKey, Measured: operation.Clip(c.worker.options.ID + ": " + err.Error()),
				Limit: "a worker with the key file of the api", Since: since, TaskID: t.ID,
			}}
		default:
			if !setBack(t, now, err.Error(), c.worker.options.SameError) {
				t.State, t.Holder = operation.TaskWaiting, ""
			}
		}
	})
	release := c.lease.Release(ctx)
	switch {
	case errors.Is(store, mover.ErrClaimLost):
		// The nudge is the other worker's now; if it has come to this one too, it
		// is looked at again.
		return errors.Join(release, c.nudge.Later(pause))
	case store != nil:
		// Whoever gets the nudge next goes on from the last checkpoint.
		return errors.Join(store, release, c.nudge.Later(pause))
	}
	switch task, _ := c.standing(); {
	case task.State.Ended():
		return errors.Join(release, c.nudge.Done())
	case errors.Is(err, errOver), errors.Is(err, mover.ErrHeld):
		return errors.Join(release, c.nudge.Ack(ctx))
	case errors.Is(err, ErrStop):
		return errors.Join(release, c.nudge.Later(0))
	default:
		return errors.Join(release, c.nudge.Later(pause))
	}
}
