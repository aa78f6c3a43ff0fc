package ingest_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/gateway/ingest"
)

// null is a server that stores nothing.
func null(b *testing.B) string {
	b.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	b.Cleanup(s.Close)
	return s.URL
}

func batch(lines int) []byte {
	var b strings.Builder
	for i := range lines {
		fmt.Fprintf(&b, "cpu%d,host=server%02d,region=eu usage_user=%d.5,usage_system=1.25,procs=%di 17000000%011d\n", i%20, i%50, i%100, i, i)
	}
	return []byte(b.String())
}

// BenchmarkBatch is what a point costs in the gateway: one circle of two backends
// that cost next to nothing.
func BenchmarkBatch(b *testing.B) {
	const lines = 10_000
	r := newRig(b, cluster([]string{null(b), null(b)}))
	body := batch(lines)
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		err := r.Write(b.Context(), ingest.Request{Database: "db", Body: bytes.NewReader(body), Length: int64(len(body))})
		require.NoError(b, err)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*lines), "ns/point")
}

// BenchmarkLines is what a request of one line costs, with many at a time.
func BenchmarkLines(b *testing.B) {
	for _, clients := range []int{1, 50, 200} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			r := newRig(b, cluster([]string{null(b), null(b)}))
			var n atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(max(1, clients/2))
			b.RunParallel(func(pb *testing.PB) {
				body := bytes.NewReader(nil)
				for pb.Next() {
					line := fmt.Appendf(nil, "cpu%d,host=a v=%d", n.Add(1)%20, n.Load())
					body.Reset(line)
					if err := r.Write(b.Context(), ingest.Request{Database: "db", Body: body, Length: int64(len(line))}); err != nil {
						b.Error(err)
					}
				}
			})
			s := r.Stats()
			b.ReportMetric(float64(s.Parts)/float64(s.Groups), "requests/group")
		})
	}
}
