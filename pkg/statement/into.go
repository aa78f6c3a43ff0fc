package statement

import (
	"fmt"
	"strings"

	"github.com/influxdata/influxql"
)

// Target is where SELECT … INTO writes.
type Target struct {
	// Database is that of the clause or of the request.
	Database string
	// RetentionPolicy is that of the clause or of the request; "" means the
	// database's default.
	RetentionPolicy string
	// Measurement is "" for :MEASUREMENT, the name of each series that is read.
	Measurement string
	// TagColumns are columns whose values become tags: those that top() and
	// bottom() select by. The tags of a series become tags too, an empty value
	// none; all other columns but time become fields, a null none. A row without
	// fields is not written and not counted. Without a column time the statement
	// fails: NoTime.
	TagColumns []string
	// NoTime is the error if the rows have no column called time; "" if they have.
	NoTime string
}

// Target returns where an Into statement writes; nil for others.
func (s *Statement) Target() *Target {
	ast, ok := s.AST.(*influxql.SelectStatement)
	if !ok || ast.Target == nil {
		return nil
	}
	m := ast.Target.Measurement
	t := &Target{Database: s.databaseOf(m), RetentionPolicy: m.RetentionPolicy, Measurement: m.Name}
	if t.RetentionPolicy == "" {
		t.RetentionPolicy = s.defaults.RetentionPolicy
	}
	for _, f := range ast.Fields {
		switch e := f.Expr.(type) {
		case *influxql.VarRef:
			if e.Val == "time" && f.Alias != "" && f.Alias != "time" {
				t.NoTime = "error finding time index in result"
			}
		case *influxql.Call:
			if e.Name == "top" || e.Name == "bottom" {
				t.TagColumns = append(t.TagColumns, tagArgs(e)...)
			}
		}
	}
	return t
}

// tagArgs are the arguments of top() or bottom() between the field and the number.
func tagArgs(call *influxql.Call) []string {
	var names []string
	for i, arg := range call.Args {
		if ref, ok := arg.(*influxql.VarRef); ok && i > 0 {
			names = append(names, ref.Val)
		}
	}
	return names
}

// Warning is the message that a server adds to the answer when the statement
// changes something and was asked for by GET; "" if there is none. defaultRP
// returns the default retention policy of a database, which the message names.
func (s *Statement) Warning(defaultRP func(database string) string) string {
	var text string
	switch ast := s.AST.(type) {
	case *influxql.SelectStatement:
		if ast.Target == nil {
			return ""
		}
		c := ast.Clone()
		c.Target.Measurement.IsTarget = true
		for _, m := range append(leaves(c.Sources), c.Target.Measurement) {
			m.Database = s.databaseOf(m)
			switch {
			case m.RetentionPolicy != "":
			case s.defaults.RetentionPolicy != "":
				m.RetentionPolicy = s.defaults.RetentionPolicy
			default:
				m.RetentionPolicy = defaultRP(m.Database)
			}
		}
		text = c.String()
	case *influxql.DeleteSeriesStatement:
		return "" // the one that a server says nothing about
	default:
		if s.Class != CreateEverywhere && s.Class != DropEverywhere {
			return ""
		}
		text = s.AST.String()
	}
	return fmt.Sprintf("deprecated use of '%s' in a read only context, please use a POST request instead", text)
}

// Everywhere is the text to send to every backend for CreateEverywhere and
// DropEverywhere: now() has the same value for all of them. original says that it
// has to be sent with the params of the request.
func (s *Statement) Everywhere() (text string, original bool, err error) {
	ast, ok := s.AST.(*influxql.DeleteSeriesStatement)
	if !ok || ast.Condition == nil || !strings.Contains(ast.Condition.String(), "now()") {
		return s.Text, true, nil
	}
	fixed := *ast
	fixed.Condition = withNow(influxql.CloneExpr(ast.Condition), s.defaults.Now.UTC())
	text, err = render(&fixed)
	return text, false, err
}
