package main

import (
	"fmt"
	"io"
	"net/url"
	"time"

	"ringmaster/pkg/operation"
)

// opsReportCmd shows the verification report.
type opsReportCmd struct {
	one
	Problems int `default:"20" help:"At most so many problems in the table; 0 means all." placeholder:"N"`
}

// Help are the command's examples.
func (*opsReportCmd) Help() string {
	return examples("ringctl ops report "+sampleID, "ringctl ops report "+sampleID+" --problems 0", "ringctl ops report "+sampleID+" -o json")
}

// Run shows it.
func (c *opsReportCmd) Run(a *app) error {
	if c.Problems < 0 {
		return usageError("--problems %d: use a number of problems, or 0 for all", c.Problems)
	}
	raw, err := a.client.get(a.ctx, c.path("report"), nil)
	if err != nil {
		return err
	}
	var r operation.Report
	if err := decode(raw, &r); err != nil {
		return err
	}
	return a.show(raw, func(w io.Writer) error {
		reportTable(w, &r, c.Problems)
		return nil
	})
}

func reportTable(w io.Writer, r *operation.Report, most int) {
	verdict := "everything that was to be proven is proven"
	if !r.Equal {
		verdict = "NOT everything is proven"
		if len(r.Problems) > 0 {
			verdict += "; see the problems"
		}
	}
	fmt.Fprintf(w, "operation %s: %s\n", r.OperationID, verdict)
	slices := fmt.Sprintf("%d of %d equal (%d by count, %d by points), %d unequal",
		r.Slices.Equal, r.Slices.Total, r.Slices.ByCount, r.Slices.ByPoints, max(min(r.Slices.Unequal, r.Slices.Total-r.Slices.Equal-r.NotVerified), 0))
	if r.NotVerified > 0 {
		slices += fmt.Sprintf(", %d not compared", r.NotVerified)
	}
	row(w, "Slices:", slices)
	row(w, "Points:", fmt.Sprintf("%d at the source, %d at the destination", r.Points.Source, r.Points.Destination))
	row(w, "Missing:", withExample(r.Missing, r.Examples.Missing))
	row(w, "Extra:", withExample(r.Extra, r.Examples.Extra))
	row(w, "Different:", withExample(r.Different, r.Examples.Different))
	if f := r.Repair; f != nil {
		row(w, "Repaired:", fmt.Sprintf("%d points copied from %s; left: %d missing, %d extra, %d different",
			f.Copied, f.From, f.Left.Missing, f.Left.Extra, f.Left.Different))
	}
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
	standingTable(w, r.Moves)
	problemTable(w, r, most)
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", cell(n))
	}
}

// withExample is a number of points with one of them.
func withExample(n int64, e *operation.Example) string {
	if e == nil {
		return fmt.Sprint(n)
	}
	values := ""
	switch {
	case e.Source != "" && e.Destination != "":
		values = fmt.Sprintf(": %s at the source, %s at the destination", e.Source, e.Destination)
	case e.Source != "":
		values = ": " + e.Source + " at the source"
	case e.Destination != "":
		values = ": " + e.Destination + " at the destination"
	}
	return fmt.Sprintf("%d, for example %s.%s %s at %s, field %s%s", n, e.Database, e.RetentionPolicy, e.Series, e.Time.UTC().Format(time.RFC3339Nano), e.Field, values)
}

// standingTable says what is where.
func standingTable(w io.Writer, moves []operation.MoveStanding) {
	if len(moves) == 0 {
		return
	}
	title(w, "WHAT IS WHERE")
	row(w, "FROM", "TO", "SLICES", "COPIED", "COMPARED", "DROPPED", "FAILED", "POINTS COPIED", "COMPARED", "DROPPED")
	for i := range moves {
		m := &moves[i]
		row(w, m.Source, m.Destination, m.Slices.Total, m.Slices.Copied, m.Slices.Verified, m.Slices.Dropped, m.Slices.Failed,
			m.Points.Copied, m.Points.Verified, m.Points.Dropped)
	}
}

// instant is a time in nanoseconds.
func instant(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }

// problemTable lists the first problems; most is how many, 0 means all.
func problemTable(w io.Writer, r *operation.Report, most int) {
	if len(r.Problems) == 0 {
		return
	}
	if most <= 0 {
		most = len(r.Problems)
	}
	title(w, "PROBLEMS")
	row(w, "DATABASE", "MEASUREMENT", "SINCE", "UNTIL", "FROM", "TO", "SOURCE", "DESTINATION", "MISSING", "EXTRA", "DIFFERENT", "WHAT", "EXAMPLE")
	for i := range r.Problems[:min(most, len(r.Problems))] {
		p := &r.Problems[i]
		what := p.Resolution
		if p.Code != "" {
			what = p.Code + " " + p.Detail
		}
		database, since, until := "", "", ""
		if s := &p.Slice; s.Database != "" {
			database, since, until = s.Database+"."+s.RetentionPolicy, instant(s.From), instant(s.To)
		}
		row(w, database, p.Slice.Measurement, since, until, p.SourceURL, p.DestURL, p.Source, p.Destination,
			p.Missing, p.Extra, p.Different, what, p.Example)
	}
	if over := len(r.Problems) - most; over > 0 {
		fmt.Fprintf(w, "and %d more; --problems 0 lists them\n", over)
	}
	if r.Unreported > 0 {
		fmt.Fprintf(w, "and %d that the report does not hold\n", r.Unreported)
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
