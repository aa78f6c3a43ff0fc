package segment

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"ringmaster/pkg/lineproto"
)

// rememberedSeries is of how many series a guard keeps fingerprints: 8 MiB at most.
const rememberedSeries = 1 << 18

// seriesGuard sees to it that no series comes back after another has begun. A series
// that comes after all before it in the order of InfluxDB ([lineproto.CompareTags])
// is a new one, which needs no memory. For those that come in another order it keeps
// fingerprints of the first rememberedSeries series; beyond that, only InfluxDB's
// order is accepted.
type seriesGuard struct {
	count int
	// last is the greatest series so far in InfluxDB's order.
	last []lineproto.Tag
	seen map[uint64]struct{}
	// The series admitted last: its fingerprint, and whether it is the greatest.
	next    uint64
	greater bool
}

func (g *seriesGuard) reset() {
	g.count, g.last = 0, g.last[:0]
	clear(g.seen)
}

// admit reports with an error that wraps ErrOrder that a series must not begin now.
// key is measurement and tags as they stand in a line.
func (g *seriesGuard) admit(key []byte, tags []lineproto.Tag) error {
	digest := sha256.Sum256(key)
	g.next = binary.BigEndian.Uint64(digest[:])
	g.greater = g.count == 0 || lineproto.CompareTags(tags, g.last) > 0
	if g.greater {
		return nil
	}
	if g.count >= rememberedSeries {
		return fmt.Errorf("%w: series %.256q after more than %d others and not in InfluxDB's order", ErrOrder, key, rememberedSeries)
	}
	if _, again := g.seen[g.next]; again {
		return fmt.Errorf("%w: series %.256q comes again", ErrOrder, key)
	}
	return nil
}

// enter takes note of the series that was admitted last.
func (g *seriesGuard) enter(tags []lineproto.Tag) {
	if g.count < rememberedSeries {
		if g.seen == nil {
			g.seen = map[uint64]struct{}{}
		}
		g.seen[g.next] = struct{}{}
	}
	g.count++
	if g.greater {
		// The strings are never changed, only the slice is used again.
		g.last = append(g.last[:0], tags...)
	}
}
