package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Reader reads single frames of a segment file. It holds header and index in memory,
// and one frame. It is not safe for concurrent use.
type Reader struct {
	file    io.ReaderAt
	size    int64
	foot    *foot
	decoder *zstd.Decoder
	packed  []byte
	lines   []byte
}

// Open reads the header and the index of the file, which has size bytes, and checks
// them. The frames are checked when they are read. What is wrong with the file is a
// [*DamagedError]; an error of reading is not.
func Open(file io.ReaderAt, size int64) (*Reader, error) {
	if size < headSize+footExtra || size > MaxSize {
		return nil, damaged("file", -1, "%d bytes, not %d to %d", size, headSize+footExtra, MaxSize)
	}
	r := &Reader{file: file, size: size}
	var head [headSize]byte
	if err := r.readAt(head[:], 0, "head"); err != nil {
		return nil, err
	}
	var tail [tailSize]byte
	if err := r.readAt(tail[:], size-tailSize, "tail"); err != nil {
		return nil, err
	}
	body := int64(binary.LittleEndian.Uint32(tail[:]))
	if err := checkMark(tail[tailSize-markSize:], "tail", size-markSize); err != nil {
		return nil, err
	}
	if body > MaxFoot || headSize+body+footExtra > size {
		return nil, damaged("tail", size-tailSize, "a foot of %d bytes", body)
	}
	whole := make([]byte, body+footExtra)
	at := size - int64(len(whole))
	if err := r.readAt(whole, at, "foot"); err != nil {
		return nil, err
	}
	var err error
	if r.foot, err = checkEnds(head[:], whole, at); err != nil {
		return nil, err
	}
	if r.decoder, err = newDecoder(); err != nil {
		return nil, err
	}
	return r, nil
}

// checkMark checks one of the two marks.
func checkMark(b []byte, part string, at int64) error {
	m := mark()
	if string(b[:markSize-1]) != string(m[:markSize-1]) {
		return damaged(part, at, "no mark of a segment")
	}
	if v := b[markSize-1]; v != Version {
		return &DamagedError{Part: part, Offset: at, Problem: fmt.Sprintf("version %d, this release knows %d", v, Version), Err: ErrVersion}
	}
	return nil
}

// checkHead checks the head of a file.
func checkHead(head []byte) error {
	if binary.LittleEndian.Uint32(head) != skippableMagic || binary.LittleEndian.Uint32(head[4:]) != markSize {
		return damaged("head", 0, "not that of a segment")
	}
	return checkMark(head[skippableSize:], "head", skippableSize)
}

// checkEnds checks head and foot, which begins at a place of the file.
func checkEnds(head, whole []byte, at int64) (*foot, error) {
	if err := checkHead(head); err != nil {
		return nil, err
	}
	size := len(whole)
	if binary.LittleEndian.Uint32(whole) != skippableMagic || int(binary.LittleEndian.Uint32(whole[4:])) != size-skippableSize {
		return nil, damaged("foot", at, "it does not begin as a foot does")
	}
	tail := whole[size-tailSize:]
	if err := checkMark(tail[tailSize-markSize:], "tail", at+int64(size)-markSize); err != nil {
		return nil, err
	}
	if int(binary.LittleEndian.Uint32(tail)) != size-footExtra {
		return nil, damaged("tail", at+int64(size)-tailSize, "another length of the foot")
	}
	if checksum(checksum(0, head), whole[:size-markSize-4]) != binary.LittleEndian.Uint32(tail[4:]) {
		return nil, damaged("foot", at, "another checksum")
	}
	f, err := parseFoot(whole[skippableSize:size-tailSize], at-headSize)
	if err != nil {
		return nil, &DamagedError{Part: "foot", Offset: at, Problem: "it can't be read", Err: err}
	}
	return f, nil
}

// readAt fills b.
func (r *Reader) readAt(b []byte, at int64, part string) error {
	n, err := r.file.ReadAt(b, at)
	switch {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return damaged(part, at, "the file ends at byte %d, not %d", at+int64(n), r.size)
	default:
		return fmt.Errorf("reading the %s of a segment: %w", part, err)
	}
}

// Header is what the file says about itself.
func (r *Reader) Header() Header { return r.foot.Header }

// Frames is the index.
func (r *Reader) Frames() []Frame { return r.foot.frames }

// Lines reads the lines of a frame, by its number in the index, and checks them against
// the checksums. They are valid until the next call.
func (r *Reader) Lines(frame int) ([]byte, error) {
	e := &r.foot.frames[frame]
	if int64(cap(r.packed)) < e.Length {
		r.packed = make([]byte, e.Length)
	}
	r.packed = r.packed[:e.Length]
	part := frameName(frame)
	if err := r.readAt(r.packed, e.Offset, part); err != nil {
		return nil, err
	}
	if checksum(0, r.packed) != e.Checksum {
		return nil, damaged(part, e.Offset, "another checksum")
	}
	head, err := parseFrameHead(r.packed)
	if err == nil && head.content != e.Raw {
		return nil, damaged(part, e.Offset, "%d bytes of lines, not %d", head.content, e.Raw)
	}
	r.lines, err = unpack(r.decoder, r.packed, r.lines[:0])
	if err != nil {
		return nil, &DamagedError{Part: part, Offset: e.Offset, Problem: "it can't be unpacked", Err: err}
	}
	return r.lines, nil
}

func frameName(i int) string { return fmt.Sprintf("frame %d", i) }

// Rows reads the points of all frames, one frame after another. The columns are the
// fields of the header. What is wrong with a frame ends the rows with a
// [*DamagedError]; that the frames have what the index says is only found by
// [Verify].
func (r *Reader) Rows() *Rows { return r.rows(0, len(r.foot.frames)) }

// FrameRows reads the points of one frame.
func (r *Reader) FrameRows(frame int) *Rows { return r.rows(frame, frame+1) }

func (r *Reader) rows(next, end int) *Rows {
	rows := NewRows(r.foot.Fields, nil)
	rows.more = func() ([]byte, error) {
		if next == end {
			return nil, nil
		}
		next++
		return r.Lines(next - 1)
	}
	return rows
}

// Close frees what the Reader holds. It does not close the file.
func (r *Reader) Close() { r.decoder.Close() }
