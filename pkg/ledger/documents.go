package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/operation"
)

// ErrNoDocument says that the operation has no plan, or no report, yet. One that
// it should have and that is gone is ErrUnreadable.
var ErrNoDocument = errors.New("no such document")

// PutDocument stores a value as zstd-compressed JSON. The name it returns is
// made of the content, so storing it again does nothing.
func (l *Ledger) PutDocument(ctx context.Context, op, kind string, value any) (operation.Document, error) {
	packed, err := pack(value)
	if err != nil {
		return operation.Document{}, fmt.Errorf("storing %s of operation %s: %w", kind, op, err)
	}
	doc := operation.Document{SHA256: digest(packed), Bytes: int64(len(packed))}
	doc.Object = fmt.Sprintf("%s/%s/%s", op, kind, doc.SHA256[:16])
	// Putting it again would take its chunks away under whoever reads it.
	if stored, err := l.objects.GetBytes(ctx, doc.Object); err == nil && digest(stored) == doc.SHA256 {
		return doc, nil
	}
	if _, err := l.objects.PutBytes(ctx, doc.Object, packed); err != nil {
		return operation.Document{}, fmt.Errorf("storing %s of operation %s: %w", kind, op, err)
	}
	return doc, nil
}

// maxDocument bounds what a document may unpack to.
const maxDocument = 256 << 20

func pack(value any) ([]byte, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encoding it: %w", err)
	}
	if len(raw) > maxDocument {
		return nil, fmt.Errorf("%d bytes are more than a document may have (%d)", len(raw), maxDocument)
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("compressing it: %w", err)
	}
	packed := encoder.EncodeAll(raw, nil)
	if err := encoder.Close(); err != nil {
		return nil, fmt.Errorf("compressing it: %w", err)
	}
	return packed, nil
}

func unpack(packed []byte, into any) error {
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxDocument))
	if err != nil {
		return fmt.Errorf("decompressing it: %w", err)
	}
	defer decoder.Close()
	raw, err := decoder.DecodeAll(packed, nil)
	if err != nil {
		return fmt.Errorf("decompressing it: %w", err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("decoding it: %w", err)
	}
	return nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// document reads back what a record refers to. What is gone or is not what was
// stored matches ErrUnreadable.
func (l *Ledger) document(ctx context.Context, doc operation.Document, into any) error {
	packed, err := l.objects.GetBytes(ctx, doc.Object)
	switch {
	case errors.Is(err, bus.ErrNotFound), errors.Is(err, bus.ErrDamaged):
		return fmt.Errorf("reading %s: %w: %w", doc.Object, ErrUnreadable, err)
	case err != nil:
		return fmt.Errorf("reading %s: %w", doc.Object, err)
	case digest(packed) != doc.SHA256:
		return fmt.Errorf("reading %s: %w: its digest is another", doc.Object, ErrUnreadable)
	}
	if err := unpack(packed, into); err != nil {
		return fmt.Errorf("reading %s: %w: %w", doc.Object, ErrUnreadable, err)
	}
	return nil
}

// Plan reads an operation's plan, or ErrNoDocument.
func (l *Ledger) Plan(ctx context.Context, op *operation.Operation) (operation.Plan, error) {
	var p operation.Plan
	if op.Plan == nil {
		return p, fmt.Errorf("plan of operation %s: %w", op.ID, ErrNoDocument)
	}
	return p, l.document(ctx, op.Plan.Document, &p)
}

// Report reads an operation's verification report, or ErrNoDocument.
func (l *Ledger) Report(ctx context.Context, op *operation.Operation) (operation.Report, error) {
	var r operation.Report
	if op.Report == nil {
		return r, fmt.Errorf("report of operation %s: %w", op.ID, ErrNoDocument)
	}
	return r, l.document(ctx, *op.Report, &r)
}

// Slices reads the slices of a task: those written out in its record, or its
// span of the plan. They may be shared and must not be changed.
func (l *Ledger) Slices(ctx context.Context, op *operation.Operation, t *operation.Task) ([]operation.Slice, error) {
	if t.Span == nil {
		return t.Slices, nil
	}
	plan, err := l.cachedPlan(ctx, op)
	if err != nil {
		return nil, err
	}
	if t.Span.Chunk < 0 || t.Span.Chunk >= len(plan.Chunks) {
		return nil, fmt.Errorf("slices of task %s: %w: the plan has no chunk %d", t.ID, ErrUnreadable, t.Span.Chunk)
	}
	chunk, err := l.Chunk(ctx, plan.Chunks[t.Span.Chunk])
	if err != nil {
		return nil, err
	}
	end := t.Span.First + t.Span.Count
	if t.Span.First < 0 || end < t.Span.First || end > len(chunk) {
		return nil, fmt.Errorf("slices of task %s: %w: its span lies outside its chunk", t.ID, ErrUnreadable)
	}
	return chunk[t.Span.First:end], nil
}

// Chunk reads one chunk of a plan. The slices are shared and must not be
// changed.
func (l *Ledger) Chunk(ctx context.Context, doc operation.Document) ([]operation.Slice, error) {
	if chunk, ok := l.chunks.get(doc.Object); ok {
		return chunk, nil
	}
	var chunk []operation.Slice
	if err := l.document(ctx, doc, &chunk); err != nil {
		return nil, err
	}
	l.chunks.put(doc.Object, chunk)
	return chunk, nil
}

func (l *Ledger) cachedPlan(ctx context.Context, op *operation.Operation) (operation.Plan, error) {
	if op.Plan == nil {
		return operation.Plan{}, fmt.Errorf("plan of operation %s: %w", op.ID, ErrNoDocument)
	}
	if p, ok := l.chunks.plan(op.Plan.Object); ok {
		return p, nil
	}
	p, err := l.Plan(ctx, op)
	if err == nil {
		l.chunks.keepPlan(op.Plan.Object, p)
	}
	return p, err
}

// chunkCache keeps the last chunk and the last plan: tasks are handed out in
// the order of the plan, so neighbours share them. Names are made of content,
// so nothing in it can be stale.
type chunkCache struct {
	mu       sync.Mutex
	name     string
	slices   []operation.Slice
	planName string
	held     operation.Plan
}

func (c *chunkCache) get(name string) ([]operation.Slice, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.slices, c.name == name
}

func (c *chunkCache) put(name string, slices []operation.Slice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.name, c.slices = name, slices
}

func (c *chunkCache) plan(name string) (operation.Plan, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held, c.planName == name
}

func (c *chunkCache) keepPlan(name string, p operation.Plan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.planName, c.held = name, p
}
