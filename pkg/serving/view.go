package serving

import (
	"fmt"
	"slices"

	"ringmaster/pkg/topology"
)

// View is one revision of the record, ready to route by. It does not change and is
// safe for concurrent use.
type View struct {
	// Revision numbers the record.
	Revision uint64
	// Topology and State are what the record says. They must not be changed.
	Topology *topology.Topology
	State    State

	circles []circle
	modes   map[string]Mode
}

// circle is how one circle is routed.
type circle struct {
	id       int
	current  *topology.Placement
	previous *topology.Placement // nil outside a transition, and for a new circle
	step     Step
	fresh    bool // was not there before the transition
	copies   []*Copy
}

// NewView builds the view of a revision. It fails for a record with keys that this
// version does not know; see topology.Topology.Placement.
func NewView(revision uint64, t *topology.Topology, s State) (*View, error) {
	v := &View{Revision: revision, Topology: t, State: s.Clone(), modes: map[string]Mode{}}
	for _, b := range v.State.Backlogs {
		v.modes[b.Backend] = b.Mode
	}
	for i := range t.Circles {
		c := circle{id: t.Circles[i].ID}
		var err error
		if c.current, err = t.Placement(c.id); err != nil {
			return nil, fmt.Errorf("routing by revision %d: %w", revision, err)
		}
		if tr := v.State.In(c.id); tr != nil {
			c.step, c.fresh = tr.Step, tr.New()
			if !c.fresh {
				if c.previous, err = tr.Old.Placement(c.id); err != nil {
					return nil, fmt.Errorf("routing by revision %d: %w", revision, err)
				}
			}
		}
		for j := range v.State.Copies {
			if slices.Contains(v.State.Copies[j].Circles, c.id) {
				c.copies = append(c.copies, &v.State.Copies[j])
			}
		}
		v.circles = append(v.circles, c)
	}
	return v, nil
}

// Target is a backend that has to get a point, for one circle.
type Target struct {
	Circle  int
	Backend *topology.Backend
}

// Writers appends to dst the backends that have to get the points of a measurement
// (by its unescaped name): in each circle the owner, and in a transition the old and
// the new one, each server once. The order is that of the circles; the old owner
// stands before the new one.
func (v *View) Writers(dst []Target, db, measurement string) []Target {
	for i := range v.circles {
		c := &v.circles[i]
		from := len(dst)
		if c.previous != nil && c.step != WriteNew {
			dst = append(dst, Target{c.id, c.previous.Owner(db, measurement)})
		}
		if c.step != Opening {
			to := c.current.Owner(db, measurement)
			if len(dst) == from || dst[from].Backend.URL != to.URL {
				dst = append(dst, Target{c.id, to})
			}
		}
	}
	return dst
}

// Reader returns the backend of a circle that is to be asked for a measurement. It
// is nil for a circle that there is not; whether the circle is complete is another
// question: see Unreadable.
func (v *View) Reader(circle int, db, measurement string) *topology.Backend {
	for i := range v.circles {
		c := &v.circles[i]
		switch {
		case c.id != circle:
		case c.previous != nil && (c.step == Opening || c.step == WriteBoth):
			return c.previous.Owner(db, measurement)
		default:
			return c.current.Owner(db, measurement)
		}
	}
	return nil
}

// Readers returns the backends of a circle that own what is read, those of before
// in a transition that has not been cut over.
func (v *View) Readers(circle int) []topology.Backend {
	if t := v.State.In(circle); t != nil && !t.New() && (t.Step == Opening || t.Step == WriteBoth) {
		return t.Old.Circles[0].Backends
	}
	if c, ok := v.Topology.Circle(circle); ok {
		return c.Backends
	}
	return nil
}

// Backends returns every backend that any circle has or, in a transition, had,
// each server (by its URL) once.
func (v *View) Backends() []topology.Backend {
	var all []topology.Backend
	add := func(more []topology.Backend) {
		for i := range more {
			if !slices.ContainsFunc(all, func(b topology.Backend) bool { return b.URL == more[i].URL }) {
				all = append(all, more[i])
			}
		}
	}
	for i := range v.Topology.Circles {
		add(v.Topology.Circles[i].Backends)
	}
	for i := range v.State.Transitions {
		add(v.State.Transitions[i].Old.Circles[0].Backends)
	}
	return all
}

// Circles returns the ids of the circles.
func (v *View) Circles() []int {
	ids := make([]int, len(v.circles))
	for i := range v.circles {
		ids[i] = v.circles[i].id
	}
	return ids
}

// Mode returns the mode of the backend with this URL.
func (v *View) Mode(url string) Mode {
	if m, ok := v.modes[url]; ok {
		return m
	}
	return Direct
}

// Unreadable says why a circle must not be read, "" if it may be.
func (v *View) Unreadable(circle int) string {
	for i := range v.circles {
		c := &v.circles[i]
		if c.id != circle {
			continue
		}
		if c.fresh && c.step != WriteNew && c.step != ReadNew {
			return fmt.Sprintf("circle %d is new and has not been filled yet; start a recovery into it", circle)
		}
		for _, p := range c.copies {
			if slices.Contains(p.Fills, circle) {
				return fmt.Sprintf("circle %d is being filled by operation %s", circle, p.Operation)
			}
		}
	}
	for _, m := range v.State.Incomplete {
		if m.Circle == circle {
			return fmt.Sprintf("circle %d is incomplete: %s", circle, m.Reason)
		}
	}
	return ""
}

// Avoided reports whether a circle is to be read only where no other can be: a
// value in it may be that of a moment ago.
func (v *View) Avoided(circle int) bool {
	return slices.ContainsFunc(v.Noting(circle), func(c *Copy) bool { return slices.Contains(c.Avoid, circle) })
}

// Noting reports which copies want to be told what is written to a circle.
func (v *View) Noting(circle int) []*Copy {
	for i := range v.circles {
		if v.circles[i].id == circle {
			return v.circles[i].copies
		}
	}
	return nil
}

// Excluded reports whether writes of a database have to wait for a statement.
func (v *View) Excluded(db string) bool {
	return slices.ContainsFunc(v.State.Exclusive, func(e Exclusive) bool { return e.Database == db })
}

// Held reports whether writes of a measurement have to wait.
func (v *View) Held(m Measurement) bool {
	return slices.ContainsFunc(v.State.Copies, func(c Copy) bool {
		return c.HoldAll || slices.Contains(c.Hold, m)
	})
}

// Holds reports whether writes of anything have to wait.
func (v *View) Holds() bool {
	return slices.ContainsFunc(v.State.Copies, func(c Copy) bool { return c.HoldAll || len(c.Hold) > 0 })
}

// Obstacles names what stands in the way of a statement that goes to every backend
// of every circle, such as DELETE: open moves, and backends that have hints.
func (v *View) Obstacles() []string {
	var all []string
	for _, t := range v.State.Transitions {
		all = append(all, fmt.Sprintf("circle %d is changing to epoch %d (%s)", t.Circle, t.Epoch, t.Step))
	}
	for _, c := range v.State.Copies {
		if !c.Settled {
			all = append(all, fmt.Sprintf("operation %s is copying", c.Operation))
		}
	}
	for _, b := range v.State.Backlogs {
		all = append(all, fmt.Sprintf("backend %s has writes waiting for it (%s): %s", b.Backend, b.Mode, b.Reason))
	}
	return all
}
