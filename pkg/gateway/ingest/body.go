package ingest

import (
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
)

// errTooLarge and errFull end the reading of a body; all other errors are those of
// the body itself.
var (
	errTooLarge = errors.New("body too large")
	errFull     = errors.New("no room")
)

// inflated is how many times larger than a plain body a compressed one may become.
const inflated = 2

// firstRead is the room for a body that does not say how long it is.
const firstRead = 16 << 10

// read takes in the body of a request.
func (w *write) read(r *Request) error {
	limit, size := w.ingest.options.MaxBody, r.Length
	if size > limit {
		return errTooLarge
	}
	source := r.Body
	switch {
	case source == nil:
		return nil
	case r.Gzip:
		if w.unzip == nil {
			w.unzip = new(gzip.Reader)
		}
		if err := w.unzip.Reset(source); err != nil {
			return err
		}
		source, size, limit = w.unzip, 4*size, inflated*limit
	}
	if size <= 0 {
		size = firstRead
	}
	for {
		// One byte more than there should be, so that the end is seen.
		if room := min(size, limit) - int64(len(w.body.data)) + 1; len(w.body.data) == cap(w.body.data) &&
			!w.ingest.budget.grow(&w.body, int(max(room, 1))) {
			return errFull
		}
		n, err := source.Read(w.body.data[len(w.body.data):cap(w.body.data)])
		w.body.data = w.body.data[:len(w.body.data)+n]
		switch {
		case int64(len(w.body.data)) > limit:
			return errTooLarge
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}
