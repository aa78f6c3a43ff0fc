package influx

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// Reply is a server's answer to a Post.
type Reply struct {
	Status int
	// Text is what the server said, in its words and uncut; empty when everything
	// is stored.
	Text string
	// RetryAfter is how long it asks to wait, 0 if it does not.
	RetryAfter time.Duration
}

// Stored reports whether the server has stored every point.
func (r Reply) Stored() bool { return r.Status == http.StatusNoContent }

// Post sends line protocol with times in nanoseconds, the parts one after the
// other, and returns the answer whatever it is, for callers that pass it on; it
// repeats nothing. The parts may be used again as soon as it returns. Without any
// parts it stores nothing, and the answer tells whether database and policy exist.
// compress has the body sent as gzip whatever the client's options say.
//
// An error says that there was no answer: none, some or all of the points may be
// stored.
func (c *Client) Post(ctx context.Context, db, rp string, parts [][]byte, compress bool) (Reply, error) {
	op := "writing to " + c.URL()
	size := 0
	for _, part := range parts {
		size += len(part)
	}
	wait := int64(size)*maxEscaped + maxRefusal
	if compress {
		z, err := c.deflate(parts)
		if err != nil {
			return Reply{}, fmt.Errorf("%s: %w", op, err)
		}
		defer c.zips.Put(z)
		parts, size = [][]byte{z.buf.Bytes()}, z.buf.Len()
	}
	p := &payload{parts: parts}
	defer p.takeBack()
	target := c.base.String() + "/write?precision=ns&db=" + url.QueryEscape(db)
	if rp != "" {
		target += "&rp=" + url.QueryEscape(rp)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, http.NoBody)
	if err != nil {
		return Reply{}, fmt.Errorf("%s: %w", op, err)
	}
	if size > 0 {
		req.Body = p.reader()
		req.ContentLength = int64(size)
		req.GetBody = func() (io.ReadCloser, error) { return p.reader(), nil }
	}
	req.Header["Content-Type"] = []string{"text/plain; charset=utf-8"}
	if compress {
		req.Header.Set("Content-Encoding", "gzip")
	}
	res, err := c.do(c.writes, req)
	if err != nil {
		return Reply{}, c.brokeWrite(ctx, op, err)
	}
	defer discard(res.Body)
	if res.StatusCode == http.StatusNoContent {
		return Reply{Status: res.StatusCode}, nil
	}
	text, err := wholeText(res, wait)
	if err != nil {
		return Reply{}, c.brokeWrite(ctx, op, err)
	}
	return Reply{Status: res.StatusCode, Text: text, RetryAfter: retryAfter(res)}, nil
}

// maxEscaped is how many bytes of an answer one byte of a request can become: a
// refusal repeats lines, as JSON.
const maxEscaped = 6

// wholeText is the server's words without anything left out.
func wholeText(res *http.Response, limit int64) (string, error) {
	body, err := io.ReadAll(io.LimitReader(res.Body, limit))
	if err != nil {
		return "", err
	}
	var said struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &said) == nil && said.Error != "" {
		return said.Error, nil
	}
	return plainText(res, body), nil
}
