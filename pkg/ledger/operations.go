package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/operation"
)

// Operation reads one operation, or operation.ErrNotFound, also for one that has been
// removed; see ErrRemoved and ErrUnreadable.
func (l *Ledger) Operation(ctx context.Context, id string) (Versioned[operation.Operation], error) {
	e, err := l.operations.Get(ctx, events.EscapeToken(id))
	if errors.Is(err, bus.ErrNotFound) {
		return Versioned[operation.Operation]{}, operation.ErrNotFound
	}
	if err != nil {
		return Versioned[operation.Operation]{}, fmt.Errorf("reading operation %s: %w", id, err)
	}
	v, err := decode[stored](e)
	if err == nil && v.Value.Removed != nil {
		err = fmt.Errorf("%w: %w", operation.ErrNotFound, ErrRemoved)
	}
	return Versioned[operation.Operation]{Value: v.Value.Operation, Revision: v.Revision}, err
}

// Operations calls each for every operation, in no particular order. A record
// that cannot be read is left out and logged: it must not take the list down.
func (l *Ledger) Operations(ctx context.Context, each func(operation.Operation, uint64) error) error {
	for e, err := range l.operations.List(ctx, "") {
		if err != nil {
			return fmt.Errorf("listing operations: %w", err)
		}
		v, err := decode[stored](e)
		if err != nil {
			l.options.Logger.ErrorContext(ctx, "operation left out of a list", "error", err)
			continue
		}
		if v.Value.Removed != nil {
			continue
		}
		if err := each(v.Value.Operation, v.Revision); err != nil {
			return err
		}
	}
	return nil
}

