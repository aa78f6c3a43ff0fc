// Package ring decides which backend of a circle owns a measurement: the
// consistent-hash placement of influx-proxy, point for point, so that a cluster
// that influx-proxy filled can be taken over without moving anything.
//
// A ring is a value made once from the backends' keys in configuration order and
// never changed afterwards. That is part of the placement, not a matter of taste:
// where two keys hash to the same point the later key owns it, so a ring that was
// grown and shrunk key by key can differ from one that was built at once.
package ring

import (
	"hash/crc32"
	"math"
	"slices"
	"strconv"
)

// DefaultVNodes is the number of points a key has on the ring unless the
// configuration says otherwise.
const DefaultVNodes = 256

// Ring is an immutable consistent-hash ring. It is safe for concurrent use.
type Ring struct {
	// points is sorted and free of duplicates; owners[i] is the index of the key
	// that holds points[i].
	points     []uint32
	owners     []int32
	collisions int
}

// Range is an arc of the ring: every shard key whose CRC-32 lies in From to To,
// both ends included, belongs to the key with index Owner.
type Range struct {
	From, To uint32
	Owner    int
}

// New builds the ring of keys, in configuration order, with vnodes points for
// each: point i of a key is the CRC-32 (IEEE) of the decimal i followed by the
// key. Where points coincide, the one inserted later wins. A ring of no keys, or
// of fewer than one point a key, owns nothing.
func New(keys []string, vnodes int) *Ring {
	type insertion struct {
		point uint32
		owner int32
	}

	all := make([]insertion, 0, len(keys)*max(vnodes, 0))

	var text []byte

	for owner, key := range keys {
		for i := range vnodes {
			text = append(strconv.AppendInt(text[:0], int64(i), 10), key...)
			all = append(all, insertion{crc32.ChecksumIEEE(text), int32(owner)})
		}
	}

	// The sort is stable, so that the last of equal points is the latest insertion.
	slices.SortStableFunc(all, func(a, b insertion) int {
		switch {
		case a.point < b.point:
			return -1
		case a.point > b.point:
			return 1
		default:
			return 0
		}
	})

	r := &Ring{
		points: make([]uint32, 0, len(all)),
		owners: make([]int32, 0, len(all)),
	}

	for _, in := range all {
		if last := len(r.points) - 1; last >= 0 && r.points[last] == in.point {
			r.owners[last] = in.owner
			r.collisions++

			continue
		}

		r.points = append(r.points, in.point)
		r.owners = append(r.owners, in.owner)
	}

	return r
}

// Owner returns the index of the key that owns shardKey: the holder of the first
// point strictly greater than the shard key's CRC-32, or of the lowest point when
// there is none. It is -1 only for a ring that owns nothing.
func (r *Ring) Owner(shardKey string) int {
	return r.at(checksum(0, shardKey))
}

// OwnerOf is Owner(k.Of(db, measurement)) without making the string.
func (r *Ring) OwnerOf(k ShardKey, db, measurement string) int {
	return r.at(k.sum(db, measurement))
}

// Collisions returns how many points were lost to a later insertion at the same
// place. When it is not 0, the order of the keys decides part of the placement.
func (r *Ring) Collisions() int { return r.collisions }

// Ranges returns the arcs of the ring in ascending order. Together they cover
// every hash from 0 to the largest exactly once; neighbouring arcs have different
// owners (the last and the first, which meet at the wrap, may have the same).
func (r *Ring) Ranges() []Range {
	if len(r.points) == 0 {
		return nil
	}

	var (
		ranges []Range
		from   uint32
	)

	add := func(to uint32, owner int32) {
		if last := len(ranges) - 1; last >= 0 && ranges[last].Owner == int(owner) {
			ranges[last].To = to
		} else {
			ranges = append(ranges, Range{From: from, To: to, Owner: int(owner)})
		}
	}

	for i, point := range r.points {
		// A point owns what lies strictly below it; nothing lies below 0.
		if point > 0 {
			add(point-1, r.owners[i])
		}

		from = point
	}

	add(math.MaxUint32, r.owners[0])

	return ranges
}

// at returns the owner of a hash.
func (r *Ring) at(hash uint32) int {
	if len(r.points) == 0 {
		return -1
	}

	low, high := 0, len(r.points)
	for low < high {
		if middle := int(uint(low+high) >> 1); r.points[middle] > hash {
			high = middle
		} else {
			low = middle + 1
		}
	}

	if low == len(r.points) {
		low = 0
	}

	return int(r.owners[low])
}

// checksum continues the CRC-32 (IEEE) sum with the bytes of s. It stands beside
// crc32.Update because that takes a byte slice and lets it escape: one allocation
// for every point that is routed.
func checksum(sum uint32, s string) uint32 {
	sum = ^sum
	for i := range len(s) {
		sum = crc32.IEEETable[byte(sum)^s[i]] ^ sum>>8
	}

	return ^sum
}
