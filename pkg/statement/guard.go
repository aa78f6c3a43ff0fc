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
	from []*influxql.Measurement // what it reads from itself
}

// hazards finds the calls of a SELECT that could end a server, going by the words
// alone: several measurements, and a function that the engine computes.
func hazards(ast *influxql.SelectStatement) (found []hazard) {
	eachSelect(ast, func(s *influxql.SelectStatement) {
		var from []*influxql.Measurement
		several := len(s.Sources) > 1
		for _, source := range s.Sources {
			if m, ok := source.(*influxql.Measurement); ok {
				from = append(from, m)
				several = several || m.Regex != nil
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
			if h := (hazard{call, ref, from}); h.fails(influxql.String) && (ref.Type == influxql.Unknown ||
				ref.Type == influxql.AnyField || h.fails(ref.Type)) {
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

// fails reports whether the function does not know a type.
func (h hazard) fails(t influxql.DataType) bool {
	switch h.computed() {
	case "mean", "sum":
		return t == influxql.String || t == influxql.Boolean
	case "min", "max":
		return t == influxql.String
	default:
		return false
	}
}

// guard returns the error that a server means to give for a SELECT whose names
// have their types.
func guard(ast *influxql.SelectStatement, known mapper) error {
	for _, h := range hazards(ast) {
		t := h.ref.Type
		if !h.fails(t) {
			continue
		}
		for _, m := range h.from {
			if _, ok := known.of(m).fields[h.ref.Val]; ok {
				return fmt.Errorf("unsupported %s iterator type: *query.%sInterruptIterator", h.computed(), t)
			}
		}
	}
	return nil
}
