package mover_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/operation"
)

func deletes(a *asked) bool    { return strings.HasPrefix(a.query, "DELETE") }
func identities(a *asked) bool { return a.query == "SHOW DIAGNOSTICS" }
func totals(a *asked) bool     { return strings.HasPrefix(a.query, "SELECT count") && !counts(a) }

// nth lets the n-th request of a kind, from 1, meet a fault.
func nth(n int64, kind func(*asked) bool, f fault) func(*asked) fault {
	var met atomic.Int64
	return func(a *asked) fault {
		if kind(a) && met.Add(1) == n {
			return f
		}
		return fault{}
	}
}

// newGatedClear has one measurement at both ends, in one window, and a gate in
// front of each.
func newGatedClear(t testing.TB) (c *clearEnv, source, destination *gate) {
	t.Helper()
	c = newClearEnv(t)
	c.both("CREATE DATABASE db", "", lines("m", 4, 50, start, int64(time.Minute)))
	source, destination = gated(t, c.env)
	return c, source, destination
}

// TestClearProvesAgainWhatWasWritten: a write between proof and recount, that the
// owner has and that it has not.
func TestClearProvesAgainWhatWasWritten(t *testing.T) {
	t.Parallel()
	late := fmt.Sprintf("m,k=late v=1i %d", start)
	t.Run("at both ends", func(t *testing.T) {
		t.Parallel()
		c, source, _ := newGatedClear(t)
		source.on(nth(1, counts, fault{meanwhile: func() { c.both("", "", late) }}))
		r := c.clear()
		require.NoError(t, r.err)
		require.EqualValues(t, 201, r.task.Points.Dropped)
		require.EqualValues(t, 201, r.report.Dropped.Points)
		require.Equal(t, 2, source.seen(reads))
		require.Empty(t, dump(t, c.source.URL(), "db"))
		require.Len(t, dump(t, c.destination.URL(), "db"), 201)
	})
	t.Run("at the source", func(t *testing.T) {
		t.Parallel()
		c, source, _ := newGatedClear(t)
		source.on(nth(1, counts, fault{meanwhile: func() { c.source.WriteLines("db", "", late) }}))
		r := c.clear()
		require.Equal(t, "kept", r.failed.Code)
		require.Equal(t, "unproven", r.report.Problems[0].Code)
		require.Contains(t, r.report.Problems[0].Detail, `"k"="late"`)
		require.Zero(t, source.seen(deletes))
		require.EqualValues(t, 200, r.report.Kept.Points, "as the server counts the fullest field")
		require.Len(t, dump(t, c.source.URL(), "db"), 201)
	})
	t.Run("in another policy before the recount", func(t *testing.T) {
		t.Parallel()
		c, source, _ := newGatedClear(t)
		source.on(nth(2, policies, fault{meanwhile: func() {
			c.source.Exec("CREATE RETENTION POLICY new ON db DURATION INF REPLICATION 1")
			c.source.WriteLines("db", "new", late)
		}}))
		r := c.clear()
		require.Equal(t, "unproven", r.report.Problems[0].Code)
		require.Contains(t, r.report.Problems[0].Detail, `retention policy "new"`)
		require.Zero(t, source.seen(deletes))
	})
	t.Run("each time", func(t *testing.T) {
		t.Parallel()
		c, source, _ := newGatedClear(t)
		var n atomic.Int64
		source.on(times(1<<40, counts, fault{meanwhile: func() {
			c.both("", "", fmt.Sprintf("m,k=late v=1i %d", start+n.Add(1)))
		}}))
		r := c.clear()
		require.Equal(t, "kept", r.failed.Code)
		require.Equal(t, "changing", r.report.Problems[0].Code)
		require.Equal(t, 4, source.seen(reads))
		require.Zero(t, source.seen(deletes))
	})
	t.Run("at the owner only", func(t *testing.T) {
		t.Parallel()
		c, source, destination := newGatedClear(t)
		var n atomic.Int64
		destination.on(times(1<<40, counts, fault{meanwhile: func() {
			c.destination.WriteLines("db", "", fmt.Sprintf("m,k=late v=1i %d\nm,host=h0,zone=z0 a=1i %d", start+n.Add(1), start+n.Load()))
		}}))
		r := c.clear()
		require.NoError(t, r.err, "an owner that is written to holds no less")
		require.EqualValues(t, 200, r.task.Points.Dropped)
		require.Equal(t, 2, source.seen(reads))
	})
	t.Run("after the delete", func(t *testing.T) {
		t.Parallel()
		c, source, _ := newGatedClear(t)
		source.on(nth(1, totals, fault{meanwhile: func() { c.source.WriteLines("db", "", late) }}))
		r := c.clear()
		require.Equal(t, "kept", r.failed.Code)
		p := r.report.Problems[0]
		require.Equal(t, "written_meanwhile", p.Code)
		require.Equal(t, "200 points were dropped, and after that 1 points are there, which came meanwhile", p.Detail)
		require.Equal(t, operation.Amount{Slices: 1, Points: 1}, r.report.Kept)
		require.EqualValues(t, 200, r.report.Dropped.Points)
		require.EqualValues(t, 200, r.task.Points.Dropped)
		require.Len(t, dump(t, c.source.URL(), "db"), 1)
	})
}

