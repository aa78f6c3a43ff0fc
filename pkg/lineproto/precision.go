package lineproto

import (
	"fmt"
	"math"
)

// Precision is the unit of the times in a request: what the parameter precision
// of InfluxDB's write calls says. The zero Precision is [Nanoseconds].
type Precision uint8

// The precisions that InfluxDB knows.
const (
	Nanoseconds Precision = iota
	Microseconds
	Milliseconds
	Seconds
	Minutes
	Hours
)

// ParsePrecision reads the parameter precision of /write. An unknown value is an
// error in InfluxDB's words, and InfluxDB 1.8 answers it with status 400; yet it
// then goes on and stores the request, as if the value were that of the Precision
// returned here beside the error.
func ParsePrecision(value string) (Precision, error) {
	p, ok := knownPrecision(value)
	if value == "" || value == "ns" {
		p, ok = Nanoseconds, true
	}
	if !ok {
		return p, fmt.Errorf("invalid precision %q (use n, u, ms, s, m or h)", value)
	}
	return p, nil
}

// ParsePrecisionV2 is [ParsePrecision] for /api/v2/write, which has other names.
func ParsePrecisionV2(value string) (Precision, error) {
	switch value {
	case "ns", "":
		return Nanoseconds, nil
	case "us":
		return Microseconds, nil
	case "ms":
		return Milliseconds, nil
	case "s":
		return Seconds, nil
	default:
		p, _ := knownPrecision(value)
		return p, fmt.Errorf("invalid precision %q (use ns, us, ms or s)", value)
	}
}

// knownPrecision knows the names that InfluxDB's parser knows; all others are
// nanoseconds to it.
func knownPrecision(value string) (p Precision, ok bool) {
	for p := range Hours + 1 {
		if p.String() == value {
			return p, true
		}
	}
	return Nanoseconds, false
}

// String returns the name by which InfluxDB's parser and the parameter of /write
// know the precision.
func (p Precision) String() string {
	switch p {
	case Nanoseconds:
		return "n"
	case Microseconds:
		return "u"
	case Milliseconds:
		return "ms"
	case Seconds:
		return "s"
	case Minutes:
		return "m"
	case Hours:
		return "h"
	default:
		return fmt.Sprintf("precision(%d)", uint8(p))
	}
}

// Unit returns how many nanoseconds one unit has.
func (p Precision) Unit() int64 {
	switch p {
	case Microseconds:
		return 1e3
	case Milliseconds:
		return 1e6
	case Seconds:
		return 1e9
	case Minutes:
		return 60e9
	case Hours:
		return 3600e9
	default:
		return 1
	}
}

// Truncate rounds a time down to the unit, as InfluxDB does with its own clock's
// time for lines that have none.
func (p Precision) Truncate(ns int64) int64 {
	unit := p.Unit()
	rest := ns % unit
	if rest < 0 {
		rest += unit
	}
	if ns < math.MinInt64+rest {
		return ns
	}
	return ns - rest
}
