package mover_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
)

// some fills both ends: 3 measurements of 4 series over three weeks.
func some(c *clearEnv) (points int64) {
	c.both("CREATE DATABASE db", "", "")
	for i := range 3 {
		text := lines(fmt.Sprintf("m%d", i), 4, 50, start, int64(10*time.Hour))
		c.both("", "", text)
	}
	return 3 * 4 * 50
}

func TestClear(t *testing.T) {
	t.Parallel()
	c := newClearEnv(t)
	points := some(c)
	c.destination.WriteLines("db", "", "own,host=x v=1 1\nm1,host=more v=1 "+fmt.Sprint(start))
	r := c.requireCleared(points)
	require.Positive(t, r.task.Bytes.Read)
	require.Equal(t, map[operation.SliceState]int{operation.SliceDropped: len(r.task.Slices)}, r.states())
	// Once more there is nothing to do.
	again := c.clear(r.task.Slices...)
	require.NoError(t, again.err)
	require.Zero(t, again.task.Points.Dropped)
	require.Equal(t, operation.SliceTotals{Total: len(r.task.Slices), Equal: len(r.task.Slices), ByCount: len(r.task.Slices)}, again.report.Slices)
	require.Zero(t, again.report.Dropped)
}

// TestClearKeepsWhatTheOwnerLacks: one point, one field, one value, one type.
func TestClearKeepsWhatTheOwnerLacks(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]struct{ ours, owners, says string }{
		"a point":  {"m1,host=h0 v=1i 77", "", "of 1 points here 1 are missing"},
		"a field":  {"m1,k=x v=1i,w=2i 77", "m1,k=x v=1i 77", "of 1 points here 1 are missing"},
		"a value":  {"m1,k=x v=1i 77", "m1,k=x v=2i 77", "0 are missing at the owner"},
		"a type":   {"m1,k=x own=1i 77", "m1,k=x own=1 77", "and 1 differ"},
		"a string": {"m1,k=x s=\"a\" 77", "m1,k=x s=\"b\" 77", `"m1","k"="x" at 77`},
		"a series": {"m1,k=x v=1i 77", "m1,k=y v=1i 77", "of 1 points here 1 are missing"},
		"a tag":    {"m1,k=x v=1i 77", "m1 v=1i,k=\"x\" 77", "of 1 points here 1 are missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClearEnv(t)
			some(c)
			c.source.WriteLines("db", "", change.ours)
			if change.owners != "" {
				c.destination.WriteLines("db", "", change.owners)
			}
			r, p := c.requireKept("unproven")
			require.Contains(t, p.Detail, change.says)
			require.Contains(t, p.Detail, `retention policy "autogen"`)
			require.Equal(t, "m1", p.Slice.Measurement)
			require.Equal(t, []string{"m1"}, measurementsOf(t, c.source.URL()))
			require.EqualValues(t, 600, r.task.Points.Dropped)
		})
	}
}

// TestClearUnitIsAllPolicies: one policy that is not proven keeps the window in
// all of them, and other windows go.
func TestClearUnitIsAllPolicies(t *testing.T) {
	t.Parallel()
	setup := "CREATE DATABASE db; CREATE RETENTION POLICY long ON db DURATION INF REPLICATION 1 SHARD DURATION 30d; CREATE RETENTION POLICY empty ON db DURATION INF REPLICATION 1"
	t.Run("all proven", func(t *testing.T) {
		t.Parallel()
		c := newClearEnv(t)
		for _, rp := range []string{"autogen", "long"} {
			c.both(setup, rp, lines("m", 3, 50, start, int64(10*time.Hour)))
		}
		c.requireCleared(300)
	})
	t.Run("a point is missing in one", func(t *testing.T) {
		t.Parallel()
		c := newClearEnv(t)
		for _, rp := range []string{"autogen", "long"} {
			c.both(setup, rp, lines("m", 3, 50, start, int64(10*time.Hour)))
		}
		c.source.WriteLines("db", "long", fmt.Sprintf("m x=1 %d", start+1))
		_, p := c.requireKept("unproven")
		require.Contains(t, p.Detail, `retention policy "long"`)
		left := dump(t, c.source.URL(), "db")
		require.Contains(t, left, fmt.Sprintf("long m x=1 %d\n", start+1))
		require.Contains(t, left, fmt.Sprintf("autogen m,host=h0,zone=z0 a=0i,b=0.25,c=\"x0\",d=true %d\n", start), "kept in the other policy, too")
		require.Less(t, len(left), 200)
	})
	t.Run("the owner lacks one", func(t *testing.T) {
		t.Parallel()
		c := newClearEnv(t)
		c.both(setup, "", lines("m", 3, 50, start, int64(10*time.Hour)))
		c.source.Exec("CREATE RETENTION POLICY mine ON db DURATION INF REPLICATION 1")
		c.source.WriteLines("db", "mine", fmt.Sprintf("m x=1 %d", start))
		_, p := c.requireKept("unproven")
		require.Contains(t, p.Detail, `retention policy "mine": the owner `+c.to+" does not have it, and 1 points")
	})
	t.Run("the owner lacks one that is empty", func(t *testing.T) {
		t.Parallel()
		c := newClearEnv(t)
		c.both(setup, "", lines("m", 3, 50, start, int64(10*time.Hour)))
		c.source.Exec("CREATE RETENTION POLICY mine ON db DURATION INF REPLICATION 1")
		c.source.WriteLines("db", "mine", fmt.Sprintf("n x=1 %d", start))
		remove(t, c.source.URL(), "n", always())
		c.requireCleared(150)
	})
	t.Run("the owner lacks the database", func(t *testing.T) {
		t.Parallel()
		c := newClearEnv(t)
		c.source.Exec("CREATE DATABASE db")
		c.source.WriteLines("db", "", fmt.Sprintf("m x=1 %d", start))
		_, p := c.requireKept("unproven")
		require.Contains(t, p.Detail, "the owner "+c.to+" does not have it")
	})
	t.Run("a policy that came after the plan", func(t *testing.T) {
		t.Parallel()
		c := newClearEnv(t)
		c.both(setup, "", lines("m", 3, 5, start, int64(time.Minute)))
		units := c.units()
		c.source.Exec("CREATE RETENTION POLICY later ON db DURATION INF REPLICATION 1")
		c.source.WriteLines("db", "later", fmt.Sprintf("m x=1 %d", start))
		_, p := c.requireKept("unproven", units...)
		require.Contains(t, p.Detail, `retention policy "later"`)
	})
}

