package controller

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"ringmaster/pkg/bus"
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
	// Space, if set, returns a *bus.SpaceError when the disk under the records would
	// have too little room after so many bytes more.
	Space func(more int64) error
}

const (
	// submitTimeout bounds a submission. It is below the age at which a record
	// counts as one that nobody will accept any more; see Options.Orphan.
	submitTimeout = 45 * time.Second
	// submitPause is about how long equal submissions wait for each other, and
	// submitTurns how often, before one takes the other for dead.
	submitPause = 50 * time.Millisecond
	submitTurns = 20
)

// errAgain: another process is submitting the same request at this moment.
var errAgain = errors.New("the same request is being submitted by another process")

// Submit records a request as a queued operation, in this order: idempotency
// key, operation record, scopes and command in one atomic batch, audit. created
// is false when the idempotency key stands for an operation that exists. A
// caller that goes away in the middle stops nothing: what is begun is ended.
//
// Refusals are *operation.InvalidError, *operation.NotImplementedError,
// *operation.ScopeHeldError, *operation.FlaggedError, *operation.StoreFullError,
// *operation.DiskFullError and operation.ErrKeyReused.
func (s *Intake) Submit(ctx context.Context, r operation.Request) (accepted operation.Operation, created bool, err error) {
	op, err := s.prepare(r)
	if err != nil {
		return operation.Operation{}, false, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), submitTimeout)
	defer cancel()
	if r.IdempotencyKey == "" {
		if err := s.room(); err != nil { // before anything waits for a disk that is full
			return operation.Operation{}, false, err
		}
		accepted, err = s.begin(ctx, r, op, nil)
		return accepted, err == nil, err
	}
	for turn := 0; ; turn++ {
		accepted, created, err = s.submitOnce(ctx, r, op, turn < submitTurns)
		if !errors.Is(err, errAgain) {
			return accepted, created && err == nil, err
		}
		pause := time.NewTimer(submitPause/2 + rand.N(submitPause))
		select {
		case <-ctx.Done():
			pause.Stop()
			return operation.Operation{}, false, err
		case <-pause.C:
		}
	}
}

// submitOnce submits a request that has an idempotency key. patient says that
// another submission of it may still be under way.
func (s *Intake) submitOnce(ctx context.Context, r operation.Request, op operation.Operation, patient bool) (operation.Operation, bool, error) {
	digest, err := digest(r)
	if err != nil {
		return operation.Operation{}, false, err
	}
	// Passwords are part of the digest, so it is no more shown than they are.
	bound := []byte("ringmaster.idempotency " + r.IdempotencyKey)
	own := ledger.Claim{OperationID: op.ID}
	op.IdempotencyKey = ledger.KeyHash(r.IdempotencyKey)
	if own.Digest, err = s.Sealer.Seal(digest, bound); err != nil {
		return operation.Operation{}, false, fmt.Errorf("sealing the request's digest: %w", err)
	}
	held, mine, err := s.Ledger.ClaimKey(ctx, r.IdempotencyKey, own)
	if err != nil {
		return operation.Operation{}, false, err
	}
	if mine {
		op, err := s.begin(ctx, r, op, &own)
		return op, true, err
	}
	first, err := s.Sealer.Open(held.Digest, bound)
	if err != nil {
		return operation.Operation{}, false, fmt.Errorf("opening the digest of the request that used the key first: %w", err)
	}
	if !bytes.Equal(first, digest) {
		return operation.Operation{}, false, operation.ErrKeyReused
	}
	accepted, created, err := s.again(ctx, r, op, &held, patient)
	if err == nil {
		// The first submission may have been refused and have given the key back.
		// The operation is accepted with it or without it.
		_, _, _ = s.Ledger.ClaimKey(ctx, r.IdempotencyKey, held)
	}
	return accepted, created, err
}

