package ingest

import (
	"bytes"
	"hash/maphash"

	"ringmaster/pkg/lineproto"
)

// A request that has one field of a measurement in two types is torn. If the field
// is new, InfluxDB stores nothing of the request, whatever else is in it. But it
// makes the field, in the first of the types, so that nobody could tell from a
// second try; and other owners would have stored their share. So a torn request is
// recognised before anything is sent: what tears it goes ahead, alone, and the rest
// follows unless nothing was to be stored.
//
// That takes next to no time for requests that are not torn. Lines of one shape
// have the same fields in the same types, and most requests have one shape for each
// measurement; only where there are more are the fields looked at.

// shapes are those of a request's measurements.
type shapes struct {
	seed maphash.Seed
	// slots is a table with a place for each measurement, by the hash of its name;
	// those of an earlier request have another number.
	slots  []shape
	number uint32
	used   int

	// Of the measurements with more than one shape: those that have been looked at,
	// and what was found.
	seen   map[[2]uint64]struct{}
	fields map[fieldKey]lineproto.Kind
}

// shape is the first one of a measurement.
type shape struct {
	name, shape uint64
	number      uint32
	// The place of the first line in the part of the first target, and the length of
	// its measurement and tags.
	at, key int
	several bool
}

type fieldKey struct {
	name  uint64
	field string
}

const (
	fewShapes  = 64
	mostShapes = 1 << 14 // measurements of a request; the others are not looked at
)

// reset begins with another request.
func (t *shapes) reset() {
	if t.slots == nil || len(t.slots) > 16*fewShapes {
		*t = shapes{seed: maphash.MakeSeed(), slots: make([]shape, fewShapes)}
	}
	t.number++
	if t.number == 0 {
		clear(t.slots)
		t.number = 1
	}
	t.used = 0
	clear(t.seen)
	clear(t.fields)
}

// find returns the place of a measurement; nil if there is none left.
func (t *shapes) find(name uint64) *shape {
	if 2*t.used >= len(t.slots) {
		if t.used >= mostShapes {
			return nil
		}
		t.grow()
	}
	for i := name; ; i++ {
		s := &t.slots[i&uint64(len(t.slots)-1)]
		if s.number != t.number || s.name == name {
			return s
		}
	}
}

func (t *shapes) grow() {
	was := t.slots
	t.slots = make([]shape, 4*len(was))
	for i := range was {
		if was[i].number == t.number {
			*t.find(was[i].name) = was[i]
		}
	}
}

// tears reports whether the scanner's line, just appended to lines, makes the
// request torn: whether it has a field in another type than a line before.
func (t *shapes) tears(s *lineproto.Scanner, measurement, lines []byte, at int) bool {
	name := maphash.Bytes(t.seed, measurement)
	first := t.find(name)
	if first == nil {
		return false
	}
	now := shape{name: name, shape: s.Shape(), number: t.number, at: at, key: len(s.Key())}
	if first.number != t.number {
		*first = now
		t.used++
		return false
	}
	if first.shape == now.shape && now.shape != 0 {
		return false
	}
	if t.seen == nil {
		t.seen, t.fields = map[[2]uint64]struct{}{}, map[fieldKey]lineproto.Kind{}
	}
	torn := false
	if !first.several {
		first.several = true
		torn = t.look(first, lines)
	}
	return t.look(&now, lines) || torn
}

// look takes in the fields of a line; it reports whether one has two types.
func (t *shapes) look(s *shape, lines []byte) (torn bool) {
	if s.shape != 0 {
		k := [2]uint64{s.name, s.shape}
		if _, ok := t.seen[k]; ok {
			return false
		}
		t.seen[k] = struct{}{}
	}
	eachField(lines[s.at+s.key:], func(field string, kind lineproto.Kind) bool {
		k := fieldKey{s.name, field}
		if was, ok := t.fields[k]; ok && was != kind {
			torn = true
		}
		t.fields[k] = kind
		return true
	})
	return torn
}

// several reports whether a body may have more than one line.
func several(body []byte) bool {
	i := bytes.IndexByte(body, '\n')
	return i >= 0 && i < len(body)-1
}
