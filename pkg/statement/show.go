package statement

import (
	"strings"

	"github.com/influxdata/influxql"
)

// listsOfShow names the databases whose leftovers have to be known before a count
// that can't be filtered by measurement.
func (s *Statement) listsOfShow() []string {
	switch s.AST.(type) {
	case *influxql.ShowMeasurementCardinalityStatement, *influxql.ShowSeriesCardinalityStatement:
		if s.Database != "" {
			return []string{s.Database}
		}
	}
	return nil
}

func (s *Statement) planShow(c Circle) (*Plan, error) {
	if len(c.Backends) == 1 && s.ownsAll(c) {
		return s.pass(c.Backends[0]), nil
	}
	p := &Plan{Merge: Merge{Kind: BySeries, keep: s.owned(c)}}
	original := func() {
		for _, b := range c.Backends {
			p.Parts = append(p.Parts, s.whole(b))
		}
	}
	switch ast := s.AST.(type) {
	case *influxql.ShowDatabasesStatement:
		p.Merge = Merge{Kind: Union, keep: func(_, _ string, row []any) bool { return len(row) > 0 && row[0] != Hidden }}
		original()
	case *influxql.ShowMeasurementsStatement:
		q := *ast
		q.Limit, q.Offset = 0, 0
		p.Merge = Merge{Kind: Rows, Limit: ast.Limit, Offset: ast.Offset, keep: s.ownedRow(c, func(v string) string { return v })}
		return p, s.everyone(p, c, &q)
	case *influxql.ShowSeriesStatement:
		q := *ast
		q.Limit, q.Offset = 0, 0
		p.Merge = Merge{Kind: Rows, Limit: ast.Limit, Offset: ast.Offset, keep: s.ownedRow(c, MeasurementOf)}
		return p, s.everyone(p, c, &q)
	default:
		original()
	}
	return p, nil
}

// everyone asks all backends the same.
func (s *Statement) everyone(p *Plan, c Circle, ast influxql.Statement) error {
	text, err := render(ast)
	if err != nil {
		return err
	}
	for _, b := range c.Backends {
		p.Parts = append(p.Parts, Ask{Backend: b, Text: text})
	}
	return nil
}

// ownsAll reports whether the only backend can hold nothing that it does not own.
func (s *Statement) ownsAll(Circle) bool {
	_, databases := s.AST.(*influxql.ShowDatabasesStatement)
	return !databases
}

// owned keeps series named by measurements that the backend owns.
func (s *Statement) owned(c Circle) func(backend, series string, row []any) bool {
	return func(backend, series string, _ []any) bool { return c.Owner(s.Database, series) == backend }
}

// ownedRow keeps rows whose first column says of which measurement they are.
func (s *Statement) ownedRow(c Circle, measurement func(string) string) func(backend, series string, row []any) bool {
	return func(backend, _ string, row []any) bool {
		if len(row) == 0 {
			return false
		}
		v, ok := row[0].(string)
		return ok && c.Owner(s.Database, measurement(v)) == backend
	}
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
