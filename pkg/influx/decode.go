package influx

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/tinylib/msgp/msgp"

	"ringmaster/pkg/lineproto"
)

// The bounds of what an answer may hold. They are far above what a server
// sends; they keep a broken answer from taking all memory.
const (
	maxStringBytes = 64 << 20 // a string value; a server takes 25 MB a write
	maxNameBytes   = 1 << 20  // a name, a tag, an error text
	maxColumns     = 1 << 20
	stringStep     = 64 << 10 // strings are read in steps, so that a length alone allocates nothing
	arenaKept      = 1 << 20  // the memory for strings that is kept for the next row
)

// errBroken is wrapped when an answer is not what a server sends, or not all of
// it: trying again may help.
var errBroken = errors.New("broken answer")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errBroken, fmt.Sprintf(format, args...))
}

// serverError is what the server says in the answer itself.
type serverError struct{ text string }

func (e *serverError) Error() string { return e.text }

// decoder walks the chunks of a msgpack answer to several statements,
// row by row, without allocating for a row. It gives each row with its series
// and statement, and checks that the answer is whole: every statement answered
// in turn, what is announced as partial continued, and nothing after an error.
//
// A chunk is {"results": [{"statement_id": n, "series": [{"name": …, "tags":
// {…}, "columns": […], "values": [[…], …], "partial": true}], "partial":
// true}]}; partial means that the next chunk goes on with the same. An error
// takes the place of all that.
type decoder struct {
	r *msgp.Reader
	n int // statements asked
	// loose lets a statement have more results than it announces, as SHOW TAG
	// KEYS does: one a measurement, none of them partial.
	loose bool

	// How much of each level is still to come. The keys of a result come after
	// one another, and so do those of a series.
	results, resultKeys, series, seriesKeys, rows uint32
	at                                            level

	answered      int  // statements answered completely
	identified    bool // the current result has said whose it is
	resultPartial bool // it says that it goes on
	seriesPartial bool // so does its current series
	mustContinue  bool // the series before was partial

	current   lineproto.Series // its tags are sorted, absent ones left out
	columns   []string
	statement int  // of current
	fresh     bool // the next row is the first of another series

	nextTags []lineproto.Tag // spare memory for the series that comes
	scratch  []byte
	arena    []byte // strings of the row
	cells    []lineproto.Value
}

// level is where in a chunk the decoder is.
type level uint8

const (
	betweenChunks level = iota
	inResults
	inResult
	inSeries // in the array of series
	inSeriesKeys
	inRows
)

func newDecoder(r io.Reader, statements int) *decoder {
	return &decoder{r: msgp.NewReaderSize(r, bufferSize), n: statements, statement: -1}
}

// next moves to the next row. io.EOF is the clean end.
func (d *decoder) next() error {
	for {
		var err error
		switch d.at {
		case betweenChunks:
			err = d.openChunk()
		case inResults:
			err = d.openResult()
		case inResult:
			err = d.resultKey()
		case inSeries:
			err = d.openSeries()
		case inSeriesKeys:
			err = d.seriesKey()
		case inRows:
			if d.rows > 0 {
				d.rows--
				return d.row()
			}
			d.at = inSeriesKeys
		}
		if err != nil {
			return err
		}
	}
}

func (d *decoder) openChunk() error {
	keys, err := d.r.ReadMapHeader()
	if errors.Is(err, io.EOF) && d.r.Buffered() == 0 {
		if d.answered < d.n {
			return broken("it ends after %d of %d statements", d.answered, d.n)
		}
		return io.EOF
	}
	if err != nil {
		return d.fail(err)
	}
	if keys != 1 {
		return broken("a chunk with %d keys", keys)
	}
	key, err := d.name()
	if err != nil {
		return err
	}
	switch string(key) {
	case "results":
		if d.results, err = d.r.ReadArrayHeader(); err != nil {
			return d.fail(err)
		}
		d.at = inResults
		return nil
	case "error":
		return d.serverError()
	default:
		return broken("a chunk with %.64q", key)
	}
}

func (d *decoder) openResult() error {
	if d.results == 0 {
		d.at = betweenChunks
		return nil
	}
	d.results--
	var err error
	if d.resultKeys, err = d.r.ReadMapHeader(); err != nil {
		return d.fail(err)
	}
	d.identified, d.resultPartial = false, false
	d.at = inResult
	return nil
}

