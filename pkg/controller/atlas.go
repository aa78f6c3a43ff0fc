package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"ringmaster/pkg/ledger"
	"ringmaster/pkg/topology"
)

// Atlas keeps the topology this process works with, as the shared record has
// it, and the flags that operators have set by hand.
type Atlas struct {
	ledger *ledger.Ledger
	logger *slog.Logger

	mu      sync.RWMutex
	current *topology.Topology
}

// errNoTopology: the shared record is gone. What was last known goes on to be
// shown, and no operation is started or carried on by it.
var errNoTopology = errors.New("the topology record is gone")

// refreshEvery is how often the shared records are read.
const refreshEvery = time.Second

// OpenAtlas applies the topology of a configuration to the shared record, by the
// rules of topology.Decide, and returns the atlas of what holds now. Passwords
// leave this function sealed only.
func OpenAtlas(ctx context.Context, l *ledger.Ledger, s topology.Sealer, configured *topology.Topology, accept bool, logger *slog.Logger, now func() time.Time) (*Atlas, error) {
	a := &Atlas{ledger: l, logger: logger}
	for {
		was, err := l.Topology(ctx)
		if err != nil {
			return nil, err
		}
		current := was.Value.Current
		if current != nil {
			if current, err = current.Open(s, ledger.SealContext); err != nil {
				return nil, fmt.Errorf("opening the stored topology: %w", err)
			}
		}
		decision, next := topology.Decide(current, was.Value.Earlier, configured, accept, now())
		switch decision {
		case topology.Stale:
			logger.WarnContext(ctx, "the configuration is that of an earlier epoch and was not applied; -accept-config applies it",
				"epoch", current.Epoch, "configuration", configured.Source)
		case topology.Adopt, topology.Revise:
			sealed, err := next.Seal(s, ledger.SealContext)
			if err != nil {
				return nil, fmt.Errorf("sealing the topology: %w", err)
			}
			err = l.StoreTopology(ctx, was, sealed)
			if errors.Is(err, ledger.ErrConflict) {
				continue // another process was first; decide again
			}
			if err != nil {
				return nil, err
			}
			logger.InfoContext(ctx, "topology stored", "decision", decision.String(), "epoch", next.Epoch)
		case topology.Keep:
		}
		return a, a.refresh(ctx)
	}
}

// Run keeps the atlas up to date until ctx ends.
func (a *Atlas) Run(ctx context.Context) error {
	ticker := time.NewTicker(refreshEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := a.refresh(ctx); err != nil && ctx.Err() == nil {
			a.logger.WarnContext(ctx, "reading the topology", "error", err)
		}
	}
}

func (a *Atlas) refresh(ctx context.Context) error {
	epochs, err := a.ledger.Topology(ctx)
	if err != nil {
		return err
	}
	current := epochs.Value.Current
	if current == nil {
		return errNoTopology
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.current != nil && a.current.Epoch != current.Epoch {
		a.logger.InfoContext(ctx, "another process has changed the topology", "epoch", current.Epoch)
	}
	a.current = current
	return nil
}

// Current returns the topology, credentials sealed. It must not be changed.
func (a *Atlas) Current() *topology.Topology {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.current
}

// Flags returns the circles that operators have flagged as migrating by hand,
// and whether they have flagged the cluster as resyncing.
func (a *Atlas) Flags(ctx context.Context) (migrating []int, resyncing bool, err error) {
	v, err := a.ledger.Flags(ctx)
	return v.Value.Migrating, v.Value.Resyncing, err
}

// SetMigrating sets or releases a circle's flag, for all processes.
func (a *Atlas) SetMigrating(ctx context.Context, circle int, on bool) error {
	return a.ledger.ChangeFlags(ctx, func(f *ledger.Flags) {
		f.Migrating = slices.DeleteFunc(f.Migrating, func(c int) bool { return c == circle })
		if on {
			f.Migrating = append(f.Migrating, circle)
		}
	})
}

// SetResyncing sets or releases the cluster's flag, for all processes.
func (a *Atlas) SetResyncing(ctx context.Context, on bool) error {
	return a.ledger.ChangeFlags(ctx, func(f *ledger.Flags) { f.Resyncing = on })
}
