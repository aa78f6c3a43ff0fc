package integration_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/integration/harness"
	"ringmaster/integration/traffic"
	"ringmaster/pkg/operation"
)

// natsBinary is the NATS server, built once when a test first wants it.
var natsBinary = sync.OnceValues(func() (string, error) {
	return harness.BuildNATS(context.Background(), binDir)
})

// startNATS starts three NATS servers with the configuration in deploy/nats.
func startNATS(t testing.TB) *harness.NATS {
	t.Helper()
	binary, err := natsBinary()
	require.NoError(t, err)
	n, err := harness.StartNATS(bounded(t), filepath.Join(t.TempDir(), "nats"), binary)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, n.Close())
		if t.Failed() {
			for i := range n.Nodes {
				raw, err := os.ReadFile(n.LogFile(i))
				t.Logf("NATS server %d printed (%v):\n%s", i, err, raw[max(0, len(raw)-8000):])
			}
		}
	})
	return n
}

// another starts one more gateway on the NATS servers of an installation.
func (in *installation) another(circles ...harness.Circle) *installation {
	in.t.Helper()
	p := install(in.t)
	p.NATS = in.NATS
	p.Settings, p.behind = in.Settings, in.behind
	require.NoError(in.t, p.WriteCircles(circles...))
	require.NoError(in.t, p.StartAPI(in.context(), "-slots", "0", "-key-file", filepath.Join(in.DataDir(), "key")))
	return p
}

// pulse notes the times of requests, so that the longest silence is known.
type pulse struct {
	mu      sync.Mutex
	last    time.Time
	longest time.Duration
	count   int
}

func (p *pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if !p.last.IsZero() {
		p.longest = max(p.longest, now.Sub(p.last))
	}
	p.last = now
	p.count++
}

// silence returns the longest one since it was last asked for, the present one included.
func (p *pulse) silence() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	longest := max(p.longest, time.Since(p.last))
	p.longest = 0
	return longest
}

func (p *pulse) beats() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

// mostDelay is how long a move may stand still because a NATS server was killed.
const mostDelay = 10 * time.Second

// Three NATS servers, two gateways, two workers, and clients that write: each server
// is killed in turn while a circle grows, and with it the leader of every stream, some
// also being followers. Nothing is lost, and nothing stands still for long.
func TestAMoveOutlivesEveryNATSServer(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 3)
	in := install(t)
	if in.NATS == nil {
		in.NATS = startNATS(t)
	}
	n := in.NATS
	var work pulse
	pace := time.NewTicker(400 * time.Millisecond)
	defer pace.Stop()
	var through []harness.Backend
	hurry := newLatch()
	t.Cleanup(hurry.open)
	for i, each := range b {
		p := each.proxied()
		in.behind[p.URL()] = each.URL()
		through = append(through, harness.Backend{Name: []string{"a", "b", "c"}[i], URL: p.URL()})
		p.Handle(func(w http.ResponseWriter, r *http.Request) {
			if harness.IsWrite(r) && strings.HasPrefix(r.URL.Query().Get("db"), "moved") {
				work.beat()
				select {
				case <-pace.C:
				case <-hurry.done:
				}
			}
			p.Forward(w, r)
		})
	}
	before := harness.Circle{Name: "one", Backends: through[:2]}
	require.NoError(t, in.WriteCircles(before))
	long := []string{"-lease", "10s"}
	in.startAPI(long...)
	peer := in.another(before)
	in.startWorker("-slots", "2")
	in.startWorker("-slots", "2")
	in.query("CREATE DATABASE traffic")
	var moved []string
	for d := range 100 { // one write each, at least
		db := fmt.Sprintf("moved-%02d", d)
		moved = append(moved, db)
		for i, each := range b[:2] {
			each.exec(`CREATE DATABASE "` + db + `"`)
			for m := range 6 {
				each.write(db, "", generate(fmt.Sprintf("m%d-%d", i, m), 50))
			}
		}
	}
	tr := traffic.Start(traffic.Options{
		Targets: []string{in.Client.URL, peer.Client.URL}, Database: "traffic", Writers: 2, Measurements: 3, Readers: 1, Batch: 10, Faults: true,
		Begin: time.Now().Add(-20 * 24 * time.Hour), Step: 997 * time.Second, Most: 500, Pause: 20 * time.Millisecond, Seed: 3,
	})
	t.Cleanup(func() { tr.Stop() })

	in.reconfigure(harness.Circle{Name: "one", Backends: through})
	for _, g := range []*installation{in, peer} {
		g.awaitStep(2, 0, "write_both_read_old")
	}
	op := in.rebalanceAdd(0)
	require.True(t, waitFor(t, func() bool { return work.beats() > 3 }))
	work.silence()
	lost := map[string]bool{}
	for node := range n.Nodes {
		streams, err := n.Streams(bounded(t), node)
		require.NoError(t, err)
		led := 0
		for _, s := range streams {
			require.Equal(t, 3, s.Replicas, s.Name)
			if s.Leader == node {
				lost[s.Name], led = true, led+1
			}
		}
		n.Kill(node)
		writes, _, _ := tr.Counts()
		at := work.beats()
		require.True(t, waitFor(t, func() bool {
			w, _, _ := tr.Counts()
			return w > writes+20 && work.beats() > at+3
		}), "nothing goes on without server %d", node)
		delay := work.silence()
		t.Logf("server %d led %d streams; the work stood still for %s at most", node, led, delay)
		require.Less(t, delay, mostDelay)
		require.False(t, in.operation(op.ID).State.Terminal(), "the operation was over too early")
		require.NoError(t, n.Start(node))
		require.NoError(t, n.AwaitReady(bounded(t)))
	}
	for _, name := range everyStream() {
		require.Contains(t, lost, name, "the leader of each stream was killed")
	}
	hurry.open()
	report := in.succeed(op.ID)
	require.NotZero(t, report.Points.Source)
	peer.succeed(op.ID)
	in.awaitStep(2, 0, "")
	require.Empty(t, tr.Stop())
	in.requireMoved(0, b[:2], b, moved...)
	in.requireAcknowledged(tr, "traffic", b)
}

// everyStream is every stream, bucket and object store by the name of its stream.
func everyStream() (names []string) {
	for _, s := range events.Streams() {
		names = append(names, s.Name)
	}
	for _, s := range events.Buckets() {
		names = append(names, "KV_"+s.Name)
	}
	for _, s := range events.ObjectStores() {
		names = append(names, "OBJ_"+s.Name)
	}
	return slices.Sorted(slices.Values(names))
}

func (in *installation) operation(id string) operation.Operation {
	in.t.Helper()
	op, err := in.Client.Operation(in.context(), id)
	require.NoError(in.t, err)
	return op
}
