// Package hint is the form in which points wait on disk for a backend that can't
// take them: frames of line protocol, compressed, each cut into parts that fit into
// a message. Every part says which frame it belongs to and proves itself, so that
// what was torn, mixed up or damaged is found and never replayed. The package is
// pure: bytes in, values out.
package hint

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/klauspost/compress/s2"
)

// Frame is a batch of points of one database and retention policy that was
// acknowledged on the strength of these hints.
type Frame struct {
	// Epoch is that of the topology by which the points were routed.
	Epoch uint64
	// Circles are those for which the backend had to get the points, as they were
	// numbered in that epoch.
	Circles []int
	// Database and RetentionPolicy say where the points go; an empty policy is the
	// default one.
	Database, RetentionPolicy string
	// Points is how many there are.
	Points int
	// Lines is line protocol: one line a point, ended or separated by newlines,
	// with times in nanoseconds.
	Lines []byte
	// WrittenAt is when they were acknowledged, to the nanosecond.
	WrittenAt time.Time
}

// Bounds of a frame. What Encode refuses, Decoder refuses.
const (
	// MaxLines is how many bytes of line protocol one frame holds.
	MaxLines = 64 << 20
	// MaxParts is how many parts one frame has: what one atomic batch may hold.
	MaxParts = 1000
	// MaxCircles is how many circles one frame names.
	MaxCircles = 1000
	// MinPart is the smallest part that Encode cuts.
	MinPart = 256
)

// Errors that Encode and Decoder wrap.
var (
	// ErrTooLarge says that a frame is beyond one of the bounds.
	ErrTooLarge = errors.New("too large for a hint frame")
	// ErrDamaged says that parts are not what was encoded. They can't be replayed;
	// the error names what is wrong.
	ErrDamaged = errors.New("damaged hint frame")
)

// A part is
//
//	magic, version      4 + 1 bytes
//	id                  16 bytes, the beginning of the SHA-256 of the body
//	index, count        2 + 2 bytes
//	a piece of the body
//	CRC-32C of all that 4 bytes
//
// and the body, which the pieces make together,
//
//	epoch, circles, database, policy, points, written at, length of the lines,
//	CRC-32C of the lines, the lines compressed by s2
//
// Numbers in the head of a part are big-endian, those of the body varints.
const (
	magic     = "RMHF"
	version   = 1
	idSize    = 16
	headSize  = len(magic) + 1 + idSize + 2 + 2
	checkSize = 4
	overhead  = headSize + checkSize
)

// id names a frame by what it holds.
type id [idSize]byte

func identify(body []byte) id {
	sum := sha256.Sum256(body)
	return id(sum[:idSize])
}

// checksum is CRC-32C, which processors compute.
func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// Encode appends the parts of a frame to dst, each of at most maxPart bytes (but
// see MinPart). They belong together: stored in their order, all of them or none.
func Encode(dst [][]byte, f *Frame, maxPart int) ([][]byte, error) {
	body, err := appendBody(nil, f)
	if err != nil {
		return dst, err
	}
	room := max(maxPart, MinPart) - overhead
	count := (len(body) + room - 1) / room
	if count > MaxParts {
		return dst, fmt.Errorf("%w: %d parts of %d bytes, not more than %d", ErrTooLarge, count, room+overhead, MaxParts)
	}
	name := identify(body)
	for index := range count {
		piece := body[index*room : min((index+1)*room, len(body))]
		part := make([]byte, 0, len(piece)+overhead)
		part = append(part, magic...)
		part = append(part, version)
		part = append(part, name[:]...)
		part = binary.BigEndian.AppendUint16(part, uint16(index))
		part = binary.BigEndian.AppendUint16(part, uint16(count))
		part = append(part, piece...)
		dst = append(dst, binary.BigEndian.AppendUint32(part, checksum(part)))
	}
	return dst, nil
}

func appendBody(b []byte, f *Frame) ([]byte, error) {
	switch {
	case len(f.Lines) > MaxLines:
		return nil, fmt.Errorf("%w: %d bytes of line protocol, not more than %d", ErrTooLarge, len(f.Lines), MaxLines)
	case len(f.Circles) > MaxCircles:
		return nil, fmt.Errorf("%w: %d circles, not more than %d", ErrTooLarge, len(f.Circles), MaxCircles)
	case f.Points < 0 || f.Points > len(f.Lines):
		return nil, fmt.Errorf("encoding a hint frame: %d points in %d bytes", f.Points, len(f.Lines))
	}
	b = binary.AppendUvarint(b, f.Epoch)
	b = binary.AppendUvarint(b, uint64(len(f.Circles)))
	for _, c := range f.Circles {
		b = binary.AppendVarint(b, int64(c))
	}
	for _, s := range []string{f.Database, f.RetentionPolicy} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = binary.AppendUvarint(b, uint64(f.Points))
	b = binary.AppendVarint(b, f.WrittenAt.UnixNano())
	b = binary.AppendUvarint(b, uint64(len(f.Lines)))
	b = binary.BigEndian.AppendUint32(b, checksum(f.Lines))
	packed := s2.Encode(nil, f.Lines)
	return append(b, packed...), nil
}

// decodeBody is the inverse of appendBody.
func decodeBody(body []byte) (*Frame, error) {
	r := reader{rest: body}
	f := &Frame{Epoch: r.uvarint("epoch", math.MaxUint64)}
	circles := r.uvarint("circles", MaxCircles)
	for range circles {
		f.Circles = append(f.Circles, int(r.varint("circle")))
	}
	f.Database = r.text("database")
	f.RetentionPolicy = r.text("retention policy")
	points := r.uvarint("points", MaxLines)
	at := r.varint("time")
	size := r.uvarint("length", MaxLines)
	sum := r.uint32("checksum")
	if r.err != nil {
		return nil, r.err
	}
	if points > size {
		return nil, fmt.Errorf("%w: %d points in %d bytes", ErrDamaged, points, size)
	}
	f.Points, f.WrittenAt = int(points), time.Unix(0, at).UTC()
	unpacked, err := s2.DecodedLen(r.rest)
	if err != nil || uint64(unpacked) != size {
		return nil, fmt.Errorf("%w: the compressed lines do not have the length of %d bytes", ErrDamaged, size)
	}
	if f.Lines, err = s2.Decode(nil, r.rest); err != nil {
		return nil, fmt.Errorf("%w: unpacking the lines: %w", ErrDamaged, err)
	}
	if checksum(f.Lines) != sum {
		return nil, fmt.Errorf("%w: the lines have another checksum", ErrDamaged)
	}
	return f, nil
}

// reader reads the head of a body. After its first error it gives zeros.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: its %s can't be read", ErrDamaged, what)
	}
	r.rest = nil
}

func (r *reader) uvarint(what string, limit uint64) uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 || n > limit {
		r.fail(what)
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) varint(what string) int64 {
	n, size := binary.Varint(r.rest)
	if size <= 0 {
		r.fail(what)
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) text(what string) string {
	n := r.uvarint(what, uint64(len(r.rest)))
	if n > uint64(len(r.rest)) {
		r.fail(what)
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

func (r *reader) uint32(what string) uint32 {
	if len(r.rest) < checkSize {
		r.fail(what)
		return 0
	}
	n := binary.BigEndian.Uint32(r.rest)
	r.rest = r.rest[checkSize:]
	return n
}