// again answers a repeated request with the operation of the first. A first one
// that died before it was accepted is finished under its id.
func (s *Intake) again(ctx context.Context, r operation.Request, op operation.Operation, held *ledger.Claim, patient bool) (operation.Operation, bool, error) {
	known, err := s.Ledger.Operation(ctx, held.OperationID)
	absent := errors.Is(err, operation.ErrNotFound)
	if err != nil && !absent {
		return operation.Operation{}, false, err
	}
	if absent && (errors.Is(err, ledger.ErrRemoved) || s.Now().Sub(held.StoredAt) > ledger.ClaimPatience) {
		// The key has outlived its operation, and stands for nothing any more.
		return operation.Operation{}, false, errors.Join(errAgain, s.Ledger.ReleaseKey(ctx, r.IdempotencyKey, *held))
	}
	if !absent {
		if known.Value.State != operation.Queued {
			return known.Value, false, nil
		}
		// A record alone is not accepted yet. The command is looked for after the
		// record has been read; see confirm.
		accepted, err := s.accepted(ctx, known.Value.ID)
		if err != nil || accepted {
			return known.Value, false, err
		}
	}
	switch {
	case patient:
		return operation.Operation{}, false, errAgain
	case absent:
		op.ID = held.OperationID
		op, err := s.begin(ctx, r, op, held)
		return op, true, err
	}
	// Written anew, it cannot be taken back any more by whoever wrote it before.
	if known, err = s.Ledger.UpdateOperation(ctx, known, known.Value); err != nil {
		return operation.Operation{}, false, orAgain(err)
	}
	if err := s.take(ctx, r, known, held); err != nil {
		return operation.Operation{}, false, err
	}
	confirmed, err := s.confirm(ctx, r, known, held)
	return confirmed, false, err
}

// accepted reports whether an operation's command lies in the command stream.
func (s *Intake) accepted(ctx context.Context, id string) (bool, error) {
	open, err := s.Ledger.OpenOperations(ctx)
	return slices.Contains(open, id), err
}

// begin makes the operation's record and has it accepted.
func (s *Intake) begin(ctx context.Context, r operation.Request, op operation.Operation, key *ledger.Claim) (operation.Operation, error) {
	if err := s.seal(&op); err != nil {
		return operation.Operation{}, err
	}
	if err := s.refused(ctx, &op); err != nil {
		if key != nil {
			err = errors.Join(err, s.Ledger.ReleaseKey(ctx, r.IdempotencyKey, *key))
		}
		return operation.Operation{}, err
	}
	record, err := s.Ledger.CreateOperation(ctx, op)
	if err != nil {
		return operation.Operation{}, orAgain(err)
	}
	if err := s.take(ctx, r, record, key); err != nil {
		return operation.Operation{}, err
	}
	s.Ledger.Announce(ctx, record, "")
	return s.confirm(ctx, r, record, key)
}

// orAgain turns the refusal of a compare-and-set into errAgain: only who submits
// the same request writes the record of an operation that is not accepted.
func orAgain(err error) error {
	if errors.Is(err, ledger.ErrConflict) {
		return fmt.Errorf("%w: %w", errAgain, err)
	}
	return err
}

// take takes the operation's scopes and places its command, or takes back what
// was written of it, in the reverse order, and returns why. What cannot be
// removed now is taken up or swept later.
func (s *Intake) take(ctx context.Context, r operation.Request, record ledger.Versioned[operation.Operation], key *ledger.Claim) error {
	op := record.Value
	refusal := s.Ledger.Accept(ctx, &op)
	if refusal == nil {
		return nil
	}
	var held *operation.ScopeHeldError
	if !errors.As(refusal, &held) {
		// Perhaps only the answer was lost.
		accepted, err := s.accepted(ctx, op.ID)
		if accepted {
			return nil
		}
		if err != nil {
			return errors.Join(refusal, err)
		}
	}
	err := s.Ledger.RemoveOperation(ctx, record)
	switch {
	case errors.Is(err, ledger.ErrConflict) && key != nil:
		return orAgain(err)
	case err == nil && key != nil:
		err = s.Ledger.ReleaseKey(ctx, r.IdempotencyKey, *key)
	}
	if held != nil {
		return refusal
	}
	return errors.Join(refusal, err)
}

// refused looks for what is in the operation's way before anything is written: a
// refused request then leaves nothing at all. Who takes a scope after that is found
// by taking it.
func (s *Intake) refused(ctx context.Context, op *operation.Operation) error {
	if err := flagged(ctx, s.Ledger, op.Scope); err != nil {
		return err
	}
	if err := s.room(); err != nil {
		return err
	}
	if err := s.Ledger.Room(ctx); err != nil {
		return err
	}
	return s.Ledger.Holder(ctx, op.Scope)
}

