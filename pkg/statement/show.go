package statement

import (
	"slices"
	"strings"

	"github.com/influxdata/influxql"
)

// The columns of what a server estimates.
const estimation = "cardinality estimation"

// planShow plans a SHOW about data.
func (s *Statement) planShow(c Circle) (*Plan, error) {
	if _, ok := s.AST.(*influxql.ShowDatabasesStatement); ok {
		p := &Plan{Merge: Merge{Kind: Union, keep: func(_, _ string, row []any) bool { return len(row) > 0 && row[0] != Hidden }}}
		return p, s.everyone(p, c.Backends)
	}
	if len(c.Backends) == 1 {
		return s.pass(c.Backends[0]), nil // it owns all it holds
	}
	db, err := s.onlyDatabase()
	if err != nil {
		return nil, err
	}
	backends := s.concerned(c, db)
	if len(backends) == 1 {
		return s.pass(backends[0]), nil
	}
	owned := func(backend, measurement string) bool { return c.Owner(db, measurement) == backend }
	p := &Plan{Merge: Merge{Kind: BySeries, keep: func(backend, series string, _ []any) bool { return owned(backend, series) }}}
	switch ast := s.AST.(type) {
	case *influxql.ShowMeasurementsStatement:
		q := *ast
		q.Limit, q.Offset = 0, 0
		p.Merge = rowsOf(ast.Limit, ast.Offset, owned, func(v string) string { return v })
		return p, s.ask(p, backends, &q)
	case *influxql.ShowSeriesStatement:
		q := *ast
		q.Limit, q.Offset = 0, 0
		p.Merge = rowsOf(ast.Limit, ast.Offset, owned, MeasurementOf)
		if influxql.HasTimeExpr(ast.Condition) {
			// Answered from the points, in the order of the keys as they are written.
			p.Merge.key = firstOf
		}
		return p, s.ask(p, backends, &q)
	case *influxql.ShowFieldKeysStatement:
		p.Merge.Descending = len(ast.SortFields) > 0 && !ast.SortFields[0].Ascending
	case *influxql.ShowMeasurementCardinalityStatement:
		if estimated(ast.Exact, ast.Sources, ast.Condition, ast.Dimensions, ast.Limit, ast.Offset) {
			return s.planEstimate(c, db, false)
		}
		return s.planCount(c, Sum)
	case *influxql.ShowSeriesCardinalityStatement:
		if estimated(ast.Exact, ast.Sources, ast.Condition, ast.Dimensions, ast.Limit, ast.Offset) {
			return s.planEstimate(c, db, true)
		}
	}
	if _, grouped := s.open(); grouped {
		return s.planCount(c, BySeries)
	}
	return p, s.everyone(p, backends)
}

func rowsOf(limit, offset int, owned func(backend, measurement string) bool, measurement func(string) string) Merge {
	text := func(row []any) string { return measurement(firstOf(row)) }
	return Merge{
		Kind: Rows, Limit: limit, Offset: offset, key: text,
		keep: func(backend, _ string, row []any) bool { return owned(backend, text(row)) },
	}
}

// firstOf is the first column of a row, a string.
func firstOf(row []any) string {
	if len(row) == 0 {
		return ""
	}
	v, _ := row[0].(string)
	return v
}

// onlyDatabase is the database that the statement is about. A server would show what two
// databases have of one name as one.
func (s *Statement) onlyDatabase() (string, error) {
	db, first := s.Database, true
	switch s.AST.(type) {
	case *influxql.ShowMeasurementsStatement, *influxql.ShowTagKeysStatement, *influxql.ShowTagValuesStatement:
		return db, nil // a server only looks at the names
	}
	for _, m := range s.measurements() {
		of := s.databaseOf(m)
		if !first && of != db {
			return "", refuse("%s and %s are on different backends: ask for one database at a time", quote(db), quote(of))
		}
		db, first = of, false
	}
	return db, nil
}

