package lineproto_test

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"

	"ringmaster/pkg/lineproto"
)

// What follows reads line protocol by the rules of InfluxDB 1.8's parser, as
// far as an encoder can meet them, so that the tests here need no server.
// pkg/influx asks the real parser the same questions.

type point struct {
	series lineproto.Series
	fields map[string]lineproto.Value
	time   int64
}

var errLine = errors.New("not a line")

// readLines splits a batch into lines, by pairs of a backslash and any byte and
// by quotes in field values, and reads each.
func readLines(batch string) ([]point, error) {
	var points []point
	for batch != "" {
		end := lineEnd(batch)
		line := batch[:end]
		batch = batch[min(end+1, len(batch)):]
		line = strings.TrimLeft(line, " \t\x00")
		if line == "" || line[0] == '#' {
			continue
		}
		p, err := readLine(line)
		if err != nil {
			return points, err
		}
		points = append(points, p)
	}
	return points, nil
}

func lineEnd(s string) int {
	quoted, fields, equals, commas := false, false, 0, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+2 < len(s):
			i++
		case c == '"' && fields && equals > commas:
			quoted = !quoted
		case c == '\n' && !quoted:
			return i
		case c == ' ':
			fields = true
		case c == '=' && fields && !quoted:
			equals++
		case c == ',' && fields && !quoted:
			commas++
		}
	}
	return len(s)
}

// cut finds the first byte of stops in s that has no backslash before it.
func cut(s, stops string) int {
	for i := range len(s) {
		if strings.IndexByte(stops, s[i]) >= 0 && (i == 0 || s[i-1] != '\\') {
			return i
		}
	}
	return -1
}

func unescape(s, special string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && strings.IndexByte(special, s[i+1]) >= 0 {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func readLine(s string) (p point, err error) {
	i := cut(s, ", ")
	if i <= 0 {
		return p, errLine
	}
	// One part of the server takes the backslash before a quote and an equals
	// sign too; a name must read the same in both.
	p.series.Measurement = unescape(s[:i], ", ")
	if unescape(s[:i], `, "=`) != p.series.Measurement {
		return p, errLine
	}
	for s[i] == ',' {
		s = s[i+1:]
		eq := cut(s, " ,=")
		if eq <= 0 || s[eq] != '=' {
			return p, errLine
		}
		key := unescape(s[:eq], ", =")
		s = s[eq+1:]
		if i = cut(s, " ,="); i <= 0 || s[i] == '=' {
			return p, errLine
		}
		p.series.Tags = append(p.series.Tags, lineproto.Tag{Key: key, Value: unescape(s[:i], ", =")})
	}
	slices.SortFunc(p.series.Tags, func(a, b lineproto.Tag) int { return strings.Compare(a.Key, b.Key) })
	s = strings.TrimLeft(s[i:], " \t\x00")

	p.fields = map[string]lineproto.Value{}
	for {
		eq := pairCut(s, "=, ")
		if eq <= 0 || s[eq] != '=' || cut(s, "=") != eq {
			return p, errLine
		}
		key := unescape(s[:eq], `, ="`)
		s = s[eq+1:]
		end, v, err := readValue(s)
		if err != nil {
			return p, err
		}
		p.fields[key] = v
		sep := s[end]
		s = s[end+1:]
		if sep == ' ' {
			break
		}
	}
	p.time, err = strconv.ParseInt(s, 10, 64)
	return p, err
}

// pairCut finds the first byte of stops in s that is not the second of a pair.
func pairCut(s, stops string) int {
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			i++
		} else if strings.IndexByte(stops, s[i]) >= 0 {
			return i
		}
	}
	return -1
}

func readValue(s string) (end int, v lineproto.Value, err error) {
	if s[0] == '"' {
		n := 1 + pairCut(s[1:], `"`)
		if n == 0 || n+1 >= len(s) {
			return 0, v, errLine
		}
		return n + 1, lineproto.StringValue(unescape(s[1:n], `"\`)), nil
	}
	end = strings.IndexAny(s, ", ")
	if end <= 0 {
		return 0, v, errLine
	}
	text := s[:end]
	switch last := text[len(text)-1]; {
	case text == "true", text == "false":
		v = lineproto.BooleanValue(text == "true")
	case last == 'i':
		n, e := strconv.ParseInt(text[:len(text)-1], 10, 64)
		v, err = lineproto.IntegerValue(n), e
	case last == 'u':
		n, e := strconv.ParseUint(text[:len(text)-1], 10, 64)
		v, err = lineproto.UnsignedValue(n), e
	default:
		f, e := strconv.ParseFloat(text, 64)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			e = errLine
		}
		v, err = lineproto.FloatValue(f), e
	}
	return end, v, err
}
