package statement

import (
	"fmt"

	"github.com/influxdata/influxql"
)

// InfluxDB 1.8.3 has statements that end its process: a function that does not
// know the type of a field fails in one measurement after another measurement has
// had nothing to say, and the server then closes what was never opened. Who asks
// another circle after that ends that one too. So such statements get the error
// that the server means to give, and no server sees them.

// hazard is a call of a function that may not know the type of its field.
type hazard struct {
	call *influxql.Call
	ref  *influxql.VarRef
	// What it reads from: itself, and by other queries.
	from   []*influxql.Measurement
	within []*influxql.SelectStatement
}

// hazards finds the calls of a SELECT that could end a server, going by the words
// alone: several measurements, and a function that the engine computes.
func hazards(ast *influxql.SelectStatement) (found []hazard) {
	eachSelect(ast, func(s *influxql.SelectStatement) {
		var from []*influxql.Measurement
		var within []*influxql.SelectStatement
		several := len(s.Sources) > 1
		for _, source := range s.Sources {
			switch source := source.(type) {
			case *influxql.Measurement:
				from = append(from, source)
				several = several || source.Regex != nil
			case *influxql.SubQuery:
				within = append(within, source.Statement)
			}
		}
		if !several || len(from) == 0 {
			return
		}
		influxql.WalkFunc(s.Fields, func(n influxql.Node) {
			call, ok := n.(*influxql.Call)
			if !ok || len(call.Args) == 0 {
				return
			}
			ref, ok := call.Args[0].(*influxql.VarRef)
			if !ok {
				return // wildcards expand to what the function knows
			}
			h := hazard{call, ref, from, within}
			if _, fails := h.fails(influxql.String); !fails {
				return
			}
			if _, fails := h.fails(ref.Type); fails || ref.Type == influxql.Unknown || ref.Type == influxql.AnyField {
				found = append(found, h)
			}
		})
	})
	return found
}

// computed is the function that the engine computes for the call.
func (h hazard) computed() string {
	switch name := h.call.Name; {
	case name == "top" && len(h.call.Args) > 2:
		return "max"
	case name == "bottom" && len(h.call.Args) > 2:
		return "min"
	default:
		return name
	}
}

// fails reports whether the function does not know a type, and what it is read as.
func (h hazard) fails(t influxql.DataType) (as influxql.DataType, fails bool) {
	if as = t; t == influxql.Tag {
		as = influxql.String
	}
	switch h.computed() {
	case "mean", "sum":
		return as, as == influxql.String || as == influxql.Boolean
	case "min", "max":
		return as, as == influxql.String
	default:
		return as, false
	}
}

// guard returns the error that a server means to give for a SELECT whose names
// have their types.
func guard(ast *influxql.SelectStatement, known mapper) error {
	for _, h := range hazards(ast) {
		if as, fails := h.fails(h.ref.Type); fails && h.read(known) {
			return fmt.Errorf("unsupported %s iterator type: *query.%sInterruptIterator", h.computed(), as)
		}
	}
	return nil
}

// read reports whether anything has what the call is about. Tags of measurements
// are no fields: a function answers nothing about them.
func (h hazard) read(known mapper) bool {
	for _, m := range h.from {
		if _, ok := known.of(m).fields[h.ref.Val]; ok && h.ref.Type != influxql.Tag {
			return true
		}
	}
	for _, s := range h.within {
		if _, e := s.FieldExprByName(h.ref.Val); e != nil {
			return true
		}
		for _, d := range s.Dimensions {
			if ref, ok := d.Expr.(*influxql.VarRef); ok && ref.Val == h.ref.Val {
				return true
			}
		}
	}
	return false
}