func (d *decoder) resultKey() error {
	if d.resultKeys == 0 {
		return d.closeResult()
	}
	d.resultKeys--
	key, err := d.name()
	if err != nil {
		return err
	}
	switch string(key) {
	case "error":
		return d.serverError()
	case "statement_id":
		id, err := d.r.ReadInt64()
		if err != nil {
			return d.fail(err)
		}
		if d.loose && d.answered > 0 && id == int64(d.answered)-1 {
			d.answered-- // it goes on after all
		}
		if id != int64(d.answered) || d.answered == d.n {
			return broken("a result of statement %d after %d of %d", id, d.answered, d.n)
		}
		d.identified = true
	case "series":
		if !d.identified {
			return broken("series of no statement")
		}
		if d.series, err = d.r.ReadArrayHeader(); err != nil {
			return d.fail(err)
		}
		d.at = inSeries
	case "partial":
		if d.resultPartial, err = d.r.ReadBool(); err != nil {
			return d.fail(err)
		}
	default: // messages: warnings about the way of asking
		return d.fail(d.r.Skip())
	}
	return nil
}

func (d *decoder) closeResult() error {
	d.at = inResults
	if !d.identified {
		return broken("a result of no statement")
	}
	if d.resultPartial {
		return nil
	}
	if d.mustContinue {
		return broken("a series of statement %d is not continued", d.answered)
	}
	d.answered++
	return nil
}

func (d *decoder) openSeries() error {
	if d.series == 0 {
		d.at = inResult
		return nil
	}
	d.series--
	var err error
	if d.seriesKeys, err = d.r.ReadMapHeader(); err != nil {
		return d.fail(err)
	}
	d.at = inSeriesKeys
	return d.seriesHead()
}

// seriesHead reads the keys of a series up to its values.
func (d *decoder) seriesHead() error {
	name, columns, changed := "", 0, d.statement != d.answered
	d.nextTags = d.nextTags[:0]
	for d.seriesKeys > 0 {
		key, err := d.name()
		if err != nil {
			return err
		}
		d.seriesKeys--
		switch string(key) {
		case "name":
			if name, err = d.text(d.current.Measurement); err != nil {
				return err
			}
		case "tags":
			if err := d.tags(); err != nil {
				return err
			}
		case "columns":
			var other bool
			if columns, other, err = d.columnNames(); err != nil {
				return err
			}
			changed = changed || other
		case "values":
			if columns == 0 {
				return broken("values without columns")
			}
			if d.rows, err = d.r.ReadArrayHeader(); err != nil {
				return d.fail(err)
			}
			d.at = inRows
			return d.chooseSeries(name, changed)
		default:
			return broken("%.64q before the values of a series", key)
		}
	}
	return broken("a series without values")
}

// chooseSeries makes what the head says the current series, and finds out
// whether it is another one.
func (d *decoder) chooseSeries(name string, changed bool) error {
	changed = changed || name != d.current.Measurement || !slices.Equal(d.nextTags, d.current.Tags)
	if changed && d.mustContinue {
		return broken("a series of statement %d is not continued", d.answered)
	}
	d.mustContinue, d.seriesPartial = false, false
	if changed {
		d.current.Measurement = name
		d.current.Tags, d.nextTags = d.nextTags, d.current.Tags
		d.statement = d.answered
		d.fresh = true
	}
	return nil
}

// seriesKey reads what comes after the values of a series.
func (d *decoder) seriesKey() error {
	if d.seriesKeys == 0 {
		d.mustContinue = d.seriesPartial
		d.at = inSeries
		return nil
	}
	d.seriesKeys--
	key, err := d.name()
	if err != nil {
		return err
	}
	if string(key) != "partial" {
		return broken("%.64q after the values of a series", key)
	}
	if d.seriesPartial, err = d.r.ReadBool(); err != nil {
		return d.fail(err)
	}
	return nil
}

// tags reads the tags of the coming series into nextTags.
func (d *decoder) tags() error {
	n, err := d.r.ReadMapHeader()
	if err != nil {
		return d.fail(err)
	}
	for range n {
		b, err := d.name()
		if err != nil {
			return err
		}
		// The keys come in any order; most are those of the series before.
		var before lineproto.Tag
		for _, t := range d.current.Tags {
			if t.Key == string(b) {
				before = t
				break
			}
		}
		key := keep(b, before.Key)
		value, err := d.text(before.Value)
		if err != nil {
			return err
		}
		if value != "" { // a tag that the series does not have
			d.nextTags = append(d.nextTags, lineproto.Tag{Key: key, Value: value})
		}
	}
	slices.SortFunc(d.nextTags, func(a, b lineproto.Tag) int { return cmp.Compare(a.Key, b.Key) })
	return nil
}

