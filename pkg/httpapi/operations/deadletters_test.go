package operations_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/httpapi/httpapitest"
	"ringmaster/pkg/operation"
)

// letters are three dead letters, one of each kind.
func letters() []operation.DeadLetter {
	return []operation.DeadLetter{
		{
			Sequence: 3, StoredAt: httpapitest.Now(), Kind: operation.LetterMessage, Reason: "why", Stream: events.StreamTasks,
			Subject: "ringmaster.task.rebalance.a.b", Bytes: 6, Body: []byte("{\"id\":"), Truncated: true,
		},
		{
			Sequence: 5, StoredAt: httpapitest.Now().Add(time.Minute), Kind: operation.LetterPoints, Reason: "partial write: field type conflict",
			Stream: "s", Subject: "u", Backend: "http://b:1", Database: "db", RetentionPolicy: "rp", Points: 2, Piece: 1, Pieces: 2, Bytes: 6, Body: []byte("m f=1 1"),
		},
		{Sequence: 9, StoredAt: httpapitest.Now(), Kind: operation.LetterUnreadable, Reason: "what", Stream: "s", Subject: "u", Bytes: 2, Body: []byte{0xff, 0}},
	}
}

func TestDeadLettersAreBrowsed(t *testing.T) {
	b := httpapitest.NewBackend()
	b.Dead = letters()
	c := serve(t, b)
	type page struct {
		Items      []map[string]any
		NextCursor string `json:"next_cursor"`
	}
	first := read[page](t, c.Get("/v1/dead-letters?limit=2"))
	require.Len(t, first.Items, 2)
	require.Equal(t, map[string]any{
		"id": "5", "stored_at": "2026-07-01T12:01:00Z", "kind": "points", "reason": "partial write: field type conflict", "stream": "s", "subject": "u",
		"backend": "http://b:1", "database": "db", "retention_policy": "rp", "points": 2.0, "piece": 1.0, "pieces": 2.0, "bytes": 6.0,
	}, first.Items[1])
	require.NotContains(t, first.Items[0], "body")
	last := read[page](t, c.Get("/v1/dead-letters?limit=2&cursor="+first.NextCursor))
	require.Len(t, last.Items, 1)
	require.Empty(t, last.NextCursor)
	require.Equal(t, `{"id":`, read[map[string]any](t, c.Get("/v1/dead-letters/3"))["body"])
	require.Equal(t, "/wA=", read[map[string]any](t, c.Get("/v1/dead-letters/9"))["body_base64"])
	b.Dead = nil
	require.Contains(t, c.Get("/v1/dead-letters").Body, `"items":[]`)
}

func TestDeadLettersAreRetriedAndDropped(t *testing.T) {
	b := httpapitest.NewBackend()
	b.Dead = letters()
	c := serve(t, b)
	w := c.Do("POST", "/v1/dead-letters/3/retry", `{"reason":"mended"}`, httpapitest.JSON())
	require.Equal(t, http.StatusAccepted, w.Status)
	require.Equal(t, "3", read[map[string]any](t, w)["id"])
	require.Equal(t, http.StatusAccepted, c.Do("POST", "/v1/dead-letters/5/retry", "").Status)
	w = c.Do("DELETE", "/v1/dead-letters/9?reason=noise", "")
	require.Equal(t, http.StatusNoContent, w.Status)
	require.Empty(t, w.Body)
	require.Empty(t, b.Dead)
	require.Len(t, b.Asked, 3)
	require.Equal(t, operation.Intent{At: httpapitest.Now(), Who: httpapi.PrincipalLocal, Origin: "127.0.0.1", Reason: "mended"}, b.Asked[0])
	require.Equal(t, "noise", b.Asked[2].Reason)
}

func TestRefusalsOfDeadLetters(t *testing.T) {
	for _, example := range []struct {
		method, target, body string
		err                  error
		status               int
		code                 string
	}{
		{"GET", "/v1/dead-letters/7", "", nil, 404, "no_such_dead_letter"},
		{"DELETE", "/v1/dead-letters/7", "", nil, 404, "no_such_dead_letter"},
		{"POST", "/v1/dead-letters/7/retry", "", nil, 404, "no_such_dead_letter"},
		{"GET", "/v1/dead-letters/x", "", nil, 400, "invalid"},
		{"GET", "/v1/dead-letters/0", "", nil, 400, "invalid"},
		{"DELETE", "/v1/dead-letters/-1", "", nil, 400, "invalid"},
		{"DELETE", "/v1/dead-letters/3?why=x", "", nil, 400, "invalid"},
		{"DELETE", "/v1/dead-letters/3?reason=" + strings.Repeat("x", 1001), "", nil, 400, "invalid"},
		{"POST", "/v1/dead-letters/3/retry", `{"force":true}`, nil, 400, "invalid"},
		{"POST", "/v1/dead-letters/3/retry?force=true", "", nil, 400, "invalid"},
		{"GET", "/v1/dead-letters?cursor=x", "", nil, 400, "invalid"},
		{"GET", "/v1/dead-letters?limit=0", "", nil, 400, "invalid"},
		{"GET", "/v1/dead-letters?kind=points", "", nil, 400, "invalid"},
		{"POST", "/v1/dead-letters/3/retry", "", &operation.LetterError{Sequence: 3, Reason: "there is no task b"}, 409, "not_retriable"},
		{"POST", "/v1/dead-letters/5/retry", "", &operation.PointsRefusedError{Status: 400, Words: "field type conflict"}, 422, "points_refused"},
		{"POST", "/v1/dead-letters/5/retry", "", &operation.PointsRefusedError{Status: 503, Words: "overloaded"}, 409, "points_not_stored"},
		{"POST", "/v1/dead-letters/5/retry", "", errors.New("nats is away at 10.0.0.7"), 503, "unavailable"},
	} {
		b := httpapitest.NewBackend()
		b.Dead, b.RetryErr = letters(), example.err
		w := serve(t, b).Do(example.method, example.target, example.body, httpapitest.JSON())
		require.Equal(t, example.status, w.Status, "%s %s: %s", example.method, example.target, w.Body)
		p := problem(t, w)
		require.Equal(t, example.code, p.Code)
		require.Len(t, b.Dead, 3)
		require.NotContains(t, w.Body, "10.0.0.7")
		if example.err != nil && example.status != 503 {
			require.Contains(t, p.Detail, example.err.Error())
		}
	}
}
