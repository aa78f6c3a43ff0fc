package hint_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/hint"
)

// frame has n points that compress badly enough to need several parts.
func frame(n int) *hint.Frame {
	var lines bytes.Buffer
	sum := uint32(1)
	for i := range n {
		sum = crc32.ChecksumIEEE(binary.BigEndian.AppendUint32(nil, sum))
		fmt.Fprintf(&lines, "cpu,host=h%d v=%di %d\n", sum, sum, i)
	}
	return &hint.Frame{
		Epoch: 7, Circles: []int{0, 2}, Database: "db", RetentionPolicy: "two weeks", Points: n,
		Lines: lines.Bytes(), WrittenAt: time.Unix(1_700_000_000, 123).UTC(),
	}
}

func encode(t testing.TB, f *hint.Frame, maxPart int) [][]byte {
	t.Helper()
	parts, err := hint.Encode(nil, f, maxPart)
	require.NoError(t, err)
	return parts
}

// Whatever a frame holds and however it is cut, it comes back.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var d hint.Decoder
		for range rapid.IntRange(1, 3).Draw(t, "frames") {
			lines := rapid.SliceOfN(rapid.Byte(), 0, 4000).Draw(t, "lines")
			f := &hint.Frame{
				Epoch:           rapid.Uint64().Draw(t, "epoch"),
				Circles:         rapid.SliceOfN(rapid.Int(), 0, 4).Draw(t, "circles"),
				Database:        rapid.String().Draw(t, "database"),
				RetentionPolicy: rapid.String().Draw(t, "policy"),
				Points:          rapid.IntRange(0, len(lines)).Draw(t, "points"),
				Lines:           lines,
				WrittenAt:       time.Unix(0, rapid.Int64().Draw(t, "at")).UTC(),
			}
			maxPart := rapid.IntRange(0, 1000).Draw(t, "part")
			parts, err := hint.Encode(nil, f, maxPart)
			require.NoError(t, err)
			for i, p := range parts {
				require.LessOrEqual(t, len(p), max(maxPart, hint.MinPart))
				got, err := d.Add(p)
				require.NoError(t, err)
				if i < len(parts)-1 {
					require.Nil(t, got)
					require.Equal(t, i+1, d.Pending())
					continue
				}
				if len(f.Circles) == 0 {
					f.Circles = got.Circles
				}
				if len(f.Lines) == 0 {
					f.Lines = got.Lines
				}
				require.Equal(t, f, got)
				require.Zero(t, d.Pending())
			}
		}
	})
}

// A part in which any single byte has changed is refused, and what comes after it
// is read.
func TestDamageIsFound(t *testing.T) {
	t.Parallel()
	whole := encode(t, frame(100), 600)
	require.Greater(t, len(whole), 3)
	next := encode(t, frame(1), 600)
	for i := range whole {
		for at := range whole[i] {
			var d hint.Decoder
			var got []*hint.Frame
			damaged := false
			for j, p := range slices.Concat(whole, next) {
				if j == i {
					p = slices.Clone(p)
					p[at] ^= 0x40
				}
				f, err := d.Add(p)
				if err != nil {
					require.ErrorIs(t, err, hint.ErrDamaged)
					damaged = true
				}
				if f != nil {
					got = append(got, f)
				}
			}
			require.True(t, damaged, "part %d, byte %d", i, at)
			require.Equal(t, []*hint.Frame{frame(1)}, got, "part %d, byte %d", i, at)
		}
	}
}

