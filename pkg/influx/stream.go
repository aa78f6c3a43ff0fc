package influx

import (
	"context"
	"errors"

	"ringmaster/pkg/lineproto"
)

// Window is a span of time in nanoseconds: From included, To excluded. If Last,
// To is included too, which is meant for the end of legal time only.
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
}

// Stream is a pull reader over the points of one or several selections. Rows
// arrive selection by selection, series by series, each in order of time. Use:
//
//	for s.Next() { … }
//	if err := s.Err(); err != nil { … }
//
// A Stream must be closed, and is for one goroutine.
type Stream struct{}

// Read asks for the points of sels, all in one request, and answers when the
// server begins to.
func (c *Client) Read(ctx context.Context, sels []Selection) (*Stream, error) {
	return nil, errors.ErrUnsupported
}

// Next moves to the next row. It returns false at the end and on any error,
// which [Stream.Err] tells apart.
func (s *Stream) Next() bool { return false }

// Statement is the index into the selections of the current row.
func (s *Stream) Statement() int { return 0 }

// NewSeries reports whether the current row belongs to another series,
// selection or set of fields than the row before.
func (s *Stream) NewSeries() bool { return false }

// Series is the series of the current row, valid until the next new series.
func (s *Stream) Series() *lineproto.Series { return nil }

// Fields are the names of the fields of the current row, valid as Series is.
func (s *Stream) Fields() []string { return nil }

// Time is the time of the current row in nanoseconds.
func (s *Stream) Time() int64 { return 0 }

// Values are the values of the current row, one for each field, valid until
// Next.
func (s *Stream) Values() []lineproto.Value { return nil }

// Err returns what ended the stream early: an error of any selection, a broken
// connection, an answer that stops before it is complete. It is nil only when
// everything has arrived.
func (s *Stream) Err() error { return nil }

// Close ends the request. It may be called at any time, and more than once.
func (s *Stream) Close() error { return nil }
