// Package ingest is the write path of the data plane. It takes requests in line
// protocol, sends each line to its owner in every circle, and answers when all of
// them have stored it or when it lies in the hints of those that can't: what one
// InfluxDB would have answered to that request alone, whatever others send at the
// same time.
//
// # The way of a request
//
// A body is read within bounds and scanned once; each line is appended to the part
// of every backend that has to get it. The parts of a request are queued in all
// lanes in one step, so that every backend sees requests in one order. A lane is a
// backend, a database and a retention policy: it has one batch under way, and takes
// what has come meanwhile as the next one.
//
// # Order
//
// The last write of a point wins, so a lane sends a batch again, in whole or in
// parts, before it sends the next. Requests that overlap in time have no order for
// their clients, but the same one in all circles. There is one exception: a
// request that is expected to be refused, since it brings a conflict that is known
// or comes from a client that was refused shortly before, travels in a quarantine
// lane beside the normal one. It may overtake, or be overtaken by, a request that
// overlaps with it, in one circle and not in another. A client that waits for each
// answer before it writes again never sees this. Two clients of which one is
// refused now and then, and who write the same points at the same time, may leave
// circles with different values; a resync repairs that. The same holds for two
// clients of which one names the default retention policy and the other does not.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ringmaster/pkg/gateway/session"
	"ringmaster/pkg/hint"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// Session is this process's part in what all processes agree on; pkg/gateway/session
// says more.
type Session interface {
	// View is the view in force; Changed is closed when a newer one is.
	View() *serving.View
	Changed() <-chan struct{}
	// BeginWrite enters a write under the view in force. An error is the reason for
	// which this process must not serve.
	BeginWrite() (Pass, error)
	// Tenure is the time for which the session lives on end. What is sent after one
	// that it was begun in is what nobody has waited for.
	Tenure() *session.Tenure
	// BeginSend is asked before each request that stores points at a backend, and
	// before each frame that goes into its hints; end says that it is over.
	BeginSend(backendURL string) (mode serving.Mode, end func(), err error)
	// Note makes durable what is about to be written to circles that are copied.
	Note(ctx context.Context, v *serving.View, touched []session.Touched) error
}

// Pass is a write that goes on under one view.
type Pass interface {
	View() *serving.View
	// Held is nil as long as others have waited for what goes on under the pass.
	Held() error
	End()
}

// Hints keep on disk what a backend can't take now.
type Hints interface {
	// Append returns when the frame is durable.
	Append(ctx context.Context, backendURL string, frame *hint.Frame) error
	// Reserve makes sure of room; an error says which bound is reached.
	Reserve(backendURL string, bytes int64) (release func(), err error)
}

// Keeper is told when a backend can't be written to. It has the hints take over.
type Keeper interface {
	Suspect(ctx context.Context, backendURL, reason string) error
}

// Preparer makes a database with its retention policies, as other backends have
// them, on a backend that has lost it.
type Preparer interface {
	Prepare(ctx context.Context, backendURL, database string) error
}

// Poster sends to one backend.
type Poster interface {
	// Post sends line protocol in nanoseconds; see influx.Client.Post.
	Post(ctx context.Context, db, rp string, parts [][]byte, compress bool) (influx.Reply, error)
	Close()
}

// Defaults of Options.
const (
	DefaultMaxBody      = 25_000_000 // as InfluxDB's
	DefaultMaxInFlight  = 256 << 20
	DefaultMaxQueued    = 8192
	DefaultMaxGroup     = 4 << 20
	DefaultMaxConns     = 20
	DefaultWriteTimeout = 10 * time.Second
	DefaultDeadline     = 30 * time.Second
)

// Options configure an Ingest. Session, Hints and Keeper are required.
type Options struct {
	Session Session
	Hints   Hints
	Keeper  Keeper
	// Preparer is nil when lost databases are not made again: a backend without
	// the database that others have is then suspect.
	Preparer Preparer
	// Connect makes the client of a backend, which puts nothing on the wire after
	// guard has returned an error; nil means an influx.Client.
	Connect func(b *topology.Backend, guard func() error) (Poster, error)

	// MaxBody bounds the body of a request; one that is compressed may become
	// twice as large.
	MaxBody int64
	// MaxInFlight bounds the bytes that are held for all requests together. A
	// backend's lanes may hold a quarter of it.
	MaxInFlight int64
	// MaxQueued bounds the requests that wait for one backend.
	MaxQueued int
	// MaxGroup is how many bytes travel together, unless one request has more.
	MaxGroup int
	// MaxConns bounds the connections to one backend.
	MaxConns int
	// WriteTimeout is how long a backend may take to answer, Deadline how long a
	// request may take in all: at least twice as long, unless it is given.
	WriteTimeout, Deadline time.Duration

	// Logger gets what no client is told; nil drops it.
	Logger *slog.Logger
	// Now is the clock that lines without a time are given; nil means time.Now.
	Now func() time.Time
}

