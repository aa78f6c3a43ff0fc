package bus_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
)

const hinted = "http://10.0.0.1:8086"

func openHints(t *testing.T, b *bus.Bus, backend string, maxBytes int64) *bus.Hints {
	t.Helper()
	h, err := b.Hints(t.Context(), backend, maxBytes)
	require.NoError(t, err)
	return h
}

// readAll reads the hints page by page.
func readAll(t *testing.T, h *bus.Hints, after uint64, limit int) (all []string, last uint64) {
	t.Helper()
	for {
		records, err := h.Read(t.Context(), after, limit)
		require.NoError(t, err)
		if len(records) == 0 {
			return all, after
		}
		for _, r := range records {
			require.Greater(t, r.Sequence, after)
			after = r.Sequence
			all = append(all, string(r.Data))
		}
	}
}

func parts(texts ...string) [][]byte {
	p := make([][]byte, len(texts))
	for i, t := range texts {
		p[i] = []byte(t)
	}
	return p
}

func testHints(t *testing.T, e env) {
	ctx, b, other := t.Context(), e.here, e.there
	h := openHints(t, b, hinted, 0)
	empty, err := h.State(ctx)
	require.NoError(t, err)
	require.Equal(t, bus.HintsState{Backend: hinted, MaxBytes: events.HintsMaxBytes, First: 1, Next: 1}, empty)
	records, err := h.Read(ctx, 0, 10)
	require.NoError(t, err)
	require.Empty(t, records)

	before := time.Now().Add(-time.Minute)
	require.NoError(t, h.Append(ctx, parts("a")))
	require.NoError(t, h.Append(ctx, parts("b1", "b2", "b3")))
	same := openHints(t, other, hinted, 0)
	require.NoError(t, same.Append(ctx, parts("c1", "c2")))
	state, err := same.State(ctx)
	require.NoError(t, err)
	require.Equal(t, uint64(6), state.Messages)
	require.Positive(t, state.Bytes)
	require.True(t, state.Oldest.After(before))
	require.Equal(t, [2]uint64{1, 7}, [2]uint64{state.First, state.Next})
	got, last := readAll(t, same, 0, 2)
	require.Equal(t, []string{"a", "b1", "b2", "b3", "c1", "c2"}, got)
	require.Equal(t, uint64(6), last)

	require.NoError(t, h.DeleteThrough(ctx, 2))
	require.NoError(t, h.DeleteThrough(ctx, 2), "again")
	require.NoError(t, h.DeleteThrough(ctx, 1), "less")
	got, _ = readAll(t, same, 0, 100)
	require.Equal(t, []string{"b2", "b3", "c1", "c2"}, got, "what was deleted does not come again")
	got, _ = readAll(t, h, 4, 100)
	require.Equal(t, []string{"c1", "c2"}, got)

	require.ErrorIs(t, b.RemoveHints(ctx, hinted), bus.ErrNotEmpty)
	require.NoError(t, h.Append(ctx, parts("d")), "it is as it was")
	require.NoError(t, h.DeleteThrough(ctx, 7))
	state, err = h.State(ctx)
	require.NoError(t, err)
	require.Equal(t, [3]uint64{0, 8, 8}, [3]uint64{state.Messages, state.First, state.Next}, "sequences are not used twice")
	require.True(t, state.Oldest.IsZero())
	require.NoError(t, h.Append(ctx, parts("e")))
	got, last = readAll(t, same, 0, 100)
	require.Equal(t, []string{"e"}, got)
	require.Equal(t, uint64(8), last)

	second := openHints(t, other, "http://10.0.0.2:8086", 1<<20)
	require.NoError(t, second.Append(ctx, parts("x")))
	all, err := b.ListHints(ctx)
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, hinted, all[0].Backend)
	require.Equal(t, "http://10.0.0.2:8086", all[1].Backend)
	require.Equal(t, int64(1<<20), all[1].MaxBytes)
	require.Equal(t, uint64(1), all[1].Messages)

	require.NoError(t, h.DeleteThrough(ctx, 8))
	require.NoError(t, other.RemoveHints(ctx, hinted))
	require.NoError(t, b.RemoveHints(ctx, hinted), "it is gone")
	_, err = h.State(ctx)
	require.ErrorIs(t, err, bus.ErrNotFound)
	all, err = b.ListHints(ctx)
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.NoError(t, openHints(t, b, hinted, 0).Append(ctx, parts("anew")))
}

func TestHintsRefuseWhatTheyCannotHold(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b, _ := bustest.Start(t)
	h := openHints(t, b, hinted, 256<<10)
	half := bytes.Repeat([]byte("x"), 100<<10)
	require.NoError(t, h.Append(ctx, [][]byte{half}))
	require.ErrorIs(t, h.Append(ctx, [][]byte{half, half}), bus.ErrHintsFull, "all or none")
	state, err := h.State(ctx)
	require.NoError(t, err)
	require.Equal(t, uint64(1), state.Messages)
	require.NoError(t, h.Append(ctx, [][]byte{half}))
	require.ErrorIs(t, h.Append(ctx, [][]byte{half}), bus.ErrHintsFull)
	require.NoError(t, h.DeleteThrough(ctx, 1))
	require.NoError(t, h.Append(ctx, [][]byte{half}), "there is room again")

	require.ErrorIs(t, h.Append(ctx, [][]byte{make([]byte, bus.MaxHintPart+1)}), bus.ErrTooLarge)
	require.Error(t, h.Append(ctx, nil))
	require.Error(t, h.Append(ctx, make([][]byte, bus.MaxBatch+1)))

	// Another bound is taken over; a stream that means something else is not.
	openHints(t, b, hinted, 512<<10)
	state, err = h.State(ctx)
	require.NoError(t, err)
	require.Equal(t, int64(512<<10), state.MaxBytes)
	_, err = b.Hints(ctx, "http://10.0.0.9:8086", 1<<60)
	require.ErrorIs(t, err, bus.ErrNoStorage)
}

