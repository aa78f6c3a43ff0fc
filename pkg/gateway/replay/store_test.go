package replay_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/gateway/replay"
	"ringmaster/pkg/hint"
	"ringmaster/pkg/serving"
)

// storeOn returns a store of its own on a cluster, without anybody who replays.
func storeOn(c *cluster, change func(*replay.StoreOptions)) (*replay.Store, *fakeSession) {
	s := c.session()
	o := replay.StoreOptions{Streams: c, Session: s, MaxBytes: 10_000, MaxAge: time.Hour, Throttle: time.Second}
	change(&o)
	return replay.NewStore(o), s
}

func incompressible(n int) *hint.Frame {
	lines := make([]byte, n)
	x := uint32(1)
	for i := range lines {
		x = x*1664525 + 1013904223
		lines[i] = byte(x >> 24)
	}
	return &hint.Frame{Database: "db", Lines: lines, WrittenAt: time.Now()}
}

func TestReserve(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		c := newCluster(t, []string{backendURL})
		space := error(nil)
		s, _ := storeOn(c, func(o *replay.StoreOptions) { o.Space = func(int64) error { return space } })
		release, err := s.Reserve(backendURL, 6000)
		require.NoError(t, err)
		_, err = s.Reserve(backendURL, 6000)
		var limit *replay.LimitError
		require.ErrorAs(t, err, &limit)
		require.ErrorIs(t, err, replay.ErrLimit)
		require.Equal(t, replay.BoundBytes, limit.Bound)
		require.EqualError(t, err, "the hints of "+backendURL+" hold 5.9 KiB of 9.8 KiB")
		release()
		release()
		release, err = s.Reserve(backendURL, 6000)
		require.NoError(t, err, "what was released can be reserved")
		release()

		require.NoError(t, s.Append(ctx, backendURL, incompressible(8000)))
		_, err = s.Reserve(backendURL, 3000)
		require.ErrorIs(t, err, replay.ErrLimit, "what was added counts at once")
		require.NoError(t, s.Refresh(ctx))
		_, err = s.Reserve(backendURL, 3000)
		require.ErrorIs(t, err, replay.ErrLimit)
		require.Contains(t, s.Backlogs()[0].Alarm, "of 9.8 KiB are used")
		require.ErrorAs(t, s.Append(ctx, backendURL, incompressible(8000)), &limit)
		require.Equal(t, replay.BoundBytes, limit.Bound, "the stream has the last word")

		<-time.After(61 * time.Minute)
		_, err = s.Reserve(backendURL, 1)
		require.ErrorAs(t, err, &limit)
		require.Equal(t, replay.BoundAge, limit.Bound)
		require.ErrorContains(t, err, "has waited for 1h1m0s, and the limit is 1h0m0s")

		space = &bus.SpaceError{Dir: "/data", Free: 1, MinFree: 2}
		_, err = s.Reserve("http://10.0.0.9:8086", 1)
		require.ErrorAs(t, err, &limit)
		require.Equal(t, replay.BoundSpace, limit.Bound)
		require.ErrorContains(t, err, "1 bytes are free in /data")
		require.ErrorAs(t, s.Append(ctx, backendURL, incompressible(1)), &limit)
		space = errors.New("no such directory")
		_, err = s.Reserve("http://10.0.0.9:8086", 1)
		require.Error(t, err)
		require.NotErrorIs(t, err, replay.ErrLimit)

		require.NoError(t, c.streams[backendURL].DeleteThrough(ctx, 9))
		require.NoError(t, s.Refresh(ctx))
		require.Empty(t, s.Backlogs(), "nothing waits")
		require.ErrorIs(t, s.Append(ctx, backendURL, incompressible(hint.MaxLines+1)), hint.ErrTooLarge)
	})
}