// TestClearOwnerLosesPoints: what the owner loses between proof and recount is
// not dropped.
func TestClearOwnerLosesPoints(t *testing.T) {
	t.Parallel()
	for _, kind := range []func(*asked) bool{reads, counts} {
		c, source, destination := newGatedClear(t)
		destination.on(nth(1, kind, fault{meanwhile: func() {
			remove(t, c.destination.URL(), "m", influx.Window{From: start, To: start + 1})
		}}))
		r := c.clear()
		require.Equal(t, "kept", r.failed.Code)
		require.Equal(t, "unproven", r.report.Problems[0].Code)
		require.Zero(t, source.seen(deletes))
		require.Len(t, dump(t, c.source.URL(), "db"), 200)
	}
}

// TestClearOwnerDies between proof and drop: nothing is deleted, and when it is
// back the clear goes on.
func TestClearOwnerDies(t *testing.T) {
	t.Parallel()
	c, source, _ := newGatedClear(t)
	units := c.units()
	c.store(operation.Task{ID: "d", Phase: operation.PhaseDrop, Source: c.from, Destination: c.to, Slices: units})
	r := c.resume(func(j *job) {
		j.before = func(*operation.Task) error {
			c.destination.Kill()
			return nil
		}
	})
	require.NotNil(t, r.failed)
	require.Equal(t, "backend_refuses", r.failed.Code)
	require.Contains(t, r.failed.Detail, c.to)
	require.Zero(t, source.seen(deletes))
	require.Len(t, dump(t, c.source.URL(), "db"), 200)
	require.Equal(t, map[operation.SliceState]int{operation.SliceProven: 1}, r.states())
	c.destination.Restart()
	c.verify(&r)
	require.Equal(t, 1, r.report.Kept.Slices)
	require.Equal(t, "backend_refuses", r.report.Problems[0].Code)
	require.EqualValues(t, 0, r.report.Dropped.Points)
	require.NoError(t, c.clear(units...).err)
}

