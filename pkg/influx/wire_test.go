package influx

import (
	"bytes"

	"github.com/tinylib/msgp/msgp"

	"ringmaster/pkg/lineproto"
)

// wire writes answers as InfluxDB does, for tests of the decoder.
type wire struct {
	buf bytes.Buffer
	w   *msgp.Writer
}

func newWire() *wire {
	w := &wire{}
	w.w = msgp.NewWriter(&w.buf)
	return w
}

func (w *wire) bytes() []byte {
	_ = w.w.Flush()
	return w.buf.Bytes()
}

// wireSeries is one series of a chunk.
type wireSeries struct {
	name    string
	tags    []lineproto.Tag
	columns []string
	rows    [][]any
	partial bool
}

// result writes a chunk with one result.
func (w *wire) result(statement int, partial bool, series ...wireSeries) *wire {
	_ = w.w.WriteMapHeader(1)
	_ = w.w.WriteString("results")
	_ = w.w.WriteArrayHeader(1)
	keys := uint32(2)
	if partial {
		keys++
	}
	_ = w.w.WriteMapHeader(keys)
	_ = w.w.WriteString("statement_id")
	_ = w.w.WriteInt(statement)
	_ = w.w.WriteString("series")
	_ = w.w.WriteArrayHeader(uint32(len(series)))
	for _, s := range series {
		w.series(s)
	}
	if partial {
		_ = w.w.WriteString("partial")
		_ = w.w.WriteBool(true)
	}
	return w
}

func (w *wire) series(s wireSeries) {
	keys := uint32(3)
	if len(s.tags) > 0 {
		keys++
	}
	if s.partial {
		keys++
	}
	_ = w.w.WriteMapHeader(keys)
	_ = w.w.WriteString("name")
	_ = w.w.WriteString(s.name)
	if len(s.tags) > 0 {
		_ = w.w.WriteString("tags")
		_ = w.w.WriteMapHeader(uint32(len(s.tags)))
		for _, t := range s.tags {
			_ = w.w.WriteString(t.Key)
			_ = w.w.WriteString(t.Value)
		}
	}
	_ = w.w.WriteString("columns")
	_ = w.w.WriteArrayHeader(uint32(len(s.columns)))
	for _, c := range s.columns {
		_ = w.w.WriteString(c)
	}
	_ = w.w.WriteString("values")
	_ = w.w.WriteArrayHeader(uint32(len(s.rows)))
	for _, row := range s.rows {
		_ = w.w.WriteArrayHeader(uint32(len(row)))
		for _, v := range row {
			_ = w.w.WriteIntf(v)
		}
	}
	if s.partial {
		_ = w.w.WriteString("partial")
		_ = w.w.WriteBool(true)
	}
}

// failure writes a chunk with an error in place of a result.
func (w *wire) failure(text string) *wire {
	_ = w.w.WriteMapHeader(1)
	_ = w.w.WriteString("results")
	_ = w.w.WriteArrayHeader(1)
	_ = w.w.WriteMapHeader(1)
	_ = w.w.WriteString("error")
	_ = w.w.WriteString(text)
	return w
}
