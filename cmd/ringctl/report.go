package main

import (
	"fmt"
	"io"
	"net/url"

	"ringmaster/pkg/operation"
)

// opsReportCmd shows the verification report.
type opsReportCmd struct{ one }

// Help are the command's examples.
func (*opsReportCmd) Help() string {
	return examples("ringctl ops report "+sampleID, "ringctl ops report "+sampleID+" -o json")
}

// Run shows it.
func (c *opsReportCmd) Run(a *app) error {
	raw, err := a.client.get(a.ctx, c.path("report"), nil)
	if err != nil {
		return err
	}
	var r operation.Report
	if err := decode(raw, &r); err != nil {
		return err
	}
	return a.show(raw, func(w io.Writer) error {
		reportTable(w, &r)
		return nil
	})
}

func reportTable(w io.Writer, r *operation.Report) {
	verdict := "everything that was to be proven is proven"
	if !r.Equal {
		verdict = "NOT everything is proven; see the problems"
	}
	fmt.Fprintf(w, "operation %s: %s\n", r.OperationID, verdict)
	row(w, "Slices:", fmt.Sprintf("%d of %d equal (%d by count, %d by points), %d unequal",
		r.Slices.Equal, r.Slices.Total, r.Slices.ByCount, r.Slices.ByPoints, r.Slices.Unequal))
	row(w, "Points:", fmt.Sprintf("%d at the source, %d at the destination", r.Points.Source, r.Points.Destination))
	row(w, "Missing:", r.Missing)
	row(w, "Extra:", r.Extra)
	row(w, "Different:", r.Different)
	for _, n := range []struct {
		name  string
		count int64
	}{{"Expired:", r.Expired}, {"Replaced:", r.Replaced}, {"Returned:", r.Returned}} {
		if n.count > 0 {
			row(w, n.name, n.count)
		}
	}
	for _, n := range []struct {
		name   string
		amount operation.Amount
	}{{"Unchanged:", r.Unchanged}, {"Dropped:", r.Dropped}, {"Kept:", r.Kept}} {
		if n.amount != (operation.Amount{}) {
			row(w, n.name, fmt.Sprintf("%d points in %d slices", n.amount.Points, n.amount.Slices))
		}
	}
	if r.Depth != "" {
		row(w, "Depth:", r.Depth)
	}
	if len(r.Problems) > 0 {
		title(w, "PROBLEMS")
		row(w, "DATABASE", "MEASUREMENT", "FROM", "TO", "SOURCE", "DESTINATION", "MISSING", "EXTRA", "DIFFERENT", "WHAT", "EXAMPLE")
	}
	for i := range r.Problems {
		p := &r.Problems[i]
		what := p.Resolution
		if p.Code != "" {
			what = p.Code + " " + p.Detail
		}
		row(w, p.Slice.Database+"."+p.Slice.RetentionPolicy, p.Slice.Measurement, p.SourceURL, p.DestURL, p.Source, p.Destination,
			p.Missing, p.Extra, p.Different, what, p.Example)
	}
	if r.Unreported > 0 {
		fmt.Fprintf(w, "and %d more\n", r.Unreported)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", cell(n))
	}
}

// opsTasksCmd lists the tasks of an operation.
type opsTasksCmd struct {
	one
	State string `default:"" enum:",waiting,running,done,failed" help:"Only those in this state." placeholder:"STATE"`
	Limit int    `default:"0" help:"At most so many; 0 means all." placeholder:"N"`
}

// Help are the command's examples.
func (*opsTasksCmd) Help() string {
	return examples("ringctl ops tasks "+sampleID, "ringctl ops tasks "+sampleID+" --state failed -o json", "ringctl ops tasks "+sampleID+" --limit 20")
}

// Run lists them.
func (c *opsTasksCmd) Run(a *app) error {
	if c.Limit < 0 {
		return usageError("--limit %d: use a number of tasks, or 0 for all", c.Limit)
	}
	q := url.Values{}
	if c.State != "" {
		q.Set("state", c.State)
	}
	all, err := a.pages(c.path("tasks"), q, c.Limit)
	if err != nil {
		return err
	}
	tasks, err := decodeAll[taskView](all)
	if err != nil {
		return err
	}
	return a.showValue(map[string]any{"items": all}, func(w io.Writer) error {
		row(w, "TASK", "PHASE", "STATE", "ATTEMPT", "FROM", "TO", "SLICES", "POINTS", "HOLDER", "TROUBLE")
		for i := range tasks {
			t := &tasks[i]
			points := t.Points.Copied + t.Points.Unchanged + t.Points.Dropped + t.Points.Verified
			row(w, t.ID, t.Phase, t.State, t.Attempt, t.Source, t.Destination,
				fmt.Sprintf("%d/%d", t.Slices.Finished, t.Slices.Total), amount(points)+"/"+amount(max(t.Estimated, points)), t.Holder, t.trouble())
		}
		return nil
	})
}
