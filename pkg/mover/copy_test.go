package mover_test

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/operation"
)

// day is a time in the middle of a week, and so of a default shard group.
const (
	day   = int64(24 * time.Hour)
	start = 1_600_000_000_000_000_000 / day * day
)

// lines makes points of several series in a window.
func lines(measurement string, series, points int, from, step int64) string {
	var b strings.Builder
	for p := range points {
		for s := range series {
			fmt.Fprintf(&b, "%s,host=h%d,zone=z%d a=%di,b=%d.25,c=\"x%d\",d=%t %d\n", measurement, s, s%3, p, p, p%7, p%2 == 0, from+int64(p)*step)
		}
	}
	return b.String()
}

func TestFillProvesByCount(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.source.Exec("CREATE DATABASE db")
	e.source.WriteLines("db", "", lines("big", 20, 300, start, int64(time.Hour)))
	for i := range 40 {
		e.source.WriteLines("db", "", lines(fmt.Sprintf("small%d", i), 2, 3, start, day))
	}
	r := e.requireMoved("db")
	require.Equal(t, 1, r.rounds)
	require.Equal(t, r.report.Slices.Total, r.report.Slices.ByCount)
	require.Equal(t, operation.ReportPoints{Source: 6240, Destination: 6240}, r.report.Points)
	require.Equal(t, 41, r.plan.Totals.Measurements)
	require.Empty(t, r.report.Problems)
	var sum operation.Evidence
	var read, written, verified int64
	for _, c := range append(e.tasksOf(operation.PhaseCopy, 1), e.tasksOf(operation.PhaseVerify, 1)...) {
		for _, s := range c.Checkpoint {
			sum.Rows, sum.Values, sum.Written = sum.Rows+s.Rows, sum.Values+s.Values, sum.Written+s.Written
		}
		read, written, verified = read+c.Bytes.Read, written+c.Bytes.Written, verified+c.Points.Verified
	}
	require.Equal(t, operation.Evidence{Rows: 6240, Values: 4 * 6240, Written: 6240}, sum)
	require.EqualValues(t, 6240, verified)
	require.Greater(t, read, int64(6240*20), "msgpack bytes")
	require.Greater(t, written, int64(6240*40), "bytes of line protocol")
}

// TestSignedAndUnsignedAreNotConfused: one field, signed in one group and
// unsigned in another, cannot be read truly; and an owner that holds the same
// number unsigned holds another value.
func TestSignedAndUnsignedAreNotConfused(t *testing.T) {
	t.Parallel()
	e := newEnv(t, influxtest.WithUnsigned())
	e.source.Exec("CREATE DATABASE db")
	e.destination.Exec("CREATE DATABASE db")
	e.source.WriteLines("db", "", fmt.Sprintf("both v=1i %d\nboth v=1u %d\nother v=5i 1", start, start+30*day))
	e.destination.WriteLines("db", "", "other v=5u 1")
	r := e.run()
	require.Len(t, r.failed, 1)
	require.Equal(t, "type_ambiguous", r.failed[0].Code)
	require.Contains(t, r.failed[0].Detail, "2 of 3 slices")
	require.EqualValues(t, 1, r.report.Different)
	require.Equal(t, []string{"autogen other v=5u 1\n"}, dump(t, e.to, "db"))
}

func TestDigestReadsTheDestinationBack(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.parameter["depth"] = "digest"
	e.source.Exec("CREATE DATABASE db")
	e.source.WriteLines("db", "", lines("m", 5, 50, start, int64(time.Hour)))
	r := e.requireMoved("db")
	require.Equal(t, r.report.Slices.Total, r.report.Slices.ByPoints)
	require.EqualValues(t, 250, r.report.Points.Destination)
	var verify operation.Task
	for _, v := range e.tasksOf(operation.PhaseVerify, 1) {
		verify.Bytes.Read += v.Bytes.Read
	}
	require.Positive(t, verify.Bytes.Read)
}

