package mover

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/pace"
)

// toll grants everything, and adds up what it was asked for.
type toll struct {
	answer pace.Answer

	mu      sync.Mutex
	sum     pace.Charge
	largest pace.Charge
}

func (l *toll) Ask(_ context.Context, _ string, q []byte) ([]byte, error) {
	var ask pace.Ask
	if err := json.Unmarshal(q, &ask); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range []struct{ sum, largest, of *pace.Amount }{
		{&l.sum.Operation, &l.largest.Operation, &ask.Charge.Operation},
		{&l.sum.Source, &l.largest.Source, &ask.Charge.Source},
		{&l.sum.Destination, &l.largest.Destination, &ask.Charge.Destination},
	} {
		a.sum.Points += a.of.Points
		a.sum.Bytes += a.of.Bytes
		a.largest.Points = max(a.largest.Points, a.of.Points)
	}
	return json.Marshal(l.answer)
}

func (*toll) Operation(context.Context, string) (ledger.Versioned[operation.Operation], error) {
	return ledger.Versioned[operation.Operation]{Value: limitedOperation()}, nil
}

func (*toll) BackendLimits(context.Context) (operation.BackendLimits, error) {
	return operation.BackendLimits{}, nil
}
func (*toll) WatchOperations(context.Context) (<-chan bus.Entry, error) { return nil, nil }
func (*toll) WatchTopology(context.Context) (<-chan bus.Entry, error)   { return nil, nil }

func limitedOperation() operation.Operation {
	n := int64(1)
	return operation.Operation{ID: "op", Limits: operation.Limits{PointsPerSecond: &n}}
}

// paced puts a transfer under a limit, of which the toll knows.
func paced(t testing.TB, tr *transfer, l *toll) *transfer {
	t.Helper()
	op := limitedOperation()
	p := pace.New(pace.Options{Asker: l, Book: pace.NewBook(l, nil, nil), NewID: func() string { return "pass" }})
	pass, err := p.Begin(t.Context(), &op, pace.Work{OperationID: "op", TaskID: "1", Source: "http://a", Destination: "http://b"}, tr.job)
	require.NoError(t, err)
	t.Cleanup(pass.End)
	tr.pass = pass
	return tr
}

// Every point that is copied, compared or read back counts once for the operation, and
// for each backend as often as it is read there or written.
func TestEveryPointIsCounted(t *testing.T) {
	t.Parallel()
	const rows = 8_000
	granted := pace.Answer{Slots: true, Granted: true, MaxPoints: 300}
	both := func(t *testing.T, l *toll) *transfer {
		tr := newTransfer(t, hotServer(rows), Config{})
		other := *tr.source // the same server as another end
		tr.destination = &other
		return paced(t, tr, l)
	}
	t.Run("copied", func(t *testing.T) {
		l := &toll{answer: granted}
		tr := both(t, l)
		hotFill(t, tr, rows)
		require.EqualValues(t, rows, l.sum.Operation.Points)
		require.EqualValues(t, rows, l.sum.Source.Points)
		require.EqualValues(t, rows, l.sum.Destination.Points)
		require.Equal(t, tr.sent.take(), l.sum.Destination.Bytes)
		require.Equal(t, l.sum.Destination.Bytes, l.sum.Operation.Bytes)
		require.InEpsilon(t, len(hotAnswer(rows)), l.sum.Source.Bytes, 0.02)
		require.LessOrEqual(t, l.largest.Operation.Points, int64(300))
	})
	t.Run("compared", func(t *testing.T) {
		l := &toll{answer: granted}
		hotCompare(t, both(t, l), rows)
		require.EqualValues(t, rows, l.sum.Source.Points)
		require.EqualValues(t, rows, l.sum.Destination.Points)
		require.InDelta(t, rows, l.sum.Operation.Points, rows/100)
		require.EqualValues(t, len(hotAnswer(rows)), l.sum.Source.Bytes)
		require.LessOrEqual(t, l.largest.Operation.Points, int64(300))
	})
	t.Run("compared with nothing", func(t *testing.T) {
		l := &toll{answer: granted}
		tr := both(t, l)
		tr.destination.void = true
		diffs, err := tr.compare(t.Context(), []operation.Slice{hotSlice}, &comparison{})
		require.NoError(t, err)
		require.EqualValues(t, rows, diffs[0].missing)
		require.EqualValues(t, rows, l.sum.Operation.Points)
		require.Zero(t, l.sum.Destination)
		require.EqualValues(t, len(hotAnswer(rows)), l.sum.Source.Bytes)
	})
	t.Run("read back", func(t *testing.T) {
		l := &toll{answer: granted}
		tr := both(t, l)
		tr.slices = []operation.Slice{hotSlice}
		require.NoError(t, tr.readBack(t.Context(), []int{0}, make([]operation.Evidence, 1)))
		require.EqualValues(t, rows, l.sum.Destination.Points)
		require.EqualValues(t, rows, l.sum.Operation.Points)
		require.Zero(t, l.sum.Source)
	})
}

// A batch that was filled before a limit became small goes out in parts, which
// together are the batch.
func TestABatchIsDividedAtItsRows(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var bodies []string
	tr := newTransfer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("reading a batch: %v", err)
		}
		mu.Lock()
		bodies = append(bodies, string(body))
		mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	}), Config{Writers: 1})
	l := &toll{answer: pace.Answer{Slots: true, Granted: true, MaxPoints: 10, MaxBytes: 200}}
	out := tr.newBatcher(t.Context(), tr.destination, "d", "r")
	require.NoError(t, produce(out, 0, 95, 30)) // without a limit
	paced(t, tr, l)
	require.NoError(t, out.finish())
	require.Greater(t, len(bodies), 9)
	whole := strings.Join(bodies, "")
	require.Equal(t, 95, strings.Count(whole, "\n"))
	for i, b := range bodies {
		require.LessOrEqual(t, strings.Count(b, "\n"), 20)
		require.True(t, strings.HasPrefix(b, "m v=") && strings.HasSuffix(b, "\n"), "%d: %q", i, b)
		require.LessOrEqual(t, len(b), 400)
	}
	require.EqualValues(t, 95, l.sum.Source.Points, "in this test both ends are one")
}
