package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"maps"
	mathrand "math/rand/v2"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"ringmaster/events"
)

const (
	headerOperation    = "KV-Operation"
	headerMarkerReason = "Nats-Marker-Reason"
	headerRollup       = "Nats-Rollup"
	// headerWrite names one call of Create, Update or Delete. It tells a call
	// whose acknowledgement was lost that the message it finds is its own.
	headerWrite = "Ringmaster-Write"
)

// Bucket is a key-value bucket whose keys are changed by compare-and-set only.
//
// Keys consist of letters, digits and any of `-/_=.`, with dots between tokens.
type Bucket struct {
	bus    *Bus
	name   string
	stream string
}

// Entry is a key with its latest value.
type Entry struct {
	Key   string
	Value []byte
	// Revision is what Update and Delete compare. It grows with every write to
	// the bucket.
	Revision uint64
	// Created is when this revision was stored, by the server's clock.
	Created time.Time
	// Deleted is set by Watch only: the key was deleted or has expired.
	Deleted bool
}

// Bucket returns the bucket of this name, which Apply has created.
func (b *Bus) Bucket(name string) *Bucket {
	return &Bucket{bus: b, name: name, stream: bucketStream(name)}
}

func bucketStream(name string) string          { return "KV_" + name }
func bucketSubject(name, filter string) string { return "$KV." + name + "." + filter }

// Get returns the key's latest value, or ErrNotFound. The stream's leader
// answers: what was written before the call is found.
func (k *Bucket) Get(ctx context.Context, key string) (Entry, error) {
	if err := checkKey(key); err != nil {
		return Entry{}, err
	}
	ctx, cancel := k.bus.bounded(ctx)
	defer cancel()
	r, err := k.bus.last(ctx, k.stream, bucketSubject(k.name, key))
	if err == nil && isMarker(r) {
		err = ErrNotFound
	}
	if err != nil {
		return Entry{}, fmt.Errorf("reading %s/%s: %w", k.name, key, err)
	}
	return k.entry(r), nil
}

// Create stores a key that does not exist and returns its revision, or
// ErrExists.
func (k *Bucket) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	revision, err := k.write(ctx, key, &nats.Msg{Data: value}, 0)
	if err != nil {
		if errors.Is(err, ErrConflict) {
			err = ErrExists
		}
		return 0, fmt.Errorf("creating %s/%s: %w", k.name, key, err)
	}
	return revision, nil
}

// Update replaces the value of a key that has this revision and returns the
// new one. It returns ErrConflict when the key has another revision or is gone. Where the
// answer was lost and others have written since, the value may have been the key's for a
// while: whoever must know puts into it who has written it, as claims do.
func (k *Bucket) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if revision == 0 {
		return 0, fmt.Errorf("updating %s/%s: %w: no revision given", k.name, key, ErrConflict)
	}
	next, err := k.write(ctx, key, &nats.Msg{Data: value}, revision)
	if err != nil {
		return 0, fmt.Errorf("updating %s/%s: %w", k.name, key, err)
	}
	return next, nil
}

// Delete removes a key that has this revision. It returns ErrConflict when the
// key has another revision, and ErrNotFound when it is gone already.
func (k *Bucket) Delete(ctx context.Context, key string, revision uint64) error {
	_, err := k.mark(ctx, key, revision)
	return err
}

// mark stores the marker of a deleted key and returns the marker's own revision.
func (k *Bucket) mark(ctx context.Context, key string, revision uint64) (uint64, error) {
	if revision == 0 {
		return 0, fmt.Errorf("deleting %s/%s: %w: no revision given", k.name, key, ErrConflict)
	}
	m := &nats.Msg{Header: nats.Header{}}
	m.Header.Set(headerOperation, "PURGE")
	m.Header.Set(headerRollup, "sub")
	if k.name == events.BucketLeases || k.name == events.BucketClaims {
		// Elsewhere the marker stays: once one has run out, a server that is killed
		// before it has written that down answers with what the marker had removed.
		// A lease that comes back runs out by itself.
		m.Header.Set(jetstream.MsgTTLHeader, markerTTL.String())
	}
	marker, err := k.write(ctx, key, m, revision)
	if errors.Is(err, ErrConflict) {
		if _, getErr := k.Get(ctx, key); errors.Is(getErr, ErrNotFound) {
			err = ErrNotFound
		}
	}
	if err != nil {
		return 0, fmt.Errorf("deleting %s/%s: %w", k.name, key, err)
	}
	return marker, nil
}

