package integration_test

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/integration/traffic"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/operation"
)

// peer starts a second gateway, with a data directory and a configuration of its
// own, on the NATS of the first, at the end of a line.
func (in *installation) peer(circles ...harness.Circle) (*installation, *harness.Line) {
	in.t.Helper()
	return in.peerWith(nil, circles...)
}

// peerWith is peer with further flags.
func (in *installation) peerWith(flags []string, circles ...harness.Circle) (*installation, *harness.Line) {
	in.t.Helper()
	in.embedded()
	file, err := bus.ReadNATSFile(in.DataDir())
	require.NoError(in.t, err)
	u, err := url.Parse(file.URL)
	require.NoError(in.t, err)
	line, err := harness.NewLine(u.Host)
	require.NoError(in.t, err)
	in.t.Cleanup(func() { require.NoError(in.t, line.Close()) })
	p := install(in.t)
	p.Settings, p.behind = in.Settings, in.behind
	require.NoError(in.t, p.WriteCircles(circles...))
	p.startAPI(append(flags, "-nats", "nats://"+file.Token+"@"+line.Address(), "-key-file", in.DataDir()+"/key")...)
	in.t.Cleanup(func() { // or it could not stop in order
		line.Mend()
		_ = p.API.Signal(syscall.SIGCONT)
	})
	return p, line
}

// Clients that write, overwrite and read through both see one cluster, while a
// circle changes, a backend fails and comes back, and leftovers are cleared.
func TestTwoGatewaysOnOneNATSBehaveAsOne(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 4)
	in := install(t)
	in.Settings = map[string]any{"check_interval": 1}
	before := []harness.Circle{circleOf("one", b[0]), circleOf("two", b[3])}
	after := []harness.Circle{circleOf("one", b[0], b[1]), circleOf("two", b[3])}
	require.NoError(t, in.WriteCircles(before...))
	// Nobody is stopped here, and no session runs out on a machine that is busy.
	patient := []string{"-lease", "5s"}
	in.startAPI(patient...)
	in.startWorker()
	peer, _ := in.peerWith(patient, before...)
	both := []*installation{in, peer}
	in.query("CREATE DATABASE traffic")
	tr := traffic.Start(traffic.Options{
		Targets: []string{in.Client.URL, peer.Client.URL}, Database: "traffic", Writers: 4, Measurements: 4, Readers: 3,
		Batch: 15, Begin: time.Now().Add(-20 * 24 * time.Hour), Step: 997 * time.Second, Most: 1500, Pause: 2 * time.Millisecond, Seed: 2,
	})
	stopped := false
	defer func() {
		if !stopped {
			tr.Stop()
		}
	}()
	moves := func() {
		t.Helper()
		writes, _, reads := tr.Counts()
		require.True(t, waitFor(t, func() bool {
			w, _, r := tr.Counts()
			return w >= writes+30 && r >= reads+30
		}), "the clients have come to a halt")
	}
	moves()
	// Only the first is told of the change; both are in it.
	in.reconfigure(after...)
	for _, g := range both {
		g.awaitStep(2, 0, "write_both_read_old")
	}
	moves()
	// The old file says nothing new to the second, and does not take it back.
	require.NoError(t, peer.API.Signal(syscall.SIGHUP))
	require.True(t, waitFor(t, func() bool { return strings.Contains(peer.API.Output(), "that of an earlier epoch") }))
	in.finish(in.rebalanceAdd(0).ID, operation.Succeeded)
	for _, g := range both {
		g.awaitStep(2, 0, "")
	}
	moves()
	in.finish(in.kind(operation.KindClear, map[string]any{"circle_id": 0}).ID, operation.Succeeded)
	moves()
	for _, m := range tr.Measurements() {
		require.Equal(t, in.owner(0, "traffic", m), peer.owner(0, "traffic", m))
	}
	// A backend fails: whoever notices, both keep its points, and one brings them.
	b[0].Kill()
	for _, g := range both {
		g.awaitMode(b[0], "hinting")
	}
	moves()
	b[0].Restart()
	for _, g := range both {
		g.awaitMode(b[0], "direct")
	}
	moves()
	stopped = true
	require.Empty(t, tr.Stop())
	in.requireAcknowledged(tr, "traffic", []*backend{b[0], b[1], b[3]})
}

