package lineproto

import (
	"encoding/binary"
	"math/bits"
)

// marks finds the bytes that may have a meaning in a line: commas, equals signs,
// backslashes, quotes, white space and other control characters. (Exclamation marks
// too, which come for free and have no meaning.) It looks at 64 bytes at a time, and
// all of them at once, so that no branch and no place depends on the one before.
type marks struct {
	body []byte
	base int    // of the block that found is about
	more uint64 // a bit for each mark in the block that is not behind us
}

// each times a byte is that byte eight times.
const (
	each = 0x0101010101010101
	tops = 0x80 * each
	lows = 0x7f * each
)

// seek goes to a place in the body.
func (m *marks) seek(i int) {
	m.base = i &^ 63
	m.more = find(m.body, m.base) &^ (1<<(i&63) - 1)
}

// next returns the place of the next mark. Behind the last one that is the end of
// the body, which counts as a newline.
func (m *marks) next() int {
	m.ready()
	return m.take()
}

// ready and take are the halves of next, each of which the compiler puts in line.
func (m *marks) ready() {
	if m.more == 0 {
		m.fill()
	}
}

func (m *marks) take() int {
	i := m.base + bits.TrailingZeros64(m.more)
	m.more &= m.more - 1
	return i
}

// fill goes to the next block that has a mark.
func (m *marks) fill() {
	for m.more == 0 {
		m.base = min(m.base+64, len(m.body))
		m.more = find(m.body, m.base)
	}
}

// find returns a bit for each mark in the 64 bytes at i; the bytes behind the end
// are newlines.
func find(b []byte, i int) (found uint64) {
	if i+64 > len(b) {
		return findTail(b, i)
	}
	block := b[i : i+64]
	found = gather(markBits(binary.LittleEndian.Uint64(block)))
	found |= gather(markBits(binary.LittleEndian.Uint64(block[8:]))) << 8
	found |= gather(markBits(binary.LittleEndian.Uint64(block[16:]))) << 16
	found |= gather(markBits(binary.LittleEndian.Uint64(block[24:]))) << 24
	found |= gather(markBits(binary.LittleEndian.Uint64(block[32:]))) << 32
	found |= gather(markBits(binary.LittleEndian.Uint64(block[40:]))) << 40
	found |= gather(markBits(binary.LittleEndian.Uint64(block[48:]))) << 48
	found |= gather(markBits(binary.LittleEndian.Uint64(block[56:]))) << 56
	return found
}

func findTail(b []byte, i int) (found uint64) {
	for n := 0; n < 64; n += 8 {
		found |= gather(markBits(load(b, min(i+n, len(b))))) << n
	}
	return found
}

// load returns the eight bytes at i, of which those behind the end of b are
// newlines.
func load(b []byte, i int) uint64 {
	if i+8 <= len(b) {
		return binary.LittleEndian.Uint64(b[i:])
	}
	return loadTail(b, i)
}

func loadTail(b []byte, i int) uint64 {
	w := uint64('\n' * each)
	for n := len(b) - 1; n >= i; n-- {
		w = w<<8 | uint64(b[n])
	}
	return w
}

// markBits returns a word in which the top bit of each byte says whether it is a
// mark. Each of the sums sets the top bit of a byte that differs from one that is
// looked for, and none of them carries into the next byte.
func markBits(w uint64) uint64 {
	v := w & lows
	plain := ((v | tops) - ('"'+1)*each) & ((v ^ ','*each) + lows) & ((v ^ '='*each) + lows) & ((v ^ '\\'*each) + lows)
	return ^(plain | w) & tops
}

// isMark is markBits for one byte.
func isMark(c byte) bool { return c <= '"' || c == ',' || c == '=' || c == '\\' }

// gather puts the top bits of eight bytes side by side.
func gather(w uint64) uint64 { return w >> 7 * 0x0102040810204080 >> 56 }

// digitsEnd returns the first place at or after i where no digit stands.
func digitsEnd(b []byte, i int) int {
	for {
		if found := notDigits(load(b, i)); found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
		i += 8
	}
}

// notDigits returns a word in which the top bit of each byte says whether it is no
// decimal digit.
func notDigits(w uint64) uint64 {
	w ^= '0' * each
	return (w&lows + (0x80-10)*each | w) & tops
}

// eightDigits is the value of eight decimal digits: neighbours are joined to pairs,
// these to fours, and these to one number.
func eightDigits(w uint64) uint64 {
	w -= '0' * each
	w = (w*10 + w>>8) & 0x00ff00ff00ff00ff
	w = (w*100 + w>>16) & 0x0000ffff0000ffff
	return (w*10000 + w>>32) & 0xffffffff
}
