package replay_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
	"ringmaster/pkg/gateway/replay"
	"ringmaster/pkg/gateway/session"
	"ringmaster/pkg/hint"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/secrets"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

const patience = time.Minute

// site is NATS, the record and real servers, one a circle.
type site struct {
	t        *testing.T
	bus      *bus.Bus
	nats     *bustest.System
	ledger   *ledger.Ledger
	leases   *bus.Leases
	keys     *secrets.Keyring
	topology *topology.Topology
	servers  []*influxtest.Server
}

func newSite(t *testing.T, servers ...*influxtest.Server) *site {
	t.Helper()
	s := &site{t: t, servers: servers}
	s.nats = bustest.StartSystem(t, bus.WithLeaseTTL(2*time.Second))
	s.bus = s.nats.Bus
	var err error
	s.ledger, err = ledger.New(t.Context(), s.bus, ledger.Options{Source: "test"})
	require.NoError(t, err)
	s.leases, err = s.bus.Leases(t.Context())
	require.NoError(t, err)
	s.keys, err = secrets.OpenOrCreate(t.TempDir() + "/key")
	require.NoError(t, err)
	s.topology = &topology.Topology{Epoch: 1, HashKey: "url", ShardKey: "%db,%mm", VNodes: 64}
	for i, server := range servers {
		s.topology.Circles = append(s.topology.Circles, topology.Circle{
			ID: i, Name: fmt.Sprint("c", i), Backends: []topology.Backend{{Name: fmt.Sprint("b", i), URL: server.URL()}},
		})
	}
	sealed, err := s.topology.Seal(s.keys, ledger.SealContext)
	require.NoError(t, err)
	require.NoError(t, s.ledger.StoreTopology(t.Context(), ledger.Versioned[ledger.Epochs]{}, sealed, serving.State{}))
	return s
}

// worker is one process.
type worker struct {
	site    *site
	session *session.Session
	store   *replay.Store
	keeper  *replay.Keeper
	stop    func()
}

