package mover_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/operation"
)

// cell is one value's place in a database.
type cell struct {
	policy, measurement, host, field string
	at                               int64
}

// cells are the values of a backend.
type cells map[cell]string

// write stores cells in a database, whose policies are made as they are needed.
func (c cells) write(s *influxtest.Server, db string) {
	s.Exec(fmt.Sprintf("CREATE DATABASE %q", db))
	for policy := range c.byPolicy() {
		if policy != "autogen" {
			s.Exec(fmt.Sprintf("CREATE RETENTION POLICY %q ON %q DURATION INF REPLICATION 1 SHARD DURATION 1d", policy, db))
		}
		var b strings.Builder
		for at, v := range c {
			if at.policy == policy {
				fmt.Fprintf(&b, "%s,host=%s %s=%s %d\n", at.measurement, at.host, at.field, v, at.at)
			}
		}
		s.WriteLines(db, policy, b.String())
	}
}

func (c cells) byPolicy() map[string]bool {
	out := map[string]bool{}
	for at := range c {
		out[at.policy] = true
	}
	return out
}

// cellsOf reads a database.
func cellsOf(t *testing.T, s *influxtest.Server, db string) cells {
	t.Helper()
	out := cells{}
	for _, line := range dump(t, s.URL(), db) {
		var policy, series, fields string
		var at int64
		_, err := fmt.Sscanf(line, "%s %s %s %d", &policy, &series, &fields, &at)
		require.NoError(t, err, line)
		measurement, host, _ := strings.Cut(series, ",host=")
		for field := range strings.SplitSeq(fields, ",") {
			name, value, _ := strings.Cut(field, "=")
			out[cell{policy, measurement, host, name, at}] = value
		}
	}
	return out
}

// fillFrom adds the cells that c lacks.
func (c cells) fillFrom(o cells) {
	for at, v := range o {
		if _, ok := c[at]; !ok {
			c[at] = v
		}
	}
}

// of returns the cells of the measurements that a predicate selects.
func (c cells) of(wanted func(measurement string) bool) cells {
	out := cells{}
	for at, v := range c {
		if wanted(at.measurement) {
			out[at] = v
		}
	}
	return out
}

// unlike names where two backends differ.
func (c cells) unlike(o cells) []string {
	var out []string
	for at, v := range c {
		if o[at] != v {
			out = append(out, fmt.Sprintf("%v is %q, not %q", at, o[at], v))
		}
	}
	for at, v := range o {
		if _, ok := c[at]; !ok {
			out = append(out, fmt.Sprintf("%v is %q", at, v))
		}
	}
	return out
}

// cluster is what the backends of some circles hold, by circle and backend, and
// who owns what.
type cluster struct {
	e       *env
	servers [][]*influxtest.Server
	db      string
	held    [][]cells
}

// randomly fills the backends: the same points and fields here and there, with
// other values or none, also where they do not belong.
func (c *cluster) randomly(rng *rand.Rand, values int) {
	for i := range c.servers {
		c.held = append(c.held, make([]cells, len(c.servers[i])))
		for j := range c.servers[i] {
			c.held[i][j] = cells{}
		}
	}
	for n := range values {
		at := cell{
			policy: []string{"autogen", "autogen", "daily"}[rng.IntN(3)], measurement: fmt.Sprintf("m%d", rng.IntN(6)),
			host: fmt.Sprintf("h%d", rng.IntN(3)), field: string(rune('a' + rng.IntN(3))),
			at: start + int64(rng.IntN(4))*8*day + int64(rng.IntN(5)),
		}
		i := rng.IntN(len(c.servers))
		j := c.owner(i, at.measurement)
		if rng.IntN(10) == 0 {
			j = rng.IntN(len(c.servers[i]))
		}
		c.held[i][j][at] = fmt.Sprintf("%di", n)
	}
	for i := range c.servers {
		for j, s := range c.servers[i] {
			c.held[i][j].write(s, c.db)
		}
	}
}

// owner is the backend that owns a measurement in a circle.
func (c *cluster) owner(circle int, measurement string) int {
	p, err := c.e.topology().Placement(circle)
	require.NoError(c.e.t, err)
	return slices.IndexFunc(c.servers[circle], func(s *influxtest.Server) bool { return s.URL() == p.Owner(c.db, measurement).URL })
}

// owned is what the owners of a circle hold of what is theirs, leftovers what
// lies elsewhere in it, in the order of its backends.
func (c *cluster) owned(circle int) cells {
	all := cells{}
	for j := range c.servers[circle] {
		all.fillFrom(c.held[circle][j].of(func(m string) bool { return c.owner(circle, m) == j }))
	}
	return all
}

