package prom

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/klauspost/compress/snappy"
)

// Read is a read request, which has one query. InfluxDB reads it not by InfluxQL but
// by a storage request of its own, with its own rules for what a matcher matches; so
// it is not translated, but handed on, restricted to what each server owns.
type Read struct {
	query string // the message
	names []nameMatcher
}

// nameMatcher is a matcher that looks at the name of the measurement.
type nameMatcher struct {
	kind  matchType
	value string
	regex *regexp.Regexp // nil for an expression that is none
}

type matchType int32

const (
	equal matchType = iota
	notEqual
	matching
	notMatching
)

func (t matchType) String() string {
	switch t {
	case equal:
		return "EQUAL"
	case notEqual:
		return "NOT_EQUAL"
	case matching:
		return "REGEX_MATCH"
	case notMatching:
		return "REGEX_NO_MATCH"
	default:
		return strconv.Itoa(int(t))
	}
}

// DecodeRead reads the body of a read request. An uncompressed payload of more than
// limit bytes is [ErrTooLarge]; every other error is in the words by which InfluxDB
// refuses the request with status 400, before it looks whether the database exists.
func DecodeRead(body []byte, limit int) (*Read, error) {
	raw, err := uncompress(body, limit)
	if err != nil {
		return nil, err
	}
	var r Read
	var matchers []matcher
	queries := 0
	m := message{name: "ReadRequest", data: string(raw)}
	for m.next() {
		if m.field != 1 {
			m.skip()
			continue
		}
		queries++
		if r.query = m.bytes("Queries"); m.err == nil {
			matchers, m.err = decodeQuery(r.query)
		}
	}
	switch {
	case m.err != nil:
		return nil, m.err
	case queries != 1:
		return nil, errOneQuery
	case len(matchers) == 0:
		return nil, errNoMatcher
	}
	for _, one := range matchers {
		if one.kind < equal || one.kind > notMatching {
			return nil, fmt.Errorf("unknown match type %v", one.kind)
		}
		if !namesMeasurement(one.name) {
			continue
		}
		n := nameMatcher{kind: one.kind, value: one.value}
		if n.kind == matching || n.kind == notMatching {
			n.regex, _ = regexp.Compile(n.value) // a server says what is wrong with it
		}
		r.names = append(r.names, n)
	}
	return &r, nil
}

// namesMeasurement reports whether InfluxDB takes a label for the measurement.
func namesMeasurement(label string) bool {
	switch label {
	case nameLabel, "_measurement", "_name", "\x00":
		return true
	default:
		return false
	}
}

type matcher struct {
	kind        matchType
	name, value string
}

func decodeQuery(data string) (matchers []matcher, err error) {
	m := message{name: "Query", data: data}
	for m.next() {
		switch m.field {
		case 1:
			m.integer("StartTimestampMs")
		case 2:
			m.integer("EndTimestampMs")
		case 3:
			one := m.bytes("Matchers")
			if m.err != nil {
				break
			}
			var decoded matcher
			decoded, m.err = decodeMatcher(one)
			matchers = append(matchers, decoded)
		default:
			m.skip()
		}
	}
	return matchers, m.err
}

func decodeMatcher(data string) (one matcher, err error) {
	m := message{name: "LabelMatcher", data: data}
	for m.next() {
		switch m.field {
		case 1:
			one.kind = matchType(m.integer("Type"))
		case 2:
			one.name = m.bytes("Name")
		case 3:
			one.value = m.bytes("Value")
		default:
			m.skip()
		}
	}
	return one, m.err
}

// Measurement returns the one measurement that the request can be about; ok is
// false if that depends on which ones there are. The request may then be handed on
// as it is.
func (r *Read) Measurement() (name string, ok bool) {
	if len(r.names) == 1 && r.names[0].kind == equal && r.names[0].value != "" {
		return r.names[0].value, true
	}
	return "", false
}

