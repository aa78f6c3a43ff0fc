package operations_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/httpapi/httpapitest"
	"ringmaster/pkg/httpapi/operations"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/progress"
)

func event(sequence uint64, operationID string) progress.FeedEvent {
	return progress.FeedEvent{
		Sequence: sequence, Type: "ringmaster.operation.change.v1", Time: httpapitest.Now(), OperationID: operationID,
		Data: json.RawMessage(fmt.Sprintf(`{"id":"e%d"}`, sequence)),
	}
}

func withEvents() *httpapitest.Backend {
	b := httpapitest.NewBackend()
	b.Stored = []operation.Operation{full()}
	b.Stream = []progress.FeedEvent{
		{Sequence: 4, Type: progress.TypeGap, Data: json.RawMessage(`{"after":0,"first":5}`)},
		event(5, httpapitest.ID(1)), event(6, httpapitest.ID(2)), event(7, httpapitest.ID(1)),
	}
	return b
}

// stream opens a stream and returns a reader of its next block.
func stream(t *testing.T, c *httpapitest.Client, target string, options ...httpapitest.Option) (next func() string, response *http.Response) {
	t.Helper()
	w := c.Stream(c.Request("GET", target, "", options...))
	t.Cleanup(func() { w.Body.Close() })
	lines := bufio.NewScanner(w.Body)
	return func() string {
		var block []string
		for lines.Scan() {
			if lines.Text() == "" {
				break
			}
			block = append(block, lines.Text())
		}
		return strings.Join(block, "\n")
	}, w
}

const changed = "\nevent: ringmaster.operation.change.v1\ndata: "

func TestAnOperationsStreamBeginsAtItsOldestEvent(t *testing.T) {
	b := withEvents()
	next, w := stream(t, serve(t, b), "/v1/operations/"+httpapitest.ID(1)+"/events")
	require.Equal(t, "text/event-stream", w.Header.Get("Content-Type"))
	require.Equal(t, "id: 5"+changed+`{"id":"e5"}`, next())
	require.Equal(t, "id: 7"+changed+`{"id":"e7"}`, next())
	b.More <- event(9, httpapitest.ID(1))
	require.Equal(t, "id: 9"+changed+`{"id":"e9"}`, next())
}

func TestAnOperationsStreamMayBeginNow(t *testing.T) {
	b := withEvents()
	c := serve(t, b)
	target := "/v1/operations/" + httpapitest.ID(1) + "/events?from=now"
	next, _ := stream(t, c, target)
	require.EqualValues(t, 7, <-b.Subscribed)
	b.More <- event(9, httpapitest.ID(1))
	require.Equal(t, "id: 9"+changed+`{"id":"e9"}`, next())
	next, _ = stream(t, c, target, httpapitest.Header("Last-Event-ID", "6"))
	require.Equal(t, "id: 7"+changed+`{"id":"e7"}`, next(), "who has had something goes on after it")
	w := c.Get("/v1/operations/" + httpapitest.ID(1) + "/events?from=then")
	require.Equal(t, 400, w.Status)
	require.Equal(t, "from", problem(t, w).Field)
}

func TestTheFeedBeginsWithWhatComesNext(t *testing.T) {
	b := withEvents()
	next, _ := stream(t, serve(t, b), "/v1/feed", httpapitest.Header("Accept", "text/event-stream"))
	require.EqualValues(t, 7, <-b.Subscribed)
	b.More <- event(8, "")
	require.Equal(t, "id: 8"+changed+`{"id":"e8"}`, next())
}

