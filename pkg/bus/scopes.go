package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"ringmaster/events"
)

// ErrScopeHeld says that another operation holds a scope.
var ErrScopeHeld = errors.New("scope is held")

// ScopeHeldError says which scope and by whom; it matches ErrScopeHeld.
type ScopeHeldError struct {
	Scope    string
	Holder   string
	Sequence uint64
}

// Error names the scope and its holder.
func (e *ScopeHeldError) Error() string {
	return fmt.Sprintf("scope %s is held by operation %s", e.Scope, e.Holder)
}

// Is makes errors.Is(err, ErrScopeHeld) true.
func (e *ScopeHeldError) Is(target error) bool { return target == ErrScopeHeld }

// Scopes are the locks of operations. A scope is a path (`circle/0`,
// `index/demo/dst`); an operation takes all of its scopes and places its
// command in one atomic batch, and holds them until they are released.
type Scopes struct {
	bus *Bus
}

// ScopeLock is a lock that is held.
type ScopeLock struct {
	Scope string
	// Holder is the id of the operation.
	Holder   string
	Sequence uint64
	Time     time.Time
}

// Scopes returns the scope locks.
func (b *Bus) Scopes() *Scopes { return &Scopes{bus: b} }

// Take places the operation's command and locks all scopes for it, or does
// nothing; a scope named twice counts once. It returns the sequences of the command and of the locks, in this
// order, for Release. If the operation holds all of it already, as after a Take
// whose answer was lost, that is success.
//
// It returns a *ScopeHeldError when another operation holds a scope. If that one
// is terminal, the caller may release its locks and take again. After an error
// that matches ErrUnavailable the scopes may be held: HeldBy says.
func (s *Scopes) Take(ctx context.Context, operation string, command Message, scopes []string) ([]uint64, error) {
	ctx, cancel := s.bus.bounded(ctx)
	defer cancel()
	scopes = distinct(scopes)
	messages := make([]Message, 0, len(scopes)+1)
	messages = append(messages, command)
	for _, scope := range scopes {
		lock, err := s.lock(operation, scope)
		if err != nil {
			return nil, fmt.Errorf("taking scopes for operation %s: %w", operation, err)
		}
		messages = append(messages, lock)
	}
	for {
		sequences, err := s.bus.PublishBatch(ctx, events.StreamCommands, messages)
		if err == nil {
			return sequences, nil
		}
		if !errors.Is(err, ErrSubjectTaken) && !errors.Is(err, ErrUnavailable) {
			return nil, fmt.Errorf("taking scopes for operation %s: %w", operation, err)
		}
		held, readErr := s.held(ctx, operation, command, scopes)
		switch {
		case readErr != nil:
			return nil, fmt.Errorf("taking scopes for operation %s: %w", operation, errors.Join(readErr, err))
		case len(held) == len(messages):
			return held, nil
		case len(held) > 0:
			// What is left of an earlier hold whose release was cut off: the
			// batch is one step, so it can't be a part of a new one.
			if err := s.Release(ctx, held); err != nil {
				return nil, err
			}
		}
		if pause(ctx, retryPause) != nil {
			return nil, fmt.Errorf("taking scopes for operation %s: %w", operation, err)
		}
	}
}

// distinct leaves out repetitions.
func distinct(scopes []string) []string {
	once := make([]string, 0, len(scopes))
	for _, s := range scopes {
		if !slices.Contains(once, s) {
			once = append(once, s)
		}
	}
	return once
}

// held reads what the operation holds of its command and scopes, and returns a
// *ScopeHeldError if anything of it is another's.
func (s *Scopes) held(ctx context.Context, operation string, command Message, scopes []string) ([]uint64, error) {
	read := func() ([]uint64, error) {
		var own []uint64
		r, err := s.bus.last(ctx, events.StreamCommands, command.Subject)
		switch {
		case err == nil:
			own = append(own, r.Sequence)
		case !errors.Is(err, ErrNotFound):
			return nil, err
		}
		for _, scope := range scopes {
			lock, err := s.Holder(ctx, scope)
			switch {
			case errors.Is(err, ErrNotFound):
			case err != nil:
				return nil, err
			case lock.Holder != operation:
				return nil, &ScopeHeldError{Scope: scope, Holder: lock.Holder, Sequence: lock.Sequence}
			default:
				own = append(own, lock.Sequence)
			}
		}
		return own, nil
	}
	own, err := read()
	if err != nil || len(own) == 0 || len(own) == len(scopes)+1 {
		return own, err
	}
	// The first reads may have been made before the batch was stored and the
	// others after it. It is stored now, so a second look sees all of it.
	return read()
}

