package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// LeaseInfo is a lease that lives: who holds what, and until when it does unless it is
// renewed.
type LeaseInfo struct {
	// Key names the lease: `operation.<id>`, `task.<operation>.<task>` and others.
	Key    string
	Holder string
	// OperationID is set for the leases of operations and their tasks, TaskID for the
	// latter.
	OperationID, TaskID string
	RenewedAt           time.Time
	ExpiresAt           time.Time
}

// Leasebook shows who holds leases, and breaks those that stand in the way.
type Leasebook struct {
	Ledger *ledger.Ledger
	Leases *bus.Leases
}

// List returns all leases that live, by their keys.
func (b *Leasebook) List(ctx context.Context) ([]LeaseInfo, error) {
	var all []LeaseInfo
	for _, bucket := range []*bus.Bucket{b.Leases.Bucket(), b.Leases.Claims().Bucket()} {
		for e, err := range bucket.List(ctx, "") {
			if err != nil {
				return nil, fmt.Errorf("listing leases: %w", err)
			}
			all = append(all, b.describe(&e))
		}
	}
	slices.SortFunc(all, func(x, y LeaseInfo) int { return strings.Compare(x.Key, y.Key) })
	return all, nil
}

func (b *Leasebook) describe(e *bus.Entry) LeaseInfo {
	info := LeaseInfo{Key: e.Key, RenewedAt: e.Created, ExpiresAt: e.Created.Add(b.Leases.TTL())}
	info.OperationID, info.TaskID = ledger.SubjectOfLease(e.Key)
	var holder struct {
		Worker string `json:"worker"`
		ID     string `json:"id"`
	}
	switch err := json.Unmarshal(e.Value, &holder); {
	case err != nil:
		info.Holder = operation.Clip(string(e.Value)) // that of an operation is the bare name
	case holder.Worker != "":
		info.Holder = holder.Worker
	default:
		info.Holder = holder.ID
	}
	return info
}

// ErrNoLease says that nobody holds a lease of that key.
var ErrNoLease = errors.New("nobody holds such a lease")

// Break takes the lease of an operation or of a task from its holder, for another to
// take it up. It is safe because a lease fences nothing: whoever had it is refused by
// the record at its next step, if it is still there. The leases of processes,
// transitions and replays are not to be broken: others rely on what they promise until
// they run out, which is soon. The refusal is an *operation.InvalidError.
func (b *Leasebook) Break(ctx context.Context, key string, by operation.Intent) error {
	id, task := ledger.SubjectOfLease(key)
	if id == "" {
		return &operation.InvalidError{
			Field: "key", Problem: "is not the lease of an operation or a task",
			Hint: fmt.Sprintf("any other runs out by itself, %s after it was last renewed", b.Leases.TTL()),
		}
	}
	bucket := b.Leases.Bucket()
	if task != "" {
		bucket = b.Leases.Claims().Bucket()
	}
	e, err := bucket.Get(ctx, key)
	if errors.Is(err, bus.ErrNotFound) {
		return ErrNoLease
	}
	if err != nil {
		return err
	}
	err = bucket.Delete(ctx, key, e.Revision)
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		return fmt.Errorf("breaking lease %s, which its holder has just renewed perhaps: %w", key, err)
	}
	info := b.describe(&e)
	return b.Ledger.Audit(ctx, operation.AuditEntry{
		At: by.At, OperationID: id, Action: "lease_break", Who: by.Who, Origin: by.Origin,
		Reason: strings.TrimSuffix(fmt.Sprintf("%s, held by %s: %s", key, info.Holder, by.Reason), ": "),
	})
}
