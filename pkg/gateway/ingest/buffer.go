package ingest

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Buffers come in sizes of powers of two, so that what one request gives back fits
// the next one.
const (
	smallestBuffer = 9  // 512 bytes: a line or two
	largestBuffer  = 26 // 64 MiB; larger ones are not kept
)

// pools keep buffers by size. What is not used for a while the collector takes.
type pools [largestBuffer + 1]sync.Pool

// class is the exponent of the smallest buffer that holds n bytes.
func class(n int) int { return max(smallestBuffer, bits.Len(uint(max(n, 1)-1))) }

func (p *pools) get(n int) []byte {
	c := class(n)
	if c > largestBuffer {
		return make([]byte, 0, n)
	}
	if b, ok := p[c].Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, 1<<c)
}

func (p *pools) put(b []byte) {
	c := class(cap(b))
	if cap(b) == 0 || c > largestBuffer || cap(b) != 1<<c {
		return
	}
	p[c].Put(&b)
}

// budget counts the bytes that all requests hold.
type budget struct {
	max   int64
	taken atomic.Int64
	pools pools
}

// take counts n bytes more; false if that would be too many.
func (b *budget) take(n int64) bool {
	if b.taken.Add(n) > b.max {
		b.taken.Add(-n)
		return false
	}
	return true
}

func (b *budget) give(n int64) { b.taken.Add(-n) }

// buffer is a slice that counts against the budget.
type buffer struct {
	data []byte
}

// grow makes room for n bytes more; false if the budget has none.
func (b *budget) grow(buf *buffer, n int) bool {
	need := len(buf.data) + n
	if need <= cap(buf.data) {
		return true
	}
	if 2*cap(buf.data) > need {
		need = 2 * cap(buf.data)
	}
	size := int64(need)
	if c := class(need); c <= largestBuffer {
		size = 1 << c
	}
	if !b.take(size) {
		return false
	}
	grown := append(b.pools.get(need), buf.data...)
	b.free(buf)
	buf.data = grown
	return true
}

// free gives a buffer back.
func (b *budget) free(buf *buffer) {
	b.give(int64(cap(buf.data)))
	b.pools.put(buf.data)
	buf.data = nil
}
