package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// Defaults of Retention.
const (
	// DefaultHistoryAge is for how long operations are kept after their end.
	DefaultHistoryAge = 90 * 24 * time.Hour
	// DefaultHistoryBytes is how many bytes all records, tasks, plans and reports may
	// take together.
	DefaultHistoryBytes = 3 << 30

	retentionEvery = time.Minute
	// retentionScan is how often the age of what has ended is looked at.
	retentionScan = 5 * time.Minute
	// retentionGrace is for how long an operation is kept after its end whatever its
	// size: whoever waited for it reads its report.
	retentionGrace = time.Minute
	// retentionBatch bounds how many operations one round removes.
	retentionBatch = 500
)

// Retention keeps the history of operations within its bounds: it removes what ended
// longer ago than MaxAge, and what ended first while everything together takes more
// than MaxBytes or the plan store fills up. An operation that has not ended, that has
// not been closed yet or that a retry has queued again is never touched: the step that
// decides is a compare-and-set on its record. A removal that is cut off is finished by
// the next round, and until then nobody sees the operation any more.
//
// Any number of processes may run it; one at a time works. Required are Ledger and
// Leases; zero values of the others mean the defaults in parentheses.
type Retention struct {
	Ledger *ledger.Ledger
	Leases *bus.Leases
	// ID names this process as the holder of the lease.
	ID string
	// MaxAge (90 days) and MaxBytes (3 GiB) are the bounds.
	MaxAge   time.Duration
	MaxBytes int64
	// Every is how often the bytes are looked at (1 minute); ages are looked at every
	// five minutes, and at the start.
	Every time.Duration
	// Grace is for how long what has ended is kept whatever its size (1 minute).
	Grace  time.Duration
	Logger *slog.Logger
	Now    func() time.Time

	scanned time.Time
	removed atomic.Int64
	usage   atomic.Pointer[ledger.Usage]
}

// Removed is how many operations this process has removed since it started.
func (r *Retention) Removed() int64 { return r.removed.Load() }

// Usage is what the history took when it was last measured; false before that.
func (r *Retention) Usage() (ledger.Usage, bool) {
	u := r.usage.Load()
	if u == nil {
		return ledger.Usage{}, false
	}
	return *u, true
}

func (r *Retention) defaults() {
	r.MaxAge = cmp.Or(r.MaxAge, DefaultHistoryAge)
	r.MaxBytes = cmp.Or(r.MaxBytes, DefaultHistoryBytes)
	r.Every = cmp.Or(r.Every, retentionEvery)
	r.Grace = cmp.Or(r.Grace, retentionGrace)
	if r.Logger == nil {
		r.Logger = slog.New(slog.DiscardHandler)
	}
	if r.Now == nil {
		r.Now = time.Now
	}
}

