package controller

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/pace"
)

// Grantor grants what limits admit, for all workers together, while it holds the
// lease of limits: of all processes that have one, one does. What it has granted is
// in its memory alone. When it ends, those who need a grant wait for the next one.
type Grantor struct {
	Server Server
	Leases *bus.Leases
	Book   *pace.Book
	// ID names this process as the holder of the lease.
	ID     string
	Logger *slog.Logger
	Now    func() time.Time
}

// Server answers questions; see bus.Bus.Serve.
type Server interface {
	Serve(ctx context.Context, subject string, answer func(question []byte) []byte) error
}

const (
	// grantorPause is how often the lease of limits is tried to get.
	grantorPause = time.Second
	// grantTimeout bounds the reading of limits that are not known yet: others wait
	// meanwhile.
	grantTimeout = 500 * time.Millisecond
)

// Run grants, or waits until it may, until ctx ends.
func (g *Grantor) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		lease, err := g.Leases.Acquire(ctx, ledger.LimitsLease, []byte(g.ID))
		if err == nil {
			err = g.grantUnder(ctx, lease)
		}
		if err != nil && !errors.Is(err, bus.ErrHeld) && ctx.Err() == nil {
			g.Logger.WarnContext(ctx, "granting limits; it is tried again", "error", err)
		}
		_ = pauseFor(ctx, grantorPause) // the loop sees that ctx has ended
	}
	return nil
}

// grantUnder grants for as long as the lease can be kept.
func (g *Grantor) grantUnder(ctx context.Context, lease *bus.Lease) error {
	g.Logger.InfoContext(ctx, "granting what limits admit")
	table := pace.NewTable(g.Now())
	return lease.While(ctx, func(ctx context.Context) error {
		return g.Server.Serve(ctx, events.SubjectGrants, func(question []byte) []byte {
			if !lease.Held() {
				return nil // perhaps another process grants by now
			}
			return g.answer(ctx, table, question)
		})
	})
}

// answer answers one question; nil when it cannot be answered now.
func (g *Grantor) answer(ctx context.Context, table *pace.Table, question []byte) []byte {
	var ask pace.Ask
	if err := json.Unmarshal(question, &ask); err != nil || ask.PassID == "" {
		g.Logger.WarnContext(ctx, "a question about limits that this release does not understand", "error", err)
		return nil
	}
	reading, done := context.WithTimeout(ctx, grantTimeout)
	defer done()
	by, err := g.Book.AppliedNow(reading, &ask.Work)
	if err != nil {
		if ctx.Err() == nil {
			g.Logger.WarnContext(ctx, "reading limits", "operation", ask.Work.OperationID, "error", err)
		}
		return nil
	}
	a := table.Ask(g.Now(), &ask, by)
	raw, err := json.Marshal(a)
	if err != nil {
		return nil
	}
	return raw
}
