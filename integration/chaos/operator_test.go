package chaos_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"syscall"
	"time"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// operator asks for operations and changes its mind about them.
type operator struct {
	site *site
	dice *rand.Rand
	// third says that the third backend of the first circle is configured.
	third bool
	ids   []string
}

// callTimeout bounds what the operator asks of a gateway, which may be in trouble.
const callTimeout = 10 * time.Second

// client is one of the gateways.
func (o *operator) client() harness.Client {
	return o.site.gateways[o.dice.IntN(len(o.site.gateways))].cluster.Client
}

// act does one thing. That it is refused is no mistake.
func (o *operator) act() {
	switch o.dice.IntN(8) {
	case 0, 1, 2:
		kind, parameters := o.request()
		request := map[string]any{"kind": kind, "parameters": parameters}
		switch o.dice.IntN(10) {
		case 0:
			request["dry_run"] = true
		case 1, 2, 3:
			request["hold"] = true
		}
		if o.dice.IntN(2) == 0 { // so that it lasts long enough to meet something
			request["limits"] = map[string]any{"points_per_second": 1000 + o.dice.IntN(4000)}
		}
		o.submitRequest(request)
	case 3:
		if len(o.open()) == 0 {
			o.reconfigure(!o.third)
			o.submit(o.rebalance())
		}
	default:
		if len(o.ids) == 0 {
			return
		}
		id := o.ids[max(0, len(o.ids)-1-o.dice.IntN(2))]
		verb := []string{"pause", "pause", "resume", "resume", "cancel", "retry", "approve", "approve"}[o.dice.IntN(8)]
		o.tell(id, verb)
	}
}

func (o *operator) request() (operation.Kind, map[string]any) {
	circle := o.dice.IntN(2)
	switch o.dice.IntN(8) {
	case 6, 7:
		p := map[string]any{"circle_id": circle, "depth": []string{"count", "digest"}[o.dice.IntN(2)]}
		if o.dice.IntN(2) == 0 {
			p["against_circle_id"] = 1 - circle
			if o.dice.IntN(2) == 0 {
				p["repair"], p["repair_from"] = true, []string{"circle", "against"}[o.dice.IntN(2)]
			}
		}
		return operation.KindVerify, p
	case 0:
		return operation.KindRecovery, map[string]any{"from_circle_id": circle, "to_circle_id": 1 - circle}
	case 1:
		return operation.KindResync, map[string]any{}
	case 2, 3:
		return operation.KindClear, map[string]any{"circle_id": circle}
	default:
		return o.rebalance()
	}
}

// rebalance is the one that the configuration asks for.
func (o *operator) rebalance() (operation.Kind, map[string]any) {
	p := map[string]any{"circle_id": 0, "operation": operation.RebalanceAdd}
	if !o.third {
		b := o.site.backends[2]
		p["operation"] = operation.RebalanceRemove
		p["removed_backends"] = []harness.Backend{{Name: "gone", URL: b.proxy.URL()}}
	}
	return operation.KindRebalance, p
}

func (o *operator) submit(kind operation.Kind, parameters map[string]any) {
	o.submitRequest(map[string]any{"kind": kind, "parameters": parameters})
}

func (o *operator) submitRequest(request map[string]any) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	op, err := o.client().SubmitRequest(ctx, request)
	o.site.t.Logf("%v: %s %v", request, op.ID, short(err))
	if err == nil {
		o.ids = append(o.ids, op.ID)
	}
}

func (o *operator) tell(id, verb string) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	res, _, err := o.client().Do(ctx, http.MethodPost, "/v1/operations/"+id+"/"+verb, nil, []byte(`{"reason":"chaos"}`))
	switch {
	case err != nil:
		o.site.t.Logf("%s %s: %v", verb, id, short(err))
	default:
		o.site.t.Logf("%s %s: %s", verb, id, res.Status)
		if res.StatusCode >= http.StatusInternalServerError && res.StatusCode != http.StatusServiceUnavailable {
			o.site.witness.report("%s of %s was answered %s", verb, id, res.Status)
		}
	}
}

func short(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	return text[:min(len(text), 200)]
}

// reconfigure changes the first circle.
func (o *operator) reconfigure(third bool) {
	o.third = third
	o.site.t.Logf("the first circle has its third backend: %v", third)
	for _, g := range o.site.gateways {
		if err := g.cluster.WriteCircles(o.site.circles(third)...); err != nil {
			o.site.witness.report("%v", err)
		}
		if p := g.running(); p != nil {
			_ = p.Signal(syscall.SIGHUP) // it reads its file when it starts again
		}
	}
}

