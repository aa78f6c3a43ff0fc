package bus

import (
	"context"
	"fmt"
	"iter"

	"github.com/nats-io/nats.go/jetstream"
)

// Log is a stream that is appended to and read from any sequence on.
type Log struct {
	bus    *Bus
	stream string
}

// GapError says that messages which were asked for are not there any more.
type GapError struct {
	// Requested is the sequence asked for, First the oldest that there is.
	Requested, First uint64
}

// Error names both sequences.
func (e *GapError) Error() string {
	return fmt.Sprintf("sequence %d is gone, the oldest is %d", e.Requested, e.First)
}

// MaxPage is how many records Page returns at most.
const MaxPage = 1000

// Log returns the log in this stream, which Apply has created.
func (b *Bus) Log(stream string) *Log { return &Log{bus: b, stream: stream} }

// Append stores a message and returns its sequence. The same id again within the
// stream's duplicate window stores nothing and returns the first one's sequence;
// an append whose answer is lost is repeated under it. An empty id means that a
// repeated append may be stored twice.
func (l *Log) Append(ctx context.Context, subject, id string, data []byte) (uint64, error) {
	ctx, cancel := l.bus.bounded(ctx)
	defer cancel()
	var sequence uint64
	err := l.bus.repeat(ctx, func(ctx context.Context) error {
		options := []jetstream.PublishOpt{jetstream.WithExpectStream(l.stream), jetstream.WithRetryAttempts(0)}
		if id != "" {
			options = append(options, jetstream.WithMsgID(id))
		}
		ack, err := l.bus.js.Publish(ctx, subject, data, options...)
		if err == nil {
			sequence = ack.Sequence
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("appending to %s: %w", l.stream, err)
	}
	return sequence, nil
}

// Bounds returns the sequence of the oldest message and the one that the next
// message will have; they are equal when the log is empty.
func (l *Log) Bounds(ctx context.Context) (first, next uint64, err error) {
	first, next, err = l.bus.bounds(ctx, l.stream)
	if err != nil {
		return 0, 0, fmt.Errorf("reading bounds of %s: %w", l.stream, err)
	}
	return first, next, nil
}

// Page returns at most limit records (at most MaxPage, at least one if there is
// any) that match filter, from sequence from on, in order; 0 means from the
// oldest. It returns fewer when they are large. The next page starts after the
// last record's sequence. It returns a *GapError beside the records when older
// ones were asked for than there are. Every record that was appended before the call
// is there, whichever server answers.
func (l *Log) Page(ctx context.Context, from uint64, filter string, limit int) ([]Record, error) {
	ctx, cancel := l.bus.bounded(ctx)
	defer cancel()
	records, err := l.bus.wholePage(ctx, l.stream, filter, from, min(max(limit, 1), MaxPage))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", l.stream, err)
	}
	first, _, err := l.Bounds(ctx)
	if err != nil {
		return nil, err
	}
	if from != 0 && from < first {
		return records, &GapError{Requested: from, First: first}
	}
	return records, nil
}

// Purge removes all records on a subject, which may have wildcards.
func (l *Log) Purge(ctx context.Context, subject string) error {
	if err := l.bus.purge(ctx, l.stream, subject); err != nil {
		return fmt.Errorf("purging %s from %s: %w", subject, l.stream, err)
	}
	return nil
}

// Last returns the newest record on a subject, which may have wildcards, or
// ErrNotFound. It is never older than what was appended before the call.
func (l *Log) Last(ctx context.Context, subject string) (Record, error) {
	record, err := l.bus.boundedLast(ctx, l.stream, subject)
	if err != nil {
		return Record{}, fmt.Errorf("reading the last of %s in %s: %w", subject, l.stream, err)
	}
	return record, nil
}

// Tail yields the records that match filter, from sequence from on (0: from the
// oldest), and goes on with new ones until ctx ends, whose error is the last it yields. It outlives
// reconnects and changes of the leader, without loss and without repetition.
// Where records are gone before they could be read it yields a *GapError once
// and, if the caller goes on, continues with the oldest that there is.
func (l *Log) Tail(ctx context.Context, from uint64, filter string) iter.Seq2[Record, error] {
	return l.bus.follow(ctx, l.stream, filter, from)
}

// bounds reads the first and the next sequence of a stream from its leader.
func (b *Bus) bounds(ctx context.Context, stream string) (first, next uint64, err error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	err = b.ask(ctx, func(ctx context.Context) error {
		s, err := b.js.Stream(ctx, stream)
		if err != nil {
			return err
		}
		state := s.CachedInfo().State
		first, next = max(state.FirstSeq, 1), state.LastSeq+1
		return nil
	})
	return first, next, err
}