func (c *cluster) leftovers(circle int) cells {
	all := cells{}
	for j := range c.servers[circle] {
		all.fillFrom(c.held[circle][j].of(func(m string) bool { return c.owner(circle, m) != j }))
	}
	return all
}

// requireCircle requires that the owners of a circle hold these cells, and that
// every other backend holds what it did.
func (c *cluster) requireCircle(circle int, want cells) {
	t := c.e.t.(*testing.T)
	t.Helper()
	for j, s := range c.servers[circle] {
		mine := func(m string) bool { return c.owner(circle, m) == j }
		got := cellsOf(t, s, c.db)
		require.Empty(t, want.of(mine).unlike(got.of(mine)), "what backend %d of circle %d owns", j, circle)
		others := func(m string) bool { return !mine(m) }
		require.Empty(t, c.held[circle][j].of(others).unlike(got.of(others)), "what else lies on backend %d of circle %d", j, circle)
	}
}

func TestResyncMakesAllCirclesEqual(t *testing.T) {
	t.Parallel()
	for circles := 2; circles <= 4; circles++ {
		t.Run(strconv.Itoa(circles), func(t *testing.T) {
			t.Parallel()
			sizes := slices.Repeat([]int{2}, circles)
			e, servers := newCircles(t, operation.KindResync, sizes...)
			for seed := range uint64(5 - circles) {
				c := &cluster{e: e, servers: servers, db: fmt.Sprintf("db%d", seed)}
				c.randomly(rand.New(rand.NewPCG(seed, uint64(circles))), 120)
				e.parameter["databases"] = []string{c.db}
				r := e.run()
				require.Empty(t, r.failed)
				require.Equal(t, 1, r.rounds, "nothing has to be copied twice")
				want := cells{}
				for i := range servers {
					want.fillFrom(c.owned(i))
				}
				for i := range servers {
					want.fillFrom(c.leftovers(i))
				}
				for i := range servers {
					c.requireCircle(i, want)
				}
				// Once more: there is nothing to do.
				r = e.run()
				require.Empty(t, r.failed)
				require.Equal(t, r.report.Slices.Total, r.report.Unchanged.Slices)
				for _, task := range e.tasksOf(operation.PhaseCopy, 1) {
					require.Zero(t, task.Points.Copied)
					require.Zero(t, task.Bytes.Written)
				}
			}
		})
	}
}

func TestRecoveryFillsACircleFromAnother(t *testing.T) {
	t.Parallel()
	e, servers := newCircles(t, operation.KindRecovery, 2, 3, 1)
	for seed := range uint64(4) {
		from, to := int(seed)%2, 1-int(seed)%2
		c := &cluster{e: e, servers: servers, db: fmt.Sprintf("db%d", seed)}
		c.randomly(rand.New(rand.NewPCG(seed, 9)), 120)
		e.parameter = map[string]any{"from_circle_id": from, "to_circle_id": to, "databases": []string{c.db}}
		only := -1
		if seed >= 2 {
			only = 0
			e.parameter["backend_urls"] = []string{servers[to][only].URL() + "/"}
		}
		r := e.run()
		require.Empty(t, r.failed)
		want := c.owned(from)
		kept := c.owned(to)
		want.fillFrom(kept)
		want.fillFrom(c.leftovers(from))
		for at := range want {
			if v, held := kept[at]; only >= 0 && c.owner(to, at.measurement) != only {
				delete(want, at)
				if held {
					want[at] = v
				}
			}
		}
		c.requireCircle(to, want)
		for i := range servers {
			if i != to {
				for j, s := range servers[i] {
					require.Empty(t, c.held[i][j].unlike(cellsOf(t, s, c.db)), "only circle %d is written to", to)
				}
			}
		}
	}
}