// concerned are the backends that can have something to say: all of them, unless
// the statement names its measurements.
func (s *Statement) concerned(c Circle, db string) []string {
	from := s.measurements()
	if len(from) == 0 || slices.ContainsFunc(from, func(m *influxql.Measurement) bool { return m.Regex != nil }) {
		return c.Backends
	}
	return slices.DeleteFunc(slices.Clone(c.Backends), func(b string) bool {
		return !slices.ContainsFunc(from, func(m *influxql.Measurement) bool { return c.Owner(db, m.Name) == b })
	})
}

// everyone asks backends what the client asked.
func (s *Statement) everyone(p *Plan, backends []string) error {
	if s.mentionsNow() {
		return s.ask(p, backends, s.AST)
	}
	for _, b := range backends {
		p.Parts = append(p.Parts, s.whole(b))
	}
	return nil
}

// ask asks backends all the same.
func (s *Statement) ask(p *Plan, backends []string, ast influxql.Statement) error {
	text, err := s.written(ast)
	if err != nil {
		return err
	}
	for _, b := range backends {
		p.Parts = append(p.Parts, Ask{Backend: b, Text: text})
	}
	return nil
}

// written writes a statement out, with the request's time for now().
func (s *Statement) written(ast influxql.Statement) (string, error) {
	c := conditionOf(ast)
	if c == nil || *c == nil {
		return render(ast)
	}
	was := *c
	defer func() { *c = was }()
	*c = withNow(influxql.CloneExpr(was), s.defaults.Now.UTC())
	return render(ast)
}

func (s *Statement) mentionsNow() (found bool) {
	if c := conditionOf(s.AST); c != nil && *c != nil {
		influxql.WalkFunc(*c, func(n influxql.Node) {
			if e, ok := n.(influxql.Expr); ok && isNow(e) {
				found = true
			}
		})
	}
	return found
}

// estimated reports whether a server estimates a cardinality instead of counting.
func estimated(exact bool, sources influxql.Sources, where influxql.Expr, by influxql.Dimensions, limit, offset int) bool {
	return !exact && sources == nil && where == nil && by == nil && limit == 0 && offset == 0
}

// planEstimate adds up what backends estimate for a database, less what they hold
// without owning it.
func (s *Statement) planEstimate(c Circle, db string, series bool) (*Plan, error) {
	p := &Plan{Merge: Merge{Kind: Sum, Columns: []string{estimation}}}
	if err := s.everyone(p, c.Backends); err != nil {
		return nil, err
	}
	for _, b := range c.Backends {
		left := slices.DeleteFunc(slices.Clone(c.Measurements(b, db)), func(name string) bool { return c.Owner(db, name) == b })
		if len(left) == 0 {
			continue
		}
		if !series {
			p.Merge.Less += int64(len(left))
			continue
		}
		q := &influxql.ShowSeriesCardinalityStatement{Database: db, Exact: true, Sources: named(&influxql.Measurement{}, left)}
		text, err := render(q)
		if err != nil {
			return nil, err
		}
		p.Parts = append(p.Parts, Ask{Backend: b, Text: text, Subtract: true})
	}
	return p, nil
}

// planCount plans counts that have to be asked for by names, since they can't be
// filtered by measurement afterwards, or since what they are grouped by is found
// over all measurements.
func (s *Statement) planCount(c Circle, kind Kind) (*Plan, error) {
	from, grouped := s.open()
	if len(from) == 0 {
		from = influxql.Sources{&influxql.Measurement{Regex: everything()}}
	}
	p := &split{s: s, ast: &influxql.SelectStatement{
		Fields: influxql.Fields{{Expr: &influxql.VarRef{Val: absentTag}}}, Sources: from, Dimensions: s.dimensions(),
	}}
	owners := map[string]bool{}
	for _, m := range leaves(from) {
		at := s.place(m, c)
		p.placed = append(p.placed, at)
		for b := range at.owned {
			owners[b] = true
		}
	}
	p.owners = slices.DeleteFunc(slices.Clone(c.Backends), func(b string) bool { return !owners[b] })
	if len(p.owners) == 0 {
		return s.pass(c.Backends[0]), nil // nothing matches: it will say so
	}
	plan := &Plan{Merge: Merge{Kind: kind}}
	finish := func(by influxql.Dimensions) error {
		for _, b := range p.owners {
			at := 0
			text, err := s.written(s.withSources(p.of(from, b, &at), by))
			if err != nil {
				return err
			}
			plan.Parts = append(plan.Parts, Ask{Backend: b, Text: text})
		}
		return nil
	}
	if !grouped || len(p.owners) == 1 {
		return plan, finish(s.dimensions())
	}
	known, probes, into, err := p.ask(nil)
	if err != nil {
		return nil, err
	}
	plan.Probes = probes
	plan.resolve = func(answers [][]string) error {
		if err := learn(into, answers); err != nil {
			return err
		}
		expanded, err := p.ast.RewriteFields(known)
		if err != nil {
			return err
		}
		return finish(expanded.Dimensions)
	}
	return plan, nil
}

