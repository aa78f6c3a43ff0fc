package health

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/topology"
)

// Count is how many measurements of one database a backend holds, and how many
// of them it owns.
type Count struct{ Measurements, InPlace int }

// Load is what is known of what a backend holds.
type Load struct {
	// Databases are the counts by database; nil before the first count of the
	// topology's epoch.
	Databases map[string]Count
	// TakenAt is when counting them began.
	TakenAt time.Time
	// Error says why there are none, or none that are newer.
	Error string
}

// Statuses tells which backends answer, by URL.
type Statuses interface {
	Backends(ctx context.Context) map[string]Status
}

// The measurements of a cluster change seldom, and to list them costs a backend
// some milliseconds per ten thousand. So counts are good for as long as a monitor
// usually waits between two questions; up to a minute they are still answered
// with at once while new ones are taken, which nobody notices who polls; and
// whoever asks once in a while is not told what was true long ago.
const (
	fresh = 10 * time.Second
	stale = time.Minute
	// patience bounds how long an answer waits for counts that there are none of,
	// and straggling how long at least for the slower half of the backends once
	// the others have been counted.
	patience   = 3 * time.Second
	straggling = time.Second
	// countTimeout bounds the counting of one backend.
	countTimeout = time.Minute
	// atOnce bounds how many backends are counted at once, and resting is how many
	// times as long as its last count took a backend is left alone after it.
	atOnce  = 16
	resting = 4
)

