package segment

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"ringmaster/pkg/lineproto"
)

// Writer writes the points of one window into segment files, one part after another,
// in the order in which a stream of pkg/influx gives them: series by series, each in
// order of time. It holds one frame and the index in memory.
//
//	w, err := segment.NewWriter()
//	err = w.Reset(datasource, window)
//	err = w.Begin(file)
//	for rows.Next() {
//		if rows.NewSeries() {
//			err = w.SetSeries(rows.Series(), rows.Fields())
//		}
//		err = w.Row(rows.Time(), rows.Values())
//		if errors.Is(err, segment.ErrPartFull) {
//			part, err = w.End(false)
//			err = w.Begin(another)
//			err = w.Row(rows.Time(), rows.Values())
//		}
//	}
//	part, err = w.End(true)
//
// The same points give the same bytes, and so the same id. A row that is refused
// leaves everything as it was; an error of the file ends the window. A Writer is for
// one goroutine and can be used for any number of windows.
type Writer struct {
	packer     *packer
	encoder    lineproto.Encoder
	datasource Datasource
	window     Window
	part       int
	out        io.Writer // nil between parts
	err        error     // of the file

	// The series given, and whether a row of it has been taken, in the window and in
	// this part.
	next     lineproto.Series
	set      bool
	entered  bool
	counted  bool
	key      []byte // of the series that has entered last, and a space
	lastTime int64
	columns  []*kind // of the fields given
	guard    seriesGuard
	kinds    map[string]*kind

	// The part.
	foot     foot
	written  int64
	whole    hash.Hash // of the file
	lines    hash.Hash
	footSize int // more than the foot takes

	// The frame.
	frame  Frame
	buf    []byte
	packed []byte
	room   int // how long buf may become in this part

	limit int64 // of a file
}

// kind is what is known of a field.
type kind struct {
	name   string
	kind   lineproto.Kind
	inPart int // the part that has it
}

// Summary is what is known of a file that has been written or read whole.
type Summary struct {
	Header

	// ID and Digest name the file by all of its bytes: Digest is their SHA-256, ID
	// follows from it.
	ID     ID
	Digest Digest
	// Size is how long the file is, Raw how long its lines are.
	Size, Raw int64
	// Frames is how many there are.
	Frames int
}

// NewWriter returns a Writer that waits for Reset.
func NewWriter() (*Writer, error) {
	p, err := newPacker()
	if err != nil {
		return nil, err
	}
	return &Writer{limit: MaxSize, packer: p, whole: sha256.New(), lines: sha256.New(), kinds: map[string]*kind{}}, nil
}

// Reset begins another window. What was unfinished is forgotten.
func (w *Writer) Reset(d Datasource, window Window) error {
	if err := d.Check(); err != nil {
		return err
	}
	if err := window.Check(); err != nil {
		return err
	}
	w.datasource, w.window, w.part, w.out, w.err = d, window, 0, nil, nil
	w.set, w.entered, w.key = false, false, w.key[:0]
	w.columns = w.columns[:0]
	w.guard.reset()
	clear(w.kinds)
	return nil
}

// Begin begins the next part of the window in a file. out gets the bytes from the
// first to the last; the Writer does not close it.
func (w *Writer) Begin(out io.Writer) error {
	if w.out != nil || w.datasource.Database == "" {
		return errors.New("beginning a part: the one before has not ended, or there is no window")
	}
	names := len(w.datasource.Database) + len(w.datasource.RetentionPolicy) + len(w.datasource.Measurement)
	if names > MaxFoot/4 {
		return fmt.Errorf("%w: names of %d bytes", ErrTooLarge, names)
	}
	w.part++
	w.out, w.err, w.counted = out, nil, false
	w.foot = foot{Header: Header{Datasource: w.datasource, Window: w.window, Part: w.part}, frames: w.foot.frames[:0]}
	w.written, w.footSize = 0, headerEntry+footExtra+names
	w.whole.Reset()
	w.lines.Reset()
	w.buf, w.frame = w.buf[:0], Frame{}
	w.write(appendHead(w.packed[:0]))
	w.measureRoom()
	return w.err
}

