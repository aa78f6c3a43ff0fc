package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"

	"ringmaster/pkg/operation"
)

// describe shows all there is to know about an operation.
func (a *app) describe(w io.Writer, op *opView) {
	field := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "%s:\t%s\n", name, cell(text))
		}
	}
	field("Operation", op.ID)
	field("Kind", op.Kind)
	field("State", op.stateText())
	field("Scope", list(op.Scope))
	field("Parameters", string(bytes.TrimSpace(op.Parameters)))
	field("Reason", op.Reason)
	field("Requested by", op.RequestedBy)
	field("Created", clock(&op.CreatedAt))
	field("Started", clock(op.StartedAt))
	field("Finished", clock(op.FinishedAt))
	field("Epoch", fmt.Sprint(op.Epoch))
	if l := op.Limits; l != (operation.Limits{}) {
		field("Limits", limitsText(l))
	}
	if c := op.CancelRequested; c != nil && !op.State.Terminal() {
		field("Cancelled by", fmt.Sprintf("%s %s %s", c.Who, a.ago(&c.At), c.Reason))
	}
	p := &op.Progress
	done, rate, eta := op.pace()
	field("Progress", fmt.Sprintf("%s of phase %s: %s of about %s points copied, %s unchanged, %s dropped, %s verified",
		cell(done), cell(p.Phase), amount(p.Points.Copied), amount(p.Points.Estimated), amount(p.Points.Unchanged), amount(p.Points.Dropped), amount(p.Points.Verified)))
	field("Rate", rate)
	field("Time left", eta)
	field("Tasks", taskCounts(&p.Tasks))
	if op.Error != nil {
		field("Error", op.Error.Code+": "+op.Error.Detail)
	}
	if op.Result != nil {
		field("Result", op.Result.Note)
	}
	a.describeBackends(w, p)
	if len(op.Conditions) > 0 {
		title(w, "CONDITIONS")
		row(w, "TYPE", "SINCE", "REASON")
		for _, c := range op.Conditions {
			row(w, c.Type, a.ago(&c.Since), c.Reason)
		}
	}
	if len(op.Waits) > 0 {
		title(w, "WAITS")
		row(w, "GATE", "BACKEND", "MEASURED", "LIMIT", "SINCE", "TASK")
		for _, g := range gates(op.Waits) {
			row(w, g.Gate, g.Backend, g.Measured, g.Limit, a.ago(&g.Since), g.tasks())
		}
	}
	a.describeTasks(w, p.OldestTasks)
	if len(op.Attempts) > 0 {
		title(w, "EARLIER ATTEMPTS")
		row(w, "ATTEMPT", "STATE", "STARTED", "FINISHED", "ERROR")
		for _, t := range op.Attempts {
			why := ""
			if t.Error != nil {
				why = t.Error.Detail
			}
			row(w, t.Attempt, t.State, clock(t.StartedAt), clock(t.FinishedAt), why)
		}
	}
}

func (a *app) describeBackends(w io.Writer, p *operation.Progress) {
	if len(p.Backends) == 0 {
		return
	}
	title(w, "BACKENDS")
	row(w, "NAME", "URL", "MEASUREMENTS", "MOVED", "IN PLACE", "POINTS", "VERIFIED")
	for _, url := range slices.Sorted(maps.Keys(p.Backends)) {
		b := p.Backends[url]
		moved := b.Points.Copied + b.Points.Unchanged + b.Points.Dropped
		row(w, b.Name, url, fmt.Sprintf("%d/%d", b.Measurements.Done, b.Measurements.Total), b.Moved, b.InPlace,
			amount(moved)+"/"+amount(max(moved, b.Points.Estimated)), amount(b.Points.Verified))
	}
}

func (a *app) describeTasks(w io.Writer, tasks []operation.OldestTask) {
	if len(tasks) == 0 {
		return
	}
	title(w, "OLDEST UNFINISHED TASKS")
	row(w, "TASK", "PHASE", "STATE", "ATTEMPT", "SINCE", "FROM", "TO", "TROUBLE")
	for _, t := range tasks {
		trouble := t.LastError
		if trouble == "" && len(t.Waits) > 0 {
			trouble = "waits: " + waitText(&t.Waits[0])
		}
		row(w, t.ID, t.Phase, t.State, t.Attempt, a.ago(&t.Since), t.Source, t.Destination, trouble)
	}
}

func taskCounts(t *operation.TaskCounts) string {
	text := fmt.Sprintf("%d of %d done, %d running, %d waiting", t.Done, t.Total, t.Running, t.Waiting)
	if t.Failed > 0 {
		text += fmt.Sprintf(", %d failed", t.Failed)
	}
	return text
}

func limitsText(l operation.Limits) string {
	return fmt.Sprintf("points/s %s, bytes/s %s, slots a backend %s", bound(l.PointsPerSecond), bound(l.BytesPerSecond), bound(l.SlotsPerBackend))
}

// waitText is a wait in a sentence.
func waitText(w *operation.Wait) string {
	text := w.Gate
	if w.Backend != "" {
		text += " at " + w.Backend
	}
	if w.Measured != "" {
		text += ": " + w.Measured
	}
	if w.Limit != "" {
		text += " (limit " + w.Limit + ")"
	}
	return text
}

// gate is what several tasks wait for.
type gate struct {
	operation.Wait

	count int
}

func (g *gate) tasks() string {
	if g.count > 1 {
		return fmt.Sprintf("%d tasks", g.count)
	}
	return g.TaskID
}

// gates are the waits by what is waited for; the oldest of each stands for all.
func gates(waits []operation.Wait) []gate {
	var all []gate
	for _, w := range waits {
		i := slices.IndexFunc(all, func(g gate) bool { return g.Gate == w.Gate && g.Backend == w.Backend })
		switch {
		case i < 0:
			all = append(all, gate{w, 1})
		case w.Since.Before(all[i].Since):
			all[i] = gate{w, all[i].count + 1}
		default:
			all[i].count++
		}
	}
	return all
}
