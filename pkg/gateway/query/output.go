package query

import (
	"io"
	"net/http"

	"github.com/klauspost/compress/gzip"
)

// Reply is where an answer goes, such as an http.ResponseWriter. If it has Flush,
// answers are flushed as they come.
type Reply interface {
	Header() http.Header
	WriteHeader(status int)
	Write(p []byte) (int, error)
}

// output is the body of an answer that is made here. The answer begins with its
// first byte; until then another one can be given.
type output struct {
	w           Reply
	contentType string
	compress    bool
	body        io.Writer
	zip         *gzip.Writer
	began       bool
}

func newOutput(w Reply, q *Request) *output {
	_, contentType := q.options()
	return &output{w: w, contentType: contentType, compress: compresses(q.Header)}
}

func (o *output) begin() {
	if o.began {
		return
	}
	o.began = true
	h := o.w.Header()
	h.Set("Content-Type", o.contentType)
	o.body = o.w
	if o.compress {
		h.Set("Content-Encoding", "gzip")
		o.zip = gzip.NewWriter(o.w)
		o.body = o.zip
	}
	o.w.WriteHeader(http.StatusOK)
}

// Write sends what it is given to the client at once.
func (o *output) Write(p []byte) (int, error) {
	o.begin()
	n, err := o.body.Write(p)
	if err == nil && o.zip != nil {
		err = o.zip.Flush()
	}
	if err == nil {
		flush(o.w)
	}
	return n, err
}

// close ends an answer that is complete.
func (o *output) close() error {
	if !o.began {
		o.begin()
		flush(o.w)
	}
	if o.zip != nil {
		return o.zip.Close()
	}
	return nil
}

// flush sends what net/http holds back, if it can.
func flush(w Reply) {
	if f, ok := w.(interface{ Flush() }); ok {
		f.Flush()
	}
}
