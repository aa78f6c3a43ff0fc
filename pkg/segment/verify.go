package segment

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"ringmaster/pkg/lineproto"
)

// Verify reads a segment file from its first byte to its last and checks all of it:
// the checksums, every frame and every line, and that header and index say of them
// what is true. What is wrong is a [*DamagedError]; an error of reading is not. It
// holds one frame and the index in memory, whatever the file says.
//
// each, if it is not nil, gets the lines of every frame while they are read. They have
// passed the frame's own checksum; that the file is whole is only known when Verify
// returns without an error. An error of each ends Verify and is returned as it is.
func Verify(file io.Reader, each func(lines []byte) error) (Summary, error) {
	decoder, err := newDecoder()
	if err != nil {
		return Summary{}, err
	}
	defer decoder.Close()
	in := &source{in: file}
	v := &verifier{
		source: in, in: bufio.NewReaderSize(in, 64<<10), decoder: decoder,
		whole: sha256.New(), lines: sha256.New(), rows: NewRows(nil, nil), each: each,
	}
	err = v.run()
	switch {
	case v.failed != nil:
		return Summary{}, v.failed
	case in.err != nil:
		return Summary{}, fmt.Errorf("reading a segment: %w", in.err)
	case err != nil:
		return Summary{}, err
	}
	return v.foot.summary(v.at, v.whole), nil
}

// source tells errors of reading apart from the end of the file.
type source struct {
	in  io.Reader
	err error
}

// Read hands errors on and keeps them.
func (s *source) Read(b []byte) (int, error) {
	n, err := s.in.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// verifier is one Verify under way.
type verifier struct {
	source  *source
	in      *bufio.Reader
	decoder *zstd.Decoder
	each    func(lines []byte) error
	failed  error // by each
	whole   hash.Hash
	lines   hash.Hash
	at      int64

	head   []byte
	packed []byte
	raw    []byte
	frames []Frame
	foot   *foot

	rows   *Rows
	kinds  []lineproto.Kind // of the columns
	guard  seriesGuard
	last   int64 // the time before, in the series
	values int64
	series int64
	// measurement is that of all series.
	measurement string
}

func (v *verifier) run() error {
	v.head = make([]byte, headSize)
	if _, err := io.ReadFull(v.in, v.head); err != nil {
		return v.ended("head", 0, err)
	}
	v.took(v.head)
	if err := checkHead(v.head); err != nil {
		return err
	}
	names := 0
	for {
		magic := make([]byte, 4)
		if _, err := io.ReadFull(v.in, magic); err != nil {
			return v.ended("foot", v.at, err)
		}
		switch binary.LittleEndian.Uint32(magic) {
		case skippableMagic:
			return v.end(magic)
		case zstdMagic:
		default:
			return damaged(frameName(len(v.frames)), v.at, "neither a frame nor a foot")
		}
		if err := v.frame(magic); err != nil {
			return err
		}
		if names += len(v.frames[len(v.frames)-1].FirstTags); names > MaxFoot || len(v.frames) > MaxFrames {
			return damaged("file", v.at, "more frames than a foot can name")
		}
	}
}

// took counts bytes of the file.
func (v *verifier) took(b []byte) {
	v.whole.Write(b) // a hash never fails
	v.at += int64(len(b))
}

// ended is what is wrong when the file ends too early; other errors are no damage.
func (v *verifier) ended(part string, at int64, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged(part, at, "the file ends within it or before it")
	}
	return err
}

// frame reads and checks one frame.
func (v *verifier) frame(magic []byte) error {
	number, at := len(v.frames), v.at
	part := frameName(number)
	var err error
	v.packed, err = readFrame(append(v.packed[:0], magic...), v.in, MaxSize-v.at)
	if errors.Is(err, errFrame) {
		return &DamagedError{Part: part, Offset: at, Problem: "it can't be read", Err: err}
	}
	if err != nil {
		return v.ended(part, at, err)
	}
	v.took(v.packed)
	if v.raw, err = unpack(v.decoder, v.packed, v.raw[:0]); err != nil {
		return &DamagedError{Part: part, Offset: at, Problem: "it can't be unpacked", Err: err}
	}
	v.lines.Write(v.raw) // a hash never fails
	f := Frame{Offset: at, Length: int64(len(v.packed)), Raw: int64(len(v.raw)), Checksum: checksum(0, v.packed)}
	if err := v.read(&f); err != nil {
		return &DamagedError{Part: part, Offset: at, Problem: "its lines are wrong", Err: err}
	}
	v.frames = append(v.frames, f)
	if v.each != nil {
		v.failed = v.each(v.raw)
	}
	return v.failed
}