// TestDisagreementsAreCountedAndListed: every point of which the ends hold
// different values, once, also when the copy is interrupted.
func TestDisagreementsAreCountedAndListed(t *testing.T) {
	t.Parallel()
	e, servers := newCircles(t, operation.KindRecovery, 1, 1)
	e.parameter = map[string]any{"from_circle_id": 0, "to_circle_id": 1}
	servers[0][0].Exec("CREATE DATABASE db")
	servers[1][0].Exec("CREATE DATABASE db")
	servers[0][0].WriteLines("db", "", fmt.Sprintf("m v=1i,w=1i %d\nm v=1i,w=1i %d\nm v=1i %d\nn v=1i 5", start, start+1, start+2))
	servers[1][0].WriteLines("db", "", fmt.Sprintf("m v=2i,w=1i %d\nm v=2i,x=3i %d\nm v=1i %d\nn v=1i 5\nn v=7i 6", start, start+1, start+2))
	stopped := false
	e.watch = func(j *job) {
		j.before = func(task *operation.Task) error {
			// Stopped after the replacing and before it is recorded.
			if !stopped && slices.ContainsFunc(task.Checkpoint, func(v operation.Evidence) bool {
				return v.State == operation.SliceCopied && v.Replaced > 0
			}) {
				stopped = true
				return errStopped
			}
			return nil
		}
	}
	r := e.run()
	require.True(t, stopped)
	require.Empty(t, r.failed)
	require.True(t, r.report.Equal, "%+v", r.report)
	require.EqualValues(t, 2, r.report.Replaced)
	require.EqualValues(t, 2, r.report.Extra)
	require.Zero(t, r.report.Unchanged, "whether an attempt that died has written it is not known")
	require.Len(t, r.report.Problems, 2)
	i := slices.IndexFunc(r.report.Problems, func(p operation.Problem) bool { return p.Replaced > 0 })
	require.Equal(t, operation.ResolutionSourceWon, r.report.Problems[i].Resolution)
	require.EqualValues(t, 2, r.report.Problems[i].Replaced)
	require.Equal(t, []string{
		fmt.Sprintf("autogen m v=1i %d\n", start+2), fmt.Sprintf("autogen m v=1i,w=1i %d\n", start),
		fmt.Sprintf("autogen m v=1i,w=1i,x=3i %d\n", start+1), "autogen n v=1i 5\n", "autogen n v=7i 6\n",
	}, dump(t, servers[1][0].URL(), "db"))
}

// TestSinceLimitsAMove: at a nanosecond, in the middle of a shard group and at
// its boundary.
func TestSinceLimitsAMove(t *testing.T) {
	t.Parallel()
	week := int64(7 * 24 * time.Hour)
	boundary := start / week * week // shard groups of autogen begin at weeks
	for boundary+3*day < start {    // the epoch was a Thursday
		boundary += day
	}
	for name, since := range map[string]int64{"in a group": start + 5, "a boundary": boundary, "before all": start - 100*day, "after all": start + 100*day} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, servers := newCircles(t, operation.KindResync, 1, 1)
			var all, later []string
			for _, at := range []int64{start - 30*day, boundary - 1, boundary, boundary + 1, start + 4, start + 5, start + 6, start + 30*day} {
				line := fmt.Sprintf("m v=1i %d\n", at)
				all = append(all, "autogen "+line)
				if at >= since {
					later = append(later, "autogen "+line)
				}
				servers[1][0].Exec("CREATE DATABASE db")
				servers[1][0].WriteLines("db", "", line)
			}
			servers[0][0].Exec("CREATE DATABASE db")
			e.parameter["since"] = time.Unix(0, since).UTC()
			r := e.run()
			require.Empty(t, r.failed)
			slices.Sort(all)
			slices.Sort(later)
			require.ElementsMatch(t, later, dump(t, servers[0][0].URL(), "db"))
			require.ElementsMatch(t, all, dump(t, servers[1][0].URL(), "db"))
		})
	}
}

// TestCountsAloneOnlyOnRequest: slices of equal counts and other values are left
// alone only where the operation asks for counts.
func TestCountsAloneOnlyOnRequest(t *testing.T) {
	t.Parallel()
	for _, depth := range []operation.Depth{"", operation.DepthCount, operation.DepthDigest} {
		t.Run("depth "+string(depth), func(t *testing.T) {
			t.Parallel()
			e, servers := newCircles(t, operation.KindResync, 1, 1)
			e.parameter["depth"] = depth
			for i, s := range []*influxtest.Server{servers[0][0], servers[1][0]} {
				s.Exec("CREATE DATABASE db")
				s.WriteLines("db", "", fmt.Sprintf("same v=1i 1\nsame v=2i 2\nother v=%di 1\nmore v=1i 1", i))
			}
			servers[1][0].WriteLines("db", "", "more v=2i 2")
			r := e.run()
			require.Empty(t, r.failed)
			replaced := int64(1)
			if depth == operation.DepthCount {
				replaced = 0
				require.Equal(t, operation.Amount{Slices: 2, Points: 3}, r.report.Unchanged)
				require.Equal(t, 2, r.report.Slices.ByCount)
				require.Contains(t, dump(t, servers[1][0].URL(), "db"), "autogen other v=1i 1\n")
			} else {
				require.Equal(t, operation.Amount{Slices: 1, Points: 2}, r.report.Unchanged)
				require.Equal(t, r.report.Slices.Total, r.report.Slices.ByPoints)
				require.Equal(t, dump(t, servers[0][0].URL(), "db"), dump(t, servers[1][0].URL(), "db"))
			}
			require.Equal(t, replaced, r.report.Replaced)
			require.Contains(t, dump(t, servers[0][0].URL(), "db"), "autogen more v=2i 2\n")
		})
	}
}

