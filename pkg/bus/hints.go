package bus

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"ringmaster/events"
)

// ErrHintsFull says that a backend's hints have reached their bound. Nothing was
// stored.
var ErrHintsFull = errors.New("the hints are full")

// ErrNoStorage says that the server has no room to promise for another stream.
var ErrNoStorage = errors.New("the server has no room for the stream")

// ErrNotEmpty says that what is to be removed still holds messages.
var ErrNotEmpty = errors.New("not empty")

// MaxHintPart is the largest part that Append takes: a message below the servers'
// usual limit of 1 MiB, with room for its headers.
const MaxHintPart = 768 << 10

const codeStorageExceeded = 10047

// Hints are the points that wait for one backend: a bounded queue on disk, appended
// to by every process and read from the front by the one that replays it.
type Hints struct {
	bus     *Bus
	backend string
	stream  string
	subject string

	// turn is taken by who appends; it guards the rest.
	turn chan struct{}
	// last is the sequence of the newest message, if known.
	last  uint64
	known bool
}

// HintsState is how much a backend's hints hold.
type HintsState struct {
	// Backend is its URL.
	Backend  string
	Messages uint64
	Bytes    uint64
	MaxBytes int64
	// Oldest is when the oldest message was stored; zero if there is none.
	Oldest time.Time
	// First is the sequence of the oldest message, Next the one that the next
	// message will have; equal when there is none.
	First, Next uint64
}

// Hints opens the hints of the backend with this URL and makes the stream if it is
// missing, on as many servers as the other streams. maxBytes bounds it, 0 means
// events.HintsMaxBytes. ErrNoStorage means that the server could not keep as much.
func (b *Bus) Hints(ctx context.Context, backendURL string, maxBytes int64) (*Hints, error) {
	h := &Hints{bus: b, backend: backendURL, stream: events.HintStreamName(backendURL), subject: events.HintSubject(backendURL), turn: make(chan struct{}, 1)}
	if err := h.make(ctx, maxBytes); err != nil {
		return nil, fmt.Errorf("opening the hints of %s: %w", backendURL, err)
	}
	return h, nil
}

func (h *Hints) make(ctx context.Context, maxBytes int64) error {
	others, err := h.bus.lookUp(ctx, events.StreamCommands)
	if err != nil {
		return err
	}
	if others == nil {
		return fmt.Errorf("stream %s: %w", events.StreamCommands, ErrNotFound)
	}
	wanted := streamConfig(events.HintStream(h.backend, maxBytes), others.Replicas)
	found, err := h.bus.lookUp(ctx, h.stream)
	if err != nil {
		return err
	}
	if found != nil {
		if slices.Equal(found.Subjects, []string{events.ClosedHintSubject(h.backend)}) {
			// A removal that was cut off, or that goes on; that one then fails.
			if found, err = h.route(ctx, *found, h.subject); err != nil {
				return err
			}
		}
		if err := compatible(*found, wanted); err != nil {
			return err
		}
	}
	err = h.bus.applyStream(ctx, wanted, found)
	if apiCode(err) == codeStorageExceeded {
		return fmt.Errorf("%w of %d bytes: %w", ErrNoStorage, wanted.MaxBytes, err)
	}
	return err
}

// route gives the stream another subject.
func (h *Hints) route(ctx context.Context, found jetstream.StreamConfig, subject string) (*jetstream.StreamConfig, error) {
	ctx, cancel := h.bus.bounded(ctx)
	defer cancel()
	found.Subjects = []string{subject}
	err := h.bus.repeat(ctx, func(ctx context.Context) error {
		_, err := h.bus.js.UpdateStream(ctx, found)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("changing the subject of stream %s: %w", h.stream, err)
	}
	return &found, nil
}

// Append stores all parts, in their order and next to one another, or none. When it
// returns nil they are on disk. ErrHintsFull: nothing was stored. After an error
// that matches ErrUnavailable they may be stored, now or in a moment, but only as long
// as nothing else is: every append names the message that it comes after. So what a
// server was sent before it was stopped is never stored behind what came later. Append
// itself tries again when an answer is lost and stores nothing twice.
func (h *Hints) Append(ctx context.Context, parts [][]byte) error {
	if len(parts) == 0 || len(parts) > MaxBatch {
		return fmt.Errorf("appending to the hints of %s: %d parts, must be 1 to %d", h.backend, len(parts), MaxBatch)
	}
	id := rand.Text()
	messages := make([]Message, len(parts))
	for i, p := range parts {
		if len(p) > MaxHintPart {
			return fmt.Errorf("appending to the hints of %s: %w: a part of %d bytes, not more than %d", h.backend, ErrTooLarge, len(p), MaxHintPart)
		}
		messages[i] = Message{Subject: h.subject, Data: p, ID: id + "/" + strconv.Itoa(i)}
	}
	ctx, cancel := h.bus.bounded(ctx)
	defer cancel()
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-ctx.Done():
		return fmt.Errorf("appending to the hints of %s: %w: %w", h.backend, ErrUnavailable, context.Cause(ctx))
	}
	for {
		err := h.try(ctx, messages)
		rest := mathrand.N(retryPause) + retryPause/10
		switch code := apiCode(err); {
		case err == nil:
			return nil
		case code == codeStoreFailed && isFull(err):
			return fmt.Errorf("appending to the hints of %s: %w", h.backend, ErrHintsFull)
		case code == codeBatchDuplicate:
			// The ids are this call's alone: an earlier try has stored the batch,
			// as one step.
			return nil
		case isWrongRevision(err):
			rest = mathrand.N(retryPause / 10) // another process was faster
		case !errors.Is(err, ErrUnavailable) && code != codeBatchIncomplete && code != codeBatchTooManyInflight:
			return fmt.Errorf("appending to the hints of %s: %w", h.backend, err)
		}
		if pause(ctx, rest) != nil {
			return fmt.Errorf("appending to the hints of %s: %w: %w", h.backend, ErrUnavailable, err)
		}
	}
}

