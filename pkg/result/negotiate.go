package result

import (
	"mime"
	"slices"
	"strconv"
	"strings"
)

// Format is a way in which answers are written.
type Format uint8

// The formats.
const (
	JSON Format = iota
	CSV
	Msgpack
)

// contentTypes are what can be asked for, in the order in which a pattern chooses.
func contentTypes() []struct {
	kind, subkind string
	format        Format
} {
	return []struct {
		kind, subkind string
		format        Format
	}{
		{"application", "json", JSON},
		{"application", "csv", CSV},
		{"text", "csv", CSV},
		{"application", "x-msgpack", Msgpack},
	}
}

// Negotiate chooses the format of an answer by the Accept headers of its request,
// and the content type that the answer says it has.
func Negotiate(accept []string) (f Format, contentType string) {
	for _, a := range accepted(accept) {
		for _, c := range contentTypes() {
			if (a.kind == "*" || a.kind == c.kind) && (a.subkind == "*" || a.subkind == c.subkind) {
				return c.format, c.kind + "/" + c.subkind
			}
		}
	}
	return JSON, "application/json"
}

// clause is one of the types that a client accepts.
type clause struct {
	kind, subkind string
	quality       float64
}

// accepted reads Accept headers, best first. What cannot be read is left out.
func accepted(headers []string) []clause {
	var all []clause
	for _, header := range headers {
		for part := range strings.SplitSeq(header, ",") {
			media, attributes, err := mime.ParseMediaType(part)
			if err != nil {
				continue
			}
			c := clause{quality: 1}
			switch kind, subkind, ok := strings.Cut(media, "/"); {
			case ok && !strings.Contains(subkind, "/"):
				c.kind, c.subkind = kind, subkind
			case media == "*":
				c.kind, c.subkind = "*", "*"
			default:
				continue
			}
			if q, given := attributes["q"]; given {
				c.quality, _ = strconv.ParseFloat(q, 64) // 0 if it is no number
			}
			all = append(all, c)
		}
	}
	slices.SortStableFunc(all, func(a, b clause) int {
		switch {
		case a.quality > b.quality:
			return -1
		case a.quality < b.quality:
			return 1
		default:
			return 0
		}
	})
	return all
}
