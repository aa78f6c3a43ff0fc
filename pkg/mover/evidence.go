package mover

import (
	"math/bits"

	"github.com/cespare/xxhash/v2"

	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
)

// hasher turns the values of one series after another into the sums that
// operation.Evidence keeps. The sums do not depend on the order of points, and
// they are the same in every process, since one worker copies and another
// verifies.
//
// Each (series, field) has a 64-bit hash h. Counts is the sum of h over all
// values, so it equals the sum of h × count that the server's own counts give.
// Digest is the sum of h mixed with time, type and value.
type hasher struct {
	scratch []byte
	fields  []uint64
}

// setSeries computes the hash of every (series, field) that follows.
func (h *hasher) setSeries(s *lineproto.Series, fields []string) {
	series := h.series(s)
	h.fields = h.fields[:0]
	for _, f := range fields {
		h.fields = append(h.fields, fieldHash(series, f))
	}
}

func (h *hasher) series(s *lineproto.Series) uint64 {
	h.scratch = s.AppendKey(h.scratch[:0])
	return xxhash.Sum64(h.scratch)
}

func fieldHash(series uint64, field string) uint64 {
	return mix(series^0x9e3779b97f4a7c15, xxhash.Sum64String(field)^0xd1b54a32d192ed03)
}

// row adds one point's values to e.
func (h *hasher) row(e *operation.Evidence, ns int64, values []lineproto.Value) {
	e.Rows++
	for i := range values {
		v := &values[i]
		if v.Kind == lineproto.Null {
			continue
		}
		n := v.Num
		if v.Kind == lineproto.String {
			n = xxhash.Sum64(v.Str)
		}
		f := h.fields[i]
		e.Values++
		e.Counts += f
		e.Digest += mix(f^uint64(ns)*0xa0761d6478bd642f, (n^0xe7037ed1a0b428db)+uint64(v.Kind)*0x8ebc6af09c88c6e3)
	}
}

// mix folds the 128-bit product of two words, as wyhash does.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo ^ a ^ bits.RotateLeft64(b, 32)
}
