package query

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/influxdata/influxql"

	"ringmaster/pkg/result"
	"ringmaster/pkg/statement"
)

// execution is a request that is run here, statement by statement.
type execution struct {
	r      *Runner
	q      *Request
	out    *output
	answer *result.Writer
	budget *budget
	// changed is set once something may have been changed: then nothing is begun
	// again.
	changed bool
	// asJSON asks the backends for JSON.
	asJSON bool
	// where knows which backends have failed the request before.
	where search
	// executed counts the statements that have been answered.
	executed int
}

// execute runs a request statement by statement. It begins again, elsewhere, when a
// backend breaks before anything was answered.
func (r *Runner) execute(ctx context.Context, w Reply, q *Request, parsed *statement.Request, budget *budget) error {
	if q.Async {
		// Nobody sees what comes of it.
		err := r.attempts(ctx, discarded{http.Header{}}, q, parsed, budget)
		if err == nil || errors.Is(err, ErrAborted) {
			_, contentType := q.options()
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(http.StatusNoContent)
		}
		return nil
	}
	return r.attempts(ctx, w, q, parsed, budget)
}

func (r *Runner) attempts(ctx context.Context, w Reply, q *Request, parsed *statement.Request, budget *budget) error {
	where := search{stale: q.stale()}
	for n := 1; ; n++ {
		x := &execution{r: r, q: q, where: where, out: newOutput(w, q), budget: budget}
		o, _ := q.options()
		x.answer = result.NewWriter(x.out, o)
		err := x.run(ctx, parsed)
		if err == nil {
			return nil
		}
		if where.failed(err) && !x.out.began && !x.changed && n < tries && ctx.Err() == nil {
			continue
		}
		return x.fail(ctx, w, err)
	}
}

// run answers all statements. After one that fails no other is run.
func (x *execution) run(ctx context.Context, parsed *statement.Request) error {
	for i, s := range parsed.Statements {
		err := x.statement(ctx, i, s)
		if err != nil {
			text, ok := sentence(err)
			if !ok {
				return err
			}
			id := i
			if fault, is := errors.AsType[*statement.Fault](err); is && fault.Unnumbered {
				id = 0
			}
			if err := x.answer.Write(&result.Result{StatementID: id, Err: text}); err != nil {
				return err
			}
			// InfluxDB says this as often as there are further statements but one,
			// and each time of the one that has failed.
			for range len(parsed.Statements) - 1 - i {
				if err := x.answer.Write(&result.Result{StatementID: i, Err: result.NotExecuted}); err != nil {
					return err
				}
			}
			break
		}
		x.executed++
	}
	if err := x.answer.Close(); err != nil {
		return err
	}
	return x.out.close()
}

// fail ends a request that can't be finished.
func (x *execution) fail(ctx context.Context, w Reply, err error) error {
	if errors.Is(err, result.ErrTooLarge) && !x.out.began {
		return x.r.answerError(ctx, w, x.q, &boundError{err.Error()})
	}
	if !x.out.began && x.executed == 0 {
		return x.r.answerError(ctx, w, x.q, err)
	}
	if ctx.Err() != nil && !errors.Is(err, errCancelled) || !x.answer.ShowsErrors() {
		return aborted(err)
	}
	failed := x.answer.Write(&result.Result{StatementID: x.executed, Err: err.Error()})
	if failed = errors.Join(failed, x.answer.Close(), x.out.close()); failed != nil {
		return aborted(failed)
	}
	return nil
}

// search is where a statement may be read.
func (x *execution) search(mixed bool) search {
	s := x.where
	s.mixed = mixed
	return s
}

// statement answers one statement.
func (x *execution) statement(ctx context.Context, id int, s *statement.Statement) error {
	if s.Fault != nil {
		return s.Fault
	}
	switch s.Class {
	case statement.Refused:
		return &saidError{s.Refusal}
	case statement.CreateEverywhere:
		return x.create(ctx, id, s)
	case statement.DropEverywhere:
		return x.drop(ctx, id, s)
	case statement.Into:
		return x.into(ctx, id, s)
	case statement.ShowAll:
		return x.showAll(ctx, id, s)
	default:
		return x.readStatement(ctx, s, x.writeAs(id, s))
	}
}