// columnNames reads the columns; they are kept as they are if nothing differs.
func (d *decoder) columnNames() (n int, changed bool, err error) {
	size, err := d.r.ReadArrayHeader()
	if err != nil {
		return 0, false, d.fail(err)
	}
	if size == 0 || size > maxColumns {
		return 0, false, broken("a series with %d columns", size)
	}
	n = int(size)
	changed = n != len(d.columns)
	if changed {
		// A new slice: the old one may be known to somebody as the fields of the
		// series before.
		d.columns = append(make([]string, 0, min(n, 64)), d.columns[:min(n, len(d.columns))]...)
	}
	for i := range n {
		before := ""
		if i < len(d.columns) {
			before = d.columns[i]
		}
		name, err := d.text(before)
		if err != nil {
			return 0, false, err
		}
		switch {
		case i == len(d.columns):
			d.columns = append(d.columns, name)
		case name != before:
			if !changed {
				changed = true
				d.columns = slices.Clone(d.columns)
			}
			d.columns[i] = name
		}
	}
	return n, changed, nil
}

// row reads one row into cells.
func (d *decoder) row() error {
	n, err := d.r.ReadArrayHeader()
	if err != nil {
		return d.fail(err)
	}
	if int(n) != len(d.columns) {
		return broken("a row of %d values for %d columns", n, len(d.columns))
	}
	if cap(d.arena) > arenaKept {
		d.arena = nil
	}
	d.arena = d.arena[:0]
	if cap(d.cells) < len(d.columns) {
		d.cells = make([]lineproto.Value, len(d.columns))
	}
	d.cells = d.cells[:len(d.columns)]
	for i := range d.cells {
		if err := d.cell(&d.cells[i]); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) cell(v *lineproto.Value) error {
	t, err := d.r.NextType()
	if err != nil {
		return d.fail(err)
	}
	v.Str = nil
	switch t {
	case msgp.NilType:
		v.Kind, v.Num = lineproto.Null, 0
		err = d.r.ReadNil()
	case msgp.Float64Type:
		var f float64
		f, err = d.r.ReadFloat64()
		v.Kind, v.Num = lineproto.Float, math.Float64bits(f)
	case msgp.IntType:
		var i int64
		i, err = d.r.ReadInt64()
		v.Kind, v.Num = lineproto.Integer, uint64(i)
	case msgp.UintType:
		v.Kind = lineproto.Unsigned
		v.Num, err = d.r.ReadUint64()
	case msgp.BoolType:
		var b bool
		b, err = d.r.ReadBool()
		*v = lineproto.BooleanValue(b)
	case msgp.StrType:
		v.Kind, v.Num = lineproto.String, 0
		from := len(d.arena)
		if d.arena, err = d.appendString(d.arena, maxStringBytes); err == nil {
			// Its own capacity, so that nobody appends into the next string.
			v.Str = d.arena[from:len(d.arena):len(d.arena)]
		}
		return err
	default:
		return broken("a value of type %s", t)
	}
	return d.fail(err)
}

// appendString appends a string to dst. What was appended before stays valid
// even if dst moves.
func (d *decoder) appendString(dst []byte, limit uint32) ([]byte, error) {
	n, err := d.r.ReadStringHeader()
	if err != nil {
		return dst, d.fail(err)
	}
	if n > limit {
		return dst, broken("a string of %d bytes", n)
	}
	for left := int(n); left > 0; {
		step, from := min(left, stringStep), len(dst)
		dst = slices.Grow(dst, step)[:from+step]
		if _, err := d.r.ReadFull(dst[from:]); err != nil {
			return dst[:from], d.fail(err)
		}
		left -= step
	}
	return dst, nil
}

// name reads a short string that is valid until the next one.
func (d *decoder) name() ([]byte, error) {
	var err error
	d.scratch, err = d.appendString(d.scratch[:0], maxNameBytes)
	return d.scratch, err
}

// text reads a short string to keep; it allocates unless it is the one before.
func (d *decoder) text(before string) (string, error) {
	b, err := d.name()
	return keep(b, before), err
}

func keep(b []byte, before string) string {
	if string(b) == before {
		return before
	}
	return string(b)
}

func (d *decoder) serverError() error {
	text, err := d.name()
	if err != nil {
		return err
	}
	return &serverError{string(text)}
}

// fail makes an error of reading one that tells a broken answer from a broken
// connection. An end inside of a chunk is never a clean one.
func (d *decoder) fail(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return broken("it ends in the middle")
	}
	if _, ok := errors.AsType[msgp.Error](err); ok {
		return broken("%v", err)
	}
	return err
}
