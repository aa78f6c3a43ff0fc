package prom

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"ringmaster/pkg/lineproto"
)

// Write is what a write request holds.
type Write struct {
	// Lines are the points as line protocol, with times in nanoseconds.
	Lines  []byte
	Points int
	// NaN, PositiveInf and NegativeInf are how many samples have values that
	// InfluxDB does not store. It leaves them out and tells nobody.
	NaN, PositiveInf, NegativeInf int
	// Refused are how many points cannot be written as line protocol, since the
	// series has a label that ends in a backslash, say; Reason is why, for the
	// first of them. InfluxDB takes some of these, and stores them under a series
	// that it then reads otherwise.
	Refused int
	Reason  string
}

// maxKeyLength is InfluxDB's bound on a series key with its field, keySeparator what
// it counts for the separator between the two.
const (
	maxKeyLength = 65535
	keySeparator = 4
)

// DecodeWrite reads the body of a write request and appends its points to dst, which
// becomes Lines. An uncompressed payload of more than limit bytes is [ErrTooLarge];
// every other error is in the words by which InfluxDB refuses the whole request with
// status 400. dst is then returned in Lines as it was.
func DecodeWrite(dst, body []byte, limit int) (Write, error) {
	w := Write{Lines: dst}
	raw, err := uncompress(body, limit)
	if err != nil {
		return w, err
	}
	d := writeDecoder{Write: w}
	if err := d.request(string(raw)); err != nil {
		return w, err
	}
	return d.Write, nil
}

// writeDecoder reads one request. What it holds beside the Write is of one series,
// and reused for the next.
type writeDecoder struct {
	Write
	enc     lineproto.Encoder
	series  lineproto.Series
	samples []sample
	row     [1]lineproto.Value
	refused error // the request, for a point that InfluxDB refuses all for
}

type sample struct {
	value float64
	ms    int64
}

func (d *writeDecoder) request(data string) error {
	m := message{name: "WriteRequest", data: data}
	for m.next() {
		if m.field != 1 {
			m.skip()
			continue
		}
		if series := m.bytes("Timeseries"); m.err == nil {
			m.err = d.timeSeries(series)
		}
	}
	if m.err != nil {
		return m.err
	}
	return d.refused
}

// timeSeries returns an error for a message that is none. InfluxDB reads all
// messages first, so that a series that it refuses is told of later.
func (d *writeDecoder) timeSeries(data string) error {
	d.series.Measurement, d.series.Tags, d.samples = noName, d.series.Tags[:0], d.samples[:0]
	m := message{name: "TimeSeries", data: data}
	for m.next() {
		switch m.field {
		case 1:
			if label := m.bytes("Labels"); m.err == nil {
				m.err = d.label(label)
			}
		case 2:
			if s := m.bytes("Samples"); m.err == nil {
				m.err = d.sample(s)
			}
		default:
			m.skip()
		}
	}
	if m.err == nil && d.refused == nil {
		d.refused = d.write()
	}
	return m.err
}

func (d *writeDecoder) label(data string) error {
	var t lineproto.Tag
	m := message{name: "LabelPair", data: data}
	for m.next() {
		switch m.field {
		case 1:
			t.Key = m.bytes("Name")
		case 2:
			t.Value = m.bytes("Value")
		default:
			m.skip()
		}
	}
	if t.Key == nameLabel {
		d.series.Measurement = t.Value
	}
	d.series.Tags = append(d.series.Tags, t)
	return m.err
}

func (d *writeDecoder) sample(data string) error {
	var s sample
	m := message{name: "Sample", data: data}
	for m.next() {
		switch m.field {
		case 1:
			s.value = m.float("Value")
		case 2:
			s.ms = m.integer("TimestampMs")
		default:
			m.skip()
		}
	}
	switch {
	case m.err != nil:
	case math.IsNaN(s.value):
		d.NaN++
	case math.IsInf(s.value, 1):
		d.PositiveInf++
	case math.IsInf(s.value, -1):
		d.NegativeInf++
	default:
		d.samples = append(d.samples, s)
	}
	return m.err
}

// write appends the samples of the series. It returns why InfluxDB would refuse the
// whole request.
func (d *writeDecoder) write() error {
	if len(d.samples) == 0 {
		return nil
	}
	sortTags(&d.series)
	seriesErr := d.enc.SetSeries(&d.series, []string{fieldName})
	if seriesErr != nil {
		if n := keySize(&d.series); n > maxKeyLength {
			return fmt.Errorf("max key length exceeded: %d > %d", n, maxKeyLength)
		}
	}
	for _, s := range d.samples {
		// InfluxDB does not look whether this overflows either.
		ns := s.ms * 1e6
		if ns < lineproto.MinTime || ns > lineproto.MaxTime {
			return fmt.Errorf("time outside range %d - %d", lineproto.MinTime, lineproto.MaxTime)
		}
		err := seriesErr
		if err == nil {
			d.row[0] = lineproto.FloatValue(s.value)
			d.Lines, err = d.enc.AppendRow(d.Lines, ns, d.row[:])
		}
		switch {
		case err == nil:
			d.Points++
		case errors.Is(err, lineproto.ErrUnrepresentable):
			if d.Refused++; d.Reason == "" {
				d.Reason = err.Error()
			}
		default:
			return err
		}
	}
	return nil
}

// sortTags sorts the tags by key; of several with one key the last one stays.
func sortTags(s *lineproto.Series) {
	byKey := func(a, b lineproto.Tag) int { return strings.Compare(a.Key, b.Key) }
	if !slices.IsSortedFunc(s.Tags, byKey) {
		slices.SortStableFunc(s.Tags, byKey)
	}
	kept := s.Tags[:0]
	for i, t := range s.Tags {
		if i+1 == len(s.Tags) || s.Tags[i+1].Key != t.Key {
			kept = append(kept, t)
		}
	}
	s.Tags = kept
}

// keySize is the size of the series key and its field as InfluxDB counts it.
func keySize(s *lineproto.Series) int {
	n := len(s.Measurement) + escapes(s.Measurement, ", ") + keySeparator + len(fieldName)
	for _, t := range s.Tags {
		if t.Value != "" {
			n += len(",=") + len(t.Key) + escapes(t.Key, ", =") + len(t.Value) + escapes(t.Value, ", =")
		}
	}
	return n
}

func escapes(s, special string) (n int) {
	for i := range len(special) {
		n += strings.Count(s, special[i:i+1])
	}
	return n
}