// room refuses an operation while the disk is nearly full. That the room cannot be
// told is no reason.
func (s *Intake) room() error {
	if s.Space == nil {
		return nil
	}
	if full, ok := errors.AsType[*bus.SpaceError](s.Space(0)); ok {
		return &operation.DiskFullError{Free: full.Free, MinFree: full.MinFree}
	}
	return nil
}

// flagged refuses an operation whose circles a person has set to migrating, or
// everything to resyncing. What takes no scope disturbs nobody.
func flagged(ctx context.Context, l *ledger.Ledger, scopes []string) error {
	if len(scopes) == 0 {
		return nil
	}
	flags, err := l.Flags(ctx)
	if err != nil {
		return err
	}
	for _, circle := range flags.Value.Migrating {
		if slices.Contains(scopes, operation.CircleScope(circle)) {
			return &operation.FlaggedError{Circle: circle}
		}
	}
	if flags.Value.Resyncing {
		return &operation.FlaggedError{Resyncing: true}
	}
	return nil
}

// confirm makes sure that an operation whose scopes are taken has its record, and
// writes the audit trail.
func (s *Intake) confirm(ctx context.Context, r operation.Request, record ledger.Versioned[operation.Operation], key *ledger.Claim) (operation.Operation, error) {
	id := record.Value.ID
	var err error
	if key == nil {
		record, err = s.Ledger.Operation(ctx, id)
	} else {
		record, err = s.rewrite(ctx, r.IdempotencyKey, *key, record)
	}
	switch e := record.Value.Error; {
	case err != nil:
		return operation.Operation{}, fmt.Errorf("operation %s was accepted, but: %w", id, err)
	case record.Value.State == operation.Cancelled && e != nil && e.Code == codeNeverAccepted:
		// This process was stopped for so long that the record was given up.
		return operation.Operation{}, errors.Join(e, s.Ledger.Close(ctx, id))
	}
	err = s.Ledger.Audit(ctx, operation.AuditEntry{
		At: record.Value.CreatedAt, OperationID: id, Action: "submit",
		Who: record.Value.RequestedBy, Origin: r.Origin, Reason: record.Value.Reason,
	})
	if err != nil {
		return operation.Operation{}, fmt.Errorf("operation %s was accepted, but: %w", id, err)
	}
	return record.Value, nil
}

// rewrite stores the record of an accepted operation once more. Of several
// submissions of one request, one may be accepted while another was refused a
// moment before and is about to take the record back, by the revision that it
// knows; if it has done so already, the record is made again.
func (s *Intake) rewrite(ctx context.Context, name string, key ledger.Claim, record ledger.Versioned[operation.Operation]) (ledger.Versioned[operation.Operation], error) {
	for {
		next, err := s.Ledger.UpdateOperation(ctx, record, record.Value)
		if !errors.Is(err, ledger.ErrConflict) {
			return next, err
		}
		now, err := s.Ledger.Operation(ctx, record.Value.ID)
		switch {
		case errors.Is(err, operation.ErrNotFound):
			now, err = s.Ledger.CreateOperation(ctx, record.Value)
			if errors.Is(err, ledger.ErrConflict) {
				continue
			}
			if err == nil {
				_, _, err = s.Ledger.ClaimKey(ctx, name, key)
			}
			return now, err
		case err != nil:
			return record, err
		case now.Value.State != operation.Queued:
			return now, nil // it has been taken up
		}
		record = now
	}
}

