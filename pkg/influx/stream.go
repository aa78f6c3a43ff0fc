package influx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"ringmaster/pkg/lineproto"
)

// Window is a span of time in nanoseconds: From included, To excluded. If Last,
// To is included too, which is meant for the end of legal time only. What lies
// outside the legal times is cut off.
type Window struct {
	From, To int64
	Last     bool
}

// Selection names the points of one measurement of one retention policy in a
// window.
type Selection struct {
	Database        string
	RetentionPolicy string
	Measurement     string
	Window          Window
	// Unsigned names the fields whose integers are unsigned, by [Client.FieldKeys].
	// msgpack does not tell the small ones apart. Only few servers have them.
	Unsigned []string
}

// SameMeasurement reports whether two selections differ in their windows only.
func (s *Selection) SameMeasurement(o *Selection) bool {
	return s.Database == o.Database && s.RetentionPolicy == o.RetentionPolicy && s.Measurement == o.Measurement
}

// Stream is a pull reader over the points of one or several selections. Rows
// arrive selection by selection, series by series, each in order of time. Use:
//
//	for s.Next() { … }
//	if err := s.Err(); err != nil { … }
//
// A Stream must be closed, and is for one goroutine.
type Stream struct {
	sels     []Selection
	answer   *answer
	newRow   bool
	unsigned []bool // by column; nil if none
	err      error
	done     bool
}

// Read asks for the points of sels, all in one request, and answers when the
// server begins to. An error of one selection, such as an unknown retention
// policy, ends the stream. A window must not reach over a boundary of the
// server's shard groups: beyond one the types of fields may differ, and
// InfluxDB then casts numbers and leaves out other values without a word.
//
// A request may take 10 MiB: some ten thousand selections.
func (c *Client) Read(ctx context.Context, sels []Selection) (*Stream, error) {
	s := &Stream{sels: slices.Clone(sels)}
	if len(sels) == 0 {
		s.done = true
		return s, nil
	}
	q, err := statements(sels, allFields, " GROUP BY *")
	if err != nil {
		return nil, err
	}
	if s.answer, err = c.ask(ctx, "reading points from", q, len(sels)); err != nil {
		return nil, err
	}
	return s, nil
}

// Next moves to the next row. It returns false at the end and on any error,
// which [Stream.Err] tells apart.
func (s *Stream) Next() bool {
	if s.done {
		return false
	}
	d := s.answer.decoder
	for {
		if err := s.answer.next(); err != nil {
			return s.end(err)
		}
		s.newRow, d.fresh = d.fresh, false
		sel := &s.sels[d.statement]
		if d.current.Measurement != sel.Measurement {
			continue // a pattern has matched more than its measurement
		}
		if s.newRow {
			if err := checkFields(sel.Measurement, d.columns, ""); err != nil {
				return s.end(fmt.Errorf("%s: %w", s.answer.op, err))
			}
		}
		if d.columns[0] != "time" || d.cells[0].Kind != lineproto.Integer {
			return s.end(&Error{Class: Permanent, Op: s.answer.op, Message: "a row without its time in nanoseconds"})
		}
		if len(sel.Unsigned) > 0 {
			s.castUnsigned(sel)
		}
		return true
	}
}

// end ends the stream, at its end or with an error.
func (s *Stream) end(err error) bool {
	s.done = true
	if !errors.Is(err, io.EOF) {
		s.err = err
	}
	s.answer.close()
	return false
}

func (s *Stream) castUnsigned(sel *Selection) {
	d := s.answer.decoder
	if s.newRow {
		s.unsigned = s.unsigned[:0]
		for _, c := range d.columns {
			s.unsigned = append(s.unsigned, slices.Contains(sel.Unsigned, c))
		}
	}
	for i := 1; i < len(d.cells); i++ {
		if s.unsigned[i] && d.cells[i].Kind == lineproto.Integer {
			d.cells[i].Kind = lineproto.Unsigned
		}
	}
}

// Statement is the index into the selections of the current row.
func (s *Stream) Statement() int { return s.answer.statement }

// NewSeries reports whether the current row belongs to another series,
// selection or set of fields than the row before.
func (s *Stream) NewSeries() bool { return s.newRow }

// Series is the series of the current row, valid until the next new series.
func (s *Stream) Series() *lineproto.Series { return &s.answer.current }

// Fields are the names of the fields of the current row, valid as Series is.
func (s *Stream) Fields() []string { return s.answer.columns[1:] }

// Time is the time of the current row in nanoseconds.
func (s *Stream) Time() int64 { return int64(s.answer.cells[0].Num) }

// Values are the values of the current row, one for each field, valid until
// Next.
func (s *Stream) Values() []lineproto.Value { return s.answer.cells[1:] }

// Bytes is how many bytes of the answer have been read.
func (s *Stream) Bytes() int64 {
	if s.answer == nil {
		return 0
	}
	return s.answer.meter.n
}

// Err returns what ended the stream early: an error of any selection, a broken
// connection, an answer that stops before it is complete. It is nil only when
// everything has arrived.
func (s *Stream) Err() error { return s.err }

// Close ends the request. It may be called at any time, and more than once.
func (s *Stream) Close() error {
	s.done = true
	if s.answer != nil {
		s.answer.close()
	}
	return nil
}
