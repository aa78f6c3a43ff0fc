package flux

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

type kind uint8

const (
	name kind = iota + 1
	text
	symbol
	other // numbers, regular expressions, strings with something put in
)

// token is a word of a script.
type token struct {
	kind  kind
	value string
}

type tokens []token

func (ts tokens) is(i int, value string) bool {
	return i >= 0 && i < len(ts) && ts[i].kind == symbol && ts[i].value == value
}

func (ts tokens) word(i int, value string) bool {
	return i >= 0 && i < len(ts) && ts[i].kind == name && ts[i].value == value
}

// scan cuts a script into tokens, comments left out.
func scan(s string) tokens {
	var ts tokens
	for s != "" {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case unicode.IsSpace(r):
			s = s[size:]
		case strings.HasPrefix(s, "//"):
			end := strings.IndexByte(s, '\n')
			if end < 0 {
				return ts
			}
			s = s[end:]
		case r == '"':
			var t token
			t, s = scanString(s)
			ts = append(ts, t)
		case r == '_' || unicode.IsLetter(r):
			n := strings.IndexFunc(s, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
			if n < 0 {
				n = len(s)
			}
			ts = append(ts, token{name, s[:n]})
			s = s[n:]
		case r == '/' && ts.operand():
			end := regexEnd(s)
			ts = append(ts, token{kind: other})
			s = s[end:]
		case unicode.IsDigit(r):
			n := strings.IndexFunc(s, func(r rune) bool {
				return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(".:-+", r)
			})
			if n < 0 {
				n = len(s)
			}
			ts = append(ts, token{kind: other})
			s = s[n:]
		default:
			n := size
			for _, long := range []string{"|>", "=>", "==", "=~", "!=", "!~", "<=", ">=", "<-"} {
				if strings.HasPrefix(s, long) {
					n = len(long)
				}
			}
			ts = append(ts, token{symbol, s[:n]})
			s = s[n:]
		}
	}
	return ts
}

// operand reports whether an operand is to come next, so that a slash begins a
// regular expression.
func (ts tokens) operand() bool {
	if len(ts) == 0 {
		return true
	}
	last := ts[len(ts)-1]
	switch last.kind {
	case symbol:
		return last.value != ")" && last.value != "]" && last.value != "}"
	case name:
		return last.value == "and" || last.value == "or" || last.value == "not" || last.value == "return"
	default:
		return false
	}
}

func regexEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '/':
			return i + 1
		case '\n':
			return i
		}
	}
	return len(s)
}

// scanString reads a string. One with something put in, or an escape that is not
// plain, has no value that is known.
func scanString(s string) (t token, rest string) {
	var b strings.Builder
	known := true
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			if !known {
				return token{kind: other}, s[i+1:]
			}
			return token{text, b.String()}, s[i+1:]
		case c == '$' && strings.HasPrefix(s[i:], "${"):
			known = false
			end := strings.IndexByte(s[i:], '}')
			if end < 0 {
				return token{kind: other}, ""
			}
			i += end
		case c == '\\' && i+1 < len(s):
			i++
			switch s[i] {
			case '"', '\\':
				b.WriteByte(s[i])
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case 'r':
				b.WriteByte('\r')
			case '$':
				b.WriteByte('$')
			default:
				known = false
			}
		default:
			b.WriteByte(c)
		}
	}
	return token{kind: other}, ""
}
