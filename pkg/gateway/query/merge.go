package query

import (
	"context"
	"fmt"
	"slices"

	"github.com/influxdata/influxql"

	"ringmaster/pkg/result"
	"ringmaster/pkg/statement"
)

// answerPlan asks the parts of a plan and joins their answers.
func (x *execution) answerPlan(ctx context.Context, p *place, s *statement.Statement, plan *statement.Plan, write func(*result.Result) error) error {
	if len(plan.Parts) == 0 {
		return write(&result.Result{})
	}
	parts, closeAll, err := x.ask(ctx, p, plan.Parts)
	if err != nil {
		return err
	}
	defer closeAll()
	switch plan.Merge.Kind {
	case statement.Pass:
		return passPart(parts[0], write)
	case statement.BySeries:
		return mergeSeries(parts, s, &plan.Merge, write)
	case statement.Sum:
		return mergeSums(parts, &plan.Merge, write)
	case statement.Rows:
		return x.mergeRows(parts, s, &plan.Merge, write)
	case statement.Union:
		return unite(parts, &plan.Merge, write)
	case statement.Lines:
		return inTurn(parts, write)
	case statement.Concat:
		return concatenate(parts, nil, write)
	default:
		return fmt.Errorf("merging of kind %d is not known", plan.Merge.Kind)
	}
}

// passPart gives the answer of a part as it is.
func passPart(p *part, write func(*result.Result) error) error {
	for {
		r, err := p.next()
		if err != nil || r == nil {
			return err
		}
		if err := write(r); err != nil {
			return err
		}
	}
}

// apart reports whether InfluxDB gives each series of a statement in a result of
// its own, none of them partial.
func apart(s *statement.Statement) bool {
	switch s.AST.(type) {
	case *influxql.ShowTagKeysStatement, *influxql.ShowTagValuesStatement:
		return true
	}
	return false
}

// keptSeries asks a merge about each series once, as long as they come in turn.
func keptSeries(m *statement.Merge) func(backend, series string) bool {
	if !m.Filters() {
		return keepAll
	}
	type answer struct {
		series string
		keep   bool
	}
	last := map[string]answer{}
	return func(backend, series string) bool {
		a, ok := last[backend]
		if !ok || a.series != series {
			a = answer{series, m.Keep(backend, series, nil)}
			last[backend] = a
		}
		return a.keep
	}
}

// first returns the part whose next series comes first, nil at the end of all.
func first(parts []*part, keep func(backend, series string) bool, before func(a, b *result.Series) bool) (*part, error) {
	var best *part
	var head *result.Series
	for _, p := range parts {
		s, err := p.peek(keep)
		if err != nil {
			return nil, err
		}
		if s != nil && (best == nil || before(s, head)) {
			best, head = p, s
		}
	}
	return best, nil
}

// messages are the remarks of all parts, each once.
func messages(parts []*part) []result.Message {
	var all []result.Message
	for _, p := range parts {
		for _, m := range p.messages {
			if !slices.Contains(all, m) {
				all = append(all, m)
			}
		}
	}
	return all
}

// mergeSeries gives the series of all parts in order of their names.
func mergeSeries(parts []*part, s *statement.Statement, m *statement.Merge, write func(*result.Result) error) error {
	keep := keptSeries(m)
	before := func(a, b *result.Series) bool {
		if m.Descending {
			return a.Name > b.Name
		}
		return a.Name < b.Name
	}
	separate := apart(s)
	next, err := first(parts, keep, before)
	if err != nil {
		return err
	}
	if next == nil {
		return write(&result.Result{Messages: messages(parts)})
	}
	for next != nil {
		r := &result.Result{Series: []result.Series{next.take()}}
		if next, err = first(parts, keep, before); err != nil {
			return err
		}
		if next == nil {
			r.Messages = messages(parts)
		}
		r.Partial = next != nil && !separate
		if err := write(r); err != nil {
			return err
		}
	}
	return nil
}

