package result

import (
	"errors"
	"fmt"
	"io"
)

// Options say how an answer is written.
type Options struct {
	Format Format
	// Pretty indents JSON.
	Pretty bool
	// Chunked writes a document for each result; otherwise there is one for all.
	Chunked bool
	// Epoch is the unit that times are given in: ns, u, ms, s, m or h; others
	// mean ns. "" leaves them as text.
	Epoch string
	// Hold is how much of an answer that is not chunked is kept back before it
	// begins: as long as nothing has been written, an error takes the place of
	// what it ends, as it does in InfluxDB. 0 means DefaultHold.
	Hold int
	// MaxHeld bounds what is kept of an answer that cannot be written before all
	// of it is known, which is msgpack that is not chunked. 0 means
	// DefaultMaxHeld.
	MaxHeld int
}

// Defaults of [Options].
const (
	DefaultHold    = 256 << 10
	DefaultMaxHeld = 64 << 20
)

// spill is how much is gathered between writes.
const spill = 64 << 10

// ErrTooLarge is returned for an answer that is larger than [Options.MaxHeld].
var ErrTooLarge = errors.New("the answer is too large to be sent in one piece; ask for it with chunked=true")

// ErrUnseen is returned when a statement has failed of which rows have been written
// already, in a format that has no place for errors. The answer must not be closed.
var ErrUnseen = errors.New("a statement has failed after a part of its answer was sent")

// Writer writes the answer to a request as InfluxDB does, result by result. It is
// for one goroutine.
type Writer struct {
	w io.Writer
	o Options
	// buf is what has been made and not written; began says that something has
	// been.
	buf    []byte
	began  bool
	failed error
	body   body
}

// body makes the documents of one format and way.
type body interface {
	// add takes the next result and appends what can be.
	add(dst []byte, r *Result) ([]byte, error)
	// end appends what closes the answer.
	end(dst []byte) ([]byte, error)
	// spilled says that all that was appended has left the buffer.
	spilled()
}

// NewWriter returns a writer of one answer.
func NewWriter(w io.Writer, o Options) *Writer {
	if o.Hold <= 0 {
		o.Hold = DefaultHold
	}
	if o.MaxHeld <= 0 {
		o.MaxHeld = DefaultMaxHeld
	}
	out := &Writer{w: w, o: o}
	switch {
	case o.Format == CSV:
		out.body = newCSV(o.Chunked)
	case o.Format == Msgpack && o.Chunked:
		out.body = msgpackChunks{}
	case o.Format == Msgpack:
		out.body = &msgpackWhole{most: o.MaxHeld}
	case o.Chunked:
		out.body = jsonChunks{pretty: o.Pretty}
	default:
		out.body = &jsonWhole{pretty: o.Pretty, resultAt: -1, docAt: 0}
	}
	return out
}

// Write takes the next result; it may change the times in it. Chunks leave at
// once, what is not chunked when there is enough of it.
func (w *Writer) Write(r *Result) error {
	if w.failed != nil {
		return w.failed
	}
	if w.o.Epoch != "" {
		div := divisor(w.o.Epoch)
		for i := range r.Series {
			toEpoch(r.Series[i].Values, div)
		}
	}
	if w.buf, w.failed = w.body.add(w.buf, r); w.failed != nil {
		return w.failed
	}
	most := w.o.Hold
	switch {
	case w.o.Chunked:
		most = 0
	case w.began:
		most = spill
	}
	if len(w.buf) > most {
		return w.flush()
	}
	return nil
}

// Close ends the answer.
func (w *Writer) Close() error {
	if w.failed != nil {
		return w.failed
	}
	if w.buf, w.failed = w.body.end(w.buf); w.failed != nil {
		return w.failed
	}
	return w.flush()
}

// Began reports whether anything has been written: then it is too late for another
// answer.
func (w *Writer) Began() bool { return w.began }

// ShowsErrors reports whether a client would see that a result has an error. CSV
// has no place for it.
func (w *Writer) ShowsErrors() bool { return w.o.Format != CSV }

func (w *Writer) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	w.began = true
	if _, err := w.w.Write(w.buf); err != nil {
		w.failed = fmt.Errorf("writing an answer: %w", err)
		return w.failed
	}
	if cap(w.buf) > 4*spill {
		w.buf = nil
	}
	w.buf = w.buf[:0]
	w.body.spilled()
	return nil
}

// AppendError appends the document that refuses a whole request.
func AppendError(dst []byte, o Options, text string) []byte {
	switch o.Format {
	case CSV:
		return appendCSVRecord(appendCSVRecord(dst, []string{"error"}), []string{text})
	case Msgpack:
		return appendMsgpackError(dst, text)
	default:
		doc := append(appendString([]byte(`{"error":`), text), '}')
		if o.Pretty {
			doc = (&indenter{}).append(nil, doc)
		}
		return append(append(dst, doc...), '\n')
	}
}
