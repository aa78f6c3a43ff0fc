package mover_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tinylib/msgp/msgp"
)

// asked is a request on its way through a gate.
type asked struct {
	// write says that it is a batch; query is the InfluxQL of one that is not.
	write bool
	query string
	body  []byte
}

// points reports whether the request reads the points of a source.
func (a *asked) points() bool {
	return strings.HasPrefix(a.query, "SELECT *::field") && strings.HasSuffix(a.query, "GROUP BY *")
}

// fault is what becomes of a request; the zero fault lets it pass.
type fault struct {
	// status, with text and header, is the answer, if not 0. The server sees the
	// request before only when stored.
	status int
	text   string
	header http.Header
	stored bool
	// cutRequest breaks the connection to the server after so many bytes of the
	// body, cutAnswer the one to the client after so many of the answer.
	cutRequest, cutAnswer int
	// midError replaces the answer's chunks from the n-th on by an error of the
	// first statement that they would go on with.
	midError int
	// hole takes the request in and never says anything.
	hole bool
	// meanwhile is called before the request is passed on.
	meanwhile func()
}

// gate stands in front of a real server and does to its requests what a test
// wants.
type gate struct {
	*httptest.Server
	target    string
	transport *http.Transport

	mu    sync.Mutex
	rule  func(*asked) fault
	calls []asked
}

func newGate(t testing.TB, target string) *gate {
	t.Helper()
	g := &gate{target: target, transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
	g.Server = httptest.NewServer(http.HandlerFunc(g.serve))
	t.Cleanup(g.Close)
	return g
}

// on sets what happens to requests from now on.
func (g *gate) on(rule func(*asked) fault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rule = rule
}

// seen counts the requests of a kind so far.
func (g *gate) seen(kind func(*asked) bool) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.calls {
		if kind(&g.calls[i]) {
			n++
		}
	}
	return n
}

func (g *gate) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	a := asked{write: r.URL.Path == "/write", body: body}
	if !a.write {
		form := r.Clone(r.Context())
		form.Body = io.NopCloser(bytes.NewReader(body))
		a.query = form.FormValue("q")
	}
	f := g.decide(a)
	if f.meanwhile != nil {
		f.meanwhile()
	}
	switch {
	case f.hole:
		<-r.Context().Done()
		return
	case f.status != 0 && !f.stored:
		f.answer(w)
		return
	}
	res, err := g.forward(r, body, f.cutRequest)
	if err != nil {
		cut(w)
		return
	}
	answer, err := io.ReadAll(res.Body)
	res.Body.Close()
	switch {
	case err != nil:
		cut(w)
		return
	case f.status != 0:
		f.answer(w)
		return
	case f.midError > 0:
		answer = spoil(answer, f.midError)
	}
	maps.Copy(w.Header(), res.Header)
	if f.cutAnswer > 0 && f.cutAnswer < len(answer) {
		w.Header().Del("Content-Length")
		w.WriteHeader(res.StatusCode)
		_, _ = w.Write(answer[:f.cutAnswer])
		_ = http.NewResponseController(w).Flush()
		cut(w)
		return
	}
	w.Header().Del("Content-Length")
	w.WriteHeader(res.StatusCode)
	_, _ = w.Write(answer)
}

func (g *gate) decide(a asked) fault {
	g.mu.Lock()
	g.calls = append(g.calls, a)
	rule := g.rule
	g.mu.Unlock()
	if rule == nil {
		return fault{}
	}
	return rule(&a)
}

func (f *fault) answer(w http.ResponseWriter) {
	maps.Copy(w.Header(), f.header)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.status)
	_, _ = io.WriteString(w, f.text)
}

// forward passes a request on, or so many bytes of its body.
func (g *gate) forward(r *http.Request, body []byte, only int) (*http.Response, error) {
	var send io.Reader = bytes.NewReader(body)
	if only > 0 && only < len(body) {
		send = io.MultiReader(bytes.NewReader(body[:only]), brokenReader{})
	}
	req, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), r.Method, g.target+r.URL.RequestURI(), send)
	if err != nil {
		return nil, err
	}
	req.Header = r.Header.Clone()
	req.ContentLength = int64(len(body))
	return g.transport.RoundTrip(req)
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("cut") }

// cut breaks the connection to the client.
func cut(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	conn.Close()
}

// spoil keeps the first chunks of a msgpack answer and ends it with an error, as
// a server does whose query fails half-way.
func spoil(answer []byte, keep int) []byte {
	rest := answer
	for range keep {
		next, err := msgp.Skip(rest)
		if err != nil || len(next) == 0 {
			break
		}
		rest = next
	}
	kept := answer[:len(answer)-len(rest)]
	end := msgp.AppendMapHeader(bytes.Clone(kept), 1)
	end = msgp.AppendString(end, "results")
	end = msgp.AppendArrayHeader(end, 1)
	end = msgp.AppendMapHeader(end, 2)
	end = msgp.AppendString(end, "statement_id")
	end = msgp.AppendInt(end, statementOf(rest))
	end = msgp.AppendString(end, "error")
	return msgp.AppendString(end, "query interrupted")
}

// statementOf is the statement of the next chunk.
func statementOf(chunk []byte) int {
	v, _, err := msgp.ReadMapStrIntfBytes(chunk, nil)
	if err != nil {
		return 0
	}
	results, _ := v["results"].([]any)
	if len(results) == 0 {
		return 0
	}
	first, _ := results[0].(map[string]any)
	id, _ := first["statement_id"].(int64)
	return int(id)
}

// TestGatePasses makes sure that the gate itself is no fault.
func TestGatePasses(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	g := newGate(t, e.source.URL())
	e.source.Exec("CREATE DATABASE d")
	e.source.WriteLines("d", "", "m v=1 1\nm v=2 2")
	require.Equal(t, dump(t, e.source.URL(), "d"), dump(t, g.URL, "d"))
}
