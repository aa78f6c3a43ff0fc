package result

import (
	"math"
	"time"

	"github.com/tinylib/msgp/msgp"
)

func appendMsgpackError(dst []byte, text string) []byte {
	dst = msgp.AppendString(msgp.AppendMapHeader(dst, 1), "error")
	return msgp.AppendString(dst, text)
}

func appendMsgpackValue(dst []byte, v *Value) []byte {
	switch v.Kind {
	case Float:
		return msgp.AppendFloat64(dst, math.Float64frombits(v.Num))
	case Integer:
		return msgp.AppendInt64(dst, int64(v.Num))
	case Unsigned:
		return msgp.AppendUint64(dst, v.Num)
	case Boolean:
		return msgp.AppendBool(dst, v.Num != 0)
	case String:
		return msgp.AppendString(dst, v.Str)
	case Time:
		return msgp.AppendTime(dst, time.Unix(0, int64(v.Num)))
	default:
		return msgp.AppendNil(dst)
	}
}

func appendMsgpackRows(dst []byte, rows [][]Value) []byte {
	for _, row := range rows {
		dst = msgp.AppendArrayHeader(dst, uint32(len(row)))
		for i := range row {
			dst = appendMsgpackValue(dst, &row[i])
		}
	}
	return dst
}

// appendMsgpackHead appends a series up to its rows.
func appendMsgpackHead(dst []byte, s *Series, rows int) []byte {
	size := uint32(2)
	for _, more := range []bool{s.Name != "", len(s.Tags) > 0, s.Partial} {
		if more {
			size++
		}
	}
	dst = msgp.AppendMapHeader(dst, size)
	if s.Name != "" {
		dst = msgp.AppendString(msgp.AppendString(dst, "name"), s.Name)
	}
	if len(s.Tags) > 0 {
		dst = msgp.AppendMapHeader(msgp.AppendString(dst, "tags"), uint32(len(s.Tags)))
		for _, t := range s.Tags {
			dst = msgp.AppendString(msgp.AppendString(dst, t.Key), t.Value)
		}
	}
	dst = msgp.AppendArrayHeader(msgp.AppendString(dst, "columns"), uint32(len(s.Columns)))
	for _, c := range s.Columns {
		dst = msgp.AppendString(dst, c)
	}
	return msgp.AppendArrayHeader(msgp.AppendString(dst, "values"), uint32(rows))
}

func appendMsgpackPartial(dst []byte, partial bool) []byte {
	if !partial {
		return dst
	}
	return msgp.AppendBool(msgp.AppendString(dst, "partial"), true)
}

// appendMsgpackStart appends a result up to its series.
func appendMsgpackStart(dst []byte, r *Result, series int) []byte {
	size := uint32(2)
	if len(r.Messages) > 0 {
		size++
	}
	if r.Partial {
		size++
	}
	dst = msgp.AppendMapHeader(dst, size)
	dst = msgp.AppendInt(msgp.AppendString(dst, "statement_id"), r.StatementID)
	if len(r.Messages) > 0 {
		dst = msgp.AppendArrayHeader(msgp.AppendString(dst, "messages"), uint32(len(r.Messages)))
		for _, m := range r.Messages {
			dst = msgp.AppendMapHeader(dst, 2)
			dst = msgp.AppendString(msgp.AppendString(dst, "level"), m.Level)
			dst = msgp.AppendString(msgp.AppendString(dst, "text"), m.Text)
		}
	}
	return msgp.AppendArrayHeader(msgp.AppendString(dst, "series"), uint32(series))
}

func appendMsgpackResults(dst []byte, n int) []byte {
	return msgp.AppendArrayHeader(msgp.AppendString(msgp.AppendMapHeader(dst, 1), "results"), uint32(n))
}

// msgpackChunks writes a document for each result.
type msgpackChunks struct{}

func (msgpackChunks) add(dst []byte, r *Result) ([]byte, error) {
	dst = appendMsgpackResults(dst, 1)
	if r.Err != "" {
		return appendMsgpackError(dst, r.Err), nil
	}
	dst = appendMsgpackStart(dst, r, len(r.Series))
	for i := range r.Series {
		s := &r.Series[i]
		dst = appendMsgpackRows(appendMsgpackHead(dst, s, len(s.Values)), s.Values)
		dst = appendMsgpackPartial(dst, s.Partial)
	}
	return appendMsgpackPartial(dst, r.Partial), nil
}

func (msgpackChunks) end(dst []byte) ([]byte, error) { return dst, nil }
func (msgpackChunks) spilled()                       {}

// msgpackWhole gathers all results, since each table begins with its length.
type msgpackWhole struct {
	most, held int
	results    []heldResult
}

type heldResult struct {
	Result // its series are without values

	rows []heldRows // of each series
}

type heldRows struct {
	n    int
	data []byte
}

func (m *msgpackWhole) add(dst []byte, r *Result) ([]byte, error) {
	if n := len(m.results); n == 0 || m.results[n-1].StatementID != r.StatementID {
		m.results = append(m.results, heldResult{Result: Result{StatementID: r.StatementID}})
	}
	h := &m.results[len(m.results)-1]
	if r.Err != "" {
		for _, rows := range h.rows {
			m.held -= len(rows.data)
		}
		*h = heldResult{Result: Result{StatementID: r.StatementID, Err: r.Err}}
		return dst, nil
	}
	for i, joins := 0, len(h.Series) > 0; i < len(r.Series); i++ {
		s := &r.Series[i]
		if joins = joins && h.Series[len(h.Series)-1].Same(s); !joins {
			h.Series = append(h.Series, Series{Name: s.Name, Tags: s.Tags, Columns: s.Columns})
			h.rows = append(h.rows, heldRows{})
		}
		h.Series[len(h.Series)-1].Partial = s.Partial
		rows := &h.rows[len(h.rows)-1]
		before := len(rows.data)
		rows.data = appendMsgpackRows(rows.data, s.Values)
		rows.n += len(s.Values)
		if m.held += len(rows.data) - before; m.held > m.most {
			return dst, ErrTooLarge
		}
	}
	h.Messages = append(h.Messages, r.Messages...)
	h.Partial = r.Partial
	return dst, nil
}

func (m *msgpackWhole) end(dst []byte) ([]byte, error) {
	dst = appendMsgpackResults(dst, len(m.results))
	for i := range m.results {
		h := &m.results[i]
		if h.Err != "" {
			dst = appendMsgpackError(dst, h.Err)
			continue
		}
		dst = appendMsgpackStart(dst, &h.Result, len(h.Series))
		for j := range h.Series {
			dst = appendMsgpackHead(dst, &h.Series[j], h.rows[j].n)
			dst = append(dst, h.rows[j].data...)
			dst = appendMsgpackPartial(dst, h.Series[j].Partial)
		}
		dst = appendMsgpackPartial(dst, h.Partial)
	}
	return dst, nil
}

func (m *msgpackWhole) spilled() {}
