package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"ringmaster/events"
)

// Many messages in one atomic batch wait for the disk once, while each by itself
// waits for it once (R1 and R3 alike). A batch is no more than that here: what it
// can't do is done again message by message, so that one that is refused does not
// keep the others out.
const (
	// manyAtLeast is from how many messages on a batch costs less than they do one
	// by one: the server keeps a batch in files of its own until it is whole.
	manyAtLeast = 8
	// manyMessages and manyBytes bound a batch.
	manyMessages = MaxBatch / 2
	manyBytes    = 4 << 20
)

// many stores messages: in batches, and with single whatever a batch can't. It returns
// the sequence of each, or what single returned.
func (b *Bus) many(ctx context.Context, stream string, messages []Message, single func(context.Context, Message) (uint64, error)) ([]uint64, error) {
	sequences := make([]uint64, 0, len(messages))
	for len(messages) > 0 {
		n, size := 0, 0
		for n < len(messages) && n < manyMessages && (n == 0 || size+len(messages[n].Data) <= manyBytes) {
			size += len(messages[n].Data)
			n++
		}
		stored, err := b.some(ctx, stream, messages[:n], single)
		if err != nil {
			return sequences, err
		}
		sequences = append(sequences, stored...)
		messages = messages[n:]
	}
	return sequences, nil
}

func (b *Bus) some(ctx context.Context, stream string, messages []Message, single func(context.Context, Message) (uint64, error)) ([]uint64, error) {
	sequences := make([]uint64, len(messages))
	if len(messages) >= manyAtLeast {
		var last uint64
		batch, cancel := b.bounded(ctx)
		err := b.attempt(batch, func(ctx context.Context) (err error) {
			last, err = b.tryBatch(ctx, stream, messages)
			return err
		})
		cancel()
		if err == nil {
			for i := range sequences {
				sequences[i] = last - uint64(len(messages)-1-i)
			}
			return sequences, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("publishing a batch to %s: %w", stream, err)
		}
		b.log.DebugContext(ctx, "not stored as a batch; one by one", "stream", stream, "messages", len(messages), "error", err)
	}
	for i, m := range messages {
		var err error
		if sequences[i], err = single(ctx, m); err != nil {
			return nil, err
		}
	}
	return sequences, nil
}

// PublishMany places nudges as Publish does each of them. After an error any of them
// may have been placed.
func (q *Queue) PublishMany(ctx context.Context, messages []Message) error {
	_, err := q.bus.many(ctx, events.StreamTasks, messages, func(ctx context.Context, m Message) (uint64, error) {
		return 0, q.Publish(ctx, m)
	})
	return err
}

// AppendMany appends messages in their order, each as Append does. After an error
// any of them may have been appended.
func (l *Log) AppendMany(ctx context.Context, messages []Message) error {
	_, err := l.bus.many(ctx, l.stream, messages, func(ctx context.Context, m Message) (uint64, error) {
		return l.Append(ctx, m.Subject, m.ID, m.Data)
	})
	return err
}

// Pair is a key and its value.
type Pair struct {
	Key   string
	Value []byte
}

// CreateMany stores keys that do not exist; one that does stays as it is, and that is
// no error. It returns the revision of each, 0 for one that was there. After an error
// any of them may have been stored. It needs a bucket that allows batches.
func (k *Bucket) CreateMany(ctx context.Context, pairs []Pair) ([]uint64, error) {
	messages := make([]Message, len(pairs))
	for i, p := range pairs {
		if err := checkKey(p.Key); err != nil {
			return nil, err
		}
		messages[i] = Message{
			Subject: bucketSubject(k.name, p.Key), Data: p.Value,
			header: nats.Header{jetstream.ExpectedLastSubjSeqHeader: {"0"}, headerWrite: {rand.Text()}},
		}
	}
	return k.bus.many(ctx, k.stream, messages, func(ctx context.Context, m Message) (uint64, error) {
		revision, err := k.Create(ctx, m.Subject[len(bucketSubject(k.name, "")):], m.Data)
		if errors.Is(err, ErrExists) {
			return 0, nil
		}
		return revision, err
	})
}
