package patience

import (
	"context"
	"errors"
	"sync"
	"time"

	"ringmaster/pkg/influx"
)

// trouble is one way in which one backend fails.
type trouble struct {
	server string
	kind   Kind
}

// Kind is a kind of trouble.
type Kind uint8

const (
	// away: no answer at all. Who calls cannot end it: any answer does.
	away Kind = iota
	// Queries are refused.
	Queries
	// Writes are refused.
	Writes
)

// pingTimeout is how long a backend may take to show that it is there.
const pingTimeout = 5 * time.Second

// trouble finds out what kind of trouble an error is. A connection that breaks
// says nothing of the backend as a whole: it is away only if it does not answer
// a ping either.
func (c *Call) trouble(ctx context.Context, err error, refusal *influx.Error) trouble {
	server := refusal.Server()
	if refusal.Status == 0 && !c.answers(ctx, server) {
		return trouble{server, away}
	}
	if _, ok := errors.AsType[*WriteError](err); ok {
		return trouble{server, Writes}
	}
	return trouble{server, Queries}
}

func (c *Call) answers(ctx context.Context, server string) bool {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	for _, client := range c.Clients {
		if client.URL() == server {
			_, err := client.Ping(ctx)
			return err == nil
		}
	}
	return false
}

// outages remembers since when backends have been failing, for all tasks of
// this process together: a task that starts during an outage does not begin to
// be patient anew.
type outages struct {
	mu  sync.Mutex
	all map[trouble]outage
}

type outage struct {
	since, last time.Time
	err         error
}

// begin notes a failure and returns when the outage began. After a time in
// which nobody has met it, it is another outage.
func (o *outages) begin(t trouble, err error, now time.Time, over time.Duration) time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	known, ok := o.all[t]
	if !ok || now.Sub(known.last) > over {
		known.since = now
	}
	known.last, known.err = now, err
	o.all[t] = known
	return known.since
}

func (o *outages) get(t trouble) (outage, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	known, ok := o.all[t]
	return known, ok
}

// end notes that a backend has done what is asked by calls of a kind.
func (o *outages) end(server string, kind Kind) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.all, trouble{server, kind})
	delete(o.all, trouble{server, away})
}
