package influx_test

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/lineproto"
)

const week = 7 * 24 * time.Hour

// database makes a database and writes lines into its default policy.
func database(t testing.TB, c *influx.Client, db string, lines ...string) {
	t.Helper()
	require.NoError(t, c.CreateDatabase(t.Context(), db))
	if len(lines) > 0 {
		require.NoError(t, c.Write(t.Context(), db, "autogen", []byte(strings.Join(lines, "\n"))))
	}
}

// Trap: inside one shard group types are right; a read over two groups casts
// integers to floats, and strings and booleans vanish from it and from counts.
func TestTypesAreRightInsideAShardGroupOnly(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	ctx := t.Context()
	database(t, c, "d")
	values := []string{"1i", "2.5", `"three"`, "true"}
	for i, v := range values {
		line := sprint("m v=%s %d\n", v, int64(i)*int64(week))
		require.NoError(t, c.Write(ctx, "d", "autogen", []byte(line)))
	}
	groups, err := c.ShardGroups(ctx)
	require.NoError(t, err)
	require.Len(t, groups, len(values))

	for i, want := range []string{"1i", "2.5", `"three"`, "true"} {
		sel := everything("d", "autogen", "m")
		sel.Window = influx.Window{From: groups[i].From, To: groups[i].To}
		require.Equal(t, []row{{Series: "m", Time: int64(i) * int64(week), Fields: map[string]string{"v": want}}}, read(t, c, sel))
	}

	over := read(t, c, everything("d", "autogen", "m"))
	require.Len(t, over, 2, "what the design says of reading over a boundary is no longer so")
	require.Equal(t, map[string]string{"v": "1"}, over[0].Fields, "an integer became a float")
	totals, err := c.Totals(ctx, []influx.Selection{everything("d", "autogen", "m")})
	require.NoError(t, err)
	require.Equal(t, []int64{2}, totals)

	keys, err := c.FieldKeys(ctx, "d", "autogen", "m")
	require.NoError(t, err)
	require.ElementsMatch(t, []lineproto.Kind{lineproto.Float, lineproto.Integer, lineproto.String, lineproto.Boolean}, keys["v"])
}

// Trap: points at both ends of legal time are written, listed in a shard group
// whose printed bounds are beyond or before them, and read.
func TestBothEndsOfLegalTime(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	ctx := t.Context()
	database(t, c, "d",
		sprint("m v=1i %d", lineproto.MinTime), sprint("m v=2i %d", lineproto.MinTime+1),
		sprint("m v=3i %d", lineproto.MaxTime-1), sprint("m v=4i %d", lineproto.MaxTime))
	groups, err := c.ShardGroups(ctx)
	require.NoError(t, err)
	require.Len(t, groups, 2)
	first, last := groups[0], groups[1]
	require.Equal(t, lineproto.MinTime, first.From)
	require.False(t, first.ToInclusive)
	require.Equal(t, lineproto.MaxTime, last.To)
	require.True(t, last.ToInclusive)
	require.True(t, last.Expiry.IsZero())

	sels := make([]influx.Selection, 2)
	for i, g := range groups {
		sels[i] = everything("d", "autogen", "m")
		sels[i].Window = influx.Window{From: g.From, To: g.To, Last: g.ToInclusive}
	}
	rows := read(t, c, sels...)
	require.Len(t, rows, 4)
	for i, ns := range []int64{lineproto.MinTime, lineproto.MinTime + 1, lineproto.MaxTime - 1, lineproto.MaxTime} {
		require.Equal(t, ns, rows[i].Time)
		require.Equal(t, i/2, rows[i].Sel)
	}
	// Windows are half open, and cut at the legal times.
	sel := everything("d", "autogen", "m")
	for want, w := range map[int]influx.Window{
		0: {From: lineproto.MinTime, To: lineproto.MinTime},
		1: {From: lineproto.MinTime, To: lineproto.MinTime + 1},
		2: {From: lineproto.MinTime, To: lineproto.MinTime + 1, Last: true},
		3: {From: lineproto.MinTime, To: lineproto.MaxTime},
		4: {From: lineproto.MinTime - 2, To: lineproto.MaxTime + 1},
	} {
		sel.Window = w
		require.Len(t, read(t, c, sel), want)
	}

	sel.Window = allTime
	extents, err := c.Extents(ctx, []influx.Selection{sel, everything("d", "autogen", "none")})
	require.NoError(t, err)
	require.Equal(t, []influx.Extent{{First: lineproto.MinTime, Last: lineproto.MaxTime}, {Empty: true}}, extents)

	for _, ns := range []string{"9223372036854775807", "-9223372036854775807"} {
		requireError(t, c.Write(ctx, "d", "autogen", []byte("m v=1i "+ns+"\n")), influx.Permanent, 400)
	}
}

