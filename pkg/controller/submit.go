package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"ringmaster/pkg/ledger"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/topology"
)

// Topology gives the topology this process works with.
type Topology interface {
	Current() *topology.Topology
}

// Intake accepts requests: everything an operation needs is durable before the
// caller hears that it was accepted, and a refused request leaves nothing.
type Intake struct {
	Ledger   *ledger.Ledger
	Topology Topology
	Sealer   topology.Sealer
	Now      func() time.Time
	NewID    func() string
}

// Submit records a request as a queued operation, in this order: idempotency
// key, operation record, scopes and command in one atomic batch, audit. created
// is false when the idempotency key stands for an operation that exists.
//
// Refusals are *operation.InvalidError, *operation.NotImplementedError,
// *operation.ScopeHeldError and operation.ErrKeyReused.
func (s *Intake) Submit(ctx context.Context, r operation.Request) (operation.Operation, bool, error) {
	op, err := s.prepare(r)
	if err != nil {
		return operation.Operation{}, false, err
	}
	claim := ledger.Claim{OperationID: op.ID}
	if r.IdempotencyKey != "" {
		if claim.Digest, err = digest(r); err != nil {
			return operation.Operation{}, false, err
		}
		held, mine, err := s.Ledger.ClaimKey(ctx, r.IdempotencyKey, claim)
		if err != nil {
			return operation.Operation{}, false, err
		}
		if !mine {
			if held.Digest != claim.Digest {
				return operation.Operation{}, false, operation.ErrKeyReused
			}
			return s.again(ctx, r, op, held)
		}
	}
	return s.accept(ctx, r, op, claim)
}

// again answers a repeated request with the operation of the first. A first one
// that died before its record was written is finished under its id.
func (s *Intake) again(ctx context.Context, r operation.Request, op operation.Operation, held ledger.Claim) (operation.Operation, bool, error) {
	known, err := s.Ledger.Operation(ctx, held.OperationID)
	if err == nil {
		return known.Value, false, nil
	}
	if !errors.Is(err, operation.ErrNotFound) {
		return operation.Operation{}, false, err
	}
	op.ID = held.OperationID
	return s.accept(ctx, r, op, held)
}

// accept makes the operation durable.
func (s *Intake) accept(ctx context.Context, r operation.Request, op operation.Operation, claim ledger.Claim) (operation.Operation, bool, error) {
	if err := s.seal(&op); err != nil {
		return operation.Operation{}, false, err
	}
	record, err := s.Ledger.CreateOperation(ctx, op)
	if err != nil {
		return operation.Operation{}, false, err
	}
	if err := s.Ledger.Accept(ctx, &op); err != nil {
		// Refused: what was written so far goes, in the reverse order. When that
		// fails too, the sweep removes a record that was never accepted.
		undo := s.Ledger.RemoveOperation(ctx, record)
		if r.IdempotencyKey != "" {
			undo = errors.Join(undo, s.Ledger.ReleaseKey(ctx, r.IdempotencyKey, claim))
		}
		var held *operation.ScopeHeldError
		if errors.As(err, &held) {
			return operation.Operation{}, false, err
		}
		return operation.Operation{}, false, errors.Join(err, undo)
	}
	err = s.Ledger.Audit(ctx, operation.AuditEntry{
		At: s.Now().UTC(), OperationID: op.ID, Action: "submit",
		Who: op.RequestedBy, Origin: r.Origin, Reason: op.Reason,
	})
	if err != nil {
		return operation.Operation{}, false, fmt.Errorf("operation %s was accepted, but: %w", op.ID, err)
	}
	s.Ledger.Announce(ctx, record, "")
	return op, true, nil
}

// prepare checks the request and makes the record of it.
func (s *Intake) prepare(r operation.Request) (operation.Operation, error) {
	switch {
	case !r.Kind.Valid():
		return operation.Operation{}, &operation.InvalidError{Field: "kind", Problem: fmt.Sprintf("%q is not a kind", r.Kind), Hint: "GET /v1/kinds lists the kinds"}
	case !r.Kind.Implemented():
		return operation.Operation{}, &operation.NotImplementedError{What: string(r.Kind)}
	case r.Hold:
		// Without approve and cancel nothing could let it go on or free its scope.
		return operation.Operation{}, &operation.NotImplementedError{What: "holding an operation for approval"}
	case r.Limits != operation.Limits{}:
		return operation.Operation{}, &operation.NotImplementedError{What: "limiting an operation"}
	}
	p, err := operation.ParseRebalance(r.Parameters)
	if err != nil {
		return operation.Operation{}, err
	}
	current := s.Topology.Current()
	if current == nil {
		return operation.Operation{}, errors.New("no topology is known yet")
	}
	circle, ok := current.Circle(p.CircleID)
	if !ok {
		return operation.Operation{}, &operation.InvalidError{
			Field: "circle_id", Problem: fmt.Sprintf("there is no circle %d", p.CircleID),
			Hint: fmt.Sprintf("the configuration has circles 0 to %d", len(current.Circles)-1),
		}
	}
	for i, removed := range p.RemovedBackends {
		for j := range circle.Backends {
			if circle.Backends[j].URL == removed.URL {
				return operation.Operation{}, &operation.InvalidError{
					Field:   fmt.Sprintf("removed_backends[%d].url", i),
					Problem: fmt.Sprintf("%s is still a backend of circle %d", removed.URL, p.CircleID),
					Hint:    "take it out of the configuration first",
				}
			}
		}
	}
	parameters, err := json.Marshal(p)
	if err != nil {
		return operation.Operation{}, fmt.Errorf("storing the parameters: %w", err)
	}
	op := operation.Operation{
		ID: s.NewID(), Kind: r.Kind, State: operation.Queued, Scope: p.Scope(),
		Conditions: []operation.Condition{}, Waits: []operation.Wait{},
		DryRun: r.DryRun, Hold: r.Hold, Parameters: parameters, Limits: r.Limits,
		Reason: r.Reason, RequestedBy: r.RequestedBy, CreatedAt: s.Now().UTC(),
		Epoch: current.Epoch, Attempt: 1, Round: 1,
		Progress: operation.Progress{Phase: operation.PhasePlan, AsOf: s.Now().UTC()},
	}
	if op.DryRun {
		op.Scope = []string{}
	}
	return op, nil
}

// seal encrypts the credentials in the parameters, under the operation's id.
func (s *Intake) seal(op *operation.Operation) error {
	p, err := operation.ParseRebalance(op.Parameters)
	if err != nil {
		return err
	}
	if err := mover.SealRemoved(s.Sealer, op.ID, p.RemovedBackends); err != nil {
		return err
	}
	if op.Parameters, err = json.Marshal(p); err != nil {
		return fmt.Errorf("storing the parameters: %w", err)
	}
	return nil
}

// digest identifies what was asked for. Parameters are compared by value, so
// that order and spacing of JSON do not matter.
func digest(r operation.Request) (string, error) {
	var parameters any
	if len(r.Parameters) > 0 {
		if err := json.Unmarshal(r.Parameters, &parameters); err != nil {
			return "", &operation.InvalidError{Field: "parameters", Problem: "is not valid JSON", Hint: err.Error()}
		}
	}
	raw, err := json.Marshal([]any{r.Kind, parameters, r.DryRun, r.Hold, r.Limits, r.Reason})
	if err != nil {
		return "", fmt.Errorf("identifying the request: %w", err)
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:]), nil
}
