package mover_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
)

// clearEnv is a source that holds what it does not own, and its owner.
type clearEnv struct {
	*env

	// overlapping groups make a dump tell points twice.
	overlapping bool
}

func newClearEnv(t testing.TB) *clearEnv {
	t.Helper()
	c := &clearEnv{env: newEnv(t)}
	c.config.Clearing.DropsPerSecond = 10_000
	c.operation = operation.Operation{
		ID: "op", Kind: operation.KindClear, Epoch: 1, Parameters: []byte(`{"circle_id":0}`), CreatedAt: time.Now(),
	}
	return c
}

// both writes lines into a policy of both ends, after statements.
func (c *clearEnv) both(statements, rp, text string) {
	c.t.Helper()
	if statements != "" {
		c.source.Exec(statements)
		c.destination.Exec(statements)
	}
	if text != "" {
		c.source.WriteLines("db", rp, text)
		c.destination.WriteLines("db", rp, text)
	}
}

// units are the windows of all measurements of the source between all boundaries
// of shard groups of all policies of both ends.
func (c *clearEnv) units() []operation.Slice {
	c.t.Helper()
	var groups []influx.ShardGroup
	for _, url := range []string{c.source.URL(), c.destination.URL()} {
		client, err := influx.New(influx.Endpoint{URL: url}, influx.Options{})
		require.NoError(c.t, err)
		defer client.Close()
		all, err := client.ShardGroups(c.t.Context())
		require.NoError(c.t, err)
		for _, g := range all {
			g.ID = uint64(len(url)) + uint64(strings.Compare(url, c.source.URL())+1)<<32
			groups = append(groups, g)
		}
	}
	client, err := influx.New(influx.Endpoint{URL: c.source.URL()}, influx.Options{})
	require.NoError(c.t, err)
	defer client.Close()
	databases, err := client.Databases(c.t.Context())
	require.NoError(c.t, err)
	var out []operation.Slice
	for _, db := range databases {
		windows := windowsOf(groups, db)
		for name, err := range client.Measurements(c.t.Context(), db) {
			require.NoError(c.t, err)
			for _, w := range windows {
				w.Database, w.Measurement = db, name
				out = append(out, w)
			}
		}
	}
	return out
}

func windowsOf(groups []influx.ShardGroup, db string) []operation.Slice {
	var edges []int64
	for _, g := range groups {
		if g.Database == db {
			edges = append(edges, g.From, g.To)
		}
	}
	slices.Sort(edges)
	edges = slices.Compact(edges)
	var out []operation.Slice
	for i := 1; i < len(edges); i++ {
		w := operation.Slice{From: edges[i-1], To: edges[i], Points: 1000}
		covered := map[string]int{}
		for _, g := range groups {
			if g.Database == db && g.From <= w.From && w.To <= g.To {
				covered[fmt.Sprint(g.ID, g.RetentionPolicy)]++
				w.Last = w.Last || g.ToInclusive && g.To == w.To
			}
		}
		for _, n := range covered {
			w.Overlap = w.Overlap || n > 1
		}
		if len(covered) > 0 {
			out = append(out, w)
		}
	}
	return out
}

// cleared is what a clear has come to.
type cleared struct {
	err    error
	failed *operation.Error
	task   operation.Task
	report operation.Report
	// verified are the points that the verification has counted.
	verified int64
	job      *job
}

// clear drops and verifies.
func (c *clearEnv) clear(units ...operation.Slice) cleared {
	c.t.Helper()
	if units == nil {
		units = c.units()
	}
	c.store(operation.Task{ID: "d", Kind: operation.KindClear, Phase: operation.PhaseDrop, Source: c.from, Destination: c.to, Slices: units})
	r := c.resume(nil)
	require.True(c.t, r.err == nil || r.failed != nil, "%v", r.err)
	c.verify(&r)
	return r
}

// resume runs the drop task from where it stands; before sees its job.
func (c *clearEnv) resume(before func(*job)) cleared {
	c.t.Helper()
	r := cleared{job: &job{env: c.env, id: "d"}}
	if before != nil {
		before(r.job)
	}
	r.err = c.mover().Run(c.t.Context(), r.job)
	r.task = c.task("d")
	if errors.As(r.err, &r.failed) {
		r.task.State, r.task.Error = operation.TaskFailed, r.failed
		c.store(r.task)
	}
	return r
}