// Trap: a measurement with the name of one of the server's tables is read only
// by a pattern, and three not at all: they must not look empty.
func TestMeasurementsNamedLikeTables(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	ctx := t.Context()
	readable := []string{"_name", "_measurements", "_tagKey", "_tags"}
	unreadable := []string{"_fieldKeys", "_series", "_tagKeys"}
	database(t, c, "d")
	for _, m := range append(append([]string{}, readable...), unreadable...) {
		require.NoError(t, c.Write(ctx, "d", "autogen", []byte(m+",t=a v=1i 1\n")))
	}
	for _, m := range readable {
		require.Equal(t, []row{{Series: m + ",t=a", Time: 1, Fields: map[string]string{"v": "1i"}}}, read(t, c, everything("d", "autogen", m)))
	}
	for _, m := range unreadable {
		sels := []influx.Selection{everything("d", "autogen", "_name"), everything("d", "autogen", m)}
		_, err := c.Read(ctx, sels)
		require.ErrorIs(t, err, influx.ErrUnaddressable)
		require.ErrorContains(t, err, m)
		_, err = c.Totals(ctx, sels)
		require.ErrorIs(t, err, influx.ErrUnaddressable)
		_, err = c.Occupied(ctx, sels)
		require.ErrorIs(t, err, influx.ErrUnaddressable)
	}
}

// Trap: for fields of some names the server makes up rows at time 0, outside of
// any window. They must not be taken for points.
func TestMadeUpFieldsAreRefused(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	ctx := t.Context()
	database(t, c, "d")
	for _, field := range []string{"_name", "_seriesKey", "_fieldKey", "_tagKey", "_tagValue"} {
		require.NoError(t, c.Write(ctx, "d", "autogen", []byte(sprint("m%s,t=a %s=1i,v=2i 1000\n", field, field))))
		sel := everything("d", "autogen", "m"+field)
		sel.Window.From = 1
		rows, err := tryRead(t, c, sel)
		require.ErrorIs(t, err, influx.ErrUnaddressable)
		require.ErrorContains(t, err, sprint("%q", field))
		require.Empty(t, rows)
		require.False(t, influx.IsTransient(err))
		for _, f := range []func() error{
			func() error { _, err := c.Totals(ctx, []influx.Selection{sel}); return err },
			func() error { _, err := c.Occupied(ctx, []influx.Selection{sel}); return err },
			func() error { _, err := c.Extents(ctx, []influx.Selection{sel}); return err },
			func() error { _, err := c.Histogram(ctx, sel, time.Hour); return err },
			func() error {
				return c.Counts(ctx, []influx.Selection{sel}, func(int, *lineproto.Series, string, int64) error { return nil })
			},
		} {
			require.ErrorIs(t, f(), influx.ErrUnaddressable)
		}
	}
	// A field without a name reads as val0, and is told by its place or the count.
	require.NoError(t, c.Write(ctx, "d", "autogen", []byte("unnamed \t=1i,a=2i 1\nunnamed2 \t=1i 1\nnamed val0=1i 1\n")))
	_, err := tryRead(t, c, everything("d", "autogen", "unnamed"))
	require.ErrorIs(t, err, influx.ErrUnaddressable)
	_, err = c.Totals(ctx, []influx.Selection{everything("d", "autogen", "unnamed2")})
	require.ErrorIs(t, err, influx.ErrUnaddressable)
	require.Equal(t, map[string]string{"val0": "1i"}, read(t, c, everything("d", "autogen", "named"))[0].Fields)
	// Tags may have those names.
	require.NoError(t, c.Write(ctx, "d", "autogen", []byte("tags,_name=a,_tagKey=b v=1i 1\n")))
	require.Equal(t, "tags,_name=a,_tagKey=b", read(t, c, everything("d", "autogen", "tags"))[0].Series)
}

