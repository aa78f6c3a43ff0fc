package health_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/pkg/health"
	"ringmaster/pkg/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 10 * time.Second
	tick     = 5 * time.Millisecond
)

// known is a topology that tests change.
type known struct {
	mu   sync.Mutex
	urls []string
}

func (k *known) set(urls ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.urls = urls
}

// Current has every backend in two circles.
func (k *known) Current() *topology.Topology {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.urls == nil {
		return nil
	}
	t := &topology.Topology{Circles: make([]topology.Circle, 2)}
	for i := range t.Circles {
		for _, u := range k.urls {
			t.Circles[i].Backends = append(t.Circles[i].Backends, topology.Backend{Name: u, URL: u})
		}
	}
	return t
}

// influxd answers pings with a status that tests change.
type influxd struct {
	*httptest.Server

	status atomic.Int64
	asked  atomic.Int64
}

func start(t *testing.T) *influxd {
	t.Helper()
	s := &influxd{}
	s.status.Store(http.StatusNoContent)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		if status := int(s.status.Load()); status == http.StatusNoContent {
			w.Header().Set("X-Influxdb-Version", "1.8.3")
			w.WriteHeader(status)
		} else {
			http.Error(w, `{"error":"no"}`, status)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// log is a log that several goroutines write.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) lines() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), "backend probed")
}

// run runs a prober until the test or the caller stops it.
func run(t *testing.T, k *known, l *log) (p *health.Prober, stop func()) {
	t.Helper()
	p = health.New(k, health.Options{
		Every: 10 * time.Millisecond, WriteEvery: -1, Logger: slog.New(slog.NewTextHandler(l, nil)),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return p, stop
}

func eventually(t *testing.T, p *health.Prober, url string, wanted func(health.Status) bool) health.Status {
	t.Helper()
	var s health.Status
	require.Eventually(t, func() bool {
		s = p.Backends(t.Context())[url]
		return wanted(s)
	}, patience, tick)
	return s
}

func TestBackendsComeAndGo(t *testing.T) {
	t.Parallel()
	k, l := &known{}, &log{}
	p, _ := run(t, k, l)
	require.Empty(t, p.Backends(t.Context()))
	a, b := start(t), start(t)
	k.set(a.URL, b.URL)
	active := func(s health.Status) bool { return s.Active }
	s := eventually(t, p, a.URL, active)
	require.Equal(t, "1.8.3", s.Version)
	require.Empty(t, s.Error)
	require.False(t, s.CheckedAt.IsZero())
	eventually(t, p, b.URL, active)

	a.status.Store(http.StatusServiceUnavailable)
	s = eventually(t, p, a.URL, func(s health.Status) bool { return !s.Active })
	require.Contains(t, s.Error, "503")
	require.Equal(t, "1.8.3", s.Version, "the last one that it told")
	require.True(t, p.Backends(t.Context())[b.URL].Active)
	told := l.lines()
	require.Equal(t, 3, told, "a change is told once")

	// One that asks for credentials is there.
	a.status.Store(http.StatusUnauthorized)
	eventually(t, p, a.URL, active)

	k.set(b.URL)
	require.Eventually(t, func() bool { return len(p.Backends(t.Context())) == 1 }, patience, tick)
	b.Close()
	s = eventually(t, p, b.URL, func(s health.Status) bool { return !s.Active })
	require.NotEmpty(t, s.Error)
}

// A backend of several circles is one, and one that does not answer keeps no
// other from being asked again and again.
func TestASlowBackendDelaysNoOther(t *testing.T) {
	t.Parallel()
	asked, release := make(chan struct{}, 100), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-release
	}))
	t.Cleanup(slow.Close)
	t.Cleanup(func() { close(release) })
	quick := start(t)
	k := &known{}
	k.set(slow.URL, quick.URL)
	p, stop := run(t, k, &log{})
	<-asked
	eventually(t, p, quick.URL, func(s health.Status) bool { return s.Active })
	require.Eventually(t, func() bool { return quick.asked.Load() > 3 }, patience, tick)
	require.Empty(t, asked, "it was asked once for all circles, and has not answered")
	require.NotContains(t, p.Backends(t.Context()), slow.URL, "nothing is known yet")
	stop() // in the middle of a probe
	require.NotContains(t, p.Backends(t.Context()), slow.URL, "a probe that was cut off says nothing")
}

func TestStartAndStop(t *testing.T) {
	t.Parallel()
	s := start(t)
	k := &known{}
	k.set(s.URL, "http://127.0.0.1:1", "not an address")
	for range 20 {
		p, stop := run(t, k, &log{})
		eventually(t, p, s.URL, func(s health.Status) bool { return s.Active })
		stop()
	}
}

// runs runs a service until the test ends.
func runs(t *testing.T, service func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- service(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
}

func (l *log) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