// TestDigestSeesAnotherValueOfTheSameCount: the destination is changed between
// the copy and the verification, in ways that counts do not show.
func TestDigestSeesAnotherValueOfTheSameCount(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{
		"value": "m,k=a v=2i,w=\"x\",x=1 1", "text": "m,k=a v=1i,w=\"y\",x=1 1", "float": "m,k=a x=1.0000000000000002 1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.parameter["depth"] = "digest"
			e.source.Exec("CREATE DATABASE db")
			e.source.WriteLines("db", "", "m,k=a v=1i,w=\"x\",x=1 1\nm,k=b v=1i,w=\"x\",x=1 1")
			m := e.mover()
			r := e.copyAll(m)
			e.destination.WriteLines("db", "", change)
			e.verifyAll(m, &r)
			v := e.tasksOf(operation.PhaseVerify, 1)[0].Verdict
			require.Equal(t, []int{0}, v.Unproven)
			require.EqualValues(t, 1, v.Different)
			require.Contains(t, v.Problems[0].Example, `different: "m","k"="a" at 1`)
		})
	}
}

// TestCompleteNeverReplaces: the owner holds a part of the points, some of them
// with other values, and more besides.
func TestCompleteNeverReplaces(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.source.Exec("CREATE DATABASE db")
	e.destination.Exec("CREATE DATABASE db")
	e.source.WriteLines("db", "", `m,k=a v=1i,s="here" 10
m,k=a v=2i,s="here" 20
m,k=a v=3i,s="here" 30
m,k=b v=4i 10
m v=5i 10`)
	e.destination.WriteLines("db", "", `m,k=a v=1i,s="here" 10
m,k=a v=99i 20
m,k=a v=3i 30
m,k=a v=7i 40
m,k=b v=4i,own=true 10
m,k=c v=8i 10`)
	r := e.run()
	require.Empty(t, r.failed)
	require.Equal(t, 1, r.rounds, "what the owner holds is no reason to copy again")
	require.Equal(t, []string{
		"autogen m v=5i 10\n",
		"autogen m,k=a s=\"here\",v=1i 10\n",
		"autogen m,k=a s=\"here\",v=3i 30\n",
		"autogen m,k=a s=\"here\",v=99i 20\n",
		"autogen m,k=a v=7i 40\n",
		"autogen m,k=b own=true,v=4i 10\n",
		"autogen m,k=c v=8i 10\n",
	}, dump(t, e.destination.URL(), "db"))
	ev := e.tasksOf(operation.PhaseCopy, 1)[0].Checkpoint
	require.Len(t, ev, 1)
	require.False(t, ev[0].DestinationEmpty)
	require.Equal(t, [4]int64{5, 3, 1, 0}, [4]int64{ev[0].Rows, ev[0].Written, ev[0].Kept, ev[0].Expired})
	require.False(t, r.report.Equal, "the owner holds another value")
	require.EqualValues(t, 0, r.report.Missing)
	require.EqualValues(t, 1, r.report.Different)
	require.EqualValues(t, 3, r.report.Extra)
	require.Len(t, r.report.Problems, 1)
	require.Equal(t, operation.ResolutionOwnerKept, r.report.Problems[0].Resolution)
	require.Contains(t, r.report.Problems[0].Example, `different: "m","k"="a" at 20`)
	require.Equal(t, operation.ReportPoints{Source: 5, Destination: 7}, r.report.Points)
}

// TestRepeatedAndLateCopiesChangeNothing: the same tasks once more, and a copy
// whose claim comes back after another has finished.
func TestRepeatedAndLateCopiesChangeNothing(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.source.Exec("CREATE DATABASE db")
	e.source.WriteLines("db", "", lines("m", 4, 100, start, int64(time.Hour)))
	e.requireMoved("db")
	e.destination.WriteLines("db", "", fmt.Sprintf("m,host=h0,zone=z0 a=-1i %d", start))
	before := dump(t, e.destination.URL(), "db")
	m := e.mover()
	for _, c := range e.tasksOf(operation.PhaseCopy, 1) {
		// As an attempt that knows of no checkpoint.
		c.Checkpoint, c.State = nil, operation.TaskRunning
		e.store(c)
		require.NoError(t, e.runTask(m, c.ID, &result{}))
	}
	require.Equal(t, before, dump(t, e.destination.URL(), "db"))
	again := e.run()
	require.Equal(t, before, dump(t, e.destination.URL(), "db"))
	require.EqualValues(t, 1, again.report.Different)
	require.Zero(t, again.report.Missing)
}

