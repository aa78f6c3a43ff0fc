package query

import (
	"context"
	"errors"
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

// mergeSums gives one series for those of equal tags, with the sum of their values,
// in order of the tags.
func mergeSums(parts []*part, m *statement.Merge, write func(*result.Result) error) error {
	var sums []result.Series
	for _, p := range parts {
		for {
			s, err := p.peek(keepAll)
			if err != nil {
				return err
			}
			if s == nil {
				break
			}
			if sums, err = add(sums, p.take(), p.subtract); err != nil {
				return err
			}
		}
	}
	if len(sums) == 0 {
		return write(&result.Result{Messages: messages(parts)})
	}
	for i := range sums {
		s := &sums[i]
		s.Values[0][len(s.Values[0])-1].Num -= uint64(m.Less)
		if len(m.Columns) > 0 {
			s.Columns = m.Columns
		}
		if err := write(&result.Result{Series: sums[i : i+1], Partial: i+1 < len(sums)}); err != nil {
			return err
		}
	}
	return nil
}

// add adds the value of a series to the sum of those with its tags.
func add(sums []result.Series, s result.Series, subtract bool) ([]result.Series, error) {
	if len(s.Values) == 0 {
		return sums, nil
	}
	if len(s.Values) != 1 || len(s.Values[0]) == 0 {
		return nil, fmt.Errorf("a count has %d rows", len(s.Values))
	}
	last := len(s.Values[0]) - 1
	v := &s.Values[0][last]
	if !v.Whole() {
		return nil, errors.New("a count is no integer")
	}
	if subtract {
		v.Num = -v.Num
	}
	i, found := slices.BinarySearchFunc(sums, s.Tags, func(s result.Series, tags []result.Tag) int {
		return result.CompareTags(s.Tags, tags)
	})
	if !found {
		s.Name, s.Partial = "", false
		return slices.Insert(sums, i, s), nil
	}
	if len(sums[i].Values[0]) != last+1 {
		return nil, errors.New("counts have different columns")
	}
	sums[i].Values[0][last].Num += v.Num
	return sums, nil
}

// streams reads parts as rows, without those that do not belong to the answer.
func streams(parts []*part, m *statement.Merge) []*rows {
	all := make([]*rows, len(parts))
	for i, p := range parts {
		all[i] = &rows{part: p}
		if m.Filters() {
			all[i].keep = m.Keep
		}
	}
	return all
}

// byKey joins streams in the order of a key, which each of them has already.
type byKey struct {
	from    []*rows
	key     func(row []any) string
	started bool
	ready   []bool
	keys    []string // of the rows that from are at
	at      int
	err     error
}

func (b *byKey) advance(i int) bool {
	if b.ready[i] = b.from[i].Next(); b.ready[i] {
		b.keys[i] = b.key(plain(b.from[i].Values()))
	} else {
		b.err = b.from[i].Err()
	}
	return b.err == nil
}

// Next moves to the row with the least key; of equal ones to that of the first part.
func (b *byKey) Next() bool {
	if b.err != nil || b.at < 0 {
		return false
	}
	from := b.at
	if !b.started {
		b.started = true
		b.ready, b.keys = make([]bool, len(b.from)), make([]string, len(b.from))
		for i := range b.from {
			if !b.advance(i) {
				return false
			}
		}
	} else if !b.advance(from) {
		return false
	}
	b.at = -1
	for i, ready := range b.ready {
		if ready && (b.at < 0 || b.keys[i] < b.keys[b.at]) {
			b.at = i
		}
	}
	return b.at >= 0
}

// Series is the same for all: names and columns do not differ.
func (b *byKey) Series() *result.Series {
	for _, r := range b.from {
		if r.head != nil {
			return r.head
		}
	}
	return nil
}

func (b *byKey) Values() []result.Value { return b.from[b.at].Values() }
func (b *byKey) Err() error             { return b.err }
func (b *byKey) Close()                 {}

// mergeRows gives the rows of all parts in order.
func (x *execution) mergeRows(parts []*part, s *statement.Statement, m *statement.Merge, write func(*result.Result) error) error {
	merged := result.Limit(&byKey{from: streams(parts, m), key: m.Key}, result.Bounds{Limit: m.Limit, Offset: m.Offset})
	size := 0
	if _, chunked := s.AST.(*influxql.ShowSeriesStatement); chunked {
		size = x.q.chunkSize()
	}
	return result.Chunk(merged, size, result.Result{}, write)
}

// unite gives the rows of all parts, each first column once, part by part.
func unite(parts []*part, m *statement.Merge, write func(*result.Result) error) error {
	seen := map[result.Value]bool{}
	var all *result.Series
	for _, r := range streams(parts, m) {
		for r.Next() {
			if row := r.Values(); len(row) > 0 {
				if seen[row[0]] {
					continue
				}
				seen[row[0]] = true
			}
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
