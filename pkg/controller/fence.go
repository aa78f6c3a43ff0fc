package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// presence is what a process that serves requests tells about itself.
type presence struct {
	ID    string `json:"id"`
	Epoch uint64 `json:"epoch"`
}

// Present tells, until ctx ends, with which epoch this process works. Who deletes
// points waits for those that work with another one; see Fence.
func (a *Atlas) Present(ctx context.Context, leases *bus.Leases, id string) error {
	ticker := time.NewTicker(min(refreshEvery, leases.TTL()/3))
	defer ticker.Stop()
	var lease *bus.Lease
	defer func() {
		if lease != nil {
			done, cancel := context.WithTimeout(context.WithoutCancel(ctx), refreshEvery)
			defer cancel()
			_ = lease.Release(done) // it runs out by itself
		}
	}()
	var told uint64
	for {
		var err error
		if lease, err = a.tellEpoch(ctx, leases, lease, id, &told); err != nil && ctx.Err() == nil {
			a.logger.WarnContext(ctx, "telling with which epoch this process works", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// tellEpoch takes or renews the lease; it returns nil when the lease is lost.
func (a *Atlas) tellEpoch(ctx context.Context, leases *bus.Leases, lease *bus.Lease, id string, told *uint64) (*bus.Lease, error) {
	epoch := a.Current().Epoch
	if lease != nil && epoch == *told && time.Until(lease.Expires()) > leases.TTL()/2 {
		return lease, nil
	}
	value, err := json.Marshal(presence{ID: id, Epoch: epoch})
	if err != nil {
		return lease, err
	}
	// Cut off in the middle, it would leave a lease that nobody gives back.
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), leases.TTL())
	defer cancel()
	if lease == nil {
		lease, err = leases.Acquire(call, ledger.ProcessLease(id), value)
	} else {
		err = lease.RenewWith(call, value)
	}
	switch {
	case errors.Is(err, bus.ErrLeaseLost):
		return nil, err
	case err == nil:
		*told = epoch
	}
	return lease, err
}

// Fence says whether points may be deleted at a moment.
type Fence struct {
	Ledger *ledger.Ledger
	Leases *bus.Leases
}

// How long a process may work with another epoch before a delete is given up, and
// how often it is looked at meanwhile.
const (
	fencePatience = 15 * time.Second
	fencePause    = 250 * time.Millisecond
)

// MayDrop returns nil when an operation may delete points now: it is still
// running, its epoch is the current one, and no process works with another. An
// *operation.Error says that it may not delete any more.
func (f *Fence) MayDrop(ctx context.Context, op *operation.Operation) error {
	var deadline time.Time
	for {
		other, err := f.look(ctx, op)
		if err != nil || other == nil {
			return err
		}
		now := time.Now()
		if deadline.IsZero() {
			deadline = now.Add(fencePatience)
		}
		if now.After(deadline) {
			return &operation.Error{
				Code:   "other_epoch",
				Detail: fmt.Sprintf("process %s works with epoch %d, the operation belongs to epoch %d: it may still write where points are to be dropped; bring it up to date and start the operation again", other.ID, other.Epoch, op.Epoch),
			}
		}
		pause := time.NewTimer(fencePause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return context.Cause(ctx)
		case <-pause.C:
		}
	}
}

// look returns a process that works with another epoch, nil if there is none.
func (f *Fence) look(ctx context.Context, op *operation.Operation) (*presence, error) {
	epochs, err := f.Ledger.Topology(ctx)
	if err != nil {
		return nil, err
	}
	if current := epochs.Value.Current; current == nil || current.Epoch != op.Epoch {
		return nil, errEpochChanged(op.Epoch)
	}
	now, err := f.Ledger.Operation(ctx, op.ID)
	if err != nil {
		return nil, err
	}
	if now.Value.State != operation.Running || now.Value.Attempt != op.Attempt {
		return nil, &operation.Error{Code: "not_running", Detail: fmt.Sprintf("the operation is %s, so nothing more is dropped", now.Value.State)}
	}
	for e, err := range f.Leases.Bucket().List(ctx, ledger.ProcessLeases()) {
		if err != nil {
			return nil, fmt.Errorf("listing the processes: %w", err)
		}
		p := presence{ID: e.Key}
		if err := json.Unmarshal(e.Value, &p); err != nil || p.Epoch != op.Epoch {
			return &p, nil
		}
	}
	return nil, nil //nolint:nilnil // no process stands in the way
}
