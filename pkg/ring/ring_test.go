package ring_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/ring"
)

// TestPlacementVectors compares every placement with what influx-proxy's own hash
// library decided.
func TestPlacementVectors(t *testing.T) {
	t.Parallel()

	raw, err := os.ReadFile("testdata/placement.json")
	require.NoError(t, err)

	var cases []struct {
		HashKey  string `json:"hash_key"`
		ShardKey string `json:"shard_key"`
		VNodes   int    `json:"vnode_size"`
		Backends []struct{ Name, URL string }
		Places   []struct {
			DB, Measurement string
			Backend         int
		} `json:"placements"`
	}

	require.NoError(t, json.Unmarshal(raw, &cases))
	require.NotEmpty(t, cases)

	for _, c := range cases {
		t.Run(fmt.Sprintf("%s/%s/%d", c.HashKey, c.ShardKey, len(c.Backends)), func(t *testing.T) {
			t.Parallel()

			hash, err := ring.ParseHashKey(c.HashKey)
			require.NoError(t, err)
			shard, err := ring.ParseShardKey(c.ShardKey)
			require.NoError(t, err)

			keys := make([]string, len(c.Backends))
			for i, b := range c.Backends {
				keys[i] = hash.Key(i, b.Name, b.URL)
			}

			r := ring.New(keys, c.VNodes)

			require.NotEmpty(t, c.Places)

			for _, p := range c.Places {
				require.Equal(t, p.Backend, r.Owner(shard.Of(p.DB, p.Measurement)), "%q %q", p.DB, p.Measurement)
				require.Equal(t, p.Backend, r.OwnerOf(shard, p.DB, p.Measurement), "%q %q", p.DB, p.Measurement)
			}
		})
	}
}

// TestIndexCollisions pins the figures known for influx-proxy's idx: none up to
// ten backends, 25 with eleven, 500 with thirty; exi has none.
func TestIndexCollisions(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		hash       string
		n, collide int
	}{{"idx", 1, 0}, {"idx", 10, 0}, {"idx", 11, 25}, {"idx", 30, 500}, {"exi", 11, 0}, {"exi", 30, 0}} {
		hash, err := ring.ParseHashKey(c.hash)
		require.NoError(t, err)

		keys := make([]string, c.n)
		for i := range keys {
			keys[i] = hash.Key(i, "", "")
		}

		require.Equal(t, c.collide, ring.New(keys, ring.DefaultVNodes).Collisions(), "%s with %d", c.hash, c.n)
	}
}

// TestLaterInsertionWins places two equal keys: every point belongs to the second.
func TestLaterInsertionWins(t *testing.T) {
	t.Parallel()

	r := ring.New([]string{"same", "same"}, 64)
	require.Equal(t, 64, r.Collisions())
	require.Equal(t, []ring.Range{{From: 0, To: math.MaxUint32, Owner: 1}}, r.Ranges())
	require.Equal(t, 1, r.Owner("anything"))
}

func TestEmptyRingOwnsNothing(t *testing.T) {
	t.Parallel()

	for _, r := range []*ring.Ring{ring.New(nil, 256), ring.New([]string{"a"}, 0), ring.New([]string{"a"}, -1), {}} {
		require.Equal(t, -1, r.Owner("db,m"))
		require.Empty(t, r.Ranges())
	}
}