// writeAs numbers the results of a statement and counts their rows. Times are shown in
// the statement's zone, nil for none.
func (x *execution) writeAs(id int, s *statement.Statement) func(*result.Result) error {
	at := zone(s)
	return func(r *result.Result) error {
		r.StatementID, r.Location = id, at
		for i := range r.Series {
			if err := x.budget.rows(len(r.Series[i].Values)); err != nil {
				return err
			}
		}
		return x.answer.Write(r)
	}
}

// discarded is an answer that nobody gets.
type discarded struct{ header http.Header }

func (d discarded) Header() http.Header         { return d.header }
func (d discarded) WriteHeader(int)             {}
func (d discarded) Write(p []byte) (int, error) { return io.Discard.Write(p) }

// readStatement reads what a statement asks for and gives it to write.
func (x *execution) readStatement(ctx context.Context, s *statement.Statement, write func(*result.Result) error) error {
	p, plan, err := x.plan(ctx, s)
	if err != nil {
		return err
	}
	defer p.pass.End()
	if !x.out.began {
		p.mark(x.out.w.Header())
	}
	return x.answerPlan(ctx, p, s, plan, write)
}

// plan finds a place that a statement can be read at, and how.
func (x *execution) plan(ctx context.Context, s *statement.Statement) (*place, *statement.Plan, error) {
	var plan *statement.Plan
	p, err := x.r.read(ctx, x.search(named(s)), func(ctx context.Context, p *place) (string, error) {
		plan = nil
		if len(p.circle.Backends) == 0 {
			return "it has no backends", nil
		}
		if s.Class == statement.ShowOne || s.Class == statement.Read {
			p.anyFirst()
		}
		if reason, err := x.list(ctx, p, s); reason != "" || err != nil {
			return reason, err
		}
		made, err := s.Plan(p.circle)
		if err != nil {
			return "", words(err)
		}
		if reason := p.fits(append(made.Probes, made.Parts...)...); reason != "" {
			return reason, nil
		}
		if len(made.Probes) > 0 {
			answers, err := x.probe(ctx, p, made.Probes)
			if err != nil {
				return "", err
			}
			if err := made.Resolve(answers); err != nil {
				return "", words(err)
			}
			if reason := p.fits(made.Parts...); reason != "" {
				return reason, nil
			}
		}
		plan = made
		return "", nil
	})
	return p, plan, err
}

// words makes what a plan refuses the answer to the statement.
func words(err error) error {
	if _, known := sentence(err); known {
		return err
	}
	return &saidError{err.Error()}
}

// list fetches the names of measurements that a plan has to know.
func (x *execution) list(ctx context.Context, p *place, s *statement.Statement) (reason string, err error) {
	lists := s.Lists()
	if len(lists) == 0 {
		return "", nil
	}
	var asks []statement.Ask
	for _, b := range p.circle.Backends {
		for _, db := range lists {
			asks = append(asks, statement.Ask{Backend: b, Text: statement.NamesText(db)})
		}
	}
	if reason := p.fits(asks...); reason != "" {
		return reason, nil
	}
	answers, err := x.probe(ctx, p, asks)
	if err != nil {
		return "", err
	}
	names := map[[2]string][]string{}
	for i, ask := range asks {
		names[[2]string{ask.Backend, lists[i%len(lists)]}] = answers[i]
	}
	p.circle.Measurements = func(backend, db string) []string { return names[[2]string{backend, db}] }
	return "", nil
}

// zone is the zone that a statement shows times in; nil is UTC.
func zone(s *statement.Statement) *time.Location {
	if s == nil {
		return nil
	}
	if ast, ok := s.AST.(*influxql.SelectStatement); ok {
		return ast.Location
	}
	return nil
}