// write stores m under key if the key's last message has sequence expected (0:
// there is none, or only the marker of a deleted key).
//
// When the outcome is in doubt (no acknowledgement, or a conflict that may be
// with an earlier try of this call) the key itself is read and decides. A
// replicated stream may also refuse the right revision while another proposal
// is on its way; then the key still has it, and the write is tried again.
func (k *Bucket) write(ctx context.Context, key string, m *nats.Msg, expected uint64) (uint64, error) {
	if err := checkKey(key); err != nil {
		return 0, err
	}
	ctx, cancel := k.bus.bounded(ctx)
	defer cancel()
	create := expected == 0
	id := rand.Text()
	subject := bucketSubject(k.name, key)
	for {
		var revision uint64
		err := k.bus.attempt(ctx, func(ctx context.Context) error {
			next := &nats.Msg{Subject: subject, Data: m.Data, Header: nats.Header{headerWrite: {id}}}
			maps.Copy(next.Header, m.Header)
			ack, err := k.bus.js.PublishMsg(ctx, next,
				jetstream.WithExpectLastSequencePerSubject(expected), jetstream.WithRetryAttempts(0))
			if err == nil {
				revision = ack.Sequence
			}
			return err
		})
		if err == nil {
			return revision, nil
		}
		if !isWrongRevision(err) && !errors.Is(err, ErrUnavailable) {
			return 0, err
		}
		current, readErr := k.bus.last(ctx, k.stream, subject)
		switch {
		case errors.Is(readErr, ErrNotFound):
			current = Record{}
		case readErr != nil:
			return 0, fmt.Errorf("%w (after: %w)", readErr, err)
		}
		switch {
		case current.Sequence != 0 && current.header.Get(headerWrite) == id:
			return current.Sequence, nil
		case current.Sequence == expected:
		case create && (current.Sequence == 0 || isMarker(current)):
			expected = current.Sequence
		default:
			return 0, ErrConflict
		}
		if pause(ctx, mathrand.N(retryPause)) != nil {
			return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
}

// List yields the latest value of every key below prefix, each key once, in the
// order of their last writes. The prefix is whole tokens (`a` and `a.` both mean
// the keys `a.…`); the empty prefix means all. Every key written before the call
// is there, with a value not older than the call. It holds the keys in memory,
// not the values. An error ends the sequence.
func (k *Bucket) List(ctx context.Context, prefix string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		filter, err := k.filter(prefix)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		known, err := k.revisions(ctx, filter)
		if err != nil {
			yield(Entry{}, fmt.Errorf("listing %s/%s: %w", k.name, prefix, err))
			return
		}
		// A key written while the list is read comes again, behind.
		seen := make(map[string]struct{})
		for r, err := range k.bus.scan(ctx, k.stream, filter) {
			if err != nil {
				yield(Entry{}, fmt.Errorf("listing %s/%s: %w", k.name, prefix, err))
				return
			}
			_, again := seen[r.Subject]
			if again || isMarker(r) || r.Sequence < known[r.Subject] {
				continue
			}
			seen[r.Subject] = struct{}{}
			if !yield(k.entry(r), nil) {
				return
			}
		}
	}
}

// revisions returns, by subject, which revision each key has at least. A single
// server needs no such knowledge; of a cluster's replicas one that is behind may
// answer with older ones.
func (k *Bucket) revisions(ctx context.Context, filter string) (map[string]uint64, error) {
	if !k.bus.clustered() {
		return nil, nil
	}
	known := make(map[string]uint64)
	for r, err := range k.bus.scan(ctx, k.stream, filter) {
		if err != nil {
			return nil, err
		}
		known[r.Subject] = r.Sequence
	}
	return known, nil
}

// Watch delivers changes of keys below prefix that happen after the call, until
// ctx ends and the channel is closed. It is a hint: after a reconnect it may be
// seconds late, so whoever relies on a change polls as well.
func (k *Bucket) Watch(ctx context.Context, prefix string) (<-chan Entry, error) {
	filter, err := k.filter(prefix)
	if err != nil {
		return nil, err
	}
	_, next, err := k.bus.bounds(ctx, k.stream)
	if err != nil {
		return nil, fmt.Errorf("watching %s/%s: %w", k.name, prefix, err)
	}
	changes := make(chan Entry)
	go func() {
		defer close(changes)
		for r, err := range k.bus.follow(ctx, k.stream, filter, next) {
			if err != nil {
				if _, ok := errors.AsType[*GapError](err); ok {
					continue // overwritten before it was seen
				}
				return // ctx has ended, or the bus was closed
			}
			e := k.entry(r)
			e.Deleted = isMarker(r)
			select {
			case changes <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return changes, nil
}

func (k *Bucket) entry(r Record) Entry {
	return Entry{
		Key:      strings.TrimPrefix(r.Subject, bucketSubject(k.name, "")),
		Value:    r.Data,
		Revision: r.Sequence,
		Created:  r.Time,
	}
}

func (k *Bucket) filter(prefix string) (string, error) {
	prefix = strings.TrimSuffix(prefix, ".")
	if prefix == "" {
		return bucketSubject(k.name, ">"), nil
	}
	if err := checkKey(prefix); err != nil {
		return "", err
	}
	return bucketSubject(k.name, prefix+".>"), nil
}

// isMarker reports whether the message says that its key is deleted or expired.
func isMarker(r Record) bool {
	return r.header.Get(headerOperation) != "" || r.header.Get(headerMarkerReason) != ""
}

func checkKey(key string) error {
	if key == "" || key[0] == '.' || key[len(key)-1] == '.' || strings.Contains(key, "..") {
		return fmt.Errorf("%w: %q", ErrInvalidKey, key)
	}
	for i := range len(key) {
		c := key[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-/_=.", c) >= 0) {
			return fmt.Errorf("%w: %q", ErrInvalidKey, key)
		}
	}
	return nil
}
