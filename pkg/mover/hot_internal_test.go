package mover

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tinylib/msgp/msgp"

	"ringmaster/pkg/operation"
)

const hotSeries = 8

// hotAnswer is what a server answers to a read of rows points: some series, 5
// fields of all kinds.
func hotAnswer(rows int) []byte {
	const chunk = 5000
	var b []byte
	perSeries := rows / hotSeries
	for s := range hotSeries {
		for from := 0; from < perSeries; from += chunk {
			n := min(chunk, perSeries-from)
			last := from+n == perSeries
			more := !last || s < hotSeries-1
			b = msgp.AppendMapHeader(b, 1)
			b = msgp.AppendString(b, "results")
			b = msgp.AppendArrayHeader(b, 1)
			keys := uint32(2)
			if more {
				keys++
			}
			b = msgp.AppendMapHeader(b, keys)
			b = msgp.AppendString(b, "statement_id")
			b = msgp.AppendInt(b, 0)
			b = msgp.AppendString(b, "series")
			b = msgp.AppendArrayHeader(b, 1)
			keys = 4
			if !last {
				keys++
			}
			b = msgp.AppendMapHeader(b, keys)
			b = msgp.AppendString(b, "name")
			b = msgp.AppendString(b, "m")
			b = msgp.AppendString(b, "tags")
			b = msgp.AppendMapHeader(b, 3)
			for _, k := range []string{"host", "region", "zone"} {
				b = msgp.AppendString(b, k)
				b = msgp.AppendString(b, fmt.Sprintf("%s-%d", k, s))
			}
			b = msgp.AppendString(b, "columns")
			b = msgp.AppendArrayHeader(b, 6)
			for _, c := range []string{"time", "a", "b", "c", "d", "e"} {
				b = msgp.AppendString(b, c)
			}
			b = msgp.AppendString(b, "values")
			b = msgp.AppendArrayHeader(b, uint32(n))
			for i := from; i < from+n; i++ {
				b = msgp.AppendArrayHeader(b, 6)
				b = msgp.AppendInt64(b, 1_600_000_000_000_000_000+int64(i))
				b = msgp.AppendFloat64(b, float64(i)/3)
				b = msgp.AppendInt64(b, int64(i))
				b = msgp.AppendBool(b, i%2 == 0)
				b = msgp.AppendString(b, "a short text")
				b = msgp.AppendNil(b)
			}
			if !last {
				b = msgp.AppendString(b, "partial")
				b = msgp.AppendBool(b, true)
			}
			if more {
				b = msgp.AppendString(b, "partial")
				b = msgp.AppendBool(b, true)
			}
		}
	}
	return b
}

// hotServer answers every read with as many rows and takes every batch.
func hotServer(rows int) http.Handler {
	answer := hotAnswer(rows)
	drains := sync.Pool{New: func() any { return new([64 << 10]byte) }}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/write") {
			drain := drains.Get().(*[64 << 10]byte)
			defer drains.Put(drain)
			for {
				if _, err := r.Body.Read(drain[:]); err != nil {
					break
				}
			}
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Type", "application/x-msgpack")
		_, _ = w.Write(answer)
	})
}

var hotSlice = operation.Slice{Database: "d", RetentionPolicy: "r", Measurement: "m", From: 0, To: 2_000_000_000_000_000_000}

func hotFill(t testing.TB, tr *transfer, rows int) {
	evidence := make([]operation.Evidence, 1)
	chosen := []operation.Slice{hotSlice}
	require.NoError(t, tr.bring(t.Context(), chosen, []int{0}, evidence, tr.fill))
	require.EqualValues(t, rows, evidence[0].Rows)
	require.EqualValues(t, rows, evidence[0].Written)
}

func hotCompare(t testing.TB, tr *transfer, rows int) {
	diffs, err := tr.compare(t.Context(), []operation.Slice{hotSlice}, &comparison{})
	require.NoError(t, err)
	require.Equal(t, difference{source: int64(rows), destination: int64(rows)}, diffs[0])
}

// perRow measures what a further row allocates: the requests' own share is the
// same for both sizes.
func perRow(t *testing.T, run func(testing.TB, *transfer, int)) float64 {
	const few, many = 8_000, 88_000
	measure := func(rows int) float64 {
		tr := newTransfer(t, hotServer(rows), Config{Writers: 1})
		return testing.AllocsPerRun(5, func() { run(t, tr, rows) })
	}
	return (measure(many) - measure(few)) / (many - few)
}

// TestNothingIsAllocatedPerRow from the stream over the evidence to the batch,
// and where points are compared. What is left is a few a batch: the request, and
// its answer at the other end, which is in this process, too.
func TestNothingIsAllocatedPerRow(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	require.Less(t, perRow(t, hotFill), 0.05)
	require.Less(t, perRow(t, hotCompare), 0.005)
}

func BenchmarkFill(b *testing.B) { benchmarkHot(b, hotFill) }

func BenchmarkCompare(b *testing.B) { benchmarkHot(b, hotCompare) }

// benchmarkHot counts a row as an operation.
func benchmarkHot(b *testing.B, run func(testing.TB, *transfer, int)) {
	const rows = 80_000
	tr := newTransfer(b, hotServer(rows), Config{Writers: 1})
	run(b, tr, rows)
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	for b.Loop() {
		run(b, tr, rows)
		n += rows
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/row")
}
