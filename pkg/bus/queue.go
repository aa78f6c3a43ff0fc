package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"ringmaster/events"
)

// fetchWait bounds one request for a nudge; a request that was lost with a
// connection is made again after it.
const fetchWait = 5 * time.Second

// Queue nudges workers to tasks. A nudge may be lost, doubled or late: the task
// record says what is to be done.
type Queue struct {
	bus      *Bus
	consumer jetstream.Consumer
}

// Nudge says that there is something to do. Until it is acknowledged it comes
// back when its worker is silent for the consumer's wait.
type Nudge struct {
	// Subject names kind, operation and task; see events.ParseTaskSubject.
	Subject string
	Data    []byte
	// Deliveries counts from 1.
	Deliveries uint64

	message jetstream.Msg
}

// Queue opens the task queue, which Apply has created.
func (b *Bus) Queue(ctx context.Context) (*Queue, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	q := &Queue{bus: b}
	err := b.ask(ctx, func(ctx context.Context) (err error) {
		q.consumer, err = b.js.Consumer(ctx, events.StreamTasks, events.ConsumerWorkers)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening task queue: %w", err)
	}
	return q, nil
}

// Publish places a nudge. One that is there already is success. That may be one
// whose acknowledgement is being carried out at this moment, so whoever publishes
// what was nudged before looks again later: a sweeper does.
func (q *Queue) Publish(ctx context.Context, m Message) error {
	ctx, cancel := q.bus.bounded(ctx)
	defer cancel()
	err := q.bus.repeat(ctx, func(ctx context.Context) error {
		_, err := q.bus.js.Publish(ctx, m.Subject, m.Data,
			jetstream.WithExpectStream(events.StreamTasks), jetstream.WithRetryAttempts(0))
		if apiCode(err) == codeStoreFailed && isPerSubjectRefusal(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("publishing nudge %s: %w", m.Subject, err)
	}
	return nil
}

// Fetch returns the next nudge. It waits until there is one or ctx ends, whose
// error it then returns.
func (q *Queue) Fetch(ctx context.Context) (*Nudge, error) {
	for {
		n, err := q.fetch(ctx)
		switch {
		case n != nil:
			return n, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			err = classify(err)
			if !errors.Is(err, ErrUnavailable) {
				return nil, fmt.Errorf("fetching a nudge: %w", err)
			}
			if err := pause(ctx, 4*retryPause); err != nil {
				return nil, err
			}
		}
	}
}

// fetch makes one request; without a nudge in time it returns nil.
func (q *Queue) fetch(ctx context.Context) (*Nudge, error) {
	inSession, done, err := q.bus.connected(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(inSession, fetchWait)
	defer cancel()
	batch, err := q.consumer.Fetch(1, jetstream.FetchContext(ctx))
	if errors.Is(err, jetstream.ErrInvalidOption) { // the deadline has just passed
		<-ctx.Done()
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if m, ok := <-batch.Messages(); ok {
		n := &Nudge{Subject: m.Subject(), Data: m.Data(), message: m}
		if meta, err := m.Metadata(); err == nil {
			n.Deliveries = meta.NumDelivered
		}
		return n, nil
	}
	if err := batch.Error(); err != nil && ctx.Err() == nil {
		return nil, err
	}
	return nil, nil
}

// PurgeOperation removes the nudges of all tasks of an operation. One that is on
// its way to a worker may still arrive.
//
// They are deleted one by one. A purge by subject would be one request, but the
// server (2.15.2) then also stops redelivering nudges of other operations that
// workers have given back or fallen silent about: they stay in the stream and
// nobody gets them again.
func (q *Queue) PurgeOperation(ctx context.Context, operation string) error {
	for r, err := range q.bus.scan(ctx, events.StreamTasks, events.OperationTasks(operation)) {
		if err == nil {
			err = q.bus.deleteMessage(ctx, events.StreamTasks, r.Sequence)
		}
		if err != nil {
			return fmt.Errorf("removing the nudges of operation %s: %w", operation, err)
		}
	}
	return nil
}

// Depth returns how many nudges there are, also those that workers have.
func (q *Queue) Depth(ctx context.Context) (uint64, error) {
	ctx, cancel := q.bus.bounded(ctx)
	defer cancel()
	var n uint64
	err := q.bus.ask(ctx, func(ctx context.Context) error {
		s, err := q.bus.js.Stream(ctx, events.StreamTasks)
		if err == nil {
			n = s.CachedInfo().State.Msgs
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("reading queue depth: %w", err)
	}
	return n, nil
}

// Ack removes the nudge and waits until the server has confirmed it. It must
// follow the record that says that nothing is left to do. It proves nothing
// about who holds the task.
func (n *Nudge) Ack(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, attemptTimeout, ErrUnavailable)
	defer cancel()
	if err := n.message.DoubleAck(ctx); err != nil {
		return fmt.Errorf("acknowledging nudge %s: %w", n.Subject, classify(err))
	}
	return nil
}

// Done is Ack that is sent and not confirmed. When it is lost, the nudge comes again,
// and the record is found to have ended.
func (n *Nudge) Done() error {
	if err := n.message.Ack(); err != nil {
		return fmt.Errorf("acknowledging nudge %s: %w", n.Subject, classify(err))
	}
	return nil
}

// Later gives the nudge back, to come again after delay.
func (n *Nudge) Later(delay time.Duration) error {
	if err := n.message.NakWithDelay(max(delay, time.Millisecond)); err != nil {
		return fmt.Errorf("giving back nudge %s: %w", n.Subject, classify(err))
	}
	return nil
}

// Working keeps the nudge from coming back for another wait. To be called only
// while the task makes progress. It is sent, not confirmed.
func (n *Nudge) Working() error {
	if err := n.message.InProgress(); err != nil {
		return fmt.Errorf("keeping nudge %s: %w", n.Subject, classify(err))
	}
	return nil
}

// Reject removes a nudge that nothing can be done with, and says why to the
// server's monitoring.
func (n *Nudge) Reject(reason string) error {
	if err := n.message.TermWithReason(reason); err != nil {
		return fmt.Errorf("rejecting nudge %s: %w", n.Subject, classify(err))
	}
	return nil
}
