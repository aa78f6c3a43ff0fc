// Package controller takes operations from the command to the report: it
// accepts requests, plans them, fans their tasks out, watches over the tasks and
// judges by the set of those that are done. Where an operation stands is read
// from its records at every turn, so any process can take it over at any moment.
package controller

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/patience"
	"ringmaster/pkg/planner"
)

// Planner plans operations and prepares their destinations; see planner.Planner.
type Planner interface {
	Plan(ctx context.Context, op *operation.Operation, at planner.Layout, job planner.Job) (operation.Plan, error)
	Prepare(ctx context.Context, op *operation.Operation, plan *operation.Plan, w patience.Waiter) error
	// Changed says how the backends are not as they were when the plan was made; ""
	// when nothing has changed that its slices depend on.
	Changed(ctx context.Context, op *operation.Operation, at planner.Layout, plan *operation.Plan, job planner.Job) (difference string, err error)
}

// Options configure a controller. Zero values mean the defaults in parentheses.
type Options struct {
	// ID names this process as the holder of leases.
	ID string
	// Poll is how often open operations are looked for and their tasks read
	// anew, whatever was watched (2 s).
	Poll time.Duration
	// Tell bounds how often progress is told (1 s).
	Tell time.Duration
	// Orphan is for how long a record must have been without a command before it
	// is taken back (1 minute).
	Orphan time.Duration
	// GiveUp is for how long an operation is tried that cannot be driven on, for
	// whatever reason but that JetStream is away, before it fails (10 minutes).
	GiveUp time.Duration
	// Stalled is for how long nothing has moved when an operation is shown to be
	// stalled (5 minutes).
	Stalled time.Duration
	// Accord and Settler make an operation that copies right under writes that go
	// on meanwhile. Without them it is for nobody else to write.
	Accord  Accord
	Settler Settler
	// Slots counts the task slots of all live workers, and Trouble says why a backend
	// that answers does not store what is written to it, "" when it does: both for
	// previews, and nil where nobody knows.
	Slots   func(context.Context) (int, error)
	Trouble func(url string) string
	// Limits are those of the configuration; nil is none.
	Limits BackendLimits
	Logger *slog.Logger
	Now    func() time.Time
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.Poll, 2*time.Second)
	def(&o.Tell, time.Second)
	def(&o.Orphan, time.Minute)
	def(&o.GiveUp, 10*time.Minute)
	def(&o.Stalled, 5*time.Minute)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Controller is the service. Create it with New and let Run own it.
type Controller struct {
	ledger  *ledger.Ledger
	queue   *bus.Queue
	leases  *bus.Leases
	planner Planner
	options Options

	mu sync.Mutex
	// owned are the operations that this process drives, troubled since when
	// each of those that could not be driven on could not.
	owned    map[string]bool
	troubled map[string]time.Time
	// moves is how far each of them was when it last moved on.
	moves map[string]moving
	// changed gets something for each of those whose record has changed.
	changed map[string]chan struct{}
	// orphans are the records without a command, with when that was first seen.
	// Only the loop of Run uses it.
	orphans map[string]time.Time
}

// New returns a controller that has not started.
func New(l *ledger.Ledger, q *bus.Queue, leases *bus.Leases, p Planner, o Options) *Controller {
	return &Controller{
		ledger: l, queue: q, leases: leases, planner: p, options: o.withDefaults(),
		owned: map[string]bool{}, troubled: map[string]time.Time{}, moves: map[string]moving{}, changed: map[string]chan struct{}{}, orphans: map[string]time.Time{},
	}
}

