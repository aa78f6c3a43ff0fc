package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"ringmaster/pkg/operation"
)

// planCmd plans operations without doing them.
type planCmd struct {
	Rebalance planKindCmd[rebalance]  `cmd:"" help:"Plan a rebalance."`
	Recovery  planKindCmd[recovery]   `cmd:"" help:"Plan a recovery."`
	Resync    planKindCmd[resync]     `cmd:"" help:"Plan a resync."`
	Clear     planKindCmd[clearMove]  `cmd:"" help:"Plan a clear."`
	Verify    planKindCmd[verifyMove] `cmd:"" help:"Plan a verify."`
}

// Help are the command's examples.
func (*planCmd) Help() string {
	return examples(
		"ringctl plan rebalance --circle-id 0 --operation add",
		"ringctl plan clear --circle-id 0 -o yaml",
	) + `
The plan of an operation that exists, such as one that is held, is shown by "ringctl ops plan ID".`
}

// planKindCmd plans an operation of a kind.
type planKindCmd[M move] struct {
	Move M `embed:""`

	LimitPoints *int64 `help:"Plan for at most so many points a second." placeholder:"N"`
	LimitBytes  *int64 `help:"Plan for at most so many bytes a second." placeholder:"N"`
	Slots       *int   `help:"Plan for at most so many tasks at one backend." placeholder:"N"`
	Reason      string `help:"Why, for the audit trail." placeholder:"TEXT"`
}

// Help are the command's examples.
func (c *planKindCmd[M]) Help() string {
	var lines []string
	for _, s := range c.Move.samples() {
		lines = append(lines, "ringctl plan "+c.Move.kind()+" "+s)
	}
	return examples(lines...) + `
It is a dry run: nothing is written or dropped, and no circle is taken. Exit code 0 when it has been planned, 4 when that
failed.`
}

// Run plans it and shows the plan.
func (c *planKindCmd[M]) Run(a *app) error {
	parameters, err := c.Move.parameters(a.in)
	if err != nil {
		return err
	}
	body := map[string]any{"kind": c.Move.kind(), "parameters": parameters, "dry_run": true}
	putText(body, "reason", c.Reason)
	limits := map[string]any{}
	put(limits, "points_per_second", c.LimitPoints)
	put(limits, "bytes_per_second", c.LimitBytes)
	put(limits, "slots_per_backend", c.Slots)
	if len(limits) > 0 {
		body["limits"] = limits
	}
	_, op, err := a.submit(body, "")
	if err != nil {
		return err
	}
	op, err = a.watch(op.ID, watching{quiet: true})
	if err != nil {
		return err
	}
	if op.Error != nil {
		a.say("ringctl: it cannot be planned: %s", op.Error.Detail)
	}
	if err := endOf(op.State); err != nil {
		return err
	}
	return a.showPlan(op)
}

// showPlan shows the plan of an operation, which may have nothing to do.
func (a *app) showPlan(op *opView) error {
	raw, err := a.client.get(a.ctx, "/v1/operations/"+op.ID+"/plan", nil)
	if p, ok := errors.AsType[*problemError](err); ok && p.Status == http.StatusNotFound && op.Result != nil {
		return a.showValue(map[string]any{"operation_id": op.ID, "note": op.Result.Note}, func(w io.Writer) error {
			fmt.Fprintln(w, op.Result.Note)
			return nil
		})
	}
	if err != nil {
		return err
	}
	var p planView
	if err := decode(raw, &p); err != nil {
		return err
	}
	return a.show(raw, func(w io.Writer) error {
		p.table(w, op)
		return nil
	})
}

// name is a backend of the plan.
func (p *planView) name(i int) string {
	if i < 0 || i >= len(p.Backends) {
		return fmt.Sprintf("backend %d", i)
	}
	b := &p.Backends[i]
	if b.Removed {
		return b.Name + " (removed)"
	}
	return b.Name
}