// TestClearOfADatabaseThatIsGone has nothing to do.
func TestClearOfADatabaseThatIsGone(t *testing.T) {
	t.Parallel()
	c := newClearEnv(t)
	some(c)
	units := c.units()
	c.source.Exec("DROP DATABASE db")
	r := c.clear(units...)
	require.NoError(t, r.err)
	require.True(t, r.report.Equal)
	require.Zero(t, r.report.Dropped)
}

// TestClearExpired: what retention no longer admits at the source, by the time of
// the request, is not proven, and counted.
func TestClearExpired(t *testing.T) {
	t.Parallel()
	const hour = int64(time.Hour)
	for name, v := range map[string]struct {
		// hours is how long the source keeps points, later when the clear was asked for.
		hours int64
		later time.Duration
	}{
		"part of a window": {hours: 24*20 + 7}, "none": {hours: 24 * 100}, "all": {hours: 24 * 20, later: 100 * 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClearEnv(t)
			now := time.Now().UnixNano()
			c.operation.CreatedAt = c.operation.CreatedAt.Add(v.later)
			c.both("CREATE DATABASE db", "", "")
			expired, live := []string{}, 0
			for i := range int64(60) {
				line := fmt.Sprintf("m,k=a v=%di %d", i, now-i*24*hour-hour/2)
				c.source.WriteLines("db", "", line)
				if now-i*24*hour-hour/2 < c.operation.CreatedAt.UnixNano()-v.hours*hour {
					expired = append(expired, "autogen "+line+"\n") // the owner need not have it
					continue
				}
				c.destination.WriteLines("db", "", line)
				live++
			}
			c.source.Exec(fmt.Sprintf("ALTER RETENTION POLICY autogen ON db DURATION %dh", v.hours))
			r := c.clear()
			require.NoError(t, r.err)
			require.EqualValues(t, live, r.report.Dropped.Points)
			require.EqualValues(t, live, r.task.Points.Dropped)
			require.EqualValues(t, len(expired), r.report.Expired)
			slices.Sort(expired)
			require.Equal(t, expired, dump(t, c.source.URL(), "db"), "left to retention")
			require.True(t, r.report.Equal)
		})
	}
}

// TestClearExpiredInOnePolicy: a delete is of all policies, so that what has expired
// in one goes with what another still keeps, and no more than that.
func TestClearExpiredInOnePolicy(t *testing.T) {
	t.Parallel()
	c := newClearEnv(t)
	const hour = int64(time.Hour)
	monday := time.Now().UTC().Truncate(7 * 24 * time.Hour).UnixNano()
	// Three windows of a week: far in the past, under the cutoff, and this one.
	c.operation.CreatedAt = time.Unix(0, monday+3*24*hour)
	c.both("CREATE DATABASE db; CREATE RETENTION POLICY ever ON db DURATION INF REPLICATION 1 SHARD DURATION 7d", "", "")
	for _, h := range []int64{-8 * 24, -30, -20, -10, 2} {
		c.source.WriteLines("db", "", fmt.Sprintf("m v=1i %d", monday+h*hour))
		if h > -24 {
			c.destination.WriteLines("db", "", fmt.Sprintf("m v=1i %d", monday+h*hour))
		}
	}
	c.both("", "ever", fmt.Sprintf("m v=1i %d", monday-25*hour))
	c.source.Exec("ALTER RETENTION POLICY autogen ON db DURATION 96h SHARD DURATION 24h")
	r := c.clear()
	require.NoError(t, r.err)
	require.EqualValues(t, 4, r.report.Dropped.Points)
	require.EqualValues(t, 2, r.report.Expired)
	require.Equal(t, []string{fmt.Sprintf("autogen m v=1i %d\n", monday-8*24*hour)}, dump(t, c.source.URL(), "db"))
	require.True(t, r.report.Equal)
}