// TestClearIsKilled at every moment that matters: the next attempt counts exactly.
func TestClearIsKilled(t *testing.T) {
	t.Parallel()
	lost := fmt.Errorf("taken over: %w", mover.ErrClaimLost)
	for name, kill := range map[string]func(*clearEnv, *job, *gate){
		"before the proof is stored": func(_ *clearEnv, j *job, _ *gate) { j.before = failAt(1, lost) },
		"between proof and delete": func(_ *clearEnv, j *job, g *gate) {
			g.on(func(a *asked) fault {
				if deletes(a) {
					t.Error("sent")
				}
				return fault{}
			})
			var asked atomic.Int64
			j.guard = func() error {
				// The source is asked before, whether it takes unsigned integers.
				if asked.Add(1) > 2 {
					return lost
				}
				return nil
			}
		},
		"between delete and checkpoint": func(_ *clearEnv, j *job, _ *gate) { j.before = failAt(2, lost) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, source, _ := newGatedClear(t)
			c.store(operation.Task{ID: "d", Phase: operation.PhaseDrop, Source: c.from, Destination: c.to, Slices: c.units()})
			r := c.resume(func(j *job) { kill(c, j, source) })
			require.ErrorIs(t, r.err, mover.ErrClaimLost)
			require.Nil(t, r.failed, "the task goes on elsewhere")
			require.Zero(t, r.task.Points.Dropped)
			source.on(nil)
			r = c.resume(nil)
			require.NoError(t, r.err)
			require.EqualValues(t, 200, r.task.Points.Dropped)
			require.Empty(t, dump(t, c.source.URL(), "db"))
			c.verify(&r)
			require.True(t, r.report.Equal)
			require.Equal(t, operation.Amount{Slices: 1, Points: 200}, r.report.Dropped)
			require.Equal(t, 1, r.report.Slices.ByPoints)
		})
	}
	t.Run("and proves again", func(t *testing.T) {
		t.Parallel()
		c, source, _ := newGatedClear(t)
		c.store(operation.Task{ID: "d", Phase: operation.PhaseDrop, Source: c.from, Destination: c.to, Slices: c.units()})
		ctx, cancel := context.WithCancel(t.Context())
		source.on(nth(1, counts, fault{meanwhile: cancel}))
		require.ErrorIs(t, c.mover().Run(ctx, &job{env: c.env, id: "d"}), context.Canceled)
		source.on(nil)
		require.Equal(t, operation.SliceProven, c.task("d").Checkpoint[0].State)
		// The owner has lost a point since: the old proof counts for nothing.
		remove(t, c.destination.URL(), "m", influx.Window{From: start, To: start + 1})
		r := c.resume(nil)
		require.Equal(t, "kept", r.failed.Code)
		require.Zero(t, r.task.Points.Dropped)
		require.Len(t, dump(t, c.source.URL(), "db"), 200)
	})
	t.Run("in the middle of a delete", func(t *testing.T) {
		t.Parallel()
		c, source, _ := newGatedClear(t)
		c.store(operation.Task{ID: "d", Phase: operation.PhaseDrop, Source: c.from, Destination: c.to, Slices: c.units()})
		ctx, cancel := context.WithCancel(t.Context())
		// A part of it has been carried out.
		source.on(nth(1, deletes, fault{status: 500, meanwhile: func() {
			remove(t, c.source.URL(), "m", influx.Window{From: start, To: start + int64(20*time.Minute)})
			cancel()
		}}))
		require.ErrorIs(t, c.mover().Run(ctx, &job{env: c.env, id: "d"}), context.Canceled)
		source.on(nil)
		require.Len(t, dump(t, c.source.URL(), "db"), 120)
		r := c.resume(nil)
		require.NoError(t, r.err)
		require.EqualValues(t, 200, r.task.Points.Dropped)
		c.verify(&r)
		require.True(t, r.report.Equal)
		require.EqualValues(t, 200, r.report.Dropped.Points)
	})
}

// failAt fails the n-th checkpoint.
func failAt(n int, err error) func(*operation.Task) error {
	stored := 0
	return func(*operation.Task) error {
		if stored++; stored >= n {
			return err
		}
		return nil
	}
}