// Trap: a tag and a field of one name stay apart, and an absent tag, which the
// server gives as an empty one, is none.
func TestTagsAndFieldsOfOneName(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	database(t, c, "d", `m,x=tag x="field" 1`, `m x="alone" 2`, `m,y=other x="third" 3`)
	require.Equal(t, []row{
		{Series: "m", Time: 2, Fields: map[string]string{"x": `"alone"`}},
		{Series: "m,y=other", Time: 3, Fields: map[string]string{"x": `"third"`}},
		{Series: "m,x=tag", Time: 1, Fields: map[string]string{"x": `"field"`}},
	}, read(t, c, everything("d", "autogen", "m")))
}

// Trap: in sparse series most values are absent; only what exists is given and
// counted.
func TestSparseSeries(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	ctx := t.Context()
	database(t, c, "d", "m,t=a p=1i 1", "m,t=a q=2i 2", "m,t=b r=3i 1", "m,t=a p=4i,q=5i 3", "n s=1 1")
	sels := []influx.Selection{everything("d", "autogen", "m"), everything("d", "autogen", "none"), everything("d", "autogen", "n")}
	require.Equal(t, []row{
		{Series: "m,t=a", Time: 1, Fields: map[string]string{"p": "1i"}},
		{Series: "m,t=a", Time: 2, Fields: map[string]string{"q": "2i"}},
		{Series: "m,t=a", Time: 3, Fields: map[string]string{"p": "4i", "q": "5i"}},
		{Series: "m,t=b", Time: 1, Fields: map[string]string{"r": "3i"}},
		{Sel: 2, Series: "n", Time: 1, Fields: map[string]string{"s": "1"}},
	}, read(t, c, sels...))

	counts := map[string]int64{}
	require.NoError(t, c.Counts(ctx, sels, func(sel int, s *lineproto.Series, field string, n int64) error {
		counts[sprint("%d %s %s", sel, s, field)] += n
		return nil
	}))
	require.Equal(t, map[string]int64{"0 m,t=a p": 2, "0 m,t=a q": 2, "0 m,t=b r": 1, "2 n s": 1}, counts)
	totals, err := c.Totals(ctx, sels)
	require.NoError(t, err)
	require.Equal(t, []int64{2, 0, 1}, totals)
	occupied, err := c.Occupied(ctx, sels)
	require.NoError(t, err)
	require.Equal(t, []bool{true, false, true}, occupied)
}

// A series of exactly as many rows as a chunk takes, and of many chunks, is one
// series.
func TestSeriesOverChunks(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	for _, n := range []int{4999, 5000, 5001, 10000, 12345} {
		db := sprint("d%d", n)
		var lines strings.Builder
		for _, series := range []string{"m,t=a", "m,t=b"} {
			for i := range n {
				lines.WriteString(sprint("%s v=%di %d\n", series, i, i))
			}
		}
		database(t, c, db, lines.String())
		st, err := c.Read(t.Context(), []influx.Selection{everything(db, "autogen", "m"), everything(db, "autogen", "m")})
		require.NoError(t, err)
		defer st.Close()
		total, series := 0, 0
		for ; st.Next(); total++ {
			if st.NewSeries() {
				series++
				require.Equal(t, total, (series-1)*n)
			}
			require.Equal(t, int64(total%n), st.Time())
		}
		require.NoError(t, st.Err())
		require.Equal(t, 4*n, total)
		require.Equal(t, 4, series, "two series in each of two selections")
	}
}

func TestReadOfNothing(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	require.Empty(t, read(t, c))
	database(t, c, "d")
	require.Empty(t, read(t, c, everything("d", "autogen", "none")))
}

// An error of one selection is an error of the stream, after what came before.
func TestErrorsInsideAnAnswerSurface(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	ctx := t.Context()
	database(t, c, "d", "m v=1i 1")
	good := everything("d", "autogen", "m")
	for text, bad := range map[string]influx.Selection{
		"retention policy not found: none": everything("d", "none", "m"),
		"database not found: none":         everything("none", "autogen", "m"),
	} {
		rows, err := tryRead(t, c, good, bad, good)
		require.Len(t, rows, 1)
		e := requireError(t, err, influx.Permanent, 200)
		require.Contains(t, e.Error(), text)
		_, err = c.Totals(ctx, []influx.Selection{good, bad})
		requireError(t, err, influx.Permanent, 200)
		_, err = c.Occupied(ctx, []influx.Selection{bad, good})
		requireError(t, err, influx.Permanent, 200)
	}
}

