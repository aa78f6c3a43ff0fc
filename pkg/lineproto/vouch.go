package lineproto

import (
	"bytes"
	"math/bits"
)

// What the fast path vouches for: lines in which all of InfluxDB's scanners (see
// escape.go) must agree, since a backslash stands only before one byte that it
// takes the meaning from, and no control character stands anywhere but in a
// string. Values are of the forms that InfluxDB takes without a closer look. Every
// other line is the parser's to judge.

const (
	// maxTags bounds the tags of a line on the fast path.
	maxTags = 64
	// Numbers of so many digits and bytes are never out of range.
	maxIntegerDigits = 18
	maxFloatLength   = 24
	maxExponent      = 2
	maxTimeDigits    = 19
)

// largestInteger is the largest value of an integer field.
const largestInteger = "9223372036854775807"

// tagKey says where the key of a tag stands in the body.
type tagKey struct{ from, to int }

// vouch reads the line at s.pos, which does not begin with white space or a hash
// sign. If it returns false, it has only lost its place among the marks.
func (s *Scanner) vouch() bool {
	b, start := s.body, s.pos
	if s.sought != start {
		s.marks.seek(start)
	}
	s.sought = -1

	nameEnd, escaped := s.measurementEnd(start)
	if nameEnd < 0 {
		return false
	}
	keyEnd := nameEnd
	if b[nameEnd] == ',' {
		if keyEnd = s.tagsEnd(nameEnd); keyEnd < 0 {
			return false
		}
	}
	fieldsEnd := s.fieldsEnd(keyEnd)
	if fieldsEnd < 0 || fieldsEnd-start > maxKeyLength-keySeparator {
		return false
	}

	// The time, if there is one.
	whole, stamped, ns, textEnd := false, false, s.now, fieldsEnd
	end := fieldsEnd
	for at(b, end) == ' ' {
		from := end + 1
		if end = s.marks.next(); end == from {
			continue
		}
		units, ok := parseTime(b, from, end)
		if !ok || stamped || units > s.reach || units < -s.reach {
			return false
		}
		stamped, ns = true, units*s.unit
		if s.unit == 1 {
			whole, textEnd = true, end
		}
	}
	if at(b, end) != '\n' {
		return false
	}

	s.text = b[start:textEnd]
	s.nameLen, s.keyLen = nameEnd-start, keyEnd-start
	s.escaped, s.judged = escaped, false
	s.stamped, s.whole, s.time = stamped, whole, ns
	s.pos = end + 1
	s.sought = s.pos
	return true
}

// at returns a byte, and the end of the line behind the end of the body.
func at(b []byte, i int) byte {
	if i < len(b) {
		return b[i]
	}
	return '\n'
}

// measurementEnd returns where the comma or the space after the name stands, and
// -1 for a line that is not to be vouched for.
func (s *Scanner) measurementEnd(start int) (end int, escaped bool) {
	b := s.body
	s.marks.ready()
	i := s.marks.take()
	for {
		switch at(b, i) {
		case ',', ' ':
			if i == start {
				return -1, false
			}
			return i, escaped
		case '=', '"', '!': // no more than letters here
		case '\\':
			if c := at(b, i+1); c != ',' && c != ' ' {
				return -1, false
			}
			escaped = true
			s.marks.next()
		default:
			return -1, false
		}
		i = s.marks.next()
	}
}

// nameEnd returns the place of the mark that ends a key or a value of a tag, or the
// key of a field. i is that of the next mark.
func (s *Scanner) nameEnd(i int) int {
	for {
		switch at(s.body, i) {
		case '"', '!':
		case '\\':
			if c := at(s.body, i+1); c != ',' && c != ' ' && c != '=' {
				return i
			}
			s.marks.next()
		default:
			return i
		}
		i = s.marks.next()
	}
}

// tagsEnd returns where the space after the tags stands; i is where the comma before
// them does.
func (s *Scanner) tagsEnd(i int) int {
	b := s.body
	n, sorted := 0, true
	for {
		from := i + 1
		s.marks.ready()
		to := s.marks.take()
		if at(b, to) != '=' {
			to = s.nameEnd(to)
		}
		if to == from || at(b, to) != '=' || n == maxTags {
			return -1
		}
		s.tags[n] = tagKey{from, to}
		if n > 0 && sorted {
			// Mostly the first letters tell.
			before := s.tags[n-1]
			if b[before.from] >= b[from] {
				switch bytes.Compare(b[before.from:before.to], b[from:to]) {
				case 0:
					return -1
				case 1:
					sorted = false
				}
			}
		}
		n++
		s.marks.ready()
		i = s.marks.take()
		if c := at(b, i); c != ',' && c != ' ' {
			i = s.nameEnd(i)
		}
		if i == to+1 {
			return -1
		}
		switch at(b, i) {
		case ' ':
			if !sorted && twice(b, s.tags[:n]) {
				return -1
			}
			return i
		case ',':
		default:
			return -1
		}
	}
}

// twice reports whether a key stands among the tags more than once.
func twice(b []byte, keys []tagKey) bool {
	for i, k := range keys {
		key := b[k.from:k.to]
		for _, l := range keys[:i] {
			if bytes.Equal(b[l.from:l.to], key) {
				return true
			}
		}
	}
	return false
}

