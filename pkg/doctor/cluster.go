package doctor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"ringmaster/pkg/operation"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// configuration reads the file as it is now.
func (d *Doctor) configuration(_ context.Context, c *chart) {
	const name = "configuration"
	is := d.Configuration()
	if len(is.Mistakes) > 0 {
		c.several(name, Fail, "mend "+is.File+"; the process works with what it has read before", is.Mistakes)
		return
	}
	c.note(name, OK, "", "%s is valid", is.File)
	c.several(name, Warn, "see what the configuration says of it", is.Warnings)
	view := d.View()
	switch {
	case view == nil:
		c.note(name, Fail, "wait until the process has read the shared record; its log says what it waits for", "no topology is known yet")
	case is.Topology.Digest != view.Topology.Digest:
		c.note(name, Warn, "send SIGHUP to apply the file; if it is an old one, start with -accept-config, or put the current file in its place",
			"the circles of %s are not those of epoch %d, which is in force", is.File, view.Topology.Epoch)
	default:
		c.note(name, OK, "", "its circles are those of epoch %d", view.Topology.Epoch)
	}
}

// circles looks for circles that are on their way, or not read.
func (d *Doctor) circles(_ context.Context, c *chart) {
	const name = "circles"
	view := d.View()
	if view == nil {
		c.note(name, Fail, "see the finding about the configuration", "no topology is known yet")
		return
	}
	well := true
	for _, circle := range view.Topology.Circles {
		if why := view.Unreadable(circle.ID); why != "" {
			well = false
			c.note(name, Warn, fmt.Sprintf("fill it: ringctl recovery --from-circle-id N --to-circle-id %d", circle.ID), "circle %d is not read: %s", circle.ID, why)
		}
		if tr := view.State.In(circle.ID); tr != nil {
			well = false
			c.note(name, Warn, transitionRemedy(tr), "circle %d is changing since %s, step %s", circle.ID, tr.OpenedAt.UTC().Format(time.RFC3339), tr.Step)
		}
	}
	if well {
		c.note(name, OK, "", "%d circles, none is changing and each is read", len(view.Topology.Circles))
	}
}

// transitionRemedy is what a transition waits for a person to do.
func transitionRemedy(tr *serving.Transition) string {
	switch {
	case tr.Operation != "":
		return "nothing; operation " + tr.Operation + " works on it"
	case tr.Step == serving.WriteBoth && tr.New():
		return fmt.Sprintf("fill it: ringctl recovery --from-circle-id N --to-circle-id %d", tr.Circle)
	case tr.Step == serving.WriteBoth:
		return fmt.Sprintf("move what it holds: ringctl rebalance --circle-id %d --operation add (rm when backends have left)", tr.Circle)
	default:
		return "nothing; ringctl topology says what it waits for"
	}
}

// backends tells what the probes have found.
func (d *Doctor) backends(ctx context.Context, c *chart) {
	const name = "backends"
	view := d.View()
	if view == nil {
		c.note(name, Fail, "see the finding about the configuration", "no topology is known yet")
		return
	}
	probed := d.Backends.Backends(ctx)
	var away, stuck, noted, unknown []string
	versions := map[string]int{}
	all := current(view)
	for i := range all {
		b := &all[i]
		is, ok := probed[b.URL]
		label := fmt.Sprintf("%s %s", b.Name, b.URL)
		switch {
		case !ok || is.CheckedAt.IsZero():
			unknown = append(unknown, label+" has not been asked yet")
		case !is.Active:
			away = append(away, fmt.Sprintf("%s does not answer: %s", label, is.Error))
		case !is.Healthy():
			stuck = append(stuck, fmt.Sprintf("%s does not store what is written: %s", label, is.Error))
		default:
			versions[is.Version]++
			if is.Note != "" {
				noted = append(noted, fmt.Sprintf("%s: %s", label, is.Note))
			}
		}
	}
	well := 0
	var kinds []string
	for _, v := range slices.Sorted(maps.Keys(versions)) {
		well += versions[v]
		kinds = append(kinds, fmt.Sprintf("%d of version %s", versions[v], v))
	}
	if well > 0 {
		c.note(name, OK, "", "%d of %d answer and store (%s)", well, len(all), strings.Join(kinds, ", "))
	}
	c.several(name, Fail, "start it, or take it out of the configuration; its points wait in hints meanwhile", away)
	c.several(name, Fail, "see its disk and its log", stuck)
	c.several(name, Warn, "ask again in a few seconds", unknown)
	c.several(name, Warn, "allow it, or leave it: whether it stores is then seen only when clients write", noted)
}