// SetSeries chooses the series of the rows that follow and the names of their fields,
// in column order. It may name the series that is set already, to change the fields.
// The error wraps [lineproto.ErrUnrepresentable] if a name cannot be written, or
// [ErrOutside] if it is another measurement.
func (w *Writer) SetSeries(s *lineproto.Series, fields []string) error {
	w.set = false
	if s.Measurement != w.datasource.Measurement {
		return fmt.Errorf("%w: measurement %.128q, not %.128q", ErrOutside, s.Measurement, w.datasource.Measurement)
	}
	if err := w.encoder.SetSeries(s, fields); err != nil {
		return err
	}
	w.columns = w.columns[:0]
	for _, name := range fields {
		k := w.kinds[name]
		if k == nil {
			k = &kind{name: strings.Clone(name)}
			w.kinds[k.name] = k
		}
		w.columns = append(w.columns, k)
	}
	w.next = *s
	w.set, w.entered = true, false
	return nil
}

// Row adds a point of the series that is set: its time and one value for each field.
// A row of only Nulls is no point and adds nothing. What it refuses, it refuses with
// [ErrOrder], [ErrOutside], [ErrTypes], [ErrTooLarge], an error of the encoder, or
// [ErrPartFull].
func (w *Writer) Row(ns int64, values []lineproto.Value) error {
	switch {
	case w.err != nil:
		return w.err
	case w.out == nil || !w.set:
		return errors.New("adding a row: no part has begun, or no series is set")
	case !w.window.Contains(ns):
		return fmt.Errorf("%w: time %d outside the window %v", ErrOutside, ns, w.window)
	}
	start := len(w.buf)
	buf, err := w.encoder.AppendRow(w.buf, ns, values)
	if err != nil || len(buf) == start {
		return err // the buffer is as it was
	}
	w.buf = buf
	row, err := w.check(start, ns, values)
	if err == nil && (len(buf)+2*row.names > w.room || len(buf) > FrameTarget && start > 0) {
		err = w.turnOver(start, row.names)
	}
	if err != nil {
		w.buf = w.buf[:len(w.buf)-row.size]
		return err
	}
	w.take(&row, ns, values)
	return nil
}

// row is what is known of a row that has been encoded.
type row struct {
	size   int // of its line
	values int64
	fresh  bool // it begins another series
	names  int  // how much the foot grows by the names of its fields
}

// check judges the row whose line begins at start of the buffer.
func (w *Writer) check(start int, ns int64, values []lineproto.Value) (row, error) {
	line := w.buf[start:]
	r := row{size: len(line), fresh: len(w.key) == 0 || !w.entered && !bytes.HasPrefix(line, w.key)}
	for i := range values {
		k := values[i].Kind
		if k == lineproto.Null {
			continue
		}
		r.values++
		known := w.columns[i]
		if known.inPart != w.part {
			r.names += len(known.name) + fieldEntry + binary.MaxVarintLen32
		}
		if known.kind != k && known.kind != lineproto.Null {
			return r, fmt.Errorf("%w: %.128q is %v and %v", ErrTypes, known.name, known.kind, k)
		}
	}
	switch {
	case r.size > MaxFrame:
		return r, fmt.Errorf("%w: a line of %d bytes", ErrTooLarge, r.size)
	case !r.fresh && ns <= w.lastTime:
		return r, fmt.Errorf("%w: time %d after %d in series %.256q", ErrOrder, ns, w.lastTime, w.key)
	case r.fresh:
		if err := w.guard.admit(line[:cut(line, ' ')], w.next.Tags); err != nil {
			return r, err
		}
	}
	if r.names > 0 && w.footSize+r.names > MaxFoot/2 {
		return r, w.noRoom(start > 0, r)
	}
	return r, nil
}

// noRoom says that a row does not fit into the part; it fits into another one if it is
// not all that there is in this one.
func (w *Writer) noRoom(more bool, r row) error {
	if more || len(w.foot.frames) > 0 {
		return ErrPartFull
	}
	return fmt.Errorf("%w: a line of %d bytes and names of %d", ErrTooLarge, r.size, w.footSize+r.names)
}

// turnOver ends the frame before the last line, which begins at start, so that the
// line begins another one, if the part has room for that.
func (w *Writer) turnOver(start int, names int) error {
	size := len(w.buf) - start
	if start > 0 {
		if w.flush(w.buf[:start]); w.err != nil {
			return w.err
		}
		w.buf = append(w.buf[:0], w.buf[start:]...)
	}
	if size+2*names > w.room {
		return w.noRoom(false, row{size: size, names: names})
	}
	return nil
}

