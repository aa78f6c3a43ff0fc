package influx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/influxdata/influxql"

	"ringmaster/pkg/lineproto"
)

// chunkSize is how many rows of a series the server sends at a time. It builds a
// chunk in its memory; beyond some thousand rows nothing is gained.
const chunkSize = 5000

// maxRequestBytes bounds the statements of one request, encoded as a form: the
// server takes no larger one.
const maxRequestBytes = 10 << 20

// answer is a running answer to some statements.
type answer struct {
	*decoder

	client *Client
	ctx    context.Context //nolint:containedctx // the request's own, to tell its end from others
	op     string
	body   io.ReadCloser
	meter  *meter
}

// meter counts what is read.
type meter struct {
	io.Reader

	n int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	m.n += int64(n)
	return n, err
}

// ask posts n statements and returns when the server begins to answer them. The
// caller closes the answer.
func (c *Client) ask(ctx context.Context, op, statements string, n int) (*answer, error) {
	op = op + " " + c.URL()
	form := url.Values{
		"q":          {statements},
		"epoch":      {"ns"},
		"chunked":    {"true"},
		"chunk_size": {strconv.Itoa(chunkSize)},
	}.Encode()
	if len(form) > maxRequestBytes {
		return nil, &Error{Class: Permanent, Op: op, Message: fmt.Sprintf("a request of %d bytes, at most %d are possible", len(form), maxRequestBytes)}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.String()+"/query", strings.NewReader(form))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/x-msgpack")
	res, err := c.do(c.reads, req)
	if err != nil {
		return nil, c.broke(ctx, op, err)
	}
	if res.StatusCode != http.StatusOK {
		defer discard(res.Body)
		return nil, refused(op, res, classifyQuery)
	}
	if t := res.Header.Get("Content-Type"); t != "application/x-msgpack" {
		res.Body.Close()
		return nil, &Error{Class: Permanent, Op: op, Status: res.StatusCode, Message: fmt.Sprintf("answered %.64q, not msgpack: is this InfluxDB 1.x?", t)}
	}
	m := &meter{Reader: res.Body}
	return &answer{decoder: newDecoder(m, n), client: c, ctx: ctx, op: op, body: res.Body, meter: m}, nil
}

// next moves to the next row; the errors are those of the package, io.EOF is
// the clean end.
func (a *answer) next() error {
	err := a.decoder.next()
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if said, ok := errors.AsType[*serverError](err); ok {
		return &Error{Class: classifyResult(said.text), Op: a.op, Status: http.StatusOK, Message: clip(said.text)}
	}
	return a.client.broke(a.ctx, a.op, err)
}

// close ends the request. The connection is used again only if all of the
// answer has been read.
func (a *answer) close() { a.body.Close() }

// do sends a request with what every request carries. POSTs are marked as
// repeatable, which they are: a point written twice is one point; net/http then
// mends by itself that a server closed an idle connection.
func (c *Client) do(t *http.Transport, req *http.Request) (*http.Response, error) {
	if c.username != "" {
		req.SetBasicAuth(c.username, c.password)
	}
	if c.userAgent != "" {
		req.Header.Set("User-Agent", c.userAgent)
	}
	req.Header["Idempotency-Key"] = nil // known to net/http, not sent
	return t.RoundTrip(req)
}

// run executes statements that answer with nothing or a small table, and gives
// each row to row, if there is one.
func (c *Client) run(ctx context.Context, op, statements string, n int, row func(*decoder) error) error {
	a, err := c.ask(ctx, op, statements, n)
	if err != nil {
		return err
	}
	defer a.close()
	return a.each(row)
}

// each gives all rows to row.
func (a *answer) each(row func(*decoder) error) error {
	for {
		err := a.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if row == nil {
			continue
		}
		if err := row(a.decoder); err != nil {
			return err
		}
	}
}

// source names a measurement in a FROM clause. Some can only be given as a
// pattern, which others may match too: what comes back under another name must
// be left out.
func source(db, rp, measurement string) string {
	if addressable(measurement) {
		return influxql.QuoteIdent(db, rp, measurement)
	}
	return influxql.QuoteIdent(db, rp) + "." + pattern(measurement)
}

// addressable reports whether a measurement can be named in InfluxQL: the server
// refuses the names of its own tables.
func addressable(name string) bool { return parses(name) && !influxql.IsSystemName(name) }

// parses reports whether a quoted name is parsed as what it is. The parser takes
// U+0000 for the end and a carriage return for a newline.
func parses(name string) bool {
	return utf8.ValidString(name) && !strings.ContainsAny(name, "\x00\r")
}

// pattern is a regular expression literal that matches name. All but letters
// and digits are given by number, so that nothing in it has a meaning for either
// parser. A byte that is not UTF-8 reads as U+FFFD for a regular expression; the
// plus keeps the server from comparing strings instead, which would not match.
func pattern(name string) string {
	var b strings.Builder
	b.WriteString("/^")
	for _, r := range name {
		if r == '_' || r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			b.WriteRune(r)
			continue
		}
		fmt.Fprintf(&b, `\x{%x}`, r)
		if r == utf8.RuneError {
			b.WriteByte('+')
		}
	}
	b.WriteString("$/")
	return b.String()
}

// checkMeasurement refuses the measurements that the server never gives points
// of: it answers from tables of its own, or with nothing.
func checkMeasurement(name string) error {
	switch name {
	case "_fieldKeys", "_series", "_tagKeys":
		return fmt.Errorf("measurement %q: %w", name, ErrUnaddressable)
	}
	return nil
}

// checkFields refuses the fields for which the server makes up rows at time 0,
// whatever the window, and the one without a name, which it gives another:
// columns named for them, behind a prefix.
func checkFields(measurement string, columns []string, prefix string) error {
	for _, c := range columns {
		switch name := strings.TrimPrefix(c, prefix); name {
		case "", "_name", "_seriesKey", "_fieldKey", "_tagKey", "_tagValue":
			return fmt.Errorf("field %q of measurement %q: %w", name, measurement, ErrUnaddressable)
		}
	}
	// Fields come in order of their names; the one without comes first, as val0.
	if prefix == "" && len(columns) > 2 && columns[1] == "val0" && columns[2] < columns[1] {
		return fmt.Errorf("field \"\" of measurement %q: %w", measurement, ErrUnaddressable)
	}
	return nil
}

// where writes the WHERE clause of a window.
func (w Window) where() string {
	from, to := max(w.From, lineproto.MinTime), w.To
	less := "<"
	if w.Last || to > lineproto.MaxTime {
		less = "<="
		to = min(to, lineproto.MaxTime)
	}
	return fmt.Sprintf(" WHERE time >= %d AND time %s %d", from, less, to)
}

// statements writes one statement for each selection.
func statements(sels []Selection, what, suffix string) (string, error) {
	var b strings.Builder
	for i, s := range sels {
		if err := checkMeasurement(s.Measurement); err != nil {
			return "", err
		}
		if i > 0 {
			b.WriteByte(';')
		}
		b.WriteString("SELECT " + what + " FROM " + source(s.Database, s.RetentionPolicy, s.Measurement) + s.Window.where() + suffix)
	}
	return b.String(), nil
}
