// Package prom reads and writes the payloads of Prometheus' remote write and remote
// read protocol as InfluxDB 1.8 does: snappy blocks that hold messages of protocol
// buffers.
//
// A sample is a point of the measurement that the label __name__ names, with all
// labels as tags, __name__ among them, and one field called value.
//
// The package is pure: no input, no output, no clock.
package prom

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/snappy"
)

// ErrTooLarge is returned for a payload that would be larger than the limit once it
// is uncompressed; a server answers status 413.
var ErrTooLarge = errors.New("request entity too large")

// Errors in the words that InfluxDB has for them; all are answered by status 400.
var (
	errCorrupt   = errors.New("snappy: corrupt input")
	errOneQuery  = errors.New("Prometheus read endpoint currently only supports one query at a time") //nolint:staticcheck // InfluxDB's words
	errNoMatcher = errors.New("expected matcher")
)

// ContentType and ContentEncoding are the headers of what [Read.Restrict] and
// [MergeReads] return, as they are those of InfluxDB's answers.
const (
	ContentType     = "application/x-protobuf"
	ContentEncoding = "snappy"
)

const (
	nameLabel = "__name__"
	fieldName = "value"
	// noName is the measurement of samples without a name.
	noName = "prom_metric_not_specified"
)

// maxRatio is how many bytes a byte of a snappy block stands for at most: a copy of
// 64 takes three.
const maxRatio = 22

// uncompress returns the message in a snappy block.
func uncompress(body []byte, limit int) ([]byte, error) {
	n, err := snappy.DecodedLen(body)
	if err != nil || n/maxRatio > len(body) {
		return nil, errCorrupt
	}
	if n > limit {
		return nil, fmt.Errorf("%d bytes where %d may be: %w", n, limit, ErrTooLarge)
	}
	raw, err := snappy.DecodeStrict(nil, body)
	if err != nil {
		return nil, errCorrupt
	}
	return raw, nil
}
