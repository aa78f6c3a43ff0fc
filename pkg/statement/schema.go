package statement

import (
	"fmt"
	"maps"
	"strings"

	"github.com/influxdata/influxql"
)

// schema is what the backends know about the fields and tags of one source: the
// union over all of them, each field with the type that one server with all of it
// would take it for.
type schema struct {
	fields map[string]influxql.DataType
	tags   map[string]struct{}
}

// absentTag is a tag that nothing has: no series matches, so that nothing is read
// to answer a probe.
const absentTag = "ringmaster: no such tag"

// auxiliary begins the line of a plan that lists what is read.
const auxiliary = "AUXILIARY FIELDS: "

// add reads the answer to a probe: the plan for reading everything, whose
// references carry the types in the time range of the query.
func (s *schema) add(lines []string) error {
	for _, line := range lines {
		list, ok := strings.CutPrefix(line, auxiliary)
		if !ok {
			continue
		}
		ast, err := influxql.ParseStatement("SELECT " + list + " FROM x")
		if err != nil {
			return fmt.Errorf("reading the fields %q: %w", list, err)
		}
		read, ok := ast.(*influxql.SelectStatement)
		if !ok {
			return fmt.Errorf("reading the fields %q: no fields", list)
		}
		for _, f := range read.Fields {
			ref, ok := f.Expr.(*influxql.VarRef)
			switch {
			case !ok:
				return fmt.Errorf("reading the fields %q: %s is none", list, f)
			case ref.Type == influxql.Unknown: // that of nothing
			case ref.Type == influxql.Tag:
				s.tags[ref.Val] = struct{}{}
			case s.fields[ref.Val].LessThan(ref.Type):
				s.fields[ref.Val] = ref.Type
			}
		}
	}
	return nil
}

// mapper answers what influxql asks about sources when it expands wildcards and
// finds types, by the text of the source.
type mapper map[string]*schema

func (m mapper) of(source *influxql.Measurement) *schema {
	key := source.String()
	s, ok := m[key]
	if !ok {
		s = &schema{fields: map[string]influxql.DataType{}, tags: map[string]struct{}{}}
		m[key] = s
	}
	return s
}

// FieldDimensions returns copies, since the caller changes them.
func (m mapper) FieldDimensions(source *influxql.Measurement) (
	fields map[string]influxql.DataType, dimensions map[string]struct{}, err error,
) {
	s := m.of(source)
	return maps.Clone(s.fields), maps.Clone(s.tags), nil
}

// MapType is how a server finds the type of a name: that of the field, or it is a
// tag, or not known.
func (m mapper) MapType(source *influxql.Measurement, name string) influxql.DataType {
	switch name {
	case "_name", "_tagKey", "_tagValue", "_seriesKey":
		return influxql.String
	}
	s := m.of(source)
	if t, ok := s.fields[name]; ok {
		return t
	}
	if _, ok := s.tags[name]; ok {
		return influxql.Tag
	}
	return influxql.Unknown
}

// CallType is what a server takes the result of a function for where a query reads
// it from a query within it. It takes functions of one argument for being of its
// type, whatever they do.
func (m mapper) CallType(name string, args []influxql.DataType) (influxql.DataType, error) {
	switch name {
	case "mean", "median", "integral", "stddev", "derivative", "non_negative_derivative", "moving_average",
		"exponential_moving_average", "double_exponential_moving_average", "triple_exponential_moving_average",
		"relative_strength_index", "triple_exponential_derivative", "kaufmans_efficiency_ratio",
		"kaufmans_adaptive_moving_average", "chande_momentum_oscillator", "holt_winters", "holt_winters_with_fit":
		return influxql.Float, nil
	case "count", "elapsed":
		return influxql.Integer, nil
	}
	if len(args) == 0 {
		return influxql.Unknown, nil
	}
	return args[0], nil
}
