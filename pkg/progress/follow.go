package progress

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// Bounds of reading what was last told of the open operations: how many are read
// at a time, how long one may take, and how long all of them.
const (
	recallReaders  = 8
	recallPatience = time.Second
	recallLimit    = 4 * time.Second
)

// retryPause is the pause before the stream or the records are tried again.
const retryPause = time.Second

// follow keeps tailing the event stream until ctx ends.
func (p *Projection) follow(ctx context.Context) {
	for ctx.Err() == nil {
		if err := p.followOnce(ctx); err != nil && ctx.Err() == nil {
			p.options.Logger.WarnContext(ctx, "following the event stream", "error", err)
		}
		wait(ctx, retryPause)
	}
}

// followOnce reads the records and then the events that came after the reading
// began. The order matters: an operation that begins while the records are read
// may be missed there, but never in the events.
func (p *Projection) followOnce(ctx context.Context) error {
	_, next, err := p.log.Bounds(ctx)
	if err != nil {
		return fmt.Errorf("reading the end of the event stream: %w", err)
	}
	if err := p.rescan(ctx); err != nil {
		return err
	}
	for record, err := range p.log.Tail(ctx, next, events.AllEvents) {
		var gap *bus.GapError
		switch {
		case errors.As(err, &gap):
			p.options.Logger.WarnContext(ctx, "events are gone; reading the records again", "error", err)
			p.requestRescan()
		case err != nil:
			return fmt.Errorf("reading events: %w", err)
		default:
			p.take(ctx, record)
		}
	}
	return nil
}

// take takes in one message of the stream.
func (p *Projection) take(ctx context.Context, record bus.Record) {
	p.hear()
	if !concerns(record.Subject) {
		return
	}
	_, payload, err := events.Decode(record.Data)
	if err != nil {
		// Nothing asks for it to be carried out, so there is nothing to reject:
		// it is an event of a later release, or none at all.
		p.options.Logger.DebugContext(ctx, "skipping an event", "sequence", record.Sequence, "error", err)
		return
	}
	p.apply(payload)
}

// concerns reports whether events on a subject change what the projection
// shows; most events are of tasks, and need not be read.
func concerns(subject string) bool {
	return strings.HasSuffix(subject, "."+events.NounOperation) || strings.HasSuffix(subject, "."+events.NounRemoval) || strings.HasSuffix(subject, "."+events.NounProgress)
}

// hear notes that the stream or the records have been heard from.
func (p *Projection) hear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = p.options.Now()
}

// rescan reads all records, and then what was last told of the progress of those
// that are open: a record's own is as old as its last change of state.
func (p *Projection) rescan(ctx context.Context) error {
	known := p.ids()
	err := p.records.Operations(ctx, func(op operation.Operation, revision uint64) error {
		p.Observe(op, revision)
		delete(known, op.ID)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the operation records: %w", err)
	}
	// What the list does not have any more has been removed, unless it cannot be read.
	for id := range known {
		if err := p.refresh(ctx, id); err != nil && !errors.Is(err, ledger.ErrUnreadable) {
			return err
		}
	}
	p.hear()
	p.recall(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seeded = true
	return nil
}

// ids returns the operations that are known.
func (p *Projection) ids() map[string]bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	ids := make(map[string]bool, len(p.table.ids))
	for _, id := range p.table.ids {
		ids[id] = true
	}
	return ids
}

// recall takes in the last progress event of every open operation. One that
// cannot be read is logged and left to the next event: the record is shown
// meanwhile.
func (p *Projection) recall(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, recallLimit)
	defer cancel()
	var readers errgroup.Group
	readers.SetLimit(recallReaders)
	for _, op := range p.Open() {
		if limited.Err() != nil {
			if ctx.Err() == nil {
				p.options.Logger.WarnContext(ctx, "not all of what was last told could be read in time", "from", op.ID)
			}
			break
		}
		readers.Go(func() error {
			if err := p.recallOne(limited, op.ID); err != nil && ctx.Err() == nil {
				p.options.Logger.WarnContext(ctx, "reading what was last told of an operation", "operation", op.ID, "error", err)
			}
			return nil
		})
	}
	_ = readers.Wait() // none returns an error, so that none ends the others
}

func (p *Projection) recallOne(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, recallPatience)
	defer cancel()
	record, err := p.log.Last(ctx, events.EventSubject(id, events.NounProgress))
	switch {
	case errors.Is(err, bus.ErrNotFound):
		return nil // nothing has been told, or it is gone
	case err != nil:
		return err
	}
	p.take(ctx, record)
	return nil
}

func (p *Projection) requestRescan() {
	select {
	case p.wanted <- struct{}{}:
	default:
	}
}

// poll reads records until ctx ends: those of open operations at every poll,
// all of them at every rescan and when events were missed.
func (p *Projection) poll(ctx context.Context) {
	open := time.NewTicker(p.options.Poll)
	defer open.Stop()
	all := time.NewTicker(p.options.Rescan)
	defer all.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-open.C:
			err = p.pollOpen(ctx)
		case id := <-p.lookup:
			err = p.refresh(ctx, id)
		case <-all.C:
			err = p.rescan(ctx)
		case <-p.wanted:
			if err = p.rescan(ctx); err != nil {
				p.requestRescan()
				wait(ctx, retryPause)
			}
		}
		if err != nil && ctx.Err() == nil {
			p.options.Logger.WarnContext(ctx, "reading the operation records", "error", err)
		}
	}
}

// pollOpen reads the records of the operations that are open by the records'
// own account or by the projection's.
func (p *Projection) pollOpen(ctx context.Context) error {
	ids, err := p.records.OpenOperations(ctx)
	if err != nil {
		return err
	}
	seen := make(map[string]bool, len(ids))
	for _, id := range ids {
		seen[id] = true
	}
	for _, op := range p.Open() {
		if !seen[op.ID] {
			ids = append(ids, op.ID)
		}
	}
	var unreadable error
	for _, id := range ids {
		err := p.refresh(ctx, id)
		if errors.Is(err, ledger.ErrUnreadable) {
			// One record that cannot be read must not keep the others from being.
			unreadable = errors.Join(unreadable, err)
			continue
		}
		if err != nil {
			return err
		}
	}
	p.hear()
	return unreadable
}

// refresh reads one record.
func (p *Projection) refresh(ctx context.Context, id string) error {
	record, err := p.records.Operation(ctx, id)
	if errors.Is(err, operation.ErrNotFound) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.table.forget(id)
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading operation %s: %w", id, err)
	}
	p.Observe(record.Value, record.Revision)
	return nil
}

// wait returns after d or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
