// Package ledger keeps the records that are the truth about every operation:
// operations, tasks, plans, reports, topology epochs and the audit trail. A
// record changes only by compare-and-set on its revision; after each change an
// event tells of it, and losing that event loses nothing.
package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/operation"
)

// ErrConflict says that the record has changed since it was read. Read it again
// and decide anew.
var ErrConflict = errors.New("the record has changed meanwhile")

// ErrNoTask says that the operation has no task of that id.
var ErrNoTask = errors.New("no such task")

// ErrUnreadable says that something is stored, but it is not what was stored, or
// this release does not understand it. Reading it again will not help. A list that
// is only shown leaves it out, and the log names it; nothing may be judged without
// it.
var ErrUnreadable = errors.New("stored, but cannot be read")

// Versioned is a record with the revision it was read at.
type Versioned[T any] struct {
	Value    T
	Revision uint64
}

// Options configure a ledger. Zero values mean the real clock, random ids and
// no log.
type Options struct {
	// Source names this process in events, for example "api/7f3c".
	Source string
	Now    func() time.Time
	NewID  func() string
	Logger *slog.Logger
	// Notices has notices made for the webhook; see Notice.
	Notices bool
}

// Ledger reads and writes records. It is safe for concurrent use.
type Ledger struct {
	operations  *bus.Bucket
	tasks       *bus.Bucket
	idempotency *bus.Bucket
	topology    *bus.Bucket
	notices     *bus.Bucket
	scopes      *bus.Scopes
	objects     *bus.Objects
	events      *bus.Log
	audit       *bus.Log
	letters     *bus.Log
	notes       *bus.Log
	options     Options
	// later has the events of tasks.
	later *outbox

	chunks chunkCache
}

// New returns the ledger on a bus whose streams and buckets have been applied.
func New(ctx context.Context, b *bus.Bus, o Options) (*Ledger, error) {
	objects, err := b.Objects(ctx, events.ObjectStorePlans)
	if err != nil {
		return nil, fmt.Errorf("opening the plan store: %w", err)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.NewID == nil {
		o.NewID = newID
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Ledger{
		operations:  b.Bucket(events.BucketOperations),
		tasks:       b.Bucket(events.BucketTasks),
		idempotency: b.Bucket(events.BucketIdempotency),
		topology:    b.Bucket(events.BucketTopology),
		notices:     b.Bucket(events.BucketNotices),
		scopes:      b.Scopes(),
		objects:     objects,
		events:      b.Log(events.StreamEvents),
		audit:       b.Log(events.StreamAudit),
		letters:     b.Log(events.StreamDeadLetters),
		notes:       b.Log(events.StreamNotes),
		options:     o,
		chunks:      chunkCache{mu: sync.Mutex{}},
	}
	l.later = newOutbox(l.storeEvents)
	return l, nil
}

// newID returns a UUIDv7, or a random UUID should the clock fail it.
func newID() string {
	if id, err := uuid.NewV7(); err == nil {
		return id.String()
	}
	return uuid.NewString()
}

// emitTimeout bounds how long telling of a change may hold up the change.
const emitTimeout = 5 * time.Second

// Emit publishes an event. An event is history: that one is lost is logged, not
// an error, since whoever needs the truth reads the record. The events of tasks go
// together, a moment later; see Flush.
func (l *Ledger) Emit(ctx context.Context, id string, p events.Payload) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), emitTimeout)
	defer cancel()
	if err := l.emit(ctx, id, p); err != nil {
		l.options.Logger.WarnContext(ctx, "event lost", "type", p.EventType(), "about", p.About(), "error", err)
	}
}

func (l *Ledger) emit(ctx context.Context, id string, p events.Payload) error {
	switch p.(type) {
	case events.TaskChange, events.TaskProgress:
	default:
		if err := l.later.flush(ctx); err != nil { // it is to come after those
			return err
		}
		return l.append(ctx, l.events, id, p)
	}
	if id == "" {
		id = l.options.NewID()
	}
	raw, err := l.envelope(id, p)
	if err != nil {
		return err
	}
	return l.later.add(ctx, bus.Message{Subject: events.Address(p), ID: id, Data: raw})
}

