package segment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

	"ringmaster/pkg/lineproto"
)

// A file is a sequence of Zstandard frames, so that any tool for these unpacks the
// lines: a skippable frame with the head, frames of lines, and a skippable frame with
// the foot, whose end is the tail.
const (
	zstdMagic      = 0xFD2FB528
	skippableMagic = 0x184D2A5D
	skippableSize  = 8 // of its head: the magic number and how much follows
	markSize       = 4
	headSize       = skippableSize + markSize
	// The tail: how long the foot's body is, the checksum of head and foot, the mark.
	tailSize  = 4 + 4 + markSize
	footExtra = skippableSize + tailSize
)

// mark begins the head's content and ends the file. Its last byte is the version.
func mark() [markSize]byte { return [markSize]byte{'R', 'M', 'S', Version} }

// appendHead appends what every file begins with.
func appendHead(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, skippableMagic)
	dst = binary.LittleEndian.AppendUint32(dst, markSize)
	m := mark()
	return append(dst, m[:]...)
}

// checksum goes on with a CRC-32C, which processors compute; it begins with 0.
func checksum(sum uint32, b []byte) uint32 {
	return crc32.Update(sum, crc32.MakeTable(crc32.Castagnoli), b)
}

// DigestSize is the length of the digest of a segment's lines.
const DigestSize = 16

// Header is what a segment says about itself.
type Header struct {
	Datasource Datasource
	Window     Window
	// Part counts the parts of the window from 1; Final is set in the last of them.
	Part  int
	Final bool
	// Points, Values and Series are how many there are; values are the fields of all
	// points. A series that goes on from the part before counts in both.
	Points, Values, Series int64
	// MinTime and MaxTime are the first and the last time; they are both Window.From
	// if there are no points.
	MinTime, MaxTime int64
	// LinesDigest is the beginning of the SHA-256 of all lines, uncompressed. Unlike
	// the segment's id it does not depend on how they were compressed.
	LinesDigest [DigestSize]byte
	// Fields are sorted by name.
	Fields []Field
}

// Frame is an entry of the index: one Zstandard frame of whole lines.
type Frame struct {
	// Offset is where it begins in the file, Length how long it is there, and Raw how
	// long its lines are.
	Offset, Length, Raw int64
	// Points is how many lines it has, MinTime and MaxTime are their times.
	Points           int64
	MinTime, MaxTime int64
	// FirstTags are the tags of the first line as they stand there, escaped, with the
	// comma before them; empty if it has none.
	FirstTags string
	// Checksum is the CRC-32C of the frame as it lies in the file.
	Checksum uint32
}

// foot is header and index.
type foot struct {
	Header

	frames []Frame
}

// Flags of a header.
const (
	flagLast  = 1 << 0
	flagFinal = 1 << 1
	flagsAll  = flagLast | flagFinal
)

// frameEntry is how much an index entry takes at most, without the series.
const frameEntry = 3*5 + 2*binary.MaxVarintLen64 + binary.MaxVarintLen32 + 4

// headerEntry is how much a header takes at most, without names.
const headerEntry = 1 + 6*binary.MaxVarintLen64 + 5*binary.MaxVarintLen64 + DigestSize

// appendFoot appends the skippable frame that ends a file.
func appendFoot(dst []byte, f *foot) []byte {
	begin := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, skippableMagic)
	dst = append(dst, 0, 0, 0, 0)
	from := len(dst)
	dst = appendFootBody(dst, f)
	size := len(dst) - from
	binary.LittleEndian.PutUint32(dst[begin+4:], uint32(size+tailSize))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(size))
	dst = binary.LittleEndian.AppendUint32(dst, checksum(checksum(0, appendHead(nil)), dst[begin:]))
	m := mark()
	return append(dst, m[:]...)
}

