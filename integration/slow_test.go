package integration_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

var window = regexp.MustCompile(`time >= (-?\d+) AND time <=? (-?\d+)`)

// tooWide matches reads that ask for more time of a measurement than is answered.
func tooWide(measurement string, most time.Duration) func(*http.Request) bool {
	return func(r *http.Request) bool {
		if !harness.ReadsPoints(r) {
			return false
		}
		for statement := range strings.SplitSeq(harness.Statements(r), ";") {
			w := window.FindStringSubmatch(statement)
			if w == nil || !strings.Contains(statement, measurement) {
				continue
			}
			from, _ := strconv.ParseInt(w[1], 10, 64)
			to, _ := strconv.ParseInt(w[2], 10, 64)
			if to-from > int64(most) {
				return true
			}
		}
		return false
	}
}

// 16. One oversized segment times out for ever. Here it is halved until it does not;
// what is never answered fails alone, with what a person has to do, and a webhook is
// told.
func TestUserPain16OneOversizedSegmentTimesOutForEver(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 1, 1)
	s.members[0][0].fill("wide", 3, 500)
	s.members[0][0].fill("stuck", 3, 500)
	var mu sync.Mutex
	var told [][]byte
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		told = append(told, body)
	}))
	t.Cleanup(hook.Close)
	slow := s.proxy(0, 0)
	args := []string{"-patience", "2s", "-backend-timeout", "1s"}
	s.configure()
	s.startAPI(append(args, "-webhook", hook.URL)...)
	s.startWorker(args...)

	of := func(db string) map[string]any {
		return map[string]any{"from_circle_id": 0, "to_circle_id": 1, "databases": []string{db}}
	}
	slow.Handle(only(tooWide("m001", 100*time.Hour), swallow)(slow))
	s.succeed(s.kind(operation.KindRecovery, of("wide")).ID)
	s.requireMoved(1, s.members[0], s.members[1], "wide")

	slow.Handle(only(tooWide("m001", 0), swallow)(slow))
	id := s.kind(operation.KindRecovery, of("stuck")).ID
	s.wait(id, func(op *operation.Operation) bool {
		return len(op.Progress.OldestTasks) > 0 && len(op.Progress.OldestTasks[0].Waits) > 0 || op.State.Terminal()
	})
	s.finish(id, operation.PartiallyFailed)
	report := s.report(id)
	require.Equal(t, 1, report.Slices.Unequal)
	require.Contains(t, asJSON(t, report.Problems), "a person must act: ")
	require.Contains(t, asJSON(t, report.Problems), "is answered in time, so cutting it is of no use")
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(told) > 0
	}, patience, 50*time.Millisecond, "the webhook is told")
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, told, 1)
	_, p, err := events.Decode(told[0])
	require.NoError(t, err)
	change, ok := p.(events.OperationChange)
	require.True(t, ok)
	require.Equal(t, id, change.Operation.ID)
	require.Equal(t, operation.PartiallyFailed, change.Operation.State)
}