// current are the backends of the circles as they are.
func current(view *serving.View) []topology.Backend {
	var all []topology.Backend
	for _, circle := range view.Topology.Circles {
		for _, b := range circle.Backends {
			if !slices.ContainsFunc(all, func(o topology.Backend) bool { return o.URL == b.URL }) {
				all = append(all, b)
			}
		}
	}
	return all
}

// backlogs looks for points that wait.
func (d *Doctor) backlogs(_ context.Context, c *chart) {
	const name = "hints"
	var waiting, alarms []string
	for _, b := range d.Backlogs() {
		text := fmt.Sprintf("%s for %s wait, mode %s", size(b.Bytes), b.Backend, b.Mode)
		if !b.Oldest.IsZero() {
			text += ", the oldest for " + d.Now().Sub(b.Oldest).Round(time.Second).String()
		}
		if b.Alarm != "" {
			alarms = append(alarms, text+": "+b.Alarm)
		} else {
			waiting = append(waiting, text)
		}
	}
	if len(waiting)+len(alarms) == 0 {
		c.note(name, OK, "", "nothing waits for any backend")
	}
	c.several(name, Warn, "see the backend; they are replayed when it stores again", waiting)
	c.several(name, Fail, "bring the backend back, or give it more with -hint-bytes and -hint-age: writes are refused at the bound", alarms)
}

// workers looks whether anybody carries tasks out.
func (d *Doctor) workers(ctx context.Context, c *chart) {
	const name = "workers"
	all, err := d.Workers(ctx)
	if err != nil {
		c.note(name, Fail, "see the finding about NATS", "they cannot be listed: %v", err)
		return
	}
	slots, busy := 0, 0
	others := map[string]int{}
	for _, w := range all {
		slots += w.Slots
		busy += w.Busy
		if w.Version != d.Version {
			others[w.Version]++
		}
	}
	if slots == 0 {
		c.note(name, Fail, "start a worker, or the api with -slots", "there is no slot: nothing will be carried out")
		return
	}
	c.note(name, OK, "", "%d live with %d slots, %d busy", len(all), slots, busy)
	for _, v := range slices.Sorted(maps.Keys(others)) {
		c.note(name, Warn, "bring all processes to one release; tasks that one does not know wait for another", "%d are of release %q, this api of %q", others[v], v, d.Version)
	}
}

// key looks whether what is sealed can be opened.
func (d *Doctor) key(ctx context.Context, c *chart) {
	if err := d.Key(ctx); err != nil {
		c.note("key", Fail, "put the cluster's key file in its place; without it nothing that was sealed can be opened", "%v", err)
		return
	}
	c.note("key", OK, "", "the key file holds the key that the cluster's records are sealed with; a worker with another one refuses to start")
}

// operations looks for those that do not move.
func (d *Doctor) operations(_ context.Context, c *chart) {
	const name = "operations"
	open := d.Open()
	stalled := 0
	for i := range open {
		op := &open[i]
		for _, condition := range op.Conditions {
			stalled++
			c.note(name, Warn, "ringctl ops get "+op.ID, "operation %s is %s since %s: %s", op.ID, condition.Type, condition.Since.UTC().Format(time.RFC3339), condition.Reason)
		}
		if len(op.Conditions) == 0 && (op.State == operation.AwaitingApproval || op.State == operation.Paused) {
			stalled++
			c.note(name, Warn, "ringctl ops get "+op.ID, "operation %s is %s and holds %s", op.ID, op.State, strings.Join(op.Scope, ", "))
		}
	}
	if stalled == 0 {
		c.note(name, OK, "", "%d are open, each of them moves", len(open))
	}
}

// size is a number of bytes as a person reads it.
func size(n int64) string {
	const step = 1024
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	v, unit := float64(n), 0
	for v >= step && unit < len(units)-1 {
		v, unit = v/step, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[unit])
}
