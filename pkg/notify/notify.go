// Package notify tells a webhook of operations that stall or fail. What there is to be
// told is read from records, so that a crash loses nothing, and what has come of it is
// stored there, so that nothing is sent for ever: at least once, and a bounded number
// of times. Nobody waits for it.
package notify

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
)

// Outbox has the notices; see ledger.Ledger.
type Outbox interface {
	Notices(ctx context.Context) ([]ledger.KeptNotice, error)
	UpdateNotice(ctx context.Context, was ledger.KeptNotice, n ledger.Notice) error
	WatchNotices(ctx context.Context) (<-chan bus.Entry, error)
}

// Options configure a Sender. Zero values mean the defaults in parentheses.
type Options struct {
	// URL is where notices are sent to. It is never logged.
	URL string
	// UserAgent is how the sender presents itself ("ringmaster").
	UserAgent string
	// ID names this process as the one that sends.
	ID string
	// Timeout bounds one try (10 s).
	Timeout time.Duration
	// Tries is how often a notice is sent before it is given up (12).
	Tries int
	// Backoff is the pause after the first try (1 s); it doubles up to MaxBackoff
	// (10 minutes).
	Backoff, MaxBackoff time.Duration
	// Poll is how often notices are looked for, whatever was watched (2 s).
	Poll   time.Duration
	Logger *slog.Logger
	Now    func() time.Time
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.Timeout, 10*time.Second)
	def(&o.Backoff, time.Second)
	def(&o.MaxBackoff, 10*time.Minute)
	def(&o.Poll, 2*time.Second)
	if o.Tries == 0 {
		o.Tries = 12
	}
	if o.UserAgent == "" {
		o.UserAgent = "ringmaster"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Counts are what a process's sender has done.
type Counts struct {
	// Delivered notices were taken, Failed is how many tries came to nothing, and
	// GivenUp how many notices were given up for that.
	Delivered, Failed, GivenUp int64
}

// Sender is the service. Create it with New and let Run own it. Of several processes
// one sends at a time.
type Sender struct {
	outbox  Outbox
	leases  *bus.Leases
	options Options
	client  *http.Client

	delivered, failed, givenUp atomic.Int64
}

// New returns a sender that has not started.
func New(outbox Outbox, leases *bus.Leases, o Options) *Sender {
	o = o.withDefaults()
	return &Sender{outbox: outbox, leases: leases, options: o, client: newClient(o.Timeout)}
}

// Counts returns what this process has done so far.
func (s *Sender) Counts() Counts {
	return Counts{Delivered: s.delivered.Load(), Failed: s.failed.Load(), GivenUp: s.givenUp.Load()}
}

// Run sends notices until ctx ends.
func (s *Sender) Run(ctx context.Context) error {
	defer s.client.CloseIdleConnections()
	for ctx.Err() == nil {
		lease, err := s.leases.Acquire(ctx, ledger.WebhookLease(), []byte(s.options.ID))
		if err == nil {
			_ = lease.While(ctx, func(ctx context.Context) error { s.sendAll(ctx); return ctx.Err() })
		} else if !errors.Is(err, bus.ErrHeld) && ctx.Err() == nil {
			s.options.Logger.WarnContext(ctx, "taking the lease of the webhook", "error", err)
		}
		rest(ctx, s.options.Poll, nil)
	}
	return nil
}

// sendAll sends what is due, again and again.
func (s *Sender) sendAll(ctx context.Context) {
	changes, err := s.outbox.WatchNotices(ctx)
	if err != nil && ctx.Err() == nil {
		s.options.Logger.WarnContext(ctx, "watching notices; polling goes on", "error", err)
	}
	for ctx.Err() == nil {
		if err := s.sendDue(ctx); err != nil && ctx.Err() == nil {
			s.options.Logger.WarnContext(ctx, "sending notices", "error", err)
		}
		if !rest(ctx, s.options.Poll, changes) {
			changes = nil
		}
	}
}

// rest waits for a time or a change; it returns false when there are no changes any
// more.
func rest(ctx context.Context, d time.Duration, changes <-chan bus.Entry) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case _, ok := <-changes:
		return ok
	}
	return true
}

// sendDue sends the notices that are due, those of one operation in their order: one
// that is to be tried again later holds the others up.
func (s *Sender) sendDue(ctx context.Context) error {
	all, err := s.outbox.Notices(ctx)
	if err != nil {
		return err
	}
	held := map[string]bool{}
	for _, n := range all {
		if held[n.Value.OperationID] || ctx.Err() != nil {
			continue
		}
		held[n.Value.OperationID] = true
		if n.Value.Next.After(s.options.Now()) {
			continue
		}
		settled, err := s.try(ctx, n)
		if err != nil {
			return err
		}
		held[n.Value.OperationID] = !settled
	}
	return nil
}

// try sends a notice once and stores what came of it.
func (s *Sender) try(ctx context.Context, was ledger.KeptNotice) (settled bool, err error) {
	n := was.Value
	n.Tries++
	sent := s.post(ctx, n)
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	log := s.options.Logger.With("operation", n.OperationID, "notice", n.ID, "tries", n.Tries)
	switch {
	case sent == nil:
		n.Settled, n.LastError = true, ""
		s.delivered.Add(1)
		log.InfoContext(ctx, "webhook told")
	case n.Tries >= s.options.Tries:
		n.Settled, n.LastError = true, sent.Error()
		s.failed.Add(1)
		s.givenUp.Add(1)
		log.ErrorContext(ctx, "webhook given up: it does not take the notice", "error", sent)
	default:
		n.LastError = sent.Error()
		n.Next = s.options.Now().UTC().Add(s.pause(n.Tries))
		s.failed.Add(1)
		log.WarnContext(ctx, "webhook not told yet", "error", sent, "again_at", n.Next)
	}
	err = s.outbox.UpdateNotice(ctx, was, n)
	if errors.Is(err, ledger.ErrConflict) {
		return n.Settled, nil // another process has sent it as well
	}
	return n.Settled, err
}

// pause is how long to wait after a number of tries.
func (s *Sender) pause(tries int) time.Duration {
	d := s.options.Backoff
	for range tries - 1 {
		if d = 2 * d; d >= s.options.MaxBackoff {
			return s.options.MaxBackoff
		}
	}
	return d
}