func (o *Options) setDefaults() {
	set := func(n *int64, value int64) {
		if *n <= 0 {
			*n = value
		}
	}
	setInt := func(n *int, value int) {
		if *n <= 0 {
			*n = value
		}
	}
	set(&o.MaxBody, DefaultMaxBody)
	set(&o.MaxInFlight, DefaultMaxInFlight)
	setInt(&o.MaxQueued, DefaultMaxQueued)
	setInt(&o.MaxGroup, DefaultMaxGroup)
	setInt(&o.MaxConns, DefaultMaxConns)
	set((*int64)(&o.WriteTimeout), int64(DefaultWriteTimeout))
	// Long enough to find out that a backend hangs, and for its hints to take over.
	set((*int64)(&o.Deadline), max(int64(DefaultDeadline), 2*int64(o.WriteTimeout)))
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Connect == nil {
		timeout, conns := o.WriteTimeout, o.MaxConns
		o.Connect = func(b *topology.Backend, guard func() error) (Poster, error) {
			return influx.New(
				influx.Endpoint{URL: b.URL, Username: b.Credentials.Username, Password: b.Credentials.Password},
				influx.Options{Timeout: timeout, MaxConns: conns, Guard: guard})
		}
	}
}

// Ingest is the write path. It is safe for concurrent use.
type Ingest struct {
	options Options
	ctx     context.Context //nolint:containedctx // the service's own: lanes outlive requests
	stop    context.CancelFunc
	lanes   sync.WaitGroup
	watcher sync.WaitGroup

	budget budget
	router atomic.Pointer[router]
	known  conflicts
	stats  counters
	writes sync.Pool // of *write
	absent absences

	mu       sync.Mutex
	closed   bool
	backends map[string]*backend // by URL
	gates    map[string]*gate    // by database
}

// New returns a write path. Close ends it.
func New(o Options) (*Ingest, error) {
	if o.Session == nil || o.Hints == nil || o.Keeper == nil {
		return nil, errors.New("the write path needs a session, hints and their keeper")
	}
	o.setDefaults()
	g := &Ingest{options: o, backends: map[string]*backend{}, gates: map[string]*gate{}}
	g.budget.max = o.MaxInFlight
	g.ctx, g.stop = context.WithCancel(context.Background())
	g.writes.New = func() any { return &write{ingest: g, answered: make(chan struct{}, 1)} }
	g.watcher.Go(g.watch)
	return g, nil
}

// Close refuses what comes, and returns when everything under way has ended: the
// requests that backends have are waited for until ctx ends.
func (g *Ingest) Close(ctx context.Context) error {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.lanes.Wait()
	}()
	var err error
	select {
	case <-ended:
	case <-ctx.Done():
		err = fmt.Errorf("ending the write path: %w", context.Cause(ctx))
	}
	g.stop()
	<-ended
	g.watcher.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range g.backends {
		b.close()
	}
	return err
}

// backend is what is shared by the lanes of one server.
type backend struct {
	url string

	// Of the client, made when it is first needed; mu is Ingest's.
	poster      Poster
	credentials topology.Credentials
	tenure      *session.Tenure

	// What waits in its lanes or is under way; mu is Ingest's.
	parts int
	bytes int64
	lanes map[laneKey]*lane

	// The context of what is sent, and what ends it; mu is Ingest's.
	ctx    context.Context //nolint:containedctx // it is everybody's who sends
	giveUp context.CancelCauseFunc
}

func (b *backend) close() {
	if b.giveUp != nil {
		b.giveUp(nil)
		b.giveUp = nil
	}
	if b.poster != nil {
		b.poster.Close()
	}
}

// backend returns the shared part of a server's lanes.
func (g *Ingest) backend(url string) *backend {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.backends[url]
	if b == nil {
		b = &backend{url: url, lanes: map[laneKey]*lane{}}
		g.backends[url] = b
	}
	return b
}

// poster returns the client of a server, with the credentials of the day, that sends
// in this tenure only.
func (g *Ingest) poster(b *backend, of *topology.Backend, in *session.Tenure) (Poster, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if b.poster != nil && b.credentials == of.Credentials && b.tenure == in {
		return b.poster, nil
	}
	p, err := g.options.Connect(of, in.Held)
	if err != nil {
		return nil, err
	}
	if b.poster != nil {
		b.poster.Close() // its idle connections; requests under way are not touched
	}
	b.poster, b.credentials, b.tenure = p, of.Credentials, in
	return p, nil
}

// forget drops the servers that no view has any more; mu is held.
func (g *Ingest) forget(v *serving.View) {
	all := v.Backends()
	maps.DeleteFunc(g.backends, func(url string, b *backend) bool {
		if b.parts > 0 || slices.ContainsFunc(all, func(of topology.Backend) bool { return of.URL == url }) {
			return false
		}
		b.close()
		return true
	})
}
