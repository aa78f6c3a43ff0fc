package lineproto

import (
	"fmt"
	"strings"
)

// What InfluxDB 1.8 really reads (models/points.go). A backslash is never
// escaped in a name, it only takes the meaning from the byte after it; and
// three scanners look at a line, which do not agree about a backslash before
// another one:
//
//   - the line splitter takes backslash and next byte as a pair, anywhere;
//   - the scanner of measurement and tags only looks whether the byte before a
//     comma, space or equals sign is a backslash;
//   - the scanner of fields takes pairs again, and once more the name of each
//     field is cut off by the rule of the tags.
//
// So a name is written by putting a backslash before each special byte, and
// then checked by all the scanners that will see it: what one of them would
// read otherwise is refused. Names without backslash and control characters
// need no check.

// appendSeries appends measurement and tags, escaped, without the space that
// ends them.
func appendSeries(dst []byte, s *Series) ([]byte, error) {
	begin := len(dst)
	if err := checkMeasurement(s.Measurement); err != nil {
		return dst, fmt.Errorf("measurement %.128q: %w", s.Measurement, err)
	}
	dst = appendEscaped(dst, s.Measurement, ", ")
	careful := needsCheck(s.Measurement)
	for _, t := range s.Tags {
		if t.Value == "" {
			continue
		}
		if err := checkTag(t); err != nil {
			return dst, fmt.Errorf("tag %.128q=%.128q of measurement %.128q: %w", t.Key, t.Value, s.Measurement, err)
		}
		careful = careful || needsCheck(t.Key) || needsCheck(t.Value)
		dst = append(dst, ',')
		dst = appendEscaped(dst, t.Key, ", =")
		dst = append(dst, '=')
		dst = appendEscaped(dst, t.Value, ", =")
	}
	if careful && !splitsClean(dst[begin:]) {
		return dst, fmt.Errorf("series %.256q: %w", s, ErrUnrepresentable)
	}
	return dst, nil
}

// appendFieldKey appends a field name, escaped.
func appendFieldKey(dst []byte, name string) ([]byte, error) {
	begin := len(dst)
	// The quote has no meaning in a field name, but a backslash before one is
	// taken away.
	dst = appendEscaped(dst, name, `, ="`)
	switch {
	case name == "", name == "time", name[0] == '\t', name[0] == 0, name[len(name)-1] == '\\':
		// No name, the column of times, white space that is skipped before the
		// first field, a backslash that would take the meaning of the equals
		// sign.
		return dst, ErrUnrepresentable
	case needsCheck(name) && !fieldKeyClean(dst[begin:]):
		return dst, ErrUnrepresentable
	}
	return dst, nil
}

// appendEscaped appends name with a backslash before each byte of special.
func appendEscaped(dst []byte, name, special string) []byte {
	if !strings.ContainsAny(name, special) {
		return append(dst, name...)
	}
	for i := range len(name) {
		if strings.IndexByte(special, name[i]) >= 0 {
			dst = append(dst, '\\')
		}
		dst = append(dst, name[i])
	}
	return dst
}

// needsCheck reports whether a name holds what the scanners may disagree about.
func needsCheck(name string) bool {
	return strings.IndexByte(name, '\\') >= 0 || strings.IndexByte(name, '\n') >= 0
}

// checkMeasurement refuses the names that InfluxDB would take for something
// else, skip, or store under a key it does not find again: one part of it
// unescapes `\"` and `\=` in a measurement and another does not, and a
// backslash before a comma or a space is lost when the key is made anew.
func checkMeasurement(name string) error {
	if name == "" || name[0] == '#' || name[0] == '\t' || name[0] == 0 || name[len(name)-1] == '\\' {
		return ErrUnrepresentable
	}
	for i := range len(name) - 1 {
		if name[i] == '\\' && strings.IndexByte(`," =`, name[i+1]) >= 0 {
			return ErrUnrepresentable
		}
	}
	return nil
}

func checkTag(t Tag) error {
	// InfluxDB refuses points with a tag called time. A backslash at the end
	// would take the meaning of what follows.
	if t.Key == "" || t.Key == "time" || t.Key[len(t.Key)-1] == '\\' || t.Value[len(t.Value)-1] == '\\' {
		return ErrUnrepresentable
	}
	return nil
}

// splitsClean walks escaped measurement and tags as InfluxDB's line splitter
// does, and reports whether it is then where the field scanner will be: not at
// the end of the line, not inside quotes, and with the same idea of what is a
// name and what a value.
func splitsClean(key []byte) bool {
	fields, equals, commas := false, 0, 0
	for i := 0; i < len(key); i++ {
		switch c := key[i]; {
		case c == '\\':
			i++
			if i == len(key) {
				return false // would swallow the space that ends the key
			}
		case c == '\n':
			return false
		case c == ' ':
			fields = true
		case fields && c == '=':
			equals++
		case fields && c == ',':
			commas++
		case fields && c == '"' && equals > commas:
			return false
		}
	}
	return equals == commas
}

// fieldKeyClean reports whether both the splitter and the field scanner, which
// take pairs, and the cutter, which looks back one byte, find the end of an
// escaped field name where it is.
func fieldKeyClean(key []byte) bool {
	for i := 0; i < len(key); i++ {
		switch key[i] {
		case '\\':
			i++
			if i == len(key) {
				return false
			}
		case ' ', ',', '=', '\n':
			return false
		}
	}
	return true
}
