package integration_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// crashRounds is how often each kind of process is killed: 5 times, or as often
// as the environment variable CRASH says.
func crashRounds(t *testing.T) int {
	t.Helper()
	text := os.Getenv("CRASH")
	if text == "" {
		return 5
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, "CRASH is a number of rounds")
	return n
}

// crashDice returns the source of the random moments. CRASH_SEED repeats a run
// that has failed, as far as the machine allows.
func crashDice(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CRASH_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, "CRASH_SEED is a number")
	}
	t.Logf("CRASH_SEED=%d", seed)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the moments of this run: CRASH_SEED=%d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

// moment says when to kill: at the n-th request to a backend (before it gets
// there, or when it is answered and nobody has heard of it, or when half of the
// answer has been heard), or as soon as some tasks have ended.
type moment struct {
	request int
	stage   int
	tasks   int
}

const (
	stageBefore = iota
	stageAnswered
	stageHalf
	stages
)

func (m moment) String() string {
	if m.tasks >= 0 {
		return fmt.Sprintf("when %d tasks have ended", m.tasks)
	}
	return fmt.Sprintf("at request %d, %s", m.request, [stages]string{"before it is sent on", "before its answer is heard", "when half of its answer is heard"}[m.stage])
}

// tripwire counts the requests that go to all backends and kills at the moment
// it is armed for.
type tripwire struct {
	mu     sync.Mutex
	count  int
	armed  *moment
	kill   func()
	sprung chan struct{}
}

// arm starts counting anew. The channel is closed when the wire has sprung.
func (w *tripwire) arm(m moment, kill func()) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count, w.armed, w.kill, w.sprung = 0, &m, kill, make(chan struct{})
	return w.sprung
}

// seen returns how many requests there were since the wire was armed.
func (w *tripwire) seen() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

// step counts a request and returns its stage if it is the one.
func (w *tripwire) step() (stage int, spring func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count++
	if w.armed == nil || w.armed.tasks >= 0 || w.armed.request != w.count {
		return -1, nil
	}
	kill, sprung := w.kill, w.sprung
	return w.armed.stage, func() {
		kill()
		close(sprung)
	}
}

// watch leads the requests through p over the wire.
func (w *tripwire) watch(p *harness.Proxy) {
	p.Handle(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ping" {
			p.Forward(rw, r)
			return
		}
		switch stage, spring := w.step(); stage {
		case stageBefore:
			spring()
			p.Forward(rw, r)
		case stageAnswered:
			res, body, err := p.Fetch(r)
			spring()
			if err != nil {
				harness.Hangup()
			}
			rw.Header().Set("Content-Type", res.Header.Get("Content-Type"))
			rw.WriteHeader(res.StatusCode)
			_, _ = rw.Write(body) // nobody may be there
		case stageHalf:
			defer spring()
			p.CutAnswer(40)(rw, r)
		default:
			p.Forward(rw, r)
		}
	})
}

// crashSite is an installation that survives many rounds: two backends in the
// circle and one that has left it, all of them holding what belongs elsewhere.
type crashSite struct {
	*installation

	backends []*backend
	proxies  []*harness.Proxy
	wire     *tripwire
	dice     *rand.Rand
	// requests is how many one operation makes; it is measured by the rounds.
	requests, tasksOf int
	round             int
}

func newCrashSite(t *testing.T) *crashSite {
	t.Helper()
	s := &crashSite{backends: startBackends(t, 3), wire: &tripwire{}, dice: crashDice(t)}
	for _, b := range s.backends {
		s.proxies = append(s.proxies, b.proxied())
	}
	s.installation = install(t)
	for i, p := range s.proxies {
		s.wire.watch(p)
		s.behind[p.URL()] = s.backends[i].URL()
	}
	require.NoError(t, s.WriteConfigURLs(s.proxies[0].URL(), s.proxies[1].URL()))
	s.startAPI()
	s.startWorker()
	return s
}

