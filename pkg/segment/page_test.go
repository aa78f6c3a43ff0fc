package segment_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/segment"
)

const week = int64(7 * 24 * time.Hour)

func at(minute int) time.Time {
	return time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(minute) * time.Minute)
}

// entry makes an entry with a digest of its own for each seed.
func entry(seed uint64, w segment.Window, part, parts int) segment.Entry {
	r := rand.New(rand.NewPCG(seed, 1))
	var d segment.Digest
	for i := range d {
		d[i] = byte(r.Uint32())
	}
	return segment.Entry{
		ID: segment.IDOf(d), Digest: d, Window: w, Part: part, Parts: parts,
		Points: 100_000 + r.Int64N(1000), Values: 500_000 + r.Int64N(1000), Series: 20,
		MinTime: w.From + r.Int64N(1000), MaxTime: w.To - 1 - r.Int64N(1000),
		Size: 3<<20 + r.Int64N(1<<16), Raw: 30<<20 + r.Int64N(1<<20), State: segment.Live, Holders: []string{"store-a"},
		ArchivedAt: at(0), ArchivedBy: "admin", OperationID: "op-1",
	}
}

func weeks(from, to int) segment.Window {
	return segment.Window{From: int64(from) * week, To: int64(to) * week}
}

func commit(t require.TestingT, pages []*segment.Page, minute int, set ...segment.Entry) []*segment.Page {
	pages, err := segment.Commit(pages, source(), set, at(minute))
	require.NoError(t, err)
	return pages
}

func find(pages []*segment.Page, id segment.ID) *segment.Entry {
	for _, p := range pages {
		if e := p.Find(id); e != nil {
			return e
		}
	}
	return nil
}

func TestAWindowArchivedAgainSupersedes(t *testing.T) {
	t.Parallel()
	a, b := entry(1, weeks(0, 1), 1, 1), entry(2, weeks(1, 2), 1, 1)
	pages := commit(t, nil, 1, b, a)
	before, err := json.Marshal(pages)
	require.NoError(t, err)

	one, two := entry(3, weeks(0, 1), 1, 2), entry(4, weeks(0, 1), 2, 2)
	for _, incomplete := range [][]segment.Entry{nil, {one}, {two}, {one, one}, {one, entry(5, weeks(0, 1), 3, 3)}} {
		_, err = segment.Commit(pages, source(), incomplete, at(2))
		require.ErrorIs(t, err, segment.ErrIncomplete)
	}
	after, err := json.Marshal(pages)
	require.NoError(t, err)
	require.JSONEq(t, string(before), string(after))

	again := commit(t, pages, 2, one, two)
	require.Len(t, again[0].Entries, 4)
	old := find(again, a.ID)
	require.Equal(t, segment.Superseded, old.State)
	require.Equal(t, one.ID, old.SupersededBy)
	require.Equal(t, at(2), old.SupersededAt)
	require.Equal(t, segment.Live, find(again, b.ID).State)
	require.Equal(t, segment.Live, find(again, two.ID).State)
	require.Equal(t, segment.Live, find(pages, a.ID).State, "the pages before stay as they were")
}

func TestWindowsCutOtherwise(t *testing.T) {
	t.Parallel()
	pages := commit(t, nil, 1, entry(1, weeks(0, 2), 1, 1), entry(2, weeks(2, 3), 1, 1))
	var overlap *segment.OverlapError
	_, err := segment.Commit(pages, source(), []segment.Entry{entry(3, weeks(0, 1), 1, 1)}, at(2))
	require.ErrorAs(t, err, &overlap)
	require.Equal(t, weeks(0, 2), overlap.OtherWindow)
	_, err = segment.Commit(pages, source(), []segment.Entry{entry(3, weeks(0, 1), 1, 1), entry(4, weeks(0, 1), 1, 1)}, at(2))
	require.Error(t, err, "two first parts")
	_, err = segment.Commit(pages, source(), []segment.Entry{entry(3, weeks(0, 2), 1, 1), entry(4, weeks(1, 3), 1, 1)}, at(2))
	require.ErrorAs(t, err, &overlap)

	again := commit(t, pages, 2, entry(3, weeks(0, 1), 1, 1), entry(4, weeks(1, 2), 1, 1))
	require.Equal(t, segment.Superseded, again[0].Find(entry(1, weeks(0, 2), 1, 1).ID).State)
	again = commit(t, again, 3, entry(5, weeks(0, 3), 1, 1))
	require.Equal(t, segment.Superseded, again[0].Find(entry(2, weeks(2, 3), 1, 1).ID).State)
}

