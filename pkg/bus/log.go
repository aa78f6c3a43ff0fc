package bus

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go"
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
// ones were asked for than there are. On a replicated stream the last
// milliseconds may be missing.
func (l *Log) Page(ctx context.Context, from uint64, filter string, limit int) ([]Record, error) {
	ctx, cancel := l.bus.bounded(ctx)
	defer cancel()
	records, _, err := l.bus.page(ctx, l.stream, filter, from, min(max(limit, 1), MaxPage))
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
	err = b.repeat(ctx, func(ctx context.Context) error {
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

const (
	// followHeartbeat is how soon a reader notices that its consumer is gone.
	followHeartbeat = time.Second
	// gapCheck is how often a reader that receives makes sure that it has not
	// been overtaken by the stream's limits.
	gapCheck = time.Second
)

// follow yields the messages of a stream from sequence next on, and new ones as
// they come. Each time its consumer is lost it makes another one, starting after
// the last message that was yielded.
func (b *Bus) follow(ctx context.Context, stream, filter string, next uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		f := follower{bus: b, stream: stream, filter: filter, next: next}
		for {
			more, err := f.run(ctx, yield)
			if !more {
				return
			}
			if ctx.Err() != nil {
				yield(Record{}, context.Cause(ctx))
				return
			}
			if err = classify(err); err != nil && !errors.Is(err, ErrUnavailable) && !isConsumerLost(err) {
				yield(Record{}, fmt.Errorf("following %s: %w", stream, err))
				return
			}
			b.log.Debug("reader starts again", "stream", stream, "next", f.next, "error", err)
			if err := pause(ctx, retryPause); err != nil {
				yield(Record{}, err)
				return
			}
		}
	}
}

// isConsumerLost reports whether a reader needs another consumer: the server
// that had it in memory went away, or was restarted.
func isConsumerLost(err error) bool {
	for _, target := range []error{
		jetstream.ErrConsumerNotFound, jetstream.ErrConsumerDeleted, jetstream.ErrConsumerDoesNotExist,
		jetstream.ErrConsumerLeadershipChanged, jetstream.ErrMsgIteratorClosed,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// follower is the state of one reader.
type follower struct {
	bus            *Bus
	stream, filter string
	next           uint64 // the first sequence not yielded yet
}

// run reads through one consumer. more is false when the caller has stopped.
func (f *follower) run(ctx context.Context, yield func(Record, error) bool) (more bool, err error) {
	ctx, done, err := f.bus.connected(ctx)
	if err != nil {
		return true, err
	}
	defer done()
	if more, err := f.checkGap(ctx, f.next, yield); !more || err != nil {
		return more, err
	}
	consumer, err := f.create(ctx)
	if err != nil {
		return true, err
	}
	defer f.remove(ctx, consumer)
	messages, err := consumer.Messages(
		jetstream.PullMaxMessages(pageMessages),
		jetstream.PullExpiry(4*followHeartbeat), jetstream.PullHeartbeat(followHeartbeat))
	if err != nil {
		return true, err
	}
	defer messages.Stop()

	delivered := uint64(0) // by this consumer, to notice a loss between
	unchecked := uint64(0) // the first sequence of the oldest jump not looked into
	checked := time.Now()
	for {
		// A jump is mostly other subjects' messages. It was a loss if the
		// stream's limits have overtaken where it began.
		if unchecked != 0 && time.Since(checked) >= gapCheck {
			if more, err := f.checkGap(ctx, unchecked, yield); !more || err != nil {
				return more, err
			}
			unchecked, checked = 0, time.Now()
		}
		m, err := nextMessage(ctx, messages, unchecked != 0)
		if m == nil && err == nil {
			continue
		}
		if err != nil {
			return true, inSessionError(ctx, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return true, fmt.Errorf("reading message metadata: %w", err)
		}
		if meta.Sequence.Consumer != delivered+1 {
			return true, fmt.Errorf("%w: messages were lost on the way", ErrUnavailable)
		}
		delivered++
		if meta.Sequence.Stream > f.next && unchecked == 0 {
			unchecked = f.next
		}
		f.next = meta.Sequence.Stream + 1
		record := Record{
			Sequence: meta.Sequence.Stream, Time: meta.Timestamp,
			Subject: m.Subject(), Data: m.Data(), header: nats.Header(m.Headers()),
		}
		if !yield(record, nil) {
			return false, nil
		}
	}
}

// nextMessage waits for a message; if limited, it returns nil after gapCheck.
func nextMessage(ctx context.Context, messages jetstream.MessagesContext, limited bool) (jetstream.Msg, error) {
	wait := ctx
	if limited {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, gapCheck)
		defer cancel()
	}
	m, err := messages.Next(jetstream.NextContext(wait))
	if err != nil && wait.Err() != nil && ctx.Err() == nil {
		return nil, nil
	}
	return m, err
}

// checkGap yields a *GapError when the stream begins after sequence from, and
// continues with its first message then.
func (f *follower) checkGap(ctx context.Context, from uint64, yield func(Record, error) bool) (more bool, err error) {
	first, _, err := f.bus.bounds(ctx, f.stream)
	if err != nil || from >= first {
		return true, err
	}
	f.next = max(f.next, first)
	if from == 0 {
		return true, nil
	}
	return yield(Record{}, &GapError{Requested: from, First: first}), nil
}

// create makes the consumer: it lives in one server's memory and goes away by
// itself when it is not read.
func (f *follower) create(ctx context.Context) (consumer jetstream.Consumer, err error) {
	ctx, cancel := f.bus.bounded(ctx)
	defer cancel()
	err = f.bus.attempt(ctx, func(ctx context.Context) (err error) {
		consumer, err = f.bus.js.CreateConsumer(ctx, f.stream, jetstream.ConsumerConfig{
			DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
			OptStartSeq:       f.next,
			FilterSubject:     f.filter,
			AckPolicy:         jetstream.AckNonePolicy,
			InactiveThreshold: time.Minute,
			MemoryStorage:     true,
			Replicas:          1,
		})
		return err
	})
	return consumer, err
}

// remove ends the consumer without waiting for its threshold, if that is
// possible at once.
func (f *follower) remove(ctx context.Context, consumer jetstream.Consumer) {
	if !f.bus.conn.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptTimeout)
	defer cancel()
	if err := f.bus.js.DeleteConsumer(ctx, f.stream, consumer.CachedInfo().Name); err != nil {
		f.bus.log.Debug("reader's consumer stays until its threshold", "stream", f.stream, "error", err)
	}
}
