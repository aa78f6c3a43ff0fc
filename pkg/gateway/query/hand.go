package query

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"ringmaster/pkg/influx"
)

// Source is a measurement of a database; the name is "" for any of them.
type Source struct{ Database, Measurement string }

// Handed is a request that is handed to one backend as it is.
type Handed struct {
	Method, Path, Query string
	Header              http.Header
	Body                []byte
	// Sources are what it reads. Without any, any backend will do.
	Sources []Source
	// Client and Text are for [Runner.Running].
	Client, Text string
}

// SpansError is a request that can only be handed to one backend and reads what
// several own.
type SpansError struct{ Reason string }

func (e *SpansError) Error() string { return e.Reason }

// Hand hands a request to the backend that owns all of its sources, and its answer
// to the client as it comes. An error leaves the answer to the caller, unless it
// wraps [ErrAborted]: a *[RefusalError], a *[SpansError], an *[UnavailableError], or
// what has ended the request.
func (r *Runner) Hand(ctx context.Context, w Reply, h *Handed) error {
	for _, s := range h.Sources {
		if err := r.allowed(s.Database); err != nil {
			return err
		}
	}
	ctx, leave, err := r.running.enter(ctx, Running{Client: h.Client, Text: h.Text, Since: r.o.Now().UTC()})
	if err != nil {
		return &UnavailableError{Reasons: []string{err.Error()}}
	}
	defer leave()
	budget := r.newBudget()
	if r.o.Bounds.Time > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.o.Bounds.Time, r.o.Bounds.timeError())
		defer cancel()
	}
	where := search{stale: h.Header.Get(StaleHeader) == staleAllow, mixed: h.named()}
	for n := 1; ; n++ {
		var backend string
		p, err := r.read(ctx, where, func(_ context.Context, p *place) (string, error) {
			var reason string
			var err error
			backend, reason, err = p.holder(h.Sources)
			return reason, err
		})
		if err != nil {
			return err
		}
		began, err := r.forward(ctx, w, p, backend, h.forwarded(h.Body), nil, budget)
		p.pass.End()
		if where.failed(err) && !began && n < tries && ctx.Err() == nil {
			continue
		}
		return err
	}
}

// forwarded makes the request for a backend.
func (h *Handed) forwarded(body []byte) influx.Forwarded {
	f := influx.Forwarded{Method: h.Method, Path: h.Path, Query: h.Query, Header: forwardedHeader(h.Header), Length: int64(len(body))}
	for _, name := range []string{"Content-Type", "Content-Encoding"} {
		if values := h.Header.Values(name); len(values) > 0 {
			f.Header[name] = slices.Clone(values)
		}
	}
	if body != nil {
		f.Body = bytes.NewReader(body)
	}
	return f
}

// named reports whether all sources are known, so that each can be read in a circle
// of its own.
func (h *Handed) named() bool {
	return !slices.ContainsFunc(h.Sources, func(s Source) bool { return s.Measurement == "" })
}

// holder is the backend that owns all sources.
func (p *place) holder(sources []Source) (backend, reason string, err error) {
	if len(p.circle.Backends) == 0 {
		return "", "it has no backends", nil
	}
	p.anyFirst()
	owners := map[string]string{}
	for _, s := range sources {
		if s.Measurement != "" {
			owners[p.circle.Owner(s.Database, s.Measurement)] = s.Measurement
			continue
		}
		if len(p.circle.Backends) > 1 {
			return "", "", &SpansError{fmt.Sprintf("which measurements of %q it reads can't be told from it, and they are on %d backends: "+
				"name each by a filter of its own, such as filter(fn: (r) => r._measurement == \"cpu\")", s.Database, len(p.circle.Backends))}
		}
		owners[p.circle.Backends[0]] = s.Database
	}
	if len(owners) > 1 {
		var each []string
		for owner, measurement := range owners {
			each = append(each, fmt.Sprintf("%q on %s", measurement, owner))
		}
		slices.Sort(each)
		return "", "", &SpansError{"it reads measurements of several backends, which only one can be asked for: " + strings.Join(each, ", ")}
	}
	backend = p.circle.Backends[0]
	for owner := range owners {
		backend = owner
	}
	if why, bad := p.unfit[backend]; bad {
		return "", fmt.Sprintf("backend %s %s", backend, why), nil
	}
	return backend, "", nil
}