// Matches reports whether the request reads a measurement. Expressions are not
// anchored: InfluxDB, unlike Prometheus, matches a part of the name. Where no
// measurement matches, any one server may be asked as it stands: the answer has no
// points, or says what is wrong with the request or the database.
func (r *Read) Matches(measurement string) bool {
	for _, n := range r.names {
		var ok bool
		switch n.kind {
		case equal:
			ok = measurement == n.value
		case notEqual:
			ok = measurement != n.value
		case matching:
			ok = n.regex != nil && n.regex.MatchString(measurement)
		case notMatching:
			ok = n.regex != nil && !n.regex.MatchString(measurement)
		}
		if !ok {
			return false
		}
	}
	return true
}

// Restrict returns the body of a request that reads the same, but of these
// measurements only, of which there must be one at least.
func (r *Read) Restrict(measurements []string) []byte {
	query := []byte(r.query)
	if len(measurements) == 1 {
		query = appendMatcher(query, equal, measurements[0])
	} else {
		regex := []byte("^(?:")
		for i, name := range measurements {
			if i > 0 {
				regex = append(regex, '|')
			}
			regex = append(regex, regexp.QuoteMeta(name)...)
		}
		query = appendMatcher(query, matching, string(append(regex, ")$"...)))
	}
	// InfluxDB finds the fields in another way when there is nothing but one equality,
	// and then finds more: it must not go that way where it would not have.
	query = appendMatcher(query, notEqual, "")
	return snappy.Encode(nil, appendBytes(nil, 1, string(query)))
}

func appendMatcher(query []byte, kind matchType, value string) []byte {
	one := appendInteger(nil, 1, uint64(kind))
	one = appendBytes(one, 2, nameLabel)
	one = appendBytes(one, 3, value)
	return appendBytes(query, 3, string(one))
}

// MergeReads makes one answer of those that several servers have given to one
// request, each about other measurements. The series stand in the order in which one
// server has them: by measurement, for which the label __name__ is taken; those
// without one stand where their server has put them. A server's answer of more than
// limit bytes, uncompressed, or one that is none, is an error.
func MergeReads(answers [][]byte, limit int) ([]byte, error) {
	parts := make([][]answered, len(answers))
	for i, body := range answers {
		raw, err := uncompress(body, limit)
		if err != nil {
			return nil, fmt.Errorf("answer %d of %d: %w", i+1, len(answers), err)
		}
		if parts[i], err = decodeAnswer(string(raw)); err != nil {
			return nil, fmt.Errorf("answer %d of %d: %w", i+1, len(answers), err)
		}
	}
	var result []byte
	for {
		first := -1
		for i, p := range parts {
			if len(p) > 0 && (first < 0 || p[0].name < parts[first][0].name) {
				first = i
			}
		}
		if first < 0 {
			break
		}
		result = appendBytes(result, 1, parts[first][0].series)
		parts[first] = parts[first][1:]
	}
	return snappy.Encode(nil, appendBytes(nil, 1, string(result))), nil
}

// answered is a series of an answer, and its label __name__.
type answered struct{ name, series string }

func decodeAnswer(data string) (all []answered, err error) {
	m := message{name: "ReadResponse", data: data}
	for m.next() {
		if m.field != 1 {
			m.skip()
			continue
		}
		result := message{name: "QueryResult", data: m.bytes("Results"), err: m.err}
		for result.next() {
			if result.field != 1 {
				result.skip()
				continue
			}
			one := answered{series: result.bytes("Timeseries")}
			if result.err == nil {
				one.name, result.err = seriesName(one.series)
			}
			all = append(all, one)
		}
		m.err = result.err
	}
	return all, m.err
}

func seriesName(data string) (name string, err error) {
	m := message{name: "TimeSeries", data: data}
	for m.next() {
		if m.field != 1 {
			m.skip()
			continue
		}
		var key, value string
		label := message{name: "LabelPair", data: m.bytes("Labels"), err: m.err}
		for label.next() {
			switch label.field {
			case 1:
				key = label.bytes("Name")
			case 2:
				value = label.bytes("Value")
			default:
				label.skip()
			}
		}
		m.err = label.err
		if key == nameLabel {
			name = value
		}
	}
	return name, m.err
}
