package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/operation"
)

// maxAttempts is how often a task is claimed before it counts as failed: a task
// that makes its worker die must not take every worker with it.
const maxAttempts = 25

// errStuck ends a task that shows no sign of life.
var errStuck = errors.New("no progress was made")

// claim is a task that this worker holds, and the mover.Job its handler sees.
type claim struct {
	worker *Worker
	nudge  *bus.Nudge
	lease  *bus.Lease
	op     operation.Operation
	// signs counts the signs of life of the handler.
	signs atomic.Uint64

	// mu guards the record, which handler and heartbeat both store.
	mu       sync.Mutex
	record   ledger.Versioned[operation.Task]
	wait     *operation.Wait
	lost     error
	sequence uint64
	told     time.Time
	ctx      context.Context
}

// claim takes the task: first the lease, which says that this worker is alive,
// then the record, which makes the task its own. It returns nil when another
// worker has it; the nudge then comes again.
func (w *Worker) claim(ctx context.Context, op operation.Operation, task ledger.Versioned[operation.Task], nudge *bus.Nudge) (*claim, error) {
	value, err := json.Marshal(holding{Worker: w.options.ID, OperationID: op.ID, TaskID: task.Value.ID})
	if err != nil {
		return nil, fmt.Errorf("claiming task %s: %w", task.Value.ID, err)
	}
	lease, err := w.leases.Acquire(ctx, TaskLease(op.ID, task.Value.ID), value)
	if errors.Is(err, bus.ErrHeld) {
		return nil, nudge.Later(w.leases.TTL() / 2)
	}
	if err != nil {
		return nil, errors.Join(err, nudge.Later(pause))
	}
	t := task.Value
	now := w.options.Now().UTC()
	if t.State == operation.TaskRunning {
		t.Remember(now, "worker "+t.Holder+" went away")
	}
	t.State, t.Holder, t.Attempt = operation.TaskRunning, w.options.ID, t.Attempt+1
	t.Waits = nil
	if t.StartedAt == nil {
		t.StartedAt = &now
	}
	record, err := w.ledger.UpdateTask(ctx, task, t)
	if err != nil {
		release := lease.Release(ctx)
		if errors.Is(err, ledger.ErrConflict) {
			return nil, errors.Join(release, nudge.Later(pause))
		}
		return nil, errors.Join(err, release, nudge.Later(pause))
	}
	return &claim{worker: w, nudge: nudge, lease: lease, op: op, record: record}, nil
}

// carryOut runs the handler and stores how it ended.
func (c *claim) carryOut(ctx context.Context) error {
	log := c.worker.options.Logger.With("operation", c.op.ID, "task", c.record.Value.ID, "attempt", c.record.Value.Attempt)
	log.InfoContext(ctx, "task claimed", "phase", c.record.Value.Phase)
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { cancel(ErrStop) })
	defer stop()
	c.ctx = work
	var heart sync.WaitGroup
	beating, rest := context.WithCancel(work)
	heart.Go(func() { c.beat(beating, cancel) })
	err := c.worker.handler.Run(work, c)
	rest()
	heart.Wait()
	// What remains is storing; it may take as long as draining may.
	store, done := context.WithTimeout(context.WithoutCancel(ctx), c.worker.options.Drain)
	defer done()
	end := c.end(store, err)
	if c.gone() {
		log.WarnContext(ctx, "task lost to another worker", "error", err)
		return end
	}
	log.InfoContext(ctx, "task given back", "state", c.record.Value.State, "error", err)
	return end
}

// gone reports whether the record has turned out to be another worker's.
func (c *claim) gone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost != nil
}

// beat keeps the claim alive for as long as the handler shows signs of life.
func (c *claim) beat(ctx context.Context, cancel context.CancelCauseFunc) {
	every := c.worker.leases.TTL() / 3
	ticker := time.NewTicker(every)
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
			cancel(errStuck)
			return
		}
		err := c.lease.Renew(ctx)
		if errors.Is(err, bus.ErrLeaseLost) {
			cancel(mover.ErrClaimLost)
			return
		}
		if err == nil {
			err = c.nudge.Working()
		}
		if err == nil {
			err = c.storeWait(ctx)
		}
		if err != nil && ctx.Err() == nil {
			c.worker.options.Logger.WarnContext(ctx, "keeping a claim alive", "task", c.record.Value.ID, "error", err)
		}
	}
}

// end stores how the handler ended. A claim that is lost leaves everything to
// whoever has the task now.
func (c *claim) end(ctx context.Context, err error) error {
	var failure *operation.Error
	again := time.Duration(0)
	now := c.worker.options.Now().UTC()
	store := c.store(ctx, func(t *operation.Task) {
		t.Waits = nil
		switch {
		case err == nil:
			t.State, t.FinishedAt, t.Error = operation.TaskDone, &now, nil
		case errors.As(err, &failure):
			t.State, t.FinishedAt, t.Error = operation.TaskFailed, &now, failure
			t.Remember(now, failure.Detail)
		case errors.Is(err, ErrStop):
			t.State, t.Holder = operation.TaskWaiting, ""
		case t.Attempt >= maxAttempts:
			t.State, t.FinishedAt = operation.TaskFailed, &now
			t.Error = &operation.Error{Code: "too_many_attempts", TaskID: t.ID, Detail: fmt.Sprintf("given up after %d attempts; the last ended with: %v", t.Attempt, err)}
			t.Remember(now, err.Error())
		default:
			t.State, t.Holder = operation.TaskWaiting, ""
			t.Remember(now, err.Error())
			again = pause
		}
	})
	release := c.lease.Release(ctx)
	if store != nil {
		// The record is another's, or cannot be reached: the nudge comes again
		// and whoever gets it reads the record.
		if errors.Is(store, mover.ErrClaimLost) {
			store = nil
		}
		return errors.Join(store, release, c.nudge.Later(pause))
	}
	if c.record.Value.State.Ended() {
		return errors.Join(release, c.nudge.Ack(ctx))
	}
	return errors.Join(release, c.nudge.Later(again))
}