func appendFootBody(dst []byte, f *foot) []byte {
	for _, name := range []string{f.Datasource.Database, f.Datasource.RetentionPolicy, f.Datasource.Measurement} {
		dst = appendText(dst, name)
	}
	flags := byte(0)
	if f.Window.Last {
		flags |= flagLast
	}
	if f.Final {
		flags |= flagFinal
	}
	dst = append(dst, flags)
	dst = binary.AppendUvarint(dst, uint64(f.Part))
	dst = binary.AppendVarint(dst, f.Window.From)
	dst = binary.AppendUvarint(dst, uint64(f.Window.To)-uint64(f.Window.From))
	dst = appendSpan(dst, f.Window.From, f.MinTime, f.MaxTime)
	for _, n := range []int64{f.Points, f.Values, f.Series} {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	dst = append(dst, f.LinesDigest[:]...)
	dst = binary.AppendUvarint(dst, uint64(len(f.Fields)))
	for _, field := range f.Fields {
		dst = append(dst, byte(field.Kind))
		dst = appendText(dst, field.Name)
	}
	dst = binary.AppendUvarint(dst, uint64(len(f.frames)))
	for i := range f.frames {
		frame := &f.frames[i]
		for _, n := range []int64{frame.Length, frame.Raw, frame.Points} {
			dst = binary.AppendUvarint(dst, uint64(n))
		}
		dst = appendSpan(dst, f.Window.From, frame.MinTime, frame.MaxTime)
		dst = appendText(dst, frame.FirstTags)
		dst = binary.LittleEndian.AppendUint32(dst, frame.Checksum)
	}
	return dst
}

// appendSpan appends two times after one that is not later than they are.
func appendSpan(dst []byte, from, first, last int64) []byte {
	dst = binary.AppendUvarint(dst, uint64(first)-uint64(from))
	return binary.AppendUvarint(dst, uint64(last)-uint64(first))
}

func appendText(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// parseFoot reads the body of a foot and checks what can be checked without the
// frames. frames is how many bytes there are for these.
func parseFoot(body []byte, frames int64) (*foot, error) {
	r := &fieldReader{rest: body}
	f := &foot{}
	f.Datasource = Datasource{Database: r.text("database"), RetentionPolicy: r.text("retention policy"), Measurement: r.text("measurement")}
	flags := r.byte("flags")
	f.Part = int(r.uvarint("part", 1, math.MaxInt32))
	f.Window.From = r.varint("window")
	f.Window.To = r.later(f.Window.From, "window")
	f.Window.Last, f.Final = flags&flagLast != 0, flags&flagFinal != 0
	f.MinTime = r.later(f.Window.From, "first time")
	f.MaxTime = r.later(f.MinTime, "last time")
	f.Points = r.uvarint("points", 0, math.MaxInt64)
	f.Values = r.uvarint("values", f.Points, math.MaxInt64)
	f.Series = r.uvarint("series", min(f.Points, 1), f.Points)
	copy(f.LinesDigest[:], r.bytes(DigestSize, "digest of the lines"))
	r.readFields(f)
	r.readFrames(f, frames)
	switch {
	case r.err != nil:
		return nil, r.err
	case len(r.rest) > 0:
		return nil, fmt.Errorf("%d bytes follow the last frame's entry", len(r.rest))
	case flags&^flagsAll != 0:
		return nil, fmt.Errorf("unknown flags %#x", flags)
	}
	if err := f.Datasource.Check(); err != nil {
		return nil, err
	}
	if err := f.Window.Check(); err != nil {
		return nil, err
	}
	return f, f.checkTotals()
}

// readFields reads the table of fields.
func (r *fieldReader) readFields(f *foot) {
	n := r.uvarint("number of fields", 0, int64(len(r.rest))/2)
	if n > 0 {
		f.Fields = make([]Field, 0, n)
	}
	for range n {
		kind := lineproto.Kind(r.byte("type of a field"))
		name := r.text("name of a field")
		switch {
		case r.err != nil:
			return
		case kind < lineproto.Float || kind > lineproto.String:
			r.fail("type of a field")
			return
		case len(f.Fields) > 0 && f.Fields[len(f.Fields)-1].Name >= name:
			r.fail("order of the fields")
			return
		}
		f.Fields = append(f.Fields, Field{name, kind})
	}
}

// readFrames reads the index.
func (r *fieldReader) readFrames(f *foot, room int64) {
	n := r.uvarint("number of frames", 0, min(MaxFrames, int64(len(r.rest))/leastFrameEntry))
	f.frames = make([]Frame, 0, n)
	offset := int64(headSize)
	for range n {
		e := Frame{Offset: offset}
		e.Length = r.uvarint("length of a frame", 1, room)
		e.Raw = r.uvarint("length of a frame's lines", 1, MaxFrame)
		e.Points = r.uvarint("points of a frame", 1, e.Raw)
		e.MinTime = r.later(f.Window.From, "first time of a frame")
		e.MaxTime = r.later(e.MinTime, "last time of a frame")
		e.FirstTags = r.text("first tags of a frame")
		e.Checksum = r.uint32("checksum of a frame")
		if r.err != nil {
			return
		}
		offset, room = offset+e.Length, room-e.Length
		f.frames = append(f.frames, e)
	}
	if room != 0 {
		r.fail("lengths of the frames")
	}
}

// leastFrameEntry is how little an index entry takes.
const leastFrameEntry = 10

// checkTotals holds the header against the index.
func (f *foot) checkTotals() error {
	first, last, points := f.Window.From, f.Window.From, int64(0)
	for i := range f.frames {
		e := &f.frames[i]
		if i == 0 {
			first, last = e.MinTime, e.MaxTime
		}
		first, last = min(first, e.MinTime), max(last, e.MaxTime)
		points += e.Points
	}
	switch {
	case points != f.Points:
		return fmt.Errorf("%d points in the header, %d in the index", f.Points, points)
	case first != f.MinTime || last != f.MaxTime:
		return fmt.Errorf("times %d to %d in the header, %d to %d in the index", f.MinTime, f.MaxTime, first, last)
	case points > 0 && !f.Window.Contains(last):
		return fmt.Errorf("the time %d lies outside the window %v", last, f.Window)
	default:
		return nil
	}
}

// fieldReader reads the fields of a foot. After its first error it gives zeros.
type fieldReader struct {
	rest []byte
	err  error
}

func (r *fieldReader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("its %s can't be read", what)
	}
	r.rest = nil
}

func (r *fieldReader) uvarint(what string, least, most int64) int64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 || n > math.MaxInt64 || int64(n) < least || int64(n) > most {
		r.fail(what)
		return 0
	}
	r.rest = r.rest[size:]
	return int64(n)
}

func (r *fieldReader) varint(what string) int64 {
	n, size := binary.Varint(r.rest)
	if size <= 0 {
		r.fail(what)
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

// later reads a time that is given by how much later than another it is.
func (r *fieldReader) later(than int64, what string) int64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 || n > uint64(math.MaxInt64)-uint64(than) {
		r.fail(what)
		return 0
	}
	r.rest = r.rest[size:]
	return int64(uint64(than) + n)
}

func (r *fieldReader) bytes(n int, what string) []byte {
	if n > len(r.rest) {
		r.fail(what)
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *fieldReader) byte(what string) byte {
	if b := r.bytes(1, what); b != nil {
		return b[0]
	}
	return 0
}

func (r *fieldReader) uint32(what string) uint32 {
	if b := r.bytes(4, what); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *fieldReader) text(what string) string {
	n := r.uvarint(what, 0, int64(len(r.rest)))
	return string(r.bytes(int(n), what))
}
