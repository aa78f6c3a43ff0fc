package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/google/uuid"
)

// following are the flags of commands that may stay until an operation has ended.
type following struct {
	Watch bool `help:"Show how it goes until it has ended, and exit as it did." xor:"follow"`
	Wait  bool `help:"Wait until it has ended, print how, and exit as it did." xor:"follow"`
}

// submission are the flags of commands that start an operation.
type submission struct {
	DryRun         bool   `help:"Only plan it."`
	Hold           bool   `help:"Plan it and hold it until it is approved."`
	LimitPoints    *int64 `help:"At most so many points a second." placeholder:"N"`
	LimitBytes     *int64 `help:"At most so many bytes a second." placeholder:"N"`
	Slots          *int   `help:"At most so many tasks at one backend." placeholder:"N"`
	Reason         string `help:"Why, for the audit trail." placeholder:"TEXT"`
	IdempotencyKey string `help:"The same key starts one operation only; made anew when left out." placeholder:"KEY"`
	Yes            bool   `help:"Do not ask."`

	following
}

// startCmd starts an operation of a kind.
type startCmd[M move] struct {
	Move M `embed:""`

	submission
}

// Help are the command's examples.
func (c *startCmd[M]) Help() string {
	var lines []string
	name := c.Move.kind()
	for i, s := range c.Move.samples() {
		more := []string{" --watch", " --hold --reason 'ticket 4711'", " --limit-points 50000 --wait"}[i%3]
		if name == "clear" {
			more = []string{" --watch", " --yes --wait"}[i%2]
		}
		lines = append(lines, "ringctl "+name+" "+s+more)
	}
	return examples(lines...) + `
It prints the operation's id and goes on without you, unless --watch or --wait says otherwise. "ringctl plan ` + name + `"
shows beforehand what it would do.`
}

// Run starts it.
func (c *startCmd[M]) Run(a *app) error {
	parameters, err := c.Move.parameters(a.in)
	if err != nil {
		return err
	}
	if c.Move.kind() == "clear" && !c.Yes && !c.DryRun {
		if err := a.confirm(fmt.Sprintf("This drops points from the backends of circle %v.", parameters["circle_id"])); err != nil {
			return err
		}
	}
	return c.submission.start(a, c.Move.kind(), parameters)
}

// start submits and says what came of it.
func (s *submission) start(a *app, kind string, parameters map[string]any) error {
	limits := map[string]any{}
	put(limits, "points_per_second", s.LimitPoints)
	put(limits, "bytes_per_second", s.LimitBytes)
	put(limits, "slots_per_backend", s.Slots)
	body := map[string]any{"kind": kind, "parameters": parameters}
	if len(limits) > 0 {
		body["limits"] = limits
	}
	if s.DryRun {
		body["dry_run"] = true
	}
	if s.Hold {
		body["hold"] = true
	}
	putText(body, "reason", s.Reason)
	raw, op, err := a.submit(body, s.IdempotencyKey)
	if err != nil {
		return err
	}
	if s.Watch || s.Wait {
		return s.follow(a, op.ID)
	}
	return a.show(raw, func(w io.Writer) error {
		fmt.Fprintf(w, "%s\n", op.ID)
		fmt.Fprintf(w, "%s is %s; follow it with: ringctl ops watch %s\n", op.Kind, op.State, op.ID)
		return nil
	})
}

// submit starts an operation. It may be sent more than once: its key makes the
// server start one only.
func (a *app) submit(body map[string]any, key string) ([]byte, *opView, error) {
	key = cmp.Or(key, "ringctl-"+uuid.NewString())
	got, err := a.client.do(a.ctx, call{method: http.MethodPost, path: "/v1/operations", body: body, key: key})
	if err != nil {
		if _, lost := errors.AsType[*unreachableError](err); lost {
			a.say("ringctl: the request may have been accepted all the same; the same command with --idempotency-key %s starts nothing twice", key)
		}
		return nil, nil, err
	}
	op := &opView{}
	if err := decode(got.body, op); err != nil {
		return nil, nil, err
	}
	if op.ID == "" {
		return nil, nil, errors.New("the server has accepted the request without naming an operation")
	}
	return got.body, op, nil
}

// follow stays with an operation as the flags say.
func (f *following) follow(a *app, id string) error {
	op, err := a.watch(id, watching{quiet: f.Wait})
	if err != nil {
		return err
	}
	if f.Wait {
		raw, op, err := a.operation(one{id})
		if err != nil {
			return err
		}
		if err := a.show(raw, func(w io.Writer) error {
			fmt.Fprintln(w, ending(op))
			return nil
		}); err != nil {
			return err
		}
	}
	return endOf(op.State)
}
