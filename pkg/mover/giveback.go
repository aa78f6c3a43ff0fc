package mover

import (
	"context"
	"errors"

	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
)

// handedBack remembers which values a mutual copy has written to its source. A
// client may have written such a point at the same time, to both ends: the source
// then holds the older value that was brought back, and nobody but the destination
// the client's. For these values, and for no others, the destination is right.
type handedBack struct {
	fields map[uint64]struct{}
	hash   hasher
}

func (b *handedBack) key(p *point, field int) uint64 {
	series := b.hash.series(p.series) ^ mix(uint64(p.slice)+1, uint64(p.ns))
	return fieldHash(series, p.fields[field])
}

// add notes the values of a point that is given back.
func (b *handedBack) add(p *point) {
	if b.fields == nil {
		b.fields = map[uint64]struct{}{}
	}
	for i := range p.values {
		if p.values[i].Kind != lineproto.Null {
			b.fields[b.key(p, i)] = struct{}{}
		}
	}
}

// only returns the values of a point that were given back before, with Null for the
// others, in to.
func (b *handedBack) only(to []lineproto.Value, p *point) (values []lineproto.Value, found bool) {
	to = append(to[:0], p.values...)
	for i := range to {
		if to[i].Kind == lineproto.Null {
			continue
		}
		if _, ok := b.fields[b.key(p, i)]; !ok {
			to[i] = lineproto.Value{}
			continue
		}
		found = true
	}
	return to, found
}

// maxReconciled is how often what was given back is looked at: each time somebody
// may have written once more in between.
const maxReconciled = 50

// errGivenBack ends a group whose points are overwritten faster than they can be
// compared; it is tried again.
var errGivenBack = errors.New("clients overwrite what is brought back faster than it can be compared")

// reconcile makes the source hold the destination's values of what was given back,
// until a comparison after the last write finds them equal: from then on both ends
// get what clients write, and nobody else writes these points.
func (t *transfer) reconcile(ctx context.Context, chosen []operation.Slice, evidence []operation.Evidence, back *handedBack) error {
	var which []int
	for i := range evidence {
		if evidence[i].Returned > 0 {
			which = append(which, i)
		}
	}
	if len(back.fields) == 0 || len(which) == 0 {
		return nil
	}
	return t.reconcileEnds(ctx, t.destination, t.source, chosen, which, back)
}

// reconcileEnds makes one end hold the other's values of what was brought to it.
func (t *transfer) reconcileEnds(ctx context.Context, from, to *end, chosen []operation.Slice, which []int, back *handedBack) error {
	some := pick(chosen, which)
	refused := func(int, int64) {} // retention takes it from where it came as well
	var before operation.Evidence
	for range maxReconciled {
		var differed operation.Evidence
		err := t.writing(ctx, to, &chosen[0], refused, func(ctx context.Context, out *batcher) error {
			var values []lineproto.Value
			fresh := true
			_, err := t.compareEnds(ctx, from, to, some, &comparison{
				overrule: true,
				missing: func(p *point) error {
					fresh = fresh || p.newSeries
					mine := *p
					mine.slice = which[p.slice]
					var found bool
					if values, found = back.only(values, &mine); !found {
						return nil
					}
					mine.slice, mine.values, mine.newSeries = p.slice, values, fresh
					fresh = false
					back.hash.setSeries(p.series, p.fields)
					back.hash.row(&differed, p.ns, values)
					return out.point(&mine)
				},
			})
			return err
		})
		// What differs as it did before is not taken, such as a type that conflicts:
		// the verification tells of it.
		if err != nil || differed == before {
			return err
		}
		before = differed
	}
	return errGivenBack
}
