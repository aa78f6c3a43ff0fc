package patience

import (
	"maps"
	"slices"
	"sync"

	"ringmaster/pkg/operation"
)

// Shared shows one of the waits of several that work for the same waiter, the
// oldest, and that all of them are alive.
type Shared struct {
	mu    sync.Mutex
	to    Waiter
	waits map[string]*operation.Wait
}

// Share returns a Shared for a waiter.
func Share(to Waiter) *Shared { return &Shared{to: to, waits: map[string]*operation.Wait{}} }

// Of is the waiter of the one with a name.
func (s *Shared) Of(name string) Waiter { return &oneWaiter{s, name} }

type oneWaiter struct {
	shared *Shared
	name   string
}

// Alive implements Waiter.
func (o *oneWaiter) Alive() {
	o.shared.mu.Lock()
	defer o.shared.mu.Unlock()
	o.shared.to.Alive()
}

// Wait implements Waiter.
func (o *oneWaiter) Wait(w *operation.Wait) {
	s := o.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	if w == nil {
		delete(s.waits, o.name)
	} else {
		s.waits[o.name] = w
	}
	var oldest *operation.Wait
	for _, name := range slices.Sorted(maps.Keys(s.waits)) {
		if w := s.waits[name]; oldest == nil || w.Since.Before(oldest.Since) {
			oldest = w
		}
	}
	s.to.Wait(oldest)
}
