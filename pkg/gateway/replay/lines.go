package replay

import (
	"ringmaster/pkg/hint"
	"ringmaster/pkg/lineproto"
)

// line is one point of a frame.
type line struct {
	text        []byte // with its newline
	measurement string
}

// scan takes a frame's lines apart. rest says, in InfluxDB's words, which of them no
// InfluxDB would take, and how many they are.
func scan(lines []byte) (all []line, rest string, refused int) {
	var s lineproto.Scanner
	text := make([]byte, 0, len(lines)+1)
	names := map[string]string{}
	for s.Reset(lines, lineproto.Nanoseconds, 0); s.Next(); {
		from := len(text)
		text = s.AppendLine(text)
		name, ok := names[string(s.Measurement())]
		if !ok {
			name = string(s.Measurement())
			names[name] = name
		}
		all = append(all, line{text: text[from:len(text):len(text)], measurement: name})
	}
	rest, refused = s.Refused()
	return all, rest, refused
}

// single makes a piece of one line.
func (l *line) single(of *hint.Frame) piece { return piece{of: of, lines: l.text, points: 1} }
