package ledger

import (
	"context"
	"sync"
	"time"

	"ringmaster/pkg/bus"
)

// outbox stores the events of tasks a moment after what they tell of, many at a time:
// each by itself would wait for the disk, and whoever works would wait for it too.
// They stay in their order. What is in it when the process dies is lost, as any event
// may be; flush empties it before that.
type outbox struct {
	// store stores messages, and sees to it that somebody hears of what it can't.
	store func(messages []bus.Message)

	mu      sync.Mutex
	waiting []bus.Message
	// placed and stored count messages since the beginning.
	placed, stored uint64
	// changed is closed, and made anew, whenever waiting or stored has changed.
	changed chan struct{}
	// storing says that there is a goroutine that stores: for as long as anything
	// waits. hurry tells it not to wait for more.
	storing bool
	hurry   chan struct{}
}

func newOutbox(store func([]bus.Message)) *outbox {
	return &outbox{store: store, changed: make(chan struct{}), hurry: make(chan struct{}, 1)}
}

const (
	// outboxBound is how many events wait at most: beyond it their callers do.
	outboxBound = 4096
	// outboxDelay is for how long events gather.
	outboxDelay = 100 * time.Millisecond
)

// add places an event. It waits for room only.
func (o *outbox) add(ctx context.Context, m bus.Message) error {
	return o.await(ctx, func() bool {
		if len(o.waiting) >= outboxBound {
			return false
		}
		o.waiting = append(o.waiting, m)
		o.placed++
		if !o.storing {
			o.storing = true
			go o.run()
		}
		return true
	})
}

// flush waits until what was placed before has been stored or given up.
func (o *outbox) flush(ctx context.Context) error {
	o.mu.Lock()
	last := o.placed
	o.mu.Unlock()
	return o.await(ctx, func() bool {
		if o.stored >= last {
			return true
		}
		select {
		case o.hurry <- struct{}{}:
		default:
		}
		return false
	})
}

// await waits until done, which is called with mu held, returns true.
func (o *outbox) await(ctx context.Context, done func() bool) error {
	for {
		o.mu.Lock()
		ok, changed := done(), o.changed
		o.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// run stores what waits until nothing does.
func (o *outbox) run() {
	for {
		timer := time.NewTimer(outboxDelay)
		select {
		case <-timer.C:
		case <-o.hurry:
			timer.Stop()
		}
		messages := o.take()
		if messages == nil {
			return
		}
		o.store(messages)
		o.mu.Lock()
		o.stored += uint64(len(messages))
		o.tell()
		o.mu.Unlock()
	}
}

// take takes what waits; when nothing does, nobody stores any more.
func (o *outbox) take() []bus.Message {
	o.mu.Lock()
	defer o.mu.Unlock()
	messages := o.waiting
	o.waiting = nil
	o.storing = len(messages) > 0
	o.tell()
	return messages
}

func (o *outbox) tell() {
	close(o.changed)
	o.changed = make(chan struct{})
}
