package segment

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/lineproto"
)

// noise is text that can't be compressed.
func noise(r *rand.Rand, n int) lineproto.Value {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return lineproto.Value{Kind: lineproto.String, Str: b}
}

// What takes more than a file may have becomes parts, which together have every point
// once and in order.
func TestParts(t *testing.T) {
	t.Parallel()
	const limit = 4 << 20
	w, err := NewWriter()
	require.NoError(t, err)
	w.limit = limit
	d := Datasource{Database: "db", RetentionPolicy: "rp", Measurement: "m"}
	require.NoError(t, w.Reset(d, Window{From: 0, To: 1 << 40}))
	var files [][]byte
	var parts []Summary
	var file bytes.Buffer
	end := func(final bool) {
		part, err := w.End(final)
		require.NoError(t, err)
		require.Less(t, file.Len(), limit)
		files, parts = append(files, bytes.Clone(file.Bytes())), append(parts, part)
		file.Reset()
	}
	var encoder lineproto.Encoder
	var want []byte
	r := rand.New(rand.NewPCG(1, 1))
	require.NoError(t, w.Begin(&file))
	for host := range 3 {
		s := &lineproto.Series{Measurement: "m", Tags: []lineproto.Tag{{Key: "host", Value: fmt.Sprint(host)}}}
		fields := []string{"n", fmt.Sprintf("text of %d", host)}
		require.NoError(t, w.SetSeries(s, fields))
		require.NoError(t, encoder.SetSeries(s, fields))
		for i := range 40 {
			size := 100_000
			if i == 20 {
				size = 2 << 20 // larger than a usual frame
			}
			row := []lineproto.Value{lineproto.IntegerValue(int64(i)), noise(r, size)}
			if want, err = encoder.AppendRow(want, int64(i), row); err != nil {
				t.Fatal(err)
			}
			err := w.Row(int64(i), row)
			if errors.Is(err, ErrPartFull) {
				end(false)
				require.NoError(t, w.Begin(&file))
				err = w.Row(int64(i), row)
			}
			require.NoError(t, err)
		}
	}
	end(true)
	require.Greater(t, len(files), 4)
	require.Less(t, len(files), 9)
	var got []byte
	points, ids := int64(0), map[ID]bool{}
	for i, file := range files {
		s, err := Verify(bytes.NewReader(file), func(lines []byte) error {
			got = append(got, lines...)
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, parts[i], s)
		require.Equal(t, i+1, s.Part)
		require.Equal(t, i == len(files)-1, s.Final)
		points += s.Points
		ids[s.ID] = true
	}
	require.True(t, bytes.Equal(want, got))
	require.EqualValues(t, 120, points)
	require.Len(t, ids, len(files))

	// What no part can hold is told apart from what this one has no room for.
	require.NoError(t, w.Reset(d, Window{From: 0, To: 100}))
	require.NoError(t, w.Begin(&file))
	require.NoError(t, w.SetSeries(&lineproto.Series{Measurement: "m"}, []string{"f"}))
	require.ErrorIs(t, w.Row(1, []lineproto.Value{noise(r, limit)}), ErrTooLarge)
	require.NoError(t, w.Row(1, []lineproto.Value{noise(r, limit/2)}))
	require.ErrorIs(t, w.Row(2, []lineproto.Value{noise(r, limit/2)}), ErrPartFull)
	require.ErrorIs(t, w.Row(2, []lineproto.Value{noise(r, limit/2)}), ErrPartFull, "as often as it is asked")
	_, err = w.End(false)
	require.NoError(t, err)
	require.NoError(t, w.Begin(&file))
	require.NoError(t, w.Row(2, []lineproto.Value{noise(r, limit/2)}))
}

// Beyond the series that the guard remembers, only InfluxDB's order is taken.
func TestTheGuardForgets(t *testing.T) {
	t.Parallel()
	var g seriesGuard
	enter := func(host string) error {
		tags := []lineproto.Tag{{Key: "host", Value: host}}
		if err := g.admit([]byte("m,host="+host), tags); err != nil {
			return err
		}
		g.enter(tags)
		return nil
	}
	require.NoError(t, enter("5"))
	require.NoError(t, enter("3"))
	require.NoError(t, enter("4"))
	require.ErrorIs(t, enter("3"), ErrOrder)
	require.ErrorIs(t, enter("5"), ErrOrder)
	g.count = rememberedSeries
	require.ErrorIs(t, enter("2"), ErrOrder)
	require.NoError(t, enter("6"))
	require.ErrorIs(t, enter("6"), ErrOrder)
	require.Len(t, g.seen, 3)
	g.reset()
	require.NoError(t, enter("3"))
}

// No foot takes more memory than a few times its size, whatever it says.
func FuzzFoot(f *testing.F) {
	var file bytes.Buffer
	w, err := NewWriter()
	require.NoError(f, err)
	require.NoError(f, w.Reset(Datasource{Database: "db", RetentionPolicy: "rp", Measurement: "m"}, Window{From: -5, To: 100}))
	require.NoError(f, w.Begin(&file))
	require.NoError(f, w.SetSeries(&lineproto.Series{Measurement: "m", Tags: []lineproto.Tag{{Key: "a", Value: "b"}}}, []string{"f", "g"}))
	require.NoError(f, w.Row(1, []lineproto.Value{lineproto.FloatValue(1), lineproto.StringValue("x")}))
	s, err := w.End(true)
	require.NoError(f, err)
	body := appendFootBody(nil, &w.foot)
	f.Add(body, s.Size-int64(len(body)+footExtra+headSize))
	f.Add(append(body, 0), int64(1))
	f.Fuzz(func(t *testing.T, body []byte, room int64) {
		got, err := parseFoot(body, room)
		if err != nil {
			return
		}
		// What is read is what is written, if it is written in the shortest form.
		again, err := parseFoot(appendFootBody(nil, got), room)
		require.NoError(t, err)
		require.Equal(t, got, again)
	})
}
