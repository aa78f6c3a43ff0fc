package prom_test

import (
	"encoding/binary"
	"math"

	"github.com/klauspost/compress/snappy"
)

// Payloads as Prometheus makes them.

type label struct{ name, value string }

type sample struct {
	value float64
	ms    int64
}

type series struct {
	labels  []label
	samples []sample
}

type matcher struct {
	kind        int
	name, value string
}

const (
	equal = iota
	notEqual
	matching
	notMatching
)

func sized(dst []byte, field int, value []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(field)<<3|2)
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	return append(dst, value...)
}

func number(dst []byte, field int, value int64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, uint64(field)<<3), uint64(value))
}

func encodeSeries(s series) (raw []byte) {
	for _, l := range s.labels {
		raw = sized(raw, 1, sized(sized(nil, 1, []byte(l.name)), 2, []byte(l.value)))
	}
	for _, p := range s.samples {
		v := binary.LittleEndian.AppendUint64([]byte{1<<3 | 1}, math.Float64bits(p.value))
		raw = sized(raw, 2, number(v, 2, p.ms))
	}
	return raw
}

// writeBody is the body of a write request, with a field that InfluxDB does not know.
func writeBody(all ...series) []byte {
	var raw []byte
	for _, s := range all {
		raw = sized(raw, 1, encodeSeries(s))
	}
	return snappy.Encode(nil, sized(raw, 3, []byte("metadata")))
}

// readBody is the body of a read request, with hints, which InfluxDB does not know.
func readBody(startMs, endMs int64, matchers ...matcher) []byte {
	q := number(number(nil, 1, startMs), 2, endMs)
	for _, m := range matchers {
		q = sized(q, 3, sized(sized(number(nil, 1, int64(m.kind)), 2, []byte(m.name)), 3, []byte(m.value)))
	}
	q = sized(q, 4, number(nil, 1, 15000))
	return snappy.Encode(nil, sized(nil, 1, q))
}

// answerBody is the body of an answer to a read request.
func answerBody(all ...series) []byte {
	var result []byte
	for _, s := range all {
		result = sized(result, 1, encodeSeries(s))
	}
	return snappy.Encode(nil, sized(nil, 1, result))
}
