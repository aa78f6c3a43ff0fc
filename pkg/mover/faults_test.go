package mover_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/mover"
	"ringmaster/pkg/operation"
)

// gated puts a gate in front of each end.
func gated(t testing.TB, e *env) (source, destination *gate) {
	t.Helper()
	source, destination = newGate(t, e.source.URL()), newGate(t, e.destination.URL())
	e.from, e.to = source.URL, destination.URL
	return source, destination
}

// times lets the first n requests of a kind meet a fault.
func times(n int64, kind func(*asked) bool, f fault) func(*asked) fault {
	var met atomic.Int64
	return func(a *asked) fault {
		if kind(a) && met.Add(1) <= n {
			return f
		}
		return fault{}
	}
}

func writes(a *asked) bool { return a.write }
func reads(a *asked) bool  { return a.points() }
func counts(a *asked) bool {
	return strings.HasPrefix(a.query, "SELECT count") && strings.HasSuffix(a.query, "GROUP BY *")
}

func occupied(a *asked) bool {
	return strings.HasPrefix(a.query, "SELECT *::field") && strings.HasSuffix(a.query, "LIMIT 1") && !strings.Contains(a.query, "ORDER")
}
func schema(a *asked) bool   { return strings.HasPrefix(a.query, "SHOW") }
func policies(a *asked) bool { return strings.Contains(a.query, "RETENTION POLIC") }

// loaded fills the source with what the fault tests move: 6 measurements of 500
// points.
func loaded(e *env) {
	e.source.Exec("CREATE DATABASE db")
	for i := range 6 {
		e.source.WriteLines("db", "", lines(fmt.Sprintf("m%d", i), 5, 100, start, int64(10*time.Minute)))
	}
	e.config.BatchRows, e.config.GroupSlices = 200, 3
}

// TestFaultsThatPass: whatever a backend does for a while, every point arrives
// once, the evidence is exact, and the wait was shown.
func TestFaultsThatPass(t *testing.T) {
	t.Parallel()
	json := func(status int, text string) fault {
		return fault{status: status, text: `{"error":"` + text + `"}`}
	}
	stored := json(500, "timeout")
	stored.stored = true
	later := json(429, "slow down")
	later.header = http.Header{"Retry-After": {"1"}}
	for _, c := range []struct {
		name string
		// source says at which end.
		source bool
		kind   func(*asked) bool
		fault  fault
		// quiet: it is over before anybody has to wait for it.
		quiet bool
		// points: the copy finds what an earlier try has stored.
		points bool
	}{
		{name: "source 500", source: true, kind: reads, fault: json(500, "engine: shard is busy")},
		{name: "source 503", source: true, kind: reads, fault: json(503, "starting")},
		{name: "source 429", source: true, kind: reads, fault: later},
		{name: "source cut at once", source: true, kind: reads, fault: fault{cutAnswer: 1}},
		{name: "source cut later", source: true, kind: reads, fault: fault{cutAnswer: 20_000}, points: true},
		{name: "source silent", source: true, kind: reads, fault: fault{hole: true}},
		{name: "source fails half-way", source: true, kind: reads, fault: fault{midError: 3}, points: true},
		{name: "source without schema", source: true, kind: schema, fault: json(500, "meta is locked")},
		{name: "source does not count", source: true, kind: counts, fault: fault{midError: 1}},
		{name: "destination 500", kind: writes, fault: json(500, "engine: cache full")},
		{name: "destination 503", kind: writes, fault: json(503, "busy"), quiet: true},
		{name: "destination 429", kind: writes, fault: later},
		{name: "destination has stored it", kind: writes, fault: stored, points: true},
		{name: "destination cut in the batch", kind: writes, fault: fault{cutRequest: 3_000}},
		{name: "destination silent", kind: writes, fault: fault{hole: true}},
		{name: "destination hides what it holds", kind: occupied, fault: json(500, "busy")},
		{name: "destination does not count", kind: counts, fault: fault{cutAnswer: 100}},
		{name: "destination cannot be prepared", kind: policies, fault: json(503, "busy")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			loaded(e)
			e.config.Refused, e.config.Unreachable = 20*time.Second, 20*time.Second
			e.options.Timeout = time.Second
			source, destination := gated(t, e)
			g := destination
			if c.source {
				g = source
			}
			var planned []operation.Wait
			e.planned = func(j *job) { planned = append(planned, j.waits...) }
			g.on(times(2, c.kind, c.fault))
			r := e.run()
			require.Empty(t, r.failed)
			require.True(t, r.report.Equal, "%+v", r.report)
			require.Equal(t, 1, r.rounds)
			require.Equal(t, operation.ReportPoints{Source: 3000, Destination: 3000}, r.report.Points)
			require.Equal(t, dump(t, e.source.URL(), "db"), dump(t, e.destination.URL(), "db"))
			var copied, verified int64
			for _, task := range e.tasksOf(operation.PhaseCopy, 1) {
				copied += task.Points.Copied
				for i, s := range task.Checkpoint {
					require.EqualValues(t, 500, s.Rows, "%+v", e.slicesOf(&task)[i])
					require.EqualValues(t, 2000, s.Values)
					require.Zero(t, s.Kept+s.Expired)
					require.LessOrEqual(t, s.Written, s.Rows)
				}
			}
			for _, task := range e.tasksOf(operation.PhaseVerify, 1) {
				verified += task.Points.Verified
			}
			require.EqualValues(t, 3000, copied)
			require.EqualValues(t, 3000, verified)
			if c.points {
				require.Positive(t, r.report.Slices.ByPoints, "counts prove nothing where an earlier try has written")
			}
			waits := append(planned, r.waits...)
			if c.quiet {
				require.Empty(t, waits)
				return
			}
			require.NotEmpty(t, waits)
			w := waits[0]
			require.Equal(t, "backend_answers", w.Gate)
			require.Equal(t, g.URL, w.Backend)
			require.NotEmpty(t, w.Measured)
			require.Equal(t, "given up after 20s", w.Limit)
			require.WithinDuration(t, time.Now(), w.Since, time.Minute)
		})
	}
}

