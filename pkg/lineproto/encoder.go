package lineproto

import (
	"errors"
	"fmt"
	"math"
	"strconv"
)

// ErrUnrepresentable is wrapped by every error that says a name or a value
// cannot be written as line protocol so that InfluxDB reads back the same.
// The wrapping error names it.
var ErrUnrepresentable = errors.New("cannot be written as line protocol")

// maxKeyLength is InfluxDB's bound on a series key with one field
// (models.MaxKeyLength), keySeparator what it counts for the separator between
// the two.
const (
	maxKeyLength = 65535
	keySeparator = 4
)

// Encoder writes points as lines, one series after another, without allocating
// per point. The zero Encoder is ready for SetSeries. It is not safe for
// concurrent use.
type Encoder struct {
	prefix []byte // escaped measurement and tags, and the space after them
	keys   []byte // `,key=` of all fields, one after another
	ends   []int  // where each of them ends in keys
	last   Kind   // the last kind that can follow this series
}

// SetSeries chooses the series of the rows that follow, and the names of their
// fields in column order. Nothing of s and fields is kept. The error wraps
// [ErrUnrepresentable] if the measurement, a tag or a field name cannot be
// written; the encoder then has no series.
func (e *Encoder) SetSeries(s *Series, fields []string) error {
	e.prefix, e.keys, e.ends = e.prefix[:0], e.keys[:0], e.ends[:0]
	if err := e.setSeries(s, fields); err != nil {
		e.prefix, e.keys, e.ends = e.prefix[:0], e.keys[:0], e.ends[:0]
		return err
	}
	return nil
}

func (e *Encoder) setSeries(s *Series, fields []string) error {
	var ahead int
	var err error
	if e.prefix, ahead, err = appendSeries(e.prefix, s); err != nil {
		return err
	}
	if e.last = String; ahead < 0 {
		e.last = Boolean
	}
	longest := 0
	for _, f := range fields {
		start := len(e.keys)
		e.keys = append(e.keys, ',')
		if e.keys, err = appendFieldKey(e.keys, f, ahead); err != nil {
			return fmt.Errorf("field %q of measurement %q: %w", f, s.Measurement, err)
		}
		longest = max(longest, len(e.keys)-start-1)
		e.keys = append(e.keys, '=')
		e.ends = append(e.ends, len(e.keys))
	}
	if n := len(e.prefix) + keySeparator + longest; n > maxKeyLength {
		return fmt.Errorf("series key of measurement %.64q with %d bytes: %w", s.Measurement, n, ErrUnrepresentable)
	}
	e.prefix = append(e.prefix, ' ')
	return nil
}

// AppendRow appends one line, newline included, with the values of one point to
// dst and returns the extended slice. There is one value for each field given
// to SetSeries; a Null is left out, and a row of only Nulls adds nothing, as a
// point without a field does not exist. ns is the time in nanoseconds.
//
// The error wraps [ErrUnrepresentable] for a float that is not finite, a time
// outside [MinTime] and [MaxTime], a string after one of the few series that
// InfluxDB would not find the end of a string after, or a number of values that
// does not fit; dst is then returned as it was.
func (e *Encoder) AppendRow(dst []byte, ns int64, values []Value) ([]byte, error) {
	if len(values) != len(e.ends) || len(e.prefix) == 0 {
		return dst, fmt.Errorf("row of %d values for %d fields: %w", len(values), len(e.ends), ErrUnrepresentable)
	}
	if ns < MinTime || ns > MaxTime {
		return dst, fmt.Errorf("time %d: %w", ns, ErrUnrepresentable)
	}
	begin, first, key := len(dst), true, 0
	for i := range values {
		v, from := &values[i], key
		key = e.ends[i]
		if v.Kind == Null {
			continue
		}
		if v.Kind == Float && v.Num&expMask == expMask || v.Kind > e.last {
			return dst[:begin], refuseValue(*v, e.keys[from+1:key-1])
		}
		if first {
			first = false
			dst = append(dst, e.prefix...)
			from++ // no comma before the first field
		}
		dst = append(dst, e.keys[from:key]...)
		dst = appendValue(dst, *v)
	}
	if first {
		return dst, nil
	}
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, ns, 10)
	return append(dst, '\n'), nil
}

// refuseValue makes the error of a value that has no form in line protocol.
func refuseValue(v Value, field []byte) error {
	if v.Kind == Float {
		return fmt.Errorf("%v of field %q: %w", math.Float64frombits(v.Num), field, ErrUnrepresentable)
	}
	return fmt.Errorf("a %v in field %q: %w", v.Kind, field, ErrUnrepresentable)
}

// expMask are the exponent bits of a float64; all of them are set in an
// infinity and a NaN only.
const expMask = 0x7ff << 52

// appendValue writes a value that is not Null. Floats take the shortest form
// that reads back as the same bits.
func appendValue(dst []byte, v Value) []byte {
	switch v.Kind {
	case Float:
		return strconv.AppendFloat(dst, math.Float64frombits(v.Num), 'g', -1, 64)
	case Integer:
		return append(strconv.AppendInt(dst, int64(v.Num), 10), 'i')
	case Unsigned:
		return append(strconv.AppendUint(dst, v.Num, 10), 'u')
	case Boolean:
		if v.Num != 0 {
			return append(dst, "true"...)
		}
		return append(dst, "false"...)
	default:
		return appendString(dst, v.Str)
	}
}

// appendString writes a string value. Inside the quotes only the quote and the
// backslash have a meaning; every other byte, newlines included, stands for
// itself.
func appendString(dst, s []byte) []byte {
	dst = append(dst, '"')
	from := 0
	for i, c := range s {
		if c == '"' || c == '\\' {
			dst = append(dst, s[from:i]...)
			dst = append(dst, '\\', c)
			from = i + 1
		}
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}
