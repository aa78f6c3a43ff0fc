package query

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/result"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/statement"
	"ringmaster/pkg/topology"
)

// outcome is what one backend made of a statement that all of them got.
type outcome struct {
	backend string
	results []*result.Result
	said    string // the failure of the statement, in its words
	err     error  // it could not be asked, or has not answered
}

// create runs a statement on every backend of every circle.
func (x *execution) create(ctx context.Context, id int, s *statement.Statement) error {
	pass, err := x.r.o.Session.BeginRead()
	if err != nil {
		return notServing(err)
	}
	defer pass.End()
	return x.everywhere(ctx, pass.View(), id, s)
}

// notServing is the answer while this process must not serve.
func notServing(err error) error { return &RefusalError{http.StatusServiceUnavailable, err.Error()} }

// drop runs a statement that takes something away, when nothing is in the way that
// could bring it back: open moves, writes that wait for a backend, a backend that
// can't be asked.
func (x *execution) drop(ctx context.Context, id int, s *statement.Statement) error {
	pass, err := x.r.o.Session.BeginRead()
	if err != nil {
		return notServing(err)
	}
	defer func() { pass.End() }()
	if err := x.inTheWay(pass.View()); err != nil {
		return err
	}
	if x.r.o.Quiescer != nil {
		resume, err := x.r.o.Quiescer.Quiesce(ctx, s.Database)
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return &saidError{"nothing was done: writes of the database could not be stopped: " + err.Error()}
		}
		defer resume()
		// What has happened meanwhile counts.
		now, err := x.r.o.Session.BeginRead()
		if err != nil {
			return notServing(err)
		}
		pass.End()
		pass = now
		if err := x.inTheWay(pass.View()); err != nil {
			return err
		}
	}
	return x.everywhere(ctx, pass.View(), id, s)
}

// inTheWay refuses while something stands in the way of a statement that takes
// something away on every backend.
func (x *execution) inTheWay(v *serving.View) error {
	obstacles := v.Obstacles()
	for _, b := range v.Backends() {
		if !x.r.o.Health.Active(b.URL) {
			obstacles = append(obstacles, "backend "+b.URL+" does not answer")
		}
	}
	if len(obstacles) == 0 {
		return nil
	}
	return &saidError{"refused, since it could not be done everywhere: " + strings.Join(obstacles, "; ") + "; nothing was done, try again when this is over"}
}

// everywhere runs a statement on every backend, and answers as one of them if they
// agree.
func (x *execution) everywhere(ctx context.Context, v *serving.View, id int, s *statement.Statement) error {
	text, original, err := s.Everywhere()
	if err != nil {
		return words(err)
	}
	backends := v.Backends()
	if len(backends) == 0 {
		return notServing(errors.New("there are no backends"))
	}
	x.changed = true
	outcomes := make([]outcome, len(backends))
	var asking sync.WaitGroup
	slots := make(chan struct{}, maxAsking)
	for i := range backends {
		asking.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			outcomes[i] = x.tell(ctx, &backends[i], text, original)
		})
	}
	asking.Wait()
	if ctx.Err() != nil {
		if _, bound := errors.AsType[*boundError](context.Cause(ctx)); !bound {
			return context.Cause(ctx)
		}
	}
	if err := agreement(outcomes); err != nil {
		return err
	}
	write := x.writeAs(id, s)
	for _, r := range outcomes[0].results {
		if err := write(r); err != nil {
			return err
		}
	}
	return nil
}