// CensusOptions are what a Census works with.
type CensusOptions struct {
	// Clients opens the connections; nil uses no credentials.
	Clients *Clients
	// Logger is told of what fails; nil means nobody is.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Census is the service that counts measurements. It counts only when somebody
// asks, each backend at most once at a time.
type Census struct {
	topology Topology
	statuses Statuses
	options  CensusOptions
	slots    chan struct{}
	wake     chan struct{}

	mu      sync.Mutex
	entries map[string]*entry // by name of the backend
	changed chan struct{}     // closed, and replaced, when a count ends
}

// entry is what the census knows of a backend.
type entry struct {
	epoch  uint64
	counts map[string]Count
	begun  time.Time // of what counts holds
	rest   time.Time // when a new count may begin
	failed string    // why the last count did not end well
	count  *count    // under way or to begin; nil for none
}

// count is one counting of one backend.
type count struct {
	epoch   uint64
	asked   time.Time
	started bool
	done    bool
}

// NewCensus returns a census that has counted nothing.
func NewCensus(t Topology, s Statuses, o CensusOptions) *Census {
	probing := Options{Clients: o.Clients, Logger: o.Logger, Now: o.Now}
	probing.setDefaults()
	return &Census{
		topology: t, statuses: s,
		options: CensusOptions{Clients: probing.Clients, Logger: probing.Logger, Now: probing.Now},
		slots:   make(chan struct{}, atOnce), wake: make(chan struct{}, 1),
		entries: map[string]*entry{}, changed: make(chan struct{}),
	}
}

// Known returns what is known of every backend, by name, and asks nobody.
func (c *Census) Known(ctx context.Context) map[string]Load {
	t := c.topology.Current()
	if t == nil {
		return map[string]Load{}
	}
	return c.view(t, c.statuses.Backends(ctx))
}

// Backends returns what is known of every backend, by name. What is out of date
// begins to be counted anew; only where nothing is known, or nothing of the last
// minute, it waits for that, and then not for long. A backend that does not
// answer pings is not waited for.
func (c *Census) Backends(ctx context.Context) map[string]Load {
	t := c.topology.Current()
	if t == nil {
		return map[string]Load{}
	}
	status := c.statuses.Backends(ctx)
	c.await(ctx, c.ask(t, status))
	return c.view(t, status)
}

// ask has every backend counted that should be, and returns the counts that are
// worth waiting for.
func (c *Census) ask(t *topology.Topology, status map[string]Status) (wait []*count) {
	now := c.options.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	current := map[string]bool{}
	for b := range backends(t) {
		current[b.Name] = true
		e := c.entries[b.Name]
		if e == nil || e.epoch != t.Epoch {
			// Who owns what has changed. A count under way ends by itself.
			next := &entry{epoch: t.Epoch}
			if e != nil {
				next.count = e.count
			}
			e = next
			c.entries[b.Name] = e
		}
		if s := status[b.URL]; !s.Active && !s.CheckedAt.IsZero() {
			continue
		}
		if e.count == nil && !now.Before(e.rest) {
			e.count = &count{epoch: t.Epoch, asked: now}
		}
		if e.count != nil && (e.counts == nil || now.Sub(e.begun) > stale) && now.Sub(e.count.asked) < patience {
			wait = append(wait, e.count)
		}
	}
	for name := range c.entries {
		if !current[name] {
			delete(c.entries, name)
		}
	}
	c.signal()
	return wait
}

// signal has Run look for counts to begin.
func (c *Census) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// await waits for counts. Once half of them are done, the others have as long
// again, so that a backend which hangs delays the answer little.
func (c *Census) await(ctx context.Context, counts []*count) {
	if len(counts) == 0 {
		return
	}
	began := time.Now()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	halved := false
	for {
		c.mu.Lock()
		done := 0
		for _, n := range counts {
			if n.done {
				done++
			}
		}
		changed := c.changed
		c.mu.Unlock()
		if done == len(counts) {
			return
		}
		if took := time.Since(began); !halved && 2*done >= len(counts) {
			halved = true
			limit.Reset(min(max(straggling, took), patience-took))
		}
		select {
		case <-changed:
		case <-limit.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// view says what is known, and why not more.
func (c *Census) view(t *topology.Topology, status map[string]Status) map[string]Load {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := map[string]Load{}
	for b := range backends(t) {
		var l Load
		e := c.entries[b.Name]
		if e != nil && e.epoch == t.Epoch {
			l = Load{Databases: e.counts, TakenAt: e.begun, Error: e.failed}
		}
		switch s := status[b.URL]; {
		case !s.Active && !s.CheckedAt.IsZero():
			l.Error = "it does not answer: " + s.Error
		case l.Databases == nil && l.Error == "" && e != nil && e.count != nil:
			l.Error = "its measurements are being counted"
		case l.Databases == nil && l.Error == "":
			l.Error = "its measurements have not been counted yet"
		}
		all[b.Name] = l
	}
	return all
}

// Run counts what is asked for until ctx ends.
func (c *Census) Run(ctx context.Context) error {
	var counting sync.WaitGroup
	defer counting.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		}
		t := c.topology.Current()
		if t == nil {
			continue
		}
		for i := range t.Circles {
			for j := range t.Circles[i].Backends {
				circle, b := &t.Circles[i], &t.Circles[i].Backends[j]
				if n := c.begin(t, b.Name); n != nil {
					counting.Go(func() { c.run(ctx, t, circle, b, n) })
				}
			}
		}
	}
}

// begin takes a count that waits for its beginning; nil if there is none.
func (c *Census) begin(t *topology.Topology, name string) *count {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[name]
	if e == nil || e.count == nil || e.count.started {
		return nil
	}
	e.count.started, e.count.epoch = true, t.Epoch
	return e.count
}

// run counts one backend and keeps the result, if it still is one.
func (c *Census) run(ctx context.Context, t *topology.Topology, circle *topology.Circle, b *topology.Backend, n *count) {
	var counts map[string]Count
	begun := c.options.Now()
	err := ctx.Err()
	select {
	case c.slots <- struct{}{}:
		begun = c.options.Now()
		counts, err = c.tally(ctx, t, circle, b)
		<-c.slots
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n.done = true
	close(c.changed)
	c.changed = make(chan struct{})
	e := c.entries[b.Name]
	if e == nil || e.count != n {
		return
	}
	e.count = nil
	now := c.options.Now()
	if e.epoch != n.epoch {
		// The topology has changed meanwhile, and who asked wants to know by the
		// new one.
		e.count = &count{epoch: e.epoch, asked: now}
		c.signal()
		return
	}
	e.rest = now.Add(max(fresh, resting*now.Sub(begun)))
	if err != nil {
		e.failed = "its measurements could not be counted: " + reason(err)
		if ctx.Err() == nil {
			c.options.Logger.WarnContext(ctx, "counting measurements", "backend", b.URL, "error", err)
		}
		return
	}
	e.counts, e.begun, e.failed = counts, begun, ""
}

// tally counts the measurements of a backend. It keeps none of their names.
func (c *Census) tally(ctx context.Context, t *topology.Topology, circle *topology.Circle, b *topology.Backend) (map[string]Count, error) {
	placement, err := t.Placement(circle.ID)
	if err != nil {
		return nil, err
	}
	// Two entries of a circle may be one server.
	here := map[string]bool{}
	for i := range circle.Backends {
		if other := &circle.Backends[i]; topology.SameServer(other.URL, b.URL) {
			here[other.Name] = true
		}
	}
	client, err := c.options.Clients.Open(b)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	databases, err := client.Databases(ctx)
	if err != nil {
		return nil, err
	}
	counts := make(map[string]Count, len(databases))
	for _, db := range databases {
		n, err := tallyDatabase(ctx, client, placement, db, here)
		switch {
		case err == nil:
			counts[db] = n
		case !dropped(err):
			return nil, err
		}
	}
	return counts, nil
}

// tallyDatabase counts the measurements of one database; here says which backends
// of the circle are this server.
func tallyDatabase(ctx context.Context, client *influx.Client, placement *topology.Placement, db string, here map[string]bool) (n Count, err error) {
	for measurement, err := range client.Measurements(ctx, db) {
		if err != nil {
			return n, err
		}
		n.Measurements++
		if here[placement.Owner(db, measurement).Name] {
			n.InPlace++
		}
	}
	return n, nil
}

// dropped reports whether a database that was just listed is gone.
func dropped(err error) bool {
	var refusal *influx.Error
	return errors.As(err, &refusal) && strings.HasPrefix(refusal.Message, "database not found")
}

// backends yields every backend of a topology.
func backends(t *topology.Topology) func(yield func(*topology.Backend) bool) {
	return func(yield func(*topology.Backend) bool) {
		for i := range t.Circles {
			for j := range t.Circles[i].Backends {
				if !yield(&t.Circles[i].Backends[j]) {
					return
				}
			}
		}
	}
}
