package segment

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// MissingLine is one line of LogScale's list of missing segments:
//
//	segmentId datasourceId dataspaceId 'repositoryName' 'tagString' startMs endMs
//
// In what Ringmaster renders, name and tag string are escaped ([Escape]) and so hold
// neither spaces nor quotes: a line always is seven words.
type MissingLine struct {
	Segment, Datasource, Dataspace ID
	// Repository is the name and Tags the tag string, as they stand between the
	// quotes; empty in a line that does not have them.
	Repository, Tags string
	// Start and End are milliseconds since the Unix epoch.
	Start, End int64
}

// Append appends the line, with its newline.
func (m *MissingLine) Append(dst []byte) []byte {
	return appendMissing(dst, [3]ID{m.Segment, m.Datasource, m.Dataspace}, func(dst []byte) []byte {
		dst = append(dst, m.Repository...)
		dst = append(dst, "' '"...)
		return append(dst, m.Tags...)
	}, m.Start, m.End)
}

// AppendMissing appends the line of a segment of a datasource whose first and last
// times are given in nanoseconds; both are rounded down to milliseconds.
func AppendMissing(dst []byte, segment ID, d Datasource, first, last int64) []byte {
	return appendMissing(dst, [3]ID{segment, d.ID(), d.DataspaceID()}, func(dst []byte) []byte {
		dst = appendEscape(dst, d.Database)
		dst = append(dst, "' '"...)
		return d.appendTags(dst)
	}, milliseconds(first), milliseconds(last))
}

func appendMissing(dst []byte, ids [3]ID, names func([]byte) []byte, start, end int64) []byte {
	for _, id := range ids {
		dst = append(dst, id[:]...)
		dst = append(dst, ' ')
	}
	dst = names(append(dst, '\''))
	dst = append(dst, "' "...)
	dst = strconv.AppendInt(dst, start, 10)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, end, 10)
	return append(dst, '\n')
}

// milliseconds rounds down, before 1970 too.
func milliseconds(ns int64) int64 {
	const unit = 1_000_000
	ms := ns / unit
	if ns%unit < 0 {
		ms--
	}
	return ms
}

// MaxMissingLine is how long a line may be. The longest names that InfluxDB takes fit,
// every byte of them escaped.
const MaxMissingLine = 256 << 10

// LineError says what is wrong with one line of a list.
type LineError struct {
	// Line counts from 1.
	Line int64
	// Problem says what is wrong, Hint what to do about it if that can be told.
	Problem, Hint string
}

// Error names the line, the problem and the hint.
func (e *LineError) Error() string {
	text := fmt.Sprintf("line %d: %s", e.Line, e.Problem)
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// binaryHint is for lines that seem to be several: curl's -d @file takes the newlines
// away.
const binaryHint = "curl -d @file strips the newlines from a file: send it with --data-binary @file"

// MissingScanner reads a list of missing segments, line by line: the first three
// words of each count, what follows must be what it should be as far as it is there.
// Line ends are LF or CRLF, and the last one may be absent. It holds one line in
// memory.
type MissingScanner struct {
	in   *bufio.Reader
	line int64
	err  error // that ends the list
}

// NewMissingScanner reads from in.
func NewMissingScanner(in io.Reader) *MissingScanner {
	return &MissingScanner{in: bufio.NewReaderSize(in, MaxMissingLine+2)}
}

// Line is the number of the line read last, from 1.
func (s *MissingScanner) Line() int64 { return s.line }

// Next returns the next line. At the end of the list the error is [io.EOF]. A
// [*LineError] says that a line can't be read; the lines after it can. Any other error
// is one of reading and stays.
func (s *MissingScanner) Next() (MissingLine, error) {
	if s.err != nil {
		return MissingLine{}, s.err
	}
	text, err := s.in.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		s.line++
		return MissingLine{}, s.skip()
	case errors.Is(err, io.EOF) && len(text) == 0:
		s.err = io.EOF
		return MissingLine{}, s.err
	case err != nil && !errors.Is(err, io.EOF):
		s.err = fmt.Errorf("reading line %d: %w", s.line+1, err)
		return MissingLine{}, s.err
	}
	s.line++
	text = bytes.TrimSuffix(text, []byte("\n"))
	m, problem, fused := parseMissing(bytes.TrimSuffix(text, []byte("\r")))
	if problem == "" {
		return m, nil
	}
	wrong := &LineError{Line: s.line, Problem: problem}
	if fused {
		wrong.Hint = binaryHint
	}
	return MissingLine{}, wrong
}

