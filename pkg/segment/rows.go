package segment

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unsafe"

	"ringmaster/pkg/lineproto"
)

// Rows reads lines as a Writer writes them, one point a line, and no other form of
// line protocol. Use:
//
//	for rows.Next() { … }
//	if err := rows.Err(); err != nil { … }
//
// It is not safe for concurrent use.
type Rows struct {
	lines []byte // what is left
	line  []byte // the current one
	more  func() ([]byte, error)
	err   error

	key    []byte // of the current series, as in the lines, and a space
	fresh  bool
	series lineproto.Series

	names   []string
	keys    [][]byte // `name=`, escaped, of each column
	first   int      // the column that stood first in a line
	after   []int    // the column that stood after each in a line
	room    int      // for more names
	columns map[string]int
	values  []lineproto.Value
	set     []int // the columns that the current line has
	text    []byte
	ns      int64
}

// NewRows reads from lines, which are whole. fields become the columns, in their
// order; those that a line has besides are added behind them.
func NewRows(fields []Field, lines []byte) *Rows {
	r := &Rows{columns: map[string]int{}, room: MaxFoot}
	for _, f := range fields {
		r.addColumn(f.Name)
	}
	r.lines = lines
	return r
}

// Next goes to the next row. It returns false at the end and on any error, which
// [Rows.Err] tells apart.
func (r *Rows) Next() bool {
	for len(r.lines) == 0 {
		if r.err != nil || r.more == nil {
			return false
		}
		if r.lines, r.err = r.more(); r.err != nil {
			r.lines = nil
			return false
		}
		if r.lines == nil {
			return false
		}
	}
	rest, err := r.parse(r.lines)
	if err != nil {
		r.err, r.lines, r.line, r.more = err, nil, nil, nil
		return false
	}
	r.line, r.lines = r.lines[:len(r.lines)-len(rest)], rest
	return true
}

// Err is what ended the rows early.
func (r *Rows) Err() error { return r.err }

// Line is the row as it is stored, with its newline; it is valid until Next, as is
// everything else.
func (r *Rows) Line() []byte { return r.line }

// Key is measurement and tags of the row as they stand in the line.
func (r *Rows) Key() []byte { return r.key[:len(r.key)-1] }

// NewSeries reports whether the row belongs to another series than the one before.
func (r *Rows) NewSeries() bool { return r.fresh }

// Series is the series of the row.
func (r *Rows) Series() *lineproto.Series { return &r.series }

// Fields are the names of the columns.
func (r *Rows) Fields() []string { return r.names }

// Values are the values of the row, one for each column, Null where it has none.
func (r *Rows) Values() []lineproto.Value { return r.values }

// Present are the columns that the row has, as they stand in the line.
func (r *Rows) Present() []int { return r.set }

// Time is the time of the row in nanoseconds.
func (r *Rows) Time() int64 { return r.ns }

var errLine = errors.New("not a line that a segment has")

// parse reads the line that b begins with and returns what follows it.
func (r *Rows) parse(b []byte) ([]byte, error) {
	if r.fresh = len(r.key) == 0 || !bytes.HasPrefix(b, r.key); r.fresh {
		if err := r.parseKey(b); err != nil {
			return nil, err
		}
	}
	for _, c := range r.set {
		r.values[c] = lineproto.Value{}
	}
	r.set, r.text = r.set[:0], r.text[:0]
	rest := b[len(r.key):]
	column := -1
	for {
		var err error
		if column, rest, err = r.parseField(column, rest); err != nil {
			return nil, err
		}
		if len(rest) == 0 || rest[0] != ',' {
			break
		}
		rest = rest[1:]
	}
	if len(rest) == 0 || rest[0] != ' ' {
		return nil, fmt.Errorf("%w: %.64q after the fields", errLine, rest)
	}
	rest = rest[1:]
	end := bytes.IndexByte(rest[:min(len(rest), maxTimeText)], '\n')
	if end < 0 {
		return nil, fmt.Errorf("%w: no end after the time %.24q", errLine, rest)
	}
	ns, err := strconv.ParseInt(text(rest[:end]), 10, 64)
	if err != nil || ns < lineproto.MinTime || ns > lineproto.MaxTime || rest[0] == '+' {
		return nil, fmt.Errorf("%w: time %.24q", errLine, rest[:end])
	}
	r.ns = ns
	return rest[end+1:], nil
}

// maxTimeText is the length of the longest time and a newline.
const maxTimeText = 21

// text looks at bytes as a string, which nobody keeps.
func text(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b)) //nolint:gosec // parsers of numbers keep nothing
}

// cut returns where the first space or byte of another value stands that has no
// backslash before it, or -1.
func cut(b []byte, stop byte) int {
	for i, c := range b {
		if (c == stop || c == ' ') && (i == 0 || b[i-1] != '\\') {
			return i
		}
	}
	return -1
}

// parseKey reads measurement and tags.
func (r *Rows) parseKey(b []byte) error {
	r.key = r.key[:0]
	b = b[:min(len(b), maxSeries)]
	i := cut(b, ',')
	if i <= 0 {
		return fmt.Errorf("%w: no measurement in %.64q", errLine, b)
	}
	s := lineproto.Series{Measurement: unescape(b[:i], ", ")}
	for b[i] == ',' {
		from := i + 1
		eq := cut(b[from:], '=')
		if eq <= 0 || b[from+eq] != '=' {
			return fmt.Errorf("%w: no tag in %.64q", errLine, b[from:])
		}
		value := from + eq + 1
		n := cut(b[value:], ',')
		if n <= 0 {
			return fmt.Errorf("%w: no value of a tag in %.64q", errLine, b[value:])
		}
		i = value + n
		s.Tags = append(s.Tags, lineproto.Tag{Key: unescape(b[from:from+eq], ", ="), Value: unescape(b[value:i], ", =")})
	}
	r.series = s
	r.key = append(r.key, b[:i+1]...)
	return nil
}

