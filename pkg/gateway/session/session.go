// Package session is a process's part in what all processes that serve traffic
// agree on. A session is a lease: while it lives, the process works by the latest
// revision of the shared record that it has read, and tells in the lease which
// older revisions it has left behind. Whoever changes the record waits for that
// before it relies on the change. A process that cannot renew its session refuses
// traffic, since nobody waits for it any more.
package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// ErrNotServing says that this process must not serve at this moment.
var ErrNotServing = errors.New("this process is not part of the cluster at this moment")

// errNoTopology: the shared record is gone. What was last known goes on to be
// shown, and nothing is started or served by it once the session has run out.
var errNoTopology = errors.New("the topology record is gone")

// Options configure a session.
type Options struct {
	// ID names the process.
	ID     string
	Ledger *ledger.Ledger
	Leases *bus.Leases
	// Sealer opens the credentials of backends.
	Sealer topology.Sealer
	Logger *slog.Logger
}

// Session is the service. Open it, and let Run own it.
type Session struct {
	options Options

	mu          sync.Mutex
	generations []*generation // oldest first; the last is in force
	changed     chan struct{}
	lease       *bus.Lease
	// unread is set from when a session is opened until the record has been read
	// under it: what was in force before may be many steps old.
	unread  bool
	tenure  *Tenure  // of the lease
	told    presence // what the lease says
	trouble error
	// excluding are the statements that this process has at work.
	excluding map[string]bool
	// turned is signalled when an older generation has been left behind.
	turned chan struct{}
	// storing keeps the changes of this process from racing with one another.
	storing sync.Mutex
	notes   noter
}

// generation counts what was begun under one view and has not ended.
type generation struct {
	view          *serving.View
	writes, reads int
	sends         map[string]int // by backend
}

// presence is what a session tells the others. An older revision than the one
// named is left behind: nothing that was begun under it goes on.
type presence struct {
	ID     string `json:"id"`
	Epoch  uint64 `json:"epoch"`
	Sends  uint64 `json:"sends"`
	Writes uint64 `json:"writes"`
	Reads  uint64 `json:"reads"`
}

// refreshEvery is how often the shared record is read, whatever was watched.
const refreshEvery = time.Second

// Open takes the lease, reads the shared record, which must be there, and returns
// the session of this process.
func Open(ctx context.Context, o Options) (*Session, error) {
	s := &Session{options: o, changed: make(chan struct{}), turned: make(chan struct{}, 1), excluding: map[string]bool{}}
	s.notes.store = o.Ledger.AddNotes
	// The lease comes first: whoever changes the record after it was read waits
	// for this process.
	if err := s.acquire(ctx); err != nil {
		return nil, err
	}
	if err := s.refresh(ctx); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	return s, s.renew(ctx)
}

// Close gives the session up, so that nobody waits for it.
func (s *Session) Close(ctx context.Context) error {
	s.mu.Lock()
	lease := s.lease
	s.lease = nil
	s.mu.Unlock()
	if lease == nil {
		return nil
	}
	return lease.Release(ctx)
}

// Run keeps the session until ctx ends.
func (s *Session) Run(ctx context.Context) error {
	ticker := time.NewTicker(min(refreshEvery, s.options.Leases.TTL()/4))
	defer ticker.Stop()
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	var changes <-chan bus.Entry
	for {
		if changes == nil {
			changes, _ = s.options.Ledger.WatchTopology(watching) // a hint; the ticker remains
		}
		select {
		case <-ctx.Done():
			return s.leave(ctx)
		case _, ok := <-changes:
			if !ok {
				changes = nil
				if !pause(ctx, ticker.C) {
					return s.leave(ctx)
				}
			}
		case <-s.turned:
			if err := s.tell(ctx); err != nil && ctx.Err() == nil {
				s.options.Logger.WarnContext(ctx, "telling what has been left behind", "error", err)
			}
			continue
		case <-ticker.C:
		}
		err := s.keep(ctx)
		if err != nil && ctx.Err() == nil {
			s.options.Logger.WarnContext(ctx, "keeping the session", "error", err)
		}
		s.mu.Lock()
		s.trouble = err
		s.mu.Unlock()
	}
}

// pause waits for the next tick; false when ctx has ended.
func pause(ctx context.Context, tick <-chan time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case <-tick:
		return true
	}
}

// leave gives the session up at the end.
func (s *Session) leave(ctx context.Context) error {
	done, cancel := context.WithTimeout(context.WithoutCancel(ctx), refreshEvery)
	defer cancel()
	_ = s.Close(done) // it runs out by itself
	return nil
}

// keep reads the record and then renews the session. A process that cannot read
// does not renew: it would be waited for, and never come.
func (s *Session) keep(ctx context.Context) error {
	// Cut off in the middle, it would leave a lease that nobody gives back.
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.options.Leases.TTL())
	defer cancel()
	if s.held() == nil {
		if err := s.acquire(call); err != nil {
			return err
		}
	}
	if err := s.refresh(call); err != nil {
		return err
	}
	if err := s.renew(call); err != nil || !s.leftStatements() {
		return err
	}
	return s.forgetStatements(call)
}

