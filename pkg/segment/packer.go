package segment

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// packer compresses frames. How it does decides about the bytes of a file, and so its
// id, but a reader need not know it.
//
// Lines repeat what stood in the line before, and names and texts what stood long ago.
// Where values are long random numbers, though, a compressor that looks far back finds
// digits there that are like these by chance and not worth their distance: it does
// better when it sees the last lines only. So both are tried now and then, and what
// made less of it is kept to.
type packer struct {
	far, near *zstd.Encoder
	useNear   bool
	spare     []byte
}

const (
	// nearWindow is how far back the compressor sees that sees the last lines only.
	nearWindow = 16 << 10
	// tryEvery is how often both are tried: for the first frame of a part, and for
	// each of this many.
	tryEvery = 16
)

func newPacker() (*packer, error) {
	far, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(true), zstd.WithSingleSegment(true), zstd.WithWindowSize(FrameTarget), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("preparing compression: %w", err)
	}
	near, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(true), zstd.WithWindowSize(nearWindow), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("preparing compression: %w", err)
	}
	return &packer{far: far, near: near}, nil
}

// pack appends the frame of lines, whose number in its part decides whether both
// compressors are tried. dst is empty.
func (p *packer) pack(dst, lines []byte, number int) []byte {
	switch {
	case len(lines) <= nearWindow:
		return p.far.EncodeAll(lines, dst)
	case number%tryEvery != 0 && p.useNear:
		return p.near.EncodeAll(lines, dst)
	case number%tryEvery != 0:
		return p.far.EncodeAll(lines, dst)
	}
	dst = p.far.EncodeAll(lines, dst)
	p.spare = p.near.EncodeAll(lines, p.spare[:0])
	if p.useNear = len(p.spare) < len(dst); p.useNear {
		dst, p.spare = p.spare, dst[:0]
	}
	return dst
}
