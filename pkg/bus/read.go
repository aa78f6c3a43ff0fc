package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// pageMessages and pageBytes bound what one read of a stream holds in memory.
const (
	pageMessages = 256
	pageBytes    = 2 << 20
)

// Record is one message of a stream.
type Record struct {
	// Sequence is the message's number in its stream: growing, never reused.
	Sequence uint64
	// Time is when the stream stored it.
	Time    time.Time
	Subject string
	Data    []byte

	header nats.Header
}

// last reads the newest message on a subject, which may have wildcards, or
// returns ErrNotFound.
func (b *Bus) last(ctx context.Context, stream, subject string) (Record, error) {
	return b.get(ctx, stream, messageRequest{Last: subject})
}

// messageRequest asks for one message: the one with this sequence, or the newest
// on this subject.
type messageRequest struct {
	Sequence uint64 `json:"seq,omitempty"`
	Last     string `json:"last_by_subj,omitempty"`
}

// get reads one message, or returns ErrNotFound. The stream's leader answers, so
// that the answer is never older than what was acknowledged before; direct reads,
// which any replica answers, would not promise that.
func (b *Bus) get(ctx context.Context, stream string, what messageRequest) (Record, error) {
	request, err := json.Marshal(what)
	if err != nil {
		return Record{}, err
	}
	var record Record
	err = b.repeat(ctx, func(ctx context.Context) error {
		m, err := b.conn.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, request)
		if err != nil {
			return err
		}
		record, err = decodeStored(m.Data)
		return err
	})
	return record, err
}

// decodeStored reads the answer to a message request.
func decodeStored(answer []byte) (Record, error) {
	var response struct {
		Error   *jetstream.APIError `json:"error"`
		Message *struct {
			Subject  string    `json:"subject"`
			Sequence uint64    `json:"seq"`
			Header   []byte    `json:"hdrs"`
			Data     []byte    `json:"data"`
			Time     time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(answer, &response); err != nil {
		return Record{}, fmt.Errorf("reading the server's answer: %w", err)
	}
	switch {
	case response.Error != nil && response.Error.ErrorCode == codeMessageNotFound:
		return Record{}, ErrNotFound
	case response.Error != nil:
		return Record{}, response.Error
	case response.Message == nil:
		return Record{}, errors.New("the server's answer holds no message")
	}
	m := response.Message
	r := Record{Sequence: m.Sequence, Time: m.Time, Subject: m.Subject, Data: m.Data}
	if len(m.Header) > 0 {
		header, err := nats.DecodeHeadersMsg(m.Header)
		if err != nil {
			return Record{}, fmt.Errorf("reading message header: %w", err)
		}
		r.header = header
	}
	return r, nil
}

// page reads up to limit messages that match filter, from sequence from on, in
// one request. pending is how many more there are. On a replicated stream any
// replica may answer, a little behind the leader.
func (b *Bus) page(ctx context.Context, stream, filter string, from uint64, limit int) (records []Record, pending uint64, err error) {
	request, err := json.Marshal(struct {
		From     uint64 `json:"seq"`
		Filter   string `json:"next_by_subj"`
		Batch    int    `json:"batch"`
		MaxBytes int    `json:"max_bytes"`
	}{max(from, 1), filter, limit, pageBytes})
	if err != nil {
		return nil, 0, err
	}
	err = b.repeat(ctx, func(ctx context.Context) error {
		records, pending, err = b.tryPage(ctx, stream, request)
		return err
	})
	return records, pending, err
}

func (b *Bus) tryPage(ctx context.Context, stream string, request []byte) (records []Record, pending uint64, err error) {
	inbox := b.conn.NewInbox()
	sub, err := b.conn.SubscribeSync(inbox)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, ignoreClosed(sub.Unsubscribe())) }()
	if err := b.conn.PublishRequest("$JS.API.DIRECT.GET."+stream, inbox, request); err != nil {
		return nil, 0, err
	}
	previous := uint64(0)
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, 0, err
		}
		switch status := m.Header.Get("Status"); status {
		case "":
		case "204": // end of batch
			pending, err = strconv.ParseUint(m.Header.Get("Nats-Num-Pending"), 10, 64)
			if err != nil {
				return nil, 0, fmt.Errorf("reading end of page: %w", err)
			}
			if end := m.Header.Get("Nats-Last-Sequence"); end != strconv.FormatUint(previous, 10) {
				return nil, 0, fmt.Errorf("%w: messages of a page were lost", ErrUnavailable)
			}
			return records, pending, nil
		case "404":
			return nil, 0, nil
		case "503":
			return nil, 0, nats.ErrNoResponders
		default:
			return nil, 0, fmt.Errorf("reading stream %s: %s %s", stream, status, m.Header.Get("Description"))
		}
		r, err := directRecord(m)
		if err != nil {
			return nil, 0, err
		}
		// Each message names its predecessor, so that a loss on the way shows.
		if m.Header.Get("Nats-Last-Sequence") != strconv.FormatUint(previous, 10) {
			return nil, 0, fmt.Errorf("%w: messages of a page were lost", ErrUnavailable)
		}
		previous = r.Sequence
		records = append(records, r)
	}
}

