package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/topology"
)

// ErrOtherKey says that what the cluster has sealed cannot be opened with the key
// at hand, or that there is none.
var ErrOtherKey = errors.New("the cluster's records were sealed with another key")

const (
	keyKeyCheck = "key-check"

	// keyCheckContext binds the check value to its record.
	keyCheckContext = "ringmaster.topology/" + keyKeyCheck
)

// keyCheck is a value that only the cluster's key opens.
type keyCheck struct {
	Sealed string `json:"sealed"`
}

// VerifyKey reports whether s holds the key that this cluster's records are sealed
// with: nil if it does, or as long as nothing tells; ErrOtherKey if it does not. It
// stores nothing.
func (l *Ledger) VerifyKey(ctx context.Context, s topology.Sealer) error {
	_, err := l.verifyKey(ctx, s)
	return err
}

// CheckKey is VerifyKey for those who may decide which key the cluster has: while
// nothing tells, the key of s becomes it. Of several processes that come at once
// with different keys, one succeeds.
func (l *Ledger) CheckKey(ctx context.Context, s topology.Sealer) error {
	known, err := l.verifyKey(ctx, s)
	if err != nil || known {
		return err
	}
	sealed, err := s.Seal([]byte(keyKeyCheck), []byte(keyCheckContext))
	if err != nil {
		return fmt.Errorf("sealing the key check: %w", err)
	}
	raw, err := json.Marshal(keyCheck{Sealed: sealed})
	if err != nil {
		return fmt.Errorf("storing the key check: %w", err)
	}
	if _, err = l.topology.Create(ctx, keyKeyCheck, raw); err != nil && !errors.Is(err, bus.ErrExists) {
		return fmt.Errorf("storing the key check: %w", err)
	}
	if err != nil { // another process was first, with this key or another
		return l.VerifyKey(ctx, s)
	}
	return nil
}

// verifyKey reports whether the check value is there, and opened.
func (l *Ledger) verifyKey(ctx context.Context, s topology.Sealer) (known bool, err error) {
	e, err := l.topology.Get(ctx, keyKeyCheck)
	if errors.Is(err, bus.ErrNotFound) {
		return false, l.verifyByTopology(ctx, s)
	}
	if err != nil {
		return false, fmt.Errorf("reading the key check: %w", err)
	}
	check, err := decode[keyCheck](e)
	if err != nil {
		return false, err
	}
	if _, err := s.Open(check.Value.Sealed, []byte(keyCheckContext)); err != nil {
		return false, fmt.Errorf("%w: %w", ErrOtherKey, err)
	}
	return true, nil
}

// verifyByTopology asks the credentials of the topology, in a cluster whose records
// are older than the check value: the wrong key must not become the cluster's.
func (l *Ledger) verifyByTopology(ctx context.Context, s topology.Sealer) error {
	epochs, err := l.Topology(ctx)
	if err != nil || epochs.Value.Current == nil {
		return err
	}
	if _, err := epochs.Value.Current.Open(s, SealContext); err != nil {
		return fmt.Errorf("%w: %w", ErrOtherKey, err)
	}
	return nil
}
