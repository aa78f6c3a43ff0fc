package bus

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// MaxBatch is how many messages one atomic batch may have; the server's limit.
const MaxBatch = 1000

// ErrSubjectTaken says that a subject which holds one message has it already.
var ErrSubjectTaken = errors.New("subject is taken")

// SubjectTakenError says which subjects of a refused batch are taken; it
// matches ErrSubjectTaken. The server does not say which, so they are read
// afterwards: Subjects is empty when they were free again by then.
type SubjectTakenError struct {
	Subjects []string
}

// Error names the subjects.
func (e *SubjectTakenError) Error() string {
	return fmt.Sprintf("%v: %s", ErrSubjectTaken, strings.Join(e.Subjects, ", "))
}

// Is makes errors.Is(err, ErrSubjectTaken) true.
func (e *SubjectTakenError) Is(target error) bool { return target == ErrSubjectTaken }

// Message is what is published.
type Message struct {
	Subject string
	Data    []byte
	// ID, when not empty, makes the stream refuse the same message within its
	// duplicate window.
	ID string

	header nats.Header
}

// PublishBatch stores all messages in the stream or none, in their order, and
// returns their sequences. It returns a *SubjectTakenError when a subject holds
// a message already, and an error matching ErrUnavailable when the outcome is
// unknown: read the subjects, then decide.
func (b *Bus) PublishBatch(ctx context.Context, stream string, messages []Message) ([]uint64, error) {
	if len(messages) == 0 || len(messages) > MaxBatch {
		return nil, fmt.Errorf("publishing a batch: %d messages, must be 1 to %d", len(messages), MaxBatch)
	}
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	for {
		var last uint64
		err := b.attempt(ctx, func(ctx context.Context) (err error) {
			last, err = b.tryBatch(ctx, stream, messages)
			return err
		})
		switch code := apiCode(err); {
		case err == nil:
			sequences := make([]uint64, len(messages))
			for i := range sequences {
				sequences[i] = last - uint64(len(messages)-1-i)
			}
			return sequences, nil
		case code == codeStoreFailed || code == codeBatchDuplicate:
			taken, readErr := b.takenSubjects(ctx, stream, messages)
			if readErr != nil {
				return nil, fmt.Errorf("publishing a batch to %s: %w", stream, readErr)
			}
			if len(taken) == 0 && code == codeStoreFailed && !isPerSubjectRefusal(err) {
				return nil, fmt.Errorf("publishing a batch to %s: %w", stream, err)
			}
			return nil, &SubjectTakenError{Subjects: taken}
		case code == codeBatchIncomplete || code == codeBatchTooManyInflight || errors.Is(err, nats.ErrNoResponders) ||
			errors.Is(err, jetstream.ErrNoStreamResponse):
			// Surely not stored: too many batches at once, or the leader changed
			// between two of its messages.
			if pause(ctx, mathrand.N(retryPause)+retryPause/10) != nil {
				return nil, fmt.Errorf("publishing a batch to %s: %w: %w", stream, ErrUnavailable, err)
			}
		default:
			return nil, fmt.Errorf("publishing a batch to %s: %w", stream, err)
		}
	}
}

// tryBatch sends the messages under a new batch id. Only the last one, which
// commits, is answered; a message lost before it makes the batch incomplete.
func (b *Bus) tryBatch(ctx context.Context, stream string, messages []Message) (last uint64, err error) {
	id := rand.Text()
	for i, m := range messages {
		header := nats.Header{}
		maps.Copy(header, m.header)
		header.Set("Nats-Batch-Id", id)
		header.Set("Nats-Batch-Sequence", strconv.Itoa(i+1))
		header.Set(jetstream.ExpectedStreamHeader, stream)
		if m.ID != "" {
			header.Set(jetstream.MsgIDHeader, m.ID)
		}
		next := &nats.Msg{Subject: m.Subject, Data: m.Data, Header: header}
		if i < len(messages)-1 {
			if err := b.conn.PublishMsg(next); err != nil {
				return 0, err
			}
			continue
		}
		header.Set("Nats-Batch-Commit", "1")
		answer, err := b.conn.RequestMsgWithContext(ctx, next)
		if err != nil {
			return 0, err
		}
		last, err = decodeBatchAck(answer.Data, id, len(messages))
		if err != nil {
			return 0, err
		}
	}
	return last, nil
}

func decodeBatchAck(answer []byte, id string, size int) (last uint64, err error) {
	var ack struct {
		Error    *jetstream.APIError `json:"error"`
		Sequence uint64              `json:"seq"`
		Batch    string              `json:"batch"`
		Count    int                 `json:"count"`
	}
	if err := json.Unmarshal(answer, &ack); err != nil {
		return 0, fmt.Errorf("reading the acknowledgement: %w", err)
	}
	switch {
	case ack.Error != nil:
		return 0, ack.Error
	case ack.Batch != id || ack.Count != size || ack.Sequence < uint64(size):
		// A server that knows no batches would store each message by itself.
		return 0, fmt.Errorf("the server did not acknowledge a batch of %d: %s", size, answer)
	}
	return ack.Sequence, nil
}

// takenSubjects reads which subjects hold a message.
func (b *Bus) takenSubjects(ctx context.Context, stream string, messages []Message) ([]string, error) {
	var taken []string
	for _, m := range messages {
		_, err := b.last(ctx, stream, m.Subject)
		switch {
		case err == nil:
			taken = append(taken, m.Subject)
		case !errors.Is(err, ErrNotFound):
			return nil, err
		}
	}
	return taken, nil
}

// isPerSubjectRefusal tells the per-subject guard from the other reasons that
// share its code, such as a full stream.
func isPerSubjectRefusal(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && strings.Contains(api.Description, "maximum messages per subject exceeded")
}
