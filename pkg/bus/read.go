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
	err = b.ask(ctx, func(ctx context.Context) error {
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
	return b.answers(ctx, stream, request)
}

// answers reads the messages that a direct request is answered with. pending is how
// many more there are.
func (b *Bus) answers(ctx context.Context, stream string, request []byte) (records []Record, pending uint64, err error) {
	err = b.repeat(ctx, func(ctx context.Context) error {
		records, pending, err = b.tryPage(ctx, stream, request)
		return err
	})
	return records, pending, err
}

// wholePage is page without what a replica has not got yet: the leader says what the
// newest message is, and a page that ends before it is asked for again.
func (b *Bus) wholePage(ctx context.Context, stream, filter string, from uint64, limit int) ([]Record, error) {
	for {
		newest := Record{}
		if b.clustered() {
			var err error
			if newest, err = b.last(ctx, stream, filter); err != nil && !errors.Is(err, ErrNotFound) {
				return nil, err
			}
		}
		records, pending, err := b.page(ctx, stream, filter, from, limit)
		if err != nil {
			return nil, err
		}
		if pending > 0 || len(records) == limit || newest.Sequence < max(from, 1) ||
			len(records) > 0 && records[len(records)-1].Sequence >= newest.Sequence {
			return records, nil
		}
		if err := pause(ctx, retryPause/10); err != nil {
			return nil, err
		}
	}
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

// scan reads everything that matches filter, page by page, until it has come past
// the newest message that the leader had at the start: nothing that was
// acknowledged before is left out.
//
// The filter must not be ">" alone: for it the server takes the newest message to
// be the last sequence it gave, and finds none when that one has been deleted.
//
// In a cluster any replica answers for a page, and each may be behind in its own
// way. So a message that is gone may still come; whatever has taken its place
// comes after it.
func (b *Bus) scan(ctx context.Context, stream, filter string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		from := uint64(0)
		newest, err := b.boundedLast(ctx, stream, filter)
		for err == nil && from <= newest.Sequence {
			var records []Record
			var pending uint64
			if records, pending, err = b.boundedPage(ctx, stream, filter, from); err != nil {
				break
			}
			for _, r := range records {
				if !yield(r, nil) {
					return
				}
				from = r.Sequence + 1
			}
			switch {
			case pending > 0: // perhaps written meanwhile
				newest.Sequence = max(newest.Sequence, from)
			case from <= newest.Sequence: // behind, or the newest is gone
				if err = pause(ctx, retryPause/10); err == nil {
					newest, err = b.boundedLast(ctx, stream, filter)
				}
			}
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			yield(Record{}, err)
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

// ignoreClosed drops the error of ending what has ended with its connection.
func ignoreClosed(err error) error {
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrBadSubscription) {
		return nil
	}
	return err
}
