package integration_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/integration/traffic"
)

// The tests of this file kill, stop, cut off and fill up what serves clients that
// write numbered points and overwrite them, and require at the end that every point
// that was acknowledged is in every circle, with the last value that was, and that
// what was deleted is nowhere.

// durableDB is what the clients write to.
const durableDB = "numbers"

// durable is an installation of two circles, and its clients.
type durable struct {
	*installation

	backends []*backend
	dice     *rand.Rand
	traffic  *traffic.Traffic
	gateways []*installation
	// doomed are the measurements that are to be deleted, gone those that were.
	doomed, gone []string
	round        int
	// end stops the clients.
	end func() []string
}

// newDurable starts four servers; nothing of ours runs yet.
func newDurable(t *testing.T) *durable {
	t.Helper()
	s := &durable{backends: startBackends(t, 4), installation: install(t), dice: crashDice(t)}
	s.Settings = map[string]any{"check_interval": 1}
	s.gateways = []*installation{s.installation}
	require.NoError(t, s.WriteCircles(s.configured()...))
	return s
}

func (s *durable) configured() []harness.Circle {
	return []harness.Circle{circleOf("one", s.backends[:2]...), circleOf("two", s.backends[2:]...)}
}

// begin starts the gateway, if that has not been done, and the clients.
func (s *durable) begin() {
	s.t.Helper()
	if s.API == nil {
		s.startAPI()
	}
	s.query("CREATE DATABASE " + durableDB)
	var targets []string
	for _, g := range s.gateways {
		targets = append(targets, g.Client.URL)
	}
	s.traffic = traffic.Start(traffic.Options{
		Targets: targets, Database: durableDB, Writers: 4, Measurements: 3, Readers: 2, Batch: 12,
		Begin: time.Now().Add(-10 * 24 * time.Hour), Step: 1009 * time.Second, Most: 500,
		Pause: 3 * time.Millisecond, Faults: true, Seed: s.dice.Uint64(),
	})
	ended := false
	s.t.Cleanup(func() {
		if !ended {
			s.traffic.Stop()
		}
	})
	s.end = func() []string {
		ended = true
		return s.traffic.Stop()
	}
}

// peer starts a second gateway, at the end of a line.
func (s *durable) peer() (*installation, *harness.Line) {
	s.t.Helper()
	p, line := s.installation.peer(s.configured()...)
	s.gateways = append(s.gateways, p)
	return p, line
}

// writes waits until the clients have so many writes more acknowledged.
func (s *durable) writes(n int) {
	s.t.Helper()
	before, _, _ := s.traffic.Counts()
	require.True(s.t, waitFor(s.t, func() bool {
		now, _, _ := s.traffic.Counts()
		return now >= before+n
	}), "the clients have come to a halt")
}

// whatever happens within a time that the dice choose.
func (s *durable) passes(most time.Duration) {
	timer := time.NewTimer(time.Duration(s.dice.Int64N(int64(most))))
	defer timer.Stop()
	<-timer.C
}

// one of the backends.
func (s *durable) victim() *backend { return s.backends[s.dice.IntN(len(s.backends))] }

// mode is how a backend gets its points, as a gateway shows it.
func (in *installation) mode(b *backend) string {
	in.t.Helper()
	_, circles := in.circles()
	for _, c := range circles {
		for _, shown := range c.Backends {
			if in.behind[shown.URL] == b.URL() || shown.URL == b.URL() {
				return shown.Mode
			}
		}
	}
	in.t.Fatalf("%s is in no circle", b.URL())
	return ""
}

// awaitMode waits until a backend is in one of these modes.
func (in *installation) awaitMode(b *backend, modes ...string) {
	in.t.Helper()
	last := ""
	require.True(in.t, waitFor(in.t, func() bool {
		last = in.mode(b)
		return slices.Contains(modes, last)
	}), "%s is %s and does not become %v", b.URL(), last, modes)
}

// writeOnce sends lines once.
func (in *installation) writeOnce(db, lines string) (status int, body string) {
	in.t.Helper()
	res, body := in.do(http.MethodPost, "/write?db="+db, nil, lines)
	return res.StatusCode, body
}

// store sends lines until they are acknowledged.
func (in *installation) store(db, lines string) {
	in.t.Helper()
	last := ""
	require.True(in.t, waitFor(in.t, func() bool {
		status, body := in.writeOnce(db, lines)
		last = fmt.Sprint(status, " ", body)
		return status == http.StatusNoContent
	}), "it is not acknowledged: %s", last)
}

// said is the error in the answer to a statement, "" if there is none.
func (in *installation) said(db, statement string) string {
	in.t.Helper()
	res, body := in.do(http.MethodPost, "/query", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
		url.Values{"db": {db}, "q": {statement}}.Encode())
	if res.StatusCode != http.StatusOK || strings.Contains(body, `"error"`) {
		return fmt.Sprint(res.StatusCode, " ", body)
	}
	return ""
}

// doom has points written that are to be deleted later: whatever keeps them for a
// backend until then must not bring them back.
func (s *durable) doom() string {
	s.t.Helper()
	name := fmt.Sprintf("doomed-%d-%d", s.round, len(s.doomed))
	var lines strings.Builder
	for i := range 20 {
		fmt.Fprintf(&lines, "%s value=%di %d\n", name, i, time.Now().Add(-time.Duration(i)*24*time.Hour/2).UnixNano())
	}
	s.store(durableDB, lines.String())
	s.doomed = append(s.doomed, name)
	return name
}

