package bus_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
)

// forget removes what a limit of the stream would remove: everything before a
// sequence.
func forget(t *testing.T, s *bus.Server, before uint64) {
	t.Helper()
	stream, err := raw(t, s).Stream(t.Context(), events.StreamEvents)
	require.NoError(t, err)
	require.NoError(t, stream.Purge(t.Context(), jetstream.WithPurgeSequence(before)))
}

func TestLogGapBeforeTheStart(t *testing.T) {
	t.Parallel()
	b, s := bustest.Start(t)
	ctx := t.Context()
	l := b.Log(events.StreamEvents)
	for i := range 10 {
		_, err := l.Append(ctx, events.EventSubject("op", "task"), "", text("%d", i))
		require.NoError(t, err)
	}
	forget(t, s, 6)
	first, next, err := l.Bounds(ctx)
	require.NoError(t, err)
	require.Equal(t, []uint64{6, 11}, []uint64{first, next})

	records, err := l.Page(ctx, 3, events.AllEvents, 2)
	var gap *bus.GapError
	require.ErrorAs(t, err, &gap)
	require.Equal(t, bus.GapError{Requested: 3, First: 6}, *gap)
	require.Len(t, records, 2)
	require.EqualValues(t, 6, records[0].Sequence)
	for _, from := range []uint64{0, 6} {
		records, err = l.Page(ctx, from, events.AllEvents, 10)
		require.NoError(t, err)
		require.Len(t, records, 5)
	}

	require.Equal(t, []string{"sequence 3 is gone, the oldest is 6", "6", "7"}, tail(t, l, 3, 3))
	require.Equal(t, []string{"6", "7"}, tail(t, l, 0, 2))
	require.Equal(t, []string{"10"}, tail(t, l, 10, 1))
}

// tail reads n records or gaps.
func tail(t *testing.T, l *bus.Log, from uint64, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var got []string
	for r, err := range l.Tail(ctx, from, events.AllEvents) {
		var gap *bus.GapError
		switch {
		case errors.As(err, &gap):
			got = append(got, gap.Error())
		case err != nil:
			t.Fatal(err)
		default:
			got = append(got, fmt.Sprint(r.Sequence))
		}
		if len(got) == n {
			break
		}
	}
	return got
}

// A reader so slow that the stream's limits overtake it is told, even when
// nothing new comes after.
func TestLogGapWhileReading(t *testing.T) {
	t.Parallel()
	b, s := bustest.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l := b.Log(events.StreamEvents)
	const records = 1500
	for range records {
		_, err := l.Append(ctx, events.EventSubject("op", "task"), "", nil)
		require.NoError(t, err)
	}
	last, gaps := uint64(0), 0
	for r, err := range l.Tail(ctx, 1, events.AllEvents) {
		if gap, ok := errors.AsType[*bus.GapError](err); ok {
			gaps++
			require.Less(t, gap.Requested, gap.First)
			require.EqualValues(t, 1400, gap.First)
			require.EqualValues(t, records, last, "the gap is told a little later")
			break
		}
		require.NoError(t, err)
		if r.Sequence == 1 {
			forget(t, s, 1400)
		}
		last = r.Sequence
	}
	require.Equal(t, 1, gaps)

	// Jumps over other subjects are no gaps.
	start := uint64(records + 1)
	for i := range 20 {
		_, err := l.Append(ctx, events.EventSubject(fmt.Sprint("op-", i%2), "task"), "", text("%d", i))
		require.NoError(t, err)
	}
	n := 0
	for r, err := range l.Tail(ctx, start, events.OperationEvents("op-1")) {
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(2*n+1), string(r.Data))
		if n++; n == 10 {
			break
		}
	}
}