// fieldsEnd returns where the fields end; i is where the space before them stands.
func (s *Scanner) fieldsEnd(i int) int {
	b := s.body
	from := i + 1
	i = s.marks.next()
	for i == from && at(b, i) == ' ' {
		from++
		i = s.marks.next()
	}
	for shape := uint64(0); ; {
		if at(b, i) != '=' {
			i = s.nameEnd(i)
		}
		if i == from || at(b, i) != '=' {
			return -1
		}
		shape = mixName(shape, b, from, i)
		from = i + 1
		s.marks.ready()
		i = s.marks.take()
		if i == from {
			// Only a string begins with a mark.
			if i = s.stringEnd(i); i < 0 {
				return -1
			}
		} else if !isValue(b, from, i) {
			return -1
		}
		shape = mix(shape, uint64(kindOf(b[from], b[i-1])))
		switch at(b, i) {
		case ',':
			from = i + 1
			s.marks.ready()
			i = s.marks.take()
		case ' ', '\n':
			s.shape = shape
			return i
		default:
			return -1
		}
	}
}

// mix goes on with a hash by eight bytes.
func mix(h, w uint64) uint64 {
	h = (h ^ w) * 0x9e3779b97f4a7c15
	return h ^ h>>29
}

// mixName goes on with a hash by the bytes from..to and how many there are.
func mixName(h uint64, b []byte, from, to int) uint64 {
	n := to - from
	for ; to-from > 8; from += 8 {
		h = mix(h, load(b, from))
	}
	return mix(h, load(b, from)<<(64-8*(to-from))^uint64(n)<<56)
}

// kindOf is the type of a value by its first and last bytes.
func kindOf(first, last byte) Kind {
	switch {
	case first == '"':
		return String
	case first >= 'A':
		return Boolean
	case last == 'i':
		return Integer
	default:
		return Float
	}
}

// stringEnd returns the place after the string whose first quote stands at i; -1 if
// there is none, or no mark after it.
func (s *Scanner) stringEnd(i int) int {
	b := s.body
	if at(b, i) != '"' {
		return -1
	}
	for {
		if i = s.marks.next(); i >= len(b) {
			return -1
		}
		switch b[i] {
		case '"':
			if end := s.marks.next(); end == i+1 {
				return end
			}
			return -1
		case '\\':
			// A pair with the next byte.
			if isMark(at(b, i+1)) {
				s.marks.next()
			}
		}
	}
}

// isValue reports whether the bytes from..to, of which there is at least one, are
// surely a number or a boolean.
func isValue(b []byte, from, to int) bool {
	if n := to - from; n <= 8 {
		other := notDigits(load(b, from)) & (1<<(8*n) - 1)
		if other == 0 {
			return true
		}
		if other&(other-1) == 0 && n > 1 {
			// One byte that is no digit.
			i := bits.TrailingZeros64(other) / 8
			switch b[from+i] {
			case '.':
				return i > 0
			case 'i':
				return i == n-1
			case '-':
				return i == 0
			}
		}
	}
	if c := b[from]; c >= 'A' {
		return isBoolean(b[from:to])
	}
	return isNumber(b[from:to])
}

func isBoolean(v []byte) bool {
	switch string(v) {
	case "t", "T", "f", "F", "true", "True", "TRUE", "false", "False", "FALSE":
		return true
	default:
		return false
	}
}

// isNumber takes integers that fit, and floats that can't be out of range.
func isNumber(v []byte) bool {
	i := 0
	if v[0] == '-' {
		i++
	}
	first := i
	if i = digitsEnd(v, i); i == first {
		return false
	}
	switch at(v, i) {
	case 'i':
		n := i - first
		return i+1 == len(v) && (n <= maxIntegerDigits || n == len(largestInteger) && string(v[first:i]) <= largestInteger)
	case '.':
		i = digitsEnd(v, i+1)
	}
	if i > maxFloatLength {
		return false
	}
	if c := at(v, i); c == 'e' || c == 'E' {
		i++
		if c := at(v, i); c == '-' || c == '+' {
			i++
		}
		first = i
		if i = digitsEnd(v, i); i == first || i-first > maxExponent {
			return false
		}
	}
	return i == len(v)
}

// parseTime reads the time from..to in units of the request.
func parseTime(b []byte, from, to int) (units int64, ok bool) {
	negative := b[from] == '-'
	if negative {
		from++
	}
	// Nineteen digits can't overflow the unsigned integer.
	if to == from || to-from > maxTimeDigits {
		return 0, false
	}
	var n uint64
	for ; to-from >= 8; from += 8 {
		w := load(b, from)
		if notDigits(w) != 0 {
			return 0, false
		}
		n = n*1e8 + eightDigits(w)
	}
	for ; from < to; from++ {
		d := b[from] - '0'
		if d > 9 {
			return 0, false
		}
		n = n*10 + uint64(d)
	}
	if n > uint64(MaxTime) {
		return 0, false
	}
	if negative {
		return -int64(n), true
	}
	return int64(n), true
}