// TestClearAnswerOfADeleteIsLost: that is no failure, and it is not sent again
// while it may be at work.
func TestClearAnswerOfADeleteIsLost(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]fault{
		"cut":             {cutAnswer: 1},
		"gateway timeout": {status: 504, text: "too long", stored: true},
		"too busy":        {status: 503, text: `{"error":"busy"}`, stored: true},
		"unavailable":     {status: 429, text: `{"error":"busy"}`, stored: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, source, _ := newGatedClear(t)
			source.on(nth(1, deletes, f))
			r := c.clear()
			require.NoError(t, r.err)
			require.EqualValues(t, 200, r.report.Dropped.Points)
			require.Empty(t, dump(t, c.source.URL(), "db"))
			require.Equal(t, 1, source.seen(deletes))
		})
	}
	t.Run("and it takes long", func(t *testing.T) {
		t.Parallel()
		c, source, _ := newGatedClear(t)
		c.config.Refused = time.Minute
		var polled atomic.Int64
		source.on(func(a *asked) fault {
			switch {
			case deletes(a):
				return fault{status: 504, text: "too long"}
			case totals(a) && polled.Add(1) == 4:
				return fault{meanwhile: func() { remove(t, c.source.URL(), "m", always()) }}
			}
			return fault{}
		})
		r := c.clear()
		require.NoError(t, r.err)
		require.EqualValues(t, 200, r.report.Dropped.Points)
		require.Equal(t, 1, source.seen(deletes))
		require.Equal(t, "delete_ends", r.job.waits[0].Gate)
		require.Equal(t, source.URL, r.job.waits[0].Backend)
		require.Nil(t, r.job.current)
	})
	t.Run("and it never came", func(t *testing.T) {
		t.Parallel()
		c, source, _ := newGatedClear(t)
		source.on(nth(1, deletes, fault{status: 502, text: "gone"}))
		c.config.Refused = 100 * time.Millisecond
		c.config.RetryInPlace = 50 * time.Millisecond
		r := c.clear()
		require.NoError(t, r.err)
		require.EqualValues(t, 200, r.report.Dropped.Points)
		require.Equal(t, 2, source.seen(deletes))
		require.Equal(t, 2, source.seen(reads), "proven again")
	})
	t.Run("and half of it was done", func(t *testing.T) {
		t.Parallel()
		c, source, _ := newGatedClear(t)
		source.on(nth(1, deletes, fault{status: 502, text: "gone", meanwhile: func() {
			remove(t, c.source.URL(), "m", influx.Window{From: start, To: start + int64(20*time.Minute)})
		}}))
		r := c.clear()
		require.NoError(t, r.err)
		require.EqualValues(t, 200, r.report.Dropped.Points)
		require.True(t, r.report.Equal)
	})
	t.Run("and half of it was done, and then the owner lost a point", func(t *testing.T) {
		t.Parallel()
		c, source, _ := newGatedClear(t)
		source.on(nth(1, deletes, fault{status: 502, text: "gone", meanwhile: func() {
			remove(t, c.source.URL(), "m", influx.Window{From: start, To: start + int64(20*time.Minute)})
			remove(t, c.destination.URL(), "m", influx.Window{From: start + int64(30*time.Minute), To: start + int64(31*time.Minute)})
		}}))
		r := c.clear()
		require.Equal(t, "unproven", r.report.Problems[0].Code)
		require.EqualValues(t, 80, r.report.Dropped.Points)
		require.EqualValues(t, 80, r.task.Points.Dropped)
		require.Equal(t, operation.Amount{Slices: 1, Points: 120}, r.report.Kept)
		require.Len(t, dump(t, c.source.URL(), "db"), 120)
	})
}