// TestClearPointsInTwoRows: where groups overlap a server may answer one point in
// two rows, and count it twice.
func TestClearPointsInTwoRows(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"source", "owner"} {
		c := newClearEnv(t)
		line := fmt.Sprintf("m v=1i %d", at(6, 1))
		twiceAt, once := c.source, c.destination
		if end == "owner" {
			twiceAt, once = once, twiceAt
		}
		twice(twiceAt, line, line)
		once.Exec("CREATE DATABASE db")
		once.WriteLines("db", "", line)
		for _, u := range c.units() {
			if u.Measurement == "m" {
				r := c.clear(u)
				require.NoError(t, r.err, end)
			}
		}
		require.NotContains(t, measurementsOf(t, c.source.URL()), "m")
	}
}

// TestClearKeepsAmbiguousTypes: where overlapping groups hold several types, what
// a read hides would be deleted without proof.
func TestClearKeepsAmbiguousTypes(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]struct {
		daily, weekly string
		planned       bool
	}{
		"integer under float": {"1i", "1.5", true}, "string under number": {`"text"`, "1i", true},
		"string that the plan does not know of": {`"text"`, "1i", false}, "boolean and string": {"true", `"text"`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClearEnv(t)
			c.overlapping = true
			overlap(c.source, fmt.Sprintf("m v=%s %d\nplain v=1i %d", v.daily, at(2, 1), at(2, 1)))
			c.source.WriteLines("db", "", fmt.Sprintf("m v=%s %d\nplain v=1i %d", v.weekly, at(4, 1), at(4, 1)))
			// The owner has what a read shows of it, and more.
			c.destination.Exec("CREATE DATABASE db")
			c.destination.WriteLines("db", "", fmt.Sprintf("plain v=1i %d\nplain v=1i %d", at(2, 1), at(4, 1)))
			for _, line := range dump(t, c.source.URL(), "db") {
				_, line, _ := strings.Cut(line, " ")
				_ = tryWrite(c.destination.URL(), line)
			}
			units := c.units()
			for i := range units {
				// The plan may have been made before the groups were.
				units[i].Overlap = v.planned
			}
			_, p := c.requireKept("type_ambiguous", units...)
			require.Contains(t, p.Detail, `field "v" has the types`)
			require.Contains(t, p.Detail, `retention policy "autogen"`)
			require.Equal(t, []string{"m"}, measurementsOf(t, c.source.URL()))
		})
	}
}

// TestClearAwkwardNames: what the names of measurements, policies and databases
// mean elsewhere means nothing here.
func TestClearAwkwardNames(t *testing.T) {
	t.Parallel()
	c := newClearEnv(t)
	c.both(`CREATE DATABASE db; CREATE RETENTION POLICY "a 'b.c" ON db DURATION INF REPLICATION 1`, "", "")
	names := []string{
		"_name", "_measurements", "/m.*/", "/.*/", `q"uote`, "o'clock", `b\s`, "null\x00", "cr\rx", "grüße 🦉", "select", "m m", "a,b", "=", ";",
		"from", "1", "-", `"db"."autogen"."m"`, "*", "a.b", "mm", "m",
	}
	for i, name := range names {
		escaped := strings.NewReplacer(" ", `\ `, ",", `\,`).Replace(name)
		for _, rp := range []string{"autogen", "a 'b.c"} {
			c.both("", rp, fmt.Sprintf("%s,k=a v=%di %d\n%s,k=b v=%di %d", escaped, i, start, escaped, i, start+1))
		}
	}
	for i := range names {
		var units []operation.Slice
		for _, u := range c.units() {
			if u.Measurement == names[i] {
				units = append(units, u)
			}
		}
		require.NotEmpty(t, units, names[i])
		r := c.clear(units...)
		require.NoError(t, r.err, names[i])
		require.EqualValues(t, 4, r.task.Points.Dropped, names[i])
		require.True(t, r.report.Equal)
		require.Len(t, dump(t, c.source.URL(), "db"), 4*(len(names)-i-1), names[i])
	}
}

