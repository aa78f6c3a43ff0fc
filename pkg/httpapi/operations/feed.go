package operations

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/progress"
)

// Feed is the event stream, of all operations or, with an id, of one.
type Feed interface {
	// Last returns the sequence of the newest event.
	Last(ctx context.Context) (uint64, error)
	// Subscribe yields the events after a sequence and waits for more until ctx
	// ends; 0 means from the beginning, and a gap in its place if that is gone.
	Subscribe(ctx context.Context, operationID string, after uint64) iter.Seq2[progress.FeedEvent, error]
	// Page returns at most limit of them without waiting.
	Page(ctx context.Context, operationID string, after uint64, limit int) (progress.FeedPage, error)
}

// ResultLog is Genvid's log of results.
type ResultLog interface {
	// Read returns the messages from a position on, and the position after them.
	Read(counter uint64) (end uint64, messages []progress.Message)
}

// eventView is one event of a page. Data is the message's envelope; of a gap it
// says which sequences are gone.
type eventView struct {
	Sequence    uint64          `json:"sequence"`
	Type        string          `json:"type"`
	Time        *time.Time      `json:"time"`
	OperationID string          `json:"operation_id,omitempty"`
	Data        json.RawMessage `json:"data"`
}

// eventPage is a list that can be polled: LastEventID is where to go on, even
// from the end.
type eventPage struct {
	listView[eventView]
	LastEventID string `json:"last_event_id"`
}

// feed serves the events of all operations. A stream without Last-Event-ID
// begins with what comes next; a page begins with the oldest event.
func (rm *room) feed(c *gin.Context) {
	if wantsJSON(c.Request) {
		rm.eventPage(c, "")
		return
	}
	after, given, err := rm.streamStart(c)
	if err == nil && !given {
		after, err = rm.Feed.Last(c.Request.Context())
	}
	if err != nil {
		rm.fail(c, "finding the end of the feed", err)
		return
	}
	rm.stream(c, "", after)
}

// operationEvents serves the events of one operation, from the oldest that the
// stream still has unless Last-Event-ID says otherwise. When the operation's
// beginning is gone, a gap tells of it first.
func (rm *room) operationEvents(c *gin.Context) {
	op, _, ok := rm.find(c)
	if !ok {
		return
	}
	if wantsJSON(c.Request) {
		rm.eventPage(c, op.ID)
		return
	}
	q, err := httpapi.Query(c.Request, "from")
	if err == nil && q.Has("from") && q.Get("from") != fromStart && q.Get("from") != fromNow {
		err = &operation.InvalidError{Field: "from", Problem: "is not a place in the stream", Hint: "use start or now"}
	}
	if err != nil {
		rm.fail(c, "", err)
		return
	}
	after, given, err := lastEventID(c.Request)
	if err == nil && !given && q.Get("from") == fromNow {
		after, err = rm.Feed.Last(c.Request.Context())
	}
	if err != nil {
		rm.fail(c, "finding where the stream begins", err)
		return
	}
	rm.stream(c, op.ID, after)
}

// Where the stream of an operation begins for a reader who has had nothing of it:
// with its first event, or with the next.
const (
	fromStart = "start"
	fromNow   = "now"
)

// wantsJSON: the routes of this file stream unless only JSON is asked for.
func wantsJSON(r *http.Request) bool {
	accept := strings.ToLower(strings.Join(r.Header.Values("Accept"), ","))
	return strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/event-stream")
}

func (rm *room) streamStart(c *gin.Context) (after uint64, given bool, err error) {
	if _, err := httpapi.Query(c.Request); err != nil {
		return 0, false, err
	}
	return lastEventID(c.Request)
}

// lastEventID reads the header of that name; empty is as good as absent, which
// is what EventSource sends first.
func lastEventID(r *http.Request) (after uint64, given bool, err error) {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		return 0, false, nil
	}
	after, err = strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, false, &operation.InvalidError{
			Field: "Last-Event-ID", Problem: "is not the id of an event", Hint: "send the id of the last event that arrived, or none",
		}
	}
	return after, true, nil
}

