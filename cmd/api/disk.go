package main

import (
	"context"
	"sync"
	"time"

	"ringmaster/pkg/operation"
	"ringmaster/pkg/progress"
)

// disk watches the disk under the embedded NATS. While that has no room, or NATS has
// stopped storing for want of it, operations wait, and nothing that NATS would have to
// store can say so: this process shows it by itself.
type disk struct {
	space  func(more int64) error
	frozen func() error
	now    func() time.Time

	mu    sync.Mutex
	wrong *operation.Wait // nil: nothing is wrong
}

const (
	// gateDisk is what operations wait for while there is no room for their records.
	gateDisk = "nats_disk"
	// diskEvery is how often the disk is looked at.
	diskEvery = time.Second
)

// run looks at the disk until ctx ends.
func (d *disk) run(ctx context.Context) error {
	ticker := time.NewTicker(diskEvery)
	defer ticker.Stop()
	for {
		d.look()
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (d *disk) look() {
	full, frozen := d.space(0), d.frozen()
	d.mu.Lock()
	defer d.mu.Unlock()
	if full == nil && frozen == nil {
		d.wrong = nil
		return
	}
	next := operation.Wait{Gate: gateDisk, Limit: "room on the disk of the data directory", Since: d.now().UTC()}
	if d.wrong != nil {
		next.Since = d.wrong.Since
	}
	switch {
	case frozen != nil && full != nil:
		next.Measured = "NATS stores nothing: " + full.Error()
	case frozen != nil:
		next.Measured = "NATS stores nothing and is restarted: " + frozen.Error()
	default:
		next.Measured = full.Error()
	}
	d.wrong = &next
}

// check is the one of /readyz.
func (d *disk) check(context.Context) error { return d.space(0) }

// wait is what operations wait for; nil when nothing is wrong.
func (d *disk) wait() *operation.Wait {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wrong == nil {
		return nil
	}
	own := *d.wrong
	return &own
}

// shown is the projection with what all operations wait for that have not ended, while
// their records cannot say so.
type shown struct {
	*progress.Projection

	waits func() *operation.Wait
}

// Operation implements operations.Operations.
func (s shown) Operation(id string) (operation.Operation, bool) {
	op, ok := s.Projection.Operation(id)
	return s.waiting(op), ok
}

// List implements operations.Operations.
func (s shown) List(f operation.Filter, cursor string, limit int) ([]operation.Operation, string, error) {
	all, next, err := s.Projection.List(f, cursor, limit)
	for i := range all {
		all[i] = s.waiting(all[i])
	}
	return all, next, err
}

// waiting adds to what an operation waits for.
func (s shown) waiting(op operation.Operation) operation.Operation {
	if op.State.Terminal() {
		return op
	}
	if w := s.waits(); w != nil {
		op.Waits = append([]operation.Wait{*w}, op.Waits...)
	}
	return op
}