// TestEveryAwkwardValue: names and values that others lose, each compared by
// type, tags, time and policy.
func TestEveryAwkwardValue(t *testing.T) {
	t.Parallel()
	e := newEnv(t, influxtest.WithUnsigned())
	e.source.Exec(`CREATE DATABASE "d b.\"quoted\""`)
	const db = `d b."quoted"`
	e.source.Exec(`CREATE RETENTION POLICY "r p, =" ON "d b.\"quoted\"" DURATION INF REPLICATION 1 SHARD DURATION 2d`)
	long := strings.Repeat("ÿ€\n", 64<<10/6)
	all := []string{
		`m s="quotes \"inside\" and a backslash \\" 1`,
		"m s=\"two\nlines\" 2",
		`m s="" 3`,
		`m s="commas, spaces, equals=signs, emoji 🎪" 4`,
		`m s="` + long + `" 5`,
		`m i=9223372036854775807i,j=-9223372036854775808i,k=9007199254740993i 6`,
		`m t=true,f=false 7`,
		`m u=18446744073709551615u,few=5u,none=0u 14`,
		`only u=127u 1`, `only u=128u 2`, `only i=127i,u=9223372036854775808u 3`,
		fmt.Sprintf("m z=-0,small=%v,large=%v,tiny=%v 8", math.SmallestNonzeroFloat64, math.MaxFloat64, -2.2250738585072014e-308),
		`m whole=1,part=0.1 9`,
		`m first=1i -9223372036854775806`,
		`m last=1i 9223372036854775806`,
		`m,tag\ with\,all\=signs=value\ with\,all\=signs field\ with\,all\=signs=1 10`,
		`m,ünïcode=日本語 größe="✓" 11`,
		`m,k=tag k=1i 12`,
		`m,v=tag v="field" 13`,
		`sparse,a=1 x=1i 1`, `sparse,a=1 y="2" 2`, `sparse,b=1 z=true 3`, `sparse w=1.5 4`,
		`_under v=1i 1`, `a\,b\ c v=1i 1`, `a"b v=1i 1`, `päth/with.dots\nin v=1i 1`,
	}
	for _, l := range all {
		e.source.WriteLines(db, "", l)
		if !strings.Contains(l, "last=") {
			e.source.WriteLines(db, "r p, =", l)
		}
	}
	r := e.requireMoved(db)
	require.Equal(t, r.report.Slices.Total, r.report.Slices.ByCount)
	require.Len(t, dump(t, e.destination.URL(), db), 2*len(all)-1, "points")
}

// TestPoliciesAreMadeExactly: several policies, one of them the default, with
// durations of their own, and the points of each in its own.
func TestPoliciesAreMadeExactly(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.source.Exec(`CREATE DATABASE db WITH DURATION 52w REPLICATION 1 SHARD DURATION 3h NAME year;
		CREATE RETENTION POLICY ever ON db DURATION INF REPLICATION 2 SHARD DURATION 26w DEFAULT;
		CREATE RETENTION POLICY unused ON db DURATION 2h REPLICATION 1;
		CREATE DATABASE empty`)
	now := time.Now().UnixNano()
	e.source.WriteLines("db", "year", fmt.Sprintf("m v=1i %d\nn v=1i %d", now, now-5*day))
	e.source.WriteLines("db", "ever", fmt.Sprintf("m v=2 %d\nm v=3 %d", now, start))
	// The owner has the database already, and one policy with other attributes.
	e.destination.Exec(`CREATE DATABASE db; ALTER RETENTION POLICY autogen ON db DURATION INF;
		CREATE RETENTION POLICY year ON db DURATION 100w REPLICATION 1 SHARD DURATION 1d`)
	e.requireMoved("db")
	const show = `SHOW RETENTION POLICIES ON db`
	rows := func(s *influxtest.Server) map[any][]any {
		out := map[any][]any{}
		for _, v := range s.Query(show)[0].Series[0].Values {
			out[v[0]] = v[1:]
		}
		return out
	}
	want := rows(e.source)
	want["year"][0] = "16800h0m0s" // the owner keeps points longer, and goes on to
	want["autogen"] = []any{"0s", "168h0m0s", want["year"][2], false}
	require.Equal(t, want, rows(e.destination))
	require.Equal(t, [][]any{{"db"}}, e.destination.Query("SHOW DATABASES")[0].Series[0].Values, "nothing of a database with nothing to move")
}

