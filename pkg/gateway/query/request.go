package query

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/influxdata/influxql"

	"ringmaster/pkg/result"
	"ringmaster/pkg/statement"
)

// Headers by which a client allows a read that may lack points, and is told that it
// was one and what may be missing.
const (
	StaleHeader   = "X-Ringmaster-Stale"
	MissingHeader = "X-Ringmaster-Missing"
	staleAllow    = "allow"
)

// defaultChunk is how many rows of a series InfluxDB gathers unless it is told
// otherwise.
const defaultChunk = 10000

// Request is a request for /query.
type Request struct {
	// Text is the statements.
	Text string
	// Database and RetentionPolicy are what they mean where they name none.
	Database, RetentionPolicy string
	// Params are the values of bound parameters, as JSON.
	Params string
	// Epoch, Pretty and Chunked are the parameters of the answer's form; ChunkSize
	// is 0 where it is not given.
	Epoch           string
	Pretty, Chunked bool
	ChunkSize       int
	// Async asks to be answered before the statements have run.
	Async bool
	// ReadOnly says that the request came by GET.
	ReadOnly bool
	// Values are all parameters, one value each, as they are handed on to a
	// backend. Credentials are left out of them.
	Values url.Values
	// Header is that of the client.
	Header http.Header
	// Client is its address.
	Client string
}

func (q *Request) stale() bool { return q.Header.Get(StaleHeader) == staleAllow }

func (q *Request) chunkSize() int {
	if q.ChunkSize > 0 {
		return q.ChunkSize
	}
	return defaultChunk
}

func (q *Request) options() (o result.Options, contentType string) {
	format, contentType := result.Negotiate(q.Header.Values("Accept"))
	return result.Options{Format: format, Pretty: q.Pretty, Chunked: q.Chunked, Epoch: q.Epoch}, contentType
}

// Serve answers a request as InfluxDB does. Of errors, a *[RefusalError] is the answer
// that the caller is to give, since there is none yet, and one that wraps
// [ErrAborted] means that the connection has to be broken.
func (r *Runner) Serve(ctx context.Context, w Reply, q *Request) error {
	params, err := statement.Params(q.Params)
	if err != nil {
		return &RefusalError{http.StatusBadRequest, err.Error()}
	}
	parsed, err := statement.Parse(q.Text, params, statement.Defaults{
		Database: q.Database, RetentionPolicy: q.RetentionPolicy, Now: r.o.Now(),
	})
	if err != nil {
		return &RefusalError{http.StatusBadRequest, err.Error()}
	}
	if err := r.allowed(databases(parsed)...); err != nil {
		return err
	}
	ctx, leave, err := r.running.enter(ctx, Running{
		Client: q.Client, Text: shown(q.Text), Database: q.Database, Since: r.o.Now().UTC(),
	})
	if err != nil {
		return &RefusalError{http.StatusServiceUnavailable, err.Error()}
	}
	defer leave()
	budget := r.newBudget()
	if r.o.Bounds.Time > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.o.Bounds.Time+grace, r.o.Bounds.timeError())
		defer cancel()
	}
	if r.o.Bounds.Rows <= 0 && whole(parsed) {
		if done, err := r.passWhole(ctx, w, q, parsed, budget); done {
			return err
		}
	}
	return r.execute(ctx, w, q, parsed, budget)
}

// shown is a request's text without passwords. To look for them costs more than to
// parse the text, so that is done only where one can be.
func shown(text string) string {
	if !strings.Contains(strings.ToLower(text), "password") {
		return text
	}
	return influxql.Sanitize(text)
}

// whole reports whether a request may be one that a single backend answers.
func whole(parsed *statement.Request) bool {
	for _, s := range parsed.Statements {
		switch s.Class {
		case statement.Read, statement.ShowOne, statement.ShowMerged:
		default:
			return false
		}
		if s.Fault != nil || len(s.Lists()) > 0 {
			return false
		}
	}
	return len(parsed.Statements) > 0
}

// answerError answers an error before anything else was answered: as that of the
// first statement if it has words for it.
func (r *Runner) answerError(ctx context.Context, w Reply, q *Request, err error) error {
	if text, ok := sentence(err); ok {
		out := newOutput(w, q)
		o, _ := q.options()
		answer := result.NewWriter(out, o)
		if err := errors.Join(answer.Write(&result.Result{Err: text}), answer.Close(), out.close()); err != nil {
			return errors.Join(ErrAborted, err)
		}
		return nil
	}
	if ctx.Err() != nil && !errors.Is(err, errCancelled) {
		return errors.Join(ErrAborted, err) // the client has gone
	}
	if refusal, is := errors.AsType[*RefusalError](err); is {
		return refusal
	}
	return &RefusalError{http.StatusServiceUnavailable, err.Error()}
}

// compresses reports whether the client takes gzip.
func compresses(h http.Header) bool { return strings.Contains(h.Get("Accept-Encoding"), "gzip") }
