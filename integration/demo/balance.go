package main

import (
	"context"
	"fmt"
	"strings"

	"ringmaster/pkg/operation"
)

// holding is what one backend holds: what it owns, and what it has kept of what
// it does not own any more.
type holding struct {
	name               string
	owned, left        int64
	measurements, kept int
}

// report prints the verification report of the move.
func (d *demo) report(ctx context.Context) error {
	r, err := d.cluster.Client.Report(ctx, d.operation.ID)
	if err != nil {
		return err
	}
	for _, line := range reportLines(&r) {
		d.tell("%s", line)
	}
	if !r.Equal {
		return fmt.Errorf("the report of operation %s is not equal", d.operation.ID)
	}
	return nil
}

// reportLines renders a report for people.
func reportLines(r *operation.Report) []string {
	equal := "no"
	if r.Equal {
		equal = "yes"
	}
	lines := []string{
		fmt.Sprintf("equal       %s", equal),
		fmt.Sprintf("slices      %s of %s proven: %s by counts per series and field, %s by comparing points",
			group(int64(r.Slices.Equal)), group(int64(r.Slices.Total)), group(int64(r.Slices.ByCount)), group(int64(r.Slices.ByPoints))),
		fmt.Sprintf("points      %s at the sources, %s at their owners", group(r.Points.Source), group(r.Points.Destination)),
		fmt.Sprintf("missing     %s", group(r.Missing)),
		fmt.Sprintf("different   %s", group(r.Different)),
		fmt.Sprintf("extra       %s", group(r.Extra)),
		fmt.Sprintf("expired     %s", group(r.Expired)),
	}
	const most = 5
	for i := range r.Problems {
		if i == most {
			lines = append(lines, fmt.Sprintf("            and %d more", len(r.Problems)-most+r.Unreported))
			break
		}
		p := &r.Problems[i]
		// A problem says what is wrong, or which rule has decided.
		what := strings.Join(strings.Fields(p.Code+" "+p.Resolution+" "+p.Detail), " ")
		at := place{p.Slice.Database, p.Slice.RetentionPolicy, p.Slice.Measurement}
		lines = append(lines, fmt.Sprintf("problem     %s: %s", at, what))
	}
	return lines
}

// balance shows what each backend holds after the move, and again what it held
// before.
func (d *demo) balance(ctx context.Context) error {
	d.tell("before")
	for _, line := range d.balanceBefore {
		d.tell("%s", line)
	}
	var err error
	if d.after, err = d.contents(ctx); err != nil {
		return err
	}
	rows, err := d.holdings(ctx, d.after)
	if err != nil {
		return err
	}
	d.tell("after; what was left behind is what a later clear may remove")
	for _, line := range chart(rows) {
		d.tell("%s", line)
	}
	return nil
}

// holdings sums up what each backend holds, by the owners of this moment.
func (d *demo) holdings(ctx context.Context, held map[string]contents) ([]holding, error) {
	var rows []holding
	for i, b := range d.cluster.Backends {
		row := holding{name: backendName(i)}
		owned, kept := map[[2]string]bool{}, map[[2]string]bool{}
		for p := range held[b.URL()] {
			owner, err := d.owners.of(ctx, p.database, p.measurement)
			if err != nil {
				return nil, err
			}
			points, key := held[b.URL()].points(p), [2]string{p.database, p.measurement}
			if owner == b.URL() {
				row.owned += points
				owned[key] = true
			} else {
				row.left += points
				kept[key] = true
			}
		}
		row.measurements, row.kept = len(owned), len(kept)
		rows = append(rows, row)
	}
	return rows, nil
}

// chart draws a bar for each backend, all of one scale.
func chart(rows []holding) []string {
	const width = 32
	var most int64
	for _, r := range rows {
		most = max(most, r.owned+r.left)
	}
	held := func(points int64, measurements int) string {
		if measurements == 0 {
			return ""
		}
		return fmt.Sprintf("%s in %d", group(points), measurements)
	}
	out := []string{fmt.Sprintf("%-14s %-*s %20s %20s", "points in", width, "measurements", "█ owned", "░ left behind")}
	for _, r := range rows {
		whole, owned := cells(r.owned+r.left, most, width), cells(r.owned, most, width)
		bar := strings.Repeat("█", owned) + strings.Repeat("░", whole-owned) + strings.Repeat(" ", width-whole)
		line := fmt.Sprintf("%-14s %s %20s %20s", r.name, bar, held(r.owned, r.measurements), held(r.left, r.kept))
		out = append(out, strings.TrimRight(line, " "))
	}
	return out
}

// cells is the length of a bar: what is there is seen, however little.
func cells(part, whole int64, width int) int {
	if part <= 0 || whole <= 0 {
		return 0
	}
	return max(1, int((part*int64(width)+whole/2)/whole))
}