func TestTornAndMixedPartsAreFound(t *testing.T) {
	t.Parallel()
	a, b := encode(t, frame(100), 600), encode(t, frame(101), 600)
	one := encode(t, frame(1), 600)
	require.Len(t, one, 1)
	for name, c := range map[string]struct {
		parts [][]byte
		says  string
		good  int
	}{
		"missing in the middle": {slices.Concat(a[:1], a[2:], one), "part 3 of", 1},
		"missing beginning":     {slices.Concat(a[1:], one), "it begins with part 2", 1},
		"missing end":           {slices.Concat(a[:2], b), "it ends after part 2", 1},
		"missing end, then one": {slices.Concat(a[:2], one), "it ends after part 2", 1},
		"exchanged":             {slices.Concat([][]byte{a[1], a[0]}, a[2:]), "it begins with part 2", 0},
		"mixed":                 {slices.Concat(a[:1], b[1:], one), "it begins with part 2", 1},
		"twice":                 {slices.Concat(a[:2], a[1:]), "part 2 of", 0},
		"empty":                 {[][]byte{{}}, "a part of 0 bytes", 0},
		"not a part":            {[][]byte{bytes.Repeat([]byte("x"), 100)}, "does not begin with RMHF", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var d hint.Decoder
			var said []string
			good := 0
			for _, p := range c.parts {
				f, err := d.Add(p)
				if err != nil {
					require.ErrorIs(t, err, hint.ErrDamaged)
					said = append(said, err.Error())
				}
				if f != nil {
					good++
				}
			}
			require.Contains(t, strings.Join(said, "\n"), c.says)
			require.Equal(t, c.good, good)
		})
	}
}

// A newer release's parts are named as such, not as noise.
func TestOtherVersions(t *testing.T) {
	t.Parallel()
	p := encode(t, frame(1), 600)[0]
	p[4] = 2
	_, err := new(hint.Decoder).Add(p)
	require.ErrorContains(t, err, "version 2")
}

func TestBounds(t *testing.T) {
	t.Parallel()
	_, err := hint.Encode(nil, &hint.Frame{Lines: make([]byte, hint.MaxLines+1)}, 1<<20)
	require.ErrorIs(t, err, hint.ErrTooLarge)
	_, err = hint.Encode(nil, &hint.Frame{Circles: make([]int, hint.MaxCircles+1)}, 1<<20)
	require.ErrorIs(t, err, hint.ErrTooLarge)
	_, err = hint.Encode(nil, frame(20_000), 0)
	require.ErrorIs(t, err, hint.ErrTooLarge, "more parts than one batch holds")
	_, err = hint.Encode(nil, &hint.Frame{Points: 2, Lines: []byte("x")}, 0)
	require.Error(t, err)
	parts := encode(t, &hint.Frame{Lines: make([]byte, hint.MaxLines)}, 1<<20)
	f, err := new(hint.Decoder).Add(parts[0])
	require.NoError(t, err)
	require.Len(t, f.Lines, hint.MaxLines)
}

// FuzzFrame feeds parts of any bytes: the decoder neither fails in another way than
// it says nor gives a frame that does not encode to what it was read from.
func FuzzFrame(f *testing.F) {
	for _, p := range encode(f, frame(40), 400) {
		f.Add(p, []byte{}, true)
	}
	one := encode(f, frame(1), 600)[0]
	f.Add(one, one, true)
	f.Add([]byte("RMHF\x01"), []byte{}, false)
	f.Fuzz(func(t *testing.T, first, second []byte, seal bool) {
		var d hint.Decoder
		for _, p := range [][]byte{first, second} {
			if seal && len(p) > 4 { // past the checksum, to what it protects
				p = slices.Clone(p)
				end := len(p) - 4
				binary.BigEndian.PutUint32(p[end:], crc32.Checksum(p[:end], crc32.MakeTable(crc32.Castagnoli)))
			}
			got, err := d.Add(p)
			if err != nil {
				require.ErrorIs(t, err, hint.ErrDamaged)
			}
			if got == nil {
				continue
			}
			parts, err := hint.Encode(nil, got, 1<<20)
			require.NoError(t, err)
			var again hint.Decoder
			same, err := again.Add(parts[0])
			require.NoError(t, err)
			require.Equal(t, got, same)
		}
	})
}
