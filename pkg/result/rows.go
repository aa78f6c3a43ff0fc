package result

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