// Run drives open operations until ctx ends. What it was driving goes on in
// another process, or in this one when it runs again.
func (c *Controller) Run(ctx context.Context) error {
	var driving sync.WaitGroup
	defer driving.Wait()
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	ticker := time.NewTicker(c.options.Poll)
	defer ticker.Stop()
	var changes <-chan bus.Entry
	var swept time.Time
	for {
		if changes == nil {
			var err error
			if changes, err = c.ledger.WatchOperations(watching); err != nil && ctx.Err() == nil {
				c.options.Logger.WarnContext(ctx, "watching operations; polling goes on", "error", err)
			}
		}
		if err := c.pickUp(ctx, &driving); err != nil && ctx.Err() == nil {
			c.options.Logger.WarnContext(ctx, "looking for open operations", "error", err)
		}
		if now := c.options.Now(); now.Sub(swept) >= c.options.Orphan/2 {
			swept = now
			if err := c.sweepOrphans(ctx); err != nil && ctx.Err() == nil {
				c.options.Logger.WarnContext(ctx, "sweeping operations that were never accepted", "error", err)
			}
		}
		if !c.wakeUp(ctx, ticker.C, &changes) {
			return nil
		}
	}
}

// settle is how long after a change the open operations are looked for: a
// submission stores its record a moment before its command.
const settle = 20 * time.Millisecond

// wakeUp waits for the next turn: a tick, or a change and the moment after it.
// It returns false when ctx has ended.
func (c *Controller) wakeUp(ctx context.Context, tick <-chan time.Time, changes *<-chan bus.Entry) bool {
	select {
	case <-ctx.Done():
		return false
	case <-tick:
		return true
	case e, ok := <-*changes:
		if !ok {
			*changes = nil // it is watched again at the next tick; polling goes on
		}
		c.hint(e)
	}
	timer := time.NewTimer(settle)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case e, ok := <-*changes:
			if !ok {
				*changes = nil
			}
			c.hint(e)
		}
	}
}

// maxDriven bounds how many operations one process drives at once.
const maxDriven = 64

// pickUp starts driving every open operation that nobody drives.
func (c *Controller) pickUp(ctx context.Context, driving *sync.WaitGroup) error {
	ids, err := c.ledger.OpenOperations(ctx)
	if err != nil {
		return err
	}
	c.forget(ids)
	for _, id := range ids {
		if !c.own(id) {
			continue
		}
		if record, err := c.ledger.Operation(ctx, id); err == nil && waitsForPeople(&record.Value) {
			c.disown(id)
			c.fine(id)
			continue
		}
		lease, err := c.leases.Acquire(ctx, ledger.OperationLease(id), []byte(c.options.ID))
		if err != nil {
			c.disown(id)
			if errors.Is(err, bus.ErrHeld) {
				c.fine(id) // another process drives it
				continue
			}
			return err
		}
		driving.Go(func() {
			defer c.disown(id)
			c.driveUnder(ctx, lease, id)
		})
	}
	return nil
}

func (c *Controller) own(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owned[id] || len(c.owned) >= maxDriven {
		return false
	}
	c.owned[id] = true
	return true
}

func (c *Controller) disown(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.owned, id)
	delete(c.changed, id)
}

// driveUnder drives an operation for as long as the lease can be kept.
func (c *Controller) driveUnder(ctx context.Context, lease *bus.Lease, id string) {
	err := lease.While(ctx, func(ctx context.Context) error { return c.drive(ctx, id) })
	switch {
	case err == nil:
		c.fine(id)
	case ctx.Err() == nil:
		c.options.Logger.WarnContext(ctx, "driving an operation; it is taken up again", "operation", id, "error", err)
	}
}

// trouble notes that an operation cannot be driven on, and returns since when.
func (c *Controller) trouble(id string) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	since, ok := c.troubled[id]
	if !ok {
		since = c.options.Now()
		c.troubled[id] = since
	}
	return since
}

// forget drops the troubles of operations that are not open any more.
func (c *Controller) forget(open []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.troubled, func(id string, _ time.Time) bool { return !slices.Contains(open, id) })
	maps.DeleteFunc(c.moves, func(id string, _ moving) bool { return !slices.Contains(open, id) })
}

// resting notes that nothing is to move: the time until it does again counts anew.
func (c *Controller) resting(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.moves, id)
}

// fine notes that an operation has been driven on.
func (c *Controller) fine(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.troubled, id)
}
