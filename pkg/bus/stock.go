package bus

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"ringmaster/events"
)

// ErrFull says that a store has reached its bound and keeps what it has: nothing was
// stored.
var ErrFull = errors.New("the store is full")

// Size is how much a bucket, a log or an object store holds.
type Size struct {
	Messages uint64
	Bytes    uint64
	// MaxBytes is its bound; 0 when it has none.
	MaxBytes uint64
}

// size reads how much a stream holds, from its leader.
func (b *Bus) size(ctx context.Context, stream string) (Size, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	var size Size
	err := b.repeat(ctx, func(ctx context.Context) error {
		s, err := b.js.Stream(ctx, stream)
		if err == nil {
			info := s.CachedInfo()
			size = Size{Messages: info.State.Msgs, Bytes: info.State.Bytes, MaxBytes: uint64(max(info.Config.MaxBytes, 0))}
		}
		return err
	})
	if err != nil {
		return Size{}, fmt.Errorf("reading the size of %s: %w", stream, err)
	}
	return size, nil
}

// subjects counts the messages of each subject that matches a filter, without
// reading any of them; the stream's leader answers.
func (b *Bus) subjects(ctx context.Context, stream, filter string) (map[string]uint64, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	var counts map[string]uint64
	err := b.repeat(ctx, func(ctx context.Context) error {
		s, err := b.js.Stream(ctx, stream)
		if err != nil {
			return err
		}
		info, err := s.Info(ctx, jetstream.WithSubjectFilter(filter))
		if err == nil {
			counts = info.State.Subjects
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing the subjects of %s: %w", stream, err)
	}
	return counts, nil
}

// Size returns how much the bucket holds.
func (k *Bucket) Size(ctx context.Context) (Size, error) { return k.bus.size(ctx, k.stream) }

// Keys returns all keys below prefix without their values, in no particular order;
// see List for the prefix. Keys that were deleted are among them as long as their
// marker is there.
func (k *Bucket) Keys(ctx context.Context, prefix string) ([]string, error) {
	filter, err := k.filter(prefix)
	if err != nil {
		return nil, err
	}
	found, err := k.bus.subjects(ctx, k.stream, filter)
	if err != nil {
		return nil, err
	}
	keys := make([]string, 0, len(found))
	for subject := range found {
		keys = append(keys, strings.TrimPrefix(subject, bucketSubject(k.name, "")))
	}
	return keys, nil
}

// Remove is Delete that leaves no marker behind, for buckets that would otherwise keep
// one for every key that they ever had. It may leave one when it is cut off, and what
// it has removed may come back when a server is killed before it has written that
// down: it is for what is looked for again.
func (k *Bucket) Remove(ctx context.Context, key string, revision uint64) error {
	marker, err := k.mark(ctx, key, revision)
	if err != nil {
		return err
	}
	// Up to the marker only: the key may have been created again since.
	if err := k.bus.purgeThrough(ctx, k.stream, bucketSubject(k.name, key), marker); err != nil {
		return fmt.Errorf("removing %s/%s: %w", k.name, key, err)
	}
	return nil
}

// EraseAll removes every key below prefix, which must not be empty, and their markers;
// see List. It compares nothing, so it is for what nobody may write any more.
func (k *Bucket) EraseAll(ctx context.Context, prefix string) error {
	if err := checkKey(strings.TrimSuffix(prefix, ".")); err != nil {
		return err
	}
	filter, err := k.filter(prefix)
	if err != nil {
		return err
	}
	if err := k.bus.purge(ctx, k.stream, filter); err != nil {
		return fmt.Errorf("erasing %s/%s: %w", k.name, prefix, err)
	}
	return nil
}

// Get returns the record with this sequence, or ErrNotFound.
func (l *Log) Get(ctx context.Context, sequence uint64) (Record, error) {
	if sequence == 0 {
		return Record{}, fmt.Errorf("reading %s: %w", l.stream, ErrNotFound)
	}
	ctx, cancel := l.bus.bounded(ctx)
	defer cancel()
	r, err := l.bus.get(ctx, l.stream, messageRequest{Sequence: sequence})
	if err != nil {
		return Record{}, fmt.Errorf("reading sequence %d of %s: %w", sequence, l.stream, err)
	}
	return r, nil
}

// Delete removes the record with this sequence. One that is gone already is no error.
func (l *Log) Delete(ctx context.Context, sequence uint64) error {
	ctx, cancel := l.bus.bounded(ctx)
	defer cancel()
	if err := l.bus.deleteMessage(ctx, l.stream, sequence); err != nil {
		return fmt.Errorf("deleting sequence %d of %s: %w", sequence, l.stream, err)
	}
	return nil
}

// Subjects returns the subjects that match a filter and have records.
func (l *Log) Subjects(ctx context.Context, filter string) ([]string, error) {
	found, err := l.bus.subjects(ctx, l.stream, filter)
	if err != nil {
		return nil, err
	}
	all := make([]string, 0, len(found))
	for subject := range found {
		all = append(all, subject)
	}
	return all, nil
}

// Nudges yields what lies in the queue, also what workers have, without taking it;
// see Scopes.Open for what a cluster may show. An error ends the sequence.
func (q *Queue) Nudges(ctx context.Context) iter.Seq2[Record, error] {
	return q.bus.scan(ctx, events.StreamTasks, events.AllTasks)
}

// Remove removes one nudge, wherever it is. One that is gone already is no error.
func (q *Queue) Remove(ctx context.Context, sequence uint64) error {
	ctx, cancel := q.bus.bounded(ctx)
	defer cancel()
	if err := q.bus.deleteMessage(ctx, events.StreamTasks, sequence); err != nil {
		return fmt.Errorf("removing nudge %d: %w", sequence, err)
	}
	return nil
}

// Size returns how much the store holds, and its bound.
func (o *Objects) Size(ctx context.Context) (Size, error) { return o.bus.size(ctx, o.stream) }

// RemoveStray removes the chunks that belong to no object and were stored before a
// moment: what a Put leaves that dies before it has named them. It returns how many
// Puts they were of.
func (o *Objects) RemoveStray(ctx context.Context, before time.Time) (int, error) {
	// The chunks first: an object that is put meanwhile has its chunks missing here
	// rather than its name.
	chunks, err := o.bus.subjects(ctx, o.stream, o.chunkSubject(">"))
	if err != nil || len(chunks) == 0 {
		return 0, err
	}
	objects, err := o.List(ctx)
	if err != nil {
		return 0, err
	}
	for i := range objects {
		delete(chunks, o.chunkSubject(objects[i].id))
	}
	removed := 0
	for subject := range chunks {
		newest, err := o.bus.boundedLast(ctx, o.stream, subject)
		switch {
		case errors.Is(err, ErrNotFound):
			continue
		case err != nil:
			return removed, fmt.Errorf("looking for stray chunks: %w", err)
		case !newest.Time.Before(before):
			continue
		}
		if err := o.bus.purge(ctx, o.stream, subject); err != nil {
			return removed, fmt.Errorf("removing stray chunks: %w", err)
		}
		removed++
	}
	return removed, nil
}
