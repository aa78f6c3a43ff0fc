package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

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

	planShown
}

// planShown says how much of a plan is shown.
type planShown struct {
	All bool `help:"List every measurement that moves, not only the largest."`
}

// Help are the command's examples.
func (c *planKindCmd[M]) Help() string {
	var lines []string
	for _, s := range c.Move.samples() {
		lines = append(lines, "ringctl plan "+c.Move.kind()+" "+s)
	}
	lines[0] += " --all"
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
	return a.showPlan(op, c.planShown)
}

// showPlan shows the plan of an operation, which may have nothing to do.
func (a *app) showPlan(op *opView, how planShown) error {
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
		p.table(w, op, how)
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

// does is what an operation of a kind does to points.
func does(kind string) string {
	switch operation.Kind(kind) {
	case operation.KindClear:
		return "drops"
	case operation.KindVerify:
		return "compares"
	case operation.KindRecovery, operation.KindResync:
		return "compares, and copies where they are missing,"
	default:
		return "moves"
	}
}

func (p *planView) table(w io.Writer, op *opView, how planShown) {
	t := &p.Totals
	fmt.Fprintf(w, "operation %s: %s, %s\n", op.ID, op.Kind, op.State)
	fmt.Fprintf(w, "%s about %s points, %s (estimated): %d measurements of %d databases in %d slices, %d tasks\n",
		does(op.Kind), amount(t.Points), size(t.Bytes), t.Measurements, t.Databases, t.Slices, t.Tasks)
	if d := p.Duration; d != nil {
		fmt.Fprintf(w, "takes %s to %s\n", seconds(d.LowSeconds), seconds(d.HighSeconds))
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
	if how.All {
		p.measurementTable(w)
	} else if movers := p.movers(); len(movers) > 0 {
		title(w, "TOP MOVERS")
		row(w, "DATABASE", "MEASUREMENT", "FROM", "TO", "POINTS", "BYTES")
		for _, m := range movers {
			row(w, m.Database, m.Measurement, m.From, m.To, amount(m.Points), size(m.Bytes))
		}
		if over := len(p.Measurements) + p.MeasurementsLeftOut - len(movers); over > 0 {
			fmt.Fprintf(w, "and %d more; --all lists them\n", over)
		}
	}
	if len(p.Refusals) > 0 {
		title(w, "REFUSED")
		row(w, "CODE", "WHERE", "WHY", "REMEDY")
		for i := range p.Refusals {
			r := &p.Refusals[i]
			row(w, r.Code, where(r), r.Detail, r.Hint)
		}
		if p.RefusalsLeftOut > 0 {
			fmt.Fprintf(w, "and %d more\n", p.RefusalsLeftOut)
		}
	}
	notes := slices.Clone(p.Notes)
	if p.EstimateSource != "" {
		notes = append(notes, "estimates: "+p.EstimateSource)
	}
	if p.Duration != nil && p.Duration.Basis != "" {
		notes = append(notes, "duration: "+p.Duration.Basis)
	}
	if len(notes) > 0 {
		title(w, "NOTES")
		for _, n := range notes {
			fmt.Fprintf(w, "- %s\n", cell(n))
		}
	}
}

// measurementTable lists every measurement that moves.
func (p *planView) measurementTable(w io.Writer) {
	if len(p.Measurements) == 0 {
		return
	}
	title(w, "MEASUREMENTS")
	row(w, "DATABASE", "MEASUREMENT", "FROM", "TO", "SLICES", "POINTS", "BYTES")
	for _, m := range p.Measurements {
		row(w, m.Database, m.Measurement, p.name(m.From), p.name(m.To), m.Slices, amount(m.Points), size(m.Bytes))
	}
	if p.MeasurementsLeftOut > 0 {
		fmt.Fprintf(w, "and %d more that the plan does not name\n", p.MeasurementsLeftOut)
	}
}

func (p *planView) balanceTable(w io.Writer) {
	if len(p.Balance) == 0 {
		return
	}
	title(w, "BALANCE")
	row(w, "BACKEND", "WHEN", "DATABASES", "MEASUREMENTS", "POINTS", "BYTES")
	for _, b := range p.Balance {
		name := b.Backend
		if b.Removed {
			name += " (removed)"
		}
		holding := func(when string, h operation.Holding) {
			row(w, name, when, h.Databases, h.Measurements, amount(h.Points), size(h.Bytes))
		}
		holding("before", b.Before)
		holding("after", b.After)
		if b.AfterClear != nil {
			holding("after a clear", *b.AfterClear)
		}
	}
	if p.Skew == nil {
		return
	}
	fmt.Fprintf(w, "the largest holds %.2f times the mean before, %.2f after", p.Skew.Before, p.Skew.After)
	if p.Skew.AfterClear != nil {
		fmt.Fprintf(w, ", %.2f after a clear", *p.Skew.AfterClear)
	}
	fmt.Fprintln(w)
}

// where is what a refusal is about.
func where(r *operation.Refusal) string {
	parts := []string{r.Scope, r.Backend}
	if r.Slice != nil {
		parts = append(parts, r.Slice.Database, r.Slice.Measurement)
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), " ")
}

// maxMovers bounds the measurements that are shown.
const maxMovers = 10

// movers are the measurements with most to move, their ends by name.
func (p *planView) movers() []operation.PlanMover {
	if len(p.TopMovers) > 0 {
		top := slices.Clone(p.TopMovers[:min(len(p.TopMovers), maxMovers)])
		for i := range top {
			top[i].From, top[i].To = p.named(top[i].From), p.named(top[i].To)
		}
		return top
	}
	all := slices.Clone(p.Measurements)
	slices.SortStableFunc(all, func(x, y operation.PlanMeasurement) int { return cmp.Compare(y.Points, x.Points) })
	var top []operation.PlanMover
	for _, m := range all[:min(len(all), maxMovers)] {
		top = append(top, operation.PlanMover{Database: m.Database, Measurement: m.Measurement, From: p.name(m.From), To: p.name(m.To), Points: m.Points, Bytes: m.Bytes})
	}
	return top
}

// named is the name of the backend with a URL.
func (p *planView) named(url string) string {
	i := slices.IndexFunc(p.Backends, func(b operation.PlanBackend) bool { return b.URL == url })
	if i < 0 {
		return url
	}
	return p.name(i)
}
