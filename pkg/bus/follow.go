package bus

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

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
	// jumped is where the oldest jump began that has not been looked into; 0
	// when there is none. A jump is mostly other subjects' messages. It was a
	// loss if the stream's limits have overtaken where it began.
	jumped uint64
}

// run reads through one consumer. more is false when the caller has stopped.
func (f *follower) run(ctx context.Context, yield func(Record, error) bool) (more bool, err error) {
	ctx, done, err := f.bus.connected(ctx)
	if err != nil {
		return true, err
	}
	defer done()
	if more, err := f.checkGap(ctx, yield); !more || err != nil {
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
	checked := time.Now()
	for {
		if f.jumped != 0 && time.Since(checked) >= gapCheck {
			if more, err := f.checkGap(ctx, yield); !more || err != nil {
				return more, err
			}
			checked = time.Now()
		}
		m, err := nextMessage(ctx, messages, f.jumped != 0)
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
		if meta.Sequence.Stream > f.next && f.jumped == 0 {
			f.jumped = f.next
		}
		f.next = meta.Sequence.Stream + 1
		record := Record{
			Sequence: meta.Sequence.Stream, Time: meta.Timestamp,
			Subject: m.Subject(), Data: m.Data(), header: m.Headers(),
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

// checkGap yields a *GapError when the stream begins after the next sequence or
// after a jump, and continues with its first message then.
func (f *follower) checkGap(ctx context.Context, yield func(Record, error) bool) (more bool, err error) {
	first, _, err := f.bus.bounds(ctx, f.stream)
	if err != nil {
		return true, err
	}
	from := f.next
	if f.jumped != 0 {
		from = f.jumped
	}
	f.next, f.jumped = max(f.next, first), 0
	if from == 0 || from >= first {
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
