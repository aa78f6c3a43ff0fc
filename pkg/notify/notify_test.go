package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	_ Outbox = (*ledger.Ledger)(nil)
	_ Outbox = (*box)(nil)
)

// box is an outbox in memory.
type box struct {
	mu      sync.Mutex
	notices []ledger.KeptNotice
}

func (b *box) put(id, op string, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := ledger.Notice{ID: id, OperationID: op, MadeAt: at, Next: at, Body: json.RawMessage(`{"id":"` + id + `"}`)}
	b.notices = append(b.notices, ledger.KeptNotice{Versioned: ledger.Versioned[ledger.Notice]{Value: n, Revision: 1}, Key: id})
}

func (b *box) Notices(context.Context) ([]ledger.KeptNotice, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(b.notices), func(n ledger.KeptNotice) bool { return n.Value.Settled }), nil
}

func (b *box) UpdateNotice(_ context.Context, was ledger.KeptNotice, n ledger.Notice) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.notices, func(k ledger.KeptNotice) bool { return k.Key == was.Key })
	if b.notices[i].Revision != was.Revision {
		return ledger.ErrConflict
	}
	b.notices[i].Value = n
	b.notices[i].Revision++
	return nil
}

func (b *box) WatchNotices(context.Context) (<-chan bus.Entry, error) { return nil, nil }

// hook is a webhook that answers as it is told.
type hook struct {
	*httptest.Server

	mu       sync.Mutex
	answer   func(n int, w http.ResponseWriter)
	requests []*http.Request
	bodies   []string
}

func newHook(t *testing.T, answer func(n int, w http.ResponseWriter)) *hook {
	t.Helper()
	h := &hook{answer: answer}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h.mu.Lock()
		h.requests, h.bodies = append(h.requests, r), append(h.bodies, string(body))
		n := len(h.bodies)
		h.mu.Unlock()
		h.answer(n, w)
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hook) told() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.bodies)
}

func status(code int) func(int, http.ResponseWriter) {
	return func(_ int, w http.ResponseWriter) { w.WriteHeader(code) }
}

// clock is a time that only the test moves.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func TestANoticeIsSentOnce(t *testing.T) {
	t.Parallel()
	h := newHook(t, status(http.StatusAccepted))
	c := &clock{time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)}
	b := &box{}
	b.put("op/4/stalled", "op", c.at)
	s := New(b, nil, Options{URL: h.URL + "/in?token=hunter2", UserAgent: "ringmaster/test", Now: c.now})
	defer s.client.CloseIdleConnections()
	for range 3 {
		require.NoError(t, s.sendDue(t.Context()))
	}
	require.Equal(t, []string{`{"id":"op/4/stalled"}`}, h.told())
	r := h.requests[0]
	require.Equal(t, http.MethodPost, r.Method)
	require.Equal(t, "/in?token=hunter2", r.URL.RequestURI())
	require.Equal(t, "application/json", r.Header.Get("Content-Type"))
	require.Equal(t, "ringmaster/test", r.Header.Get("User-Agent"))
	require.Equal(t, "op/4/stalled", r.Header.Get("Idempotency-Key"))
	require.Equal(t, Counts{Delivered: 1}, s.Counts())
}

// TestAHookThatFailsIsTriedBoundedly: later and later, in order for each operation,
// and not for ever.
func TestAHookThatFailsIsTriedBoundedly(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(int, http.ResponseWriter){
		"refuses": status(http.StatusInternalServerError),
		"leads elsewhere": func(_ int, w http.ResponseWriter) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(http.StatusTemporaryRedirect)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHook(t, answer)
			start := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
			c := &clock{start}
			b := &box{}
			b.put("op/4/stalled", "op", c.at)
			b.put("op/5/moving", "op", c.at)
			s := New(b, nil, Options{URL: h.URL, Tries: 4, Backoff: time.Second, MaxBackoff: 3 * time.Second, Now: c.now})
			defer s.client.CloseIdleConnections()
			var at []int
			for second := range 60 {
				c.at = start.Add(time.Duration(second) * time.Second)
				before := len(h.told())
				require.NoError(t, s.sendDue(t.Context()))
				for range len(h.told()) - before {
					at = append(at, second)
				}
			}
			require.Equal(t, []int{0, 1, 3, 6, 6, 7, 9, 12}, at)
			for i, body := range h.told() {
				require.Equal(t, i >= 4, strings.Contains(body, "moving"), "in order")
			}
			require.Equal(t, Counts{Failed: 8, GivenUp: 2}, s.Counts())
			for _, n := range b.notices {
				require.True(t, n.Value.Settled)
				require.Contains(t, n.Value.LastError, "the webhook answered ")
			}
		})
	}
}