// try appends once, behind the newest message. Unless that is known to have succeeded,
// what is the newest one is asked for the next time.
func (h *Hints) try(ctx context.Context, messages []Message) error {
	if !h.known {
		_, next, err := h.bus.bounds(ctx, h.stream)
		if err != nil {
			return err
		}
		h.last, h.known = next-1, true
	}
	messages[0].header = nats.Header{jetstream.ExpectedLastSeqHeader: {strconv.FormatUint(h.last, 10)}}
	h.known = false
	return h.bus.attempt(ctx, func(ctx context.Context) error {
		if len(messages) > 1 {
			last, err := h.bus.tryBatch(ctx, h.stream, messages)
			h.last, h.known = last, err == nil
			return err
		}
		m := nats.NewMsg(h.subject)
		m.Data, m.Header = messages[0].Data, maps.Clone(messages[0].header)
		ack, err := h.bus.js.PublishMsg(ctx, m, jetstream.WithExpectStream(h.stream), jetstream.WithMsgID(messages[0].ID), jetstream.WithRetryAttempts(0))
		if err == nil && !ack.Duplicate {
			h.last, h.known = ack.Sequence, true
		}
		return err
	})
}

// isFull tells a full stream from the other reasons that share its code.
func isFull(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && strings.Contains(api.Description, "maximum bytes exceeded")
}

