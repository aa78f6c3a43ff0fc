package statement

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/influxdata/influxql"
)

// Params reads the parameter "params" of a request; nil if raw is empty. The
// error is the sentence of a server, for an answer 400.
func Params(raw string) (map[string]any, error) {
	if raw == "" {
		return nil, nil
	}
	var params map[string]any
	d := json.NewDecoder(strings.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&params); err != nil {
		return nil, fmt.Errorf("error parsing query parameters: %w", err)
	}
	for name, value := range params {
		n, ok := value.(json.Number)
		if !ok {
			continue
		}
		var err error
		if strings.Contains(n.String(), ".") {
			params[name], err = n.Float64()
		} else {
			params[name], err = n.Int64()
		}
		if err != nil {
			return nil, fmt.Errorf("error parsing json value: %w", err)
		}
	}
	return params, nil
}

// Parse reads the text of a request. params are those of Params, or nil. The error
// is the sentence of a server, for an answer 400.
func Parse(q string, params map[string]any, d Defaults) (*Request, error) {
	p := influxql.NewParser(strings.NewReader(q))
	if params != nil {
		p.SetParams(params)
	}
	r := &Request{}
	pos, ended := newCursor(q), true
	for {
		tok, at, lit := p.ScanIgnoreWhitespace()
		switch {
		case tok == influxql.EOF, tok == influxql.SEMICOLON:
			text := pos.to(at)
			if !ended {
				last := r.Statements[len(r.Statements)-1]
				if last.Text = text; strings.Contains(q, "\x00") {
					last.Text = textOf(last.AST) // the parser loses count there
				}
			}
			if tok == influxql.EOF {
				return r, nil
			}
			pos.skip()
			ended = true
			continue
		case !ended:
			if lit == "" {
				lit = tok.String()
			}
			err := &influxql.ParseError{Found: lit, Expected: []string{";"}, Pos: at}
			return nil, fmt.Errorf("error parsing query: %w", err)
		}
		p.Unscan()
		ast, err := p.ParseStatement()
		if err != nil {
			return nil, fmt.Errorf("error parsing query: %w", err)
		}
		r.Statements = append(r.Statements, newStatement(ast, d))
		ended = false
	}
}

// cursor turns the positions that the parser counts into those of bytes. The
// parser counts runes and takes each line end, of whatever kind, for one.
type cursor struct {
	text       string
	start      int // of the present statement
	byte       int
	line, char int
}

func newCursor(text string) *cursor { return &cursor{text: text} }

// to returns the text from the last skip up to a position.
func (c *cursor) to(at influxql.Pos) string {
	for c.byte < len(c.text) && (c.line < at.Line || c.line == at.Line && c.char < at.Char) {
		c.step()
	}
	return strings.TrimSpace(c.text[c.start:c.byte])
}

// skip passes over the rune at the position.
func (c *cursor) skip() {
	c.step()
	c.start = c.byte
}

func (c *cursor) step() {
	r, size := utf8.DecodeRuneInString(c.text[c.byte:])
	c.byte += size
	switch r {
	case '\r':
		if strings.HasPrefix(c.text[c.byte:], "\n") {
			c.byte++
		}
		c.line, c.char = c.line+1, 0
	case '\n':
		c.line, c.char = c.line+1, 0
	default:
		c.char++
	}
}

// Writes reports whether any statement of the request changes something.
func (r *Request) Writes() bool {
	return slices.ContainsFunc(r.Statements, func(s *Statement) bool {
		return s.Class == Into || s.Class == CreateEverywhere || s.Class == DropEverywhere
	})
}
