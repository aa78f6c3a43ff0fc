package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// What a segment uses of the Zstandard format (RFC 8878): frames that say how long
// their content is and end with a checksum of it, without a dictionary.
const (
	maxBlock       = 128 << 10
	leastFrameHead = 4 + 1
	blockHead      = 3
	contentCheck   = 4

	fhdSingle   = 1 << 5
	fhdReserved = 1 << 3
	fhdChecksum = 1 << 2
	fhdDict     = 3

	blockRLE      = 1
	blockReserved = 3
)

// frameHead is what the head of a frame says.
type frameHead struct {
	size    int   // of the head
	content int64 // uncompressed
}

// errFrame is wrapped by what is wrong with a frame.
var errFrame = errors.New("not a frame that a segment has")

// parseFrameHead reads the head of the frame that b begins with.
func parseFrameHead(b []byte) (frameHead, error) {
	if len(b) < leastFrameHead || binary.LittleEndian.Uint32(b) != zstdMagic {
		return frameHead{}, fmt.Errorf("%w: it has another magic number", errFrame)
	}
	fhd := b[4]
	if fhd&(fhdReserved|fhdChecksum|fhdDict) != fhdChecksum || contentBytes(fhd) == 0 {
		return frameHead{}, fmt.Errorf("%w: its descriptor is %#x", errFrame, fhd)
	}
	size := leastFrameHead + restOfHead(fhd)
	if len(b) < size {
		return frameHead{}, fmt.Errorf("%w: it ends within its head", errFrame)
	}
	content := frameContent(b[size-contentBytes(fhd) : size])
	if content > MaxFrame || content == 0 {
		return frameHead{}, fmt.Errorf("%w: %d bytes of content", errFrame, content)
	}
	return frameHead{size: size, content: int64(content)}, nil
}

// contentBytes is how many bytes a head with this descriptor has for the length of the
// content, restOfHead how many it has in all behind the descriptor.
func contentBytes(fhd byte) int {
	if fhd>>6 == 0 && fhd&fhdSingle == 0 {
		return 0
	}
	return 1 << (fhd >> 6)
}

func restOfHead(fhd byte) int {
	if fhd&fhdSingle == 0 {
		return 1 + contentBytes(fhd)
	}
	return contentBytes(fhd)
}

func frameContent(b []byte) uint64 {
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b)) + 256
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	default:
		return binary.LittleEndian.Uint64(b)
	}
}

// blockSize reads the head of a block: how much follows it and whether it is the last
// one of its frame.
func blockSize(b []byte) (size int, last bool, err error) {
	head := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
	size, last = int(head>>3), head&1 != 0
	if size > maxBlock || head>>1&3 == blockReserved {
		return 0, false, fmt.Errorf("%w: a block with the head %#x", errFrame, head)
	}
	if head>>1&3 == blockRLE {
		size = 1
	}
	return size, last, nil
}

// checkFrame returns the head of the one frame that b holds.
func checkFrame(b []byte) (frameHead, error) {
	head, err := parseFrameHead(b)
	if err != nil {
		return head, err
	}
	if int64(len(b)) > worst(head.content) {
		return head, fmt.Errorf("%w: %d bytes for %d of content", errFrame, len(b), head.content)
	}
	for at := head.size; ; {
		if len(b)-at < blockHead {
			return head, fmt.Errorf("%w: it ends within a block", errFrame)
		}
		size, last, err := blockSize(b[at:])
		if err != nil {
			return head, err
		}
		if at += blockHead + size; last {
			if at+contentCheck != len(b) {
				return head, fmt.Errorf("%w: %d bytes, of which it has %d", errFrame, len(b), at+contentCheck)
			}
			return head, nil
		}
	}
}

// readFrame appends the frame whose first bytes are in dst already to dst; room is how
// long it may be.
func readFrame(dst []byte, r io.Reader, room int64) ([]byte, error) {
	read := func(n int) error {
		if room -= int64(n); room < 0 {
			return fmt.Errorf("%w: it is too long", errFrame)
		}
		// Little by little, as bytes come: what a head says costs no memory.
		for n > 0 {
			step := min(n, maxBlock)
			from := len(dst)
			dst = append(dst, make([]byte, step)...)
			if _, err := io.ReadFull(r, dst[from:]); err != nil {
				return err
			}
			n -= step
		}
		return nil
	}
	room -= int64(len(dst))
	if err := read(leastFrameHead - len(dst)); err != nil {
		return dst, err
	}
	if err := read(restOfHead(dst[4])); err != nil {
		return dst, err
	}
	head, err := parseFrameHead(dst)
	if err != nil {
		return dst, err
	}
	room = min(room, worst(head.content)-int64(len(dst)))
	for {
		if err := read(blockHead); err != nil {
			return dst, err
		}
		size, last, err := blockSize(dst[len(dst)-blockHead:])
		if err != nil {
			return dst, err
		}
		if last {
			size += contentCheck
		}
		if err := read(size); err != nil || last {
			return dst, err
		}
	}
}

// newDecoder returns what unpacks frames.
func newDecoder() (*zstd.Decoder, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(MaxFrame), zstd.WithDecoderMaxWindow(MaxFrame))
	if err != nil {
		return nil, fmt.Errorf("preparing decompression: %w", err)
	}
	return d, nil
}

// unpack appends the lines of one frame to dst.
func unpack(d *zstd.Decoder, packed, dst []byte) ([]byte, error) {
	head, err := checkFrame(packed)
	if err != nil {
		return dst, err
	}
	from := len(dst)
	if dst, err = d.DecodeAll(packed, dst); err != nil {
		return dst[:from], err
	}
	if int64(len(dst)-from) != head.content {
		return dst[:from], fmt.Errorf("%w: %d bytes of content, not %d", errFrame, len(dst)-from, head.content)
	}
	return dst, nil
}
