package lineproto

import (
	"bytes"
	"fmt"
	"time"

	"github.com/influxdata/influxdb1-client/models"
)

// maxRefusalText bounds what is kept of InfluxDB's words about bad lines. They
// repeat each line, so that a body of bad lines makes a text many times its size.
const maxRefusalText = 1 << 20

// refusals are the lines that InfluxDB would refuse.
type refusals struct {
	text  []byte // of the first ones
	lines int
	cut   int // lines that have no place in text
}

func (r *refusals) add(text string) {
	r.lines++
	if r.cut > 0 || len(r.text) > 0 && len(r.text)+len(text) > maxRefusalText {
		r.cut++
		return
	}
	if len(r.text) > 0 {
		r.text = append(r.text, '\n')
	}
	r.text = append(r.text, text...)
}

// Refused returns how many lines InfluxDB would have refused among those that Next
// has passed, and its words about them, one refusal after another; "" if there is
// none. If the words would be longer than about a megabyte, the last line says of
// how many lines they tell nothing.
func (s *Scanner) Refused() (text string, lines int) {
	text = string(s.refusals.text)
	if s.refusals.cut > 0 {
		text += fmt.Sprintf("\nand %d more lines", s.refusals.cut)
	}
	return text, s.refusals.lines
}

// PartialWrite is what InfluxDB says when it has stored a part of a request: reason
// are the words of [Scanner.Refused] (with no points dropped), or why it has dropped
// points that could be read. When no line of a request could be read, it says the
// words of Refused alone; status 400 in all these cases. It tells of points that
// were dropped only, when a request had both.
func PartialWrite(reason string, dropped int) string {
	return fmt.Sprintf("partial write: %s dropped=%d", reason, dropped)
}

// judge puts the line at s.pos before InfluxDB's parser, and reports whether it is
// a point. It goes to the next line in any case.
func (s *Scanner) judge() bool {
	end := lineEnd(s.body, s.pos)
	line := s.body[s.pos:end]
	// With its newline, since the parser looks ahead.
	whole := s.body[s.pos:min(end+1, len(s.body))]
	s.pos = end + 1

	text := bytes.TrimLeft(line, " \t\x00")
	if len(text) == 0 || text[0] == '#' {
		return false
	}
	points, err := models.ParsePointsWithPrecision(whole, time.Unix(0, s.now).UTC(), s.precision.String())
	switch {
	case err != nil:
		s.refusals.add(err.Error())
		return false
	case len(points) != 1:
		s.refuse(text, fmt.Sprintf("%d points in one line", len(points)))
		return false
	}
	return s.render(text, points[0])
}

func (s *Scanner) refuse(line []byte, reason string) {
	s.refusals.add(fmt.Sprintf("unable to parse '%s': %s", line, reason))
}

// next is the line that stands after another one for a trial.
const next = "next f=1i 1\n"

// render writes the point as a line of its own. Some lines can be read as a point
// only where they stand, and would be read otherwise, or swallow the next line,
// when others stand around them. These are refused.
func (s *Scanner) render(line []byte, p models.Point) bool {
	s.rendered = p.AppendString(s.rendered[:0])
	textEnd := len(s.rendered)
	s.rendered = append(s.rendered, '\n')
	s.rendered = append(s.rendered, next...)

	again, err := models.ParsePointsWithPrecision(s.rendered, time.Unix(0, 0).UTC(), Nanoseconds.String())
	if err != nil || len(again) != 2 || !samePoint(p, again[0]) || again[1].String()+"\n" != next {
		s.refuse(line, "its escaping means another point among other lines")
		return false
	}
	s.text = s.rendered[:textEnd]
	s.keyLen = len(p.Key())
	s.name = append(s.name[:0], p.Name()...)
	s.escaped, s.judged = true, true
	s.stamped, s.whole, s.time = true, true, p.UnixNano()
	return true
}

// samePoint reports whether both points are equal in what they are stored by.
func samePoint(p, q models.Point) bool {
	return bytes.Equal(p.Name(), q.Name()) && bytes.Equal(p.Key(), q.Key()) && p.String() == q.String()
}

// lineEnd returns where the line that begins at i ends: at a newline that is no
// part of a pair with a backslash nor within quotes, for which InfluxDB looks
// behind the first space only and where more equals signs than commas stood. It is
// the end of the body if there is none. A backslash that is the last byte but one
// pairs with nothing.
func lineEnd(b []byte, i int) int {
	fields, quoted, ahead := false, false, 0
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case c == '\\' && i+2 < len(b):
			i++
		case c == '\n' && !quoted:
			return i
		case c == ' ':
			fields = true
		case c == '"' && fields && ahead > 0:
			quoted = !quoted
		case c == '=' && fields && !quoted:
			ahead++
		case c == ',' && fields && !quoted:
			ahead--
		}
	}
	return i
}