func TestAStreamResumes(t *testing.T) {
	b := withEvents()
	c := serve(t, b)
	next, _ := stream(t, c, "/v1/feed", httpapitest.Header("Last-Event-ID", "6"))
	require.Equal(t, "id: 7"+changed+`{"id":"e7"}`, next())

	next, _ = stream(t, c, "/v1/feed", httpapitest.Header("Last-Event-ID", "0"))
	require.Equal(t, "id: 4\nevent: gap\ndata: "+`{"after":0,"first":5}`, next())

	for _, bad := range []string{"x", "-1", "1.5", "99999999999999999999"} {
		for _, target := range []string{"/v1/feed", "/v1/operations/" + httpapitest.ID(1) + "/events"} {
			w := c.Get(target, httpapitest.Header("Last-Event-ID", bad))
			require.Equal(t, 400, w.Status)
			require.Equal(t, "Last-Event-ID", problem(t, w).Field)
		}
	}
}

// trimmedLog is a stream whose events, up to a sequence, are all gone.
type trimmedLog struct{ last uint64 }

func (l trimmedLog) Bounds(context.Context) (first, next uint64, err error) {
	return l.last + 1, l.last + 1, nil
}

func (trimmedLog) Tail(ctx context.Context, _ uint64, _ string) iter.Seq2[bus.Record, error] {
	return func(yield func(bus.Record, error) bool) {
		<-ctx.Done()
		yield(bus.Record{}, ctx.Err())
	}
}

func (trimmedLog) Last(context.Context, string) (bus.Record, error) {
	return bus.Record{}, bus.ErrNotFound
}

func (trimmedLog) Page(context.Context, uint64, string, int) ([]bus.Record, error) { return nil, nil }

func TestWhatIsGoneIsToldOf(t *testing.T) {
	c := serve(t, withEvents(), func(d *operations.Deps) { d.Feed = progress.NewFeed(trimmedLog{9}) })
	const gap = `{"after":0,"first":10}`
	own := "/v1/operations/" + httpapitest.ID(1) + "/events"
	zero := httpapitest.Header("Last-Event-ID", "0")
	for target, options := range map[string][]httpapitest.Option{own: nil, "/v1/feed": {zero}} {
		next, _ := stream(t, c, target, options...)
		require.Equal(t, "id: 9\nevent: gap\ndata: "+gap, next())
	}
	type page struct {
		Items []struct {
			Sequence uint64
			Type     string
			Data     json.RawMessage
		}
		LastEventID string `json:"last_event_id"`
	}
	js := httpapitest.Header("Accept", "application/json")
	for _, target := range []string{own, "/v1/feed"} {
		for _, options := range [][]httpapitest.Option{{js}, {js, zero}} {
			got := read[page](t, c.Get(target, options...))
			require.Len(t, got.Items, 1)
			require.Equal(t, "gap", got.Items[0].Type)
			require.EqualValues(t, 9, got.Items[0].Sequence)
			require.JSONEq(t, gap, string(got.Items[0].Data))
			require.Equal(t, "9", got.LastEventID)
		}
		got := read[page](t, c.Get(target, js, httpapitest.Header("Last-Event-ID", "9")))
		require.Empty(t, got.Items, "a gap is told of once")
	}
}

func TestAQuietStreamSaysThatItLives(t *testing.T) {
	b := withEvents()
	tick := make(chan time.Time)
	stopped := make(chan struct{})
	c := serve(t, b, func(d *operations.Deps) {
		d.Heartbeat = func() (<-chan time.Time, func()) { return tick, func() { close(stopped) } }
	})
	next, w := stream(t, c, "/v1/feed")
	tick <- httpapitest.Now()
	require.Equal(t, ": still here", next())
	w.Body.Close()
	<-stopped
}

// TestAStreamOutlivesTheReadTimeout: the server's limit for requests is none
// for streams.
func TestAStreamOutlivesTheReadTimeout(t *testing.T) {
	const timeout = 20 * time.Millisecond
	b := withEvents()
	engine := newEngine(t, b, func(d *operations.Deps) {
		d.Heartbeat = func() (<-chan time.Time, func()) {
			ticker := time.NewTicker(2 * timeout)
			return ticker.C, ticker.Stop
		}
	})
	spec, err := contract()
	require.NoError(t, err)
	c := httpapitest.NewClient(t, spec, engine, func(s *http.Server) { s.ReadTimeout = timeout })
	next, _ := stream(t, c, "/v1/feed")
	for range 3 {
		require.Equal(t, ": still here", next())
	}
}

