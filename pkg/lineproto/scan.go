package lineproto

import (
	"strconv"
)

// Scanner reads the lines of one write request. Line by line it takes the fast
// path, which accepts only what InfluxDB 1.8's parser would read the same way; all
// else, and so whatever is to be refused, is put before that parser itself. So the
// points and the words are InfluxDB's, and an ordinary line costs no allocation.
// Unsigned integers are refused, as by InfluxDB 1.8.3 as it is released; a program
// whose servers take them calls models.EnableUintSupport before it scans.
//
//	for s.Reset(body, precision, now); s.Next(); {
//		dst = s.AppendLine(dst)
//	}
//	text, lines := s.Refused()
//
// The zero Scanner has nothing to read. It is not safe for concurrent use.
type Scanner struct {
	body []byte
	pos  int // where the next line begins

	unit      int64 // nanoseconds of one unit of the request's times
	reach     int64 // the largest time in units that is one in nanoseconds
	precision Precision
	now       int64  // for lines without a time, in nanoseconds
	nowText   []byte // a space, now, and a newline

	// The line that Next has found. text is its key and fields, and its time too if
	// whole is true, in which case that is in nanoseconds already.
	text    []byte
	keyLen  int // of measurement and tags in text
	nameLen int // of the measurement in text
	time    int64
	stamped bool // the line has a time of its own
	whole   bool
	escaped bool // the name is not what stands in text
	judged  bool // text and name were made by the parser
	name    []byte
	shape   uint64 // of the fields

	marks    marks
	sought   int // the place at which the next mark is looked for, -1 if unknown
	tags     [maxTags]tagKey
	rendered []byte // what the parser has made of a line
	refusals refusals
}

// Reset begins with another request. The times in body have the given precision; a
// line without one gets now, in nanoseconds since the Unix epoch, rounded down to
// the precision. body must not change while the Scanner and what it returns are in
// use. Nothing of it is written to.
func (s *Scanner) Reset(body []byte, p Precision, now int64) {
	s.body, s.pos = body, 0
	s.precision, s.unit = p, p.Unit()
	s.reach = MaxTime / s.unit
	s.now = p.Truncate(now)
	s.nowText = append(s.nowText[:0], ' ')
	s.nowText = strconv.AppendInt(s.nowText, s.now, 10)
	s.nowText = append(s.nowText, '\n')
	s.text = nil
	s.marks, s.sought = marks{body: body}, -1
	s.refusals = refusals{text: s.refusals.text[:0]}
}

// Next goes to the next line that holds a point, past comments, blank lines and
// those that InfluxDB would refuse. It returns false after the last one.
func (s *Scanner) Next() bool {
	for s.pos < len(s.body) {
		switch c := s.body[s.pos]; {
		case c == '\n':
			s.pos++
			continue
		case c > ' ' && c != '#' && s.vouch():
			return true
		}
		if s.judge() {
			return true
		}
	}
	s.text = nil
	return false
}

// Measurement returns the name of the line's measurement, unescaped. It is valid
// until the next call of Next or Reset.
func (s *Scanner) Measurement() []byte {
	if !s.escaped {
		return s.text[:s.nameLen]
	}
	if !s.judged {
		s.name = appendUnescaped(s.name[:0], s.text[:s.nameLen])
	}
	return s.name
}

// Key returns measurement and tags as they stand in the line, escaped; the tags may
// be in any order. It is valid until the next call of Next or Reset.
func (s *Scanner) Key() []byte { return s.text[:s.keyLen] }

// Shape returns a hash of the names and types of the line's fields, in their order:
// lines of one shape have the same fields. It is 0 when it is not known.
func (s *Scanner) Shape() uint64 {
	if s.judged {
		return 0
	}
	return s.shape
}

// Time returns the point's time in nanoseconds: that of the line, or else the one
// given to Reset.
func (s *Scanner) Time() int64 { return s.time }

// AppendLine appends the line to dst, with its time in nanoseconds and a newline,
// and returns the extended slice. InfluxDB reads from it the point that it would
// have read from the request, whatever lines stand before and after it.
func (s *Scanner) AppendLine(dst []byte) []byte {
	dst = append(dst, s.text...)
	switch {
	case s.whole:
		return append(dst, '\n')
	case !s.stamped:
		return append(dst, s.nowText...)
	default:
		dst = append(dst, ' ')
		dst = strconv.AppendInt(dst, s.time, 10)
		return append(dst, '\n')
	}
}

// LineLen returns how many bytes AppendLine appends at most.
func (s *Scanner) LineLen() int { return len(s.text) + maxTimeText }

// maxTimeText is the length of the longest time, with a space before it and a
// newline after it.
const maxTimeText = 22

// appendUnescaped appends a name in which a backslash stands before commas and
// spaces only.
func appendUnescaped(dst, name []byte) []byte {
	for _, c := range name {
		if c != '\\' {
			dst = append(dst, c)
		}
	}
	return dst
}