// open returns the sources of a cardinality and whether what it is grouped by has
// to be found out.
func (s *Statement) open() (from influxql.Sources, grouped bool) {
	switch ast := s.AST.(type) {
	case *influxql.ShowMeasurementCardinalityStatement:
		from = ast.Sources
	case *influxql.ShowSeriesCardinalityStatement:
		from = ast.Sources
	case *influxql.ShowTagKeyCardinalityStatement:
		from = ast.Sources
	case *influxql.ShowTagValuesCardinalityStatement:
		from = ast.Sources
	case *influxql.ShowFieldKeyCardinalityStatement:
		from = ast.Sources
	}
	for _, d := range s.dimensions() {
		switch d.Expr.(type) {
		case *influxql.Wildcard, *influxql.RegexLiteral:
			grouped = true
		}
	}
	return from, grouped
}

func (s *Statement) dimensions() influxql.Dimensions {
	switch ast := s.AST.(type) {
	case *influxql.ShowMeasurementCardinalityStatement:
		return ast.Dimensions
	case *influxql.ShowSeriesCardinalityStatement:
		return ast.Dimensions
	case *influxql.ShowTagKeyCardinalityStatement:
		return ast.Dimensions
	case *influxql.ShowTagValuesCardinalityStatement:
		return ast.Dimensions
	case *influxql.ShowFieldKeyCardinalityStatement:
		return ast.Dimensions
	default:
		return nil
	}
}

// withSources is a cardinality from other sources, grouped by other tags.
func (s *Statement) withSources(from influxql.Sources, by influxql.Dimensions) influxql.Statement {
	switch ast := s.AST.(type) {
	case *influxql.ShowMeasurementCardinalityStatement:
		q := *ast
		q.Sources, q.Dimensions = from, by
		return &q
	case *influxql.ShowSeriesCardinalityStatement:
		q := *ast
		q.Sources, q.Dimensions = from, by
		return &q
	case *influxql.ShowTagKeyCardinalityStatement:
		q := *ast
		q.Sources, q.Dimensions = from, by
		return &q
	case *influxql.ShowTagValuesCardinalityStatement:
		q := *ast
		q.Sources, q.Dimensions = from, by
		return &q
	case *influxql.ShowFieldKeyCardinalityStatement:
		q := *ast
		q.Sources, q.Dimensions = from, by
		return &q
	default:
		return s.AST
	}
}

// listsOfShow names the databases of which planShow has to know what backends hold.
func (s *Statement) listsOfShow() []string {
	from, grouped := s.open()
	switch s.AST.(type) {
	case *influxql.ShowMeasurementCardinalityStatement, *influxql.ShowSeriesCardinalityStatement:
	default:
		if !grouped {
			return nil
		}
	}
	if len(from) == 0 {
		if s.Database == "" {
			return nil
		}
		return []string{s.Database}
	}
	var lists []string
	for _, m := range leaves(from) {
		if m.Regex != nil {
			lists = append(lists, s.databaseOf(m))
		}
	}
	return lists
}

// MeasurementOf returns the measurement of a series key as SHOW SERIES writes it:
// the name up to the first comma that is not escaped.
func MeasurementOf(key string) string {
	end := len(key)
	for i := 0; i < len(key); i++ {
		if key[i] == '\\' {
			i++
		} else if key[i] == ',' {
			end = i
			break
		}
	}
	return strings.NewReplacer(`\,`, `,`, `\ `, ` `).Replace(key[:end])
}