func TestServersLimitsAreToldApart(t *testing.T) {
	t.Parallel()
	_, c := start(t, influxtest.WithArgs("-max-select-series", "2", "-max-body-size", "1000"))
	database(t, c, "d", "m,t=a v=1i 1", "m,t=b v=1i 1", "m,t=c v=1i 1")
	_, err := tryRead(t, c, everything("d", "autogen", "m"))
	e := requireError(t, err, influx.Permanent, 200)
	require.Contains(t, e.Message, "max-select-series")

	big := []byte(strings.Repeat("m v=1i 1\n", 1000))
	requireError(t, c.Write(t.Context(), "d", "autogen", big), influx.Permanent, 413)
}

func TestBusyServerIsTransient(t *testing.T) {
	t.Parallel()
	_, c := start(t, influxtest.WithArgs("-max-concurrent-queries", "1"))
	ctx := t.Context()
	var lines strings.Builder
	for i := range 500_000 {
		lines.WriteString(sprint("m v=%di %d\n", i, i))
	}
	database(t, c, "d", lines.String())
	// A stream that is not read keeps its query running.
	st, err := c.Read(ctx, []influx.Selection{everything("d", "autogen", "m")})
	require.NoError(t, err)
	require.True(t, st.Next())
	_, err = c.Totals(ctx, []influx.Selection{everything("d", "autogen", "m")})
	e := requireError(t, err, influx.Transient, 200)
	require.Contains(t, e.Message, "max-concurrent-queries")
	require.NoError(t, st.Close())
	require.NoError(t, st.Close())
	require.False(t, st.Next())
}

func TestRetentionPoliciesAreExact(t *testing.T) {
	t.Parallel()
	_, a := start(t)
	_, b := start(t)
	ctx := t.Context()
	database(t, a, "d")
	database(t, b, "d")
	want := []influx.RetentionPolicy{
		{Name: "autogen", ShardDuration: week, Replication: 1},
		{Name: "odd", Duration: 26*time.Hour + 3*time.Minute + 4*time.Second, ShardDuration: time.Hour + 5*time.Second, Replication: 1},
		{Name: "tiny", Duration: time.Hour + time.Nanosecond, ShardDuration: time.Hour + time.Nanosecond, Replication: 3},
		{Name: `a "policy", with=all`, Duration: 1000 * week, ShardDuration: 52 * week, Replication: 2, Default: true},
		{Name: "SELECT", Duration: 0, ShardDuration: 365 * 24 * time.Hour, Replication: 1},
	}
	for _, rp := range want {
		require.NoError(t, a.CreateRetentionPolicy(ctx, "d", rp), rp.Name)
		require.NoError(t, a.CreateRetentionPolicy(ctx, "d", rp), "again: %s", rp.Name)
	}
	got, err := a.RetentionPolicies(ctx, "d")
	require.NoError(t, err)
	require.ElementsMatch(t, want, got)
	for _, rp := range got {
		require.NoError(t, b.CreateRetentionPolicy(ctx, "d", rp), rp.Name)
	}
	copied, err := b.RetentionPolicies(ctx, "d")
	require.NoError(t, err)
	require.ElementsMatch(t, want, copied)

	other := want[1]
	other.Duration += time.Hour
	err = b.CreateRetentionPolicy(ctx, "d", other)
	e := requireError(t, err, influx.Permanent, 200)
	require.Contains(t, e.Message, "retention policy already exists")
	require.NoError(t, b.AlterRetentionPolicy(ctx, "d", other))
	other.Default = true
	require.NoError(t, b.AlterRetentionPolicy(ctx, "d", other))
	got, err = b.RetentionPolicies(ctx, "d")
	require.NoError(t, err)
	require.Contains(t, got, other)
	defaults := 0
	for _, rp := range got {
		if rp.Default {
			defaults++
		}
	}
	require.Equal(t, 1, defaults)

	// The server would make this an hour, and say nothing.
	rounded := influx.RetentionPolicy{Name: "short", ShardDuration: time.Minute, Replication: 1}
	err = b.CreateRetentionPolicy(ctx, "d", rounded)
	require.Error(t, err)
	require.False(t, influx.IsTransient(err))

	_, err = b.RetentionPolicies(ctx, "none")
	requireError(t, err, influx.Permanent, 200)
	requireError(t, b.AlterRetentionPolicy(ctx, "d", influx.RetentionPolicy{Name: "none", ShardDuration: week, Replication: 1}), influx.Permanent, 200)
}

