package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/statement"
)

// tries is how often a request is begun again elsewhere because a backend failed
// before anything was answered.
const tries = 4

// passWhole hands a request to the one backend that can answer all of it. done is
// false if there is none such.
func (r *Runner) passWhole(ctx context.Context, w Reply, q *Request, parsed *statement.Request, budget *budget) (done bool, err error) {
	where := search{stale: q.stale(), mixed: mayMix(parsed)}
	for n := 1; ; n++ {
		var backend, text string
		p, err := r.read(ctx, where, func(_ context.Context, p *place) (string, error) {
			var reason string
			backend, text, reason = onlyBackend(p, parsed)
			return reason, nil
		})
		if err != nil {
			return true, r.answerError(ctx, w, q, err)
		}
		if backend == "" {
			p.pass.End()
			return false, nil
		}
		began, err := r.passTo(ctx, w, q, p, backend, text, budget)
		p.pass.End()
		broken := where.failed(err)
		switch {
		case began || err == nil:
			return true, err
		case !broken || ctx.Err() != nil || n == tries:
			return true, r.answerError(ctx, w, q, err)
		}
	}
}

// mayMix reports whether each statement reads named measurements only, so that
// each can be read in a circle of its own.
func mayMix(parsed *statement.Request) bool {
	return !slices.ContainsFunc(parsed.Statements, func(s *statement.Statement) bool { return !named(s) })
}

func named(s *statement.Statement) bool {
	return (s.Class == statement.Read || s.Class == statement.Into) && len(s.Lists()) == 0
}

// onlyBackend finds the backend that answers all statements, and the text to send
// it; "" if there is none. A reason says why it can't be asked.
func onlyBackend(p *place, parsed *statement.Request) (backend, text, reason string) {
	p.anyFirst()
	texts := make([]string, 0, len(parsed.Statements))
	for _, s := range parsed.Statements {
		if len(p.circle.Backends) == 0 {
			return "", "", "it has no backends"
		}
		plan, err := s.Plan(p.circle)
		if err != nil || !plan.Pass() || !plan.Parts[0].Original {
			return "", "", "" // it is looked at alone
		}
		ask := plan.Parts[0]
		if backend != "" && ask.Backend != backend {
			return "", "", ""
		}
		backend = ask.Backend
		texts = append(texts, ask.Text)
	}
	return backend, strings.Join(texts, ";"), p.fits(statement.Ask{Backend: backend})
}

// passTo hands a request to a backend. An error before the answer began leaves it
// to be answered.
func (r *Runner) passTo(ctx context.Context, w Reply, q *Request, p *place, backend, text string, budget *budget) (began bool, err error) {
	values := maps.Clone(q.Values)
	if values == nil {
		values = url.Values{}
	}
	values.Set("q", text)
	return r.forward(ctx, w, p, backend, forwarded(q, values), q, budget)
}

// forwarded makes the request for a backend.
func forwarded(q *Request, values url.Values) influx.Forwarded {
	f := influx.Forwarded{Method: http.MethodPost, Path: "/query", Header: forwardedHeader(q.Header)}
	form := values.Encode()
	if q.ReadOnly && len(form) <= maxURL {
		f.Method, f.Query = http.MethodGet, form
		return f
	}
	if q.Pretty {
		f.Query = "pretty=true" // only looked for there
	}
	f.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	f.Body, f.Length = strings.NewReader(form), int64(len(form))
	return f
}

// maxURL is how much goes into a URL.
const maxURL = 512 << 10

// forwardedHeader keeps of a client's header what forms the answer.
func forwardedHeader(h http.Header) http.Header {
	kept := http.Header{}
	for _, name := range []string{"Accept", "Accept-Encoding", "User-Agent", "Request-Id", "X-Request-Id"} {
		if values := h.Values(name); len(values) > 0 {
			kept[name] = slices.Clone(values)
		}
	}
	return kept
}

// connectionHeaders are those of one connection; they are not handed on.
func connectionHeaders() []string {
	return []string{"Connection", "Keep-Alive", "Transfer-Encoding", "Trailer", "Upgrade", "Date"}
}

// copySize is the size of the pieces that answers are handed on in.
const copySize = 64 << 10

// forward hands a request to a backend and its answer to the client as it comes. q
// says what form the answer has; nil if it is none of /query.
func (r *Runner) forward(ctx context.Context, w Reply, p *place, backend string, f influx.Forwarded, q *Request, budget *budget) (began bool, err error) {
	watch := r.watch(ctx, backend)
	watch.pass = p.pass
	defer watch.stop()
	client, err := r.o.Clients.Client(p.backends[backend])
	if err != nil {
		return false, &brokenError{backend, err}
	}
	res, err := client.Forward(watch.ctx, f)
	if err != nil {
		return false, r.unanswered(watch.ctx, backend, err)
	}
	defer res.Body.Close()
	return r.copyAnswer(w, p, res, watch, cutterFor(q, res), budget)
}

// mark tells the client what a stale read may lack.
func (p *place) mark(h http.Header) {
	if len(p.missing) > 0 {
		h.Set(StaleHeader, "true")
		h.Set(MissingHeader, strings.Join(p.missing, "; "))
	}
}

// copyAnswer hands an answer on, flushing as it comes.
func (r *Runner) copyAnswer(w Reply, p *place, res *http.Response, watch *watch, cut *cutter, budget *budget) (began bool, err error) {
	buffer, ok := r.buffers.Get().(*[copySize]byte)
	if !ok {
		buffer = new([copySize]byte)
	}
	defer r.buffers.Put(buffer)
	begin := func() {
		if began {
			return
		}
		began = true
		h := w.Header()
		for name, values := range res.Header {
			if !slices.Contains(connectionHeaders(), name) {
				h[name] = values
			}
		}
		p.mark(h)
		w.WriteHeader(res.StatusCode)
	}
	for {
		n, readErr := res.Body.Read(buffer[:])
		watch.progressed(n)
		if lost := watch.lost(); lost != nil {
			if !began {
				return false, lost
			}
			return true, cutOff(w, cut, lost)
		}
		if n > 0 {
			piece, bound := cut.piece(buffer[:n], budget.bytes(int64(n)))
			if bound != nil && !began && len(piece) == 0 {
				return false, bound
			}
			begin()
			if _, err := w.Write(piece); err != nil {
				return true, aborted(err)
			}
			if bound != nil {
				return true, cutOff(w, cut, bound)
			}
			flush(w)
		}
		switch {
		case readErr == nil:
		case errors.Is(readErr, io.EOF):
			begin()
			return true, nil
		default:
			cause := r.failure(watch.ctx, watch.backends[0], readErr)
			if !began {
				return false, cause
			}
			return true, cutOff(w, cut, cause)
		}
	}
}

func aborted(err error) error { return fmt.Errorf("%w: %w", ErrAborted, err) }

// cutOff ends an answer that has begun and can't be finished: with a document that
// says so where there is a place for one, otherwise by breaking the connection.
func cutOff(w Reply, cut *cutter, cause error) error {
	doc := cut.document(cause.Error())
	if doc == nil {
		return aborted(cause)
	}
	if _, err := w.Write(doc); err != nil {
		return aborted(err)
	}
	return nil
}