// change changes the first circle and waits until everything has moved.
func (o *operator) change(third bool) {
	o.reconfigure(third)
	want := 2
	if third {
		want = 3
	}
	o.site.eventually(time.Minute, "the change of the circle is known", func() error {
		backends, step, err := o.circle()
		if err == nil && backends != want {
			err = fmt.Errorf("it has %d backends and is at step %q", backends, step)
		}
		return err
	})
	o.succeed(o.rebalance())
	o.site.eventually(time.Minute, "the change of the circle is over", func() error {
		_, step, err := o.circle()
		if err == nil && step != "" {
			err = fmt.Errorf("it is at step %q", step)
		}
		return err
	})
}

// circle asks how many backends the first circle has, and for the step at which its
// transition is.
func (o *operator) circle() (backends int, step string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	var shown struct {
		Circles []struct {
			Transition *struct{ Step string }
			Backends   []struct{ URL string }
		}
	}
	if err := o.client().Get(ctx, "/v1/topology", &shown); err != nil {
		return 0, "", err
	}
	if len(shown.Circles) == 0 {
		return 0, "", fmt.Errorf("there are no circles")
	}
	if t := shown.Circles[0].Transition; t != nil {
		step = t.Step
	}
	return len(shown.Circles[0].Backends), step, nil
}

// open are the operations that have not ended, as far as that can be asked.
func (o *operator) open() (all []operation.Operation) {
	for _, id := range o.ids {
		if op, err := o.read(id); err != nil || !op.State.Terminal() {
			op.ID = id
			all = append(all, op)
		}
	}
	return all
}

func (o *operator) read(id string) (operation.Operation, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return o.client().Operation(ctx, id)
}

// mostStill is how long an operation may show no progress while nothing is wrong.
const mostStill = 90 * time.Second

// progresses requires, while nothing is wrong, of every operation that it ends, is
// paused, or moves.
func (o *operator) progresses() {
	for _, before := range o.open() {
		o.site.eventually(mostStill, "operation "+before.ID+" goes on", func() error {
			now, err := o.read(before.ID)
			switch {
			case err != nil:
				return err
			case now.State.Terminal(), now.State == operation.Paused, now.State == operation.AwaitingApproval, before.State != now.State, mark(now) != mark(before):
				return nil
			}
			return fmt.Errorf("it is %s, as before: %s", now.State, mark(now))
		})
	}
}

// mark is what shows that an operation moves.
func mark(op operation.Operation) string {
	raw, err := json.Marshal([]any{op.State, op.Progress.Points, op.Progress.Tasks, op.Progress.Measurements, op.Round, op.Attempt})
	return fmt.Sprintf("%s %v", raw, err)
}

// finish has every operation end.
func (o *operator) finish() {
	for _, id := range o.ids {
		o.site.eventually(3*time.Minute, "operation "+id+" ends", func() error {
			op, err := o.read(id)
			if err != nil {
				return err
			}
			switch op.State {
			case operation.Paused:
				o.tell(id, "resume")
			case operation.AwaitingApproval:
				o.tell(id, "approve")
			default:
			}
			if !op.State.Terminal() {
				raw, _ := json.Marshal(op)
				return fmt.Errorf("it is %s: %s", op.State, raw)
			}
			return nil
		})
	}
}

// succeed repeats an operation until it has succeeded.
func (o *operator) succeed(kind operation.Kind, parameters map[string]any) {
	last := ""
	o.site.eventually(4*time.Minute, string(kind)+" succeeds at last", func() error {
		if last == "" || slices.Index(o.ids, last) < 0 {
			before := len(o.ids)
			o.submit(kind, parameters)
			if len(o.ids) == before {
				rest(context.Background(), time.Second)
				return fmt.Errorf("it is not accepted")
			}
			last = o.ids[before]
		}
		op, err := o.read(last)
		if err != nil {
			return err
		}
		if op.State.Terminal() && op.State != operation.Succeeded {
			last = ""
			rest(context.Background(), time.Second)
			return fmt.Errorf("it is %s: %s", op.State, op.Error.Detail)
		}
		if op.State != operation.Succeeded {
			return fmt.Errorf("it is %s", op.State)
		}
		return nil
	})
}