// storeEvents stores events that have gathered.
func (l *Ledger) storeEvents(messages []bus.Message) {
	ctx, cancel := context.WithTimeout(context.Background(), emitTimeout)
	defer cancel()
	if err := l.events.AppendMany(ctx, messages); err != nil {
		l.options.Logger.WarnContext(ctx, "events of tasks lost", "events", len(messages), "error", err)
	}
}

// Flush waits until the events of tasks that were published before have been stored,
// or ctx ends.
func (l *Ledger) Flush(ctx context.Context) {
	_ = l.later.flush(ctx) // what is left is stored after it, or lost
}

func (l *Ledger) append(ctx context.Context, log *bus.Log, id string, p events.Payload) error {
	if id == "" {
		id = l.options.NewID()
	}
	raw, err := l.envelope(id, p)
	if err != nil {
		return err
	}
	_, err = log.Append(ctx, events.Address(p), id, raw)
	return err
}

func (l *Ledger) envelope(id string, p events.Payload) ([]byte, error) {
	e, err := events.New(id, l.options.Source, l.options.Now(), p)
	if err != nil {
		return nil, err
	}
	return json.Marshal(e)
}

// decode reads a stored record.
func decode[T any](e bus.Entry) (Versioned[T], error) {
	v := Versioned[T]{Revision: e.Revision}
	if err := json.Unmarshal(e.Value, &v.Value); err != nil {
		return v, fmt.Errorf("reading record %s: %w: %w", e.Key, ErrUnreadable, err)
	}
	return v, nil
}

// conflict turns the bus's refusals of a compare-and-set into ErrConflict.
func conflict(err error) error {
	if errors.Is(err, bus.ErrConflict) || errors.Is(err, bus.ErrExists) {
		return ErrConflict
	}
	return err
}

// Audit adds an entry to the audit trail; it is durable when Audit returns nil.
// The same entry again within two minutes is stored once.
func (l *Ledger) Audit(ctx context.Context, entry operation.AuditEntry) error {
	id := fmt.Sprintf("%s/%s/%d", entry.OperationID, entry.Action, entry.At.UnixNano())
	if err := l.append(ctx, l.audit, id, events.AuditRecord{AuditEntry: entry}); err != nil {
		return fmt.Errorf("writing the audit trail: %w", err)
	}
	return nil
}

// maxAuditEntries bounds one operation's audit trail as it is read.
const maxAuditEntries = 1000

// AuditTrail returns what was done to an operation, oldest first. An entry that
// cannot be read is left out and logged.
func (l *Ledger) AuditTrail(ctx context.Context, id string) ([]operation.AuditEntry, error) {
	records, err := l.audit.Page(ctx, 0, events.AuditSubject(id), maxAuditEntries)
	var gap *bus.GapError
	if err != nil && !errors.As(err, &gap) {
		return nil, fmt.Errorf("reading the audit trail: %w", err)
	}
	entries := make([]operation.AuditEntry, 0, len(records))
	for _, r := range records {
		_, p, err := events.Decode(r.Data)
		if err != nil {
			l.options.Logger.ErrorContext(ctx, "audit entry left out", "operation", id, "sequence", r.Sequence, "error", err)
			continue
		}
		if a, ok := p.(events.AuditRecord); ok {
			entries = append(entries, a.AuditEntry)
		}
	}
	return entries, nil
}

// Reject keeps a message that cannot be carried out among the dead letters.
func (l *Ledger) Reject(ctx context.Context, stream, subject string, data []byte, reason string) error {
	p := events.Rejected(reason, stream, subject, 0, data)
	if err := l.append(ctx, l.letters, "", p); err != nil {
		return fmt.Errorf("keeping a dead letter: %w", err)
	}
	return nil
}

// Refuse keeps points that a backend refuses for good among the dead letters, in as
// many letters as they need. They are there when it returns nil. The same id again
// within minutes stores nothing twice.
func (l *Ledger) Refuse(ctx context.Context, id string, p events.PointsRefuse) error {
	for i, letter := range p.Cut() {
		if err := l.append(ctx, l.letters, fmt.Sprintf("%s/%d", id, i), letter); err != nil {
			return fmt.Errorf("keeping refused points: %w", err)
		}
	}
	return nil
}
