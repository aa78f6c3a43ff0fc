package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// Defaults of Options.
const (
	// DefaultWriteTimeout is how long a backend may take over one batch: twice as
	// long as InfluxDB takes before it gives up a write by itself.
	DefaultWriteTimeout = 20 * time.Second
	// DefaultProbeEvery is how often a backend is probed that does not store.
	DefaultProbeEvery = time.Second
	// DefaultSettle is how long it is waited between finding that a backend
	// carries out no write and finding it once more.
	DefaultSettle = 500 * time.Millisecond
	// DefaultSettleLimit bounds how long a backend is waited for that is always
	// carrying out some write, or does not tell. InfluxDB itself answers within 10 s.
	DefaultSettleLimit = 15 * time.Second
	// DefaultBatch is how many bytes of line protocol are sent at a time.
	DefaultBatch = 4 << 20
)

// Options configure a Keeper. Session, Store, Leases, Letters and Dial are required.
type Options struct {
	Session Session
	Store   *Store
	Leases  Leases
	Letters Letters
	Dial    Dialer
	// Restorer is nil when lost databases are not made again: the replay then waits
	// until somebody has made them.
	Restorer Restorer
	// Probe returns nil when a backend stores what is written to it; nil means
	// Server.Probe.
	Probe func(ctx context.Context, backendURL string) error
	// ID names the process in its leases.
	ID string
	// Batch, WriteTimeout, ProbeEvery, Settle, SettleLimit: 0 means the default.
	Batch                                         int
	WriteTimeout, ProbeEvery, Settle, SettleLimit time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Logger is told of every change; nil drops it.
	Logger *slog.Logger
}

// Keeper takes backends that fail through their modes. Several processes have one
// each; for each backend one of them is at work.
type Keeper struct {
	options Options

	mu       sync.Mutex
	standing map[string]*Standing
	counts   Counts
	woken    chan struct{}
}

// Standing is what a Keeper is doing about a backend.
type Standing struct {
	Backend string
	Mode    serving.Mode
	// Here is whether this process looks after the backend; otherwise another does.
	Here bool
	// Doing says what is being done or waited for, Trouble what the last failure
	// was, both for a person.
	Doing, Trouble string
	Since          time.Time
	// Counts are those since this process took over.
	Counts Counts
}

// Counts are points of hints: stored, put among the dead letters, and dropped since no
// circle wants them.
type Counts struct{ Replayed, Refused, Obsolete int64 }

// Counts returns those of this process since it started.
func (k *Keeper) Counts() Counts {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.counts
}

// count adds to the counts of a backend and of the process.
func (k *Keeper) count(backendURL string, more Counts) {
	add := func(c *Counts) {
		c.Replayed += more.Replayed
		c.Refused += more.Refused
		c.Obsolete += more.Obsolete
	}
	k.note(backendURL, func(s *Standing) {
		add(&s.Counts)
		add(&k.counts)
	})
}

// NewKeeper returns a keeper.
func NewKeeper(o Options) *Keeper {
	o.Batch = cmp.Or(o.Batch, DefaultBatch)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, DefaultWriteTimeout)
	o.ProbeEvery = cmp.Or(o.ProbeEvery, DefaultProbeEvery)
	o.Settle = cmp.Or(o.Settle, DefaultSettle)
	o.SettleLimit = cmp.Or(o.SettleLimit, DefaultSettleLimit)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Keeper{options: o, standing: map[string]*Standing{}, woken: make(chan struct{}, 1)}
}

// Suspect tells that a backend can't be written to: from here on nobody sends to it
// before its hints have been replayed. It returns when that is so for this process;
// what is to be written then waits for the hints to take over, or goes there. To
// tell it again, or of a backend that is not in direct mode, changes nothing.
func (k *Keeper) Suspect(ctx context.Context, backendURL, reason string) error {
	changed := false
	_, err := k.options.Session.Change(ctx, func(v *serving.View) (serving.State, error) {
		changed = v.State.ModeOf(backendURL) == serving.Direct
		if !changed {
			return v.State, nil
		}
		return v.State.WithMode(backendURL, serving.Direct, serving.Suspect, reason, k.options.Now())
	})
	if err != nil {
		return fmt.Errorf("putting %s under suspicion: %w", backendURL, err)
	}
	if changed {
		k.options.Logger.WarnContext(ctx, "a backend can't be written to; its hints take over", "backend", backendURL, "reason", reason)
	}
	k.wake()
	return nil
}

func (k *Keeper) wake() {
	select {
	case k.woken <- struct{}{}:
	default:
	}
}

// Standings returns what is being done about each backend that is not in direct
// mode, by URL.
func (k *Keeper) Standings() []Standing {
	view := k.options.Session.View()
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]Standing, 0, len(k.standing))
	for _, s := range k.standing {
		one := *s
		if view != nil {
			one.Mode = view.Mode(one.Backend)
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Standing) int { return strings.Compare(a.Backend, b.Backend) })
	return all
}

// note changes the standing of a backend.
func (k *Keeper) note(backendURL string, change func(*Standing)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.standing[backendURL]
	if s == nil {
		s = &Standing{Backend: backendURL, Since: k.options.Now()}
		k.standing[backendURL] = s
	}
	change(s)
}

func (k *Keeper) doing(backendURL, what string) {
	k.note(backendURL, func(s *Standing) { s.Doing = what })
}

