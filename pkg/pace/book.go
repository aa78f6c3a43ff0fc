package pace

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// Records are where limits are kept: an operation's in its record, those of the
// backends in one of their own.
type Records interface {
	Operation(ctx context.Context, id string) (ledger.Versioned[operation.Operation], error)
	BackendLimits(ctx context.Context) (operation.BackendLimits, error)
	// WatchOperations and WatchTopology hint that records have changed.
	WatchOperations(ctx context.Context) (<-chan bus.Entry, error)
	WatchTopology(ctx context.Context) (<-chan bus.Entry, error)
}

const (
	// reread is how old what the book says may be, whatever was watched.
	reread = time.Second
	// forgotten is when an operation that nobody asks about is not read any more.
	forgotten = 30 * time.Second
)

// Book knows the limits that are in force, for one process. Those of an operation
// are read when they are first asked for, and kept up to date from then on by Run:
// by hints, and once a second whatever was hinted. It is safe for concurrent use.
type Book struct {
	records Records
	logger  *slog.Logger
	now     func() time.Time

	mu         sync.RWMutex
	operations map[string]*entry
	backends   operation.BackendLimits
	// loaded says that backends has been read.
	loaded bool
}

// entry is what is known of one operation.
type entry struct {
	limits   operation.Limits
	revision uint64
	asked    time.Time
	read     time.Time
}

// NewBook returns a book that knows nothing yet. A nil clock is the real one.
func NewBook(r Records, logger *slog.Logger, now func() time.Time) *Book {
	if now == nil {
		now = time.Now
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Book{records: r, logger: logger, now: now, operations: map[string]*entry{}}
}

// Run keeps what was asked for up to date until ctx ends.
func (b *Book) Run(ctx context.Context) error {
	ticker := time.NewTicker(reread)
	defer ticker.Stop()
	var operations, backends <-chan bus.Entry
	for {
		if operations == nil {
			operations = b.watch(ctx, b.records.WatchOperations)
		}
		if backends == nil {
			backends = b.watch(ctx, b.records.WatchTopology)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			b.readAll(ctx)
		case e, ok := <-operations:
			if !ok {
				operations = nil
				continue
			}
			b.changed(ctx, e)
		case _, ok := <-backends:
			if !ok {
				backends = nil
				continue
			}
			b.logUnless(ctx, b.readBackends(ctx))
		}
	}
}

// watch starts to watch; without it the book is read once a second all the same.
func (b *Book) watch(ctx context.Context, how func(context.Context) (<-chan bus.Entry, error)) <-chan bus.Entry {
	changes, err := how(ctx)
	b.logUnless(ctx, err)
	return changes
}

func (b *Book) logUnless(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		b.logger.WarnContext(ctx, "reading limits; it is tried again", "error", err)
	}
}

// changed reads an operation again whose record is said to have changed.
func (b *Book) changed(ctx context.Context, e bus.Entry) {
	id, ok := events.UnescapeToken(e.Key)
	b.mu.RLock()
	known := b.operations[id]
	b.mu.RUnlock()
	if ok && known != nil {
		b.logUnless(ctx, b.readOperation(ctx, id))
	}
}

// readAll reads everything that somebody has asked for lately.
func (b *Book) readAll(ctx context.Context) {
	now := b.now()
	var ids []string
	b.mu.Lock()
	for id, e := range b.operations {
		if now.Sub(e.asked) > forgotten {
			delete(b.operations, id)
			continue
		}
		ids = append(ids, id)
	}
	// While nobody asks nothing is read, and nothing is believed.
	b.loaded = b.loaded && len(ids) > 0
	loaded := b.loaded
	b.mu.Unlock()
	if loaded {
		b.logUnless(ctx, b.readBackends(ctx))
	}
	for _, id := range ids {
		b.logUnless(ctx, b.readOperation(ctx, id))
	}
}

func (b *Book) readOperation(ctx context.Context, id string) error {
	v, err := b.records.Operation(ctx, id)
	if err != nil && !errors.Is(err, operation.ErrNotFound) {
		return err
	}
	b.note(id, v.Value.Limits, v.Revision)
	return nil
}

// note remembers an operation's limits, unless it knows later ones.
func (b *Book) note(id string, limits operation.Limits, revision uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	known, ok := b.operations[id]
	if !ok {
		known = &entry{asked: b.now()}
		b.operations[id] = known
	}
	known.read = b.now()
	if revision >= known.revision {
		known.limits, known.revision = limits, revision
	}
}

func (b *Book) readBackends(ctx context.Context) error {
	limits, err := b.records.BackendLimits(ctx)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backends, b.loaded = limits, true
	return nil
}

// Applied returns the limits that apply to a piece of work now.
func (b *Book) Applied(ctx context.Context, w *Work) (Applied, error) {
	now := b.now()
	b.mu.RLock()
	known, loaded := b.operations[w.OperationID], b.loaded
	var out Applied
	if known != nil && loaded && now.Sub(known.asked) < reread {
		out = b.applied(known, w)
		b.mu.RUnlock()
		return out, nil
	}
	b.mu.RUnlock()
	if !loaded {
		if err := b.readBackends(ctx); err != nil {
			return Applied{}, err
		}
	}
	if known == nil {
		if err := b.readOperation(ctx, w.OperationID); err != nil {
			return Applied{}, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if known = b.operations[w.OperationID]; known == nil {
		return Applied{}, nil // forgotten just now
	}
	known.asked = now
	return b.applied(known, w), nil
}

// rereadSoon is how old what the book says may be when somebody else says otherwise.
const rereadSoon = 50 * time.Millisecond

// AppliedNow is Applied for when somebody else has seen a limit: if the book knows of
// none, it looks again.
func (b *Book) AppliedNow(ctx context.Context, w *Work) (Applied, error) {
	by, err := b.Applied(ctx, w)
	if err != nil || !by.None() {
		return by, err
	}
	now := b.now()
	b.mu.Lock()
	known := b.operations[w.OperationID]
	fresh := known == nil || now.Sub(known.read) < rereadSoon
	if known != nil {
		known.read = now
	}
	b.mu.Unlock()
	if fresh {
		return by, nil
	}
	if err := b.readBackends(ctx); err != nil {
		return Applied{}, err
	}
	if err := b.readOperation(ctx, w.OperationID); err != nil {
		return Applied{}, err
	}
	return b.Applied(ctx, w)
}

func (b *Book) applied(e *entry, w *Work) Applied {
	return Applied{Operation: e.limits, Source: b.backends.Of(w.Source), Destination: b.backends.Of(w.Destination)}
}

// Backend returns the limits of one backend.
func (b *Book) Backend(ctx context.Context, url string) (operation.Limits, error) {
	b.mu.RLock()
	loaded, limits := b.loaded, b.backends.Of(url)
	b.mu.RUnlock()
	if loaded {
		return limits, nil
	}
	if err := b.readBackends(ctx); err != nil {
		return operation.Limits{}, err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.backends.Of(url), nil
}

// Seed tells the book of an operation whose record has just been read, so that it
// need not read it itself.
func (b *Book) Seed(op *operation.Operation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.operations[op.ID]; !ok {
		b.operations[op.ID] = &entry{limits: op.Limits, asked: b.now()}
	}
}