func (rm *room) eventPage(c *gin.Context, operationID string) {
	q, err := httpapi.Query(c.Request, "limit", "cursor")
	if err != nil {
		rm.fail(c, "", err)
		return
	}
	limit, cursor, err := httpapi.Page(q)
	if err != nil {
		rm.fail(c, "", err)
		return
	}
	after, _, err := lastEventID(c.Request)
	if cursor != "" && err == nil {
		if after, err = strconv.ParseUint(cursor, 10, 64); err != nil {
			err = httpapi.BadCursor()
		}
	}
	if err != nil {
		rm.fail(c, "", err)
		return
	}
	now := rm.Now()
	page, err := rm.Feed.Page(c.Request.Context(), operationID, after, limit)
	if err != nil {
		rm.fail(c, "reading events", err)
		return
	}
	items := make([]eventView, len(page.Events))
	for i, e := range page.Events {
		items[i] = eventView{Sequence: e.Sequence, Type: e.Type, OperationID: e.OperationID, Data: e.Data}
		if !e.Time.IsZero() {
			at := e.Time.UTC()
			items[i].Time = &at
		}
	}
	last := strconv.FormatUint(page.Next, 10)
	next := ""
	if len(items) >= limit {
		next = last
	}
	httpapi.JSON(c, http.StatusOK, eventPage{newList(items, next, now), last})
}

// stream sends events until the client leaves, the feed ends or the process
// drains. The client resumes with the id of the last event it has.
func (rm *room) stream(c *gin.Context, operationID string, after uint64) {
	select {
	case rm.streams <- struct{}{}:
		defer func() { <-rm.streams }()
	default:
		c.Header("Retry-After", "5")
		httpapi.WriteProblem(c.Writer, httpapi.Problem{
			Status: http.StatusServiceUnavailable, Code: "too_many_streams",
			Detail: "too many event streams are open at this server (limit " + strconv.Itoa(cap(rm.streams)) + ")",
			Hint:   "ask for pages with Accept: application/json, or try again later",
		})
		return
	}
	out := httpapi.NewEventStream(c)
	defer out.Close()
	if httpapi.OriginalMethod(c.Request) == http.MethodHead {
		return
	}
	if err := out.Flush(); err != nil {
		return
	}
	tick, stop := rm.Heartbeat()
	defer stop()

	ctx, cancel := context.WithCancel(c.Request.Context())
	events := make(chan progress.FeedEvent)
	ended := make(chan struct{})
	defer func() { cancel(); <-ended }()
	go func() {
		defer close(ended)
		defer close(events)
		for e, err := range rm.Feed.Subscribe(ctx, operationID, after) {
			if err != nil {
				httpapi.LogError(ctx, rm.Logger, c.Request, "following the event stream", err)
				return
			}
			select {
			case events <- e:
			case <-ctx.Done():
				return
			}
		}
	}()

	for {
		var err error
		select {
		case e, open := <-events:
			if !open {
				return
			}
			err = out.Event(e.Sequence, e.Type, e.Data)
		case <-tick:
			err = out.Comment("still here")
		case <-ctx.Done():
			return
		case <-rm.Draining:
			return
		}
		if err != nil {
			return
		}
	}
}

// resultsView is Genvid's shape.
type resultsView struct {
	Counter  uint64             `json:"counter"`
	Messages []progress.Message `json:"messages"`
}

// results serves the log from a position on. The position is a number, as
// Genvid's route has it; anything else is no route.
func (rm *room) results(c *gin.Context) {
	var counter uint64
	if text := c.Param("counter"); text != "" {
		var err error
		if counter, err = strconv.ParseUint(text, 10, 64); err != nil || strings.HasPrefix(text, "+") {
			httpapi.WriteProblem(c.Writer, httpapi.Problem{
				Status: http.StatusNotFound, Code: "no_such_route",
				Detail: "the position in the log is a number from 0", Hint: "start with /v1/events/results/0",
			})
			return
		}
	}
	end, messages := rm.Results.Read(counter)
	if messages == nil {
		messages = []progress.Message{}
	}
	c.Header("X-As-Of", rm.Now().UTC().Format(time.RFC3339))
	httpapi.JSON(c, http.StatusOK, resultsView{Counter: end, Messages: messages})
}
