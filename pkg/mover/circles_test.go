package mover_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/operation"
)

// What circles may disagree about besides values: policies, shard groups, servers.

// policiesOf returns the policies of db, by name.
func policiesOf(t *testing.T, s *influxtest.Server) map[string]influx.RetentionPolicy {
	t.Helper()
	c, err := influx.New(influx.Endpoint{URL: s.URL()}, influx.Options{})
	require.NoError(t, err)
	defer c.Close()
	all, err := c.RetentionPolicies(t.Context(), "db")
	require.NoError(t, err)
	out := map[string]influx.RetentionPolicy{}
	for _, p := range all {
		out[p.Name] = p
	}
	return out
}

// TestPoliciesOfACircleStayItsOwn: neither the default, where clients write that
// name no policy, nor the length of shards goes over to another circle that has
// points already.
func TestPoliciesOfACircleStayItsOwn(t *testing.T) {
	t.Parallel()
	e, s := newCircles(t, operation.KindResync, 1, 1)
	for i, shards := range []string{"1d", "30d"} {
		s[i][0].Exec("CREATE DATABASE db; CREATE RETENTION POLICY rp ON db DURATION INF REPLICATION 1 SHARD DURATION " + shards)
		s[i][0].WriteLines("db", "rp", fmt.Sprintf("only%d v=1i 1", i))
	}
	s[1][0].Exec("ALTER RETENTION POLICY rp ON db DEFAULT")
	before := []map[string]influx.RetentionPolicy{policiesOf(t, s[0][0]), policiesOf(t, s[1][0])}
	r := e.run()
	require.Empty(t, r.failed)
	require.True(t, r.report.Equal)
	for i := range 2 {
		require.Equal(t, before[i], policiesOf(t, s[i][0]), "circle %d", i)
	}
	require.Equal(t, dump(t, s[0][0].URL(), "db"), dump(t, s[1][0].URL(), "db"))
}

// TestShardsOfOtherLengthsKeepOneValueAPoint: a value that is replaced where the
// destination has shorter shards is not there twice afterwards, and a type that a
// shard does not take is not taken for stored.
func TestShardsOfOtherLengthsKeepOneValueAPoint(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind  operation.Kind
		held  string
		equal bool
	}{
		{operation.KindRecovery, "m v=2 %d", true},
		{operation.KindResync, "m v=2 %d", true},
		{operation.KindRecovery, "m v=1i %d", false},
		{operation.KindRecovery, `m v="text" %d`, false},
		{operation.KindResync, "m v=true %d", false},
	} {
		t.Run(string(c.kind)+" "+c.held, func(t *testing.T) {
			t.Parallel()
			e, s := newCircles(t, c.kind, 1, 1)
			if c.kind == operation.KindRecovery {
				e.parameter = map[string]any{"from_circle_id": 0, "to_circle_id": 1}
			}
			s[0][0].Exec("CREATE DATABASE db; CREATE RETENTION POLICY rp ON db DURATION INF REPLICATION 1 SHARD DURATION 7d DEFAULT")
			s[1][0].Exec("CREATE DATABASE db; CREATE RETENTION POLICY rp ON db DURATION INF REPLICATION 1 SHARD DURATION 1d DEFAULT")
			for i := range int64(5) {
				s[0][0].WriteLines("db", "rp", fmt.Sprintf("m v=1 %d", start-i*day))
			}
			s[1][0].WriteLines("db", "rp", fmt.Sprintf(c.held, start-day))
			r := e.run()
			require.Equal(t, c.equal, r.report.Equal, "%+v", r.report)
			if c.equal {
				require.Equal(t, dump(t, s[0][0].URL(), "db"), dump(t, s[1][0].URL(), "db"))
				return
			}
			require.Len(t, r.failed, 1)
			require.Contains(t, dump(t, s[1][0].URL(), "db"), "rp "+fmt.Sprintf(c.held, start-day)+"\n", "what cannot be merged stays")
		})
	}
}

