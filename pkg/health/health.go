// Package health knows how the backends are. A Prober asks each of them, again
// and again, whether it answers and whether it stores what is written to it, and
// a Census counts the measurements that each of them holds. Both keep what they
// have found, so that no request waits for a backend.
package health

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/topology"
)

// Writes is what the last write probe of a backend found.
type Writes string

// The findings of a write probe.
const (
	// WritesUnknown: there was none, and [Status.Note] says why unless the first
	// is yet to come.
	WritesUnknown Writes = ""
	// WritesStored: a point was written and read back.
	WritesStored Writes = "stored"
	// WritesFailed: it was not; [Status.Error] says why.
	WritesFailed Writes = "failed"
)

// Status is what the last probes of a backend found.
type Status struct {
	// Active is whether it answered the last ping, which CheckedAt is the time of.
	Active    bool
	Version   string
	CheckedAt time.Time
	// Error says why it is not active or, if it is, why the last write probe
	// failed.
	Error string
	// Writes is what the last write probe found, at WroteAt.
	Writes  Writes
	WroteAt time.Time
	// Note says why there are no write probes of a backend that may be well.
	Note string
}

// Healthy reports whether the backend answers and nothing is known to keep it
// from storing what is written.
func (s Status) Healthy() bool { return s.Active && s.Writes != WritesFailed }

// Topology gives the topology whose backends are probed, credentials sealed.
type Topology interface {
	Current() *topology.Topology
}

const (
	// DefaultEvery is how often each backend is pinged.
	DefaultEvery = 5 * time.Second
	// DefaultWriteEvery is how often a point is written to each: a point that
	// lives for an hour, so a backend never holds more than some hundred.
	DefaultWriteEvery = 30 * time.Second
	// firstWrite is how long a backend is left alone after the start, and
	// writeAgain how soon one that failed is tried again.
	firstWrite = 5 * time.Second
	writeAgain = 10 * time.Second
)