// skip goes to the end of a line that is too long.
func (s *MissingScanner) skip() error {
	for {
		_, err := s.in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case err == nil, errors.Is(err, io.EOF):
			return &LineError{Line: s.line, Problem: fmt.Sprintf("is longer than %d bytes", MaxMissingLine), Hint: binaryHint}
		default:
			s.err = fmt.Errorf("reading line %d: %w", s.line, err)
			return s.err
		}
	}
}

// ParseMissingLine reads one line without its end.
func ParseMissingLine(text string) (MissingLine, error) {
	m, problem, fused := parseMissing([]byte(text))
	if problem == "" {
		return m, nil
	}
	wrong := &LineError{Line: 1, Problem: problem}
	if fused {
		wrong.Hint = binaryHint
	}
	return MissingLine{}, wrong
}

// missingWords is how many words a whole line has.
const missingWords = 7

// parseMissing reads a line. problem is empty if it can be read; fused says that it
// may be several lines in one.
func parseMissing(text []byte) (m MissingLine, problem string, fused bool) {
	rest := bytes.TrimRight(text, " \t")
	if len(rest) == 0 {
		return m, "is empty", false
	}
	for n := 1; len(rest) > 0; n++ {
		var word []byte
		var quoted, ok bool
		if word, rest, quoted, ok = nextWord(rest); !ok {
			return MissingLine{}, fmt.Sprintf("has a quote that is not closed, or no space after one, in field %d", n), true
		}
		switch {
		case n > missingWords:
			return MissingLine{}, fmt.Sprintf("has more than %d fields", missingWords), true
		case n <= 3:
			id := m.id(n)
			if *id, ok = parseID(word); !ok || quoted {
				// Three ids and the three of the next line, for one, make a word of two.
				return MissingLine{}, fmt.Sprintf("has %.64q as its %s id, which is none", word, idNames()[n-1]), len(word) > IDLength
			}
		case n <= 5:
			if !quoted {
				return MissingLine{}, fmt.Sprintf("has %.64q as field %d, which should stand in single quotes", word, n), true
			}
			if n == 4 {
				m.Repository = string(word)
			} else {
				m.Tags = string(word)
			}
		default:
			ms, err := strconv.ParseInt(string(word), 10, 64)
			if err != nil || quoted {
				return MissingLine{}, fmt.Sprintf("has %.64q as field %d, which should be a time in milliseconds", word, n), true
			}
			if n == 6 {
				m.Start = ms
			} else {
				m.End = ms
			}
		}
		if n < 3 && len(rest) == 0 {
			return MissingLine{}, fmt.Sprintf("has %d of the three ids", n), false
		}
	}
	return m, "", false
}

// id is the id that is the n-th field.
func (m *MissingLine) id(n int) *ID {
	switch n {
	case 1:
		return &m.Segment
	case 2:
		return &m.Datasource
	default:
		return &m.Dataspace
	}
}

func idNames() [3]string { return [3]string{"segment", "datasource", "dataspace"} }

// nextWord takes the next word off a line: what stands between single quotes, or what
// ends before a space or a tab. ok is false for quotes that do not end, or that no
// space follows.
func nextWord(b []byte) (word, rest []byte, quoted, ok bool) {
	b = bytes.TrimLeft(b, " \t")
	if b[0] != '\'' {
		end := bytes.IndexAny(b, " \t")
		if end < 0 {
			end = len(b)
		}
		return b[:end], b[end:], false, true
	}
	end := bytes.IndexByte(b[1:], '\'')
	if end < 0 {
		return nil, nil, true, false
	}
	word, rest = b[1:1+end], b[end+2:]
	return word, rest, true, len(rest) == 0 || rest[0] == ' ' || rest[0] == '\t'
}
