package influx

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/tinylib/msgp/msgp"

	"ringmaster/pkg/result"
)

// Question is a statement for [Client.Ask].
type Question struct {
	// Text is one statement.
	Text string
	// Database and RetentionPolicy are what the statement means where it names
	// none.
	Database, RetentionPolicy string
	// Params are the values of bound parameters, as JSON; "" if there are none.
	Params string
	// ReadOnly asks by GET, of which servers say in a message that it should not
	// change anything.
	ReadOnly bool
	// AsJSON asks for JSON: the server's msgpack leaves out the values that it has
	// no form for, which the tables that it makes of itself have. In JSON numbers
	// have lost their types, and times are strings.
	AsJSON bool
	// ChunkSize is how many rows of a series come at a time; 0 means the default
	// of the server.
	ChunkSize int
}

// Answer is a running answer to one statement. It is for one goroutine.
type Answer struct {
	client *Client
	ctx    context.Context //nolint:containedctx // the request's own, to tell its end from others
	op     string
	body   io.ReadCloser
	meter  *meter
	d      *decoder
	json   *json.Decoder // instead, for JSON
	// whole is whether the answer may end here.
	whole, ended bool
}

// Ask asks a statement and returns when the server begins to answer. The caller
// closes the answer.
func (c *Client) Ask(ctx context.Context, q Question) (*Answer, error) {
	op := "asking " + c.URL()
	values := url.Values{"q": {q.Text}, "chunked": {"true"}}
	for name, value := range map[string]string{"db": q.Database, "rp": q.RetentionPolicy, "params": q.Params} {
		if value != "" {
			values.Set(name, value)
		}
	}
	if q.ChunkSize > 0 {
		values.Set("chunk_size", strconv.Itoa(q.ChunkSize))
	}
	req, err := questionRequest(ctx, c.base.String()+"/query", values, q.ReadOnly)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	accept := msgpackType
	if q.AsJSON {
		accept = jsonType
	}
	req.Header.Set("Accept", accept)
	res, err := c.do(c.reads, req)
	if err != nil {
		return nil, c.broke(ctx, op, err)
	}
	if res.StatusCode != http.StatusOK {
		defer discard(res.Body)
		return nil, refused(op, res, classifyQuery)
	}
	if t := res.Header.Get("Content-Type"); t != accept {
		res.Body.Close()
		return nil, &Error{Class: Permanent, Op: op, Status: res.StatusCode, Message: fmt.Sprintf("answered %.64q, not %s: is this InfluxDB 1.x?", t, accept)}
	}
	m := &meter{Reader: res.Body}
	a := &Answer{client: c, ctx: ctx, op: op, body: res.Body, meter: m}
	if q.AsJSON {
		a.json = json.NewDecoder(m)
		a.json.UseNumber()
	} else {
		a.d = newDecoder(m, 1)
	}
	return a, nil
}

const (
	msgpackType = "application/x-msgpack"
	jsonType    = "application/json"
)

// maxGetBytes is how much of a question goes into a URL. Servers take 1 MiB of
// headers.
const maxGetBytes = 512 << 10

func questionRequest(ctx context.Context, target string, values url.Values, readOnly bool) (*http.Request, error) {
	form := values.Encode()
	if readOnly && len(form) <= maxGetBytes {
		return http.NewRequestWithContext(ctx, http.MethodGet, target+"?"+form, nil)
	}
	if len(form) > maxRequestBytes {
		return nil, &Error{Class: Permanent, Op: "asking", Message: fmt.Sprintf("a request of %d bytes, at most %d are possible", len(form), maxRequestBytes)}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(form))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return req, nil
}

// Next returns the next part of the answer. What the server says about the
// statement, including that it failed, is in it. io.EOF is the clean end; any other
// error means that the answer is not whole.
func (a *Answer) Next() (*result.Result, error) {
	if a.ended {
		return nil, io.EOF
	}
	r, err := a.next()
	if err == nil {
		return r, nil
	}
	a.ended = true
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	if said, ok := errors.AsType[*serverError](err); ok {
		return nil, &Error{Class: classifyResult(said.text), Op: a.op, Status: http.StatusOK, Message: clip(said.text)}
	}
	return nil, a.client.broke(a.ctx, a.op, err)
}

// Bytes is how many bytes of the answer have been read.
func (a *Answer) Bytes() int64 { return a.meter.n }

// Close ends the request.
func (a *Answer) Close() { a.body.Close() }

// next reads a document, which has one result.
func (a *Answer) next() (*result.Result, error) {
	if a.json != nil {
		return a.nextJSON()
	}
	d := a.d
	keys, err := d.r.ReadMapHeader()
	if errors.Is(err, io.EOF) && d.r.Buffered() == 0 {
		if !a.whole {
			return nil, broken("it ends before its end")
		}
		return nil, io.EOF
	}
	if err != nil {
		return nil, d.fail(err)
	}
	if keys != 1 {
		return nil, broken("a chunk with %d keys", keys)
	}
	key, err := d.name()
	if err != nil {
		return nil, err
	}
	switch string(key) {
	case "error":
		return nil, d.serverError()
	case "results":
	default:
		return nil, broken("a chunk with %.64q", key)
	}
	n, err := d.r.ReadArrayHeader()
	if err != nil {
		return nil, d.fail(err)
	}
	if n != 1 {
		return nil, broken("a chunk with %d results", n)
	}
	r, err := d.result()
	if err != nil {
		return nil, err
	}
	a.whole = !r.Partial
	return r, nil
}