// OpenOperations returns the ids of the operations whose command lies in the
// command stream: those that have been accepted and have not been closed.
func (l *Ledger) OpenOperations(ctx context.Context) ([]string, error) {
	var ids []string
	for r, err := range l.scopes.Open(ctx, events.AllCommands) {
		if err != nil {
			return nil, fmt.Errorf("listing open operations: %w", err)
		}
		if _, id, ok := events.ParseCommandSubject(r.Subject); ok {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// CreateOperation stores a new operation; ErrConflict when the id is taken.
func (l *Ledger) CreateOperation(ctx context.Context, op operation.Operation) (Versioned[operation.Operation], error) {
	raw, err := json.Marshal(op)
	if err != nil {
		return Versioned[operation.Operation]{}, fmt.Errorf("storing operation %s: %w", op.ID, err)
	}
	revision, err := l.operations.Create(ctx, events.EscapeToken(op.ID), raw)
	if err != nil {
		return Versioned[operation.Operation]{}, fmt.Errorf("storing operation %s: %w", op.ID, conflict(err))
	}
	return Versioned[operation.Operation]{Value: op, Revision: revision}, nil
}

// UpdateOperation stores a changed operation over the revision it was read at,
// and tells of it. A change of state must be one the state machine has.
func (l *Ledger) UpdateOperation(ctx context.Context, was Versioned[operation.Operation], op operation.Operation) (Versioned[operation.Operation], error) {
	if op.State != was.Value.State && !was.Value.State.CanMove(op.State, was.Value.PausedIn) {
		return was, fmt.Errorf("storing operation %s: %w", op.ID, &operation.TransitionError{From: was.Value.State, To: op.State})
	}
	raw, err := json.Marshal(op)
	if err != nil {
		return was, fmt.Errorf("storing operation %s: %w", op.ID, err)
	}
	revision, err := l.operations.Update(ctx, events.EscapeToken(op.ID), raw, was.Revision)
	if err != nil {
		return was, fmt.Errorf("storing operation %s: %w", op.ID, conflict(err))
	}
	now := Versioned[operation.Operation]{Value: op, Revision: revision}
	l.Announce(ctx, now, was.Value.State)
	l.tellStall(ctx, was.Value, now)
	l.noticeChange(ctx, was.Value, now)
	return now, nil
}

// RestoreOperation puts an earlier record back over a change that could not be carried
// through, whatever the state machine says.
func (l *Ledger) RestoreOperation(ctx context.Context, now Versioned[operation.Operation], was operation.Operation) error {
	raw, err := json.Marshal(was)
	if err != nil {
		return fmt.Errorf("restoring operation %s: %w", was.ID, err)
	}
	revision, err := l.operations.Update(ctx, events.EscapeToken(was.ID), raw, now.Revision)
	if err != nil {
		return fmt.Errorf("restoring operation %s: %w", was.ID, conflict(err))
	}
	l.Announce(ctx, Versioned[operation.Operation]{Value: was, Revision: revision}, now.Value.State)
	return nil
}

// Announce publishes the event that tells of an operation's record.
func (l *Ledger) Announce(ctx context.Context, op Versioned[operation.Operation], previous operation.State) {
	l.Emit(ctx, op.Value.ID+"/"+strconv.FormatUint(op.Revision, 10), events.OperationChange{
		Operation: op.Value, Revision: op.Revision, Previous: previous,
	})
}

// RemoveOperation deletes an operation that was never accepted.
func (l *Ledger) RemoveOperation(ctx context.Context, op Versioned[operation.Operation]) error {
	err := l.operations.Delete(ctx, events.EscapeToken(op.Value.ID), op.Revision)
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		return fmt.Errorf("removing operation %s: %w", op.Value.ID, conflict(err))
	}
	return nil
}

// OperationOf returns the id of the operation that a watched entry is about; false
// when it is about none.
func OperationOf(e bus.Entry) (id string, ok bool) { return events.UnescapeToken(e.Key) }

// WatchOperations hints that operations have changed; see bus.Bucket.Watch.
func (l *Ledger) WatchOperations(ctx context.Context) (<-chan bus.Entry, error) {
	return l.operations.Watch(ctx, "")
}

// Accept places the operation's command and takes its scopes, all or nothing.
// Repeating it is harmless. When another operation holds a scope the error is an
// *operation.ScopeHeldError, which describes the holder as far as its record can
// be read; a holder that has ended without giving its scopes back is cleaned up on
// the way. After any other error the scopes may be held.
func (l *Ledger) Accept(ctx context.Context, op *operation.Operation) error {
	request, err := events.RequestFor(*op)
	if err != nil {
		return fmt.Errorf("accepting operation %s: %w", op.ID, err)
	}
	raw, err := l.envelope(op.ID, request)
	if err != nil {
		return fmt.Errorf("accepting operation %s: %w", op.ID, err)
	}
	command := bus.Message{Subject: events.Address(request), Data: raw}
	for range maxStaleHolders {
		_, err := l.scopes.Take(ctx, op.ID, command, op.Scope)
		var held *bus.ScopeHeldError
		if err == nil {
			return nil
		}
		if !errors.As(err, &held) {
			return fmt.Errorf("taking the scopes of operation %s: %w", op.ID, err)
		}
		holder, err := l.Operation(ctx, held.Holder)
		switch {
		case errors.Is(err, ErrUnreadable):
			// Held all the same, and nobody can tell whether it has ended.
			return &operation.ScopeHeldError{Scope: held.Scope, HolderID: held.Holder}
		case err == nil && !holder.Value.State.Terminal():
			return &operation.ScopeHeldError{
				Scope: held.Scope, HolderID: held.Holder, Kind: holder.Value.Kind,
				State: holder.Value.State, Since: holder.Value.CreatedAt,
			}
		case err != nil && !errors.Is(err, operation.ErrNotFound):
			return fmt.Errorf("taking the scopes of operation %s: %w", op.ID, err)
		}
		if err := l.Close(ctx, held.Holder); err != nil {
			return err
		}
	}
	return fmt.Errorf("taking the scopes of operation %s: held by ever new operations that have ended", op.ID)
}

// Holder returns an *operation.ScopeHeldError when an operation that has not ended
// holds one of the scopes. It takes nothing; another may take them a moment later.
func (l *Ledger) Holder(ctx context.Context, scopes []string) error {
	for _, scope := range scopes {
		lock, err := l.scopes.Holder(ctx, scope)
		if errors.Is(err, bus.ErrNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("looking for the holder of %s: %w", scope, err)
		}
		holder, err := l.Operation(ctx, lock.Holder)
		switch {
		case errors.Is(err, ErrUnreadable):
			return &operation.ScopeHeldError{Scope: scope, HolderID: lock.Holder}
		case errors.Is(err, operation.ErrNotFound), err == nil && holder.Value.State.Terminal():
			continue // left behind; taking the scope cleans up
		case err != nil:
			return fmt.Errorf("looking for the holder of %s: %w", scope, err)
		}
		return &operation.ScopeHeldError{
			Scope: scope, HolderID: lock.Holder, Kind: holder.Value.Kind,
			State: holder.Value.State, Since: holder.Value.CreatedAt,
		}
	}
	return nil
}

// maxStaleHolders bounds how many ended holders one Accept cleans up after.
const maxStaleHolders = 16

// Close gives back everything a terminal operation holds in the command
// stream: its scopes and its command. Repeating it is harmless.
func (l *Ledger) Close(ctx context.Context, id string) error {
	held, err := l.scopes.HeldBy(ctx, id)
	if err != nil {
		return fmt.Errorf("closing operation %s: %w", id, err)
	}
	if err := l.scopes.Release(ctx, held); err != nil {
		return fmt.Errorf("releasing the scopes of operation %s: %w", id, err)
	}
	return nil
}