// TestResyncOfShardsOfOtherLengths converges, whichever circle has which.
func TestResyncOfShardsOfOtherLengths(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 77))
			e, s := newCircles(t, operation.KindResync, 1, 1, 1)
			shards := []string{"1d", "7d", "30d"}
			rng.Shuffle(3, func(i, j int) { shards[i], shards[j] = shards[j], shards[i] })
			held, want := make([]cells, 3), cells{}
			for i := range held {
				held[i] = cells{}
			}
			for n := range 150 {
				at := cell{
					policy: "rp", measurement: fmt.Sprintf("m%d", rng.IntN(3)), host: fmt.Sprintf("h%d", rng.IntN(2)),
					field: string(rune('a' + rng.IntN(2))), at: start + int64(rng.IntN(12))*day + int64(rng.IntN(2)),
				}
				held[rng.IntN(3)][at] = fmt.Sprintf("%di", n)
			}
			for i := range held {
				s[i][0].Exec("CREATE DATABASE db; CREATE RETENTION POLICY rp ON db DURATION INF REPLICATION 1 SHARD DURATION " + shards[i])
				var lines strings.Builder
				for at, v := range held[i] {
					fmt.Fprintf(&lines, "%s,host=%s %s=%s %d\n", at.measurement, at.host, at.field, v, at.at)
				}
				s[i][0].WriteLines("db", "rp", lines.String())
				want.fillFrom(held[i])
			}
			r := e.run()
			require.Empty(t, r.failed)
			for i := range s {
				require.Empty(t, want.unlike(cellsOf(t, s[i][0], "db")), "circle %d, %s", i, shards[i])
			}
			r = e.run()
			require.Equal(t, r.report.Slices.Total, r.report.Unchanged.Slices)
			require.Zero(t, r.report.Replaced)
		})
	}
}

// TestRetentionTakesPointsWhileTheyAreJoined: what either end does not admit any
// more is expired, and nothing is wrong.
func TestRetentionTakesPointsWhileTheyAreJoined(t *testing.T) {
	t.Parallel()
	for holder := range 2 {
		t.Run(fmt.Sprintf("circle %d has it", holder), func(t *testing.T) {
			t.Parallel()
			e, s := newCircles(t, operation.KindResync, 1, 1)
			now := time.Now()
			for i := range 2 {
				s[i][0].Exec("CREATE DATABASE db; CREATE RETENTION POLICY rp ON db DURATION INF REPLICATION 1 SHARD DURATION 7d DEFAULT")
				s[i][0].WriteLines("db", "rp", fmt.Sprintf("m v=1i %d", now.Add(-time.Hour).UnixNano()))
			}
			s[holder][0].WriteLines("db", "rp", fmt.Sprintf("m v=1i %d", now.Add(-7*24*time.Hour-10*time.Minute).UnixNano()))
			for i := range 2 {
				s[i][0].Exec("ALTER RETENTION POLICY rp ON db DURATION 7d")
			}
			// Planned an hour ago, when the point was still admitted.
			planned := false
			e.config.Now = func() time.Time {
				if planned {
					return time.Now()
				}
				return time.Now().Add(-time.Hour)
			}
			e.watch = func(*job) { planned = true }
			r := e.run()
			require.Empty(t, r.failed)
			require.Zero(t, r.report.Slices.Unequal, "%+v", r.report)
			require.EqualValues(t, 1, r.report.Expired)
		})
	}
}

// TestRecoveryOfOneBackendNeedsNoOther of its circle.
func TestRecoveryOfOneBackendNeedsNoOther(t *testing.T) {
	t.Parallel()
	e, s := newCircles(t, operation.KindRecovery, 1, 1)
	e.circles[1] = append(e.circles[1], "http://127.0.0.1:1")
	e.parameter = map[string]any{"from_circle_id": 0, "to_circle_id": 1, "backend_urls": []string{s[1][0].URL()}}
	s[0][0].Exec("CREATE DATABASE db")
	for i := range 8 {
		s[0][0].WriteLines("db", "", fmt.Sprintf("m%d v=1i 1", i))
	}
	require.NotEmpty(t, e.plan(e.mover()).Tasks)
}

// TestAClearLeavesTheCopiesOfOtherCircles: what is a leftover in one circle may lie
// where it belongs in another, and two clears must not prove against each other.
func TestAClearLeavesTheCopiesOfOtherCircles(t *testing.T) {
	t.Parallel()
	e, s := newCircles(t, operation.KindClear, 2)
	a, b := s[0][0], s[0][1]
	// Circle 1 is the same servers in the other order, one of them under another
	// address.
	e.circles = append(e.circles, []string{b.URL(), strings.Replace(a.URL(), "127.0.0.1", "localhost", 1)})
	for _, server := range []*influxtest.Server{a, b} {
		server.Exec("CREATE DATABASE db")
		for i := range 10 {
			server.WriteLines("db", "", fmt.Sprintf("m%d v=1i 1", i))
		}
	}
	for circle := range 2 {
		e.parameter = map[string]any{"circle_id": circle}
		plan := e.plan(e.mover())
		require.Empty(t, plan.Tasks, "circle %d: %+v", circle, plan.Measurements)
		require.Len(t, plan.Backends, 2)
	}
}