// result reads a result with all that is in it.
func (d *decoder) result() (*result.Result, error) {
	keys, err := d.r.ReadMapHeader()
	if err != nil {
		return nil, d.fail(err)
	}
	r := &result.Result{}
	for range keys {
		key, err := d.name()
		if err != nil {
			return nil, err
		}
		switch string(key) {
		case "error":
			r.Err, err = d.text("")
		case "statement_id":
			r.StatementID, err = d.r.ReadInt()
			err = d.fail(err)
		case "messages":
			r.Messages, err = d.messages()
		case "series":
			r.Series, err = d.tables()
		case "partial":
			r.Partial, err = d.r.ReadBool()
			err = d.fail(err)
		default:
			err = d.fail(d.r.Skip())
		}
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (d *decoder) messages() ([]result.Message, error) {
	n, err := d.r.ReadArrayHeader()
	if err != nil {
		return nil, d.fail(err)
	}
	var all []result.Message
	for range n {
		keys, err := d.r.ReadMapHeader()
		if err != nil {
			return nil, d.fail(err)
		}
		var m result.Message
		for range keys {
			key, err := d.name()
			if err != nil {
				return nil, err
			}
			switch string(key) {
			case "level":
				m.Level, err = d.text("")
			case "text":
				m.Text, err = d.text("")
			default:
				err = d.fail(d.r.Skip())
			}
			if err != nil {
				return nil, err
			}
		}
		all = append(all, m)
	}
	return all, nil
}

func (d *decoder) tables() ([]result.Series, error) {
	n, err := d.r.ReadArrayHeader()
	if err != nil {
		return nil, d.fail(err)
	}
	all := make([]result.Series, 0, min(n, 1024))
	for range n {
		s, err := d.tableSeries()
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func (d *decoder) tableSeries() (result.Series, error) {
	var s result.Series
	keys, err := d.r.ReadMapHeader()
	if err != nil {
		return s, d.fail(err)
	}
	for range keys {
		key, err := d.name()
		if err != nil {
			return s, err
		}
		switch string(key) {
		case "name":
			s.Name, err = d.text("")
		case "tags":
			s.Tags, err = d.tableTags()
		case "columns":
			s.Columns, err = d.tableColumns()
		case "values":
			s.Values, err = d.tableRows(len(s.Columns))
		case "partial":
			s.Partial, err = d.r.ReadBool()
			err = d.fail(err)
		default:
			err = d.fail(d.r.Skip())
		}
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

// tableTags reads tags; unlike those of points, absent ones are kept.
func (d *decoder) tableTags() ([]result.Tag, error) {
	n, err := d.r.ReadMapHeader()
	if err != nil {
		return nil, d.fail(err)
	}
	all := make([]result.Tag, 0, min(n, 64))
	for range n {
		key, err := d.text("")
		if err != nil {
			return nil, err
		}
		value, err := d.text("")
		if err != nil {
			return nil, err
		}
		all = append(all, result.Tag{Key: key, Value: value})
	}
	return result.SortTags(all), nil
}

func (d *decoder) tableColumns() ([]string, error) {
	n, err := d.r.ReadArrayHeader()
	if err != nil {
		return nil, d.fail(err)
	}
	if n > maxColumns {
		return nil, broken("a series with %d columns", n)
	}
	all := make([]string, 0, min(n, 64))
	for range n {
		name, err := d.text("")
		if err != nil {
			return nil, err
		}
		all = append(all, name)
	}
	return all, nil
}

func (d *decoder) tableRows(columns int) ([][]result.Value, error) {
	n, err := d.r.ReadArrayHeader()
	if err != nil {
		return nil, d.fail(err)
	}
	rows := make([][]result.Value, 0, min(n, 16<<10))
	// Rows are cut from larger pieces, which saves an allocation each.
	var piece []result.Value
	for range n {
		size, err := d.r.ReadArrayHeader()
		if err != nil {
			return nil, d.fail(err)
		}
		if int(size) != columns {
			return nil, broken("a row of %d values for %d columns", size, columns)
		}
		if len(piece) < columns {
			piece = make([]result.Value, columns*min(int(n), 256))
		}
		row := piece[:columns:columns]
		piece = piece[columns:]
		for i := range row {
			if err := d.tableValue(&row[i]); err != nil {
				return nil, err
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func (d *decoder) tableValue(v *result.Value) error {
	t, err := d.r.NextType()
	if err != nil {
		return d.fail(err)
	}
	switch t { //nolint:exhaustive // the others are numbers, or no values
	case msgp.StrType:
		d.arena, err = d.appendString(d.arena[:0], maxStringBytes)
		*v = result.StringValue(string(d.arena))
		return err
	case msgp.TimeType:
		at, err := d.r.ReadTime()
		*v = result.TimeValue(at.UnixNano())
		return d.fail(err)
	}
	return d.tableNumber(v, t)
}

func (d *decoder) tableNumber(v *result.Value, t msgp.Type) error {
	switch t {
	case msgp.NilType:
		*v = result.Value{}
		return d.fail(d.r.ReadNil())
	case msgp.Float64Type:
		f, err := d.r.ReadFloat64()
		*v = result.FloatValue(f)
		return d.fail(err)
	case msgp.IntType:
		i, err := d.r.ReadInt64()
		*v = result.IntegerValue(i)
		return d.fail(err)
	case msgp.UintType:
		u, err := d.r.ReadUint64()
		*v = result.Value{Kind: result.Unsigned, Num: u}
		return d.fail(err)
	case msgp.BoolType:
		b, err := d.r.ReadBool()
		*v = result.BooleanValue(b)
		return d.fail(err)
	default:
		return broken("a value of type %s", t)
	}
}
