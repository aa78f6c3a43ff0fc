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
// ends them. ahead is as in splits.
func appendSeries(dst []byte, s *Series) (out []byte, ahead int, err error) {
	begin := len(dst)
	if err := checkMeasurement(s.Measurement); err != nil {
		return dst, 0, fmt.Errorf("measurement %.128q: %w", s.Measurement, err)
	}
	dst = appendEscaped(dst, s.Measurement, ", ")
	careful := needsCheck(s.Measurement)
	for _, t := range s.Tags {
		if t.Value == "" {
			continue
		}
		if err := checkTag(t); err != nil {
			return dst, 0, fmt.Errorf("tag %.128q=%.128q of measurement %.128q: %w", t.Key, t.Value, s.Measurement, err)
		}
		careful = careful || needsCheck(t.Key) || needsCheck(t.Value)
		dst = append(dst, ',')
		dst = appendEscaped(dst, t.Key, ", =")
		dst = append(dst, '=')
		dst = appendEscaped(dst, t.Value, ", =")
	}
	if !careful {
		return dst, 0, nil
	}
	clean, ahead := splits(dst[begin:])
	if !clean {
		return dst, 0, fmt.Errorf("series %.256q: %w", s, ErrUnrepresentable)
	}
	return dst, ahead, nil
}

// appendFieldKey appends a field name, escaped. ahead is as in splits.
func appendFieldKey(dst []byte, name string, ahead int) ([]byte, error) {
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
	case needsCheck(name) && !fieldKeyClean(dst[begin:], ahead):
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

// splits walks escaped measurement and tags as InfluxDB's line splitter does,
// for which a space after a pair of backslashes already begins the fields. clean
// is whether it is not inside of quotes at the end and has not ended the line
// before. ahead is how many equals signs it has counted more than commas, all but
// always none: it takes a quote for one while it is ahead, which it should be in
// the value of a field only. So if it is ahead too early it will see the quotes in
// field names, and if it is behind it will not see those around strings.
func splits(key []byte) (clean bool, ahead int) {
	quoted, fields := false, false
	for i := 0; i < len(key); i++ {
		switch c := key[i]; {
		case c == '\\':
			i++
			if i == len(key) {
				return false, 0 // would swallow the space that ends the key
			}
		case c == '\n' && !quoted:
			return false, 0
		case c == ' ':
			fields = true
		case c == '"' && fields && ahead > 0:
			quoted = !quoted
		case c == '=' && fields && !quoted:
			ahead++
		case c == ',' && fields && !quoted:
			ahead--
		}
	}
	return !quoted, ahead
}

// fieldKeyClean reports whether both the splitter and the field scanner, which
// take pairs, and the cutter, which looks back one byte, find the end of an
// escaped field name where it is. ahead is the splitter's count before it.
func fieldKeyClean(key []byte, ahead int) bool {
	for i := 0; i < len(key); i++ {
		switch key[i] {
		case '\\':
			i++
			if i == len(key) {
				return false
			}
		case ' ', ',', '=', '\n':
			return false
		case '"':
			if ahead > 0 {
				return false
			}
		}
	}
	return true
}
