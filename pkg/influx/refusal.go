package influx

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tinylib/msgp/msgp"
)

// maxRefusal bounds what is read of the body of a refusal.
const maxRefusal = 1 << 20

// verdict is what a refusal means.
type verdict struct {
	class      Class
	dropped    int
	storedRest bool
}

// refused makes the error of an answer that is not a success.
func refused(op string, res *http.Response, classify func(status int, text string) verdict) *Error {
	text := refusalText(res)
	v := classify(res.StatusCode, text)
	return &Error{
		Class:      v.class,
		Op:         op,
		Status:     res.StatusCode,
		Message:    clip(text),
		Dropped:    v.dropped,
		StoredRest: v.storedRest,
		RetryAfter: retryAfter(res),
	}
}

// refusalText finds the server's words: JSON or msgpack as it was asked for,
// the header when the body is cut, the text of whatever else has answered.
func refusalText(res *http.Response) string {
	body, err := io.ReadAll(io.LimitReader(res.Body, maxRefusal))
	var said struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &said) == nil && said.Error != "" {
		return said.Error
	}
	if key, rest, err := msgp.ReadMapStrIntfBytes(body, nil); err == nil && len(rest) == 0 {
		if text, ok := key["error"].(string); ok && text != "" {
			return text
		}
	}
	if err != nil {
		body = nil
	}
	return plainText(res, body)
}

// plainText is what a refusal says that has no form: in its header, in its body,
// or by its status.
func plainText(res *http.Response, body []byte) string {
	if text := res.Header.Get("X-Influxdb-Error"); text != "" {
		return text
	}
	if text := string(bytes.TrimSpace(body)); text != "" {
		return text
	}
	return http.StatusText(res.StatusCode)
}

// classifyStatus is what a status means when the text says nothing special.
func classifyStatus(status int) Class {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return Transient
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return Permanent
	}
	if status >= http.StatusInternalServerError {
		return Transient
	}
	return Permanent
}

// The words of InfluxDB 1.8 by which refusals are told apart.
const (
	partialPrefix   = "partial write: "
	droppedWord     = " dropped="
	parsePrefix     = "unable to parse '"
	pendingDeletion = "is pending deletion"
	unknownPolicy   = "retention policy not found"
)

// classifyWrite is the table of refusals of writes:
//
//	status  text                                    class      the rest is stored
//	400     partial write: … dropped=N              partial    yes, of its shard
//	400     partial write: shard N is pending …     transient  yes, of its shard
//	400     partial write: unable to parse …        partial    yes
//	400     field type conflict: …, and all others  permanent  no
//	500     retention policy not found: …           permanent  no
//	408, 425, 429, all other 5xx                    transient  unknown
//	anything else                                   permanent  no
//
// A text may repeat what a client wrote, so only its beginning and its end are
// looked at.
func classifyWrite(status int, text string) verdict {
	if reason, ok := strings.CutPrefix(text, partialPrefix); ok && status == http.StatusBadRequest {
		v := verdict{class: PartialWrite, storedRest: true}
		if i := strings.LastIndex(reason, droppedWord); i >= 0 {
			if n, err := strconv.Atoi(reason[i+len(droppedWord):]); err == nil {
				v.dropped, reason = n, reason[:i]
			}
		}
		switch {
		case strings.HasPrefix(reason, "shard ") && strings.HasSuffix(reason, pendingDeletion):
			v.class = Transient
		case strings.HasPrefix(reason, parsePrefix):
			v.dropped += unparsed(reason)
		}
		return v
	}
	if status == http.StatusInternalServerError && strings.HasPrefix(text, unknownPolicy) {
		return verdict{class: Permanent}
	}
	return verdict{class: classifyStatus(status)}
}

// unparsed counts the lines that a refusal names, each with its reason on a line
// of its own.
func unparsed(reason string) (n int) {
	for line := range strings.Lines(reason) {
		if strings.HasPrefix(line, parsePrefix) {
			n++
		}
	}
	return n
}

// classifyQuery is the meaning of a refused query.
func classifyQuery(status int, _ string) verdict { return verdict{class: classifyStatus(status)} }

// permanentResults begin the errors of a statement that will come again however
// often it is asked. All others, such as a query that was killed, timed out, or
// found too many others running, may not.
var permanentResults = []string{
	"database not found",
	"database name required",
	unknownPolicy,
	"retention policy already exists",
	"retention policy duration must be",
	"retention policy conflicts",
	"replication factor must be",
	"measurement not found",
	"error parsing query",
	"unable to use system source",
	"max-select-series limit",
	"max-select-point limit",
	"max-select-buckets limit",
	"invalid name",
	"name too long",
	"not executed",
}

// classifyResult is the class of an error inside an answer.
func classifyResult(text string) Class {
	for _, p := range permanentResults {
		if strings.HasPrefix(text, p) {
			return Permanent
		}
	}
	return Transient
}

// retryAfter reads the header of that name, seconds or a date.
func retryAfter(res *http.Response) time.Duration {
	text := res.Header.Get("Retry-After")
	if s, err := strconv.Atoi(text); err == nil {
		return time.Second * time.Duration(max(0, min(s, int(maxRetryAfter/time.Second))))
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	// By the server's own clock, if it says what that is.
	now, err := http.ParseTime(res.Header.Get("Date"))
	if err != nil {
		return 0
	}
	return max(0, min(at.Sub(now), maxRetryAfter))
}

// maxRetryAfter bounds what a server may ask for.
const maxRetryAfter = time.Hour

// discard reads what little is left of a body, so that its connection can be
// used again, and closes it.
func discard(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, bufferSize)
	body.Close()
}
