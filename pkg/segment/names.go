package segment

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Escape writes a name so that it can stand in a tag string and in a line: bytes that
// have a meaning there, or that some reader of text would not leave alone, become a
// percent sign and two hexadecimal digits each. These are `%`, `@`, `=`, quotes of all
// three kinds, the backslash, what Unicode counts as white space or as a control
// character, the byte order mark, and what is no UTF-8. The reverse is [Unescape].
func Escape(name string) string { return string(appendEscape(nil, name)) }

func appendEscape(dst []byte, name string) []byte {
	for i := 0; i < len(name); {
		r, size := utf8.DecodeRuneInString(name[i:])
		if !mustEscape(r, size) {
			dst = append(dst, name[i:i+size]...)
			i += size
			continue
		}
		for ; size > 0; size-- {
			dst = append(dst, '%', hexDigits[name[i]>>4], hexDigits[name[i]&15])
			i++
		}
	}
	return dst
}

const hexDigits = "0123456789ABCDEF"

func mustEscape(r rune, size int) bool {
	switch r {
	case '%', '@', '=', '\'', '"', '`', '\\', '\ufeff':
		return true
	case utf8.RuneError:
		return size == 1
	default:
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}
}

// Unescape reads what Escape has written. A percent sign that two hexadecimal digits
// do not follow is an error.
func Unescape(text string) (string, error) {
	if !strings.Contains(text, "%") {
		return text, nil
	}
	name := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			name = append(name, text[i])
			continue
		}
		if i+2 >= len(text) {
			return "", fmt.Errorf("%.64q ends within an escape", text)
		}
		high, low := hexValue(text[i+1]), hexValue(text[i+2])
		if high < 0 || low < 0 {
			return "", fmt.Errorf("%.64q: %q is no escape", text, text[i:i+3])
		}
		name = append(name, byte(high<<4|low))
		i += 2
	}
	return string(name), nil
}

func hexValue(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	default:
		return -1
	}
}

// Tag is one tag of a datasource in LogScale's sense.
type Tag struct{ Key, Value string }

// TagString renders tags as LogScale does: an @ before each, and one at the end; a
// key, an equals sign and a value, both escaped; sorted by key.
func TagString(tags ...Tag) string { return string(appendTags(nil, tags...)) }

func appendTags(dst []byte, tags ...Tag) []byte {
	if !slices.IsSortedFunc(tags, byKey) {
		tags = slices.Clone(tags)
		slices.SortStableFunc(tags, byKey)
	}
	for _, t := range tags {
		dst = append(dst, '@')
		dst = appendEscape(dst, t.Key)
		dst = append(dst, '=')
		dst = appendEscape(dst, t.Value)
	}
	return append(dst, '@')
}

func byKey(a, b Tag) int { return cmp.Compare(a.Key, b.Key) }

// ParseTagString reads what TagString has written.
func ParseTagString(text string) ([]Tag, error) {
	rest, ok := strings.CutPrefix(text, "@")
	if !ok {
		return nil, fmt.Errorf("the tag string %.64q does not begin with @", text)
	}
	var tags []Tag
	for rest != "" {
		pair, after, ok := strings.Cut(rest, "@")
		if !ok {
			return nil, fmt.Errorf("the tag string %.64q does not end with @", text)
		}
		rest = after
		k, v, ok := strings.Cut(pair, "=")
		if !ok || strings.Contains(v, "=") {
			return nil, fmt.Errorf("the tag string %.64q: %.64q is no pair of key and value", text, pair)
		}
		key, err := Unescape(k)
		if err != nil {
			return nil, err
		}
		value, err := Unescape(v)
		if err != nil {
			return nil, err
		}
		tags = append(tags, Tag{key, value})
	}
	return tags, nil
}

// The tags that a datasource has.
const (
	tagMeasurement = "measurement"
	tagPolicy      = "rp"
)

// TagString is the datasource's tag string: `@measurement=…@rp=…@`.
func (d Datasource) TagString() string { return string(d.appendTags(nil)) }

func (d Datasource) appendTags(dst []byte) []byte {
	return appendTags(dst, Tag{tagMeasurement, d.Measurement}, Tag{tagPolicy, d.RetentionPolicy})
}

// ParseDatasource is the reverse of [Datasource.TagString] for a repository, whose
// name is given as it is, unescaped.
func ParseDatasource(repository, tagString string) (Datasource, error) {
	tags, err := ParseTagString(tagString)
	if err != nil {
		return Datasource{}, err
	}
	if len(tags) != 2 || tags[0].Key != tagMeasurement || tags[1].Key != tagPolicy {
		return Datasource{}, fmt.Errorf("the tag string %.64q is not one of measurement and rp", tagString)
	}
	return Datasource{Database: repository, RetentionPolicy: tags[1].Value, Measurement: tags[0].Value}, nil
}