func TestTheSameContentBecomesLiveAgain(t *testing.T) {
	t.Parallel()
	a, b := entry(1, weeks(0, 1), 1, 1), entry(2, weeks(0, 1), 1, 1)
	pages := commit(t, commit(t, nil, 1, a), 2, b)
	a.Holders = []string{"store-b"}
	pages = commit(t, pages, 3, a)
	require.Len(t, pages[0].Entries, 2)
	got := pages[0].Find(a.ID)
	require.Equal(t, segment.Live, got.State)
	require.Equal(t, []string{"store-a", "store-b"}, got.Holders)
	require.Equal(t, at(3), got.ArchivedAt)
	require.True(t, got.SupersededBy.IsZero())
	require.Equal(t, segment.Superseded, pages[0].Find(b.ID).State)
}

func TestTombstones(t *testing.T) {
	t.Parallel()
	one, two := entry(1, weeks(0, 1), 1, 2), entry(2, weeks(0, 1), 2, 2)
	pages := commit(t, nil, 1, one, two)
	p := pages[0]
	require.NoError(t, p.Tombstone(one.ID, at(2), "ann"))
	require.Equal(t, segment.Tombstoned, p.Find(one.ID).State)
	require.Equal(t, "ann", p.Find(one.ID).DeletedBy)
	var state *segment.StateError
	require.ErrorAs(t, p.Tombstone(one.ID, at(2), "ann"), &state)
	require.ErrorAs(t, p.MarkDamaged(one.ID, at(2), "x"), &state)
	require.ErrorIs(t, p.Tombstone(segment.ID{}, at(2), "ann"), segment.ErrNoEntry)

	back, err := segment.Resurrect(pages, one.ID)
	require.NoError(t, err)
	require.Equal(t, segment.Live, find(back, one.ID).State)
	require.Equal(t, segment.Tombstoned, p.Find(one.ID).State)
	_, err = segment.Resurrect(back, one.ID)
	require.ErrorAs(t, err, &state)
	_, err = segment.Resurrect(back, segment.ID{})
	require.ErrorIs(t, err, segment.ErrNoEntry)

	again := commit(t, pages, 3, entry(3, weeks(0, 1), 1, 1))
	require.Equal(t, segment.Tombstoned, find(again, one.ID).State)
	require.Equal(t, segment.Superseded, find(again, two.ID).State)
	var overlap *segment.OverlapError
	_, err = segment.Resurrect(again, one.ID)
	require.ErrorAs(t, err, &overlap)
}

func TestDamage(t *testing.T) {
	t.Parallel()
	a := entry(1, weeks(0, 1), 1, 1)
	p := commit(t, nil, 1, a)[0]
	require.Error(t, p.MarkRepaired(a.ID))
	require.NoError(t, p.MarkDamaged(a.ID, at(2), "frame 3: another checksum"))
	require.NoError(t, p.Tombstone(a.ID, at(3), "ann"))
	back, err := segment.Resurrect([]*segment.Page{p}, a.ID)
	require.NoError(t, err)
	require.Equal(t, segment.Damaged, back[0].Find(a.ID).State)
	require.NoError(t, back[0].MarkRepaired(a.ID))
	require.NoError(t, back[0].SetHolders(a.ID, []string{"b", "a", "b"}))
	require.Equal(t, []string{"a", "b"}, back[0].Find(a.ID).Holders)
	require.Equal(t, segment.Live, back[0].Find(a.ID).State)
}

// requireCatalog checks what holds of every catalog.
func requireCatalog(t require.TestingT, pages []*segment.Page) {
	var before *segment.Entry
	var all []*segment.Entry
	seen := map[segment.ID]bool{}
	for _, p := range pages {
		require.NoError(t, p.Check())
		for i := range p.Entries {
			e := &p.Entries[i]
			require.False(t, seen[e.ID], "twice")
			seen[e.ID] = true
			if before != nil {
				require.Negative(t, before.Compare(e), "order")
			}
			before, all = e, append(all, e)
		}
	}
	for i, e := range all {
		for _, f := range all[i+1:] {
			if e.State.Current() && f.State.Current() && e.Window.Overlaps(f.Window) {
				require.Equal(t, e.Window, f.Window)
				require.NotEqual(t, e.Part, f.Part)
				require.Equal(t, e.ArchivedAt, f.ArchivedAt)
			}
		}
	}
}