// remove deletes what is doomed, which is possible as soon as nothing waits for
// anybody.
func (s *durable) remove() {
	s.t.Helper()
	for _, name := range s.doomed {
		statement := fmt.Sprintf("DELETE FROM %q", name)
		if len(s.gone)%2 == 1 {
			statement = fmt.Sprintf("DROP MEASUREMENT %q", name)
		}
		last := ""
		require.True(s.t, waitFor(s.t, func() bool {
			last = s.said(durableDB, statement)
			return last == ""
		}), "%s is refused: %s", statement, last)
		s.gone = append(s.gone, name)
	}
	s.doomed = nil
	s.requireGone()
}

// requireGone requires that nothing has come back.
func (s *durable) requireGone() {
	s.t.Helper()
	if len(s.gone) == 0 {
		return
	}
	for _, b := range s.backends {
		for _, result := range b.Query(`SHOW MEASUREMENTS ON ` + durableDB) {
			for _, series := range result.Series {
				for _, row := range series.Values {
					require.NotContains(s.t, s.gone, row[0], "%s", b.URL())
				}
			}
		}
	}
}

// requireRefused requires that nothing is deleted while a backend can't take it, and
// that the answer says which.
func (s *durable) requireRefused(down *backend) {
	s.t.Helper()
	name := s.doom()
	said := s.said(durableDB, fmt.Sprintf("DELETE FROM %q", name))
	require.Contains(s.t, said, down.URL())
	require.Contains(s.t, said, "nothing was done")
}

// heal waits until all backends get their points directly, and clients write and
// read through every gateway.
func (s *durable) heal() {
	s.t.Helper()
	for _, g := range s.gateways {
		for _, b := range s.backends {
			g.awaitMode(b, "direct")
		}
		require.True(s.t, waitFor(s.t, func() bool {
			status, _ := g.writeOnce(durableDB, "healed value=1i 1\n")
			return status == http.StatusNoContent
		}))
	}
	s.writes(10)
	_, _, before := s.traffic.Counts()
	require.True(s.t, waitFor(s.t, func() bool {
		_, _, reads := s.traffic.Counts()
		return reads >= before+3
	}), "nothing can be read any more")
}

// rounds runs rounds of faults, and looks at everything at the end.
func (s *durable) rounds(fault func()) {
	s.t.Helper()
	for s.round = range crashRounds(s.t) {
		s.writes(1 + s.dice.IntN(30))
		fault()
		s.heal()
		s.remove()
	}
	require.Empty(s.t, s.end())
	writes, failures, reads := s.traffic.Counts()
	s.t.Logf("%d writes, %d failures, %d reads", writes, failures, reads)
	s.requireAcknowledged(s.traffic, durableDB, s.backends)
	s.requireGone()
}

func TestCrashOfTheGatewayUnderWrites(t *testing.T) {
	t.Parallel()
	s := newDurable(t)
	s.begin()
	s.rounds(func() {
		s.doom()
		s.API.Kill()
		s.startAPI()
	})
}

func TestCrashOfABackendUnderWrites(t *testing.T) {
	t.Parallel()
	s := newDurable(t)
	s.begin()
	s.rounds(func() {
		down := s.victim()
		down.Kill()
		s.awaitMode(down, "hinting")
		s.requireRefused(down)
		s.writes(1 + s.dice.IntN(60))
		down.Restart()
		if s.dice.IntN(3) == 0 { // again, perhaps in the middle of what it had missed
			s.passes(2 * time.Second)
			down.Kill()
			s.writes(1 + s.dice.IntN(10))
			down.Restart()
		}
	})
}

func TestCrashOfTheGatewayAndABackendUnderWrites(t *testing.T) {
	t.Parallel()
	s := newDurable(t)
	s.begin()
	s.rounds(func() {
		down := s.victim()
		down.Kill()
		if s.dice.IntN(2) == 0 {
			s.awaitMode(down, "hinting")
			s.doom()
			s.writes(1 + s.dice.IntN(40))
		}
		s.API.Kill()
		if s.dice.IntN(2) == 0 {
			s.startAPI()
			s.requireRefused(down)
			s.writes(1 + s.dice.IntN(20))
			down.Restart()
			// And once more while what was missed is being brought back.
			s.passes(3 * time.Second)
			s.API.Kill()
			s.startAPI()
			return
		}
		down.Restart()
		s.startAPI()
	})
}

// Two gateways are cut off from one another, in three ways; a backend may fail
// meanwhile, of which the one without NATS can't tell anybody.
func TestCrashOfTheLineBetweenTwoGatewaysUnderWrites(t *testing.T) {
	t.Parallel()
	s := newDurable(t)
	s.startAPI()
	peer, line := s.peer()
	s.begin()
	s.rounds(func() {
		s.doom()
		how := s.dice.IntN(3)
		switch how {
		case 0:
			line.Cut()
		case 1:
			line.Break()
		default:
			require.NoError(t, peer.API.Signal(syscall.SIGSTOP))
		}
		var down *backend
		if s.dice.IntN(2) == 0 {
			down = s.victim()
			down.Kill()
			s.awaitMode(down, "hinting")
			s.writes(1 + s.dice.IntN(20))
		}
		s.passes(3 * time.Second)
		if down != nil && s.dice.IntN(2) == 0 {
			down.Restart()
			s.passes(3 * time.Second)
			down = nil
		}
		line.Mend()
		require.NoError(t, peer.API.Signal(syscall.SIGCONT))
		if down != nil {
			s.writes(1 + s.dice.IntN(20))
			down.Restart()
		}
	})
}
