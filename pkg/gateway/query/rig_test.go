package query_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/pkg/gateway/query"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/result"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a runner over two circles of three servers each, behind HTTP, and one
// server that has all the data.
type rig struct {
	t       *testing.T
	one     *influxtest.Server
	servers map[string]*influxtest.Server // by URL
	faults  map[string]*fault             // by URL
	circles [][]string                    // URLs
	session *session
	health  *health
	runner  *query.Runner
	options query.Options
	url     string
}

// session is a session whose view a test chooses.
type session struct {
	mu      sync.Mutex
	view    *serving.View
	changed chan struct{}
	refuse  error
	lost    error // of reads that have begun
	open    int
}

func (s *session) BeginRead() (*pass, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return nil, s.refuse
	}
	s.open++
	return &pass{s, s.view}, nil
}

func (s *session) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *session) set(v *serving.View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view = v
	close(s.changed)
	s.changed = make(chan struct{})
}

type pass struct {
	session *session
	view    *serving.View
}

func (p *pass) View() *serving.View { return p.view }

func (p *pass) Held() error {
	p.session.mu.Lock()
	defer p.session.mu.Unlock()
	return p.session.lost
}

func (p *pass) End() {
	p.session.mu.Lock()
	defer p.session.mu.Unlock()
	p.session.open--
}

// health is what a test says about the servers.
type health struct {
	mu   sync.Mutex
	down map[string]bool
}

func (h *health) Active(url string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.down[url]
}

func (h *health) set(url string, down bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down[url] = down
}

type opener struct{}

func (opener) Open(b *topology.Backend) (*influx.Client, error) {
	return influx.New(influx.Endpoint{URL: b.URL}, influx.Options{})
}

func newRig(t *testing.T, change ...func(*query.Options)) *rig {
	t.Helper()
	g := &rig{t: t, servers: map[string]*influxtest.Server{}, faults: map[string]*fault{}}
	top := &topology.Topology{Epoch: 1, HashKey: "name", ShardKey: "%db,%mm", VNodes: 256}
	for i := range 2 {
		c := topology.Circle{ID: i, Name: fmt.Sprintf("circle-%d", i+1)}
		var urls []string
		for j := range 3 {
			s := influxtest.Start(t)
			g.faults[s.URL()] = newFault(t, s.URL())
			at := g.faults[s.URL()].url
			g.faults[at] = g.faults[s.URL()]
			g.servers[at] = s
			urls = append(urls, at)
			c.Backends = append(c.Backends, topology.Backend{Name: fmt.Sprintf("influxdb-%d-%d", i+1, j+1), URL: at})
		}
		g.circles = append(g.circles, urls)
		top.Circles = append(top.Circles, c)
	}
	g.one = influxtest.Start(t)
	g.session = &session{changed: make(chan struct{})}
	g.health = &health{down: map[string]bool{}}
	g.set(top, serving.State{})
	pool := query.NewPool(opener{})
	t.Cleanup(pool.Close)
	g.options = query.Options{
		Session: query.Reads[*pass](g.session), Clients: pool, Health: g.health, Writer: g, Quiescer: g,
		Wait: 300 * time.Millisecond,
	}
	for _, c := range change {
		c(&g.options)
	}
	g.runner = query.New(g.options)
	server := httptest.NewServer(http.HandlerFunc(g.serve))
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	g.url = server.URL
	return g
}

func (g *rig) set(top *topology.Topology, state serving.State) {
	g.t.Helper()
	v, err := serving.NewView(1, top, state)
	require.NoError(g.t, err)
	g.session.set(v)
}

// state puts another state in force.
func (g *rig) state(s serving.State) { g.set(g.session.view.Topology, s) }