// Whatever happens to a catalog: nothing current overlaps, nothing vanishes, the order
// is kept, what is packed comes back.
func TestCatalog(t *testing.T) {
	t.Parallel()
	codec, err := segment.NewPageCodec()
	require.NoError(t, err)
	defer codec.Close()
	rapid.Check(t, func(t *rapid.T) {
		var pages []*segment.Page
		known := map[segment.ID]bool{}
		minute := 0
		anyID := func(t *rapid.T) segment.ID {
			ids := slices.SortedFunc(maps.Keys(known), func(a, b segment.ID) int { return cmp.Compare(a.String(), b.String()) })
			if len(ids) == 0 {
				t.Skip("none yet")
			}
			return rapid.SampledFrom(ids).Draw(t, "id")
		}
		change := func(t *rapid.T, f func(p *segment.Page, id segment.ID) error) {
			id := anyID(t)
			for _, p := range pages {
				if p.Find(id) == nil {
					continue
				}
				if err := f(p, id); err != nil {
					var state *segment.StateError
					require.ErrorAs(t, err, &state)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"commit": func(t *rapid.T) {
				minute++
				var set []segment.Entry
				from := rapid.IntRange(0, 6).Draw(t, "from")
				for range rapid.IntRange(1, 3).Draw(t, "windows") {
					to := from + rapid.IntRange(1, 3).Draw(t, "length")
					parts := rapid.IntRange(1, 2).Draw(t, "parts")
					for part := 1; part <= parts; part++ {
						// The same content always has the same window and part.
						seed := uint64(rapid.IntRange(0, 3).Draw(t, "content")<<24 | from<<16 | to<<8 | parts<<4 | part)
						e := entry(seed, weeks(from, to), part, parts)
						e.OperationID = fmt.Sprint("op-", minute)
						set = append(set, e)
					}
					from = to + rapid.IntRange(0, 1).Draw(t, "gap")
				}
				before := live(pages)
				after, err := segment.Commit(pages, source(), set, at(minute))
				var overlap *segment.OverlapError
				if err != nil {
					require.ErrorAs(t, err, &overlap)
					require.Equal(t, before, live(pages))
					return
				}
				for _, e := range set {
					require.Equal(t, segment.Live, find(after, e.ID).State)
					known[e.ID] = true
				}
				for id, w := range before {
					state := find(after, id).State
					touched := slices.ContainsFunc(set, func(e segment.Entry) bool { return e.Window.Overlaps(w) })
					require.Equal(t, touched && !slices.ContainsFunc(set, func(e segment.Entry) bool { return e.ID == id }), state == segment.Superseded)
				}
				pages = after
			},
			"tombstone": func(t *rapid.T) {
				minute++
				change(t, func(p *segment.Page, id segment.ID) error { return p.Tombstone(id, at(minute), "ann") })
			},
			"damage": func(t *rapid.T) {
				minute++
				change(t, func(p *segment.Page, id segment.ID) error { return p.MarkDamaged(id, at(minute), "torn") })
			},
			"repair": func(t *rapid.T) {
				change(t, func(p *segment.Page, id segment.ID) error { return p.MarkRepaired(id) })
			},
			"resurrect": func(t *rapid.T) {
				after, err := segment.Resurrect(pages, anyID(t))
				var overlap *segment.OverlapError
				var state *segment.StateError
				if err == nil {
					pages = after
				} else {
					require.True(t, errors.As(err, &overlap) || errors.As(err, &state), "%v", err)
				}
			},
			"split": func(t *rapid.T) {
				if len(pages) == 0 {
					t.Skip("none yet")
				}
				i := rapid.IntRange(0, len(pages)-1).Draw(t, "page")
				if len(pages[i].Entries) > 1 {
					pages = slices.Insert(pages, i+1, pages[i].Split())
				}
			},
			"": func(t *rapid.T) {
				requireCatalog(t, pages)
				n := 0
				for _, p := range pages {
					n += len(p.Entries)
					packed, err := codec.Append(nil, p)
					require.NoError(t, err)
					back, err := codec.Decode(packed)
					require.NoError(t, err)
					require.Equal(t, p, back)
				}
				require.Len(t, known, n, "nothing vanishes")
			},
		})
	})
}

// live are the current segments and their windows.
func live(pages []*segment.Page) map[segment.ID]segment.Window {
	out := map[segment.ID]segment.Window{}
	for _, p := range pages {
		for _, e := range p.Entries {
			if e.State.Current() {
				out[e.ID] = e.Window
			}
		}
	}
	return out
}

func TestFullPagesAreSplit(t *testing.T) {
	t.Parallel()
	var pages []*segment.Page
	order := rand.New(rand.NewPCG(3, 3)).Perm(3 * segment.MaxEntries)
	for i, n := range order {
		pages = commit(t, pages, i, entry(uint64(n), weeks(n, n+1), 1, 1))
	}
	requireCatalog(t, pages)
	require.GreaterOrEqual(t, len(pages), 3)
	require.LessOrEqual(t, len(pages), 7)
	for i, p := range pages {
		reach, ok := p.Reach()
		require.True(t, ok)
		if i > 0 {
			before, _ := pages[i-1].Reach()
			require.False(t, reach.Overlaps(before))
		}
	}
}

func fullPage() *segment.Page {
	p := &segment.Page{Datasource: source(), Number: 7}
	for n := range segment.MaxEntries {
		e := entry(uint64(n), weeks(n, n+1), 1, 1)
		e.ArchivedAt = at(n / 10)
		e.Holders = []string{"4f1c7a52-3d1e-4a55-9a9e-0d6b5f0c8f11", "a3b1d0f2-8c3d-4b7e-bb11-7f7f1a2b3c4d"}
		p.Entries = append(p.Entries, e)
	}
	return p
}

func TestAFullPageIsSmall(t *testing.T) {
	t.Parallel()
	codec, err := segment.NewPageCodec()
	require.NoError(t, err)
	defer codec.Close()
	packed, err := codec.Append(nil, fullPage())
	require.NoError(t, err)
	t.Logf("%.1f bytes an entry", float64(len(packed))/segment.MaxEntries)
	require.Less(t, len(packed), segment.MaxEntries*80)
}

func TestWhatIsNoPage(t *testing.T) {
	t.Parallel()
	codec, err := segment.NewPageCodec()
	require.NoError(t, err)
	defer codec.Close()
	p := fullPage()
	p.Entries = p.Entries[:2]
	packed, err := codec.Append(nil, p)
	require.NoError(t, err)
	for i := range packed {
		_, err := codec.Decode(packed[:i])
		require.ErrorIs(t, err, segment.ErrPage)
		wrong := slices.Clone(packed)
		wrong[i] ^= 0x10
		if _, err := codec.Decode(wrong); err != nil {
			require.ErrorIs(t, err, segment.ErrPage)
		}
	}
	p.Entries[0], p.Entries[1] = p.Entries[1], p.Entries[0]
	_, err = codec.Append(nil, p)
	require.Error(t, err)
}

// Whatever stands where a page should: it is refused, or it is a page.
func FuzzPage(f *testing.F) {
	codec, err := segment.NewPageCodec()
	require.NoError(f, err)
	packer, err := zstd.NewWriter(nil)
	require.NoError(f, err)
	unpacker, err := zstd.NewReader(nil)
	require.NoError(f, err)
	p := fullPage()
	p.Entries = p.Entries[:2]
	require.NoError(f, p.Tombstone(p.Entries[0].ID, at(3), "ann"))
	packed, err := codec.Append(nil, p)
	require.NoError(f, err)
	raw, err := unpacker.DecodeAll(packed, nil)
	require.NoError(f, err)
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := codec.Decode(packer.EncodeAll(raw, nil))
		if err != nil {
			require.ErrorIs(t, err, segment.ErrPage)
			return
		}
		again, err := codec.Append(nil, p)
		require.NoError(t, err)
		back, err := codec.Decode(again)
		require.NoError(t, err)
		require.Equal(t, p, back)
	})
}

func TestEntryJSON(t *testing.T) {
	t.Parallel()
	e := entry(1, weeks(0, 1), 1, 1)
	raw, err := json.Marshal(e)
	require.NoError(t, err)
	require.NotContains(t, string(raw), "superseded")
	require.NotContains(t, string(raw), "0001-01-01")
	var back segment.Entry
	require.NoError(t, json.Unmarshal(raw, &back))
	require.Equal(t, e, back)
}

func BenchmarkPage(b *testing.B) {
	codec, err := segment.NewPageCodec()
	require.NoError(b, err)
	defer codec.Close()
	p := fullPage()
	packed, err := codec.Append(nil, p)
	require.NoError(b, err)
	b.Run("pack", func(b *testing.B) {
		for b.Loop() {
			if packed, err = codec.Append(packed[:0], p); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(packed))/segment.MaxEntries, "B/entry")
	})
	b.Run("unpack", func(b *testing.B) {
		for b.Loop() {
			if _, err = codec.Decode(packed); err != nil {
				b.Fatal(err)
			}
		}
	})
}