// A removal that was cut off half-way does not keep anybody from appending.
func TestHintsOpenAgainAfterARemovalThatWasCutOff(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b, _ := bustest.Start(t)
	h := openHints(t, b, hinted, 0)
	require.NoError(t, h.Append(ctx, parts("a")))
	require.NoError(t, bus.CloseHints(ctx, h))
	all, err := b.ListHints(ctx)
	require.NoError(t, err)
	require.Len(t, all, 1, "it is listed meanwhile")
	require.NoError(t, openHints(t, b, hinted, 0).Append(ctx, parts("b")))
	got, _ := readAll(t, h, 0, 10)
	require.Equal(t, []string{"a", "b"}, got)
}

// appendNumbered appends frames of three parts each until ctx ends, and returns
// those that were acknowledged.
func appendNumbered(ctx context.Context, t *testing.T, h *bus.Hints, name string, rounds int, between time.Duration) []string {
	var acknowledged []string
	for i := range rounds {
		frame := fmt.Sprintf("%s/%03d", name, i)
		var err error
		for range 20 {
			if err = h.Append(ctx, parts(frame+"/0", frame+"/1", frame+"/2")); !errors.Is(err, bus.ErrUnavailable) {
				break
			}
		}
		if err != nil {
			t.Errorf("appending %s: %v", frame, err)
			return acknowledged
		}
		acknowledged = append(acknowledged, frame)
		select {
		case <-time.After(between):
		case <-ctx.Done():
		}
	}
	return acknowledged
}

// requireFrames proves that each acknowledged frame is there once, whole, and behind
// the one that its appender appended before.
func requireFrames(t *testing.T, got []string, acknowledged ...[]string) {
	t.Helper()
	count := 0
	for _, frames := range acknowledged {
		at := -1
		for _, f := range frames {
			i := slices.Index(got, f+"/0")
			require.Greater(t, i, at, "%s", f)
			require.Equal(t, []string{f + "/0", f + "/1", f + "/2"}, got[i:i+3])
			at = i
			count += 3
		}
	}
	require.Len(t, got, count, "nothing twice")
}

// While connections break, what was acknowledged is there once and in order.
func TestHintsOverABreakingConnection(t *testing.T) {
	t.Parallel()
	direct, s := bustest.Start(t)
	way := newFlaky(t, s.URL())
	b := bustest.Connect(t, bus.Options{URL: way.url(), Token: s.Token(), Timeout: patience})
	h := openHints(t, b, hinted, 0)
	breaking, calm := context.WithCancel(t.Context())
	var cutter, workers sync.WaitGroup
	cutter.Go(func() { way.cutAtRandom(breaking) })
	acknowledged := make([][]string, 3)
	for i := range acknowledged {
		workers.Go(func() {
			acknowledged[i] = appendNumbered(t.Context(), t, h, fmt.Sprint(i), 40, 20*time.Millisecond)
		})
	}
	workers.Wait()
	calm()
	cutter.Wait()
	got, _ := readAll(t, openHints(t, direct, hinted, 0), 0, 7)
	requireFrames(t, got, acknowledged...)
}

// The leader of the stream is stopped in the middle, twice.
func TestHintsOutliveALeader(t *testing.T) {
	t.Parallel()
	_, c := bustest.StartCluster(t, 3)
	b := c.Connect(0)
	h := openHints(t, b, hinted, 0)
	var workers sync.WaitGroup
	acknowledged := make([][]string, 2)
	for i := range acknowledged {
		workers.Go(func() {
			acknowledged[i] = appendNumbered(t.Context(), t, h, fmt.Sprint(i), 60, 30*time.Millisecond)
		})
	}
	for range 2 {
		var leader int
		eventually(t, func() bool { leader = c.StreamLeader(events.HintStreamName(hinted)); return leader >= 0 })
		c.StopNode(leader)
		eventually(t, func() bool { return c.StreamLeader(events.HintStreamName(hinted)) >= 0 })
		c.StartNode(leader)
	}
	workers.Wait()
	got, _ := readAll(t, h, 0, 50)
	requireFrames(t, got, acknowledged...)
}

// Replaying from the front stays fast however much lies behind it.
func BenchmarkHints(bench *testing.B) {
	b, _ := bustest.Start(bench)
	h, err := b.Hints(bench.Context(), hinted, 0)
	require.NoError(bench, err)
	part := make([]byte, 100<<10)
	_, _ = rand.Read(part)
	bench.Run("append", func(bench *testing.B) {
		for bench.Loop() {
			require.NoError(bench, h.Append(bench.Context(), [][]byte{part}))
		}
	})
	bench.Run("append3", func(bench *testing.B) {
		for bench.Loop() {
			require.NoError(bench, h.Append(bench.Context(), [][]byte{part, part, part}))
		}
	})
	for range 2000 {
		require.NoError(bench, h.Append(bench.Context(), [][]byte{part}))
	}
	bench.Run("delete", func(bench *testing.B) {
		s, err := h.State(bench.Context())
		require.NoError(bench, err)
		at := s.First
		for bench.Loop() {
			if at+1 >= s.Next {
				bench.Skip("nothing left")
			}
			require.NoError(bench, h.DeleteThrough(bench.Context(), at))
			at++
		}
	})
}