// store changes the record. Once another worker has taken the task over, every
// store fails with mover.ErrClaimLost.
func (c *claim) store(ctx context.Context, change func(*operation.Task)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.storeLocked(ctx, change)
}

func (c *claim) storeLocked(ctx context.Context, change func(*operation.Task)) error {
	if c.lost != nil {
		return c.lost
	}
	t := c.record.Value
	t.Waits = nil
	if c.wait != nil {
		t.Waits = []operation.Wait{*c.wait}
	}
	change(&t)
	record, err := c.worker.ledger.UpdateTask(ctx, c.record, t)
	if errors.Is(err, ledger.ErrConflict) {
		c.lost = fmt.Errorf("storing task %s: %w", t.ID, mover.ErrClaimLost)
		return c.lost
	}
	if err != nil {
		return err
	}
	c.record = record
	return nil
}

// storeWait shows a wait that has begun, changed or ended.
func (c *claim) storeWait(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	shown := c.record.Value.Waits
	if c.wait == nil && len(shown) == 0 || c.wait != nil && len(shown) == 1 && shown[0] == *c.wait {
		return nil
	}
	return c.storeLocked(ctx, func(*operation.Task) {})
}

// Operation implements mover.Job.
func (c *claim) Operation() *operation.Operation { return &c.op }

// Task implements mover.Job.
func (c *claim) Task() operation.Task {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.record.Value
}

// Slices implements mover.Job.
func (c *claim) Slices(ctx context.Context) ([]operation.Slice, error) {
	t := c.Task()
	return c.worker.ledger.Slices(ctx, &c.op, &t)
}

// Of implements mover.Job.
func (c *claim) Of(ctx context.Context, id string) (operation.Task, error) {
	v, err := c.worker.ledger.Task(ctx, c.op.ID, id)
	return v.Value, err
}

// SlicesOf implements mover.Job.
func (c *claim) SlicesOf(ctx context.Context, t *operation.Task) ([]operation.Slice, error) {
	return c.worker.ledger.Slices(ctx, &c.op, t)
}

// tellEvery bounds how often a task tells of its progress.
const tellEvery = time.Second

// Checkpoint implements mover.Job.
func (c *claim) Checkpoint(ctx context.Context, change func(*operation.Task)) error {
	c.Alive()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.storeLocked(ctx, change); err != nil {
		return err
	}
	if now := c.worker.options.Now(); now.Sub(c.told) >= tellEvery {
		c.told = now
		c.sequence++
		c.worker.ledger.Emit(ctx, "", events.TaskProgressed(c.record.Value, c.sequence))
	}
	return nil
}

// HandOver implements mover.Job. The ids carry the attempt: what an attempt
// that died before its checkpoint has made is never taken for part of another
// cut.
func (c *claim) HandOver(ctx context.Context, bundles [][]operation.Slice) ([]string, error) {
	parent := c.Task()
	ids := make([]string, 0, len(bundles))
	for i, bundle := range bundles {
		child := operation.Task{
			ID:          fmt.Sprintf("%s-%d-%d", parent.ID, parent.Attempt, len(parent.Children)+i+1),
			OperationID: parent.OperationID, Kind: parent.Kind, Phase: parent.Phase, Round: parent.Round, Wave: parent.Wave,
			Source: parent.Source, Destination: parent.Destination, Parent: parent.ID,
			Slices: bundle, State: operation.TaskWaiting, CreatedAt: c.worker.options.Now().UTC(),
		}
		for _, s := range bundle {
			child.Estimated += s.Points
		}
		if err := c.worker.ledger.CreateTask(ctx, child); err != nil {
			return nil, err
		}
		ids = append(ids, child.ID)
	}
	return ids, nil
}

// Alive implements mover.Job.
func (c *claim) Alive() { c.signs.Add(1) }

// Wait implements mover.Job. The beginning and the end of a wait are shown at
// once, changes with the next heartbeat.
func (c *claim) Wait(w *operation.Wait) {
	c.Alive()
	c.mu.Lock()
	began := (w == nil) != (c.wait == nil)
	if w != nil {
		own := *w
		own.TaskID = c.record.Value.ID
		w = &own
	}
	c.wait = w
	c.mu.Unlock()
	if !began {
		return
	}
	if err := c.storeWait(c.ctx); err != nil && c.ctx.Err() == nil {
		c.worker.options.Logger.WarnContext(c.ctx, "showing a wait", "error", err)
	}
}

// Guard implements mover.Job: a process that was stopped past its lease learns
// of it here, before it sends anything more.
func (c *claim) Guard() error {
	if !c.lease.Held() {
		return fmt.Errorf("the lease of task %s ran out: %w", c.record.Value.ID, mover.ErrClaimLost)
	}
	return nil
}