// TestWhatIsSettledIsCountedOnce, and to its end, however the copy is interrupted
// and whatever it settles beside.
func TestWhatIsSettledIsCountedOnce(t *testing.T) {
	t.Parallel()
	recovery := func(t *testing.T, from, to string) (*env, [][]*influxtest.Server) {
		t.Helper()
		e, s := newCircles(t, operation.KindRecovery, 1, 1)
		e.parameter = map[string]any{"from_circle_id": 0, "to_circle_id": 1}
		for i, lines := range []string{from, to} {
			s[i][0].Exec("CREATE DATABASE db")
			s[i][0].WriteLines("db", "", lines)
		}
		return e, s
	}
	t.Run("stopped after it was noted, with counts", func(t *testing.T) {
		t.Parallel()
		e, s := recovery(t, "m v=1i 1\nm v=1i 2\nm v=1i 3", "m v=2i 1\nm v=2i 2")
		e.parameter["depth"] = operation.DepthCount
		stopped := false
		e.watch = func(j *job) {
			j.before = func(task *operation.Task) error {
				if stopped || !slices.ContainsFunc(task.Checkpoint, func(v operation.Evidence) bool { return v.State == operation.SliceCompared }) {
					return nil
				}
				stopped = true
				e.store(*task) // it is on record, and the process dies
				return errStopped
			}
		}
		r := e.run()
		require.True(t, stopped)
		require.EqualValues(t, 2, r.report.Replaced)
		require.Equal(t, dump(t, s[0][0].URL(), "db"), dump(t, s[1][0].URL(), "db"))
	})
	t.Run("copied a second time", func(t *testing.T) {
		t.Parallel()
		e, s := recovery(t, "m v=0i 1\nm v=0i 2", "m v=1i 1\nm v=1i 2")
		wrote := false
		e.watch = func(j *job) {
			if j.Task().Phase == operation.PhaseVerify && !wrote {
				wrote = true
				s[0][0].WriteLines("db", "", "m v=7i 3")
			}
		}
		r := e.run()
		require.Equal(t, 2, r.rounds)
		require.True(t, r.report.Equal)
		require.EqualValues(t, 2, r.report.Replaced)
	})
	t.Run("beside a field of another type", func(t *testing.T) {
		t.Parallel()
		e, _ := recovery(t, "m x=1i,v=1i 1", "m x=2i,v=1.5 1")
		r := e.run()
		require.Len(t, r.failed, 1)
		require.EqualValues(t, 1, r.report.Replaced)
		require.EqualValues(t, 1, r.report.Problems[0].Replaced)
	})
	t.Run("given back", func(t *testing.T) {
		t.Parallel()
		e, s := newCircles(t, operation.KindResync, 1, 1)
		for i, points := range []int64{1, 500} {
			s[i][0].Exec("CREATE DATABASE db")
			for n := range points {
				s[i][0].WriteLines("db", "", fmt.Sprintf("m v=1i %d", n))
			}
		}
		r := e.run()
		require.EqualValues(t, 499, r.report.Returned)
		copied, verified := int64(0), int64(0)
		for _, task := range append(e.tasksOf(operation.PhaseCopy, 1), e.tasksOf(operation.PhaseVerify, 1)...) {
			copied, verified = copied+task.Points.Copied, verified+task.Points.Verified
		}
		require.EqualValues(t, 500, copied)
		require.EqualValues(t, 500, verified)
	})
	t.Run("written and not recorded", func(t *testing.T) {
		t.Parallel()
		e, s := recovery(t, "m v=1i 1\nm v=1i 2", "n v=1i 1")
		stopped := false
		e.watch = func(j *job) {
			j.before = func(*operation.Task) error {
				if stopped {
					return nil
				}
				stopped = true
				return errStopped
			}
		}
		r := e.run()
		require.Zero(t, r.report.Unchanged.Points, "this operation has copied them")
		require.Contains(t, dump(t, s[1][0].URL(), "db"), "autogen m v=1i 2\n")
	})
}