// read reads the lines of a frame.
func (v *verifier) read(f *Frame) error {
	v.rows.lines = v.raw
	for v.rows.Next() {
		ns := v.rows.Time()
		if v.rows.NewSeries() {
			if name := v.rows.Series().Measurement; v.series > 0 && name != v.measurement {
				return fmt.Errorf("%w: measurement %.128q after %.128q", ErrOutside, name, v.measurement)
			}
			v.measurement = v.rows.Series().Measurement
			if err := v.guard.admit(v.rows.Key(), v.rows.Series().Tags); err != nil {
				return err
			}
			v.guard.enter(v.rows.Series().Tags)
			v.series++
		} else if ns <= v.last {
			return fmt.Errorf("%w: time %d after %d in series %.256q", ErrOrder, ns, v.last, v.rows.Key())
		}
		v.last = ns
		if f.Points == 0 {
			f.MinTime, f.MaxTime, f.FirstTags = ns, ns, tagsOf(v.rows.Key())
		}
		f.Points++
		f.MinTime, f.MaxTime = min(f.MinTime, ns), max(f.MaxTime, ns)
		if err := v.count(); err != nil {
			return err
		}
	}
	return v.rows.Err()
}

// count counts the values of a row and sees to it that each field has one type.
func (v *verifier) count() error {
	values := v.rows.Values()
	for len(v.kinds) < len(values) {
		v.kinds = append(v.kinds, lineproto.Null)
	}
	for _, c := range v.rows.Present() {
		k := values[c].Kind
		if v.kinds[c] != k {
			if v.kinds[c] != lineproto.Null {
				return fmt.Errorf("%w: %.128q is %v and %v", ErrTypes, v.rows.Fields()[c], v.kinds[c], k)
			}
			v.kinds[c] = k
		}
	}
	v.values += int64(len(v.rows.Present()))
	return nil
}

// end reads the foot, which must be the end of the file, and compares it with what was
// read before it.
func (v *verifier) end(magic []byte) error {
	at := v.at
	whole := append(make([]byte, 0, skippableSize), magic...)
	whole = whole[:skippableSize]
	if _, err := io.ReadFull(v.in, whole[len(magic):]); err != nil {
		return v.ended("foot", at, err)
	}
	size := int64(binary.LittleEndian.Uint32(whole[4:]))
	if size < tailSize || size > MaxFoot+tailSize || at+skippableSize+size > MaxSize {
		return damaged("foot", at, "%d bytes", size)
	}
	var rest bytes.Buffer
	if n, err := io.CopyN(&rest, v.in, size); err != nil {
		return v.ended("foot", at+n, err)
	}
	whole = append(whole, rest.Bytes()...)
	v.took(whole)
	if _, err := v.in.ReadByte(); err == nil {
		return damaged("tail", v.at, "more bytes follow it")
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	f, err := checkEnds(v.head, whole, at)
	if err != nil {
		return err
	}
	v.foot = f
	if err := v.compare(); err != nil {
		return &DamagedError{Part: "foot", Offset: at, Problem: "it does not say what the frames have", Err: err}
	}
	return nil
}

// compare holds header and index against what was read.
func (v *verifier) compare() error {
	f := v.foot
	if len(f.frames) != len(v.frames) {
		return fmt.Errorf("%d frames, not %d", len(v.frames), len(f.frames))
	}
	for i := range f.frames {
		if f.frames[i] != v.frames[i] {
			return fmt.Errorf("frame %d: %+v, not %+v", i, v.frames[i], f.frames[i])
		}
	}
	if v.series > 0 && v.measurement != f.Datasource.Measurement {
		return fmt.Errorf("measurement %.128q, not %.128q", v.measurement, f.Datasource.Measurement)
	}
	if v.values != f.Values || v.series != f.Series {
		return fmt.Errorf("%d values in %d series, not %d in %d", v.values, v.series, f.Values, f.Series)
	}
	fields := make([]Field, len(v.kinds))
	for i, k := range v.kinds {
		fields[i] = Field{v.rows.Fields()[i], k}
	}
	slices.SortFunc(fields, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	if !slices.Equal(fields, f.Fields) {
		return errors.New("other fields")
	}
	if !bytes.Equal(v.lines.Sum(nil)[:DigestSize], f.LinesDigest[:]) {
		return errors.New("another digest of the lines")
	}
	return nil
}