func TestDatabasesAreMadeWithTheirPolicy(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	ctx := t.Context()
	rp := influx.RetentionPolicy{Name: "only one", Duration: 31 * 24 * time.Hour, ShardDuration: 25 * time.Hour, Replication: 2}
	want := rp
	want.Default = true
	for range 2 {
		require.NoError(t, c.CreateDatabaseWith(ctx, "d", rp))
		got, err := c.RetentionPolicies(ctx, "d")
		require.NoError(t, err)
		require.Equal(t, []influx.RetentionPolicy{want}, got)
	}
	other := rp
	other.Duration *= 2
	require.Error(t, c.CreateDatabaseWith(ctx, "d", other))
	other.Name = "other"
	require.Error(t, c.CreateDatabaseWith(ctx, "d", other))
	rp.ShardDuration = time.Minute // the server makes it an hour
	err := c.CreateDatabaseWith(ctx, "rounded", rp)
	requireError(t, err, influx.Permanent, 0)
	require.ErrorContains(t, err, "1h0m0s")
}

func TestSchemaOfAServer(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	ctx := t.Context()
	version, err := c.Ping(ctx)
	require.NoError(t, err)
	require.Equal(t, "1.8.3", version)
	got, err := c.Databases(ctx)
	require.NoError(t, err)
	require.Empty(t, got)
	names := []string{"d", `a "b"`, "SELECT", "日本", "x.y", "a'b"}
	for _, n := range names {
		database(t, c, n, sprint("m,k=v f=1i %d", week.Nanoseconds()))
		require.NoError(t, c.CreateDatabase(ctx, n))
		require.Len(t, read(t, c, everything(n, "autogen", "m")), 1)
	}
	// What the health probes write is nobody's data.
	database(t, c, influx.ProbeDatabase, sprint("m,k=v f=1i %d", week.Nanoseconds()))
	got, err = c.Databases(ctx)
	require.NoError(t, err)
	require.ElementsMatch(t, names, got)
	groups, err := c.ShardGroups(ctx)
	require.NoError(t, err)
	require.Len(t, groups, len(names))
	for _, g := range groups {
		require.Equal(t, "autogen", g.RetentionPolicy)
		require.Contains(t, names, g.Database)
		require.Equal(t, week.Nanoseconds(), g.To-g.From)
		require.LessOrEqual(t, g.From, week.Nanoseconds())
		require.Greater(t, g.To, week.Nanoseconds())
	}
	tags, err := c.TagKeys(ctx, "d", "autogen", "m")
	require.NoError(t, err)
	require.Equal(t, []string{"k"}, tags)
	tags, err = c.TagKeys(ctx, "d", "autogen", "none")
	require.NoError(t, err)
	require.Empty(t, tags)
	for range c.Measurements(ctx, "none") {
		require.Fail(t, "a measurement of no database")
	}
	for name := range c.Measurements(ctx, "d") {
		require.Equal(t, "m", name)
		break
	}
}