// TestClearRefusals: what stays refused keeps the window, or fails the task.
func TestClearRefusals(t *testing.T) {
	t.Parallel()
	t.Run("one measurement", func(t *testing.T) {
		t.Parallel()
		c := newClearEnv(t)
		points := some(c)
		source, _ := gated(t, c.env)
		source.on(times(1<<40, func(a *asked) bool { return deletes(a) && strings.Contains(a.query, "FROM m1") },
			fault{status: 500, text: `{"error":"engine: read-only"}`}))
		r := c.clear()
		require.Equal(t, "kept", r.failed.Code)
		require.Equal(t, "backend_refuses", r.report.Problems[0].Code)
		require.Contains(t, r.report.Problems[0].Detail, "engine: read-only")
		require.Equal(t, points/3*2, r.report.Dropped.Points)
		require.Equal(t, []string{"m1"}, measurementsOf(t, c.source.URL()))
	})
	t.Run("one that cannot be read", func(t *testing.T) {
		t.Parallel()
		c := newClearEnv(t)
		points := some(c)
		source, _ := gated(t, c.env)
		source.on(times(1<<40, func(a *asked) bool { return reads(a) && strings.Contains(a.query, ".m1 ") }, fault{midError: 1}))
		r := c.clear()
		require.Equal(t, "backend_refuses", r.report.Problems[0].Code)
		require.Contains(t, r.report.Problems[0].Detail, "query interrupted")
		require.Equal(t, points/3*2, r.report.Dropped.Points)
		require.Equal(t, []string{"m1"}, measurementsOf(t, c.source.URL()))
	})
	t.Run("no leave", func(t *testing.T) {
		t.Parallel()
		c, source, _ := newGatedClear(t)
		source.on(times(1<<40, deletes, fault{status: 403, text: `{"error":"not authorized"}`}))
		r := c.clear()
		require.Equal(t, "backend_refuses", r.failed.Code)
		require.Contains(t, r.failed.Detail, "check the credentials")
		require.Equal(t, "backend_refuses", r.report.Problems[0].Code)
		require.Equal(t, 1, source.seen(deletes))
	})
	t.Run("for a while", func(t *testing.T) {
		t.Parallel()
		for _, kind := range []func(*asked) bool{deletes, counts, totals, reads, occupied, policies, schema, identities, writes} {
			c, source, destination := newGatedClear(t)
			c.config.Refused = time.Minute
			source.on(times(3, kind, fault{status: 503, text: `{"error":"busy"}`, stored: true}))
			destination.on(times(3, kind, fault{cutAnswer: 10}))
			r := c.clear()
			require.NoError(t, r.err)
			require.EqualValues(t, 200, r.report.Dropped.Points)
			require.Empty(t, dump(t, c.source.URL(), "db"))
			require.Len(t, dump(t, c.destination.URL(), "db"), 200)
		}
	})
}

// TestClearFence: whoever may say no is asked before each delete.
func TestClearFence(t *testing.T) {
	t.Parallel()
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		c := newClearEnv(t)
		some(c)
		source, _ := gated(t, c.env)
		no := &operation.Error{Code: "transition", Detail: "a transition of circle 0 is open"}
		var asked atomic.Int64
		c.config.Clearing.MayDrop = func(_ context.Context, op *operation.Operation) error {
			require.Equal(t, "op", op.ID)
			if asked.Add(1) > 2 {
				return no
			}
			return nil
		}
		units := c.units()
		r := c.clear(units...)
		require.Equal(t, no, r.failed)
		require.Equal(t, 2, source.seen(deletes))
		require.Equal(t, 2, r.report.Dropped.Slices, "what was dropped is on record")
		require.Equal(t, len(units)-2, r.report.Kept.Slices)
		require.Equal(t, "transition", r.report.Problems[0].Code)
		require.Len(t, dump(t, c.source.URL(), "db"), 600-int(r.task.Points.Dropped))
		require.EqualValues(t, 3, asked.Load())
	})
	t.Run("not known", func(t *testing.T) {
		t.Parallel()
		c, source, _ := newGatedClear(t)
		down := errors.New("no quorum")
		c.config.Clearing.MayDrop = func(context.Context, *operation.Operation) error { return down }
		c.store(operation.Task{ID: "d", Phase: operation.PhaseDrop, Source: c.from, Destination: c.to, Slices: c.units()})
		r := c.resume(nil)
		require.ErrorIs(t, r.err, down)
		require.Nil(t, r.failed, "another attempt asks again")
		require.Zero(t, source.seen(deletes))
	})
}

