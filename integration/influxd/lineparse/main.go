// Command lineparse shows what InfluxDB 1.8.3's own parser reads from line
// protocol, for the tests of an encoder. It reads batches from standard input,
// each as a four-byte big-endian length and that many bytes, and answers each
// with one line of JSON: see [answer].
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/influxdata/influxdb/models"
)

// maxBatch bounds a batch: more than any server takes in one write.
const maxBatch = 64 << 20

// answer is what the parser made of one batch. Byte slices are base64 in JSON.
type answer struct {
	Points []point `json:"points"`
	Error  string  `json:"error,omitempty"` // the lines it refused
}

type point struct {
	Name   []byte  `json:"name"`
	Tags   []tag   `json:"tags"`
	Fields []field `json:"fields"`
	Time   int64   `json:"time"`
	// Found is whether the key under which the server stores the point is the
	// one under which it will look for it.
	Found bool `json:"found"`
}

type tag struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

type field struct {
	Key  []byte `json:"key"`
	Type string `json:"type"`
	// Num is the decimal form of the value's 64 bits: of a float as by
	// math.Float64bits, of a boolean 0 or 1.
	Num string `json:"num"`
	Str []byte `json:"str"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "lineparse:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	models.EnableUintSupport()
	r, w := bufio.NewReader(in), bufio.NewWriter(out)
	enc := json.NewEncoder(w)
	for {
		batch, err := readBatch(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a batch: %w", err)
		}
		a, err := parse(batch)
		if err != nil {
			return err
		}
		if err := enc.Encode(a); err != nil {
			return fmt.Errorf("answering: %w", err)
		}
		if err := w.Flush(); err != nil {
			return fmt.Errorf("answering: %w", err)
		}
	}
}

func readBatch(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxBatch {
		return nil, fmt.Errorf("batch of %d bytes", n)
	}
	batch := make([]byte, n)
	_, err := io.ReadFull(r, batch)
	return batch, err
}

func parse(batch []byte) (answer, error) {
	parsed, refused := models.ParsePointsWithPrecision(batch, time.Unix(0, 0), "n")
	a := answer{Points: make([]point, 0, len(parsed))}
	if refused != nil {
		a.Error = refused.Error()
	}
	for _, p := range parsed {
		name, tags := models.ParseKeyBytes(p.Key())
		out := point{
			Name:  p.Name(),
			Time:  p.UnixNano(),
			Found: string(name) == string(p.Name()) && string(models.MakeKey(p.Name(), tags)) == string(p.Key()),
		}
		for _, t := range p.Tags() {
			out.Tags = append(out.Tags, tag{Key: t.Key, Value: t.Value})
		}
		for it := p.FieldIterator(); it.Next(); {
			f, err := readField(it)
			if err != nil {
				return answer{}, fmt.Errorf("reading a field of %q: %w", p.Key(), err)
			}
			out.Fields = append(out.Fields, f)
		}
		a.Points = append(a.Points, out)
	}
	return a, nil
}

func readField(it models.FieldIterator) (field, error) {
	f := field{Key: append([]byte(nil), it.FieldKey()...)}
	switch it.Type() {
	case models.Float:
		v, err := it.FloatValue()
		f.Type, f.Num = "float", strconv.FormatUint(math.Float64bits(v), 10)
		return f, err
	case models.Integer:
		v, err := it.IntegerValue()
		f.Type, f.Num = "integer", strconv.FormatUint(uint64(v), 10)
		return f, err
	case models.Unsigned:
		v, err := it.UnsignedValue()
		f.Type, f.Num = "unsigned", strconv.FormatUint(v, 10)
		return f, err
	case models.Boolean:
		v, err := it.BooleanValue()
		f.Type, f.Num = "boolean", "0"
		if v {
			f.Num = "1"
		}
		return f, err
	case models.String:
		f.Type, f.Num, f.Str = "string", "0", []byte(it.StringValue())
		return f, nil
	default:
		return f, fmt.Errorf("a value without a type")
	}
}
