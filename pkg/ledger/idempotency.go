package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"ringmaster/pkg/bus"
)

// Claim is what an idempotency key stands for.
type Claim struct {
	OperationID string `json:"operation_id"`
	// Digest identifies the request's body.
	Digest string `json:"digest"`
	// StoredAt is when a claim that was read was made.
	StoredAt time.Time `json:"-"`
}

// ClaimPatience is for how long a claim may stand for an operation that has no record:
// far longer than a submission takes.
const ClaimPatience = time.Hour

// same reports whether two claims are one.
func (c Claim) same(o Claim) bool { return c.OperationID == o.OperationID && c.Digest == o.Digest }

// KeyHash is the name under which an idempotency key is kept; see
// operation.Operation.IdempotencyKey.
func KeyHash(key string) string {
	if key == "" {
		return ""
	}
	return claimKey(key)
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
		v.Value.StoredAt = e.Created
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
	if err != nil || !v.Value.same(c) {
		return err
	}
	if err := l.idempotency.Delete(ctx, claimKey(key), v.Revision); err != nil && !errors.Is(err, bus.ErrNotFound) {
		return fmt.Errorf("releasing the idempotency key: %w", conflict(err))
	}
	return nil
}

// forgetKey removes the claim that stands for an operation which is no more, by the
// hash of its key; one that stands for another operation stays.
func (l *Ledger) forgetKey(ctx context.Context, hash, op string) error {
	if hash == "" {
		return nil
	}
	e, err := l.idempotency.Get(ctx, hash)
	if errors.Is(err, bus.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing the idempotency key of operation %s: %w", op, err)
	}
	v, err := decode[Claim](e)
	if err != nil || v.Value.OperationID != op {
		return err
	}
	err = l.idempotency.Remove(ctx, hash, v.Revision)
	if err != nil && !errors.Is(err, bus.ErrNotFound) && !errors.Is(err, bus.ErrConflict) {
		return fmt.Errorf("removing the idempotency key of operation %s: %w", op, err)
	}
	return nil
}

// StoredClaim is a claim as a list gives it.
type StoredClaim struct {
	Claim

	hash string
}

// Claims returns the claims that were made before a moment. One that cannot be read
// is left out and logged.
func (l *Ledger) Claims(ctx context.Context, before time.Time) ([]StoredClaim, error) {
	var all []StoredClaim
	for e, err := range l.idempotency.List(ctx, "") {
		if err != nil {
			return nil, fmt.Errorf("listing idempotency keys: %w", err)
		}
		if !e.Created.Before(before) {
			continue
		}
		v, err := decode[Claim](e)
		if err != nil {
			l.options.Logger.ErrorContext(ctx, "idempotency key left alone", "error", err)
			continue
		}
		v.Value.StoredAt = e.Created
		all = append(all, StoredClaim{Claim: v.Value, hash: e.Key})
	}
	return all, nil
}

// RemoveClaim removes a claim whose operation is no more.
func (l *Ledger) RemoveClaim(ctx context.Context, c StoredClaim) error {
	return l.forgetKey(ctx, c.hash, c.OperationID)
}
