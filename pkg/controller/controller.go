// Package controller takes operations from the command to the report: it
// accepts requests, plans them, fans their tasks out, watches over the tasks and
// judges by the set of those that are done. Where an operation stands is read
// from its records at every turn, so any process can take it over at any moment.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/operation"
)

// Planner plans operations and prepares their destinations; see mover.Mover.
type Planner interface {
	Plan(ctx context.Context, op *operation.Operation, at mover.Layout, job mover.PlanJob) (operation.Plan, error)
	Prepare(ctx context.Context, op *operation.Operation, plan *operation.Plan, w mover.Waiter) error
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
	// Orphan is how old a record must be that was never accepted before it is
	// taken back (1 minute).
	Orphan time.Duration
	Logger *slog.Logger
	Now    func() time.Time
}

// Controller is the service. Create it with New and let Run own it.
type Controller struct {
	ledger  *ledger.Ledger
	queue   *bus.Queue
	leases  *bus.Leases
	planner Planner
	options Options

	mu    sync.Mutex
	owned map[string]bool
}

// New returns a controller that has not started.
func New(l *ledger.Ledger, q *bus.Queue, leases *bus.Leases, p Planner, o Options) *Controller {
	if o.Poll == 0 {
		o.Poll = 2 * time.Second
	}
	if o.Tell == 0 {
		o.Tell = time.Second
	}
	if o.Orphan == 0 {
		o.Orphan = time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Controller{ledger: l, queue: q, leases: leases, planner: p, options: o, owned: map[string]bool{}}
}

// Run drives open operations until ctx ends. What it was driving goes on in
// another process, or in this one when it runs again.
func (c *Controller) Run(ctx context.Context) error {
	var driving sync.WaitGroup
	defer driving.Wait()
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	changes, err := c.ledger.WatchOperations(watching)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watching operations: %w", err)
	}
	ticker := time.NewTicker(c.options.Poll)
	defer ticker.Stop()
	for sweep := 0; ; sweep++ {
		if err := c.pickUp(ctx, &driving); err != nil && ctx.Err() == nil {
			c.options.Logger.WarnContext(ctx, "looking for open operations", "error", err)
		}
		if sweep%sweepEvery == 0 {
			if err := c.sweepOrphans(ctx); err != nil && ctx.Err() == nil {
				c.options.Logger.WarnContext(ctx, "sweeping operations that were never accepted", "error", err)
			}
		}
		if !wakeUp(ctx, ticker.C, &changes) {
			return nil
		}
	}
}

// settle is how long after a change the open operations are looked for: a
// submission stores its record a moment before its command.
const settle = 20 * time.Millisecond

// wakeUp waits for the next turn: a tick, or a change and the moment after it.
// It returns false when ctx has ended.
func wakeUp(ctx context.Context, tick <-chan time.Time, changes *<-chan bus.Entry) bool {
	select {
	case <-ctx.Done():
		return false
	case <-tick:
		return true
	case _, ok := <-*changes:
		if !ok {
			*changes = nil // the watch has ended; polling goes on
			return true
		}
	}
	timer := time.NewTimer(settle)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case _, ok := <-*changes:
			if !ok {
				*changes = nil
			}
		}
	}
}

// sweepEvery is how many turns of the loop pass between two sweeps.
const sweepEvery = 30

// maxDriven bounds how many operations one process drives at once.
const maxDriven = 64

// pickUp starts driving every open operation that nobody drives.
func (c *Controller) pickUp(ctx context.Context, driving *sync.WaitGroup) error {
	ids, err := c.ledger.OpenOperations(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if !c.own(id) {
			continue
		}
		lease, err := c.leases.Acquire(ctx, "operation."+events.EscapeToken(id), []byte(c.options.ID))
		if err != nil {
			c.disown(id)
			if errors.Is(err, bus.ErrHeld) {
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
}

// driveUnder drives an operation for as long as the lease can be kept.
func (c *Controller) driveUnder(ctx context.Context, lease *bus.Lease, id string) {
	log := c.options.Logger.With("operation", id)
	drive, cancel := context.WithCancelCause(ctx)
	var keeping sync.WaitGroup
	keeping.Go(func() { c.keep(drive, lease, cancel) })
	err := c.drive(drive, id)
	cancel(nil)
	keeping.Wait()
	release, done := context.WithTimeout(context.WithoutCancel(ctx), c.options.Poll)
	defer done()
	_ = lease.Release(release) // it runs out by itself
	if err != nil && ctx.Err() == nil {
		log.WarnContext(ctx, "driving an operation; it is taken up again", "error", err)
	}
}

// errLeaseLost ends the driving of an operation that another process may have.
var errLeaseLost = errors.New("the lease of the operation is lost")

// keep renews the lease.
func (c *Controller) keep(ctx context.Context, lease *bus.Lease, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(c.leases.TTL() / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := lease.Renew(ctx)
		if errors.Is(err, bus.ErrLeaseLost) || err != nil && !lease.Held() {
			cancel(errLeaseLost)
			return
		}
	}
}

// sweepOrphans takes back operations whose submission died between the record
// and its scopes: they were never accepted, so nobody waits for them, and they
// must not look as if they were queued for ever.
func (c *Controller) sweepOrphans(ctx context.Context) error {
	open, err := c.ledger.OpenOperations(ctx)
	if err != nil {
		return err
	}
	accepted := map[string]bool{}
	for _, id := range open {
		accepted[id] = true
	}
	old := c.options.Now().Add(-c.options.Orphan)
	return c.ledger.Operations(ctx, func(op operation.Operation, revision uint64) error {
		if op.State.Terminal() || accepted[op.ID] || op.CreatedAt.After(old) {
			return nil
		}
		// Accepted between the two looks, or stored before the list was read: the
		// compare-and-set refuses if anybody has touched it.
		now := c.options.Now().UTC()
		next, err := op.Move(operation.Cancelled)
		if err != nil {
			return err
		}
		next.FinishedAt = &now
		next.Error = &operation.Error{Code: "never_accepted", Detail: "the process that took the request died before it was accepted; nothing was started"}
		_, err = c.ledger.UpdateOperation(ctx, ledger.Versioned[operation.Operation]{Value: op, Revision: revision}, next)
		if errors.Is(err, ledger.ErrConflict) {
			return nil
		}
		return err
	})
}