func (s *site) start(id string) *worker {
	s.t.Helper()
	se, err := session.Open(s.t.Context(), session.Options{ID: id, Ledger: s.ledger, Leases: s.leases, Sealer: s.keys, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(s.t, err)
	w := &worker{site: s, session: se}
	w.store = replay.NewStore(replay.StoreOptions{Streams: replay.OnBus(s.bus), Session: se, MaxBytes: 64 << 20})
	w.keeper = replay.NewKeeper(replay.Options{
		Session: se, Store: w.store, Leases: replay.LeasesOnBus(s.leases), Letters: s.ledger, ID: id,
		Dial: replay.DialInflux(influx.Options{}), ProbeEvery: 100 * time.Millisecond, Settle: 100 * time.Millisecond, WriteTimeout: 3 * time.Second,
		Restorer: replay.NewCopier(se.View, func(b *topology.Backend) (*influx.Client, error) {
			return influx.New(influx.Endpoint{URL: b.URL}, influx.Options{})
		}),
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = se.Run(ctx) })
	running.Go(func() { _ = w.store.Run(ctx) })
	running.Go(func() { _ = w.keeper.Run(ctx) })
	w.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	s.t.Cleanup(w.stop)
	return w
}

// write writes lines to a backend as a lane does, and returns when they are
// acknowledged.
func (w *worker) write(ctx context.Context, server int, lines string) error {
	s := w.site
	url := s.topology.Circles[server].Backends[0].URL
	c, err := influx.New(influx.Endpoint{URL: url}, influx.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		changed := w.session.Changed()
		mode, end, err := w.session.BeginSend(url)
		switch {
		case err != nil:
			return err
		case mode.Sends():
			sending, cancel := context.WithTimeoutCause(ctx, time.Second, errors.New("no answer in time"))
			err = c.Write(sending, "db", "", []byte(lines))
			cancel()
			end()
			if err == nil {
				return nil
			}
			if err := w.keeper.Suspect(ctx, url, err.Error()); err != nil {
				return err
			}
		case mode.Hints():
			err := w.store.Append(ctx, url, w.frame(server, lines))
			end()
			return err
		default:
			end()
			select {
			case <-changed:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

func (w *worker) frame(circle int, lines string) *hint.Frame {
	return &hint.Frame{
		Epoch: 1, Circles: []int{circle}, Database: "db", Points: strings.Count(lines, "\n"), Lines: []byte(lines), WrittenAt: time.Now(),
	}
}

func (w *worker) await(server int, mode serving.Mode) {
	w.site.t.Helper()
	url := w.site.topology.Circles[server].Backends[0].URL
	require.Eventually(w.site.t, func() bool { return w.session.View().Mode(url) == mode }, patience, 10*time.Millisecond, "mode %s; %+v", mode, w.keeper.Standings())
}

func (s *site) values(server int) (all []string) {
	for _, r := range s.servers[server].Query(`SELECT v FROM db.."m" GROUP BY *`) {
		for _, series := range r.Series {
			for _, row := range series.Values {
				all = append(all, fmt.Sprint(series.Tags["k"], "@", row[0], "=", row[1]))
			}
		}
	}
	return all
}

// A backend is killed under writes, then hangs; one of the processes goes away in
// the middle. In the end it has what was acknowledged last.
func TestReplayToARealServer(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	server := influxtest.Start(t)
	server.Exec("CREATE DATABASE db")
	s := newSite(t, server)
	workers := []*worker{s.start("p0"), s.start("p1")}
	const points = 20
	last := make([]int, points)
	round := 0
	write := func(rounds int) {
		for range rounds {
			round++
			for p := range points {
				require.NoError(t, workers[(p+round)%len(workers)].write(ctx, 0, fmt.Sprintf("m,k=%02d v=%di 7\n", p, round)))
				last[p] = round
			}
		}
	}
	write(3)
	server.Kill()
	write(20)
	workers[0].await(0, serving.Hinting)
	workers[1].stop()
	workers = workers[:1]
	write(2)
	s.nats.Restart(t)
	write(2)
	server.Restart()
	write(2)
	workers[0].await(0, serving.Direct)
	write(1)
	workers = append(workers, s.start("p2"))

	// A server that is stopped has taken what it does not answer, and stores it when
	// it goes on.
	stop, cont := stopSignals(t)
	require.NoError(t, server.Process().Signal(stop))
	write(3)
	require.NoError(t, server.Process().Signal(cont))
	write(1)
	workers[0].await(0, serving.Direct)
	want := make([]string, 0, points)
	for p := range last {
		want = append(want, fmt.Sprintf("%02d@7=%d", p, last[p]))
	}
	require.Equal(t, want, s.values(0))
}

// What the server refuses for good is among the dead letters, with its words; all
// else is stored. A database that it has lost is made again, as the other circle has
// it; one that nobody has is not.
func TestRefusalsOfARealServer(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	lossy, other := influxtest.Start(t), influxtest.Start(t)
	for _, server := range []*influxtest.Server{lossy, other} {
		server.Exec(`CREATE DATABASE db WITH DURATION 100w SHARD DURATION 1w NAME "main"; CREATE RETENTION POLICY "old" ON db DURATION 0s REPLICATION 1 SHARD DURATION 4w`)
	}
	s := newSite(t, lossy, other)
	w := s.start("p0")
	now := time.Now().UnixNano()
	require.NoError(t, w.write(ctx, 0, fmt.Sprintf("m,k=a v=1i %d\n", now)))
	require.NoError(t, w.keeper.Suspect(ctx, lossy.URL(), "for the test"))
	lossy.Kill()
	w.await(0, serving.Hinting)
	add := func(f *hint.Frame) { require.NoError(t, w.store.Append(ctx, lossy.URL(), f)) }
	add(w.frame(0, fmt.Sprintf("m,k=b v=1i %d\nm,k=c v=\"text\" %d\nn,k=d v=2i %d\n", now, now, now)))
	add(w.frame(0, "m,k=e v=3i 1\nm,k=f v=3i 2\n"))
	add(w.frame(0, fmt.Sprintf("m,k=g v=4i %d\n", now)))
	inOld := w.frame(0, "m,k=h v=5i 1\n")
	inOld.RetentionPolicy = "old"
	add(inOld)
	nowhere := w.frame(0, fmt.Sprintf("m,k=i v=6i %d\n", now))
	nowhere.RetentionPolicy = "never"
	add(nowhere)
	unknown := w.frame(0, fmt.Sprintf("m,k=j v=7i %d\n", now))
	unknown.Database = "nobodys"
	add(unknown)
	lossy.Restart()
	lossy.Exec(`DROP RETENTION POLICY "old" ON db`)
	w.await(0, serving.Direct)

	stored := strings.Join(s.values(0), " ")
	for _, k := range []string{"a", "b", "g"} {
		require.Contains(t, stored, k+"@", "%s", stored)
	}
	for _, k := range []string{"c", "e", "f", "i"} {
		require.NotContains(t, stored, k+"@", "%s", stored)
	}
	require.Len(t, lossy.Query(`SELECT v FROM db..n`)[0].Series, 1)
	require.Len(t, lossy.Query(`SELECT v FROM db."old".m`)[0].Series, 1, "the policy was made again")
	policies := fmt.Sprint(lossy.Query("SHOW RETENTION POLICIES ON db"))
	require.Equal(t, fmt.Sprint(other.Query("SHOW RETENTION POLICIES ON db")), policies)

	records, err := s.bus.Log(events.StreamDeadLetters).Page(ctx, 0, events.AllDeadLetters, 100)
	require.NoError(t, err)
	letters := map[string]string{}
	for _, r := range records {
		_, p, err := events.Decode(r.Data)
		require.NoError(t, err)
		refused, ok := p.(events.PointsRefuse)
		require.True(t, ok)
		raw, err := json.Marshal(refused.Circles)
		require.NoError(t, err)
		require.Equal(t, "[0]", string(raw))
		for line := range strings.Lines(string(refused.Lines)) {
			letters[line[4:5]] = refused.Reason
		}
	}
	require.Len(t, letters, 5, "%v", letters)
	require.Contains(t, letters["c"], "field type conflict")
	require.Contains(t, letters["e"], "points beyond retention policy")
	require.Contains(t, letters["f"], "points beyond retention policy")
	require.Contains(t, letters["i"], "retention policy not found")
	require.Contains(t, letters["j"], "database not found")
}

func dialed(t *testing.T, url string) replay.Server {
	t.Helper()
	server, err := replay.DialInflux(influx.Options{})(&topology.Backend{URL: url}, func() error { return nil })
	require.NoError(t, err)
	t.Cleanup(server.Close)
	return server
}

// Only what a server lacks is sent to one that may have newer values.
func TestLacking(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := influxtest.Start(t)
	s.Exec(`CREATE DATABASE db WITH SHARD DURATION 1h NAME "main"`)
	const hour = int64(time.Hour)
	s.WriteLines("db", "", fmt.Sprintf("m,k=a v=1i,w=\"x\" 5\nm v=1i 5\nm,k=a v=true %d\n\"q\\ x\",t\\ g=a\\ b v=1 5\n_odd v=1 5\n", hour+5))
	server := dialed(t, s.URL())
	has := []string{
		"m,k=a v=2i 5", "m v=2i 5", fmt.Sprintf("m,k=a v=false %d", hour+5), `"q\ x",t\ g=a\ b v=3 5`, "_odd v=2 5",
	}
	lacks := []string{
		"m,k=a v=2i 6", "m,k=b v=2i 5", "other v=2i 5", fmt.Sprintf("m,k=a v=2i %d", 2*hour+5), `m,k=a z="a,b c" 5`, "m,k=a,l=a v=2i 5",
	}
	for _, rp := range []string{"", "main"} {
		var lines []string
		for i := range lacks {
			lines = append(lines, lacks[i])
			if i < len(has) {
				lines = append(lines, has[i])
			}
		}
		got, err := server.Lacking(ctx, "db", rp, []byte(strings.Join(lines, "\n")))
		require.NoError(t, err)
		require.Equal(t, strings.Join(lacks, "\n")+"\n", string(got))
	}
	got, err := server.Lacking(ctx, "db", "", []byte("m,k=a v=2i,new=3i,w=\"y\" 5\n"))
	require.NoError(t, err)
	require.Equal(t, "m,k=a new=3i 5\n", string(got), "of a point the fields that it lacks")
	_, err = server.Lacking(ctx, "db", "never", []byte("m v=1 1\n"))
	require.Error(t, err)
	_, err = server.Lacking(ctx, "nobodys", "", []byte("m v=1 1\n"))
	require.Error(t, err)
}

func TestARealServerTellsWhetherItIsBusy(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := influxtest.Start(t)
	server := dialed(t, s.URL())
	require.NoError(t, server.Probe(ctx))
	require.NoError(t, server.Probe(ctx))
	n, err := server.Busy(ctx)
	require.NoError(t, err)
	require.Zero(t, n)
	s.Exec("DROP DATABASE " + influx.ProbeDatabase)
	require.NoError(t, server.Probe(ctx), "somebody has dropped its database")
	s.Kill()
	require.Error(t, server.Probe(ctx))
	_, err = server.Busy(ctx)
	require.Error(t, err)
}
