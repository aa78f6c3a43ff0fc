// Package health asks the backends, again and again, whether they answer, so
// that no request has to.
package health

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/topology"
)

// Status is what the last probe of a backend found.
type Status struct {
	Active    bool
	Version   string
	CheckedAt time.Time
	Error     string
}

// Topology gives the topology whose backends are probed.
type Topology interface {
	Current() *topology.Topology
}

const (
	// DefaultEvery is how often each backend is asked.
	DefaultEvery = 5 * time.Second
	probeTimeout = 3 * time.Second
	atOnce       = 16
)

// Prober is the service.
type Prober struct {
	topology Topology
	every    time.Duration
	logger   *slog.Logger
	now      func() time.Time

	mu     sync.RWMutex
	status map[string]Status
}

// New returns a prober that has not asked yet. every 0 means DefaultEvery.
func New(t Topology, every time.Duration, logger *slog.Logger, now func() time.Time) *Prober {
	if every == 0 {
		every = DefaultEvery
	}
	return &Prober{topology: t, every: every, logger: logger, now: now, status: map[string]Status{}}
}

// Backends returns the last status of every backend, by URL.
func (p *Prober) Backends(context.Context) map[string]Status {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return maps.Clone(p.status)
}

// Run asks until ctx ends.
func (p *Prober) Run(ctx context.Context) error {
	ticker := time.NewTicker(p.every)
	defer ticker.Stop()
	for {
		p.round(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// round asks every backend once. A slow one delays nobody but the next round.
func (p *Prober) round(ctx context.Context) {
	t := p.topology.Current()
	if t == nil {
		return
	}
	current := map[string]bool{}
	var g errgroup.Group
	g.SetLimit(atOnce)
	for _, c := range t.Circles {
		for _, b := range c.Backends {
			if current[b.URL] {
				continue
			}
			current[b.URL] = true
			g.Go(func() error {
				p.note(ctx, b.URL, p.probe(ctx, b.URL))
				return nil
			})
		}
	}
	_ = g.Wait() // no probe returns an error
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.status, func(url string, _ Status) bool { return !current[url] })
}

// probe pings one backend. A ping needs no credentials, unless the backend has
// been told to ask for them: then its refusal shows that it is there.
func (p *Prober) probe(ctx context.Context, url string) Status {
	s := Status{CheckedAt: p.now()}
	client, err := influx.New(influx.Endpoint{URL: url}, influx.Options{Timeout: probeTimeout})
	if err == nil {
		defer client.Close()
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		s.Version, err = client.Ping(ctx)
	}
	var refusal *influx.Error
	asks := errors.As(err, &refusal) && (refusal.Status == http.StatusUnauthorized || refusal.Status == http.StatusForbidden)
	if err != nil && !asks {
		s.Error = err.Error()
		return s
	}
	s.Active = true
	return s
}

func (p *Prober) note(ctx context.Context, url string, s Status) {
	if ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	was, known := p.status[url]
	if s.Version == "" {
		s.Version = was.Version
	}
	p.status[url] = s
	p.mu.Unlock()
	if !known || was.Active != s.Active {
		p.logger.InfoContext(ctx, "backend probed", "backend", url, "active", s.Active, "reason", s.Error)
	}
}
