package query

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"ringmaster/pkg/result"
)

// budget is what a request has used of its bounds.
type budget struct {
	bounds          *Bounds
	now             func() time.Time
	until           time.Time
	usedRows, usedB int64
}

// grace is how long an answer that is being sent when its time is over may take to
// come to a place where the client can be told so.
const grace = 2 * time.Second

func (r *Runner) newBudget() *budget {
	return &budget{bounds: &r.o.Bounds, now: r.o.Now, until: r.o.Now().Add(r.o.Bounds.Time)}
}

// bytes counts bytes that a backend has just answered; the error is the bound that was
// hit.
func (b *budget) bytes(n int64) error {
	b.usedB += n
	if b.bounds.Bytes > 0 && b.usedB > b.bounds.Bytes {
		return b.bounds.bytesError()
	}
	if b.bounds.Time > 0 && b.now().After(b.until) {
		return b.bounds.timeError()
	}
	return nil
}

// rows counts rows of the answer.
func (b *budget) rows(n int) error {
	b.usedRows += int64(n)
	if most := b.bounds.Rows; most > 0 && b.usedRows > most || most == 0 && b.usedRows > DefaultRows {
		return b.bounds.rowsError()
	}
	return nil
}

// cutter knows where an answer that is handed on can be ended with an error that
// the client sees.
type cutter struct {
	// documents: the answer is a sequence of JSON documents, each ended by a
	// newline, which stands nowhere else in one that is not pretty.
	documents bool
	pretty    bool
	options   result.Options
	last      [3]byte // what was sent last
	over      error   // the bound that was hit inside of a document
	overrun   int
}

// maxOverrun bounds what is sent beyond a bound until a document ends.
const maxOverrun = 32 << 20

// cutterFor returns the cutter of an answer.
func cutterFor(q *Request, res *http.Response) *cutter {
	c := &cutter{last: [3]byte{'\n', '}', '\n'}}
	if q == nil || res.StatusCode != http.StatusOK || res.Header.Get("Content-Encoding") != "" {
		return c
	}
	c.options, _ = q.options()
	c.pretty = q.Pretty
	c.documents = q.Chunked && c.options.Format == result.JSON && res.ContentLength < 0
	return c
}

// piece takes what comes next. hit is the bound that it passes; what is to be sent
// ends where the answer can be ended, if that is near.
func (c *cutter) piece(p []byte, hit error) (send []byte, bound error) {
	if hit != nil && c.over == nil {
		if !c.documents {
			return nil, hit
		}
		c.over = hit
	}
	if c.over != nil {
		if at := c.boundary(p); at >= 0 {
			p, bound = p[:at], c.over
		} else if c.overrun += len(p); c.overrun > maxOverrun {
			p, bound = nil, c.over
		}
	}
	c.sent(p)
	return p, bound
}

// boundary is behind the first document that ends in p, -1 if none does.
func (c *cutter) boundary(p []byte) int {
	if c.ended() {
		return 0
	}
	for from := 0; ; {
		at := bytes.IndexByte(p[from:], '\n')
		if at < 0 {
			return -1
		}
		from += at + 1
		probe := cutter{pretty: c.pretty, last: c.last}
		probe.sent(p[:from])
		if probe.ended() {
			return from
		}
	}
}

func (c *cutter) sent(p []byte) {
	for _, b := range p[max(0, len(p)-3):] {
		c.last = [3]byte{c.last[1], c.last[2], b}
	}
}

// ended reports whether what was sent ends with a whole document.
func (c *cutter) ended() bool {
	if c.pretty {
		return c.last == [3]byte{'\n', '}', '\n'}
	}
	return c.last[2] == '\n'
}

// document is what ends the answer with an error; nil if there is no place for it.
func (c *cutter) document(text string) []byte {
	if !c.documents || !c.ended() {
		return nil
	}
	return result.AppendError(nil, c.options, text)
}

// watch ends a question to backends that have stopped answering: when the prober
// has lost one and nothing has come for a while.
type watch struct {
	ctx      context.Context //nolint:containedctx // of what is watched
	stop     func()
	backends []string
	progress atomic.Int64
	pass     Pass // nil if it is no read
}

// lost says why what has been read must not be given out: nobody has waited for this
// read, so it may be of what was there before.
func (w *watch) lost() error {
	if w.pass == nil {
		return nil
	}
	if err := w.pass.Held(); err != nil {
		return &UnavailableError{Reasons: []string{err.Error()}}
	}
	return nil
}

func (w *watch) progressed(n int) { w.progress.Add(int64(n)) }

// watchEvery is how often a watch looks.
const watchEvery = time.Second

var errSilent = errors.New("it has stopped answering")

// watch begins to watch. stop must be called once; it returns when the watch has ended.
func (r *Runner) watch(ctx context.Context, backends ...string) *watch {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{ctx: ctx, backends: backends}
	// Most answers are over before it would look for the first time.
	ended := make(chan struct{})
	begins := time.AfterFunc(watchEvery, func() {
		defer close(ended)
		r.keepWatch(w, cancel)
	})
	w.stop = func() {
		cancel(nil)
		if !begins.Stop() {
			<-ended
		}
	}
	return w
}

func (r *Runner) keepWatch(w *watch, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	before, lost := int64(-1), ""
	for {
		now, gone := w.progress.Load(), ""
		for _, b := range w.backends {
			if !r.o.Health.Active(b) {
				gone = b
			}
		}
		if gone != "" && gone == lost && now == before {
			cancel(&brokenError{gone, errSilent})
			return
		}
		before, lost = now, gone
		select {
		case <-w.ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