// A gateway that was stopped and can't renew its session says so to everybody, and
// serves what there is now as soon as it has caught up.
func TestGatewayPastItsSessionRefusesUntilItHasCaughtUp(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 2)
	in := install(t)
	require.NoError(t, in.WriteCircles(circleOf("one", b[0])))
	in.startAPI()
	in.startWorker()
	in.query("CREATE DATABASE db")
	peer, line := in.peer(circleOf("one", b[0]))
	peer.store("db", lateLines("early"))

	line.Cut()
	require.NoError(t, peer.API.Signal(syscall.SIGSTOP))
	in.reconfigure(circleOf("one", b[0], b[1]))
	in.awaitStep(2, 0, "write_both_read_old") // which the second does not hold up for longer than its session
	in.finish(in.rebalanceAdd(0).ID, operation.Succeeded)
	in.awaitStep(2, 0, "")
	require.NoError(t, peer.API.Signal(syscall.SIGCONT))

	const sentence = "its session has run out"
	status, body := peer.writeOnce("db", lateLines("late"))
	require.Equal(t, http.StatusServiceUnavailable, status, body)
	require.Contains(t, body, sentence)
	require.Contains(t, peer.said("db", `SELECT * FROM "early-00"`), sentence)
	require.Contains(t, peer.said("db", `DELETE FROM "early-00"`), sentence)
	require.Contains(t, peer.said("", `CREATE DATABASE other`), sentence)
	for _, each := range b {
		require.NotContains(t, each.databases(), "other")
		for place := range each.dump() {
			require.False(t, strings.HasPrefix(place.Measurement, "late"), "it is written by whoever must not")
		}
	}

	line.Mend()
	peer.store("db", lateLines("late"))
	epoch, _ := peer.circles()
	require.EqualValues(t, 2, epoch)
	in.requireLate("early", b)
	in.requireLate("late", b)
}

// lateCount is how many measurements there are of a kind, enough for every backend.
const lateCount = 40

// lateLines are points of many measurements, which several backends own.
func lateLines(kind string) string {
	var lines strings.Builder
	for i := range lateCount {
		fmt.Fprintf(&lines, "%s-%02d value=%di %d\n", kind, i, i, int64(firstTime))
	}
	return lines.String()
}

// requireLate requires that the owners of today hold the points.
func (in *installation) requireLate(kind string, backends []*backend) {
	in.t.Helper()
	held := map[string]map[harness.Place]harness.Points{}
	for _, b := range backends {
		held[b.URL()] = b.dump()
	}
	owners := map[string]bool{}
	for i := range lateCount {
		m := fmt.Sprintf("%s-%02d", kind, i)
		owner := in.owner(0, "db", m)
		if behind, ok := in.behind[owner]; ok {
			owner = behind
		}
		owners[owner] = true
		require.Len(in.t, held[owner][harness.Place{Database: "db", RetentionPolicy: "autogen", Measurement: m}], 1, "%s is not at %s", m, owner)
	}
	require.Len(in.t, owners, len(backends), "all of them own something")
}

// stoppedGateway is a second gateway that is stopped in the middle of a request to
// the only backend, until a second backend owns half of the data.
type stoppedGateway struct {
	*installation

	peer     *installation
	backends []*backend
	through  *harness.Proxy
	resume   *latch
}

// stopGateway has the second gateway send a request, which is held at the backend by
// match, and stops the gateway there.
func stopGateway(t *testing.T, match func(*http.Request) bool, send func(peer *installation) string) (s *stoppedGateway, answer <-chan string) {
	t.Helper()
	b := startBackends(t, 2)
	s = &stoppedGateway{installation: install(t), backends: b, through: b[0].proxied(), resume: newLatch()}
	s.behind[s.through.URL()] = b[0].URL()
	t.Cleanup(s.resume.open)
	one := harness.Circle{Name: "one", Backends: []harness.Backend{{Name: "first", URL: s.through.URL()}}}
	require.NoError(t, s.WriteCircles(one))
	s.startAPI()
	s.startWorker()
	s.query("CREATE DATABASE db")
	s.store("db", lateLines("early"))
	s.peer, _ = s.installation.peer(one)
	stopped := newLatch()
	s.through.Handle(func(w http.ResponseWriter, r *http.Request) {
		if match(r) && !stopped.opened() {
			if err := s.peer.API.Signal(syscall.SIGSTOP); err != nil {
				t.Errorf("stopping the gateway: %v", err)
			}
			stopped.open()
			s.resume.await(t, "the gateway goes on")
		}
		s.through.Forward(w, r)
	})
	said := make(chan string, 1)
	go func() { said <- send(s.peer) }()
	stopped.await(t, "the second gateway has asked the backend")

	two := one
	two.Backends = append(two.Backends[:1:1], b[1].configured("second"))
	s.reconfigure(two)
	s.awaitStep(2, 0, "write_both_read_old")
	s.finish(s.rebalanceAdd(0).ID, operation.Succeeded)
	s.awaitStep(2, 0, "")
	return s, said
}

// goOn lets the request and the gateway go on.
func (s *stoppedGateway) goOn() {
	s.t.Helper()
	s.resume.open()
	require.NoError(s.t, s.peer.API.Signal(syscall.SIGCONT))
}