func TestPrepareMakesNoPolicyOfItsOwn(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.source.Exec(`CREATE DATABASE db; CREATE RETENTION POLICY only ON db DURATION INF REPLICATION 1; DROP RETENTION POLICY autogen ON db`)
	e.source.WriteLines("db", "only", "m v=1 1")
	e.requireMoved("db")
	require.Len(t, e.destination.Query(`SHOW RETENTION POLICIES ON db`)[0].Series[0].Values, 1)
}

// TestTypesStayBetweenShardGroups: one field, another type in each group.
func TestTypesStayBetweenShardGroups(t *testing.T) {
	t.Parallel()
	for _, depth := range []string{"count", "digest"} {
		t.Run(depth, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.parameter["depth"] = depth
			e.source.Exec(`CREATE DATABASE db WITH DURATION INF SHARD DURATION 1d`)
			for i, v := range []string{"1i", "1.5", `"text"`, "true", "2i", "2"} {
				e.source.WriteLines("db", "", fmt.Sprintf("m,k=a v=%s,w=1 %d\nm,k=b v=%s %d", v, start+int64(i)*day, v, start+int64(i+1)*day-1))
			}
			r := e.requireMoved("db")
			require.EqualValues(t, 12, r.report.Points.Source)
		})
	}
}

// TestSourceChangedDuringTheCopy: points that came and points that were
// overwritten after they had been read.
func TestSourceChangedDuringTheCopy(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.source.Exec("CREATE DATABASE db")
	e.source.WriteLines("db", "", "m v=1i 1\nm v=2i 2\nn v=1i 1")
	m := e.mover()
	r := e.copyAll(m)
	e.source.WriteLines("db", "", "m v=3i 3")
	e.verifyAll(m, &r)
	v := e.tasksOf(operation.PhaseVerify, 1)[0].Verdict
	require.Equal(t, 2, v.Slices.Total)
	require.Equal(t, operation.SliceTotals{Total: 2, Equal: 1, Unequal: 1, ByCount: 1}, v.Slices)
	require.Len(t, v.Unproven, 1)
	require.EqualValues(t, 1, v.Missing)
	require.Equal(t, operation.CodeUnequal, v.Problems[0].Code)
	// Once more, by the controller's second round.
	r2 := e.run()
	require.True(t, r2.report.Equal)
	require.Equal(t, dump(t, e.source.URL(), "db"), dump(t, e.destination.URL(), "db"))
}

// TestUnequalIsCopiedOnceMoreAndThenTold: the owner loses a point after each
// copy, and gains one.
func TestUnequalIsCopiedOnceMoreAndThenTold(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.source.Exec("CREATE DATABASE db")
	e.source.WriteLines("db", "", "m v=1i 1\nm v=2i 2\nn v=1i 1")
	e.watch = func(j *job) {
		if j.Task().Phase == operation.PhaseVerify {
			forget(t, e.destination, "db", `DELETE FROM m WHERE time = 2`)
			e.destination.WriteLines("db", "", "m,other=1 v=9i 9")
		}
	}
	r := e.run()
	require.Equal(t, 2, r.rounds)
	require.False(t, r.report.Equal)
	require.Equal(t, operation.SliceTotals{Total: 2, Equal: 1, Unequal: 1, ByCount: 1}, r.report.Slices)
	require.EqualValues(t, 1, r.report.Missing)
	require.EqualValues(t, 1, r.report.Extra)
	require.Equal(t, operation.ReportPoints{Source: 3, Destination: 3}, r.report.Points)
	require.Equal(t, `missing: "m" at 2`, r.report.Problems[0].Example)
}

func TestExtraIsTold(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.source.Exec("CREATE DATABASE db")
	e.destination.Exec("CREATE DATABASE db")
	e.source.WriteLines("db", "", "m v=1i 1")
	e.destination.WriteLines("db", "", "m v=2i 2\nm,z=1 v=2i 2")
	r := e.run()
	require.True(t, r.report.Equal)
	require.EqualValues(t, 2, r.report.Extra)
	require.Equal(t, operation.ResolutionExtra, r.report.Problems[0].Resolution)
	require.Equal(t, operation.SliceTotals{Total: 1, Equal: 1, ByPoints: 1}, r.report.Slices)
}

