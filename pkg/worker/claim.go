package worker

import (
	"context"
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

// claim is a task that this worker holds, and the mover.Job its handler sees.
type claim struct {
	worker *Worker
	id     string
	nudge  *bus.Nudge
	lease  *bus.Lease
	// known is the operation as last read; heed replaces it.
	known atomic.Pointer[operation.Operation]
	// work is the handler's context.
	work context.Context //nolint:containedctx // says why the handler was told to stop
	// signs counts the signs of life of the handler.
	signs atomic.Uint64
	// expired is set when the lease has run out: others may take the task, and
	// the handler is to change nothing more.
	expired atomic.Bool

	// mu guards the rest: handler and heartbeat both store the record.
	mu       sync.Mutex
	record   ledger.Versioned[operation.Task]
	wait     *operation.Wait
	lost     error
	sequence uint64
	told     time.Time
	// last is the task with its last checkpoint, which is stored with the end; nil
	// while there is none.
	last *operation.Task
}

// op is the operation as last read. It must not be changed.
func (c *claim) op() *operation.Operation { return c.known.Load() }

// standing returns the record as last stored, and whether it has turned out to
// be another worker's.
func (c *claim) standing() (task operation.Task, lost bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.record.Value, c.lost != nil
}

// store changes the record. Once another worker has taken the task over, every
// store fails with mover.ErrClaimLost.
func (c *claim) store(ctx context.Context, change func(*operation.Task)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.storeLocked(ctx, change)
}

// storeAttempts bounds how often one store finds that an earlier one, whose
// answer was lost, went through after all.
const storeAttempts = 4

func (c *claim) storeLocked(ctx context.Context, change func(*operation.Task)) error {
	for range storeAttempts {
		if c.lost != nil {
			return c.lost
		}
		t := c.record.Value
		if c.last != nil {
			t = *c.last
		}
		t.Waits = nil
		if c.wait != nil {
			t.Waits = []operation.Wait{*c.wait}
		}
		change(&t)
		record, err := c.worker.ledger.UpdateTask(ctx, c.record, t)
		if err == nil {
			c.record, c.last = record, nil
			return nil
		}
		if !errors.Is(err, ledger.ErrConflict) {
			return err
		}
		if err := c.reread(ctx); err != nil {
			return err
		}
	}
	return fmt.Errorf("storing task %s: %w", c.id, ledger.ErrConflict)
}

// reread takes in a record that has another revision than expected. It is still
// this claim's if it has its attempt and holder: then an earlier store, cut off
// before its answer came, has gone through.
func (c *claim) reread(ctx context.Context) error {
	now, err := c.worker.ledger.Task(ctx, c.op().ID, c.id)
	own := &c.record.Value
	switch {
	case err == nil && now.Value.State == operation.TaskRunning && now.Value.Attempt == own.Attempt && now.Value.Holder == own.Holder:
		c.record = now
		return nil
	case err == nil, errors.Is(err, ledger.ErrNoTask):
		c.lost = fmt.Errorf("storing task %s: %w", c.id, mover.ErrClaimLost)
		return c.lost
	default:
		return err
	}
}

// storeWait shows a wait that has begun, changed or ended. Unless it has to, it
// does not wait for a store under way, which shows it too.
func (c *claim) storeWait(ctx context.Context, must bool) error {
	if must {
		c.mu.Lock()
	} else if !c.mu.TryLock() {
		return nil
	}
	defer c.mu.Unlock()
	shown := c.record.Value.Waits
	if c.wait == nil && len(shown) == 0 || c.wait != nil && len(shown) == 1 && shown[0] == *c.wait {
		return nil
	}
	return c.storeLocked(ctx, func(*operation.Task) {})
}

// Operation implements mover.Job.
func (c *claim) Operation() *operation.Operation { return c.known.Load() }

// Task implements mover.Job.
func (c *claim) Task() operation.Task {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last != nil {
		return *c.last
	}
	return c.record.Value
}

// Slices implements mover.Job.
func (c *claim) Slices(ctx context.Context) ([]operation.Slice, error) {
	t := c.Task()
	return c.SlicesOf(ctx, &t)
}

// Of implements mover.Job.
func (c *claim) Of(ctx context.Context, id string) (operation.Task, error) {
	v, err := c.worker.ledger.Task(ctx, c.op().ID, id)
	return v.Value, permanent(err)
}

// SlicesOf implements mover.Job.
func (c *claim) SlicesOf(ctx context.Context, t *operation.Task) ([]operation.Slice, error) {
	slices, err := c.worker.ledger.Slices(ctx, c.op(), t)
	return slices, permanent(err)
}

// permanent fails the task for what no other attempt would find otherwise.
func permanent(err error) error {
	if errors.Is(err, ledger.ErrUnreadable) || errors.Is(err, ledger.ErrNoTask) || errors.Is(err, ledger.ErrNoDocument) {
		return &operation.Error{Code: "record_unreadable", Detail: operation.Clip(err.Error() + "; " + operation.PersonMustAct("retry the operation: what is copied stays copied"))}
	}
	return err
}

// tellEvery bounds how often a task tells of its progress.
const tellEvery = time.Second

// Checkpoint implements mover.Job.
func (c *claim) Checkpoint(ctx context.Context, change func(*operation.Task)) error {
	c.Alive()
	if err := c.held(); err != nil {
		return err
	}
	progress, err := c.checkpoint(ctx, change)
	if progress != nil {
		c.worker.ledger.Emit(ctx, "", *progress)
	}
	return err
}

// checkpoint stores it, and returns what to tell if it is time to.
func (c *claim) checkpoint(ctx context.Context, change func(*operation.Task)) (*events.TaskProgress, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.storeLocked(ctx, func(t *operation.Task) {
		before := t.Further()
		change(t)
		if t.Further() > before {
			t.Advanced()
		}
	})
	now := c.worker.options.Now()
	if err != nil || now.Sub(c.told) < tellEvery {
		return nil, err
	}
	c.told = now
	c.sequence++
	progress := events.TaskProgressed(c.record.Value, c.sequence)
	return &progress, nil
}

// Finish implements mover.Job.
func (c *claim) Finish(change func(*operation.Task)) error {
	c.Alive()
	if err := c.held(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost != nil {
		return c.lost
	}
	t := c.record.Value
	if c.last != nil {
		t = *c.last
	}
	change(&t)
	t.Setbacks = 0
	c.last = &t
	return nil
}

// HandOver implements mover.Job. The ids carry the attempt: what an attempt
// that died before its checkpoint has made is never taken for part of another
// cut.
func (c *claim) HandOver(ctx context.Context, bundles [][]operation.Slice) ([]string, error) {
	if err := c.held(); err != nil {
		return nil, err
	}
	parent := c.Task()
	ids := make([]string, 0, len(bundles))
	for i, bundle := range bundles {
		now := c.worker.options.Now().UTC()
		child := operation.Task{
			ID:          fmt.Sprintf("%s-%d-%d", parent.ID, parent.Attempt, len(parent.Children)+i+1),
			OperationID: parent.OperationID, Kind: parent.Kind, Phase: parent.Phase, Round: parent.Round, Wave: parent.Wave,
			Source: parent.Source, Destination: parent.Destination, Rule: parent.Rule, Parent: parent.ID,
			Slices: bundle, State: operation.TaskWaiting, CreatedAt: now, UpdatedAt: now,
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
		own.TaskID = c.id
		w = &own
	}
	c.wait = w
	c.mu.Unlock()
	if !began {
		return
	}
	if err := c.storeWait(c.work, true); err != nil && c.work.Err() == nil {
		c.worker.options.Logger.WarnContext(c.work, "showing a wait", "operation", c.op().ID, "task", c.id, "error", err)
	}
}

// held fails when the lease is known to have run out.
func (c *claim) held() error {
	if c.expired.Load() {
		return fmt.Errorf("task %s: %w", c.id, mover.ErrClaimLost)
	}
	return nil
}

// Guard implements mover.Job: a process that was stopped past its lease learns
// of it here, before it sends anything more.
func (c *claim) Guard() error {
	if !c.lease.Held() {
		return fmt.Errorf("the lease of task %s ran out: %w", c.id, mover.ErrClaimLost)
	}
	return nil
}