// unescape takes away the backslashes before the bytes of special.
func unescape(b []byte, special string) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+1 < len(b) && strings.IndexByte(special, b[i+1]) >= 0 {
			i++
		}
		out = append(out, b[i])
	}
	return string(out)
}

// parseField reads a field, which follows that of a column, or stands first if before
// is -1.
func (r *Rows) parseField(before int, b []byte) (column int, rest []byte, err error) {
	guess := &r.first
	if before >= 0 {
		guess = &r.after[before]
	}
	if column = *guess; column < len(r.keys) && len(r.keys[column]) > 0 && bytes.HasPrefix(b, r.keys[column]) {
		b = b[len(r.keys[column]):]
	} else {
		var n int
		if column, n, err = r.lookUp(b); err != nil {
			return 0, nil, err
		}
		b = b[n:]
		if before >= 0 {
			guess = &r.after[before] // may have moved
		}
		*guess = column
	}
	if r.values[column].Kind != lineproto.Null {
		return 0, nil, fmt.Errorf("%w: field %.64q twice", errLine, r.names[column])
	}
	v, n, err := r.parseValue(b)
	if err != nil {
		return 0, nil, err
	}
	r.values[column] = v
	r.set = append(r.set, column)
	return column, b[n:], nil
}

// lookUp returns the column of the field that b begins with, and where its value
// begins.
func (r *Rows) lookUp(b []byte) (column, value int, err error) {
	eq := 0
	for eq < len(b) && b[eq] != '=' {
		if b[eq] == ' ' || b[eq] == ',' {
			eq = len(b)
			break
		}
		if b[eq] == '\\' {
			eq++
		}
		eq++
	}
	if eq == 0 || eq >= len(b) {
		return 0, 0, fmt.Errorf("%w: no field in %.64q", errLine, b)
	}
	column, known := r.columns[string(b[:eq])]
	if !known || bytes.IndexByte(b[:eq], '\\') >= 0 {
		name := unescape(b[:eq], `, ="`)
		if column, known = r.columns[name]; !known {
			if r.room -= len(name) + fieldEntry; r.room < 0 {
				return 0, 0, fmt.Errorf("%w: more fields than a segment has", errLine)
			}
			column = r.addColumn(name)
		}
	}
	if !bytes.Equal(r.keys[column], b[:eq+1]) {
		r.keys[column] = bytes.Clone(b[:eq+1])
	}
	return column, eq + 1, nil
}

// fieldEntry is how much a field takes in a header, without its name, at least.
const fieldEntry = 2

// addColumn adds a column, which is expected behind the one before it.
func (r *Rows) addColumn(name string) int {
	column := len(r.names)
	r.names, r.keys = append(r.names, name), append(r.keys, nil)
	r.values, r.after = append(r.values, lineproto.Value{}), append(r.after, column+1)
	r.columns[name] = column
	return column
}

// parseValue reads the value that b begins with and returns how long it is.
func (r *Rows) parseValue(b []byte) (v lineproto.Value, n int, err error) {
	if len(b) > 0 && b[0] == '"' {
		return r.parseString(b)
	}
	for n < len(b) && b[n] != ',' && b[n] != ' ' && b[n] != '\n' {
		n++
	}
	token := b[:n]
	ok := false
	switch {
	case n == 0:
	case token[n-1] == 'i':
		var i int64
		i, err = strconv.ParseInt(text(token[:n-1]), 10, 64)
		v, ok = lineproto.IntegerValue(i), err == nil
	case token[n-1] == 'u':
		var u uint64
		u, err = strconv.ParseUint(text(token[:n-1]), 10, 64)
		v, ok = lineproto.UnsignedValue(u), err == nil
	case string(token) == "true", string(token) == "false":
		v, ok = lineproto.BooleanValue(token[0] == 't'), true
	case token[0] == '-' || token[0] >= '0' && token[0] <= '9':
		var f float64
		f, err = strconv.ParseFloat(text(token), 64)
		v, ok = lineproto.FloatValue(f), err == nil && !math.IsInf(f, 0)
	}
	if !ok {
		return lineproto.Value{}, 0, fmt.Errorf("%w: value %.64q", errLine, token)
	}
	return v, n, nil
}

// parseString reads the string that b begins with.
func (r *Rows) parseString(b []byte) (v lineproto.Value, n int, err error) {
	escaped := false
	for n = 1; n < len(b) && b[n] != '"'; n++ {
		if b[n] == '\\' {
			escaped = true
			n++
		}
	}
	if n >= len(b) {
		return lineproto.Value{}, 0, fmt.Errorf("%w: no end of the string %.64q", errLine, b)
	}
	str := b[1:n]
	if escaped {
		// What was appended before stays where it is, though the slice may move.
		from := len(r.text)
		for i := 0; i < len(str); i++ {
			if str[i] == '\\' {
				i++
			}
			r.text = append(r.text, str[i])
		}
		str = r.text[from:]
	}
	return lineproto.Value{Kind: lineproto.String, Str: str}, n + 1, nil
}
