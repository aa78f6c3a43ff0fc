package progress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"ringmaster/events"
	"ringmaster/pkg/bus"
)

// TypeGap is the type of a FeedEvent that stands for events which the stream no
// longer holds. Its data is a Gap.
const TypeGap = "gap"

// firstEvents is among how many of an operation's events the one that told of the
// new operation is looked for.
const firstEvents = 8

// FeedEvent is one event of a feed.
type FeedEvent struct {
	// Sequence is the event's number in the stream; a reader that resumes after
	// it misses nothing that there still is.
	Sequence uint64
	// Type is the type string of the envelope, or TypeGap.
	Type string
	// Time is when the stream stored the event, in UTC; a gap has none.
	Time time.Time
	// OperationID is the operation that the event is about.
	OperationID string
	// Data is the envelope, or a Gap, as JSON.
	Data json.RawMessage
}

// Gap says that events between two sequences are gone. Whoever reads it should
// fetch the operations again.
type Gap struct {
	// After is the last event that the reader had.
	After uint64 `json:"after"`
	// First is the first event that can follow.
	First uint64 `json:"first"`
}

// FeedPage is a part of a feed.
type FeedPage struct {
	Events []FeedEvent
	// Next is what to read after for the page that follows.
	Next uint64
}

// Feed serves the event stream to readers outside.
type Feed struct{ log Log }

// NewFeed returns a feed of log.
func NewFeed(log Log) *Feed { return &Feed{log: log} }

// Last returns the sequence of the newest event: what to subscribe after to see
// only what is new.
func (f *Feed) Last(ctx context.Context) (uint64, error) {
	_, next, err := f.log.Bounds(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading the end of the event stream: %w", err)
	}
	return next - 1, nil
}

// Subscribe yields the events of one operation, or of all when operationID is
// empty, that come after a sequence, and waits for more until ctx ends; 0 means
// from the beginning. Where events are gone, and where the stream has never come
// as far as the reader says it has read, a gap takes their place. Those of one
// operation have a gap at their beginning only if its own is gone.
// It ends with ctx, then without an error, or after an error.
func (f *Feed) Subscribe(ctx context.Context, operationID string, after uint64) iter.Seq2[FeedEvent, error] {
	return func(yield func(FeedEvent, error) bool) {
		from, gap, err := f.start(ctx, operationID, after)
		if err != nil {
			if ctx.Err() == nil {
				yield(FeedEvent{}, err)
			}
			return
		}
		if gap != nil && !yield(gap.event(from-1), nil) {
			return
		}
		position := from - 1
		for record, err := range f.log.Tail(ctx, from, filterOf(operationID)) {
			var lost *bus.GapError
			var e FeedEvent
			ok := true
			switch {
			case errors.As(err, &lost):
				position = max(position, lost.First-1)
				e = Gap{After: lost.Requested - 1, First: lost.First}.event(position)
			case err != nil && ctx.Err() != nil:
				return
			case err != nil:
				yield(FeedEvent{}, fmt.Errorf("reading events: %w", err))
				return
			default:
				position = record.Sequence
				e, ok = feedEvent(record)
			}
			if ok && !yield(e, nil) {
				return
			}
		}
	}
}

// Page returns up to limit events that Subscribe would yield, without waiting,
// and a gap before them where there is one. A limit below 1 means DefaultPage,
// one above MaxPage means MaxPage.
func (f *Feed) Page(ctx context.Context, operationID string, after uint64, limit int) (FeedPage, error) {
	if limit < 1 {
		limit = DefaultPage
	}
	from, gap, err := f.start(ctx, operationID, after)
	if err != nil {
		return FeedPage{}, err
	}
	records, err := f.log.Page(ctx, from, filterOf(operationID), min(limit, MaxPage))
	if lost, ok := errors.AsType[*bus.GapError](err); ok {
		gap, err = &Gap{After: from - 1, First: lost.First}, nil
		from = lost.First
	}
	if err != nil {
		return FeedPage{}, fmt.Errorf("reading events: %w", err)
	}
	page := FeedPage{Events: []FeedEvent{}, Next: from - 1}
	if gap != nil {
		page.Events = append(page.Events, gap.event(from-1))
	}
	for _, record := range records {
		page.Next = record.Sequence
		if e, ok := feedEvent(record); ok {
			page.Events = append(page.Events, e)
		}
	}
	return page, nil
}

// start returns the first sequence to read for a reader that has read as far as
// after. The gap is not nil when the beginning that the reader wants is gone, or
// when the stream has never come as far as after: it was made anew, and is read
// from its beginning.
func (f *Feed) start(ctx context.Context, operationID string, after uint64) (from uint64, gap *Gap, err error) {
	first, next, err := f.log.Bounds(ctx)
	switch {
	case err != nil:
		return 0, nil, fmt.Errorf("reading the bounds of the event stream: %w", err)
	case after >= next:
		return first, &Gap{After: after, First: first}, nil
	case after > 0:
		return after + 1, nil, nil
	case first <= 1:
		return first, nil, nil
	}
	if operationID != "" {
		held, err := f.holdsBeginning(ctx, operationID, first)
		if err != nil {
			return 0, nil, err
		}
		if held {
			return first, nil, nil
		}
	}
	return first, &Gap{First: first}, nil
}

// holdsBeginning reports whether the event that told of a new operation is among
// the operation's first ones from a sequence on. It need not be the very first:
// a controller may have been faster than the process that took the operation in.
func (f *Feed) holdsBeginning(ctx context.Context, operationID string, from uint64) (bool, error) {
	records, err := f.log.Page(ctx, from, filterOf(operationID), firstEvents)
	if _, overtaken := errors.AsType[*bus.GapError](err); err != nil && !overtaken {
		return false, fmt.Errorf("reading the operation's first events: %w", err)
	}
	for _, record := range records {
		_, payload, err := events.Decode(record.Data)
		if change, ok := payload.(events.OperationChange); err == nil && ok && change.Previous == "" {
			return true, nil
		}
	}
	return false, nil
}

func (g Gap) event(sequence uint64) FeedEvent {
	// Two numbers always marshal.
	data, _ := json.Marshal(g)
	return FeedEvent{Sequence: sequence, Type: TypeGap, Data: data}
}

// feedEvent reads what a feed says of an event. Types that this release does
// not know are passed on; what is no event at all is left out.
func feedEvent(record bus.Record) (FeedEvent, bool) {
	var envelope events.Envelope
	if err := json.Unmarshal(record.Data, &envelope); err != nil || envelope.Type == "" {
		return FeedEvent{}, false
	}
	id, _, _ := strings.Cut(envelope.Subject, "/")
	return FeedEvent{
		Sequence: record.Sequence, Type: envelope.Type, Time: record.Time.UTC(),
		OperationID: id, Data: record.Data,
	}, true
}

func filterOf(operationID string) string {
	if operationID == "" {
		return events.AllEvents
	}
	return events.OperationEvents(operationID)
}
