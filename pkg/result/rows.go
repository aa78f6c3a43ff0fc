package result

import "slices"

// Rows is a pull reader over the rows of one statement, series by series. Use:
//
//	for r.Next() { … }
//	if err := r.Err(); err != nil { … }
//
// Rows must be closed, and are for one goroutine.
type Rows interface {
	// Next moves to the next row. It returns false at the end and on any error,
	// which Err tells apart.
	Next() bool
	// Series is the head of the series of the current row: its Values are not
	// used. It stays the same value for the rows of one series, does not change,
	// and is another one for another series.
	Series() *Series
	// Values are the values of the current row. Whoever gets them may keep them.
	Values() []Value
	// Err is nil only when everything has come.
	Err() error
	Close()
}

// Slice returns the rows of tables that are in memory.
func Slice(tables ...Series) Rows { return &slice{tables: tables, table: -1} }

type slice struct {
	tables     []Series
	table, row int
}

func (s *slice) Next() bool {
	s.row++
	for s.table < 0 || s.table < len(s.tables) && s.row >= len(s.tables[s.table].Values) {
		s.table, s.row = s.table+1, 0
		if s.table >= len(s.tables) {
			return false
		}
	}
	return s.table < len(s.tables)
}

func (s *slice) Series() *Series { return &s.tables[s.table] }
func (s *slice) Values() []Value { return s.tables[s.table].Values[s.row] }
func (s *slice) Err() error      { return nil }
func (s *slice) Close()          {}

// Merge joins the answers of several servers, each in order, into one in order of
// the series, or of reversed order. Rows of one series that several have are put in
// order of their first column; of equal ones those of the first server come first.
// Closing it closes them.
func Merge(reversed bool, from ...Rows) Rows { return &merge{from: from, reversed: reversed} }

type merge struct {
	from     []Rows
	reversed bool
	started  bool
	ready    []bool // whether from[i] is at a row
	at       int    // the one that the current row is from
	head     *Series
	err      error
}

func (m *merge) Next() bool {
	if m.err != nil {
		return false
	}
	if !m.started {
		m.started = true
		m.ready = make([]bool, len(m.from))
		for i := range m.from {
			if !m.advance(i) {
				return false
			}
		}
	} else if !m.advance(m.at) {
		return false
	}
	best := -1
	for i, ready := range m.ready {
		if ready && (best < 0 || m.before(i, best)) {
			best = i
		}
	}
	if best < 0 {
		return false
	}
	m.at = best
	if h := m.from[best].Series(); m.head == nil || m.head != h && !(m.head.Same(h) && slices.Equal(m.head.Columns, h.Columns)) {
		m.head = h
	}
	return true
}

// advance moves one of the answers; false is an error.
func (m *merge) advance(i int) bool {
	if m.ready[i] = m.from[i].Next(); !m.ready[i] {
		m.err = m.from[i].Err()
	}
	return m.err == nil
}

// before reports whether the row of one answer comes before that of another.
func (m *merge) before(i, j int) bool {
	c := CompareSeries(m.from[i].Series(), m.from[j].Series())
	if c == 0 {
		a, b := m.from[i].Values(), m.from[j].Values()
		if len(a) > 0 && len(b) > 0 {
			c = compareKeys(&a[0], &b[0])
		}
	}
	if m.reversed {
		return c > 0
	}
	return c < 0
}

func compareKeys(a, b *Value) int {
	if a.Kind == String && b.Kind == String {
		switch {
		case a.Str < b.Str:
			return -1
		case a.Str > b.Str:
			return 1
		}
		return 0
	}
	switch x, y := int64(a.Num), int64(b.Num); {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

func (m *merge) Series() *Series { return m.head }
func (m *merge) Values() []Value { return m.from[m.at].Values() }
func (m *merge) Err() error      { return m.err }

func (m *merge) Close() {
	for _, r := range m.from {
		r.Close()
	}
}

// Bounds are what LIMIT, OFFSET, SLIMIT and SOFFSET say; 0 is no limit.
type Bounds struct{ Limit, Offset, SLimit, SOffset int }

// Limit leaves out what lies outside of the bounds: series, and rows of each.
func Limit(r Rows, b Bounds) Rows {
	if b == (Bounds{}) {
		return r
	}
	return &limit{Rows: r, bounds: b, series: -1}
}

type limit struct {
	Rows

	bounds      Bounds
	head        *Series
	series, row int
}

func (l *limit) Next() bool {
	for l.Rows.Next() {
		if h := l.Series(); l.head == nil || h != l.head {
			l.head = h
			l.series++
			l.row = -1
		}
		l.row++
		if l.bounds.SLimit > 0 && l.series >= l.bounds.SOffset+l.bounds.SLimit {
			return false
		}
		if l.series < l.bounds.SOffset || l.row < l.bounds.Offset || l.bounds.Limit > 0 && l.row >= l.bounds.Offset+l.bounds.Limit {
			continue
		}
		return true
	}
	return false
}

// Keep leaves out the rows that keep is false for.
func Keep(r Rows, keep func(*Series, []Value) bool) Rows { return &kept{Rows: r, keep: keep} }

type kept struct {
	Rows

	keep func(*Series, []Value) bool
}

func (k *kept) Next() bool {
	for k.Rows.Next() {
		if k.keep(k.Series(), k.Values()) {
			return true
		}
	}
	return false
}

// Distinct leaves out a row that equals the one before it in the same series.
func Distinct(r Rows) Rows { return &distinct{Rows: r} }

type distinct struct {
	Rows

	head   *Series
	before []Value
}

func (d *distinct) Next() bool {
	for d.Rows.Next() {
		if h := d.Series(); h != d.head {
			d.head, d.before = h, nil
		}
		if d.before != nil && slices.Equal(d.before, d.Values()) {
			continue
		}
		d.before = d.Values()
		return true
	}
	return false
}

// Chunk gives rows to write as InfluxDB does: at most size rows of one series at a
// time (0 is no bound), each marked when more follows, and an empty result if there
// are none.
func Chunk(r Rows, size int, blank Result, write func(*Result) error) error {
	var held *Series
	var head *Series
	send := func(last bool) error {
		out := blank
		out.Series, out.Partial = []Series{*held}, !last
		return write(&out)
	}
	for r.Next() {
		h := r.Series()
		full := held != nil && size > 0 && len(held.Values) >= size && h == head
		if held != nil && (h != head || full) {
			held.Partial = full
			if err := send(false); err != nil {
				return err
			}
			held = nil
		}
		if held == nil {
			head = h
			held = &Series{Name: h.Name, Tags: h.Tags, Columns: h.Columns}
		}
		held.Values = append(held.Values, r.Values())
	}
	if err := r.Err(); err != nil {
		return err
	}
	if held == nil {
		out := blank
		return write(&out)
	}
	return send(true)
}
