// Package result is the answer to InfluxQL statements: its model, the ways in
// which InfluxDB 1.8 writes it (JSON, CSV and msgpack, whole or in chunks), and the
// joining of what several servers answer into what one would have answered.
//
// Everything is streamed: rows come in and bytes go out, and no answer is held as a
// whole unless its format asks for that. The package is pure.
package result

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Kind is the type of a value.
type Kind uint8

// The kinds of values in answers.
const (
	Null Kind = iota
	Float
	Integer
	Unsigned
	Boolean
	String
	// Time is a point in time, in nanoseconds since 1970.
	Time
)

// Value is a value of a row.
type Value struct {
	Kind Kind
	// Num holds the bits of a Float (see math.Float64bits), an Integer or Time as
	// it is when converted to int64, an Unsigned, and 1 for true.
	Num uint64
	Str string
}

// IntegerValue returns an Integer.
func IntegerValue(i int64) Value { return Value{Kind: Integer, Num: uint64(i)} }

// FloatValue returns a Float.
func FloatValue(f float64) Value { return Value{Kind: Float, Num: math.Float64bits(f)} }

// BooleanValue returns a Boolean.
func BooleanValue(b bool) Value {
	v := Value{Kind: Boolean}
	if b {
		v.Num = 1
	}
	return v
}

// StringValue returns a String.
func StringValue(s string) Value { return Value{Kind: String, Str: s} }

// TimeValue returns a Time of nanoseconds since 1970.
func TimeValue(ns int64) Value { return Value{Kind: Time, Num: uint64(ns)} }

// Tag is a tag of a series. Its value may be empty: a series that lacks a tag that
// was grouped by has it so.
type Tag struct{ Key, Value string }

// SortTags sorts tags by their keys, as [Series] has them.
func SortTags(tags []Tag) []Tag {
	slices.SortFunc(tags, func(a, b Tag) int { return cmp.Compare(a.Key, b.Key) })
	return tags
}

// Series is a table of an answer, or a part of one.
type Series struct {
	Name string
	// Tags are sorted by their keys.
	Tags    []Tag
	Columns []string
	Values  [][]Value
	// Partial says that the series goes on in the next chunk.
	Partial bool
}

// Same reports whether two parts belong to one series, as InfluxDB sees it: columns
// do not matter.
func (s *Series) Same(o *Series) bool { return s.Name == o.Name && slices.Equal(s.Tags, o.Tags) }

// Message is a remark beside an answer.
type Message struct{ Level, Text string }

// Warning is the level of messages.
const Warning = "warning"

// Result is the answer to a statement, or a part of it. An answer to a request is a
// sequence of them: one or more a statement, as they would leave InfluxDB's engine.
type Result struct {
	StatementID int
	Series      []Series
	Messages    []Message
	// Partial says that the statement has more to answer.
	Partial bool
	// Err is why the statement failed, "" if it did not.
	Err string
	// Location is the zone that times are shown in; nil is UTC.
	Location *time.Location
}

// NotExecuted is the error of statements that follow one that failed.
const NotExecuted = "not executed"

// CompareTags orders series as InfluxDB does: by the keys of their tags, then by
// their values.
func CompareTags(a, b []Tag) int {
	if c := slices.CompareFunc(a, b, func(a, b Tag) int { return cmp.Compare(a.Key, b.Key) }); c != 0 {
		return c
	}
	return slices.CompareFunc(a, b, func(a, b Tag) int { return cmp.Compare(a.Value, b.Value) })
}

// Any gives a value as nil, float64, int64, uint64, bool, string or time.Time.
func (v *Value) Any() any {
	switch v.Kind {
	case Float:
		return math.Float64frombits(v.Num)
	case Integer:
		return int64(v.Num)
	case Unsigned:
		return v.Num
	case Boolean:
		return v.Num != 0
	case String:
		return v.Str
	case Time:
		return time.Unix(0, int64(v.Num)).UTC()
	default:
		return nil
	}
}

// Whole reports whether it is an Integer or Unsigned.
func (v *Value) Whole() bool { return v.Kind == Integer || v.Kind == Unsigned }
