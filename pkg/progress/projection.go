package progress

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"ringmaster/events"
	"ringmaster/pkg/operation"
)

// Options configure a Projection; the zero value is what production uses.
type Options struct {
	// Poll, Rescan and MaxTerminal replace the defaults of these names.
	Poll, Rescan time.Duration
	MaxTerminal  int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Logger is told of trouble; nil means none.
	Logger *slog.Logger
	// OnChange is called with every operation whose shown record or progress has
	// changed, in that order, by one caller at a time. It must neither block
	// nor call the projection.
	OnChange func(operation.Operation)
}

func (o Options) withDefaults() Options {
	if o.Poll <= 0 {
		o.Poll = DefaultPoll
	}
	if o.Rescan <= 0 {
		o.Rescan = DefaultRescan
	}
	if o.MaxTerminal <= 0 {
		o.MaxTerminal = DefaultMaxTerminal
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnChange == nil {
		o.OnChange = func(operation.Operation) {}
	}
	return o
}

// Projection is the latest public state of every operation, in memory. It is
// bounded: all open operations and the newest MaxTerminal terminal ones. What
// its methods return is shared and must not be changed.
type Projection struct {
	records Records
	log     Log
	options Options

	running atomic.Bool
	// wanted asks the poller to read all records now; lookup names operations
	// that an event was about and that are not known. Both are hints: a full
	// channel drops them, and the next rescan finds what they would have.
	wanted chan struct{}
	lookup chan string

	mu    sync.RWMutex
	table *table
	// seeded is set once all records have been read.
	seeded bool
	heard  time.Time
}

// New returns a projection that knows nothing until it runs.
func New(records Records, log Log, options Options) *Projection {
	options = options.withDefaults()
	return &Projection{
		records: records, log: log, options: options,
		wanted: make(chan struct{}, 1),
		lookup: make(chan string, 64),
		table:  newTable(options.MaxTerminal),
	}
}

// Run keeps the projection up to date until ctx ends, and then returns nil.
// Trouble with the stream or the records is logged and tried again; AsOf and
// Ready tell of it. A second Run at one time is ErrRunning.
func (p *Projection) Run(ctx context.Context) error {
	if !p.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer p.running.Store(false)
	var both sync.WaitGroup
	both.Go(func() { p.follow(ctx) })
	both.Go(func() { p.poll(ctx) })
	both.Wait()
	return nil
}

// Observe takes in a record that the caller has just written or read, so that
// this process shows it without waiting for its event.
func (p *Projection) Observe(op operation.Operation, revision uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.putRecord(op, revision)
}

// Operation returns the operation of that id, as it may be shown. One that is
// not found may still have a record: it is too new or too old to be here.
func (p *Projection) Operation(id string) (operation.Operation, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.table.get(id)
}

// List returns a page of the selected operations, newest first. cursor is empty
// for the first page and then the next of the page before; next is empty at the
// end. A page is not disturbed by operations that begin meanwhile. A limit
// below 1 means DefaultPage, one above MaxPage means MaxPage.
func (p *Projection) List(filter operation.Filter, cursor string, limit int) (items []operation.Operation, next string, err error) {
	before, err := decodeCursor(cursor)
	if err != nil {
		return nil, "", err
	}
	if limit < 1 {
		limit = DefaultPage
	}
	limit = min(limit, MaxPage)
	p.mu.RLock()
	defer p.mu.RUnlock()
	items = []operation.Operation{}
	for op := range p.table.newest(before) {
		if !filter.Match(op) {
			continue
		}
		if len(items) == limit {
			return items, encodeCursor(items[limit-1].ID), nil
		}
		items = append(items, *op)
	}
	return items, "", nil
}

// Latest returns the newest operation of a kind that holds, or has held, a
// scope.
func (p *Projection) Latest(kind operation.Kind, scope string) (operation.Operation, bool) {
	filter := operation.Filter{Kind: kind, Scope: scope}
	p.mu.RLock()
	defer p.mu.RUnlock()
	for op := range p.table.newest("") {
		if filter.Match(op) {
			return *op, true
		}
	}
	return operation.Operation{}, false
}

// Open returns the operations that are not terminal, newest first.
func (p *Projection) Open() []operation.Operation {
	p.mu.RLock()
	defer p.mu.RUnlock()
	var open []operation.Operation
	for op := range p.table.newest("") {
		if !op.State.Terminal() {
			open = append(open, *op)
		}
	}
	return open
}

// AsOf returns when the projection last heard from the stream or read the
// records of all open operations; zero before the first time.
func (p *Projection) AsOf() time.Time {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.heard
}

// Ready returns nil when the projection can be served from, and otherwise an
// error that wraps ErrNotReady or ErrStale.
func (p *Projection) Ready() error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if !p.seeded {
		return ErrNotReady
	}
	if silent := p.options.Now().Sub(p.heard); silent > staleAfter*p.options.Poll {
		return fmt.Errorf("%w for %s", ErrStale, silent.Round(time.Second))
	}
	return nil
}

// putRecord is table.putRecord for holders of the lock.
func (p *Projection) putRecord(op operation.Operation, revision uint64) {
	if p.table.putRecord(op, revision) {
		p.changed(op.ID)
	}
}

func (p *Projection) changed(id string) {
	if op, ok := p.table.get(id); ok {
		p.options.OnChange(op)
	}
}

// apply takes in one event.
func (p *Projection) apply(payload events.Payload) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := payload.(type) {
	case events.OperationChange:
		p.putRecord(e.Operation, e.Revision)
	case events.OperationRemove:
		// It had ended, and nobody can begin it again.
		p.table.forget(e.OperationID)
	case events.OperationProgress:
		changed, known := p.table.putProgress(e)
		if changed {
			p.changed(e.OperationID)
		}
		if !known {
			select {
			case p.lookup <- e.OperationID:
			default:
			}
		}
	}
}

const cursorPrefix = "operation:"

func encodeCursor(id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(cursorPrefix + id))
}

func decodeCursor(cursor string) (id string, err error) {
	if cursor == "" {
		return "", nil
	}
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(text) <= len(cursorPrefix) || string(text[:len(cursorPrefix)]) != cursorPrefix {
		return "", ErrCursor
	}
	return string(text[len(cursorPrefix):]), nil
}
