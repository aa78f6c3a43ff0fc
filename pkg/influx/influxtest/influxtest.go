// Package influxtest runs real InfluxDB 1.8.3 servers as processes: for tests
// by [Start], for other programs by [Launch].
package influxtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// requestTimeout bounds each request of a Server's helpers.
const requestTimeout = time.Minute

// Server is a real server that belongs to a test. Its helpers fail the test
// when they fail. It is not safe for concurrent Stop, Kill and Restart.
type Server struct {
	t       testing.TB
	process *Process
	http    *http.Client
}

// Option changes how [Start] runs a server.
type Option func(*Config)

// WithAuth makes the server require credentials. The first user must be created
// without any: Exec(`CREATE USER … WITH ALL PRIVILEGES`).
func WithAuth() Option { return func(c *Config) { c.Auth = true } }

// WithIndex chooses the index of new shards: inmem or tsi1.
func WithIndex(index string) Option { return func(c *Config) { c.Index = index } }

// WithUnsigned makes the server accept unsigned integers.
func WithUnsigned() Option { return func(c *Config) { c.Unsigned = true } }

// WithArgs adds flags of the server program; integration/influxd lists them.
func WithArgs(args ...string) Option {
	return func(c *Config) { c.Args = append(c.Args, args...) }
}

// Start runs a server on a free port of 127.0.0.1 with its data below
// t.TempDir, and stops it when the test ends.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	c := Config{Dir: t.TempDir()}
	for _, o := range opts {
		o(&c)
	}
	p, err := Launch(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	// One connection a request: no goroutines stay behind.
	s := &Server{t: t, process: p, http: &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true},
		Timeout:   requestTimeout,
	}}
	// No order at the end of a test: its data is of no use to anybody.
	t.Cleanup(func() { s.process.Kill() })
	return s
}

// URL is the server's base URL. It stays the same over Restart.
func (s *Server) URL() string { return s.process.URL() }

// Process is the running process; Restart replaces it.
func (s *Server) Process() *Process { return s.process }

// Stop ends the server in order.
func (s *Server) Stop() {
	s.t.Helper()
	if err := s.process.Stop(); err != nil {
		s.t.Fatal(err)
	}
}

// Kill ends the server as a crash does.
func (s *Server) Kill() { s.process.Kill() }

// Restart starts the server again after Stop or Kill, on the same directory and
// port.
func (s *Server) Restart() {
	s.t.Helper()
	p, err := s.process.Restart(context.WithoutCancel(s.t.Context()))
	if err != nil {
		s.t.Fatal(err)
	}
	s.process = p
}

// Exec runs InfluxQL statements and fails the test on any error in the answer.
func (s *Server) Exec(q string) {
	s.t.Helper()
	s.Query(q)
}

// Result is the answer to one statement.
type Result struct {
	Series []Series `json:"series"`
	Error  string   `json:"error"`
}

// Series is one table of a Result. Numbers are [json.Number].
type Series struct {
	Name    string            `json:"name"`
	Tags    map[string]string `json:"tags"`
	Columns []string          `json:"columns"`
	Values  [][]any           `json:"values"`
}

// Query runs InfluxQL statements with times in nanoseconds and returns the
// result of each. It fails the test on any error in the answer.
func (s *Server) Query(q string) []Result {
	s.t.Helper()
	form := url.Values{"q": {q}, "epoch": {"ns"}}
	body := s.post("/query", "application/x-www-form-urlencoded", strings.NewReader(form.Encode()), http.StatusOK)
	var answer struct {
		Results []Result `json:"results"`
		Error   string   `json:"error"`
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	if err := dec.Decode(&answer); err != nil {
		s.t.Fatalf("query %.200q: reading the answer %.200q: %v", q, body, err)
	}
	if answer.Error != "" {
		s.t.Fatalf("query %.200q: %s", q, answer.Error)
	}
	for _, r := range answer.Results {
		if r.Error != "" {
			s.t.Fatalf("query %.200q: %s", q, r.Error)
		}
	}
	return answer.Results
}

// WriteLines writes line protocol with times in nanoseconds. An empty rp means
// the default one.
func (s *Server) WriteLines(db, rp, lines string) {
	s.t.Helper()
	target := "/write?" + url.Values{"db": {db}, "rp": {rp}}.Encode()
	s.post(target, "text/plain", strings.NewReader(lines), http.StatusNoContent)
}

func (s *Server) post(target, contentType string, body io.Reader, want int) []byte {
	s.t.Helper()
	answer, err := s.try(target, contentType, body, want)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer
}

func (s *Server) try(target, contentType string, body io.Reader, want int) ([]byte, error) {
	res, err := s.http.Post(s.URL()+target, contentType, body)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != want {
		return nil, fmt.Errorf("POST %.200s: %s: %.500s", target, res.Status, answer)
	}
	return answer, nil
}
