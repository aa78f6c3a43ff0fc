package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"ringmaster/pkg/bus"
)

// Claim is what an idempotency key stands for.
type Claim struct {
	OperationID string `json:"operation_id"`
	// Digest identifies the request's body.
	Digest string `json:"digest"`
}

func claimKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// ClaimKey binds an idempotency key to an operation id. When the key is taken
// it returns what it is bound to and false.
func (l *Ledger) ClaimKey(ctx context.Context, key string, c Claim) (Claim, bool, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return c, false, fmt.Errorf("storing the idempotency key: %w", err)
	}
	for {
		_, err = l.idempotency.Create(ctx, claimKey(key), raw)
		if err == nil {
			return c, true, nil
		}
		if !errors.Is(err, bus.ErrExists) {
			return c, false, fmt.Errorf("storing the idempotency key: %w", err)
		}
		e, err := l.idempotency.Get(ctx, claimKey(key))
		if errors.Is(err, bus.ErrNotFound) {
			continue // given up between the two calls
		}
		if err != nil {
			return c, false, fmt.Errorf("reading the idempotency key: %w", err)
		}
		v, err := decode[Claim](e)
		return v.Value, false, err
	}
}

// ReleaseKey gives up a key whose request was refused.
func (l *Ledger) ReleaseKey(ctx context.Context, key string, c Claim) error {
	e, err := l.idempotency.Get(ctx, claimKey(key))
	if errors.Is(err, bus.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("releasing the idempotency key: %w", err)
	}
	v, err := decode[Claim](e)
	if err != nil || v.Value != c {
		return err
	}
	if err := l.idempotency.Delete(ctx, claimKey(key), v.Revision); err != nil && !errors.Is(err, bus.ErrNotFound) {
		return fmt.Errorf("releasing the idempotency key: %w", conflict(err))
	}
	return nil
}
