package result

// indenter indents JSON by four spaces as it comes, as encoding/json does for a
// whole document.
type indenter struct {
	depth   int
	text    bool // inside a string
	escaped bool // behind its backslash
	opened  bool // behind { or [, which may turn out to be empty
}

func (n *indenter) line(dst []byte) []byte {
	dst = append(dst, '\n')
	for range n.depth {
		dst = append(dst, "    "...)
	}
	return dst
}

// append appends the indented form of compact JSON.
func (n *indenter) append(dst, src []byte) []byte {
	for _, c := range src {
		if n.text {
			dst = append(dst, c)
			switch {
			case n.escaped:
				n.escaped = false
			case c == '\\':
				n.escaped = true
			case c == '"':
				n.text = false
			}
			continue
		}
		if n.opened && c != '}' && c != ']' {
			n.opened = false
			n.depth++
			dst = n.line(dst)
		}
		switch c {
		case '{', '[':
			n.opened = true
			dst = append(dst, c)
		case '}', ']':
			if n.opened {
				n.opened = false
			} else {
				n.depth--
				dst = n.line(dst)
			}
			dst = append(dst, c)
		case ',':
			dst = n.line(append(dst, c))
		case ':':
			dst = append(dst, c, ' ')
		case '"':
			n.text = true
			dst = append(dst, c)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
