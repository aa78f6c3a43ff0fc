package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/tinylib/msgp/msgp"

	"ringmaster/pkg/influx"
)

// Proxy stands between Ringmaster and a backend. It forwards every request,
// until [Proxy.Handle] gives it another handler, which may break what goes
// through it or look at it. It keeps its address for as long as it is open.
type Proxy struct {
	forward http.Handler
	target  *url.URL
	handler atomic.Pointer[http.HandlerFunc]
	// probed is the handler of health probes.
	probed  atomic.Pointer[http.HandlerFunc]
	server  *http.Server
	address string
	closing context.Context //nolint:containedctx // the life of the proxy, for handlers that wait
	end     context.CancelFunc
}

// receiveBuffer is small, so that a body nobody reads stays with its sender: a
// test can stop a worker in the middle of a batch.
const receiveBuffer = 16 << 10

// NewProxy opens a proxy in front of the server at target on a free port.
func NewProxy(target string) (*Proxy, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("opening a proxy: %w", err)
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) {
			set = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, receiveBuffer)
		})
		return errors.Join(err, set)
	}}
	l, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("opening a proxy in front of %s: %w", target, err)
	}
	p := &Proxy{target: u, address: l.Addr().String()}
	p.closing, p.end = context.WithCancel(context.Background())
	silent := slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	p.forward = &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(u) },
		Transport:     &http.Transport{DisableCompression: true, DisableKeepAlives: true},
		FlushInterval: -1,
		ErrorLog:      silent,
		// A backend that is away answers nothing, as without a proxy.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { Hangup() },
	}
	p.HandleAll(nil)
	p.server = &http.Server{ErrorLog: silent, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if probes(r) {
			(*p.probed.Load())(w, r)
			return
		}
		(*p.handler.Load())(w, r)
	})}
	go func() { _ = p.server.Serve(l) }() // ends with Close
	return p, nil
}

// URL is the proxy's own address, to be used in place of the backend's.
func (p *Proxy) URL() string { return "http://" + p.address }

// HandleAll is Handle for what the health probes ask, too.
func (p *Proxy) HandleAll(h http.HandlerFunc) {
	p.Handle(h)
	p.probed.Store(p.handler.Load())
}

// Handle replaces the handler of the requests to come, other than those of health
// probes; nil forwards them.
func (p *Proxy) Handle(h http.HandlerFunc) {
	if h == nil {
		h = p.Forward
	}
	p.handler.Store(&h)
}

// Forward sends a request on to the backend and its answer back as it comes.
func (p *Proxy) Forward(w http.ResponseWriter, r *http.Request) { p.forward.ServeHTTP(w, r) }

// Close ends the proxy and every connection through it.
func (p *Proxy) Close() error {
	p.end()
	return p.server.Close()
}

// Fetch sends a request on to the backend and returns the whole answer.
func (p *Proxy) Fetch(r *http.Request) (*http.Response, []byte, error) {
	req := r.Clone(r.Context())
	req.RequestURI, req.Host = "", p.target.Host
	req.URL.Scheme, req.URL.Host = p.target.Scheme, p.target.Host
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, nil, fmt.Errorf("fetching from a backend: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res, body, err
}

// Hangup ends a handler and breaks the connection of its client, in the way
// that net/http offers for it.
func Hangup() { panic(http.ErrAbortHandler) }

// Swallow is the fault of a black hole: the request is taken and no answer ever
// comes.
func (p *Proxy) Swallow(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	select {
	case <-r.Context().Done():
	case <-p.closing.Done():
	}
	Hangup()
}

// Refuse is the fault of a server that answers with a status and its words.
func Refuse(status int, words string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, "{\"error\":%q}\n", words)
	}
}

// CutAnswer is the fault of a connection that breaks after n bytes of an answer;
// a shorter answer breaks at its end.
func (p *Proxy) CutAnswer(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		res, body, err := p.Fetch(r)
		if err != nil {
			Hangup()
		}
		send(w, res, body[:min(n, len(body))])
		Hangup()
	}
}

// CutRequest is the fault of a connection that breaks after n bytes of a
// request's body: the server never sees the request.
func CutRequest(n int64) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(io.Discard, r.Body, n)
		Hangup()
	}
}