func TestNoErrorShowsTheURL(t *testing.T) {
	t.Parallel()
	h := newHook(t, status(http.StatusOK))
	h.Close()
	for _, url := range []string{h.URL + "/hunter2?token=hunter2", "http://hunter2\x7f", "http://127.0.0.1:1/hunter2"} {
		s := New(&box{}, nil, Options{URL: url, Timeout: time.Second})
		err := s.post(t.Context(), ledger.Notice{ID: "op/1/ended"})
		require.Error(t, err)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

// TestFromTheRecord: what a record says is told once, whoever made the change died, and
// one process at a time sends.
func TestFromTheRecord(t *testing.T) {
	t.Parallel()
	b, _ := bustest.Start(t, bus.WithLeaseTTL(time.Second))
	ctx := t.Context()
	deaf, err := ledger.New(ctx, b, ledger.Options{Source: "test/1"})
	require.NoError(t, err)
	records, err := ledger.New(ctx, b, ledger.Options{Source: "test/2", Notices: true})
	require.NoError(t, err)
	leases, err := b.Leases(ctx)
	require.NoError(t, err)
	h := newHook(t, func(n int, w http.ResponseWriter) {
		if n == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	var running sync.WaitGroup
	sending, stop := context.WithCancel(ctx)
	defer running.Wait()
	defer stop()
	for i := range 2 {
		s := New(records, leases, Options{URL: h.URL, ID: fmt.Sprint(i), Backoff: time.Millisecond, Poll: 20 * time.Millisecond})
		running.Go(func() { _ = s.Run(sending) })
	}
	now := time.Now().UTC()
	op, err := deaf.CreateOperation(ctx, operation.Operation{
		ID: "0198f3c2-7c1a-7e3e-9b5a-2f6d1c0a4b8e", Kind: operation.KindRebalance, State: operation.Running, CreatedAt: now, Attempt: 1,
		Parameters: json.RawMessage(`{"circle_id":0,"operation":"rm","removed_backends":[{"name":"b","url":"http://b:1","username":"hunter2","password":"hunter2"}]}`),
	})
	require.NoError(t, err)
	next := op.Value
	next.Conditions = []operation.Condition{{Type: operation.ConditionStalled, Reason: "why", Since: now, LimitSeconds: 1}}
	// This process dies right after the record is written.
	op, err = deaf.UpdateOperation(ctx, op, next)
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, records.EnsureNotices(ctx, op))
	}
	next.Conditions = nil
	op, err = records.UpdateOperation(ctx, op, next)
	require.NoError(t, err)
	next.State = operation.Failed
	op, err = records.UpdateOperation(ctx, op, next)
	require.NoError(t, err)
	require.NoError(t, records.EnsureNotices(ctx, op))
	require.Eventually(t, func() bool { return len(h.told()) >= 4 }, 30*time.Second, 10*time.Millisecond)
	require.Eventually(t, func() bool {
		left, err := records.Notices(ctx)
		return err == nil && len(left) == 0
	}, 30*time.Second, 10*time.Millisecond)
	told := h.told()
	require.Len(t, told, 4)
	require.Equal(t, told[0], told[1], "sent again as it was")
	var types []string
	for _, body := range told {
		require.NotContains(t, body, "hunter2")
		e, p, err := events.Decode([]byte(body))
		require.NoError(t, err)
		types = append(types, e.Type)
		if stall, ok := p.(events.OperationStall); ok {
			require.Equal(t, len(types) < 3, stall.Stalled)
		}
	}
	require.Equal(t, []string{events.TypeOperationStall, events.TypeOperationStall, events.TypeOperationStall, events.TypeOperationChange}, types)
}
