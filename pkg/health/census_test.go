package health_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/health"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/topology"
)

// statuses says what tests say of backends.
type statuses struct {
	mu sync.Mutex
	by map[string]health.Status
}

func (s *statuses) Backends(context.Context) map[string]health.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.by
}

func (s *statuses) set(by map[string]health.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by = by
}

// clock is a clock that tests set.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// counting is a census at work.
type counting struct {
	*health.Census

	topology *whole
	status   *statuses
	clock    *clock
}

func count(t *testing.T, circles ...topology.Circle) *counting {
	t.Helper()
	for i := range circles {
		circles[i].ID = i
	}
	c := &counting{topology: &whole{}, status: &statuses{}, clock: &clock{}}
	c.topology.Store(&topology.Topology{Epoch: 1, Circles: circles, HashKey: "idx", ShardKey: "%db,%mm", VNodes: 256})
	c.Census = health.NewCensus(c.topology, c.status, health.CensusOptions{
		Clients: health.NewClients(nil, "", influx.Options{Timeout: 10 * time.Second}), Now: c.clock.now, Logger: slog.New(slog.DiscardHandler),
	})
	runs(t, c.Run)
	return c
}

func circle(name string, urls ...string) topology.Circle {
	c := topology.Circle{Name: name}
	for i, u := range urls {
		c.Backends = append(c.Backends, topology.Backend{Name: fmt.Sprintf("%s-%d", name, i), URL: u})
	}
	return c
}

// sum adds the counts of some backends up.
func sum(loads map[string]health.Load, db string, names ...string) (n health.Count) {
	for _, name := range names {
		n.Measurements += loads[name].Databases[db].Measurements
		n.InPlace += loads[name].Databases[db].InPlace
	}
	return n
}

func fill(s *influxtest.Server, db string, measurements int) {
	s.Exec(`CREATE DATABASE "` + db + `"`)
	var lines strings.Builder
	for i := range measurements {
		fmt.Fprintf(&lines, "m%d f=1i 1\n", i)
	}
	s.WriteLines(db, "", lines.String())
}

func TestMeasurementsAreCounted(t *testing.T) {
	t.Parallel()
	a, b := influxtest.Start(t), influxtest.Start(t)
	for _, s := range []*influxtest.Server{a, b} {
		fill(s, "one", 200)
		fill(s, influx.ProbeDatabase, 3)
	}
	fill(b, "two", 10)
	a.Exec(`CREATE DATABASE "empty"`)
	gone := "http://127.0.0.1:1"
	c := count(t, circle("x", a.URL(), b.URL()), circle("y", gone))
	require.Equal(t, "its measurements have not been counted yet", c.Known(t.Context())["x-0"].Error)

	loads := c.Backends(t.Context())
	require.Len(t, loads, 3)
	x0, x1 := loads["x-0"], loads["x-1"]
	require.Empty(t, x0.Error+x1.Error)
	require.Len(t, x0.Databases, 2)
	require.Len(t, x1.Databases, 2)
	require.Equal(t, health.Count{}, x0.Databases["empty"])
	// Both hold everything: what is in its place at one is not at the other.
	require.Equal(t, health.Count{Measurements: 400, InPlace: 200}, sum(loads, "one", "x-0", "x-1"))
	require.Positive(t, x0.Databases["one"].InPlace)
	require.Positive(t, x1.Databases["one"].InPlace)
	placement, err := c.topology.Current().Placement(0)
	require.NoError(t, err)
	own := 0
	for i := range 10 {
		if placement.Owner("two", fmt.Sprintf("m%d", i)).Name == "x-1" {
			own++
		}
	}
	require.Equal(t, health.Count{Measurements: 10, InPlace: own}, x1.Databases["two"])
	require.Nil(t, loads["y-0"].Databases)
	require.Contains(t, loads["y-0"].Error, "could not be counted")
	require.True(t, loads["y-0"].TakenAt.IsZero())
	require.Equal(t, loads, c.Known(t.Context()))

	// Another epoch has other owners: nothing of the old one is shown.
	next := c.topology.Current().Clone()
	next.Epoch, next.Circles = 2, next.Circles[:1]
	next.Circles[0].Backends = next.Circles[0].Backends[:1]
	c.topology.Store(next)
	require.Nil(t, c.Known(t.Context())["x-0"].Databases)
	loads = c.Backends(t.Context())
	require.Len(t, loads, 1)
	require.Equal(t, health.Count{Measurements: 200, InPlace: 200}, loads["x-0"].Databases["one"])
}

// A circle may name a server twice; what lies there is in its place for both.
func TestAServerThatIsNamedTwice(t *testing.T) {
	t.Parallel()
	a := influxtest.Start(t)
	fill(a, "one", 50)
	loads := count(t, circle("x", a.URL(), a.URL()+"/")).Backends(t.Context())
	for _, name := range []string{"x-0", "x-1"} {
		require.Equal(t, health.Count{Measurements: 50, InPlace: 50}, loads[name].Databases["one"], name)
	}
}

// lists answers queries as a server with one database does, and counts the lists of
// databases that it was asked for.
type lists struct {
	*broken

	asked, running atomic.Int64
	overlapped     atomic.Bool
	hold           atomic.Pointer[chan struct{}]
}

