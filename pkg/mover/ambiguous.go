package mover

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
)

// markOverlaps marks the slices of one database that several shard groups of one end
// cover by now: groups may have come up since the plan was made, also by what was
// copied.
func (t *transfer) markOverlaps(ctx context.Context, all []operation.Slice) error {
	for _, e := range []*end{t.source, t.destination} {
		h, err := e.holding(ctx, all[0].Database)
		if err != nil {
			return err
		}
		for i := range all {
			all[i].Overlap = all[i].Overlap || h.several(all[i].RetentionPolicy, &all[i])
		}
	}
	return nil
}

// refuseAmbiguous checks the types of fields in a window that several shard
// groups of one end cover. There the server reads a field as one type: it casts
// integers to floats and hides booleans or strings, so a field that has several
// types there cannot be read truly, nor be known to be absent.
func (t *transfer) refuseAmbiguous(ctx context.Context, s *operation.Slice) error {
	if !s.Overlap {
		return nil
	}
	if err := t.source.checkTypes(ctx, s); err != nil {
		return err
	}
	return t.destination.checkTypes(ctx, s)
}

func (e *end) checkTypes(ctx context.Context, s *operation.Slice) error {
	if e.void {
		return nil
	}
	sel := selection(s)
	mixed, err := e.types.Of(ctx, e.Client, &sel)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(mixed)) {
		// Some shard of the policy has another type; this window need not.
		k, err := e.Kinds(ctx, sel, name)
		if err != nil {
			return err
		}
		if readTruly(k, mixed[name]) {
			continue
		}
		return &operation.Error{
			Code: "type_ambiguous",
			Detail: operation.Clip(fmt.Sprintf("field %q has the types %v in shard groups that overlap in this window, and InfluxDB reads them as one; "+
				"the slice is left as it is. Rewrite the field with one type at %s (for example with SELECT … INTO another measurement for each type) and start the operation again",
				name, mixed[name], e.URL())),
		}
	}
	return nil
}

// readTruly reports whether a window with values of these kinds is read as it
// is, where the policy has these types of the field. Of floats and integers in
// one window the server says nothing: where both types exist, values read as
// floats may be integers, and are not trusted even if they are not. Values read
// as integers are, since a float in any of the shards would make them floats.
func readTruly(k influx.Kinds, types []lineproto.Kind) bool {
	numeric := 0
	for _, kind := range types {
		if kind == lineproto.Float || kind == lineproto.Integer || kind == lineproto.Unsigned {
			numeric++
		}
	}
	switch {
	case k.Numbers == 0 && k.Strings == 0 && k.Booleans == 0:
		return true
	case k.Numbers > 0 && k.Strings == 0 && k.Booleans == 0:
		return numeric == 1 || k.Read == lineproto.Integer && numeric == 2
	case k.Strings > 0 && k.Numbers == 0 && k.Booleans == 0:
		return k.Read == lineproto.String
	case k.Booleans > 0 && k.Numbers == 0 && k.Strings == 0:
		return k.Read == lineproto.Boolean
	default:
		return false
	}
}
