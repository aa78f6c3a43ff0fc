package ingest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/gateway/ingest"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// fault is what goes wrong with a request: nil is nothing. send does what should
// have been done.
type fault func(ctx context.Context, send func() (influx.Reply, error)) (influx.Reply, error)

// faulty is a backend that does not do what it is told.
type faulty struct {
	mu    sync.Mutex
	next  func(url, db string, points int) fault
	posts map[string]int
	reach bool // whether there are servers behind it
}

func (f *faulty) connect(b *topology.Backend, _ func() error) (ingest.Poster, error) {
	c, err := influx.New(influx.Endpoint{URL: b.URL}, influx.Options{})
	return &faultyPoster{f, b.URL, c}, err
}

type faultyPoster struct {
	faulty *faulty
	url    string
	ingest.Poster
}

func (p *faultyPoster) Post(ctx context.Context, db, rp string, parts [][]byte, compress bool) (influx.Reply, error) {
	p.faulty.mu.Lock()
	if p.faulty.posts == nil {
		p.faulty.posts = map[string]int{}
	}
	p.faulty.posts[p.url]++
	var now fault
	if p.faulty.next != nil {
		now = p.faulty.next(p.url, db, bytes.Count(bytes.Join(parts, nil), []byte("\n")))
	}
	p.faulty.mu.Unlock()
	send := func() (influx.Reply, error) {
		if !p.faulty.reach {
			return influx.Reply{Status: http.StatusNoContent}, nil
		}
		return p.Poster.Post(ctx, db, rp, parts, compress)
	}
	if now == nil {
		return send()
	}
	return now(ctx, send)
}

func (f *faulty) fails(next func(url, db string, points int) fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = next
}

func (f *faulty) count(url string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.posts[url]
}

func refuseConnection(context.Context, func() (influx.Reply, error)) (influx.Reply, error) {
	return influx.Reply{}, fmt.Errorf("writing: %w", syscall.ECONNREFUSED)
}

func loseAnswer(_ context.Context, send func() (influx.Reply, error)) (influx.Reply, error) {
	_, _ = send()
	return influx.Reply{}, fmt.Errorf("writing: %w", syscall.ECONNRESET)
}

func hang(ctx context.Context, _ func() (influx.Reply, error)) (influx.Reply, error) {
	<-ctx.Done()
	return influx.Reply{}, context.Cause(ctx)
}

func says(status int, text string) fault {
	return func(context.Context, func() (influx.Reply, error)) (influx.Reply, error) {
		return influx.Reply{Status: status, Text: text}, nil
	}
}

// blocked is a backend that answers when release is closed.
func blocked(release <-chan struct{}) fault {
	return func(ctx context.Context, send func() (influx.Reply, error)) (influx.Reply, error) {
		select {
		case <-release:
			return send()
		case <-ctx.Done():
			return influx.Reply{}, context.Cause(ctx)
		}
	}
}

// nowhere is a cluster whose servers are only in faulty's mind.
func nowhere() *topology.Topology {
	return cluster([]string{"http://a0", "http://a1"}, []string{"http://b0", "http://b1"})
}

func write(lines string) ingest.Request {
	return ingest.Request{Database: "db", Body: strings.NewReader(lines), Length: int64(len(lines))}
}

func ownerOf(t *testing.T, v *serving.View, measurement string) string {
	t.Helper()
	return v.Writers(nil, "db", measurement)[0].Backend.URL
}