// State reads how much there is, from the stream's leader: everything that was
// acknowledged before is in it.
func (h *Hints) State(ctx context.Context) (HintsState, error) {
	ctx, cancel := h.bus.bounded(ctx)
	defer cancel()
	var state HintsState
	err := h.bus.ask(ctx, func(ctx context.Context) error {
		s, err := h.bus.js.Stream(ctx, h.stream)
		if err == nil {
			state = hintsState(h.backend, s.CachedInfo())
		}
		return err
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		err = ErrNotFound
	}
	if err != nil {
		return HintsState{}, fmt.Errorf("reading the state of the hints of %s: %w", h.backend, err)
	}
	return state, nil
}

func hintsState(backendURL string, info *jetstream.StreamInfo) HintsState {
	state := HintsState{
		Backend: backendURL, Messages: info.State.Msgs, Bytes: info.State.Bytes, MaxBytes: info.Config.MaxBytes,
		First: max(info.State.FirstSeq, 1), Next: info.State.LastSeq + 1,
	}
	if info.State.Msgs > 0 {
		state.Oldest = info.State.FirstTime
	} else {
		state.First = state.Next
	}
	return state
}

// Read returns the oldest messages after a sequence, in their order, at most limit
// and not much more than 2 MiB of them; none only when there is none. What
// DeleteThrough has removed does not come again, whichever server answers.
func (h *Hints) Read(ctx context.Context, after uint64, limit int) ([]Record, error) {
	ctx, cancel := h.bus.bounded(ctx)
	defer cancel()
	for {
		// The leader knows what there is; a page comes from any replica, which may
		// be behind: it may still have what was removed, or not have the newest.
		first, next, err := h.bus.bounds(ctx, h.stream)
		if err != nil {
			return nil, fmt.Errorf("reading the hints of %s: %w", h.backend, err)
		}
		from := max(after+1, first)
		if from >= next {
			return nil, nil
		}
		records, _, err := h.bus.page(ctx, h.stream, h.subject, from, min(max(limit, 1), MaxPage))
		if err != nil {
			return nil, fmt.Errorf("reading the hints of %s: %w", h.backend, err)
		}
		if len(records) > 0 {
			return records, nil
		}
		if err := pause(ctx, retryPause/10); err != nil {
			return nil, fmt.Errorf("reading the hints of %s: %w", h.backend, err)
		}
	}
}

// DeleteThrough removes every message up to and with a sequence. A crash of the
// server may bring a last part of them back, never one from the middle.
func (h *Hints) DeleteThrough(ctx context.Context, sequence uint64) error {
	ctx, cancel := h.bus.bounded(ctx)
	defer cancel()
	request := fmt.Appendf(nil, `{"seq":%d}`, sequence+1)
	err := h.bus.repeat(ctx, func(ctx context.Context) error {
		return h.bus.command(ctx, "$JS.API.STREAM.PURGE."+h.stream, request)
	})
	if err != nil {
		return fmt.Errorf("deleting from the hints of %s: %w", h.backend, err)
	}
	return nil
}

// ListHints returns the state of all hints that there are.
func (b *Bus) ListHints(ctx context.Context) ([]HintsState, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	var all []HintsState
	for _, filter := range []string{events.AllHints, events.AllClosedHints} {
		streams, err := b.listStreams(ctx, filter)
		if err != nil {
			return nil, fmt.Errorf("listing hints: %w", err)
		}
		for _, info := range streams {
			if backend := info.Config.Metadata[events.MetadataBackend]; backend != "" {
				all = append(all, hintsState(backend, info))
			}
		}
	}
	slices.SortFunc(all, func(a, b HintsState) int { return strings.Compare(a.Backend, b.Backend) })
	return all, nil
}

// listStreams returns all streams with a subject that matches filter. In a cluster the
// server collects the answers of the streams' leaders, and leaves out who did not
// answer, as while one is elected; then the list is asked for again.
func (b *Bus) listStreams(ctx context.Context, filter string) (all []*jetstream.StreamInfo, err error) {
	for {
		var page struct {
			Error   *jetstream.APIError     `json:"error"`
			Total   int                     `json:"total"`
			Streams []*jetstream.StreamInfo `json:"streams"`
			Missing []string                `json:"missing"`
		}
		request, err := json.Marshal(struct {
			Offset  int    `json:"offset"`
			Subject string `json:"subject"`
		}{len(all), filter})
		if err != nil {
			return nil, err
		}
		err = b.repeat(ctx, func(ctx context.Context) error {
			m, err := b.conn.RequestWithContext(ctx, "$JS.API.STREAM.LIST", request)
			if err != nil {
				return err
			}
			page.Error, page.Missing, page.Streams = nil, nil, nil
			if err := json.Unmarshal(m.Data, &page); err != nil {
				return fmt.Errorf("reading the server's answer: %w", err)
			}
			switch {
			case page.Error != nil:
				return page.Error
			case len(page.Missing) > 0:
				return fmt.Errorf("%w: nothing is known of %s", ErrUnavailable, strings.Join(page.Missing, ", "))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		all = append(all, page.Streams...)
		if len(page.Streams) == 0 || len(all) >= page.Total {
			return all, nil
		}
	}
}

// RemoveHints removes the stream of a backend's hints, or returns ErrNotEmpty and
// leaves it as it is. Nothing that is appended at the same time is lost: while it is
// decided, appending fails. One that is gone already is no error.
func (b *Bus) RemoveHints(ctx context.Context, backendURL string) error {
	h := &Hints{bus: b, backend: backendURL, stream: events.HintStreamName(backendURL), subject: events.HintSubject(backendURL)}
	if err := h.remove(ctx); err != nil {
		return fmt.Errorf("removing the hints of %s: %w", backendURL, err)
	}
	return nil
}

func (h *Hints) remove(ctx context.Context) error {
	found, err := h.bus.lookUp(ctx, h.stream)
	if err != nil || found == nil {
		return err
	}
	if _, err := h.route(ctx, *found, events.ClosedHintSubject(h.backend)); err != nil {
		return err
	}
	state, err := h.State(ctx)
	if err == nil && state.Messages > 0 {
		err = ErrNotEmpty
	}
	if err != nil {
		// It stays closed if this fails too; opening it opens it.
		_, back := h.route(context.WithoutCancel(ctx), *found, h.subject)
		return errors.Join(err, back)
	}
	ctx, cancel := h.bus.bounded(ctx)
	defer cancel()
	return h.bus.repeat(ctx, func(ctx context.Context) error {
		err := h.bus.js.DeleteStream(ctx, h.stream)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil
		}
		return err
	})
}
