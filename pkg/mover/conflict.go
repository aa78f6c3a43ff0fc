package mover

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
)

// codeTypeConflict is the code of a slice of which a field could not be copied,
// since the server that was to get it holds the field with another type.
const codeTypeConflict = "type_conflict"

// maxWithheld bounds the fields of one slice that are left out of its copy: each
// costs a try, as a server names one at a time.
const maxWithheld = 64

// withheld are the fields that are left out while one slice is copied, and the
// words of the first refusal.
type withheld struct {
	fields []string
	why    string
}

// withhold leaves the field that a server has refused for its type out of the
// next try of a slice, so that everything else arrives all the same. It returns
// false when err is about something else.
func (t *transfer) withhold(s *operation.Slice, err error) bool {
	field, ok := conflictingField(s.Measurement, err)
	if !ok || slices.Contains(t.withheld.fields, field) || len(t.withheld.fields) >= maxWithheld {
		return false
	}
	if t.withheld.why == "" {
		t.withheld.why = err.Error()
	}
	t.withheld.fields = append(t.withheld.fields, field)
	return true
}

// withheldProblem reports a slice of which fields were left out.
func (t *transfer) withheldProblem(i int) operation.SliceError {
	return operation.SliceError{
		Index: i, Slice: t.slices[i], Code: codeTypeConflict,
		Detail: operation.Clip(fmt.Sprintf("fields %q have another type at %s than at %s in this shard group, where InfluxDB keeps one; all other fields were copied. "+
			"Rewrite these with one type at one of the two (for example with SELECT … INTO another measurement) and start the operation again: %s",
			slices.Sorted(slices.Values(t.withheld.fields)), t.destination.URL(), t.source.URL(), t.withheld.why)),
	}
}

// conflictingField finds the field of a measurement that a server has refused to
// store because of its type: `input field "f" on measurement "m" is type float,
// already exists as type integer`, names unescaped.
func conflictingField(measurement string, err error) (string, bool) {
	var refusal *influx.Error
	if !errors.As(err, &refusal) || !strings.Contains(refusal.Message, "field type conflict") {
		return "", false
	}
	_, rest, ok := strings.Cut(refusal.Message, `input field "`)
	if !ok {
		return "", false
	}
	field, _, ok := strings.Cut(rest, `" on measurement "`+measurement+`" is type `)
	return field, ok
}

// mask leaves fields out of rows.
type mask struct {
	without []string
	// out marks the columns of the series at hand.
	out    []bool
	values []lineproto.Value
}

// setFields tells the mask the columns of the rows that follow.
func (m *mask) setFields(fields []string) {
	if len(m.without) == 0 {
		return
	}
	m.out = m.out[:0]
	for _, f := range fields {
		m.out = append(m.out, slices.Contains(m.without, f))
	}
}

// apply returns the values without those that are left out.
func (m *mask) apply(values []lineproto.Value) []lineproto.Value {
	if len(m.without) == 0 {
		return values
	}
	m.values = append(m.values[:0], values...)
	for i := range m.values {
		if m.out[i] {
			m.values[i] = lineproto.Value{}
		}
	}
	return m.values
}