// TestOneThatStaysRefused: one measurement that the destination never takes fails
// alone, with the server's words; all others arrive.
func TestOneThatStaysRefused(t *testing.T) {
	t.Parallel()
	bad := func(a *asked) bool { return a.write && strings.Contains(string(a.body), "m2,") }
	for name, f := range map[string]fault{
		"500": {status: 500, text: `{"error":"engine: shard 7 is read-only"}`},
		"cut": {cutRequest: 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			loaded(e)
			_, destination := gated(t, e)
			destination.on(times(1<<40, bad, f))
			r := e.run()
			require.Len(t, r.failed, 1)
			require.Equal(t, "backend_refuses", r.failed[0].Code)
			if name == "500" {
				require.Contains(t, r.failed[0].Detail, "engine: shard 7 is read-only")
			}
			require.Contains(t, r.failed[0].Detail, destination.URL)
			require.Contains(t, r.failed[0].Detail, "1 of 6 slices")
			require.False(t, r.report.Equal)
			require.Equal(t, operation.SliceTotals{Total: 6, Equal: 5, Unequal: 1}, withoutHow(r.report.Slices))
			require.EqualValues(t, 2500, r.report.Points.Destination)
			require.Equal(t, "m2", r.report.Problems[0].Slice.Measurement)
			require.Equal(t, "backend_refuses", r.report.Problems[0].Code)
			require.Len(t, dump(t, e.destination.URL(), "db"), 2500)

			// Started again when the server is well, it moves what is left.
			destination.on(nil)
			r = e.run()
			require.True(t, r.report.Equal)
			require.Equal(t, dump(t, e.source.URL(), "db"), dump(t, e.destination.URL(), "db"))
		})
	}
}

func withoutHow(s operation.SliceTotals) operation.SliceTotals {
	s.ByCount, s.ByPoints = 0, 0
	return s
}

// TestSourceThatStaysBroken: a slice whose reading always breaks in the middle.
func TestSourceThatStaysBroken(t *testing.T) {
	t.Parallel()
	bad := func(a *asked) bool { return a.points() && strings.Contains(a.query, ".m4 ") }
	e := newEnv(t)
	loaded(e)
	source, _ := gated(t, e)
	source.on(times(1<<40, bad, fault{midError: 2}))
	r := e.run()
	require.Len(t, r.failed, 1)
	require.Equal(t, "backend_refuses", r.failed[0].Code)
	require.Contains(t, r.failed[0].Detail, "query interrupted")
	require.Contains(t, r.failed[0].Detail, source.URL)
	require.Equal(t, operation.SliceTotals{Total: 6, Equal: 5, Unequal: 1}, withoutHow(r.report.Slices))
}