// lock is the message that holds a scope.
func (s *Scopes) lock(operation, scope string) (Message, error) {
	take := events.ScopeTake{OperationID: operation, Scope: scope}
	envelope, err := events.New(operation+"/"+scope, s.bus.name, time.Now(), take)
	if err != nil {
		return Message{}, err
	}
	data, err := json.Marshal(envelope)
	return Message{Subject: events.Address(take), Data: data}, err
}

// decodeLock is the inverse of lock.
func decodeLock(r Record) (ScopeLock, error) {
	_, payload, err := events.Decode(r.Data)
	if err != nil {
		return ScopeLock{}, fmt.Errorf("reading scope lock %d: %w", r.Sequence, err)
	}
	take, ok := payload.(events.ScopeTake)
	if !ok {
		return ScopeLock{}, fmt.Errorf("reading scope lock %d: it is a %s", r.Sequence, payload.EventType())
	}
	return ScopeLock{Scope: take.Scope, Holder: take.OperationID, Sequence: r.Sequence, Time: r.Time}, nil
}

// Holder returns who holds a scope, or ErrNotFound.
func (s *Scopes) Holder(ctx context.Context, scope string) (ScopeLock, error) {
	r, err := s.bus.boundedLast(ctx, events.StreamCommands, events.ScopeSubject(scope))
	if err != nil {
		return ScopeLock{}, fmt.Errorf("reading the holder of scope %s: %w", scope, err)
	}
	return decodeLock(r)
}

// HeldBy returns the sequences of everything an operation holds: its command
// and its locks, for Release.
func (s *Scopes) HeldBy(ctx context.Context, operation string) ([]uint64, error) {
	var held []uint64
	for r, err := range s.bus.scan(ctx, events.StreamCommands, events.AllCommands) {
		if err != nil {
			return nil, fmt.Errorf("reading what operation %s holds: %w", operation, err)
		}
		if _, of, ok := events.ParseCommandSubject(r.Subject); ok && of == operation {
			held = append(held, r.Sequence)
		}
	}
	for r, err := range s.bus.scan(ctx, events.StreamCommands, events.AllScopes) {
		if err != nil {
			return nil, fmt.Errorf("reading what operation %s holds: %w", operation, err)
		}
		lock, err := decodeLock(r)
		if err != nil {
			return nil, err
		}
		if lock.Holder == operation {
			held = append(held, r.Sequence)
		}
	}
	return held, nil
}

// Release removes exactly these messages. What is gone already is no error. It
// must be called only when the operation is terminal.
func (s *Scopes) Release(ctx context.Context, sequences []uint64) error {
	ctx, cancel := s.bus.bounded(ctx)
	defer cancel()
	for _, sequence := range sequences {
		if err := s.bus.deleteMessage(ctx, events.StreamCommands, sequence); err != nil {
			return fmt.Errorf("releasing sequence %d: %w", sequence, err)
		}
	}
	return nil
}

// Open yields what is held: events.AllCommands gives the commands of all open
// operations, events.AllScopes all locks, in the order in which they were taken.
// A command's data is what was published, a lock's data is the id of the
// operation that holds it. In a cluster, what was released milliseconds ago may
// still come. An error ends the sequence.
func (s *Scopes) Open(ctx context.Context, filter string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for r, err := range s.bus.scan(ctx, events.StreamCommands, filter) {
			if _, isLock := events.ParseScopeSubject(r.Subject); isLock && err == nil {
				var lock ScopeLock
				lock, err = decodeLock(r)
				r.Data = []byte(lock.Holder)
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}
