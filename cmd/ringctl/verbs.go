package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"ringmaster/pkg/operation"
)

// lapse is a duration flag that is not negative.
type lapse struct{ time.Duration }

// UnmarshalText reads it.
func (l *lapse) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	if err != nil || d < 0 {
		return fmt.Errorf("%q is not a duration such as 10s or 5m", text)
	}
	l.Duration = d
	return nil
}

// why is the reason that the audit trail keeps.
type why struct {
	Reason string `help:"Why, for the audit trail." placeholder:"TEXT"`
}

// steer asks something of an operation and returns it as it is then.
func (a *app) steer(o one, verb, reason string) ([]byte, *opView, error) {
	r := call{method: http.MethodPost, path: o.path(verb)}
	if reason != "" {
		r.body = map[string]string{"reason": reason}
	}
	got, err := a.client.do(a.ctx, r)
	if err != nil {
		return nil, nil, err
	}
	op := &opView{}
	return got.body, op, decode(got.body, op)
}

// showState says how an operation stands after it was steered.
func (a *app) showState(raw []byte, op *opView, remark string) error {
	return a.show(raw, func(w io.Writer) error {
		fmt.Fprintf(w, "%s is %s%s\n", op.ID, op.stateText(), remark)
		return nil
	})
}

// until waits, when asked to, for the state that was asked for, and then tells by the
// exit code how an operation has ended.
func (a *app) until(raw []byte, op *opView, wait bool, there func(*opView) bool, remark string) error {
	if wait && !there(op) {
		var err error
		if op, err = a.watch(op.ID, watching{quiet: true, until: there}); err != nil {
			return err
		}
		if raw, op, err = a.operation(one{op.ID}); err != nil {
			return err
		}
		if !there(op) {
			return &exitError{exitFailed, fmt.Sprintf("%s is %s", op.ID, op.stateText())}
		}
	}
	if there(op) {
		remark = ""
	}
	if err := a.showState(raw, op, remark); err != nil || !wait {
		return err
	}
	return endOf(op.State)
}

// opsPauseCmd pauses an operation.
type opsPauseCmd struct {
	one
	why
	Wait bool `help:"Wait until it has stopped."`
}

// Help are the command's examples.
func (*opsPauseCmd) Help() string {
	return examples("ringctl ops pause "+sampleID, "ringctl ops pause "+sampleID+" --reason 'peak hour' --wait") + `
A paused operation keeps what it has done and the circles it holds, and survives restarts.`
}

// Run pauses it.
func (c *opsPauseCmd) Run(a *app) error {
	raw, op, err := a.steer(c.one, "pause", c.Reason)
	if err != nil {
		return err
	}
	paused := func(op *opView) bool { return op.State == operation.Paused }
	return a.until(raw, op, c.Wait, paused, "; it is going to be paused")
}

// opsResumeCmd resumes an operation.
type opsResumeCmd struct {
	one
	why
	following
}

// Help are the command's examples.
func (*opsResumeCmd) Help() string {
	return examples("ringctl ops resume "+sampleID, "ringctl ops resume "+sampleID+" --watch")
}

// Run resumes it.
func (c *opsResumeCmd) Run(a *app) error { return a.goOn(c.one, "resume", c.why, c.following) }

// goOn lets an operation go on, and stays with it if asked to.
func (a *app) goOn(o one, verb string, w why, f following) error {
	raw, op, err := a.steer(o, verb, w.Reason)
	if err != nil {
		return err
	}
	if f.Watch || f.Wait {
		return f.follow(a, op.ID)
	}
	return a.showState(raw, op, "; follow it with: ringctl ops watch "+op.ID)
}

// opsApproveCmd approves an operation.
type opsApproveCmd struct {
	one
	why
	following
}

// Help are the command's examples.
func (*opsApproveCmd) Help() string {
	return examples("ringctl ops plan "+sampleID, "ringctl ops approve "+sampleID+" --reason 'plan reviewed' --watch") + `
Exactly what was planned is carried out. It is refused when the circles or what they hold have changed since.`
}

// Run approves it.
func (c *opsApproveCmd) Run(a *app) error { return a.goOn(c.one, "approve", c.why, c.following) }

// opsRetryCmd retries an operation.
type opsRetryCmd struct {
	one
	why
	following
}

// Help are the command's examples.
func (*opsRetryCmd) Help() string {
	return examples("ringctl ops retry "+sampleID, "ringctl ops retry "+sampleID+" --reason 'the disk has space again' --wait") + `
It keeps its id and does only what is not done.`
}

