package influx_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
)

var errLease = errors.New("the lease is gone")

// The guard is asked before each chunk; what it stops half-way the server
// discards.
func TestGuardStopsAWriteHalfWay(t *testing.T) {
	t.Parallel()
	s := influxtest.Start(t)
	var left atomic.Int64
	c := client(t, s.URL(), influx.Options{Guard: func() error {
		if left.Add(-1) < 0 {
			return errLease
		}
		return nil
	}})
	ctx := t.Context()
	require.NoError(t, c.CreateDatabase(ctx, "d"), "the guard is for writes only")
	batch := bytes.Repeat([]byte("m v=1i 1\n"), 100_000)
	left.Store(1 << 30)
	require.NoError(t, c.Write(ctx, "d", "autogen", []byte("warm v=1i 1\n")))
	left.Store(1 << 30)
	require.NoError(t, c.Write(ctx, "d", "autogen", bytes.ReplaceAll(batch, []byte("m "), []byte("w "))))
	needed := 1<<30 - left.Load()
	require.Greater(t, needed, int64(len(batch)/(64<<10)), "chunks are larger than documented")

	for _, allowed := range []int64{0, 1, 2, needed / 2, needed - 1} {
		left.Store(allowed)
		err := c.Write(ctx, "d", "autogen", batch)
		require.ErrorIs(t, err, influx.ErrGuard, "after %d chunks", allowed)
		require.ErrorIs(t, err, errLease)
		require.ErrorContains(t, err, s.URL())
		require.False(t, influx.IsTransient(err))
		require.Empty(t, read(t, c, everything("d", "autogen", "m")), "after %d chunks", allowed)
	}
	left.Store(needed)
	require.NoError(t, c.Write(ctx, "d", "autogen", batch))
}

// A write that was on its way when the process was stopped sends nothing more
// when it goes on and its lease is gone: here the process is a connection that
// does not take any more.
func TestGuardIsAskedAfterAPause(t *testing.T) {
	t.Parallel()
	var lost atomic.Bool
	begun, goOn := make(chan struct{}), make(chan struct{})
	type arrival struct {
		bytes      int
		begin, end error
	}
	received := make(chan arrival, 1)
	s := fake(t, func(_ http.ResponseWriter, r *http.Request) {
		head, begin := io.ReadFull(r.Body, make([]byte, 1000))
		close(begun)
		<-goOn
		rest, end := io.Copy(io.Discard, r.Body)
		received <- arrival{bytes: head + int(rest), begin: begin, end: end}
	})
	c := client(t, s.URL, influx.Options{Guard: func() error {
		if lost.Load() {
			return errLease
		}
		return nil
	}})
	const size = 64 << 20
	result := make(chan error, 1)
	go func() { result <- c.Write(t.Context(), "d", "rp", make([]byte, size)) }()
	<-begun
	lost.Store(true)
	close(goOn)
	require.ErrorIs(t, <-result, influx.ErrGuard)
	got := <-received
	require.NoError(t, got.begin)
	require.Error(t, got.end, "the body was sent to its end")
	require.Less(t, got.bytes, size)
}

func TestGuardUnderTLS(t *testing.T) {
	t.Parallel()
	var writes atomic.Int64
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			writes.Add(1)
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	defer s.Close()
	var lost atomic.Bool
	roots := s.Client().Transport.(*http.Transport).TLSClientConfig
	c := client(t, s.URL, influx.Options{TLS: roots, Guard: func() error {
		if lost.Load() {
			return errLease
		}
		return nil
	}})
	require.NoError(t, c.Write(t.Context(), "d", "rp", []byte("m v=1 1\n")))
	lost.Store(true)
	require.ErrorIs(t, c.Write(t.Context(), "d", "rp", []byte("m v=2 2\n")), errLease)
	require.EqualValues(t, 1, writes.Load())

	stranger := client(t, s.URL, influx.Options{})
	err := stranger.Write(t.Context(), "d", "rp", []byte("m v=1 1\n"))
	require.ErrorContains(t, err, "certificate")
}

// A batch may be used again as soon as Write has returned, even if the server
// has answered before it took all of it. (The race detector looks on.)
func TestBatchIsFreeAfterWrite(t *testing.T) {
	t.Parallel()
	s := fake(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		w.(http.Flusher).Flush()
	})
	c := client(t, s.URL, influx.Options{Timeout: time.Second})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			batch := make([]byte, 4<<20)
			for i := range 20 {
				_ = c.Write(t.Context(), "d", "rp", batch)
				for j := range batch {
					batch[j] = byte(i)
				}
			}
		})
	}
	wg.Wait()
}
