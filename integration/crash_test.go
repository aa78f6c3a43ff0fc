package integration_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// crashRounds is how often each kind of process is killed: 5 times, or as often in
// each kind of operation as the environment variable CRASH says.
func crashRounds(t testing.TB) int {
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
func crashDice(t testing.TB) *rand.Rand {
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

// disarm keeps the wire from springing; false says that it has sprung already.
func (w *tripwire) disarm() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	armed := w.armed != nil && w.count < w.armed.request
	w.armed = nil
	return armed
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

// crashSite is an installation that survives many rounds: circles of two backends
// and of one, and a backend that has left the first of them.
type crashSite struct {
	*circleSite

	leaver  *backend
	through *harness.Proxy
	wire    *tripwire
	dice    *rand.Rand
	// seen is what an undisturbed operation of each kind comes to, as far as the
	// rounds have shown.
	seen  map[operation.Kind]extent
	round int
}

// extent is how many requests and tasks an operation has.
type extent struct{ requests, tasks int }

func newCrashSite(t *testing.T) *crashSite {
	t.Helper()
	s := &crashSite{
		circleSite: newCircleSite(t, 2, 1), leaver: startBackend(t), wire: &tripwire{}, dice: crashDice(t),
		seen: map[operation.Kind]extent{
			operation.KindRebalance: {75, 8}, operation.KindRecovery: {95, 6},
			operation.KindResync: {140, 14}, operation.KindClear: {95, 4}, operation.KindVerify: {120, 6},
		},
	}
	for i := range s.members {
		for j := range s.members[i] {
			s.wire.watch(s.proxy(i, j))
		}
	}
	s.through = s.leaver.proxied()
	s.wire.watch(s.through)
	s.start()
	return s
}

// servers are all servers, that which has left included.
func (s *crashSite) servers() []*backend { return append(s.all(), s.leaver) }

// crashCase is an operation of one kind, whatever happens meanwhile.
type crashCase struct {
	kind operation.Kind
	// load fills the round's database, whose policies are there.
	load func(s *crashSite, db string)
	// parameters are those of the operation, and want what it makes of what there
	// was.
	parameters func(s *crashSite) map[string]any
	want       func(s *crashSite, before contents) contents
	state      operation.State
	// requireReport, when set, looks at what the operation says it has done.
	requireReport func(s *crashSite, before contents, r *operation.Report)
}

func crashCases() []crashCase {
	return []crashCase{
		{
			kind: operation.KindRebalance, state: operation.Succeeded,
			load: func(s *crashSite, db string) {
				for i, b := range append(s.members[0], s.leaver) {
					s.eachMeasurement(func(m int, rp string, points int) {
						b.write(db, rp, generate(fmt.Sprintf("b%d-m%02d", i, m), points))
					})
				}
			},
			parameters: func(s *crashSite) map[string]any {
				return map[string]any{
					"circle_id": 0, "operation": operation.RebalanceRemove,
					"removed_backends": []harness.Backend{{Name: "leaver", URL: s.through.URL()}},
				}
			},
			want: func(s *crashSite, before contents) contents { return s.rebalanced(before, 0, s.leaver) },
		},
		{
			kind: operation.KindRecovery, state: operation.Succeeded, load: (*crashSite).loadCircles,
			parameters: func(*crashSite) map[string]any { return map[string]any{"from_circle_id": 0, "to_circle_id": 1} },
			want: func(s *crashSite, before contents) contents {
				want, _ := s.recovered(before, 0, 1, everything)
				return want
			},
		},
		{
			kind: operation.KindResync, state: operation.Succeeded, load: (*crashSite).loadCircles,
			parameters: func(*crashSite) map[string]any { return map[string]any{} },
			want: func(s *crashSite, before contents) contents {
				want, _ := s.resynced(before, everything)
				return want
			},
		},
		{
			// One window is not proven, whoever is killed, and stays.
			kind: operation.KindClear, state: operation.PartiallyFailed,
			load: func(s *crashSite, db string) {
				s.eachMeasurement(func(m int, rp string, points int) {
					name := fmt.Sprintf("m%02d", m)
					for _, b := range s.members[0] {
						b.write(db, rp, generate(name, points))
					}
				})
				s.wrongPlace(db, "m03").write(db, "second", fmt.Sprintf("m03,host=h1,zone=z value=-1 %d\n", int64(firstTime)+1))
			},
			parameters: func(*crashSite) map[string]any { return map[string]any{"circle_id": 0} },
			want:       func(s *crashSite, before contents) contents { return s.cleared(before, 0, everything).after },
		},
		{
			// Other values stay, so both circles are not equal in the end.
			kind: operation.KindVerify, state: operation.PartiallyFailed, load: (*crashSite).loadCircles,
			parameters: func(*crashSite) map[string]any {
				return map[string]any{"circle_id": 0, "repair": true, "repair_from": "circle"}
			},
			want: func(s *crashSite, before contents) contents { return s.filled(before, 0, 1) },
			requireReport: func(s *crashSite, before contents, r *operation.Report) {
				want, left := s.compared(before, 0, 1), s.compared(s.filled(before, 0, 1), 0, 1)
				require.Equal(s.t, want, found(r), "whoever was killed, everything counts once")
				require.Equal(s.t, &operation.Repair{From: operation.SideCircle, Copied: want.Missing, Left: left}, r.Repair)
			},
		},
	}
}

// eachMeasurement calls f for each measurement and policy of a round.
func (*crashSite) eachMeasurement(f func(m int, rp string, points int)) {
	for m := range 8 {
		f(m, "first", 1200)
		f(m, "second", 300)
	}
}

// loadCircles gives two circles the same measurements, with gaps and other values
// in both, one that only a wrong place has, and one that only the second circle has.
func (s *crashSite) loadCircles(db string) {
	s.t.Helper()
	s.eachMeasurement(func(m int, rp string, points int) {
		name := fmt.Sprintf("m%02d", m)
		var first, second strings.Builder
		n := 0
		for line := range strings.Lines(generate(name, points)) {
			n++
			if n%9 != m%9 && m < 7 {
				first.WriteString(line)
			}
			switch {
			case m%2 == 0 && m < 6, n%7 == m%7: // lacking, as a whole or here and there
			case n%50 == 0 && m != 6:
				second.WriteString(strings.Replace(line, " value=", " value=-", 1))
			default:
				second.WriteString(line)
			}
		}
		at := s.ownerOf(0, db, name)
		if m == 6 {
			at = s.wrongPlace(db, name)
		}
		at.write(db, rp, first.String())
		s.members[1][0].write(db, rp, second.String())
	})
}

// prepare makes the round's database.
func (s *crashSite) prepare(c *crashCase) string {
	s.t.Helper()
	s.round++
	db := fmt.Sprintf("round%03d", s.round)
	for _, b := range s.servers() {
		b.exec(`CREATE DATABASE ` + db + ` WITH DURATION INF REPLICATION 1 SHARD DURATION 1d NAME first`)
		b.exec(`CREATE RETENTION POLICY second ON ` + db + ` DURATION INF REPLICATION 1 SHARD DURATION 12w`)
	}
	c.load(s, db)
	return db
}

// moment chooses when to kill.
func (s *crashSite) moment(kind operation.Kind) moment {
	e := s.seen[kind]
	m := moment{request: 1 + s.dice.IntN(e.requests*9/10), stage: s.dice.IntN(stages), tasks: -1}
	if s.dice.IntN(4) == 0 {
		m.tasks = s.dice.IntN(e.tasks)
	}
	return m
}

// crash runs one operation and kills at a random moment in it, and then revives;
// it requires that the same operation ends well and that all servers hold, value by
// value, what they have to.
func (s *crashSite) crash(c *crashCase, kill, revive func()) {
	s.t.Helper()
	db := s.prepare(c)
	before := dumpAll(s.servers())
	want := c.want(s, before)
	want[s.leaver.URL()] = before[s.leaver.URL()]
	require.NotEqual(s.t, want, before)
	m := s.moment(c.kind)
	s.t.Logf("round %d: %s, kill %s (it may have %+v)", s.round, c.kind, m, s.seen[c.kind])
	sprung := s.wire.arm(m, kill)
	parameters := c.parameters(s)
	parameters["databases"] = []string{db}
	op, err := s.Client.Submit(s.context(), c.kind, parameters)
	require.NoError(s.t, err)
	s.await(op.ID, m, sprung, kill)
	revive()
	after := s.finish(op.ID, c.state)
	require.Equal(s.t, op.ID, after.ID)
	report := s.report(op.ID)
	require.Equal(s.t, c.state == operation.Succeeded, report.Equal, asJSON(s.t, report))
	requireContents(s.t, want, dumpAll(s.servers()))
	if c.requireReport != nil {
		c.requireReport(s, before, &report)
	}
	tasks := s.tasks(op.ID)
	for _, task := range tasks {
		require.False(s.t, task.State == operation.TaskFailed && c.state == operation.Succeeded, asJSON(s.t, task))
	}
	s.seen[c.kind] = extent{max(s.wire.seen(), 10), max(len(tasks), 1)}
	s.drop(db)
}

// await waits for the moment to kill, or kills at the end of an operation that was
// shorter than thought.
func (s *crashSite) await(id string, m moment, sprung <-chan struct{}, kill func()) {
	s.t.Helper()
	if m.tasks >= 0 {
		s.awaitTasks(id, m.tasks)
		kill()
		return
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(s.context())
	defer cancel()
	go func() {
		_, err := s.Client.Wait(ctx, id, harness.Ended)
		ended <- err
	}()
	select {
	case <-sprung:
		cancel()
		<-ended
	case err := <-ended:
		require.NoError(s.t, err)
		s.t.Logf("it ended with %d requests", s.wire.seen())
		if s.wire.disarm() {
			kill()
			return
		}
		<-sprung
	}
}

// awaitTasks waits until that many tasks have ended, or all of an operation that has
// fewer.
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
		return err == nil && (ended >= n || len(all) > 0 && ended == len(all) && s.over(id))
	}, patience, 5*time.Millisecond, "%d tasks have ended", n)
}