func TestStreamsEndWhenTheProcessDrains(t *testing.T) {
	b := withEvents()
	draining := make(chan struct{})
	next, _ := stream(t, serve(t, b, func(d *operations.Deps) { d.Draining = draining }), "/v1/feed")
	<-b.Subscribed
	close(draining)
	require.Empty(t, next())
}

func TestAStreamEndsWithItsFeed(t *testing.T) {
	b := withEvents()
	next, _ := stream(t, serve(t, b), "/v1/feed")
	<-b.Subscribed
	b.StreamErr = errors.New("the stream is gone")
	close(b.More)
	require.Empty(t, next(), "the client resumes with the last id it has")
}

func TestStreamsAreBounded(t *testing.T) {
	b := withEvents()
	c := serve(t, b, func(d *operations.Deps) { d.MaxStreams = 1 })
	_, first := stream(t, c, "/v1/feed")
	<-b.Subscribed
	w := c.Get("/v1/feed")
	require.Equal(t, 503, w.Status)
	require.Equal(t, "too_many_streams", problem(t, w).Code)
	require.Equal(t, 200, c.Get("/v1/feed", httpapitest.Header("Accept", "application/json")).Status)
	first.Body.Close()
	require.Eventually(t, func() bool {
		w := c.Stream(c.Request("GET", "/v1/feed", ""))
		defer w.Body.Close()
		return w.StatusCode == http.StatusOK
	}, 10*time.Second, time.Millisecond, "the place is free again")
}

func TestPagesOfEvents(t *testing.T) {
	b := withEvents()
	c := serve(t, b)
	js := httpapitest.Header("Accept", "application/json")
	type page struct {
		Items []struct {
			Sequence uint64
			Type     string
			Time     *time.Time
			Data     json.RawMessage
		}
		NextCursor  *string `json:"next_cursor"`
		LastEventID string  `json:"last_event_id"`
		AsOf        string  `json:"as_of"`
	}
	got := read[page](t, c.Get("/v1/feed?limit=2", js))
	require.Len(t, got.Items, 2)
	require.Equal(t, "gap", got.Items[0].Type)
	require.Nil(t, got.Items[0].Time)
	require.JSONEq(t, `{"id":"e5"}`, string(got.Items[1].Data))
	require.Equal(t, "5", *got.NextCursor)

	got = read[page](t, c.Get("/v1/feed?cursor="+*got.NextCursor, js))
	require.Len(t, got.Items, 2)
	require.Nil(t, got.NextCursor)
	require.Equal(t, "7", got.LastEventID)

	got = read[page](t, c.Get("/v1/operations/"+httpapitest.ID(1)+"/events", js, httpapitest.Header("Last-Event-ID", "5")))
	require.Len(t, got.Items, 1)
	require.Equal(t, "2026-07-01T12:00:00Z", got.AsOf)

	for target, field := range map[string]string{
		"/v1/feed?cursor=x": "cursor", "/v1/feed?limit=0": "limit", "/v1/feed?after=1": "after",
		"/v1/operations/" + httpapitest.ID(1) + "/events?cursor=-1": "cursor",
	} {
		w := c.Get(target, js)
		require.Equal(t, 400, w.Status)
		require.Equal(t, field, problem(t, w).Field)
	}
	w := c.Get("/v1/feed", js, httpapitest.Header("Last-Event-ID", "x"))
	require.Equal(t, 400, w.Status)
	w = c.Get("/v1/feed?limit=5", httpapitest.Header("Accept", "*/*"))
	require.Equal(t, 400, w.Status, "a stream has no limit")

	b.StreamErr = errors.New("no quorum")
	require.Equal(t, 503, c.Get("/v1/feed", js).Status)
	require.Equal(t, 503, c.Get("/v1/feed").Status)
}
