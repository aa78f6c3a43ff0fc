package integration_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// feedEvent is one event of a stream of server-sent events.
type feedEvent struct{ id, kind, data string }

// readEvents reads a stream after an event until one makes it stop, and returns
// what it has read.
func (in *installation) readEvents(path, lastEventID string, until func(feedEvent) bool) []feedEvent {
	in.t.Helper()
	req, err := http.NewRequestWithContext(in.context(), http.MethodGet, in.Client.URL+path, nil)
	require.NoError(in.t, err)
	req.Header.Set("Accept", "text/event-stream")
	if lastEventID != "" {
		req.Header.Set("Last-Event-ID", lastEventID)
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(in.t, err)
	defer res.Body.Close()
	require.Equal(in.t, http.StatusOK, res.StatusCode)
	require.Contains(in.t, res.Header.Get("Content-Type"), "text/event-stream")
	var all []feedEvent
	var e feedEvent
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 8<<20)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "id":
			e.id = value
		case "event":
			e.kind = value
		case "data":
			e.data += value
		case "":
			if e.data == "" {
				continue
			}
			all = append(all, e)
			if until(e) {
				return all
			}
			e = feedEvent{}
		}
	}
	require.Failf(in.t, "the stream has ended", "%s after %d events: %v", path, len(all), lines.Err())
	return nil
}

// ends reports whether an event says that an operation has succeeded.
func (e feedEvent) ends() bool {
	var envelope struct {
		Data struct {
			Operation operation.Operation `json:"operation"`
		} `json:"data"`
	}
	return strings.HasPrefix(e.kind, "ringmaster.operation.change") &&
		json.Unmarshal([]byte(e.data), &envelope) == nil && envelope.Data.Operation.State == operation.Succeeded
}

func TestFeedResumesByLastEventIDOverARestart(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 2)
	b[0].fill("db", 8, 600)
	owner := b[1].proxied()
	writes := newGate()
	in := install(t)
	t.Cleanup(writes.release)
	writes.hold(owner, harness.IsWrite)
	require.NoError(t, in.WriteConfigURLs(owner.URL()))
	in.startAPI()
	in.startWorker()
	op := in.rebalanceRemove(0, []harness.Backend{b[0].configured("gone")})
	path := "/v1/operations/" + op.ID + "/events"
	writes.reached.await(t, "the operation writes")
	n := 0
	head := in.readEvents(path, "", func(feedEvent) bool { n++; return n == 4 })

	in.API.Kill()
	in.startAPI()
	writes.release()
	// A reader that comes back hears all the rest, and nothing twice.
	tail := in.readEvents(path, head[len(head)-1].id, feedEvent.ends)
	whole := in.readEvents(path, "", feedEvent.ends)
	require.Equal(t, whole, append(head, tail...))
	// In the feed of all operations they are the same.
	require.Equal(t, tail, in.readEvents("/v1/feed", head[len(head)-1].id, feedEvent.ends))
	// As pages they are the same.
	var page struct {
		Items []struct {
			Sequence uint64          `json:"sequence"`
			Type     string          `json:"type"`
			Data     json.RawMessage `json:"data"`
		} `json:"items"`
	}
	res, body := in.do(http.MethodGet, path+"?limit=1000", http.Header{"Accept": {"application/json"}}, "")
	require.Equal(t, http.StatusOK, res.StatusCode, body)
	require.NoError(t, json.Unmarshal([]byte(body), &page))
	require.GreaterOrEqual(t, len(page.Items), len(whole))
	for i, e := range whole {
		require.Equal(t, e.id, fmt.Sprint(page.Items[i].Sequence))
		require.Equal(t, e.kind, page.Items[i].Type)
		require.JSONEq(t, e.data, string(page.Items[i].Data))
	}
	in.succeed(op.ID)
}

// results reads Genvid's log of results from a position on.
func (in *installation) results(counter uint64) (next uint64, messages []map[string]any) {
	in.t.Helper()
	var answer struct {
		Counter  uint64 `json:"counter"`
		Messages []struct {
			Error string `json:"error"`
			Value string `json:"value"`
		} `json:"messages"`
	}
	require.NoError(in.t, in.Client.Get(in.context(), fmt.Sprintf("/v1/events/results/%d", counter), &answer))
	for _, m := range answer.Messages {
		require.Empty(in.t, m.Error)
		var value map[string]any
		require.NoError(in.t, json.Unmarshal([]byte(m.Value), &value))
		messages = append(messages, value)
	}
	return answer.Counter, messages
}

func TestResultsLogTellsOfAnOperationWhileItRuns(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 2)
	b[0].fill("db", 8, 600)
	owner := b[1].proxied()
	writes := newGate()
	in := install(t)
	t.Cleanup(writes.release)
	writes.hold(owner, harness.IsWrite)
	require.NoError(t, in.WriteConfigURLs(owner.URL()))
	in.startAPI()
	in.startWorker()
	counter, messages := in.results(0)
	require.Zero(t, counter)
	require.Empty(t, messages)
	op := in.rebalanceRemove(0, []harness.Backend{b[0].configured("gone")})
	var states []string
	read := func(until string) {
		t.Helper()
		require.Eventually(t, func() bool {
			var next uint64
			next, messages = in.results(counter)
			require.Equal(t, counter+uint64(len(messages)), next, "the counter is where to go on")
			counter = next
			for _, m := range messages {
				require.Equal(t, op.ID, m["id"])
				require.NotEmpty(t, m["as_of"])
				states = append(states, m["state"].(string))
			}
			return len(states) > 0 && states[len(states)-1] == until
		}, patience, 50*time.Millisecond, "the log tells of state %s; so far %v", until, states)
	}
	read("running")
	writes.reached.await(t, "the operation writes")
	writes.release()
	read("succeeded")
	require.Contains(t, states, "verifying")
	// The whole log from the beginning, for another reader.
	_, messages = in.results(0)
	require.Len(t, messages, len(states))
}
