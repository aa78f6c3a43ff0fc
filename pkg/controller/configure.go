package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// Configuration is what a process's configuration says about the cluster, to be
// agreed on with the shared record.
type Configuration struct {
	Ledger *ledger.Ledger
	Sealer topology.Sealer
	// Accept applies a configuration that equals an earlier epoch.
	Accept bool
	Logger *slog.Logger
	Now    func() time.Time
}

// Apply applies the topology of a configuration to the shared record by the rules
// of topology.Decide, and opens a transition for every circle that it places
// differently. Passwords leave this function sealed only. It returns a
// *serving.OpenError, and changes nothing, when a circle is to change that is in a
// transition still.
func (c *Configuration) Apply(ctx context.Context, configured *topology.Topology) (topology.Decision, error) {
	for {
		was, err := c.Ledger.Topology(ctx)
		if err != nil {
			return topology.Keep, err
		}
		current := was.Value.Current
		state := was.Value.Serving
		if current != nil {
			if current, err = current.Open(c.Sealer, ledger.SealContext); err != nil {
				return topology.Keep, fmt.Errorf("opening the stored topology: %w", err)
			}
			if state, err = state.Opened(c.Sealer, ledger.SealContext); err != nil {
				return topology.Keep, fmt.Errorf("opening the stored topology: %w", err)
			}
		}
		decision, next := topology.Decide(current, was.Value.Earlier, configured, c.Accept, c.Now())
		switch decision {
		case topology.Stale:
			c.Logger.WarnContext(ctx, "the configuration is that of an earlier epoch and was not applied; -accept-config applies it",
				"epoch", current.Epoch, "configuration", configured.Source)
			return decision, nil
		case topology.Keep:
			return decision, nil
		case topology.Revise, topology.Adopt:
		}
		if decision == topology.Adopt && current != nil {
			if state, err = state.Changed(current, next, c.Now()); err != nil {
				return topology.Keep, err
			}
		}
		err = c.store(ctx, was, next, state)
		if errors.Is(err, ledger.ErrConflict) {
			continue // another process was first; decide again
		}
		if err != nil {
			return decision, err
		}
		c.Logger.InfoContext(ctx, "topology stored", "decision", decision.String(), "epoch", next.Epoch, "transitions", len(state.Transitions))
		return decision, nil
	}
}

// store seals and stores.
func (c *Configuration) store(ctx context.Context, was ledger.Versioned[ledger.Epochs], next *topology.Topology, state serving.State) error {
	sealed, err := next.Seal(c.Sealer, ledger.SealContext)
	if err != nil {
		return fmt.Errorf("sealing the topology: %w", err)
	}
	if state, err = state.Sealed(c.Sealer, ledger.SealContext); err != nil {
		return fmt.Errorf("sealing the topology: %w", err)
	}
	return c.Ledger.StoreTopology(ctx, was, sealed, state)
}

// Start is Apply for a process that starts: when a circle cannot change again yet,
// it runs with the current epoch and says so.
func (c *Configuration) Start(ctx context.Context, configured *topology.Topology) error {
	_, err := c.Apply(ctx, configured)
	if open := (*serving.OpenError)(nil); errors.As(err, &open) {
		c.Logger.WarnContext(ctx, "the configuration was not applied", "reason", open.Error(), "configuration", configured.Source)
		return nil
	}
	return err
}

// Limit stores what a configuration says about the limits of backends, if its topology
// is the one in force: the limits of a file that was not applied are not, either.
func (c *Configuration) Limit(ctx context.Context, configured *topology.Topology, limits operation.BackendLimits) error {
	epochs, err := c.Ledger.Topology(ctx)
	if err != nil {
		return err
	}
	if current := epochs.Value.Current; current == nil || current.Digest != configured.Digest {
		c.Logger.WarnContext(ctx, "the limits of a configuration that was not applied are not, either", "configuration", configured.Source)
		return nil
	}
	was, err := c.Ledger.BackendLimits(ctx)
	if err != nil && !errors.Is(err, ledger.ErrUnreadable) {
		return err
	}
	if err == nil && was.Equal(limits) {
		return nil
	}
	if err := c.Ledger.StoreBackendLimits(ctx, limits); err != nil {
		return err
	}
	c.Logger.InfoContext(ctx, "limits of the backends stored", "default", limits.Default.String(), "backends", len(limits.Backends))
	return nil
}