// Options are what a Prober works with. Zero values are usable.
type Options struct {
	// Every and WriteEvery are how often a backend is pinged and written to; 0
	// means the defaults. A negative WriteEvery means never.
	Every, WriteEvery time.Duration
	// Clients opens the connections; nil uses no credentials.
	Clients *Clients
	// Logger is told of every change; nil means nobody is.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

func (o *Options) setDefaults() {
	if o.Every <= 0 {
		o.Every = DefaultEvery
	}
	if o.WriteEvery == 0 {
		o.WriteEvery = DefaultWriteEvery
	}
	if o.Clients == nil {
		o.Clients = NewClients(nil, "", influx.Options{})
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Prober is the service that probes.
type Prober struct {
	topology Topology
	options  Options

	mu     sync.RWMutex
	status map[string]Status
}

// New returns a prober that has not asked yet.
func New(t Topology, o Options) *Prober {
	o.setDefaults()
	return &Prober{topology: t, options: o, status: map[string]Status{}}
}

// Backends returns the last status of every backend, by URL.
func (p *Prober) Backends(context.Context) map[string]Status {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return maps.Clone(p.status)
}

// Active reports whether the backend with this URL answered its last ping. One that
// has not been asked, such as one that a circle had before, counts as if it did.
func (p *Prober) Active(url string) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	s, asked := p.status[url]
	return !asked || s.Active
}

// watched is a backend that a goroutine of its own probes.
type watched struct {
	sealed string
	stop   context.CancelFunc
}

// Run probes until ctx ends. Every backend has a goroutine of its own, so that a
// slow one delays no other.
func (p *Prober) Run(ctx context.Context) error {
	var watches sync.WaitGroup
	defer watches.Wait()
	running := map[string]watched{}
	ticker := time.NewTicker(p.options.Every)
	defer ticker.Stop()
	for {
		p.follow(ctx, running, &watches)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// follow starts to watch the backends that are new in the topology, or have new
// credentials, and stops watching those that are gone.
func (p *Prober) follow(ctx context.Context, running map[string]watched, watches *sync.WaitGroup) {
	t := p.topology.Current()
	if t == nil {
		return
	}
	current := map[string]bool{}
	for _, c := range t.Circles {
		for _, b := range c.Backends {
			if current[b.URL] {
				continue
			}
			current[b.URL] = true
			if was, known := running[b.URL]; known {
				if was.sealed == b.Sealed {
					continue
				}
				was.stop()
			}
			ctx, stop := context.WithCancel(ctx)
			running[b.URL] = watched{b.Sealed, stop}
			watches.Go(func() {
				defer stop()
				p.watch(ctx, &b)
			})
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for url, w := range running {
		if !current[url] {
			w.stop()
			delete(running, url)
			delete(p.status, url)
		}
	}
}

// watch probes one backend until ctx ends.
func (p *Prober) watch(ctx context.Context, b *topology.Backend) {
	client, err := p.options.Clients.Open(b)
	if err != nil {
		p.note(ctx, b.URL, Status{CheckedAt: p.options.Now(), Error: err.Error()})
		<-ctx.Done() // or until the record has other credentials
		return
	}
	defer client.Close()
	probe := &probe{client: client, now: p.options.Now}
	due := p.options.Now().Add(min(firstWrite, p.options.WriteEvery))
	ticker := time.NewTicker(p.options.Every)
	defer ticker.Stop()
	for {
		s := probe.ping(ctx)
		p.note(ctx, b.URL, s)
		now := p.options.Now()
		if !s.Active {
			due = now // as soon as it answers again
		} else if p.options.WriteEvery > 0 && !now.Before(due) {
			f := p.write(ctx, probe)
			p.noteWrite(ctx, b.URL, f)
			due = now.Add(p.options.WriteEvery)
			if f.writes == WritesFailed {
				due = now.Add(min(writeAgain, p.options.WriteEvery))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// write probes by writing, unless the databases are limited to others.
func (p *Prober) write(ctx context.Context, probe *probe) finding {
	t := p.topology.Current()
	if t != nil && len(t.Databases) > 0 && !slices.Contains(t.Databases, influx.ProbeDatabase) {
		return finding{note: "pinged only: db_list does not allow the database " + influx.ProbeDatabase}
	}
	return probe.write(ctx)
}

// note keeps what a ping found. What the last write probe found stays with a
// backend that answers: it may be all that is wrong.
func (p *Prober) note(ctx context.Context, url string, s Status) {
	p.change(ctx, url, func(was Status) Status {
		if s.Version == "" {
			s.Version = was.Version
		}
		if s.Active && was.Active {
			s.Error, s.Writes, s.WroteAt, s.Note = was.Error, was.Writes, was.WroteAt, was.Note
		}
		return s
	})
}

// noteWrite keeps what a write probe found.
func (p *Prober) noteWrite(ctx context.Context, url string, f finding) {
	p.change(ctx, url, func(was Status) Status {
		was.Writes, was.Error, was.Note, was.WroteAt = f.writes, f.reason, f.note, p.options.Now()
		return was
	})
}

// change makes a new status of the last one and reports what matters of it.
func (p *Prober) change(ctx context.Context, url string, next func(Status) Status) {
	p.mu.Lock()
	if ctx.Err() != nil { // what was cut off says nothing
		p.mu.Unlock()
		return
	}
	was, known := p.status[url]
	is := next(was)
	p.status[url] = is
	p.mu.Unlock()
	if known && was.Active == is.Active && was.Writes == is.Writes && was.Note == is.Note {
		return
	}
	level := slog.LevelInfo
	if !is.Healthy() {
		level = slog.LevelWarn
	}
	p.options.Logger.Log(ctx, level, "backend probed", "backend", url,
		"active", is.Active, "writes", string(is.Writes), "reason", is.Error, "note", is.Note)
}
