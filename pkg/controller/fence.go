package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/operation"
)

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
// running, its epoch is the current one, no circle is changing its owners, and no
// process works with another epoch. An *operation.Error says that it may not
// delete any more, mover.ErrHeld that it may not for now.
//
// What is deleted belongs to no owner, and every step of a transition ends only
// when nobody writes or reads any more as the step before it had it. So no write
// through any process can arrive between a proof and its delete, and nobody reads
// what is deleted.
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
		if err := pauseFor(ctx, fencePause); err != nil {
			return err
		}
	}
}

// process is what the lease of a process that serves requests tells, as far as it
// matters here; see package session.
type process struct {
	ID    string `json:"id"`
	Epoch uint64 `json:"epoch"`
}

// look returns a process that works with another epoch, nil if there is none.
func (f *Fence) look(ctx context.Context, op *operation.Operation) (*process, error) {
	epochs, err := f.Ledger.Topology(ctx)
	if err != nil {
		return nil, err
	}
	if current := epochs.Value.Current; current == nil || current.Epoch != op.Epoch {
		return nil, errEpochChanged(op.Epoch)
	}
	for _, t := range epochs.Value.Serving.Transitions {
		return nil, &operation.Error{
			Code:   "transition_open",
			Detail: fmt.Sprintf("circle %d is still changing to epoch %d (%s), so its former owners are still written to or read; what is dropped stays dropped; start the clear again when GET /v1/topology shows no transition", t.Circle, t.Epoch, t.Step),
		}
	}
	now, err := f.Ledger.Operation(ctx, op.ID)
	if err != nil {
		return nil, err
	}
	if interrupts(&now.Value) {
		return nil, fmt.Errorf("nothing more is dropped: %w", mover.ErrHeld)
	}
	if now.Value.State != operation.Running || now.Value.Attempt != op.Attempt {
		return nil, &operation.Error{Code: "not_running", Detail: fmt.Sprintf("the operation is %s, so nothing more is dropped", now.Value.State)}
	}
	for e, err := range f.Leases.Bucket().List(ctx, ledger.ProcessLeases()) {
		if err != nil {
			return nil, fmt.Errorf("listing the processes: %w", err)
		}
		p := process{ID: e.Key}
		if err := json.Unmarshal(e.Value, &p); err != nil || p.Epoch != op.Epoch {
			return &p, nil
		}
	}
	return nil, nil //nolint:nilnil // no process stands in the way
}