// prepare checks the request and makes the record of it.
func (s *Intake) prepare(r operation.Request) (operation.Operation, error) {
	switch {
	case !r.Kind.Valid():
		return operation.Operation{}, &operation.InvalidError{Field: "kind", Problem: fmt.Sprintf("%q is not a kind", r.Kind), Hint: "GET /v1/kinds lists the kinds"}
	case !r.Kind.Implemented():
		return operation.Operation{}, &operation.NotImplementedError{What: string(r.Kind)}
	case r.Hold && r.DryRun:
		return operation.Operation{}, &operation.InvalidError{Field: "hold", Problem: "is given beside dry_run", Hint: "a dry run only plans; use hold alone to plan, look and approve"}
	}
	if err := r.Limits.Check("limits."); err != nil {
		return operation.Operation{}, err
	}
	p, err := operation.ParseMove(r.Kind, r.Parameters)
	if err != nil {
		return operation.Operation{}, err
	}
	current := s.Topology.Current()
	if current == nil {
		return operation.Operation{}, errors.New("no topology is known yet")
	}
	if err := checkAgainst(current, p); err != nil {
		return operation.Operation{}, err
	}
	parameters, err := json.Marshal(p)
	if err != nil {
		return operation.Operation{}, fmt.Errorf("storing the parameters: %w", err)
	}
	now := s.Now().UTC()
	op := operation.Operation{
		ID: s.NewID(), Kind: r.Kind, State: operation.Queued,
		Scope:      operation.CircleScopes(p, len(current.Circles)),
		Conditions: []operation.Condition{}, Waits: []operation.Wait{},
		DryRun: r.DryRun, Hold: r.Hold, Parameters: parameters, Limits: r.Limits,
		Reason: r.Reason, RequestedBy: r.RequestedBy, CreatedAt: now,
		Epoch: current.Epoch, Attempt: 1, Round: 1,
		Progress: operation.Progress{Phase: operation.PhasePlan, AsOf: now},
	}
	if op.DryRun {
		op.Scope = []string{}
	}
	return op, nil
}

// checkAgainst refuses a move that does not fit the circles there are.
func checkAgainst(t *topology.Topology, m operation.Move) error {
	switch p := m.(type) {
	case operation.Rebalance:
		circle, err := circleOf(t, "circle_id", p.CircleID)
		if err != nil {
			return err
		}
		for i, removed := range p.RemovedBackends {
			if circle.On(removed.URL) != nil {
				return &operation.InvalidError{
					Field:   fmt.Sprintf("removed_backends[%d].url", i),
					Problem: fmt.Sprintf("%s is still a backend of circle %d", removed.URL, p.CircleID),
					Hint:    "take it out of the configuration first",
				}
			}
		}
	case operation.Recovery:
		if _, err := circleOf(t, "from_circle_id", p.FromCircleID); err != nil {
			return err
		}
		to, err := circleOf(t, "to_circle_id", p.ToCircleID)
		if err != nil {
			return err
		}
		for i, address := range p.BackendURLs {
			if to.On(address) == nil {
				return &operation.InvalidError{
					Field:   fmt.Sprintf("backend_urls[%d]", i),
					Problem: fmt.Sprintf("%s is no backend of circle %d", address, p.ToCircleID),
					Hint:    "name backends of the circle that is filled, as in the configuration",
				}
			}
		}
	case operation.Clear:
		_, err := circleOf(t, "circle_id", p.CircleID)
		return err
	case operation.Verify:
		if _, err := circleOf(t, "circle_id", p.CircleID); err != nil {
			return err
		}
		if _, err := circleOf(t, "against_circle_id", p.Against(len(t.Circles))); err != nil {
			return err
		}
		return p.CheckAmong(len(t.Circles))
	}
	return nil
}

func circleOf(t *topology.Topology, field string, id int) (*topology.Circle, error) {
	circle, ok := t.Circle(id)
	if !ok {
		return nil, &operation.InvalidError{
			Field: field, Problem: fmt.Sprintf("there is no circle %d", id),
			Hint: fmt.Sprintf("the configuration has circles 0 to %d", len(t.Circles)-1),
		}
	}
	return circle, nil
}

// seal encrypts the credentials in the parameters, under the operation's id.
func (s *Intake) seal(op *operation.Operation) error {
	if op.Kind != operation.KindRebalance {
		return nil // the others have none
	}
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
func digest(r operation.Request) ([]byte, error) {
	var parameters any
	if len(r.Parameters) > 0 {
		if err := json.Unmarshal(r.Parameters, &parameters); err != nil {
			return nil, &operation.InvalidError{Field: "parameters", Problem: "is not valid JSON", Hint: err.Error()}
		}
	}
	raw, err := json.Marshal([]any{r.Kind, parameters, r.DryRun, r.Hold, r.Limits, r.Reason})
	if err != nil {
		return nil, fmt.Errorf("identifying the request: %w", err)
	}
	sum := sha256.Sum256(raw)
	return sum[:], nil
}