// drainMode puts the backend into draining mode, with nobody who replays.
func drainMode(t *testing.T, c *cluster, s *fakeSession) {
	t.Helper()
	for _, m := range []serving.Mode{serving.Suspect, serving.Hinting, serving.Draining} {
		_, err := s.Change(t.Context(), func(v *serving.View) (serving.State, error) {
			return v.State.WithMode(backendURL, v.State.ModeOf(backendURL), m, "test", time.Now())
		})
		require.NoError(t, err)
	}
}

// While hints are replayed, they grow by half of what is replayed at most, whoever
// adds to them.
func TestWhatIsAddedWaitsForTheReplay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		c := newCluster(t, []string{backendURL})
		s, session := storeOn(c, func(o *replay.StoreOptions) { o.MaxBytes = 1 << 30 })
		for range 500 {
			require.NoError(t, s.Append(ctx, backendURL, incompressible(10)))
		}
		drainMode(t, c, session)
		h := c.streams[backendURL]
		ctx, cancel := context.WithCancel(ctx)
		replaying := make(chan struct{})
		go func() { // 100 a second
			defer close(replaying)
			for ctx.Err() == nil {
				<-time.After(10 * time.Millisecond)
				_ = h.DeleteThrough(ctx, h.first)
			}
		}()
		start, added := time.Now(), 0
		for time.Since(start) < 6*time.Second {
			require.NoError(t, s.Append(ctx, backendURL, incompressible(10)))
			added++
		}
		require.InDelta(t, 550/2, added, 30)
		cancel()
		<-replaying

		// Nothing is replayed any more: what is to be added is refused in the end.
		var err error
		for err == nil {
			err = s.Append(t.Context(), backendURL, incompressible(10))
		}
		var limit *replay.LimitError
		require.ErrorAs(t, err, &limit)
		require.Equal(t, replay.BoundRate, limit.Bound)
		require.ErrorContains(t, err, "hints were added while")
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, s.Append(ended, backendURL, incompressible(10)), context.Canceled)

		// Hinting again: there is no pace to keep.
		_, err = session.Change(t.Context(), func(v *serving.View) (serving.State, error) {
			return v.State.WithMode(backendURL, serving.Draining, serving.Hinting, "again", time.Now())
		})
		require.NoError(t, err)
		require.NoError(t, s.Append(t.Context(), backendURL, incompressible(10)))
	})
}

// The figures follow what other processes do, and alarms come and go.
func TestStoreSeesWhatOthersDo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := newCluster(t, []string{backendURL})
		var log strings.Builder
		mine, _ := storeOn(c, func(o *replay.StoreOptions) { o.Logger = logger(&log) })
		others, _ := storeOn(c, func(*replay.StoreOptions) {})
		done := make(chan struct{})
		go func() { defer close(done); _ = mine.Run(ctx) }()
		require.NoError(t, others.Append(ctx, backendURL, incompressible(7500)))
		<-time.After(20 * time.Second)
		require.Len(t, mine.Backlogs(), 1)
		require.NotEmpty(t, mine.Backlogs()[0].Alarm)
		_, err := mine.Reserve(backendURL, 5000)
		require.ErrorIs(t, err, replay.ErrLimit)
		require.NoError(t, c.streams[backendURL].DeleteThrough(ctx, 1))
		<-time.After(2 * time.Second)
		require.Empty(t, mine.Backlogs())
		cancel()
		<-done
		require.Equal(t, 1, strings.Count(log.String(), "about to reach a bound"))
		require.Equal(t, 1, strings.Count(log.String(), "well within their bounds"))
	})
}

func TestLimitsInWords(t *testing.T) {
	t.Parallel()
	for _, b := range []replay.Bound{replay.BoundBytes, replay.BoundAge, replay.BoundSpace, replay.BoundRate} {
		e := &replay.LimitError{Backend: "http://x", Bound: b, Value: "V", Limit: "L"}
		require.Contains(t, e.Error(), "http://x", fmt.Sprint(b))
		require.Contains(t, e.Error(), "V")
	}
}
