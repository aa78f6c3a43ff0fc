package mover

import (
	"sync"
	"time"
)

// outages remembers since when a backend has been failing, for all tasks of
// this process together: a task that starts during an outage does not begin to
// be patient anew.
type outages struct {
	mu    sync.Mutex
	since map[string]time.Time
}

// begin notes a failure and returns when the outage began.
func (o *outages) begin(backend string, now time.Time) time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	if since, ok := o.since[backend]; ok {
		return since
	}
	o.since[backend] = now
	return now
}

// end notes that the backend has answered.
func (o *outages) end(backend string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.since, backend)
}