// Acknowledged writes survive whatever goes wrong on the way, with the last value
// that was acknowledged, in every circle.
func TestFaultsLoseAndReorderNothing(t *testing.T) {
	const clients, requests, moments = 8, 40, 3
	f := start(t, 2, 2)
	f.exec(`CREATE DATABASE db`)
	bad := &faulty{reach: true}
	rnd := rand.New(rand.NewPCG(3, 3))
	downFrom := map[string]int{f.urls()[0][1]: 60}
	bad.next = func(url, _ string, _ int) fault {
		if from := downFrom[url]; from > 0 && bad.posts[url] >= from {
			return refuseConnection
		}
		switch rnd.IntN(12) {
		case 0:
			return loseAnswer
		case 1:
			return says(503, "service unavailable")
		case 2:
			return says(500, "timeout")
		default:
			return nil
		}
	}
	r := newRig(t, cluster(f.urls()...), func(o *ingest.Options) { o.Connect = bad.connect })
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			for i := range requests {
				var b strings.Builder
				for m := range 4 {
					fmt.Fprintf(&b, "m%d,c=%d f=%di %d\n", m, c, i, base()+int64(i%moments))
				}
				if i%8 == 3 {
					fmt.Fprintf(&b, "own%d f=%di %d\n", c, i, base())
				}
				if err := r.Write(t.Context(), write(b.String())); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	bad.fails(nil)
	require.NotEmpty(t, r.hints.of(f.urls()[0][1]), "one backend has hints")
	replay(t, r, f)

	var want []string
	for c := range clients {
		for i := requests - moments; i < requests; i++ {
			for m := range 4 {
				want = append(want, fmt.Sprintf("m%dmap[c:%d] time=%d(json.Number) f=%d(json.Number)", m, c, base()+int64(i%moments), i))
			}
		}
	}
	var got []string
	for _, circle := range f.circles {
		got = points(t, "db", circle...)
		for _, w := range want {
			require.Contains(t, got, w)
		}
	}
	require.Equal(t, points(t, "db", f.circles[0]...), got)
}

// replay puts the hints into their backends, in their order.
func replay(t *testing.T, r *rig, f *fleet) {
	t.Helper()
	for _, s := range f.all() {
		for _, frame := range r.hints.of(s.URL()) {
			require.Equal(t, bytes.Count(frame.Lines, []byte("\n")), frame.Points)
			c, err := influx.New(influx.Endpoint{URL: s.URL()}, influx.Options{})
			require.NoError(t, err)
			reply, err := c.Post(t.Context(), frame.Database, frame.RetentionPolicy, [][]byte{frame.Lines}, false)
			require.NoError(t, err)
			require.True(t, reply.Stored(), reply.Text)
			c.Close()
		}
	}
}

func TestABackendThatIsDownGetsHints(t *testing.T) {
	bad := &faulty{}
	r := newRig(t, nowhere(), func(o *ingest.Options) { o.Connect = bad.connect })
	down := ownerOf(t, r.session.View(), "m")
	bad.fails(func(url, _ string, _ int) fault {
		if url == down {
			return refuseConnection
		}
		return nil
	})
	require.NoError(t, r.Write(t.Context(), write("m f=1 1\nm f=2")))
	frames := r.hints.of(down)
	require.Len(t, frames, 1)
	require.Equal(t, "db", frames[0].Database)
	require.Equal(t, uint64(1), frames[0].Epoch)
	require.Equal(t, 2, frames[0].Points)
	require.Equal(t, []int{0}, frames[0].Circles)
	require.Contains(t, string(frames[0].Lines), "m f=1 1\nm f=2 1")
	require.Contains(t, r.keeper.told()[0], "connection refused")

	// From now on nobody asks it.
	before := bad.count(down)
	require.NoError(t, r.Write(t.Context(), write("m f=3 3")))
	require.Equal(t, before, bad.count(down))
	require.Len(t, r.hints.of(down), 2)
	require.EqualValues(t, 3, r.Stats().Hinted)
}

func TestHintsThatAreFullRefuseBeforeAnythingIsSent(t *testing.T) {
	bad := &faulty{}
	r := newRig(t, nowhere(), func(o *ingest.Options) { o.Connect = bad.connect })
	down := ownerOf(t, r.session.View(), "m")
	require.NoError(t, r.session.turn(down, serving.Direct, serving.Suspect, "test"))
	require.NoError(t, r.session.turn(down, serving.Suspect, serving.Hinting, "test"))
	r.hints.err = errors.New("no more than 3 bytes")
	err := r.Write(t.Context(), write("m f=1 1"))
	require.ErrorContains(t, err, "no more than 3 bytes")
	require.Equal(t, 503, status(err))
	require.NotContains(t, err.Error(), "may already be stored")
	require.Empty(t, bad.posts)
	r.hints.err = nil
	require.NoError(t, r.Write(t.Context(), write("m f=1 1")))
}

func status(err error) int {
	if refusal, ok := errors.AsType[*ingest.Refusal](err); ok {
		return refusal.Status
	}
	return 0
}

func TestTimeRunsOutWhileAModeChanges(t *testing.T) {
	bad := &faulty{}
	r := newRig(t, nowhere(), func(o *ingest.Options) { o.Connect, o.Deadline = bad.connect, 200*time.Millisecond })
	down := ownerOf(t, r.session.View(), "m")
	require.NoError(t, r.session.turn(down, serving.Direct, serving.Suspect, "test"))
	err := r.Write(t.Context(), write("m f=1 1"))
	require.Equal(t, 503, status(err))
	require.ErrorContains(t, err, "may already be stored in some circle")
	// What came too late is not sent later.
	require.NoError(t, r.session.turn(down, serving.Suspect, serving.Hinting, "test"))
	require.NoError(t, r.Write(t.Context(), write("m f=2 2")))
	frames := r.hints.of(down)
	require.Len(t, frames, 1)
	require.Equal(t, "m f=2 2\n", string(frames[0].Lines))
}

// A backend that hangs is nobody's business but that of those who write to it.
func TestAHangDelaysNobodyElse(t *testing.T) {
	bad := &faulty{}
	r := newRig(t, cluster([]string{"http://a0", "http://a1"}), func(o *ingest.Options) {
		o.Connect, o.WriteTimeout = bad.connect, 500*time.Millisecond
	})
	hung, free := "", ""
	for i := range 100 {
		m := fmt.Sprint("m", i)
		if ownerOf(t, r.session.View(), m) == "http://a0" {
			hung = m
		} else {
			free = m
		}
	}
	bad.fails(func(url, _ string, _ int) fault {
		if url == "http://a0" {
			return hang
		}
		return nil
	})
	var waiting sync.WaitGroup
	for range 20 {
		waiting.Go(func() {
			if err := r.Write(t.Context(), write(hung+" f=1 1")); err != nil {
				t.Error(err)
			}
		})
	}
	begun := time.Now()
	for range 50 {
		require.NoError(t, r.Write(t.Context(), write(free+" f=1 1")))
	}
	require.Less(t, time.Since(begun), 400*time.Millisecond)
	waiting.Wait()
	total := 0
	for _, f := range r.hints.of("http://a0") {
		total += f.Points
	}
	require.Equal(t, 20, total)
	require.Contains(t, r.keeper.told()[0], "no answer in time")
}

func TestBoundsRefuseAtOnce(t *testing.T) {
	bad, release := &faulty{}, make(chan struct{})
	bad.next = func(string, string, int) fault { return blocked(release) }
	r := newRig(t, cluster([]string{"http://a0"}), func(o *ingest.Options) {
		o.Connect, o.MaxQueued, o.MaxInFlight, o.MaxBody = bad.connect, 3, 1<<20, 600_000
	})
	var waiting sync.WaitGroup
	for range 3 {
		waiting.Go(func() {
			if err := r.Write(t.Context(), write("m f=1 1")); err != nil {
				t.Error(err)
			}
		})
	}
	require.Eventually(t, func() bool { return r.Stats().Backends["http://a0"].Requests == 3 }, 10*time.Second, time.Millisecond)
	err := r.Write(t.Context(), write("m f=1 1"))
	require.Equal(t, 503, status(err))
	require.ErrorContains(t, err, "too many requests wait for backend http://a0")
	err = r.Write(t.Context(), write(strings.Repeat("m f=1 1\n", 70_000)))
	require.Equal(t, 503, status(err))
	require.ErrorContains(t, err, "bytes of writes are under way")
	require.Less(t, r.Stats().InFlight, int64(1<<20))
	close(release)
	waiting.Wait()
	require.EqualValues(t, 2, r.Stats().Overloaded)
}

func TestABackendThatHasLostItsDatabase(t *testing.T) {
	f := start(t, 2, 1)
	f.exec(`CREATE DATABASE db`)
	lost := f.circles[1][0]
	prepared := 0
	prepare := preparer(func(url, db string) error {
		prepared++
		require.Equal(t, lost.URL(), url)
		lost.Exec("CREATE DATABASE " + db)
		return nil
	})
	r := newRig(t, cluster(f.urls()...), func(o *ingest.Options) { o.Preparer = prepare })
	lost.Exec(`DROP DATABASE db`)
	require.NoError(t, r.Write(t.Context(), write("m f=1 1")))
	require.Equal(t, 1, prepared)
	require.Len(t, points(t, "db", lost), 1)

	// Nobody has it.
	f.exec(`DROP DATABASE db`)
	require.Equal(t, 404, status(r.Write(t.Context(), write("m f=1 1"))))
	require.Equal(t, 1, prepared)

	// Nobody can make it again: the backend is suspect.
	f.exec(`CREATE DATABASE db`)
	lost.Exec(`DROP DATABASE db`)
	prepare2 := newRig(t, cluster(f.urls()...))
	require.NoError(t, prepare2.Write(t.Context(), write("m f=1 1")))
	require.Len(t, prepare2.hints.of(lost.URL()), 1)
	require.Contains(t, prepare2.keeper.told()[0], "database not found")
}

type preparer func(url, db string) error

func (p preparer) Prepare(_ context.Context, url, db string) error { return p(url, db) }

func TestQuiesce(t *testing.T) {
	bad, release := &faulty{}, make(chan struct{})
	bad.next = func(string, string, int) fault { return blocked(release) }
	r := newRig(t, nowhere(), func(o *ingest.Options) { o.Connect = bad.connect })
	done := make(chan error, 2)
	go func() { done <- r.Write(t.Context(), write("m f=1 1")) }()
	require.Eventually(t, func() bool { return r.Stats().Groups == 2 }, 10*time.Second, time.Millisecond)

	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	_, err := r.Quiesce(short, "db")
	cancel()
	require.ErrorIs(t, err, context.DeadlineExceeded)

	close(release)
	resume, err := r.Quiesce(t.Context(), "db")
	require.NoError(t, err)
	require.NoError(t, <-done)
	groups := r.Stats().Groups
	go func() { done <- r.Write(t.Context(), write("m f=2 2")) }()
	other := write("m f=1 1")
	other.Database = "elsewhere"
	require.NoError(t, r.Write(t.Context(), other))
	require.Eventually(t, func() bool { return len(r.Stats().Backends) == 2 }, 10*time.Second, time.Millisecond)
	require.Equal(t, groups+2, r.Stats().Groups, "only the other database's")
	resume()
	resume()
	require.NoError(t, <-done)
}

func TestHeldWritesWait(t *testing.T) {
	bad := &faulty{}
	r := newRig(t, nowhere(), func(o *ingest.Options) { o.Connect = bad.connect })
	hold := func(round int, held ...serving.Measurement) {
		require.NoError(t, r.session.change(func(s serving.State) (serving.State, error) {
			return s.WithCopy(serving.Copy{Operation: "op", Circles: []int{1}, Round: round, Hold: held}), nil
		}))
	}
	hold(1, serving.Measurement{Database: "db", RetentionPolicy: "autogen", Name: "held"})
	done := make(chan error, 1)
	go func() { done <- r.Write(t.Context(), write("other f=1 1\nheld f=1 1\nheld f=1 9")) }()
	require.NoError(t, r.Write(t.Context(), write("free f=1 1")))
	select {
	case err := <-done:
		t.Fatal("was not held", err)
	case <-time.After(50 * time.Millisecond):
	}
	hold(2)
	require.NoError(t, <-done)
	var noted []string
	for _, n := range r.session.touched {
		noted = append(noted, fmt.Sprint(n.Circle, n.Measurement.Name, n.From, n.To))
	}
	require.ElementsMatch(t, []string{"1free1 1", "1other1 1", "1held1 9"}, noted)

	// Whoever holds writes has given up by then; they do not fail.
	hold(3, serving.Measurement{Database: "db", Name: "held"})
	began := time.Now()
	require.NoError(t, r.Write(t.Context(), write("held f=1 1")))
	require.GreaterOrEqual(t, time.Since(began), serving.HoldLimit)
}

// Writes wait for a statement that is at work on their database, in any process.
func TestWritesWaitForAStatement(t *testing.T) {
	bad := &faulty{}
	r := newRig(t, nowhere(), func(o *ingest.Options) { o.Connect = bad.connect; o.Deadline = time.Second })
	at := func(e ...serving.Exclusive) {
		require.NoError(t, r.session.change(func(s serving.State) (serving.State, error) {
			s.Exclusive = e
			return s, nil
		}))
	}
	at(serving.Exclusive{ID: "s", Process: "other", Database: "db"})
	err := r.Write(t.Context(), write("m f=1 1"))
	require.Equal(t, 503, status(err))
	require.ErrorContains(t, err, "a statement that removes data")
	other := write("m f=1 1")
	other.Database = "elsewhere"
	require.NoError(t, r.Write(t.Context(), other))
	done := make(chan error, 1)
	go func() { done <- r.Write(t.Context(), write("m f=1 1")) }()
	at()
	require.NoError(t, <-done)
}

func TestAProcessOutsideTheClusterRefuses(t *testing.T) {
	r := newRig(t, nowhere(), func(o *ingest.Options) { o.Connect = (&faulty{}).connect })
	r.session.refuse = errors.New("its session has run out")
	err := r.Write(t.Context(), write("m f=1 1"))
	require.Equal(t, 503, status(err))
	require.ErrorContains(t, err, "its session has run out")
}

func TestWhatWasWrittenWithoutASessionIsNotAcknowledged(t *testing.T) {
	bad := &faulty{}
	bad.fails(func(string, string, int) fault { return refuseConnection })
	r := newRig(t, nowhere(), func(o *ingest.Options) { o.Connect = bad.connect })
	require.NoError(t, r.Write(t.Context(), write("m f=1 1")))
	r.session.lost = errors.New("its session has run out in the meantime")
	err := r.Write(t.Context(), write("m f=1 1"))
	require.Equal(t, 503, status(err))
	require.ErrorContains(t, err, "its session has run out in the meantime; the points may already be stored")
}

func TestForbiddenDatabases(t *testing.T) {
	topo := nowhere()
	topo.Databases = []string{"a", "b"}
	r := newRig(t, topo, func(o *ingest.Options) { o.Connect = (&faulty{}).connect })
	err := r.Write(t.Context(), write("m f=1 1"))
	require.Equal(t, 400, status(err))
	require.EqualError(t, err, "database forbidden: db")
}

// What hangs at a backend that another lane, or another process, has found out is
// given up: everybody waits for it.
func TestASuspectIsGivenUp(t *testing.T) {
	bad := &faulty{next: func(string, string, int) fault { return hang }}
	r := newRig(t, cluster([]string{"http://a0"}), func(o *ingest.Options) {
		o.Connect, o.WriteTimeout, o.Deadline = bad.connect, time.Minute, time.Minute
	})
	done := make(chan error, 1)
	go func() { done <- r.Write(t.Context(), write("m f=1 1")) }()
	require.Eventually(t, func() bool { return bad.count("http://a0") == 1 }, 10*time.Second, time.Millisecond)
	require.NoError(t, r.keeper.Suspect(t.Context(), "http://a0", "another process says so"))
	require.NoError(t, <-done)
	require.Len(t, r.hints.of("http://a0"), 1)
}

// A client that leaves leaves nothing behind, and what it has sent is stored.
func TestAClientThatLeaves(t *testing.T) {
	bad, release := &faulty{}, make(chan struct{})
	bad.next = func(string, string, int) fault { return blocked(release) }
	r := newRig(t, nowhere(), func(o *ingest.Options) { o.Connect = bad.connect })
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Write(ctx, write("m f=1 1")) }()
	require.Eventually(t, func() bool { return r.Stats().Groups == 2 }, 10*time.Second, time.Millisecond)
	leave()
	require.ErrorIs(t, <-done, context.Canceled)
	require.Positive(t, r.Stats().InFlight)
	close(release)
	require.Eventually(t, func() bool { return r.Stats().Points == 2 && r.Stats().InFlight == 0 }, 10*time.Second, time.Millisecond)
}

