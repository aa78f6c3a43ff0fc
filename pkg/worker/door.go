package worker

import (
	"context"
	"sync"
	"time"

	"ringmaster/pkg/operation"
)

const (
	// doorFor is for how long an operation that was admitted counts as admitted when
	// the next nudge comes: before it is claimed, it is asked for anew.
	doorFor = time.Second
	// doorKeeps bounds the operations that are remembered.
	doorKeeps = 256
)

// door remembers which operations were admitted a moment ago, so that small tasks of
// one operation do not read its record twice each.
type door struct {
	mu    sync.Mutex
	known map[string]admission
}

type admission struct {
	op operation.Operation
	at time.Time
}

// admitted is admit, by what was read up to a second ago. It is a first look only: what
// was paused meanwhile is found when the task is claimed.
func (w *Worker) admitted(ctx context.Context, id string) (operation.Operation, error) {
	w.door.mu.Lock()
	a, ok := w.door.known[id]
	w.door.mu.Unlock()
	now := w.options.Now()
	if ok && now.Sub(a.at) < doorFor && !now.Before(a.at) {
		return a.op, nil
	}
	op, err := w.admit(ctx, id)
	w.door.mu.Lock()
	defer w.door.mu.Unlock()
	if err != nil {
		delete(w.door.known, id)
		return op, err
	}
	if w.door.known == nil || len(w.door.known) >= doorKeeps {
		w.door.known = map[string]admission{}
	}
	w.door.known[id] = admission{op, now}
	return op, nil
}
