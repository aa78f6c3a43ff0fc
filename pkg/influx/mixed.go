package influx

import (
	"context"
	"maps"

	"ringmaster/pkg/lineproto"
)

// MixedTypes finds fields with several types, and remembers the fields with several types of the measurement that was
// asked for last: the windows of one follow one another, and where there are a
// hundred thousand measurements the server takes a tenth of a second to answer.
type MixedTypes struct {
	known bool
	last  Selection
	mixed map[string][]lineproto.Kind
}

// Of returns the fields that have several types in the shards of a selection's
// policy.
func (f *MixedTypes) Of(ctx context.Context, c *Client, sel *Selection) (map[string][]lineproto.Kind, error) {
	if f.known && f.last.SameMeasurement(sel) {
		return f.mixed, nil
	}
	fields, err := c.FieldKeys(ctx, sel.Database, sel.RetentionPolicy, sel.Measurement)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(fields, func(_ string, types []lineproto.Kind) bool { return len(types) < 2 })
	f.known, f.last, f.mixed = true, *sel, fields
	return fields, nil
}
