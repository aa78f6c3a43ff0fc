// Package query runs the statements of clients on the backends: it chooses a circle
// whose owners are complete, hands on what one of them can answer as it is, and has
// the others' answers merged, so that a client sees what one InfluxDB with all the
// data would answer.
//
// What a statement is and how it is split is decided in pkg/statement, how answers
// are joined and written in pkg/result. This package asks, waits, tries elsewhere
// and keeps the bounds.
package query

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// Pass is a read that has begun under a view and is still under way.
type Pass interface {
	View() *serving.View
	// Held is nil as long as others have waited for this read.
	Held() error
	// End must be called once, when all of the read has finished.
	End()
}

// Session says by which view to route. See [Reads].
type Session interface {
	// BeginRead enters a read. An error means that this process must not serve at
	// the moment, and says why.
	BeginRead() (Pass, error)
	// Changed is closed when there is another view.
	Changed() <-chan struct{}
}

// Reads makes a Session of one whose passes have a type of their own.
func Reads[P Pass](s interface {
	BeginRead() (P, error)
	Changed() <-chan struct{}
},
) Session {
	return reads[P]{s}
}

type reads[P Pass] struct {
	session interface {
		BeginRead() (P, error)
		Changed() <-chan struct{}
	}
}

func (r reads[P]) Changed() <-chan struct{} { return r.session.Changed() }

func (r reads[P]) BeginRead() (Pass, error) {
	p, err := r.session.BeginRead()
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Clients gives the client of a backend. It is kept by whoever gives it; see [Pool].
type Clients interface {
	Client(b *topology.Backend) (*influx.Client, error)
}

// Health knows which backends answer.
type Health interface {
	// Active reports whether the backend with this URL answered when it was last
	// asked, or has not been asked yet.
	Active(url string) bool
}

// Flags are circles that an operator has marked as not to be read.
type Flags interface {
	Migrating(circle int) bool
}

// Writer is the write path of SELECT … INTO. lines are line protocol with times in
// nanoseconds; an error with a method Sentence is shown as it says.
type Writer interface {
	WritePoints(ctx context.Context, database, retentionPolicy string, lines []byte) error
}

// Quiescer keeps points of a database from being sent while something is deleted.
type Quiescer interface {
	// Quiesce returns when no send is under way and none will begin before resume
	// is called.
	Quiesce(ctx context.Context, database string) (resume func(), err error)
}

// Bounds limit what one request may take. 0 means the default, a negative value no
// bound.
type Bounds struct {
	// Time is how long it may run.
	Time time.Duration
	// Rows is how many rows its answer may have. If it is set, every answer is read
	// here to be counted; by default those of a single owner are not.
	Rows int64
	// Bytes is how large the answers of the backends may be together.
	Bytes int64
}

// Defaults of [Options].
const (
	DefaultTime    = 30 * time.Minute
	DefaultRows    = 1_000_000_000
	DefaultBytes   = 256 << 30
	DefaultWait    = 3 * time.Second
	DefaultRunning = 4096
	// DefaultMeta is how long a statement that is sent to every backend may take
	// at each.
	DefaultMeta = 2 * time.Minute
)

// Options are what a Runner works with.
type Options struct {
	Session Session
	Clients Clients
	Health  Health
	// Flags may be nil: no circle is marked.
	Flags    Flags
	Writer   Writer
	Quiescer Quiescer
	Bounds   Bounds
	// Wait is how long a read waits for a complete owner.
	Wait time.Duration
	// Meta bounds each backend's part of a statement that all of them get.
	Meta time.Duration
	// Running is how many requests may run at a time; further ones are refused.
	Running int
	// Version and Build are what answers that no backend gave whole say they are
	// from.
	Version, Build string
	// Logger gets what clients are not told; nil drops it.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

func (o *Options) setDefaults() {
	if o.Bounds.Time == 0 {
		o.Bounds.Time = DefaultTime
	}
	if o.Bounds.Bytes == 0 {
		o.Bounds.Bytes = DefaultBytes
	}
	if o.Wait <= 0 {
		o.Wait = DefaultWait
	}
	if o.Meta <= 0 {
		o.Meta = DefaultMeta
	}
	if o.Running <= 0 {
		o.Running = DefaultRunning
	}
	if o.Version == "" {
		o.Version = "1.8.3"
	}
	if o.Build == "" {
		o.Build = "OSS"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Runner runs requests. It is safe for concurrent use and has no goroutines of its
// own: those of a request end with it.
type Runner struct {
	o       Options
	turn    atomic.Uint64 // spreads the load over the circles
	lessons lessons
	running registry
	buffers sync.Pool // of *[copySize]byte
}

// New returns a runner.
func New(o Options) *Runner {
	o.setDefaults()
	r := &Runner{o: o}
	r.lessons.now = o.Now
	r.running.most = o.Running
	return r
}
