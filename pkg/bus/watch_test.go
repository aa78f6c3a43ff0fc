package bus_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
)

func TestServerRestarts(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	inside, s := bustest.Start(t)
	outside := bustest.Connect(t, bus.Options{URL: s.URL(), Token: s.Token()})
	require.NoError(t, s.Frozen())
	k := inside.Bucket(events.BucketOperations)
	revision, err := k.Create(ctx, "a", []byte("1"))
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, s.Restart(ctx))
		for _, b := range []*bus.Bus{inside, outside} {
			revision, err = b.Bucket(events.BucketOperations).Update(ctx, "a", []byte("2"), revision)
			require.NoError(t, err)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, s.Restart(ended), context.Canceled)
	require.NoError(t, inside.Probe(ctx))
}

func TestServerKnowsItsSpace(t *testing.T) {
	t.Parallel()
	_, s := bustest.Start(t)
	require.NoError(t, s.Space(0))
	err := s.Space(1 << 60)
	require.ErrorIs(t, err, bus.ErrNoSpace)
	require.ErrorContains(t, err, "bytes are free in")
}

// A disk that fills up: publishes are not answered any more, and when there is
// space again the server comes back by itself, with everything that it has
// acknowledged.
func TestServerOutlivesAFullDisk(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dir := smallDisk(t, 48<<20)
	s := bustest.StartServer(t, dir)
	b := bustest.Connect(t, bus.Options{Server: s})
	bustest.Apply(t, b)
	h := openHints(t, b, hinted, 0)
	require.NoError(t, s.Space(0))

	ballast := filepath.Join(dir, "ballast")
	require.NoError(t, os.WriteFile(ballast, make([]byte, 30<<20), 0o600))
	part := make([]byte, 700<<10)
	acknowledged := 0
	for {
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := h.Append(short, [][]byte{append(fmt.Appendf(nil, "%04d", acknowledged), part...)})
		cancel()
		if err != nil {
			require.ErrorIs(t, err, bus.ErrUnavailable)
			break
		}
		acknowledged++
		require.Less(t, acknowledged, 100, "the disk does not fill up")
	}
	require.Positive(t, acknowledged)
	require.ErrorIs(t, s.Space(0), bus.ErrNoSpace, "it was to be known before")
	require.ErrorContains(t, s.Frozen(), "write error")

	require.NoError(t, os.Remove(ballast))
	require.NoError(t, s.Space(0))
	eventually(t, func() bool { return s.Frozen() == nil })
	require.NoError(t, h.Append(ctx, parts("after")))
	got, _ := readAll(t, h, 0, 10)
	require.GreaterOrEqual(t, len(got), acknowledged+1)
	for i := range acknowledged {
		require.Equal(t, fmt.Sprintf("%04d", i), got[i][:4])
	}
	require.Equal(t, "after", got[len(got)-1])
}