// TestBackendThatIsAway: nobody waits for it anew with each slice or task.
func TestBackendThatIsAway(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	loaded(e)
	e.config.MaxBackoff = time.Minute // so long a verdict of the last one holds
	m := e.mover()
	r := e.copyAll(m)
	require.Empty(t, r.failed)
	e.destination.Kill()
	e.verifyAll(m, &r)
	require.Len(t, r.failed, 1)
	require.Equal(t, "backend_refuses", r.failed[0].Code)
	require.Contains(t, r.failed[0].Detail, e.destination.URL())
	require.NotEmpty(t, r.waits)
	require.Equal(t, "given up after 600ms", r.waits[0].Limit)
	report := e.report(1)
	require.False(t, report.Equal)
	require.Equal(t, operation.SliceTotals{Total: 6, Unequal: 6}, report.Slices)
	require.Equal(t, operation.CodeNotVerified, report.Problems[0].Code)
	require.Contains(t, report.Problems[0].Detail, "6 slices of task c0000 were not verified")

	// A second task does not even ask.
	before := time.Now()
	v := e.tasksOf(operation.PhaseVerify, 1)[0]
	v.State = operation.TaskWaiting
	e.store(v)
	again := result{rounds: 1}
	e.runPhase(m, operation.PhaseVerify, &again)
	require.Len(t, again.failed, 1)
	require.Empty(t, again.waits)
	require.Less(t, time.Since(before), 500*time.Millisecond)

	// It came back: whoever asks next is served, as soon as somebody asks.
	e.destination.Restart()
	e.config.MaxBackoff = 0
	r = e.run()
	require.True(t, r.report.Equal)
}

// TestOutageOfAnHourAgoIsNoOutage: patience begins anew when a backend has
// answered in between.
func TestOutageOfAnHourAgoIsNoOutage(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	loaded(e)
	_, destination := gated(t, e)
	var skew atomic.Int64
	e.config.Now = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
	e.config.Refused = time.Minute
	m := e.mover()
	blip := fault{status: 500, text: `{"error":"blip"}`}
	destination.on(times(1, writes, blip))
	r := e.copyAll(m)
	require.Empty(t, r.failed)
	skew.Store(int64(time.Hour))
	destination.on(times(1, counts, blip))
	e.verifyAll(m, &r)
	require.Empty(t, r.failed)
	require.True(t, e.report(1).Equal)
}

func TestWrongCredentialsAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	loaded(e)
	_, destination := gated(t, e)
	destination.on(times(1<<40, writes, fault{status: 401, text: `{"error":"authorization failed"}`}))
	r := e.run()
	require.Len(t, r.failed, 1)
	require.Equal(t, "backend_refuses", r.failed[0].Code)
	require.Contains(t, r.failed[0].Detail, "authorization failed")
	require.Contains(t, r.failed[0].Detail, "check the credentials")
	require.Empty(t, r.waits)
	require.Equal(t, operation.SliceTotals{Total: 6, Unequal: 6}, r.report.Slices)
	require.LessOrEqual(t, destination.seen(writes), 4, "nor asked for each slice")
}

// TestRealTypeConflict: the owner has the field with another type. The real
// server refuses by a partial write; its words are kept, nothing is replaced, and
// the other fields arrive.
func TestRealTypeConflict(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	loaded(e)
	e.destination.Exec("CREATE DATABASE db")
	e.destination.WriteLines("db", "", fmt.Sprintf("m1,host=own b=\"text\" %d", start))
	r := e.run()
	require.Len(t, r.failed, 1)
	require.Equal(t, "type_conflict", r.failed[0].Code)
	require.Contains(t, r.failed[0].Detail, "field type conflict")
	require.Contains(t, r.failed[0].Detail, `"m1"`)
	require.Equal(t, operation.SliceTotals{Total: 6, Equal: 5, Unequal: 1}, withoutHow(r.report.Slices))
	require.Equal(t, "type_conflict", r.report.Problems[0].Code)
	own := e.destination.Query("SELECT b FROM db..m1 WHERE host = 'own'")
	require.Equal(t, "text", own[0].Series[0].Values[0][1])
	all := e.destination.Query("SELECT count(*) FROM db..m1")
	from := e.source.Query("SELECT count(*) FROM db..m1")
	for i, column := range from[0].Series[0].Columns {
		at := slices.Index(all[0].Series[0].Columns, column)
		if column == "count_b" {
			continue
		}
		require.Equal(t, from[0].Series[0].Values[0][i], all[0].Series[0].Values[0][at], column)
	}
}