// tell runs a statement on one backend.
func (x *execution) tell(ctx context.Context, b *topology.Backend, text string, original bool) outcome {
	out := outcome{backend: b.URL}
	client, err := x.r.o.Clients.Client(b)
	if err != nil {
		out.err = err
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, x.r.o.Meta)
	defer cancel()
	question := influx.Question{Text: text, Database: x.q.Database, RetentionPolicy: x.q.RetentionPolicy, ReadOnly: x.q.ReadOnly}
	if original {
		question.Params = x.q.Params
	}
	answer, err := client.Ask(ctx, question)
	if err != nil {
		out.err = err
		return out
	}
	defer answer.Close()
	alone := *x // what is counted belongs to this backend
	alone.budget = x.r.newBudget()
	p := &part{x: &alone, watch: &watch{ctx: ctx, backends: []string{b.URL}}, backend: b.URL, answer: answer}
	for {
		r, err := p.plainNext()
		switch {
		case err != nil:
			out.err = err
			return out
		case r == nil:
			return out
		case r.Err != "":
			out.said = r.Err
			return out
		}
		out.results = append(out.results, r)
	}
}

// agreement reports how a statement has gone that every backend got: nil if all have
// done it, their words if all refuse it alike, and otherwise who has done it and who
// has not.
func agreement(outcomes []outcome) error {
	var done, not []string
	said := map[string]bool{}
	for _, o := range outcomes {
		switch {
		case o.err != nil:
			not = append(not, fmt.Sprintf("%s (%v)", o.backend, o.err))
			said[""] = true
		case o.said != "":
			not = append(not, fmt.Sprintf("%s (%s)", o.backend, o.said))
			said[o.said] = true
		default:
			done = append(done, o.backend)
		}
	}
	if len(not) == 0 {
		return nil
	}
	if len(done) == 0 && len(said) == 1 && !said[""] {
		return &saidError{outcomes[0].said}
	}
	if words := refusedByHolders(outcomes); words != "" {
		return &saidError{words}
	}
	slices.Sort(done)
	slices.Sort(not)
	if len(done) == 0 {
		return &saidError{"no backend has done it: " + strings.Join(not, "; ")}
	}
	return &saidError{fmt.Sprintf("not all backends have done it; done: %s; not done: %s; run the statement again when they answer",
		strings.Join(done, ", "), strings.Join(not, "; "))}
}

// conditionOnField ends what a server says of a DELETE or DROP SERIES by the value of
// a field. It says so only where it holds the measurement, and has done nothing then;
// a server that does not hold it has had nothing to do. So one server with all the
// data would have said it too.
const conditionOnField = ": fields not supported in WHERE clause during deletion"

// refusedByHolders is that refusal, if it is the only one; "" otherwise. The number of
// the shard in it is that of one backend.
func refusedByHolders(outcomes []outcome) string {
	words := ""
	for _, o := range outcomes {
		if o.err != nil || o.said != "" && !strings.HasSuffix(o.said, conditionOnField) {
			return ""
		}
		if words == "" {
			words = o.said
		}
	}
	return words
}

// showAll gives what every backend says about itself; one that does not answer is
// named in a message.
func (x *execution) showAll(ctx context.Context, id int, s *statement.Statement) error {
	pass, err := x.r.o.Session.BeginRead()
	if err != nil {
		return notServing(err)
	}
	defer pass.End()
	v := pass.View()
	p := &place{pass: pass, backends: map[string]*topology.Backend{}}
	backends := v.Backends()
	var remarks []result.Message
	for i := range backends {
		b := &backends[i]
		p.backends[b.URL] = b
		if x.r.o.Health.Active(b.URL) && x.r.lessons.of(b.URL) == "" {
			p.circle.Backends = append(p.circle.Backends, b.URL)
			continue
		}
		remarks = append(remarks, result.Message{Level: result.Warning, Text: "backend " + b.URL + " does not answer and is left out"})
	}
	if len(p.circle.Backends) == 0 {
		return notServing(errors.New("no backend answers"))
	}
	plan, err := s.Plan(p.circle)
	if err != nil {
		return words(err)
	}
	asked := *x
	asked.asJSON = true // msgpack lacks some of these values
	parts, closeAll, err := asked.ask(ctx, p, plan.Parts)
	if err != nil {
		return err
	}
	defer closeAll()
	return concatenate(parts, remarks, x.writeAs(id, s))
}