func (l *latch) opened() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// A write that a stopped gateway has sent to who was the owner is not acknowledged:
// nobody has waited for it.
func TestWriteOfAGatewayStoppedPastItsSessionIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	s, answer := stopGateway(t, harness.IsWrite, func(peer *installation) string {
		status, body := peer.writeOnce("db", lateLines("late"))
		return fmt.Sprint(status, " ", body)
	})
	s.goOn()
	said := <-answer
	require.Contains(t, said, "503 ")
	require.Contains(t, said, "its session has run out")
	s.peer.store("db", lateLines("late"))
	s.requireLate("late", s.backends)
}

// What a stopped gateway has read from who was the owner is not given out as if it
// were what there is.
func TestReadOfAGatewayStoppedPastItsSessionIsNotGivenOut(t *testing.T) {
	t.Parallel()
	s, answer := stopGateway(t, func(r *http.Request) bool {
		return strings.Contains(harness.Statements(r), "early-00")
	}, func(peer *installation) string {
		return peer.said("db", readLate("early"))
	})
	// Everything is overwritten, half of it at its new owner alone.
	s.store("db", strings.ReplaceAll(lateLines("early"), "i ", "000i "))
	s.goOn()
	require.Contains(t, <-answer, "its session has run out")
	require.True(t, waitFor(t, func() bool { return s.peer.said("db", readLate("early")) == "" }))
	_, now := s.peer.do(http.MethodGet, "/query?"+url.Values{"db": {"db"}, "q": {readLate("early")}}.Encode(), nil, "")
	for i := 1; i < lateCount; i++ {
		require.Contains(t, now, fmt.Sprintf(",%d000]", i))
	}
}

// readLate reads every point of a kind.
func readLate(kind string) string {
	var all []string
	for i := range lateCount {
		all = append(all, fmt.Sprintf("SELECT value FROM \"%s-%02d\"", kind, i))
	}
	return strings.Join(all, "; ")
}

// A gateway that comes back with the file of an earlier epoch serves what all others
// do.
func TestGatewayWithAnOlderFileDoesNotReopenATransition(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 2)
	in := install(t)
	require.NoError(t, in.WriteCircles(circleOf("one", b[0])))
	in.startAPI()
	in.startWorker()
	in.query("CREATE DATABASE db")
	in.store("db", lateLines("early"))
	older, err := os.ReadFile(in.ConfigFile())
	require.NoError(t, err)
	in.reconfigure(circleOf("one", b[0], b[1]))
	in.awaitStep(2, 0, "write_both_read_old")
	in.finish(in.rebalanceAdd(0).ID, operation.Succeeded)
	in.awaitStep(2, 0, "")

	require.NoError(t, os.WriteFile(in.ConfigFile(), older, 0o600))
	peer, _ := in.peer(circleOf("one", b[0])) // one more that has never seen another
	in.API.Kill()
	in.startAPI()
	for _, g := range []*installation{in, peer} {
		require.True(t, waitFor(t, func() bool { return strings.Contains(g.API.Output(), "that of an earlier epoch") }))
		g.store("db", lateLines("late"))
		epoch, circles := g.circles()
		require.EqualValues(t, 2, epoch)
		require.Nil(t, circles[0].Transition)
		require.Len(t, circles[0].Backends, 2)
	}
	in.requireLate("early", b)
	in.requireLate("late", b)
}

// A file with mistakes is not applied, and all of them are told at once.
func TestBadFileOnSIGHUPChangesNothingAndNamesEveryMistake(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 2)
	in := install(t)
	require.NoError(t, in.WriteCircles(circleOf("one", b[0])))
	in.startAPI()
	in.query("CREATE DATABASE db")
	before, circles := in.circles()
	bad := harness.Circle{Name: "one", Backends: []harness.Backend{
		b[0].configured("same"), b[1].configured("same"), {Name: "odd", URL: "ftp://nowhere"}, {Name: "none"},
	}}
	in.reconfigure(bad, harness.Circle{Name: "empty"})
	const refused = "the configuration is wrong and was not applied"
	require.True(t, waitFor(t, func() bool { return strings.Contains(in.API.Output(), refused) }))
	line := ""
	for each := range strings.Lines(in.API.Output()) {
		if strings.Contains(each, refused) {
			line = each
		}
	}
	for _, words := range []string{"backends[1].name", "backends[2].url", "backends[3].url", "circles[1].backends"} {
		require.Contains(t, line, words)
	}
	require.GreaterOrEqual(t, strings.Count(line, in.ConfigFile()+": "), 4, line)
	after, now := in.circles()
	require.Equal(t, before, after)
	require.Equal(t, circles, now)
	in.store("db", lateLines("late"))
	require.NoError(t, os.WriteFile(in.ConfigFile(), []byte("{"), 0o600))
	require.NoError(t, in.API.Signal(syscall.SIGHUP))
	require.True(t, waitFor(t, func() bool { return strings.Count(in.API.Output(), refused) == 2 }))
	in.store("db", lateLines("late"))
	// A good one is applied then.
	in.reconfigure(circleOf("one", b[0], b[1]))
	in.awaitStep(2, 0, "write_both_read_old")
}