// Run keeps the history within its bounds until ctx ends.
func (r *Retention) Run(ctx context.Context) error {
	r.defaults()
	ticker := time.NewTicker(r.Every)
	defer ticker.Stop()
	for {
		if err := r.Round(ctx); err != nil && ctx.Err() == nil {
			r.Logger.WarnContext(ctx, "removing old operations; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Round does once what Run does again and again; it does nothing while another process
// is at it.
func (r *Retention) Round(ctx context.Context) error {
	r.defaults()
	return alone(ctx, r.Leases, ledger.RetentionLease, r.ID, r.round)
}

// alone calls f under a lease, which f renews as it goes; it calls nothing while
// another process has the lease.
func alone(ctx context.Context, leases *bus.Leases, key, id string, f func(ctx context.Context, renew func() error) error) error {
	lease, err := leases.Acquire(ctx, key, []byte(id))
	if errors.Is(err, bus.ErrHeld) {
		return nil
	}
	if err != nil {
		return err
	}
	renewed := time.Now()
	err = f(ctx, func() error {
		if time.Since(renewed) < leases.TTL()/3 {
			return nil
		}
		renewed = time.Now()
		return lease.Renew(ctx)
	})
	done, cancel := context.WithTimeout(context.WithoutCancel(ctx), leases.TTL())
	defer cancel()
	return errors.Join(err, lease.Release(done))
}

func (r *Retention) round(ctx context.Context, renew func() error) error {
	usage, err := r.measure(ctx)
	if err != nil {
		return err
	}
	over := r.over(usage)
	now := r.Now()
	if over == "" && !r.scanned.IsZero() && now.Sub(r.scanned) < retentionScan && !now.Before(r.scanned) {
		return nil
	}
	ended, err := r.ended(ctx)
	if err != nil {
		return err
	}
	// Read once, after that: an operation that has ended gets no more documents.
	documents, err := r.Ledger.Documents(ctx)
	if err != nil {
		return err
	}
	if err := r.finish(ctx, documents, renew); err != nil {
		return err
	}
	removed := 0
	for _, v := range ended {
		reason := r.over(usage)
		switch end := endOf(&v.Value); {
		case now.Sub(end) > r.MaxAge:
			reason = "it ended more than " + r.MaxAge.String() + " ago"
		case reason == "" || now.Sub(end) < r.Grace:
			// All that follow have ended later.
			r.scanned = now
			if reason != "" {
				r.Logger.WarnContext(ctx, "the history is over its bound, and what is left in it has not ended or has just ended", "reason", reason)
			}
			return nil
		}
		if removed == retentionBatch {
			return nil // the next round goes on at once with its scan
		}
		if err := renew(); err != nil {
			return err
		}
		gone, err := r.remove(ctx, v, reason, documents)
		if err != nil {
			return err
		}
		if gone {
			removed++
		}
		if usage, err = r.measure(ctx); err != nil {
			return err
		}
	}
	r.scanned = now
	return nil
}

// measure reads what the history takes.
func (r *Retention) measure(ctx context.Context) (ledger.Usage, error) {
	usage, err := r.Ledger.Usage(ctx)
	if err == nil {
		r.usage.Store(&usage)
	}
	return usage, err
}

// over says which bound the history is beyond; empty when it is beyond none. Of the
// plan store a quarter is kept free for what has not ended.
func (r *Retention) over(u ledger.Usage) string {
	switch {
	case u.Total() > uint64(r.MaxBytes):
		return fmt.Sprintf("the history takes more than %d bytes", r.MaxBytes)
	case u.DocumentsBound > 0 && u.Documents > u.DocumentsBound/4*3:
		return fmt.Sprintf("plans and reports take more than three quarters of the %d bytes there are for them", u.DocumentsBound)
	}
	return ""
}

// finish removes what earlier rounds that were cut off have left.
func (r *Retention) finish(ctx context.Context, documents map[string][]ledger.StoredDocument, renew func() error) error {
	buried, err := r.Ledger.BuriedOperations(ctx)
	if err != nil {
		return err
	}
	for _, b := range buried {
		if err := renew(); err != nil {
			return err
		}
		if err := r.Ledger.Clear(ctx, b, names(documents[b.ID])); err != nil {
			return err
		}
		r.Logger.InfoContext(ctx, "the removal of an operation was finished", "operation", b.ID)
	}
	return nil
}

// ended returns the operations that may be removed, those that ended first first.
func (r *Retention) ended(ctx context.Context) ([]ledger.Versioned[operation.Operation], error) {
	var all []ledger.Versioned[operation.Operation]
	err := r.Ledger.Operations(ctx, func(op operation.Operation, revision uint64) error {
		if op.State.Terminal() {
			// Only what is needed to remove it: there may be many.
			all = append(all, ledger.Versioned[operation.Operation]{Revision: revision, Value: operation.Operation{
				ID: op.ID, Kind: op.Kind, State: op.State, CreatedAt: op.CreatedAt, FinishedAt: op.FinishedAt, IdempotencyKey: op.IdempotencyKey,
			}})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	// After the records: whoever drives one that has just ended still needs it.
	open, err := r.Ledger.OpenOperations(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(v ledger.Versioned[operation.Operation]) bool { return slices.Contains(open, v.Value.ID) })
	slices.SortFunc(all, func(a, b ledger.Versioned[operation.Operation]) int {
		return cmp.Or(endOf(&a.Value).Compare(endOf(&b.Value)), cmp.Compare(a.Value.ID, b.Value.ID))
	})
	return all, nil
}

// endOf is when an operation ended.
func endOf(op *operation.Operation) time.Time {
	if op.FinishedAt != nil {
		return *op.FinishedAt
	}
	return op.CreatedAt
}

// remove removes one operation, unless somebody has just begun it again.
func (r *Retention) remove(ctx context.Context, v ledger.Versioned[operation.Operation], reason string, documents map[string][]ledger.StoredDocument) (bool, error) {
	buried, err := r.Ledger.Bury(ctx, v, reason)
	if errors.Is(err, ledger.ErrConflict) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := r.Ledger.Clear(ctx, buried, names(documents[v.Value.ID])); err != nil {
		return false, err
	}
	r.removed.Add(1)
	r.Logger.InfoContext(ctx, "operation removed from the history", "operation", v.Value.ID, "state", v.Value.State, "ended", endOf(&v.Value), "reason", reason)
	return true, nil
}

func names(documents []ledger.StoredDocument) []string {
	all := make([]string, len(documents))
	for i := range documents {
		all[i] = documents[i].Name
	}
	return all
}
