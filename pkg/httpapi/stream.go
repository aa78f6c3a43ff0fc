package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
)

// streamWriteTimeout ends a stream whose client no longer reads.
const streamWriteTimeout = 30 * time.Second

// JSON answers with v. What cannot be written as JSON, such as a number that is
// none, becomes a 500 instead of half an answer.
func JSON(c *gin.Context, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		_ = c.Error(err)
		WriteProblem(c.Writer, internalProblem(c.Request))
		return
	}
	c.Data(status, "application/json", append(body, '\n'))
}

// EventStream writes server-sent events. It belongs to one request.
type EventStream struct {
	w   gin.ResponseWriter
	ctl *http.ResponseController
	buf bytes.Buffer
}

// NewEventStream sends the header of a stream. The stream ends when the handler
// returns; it closes the EventStream before.
func NewEventStream(c *gin.Context) *EventStream {
	h := c.Writer.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	// nginx buffers what it proxies unless told not to.
	h.Set("X-Accel-Buffering", "no")
	c.Status(http.StatusOK)
	c.Writer.WriteHeaderNow()
	return &EventStream{w: c.Writer, ctl: http.NewResponseController(c.Writer)}
}

// Close gives the connection back without the stream's write deadline.
func (s *EventStream) Close() { _ = s.ctl.SetWriteDeadline(time.Time{}) }

// Event sends one event. An id of 0 is left out, so that the client keeps the
// one it has.
func (s *EventStream) Event(id uint64, event string, data []byte) error {
	s.buf.Reset()
	if id > 0 {
		s.buf.WriteString("id: ")
		s.buf.Write(strconv.AppendUint(nil, id, 10))
		s.buf.WriteByte('\n')
	}
	s.buf.WriteString("event: ")
	s.buf.WriteString(event)
	s.buf.WriteByte('\n')
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		s.buf.WriteString("data: ")
		s.buf.Write(line)
		s.buf.WriteByte('\n')
	}
	s.buf.WriteByte('\n')
	return s.send()
}

// Comment sends a line that clients ignore; it keeps proxies from closing a
// quiet connection.
func (s *EventStream) Comment(text string) error {
	s.buf.Reset()
	s.buf.WriteString(": " + text + "\n\n")
	return s.send()
}

// Flush sends what the header and the events so far have left in buffers.
func (s *EventStream) Flush() error {
	s.buf.Reset()
	return s.send()
}

func (s *EventStream) send() error {
	// The connection knows no clock but the real one.
	deadline := time.Now().Add(streamWriteTimeout)
	if err := s.ctl.SetWriteDeadline(deadline); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := s.w.Write(s.buf.Bytes()); err != nil {
		return err
	}
	return s.ctl.Flush()
}