func TestShardGroupsExpireAndOverlap(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	ctx := t.Context()
	database(t, c, "d")
	rp := influx.RetentionPolicy{Name: "r", Duration: 1000 * week, ShardDuration: 24 * time.Hour, Replication: 1}
	require.NoError(t, c.CreateRetentionPolicy(ctx, "d", rp))
	at := time.Now().Truncate(week).Add(25 * time.Hour)
	require.NoError(t, c.Write(ctx, "d", "r", []byte(sprint("m v=1i %d", at.UnixNano()))))
	rp.ShardDuration = week
	require.NoError(t, c.AlterRetentionPolicy(ctx, "d", rp))
	require.NoError(t, c.Write(ctx, "d", "r", []byte(sprint("m v=1i %d", at.Add(48*time.Hour).UnixNano()))))
	groups, err := c.ShardGroups(ctx)
	require.NoError(t, err)
	require.Len(t, groups, 2)
	for _, g := range groups {
		require.Equal(t, g.To+rp.Duration.Nanoseconds(), g.Expiry.UnixNano())
	}
	require.Less(t, max(groups[0].From, groups[1].From), min(groups[0].To, groups[1].To), "the groups do not overlap")
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	ctx := t.Context()
	database(t, c, "d", "m,t=a p=1i 5", "m,t=b p=1i,q=1i 6", "m q=1i 25", "m s=\"x\" 26", "m s=\"y\" 39")
	sel := everything("d", "autogen", "m")
	got, err := c.Histogram(ctx, sel, 10)
	require.NoError(t, err)
	require.Equal(t, []influx.Bucket{{From: 0, Rows: 2}, {From: 20, Rows: 1}, {From: 30, Rows: 1}}, got)
	sel.Window = influx.Window{From: 6, To: 39}
	got, err = c.Histogram(ctx, sel, 10)
	require.NoError(t, err)
	require.Equal(t, []influx.Bucket{{From: 6, Rows: 1}, {From: 20, Rows: 1}}, got)
	_, err = c.Histogram(ctx, sel, 0)
	require.Error(t, err)
}

func TestCountsEndWithTheCaller(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	database(t, c, "d", "m,t=a p=1i 5", "m,t=b p=1i 6")
	enough := sprintError("enough")
	calls := 0
	err := c.Counts(t.Context(), []influx.Selection{everything("d", "autogen", "m")}, func(int, *lineproto.Series, string, int64) error {
		calls++
		return enough
	})
	require.ErrorIs(t, err, enough)
	require.Equal(t, 1, calls)
}

type sprintError string

func (e sprintError) Error() string { return string(e) }

// Many selections are asked for in several requests.
func TestManySelections(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	ctx := t.Context()
	database(t, c, "d", "m0 v=1i 1", "m1500 v=1i 1", "m2499 v=1i 1\nm2499 v=1i 2")
	sels := make([]influx.Selection, 2500)
	for i := range sels {
		sels[i] = everything("d", "autogen", sprint("m%d", i))
	}
	totals, err := c.Totals(ctx, sels)
	require.NoError(t, err)
	want := make([]int64, len(sels))
	want[0], want[1500], want[2499] = 1, 1, 2
	require.Equal(t, want, totals)
	rows := read(t, c, sels...)
	require.Len(t, rows, 4)
	require.Equal(t, 2499, rows[3].Sel)

	for i := range sels {
		sels[i].Measurement += strings.Repeat(" long", 2000)
	}
	totals, err = c.Totals(ctx, sels)
	require.NoError(t, err)
	require.Equal(t, make([]int64, len(sels)), totals)
	_, err = c.Read(ctx, sels)
	e := requireError(t, err, influx.Permanent, 0)
	require.Contains(t, e.Message, "at most")
}

// 100,000 measurements are listed in constant memory. Not parallel: it measures
// the heap.
func TestMeasurementsAreStreamed(t *testing.T) {
	_, c := start(t)
	const n = 100_000
	database(t, c, "d")
	func() { // so that its lines are gone when the heap is measured
		// A server gives a write ten seconds: a slow machine needs small ones.
		const batch = 5_000
		var lines []byte
		for i := range n {
			lines = append(lines, sprint("measurement_with_some_longer_name_%06d v=1i 1\n", i)...)
			if (i+1)%batch == 0 {
				require.NoError(t, c.Write(t.Context(), "d", "autogen", lines))
				lines = lines[:0]
			}
		}
	}()
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, seen, most := heap(), 0, uint64(0)
	for name, err := range c.Measurements(t.Context(), "d") {
		require.NoError(t, err)
		require.Equal(t, sprint("measurement_with_some_longer_name_%06d", seen), name)
		if seen++; seen%20_000 == 0 {
			most = max(most, heap())
		}
	}
	require.Equal(t, n, seen)
	require.Less(t, int64(most)-int64(before), int64(2<<20), "the list is kept")
}
