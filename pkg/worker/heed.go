package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"ringmaster/pkg/ledger"
	"ringmaster/pkg/mover"
)

// heedEvery is how often a claim reads its operation's record, whatever was watched:
// a pause, a cancellation or another limit is to be heeded soon.
const heedEvery = time.Second

// desk passes hints that operations have changed on to the claims of their tasks.
type desk struct {
	mu      sync.Mutex
	waiting map[string]map[chan struct{}]bool
}

// join returns a channel that gets something when the operation has changed, and a
// function that ends that.
func (d *desk) join(id string) (hints <-chan struct{}, leave func()) {
	ch := make(chan struct{}, 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting[id] == nil {
		d.waiting[id] = map[chan struct{}]bool{}
	}
	d.waiting[id][ch] = true
	return ch, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if delete(d.waiting[id], ch); len(d.waiting[id]) == 0 {
			delete(d.waiting, id)
		}
	}
}

func (d *desk) tell(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ch := range d.waiting[id] {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// watchOperations turns changes of records into hints until ctx ends. Claims poll as
// well, so that a watch that has ended is only opened again.
func (w *Worker) watchOperations(ctx context.Context) {
	for ctx.Err() == nil {
		changes, err := w.ledger.WatchOperations(ctx)
		if err != nil {
			w.rest(ctx, pause)
			continue
		}
		for e := range changes {
			if id, ok := ledger.OperationOf(e); ok {
				w.desk.tell(id)
			}
		}
		w.rest(ctx, pause)
	}
}

// heed keeps the claim's view of its operation up to date, and tells the handler to
// stop when its task is not to be carried out any more.
func (c *claim) heed(ctx context.Context, cancel context.CancelCauseFunc) {
	hints, leave := c.worker.desk.join(c.op().ID)
	defer leave()
	ticker := time.NewTicker(heedEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-hints:
		}
		op, err := c.worker.admit(ctx, c.op().ID)
		switch {
		case err == nil:
			c.known.Store(&op)
		case errors.Is(err, errOver), errors.Is(err, errEpoch), errors.Is(err, mover.ErrHeld):
			cancel(err)
			return
		}
	}
}