func TestBodiesThatInflate(t *testing.T) {
	f := start(t, 1, 1)
	f.exec(`CREATE DATABASE db`)
	r := newRig(t, cluster(f.urls()...), func(o *ingest.Options) { o.MaxBody = 100_000 })
	bomb := func(lines int) ingest.Request {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := z.Write(bytes.Repeat([]byte("m f=1 1\n"), lines))
		require.NoError(t, err)
		require.NoError(t, z.Close())
		return ingest.Request{Database: "db", Body: &b, Length: int64(b.Len()), Gzip: true}
	}
	require.NoError(t, r.Write(t.Context(), bomb(200_000/8)))
	require.Equal(t, 413, status(r.Write(t.Context(), bomb(200_000/8+1))))
	require.Equal(t, 413, status(r.Write(t.Context(), bomb(10_000_000))))
	require.Less(t, r.Stats().InFlight, int64(1))
}

// A request that grows beyond what a backend takes, by the times it is given.
func TestARequestThatGrows(t *testing.T) {
	limited := influxtest.Start(t, influxtest.WithArgs("-max-body-size", "1000"))
	limited.Exec(`CREATE DATABASE db`)
	r := newRig(t, cluster([]string{limited.URL()}), func(o *ingest.Options) { o.MaxBody = 1000 })
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, "m,t=%d f=1\n", i)
	}
	require.Greater(t, b.Len(), 900)
	require.NoError(t, r.Write(t.Context(), write(b.String()[:990-990%11])))
	require.Empty(t, r.keeper.told())
	require.Greater(t, len(points(t, "db", limited)), 70)
}

func TestPointsOfTheGatewayItself(t *testing.T) {
	f := start(t, 2, 2)
	f.exec(`CREATE DATABASE db`)
	r := newRig(t, cluster(f.urls()...))
	require.NoError(t, r.WritePoints(t.Context(), "db", "", []byte("m,t=a f=1 1\nn f=2 2\n")))
	require.Len(t, points(t, "db", f.circles[0]...), 2)
	require.Equal(t, points(t, "db", f.circles[0]...), points(t, "db", f.circles[1]...))
	require.Equal(t, 404, status(r.WritePoints(t.Context(), "nope", "", []byte("m f=1 1"))))
}