func listing(t *testing.T, s *influxtest.Server) *lists {
	t.Helper()
	l := &lists{broken: before(t, s)}
	l.handle(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/query" {
			return false
		}
		body, err := io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		if err != nil || !strings.Contains(string(body), "DATABASES") {
			return false
		}
		l.asked.Add(1)
		if l.running.Add(1) > 1 {
			l.overlapped.Store(true)
		}
		defer l.running.Add(-1)
		if hold := l.hold.Load(); hold != nil {
			select {
			case <-*hold:
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			}
		}
		return false
	})
	return l
}

func TestCountsAreKeptAndTakenAnew(t *testing.T) {
	t.Parallel()
	server := influxtest.Start(t)
	fill(server, "one", 5)
	l := listing(t, server)
	c := count(t, circle("x", l.URL))
	first := c.Backends(t.Context())["x-0"]
	require.Equal(t, 5, first.Databases["one"].Measurements)

	// Fresh ones are kept, however many ask.
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { c.Backends(t.Context()) })
	}
	all.Wait()
	require.Equal(t, int64(1), l.asked.Load())

	// Stale ones are shown at once and taken anew meanwhile, once for all.
	server.WriteLines("one", "", "more f=1i 1")
	hold := make(chan struct{})
	l.hold.Store(&hold)
	c.clock.advance(15 * time.Second)
	for range 20 {
		require.Equal(t, first, c.Backends(t.Context())["x-0"])
	}
	require.Eventually(t, func() bool { return l.asked.Load() == 2 }, patience, tick)
	close(hold)
	require.Eventually(t, func() bool { return c.Known(t.Context())["x-0"].Databases["one"].Measurements == 6 }, patience, tick)
	require.Equal(t, int64(2), l.asked.Load())

	// What is older than a minute is waited for.
	server.WriteLines("one", "", "most f=1i 1")
	c.clock.advance(2 * time.Minute)
	require.Equal(t, 7, c.Backends(t.Context())["x-0"].Databases["one"].Measurements)

	// Until it cannot be had: then the old ones are shown, and why they are old.
	c.clock.advance(2 * time.Minute)
	l.handle(func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, `{"error":"no query today"}`, http.StatusServiceUnavailable)
		return true
	})
	old := c.Backends(t.Context())["x-0"]
	require.Equal(t, 7, old.Databases["one"].Measurements)
	require.Contains(t, old.Error, "no query today")
	require.Greater(t, c.clock.now().Sub(old.TakenAt), 2*time.Minute)
	require.False(t, l.overlapped.Load(), "never two at once")
}

// A backend that is known to be away, or hangs, delays neither the answer nor what
// is told of the others.
func TestABackendThatHangsDelaysNoAnswer(t *testing.T) {
	t.Parallel()
	server := influxtest.Start(t)
	fill(server, "one", 5)
	hangs, away := listing(t, server), listing(t, server)
	hold := make(chan struct{})
	hangs.hold.Store(&hold)
	t.Cleanup(func() { close(hold) })
	c := count(t, circle("x", server.URL(), hangs.URL), circle("y", away.URL))
	c.status.set(map[string]health.Status{away.URL: {CheckedAt: time.Now(), Error: "connection refused"}})

	began := time.Now()
	loads := c.Backends(t.Context())
	require.Less(t, time.Since(began), 2500*time.Millisecond, "half have answered: the other one has a second more")
	require.Equal(t, 5, loads["x-0"].Databases["one"].Measurements)
	require.Contains(t, loads["x-1"].Error, "being counted")
	require.Contains(t, loads["y-0"].Error, "connection refused")
	require.Zero(t, away.asked.Load(), "it is not even asked")

	// From then on nobody waits for it.
	c.clock.advance(4 * time.Second)
	began = time.Now()
	loads = c.Backends(t.Context())
	require.Less(t, time.Since(began), 500*time.Millisecond)
	require.Contains(t, loads["x-1"].Error, "being counted")
	require.Equal(t, int64(1), hangs.asked.Load())

	// A caller who leaves does not wait at all.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	other := count(t, circle("x", hangs.URL))
	began = time.Now()
	other.Backends(gone)
	require.Less(t, time.Since(began), 500*time.Millisecond)
}

// A change of the topology while a backend is being counted throws away what was
// counted by the old one, and counts again.
func TestAnEpochThatEndsWhileItIsCounted(t *testing.T) {
	t.Parallel()
	server := influxtest.Start(t)
	fill(server, "one", 40)
	l := listing(t, server)
	hold := make(chan struct{})
	l.hold.Store(&hold)
	c := count(t, circle("x", l.URL, "http://127.0.0.1:1"))
	asked := make(chan struct{})
	go func() { defer close(asked); c.Backends(context.Background()) }()
	require.Eventually(t, func() bool { return l.asked.Load() == 1 }, patience, tick)
	next := c.topology.Current().Clone()
	next.Epoch = 2
	next.Circles[0].Backends = next.Circles[0].Backends[:1]
	c.topology.Store(next)
	require.NotEmpty(t, func() string {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		return c.Backends(ctx)["x-0"].Error
	}())
	l.hold.Store(nil)
	close(hold)
	<-asked
	require.Eventually(t, func() bool {
		return c.Known(t.Context())["x-0"].Databases["one"] == health.Count{Measurements: 40, InPlace: 40}
	}, patience, tick)
	require.Equal(t, int64(2), l.asked.Load())
	require.False(t, l.overlapped.Load())
}

func TestNothingIsKnownWithoutATopology(t *testing.T) {
	t.Parallel()
	c := count(t)
	c.topology.Store(nil)
	require.Empty(t, c.Backends(t.Context()))
	require.Empty(t, c.Known(t.Context()))
}