// verify judges the drop task.
func (c *clearEnv) verify(r *cleared) {
	c.t.Helper()
	c.store(operation.Task{ID: "v", Kind: operation.KindClear, Phase: operation.PhaseVerify, Of: "d", Source: c.from, Destination: c.to})
	require.NoError(c.t, c.mover().Run(c.t.Context(), &job{env: c.env, id: "v"}))
	v := c.task("v")
	if v.Verdict == nil {
		v.Verdict = &operation.Verdict{}
	}
	r.report = v.Verdict.Report("op", operation.DepthDigest)
	r.verified = v.Points.Verified
}

// states counts the units by state.
func (r *cleared) states() map[operation.SliceState]int {
	out := map[operation.SliceState]int{}
	for _, e := range r.task.Checkpoint {
		out[e.State]++
	}
	return out
}

// requireCleared requires that the source has nothing any more, and that the
// owner has what it had.
func (c *clearEnv) requireCleared(points int64, units ...operation.Slice) cleared {
	c.t.Helper()
	before := dump(c.t, c.destination.URL(), "db")
	r := c.clear(units...)
	require.NoError(c.t, r.err)
	require.Empty(c.t, dump(c.t, c.source.URL(), "db"))
	require.Equal(c.t, before, dump(c.t, c.destination.URL(), "db"))
	require.Equal(c.t, points, r.task.Points.Dropped)
	require.True(c.t, r.report.Equal, "%+v", r.report)
	require.Equal(c.t, points, r.report.Dropped.Points)
	require.Equal(c.t, points, r.verified)
	require.Equal(c.t, operation.ReportPoints{Source: points, Destination: points}, r.report.Points)
	require.Empty(c.t, r.report.Problems)
	return r
}

// requireKept requires that one window is kept, with its reason, and nothing lost.
func (c *clearEnv) requireKept(code string, units ...operation.Slice) (cleared, operation.Problem) {
	c.t.Helper()
	before, owned := dump(c.t, c.source.URL(), "db"), dump(c.t, c.destination.URL(), "db")
	r := c.clear(units...)
	require.NotNil(c.t, r.failed, "nothing was kept")
	require.Equal(c.t, "kept", r.failed.Code)
	require.Equal(c.t, 1, r.states()[operation.SliceKept])
	require.False(c.t, r.report.Equal)
	require.Equal(c.t, 1, r.report.Kept.Slices)
	require.Len(c.t, r.report.Problems, 1)
	p := r.report.Problems[0]
	require.Equal(c.t, code, p.Code, "%+v", p)
	require.Equal(c.t, operation.ResolutionKept, p.Resolution)
	require.Contains(c.t, r.failed.Detail, p.Detail)
	require.Equal(c.t, owned, dump(c.t, c.destination.URL(), "db"))
	left := dump(c.t, c.source.URL(), "db")
	for _, line := range before {
		// A dump is sorted, so what was dropped is what the owner has.
		if !slices.Contains(left, line) {
			require.Contains(c.t, owned, line, "lost")
		}
	}
	if !c.overlapping {
		require.Len(c.t, left, len(before)-int(r.task.Points.Dropped))
	}
	return r, p
}

// measurementsOf lists the measurements of which a server has points.
func measurementsOf(t testing.TB, url string) []string {
	t.Helper()
	var out []string
	for _, line := range dump(t, url, "db") {
		_, rest, _ := strings.Cut(line, " ")
		out = append(out, rest[:strings.IndexAny(rest, ", ")])
	}
	return slices.Compact(out)
}

// remove deletes points of a server in passing, as somebody else would.
func remove(t testing.TB, url, measurement string, w influx.Window) {
	t.Helper()
	client, err := influx.New(influx.Endpoint{URL: url}, influx.Options{})
	require.NoError(t, err)
	defer client.Close()
	require.NoError(t, client.Delete(t.Context(), "db", measurement, w))
}

// always is every legal time.
func always() influx.Window {
	return influx.Window{From: lineproto.MinTime, To: lineproto.MaxTime, Last: true}
}