// TestClearBothEndsOfTime: the first and the last legal time are inside.
func TestClearBothEndsOfTime(t *testing.T) {
	t.Parallel()
	c := newClearEnv(t)
	c.both("CREATE DATABASE db", "", fmt.Sprintf("m v=1i %d\nm v=2i %d\nm v=3i -1\nm v=4i 0", lineproto.MinTime, lineproto.MaxTime))
	units := c.units()
	require.True(t, units[len(units)-1].Last)
	c.requireCleared(4, units...)
}

// TestClearManySeries: a measurement of ten thousand series.
func TestClearManySeries(t *testing.T) {
	t.Parallel()
	c := newClearEnv(t)
	c.both("CREATE DATABASE db", "", lines("m", 10_000, 2, start, int64(time.Minute)))
	c.requireCleared(20_000)
}

// TestClearIsBoundedInRate: one delete at a time, and so many a second.
func TestClearIsBoundedInRate(t *testing.T) {
	t.Parallel()
	c := newClearEnv(t)
	some(c)
	c.config.Clearing.DropsPerSecond = 50
	units := c.units()
	began := time.Now()
	require.NoError(t, c.clear(units...).err)
	require.Greater(t, time.Since(began), time.Duration(len(units)-1)*time.Second/50)

	// A clock that stands still, or jumps, makes no wait longer.
	c = newClearEnv(t)
	some(c)
	var calls atomic.Int64
	c.config.Now = func() time.Time {
		return time.Unix(1_700_000_000, 0).Add(-time.Duration(calls.Add(1)) * time.Hour)
	}
	began = time.Now()
	require.NoError(t, c.clear(units...).err)
	require.Less(t, time.Since(began), time.Minute)
	require.Empty(t, dump(t, c.source.URL(), "db"))
}

// TestClearRandomly: whatever both ends hold, nothing is lost, and what is dropped
// and kept is counted.
func TestClearRandomly(t *testing.T) {
	t.Parallel()
	c := newClearEnv(t)
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	draw := func() (rp, line string) {
		return []string{"autogen", "b"}[r.IntN(2)], fmt.Sprintf("%c,k=%d %c=%di %d",
			"mn"[r.IntN(2)], r.IntN(2), "fg"[r.IntN(2)], r.IntN(2), start+r.Int64N(4)*day+r.Int64N(2))
	}
	for round := range 25 {
		for _, s := range []*influxtest.Server{c.source, c.destination} {
			s.Exec("DROP DATABASE db; CREATE DATABASE db WITH DURATION INF SHARD DURATION 1d; CREATE RETENTION POLICY b ON db DURATION INF REPLICATION 1 SHARD DURATION 7d")
		}
		for range 1 + r.IntN(12) {
			rp, line := draw()
			c.both("", rp, line)
		}
		for range r.IntN(3) {
			rp, line := draw()
			[]*influxtest.Server{c.source, c.destination}[r.IntN(2)].WriteLines("db", rp, line)
		}
		before, owned := byPoint(dump(t, c.source.URL(), "db")), byPoint(dump(t, c.destination.URL(), "db"))
		result := c.clear(c.units()...)
		left := byPoint(dump(t, c.source.URL(), "db"))
		where := fmt.Sprintf("seed %d, round %d", seed, round)
		require.Equal(t, owned, byPoint(dump(t, c.destination.URL(), "db")), where)
		require.EqualValues(t, len(before)-len(left), result.task.Points.Dropped, where)
		require.EqualValues(t, len(before)-len(left), result.report.Dropped.Points, where)
		require.Equal(t, len(left) == 0, result.err == nil, where)
		require.Equal(t, len(left) == 0, result.report.Equal, where)
		require.Equal(t, len(left) == 0, result.report.Kept.Slices == 0, where)
		for point, fields := range before {
			if _, kept := left[point]; kept {
				require.Equal(t, fields, left[point], where)
				continue
			}
			for f, v := range fields {
				require.Equal(t, v, owned[point][f], "%s: %s of %s was lost", where, f, point)
			}
		}
	}
}

// byPoint turns a dump into the fields of each point.
func byPoint(dumped []string) map[string]map[string]string {
	out := map[string]map[string]string{}
	for _, line := range dumped {
		parts := strings.Split(strings.TrimSpace(line), " ")
		key := parts[0] + " " + parts[1] + " " + parts[3]
		out[key] = map[string]string{}
		for f := range strings.SplitSeq(parts[2], ",") {
			name, value, _ := strings.Cut(f, "=")
			out[key][name] = value
		}
	}
	return out
}

// tryWrite writes a line that the server may refuse.
func tryWrite(base, line string) error {
	req, err := http.NewRequest(http.MethodPost, base+"/write?"+url.Values{"db": {"db"}}.Encode(), strings.NewReader(line))
	if err != nil {
		return err
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return err
	}
	return res.Body.Close()
}