func (p *planView) table(w io.Writer, op *opView) {
	t := &p.Totals
	fmt.Fprintf(w, "operation %s: %s, %s\n", op.ID, op.Kind, op.State)
	source := ""
	if p.EstimateSource != "" {
		source = ", " + p.EstimateSource
	}
	fmt.Fprintf(w, "moves about %s points, %s (estimated%s): %d measurements of %d databases in %d slices, %d tasks\n",
		amount(t.Points), size(t.Bytes), source, t.Measurements, t.Databases, t.Slices, t.Tasks)
	if d := p.Duration; d != nil {
		fmt.Fprintf(w, "takes %s to %s", seconds(d.LowSeconds), seconds(d.HighSeconds))
		if d.Basis != "" {
			fmt.Fprintf(w, " (%s)", d.Basis)
		}
		fmt.Fprintln(w)
	}
	if op.Result != nil && op.Result.Note != "" {
		fmt.Fprintln(w, op.Result.Note)
	}
	if len(p.Moves) > 0 {
		title(w, "MOVES")
		row(w, "FROM", "TO", "MEASUREMENTS", "SLICES", "POINTS", "BYTES")
		for _, m := range p.Moves {
			row(w, p.name(m.From), p.name(m.To), m.Measurements, m.Slices, amount(m.Points), size(m.Bytes))
		}
	}
	p.balanceTable(w)
	if movers := p.movers(); len(movers) > 0 {
		title(w, "TOP MOVERS")
		row(w, "DATABASE", "MEASUREMENT", "FROM", "TO", "POINTS", "BYTES")
		for _, m := range movers {
			row(w, m.Database, m.Measurement, m.From, m.To, amount(m.Points), size(m.Bytes))
		}
	}
	if len(p.Refusals) > 0 {
		title(w, "REFUSED")
		row(w, "CODE", "WHERE", "WHY", "REMEDY")
		for _, r := range p.Refusals {
			row(w, r.Code, r.where(), r.Detail, r.Hint)
		}
	}
	if len(p.Notes) > 0 {
		title(w, "NOTES")
		for _, n := range p.Notes {
			fmt.Fprintf(w, "- %s\n", cell(n))
		}
	}
}

func (p *planView) balanceTable(w io.Writer) {
	if len(p.Balance) == 0 {
		return
	}
	title(w, "BALANCE")
	row(w, "BACKEND", "MEASUREMENTS BEFORE", "AFTER", "POINTS BEFORE", "AFTER", "BYTES BEFORE", "AFTER")
	for _, b := range p.Balance {
		row(w, b.Backend, b.Before.Measurements, b.After.Measurements, amount(b.Before.Points), amount(b.After.Points),
			size(b.Before.Bytes), size(b.After.Bytes))
	}
	if p.Skew != nil {
		fmt.Fprintf(w, "skew %.2f before, %.2f after\n", p.Skew.Before, p.Skew.After)
	}
}

func (r *refusalView) where() string {
	switch {
	case r.Backend != "" && r.Scope != "":
		return r.Scope + " " + r.Backend
	case r.Backend != "":
		return r.Backend
	case r.Scope != "":
		return r.Scope
	case len(r.Slice) > 0 && string(r.Slice) != "null":
		var s struct {
			Database    string `json:"database"`
			Measurement string `json:"measurement"`
		}
		if decode(r.Slice, &s) == nil {
			return s.Database + " " + s.Measurement
		}
	}
	return ""
}

// maxMovers bounds the measurements that are shown.
const maxMovers = 10

// movers are the measurements with most to move.
func (p *planView) movers() []moverView {
	if len(p.TopMovers) > 0 {
		return p.TopMovers[:min(len(p.TopMovers), maxMovers)]
	}
	all := slices.Clone(p.Measurements)
	slices.SortStableFunc(all, func(x, y operation.PlanMeasurement) int { return int(max(min(y.Points-x.Points, 1), -1)) })
	var top []moverView
	for _, m := range all[:min(len(all), maxMovers)] {
		top = append(top, moverView{m.Database, m.Measurement, p.name(m.From), p.name(m.To), m.Points, m.Bytes})
	}
	return top
}