// load makes the round's database.
func (s *crashSite) load() string {
	s.t.Helper()
	s.round++
	db := fmt.Sprintf("round%03d", s.round)
	for i, b := range s.backends {
		b.exec(`CREATE DATABASE ` + db + ` WITH DURATION INF REPLICATION 1 SHARD DURATION 1d NAME first`)
		b.exec(`CREATE RETENTION POLICY second ON ` + db + ` DURATION INF REPLICATION 1 SHARD DURATION 12w`)
		for m := range 8 {
			name := fmt.Sprintf("b%d-m%02d", i, m)
			b.write(db, "first", generate(name, 1200))
			b.write(db, "second", generate(name, 300))
		}
	}
	return db
}

// removed is the backend that has left the circle, as a request names it.
func (s *crashSite) removed() []harness.Backend {
	return []harness.Backend{{Name: "leaver", URL: s.proxies[2].URL()}}
}

// crash runs one operation and kills at a random moment in it, and then revives;
// it requires that the same operation ends well and that no point is missing.
func (s *crashSite) crash(kill, revive func()) {
	s.t.Helper()
	db := s.load()
	if s.requests == 0 {
		// An undisturbed run first, to know how many moments there are.
		s.wire.arm(moment{request: -1, tasks: -1}, nil)
		op := s.rebalanceRemove(0, s.removed(), db)
		s.succeed(op.ID)
		s.requests, s.tasksOf = s.wire.seen(), len(s.tasks(op.ID))
		s.requireMoved(0, s.backends, s.backends[:2], db)
		s.drop(db)
		db = s.load()
	}
	m := moment{request: 1 + s.dice.IntN(s.requests*9/10), stage: s.dice.IntN(stages), tasks: -1}
	if s.dice.IntN(4) == 0 {
		m.tasks = s.dice.IntN(s.tasksOf)
	}
	s.t.Logf("round %d: kill %s (an operation has %d requests and %d tasks)", s.round, m, s.requests, s.tasksOf)
	sprung := s.wire.arm(m, kill)
	op := s.rebalanceRemove(0, s.removed(), db)
	if m.tasks >= 0 {
		s.awaitTasks(op.ID, m.tasks)
		kill()
	} else {
		select {
		case <-sprung:
		case <-s.context().Done():
			s.t.Fatalf("the operation made only %d requests", s.wire.seen())
		}
	}
	revive()
	after := s.finish(op.ID, operation.Succeeded)
	require.Equal(s.t, op.ID, after.ID)
	report := s.report(op.ID)
	require.True(s.t, report.Equal, asJSON(s.t, report))
	require.Zero(s.t, report.Slices.Unequal, asJSON(s.t, report))
	s.requireMoved(0, s.backends, s.backends[:2], db)
	s.drop(db)
}

// awaitTasks waits until that many tasks have ended.
func (s *crashSite) awaitTasks(id string, n int) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		all, err := s.Client.Tasks(context.Background(), id)
		ended := 0
		for i := range all {
			if all[i].State.Ended() {
				ended++
			}
		}
		return err == nil && ended >= n
	}, patience, 5*time.Millisecond, "%d tasks have ended", n)
}

func (s *crashSite) drop(db string) {
	s.t.Helper()
	for _, b := range s.backends {
		b.exec(`DROP DATABASE ` + db)
	}
}

func TestCrashOfAWorker(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t)
	for range crashRounds(t) {
		s.crash(func() { s.Workers[len(s.Workers)-1].Kill() }, func() { s.startWorker() })
	}
}

func TestCrashOfTheAPIWithEmbeddedNATS(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t)
	for range crashRounds(t) {
		s.crash(func() { s.API.Kill() }, func() { s.startAPI() })
	}
}

func TestCrashOfTheAPIAndTheWorker(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t)
	for range crashRounds(t) {
		s.crash(func() {
			s.API.Kill()
			s.Workers[len(s.Workers)-1].Kill()
		}, func() {
			s.startAPI()
			s.startWorker()
		})
	}
}

func TestCrashOfABackend(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t)
	for range crashRounds(t) {
		victim := s.backends[s.dice.IntN(len(s.backends))]
		s.crash(victim.Kill, victim.Restart)
	}
}