// tell renews the session if there is something new to tell.
func (s *Session) tell(ctx context.Context) error {
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.options.Leases.TTL())
	defer cancel()
	return s.renew(call)
}

// held is the lease while it is surely this process's.
func (s *Session) held() *bus.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease
}

func (s *Session) acquire(ctx context.Context) error {
	now := s.presence()
	raw, err := json.Marshal(now)
	if err != nil {
		return err
	}
	lease, err := s.options.Leases.Acquire(ctx, ledger.ProcessLease(s.options.ID), raw)
	if err != nil {
		return fmt.Errorf("opening a session: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lease, s.told, s.unread = lease, now, true
	s.tenure = &Tenure{session: s, lease: lease}
	return nil
}

// renew keeps the lease, and tells in it what has been left behind.
func (s *Session) renew(ctx context.Context) error {
	lease, now := s.held(), s.presence()
	if lease == nil || now == s.lastTold() && time.Until(lease.Expires()) > s.options.Leases.TTL()*3/4 {
		return nil
	}
	raw, err := json.Marshal(now)
	if err != nil {
		return err
	}
	err = lease.RenewWith(ctx, raw)
	if errors.Is(err, bus.ErrLeaseLost) {
		s.mu.Lock()
		s.lease = nil
		s.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("renewing the session: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = now
	return nil
}

func (s *Session) lastTold() presence {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told
}

// refresh reads the record and puts it in force if it is another one.
func (s *Session) refresh(ctx context.Context) error {
	was, err := s.options.Ledger.Topology(ctx)
	if err != nil {
		return err
	}
	if was.Value.Current == nil {
		return errNoTopology
	}
	if err := s.install(was); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unread = false
	return nil
}

// install puts a revision in force, unless it or a later one is already.
func (s *Session) install(v ledger.Versioned[ledger.Epochs]) error {
	if now := s.View(); now != nil && now.Revision >= v.Revision {
		return nil
	}
	view, err := s.open(v)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.generations); n > 0 && s.generations[n-1].view.Revision >= view.Revision {
		return nil
	}
	s.generations = append(s.generations, &generation{view: view, sends: map[string]int{}})
	s.forget()
	close(s.changed)
	s.changed = make(chan struct{})
	s.signal()
	return nil
}

// signal has Run tell what this process has left behind.
func (s *Session) signal() {
	select {
	case s.turned <- struct{}{}:
	default:
	}
}

// open builds the view of a record, with the credentials in clear.
func (s *Session) open(v ledger.Versioned[ledger.Epochs]) (*serving.View, error) {
	t, err := v.Value.Current.Open(s.options.Sealer, ledger.SealContext)
	if err != nil {
		return nil, fmt.Errorf("opening the stored topology: %w", err)
	}
	state, err := v.Value.Serving.Opened(s.options.Sealer, ledger.SealContext)
	if err != nil {
		return nil, fmt.Errorf("opening the stored topology: %w", err)
	}
	return serving.NewView(v.Revision, t, state)
}

// forget drops the generations that nothing belongs to any more; mu is held.
func (s *Session) forget() {
	last := len(s.generations) - 1
	kept := s.generations[:0]
	for i, g := range s.generations {
		if i == last || g.writes > 0 || g.reads > 0 || len(g.sends) > 0 {
			kept = append(kept, g)
		}
	}
	clear(s.generations[len(kept):])
	s.generations = kept
}

// presence is what this process can say of itself now.
func (s *Session) presence() presence {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := presence{ID: s.options.ID}
	if len(s.generations) == 0 {
		return p
	}
	now := s.generations[len(s.generations)-1].view
	p.Epoch = now.Topology.Epoch
	passed := func(goesOn func(*generation) bool) uint64 {
		for _, g := range s.generations {
			if g.view != now && goesOn(g) {
				return g.view.Revision
			}
		}
		return now.Revision
	}
	p.Writes = passed(func(g *generation) bool { return g.writes > 0 })
	p.Reads = passed(func(g *generation) bool { return g.reads > 0 })
	p.Sends = passed(func(g *generation) bool {
		for backend := range g.sends {
			// A send goes on as it may while its backend is in the same mode.
			if g.view.Mode(backend) != now.Mode(backend) {
				return true
			}
		}
		return false
	})
	return p
}

// View returns the view in force.
func (s *Session) View() *serving.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.generations) == 0 {
		return nil
	}
	return s.generations[len(s.generations)-1].view
}

// Current returns the topology in force. It must not be changed.
func (s *Session) Current() *topology.Topology {
	if v := s.View(); v != nil {
		return v.Topology
	}
	return nil
}

// Changed returns a channel that is closed when a newer view is in force.
func (s *Session) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Serving returns nil when this process may serve, else ErrNotServing with the
// reason.
func (s *Session) Serving() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.serving()
}

func (s *Session) serving() error {
	if s.lease != nil && s.lease.Held() && !s.unread {
		return nil
	}
	if s.trouble != nil {
		return fmt.Errorf("%w: its session has run out (%w); it serves again as soon as it has renewed it", ErrNotServing, s.trouble)
	}
	return fmt.Errorf("%w: its session has run out; it serves again as soon as it has renewed it", ErrNotServing)
}
