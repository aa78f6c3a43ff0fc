// Package serving says how traffic is served while the cluster changes: which
// backends have to get a point and which may be read, in every step of a
// transition, beside a backend that is down, and while an operation copies.
//
// All of it is one value, State, stored beside the topology in one record. Every
// process that serves works by one revision of that record, its View, and tells
// the others when it has left an older one behind. The package is pure: it decides,
// others store and send.
package serving

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"ringmaster/pkg/topology"
)

// State is what all processes agree on beside the topology. Its zero value is that
// of a cluster at rest: every owner is written to and read from directly.
type State struct {
	Transitions []Transition `json:"transitions,omitempty"`
	Backlogs    []Backlog    `json:"backlogs,omitempty"`
	Copies      []Copy       `json:"copies,omitempty"`
	// Incomplete are circles that lack points for a reason that outlives the
	// operation that caused it.
	Incomplete []Incomplete `json:"incomplete,omitempty"`
	// Proven are the circles whose owners have been proven to hold what their
	// predecessors held, when reads moved over to them: where a leftover has another
	// value, the owner's is the newer one.
	Proven []int `json:"proven,omitempty"`
	// Exclusive are the statements that must not meet a write of their database.
	Exclusive []Exclusive `json:"exclusive,omitempty"`
}

// Exclusive is a statement such as DELETE at work on every backend: until it has
// ended, whoever writes to its database waits.
type Exclusive struct {
	ID string `json:"id"`
	// Process runs it; if its session ends, so does the statement's hold.
	Process  string    `json:"process"`
	Database string    `json:"database"`
	Since    time.Time `json:"since"`
}

// Mode says how a backend gets its points.
type Mode string

// The modes, in the order in which a backend goes through them.
const (
	// Direct: every process sends to the backend itself.
	Direct Mode = "direct"
	// Suspect: some process could not. Nobody sends any more, and what is to be
	// written waits until nobody does.
	Suspect Mode = "suspect"
	// Hinting: what is to be written is kept in the backend's hints.
	Hinting Mode = "hinting"
	// Draining: as Hinting, while the hints are being replayed.
	Draining Mode = "draining"
	// Handover: the hints are about to be empty. Nobody adds to them and nobody
	// sends; what is to be written waits for Direct.
	Handover Mode = "handover"
)

// Sends reports whether processes send to the backend themselves.
func (m Mode) Sends() bool { return m == Direct }

// Hints reports whether what is to be written goes behind the backend's hints.
func (m Mode) Hints() bool { return m == Hinting || m == Draining }

// follows says which modes may follow which.
func (m Mode) follows(was Mode) bool {
	switch m {
	case Suspect:
		return was == Direct
	case Hinting:
		// Back from draining when the backend fails again.
		return was == Suspect || was == Draining
	case Draining:
		return was == Hinting || was == Handover
	case Handover:
		return was == Draining
	case Direct:
		return was == Handover
	default:
		return false
	}
}

// Backlog is the mode of one backend that is not Direct.
type Backlog struct {
	// Backend is its URL.
	Backend string `json:"backend"`
	Mode    Mode   `json:"mode"`
	// Reason is what the backend did, in words for a person.
	Reason string `json:"reason"`
	// Since is when it left Direct.
	Since time.Time `json:"since"`
}

// Copy is an operation that copies points between backends while clients write. It
// asks of everybody who writes to its circles that they note what they write.
type Copy struct {
	Operation string `json:"operation"`
	Circles   []int  `json:"circles"`
	// Round numbers the notes: those of a finished round are complete once every
	// process has passed the revision that began the next one.
	Round int `json:"round"`
	// Hold asks that writes of these measurements wait, for at most HoldLimit,
	// since the operation compares them for the last time. HoldAll is for more
	// of them than a record should hold.
	Hold    []Measurement `json:"hold,omitempty"`
	HoldAll bool          `json:"hold_all,omitempty"`
	// Fills are the circles among Circles that are not to be read meanwhile; Avoid
	// are those that are read only where no other can be.
	Fills []int `json:"fills,omitempty"`
	Avoid []int `json:"avoid,omitempty"`
	// Settled says that the copy is over and what it made true holds: it asks nothing
	// of anybody any more, and stays until its operation has ended, which may have to
	// find out once more how far it is.
	Settled bool `json:"settled,omitempty"`
}

// HoldLimit is how long writes wait for the last comparison of an operation. The
// operation gives up earlier, so that nobody writes before it has.
const HoldLimit = 1500 * time.Millisecond

// Measurement names a measurement of one retention policy; an empty policy is the
// default one.
type Measurement struct {
	Database        string `json:"database"`
	RetentionPolicy string `json:"retention_policy"`
	Name            string `json:"measurement"`
}