// over reports whether an operation has no tasks to come.
func (s *crashSite) over(id string) bool {
	op, err := s.Client.Operation(context.Background(), id)
	return err == nil && op.State.Terminal()
}

func (s *crashSite) drop(db string) {
	s.t.Helper()
	for _, b := range s.servers() {
		b.exec(`DROP DATABASE ` + db)
	}
}

// rounds crashes operations of all kinds: quickly, as many in turn as rounds are
// asked for, from a kind that depends on who is killed; at length, as many of each.
func (s *crashSite) rounds(offset int, crash func(*crashCase)) {
	s.t.Helper()
	cases := crashCases()
	n := crashRounds(s.t)
	if os.Getenv("CRASH") != "" {
		n *= len(cases)
	}
	for i := range n {
		crash(&cases[(i+offset)%len(cases)])
	}
}

func TestCrashOfAWorker(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t)
	s.rounds(0, func(c *crashCase) {
		s.crash(c, func() { s.Workers[len(s.Workers)-1].Kill() }, func() { s.startWorker() })
	})
}

// TestCrashOfAWorkerThatVerifies: another one goes on where it was, and what is found
// and copied counts once.
func TestCrashOfAWorkerThatVerifies(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t)
	cases := crashCases()
	at := slices.IndexFunc(cases, func(c crashCase) bool { return c.kind == operation.KindVerify })
	for range crashRounds(t) {
		s.crash(&cases[at], func() { s.Workers[len(s.Workers)-1].Kill() }, func() { s.startWorker() })
	}
}

func TestCrashOfTheAPIWithEmbeddedNATS(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t)
	s.rounds(1, func(c *crashCase) {
		s.crash(c, func() { s.API.Kill() }, func() { s.startAPI() })
	})
}

func TestCrashOfTheAPIAndTheWorker(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t)
	s.rounds(2, func(c *crashCase) {
		s.crash(c, func() {
			s.API.Kill()
			s.Workers[len(s.Workers)-1].Kill()
		}, func() {
			s.startAPI()
			s.startWorker()
		})
	})
}

func TestCrashOfABackend(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t)
	s.rounds(3, func(c *crashCase) {
		all := s.servers()
		victim := all[s.dice.IntN(len(all))]
		s.crash(c, victim.Kill, victim.Restart)
	})
}
