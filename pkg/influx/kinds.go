package influx

import (
	"context"
	"fmt"

	"github.com/influxdata/influxql"

	"ringmaster/pkg/lineproto"
)

// Kinds tells what values of one field there are in a window that shards with
// several types of it cover.
type Kinds struct {
	// Read is the kind as which the server reads the field there, by the types
	// in all shards of the window; Null when there is no value of that kind.
	Read lineproto.Kind
	// Numbers, Strings and Booleans count the values, those included that the
	// server leaves out when it reads them as Read. It does not tell floats
	// and integers apart.
	Numbers, Strings, Booleans int64
}

// Kinds asks for the values of a field kind by kind. The error wraps
// [ErrUnaddressable] for a field that InfluxQL cannot name.
func (c *Client) Kinds(ctx context.Context, sel Selection, field string) (Kinds, error) {
	if err := checkMeasurement(sel.Measurement); err != nil {
		return Kinds{}, err
	}
	if err := checkFields(sel.Measurement, []string{field}, ""); err != nil {
		return Kinds{}, err
	}
	if !parses(field) {
		return Kinds{}, fmt.Errorf("field %q of measurement %q: %w", field, sel.Measurement, ErrUnaddressable)
	}
	name := influxql.QuoteIdent(field)
	from := " FROM " + source(sel.Database, sel.RetentionPolicy, sel.Measurement) + sel.Window.where()
	q := fmt.Sprintf("SELECT first(%[1]s)%[2]s; SELECT count(%[1]s::float)%[2]s; SELECT count(%[1]s::string)%[2]s; SELECT count(%[1]s::boolean)%[2]s",
		name, from)
	var k Kinds
	err := c.run(ctx, "looking at the types of a field of", q, 4, func(d *decoder) error {
		if d.current.Measurement != sel.Measurement {
			return nil
		}
		v := d.cells[len(d.cells)-1]
		switch d.statement {
		case 0:
			k.Read = v.Kind
		case 1:
			k.Numbers = int64(v.Num)
		case 2:
			k.Strings = int64(v.Num)
		default:
			k.Booleans = int64(v.Num)
		}
		return nil
	})
	return k, err
}
