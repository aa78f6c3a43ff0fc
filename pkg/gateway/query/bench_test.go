package query_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/gateway/query"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// nobody is a client that takes everything.
type nobody struct{ header http.Header }

func (n nobody) Header() http.Header         { return n.header }
func (n nobody) WriteHeader(int)             {}
func (n nobody) Write(p []byte) (int, error) { return len(p), nil }
func (n nobody) Flush()                      {}

// BenchmarkPass is what a query costs that is handed to its only owner, with the
// connection to the owner but without the client's.
func BenchmarkPass(b *testing.B) {
	answer := []byte(`{"results":[{"statement_id":0,"series":[{"name":"cpu","columns":["time","mean"],"values":[` +
		strings.Repeat(`["2026-01-01T00:00:00Z",1.5],`, 100) + `["2026-01-01T00:00:00Z",1.5]]}]}]}` + "\n")
	owner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	}))
	defer owner.Close()
	v, err := serving.NewView(1, &topology.Topology{
		Epoch: 1, HashKey: "name", ShardKey: "%db,%mm", VNodes: 256,
		Circles: []topology.Circle{{Name: "c", Backends: []topology.Backend{{Name: "b", URL: owner.URL}}}},
	}, serving.State{})
	require.NoError(b, err)
	pool := query.NewPool(opener{})
	defer pool.Close()
	r := query.New(query.Options{
		Session: query.Reads[*pass](&session{changed: make(chan struct{}), view: v}), Clients: pool, Health: &health{},
	})
	text := "SELECT mean(usage) FROM cpu WHERE host = 'server01' AND time >= 1700000000000000000 AND time < 1700003600000000000 GROUP BY time(1m)"
	values := url.Values{"db": {"db"}, "q": {text}, "epoch": {"ns"}}
	b.ReportAllocs()
	for b.Loop() {
		q := &query.Request{Text: text, Database: "db", Epoch: "ns", ReadOnly: true, Values: values, Header: http.Header{}}
		if err := r.Serve(b.Context(), nobody{http.Header{}}, q); err != nil {
			b.Fatal(err)
		}
	}
}