func (k *Keeper) trouble(backendURL string, err error) {
	k.note(backendURL, func(s *Standing) { s.Trouble = err.Error() })
}

// look is how often it is looked for backends that need somebody, whatever has been
// noticed; sweep is how often for hints of backends that are gone.
const (
	look  = 2 * time.Second
	sweep = 30 * time.Second
)

// Run looks after backends until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	var attendants sync.WaitGroup
	defer attendants.Wait()
	var mu sync.Mutex
	busy := map[string]bool{}
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	var swept time.Time
	for {
		changed := k.options.Session.Changed()
		needy := k.needy()
		if now := k.options.Now(); now.Sub(swept) >= sweep {
			swept = now
			orphans, err := k.orphans(ctx)
			if err != nil && ctx.Err() == nil {
				k.options.Logger.WarnContext(ctx, "looking for hints of backends that are gone", "error", err)
			}
			needy = append(needy, orphans...)
		}
		for _, url := range needy {
			mu.Lock()
			if !busy[url] {
				busy[url] = true
				attendants.Go(func() {
					k.attend(ctx, url)
					mu.Lock()
					defer mu.Unlock()
					delete(busy, url)
				})
			}
			mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-k.woken:
		case <-ticker.C:
		}
	}
}

// needy are the backends that are not in direct mode.
func (k *Keeper) needy() (urls []string) {
	if v := k.options.Session.View(); v != nil {
		for _, b := range v.State.Backlogs {
			urls = append(urls, b.Backend)
		}
	}
	return urls
}

// orphans are backends that have hints and are in no view any more.
func (k *Keeper) orphans(ctx context.Context) (urls []string, err error) {
	list, err := k.options.Store.options.Streams.List(ctx)
	if err != nil {
		return nil, err
	}
	v := k.options.Session.View()
	if v == nil {
		return nil, nil
	}
	for _, state := range list {
		if backendOf(v, state.Backend) == nil {
			urls = append(urls, state.Backend)
		}
	}
	return urls, nil
}

// backendOf returns the backend with this URL, nil if it is in no circle.
func backendOf(v *serving.View, url string) *topology.Backend {
	all := v.Backends()
	if i := slices.IndexFunc(all, func(b topology.Backend) bool { return b.URL == url }); i >= 0 {
		return &all[i]
	}
	return nil
}

// attend takes one backend through its modes for as long as it needs that and this
// process may.
func (k *Keeper) attend(ctx context.Context, url string) {
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.standing, url)
	}()
	for ctx.Err() == nil {
		err := k.hold(ctx, url)
		switch {
		case err == nil:
			return
		case errors.Is(err, bus.ErrHeld):
			k.note(url, func(s *Standing) { s.Here, s.Doing = false, "another process looks after it" })
		case ctx.Err() == nil:
			k.trouble(url, err)
			k.options.Logger.WarnContext(ctx, "looking after a backend", "backend", url, "error", err)
		}
		if !k.needs(url) {
			return
		}
		wait(ctx, min(k.options.Leases.TTL()/3, look), k.options.Session.Changed())
	}
}

// needs reports whether a backend needs somebody, as far as this process knows.
func (k *Keeper) needs(url string) bool {
	v := k.options.Session.View()
	return v == nil || v.Mode(url) != serving.Direct
}

// wait returns after a time, or when woken, or when ctx ends.
func wait(ctx context.Context, d time.Duration, woken <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-woken:
	case <-ctx.Done():
	}
}

// errLeaseLost ends whatever was begun under a lease.
var errLeaseLost = errors.New("another process may look after the backend by now")

// hold takes the lease of a backend and does what it needs until it is in direct
// mode, or the lease is lost.
func (k *Keeper) hold(ctx context.Context, url string) (err error) {
	lease, err := k.options.Leases.Acquire(ctx, ledger.ReplayLease(url), []byte(k.options.ID))
	if err != nil {
		return err
	}
	held, lose := context.WithCancelCause(ctx)
	var heart sync.WaitGroup
	beating, rest := context.WithCancel(held)
	heart.Go(func() { beat(beating, lease, k.options.Leases.TTL(), lose) })
	defer func() {
		rest()
		heart.Wait()
		lose(nil)
		// What was cut off has ended by here: a successor may begin.
		giving, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.options.Leases.TTL())
		defer cancel()
		err = errors.Join(err, lease.Release(giving))
	}()
	k.note(url, func(s *Standing) { s.Here, s.Trouble = true, "" })
	a := &attendance{keeper: k, url: url, lease: lease}
	defer a.close()
	return a.run(held)
}

// beat renews a lease until ctx ends, and tells when it has run out.
func beat(ctx context.Context, lease Lease, ttl time.Duration, lose context.CancelCauseFunc) {
	for ctx.Err() == nil {
		left := time.Until(lease.Expires())
		if left <= 0 {
			lose(errLeaseLost)
			return
		}
		if early := left - ttl*2/3; early > 0 {
			wait(ctx, early, nil)
			continue
		}
		renewing, cancel := context.WithDeadline(ctx, lease.Expires())
		err := lease.Renew(renewing)
		cancel()
		if errors.Is(err, bus.ErrLeaseLost) {
			lose(errLeaseLost)
			return
		}
		if err != nil {
			wait(ctx, min(ttl/20, time.Until(lease.Expires())), nil)
		}
	}
}