// TestTooLargeIsHandedOver: a slice that holds far more than its plan says goes
// to tasks of its own, cut where its points are, and every point arrives.
func TestTooLargeIsHandedOver(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.config.SliceRows, e.config.PartRows, e.config.BatchRows = 1000, 400, 100
	e.source.Exec("CREATE DATABASE db")
	// All but a few points lie in an hour that the probe does not see.
	e.source.WriteLines("db", "", fmt.Sprintf("m v=1i %d\nm v=1i %d", start, start+6*day))
	e.source.WriteLines("db", "", lines("m", 5, 500, start+day, int64(7*time.Second)))
	// Points of one time cannot be parted; they move all the same.
	e.source.WriteLines("db", "", lines("wide", 1200, 1, start, 1))
	// Sparse points: the largest count of a field is far below the points.
	var sparse strings.Builder
	for i := range 1500 {
		fmt.Fprintf(&sparse, "sparse f%d=1i %d\n", i%50, start+int64(i)*int64(time.Second))
	}
	e.source.WriteLines("db", "", sparse.String())
	r := e.requireMoved("db")
	children, handed := 0, 0
	for _, c := range e.tasksOf(operation.PhaseCopy, 1) {
		if c.Parent != "" {
			children++
			require.Contains(t, e.task(c.Parent).Children, c.ID)
		}
		for i, s := range c.Checkpoint {
			if s.State == operation.SliceHandedOver {
				handed++
				require.Zero(t, s.Rows)
			}
			if e.slicesOf(&c)[i].Measurement != "wide" {
				require.LessOrEqual(t, s.Rows, int64(1000), "%+v", e.slicesOf(&c)[i])
			}
		}
	}
	require.GreaterOrEqual(t, handed, 2)
	require.GreaterOrEqual(t, children, 4)
	require.EqualValues(t, 2+2500+1200+1500, r.report.Points.Source)
}

// TestExpired: what retention no longer admits is left out from the beginning,
// or given up when the owner refuses it meanwhile; both are counted.
func TestExpired(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.source.Exec(`CREATE DATABASE db WITH DURATION 2d SHARD DURATION 1d`)
	now := time.Now().UnixNano()
	// Before the cutoff, in a group that the source still has; m and n just at
	// the edge; and fresh ones.
	e.source.Exec(`ALTER RETENTION POLICY autogen ON db DURATION 10d`)
	old := now - 5*day
	edge := now - 2*day
	e.source.WriteLines("db", "", fmt.Sprintf("m v=1i %d\nm v=2i %d\nm v=3i %d\nn v=1i %d\nn v=2i %d", old, edge+int64(20*time.Minute), now, edge+int64(20*time.Minute), now))
	e.source.Exec(`ALTER RETENTION POLICY autogen ON db DURATION 2d`)
	m := e.mover()
	plan := e.plan(m)
	expired := 0
	for _, c := range e.chunks {
		for _, s := range c {
			if s.Expired {
				expired++
			}
		}
	}
	require.Positive(t, expired)
	require.NoError(t, m.Prepare(t.Context(), &e.operation, &plan, &job{env: e}))
	// The owner's clock is ahead by an hour, as it were.
	e.watch = func(*job) { e.destination.Exec(`ALTER RETENTION POLICY autogen ON db DURATION 47h`) }
	r := e.run()
	require.Empty(t, r.failed)
	require.True(t, r.report.Equal, "%+v", r.report)
	require.EqualValues(t, 3, r.report.Expired)
	require.Len(t, dump(t, e.destination.URL(), "db"), 2)
	var lost int64
	for _, c := range e.tasksOf(operation.PhaseCopy, 1) {
		for i, s := range c.Checkpoint {
			lost += s.Expired
			require.LessOrEqual(t, s.Expired, s.Rows, "%+v", e.slicesOf(&c)[i])
			require.LessOrEqual(t, s.Written, s.Rows-s.Expired)
		}
	}
	require.EqualValues(t, 2, lost, "each slice's own")
}

func TestNothingToMove(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	plan := e.plan(e.mover())
	require.Empty(t, plan.Tasks)
	e.source.Exec("CREATE DATABASE db")
	plan = e.plan(e.mover())
	require.Empty(t, plan.Tasks)
	require.Empty(t, plan.Policies)
}

// forget deletes points of a database.
func forget(t testing.TB, s *influxtest.Server, db, q string) {
	t.Helper()
	res, err := http.PostForm(s.URL()+"/query", url.Values{"db": {db}, "q": {q}})
	require.NoError(t, err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NotContains(t, string(answer), "error")
	http.DefaultClient.CloseIdleConnections()
}
