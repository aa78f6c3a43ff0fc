package statement

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/influxdata/influxql"
)

func quote(name string) string { return influxql.QuoteIdent(name) }

// render writes a SELECT out so that a server reads exactly it again. What can't
// be written so is an error: a server must not be asked for something else.
func render(ast influxql.Statement) (string, error) {
	text := textOf(ast)
	again, err := influxql.ParseStatement(text)
	if err != nil {
		return "", fmt.Errorf("writing %q again: %w", text, err)
	}
	if read := textOf(again); read != text {
		return "", fmt.Errorf("writing %q again: it would be read as %q", text, read)
	}
	return text, nil
}

// textOf writes a statement out. The parser's own String cuts numbers to three
// digits and writes those of fill() so that they can't be read; here they are
// written in full.
func textOf(ast influxql.Statement) string {
	var restore []func()
	rewrite(ast, func(e influxql.Expr) influxql.Expr {
		if n, ok := e.(*influxql.NumberLiteral); ok {
			return exactNumber{n}
		}
		return e
	})
	eachSelect(ast, func(s *influxql.SelectStatement) {
		if v, ok := s.FillValue.(float64); ok {
			s.FillValue = decimal(v)
			restore = append(restore, func() { s.FillValue = v })
		}
	})
	text := written(ast)
	rewrite(ast, func(e influxql.Expr) influxql.Expr {
		if n, ok := e.(exactNumber); ok {
			return n.NumberLiteral
		}
		return e
	})
	for _, undo := range restore {
		undo()
	}
	return text
}

// written is the parser's own text of a statement, with the one name quoted that
// it leaves bare.
func written(ast influxql.Statement) string {
	if s, ok := ast.(*influxql.ShowMeasurementsStatement); ok && s.Database != "" {
		q := *s
		q.Database = quote(s.Database)
		return q.String()
	}
	return ast.String()
}

// exactNumber is a number whose text is read as the same number again.
type exactNumber struct {
	*influxql.NumberLiteral
}

func (n exactNumber) String() string { return decimal(n.Val) }

func decimal(v float64) string {
	s := strconv.FormatFloat(v, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0" // or it would be read as an integer
	}
	return s
}

// eachSelect calls do for a SELECT and those within it.
func eachSelect(ast influxql.Statement, do func(*influxql.SelectStatement)) {
	switch s := ast.(type) {
	case *influxql.ExplainStatement:
		eachSelect(s.Statement, do)
	case *influxql.SelectStatement:
		do(s)
		for _, source := range s.Sources {
			if sub, ok := source.(*influxql.SubQuery); ok {
				eachSelect(sub.Statement, do)
			}
		}
	}
}

// rewrite replaces expressions of a statement, at all depths, from the inside out.
func rewrite(ast influxql.Statement, with func(influxql.Expr) influxql.Expr) {
	switch s := ast.(type) {
	case *influxql.SelectStatement:
		for _, f := range s.Fields {
			f.Expr = influxql.RewriteExpr(f.Expr, with)
		}
		for _, d := range s.Dimensions {
			d.Expr = influxql.RewriteExpr(d.Expr, with)
		}
		s.Condition = rewriteExpr(s.Condition, with)
		for _, source := range s.Sources {
			if sub, ok := source.(*influxql.SubQuery); ok {
				rewrite(sub.Statement, with)
			}
		}
	case *influxql.ExplainStatement:
		rewrite(s.Statement, with)
	default:
		if c := conditionOf(ast); c != nil {
			*c = rewriteExpr(*c, with)
		}
	}
}

// conditionOf returns where a statement that is no SELECT keeps its condition; nil
// if it can't have one.
func conditionOf(ast influxql.Statement) *influxql.Expr {
	switch s := ast.(type) {
	case *influxql.DeleteSeriesStatement:
		return &s.Condition
	case *influxql.DropSeriesStatement:
		return &s.Condition
	case *influxql.ShowMeasurementsStatement:
		return &s.Condition
	case *influxql.ShowSeriesStatement:
		return &s.Condition
	case *influxql.ShowTagKeysStatement:
		return &s.Condition
	case *influxql.ShowTagValuesStatement:
		return &s.Condition
	case *influxql.ShowMeasurementCardinalityStatement:
		return &s.Condition
	case *influxql.ShowSeriesCardinalityStatement:
		return &s.Condition
	case *influxql.ShowTagKeyCardinalityStatement:
		return &s.Condition
	case *influxql.ShowTagValuesCardinalityStatement:
		return &s.Condition
	case *influxql.ShowFieldKeyCardinalityStatement:
		return &s.Condition
	default:
		return nil
	}
}

func rewriteExpr(e influxql.Expr, with func(influxql.Expr) influxql.Expr) influxql.Expr {
	if e == nil {
		return nil
	}
	return influxql.RewriteExpr(e, with)
}
