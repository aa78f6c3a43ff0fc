package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// client speaks the native API.
type client struct {
	server *url.URL
	token  string
	http   *http.Client
	// timeout bounds a request with its repetitions.
	timeout time.Duration
}

func newClient(g *globals) (*client, error) {
	server, err := serverURL(g.Server)
	if err != nil {
		return nil, err
	}
	token, err := bearer(g, server)
	if err != nil {
		return nil, err
	}
	t, err := transport(g)
	if err != nil {
		return nil, err
	}
	if g.Timeout <= 0 {
		return nil, usageError("--timeout %s: use a duration above 0", g.Timeout)
	}
	return &client{
		server: server, token: token, timeout: g.Timeout,
		// The token goes to the server that was named, and to none that it names.
		http: &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// call is a request.
type call struct {
	method, path string
	query        url.Values
	body         any
	// key is the Idempotency-Key of a submission.
	key string
}

// answer is what came back.
type answer struct {
	status int
	body   []byte
}

// repeatable reports whether a request may be sent twice: one that only reads, or
// one that the server knows again by its key.
func (r *call) repeatable() bool { return r.method == http.MethodGet || r.key != "" }

const (
	// maxAnswer bounds an answer; a report or a plan is a few MiB.
	maxAnswer = 512 << 20

	attempts   = 4
	firstPause = 200 * time.Millisecond
	maxPause   = 5 * time.Second
)

// get reads a document.
func (c *client) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	a, err := c.do(ctx, call{method: http.MethodGet, path: path, query: query})
	return a.body, err
}

// do sends a request and reads the answer. A status that is no success is a
// *problemError. Requests that may be repeated are, while the server is not to be
// reached or says that it is not available.
func (c *client) do(ctx context.Context, r call) (answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, errSlow)
	defer cancel()
	wait := firstPause
	for attempt := 1; ; attempt++ {
		a, after, err := c.once(ctx, r)
		if err == nil || attempt == attempts || !r.repeatable() || !transient(err) {
			return a, err
		}
		if !pause(ctx, min(max(wait, after), maxPause)) {
			return a, err
		}
		wait *= 2
	}
}

// errSlow is why a request is given up.
var errSlow = errors.New("no answer in time; --timeout says how long to wait")

// unreachableError says that there was no answer.
type unreachableError struct {
	server string
	err    error
}

func (e *unreachableError) Error() string {
	return fmt.Sprintf("no answer from %s: %v\n  next: see whether an api runs there; --server or RINGMASTER_SERVER names another", e.server, e.err)
}

func (e *unreachableError) Unwrap() error { return e.err }

// transient reports whether an error says nothing about the request itself.
func transient(err error) bool {
	var (
		unreachable *unreachableError
		problem     *problemError
	)
	switch {
	case errors.As(err, &unreachable):
		return !errors.Is(err, context.Canceled) && !errors.Is(err, errSlow)
	case errors.As(err, &problem):
		switch problem.Status {
		case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
	}
	return false
}

// once sends a request; after is how long the server asks to be left alone.
func (c *client) once(ctx context.Context, r call) (_ answer, after time.Duration, err error) {
	req, err := c.request(ctx, r)
	if err != nil {
		return answer{}, 0, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return answer{}, 0, c.unreachable(ctx, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return answer{}, 0, c.unreachable(ctx, err)
	case len(body) > maxAnswer:
		return answer{}, 0, fmt.Errorf("the answer to %s %s is larger than %s", r.method, r.path, size(maxAnswer))
	case res.StatusCode/100 != 2:
		return answer{res.StatusCode, body}, retryAfter(res.Header), newProblem(res, body)
	}
	return answer{res.StatusCode, body}, 0, nil
}

// unreachable tells of an answer that did not come. A person's Ctrl-C stays one.
func (c *client) unreachable(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if wrong, ok := errors.AsType[*url.Error](err); ok {
		err = wrong.Err
	}
	return &unreachableError{c.server.String(), err}
}

func (c *client) request(ctx context.Context, r call) (*http.Request, error) {
	var body io.Reader
	if r.body != nil {
		raw, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("writing the request: %w", err)
		}
		body = bytes.NewReader(raw)
	}
	target := c.server.JoinPath(r.path)
	target.RawQuery = r.query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.method, target.String(), body)
	if err != nil {
		return nil, fmt.Errorf("writing the request: %w", err)
	}
	req.Header.Set("User-Agent", "ringctl/"+version())
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.key != "" {
		req.Header.Set("Idempotency-Key", r.key)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(min(seconds, 3600)) * time.Second
}
