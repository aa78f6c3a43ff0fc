package dataset

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"ringmaster/pkg/lineproto"
)

// row is one row of a CSV file, read by column names. The first mistake is kept
// in err; what is read after it is of no use.
type row struct {
	columns map[string]int
	cells   []string
	err     error
}

// rows reads a CSV file row by row. Its first row names the columns.
func rows(each func(r *row, emit func(*Point) error) error) reader {
	return func(file *bufio.Reader, emit func(*Point) error) error {
		in := csv.NewReader(file)
		header, err := in.Read()
		if err != nil {
			return fmt.Errorf("reading the names of the columns: %w", err)
		}
		r := &row{columns: map[string]int{}}
		for i, name := range header {
			r.columns[name] = i
		}
		for {
			r.cells, err = in.Read()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if err := each(r, emit); err != nil {
				return err
			}
			if r.err != nil {
				line, _ := in.FieldPos(0)
				return fmt.Errorf("line %d: %w", line, r.err)
			}
		}
	}
}

// text returns a cell as it is.
func (r *row) text(column string) string {
	i, ok := r.columns[column]
	if !ok {
		r.fail(fmt.Errorf("there is no column %q", column))
		return ""
	}
	return r.cells[i]
}

func (r *row) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// str returns a cell as a string field.
func (r *row) str(column string) lineproto.Value { return lineproto.StringValue(r.text(column)) }

// float returns a cell as a float field, Null if it is empty.
func (r *row) float(column string) lineproto.Value {
	text := r.text(column)
	if text == "" {
		return lineproto.Value{}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		r.fail(fmt.Errorf("column %q: %w", column, err))
	}
	return lineproto.FloatValue(f)
}

// integer returns a cell as an integer field, Null if it is empty.
func (r *row) integer(column string) lineproto.Value {
	text := r.text(column)
	if text == "" {
		return lineproto.Value{}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		r.fail(fmt.Errorf("column %q: %w", column, err))
	}
	return lineproto.IntegerValue(n)
}

// time returns a cell as nanoseconds; the files name no time zone, so it is read
// as UTC.
func (r *row) time(column, layout string) int64 {
	t, err := time.Parse(layout, r.text(column))
	if err != nil {
		r.fail(fmt.Errorf("column %q: %w", column, err))
	}
	return t.UnixNano()
}