// distinctKeys draws keys of the shapes that backends have.
func distinctKeys(t *rapid.T, most int) []string {
	return rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z0-9|:/.-]{1,24}`), 1, most, rapid.ID).Draw(t, "keys")
}

func shardKeys(t *rapid.T) []string {
	return rapid.SliceOfN(rapid.String(), 1, 200).Draw(t, "shard keys")
}

func TestFreshBuildsAgree(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		keys := distinctKeys(t, 12)
		vnodes := rapid.IntRange(1, 64).Draw(t, "vnodes")
		a, b := ring.New(keys, vnodes), ring.New(slices.Clone(keys), vnodes)
		require.Equal(t, a.Ranges(), b.Ranges())

		for _, s := range shardKeys(t) {
			owner := a.Owner(s)
			require.Equal(t, owner, b.Owner(s))
			require.GreaterOrEqual(t, owner, 0)
			require.Less(t, owner, len(keys))
		}
	})
}

// TestOrderDoesNotMatterWithoutCollisions permutes the keys: the owner, by key,
// stays the same as long as no two points coincide.
func TestOrderDoesNotMatterWithoutCollisions(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		keys := distinctKeys(t, 12)
		shuffled := rapid.Permutation(keys).Draw(t, "order")
		a, b := ring.New(keys, 64), ring.New(shuffled, 64)
		require.Equal(t, a.Collisions(), b.Collisions())

		if a.Collisions() > 0 {
			t.Skip("points coincide")
		}

		for _, s := range shardKeys(t) {
			require.Equal(t, keys[a.Owner(s)], shuffled[b.Owner(s)])
		}
	})
}

// TestAddingMovesOnlyToTheNewKey checks what makes the hashing consistent: when a
// key is appended, nothing moves between the keys that were there. Owners change only
// at the borders of ranges, so looking at those of both rings looks everywhere.
func TestAddingMovesOnlyToTheNewKey(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		keys := distinctKeys(t, 9)
		added := rapid.StringMatching(`new-[a-z]{1,8}`).Draw(t, "added")
		before := ring.New(keys, ring.DefaultVNodes)
		after := ring.New(append(slices.Clone(keys), added), ring.DefaultVNodes)

		for _, g := range slices.Concat(before.Ranges(), after.Ranges()) {
			for _, hash := range []uint32{g.From, g.To} {
				if is := ring.At(after, hash); is != len(keys) {
					require.Equal(t, ring.At(before, hash), is, "%d moved between keys that were there", hash)
				}
			}
		}
	})
}

// TestAddingMovesTheNewKeysShare adds a backend to circles of one to ten, under every
// way to make the keys: what moves is the new backend's share of the ring, one n-th
// of it and at most an eighth more. CRC-32 is linear, so the points of keys as alike as
// these are spread less evenly than chance would have it; influx-proxy's placement
// is what it is.
func TestAddingMovesTheNewKeysShare(t *testing.T) {
	t.Parallel()

	const tolerance = 0.125

	for _, choice := range []string{"idx", "exi", "name", "url", "backend-%idx"} {
		hash, err := ring.ParseHashKey(choice)
		require.NoError(t, err)

		var keys []string

		for n := range 11 {
			name, url := fmt.Sprintf("influxdb-1-%d", n+1), fmt.Sprintf("http://127.0.0.1:%d", 8086+n)
			keys = append(keys, hash.Key(n, name, url))

			moved := 0.0

			for _, g := range ring.New(keys, ring.DefaultVNodes).Ranges() {
				if g.Owner == n {
					moved += (float64(g.To) - float64(g.From) + 1) / (1 << 32)
				}
			}

			require.LessOrEqual(t, moved, 1/float64(n+1)+tolerance, "%s: backend %d", choice, n)
		}
	}
}

// TestRangesAreTheRing checks that the ranges cover the ring without gap or
// overlap and that they and Owner say the same on both sides of every border.
func TestRangesAreTheRing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := ring.New(distinctKeys(t, 8), rapid.IntRange(1, 32).Draw(t, "vnodes"))
		ranges := r.Ranges()
		require.Zero(t, ranges[0].From)
		require.Equal(t, uint32(math.MaxUint32), ranges[len(ranges)-1].To)

		for i, g := range ranges {
			require.LessOrEqual(t, g.From, g.To)

			if i > 0 {
				require.Equal(t, ranges[i-1].To+1, g.From)
				require.NotEqual(t, ranges[i-1].Owner, g.Owner)
			}

			require.Equal(t, g.Owner, ring.At(r, g.From))
			require.Equal(t, g.Owner, ring.At(r, g.To))
		}
	})
}

func TestShardKey(t *testing.T) {
	t.Parallel()

	for template, want := range map[string]string{
		"%db,%mm":       "a%mm,b%db",
		"%mm":           "b%db",
		"%db":           "a%mm",
		"shard-%db-%mm": "shard-a%mm-b%db",
		"%mm%mm%%db%":   "b%dbb%db%a%mm%",
		"%d%dbb":        "%da%mmb",
	} {
		key, err := ring.ParseShardKey(template)
		require.NoError(t, err, template)
		require.Equal(t, want, key.Of("a%mm", "b%db"), template)
	}

	for _, template := range []string{"", "%", "%d", "%m,%d", "db,mm", "%DB,%MM"} {
		_, err := ring.ParseShardKey(template)
		require.ErrorIs(t, err, ring.ErrShardKey, template)
	}
}

func TestHashKey(t *testing.T) {
	t.Parallel()

	for s, want := range map[string]string{
		"idx": "7", "exi": "|7", "name": "n", "url": "u", "backend-%idx": "backend-7", "%idx%idx": "77",
	} {
		key, err := ring.ParseHashKey(s)
		require.NoError(t, err, s)
		require.Equal(t, want, key.Key(7, "n", "u"), s)
	}

	for _, s := range []string{"", "id", "IDX", "index", "%name", "%id"} {
		_, err := ring.ParseHashKey(s)
		require.ErrorIs(t, err, ring.ErrHashKey, s)
	}
}

// TestOwnerOfIsOwner checks the sum that is made piece by piece against the one
// over the whole text.
func TestOwnerOfIsOwner(t *testing.T) {
	t.Parallel()

	r := ring.New([]string{"a", "b", "c"}, ring.DefaultVNodes)

	rapid.Check(t, func(t *rapid.T) {
		key, err := ring.ParseShardKey(rapid.String().Draw(t, "prefix") + rapid.SampledFrom([]string{"%db,%mm", "%mm", "%db"}).Draw(t, "template"))
		require.NoError(t, err)

		db, measurement := rapid.String().Draw(t, "db"), rapid.String().Draw(t, "measurement")
		require.Equal(t, r.Owner(key.Of(db, measurement)), r.OwnerOf(key, db, measurement))
	})
}

func BenchmarkOwner(b *testing.B) {
	keys := []string{"|0", "|1", "|2", "|3", "|4", "|5"}
	r := ring.New(keys, ring.DefaultVNodes)
	key, _ := ring.ParseShardKey(ring.DefaultShardKey)

	b.Run("Owner", func(b *testing.B) {
		b.ReportAllocs()

		for b.Loop() {
			r.Owner("telegraf,http_requests_total")
		}
	})
	b.Run("OwnerOf", func(b *testing.B) {
		b.ReportAllocs()

		for b.Loop() {
			r.OwnerOf(key, "telegraf", "http_requests_total")
		}
	})
}

// TestOwnerDoesNotAllocate keeps the benchmark's figure from slipping unseen.
func TestOwnerDoesNotAllocate(t *testing.T) {
	r := ring.New([]string{"|0", "|1", "|2"}, ring.DefaultVNodes)
	key, err := ring.ParseShardKey(ring.DefaultShardKey)
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(100, func() { r.Owner("telegraf,http_requests_total") }))
	require.Zero(t, testing.AllocsPerRun(100, func() { r.OwnerOf(key, "telegraf", "http_requests_total") }))
}
