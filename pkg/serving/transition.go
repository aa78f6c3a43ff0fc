package serving

import (
	"fmt"
	"slices"
	"time"

	"ringmaster/pkg/topology"
)

// Step is how far a transition has come. Each begins with a compare-and-set on the
// record; the next one may begin only when every process has left the one before
// it behind, so that no two processes are more than one step apart.
type Step string

// The steps, in their order. After the last one there is no transition any more.
const (
	// Opening: the new owners get their databases. Nobody writes to them yet.
	Opening Step = "opening"
	// WriteBoth: writes go to the old and the new owners, reads to the old ones.
	// It lasts until a rebalance of the circle has been proven.
	WriteBoth Step = "write_both_read_old"
	// ReadNew: the cutover. Reads go to the new owners; writes go to both for as
	// long as some process may still read the old ones.
	ReadNew Step = "write_both_read_new"
	// WriteNew: nobody needs the old owners any more.
	WriteNew Step = "write_new"
)

// Transition is a circle that is changing from the owners of an earlier epoch to
// those of the current topology.
type Transition struct {
	Circle int  `json:"circle"`
	Step   Step `json:"step"`
	// Epoch is the epoch that opened it.
	Epoch uint64 `json:"epoch"`
	// Old is the circle as it was, alone in a topology with the keys of then.
	// Without backends it is a circle that was not there: it can be read once a
	// recovery into it has succeeded.
	Old       *topology.Topology `json:"old"`
	OpenedAt  time.Time          `json:"opened_at"`
	SteppedAt time.Time          `json:"stepped_at"`
	// Operation is the operation that has proven the new owners, from ReadNew on.
	Operation string `json:"operation,omitempty"`
}

// New reports whether the circle was not there before.
func (t *Transition) New() bool { return len(t.Old.Circles[0].Backends) == 0 }

// In returns the transition of a circle, nil if there is none.
func (s State) In(circle int) *Transition {
	for i := range s.Transitions {
		if s.Transitions[i].Circle == circle {
			return &s.Transitions[i]
		}
	}
	return nil
}

// OpenError says which circle cannot change again before its transition is closed.
type OpenError struct {
	Circle int
	Step   Step
	Epoch  uint64
}

// Error says what to do about it.
func (e *OpenError) Error() string {
	return fmt.Sprintf("circle %d is still changing to epoch %d (%s): rebalance it, or go back to the configuration of before, and then change it again", e.Circle, e.Epoch, e.Step)
}

// Changed returns the state after the topology has changed from was to next, with
// a transition opened for each circle that is placed differently. An *OpenError
// says which circle is in a transition still. A circle that has gone loses its
// transition and its marks.
func (s State) Changed(was, next *topology.Topology, now time.Time) (State, error) {
	out := s.Clone()
	gone := func(circle int) bool { _, ok := next.Circle(circle); return !ok }
	out.Transitions = slices.DeleteFunc(out.Transitions, func(t Transition) bool { return gone(t.Circle) })
	out.Incomplete = slices.DeleteFunc(out.Incomplete, func(i Incomplete) bool { return gone(i.Circle) })
	out.Proven = slices.DeleteFunc(out.Proven, gone)
	for i := range next.Circles {
		id := next.Circles[i].ID
		old := only(was, id)
		if samePlaces(old, only(next, id)) {
			continue
		}
		if t := out.In(id); t != nil {
			if t.Step == Opening || t.Step == WriteBoth {
				if samePlaces(t.Old, only(next, id)) {
					// Turned back before anything was read from the new owners: the
					// old ones have everything.
					out.Transitions = slices.DeleteFunc(out.Transitions, func(t Transition) bool { return t.Circle == id })
					continue
				}
			}
			return State{}, &OpenError{Circle: id, Step: t.Step, Epoch: t.Epoch}
		}
		out.Transitions = append(out.Transitions, Transition{
			Circle: id, Step: Opening, Epoch: next.Epoch, Old: old, OpenedAt: now.UTC(), SteppedAt: now.UTC(),
		})
	}
	return out, nil
}

// only returns the topology with one circle, without backends if there is none.
func only(t *topology.Topology, circle int) *topology.Topology {
	alone := t.Clone()
	alone.Circles = []topology.Circle{{ID: circle}}
	if c, ok := t.Clone().Circle(circle); ok {
		alone.Circles[0] = *c
	}
	alone.Digest = alone.ComputeDigest()
	return alone
}

// samePlaces reports whether two topologies of one circle place everything alike.
// The list of databases that are allowed places nothing.
func samePlaces(a, b *topology.Topology) bool {
	a, b = a.Clone(), b.Clone()
	a.Databases, b.Databases = nil, nil
	return a.ComputeDigest() == b.ComputeDigest()
}

// next is the step after this one, "" after the last.
func (s Step) next() Step {
	switch s {
	case Opening:
		return WriteBoth
	case WriteBoth:
		return ReadNew
	case ReadNew:
		return WriteNew
	default:
		return ""
	}
}

// Stepped returns the state after a circle's transition has left the step from:
// in the next one, or closed after the last. operation is what has proven the new
// owners; it belongs to the step from WriteBoth.
func (s State) Stepped(circle int, from Step, operation string, now time.Time) (State, error) {
	t := s.In(circle)
	if t == nil || t.Step != from {
		return State{}, fmt.Errorf("leaving step %s of circle %d: %w", from, circle, ErrStep)
	}
	next := s.Clone()
	to := from.next()
	if to == "" {
		next.Transitions = slices.DeleteFunc(next.Transitions, func(t Transition) bool { return t.Circle == circle })
		return next, nil
	}
	n := next.In(circle)
	n.Step, n.SteppedAt = to, now.UTC()
	if operation != "" {
		n.Operation = operation
	}
	if from == WriteBoth && !t.New() && !slices.Contains(next.Proven, circle) {
		next.Proven = append(next.Proven, circle)
	}
	return next, nil
}