// TestClearSameServer: two addresses of one server are no source and owner.
func TestClearSameServer(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*clearEnv, *gate){
		"the same address":    func(c *clearEnv, _ *gate) { c.from = c.to },
		"another spelling":    func(c *clearEnv, _ *gate) { c.from = c.to + "/" },
		"through a detour":    func(c *clearEnv, g *gate) { c.from = g.URL },
		"owner by the detour": func(c *clearEnv, g *gate) { c.from, c.to = c.to, g.URL },
		"started in between": func(c *clearEnv, g *gate) {
			c.from, c.to = c.to, g.URL
			g.on(nth(1, identities, fault{meanwhile: func() { c.destination.Kill(); c.destination.Restart() }}))
		},
		"started after it": func(c *clearEnv, g *gate) {
			c.from = g.URL
			g.on(nth(2, identities, fault{meanwhile: func() { c.destination.Kill(); c.destination.Restart() }}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClearEnv(t)
			some(c)
			g := newGate(t, c.destination.URL())
			set(c, g)
			units := c.units()
			r := c.clear(units...)
			require.Equal(t, "same_server", r.failed.Code)
			require.Len(t, dump(t, c.destination.URL(), "db"), 600)
			require.Zero(t, g.seen(deletes))
			require.Equal(t, len(units), r.report.Kept.Slices)
			require.False(t, r.report.Equal)
		})
	}
	t.Run("not told", func(t *testing.T) {
		t.Parallel()
		for _, at := range []int{0, 1} {
			c := newClearEnv(t)
			some(c)
			source, destination := gated(t, c.env)
			[]*gate{source, destination}[at].on(times(1<<40, identities, fault{status: http.StatusForbidden, text: `{"error":"requires admin privilege"}`}))
			r := c.clear()
			require.Equal(t, "identity_unknown", r.failed.Code)
			require.Contains(t, r.failed.Detail, "requires admin privilege")
			require.Zero(t, source.seen(deletes))
			require.Len(t, dump(t, c.source.URL(), "db"), 600)
		}
	})
	t.Run("restarted", func(t *testing.T) {
		t.Parallel()
		c, source, _ := newGatedClear(t)
		source.on(nth(2, identities, fault{meanwhile: func() { c.source.Kill(); c.source.Restart() }}))
		require.NoError(t, c.clear().err, "asked again")
	})
}

// TestClearVerification: it looks again at both ends.
func TestClearVerification(t *testing.T) {
	t.Parallel()
	drop := func(t *testing.T) (*clearEnv, cleared) {
		t.Helper()
		c, _, _ := newGatedClear(t)
		c.store(operation.Task{ID: "d", Phase: operation.PhaseDrop, Source: c.from, Destination: c.to, Slices: c.units()})
		r := c.resume(nil)
		require.NoError(t, r.err)
		return c, r
	}
	t.Run("written since", func(t *testing.T) {
		t.Parallel()
		c, r := drop(t)
		c.source.WriteLines("db", "", fmt.Sprintf("m v=1 %d", start))
		c.verify(&r)
		require.False(t, r.report.Equal)
		require.Equal(t, "written_since", r.report.Problems[0].Code)
		require.Equal(t, operation.Amount{Slices: 1, Points: 1}, r.report.Kept)
		require.Equal(t, operation.Amount{Slices: 1, Points: 200}, r.report.Dropped)
	})
	t.Run("the owner has lost points", func(t *testing.T) {
		t.Parallel()
		c, r := drop(t)
		remove(t, c.destination.URL(), "m", influx.Window{From: start, To: start + 1})
		c.verify(&r)
		require.False(t, r.report.Equal)
		require.Equal(t, operation.CodeUnequal, r.report.Problems[0].Code)
		require.Positive(t, r.report.Missing)
		require.Contains(t, r.report.Problems[0].Detail, "800 values were proven to be at the owner before the window was dropped, and it has 784 of them now")
	})
	t.Run("the owner has forgotten points", func(t *testing.T) {
		t.Parallel()
		c, r := drop(t)
		remove(t, c.destination.URL(), "m", influx.Window{From: start, To: start + 1})
		c.destination.Exec("ALTER RETENTION POLICY autogen ON db DURATION 30d")
		c.verify(&r)
		require.True(t, r.report.Equal)
		require.Positive(t, r.report.Expired)
		require.Equal(t, operation.ResolutionExpired, r.report.Problems[0].Resolution)
	})
	t.Run("it cannot count", func(t *testing.T) {
		t.Parallel()
		c, _ := drop(t)
		g := newGate(t, c.source.URL())
		g.on(times(1<<40, totals, fault{midError: 1, status: 400, text: `{"error":"no"}`}))
		c.store(operation.Task{ID: "v", Phase: operation.PhaseVerify, Of: "d", Source: g.URL, Destination: c.to})
		var own *operation.Error
		require.ErrorAs(t, c.mover().Run(t.Context(), &job{env: c.env, id: "v"}), &own)
		require.Equal(t, operation.CodeNotVerified, own.Code)
	})
}
