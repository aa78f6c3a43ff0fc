package progress

import (
	"context"
	"encoding/json"
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

// FeedEvent is one event of a feed.
type FeedEvent struct {
	// Sequence is the event's number in the stream; a reader that resumes after
	// it misses nothing. A gap event has the number before First.
	Sequence uint64
	// Type is the type string of the envelope, or TypeGap.
	Type string
	// Time is when the stream stored the event; a gap has none.
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
	_, last, err := f.log.Bounds(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading the end of the event stream: %w", err)
	}
	return last, nil
}

// Subscribe yields the events of one operation, or of all when operationID is
// empty, that come after a sequence, and waits for more until ctx ends; 0 means
// from the oldest there is. When events after the given one are gone, or the
// stream has never had it, a gap comes first. It ends with ctx, then without an
// error, or after an error.
func (f *Feed) Subscribe(ctx context.Context, operationID string, after uint64) iter.Seq2[FeedEvent, error] {
	return func(yield func(FeedEvent, error) bool) {
		gap, err := f.gap(ctx, after)
		if err != nil {
			if ctx.Err() == nil {
				yield(FeedEvent{}, err)
			}
			return
		}
		if gap != nil {
			if !yield(gap.event(), nil) {
				return
			}
			after = gap.First - 1
		}
		for record, err := range f.log.Tail(ctx, after+1, filterOf(operationID)) {
			if err != nil {
				if ctx.Err() == nil {
					yield(FeedEvent{}, fmt.Errorf("reading events: %w", err))
				}
				return
			}
			if e, ok := feedEvent(record); ok && !yield(e, nil) {
				return
			}
		}
	}
}

// Page returns up to limit events that Subscribe would yield, without waiting.
// A limit below 1 means DefaultPage, one above MaxPage means MaxPage.
func (f *Feed) Page(ctx context.Context, operationID string, after uint64, limit int) (FeedPage, error) {
	if limit < 1 {
		limit = DefaultPage
	}
	page := FeedPage{Events: []FeedEvent{}, Next: after}
	gap, err := f.gap(ctx, after)
	if err != nil {
		return FeedPage{}, err
	}
	if gap != nil {
		page.Events = append(page.Events, gap.event())
		page.Next = gap.First - 1
	}
	records, err := f.log.Page(ctx, page.Next+1, filterOf(operationID), min(limit, MaxPage))
	if err != nil {
		return FeedPage{}, fmt.Errorf("reading events: %w", err)
	}
	for _, record := range records {
		page.Next = record.Sequence
		if e, ok := feedEvent(record); ok {
			page.Events = append(page.Events, e)
		}
	}
	return page, nil
}

// gap returns what a reader after a sequence has missed; nil for nothing.
func (f *Feed) gap(ctx context.Context, after uint64) (*Gap, error) {
	if after == 0 {
		return nil, nil
	}
	first, last, err := f.log.Bounds(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the bounds of the event stream: %w", err)
	}
	if after+1 >= first && after <= last {
		return nil, nil
	}
	return &Gap{After: after, First: max(first, 1)}, nil
}

func (g Gap) event() FeedEvent {
	// Two numbers always marshal.
	data, _ := json.Marshal(g)
	return FeedEvent{Sequence: g.First - 1, Type: TypeGap, Data: data}
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
		Sequence: record.Sequence, Type: envelope.Type, Time: record.Time,
		OperationID: id, Data: record.Data,
	}, true
}

func filterOf(operationID string) string {
	if operationID == "" {
		return events.AllEvents
	}
	return events.OperationEvents(operationID)
}
