// Package lineproto holds the values, tags and series that Ringmaster moves
// between InfluxDB 1.x servers, and an encoder that writes them as line
// protocol exactly as InfluxDB 1.8 reads it.
//
// The package is pure: no input, no output, no clock.
package lineproto

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
)

// The legal times of an InfluxDB point, in nanoseconds since the Unix epoch,
// both included. (models.MinNanoTime and models.MaxNanoTime of InfluxDB 1.8:
// the outermost int64 values serve it as sentinels.)
const (
	MinTime int64 = math.MinInt64 + 2
	MaxTime int64 = math.MaxInt64 - 1
)

// Kind is the type of a field value.
type Kind uint8

// The kinds of field values. Null is the zero Kind: the point has no value for
// the field.
const (
	Null Kind = iota
	Float
	Integer
	Unsigned
	Boolean
	String
)

// String returns the name InfluxDB gives the kind in SHOW FIELD KEYS, or
// "null".
func (k Kind) String() string {
	switch k {
	case Null:
		return "null"
	case Float:
		return "float"
	case Integer:
		return "integer"
	case Unsigned:
		return "unsigned"
	case Boolean:
		return "boolean"
	case String:
		return "string"
	default:
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
}

// ParseKind is the reverse of [Kind.String] for the five kinds that a field can
// have; ok is false for any other name.
func ParseKind(name string) (k Kind, ok bool) {
	for k := Float; k <= String; k++ {
		if k.String() == name {
			return k, true
		}
	}
	return Null, false
}

// Value is one field value. It is a plain struct so that a reader can fill a
// slice of them without allocating.
type Value struct {
	Kind Kind
	// Num holds the bits of every kind but String: math.Float64bits of a
	// Float, the two's complement of an Integer, an Unsigned as it is, and 0
	// or 1 for a Boolean.
	Num uint64
	// Str holds a String, which may be any bytes. It belongs to whoever made
	// the Value and is valid until that producer's next step; use [Value.Clone]
	// to keep it.
	Str []byte
}

// FloatValue returns the Value of a float.
func FloatValue(f float64) Value { return Value{Kind: Float, Num: math.Float64bits(f)} }

// IntegerValue returns the Value of a signed integer.
func IntegerValue(i int64) Value { return Value{Kind: Integer, Num: uint64(i)} }

// UnsignedValue returns the Value of an unsigned integer.
func UnsignedValue(u uint64) Value { return Value{Kind: Unsigned, Num: u} }

// BooleanValue returns the Value of a boolean.
func BooleanValue(b bool) Value {
	if b {
		return Value{Kind: Boolean, Num: 1}
	}
	return Value{Kind: Boolean}
}

// StringValue returns the Value of a string.
func StringValue(s string) Value { return Value{Kind: String, Str: []byte(s)} }

// Equal reports whether both values are of one kind and, bit for bit, the same:
// 1 and 1.0 differ, and so do 0 and -0.
func (v Value) Equal(w Value) bool {
	return v.Kind == w.Kind && v.Num == w.Num && bytes.Equal(v.Str, w.Str)
}

// Clone returns a Value that stays valid when its producer moves on.
func (v Value) Clone() Value {
	v.Str = bytes.Clone(v.Str)
	return v
}

// String renders the value as line protocol does, for messages and tests.
func (v Value) String() string {
	if v.Kind == Null {
		return "null"
	}
	return string(appendValue(nil, v))
}

// Tag is one tag of a series.
type Tag struct{ Key, Value string }

// Series names a series: a measurement and a set of tags.
type Series struct {
	Measurement string
	// Tags are sorted by key. A tag without a value does not exist for
	// InfluxDB and is left out.
	Tags []Tag
}

// Clone returns a copy that shares no memory with s that could change.
func (s *Series) Clone() Series {
	return Series{Measurement: s.Measurement, Tags: slices.Clone(s.Tags)}
}

// Equal reports whether both name the same series.
func (s *Series) Equal(t *Series) bool {
	return s.Measurement == t.Measurement && slices.Equal(s.Tags, t.Tags)
}

// AppendKey appends an unambiguous key of the series to dst, for use in maps:
// two series have one key only if they are equal. It is not line protocol.
func (s *Series) AppendKey(dst []byte) []byte {
	dst = appendSized(dst, s.Measurement)
	for _, t := range s.Tags {
		dst = appendSized(dst, t.Key)
		dst = appendSized(dst, t.Value)
	}
	return dst
}

// String renders the series for messages, unescaped.
func (s *Series) String() string {
	var b strings.Builder
	b.WriteString(s.Measurement)
	for _, t := range s.Tags {
		b.WriteString("," + t.Key + "=" + t.Value)
	}
	return b.String()
}

func appendSized(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}