// serve is a plain handler of /query.
func (g *rig) serve(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseMultipartForm(1 << 20)
	values := url.Values{}
	for name := range r.Form {
		values.Set(name, r.FormValue(name))
	}
	size := 0
	_, _ = fmt.Sscan(r.FormValue("chunk_size"), &size)
	q := &query.Request{
		Text: r.FormValue("q"), Database: r.FormValue("db"), RetentionPolicy: r.FormValue("rp"), Params: r.FormValue("params"),
		Epoch: r.FormValue("epoch"), Pretty: r.URL.Query().Get("pretty") == "true", Chunked: r.FormValue("chunked") == "true",
		ChunkSize: size, ReadOnly: r.Method == http.MethodGet, Values: values, Header: r.Header, Client: r.RemoteAddr,
	}
	if err := g.runner.Serve(r.Context(), w, q); err != nil {
		if errors.Is(err, query.ErrAborted) {
			panic(http.ErrAbortHandler)
		}
		refusal, ok := errors.AsType[*query.RefusalError](err)
		if !ok {
			g.t.Errorf("serving %q: %v", q.Text, err)
			return
		}
		format, contentType := result.Negotiate(r.Header["Accept"])
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("X-Influxdb-Error", refusal.Text)
		w.WriteHeader(refusal.Status)
		_, _ = w.Write(result.AppendError(nil, result.Options{Format: format, Pretty: q.Pretty}, refusal.Text))
	}
}

// owner is the URL of the backend that owns a measurement.
func (g *rig) owner(circle int, db, measurement string) string {
	return g.session.view.Reader(circle, db, measurement).URL
}

// everywhere runs statements on every server.
func (g *rig) everywhere(statements string) {
	g.one.Exec(statements)
	for _, s := range g.servers {
		s.Exec(statements)
	}
}

// write stores lines where they belong, and on the one server.
func (g *rig) write(db, rp, lines string) {
	g.one.WriteLines(db, rp, lines)
	g.spread(db, rp, lines)
}

// nameEnd matches a measurement, escaped.
var nameEnd = regexp.MustCompile(`^(?:\\.|[^, \\])+`)

func (g *rig) spread(db, rp, lines string) {
	batches := map[string]*strings.Builder{}
	for line := range strings.Lines(lines) {
		name := strings.NewReplacer(`\ `, " ").Replace(nameEnd.FindString(line))
		for _, to := range g.session.view.Writers(nil, db, name) {
			if batches[to.Backend.URL] == nil {
				batches[to.Backend.URL] = &strings.Builder{}
			}
			batches[to.Backend.URL].WriteString(line)
		}
	}
	for at, batch := range batches {
		g.servers[at].WriteLines(db, rp, batch.String())
	}
}

// WritePoints makes the rig the write path.
func (g *rig) WritePoints(_ context.Context, db, rp string, lines []byte) error {
	g.spread(db, rp, string(lines))
	return nil
}

// Quiesce lets nothing be deleted while there are writes, of which there are none.
func (g *rig) Quiesce(context.Context, string) (func(), error) { return func() {}, nil }

// answered is what a client gets.
type answered struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
}

func ask(t *testing.T, server, method string, values url.Values, headers ...string) answered {
	t.Helper()
	target, body := server+"/query", io.Reader(nil)
	if method == http.MethodPost {
		body = strings.NewReader(values.Encode())
	} else {
		target += "?" + values.Encode()
	}
	req, err := http.NewRequestWithContext(t.Context(), method, target, body)
	require.NoError(t, err)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Accept-Encoding", "identity")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	defer res.Body.Close()
	a := answered{status: res.StatusCode, header: res.Header}
	b, err := io.ReadAll(res.Body)
	a.body, a.err = string(b), err
	return a
}

// get asks the runner.
func (g *rig) get(q string, more ...string) answered {
	g.t.Helper()
	v := url.Values{"q": {q}, "db": {"d"}}
	var headers []string
	for i := 0; i+1 < len(more); i += 2 {
		if strings.ToLower(more[i]) == more[i] {
			v.Set(more[i], more[i+1])
		} else {
			headers = append(headers, more[i], more[i+1])
		}
	}
	return ask(g.t, g.url, http.MethodGet, v, headers...)
}