// TestLostClaimStopsEverything: by the guard in the middle of a batch, and by a
// refused checkpoint. Neither is a failure of the task.
func TestLostClaimStopsEverything(t *testing.T) {
	t.Parallel()
	lost := fmt.Errorf("taken over: %w", mover.ErrClaimLost)
	t.Run("guard", func(t *testing.T) {
		t.Parallel()
		e := newEnv(t)
		loaded(e)
		var asked atomic.Int64
		m := e.mover()
		plan := e.plan(m)
		require.NoError(t, m.Prepare(t.Context(), &e.operation, &plan, &job{env: e}))
		e.store(operation.Task{ID: "c", Phase: operation.PhaseCopy, Source: e.from, Destination: e.to, Span: &plan.Tasks[0].Span})
		j := &job{env: e, id: "c", guard: func() error {
			if asked.Add(1) > 3 {
				return lost
			}
			return nil
		}}
		require.ErrorIs(t, m.Run(t.Context(), j), mover.ErrClaimLost)
		var own *operation.Error
		require.NotErrorAs(t, m.Run(t.Context(), j), &own, "the task goes on elsewhere")
		require.Less(t, len(dump(t, e.destination.URL(), "db")), 3000)
		require.Empty(t, e.task("c").Checkpoint)
		// Whoever has the task now completes it.
		r := e.run()
		require.True(t, r.report.Equal, "%+v", r.report)
		require.Zero(t, r.report.Different)
	})
	t.Run("checkpoint", func(t *testing.T) {
		t.Parallel()
		e := newEnv(t)
		loaded(e)
		m := e.mover()
		plan := e.plan(m)
		require.NoError(t, m.Prepare(t.Context(), &e.operation, &plan, &job{env: e}))
		e.store(operation.Task{ID: "c", Phase: operation.PhaseCopy, Source: e.from, Destination: e.to, Span: &plan.Tasks[0].Span})
		stored := 0
		j := &job{env: e, id: "c", before: func(*operation.Task) error {
			if stored++; stored > 1 {
				return lost
			}
			return nil
		}}
		require.ErrorIs(t, m.Run(t.Context(), j), mover.ErrClaimLost)
		first := e.task("c")
		require.EqualValues(t, 1500, first.Points.Copied, "the first group of three")
		// The next attempt begins where the checkpoint stands.
		source := newGate(t, e.source.URL())
		first.Source = source.URL
		e.store(first)
		require.NoError(t, m.Run(t.Context(), &job{env: e, id: "c"}))
		require.Equal(t, 1, source.seen(reads), "one group was left")
		points := e.task("c").Points
		require.EqualValues(t, 1500, points.Copied)
		require.EqualValues(t, 1500, points.Unchanged, "what the first attempt has written is found there")
		require.Equal(t, dump(t, e.source.URL(), "db"), dump(t, e.destination.URL(), "db"))
	})
}

// TestVerificationThatCannotRead: a slice that cannot be compared is told, its
// task fails, and the others are judged.
func TestVerificationThatCannotRead(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	loaded(e)
	e.parameter["depth"] = "digest"
	_, destination := gated(t, e)
	m := e.mover()
	r := e.copyAll(m)
	bad := func(a *asked) bool { return a.points() && strings.Contains(a.query, ".m5 ") }
	destination.on(times(1<<40, bad, fault{midError: 1}))
	e.verifyAll(m, &r)
	require.Len(t, r.failed, 1)
	require.Equal(t, operation.CodeNotVerified, r.failed[0].Code)
	report := e.report(1)
	require.False(t, report.Equal)
	require.Equal(t, operation.SliceTotals{Total: 6, Equal: 5, Unequal: 1, ByPoints: 5}, report.Slices)
	require.Equal(t, operation.CodeNotVerified, report.Problems[0].Code)
	require.Contains(t, report.Problems[0].Detail, "query interrupted")
}

// TestNoInfluxDB: something else answers at the address.
func TestNoInfluxDB(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	loaded(e)
	e.options.Timeout = time.Second
	m := e.mover()
	plan := e.plan(m)
	require.NoError(t, m.Prepare(t.Context(), &e.operation, &plan, &job{env: e}))
	other := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	e.store(operation.Task{ID: "c", Phase: operation.PhaseCopy, Source: other.URL, Destination: e.to, Span: &plan.Tasks[0].Span})
	var own *operation.Error
	require.ErrorAs(t, m.Run(t.Context(), &job{env: e, id: "c"}), &own)
	require.Contains(t, own.Detail, "6 of 6 slices were not copied")
	require.Contains(t, own.Detail, "404")
}

func TestUnknownPhase(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.operation = operation.Operation{ID: "op"}
	e.store(operation.Task{ID: "c", Phase: "dance", Source: e.from, Destination: e.to})
	var own *operation.Error
	require.ErrorAs(t, e.mover().Run(t.Context(), &job{env: e, id: "c"}), &own)
	require.Equal(t, "unknown_phase", own.Code)
}

// TestSourceThatTakesNoWrites is read all the same.
func TestSourceThatTakesNoWrites(t *testing.T) {
	t.Parallel()
	for _, status := range []int{403, 404, 405, 500, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			loaded(e)
			source, _ := gated(t, e)
			source.on(times(1<<40, writes, fault{status: status, text: `{"error":"read only"}`}))
			e.requireMoved("db")
		})
	}
}

// TestSourceIsNotWrittenTo: what asks for its abilities leaves nothing there.
func TestSourceIsNotWrittenTo(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	loaded(e)
	source, _ := gated(t, e)
	before := dump(t, e.source.URL(), "db")
	e.requireMoved("db")
	require.Equal(t, before, dump(t, e.source.URL(), "db"))
	require.Equal(t, 1, source.seen(writes), "once a process")
}
