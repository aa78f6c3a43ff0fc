package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// ErrNobody says that nobody serves what was asked; it is an ErrUnavailable.
var ErrNobody = fmt.Errorf("%w: nobody answers", ErrUnavailable)

// askTimeout is when a question that is not answered counts as lost: who answers
// does so from memory.
const askTimeout = time.Second

// maxQuestions bounds the questions that wait to be answered; further ones are
// dropped, and whoever asked asks again.
const maxQuestions = 4096

// Ask sends a question and returns the answer. Nothing is stored, and nothing is
// repeated: the error is ErrNobody when nobody serves the subject, another
// ErrUnavailable when the answer, or the question, was lost.
func (b *Bus) Ask(ctx context.Context, subject string, question []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, ErrUnavailable)
	defer cancel()
	var answer []byte
	err := b.attempt(ctx, func(ctx context.Context) error {
		m, err := b.conn.RequestWithContext(ctx, subject, question)
		if errors.Is(err, nats.ErrNoResponders) {
			return ErrNobody
		}
		if err == nil {
			answer = m.Data
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", subject, err)
	}
	return answer, nil
}

// Serve answers the questions on a subject one after the other, until ctx ends. An
// answer of nil is not sent. It goes on over broken connections; what was asked
// meanwhile is lost.
func (b *Bus) Serve(ctx context.Context, subject string, answer func(question []byte) []byte) error {
	questions, err := b.conn.SubscribeSync(subject)
	if err != nil {
		return fmt.Errorf("serving %s: %w", subject, classify(err))
	}
	defer func() { _ = questions.Unsubscribe() }() // the connection may have been closed
	if err := questions.SetPendingLimits(maxQuestions, -1); err != nil {
		return fmt.Errorf("serving %s: %w", subject, classify(err))
	}
	for {
		m, err := questions.NextMsgWithContext(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, nats.ErrSlowConsumer):
			continue // said once for all that were dropped
		case err != nil:
			return fmt.Errorf("serving %s: %w", subject, classify(err))
		}
		if a := answer(m.Data); a != nil {
			_ = m.Respond(a) // a lost answer is asked for again
		}
	}
}
