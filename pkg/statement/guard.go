package statement

import (
	"fmt"
	"slices"
	"strings"

	"github.com/influxdata/influxql"
)

// InfluxDB 1.8.3 has statements that end its process: where a query reads several
// sources, one of them a measurement that has nothing to say, and another fails
// because a function does not know the type of its field, the server closes what
// was never opened. Who asks another circle after that ends that one too. So such
// statements get the error that the server means to give, and no server sees them.

// hazard is a call of a function that may not know the type of its field.
type hazard struct {
	call *influxql.Call
	ref  *influxql.VarRef // nil for a wildcard
	// What its query reads from: itself, and by other queries.
	from   []*influxql.Measurement
	within []*influxql.SelectStatement
}

// hazards finds the calls of a SELECT that could end a server, going by the words
// alone.
func hazards(ast *influxql.SelectStatement) (found []hazard) {
	eachSelect(ast, func(s *influxql.SelectStatement) {
		from, within, several := sourcesOf(s)
		if !several || len(from) == 0 {
			return
		}
		for _, h := range callsOf(s) {
			if h.engine() {
				found = append(found, h)
			}
		}
		for _, sub := range within {
			eachSelect(sub, func(s *influxql.SelectStatement) { found = append(found, callsOf(s)...) })
		}
	})
	return found
}

// sourcesOf returns what a query reads from, and whether that may be several.
func sourcesOf(s *influxql.SelectStatement) (from []*influxql.Measurement, within []*influxql.SelectStatement, several bool) {
	several = len(s.Sources) > 1
	for _, source := range s.Sources {
		switch source := source.(type) {
		case *influxql.Measurement:
			from = append(from, source)
			several = several || source.Regex != nil
		case *influxql.SubQuery:
			within = append(within, source.Statement)
		}
	}
	return from, within, several
}

// callsOf returns the calls of a query, but not of those within it, that fail for
// some types which their field may have. Wildcards expand to what the function
// knows, unless a query within groups by a tag of that name.
func callsOf(s *influxql.SelectStatement) (found []hazard) {
	from, within, _ := sourcesOf(s)
	influxql.WalkFunc(s.Fields, func(n influxql.Node) {
		call, ok := n.(*influxql.Call)
		if !ok || len(call.Args) == 0 {
			return
		}
		grouped := slices.ContainsFunc(within, func(s *influxql.SelectStatement) bool { return len(s.Dimensions) > 0 })
		h := hazard{call: call, from: from, within: within}
		if _, may := h.fails(influxql.String); !may {
			return
		}
		switch arg := call.Args[0].(type) {
		case *influxql.VarRef:
			h.ref = arg
			_, fails := h.fails(arg.Type)
			if fails || grouped || arg.Type == influxql.Unknown || arg.Type == influxql.AnyField {
				found = append(found, h)
			}
		case *influxql.Wildcard, *influxql.RegexLiteral:
			if grouped {
				found = append(found, h)
			}
		}
	})
	return found
}

// computed is the function that a server computes for the call.
func (h hazard) computed() string {
	switch name := h.call.Name; {
	case name == "top" && len(h.call.Args) > 2:
		return "max"
	case name == "bottom" && len(h.call.Args) > 2:
		return "min"
	default:
		return strings.TrimPrefix(name, "non_negative_")
	}
}

// engine reports whether the storage engine computes the function, source by
// source.
func (h hazard) engine() bool {
	switch h.computed() {
	case "mean", "sum", "min", "max":
		return true
	default:
		return false
	}
}

// fails reports whether the function does not know a type, and what it is read as.
func (h hazard) fails(t influxql.DataType) (as influxql.DataType, fails bool) {
	if as = t; t == influxql.Tag {
		as = influxql.String
	}
	switch h.computed() {
	case "min", "max":
		return as, as == influxql.String
	case "count", "first", "last", "distinct", "mode", "sample", "elapsed", "time":
		return as, false
	case "abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "exp", "floor", "ln", "log", "log2", "log10", "pow",
		"round", "sin", "sqrt", "tan":
		return as, false // no functions of points
	default:
		return as, as == influxql.String || as == influxql.Boolean
	}
}

// guard returns the error that a server means to give for a SELECT whose names
// have their types.
func guard(ast *influxql.SelectStatement, known mapper) error {
	for _, h := range hazards(ast) {
		if h.ref == nil {
			continue
		}
		as, fails := h.fails(h.ref.Type)
		if fails = fails && h.read(known); !fails && h.grouped() {
			as, fails = h.fails(influxql.Tag)
		}
		if fails {
			return fmt.Errorf("unsupported %s iterator type: *query.%sInterruptIterator",
				strings.ReplaceAll(h.computed(), "_", " "), as)
		}
	}
	return nil
}

// read reports whether anything has a field that the call is about. Tags of
// measurements are none: a function answers nothing about them.
func (h hazard) read(known mapper) bool {
	for _, m := range h.from {
		if _, ok := known.of(m).fields[h.ref.Val]; ok && h.ref.Type != influxql.Tag {
			return true
		}
	}
	return slices.ContainsFunc(h.within, func(s *influxql.SelectStatement) bool {
		_, e := s.FieldExprByName(h.ref.Val)
		return e != nil
	})
}

// grouped reports whether a query within offers what the call is about as a tag,
// which is read as a string whatever type the name has.
func (h hazard) grouped() bool {
	return slices.ContainsFunc(h.within, func(s *influxql.SelectStatement) bool {
		if _, e := s.FieldExprByName(h.ref.Val); e != nil {
			return false
		}
		return slices.ContainsFunc(s.Dimensions, func(d *influxql.Dimension) bool {
			ref, ok := d.Expr.(*influxql.VarRef)
			return ok && ref.Val == h.ref.Val
		})
	})
}
