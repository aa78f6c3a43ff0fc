package controller

import (
	"context"
	"errors"
	"time"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// errInterrupted ends a step of an operation of which somebody has asked something:
// its record says what.
var errInterrupted = errors.New("somebody has asked something of the operation")

// heedEvery is how often the record is asked, whatever was watched.
const heedEvery = time.Second

// interruptible returns a context that ends with errInterrupted when somebody pauses
// or cancels the operation, and a function that ends the watching.
func (c *Controller) interruptible(ctx context.Context, op *operation.Operation) (context.Context, func()) {
	id := op.ID
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	hints := c.hints(id)
	go func() {
		defer close(done)
		ticker := time.NewTicker(heedEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-hints:
			case <-ticker.C:
			}
			now, err := c.ledger.Operation(ctx, id)
			if err == nil && interrupts(&now.Value) {
				cancel(errInterrupted)
				return
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
	}
}

// interrupts reports whether a step that was begun before is not to go on.
func interrupts(op *operation.Operation) bool {
	return op.State == operation.Paused || op.Cancel != nil && !op.State.Terminal()
}

// waitsForPeople reports whether nothing is to be done for an operation until
// somebody asks for it.
func waitsForPeople(op *operation.Operation) bool {
	switch {
	case op.Cancel != nil:
		return false
	case op.State == operation.Paused:
		return true
	default:
		return op.State == operation.AwaitingApproval && op.Approval == nil
	}
}

// hints returns the channel that gets something when the record of an operation that
// this process drives has changed.
func (c *Controller) hints(id string) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch, ok := c.changed[id]
	if !ok {
		ch = make(chan struct{}, 1)
		c.changed[id] = ch
	}
	return ch
}

// hint passes a watched change on to whoever drives the operation here.
func (c *Controller) hint(e bus.Entry) {
	id, ok := ledger.OperationOf(e)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch, ok := c.changed[id]; ok {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}
