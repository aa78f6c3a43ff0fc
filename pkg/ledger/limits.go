package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/operation"
)

// keyLimits is where the backends' limits are: beside the topology and no part of it,
// since changing them makes no new epoch.
const keyLimits = "limits"

// LimitsLease is the key of the lease of whoever grants what limits admit.
const LimitsLease = "limits"

// BackendLimits reads the limits of the backends; no limits when there is no record.
func (l *Ledger) BackendLimits(ctx context.Context) (operation.BackendLimits, error) {
	e, err := l.topology.Get(ctx, keyLimits)
	if errors.Is(err, bus.ErrNotFound) {
		return operation.BackendLimits{}, nil
	}
	if err != nil {
		return operation.BackendLimits{}, fmt.Errorf("reading the limits of the backends: %w", err)
	}
	v, err := decode[operation.BackendLimits](e)
	return v.Value, err
}

// StoreBackendLimits replaces the limits of the backends.
func (l *Ledger) StoreBackendLimits(ctx context.Context, limits operation.BackendLimits) error {
	raw, err := json.Marshal(limits)
	if err != nil {
		return fmt.Errorf("storing the limits of the backends: %w", err)
	}
	if err := l.put(ctx, l.topology, keyLimits, raw); err != nil {
		return fmt.Errorf("storing the limits of the backends: %w", err)
	}
	return nil
}
