package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// silence is how long a stream may say nothing: the server sends a sign of life
// every 15 seconds.
const silence = 45 * time.Second

// maxEventLine bounds a line of a stream: an event holds a record of 1 MiB at most.
const maxEventLine = 4 << 20

// event is one of a stream.
type event struct {
	id, kind string
}

// errNoStream says that the server does not stream: there is a reason to ask it for
// the state again and again instead.
var errNoStream = errors.New("no event stream")

// events follows the events of an operation from now on, or after the last one
// that was read, and gives each to take until the stream ends or take returns false.
func (c *client) events(ctx context.Context, id, last string, take func(event) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := c.request(ctx, call{method: http.MethodGet, path: "/v1/operations/" + url.PathEscape(id) + "/events", query: url.Values{"from": {"now"}}})
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	quiet := time.AfterFunc(silence, cancel)
	defer quiet.Stop()
	res, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(ctx, err)
	}
	defer res.Body.Close()
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if res.StatusCode != http.StatusOK || kind != "text/event-stream" {
		return fmt.Errorf("%w: answered %s", errNoStream, res.Status)
	}
	// Whoever is told that the stream stands reads the state: nothing that comes
	// after is missed.
	if !take(event{}) {
		return nil
	}
	return readEvents(res.Body, func() { quiet.Reset(silence) }, take)
}

// readEvents reads a text/event-stream; alive is called for every line.
func readEvents(body io.Reader, alive func(), take func(event) bool) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxEventLine)
	var next event
	for lines.Scan() {
		alive()
		text := lines.Text()
		if text == "" {
			if next.kind != "" && !take(next) {
				return nil
			}
			next = event{}
			continue
		}
		name, value, _ := strings.Cut(text, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "id":
			next.id = value
		case "event":
			next.kind = value
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.EOF
}