// mergeSums gives one series for those of one name and tags, with the sum of their
// only value.
func mergeSums(parts []*part, m *statement.Merge, write func(*result.Result) error) error {
	keep := keptSeries(m)
	before := func(a, b *result.Series) bool { return result.CompareSeries(a, b) < 0 }
	var sum *result.Series
	send := func(partial bool) error {
		return write(&result.Result{Series: []result.Series{*sum}, Partial: partial})
	}
	for {
		next, err := first(parts, keep, before)
		if err != nil {
			return err
		}
		if next == nil {
			break
		}
		s := next.take()
		switch {
		case sum == nil:
			sum = &s
		case sum.Same(&s):
			if err := add(sum, &s); err != nil {
				return err
			}
		default:
			if err := send(true); err != nil {
				return err
			}
			sum = &s
		}
	}
	if sum == nil {
		return write(&result.Result{Messages: messages(parts)})
	}
	return send(false)
}

func add(sum, s *result.Series) error {
	if len(sum.Values) != 1 || len(s.Values) != 1 || len(sum.Values[0]) == 0 || len(sum.Values[0]) != len(s.Values[0]) {
		return fmt.Errorf("counts of %q have more than one row", s.Name)
	}
	last := len(s.Values[0]) - 1
	a, b := &sum.Values[0][last], s.Values[0][last]
	if !a.Whole() || !b.Whole() {
		return fmt.Errorf("a count of %q is no integer", s.Name)
	}
	a.Num += b.Num
	return nil
}

// streams reads parts as rows, without those that do not belong to the answer.
func streams(parts []*part, m *statement.Merge) []result.Rows {
	all := make([]result.Rows, len(parts))
	for i, p := range parts {
		r := &rows{part: p}
		if m.Filters() {
			r.keep = m.Keep
		}
		all[i] = r
	}
	return all
}

// mergeRows gives the rows of all parts in order, each once.
func (x *execution) mergeRows(parts []*part, s *statement.Statement, m *statement.Merge, write func(*result.Result) error) error {
	merged := result.Distinct(result.Merge(false, streams(parts, m)...))
	merged = result.Limit(merged, result.Bounds{Limit: m.Limit, Offset: m.Offset})
	size := 0
	if _, chunked := s.AST.(*influxql.ShowSeriesStatement); chunked {
		size = x.q.chunkSize()
	}
	return result.Chunk(merged, size, result.Result{}, write)
}

// unite gives the rows of all parts, each once, part by part.
func unite(parts []*part, m *statement.Merge, write func(*result.Result) error) error {
	seen := map[string]bool{}
	var all *result.Series
	for _, r := range streams(parts, m) {
		for r.Next() {
			key := fmt.Sprintf("%q", plain(r.Values()))
			if seen[key] {
				continue
			}
			seen[key] = true
			if all == nil {
				head := *r.Series()
				all = &head
			}
			all.Values = append(all.Values, r.Values())
		}
		if err := r.Err(); err != nil {
			return err
		}
		if all == nil && r.Series() != nil {
			head := *r.Series() // without rows, as long as there are none
			all = &head
		}
	}
	return one(all, parts, write)
}

func one(all *result.Series, parts []*part, write func(*result.Result) error) error {
	r := &result.Result{Messages: messages(parts)}
	if all != nil {
		r.Series = []result.Series{*all}
	}
	return write(r)
}

// inTurn gives the rows of all parts, part by part, as one series.
func inTurn(parts []*part, write func(*result.Result) error) error {
	var all *result.Series
	for _, p := range parts {
		r := &rows{part: p}
		for r.Next() {
			if all == nil {
				head := *r.Series()
				all = &head
			}
			all.Values = append(all.Values, r.Values())
		}
		if err := r.Err(); err != nil {
			return err
		}
	}
	return one(all, parts, write)
}

// concatenate gives the series of all parts, part by part, in one result.
func concatenate(parts []*part, remarks []result.Message, write func(*result.Result) error) error {
	out := &result.Result{Messages: remarks}
	for _, p := range parts {
		from := len(out.Series)
		for {
			s, err := p.peek(keepAll)
			if err != nil {
				return err
			}
			if s == nil {
				break
			}
			more := p.take()
			if n := len(out.Series); n > from && out.Series[n-1].Partial && out.Series[n-1].Same(&more) {
				out.Series[n-1].Values = append(out.Series[n-1].Values, more.Values...)
				out.Series[n-1].Partial = more.Partial
				continue
			}
			out.Series = append(out.Series, more)
		}
	}
	out.Messages = append(out.Messages, messages(parts)...)
	return write(out)
}
