package influx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// Write posts one batch of line protocol with times in nanoseconds. It returns
// nil only when the server has answered 204: every point is stored. batch may
// be used again as soon as Write returns. An empty rp means the default one; an
// empty batch is not sent.
//
// A failed Write may have stored none, some or all of the points; to repeat it
// is harmless.
func (c *Client) Write(ctx context.Context, db, rp string, batch []byte) error {
	if len(batch) == 0 {
		return nil
	}
	op := "writing to " + c.URL()
	body, release, err := c.encode(batch)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	defer release()
	query := url.Values{"db": {db}, "precision": {"n"}}
	if rp != "" {
		query.Set("rp", rp)
	}
	p := &payload{parts: [][]byte{body}}
	defer p.takeBack()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.String()+"/write?"+query.Encode(), p.reader())
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	req.ContentLength = int64(len(body))
	req.GetBody = func() (io.ReadCloser, error) { return p.reader(), nil }
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	if c.gzip {
		req.Header.Set("Content-Encoding", "gzip")
	}
	res, err := c.do(c.writes, req)
	if err != nil {
		return c.brokeWrite(ctx, op, err)
	}
	defer discard(res.Body)
	if res.StatusCode == http.StatusNoContent {
		return nil
	}
	return refused(op, res, classifyWrite)
}

// brokeWrite is broke for a write: a guard may have stopped it while net/http
// noticed something else first, the broken connection for one.
func (c *Client) brokeWrite(ctx context.Context, op string, err error) error {
	if c.guard != nil && ctx.Err() == nil && !errors.Is(err, ErrGuard) {
		if said := c.guard(); said != nil {
			err = &guardError{said}
		}
	}
	return c.broke(ctx, op, err)
}

// encode returns the body of a write, and what gives its memory back.
func (c *Client) encode(batch []byte) (body []byte, release func(), err error) {
	if !c.gzip {
		return batch, func() {}, nil
	}
	z, err := c.deflate([][]byte{batch})
	if err != nil {
		return nil, nil, err
	}
	return z.buf.Bytes(), func() { c.zips.Put(z) }, nil
}

// deflate compresses parts into one body; the compressor goes back to zips when
// that is not needed any more.
func (c *Client) deflate(parts [][]byte) (z *zip, err error) {
	z, ok := c.zips.Get().(*zip)
	if !ok {
		z = &zip{}
		if z.w, err = gzip.NewWriterLevel(&z.buf, gzipLevel); err != nil {
			return nil, err
		}
	}
	z.buf.Reset()
	z.w.Reset(&z.buf)
	for _, part := range parts {
		if _, err := z.w.Write(part); err != nil {
			return nil, fmt.Errorf("compressing a batch: %w", err)
		}
	}
	if err := z.w.Close(); err != nil {
		return nil, fmt.Errorf("compressing a batch: %w", err)
	}
	return z, nil
}

// gzipLevel is the fastest; BenchmarkGzip compares it with others.
const gzipLevel = gzip.BestSpeed

// zip is a compressor and its output.
type zip struct {
	w   *gzip.Writer
	buf bytes.Buffer
}

// payload lends the bytes of a batch to net/http, which may go on reading a body
// after it has returned the answer, and takes them back.
type payload struct {
	mu    sync.Mutex
	parts [][]byte
	gone  bool // taken back
}

var errTakenBack = errors.New("the request has ended")

func (p *payload) reader() io.ReadCloser { return io.NopCloser(&payloadReader{p: p}) }

func (p *payload) takeBack() {
	p.mu.Lock()
	p.parts, p.gone = nil, true
	p.mu.Unlock()
}

// payloadReader has no other methods than Read, so that net/http copies in
// steps instead of writing the batch at once.
type payloadReader struct {
	p        *payload
	part, at int
}

func (r *payloadReader) Read(b []byte) (n int, err error) {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	if r.p.gone {
		return 0, errTakenBack
	}
	for n < len(b) && r.part < len(r.p.parts) {
		copied := copy(b[n:], r.p.parts[r.part][r.at:])
		n, r.at = n+copied, r.at+copied
		if r.at == len(r.p.parts[r.part]) {
			r.part, r.at = r.part+1, 0
		}
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}
