package mover

import (
	"context"
	"fmt"
	"slices"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
)

// end is one of the two backends of a task.
type end struct {
	*influx.Client

	types fieldTypes
	// unsigned is whether it may hold unsigned integers, once it has been asked.
	asked, unsigned bool
}

// read asks for the points of slices. A server does not tell small unsigned
// integers from others, so where there may be any, their fields are named.
func (e *end) read(ctx context.Context, all []operation.Slice) (*influx.Stream, error) {
	sels := selections(all)
	if err := e.nameUnsigned(ctx, sels); err != nil {
		return nil, err
	}
	return e.Read(ctx, sels)
}

// nameUnsigned names the unsigned fields of the selections.
func (e *end) nameUnsigned(ctx context.Context, sels []influx.Selection) error {
	if !e.asked {
		var err error
		if e.unsigned, err = e.TakesUnsigned(ctx, sels[0].Database); err != nil {
			return err
		}
		e.asked = true
	}
	if !e.unsigned {
		return nil
	}
	for i := range sels {
		if i > 0 && sameMeasurement(&sels[i], &sels[i-1]) {
			sels[i].Unsigned = sels[i-1].Unsigned
			continue
		}
		var err error
		if sels[i].Unsigned, err = e.unsignedFields(ctx, &sels[i]); err != nil {
			return err
		}
	}
	return nil
}

func (e *end) unsignedFields(ctx context.Context, sel *influx.Selection) ([]string, error) {
	fields, err := e.FieldKeys(ctx, sel.Database, sel.RetentionPolicy, sel.Measurement)
	if err != nil {
		return nil, err
	}
	var unsigned []string
	for _, name := range sortedKeys(fields) {
		switch kinds := fields[name]; {
		case !slices.Contains(kinds, lineproto.Unsigned):
		case slices.Contains(kinds, lineproto.Integer):
			return nil, &operation.Error{
				Code: "type_ambiguous",
				Detail: operation.Clip(fmt.Sprintf("field %q has signed and unsigned integers in different shard groups of %s, which InfluxDB does not tell apart when it is read; "+
					"rewrite the field with one type and start the operation again", name, e.URL())),
			}
		default:
			unsigned = append(unsigned, name)
		}
	}
	return unsigned, nil
}

func sameMeasurement(a, b *influx.Selection) bool {
	return a.Database == b.Database && a.RetentionPolicy == b.RetentionPolicy && a.Measurement == b.Measurement
}
