package result

import (
	"bytes"
	"encoding/csv"
	"math"
	"slices"
	"strconv"
)

// csvBody writes tables, each with its head. Errors of statements have no place in
// it.
type csvBody struct {
	chunked bool

	statement int // whose table was last, -1 before the first
	current   int // whose results come
	columns   []string
	last      Series // the series before, without values
	series    int    // of the current statement, or of the chunk
	// resultAt is where the current statement begins in what has not been
	// written, -1 if that has left; statementAt is statement as it was there.
	resultAt, statementAt int
	dropped               bool // the current statement has failed
}

func newCSV(chunked bool) *csvBody {
	return &csvBody{chunked: chunked, statement: -1, current: -1, resultAt: -1}
}

func (c *csvBody) add(dst []byte, r *Result) ([]byte, error) {
	if r.StatementID != c.current {
		c.current, c.series, c.dropped = r.StatementID, 0, false
		c.resultAt, c.statementAt = len(dst), c.statement
	}
	if c.chunked {
		c.series = 0
	} else if r.Err != "" {
		if c.resultAt < 0 && c.series > 0 {
			return dst, ErrUnseen
		}
		if c.resultAt >= 0 {
			dst, c.statement = dst[:c.resultAt], c.statementAt
		}
		c.dropped = true
	}
	if r.Err != "" || c.dropped {
		return dst, nil
	}
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	for i, joins := 0, !c.chunked && c.series > 0; i < len(r.Series); i++ {
		s := &r.Series[i]
		joins = joins && c.last.Same(s)
		switch {
		case r.StatementID != c.statement:
			if c.statement >= 0 {
				w.Flush()
				out.WriteByte('\n')
			}
			c.statement = r.StatementID
			if err := c.head(w, s); err != nil {
				return dst, err
			}
		case c.series > 0 && !joins && !slices.Equal(c.last.Columns, s.Columns):
			w.Flush()
			out.WriteByte('\n')
			if err := c.head(w, s); err != nil {
				return dst, err
			}
		}
		c.series++
		c.last = Series{Name: s.Name, Tags: s.Tags, Columns: s.Columns}
		if err := c.rows(w, s); err != nil {
			return dst, err
		}
	}
	w.Flush()
	return append(dst, out.Bytes()...), w.Error()
}

func (c *csvBody) head(w *csv.Writer, s *Series) error {
	c.columns = append([]string{"name", "tags"}, s.Columns...)
	return w.Write(c.columns)
}

func (c *csvBody) rows(w *csv.Writer, s *Series) error {
	c.columns[0], c.columns[1] = s.Name, csvTags(s.Tags)
	for _, row := range s.Values {
		for len(c.columns) < len(row)+2 {
			c.columns = append(c.columns, "")
		}
		for i := range row {
			c.columns[i+2] = csvValue(&row[i])
		}
		if err := w.Write(c.columns); err != nil {
			return err
		}
	}
	return nil
}

func (c *csvBody) end(dst []byte) ([]byte, error) { return dst, nil }
func (c *csvBody) spilled()                       { c.resultAt = -1 }

func csvValue(v *Value) string {
	switch v.Kind {
	case Float:
		return strconv.FormatFloat(math.Float64frombits(v.Num), 'f', -1, 64)
	case Integer, Time:
		return strconv.FormatInt(int64(v.Num), 10)
	case Unsigned:
		return strconv.FormatUint(v.Num, 10)
	case Boolean:
		return strconv.FormatBool(v.Num != 0)
	case String:
		return v.Str
	default:
		return ""
	}
}

// csvTags joins tags as line protocol has them; those without a value are left out.
func csvTags(tags []Tag) string {
	var b []byte
	escape := func(s string) {
		for i := range len(s) {
			if s[i] == ',' || s[i] == ' ' || s[i] == '=' {
				b = append(b, '\\')
			}
			b = append(b, s[i])
		}
	}
	for _, t := range tags {
		if t.Value == "" {
			continue
		}
		if len(b) > 0 {
			b = append(b, ',')
		}
		escape(t.Key)
		b = append(b, '=')
		escape(t.Value)
	}
	return string(b)
}

func appendCSVRecord(dst []byte, record []string) []byte {
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	_ = w.Write(record) // to memory
	w.Flush()
	return append(dst, out.Bytes()...)
}