// ErrorHalfway is the fault of a server that fails in the middle of an answer in
// msgpack: the first half of its parts arrive, and then a result that carries
// words as its error. The HTTP status says 200.
func (p *Proxy) ErrorHalfway(words string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		res, body, err := p.Fetch(r)
		if err != nil {
			Hangup()
		}
		half, statement := halfOf(body)
		half = msgp.AppendMapHeader(half, 1)
		half = msgp.AppendString(half, "results")
		half = msgp.AppendArrayHeader(half, 1)
		half = msgp.AppendMapHeader(half, 2)
		half = msgp.AppendString(half, "statement_id")
		half = msgp.AppendInt64(half, statement)
		half = msgp.AppendString(half, "error")
		half = msgp.AppendString(half, words)
		send(w, res, half)
	}
}

// Truncate is the fault of a server whose answer in msgpack ends half-way as if
// that were all.
func (p *Proxy) Truncate(w http.ResponseWriter, r *http.Request) {
	res, body, err := p.Fetch(r)
	if err != nil {
		Hangup()
	}
	half, _ := halfOf(body)
	send(w, res, half)
}

// PartialWrite is the fault of a server that leaves the last line of a write out
// and says so with its words. The body must not be compressed.
func (p *Proxy) PartialWrite(words string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			Hangup()
		}
		lines := strings.TrimSuffix(string(body), "\n")
		lines = lines[:strings.LastIndexByte(lines, '\n')+1]
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(lines)), int64(len(lines))
		if lines != "" {
			if _, _, err := p.Fetch(r); err != nil {
				Hangup()
			}
		}
		Refuse(http.StatusBadRequest, words)(w, r)
	}
}

// Pretend is the fault of a server that acknowledges a write and forgets it.
func Pretend(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.WriteHeader(http.StatusNoContent)
}

// halfOf returns the first half of the chunks of an answer in msgpack, and the
// statement that the last of them answers.
func halfOf(body []byte) (half []byte, statement int64) {
	var chunks [][]byte
	for rest := body; len(rest) > 0; {
		begin := rest
		var err error
		if rest, err = msgp.Skip(rest); err != nil {
			break
		}
		chunks = append(chunks, begin[:len(begin)-len(rest)])
	}
	for _, chunk := range chunks[:len(chunks)/2] {
		half = append(half, chunk...)
		if parsed, _, err := msgp.ReadMapStrIntfBytes(chunk, nil); err == nil {
			statement = lastStatement(parsed)
		}
	}
	return half, statement
}

// lastStatement is the id of the last result of a chunk.
func lastStatement(chunk map[string]any) (id int64) {
	results, _ := chunk["results"].([]any)
	for _, r := range results {
		result, _ := r.(map[string]any)
		switch n := result["statement_id"].(type) {
		case int64:
			id = n
		case uint64:
			id = int64(n)
		}
	}
	return id
}

func send(w http.ResponseWriter, res *http.Response, body []byte) {
	for _, name := range []string{"Content-Type", "X-Influxdb-Version"} {
		w.Header().Set(name, res.Header.Get(name))
	}
	w.WriteHeader(res.StatusCode)
	_, _ = w.Write(body)
	_ = http.NewResponseController(w).Flush()
}

// probes tells what Ringmaster's health probes write and read in their own
// database, which comes at any time and is no part of what goes through a proxy
// under test.
func probes(r *http.Request) bool {
	if IsWrite(r) {
		return r.URL.Query().Get("db") == influx.ProbeDatabase
	}
	return strings.Contains(Statements(r), influx.ProbeDatabase)
}

// IsWrite tells writes from queries.
func IsWrite(r *http.Request) bool { return r.URL.Path == "/write" }

// Statements returns the InfluxQL of a query, and leaves the request as it was.
func Statements(r *http.Request) string {
	if r.URL.Path != "/query" {
		return ""
	}
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		Hangup()
	}
	r.Body = io.NopCloser(strings.NewReader(string(raw)))
	form, err := url.ParseQuery(string(raw))
	if err != nil {
		return ""
	}
	if q := form.Get("q"); q != "" {
		return q
	}
	return r.URL.Query().Get("q")
}

// ReadsPoints tells the reading of points from all other queries.
func ReadsPoints(r *http.Request) bool {
	return strings.Contains(Statements(r), "SELECT *::field") && !strings.Contains(Statements(r), " LIMIT ")
}