// TestATypeConflictKeepsEverythingElse: where the circles hold a field with
// different types, that field stays as it is in both and is reported; every other
// field and point arrives in both directions.
func TestATypeConflictKeepsEverythingElse(t *testing.T) {
	t.Parallel()
	e, servers := newCircles(t, operation.KindResync, 1, 1)
	for i, lines := range []string{
		"m v=1i,w=2i,x=1i 1\nm v=1i 2\nok v=1i 1\nm a\\ \"b\"=true 9",
		"m v=1.5,y=3i,x=2i 1\nm v=2.5 3\nm v=3.5,z=1i 4\nok v=2.5 700000000000000000\nm a\\ \"b\"=1i,c=1i 8",
	} {
		servers[i][0].Exec("CREATE DATABASE db")
		servers[i][0].WriteLines("db", "", lines)
	}
	r := e.run()
	require.Len(t, r.failed, 1)
	require.Equal(t, "type_conflict", r.failed[0].Code)
	require.Contains(t, r.failed[0].Detail, `["a \"b\"" "v"]`)
	require.False(t, r.report.Equal)
	require.Equal(t, 1, r.report.Slices.Unequal)
	ok := []string{"autogen ok v=1i 1\n", "autogen ok v=2.5 700000000000000000\n"}
	require.Equal(t, append([]string{
		`autogen m a\ \"b\"=true 9` + "\n", "autogen m c=1i 8\n", "autogen m v=1i 2\n", "autogen m v=1i,w=2i,x=1i,y=3i 1\n", "autogen m z=1i 4\n",
	}, ok...), dump(t, servers[0][0].URL(), "db"))
	require.Equal(t, append([]string{
		`autogen m a\ \"b\"=1i,c=1i 8` + "\n", "autogen m v=1.5,w=2i,x=1i,y=3i 1\n", "autogen m v=2.5 3\n", "autogen m v=3.5,z=1i 4\n",
	}, ok...), dump(t, servers[1][0].URL(), "db"))
}

// TestADryRunSaysWhatWouldGo: by measurement, with points and bytes, of the
// windows that a clear may touch.
func TestADryRunSaysWhatWouldGo(t *testing.T) {
	t.Parallel()
	e, servers := newCircles(t, operation.KindClear, 2)
	c := &cluster{e: e, servers: servers, db: "db"}
	mine := slices.IndexFunc([]string{"m0", "m1", "m2", "m3", "m4"}, func(m string) bool { return c.owner(0, m) == 0 })
	name := fmt.Sprintf("m%d", mine)
	s := servers[0][1]
	s.Exec("CREATE DATABASE db; CREATE RETENTION POLICY daily ON db DURATION INF REPLICATION 1 SHARD DURATION 1d")
	old := time.Now().Add(-30 * 24 * time.Hour).UnixNano()
	for i := range int64(10) {
		for _, rp := range []string{"autogen", "daily"} {
			s.WriteLines("db", rp, fmt.Sprintf("%s,host=a v=%di %d\n%s,host=a v=%di %d", name, i, old+i, name, i, time.Now().UnixNano()-i))
		}
	}
	e.parameter = map[string]any{"circle_id": 0, "older_than_seconds": 24 * 60 * 60}
	e.dry = true
	plan := e.plan(e.mover())
	require.Len(t, plan.Measurements, 1)
	got := plan.Measurements[0]
	require.Equal(t, name, got.Measurement)
	require.EqualValues(t, 20, got.Points, "of both policies, without what is younger")
	require.InDelta(t, 20*len(name+",host=a v=1i 1700000000000000000\n"), got.Bytes, 20)
	require.Equal(t, 1, got.Slices)
	require.Equal(t, got.Bytes, plan.Totals.Bytes)
	require.Empty(t, plan.Policies, "nothing is made anywhere")
}