// Incomplete is a circle that is not to be read until a recovery into it has
// succeeded or an operator says so.
type Incomplete struct {
	Circle int       `json:"circle"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// ErrStep is returned for a change that does not follow from the state.
var ErrStep = errors.New("does not follow from the present state")

// ModeOf returns the mode of the backend with this URL.
func (s State) ModeOf(url string) Mode {
	if i := s.backlog(url); i >= 0 {
		return s.Backlogs[i].Mode
	}
	return Direct
}

func (s State) backlog(url string) int {
	return slices.IndexFunc(s.Backlogs, func(b Backlog) bool { return b.Backend == url })
}

// WithMode returns the state after a backend has changed from one mode to another;
// ErrStep if it is in another one or the modes do not follow one another. reason
// and now are kept from when the backend left Direct, unless reason is given.
func (s State) WithMode(url string, from, to Mode, reason string, now time.Time) (State, error) {
	if was := s.ModeOf(url); was != from || !to.follows(from) {
		return State{}, fmt.Errorf("%s from %s to %s while it is %s: %w", url, from, to, was, ErrStep)
	}
	next := s.Clone()
	i := next.backlog(url)
	switch {
	case to == Direct:
		next.Backlogs = slices.Delete(next.Backlogs, i, i+1)
	case i < 0:
		next.Backlogs = append(next.Backlogs, Backlog{Backend: url, Mode: to, Reason: reason, Since: now.UTC()})
	default:
		next.Backlogs[i].Mode = to
		if reason != "" {
			next.Backlogs[i].Reason = reason
		}
	}
	return next, nil
}

// Copying returns the copy of an operation, nil if it has none.
func (s State) Copying(operation string) *Copy {
	for i := range s.Copies {
		if s.Copies[i].Operation == operation {
			return &s.Copies[i]
		}
	}
	return nil
}

// WithCopy returns the state with the copy in place of the one of the same
// operation, if there is one.
func (s State) WithCopy(c Copy) State {
	next := s.WithoutCopy(c.Operation)
	next.Copies = append(next.Copies, c)
	return next
}

// WithSettled returns the state in which the copy of an operation is settled.
func (s State) WithSettled(operation string) State {
	return s.WithCopy(Copy{Operation: operation, Settled: true})
}

// WithoutCopy returns the state without the copy of an operation.
func (s State) WithoutCopy(operation string) State {
	next := s.Clone()
	next.Copies = slices.DeleteFunc(next.Copies, func(c Copy) bool { return c.Operation == operation })
	return next
}

// WithIncomplete returns the state with a circle marked, or not marked any more
// when reason is empty. A circle that is marked already keeps its time.
func (s State) WithIncomplete(circle int, reason string, now time.Time) State {
	next := s.Clone()
	i := slices.IndexFunc(next.Incomplete, func(c Incomplete) bool { return c.Circle == circle })
	switch {
	case reason == "" && i >= 0:
		next.Incomplete = slices.Delete(next.Incomplete, i, i+1)
	case reason != "" && i >= 0:
		next.Incomplete[i].Reason = reason
	case reason != "":
		next.Incomplete = append(next.Incomplete, Incomplete{Circle: circle, Reason: reason, Since: now.UTC()})
	}
	return next
}

// WithExclusive returns the state with a statement at work; ErrStep while another
// one is at work on its database.
func (s State) WithExclusive(e Exclusive) (State, error) {
	for _, other := range s.Exclusive {
		if other.Database == e.Database && other.ID != e.ID {
			return State{}, fmt.Errorf("another statement is at work on database %q since %s: %w", e.Database, other.Since.Format(time.RFC3339), ErrStep)
		}
	}
	next := s.WithoutExclusive(e.ID)
	next.Exclusive = append(next.Exclusive, e)
	return next, nil
}

// WithoutExclusive returns the state without a statement.
func (s State) WithoutExclusive(id string) State {
	next := s.Clone()
	next.Exclusive = slices.DeleteFunc(next.Exclusive, func(e Exclusive) bool { return e.ID == id })
	return next
}

// Clone returns a copy whose lists can be changed.
func (s State) Clone() State {
	c := State{
		Transitions: slices.Clone(s.Transitions), Backlogs: slices.Clone(s.Backlogs),
		Copies: slices.Clone(s.Copies), Incomplete: slices.Clone(s.Incomplete), Proven: slices.Clone(s.Proven),
		Exclusive: slices.Clone(s.Exclusive),
	}
	for i := range c.Transitions {
		c.Transitions[i].Old = c.Transitions[i].Old.Clone()
	}
	return c
}

// Sealed returns a copy of the state in which the credentials of former backends
// are sealed, as topology.Topology.Seal does it.
func (s State) Sealed(with topology.Sealer, context string) (State, error) {
	return s.each(func(t *topology.Topology) (*topology.Topology, error) { return t.Seal(with, context) })
}

// Opened is the inverse of Sealed.
func (s State) Opened(with topology.Sealer, context string) (State, error) {
	return s.each(func(t *topology.Topology) (*topology.Topology, error) { return t.Open(with, context) })
}

func (s State) each(change func(*topology.Topology) (*topology.Topology, error)) (State, error) {
	next := s.Clone()
	for i := range next.Transitions {
		old, err := change(next.Transitions[i].Old)
		if err != nil {
			return State{}, fmt.Errorf("circle %d before epoch %d: %w", next.Transitions[i].Circle, next.Transitions[i].Epoch, err)
		}
		next.Transitions[i].Old = old
	}
	return next, nil
}
