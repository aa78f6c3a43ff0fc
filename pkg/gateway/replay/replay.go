// Package replay keeps points for backends that can't take them, and brings the
// points to them in order once they can.
//
// A Store keeps frames in a backend's hints, within bounds, and says no before a
// bound is broken. A Keeper takes each backend that fails through its modes, with
// one process at a time doing so under a lease:
//
//	direct    every process sends to the backend itself
//	suspect   some process could not; once nobody sends any more →
//	hinting   everything goes behind the hints, until the backend stores again →
//	draining  the hints are sent to it, oldest first, one batch at a time; once
//	          few are left →
//	handover  nobody adds to them and nobody sends; once the last have been sent → direct
//
// The order of a backend's points rests on these: what goes on under an older mode
// has ended before what the next one allows begins (Session.AwaitSends); only the
// holder of the lease replays, and sends nothing after its lease has run out; what
// was replayed is removed from the front, so that a successor which sends some of it
// once more sends all that follows as well; and nothing is sent before the backend
// has finished with what anybody sent earlier and gave up waiting for, as far as it
// tells (Server.Busy).
package replay

import (
	"context"
	"errors"
	"time"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// Session is this process's part in the state that all processes share.
type Session interface {
	// View is the view in force.
	View() *serving.View
	// Changed is closed when a newer view is in force.
	Changed() <-chan struct{}
	// Change changes the shared state by compare-and-set; change may be called
	// several times. It returns the view in force then.
	Change(ctx context.Context, change func(*serving.View) (serving.State, error)) (*serving.View, error)
	// AwaitSends waits until nobody sends to a backend, or adds to its hints, by a
	// mode of a revision older than this one.
	AwaitSends(ctx context.Context, revision uint64) error
	// BeginSend is asked before something is sent to a backend; end says that it is
	// over.
	BeginSend(backendURL string) (mode serving.Mode, end func(), err error)
}

// Streams keep the hints of all backends. See package bus for what each promises.
type Streams interface {
	Open(ctx context.Context, backendURL string, maxBytes int64) (Hints, error)
	List(ctx context.Context) ([]bus.HintsState, error)
	Remove(ctx context.Context, backendURL string) error
}

// Hints are those of one backend: bus.Hints.
type Hints interface {
	Append(ctx context.Context, parts [][]byte) error
	State(ctx context.Context) (bus.HintsState, error)
	Read(ctx context.Context, after uint64, limit int) ([]bus.Record, error)
	DeleteThrough(ctx context.Context, sequence uint64) error
}

// Leases say which process looks after a backend.
type Leases interface {
	// Acquire takes a lease or returns an error that matches bus.ErrHeld.
	Acquire(ctx context.Context, key string, value []byte) (Lease, error)
	TTL() time.Duration
}

// Lease is one that is held: bus.Lease.
type Lease interface {
	Held() bool
	Expires() time.Time
	Renew(ctx context.Context) error
	Release(ctx context.Context) error
}

// Letters are the dead letters: ledger.Ledger.
type Letters interface {
	// Refuse keeps points that a backend refuses for good. The same id again stores
	// nothing twice.
	Refuse(ctx context.Context, id string, p events.PointsRefuse) error
}

// Restorer makes a database with its retention policies, as other backends have
// them, on a backend that lacks it, or the policy that is named. ErrNowhere: no
// backend has it.
type Restorer interface {
	Restore(ctx context.Context, backendURL, database, policy string) error
}

// ErrNowhere says that no backend has what one lacks.
var ErrNowhere = errors.New("no backend has it")

// Server is one backend as a Keeper uses it.
type Server interface {
	// Write stores lines; a refusal is an *influx.Error.
	Write(ctx context.Context, db, rp string, lines []byte) error
	// Probe returns nil when a point that was written has been stored.
	Probe(ctx context.Context) error
	// Busy is how many writes the server is carrying out, whoever sent them, and
	// whether or not he still waits. An error means that it does not tell.
	Busy(ctx context.Context) (int, error)
	// Lacking returns those lines whose points the server does not have, with any
	// value, or has no field of.
	Lacking(ctx context.Context, db, rp string, lines []byte) ([]byte, error)
	Close()
}

// Dialer makes the client of a backend. guard is asked immediately before anything
// is put on the wire of a write; after an error nothing more is.
type Dialer func(b *topology.Backend, guard func() error) (Server, error)

// partSize is how large a part of a frame is at most.
const partSize = bus.MaxHintPart

// onBus is the streams of a bus.
type onBus struct{ bus *bus.Bus }

// OnBus returns the streams of hints in NATS.
func OnBus(b *bus.Bus) Streams { return onBus{b} }

func (o onBus) Open(ctx context.Context, backendURL string, maxBytes int64) (Hints, error) {
	return o.bus.Hints(ctx, backendURL, maxBytes)
}

func (o onBus) List(ctx context.Context) ([]bus.HintsState, error) { return o.bus.ListHints(ctx) }

func (o onBus) Remove(ctx context.Context, backendURL string) error {
	return o.bus.RemoveHints(ctx, backendURL)
}

// leasesOnBus is the leases of a bus.
type leasesOnBus struct{ leases *bus.Leases }

// LeasesOnBus returns the leases in NATS.
func LeasesOnBus(l *bus.Leases) Leases { return leasesOnBus{l} }

func (l leasesOnBus) Acquire(ctx context.Context, key string, value []byte) (Lease, error) {
	return l.leases.Acquire(ctx, key, value)
}

func (l leasesOnBus) TTL() time.Duration { return l.leases.TTL() }