// take counts the row that ends the buffer.
func (w *Writer) take(r *row, ns int64, values []lineproto.Value) {
	if r.fresh {
		line := w.buf[len(w.buf)-r.size:]
		w.key = append(w.key[:0], line[:cut(line, ' ')+1]...)
		w.guard.enter(w.next.Tags)
	}
	if r.fresh || !w.counted {
		w.foot.Series++
	}
	w.entered, w.counted, w.lastTime = true, true, ns
	if r.names > 0 {
		for i := range values {
			if k := values[i].Kind; k != lineproto.Null {
				w.columns[i].kind, w.columns[i].inPart = k, w.part
			}
		}
		w.footSize += r.names
		w.room -= 2 * r.names
	}
	w.foot.Values += r.values
	f := &w.frame
	if f.Points == 0 {
		f.FirstTags = tagsOf(w.key[:len(w.key)-1])
		f.MinTime, f.MaxTime = ns, ns
	}
	f.Points++
	f.MinTime, f.MaxTime = min(f.MinTime, ns), max(f.MaxTime, ns)
}

// tagsOf are the tags in the key of a series, with the comma before them.
func tagsOf(key []byte) string {
	if comma := cut(key, ','); comma >= 0 {
		return string(key[comma:])
	}
	return ""
}

// worst is how long a frame is at most whose lines have n bytes: what can't be
// compressed is stored in blocks.
func worst(n int64) int64 { return n + n>>7 + 1<<10 }

// measureRoom finds out how long the next frame's lines may become; 0 if the part is
// full, which it is when a usual frame might not fit.
func (w *Writer) measureRoom() {
	w.room = 0
	rest := w.limit - w.written - int64(w.footSize) - frameEntry - maxSeries
	if rest < worst(FrameTarget) || w.footSize > MaxFoot/2 || len(w.foot.frames) >= MaxFrames-1 {
		return
	}
	w.room = int(min((rest-1<<10)/129*128, 2*MaxFrame))
}

// maxSeries is more than the key of a series takes in an index.
const maxSeries = 1<<16 + 16

// write writes to the file.
func (w *Writer) write(b []byte) {
	if w.err != nil {
		return
	}
	w.whole.Write(b) // a hash never fails
	n, err := w.out.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.err = fmt.Errorf("writing the segment: %w", err)
		return
	}
	w.written += int64(len(b))
}

// flush writes the frame of these lines.
func (w *Writer) flush(lines []byte) {
	w.lines.Write(lines) // a hash never fails
	w.packed = w.packer.pack(w.packed[:0], lines, len(w.foot.frames))
	f := &w.frame
	f.Offset, f.Length, f.Raw = w.written, int64(len(w.packed)), int64(len(lines))
	f.Checksum = checksum(0, w.packed)
	if w.write(w.packed); w.err != nil {
		return
	}
	w.foot.add(f)
	w.footSize += frameEntry + len(f.FirstTags)
	w.frame = Frame{}
	w.measureRoom()
}

// add adds a frame to the index.
func (f *foot) add(frame *Frame) {
	if len(f.frames) == 0 {
		f.MinTime, f.MaxTime = frame.MinTime, frame.MaxTime
	}
	f.MinTime, f.MaxTime = min(f.MinTime, frame.MinTime), max(f.MaxTime, frame.MaxTime)
	f.Points += frame.Points
	f.frames = append(f.frames, *frame)
}

// End ends the part; final says that the window has no other. Its summary is what a
// reader of the file will find.
func (w *Writer) End(final bool) (Summary, error) {
	if w.out == nil {
		return Summary{}, errors.New("ending a part: none has begun")
	}
	if len(w.buf) > 0 && w.err == nil {
		w.flush(w.buf)
		w.buf = w.buf[:0]
	}
	f := &w.foot
	f.Final = final
	if len(f.frames) == 0 {
		f.MinTime, f.MaxTime = w.window.From, w.window.From
	}
	f.Fields = nil
	for _, k := range w.kinds {
		if k.inPart == w.part {
			f.Fields = append(f.Fields, Field{k.name, k.kind})
		}
	}
	slices.SortFunc(f.Fields, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	copy(f.LinesDigest[:], w.lines.Sum(nil))
	w.write(appendFoot(w.packed[:0], f))
	w.out = nil
	if w.err != nil {
		return Summary{}, w.err
	}
	return f.summary(w.written, w.whole), nil
}

// summary is what is known of a file that has this foot and these bytes.
func (f *foot) summary(size int64, whole hash.Hash) Summary {
	s := Summary{Header: f.Header, Size: size, Frames: len(f.frames)}
	whole.Sum(s.Digest[:0])
	s.ID = IDOf(s.Digest)
	for i := range f.frames {
		s.Raw += f.frames[i].Raw
	}
	return s
}
