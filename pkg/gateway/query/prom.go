package query

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"

	"ringmaster/pkg/prom"
	"ringmaster/pkg/statement"
)

// maxPromBytes bounds what is gathered of the answers to a remote read, which has to
// be in memory to be merged.
const maxPromBytes = 256 << 20

// ReadProm answers a Prometheus remote read of a database: h with the body that read
// was decoded from. One that can be about one measurement only is handed to its
// owner as it is; otherwise each owner is asked for what it owns. Errors are as those
// of [Runner.Hand].
func (r *Runner) ReadProm(ctx context.Context, w Reply, h *Handed, read *prom.Read, database string) error {
	if name, ok := read.Measurement(); ok {
		h.Sources = []Source{{database, name}}
		return r.Hand(ctx, w, h)
	}
	if err := r.allowed(database); err != nil {
		return err
	}
	ctx, leave, err := r.running.enter(ctx, Running{Client: h.Client, Text: h.Text, Database: database, Since: r.o.Now().UTC()})
	if err != nil {
		return &UnavailableError{Reasons: []string{err.Error()}}
	}
	defer leave()
	if r.o.Bounds.Time > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.o.Bounds.Time, r.o.Bounds.timeError())
		defer cancel()
	}
	where := search{stale: h.Header.Get(StaleHeader) == staleAllow}
	for n := 1; ; n++ {
		err := r.readProm(ctx, w, h, read, database, where)
		if where.failed(err) && n < tries && ctx.Err() == nil {
			continue
		}
		return err
	}
}

func (r *Runner) readProm(ctx context.Context, w Reply, h *Handed, read *prom.Read, database string, where search) error {
	x := &execution{r: r, q: &Request{Header: h.Header, ReadOnly: true}, budget: r.newBudget()}
	owned := map[string][]string{}
	p, err := r.read(ctx, where, func(ctx context.Context, p *place) (string, error) {
		p.anyFirst()
		var reason string
		var err error
		owned, reason, err = x.matching(ctx, p, read, database)
		return reason, err
	})
	if err != nil {
		return err
	}
	defer p.pass.End()
	if len(owned) == 0 {
		// Nothing matches: any backend says so, or what is wrong.
		owned[p.circle.Backends[0]] = nil
	}
	answers := make([][]byte, 0, len(owned))
	for _, backend := range p.circle.Backends {
		names, asked := owned[backend]
		if !asked {
			continue
		}
		body := h.Body
		if len(names) > 0 {
			body = read.Restrict(names)
		}
		res, answer, err := x.fetch(ctx, p, backend, h, body)
		if err != nil {
			return err
		}
		if res.StatusCode != http.StatusOK {
			relay(w, res, answer)
			return nil
		}
		answers = append(answers, answer)
	}
	merged := answers[0]
	if len(answers) > 1 {
		if merged, err = prom.MergeReads(answers, maxPromBytes); err != nil {
			return err
		}
	}
	p.mark(w.Header())
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.Header().Set("Content-Encoding", "snappy")
	w.WriteHeader(http.StatusOK)
	if _, err := w.Write(merged); err != nil {
		return aborted(err)
	}
	return nil
}

// matching finds the measurements that a remote read is about, by their owners.
func (x *execution) matching(ctx context.Context, p *place, read *prom.Read, database string) (owned map[string][]string, reason string, err error) {
	if len(p.circle.Backends) == 0 {
		return nil, "it has no backends", nil
	}
	asks := make([]statement.Ask, len(p.circle.Backends))
	for i, b := range p.circle.Backends {
		asks[i] = statement.Ask{Backend: b, Text: statement.NamesText(database)}
	}
	if reason := p.fits(asks...); reason != "" {
		return nil, reason, nil
	}
	held, err := x.probe(ctx, p, asks)
	if err != nil {
		return nil, "", err
	}
	owned = map[string][]string{}
	for i, b := range p.circle.Backends {
		for _, name := range held[i] {
			if read.Matches(name) && p.circle.Owner(database, name) == b {
				owned[b] = append(owned[b], name)
			}
		}
	}
	for b := range owned {
		slices.Sort(owned[b])
	}
	return owned, "", nil
}

// fetch asks a backend and reads all of its answer.
func (x *execution) fetch(ctx context.Context, p *place, backend string, h *Handed, body []byte) (*http.Response, []byte, error) {
	watch := x.r.watch(ctx, backend)
	defer watch.stop()
	client, err := x.r.o.Clients.Client(p.backends[backend])
	if err != nil {
		return nil, nil, &brokenError{backend, err}
	}
	f := h.forwarded(body)
	f.Header.Del("Accept-Encoding") // it is to be read here
	res, err := client.Forward(watch.ctx, f)
	if err != nil {
		return nil, nil, x.r.unanswered(watch.ctx, backend, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxPromBytes+1))
	switch {
	case err != nil:
		return nil, nil, x.r.failure(watch.ctx, backend, err)
	case len(answer) > maxPromBytes:
		return nil, nil, &boundError{fmt.Sprintf("the query was ended: its answer has more than %d bytes, which is the limit", maxPromBytes)}
	}
	return res, answer, nil
}

// relay gives an answer of a backend as it is.
func relay(w Reply, res *http.Response, body []byte) {
	h := w.Header()
	for name, values := range res.Header {
		if !slices.Contains(connectionHeaders(), name) {
			h[name] = values
		}
	}
	w.WriteHeader(res.StatusCode)
	_, _ = w.Write(body)
}