// Run retries it.
func (c *opsRetryCmd) Run(a *app) error { return a.goOn(c.one, "retry", c.why, c.following) }

// opsCancelCmd cancels an operation.
type opsCancelCmd struct {
	one
	why
	Wait bool `help:"Wait until it has ended."`
}

// Help are the command's examples.
func (*opsCancelCmd) Help() string {
	return examples("ringctl ops cancel "+sampleID, "ringctl ops cancel "+sampleID+" --reason 'wrong circle' --wait") + `
What was copied stays where it is; "ringctl ops report" says what is where. "ringctl ops retry" takes it up again. With
--wait the exit code tells how it has ended: 5 cancelled, or as it ended before that.`
}

// Run cancels it.
func (c *opsCancelCmd) Run(a *app) error {
	raw, op, err := a.steer(c.one, "cancel", c.Reason)
	if err != nil {
		return err
	}
	ended := func(op *opView) bool { return op.State.Terminal() }
	return a.until(raw, op, c.Wait, ended, "; it ends as soon as nobody works for it any more")
}

// opsLimitsCmd shows or changes limits.
type opsLimitsCmd struct {
	one
	why
	Points *limitValue `help:"Points a second, all workers together; none lifts it." placeholder:"N|none"`
	Bytes  *limitValue `help:"Bytes a second, all workers together; none lifts it." placeholder:"N|none"`
	Slots  *limitValue `help:"Tasks at one backend; none lifts it." placeholder:"N|none"`
}

// Help are the command's examples.
func (*opsLimitsCmd) Help() string {
	return examples(
		"ringctl ops limits "+sampleID,
		"ringctl ops limits "+sampleID+" --points 50000 --reason 'peak hour'",
		"ringctl ops limits "+sampleID+" --points none --bytes none --slots 2",
	) + `
What is not named stays as it is. A change takes effect at once in every worker.`
}

// limitValue is a limit, or its absence.
type limitValue struct{ n *int64 }

// UnmarshalText reads a number or none.
func (l *limitValue) UnmarshalText(text []byte) error {
	if string(text) == "none" {
		l.n = nil
		return nil
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || n <= 0 {
		return fmt.Errorf("%q is neither a number above 0 nor none", text)
	}
	l.n = &n
	return nil
}

// MarshalJSON writes null for none.
func (l limitValue) MarshalJSON() ([]byte, error) { return json.Marshal(l.n) }

// Run shows or changes them.
func (c *opsLimitsCmd) Run(a *app) error {
	body := map[string]any{}
	put(body, "points_per_second", c.Points)
	put(body, "bytes_per_second", c.Bytes)
	put(body, "slots_per_backend", c.Slots)
	if len(body) == 0 {
		_, op, err := a.operation(c.one)
		if err != nil {
			return err
		}
		return a.showLimits(op)
	}
	putText(body, "reason", c.Reason)
	got, err := a.client.do(a.ctx, call{method: http.MethodPatch, path: c.path("limits"), body: body})
	if err != nil {
		return err
	}
	op := &opView{}
	if err := decode(got.body, op); err != nil {
		return err
	}
	return a.showLimits(op)
}

func (a *app) showLimits(op *opView) error {
	return a.showValue(op.Limits, func(w io.Writer) error {
		row(w, "POINTS/S", "BYTES/S", "SLOTS A BACKEND")
		l := op.Limits
		row(w, bound(l.PointsPerSecond), bound(l.BytesPerSecond), bound(l.SlotsPerBackend))
		return nil
	})
}

// opsAuditCmd shows the audit trail.
type opsAuditCmd struct{ one }

// Help are the command's examples.
func (*opsAuditCmd) Help() string {
	return examples("ringctl ops audit "+sampleID, "ringctl ops audit "+sampleID+" -o json")
}

// Run shows it.
func (c *opsAuditCmd) Run(a *app) error {
	raw, err := a.client.get(a.ctx, c.path("audit"), nil)
	if err != nil {
		return err
	}
	var trail struct {
		Items []operation.AuditEntry `json:"items"`
	}
	if err := decode(raw, &trail); err != nil {
		return err
	}
	return a.show(raw, func(w io.Writer) error {
		row(w, "AT", "ACTION", "WHO", "FROM", "REASON", "CHANGE")
		for _, e := range trail.Items {
			row(w, clock(&e.At), e.Action, e.Who, e.Origin, e.Reason, e.Change)
		}
		return nil
	})
}
