package statement

import (
	"fmt"
	"slices"
)

// Circle is one circle as a statement sees it.
type Circle struct {
	// Backends are all backends of the circle, in their order, by the key that the
	// rest of the program knows them by.
	Backends []string
	// Owner returns the key of the backend that owns a measurement.
	Owner func(database, measurement string) string
	// Measurements returns the names that a backend holds of a database, its own
	// and leftover ones. Only asked for the databases of Lists.
	Measurements func(backend, database string) []string
}

// Ask is a question to one backend.
type Ask struct {
	Backend string
	// Text is the statement to send, with the db and rp of the request.
	Text string
	// Original says that Text is what the client wrote, to be sent with the params
	// of the request too; otherwise it is complete without them.
	Original bool
	// Subtract, for Sum: the values of the answer are taken off.
	Subtract bool

	ignore func(message string) bool
}

// Ignore reports, for a probe, that an error in its answer says nothing: the
// answer is then taken for an empty one.
func (a *Ask) Ignore(message string) bool { return a.ignore != nil && a.ignore(message) }

// Plan says how a statement is answered from several backends.
type Plan struct {
	// Probes are to be answered before there are Parts: what the backends know
	// about the fields. They read no points. An error in one of the answers is the
	// answer to the statement, unless Ignore says otherwise. Pass the answers to
	// Resolve.
	Probes []Ask
	// Parts are the questions whose answers make the answer. None: the answer is an
	// empty result.
	Parts []Ask
	// Merge says how. With one part of Kind Pass, its answer is the answer.
	Merge Merge

	resolve func(answers [][]string) error
}

// Resolve completes a plan that has Probes: answers has, for each probe, the
// values of the first column of its answer. It does nothing when there are none.
// The error is the answer to the statement: a *RefusedError or the words of a
// server.
func (p *Plan) Resolve(answers [][]string) error {
	if len(p.Probes) == 0 {
		return nil
	}
	if len(answers) != len(p.Probes) {
		return fmt.Errorf("%d answers to %d probes", len(answers), len(p.Probes))
	}
	return p.resolve(answers)
}

// Pass reports whether the answer of the only part is the answer, unread.
func (p *Plan) Pass() bool {
	return p.Merge.Kind == Pass && len(p.Probes) == 0 && len(p.Parts) == 1
}

// Kind says how the answers to the parts become one.
type Kind int

// The kinds.
const (
	// Pass: there is at most one part, and its answer is the answer.
	Pass Kind = iota
	// BySeries: each part answers series in the order of their names, ascending or
	// Descending; so does the merged answer. No name comes from two parts once
	// Keep has been asked about each series. Series of one name stay in the order
	// in which their part sent them.
	BySeries
	// Rows: each part answers at most one series; all have the same name and
	// columns. The rows that Keep keeps make one series, in the order of Key, in
	// which each part's are already; then Offset and Limit. No rows, no series.
	Rows
	// Union: as Rows, but in the order in which the rows come, part by part, and
	// each first column once.
	Union
	// Sum: series have one row of one integer. Those of equal tags, whatever their
	// names, become one without a name: the sum, in the order of the tags. Columns
	// are those of Merge if it has any. Subtract and Less are taken off.
	Sum
	// Concat: the series of the parts, part by part. A series that a part sends in
	// chunks stays together; series of different parts never join.
	Concat
	// Lines: as Rows, the rows part by part, nothing left out.
	Lines
)

// Merge says how the answers to the parts become one.
type Merge struct {
	Kind Kind
	// Descending is for BySeries: names from the last to the first.
	Descending bool
	// Offset and Limit apply to the rows of the merged series, for Rows. Limit 0
	// is none.
	Offset, Limit int
	// Columns and Less are for Sum.
	Columns []string
	Less    int64

	key  func(row []any) string
	keep func(backend, series string, row []any) bool
}

// Key is what the rows of Rows are ordered by, ascending; those of equal keys come
// from one part and stay in its order.
func (m *Merge) Key(row []any) string {
	if m.key == nil {
		return ""
	}
	return m.key(row)
}

// Filters reports whether Keep has to be asked at all.
func (m *Merge) Filters() bool { return m.keep != nil }

// Keep reports whether what a part of a backend answered belongs to the answer:
// what a backend holds without owning it does not. For BySeries, series is the name
// of the series and row is not looked at; for Rows and Union, row is what it is
// about. Other kinds keep all.
func (m *Merge) Keep(backend, series string, row []any) bool {
	return m.keep == nil || m.keep(backend, series, row)
}

// Plan decides how the statement is answered from the backends of a circle. It is
// for Read, Into (its reading part), ShowMerged, ShowOne and ShowAll; the error is
// the answer to the statement: a *RefusedError or the words of a server.
func (s *Statement) Plan(c Circle) (*Plan, error) {
	if s.Fault != nil {
		return nil, s.Fault
	}
	switch s.Class {
	case Read, Into:
		return s.planSelect(c)
	case ShowMerged:
		return s.planShow(c)
	case ShowOne:
		return s.pass(c.Backends[0]), nil
	case ShowAll:
		p := &Plan{Merge: Merge{Kind: Concat}}
		for _, b := range c.Backends {
			p.Parts = append(p.Parts, s.whole(b))
		}
		return p, nil
	default:
		return nil, fmt.Errorf("a statement of class %d is not answered from parts", s.Class)
	}
}

// Lists names the databases of which Plan has to know what each backend holds:
// send NamesText to every backend and let Circle.Measurements return the names.
// Empty for most statements.
func (s *Statement) Lists() []string {
	lists := s.lists()
	slices.Sort(lists)
	return slices.Compact(lists)
}

// NamesText asks a backend for the measurements it holds of a database: the first
// column of the answer.
func NamesText(database string) string { return "SHOW MEASUREMENTS ON " + quote(database) }

func (s *Statement) whole(backend string) Ask {
	return Ask{Backend: backend, Text: s.Text, Original: true}
}

func (s *Statement) pass(backend string) *Plan { return &Plan{Parts: []Ask{s.whole(backend)}} }