// directRecord reads a message whose place in the stream is in its header.
func directRecord(m *nats.Msg) (Record, error) {
	sequence, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
	if err != nil {
		return Record{}, fmt.Errorf("reading message sequence: %w", err)
	}
	at, err := time.Parse(time.RFC3339Nano, m.Header.Get("Nats-Time-Stamp"))
	if err != nil {
		return Record{}, fmt.Errorf("reading message time: %w", err)
	}
	return Record{Sequence: sequence, Time: at, Subject: m.Header.Get("Nats-Subject"), Data: m.Data, header: m.Header}, nil
}

// scan reads everything that matches filter from sequence from on, page by
// page, until it has come to the end.
//
// Any replica may answer for a page; the one that the connection's own server
// has, if it has one. So scan first waits until that has what the leader has,
// and it ends only after it: what was acknowledged before is always there.
func (b *Bus) scan(ctx context.Context, stream, filter string, from uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		newest, err := b.synced(ctx, stream, filter)
		for err == nil && from <= newest {
			var records []Record
			var pending uint64
			records, pending, err = b.boundedPage(ctx, stream, filter, from)
			if err != nil {
				break
			}
			for _, r := range records {
				if !yield(r, nil) {
					return
				}
				from = r.Sequence + 1
			}
			if pending == 0 && from <= newest { // another replica, or the newest is gone
				newest, err = b.synced(ctx, stream, filter)
			} else if pending > 0 {
				newest = max(newest, from) // what was written meanwhile
			}
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			yield(Record{}, err)
		}
	}
}

// synced returns the sequence of the leader's newest message on filter, once the
// replica that answers here has it too, or ErrNotFound when there is none.
func (b *Bus) synced(ctx context.Context, stream, filter string) (uint64, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	for {
		newest, err := b.last(ctx, stream, filter)
		if err != nil {
			return 0, err
		}
		records, _, err := b.page(ctx, stream, filter, newest.Sequence, 1)
		if err != nil {
			return 0, err
		}
		if len(records) > 0 {
			return newest.Sequence, nil
		}
		if err := pause(ctx, retryPause/10); err != nil {
			return 0, classify(err)
		}
	}
}

func (b *Bus) boundedPage(ctx context.Context, stream, filter string, from uint64) ([]Record, uint64, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	return b.page(ctx, stream, filter, from, pageMessages)
}

func (b *Bus) boundedLast(ctx context.Context, stream, subject string) (Record, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	return b.last(ctx, stream, subject)
}

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
		if _, readErr := b.get(ctx, stream, messageRequest{Sequence: sequence}); errors.Is(readErr, ErrNotFound) {
			return nil
		}
		return err
	})
}

// purge removes all messages on a subject.
func (b *Bus) purge(ctx context.Context, stream, subject string) error {
	request, err := json.Marshal(struct {
		Filter string `json:"filter"`
	}{subject})
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

// ignoreClosed drops the error of ending what has ended with its connection.
func ignoreClosed(err error) error {
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrBadSubscription) {
		return nil
	}
	return err
}
