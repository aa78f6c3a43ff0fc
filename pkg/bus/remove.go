package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// deleteMessage deletes one message by its sequence, which is never reused. What
// is gone already is no error: the server has one code for that and for a
// failure, so the message is looked for.
func (b *Bus) deleteMessage(ctx context.Context, stream string, sequence uint64) error {
	request, err := json.Marshal(struct {
		Sequence uint64 `json:"seq"`
		NoErase  bool   `json:"no_erase"`
	}{sequence, true})
	if err != nil {
		return err
	}
	return b.repeat(ctx, func(ctx context.Context) error {
		err := b.command(ctx, "$JS.API.STREAM.MSG.DELETE."+stream, request)
		if err == nil || isTransient(err) {
			return err
		}
		switch _, readErr := b.get(ctx, stream, messageRequest{Sequence: sequence}); {
		case errors.Is(readErr, ErrNotFound):
			return nil
		case readErr != nil:
			return readErr
		default:
			return err
		}
	})
}

// purge removes all messages on a subject.
func (b *Bus) purge(ctx context.Context, stream, subject string) error {
	return b.purgeThrough(ctx, stream, subject, 0)
}

// purgeThrough removes the messages on a subject up to and with a sequence; 0 means
// all.
func (b *Bus) purgeThrough(ctx context.Context, stream, subject string, sequence uint64) error {
	what := struct {
		Filter string `json:"filter"`
		Before uint64 `json:"seq,omitempty"`
	}{Filter: subject}
	if sequence > 0 {
		what.Before = sequence + 1
	}
	request, err := json.Marshal(what)
	if err != nil {
		return err
	}
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	return b.repeat(ctx, func(ctx context.Context) error {
		return b.command(ctx, "$JS.API.STREAM.PURGE."+stream, request)
	})
}

// command sends a request to the stream API and returns what the server says.
func (b *Bus) command(ctx context.Context, subject string, request []byte) error {
	m, err := b.conn.RequestWithContext(ctx, subject, request)
	if err != nil {
		return err
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Success bool                `json:"success"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return fmt.Errorf("reading the server's answer: %w", err)
	}
	switch {
	case answer.Error != nil:
		return answer.Error
	case !answer.Success:
		return errors.New("the server did not say that it was done")
	}
	return nil
}
