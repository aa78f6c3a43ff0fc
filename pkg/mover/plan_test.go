package mover_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/topology"
)

// circle is a topology of one circle.
func circle(t testing.TB, urls ...string) *topology.Topology {
	t.Helper()
	var backends []any
	for i, u := range urls {
		backends = append(backends, map[string]any{"name": fmt.Sprintf("b%d", i), "url": u})
	}
	raw, err := json.Marshal(map[string]any{"circles": []any{map[string]any{"name": "c", "backends": backends}}})
	require.NoError(t, err)
	c, err := topology.Parse("proxy.json", raw)
	require.NoError(t, err)
	return c.Topology()
}

// TestFirstOfSeveralSourcesWins: where two sources hold other values for one
// point, the former owner's arrives first and stays, whatever their order; each
// source goes a wave of its own.
func TestFirstOfSeveralSourcesWins(t *testing.T) {
	t.Parallel()
	for former, want := range []int64{0: 1, 1: 2} {
		t.Run(fmt.Sprintf("former owner %d", former), func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			second := influxtest.Start(t)
			for i, s := range []*influxtest.Server{e.source, second} {
				s.Exec("CREATE DATABASE db")
				s.WriteLines("db", "", fmt.Sprintf("m v=%di 1\nm own%d=true 2\nalone%d v=1i 1", i+1, i, i))
			}
			e.also = []string{second.URL()}
			placement, err := circle(t, []string{e.source.URL(), second.URL()}[former]).Placement(0)
			require.NoError(t, err)
			e.former = placement
			r := e.run()
			require.Empty(t, r.failed)
			waves := map[string]int{}
			for _, p := range r.plan.Tasks {
				for _, s := range e.chunks[p.Span.Chunk][p.Span.First : p.Span.First+p.Span.Count] {
					waves[fmt.Sprint(s.Measurement, p.From)] = p.Wave
				}
			}
			require.Equal(t, map[string]int{"m1": former, "m2": 1 - former, "alone01": 0, "alone12": 0}, waves)
			require.Contains(t, strings.Join(dump(t, e.to, "db"), ""), fmt.Sprintf("autogen m v=%di 1\n", want))
			require.Len(t, dump(t, e.to, "db"), 5-1)
			require.EqualValues(t, 1, r.report.Different, "the other source's value is told")
			require.Zero(t, r.report.Missing)
			require.Equal(t, 4, r.plan.Totals.Measurements, "m counts at each source that holds it")
		})
	}
}

// TestUnreadableMeasurementsDoNotStopThePlan: they are planned, fail with the
// reason, and the others move.
func TestUnreadableMeasurementsDoNotStopThePlan(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.source.Exec("CREATE DATABASE db")
	e.source.WriteLines("db", "", "_series v=1i 1\n_tagKeys v=1i 1\nm v=1i 1\nodd _tagKey=\"x\",v=1i 1")
	r := e.run()
	require.Len(t, r.failed, 1)
	require.Equal(t, "slice_refused", r.failed[0].Code)
	require.Contains(t, r.failed[0].Detail, "cannot be read by InfluxQL")
	require.Contains(t, r.failed[0].Detail, "3 of 4 slices")
	require.Equal(t, operation.SliceTotals{Total: 4, Equal: 1, Unequal: 3}, withoutHow(r.report.Slices))
	require.Equal(t, []string{"autogen m v=1i 1\n"}, dump(t, e.to, "db"))
}

// TestPlanFitsWhatMoves: only the databases asked for, only what belongs
// elsewhere; the survey says what is there and what is in place.
func TestPlanFitsWhatMoves(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.parameter["databases"] = []string{"a", "none"}
	for _, s := range []*influxtest.Server{e.source, e.destination} {
		for _, db := range []string{"a", "b"} {
			s.Exec("CREATE DATABASE " + db)
			s.WriteLines(db, "", "m v=1i 1\nn v=1i 1")
		}
	}
	plan := e.plan(e.mover())
	require.Equal(t, []operation.PlanBackend{
		{Name: "owner", URL: e.to, Databases: 1, Measurements: 2, InPlace: 2},
		{Name: "gone", URL: e.from, Removed: true, Databases: 1, Measurements: 2},
	}, plan.Backends)
	require.Equal(t, []operation.PlanMove{{From: 1, To: 0, Measurements: 2, Slices: 2, Points: 2}}, plan.Moves)
	require.Equal(t, operation.PlanTotals{Databases: 1, Measurements: 2, Slices: 2, Tasks: 1, Points: 2}, plan.Totals)
	require.Equal(t, []operation.PlanMeasurement{
		{From: 1, Database: "a", Measurement: "m", Slices: 1, Points: 1}, {From: 1, Database: "a", Measurement: "n", Slices: 1, Points: 1},
	}, plan.Measurements)
	require.Equal(t, []operation.PlanPolicy{{Database: "a", Name: "autogen", ShardDuration: 7 * 24 * time.Hour, Replication: 1, Default: true}}, plan.Policies)
}

// TestEstimateIsSampledWhenTimeIsShort: what nobody has looked at is planned by
// the mean of the others, and every point of it arrives.
func TestEstimateIsSampledWhenTimeIsShort(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.source.Exec("CREATE DATABASE db; CREATE RETENTION POLICY other ON db DURATION INF REPLICATION 1")
	var b strings.Builder
	for i := range 300 {
		fmt.Fprintf(&b, "m%03d v=1i %d\nm%03d v=2i %d\n", i, start, i, start+1)
	}
	e.source.WriteLines("db", "", b.String())
	e.source.WriteLines("db", "other", b.String())
	// Each look at the clock takes a minute.
	now, looks := time.Now(), atomic.Int64{}
	e.config.Now = func() time.Time { return now.Add(time.Duration(looks.Add(1)) * time.Minute) }
	e.config.Refused, e.config.Unreachable = time.Hour, time.Hour
	plan := e.plan(e.mover())
	require.Len(t, plan.Notes, 1)
	require.Contains(t, plan.Notes[0], "400 measurement windows are estimated from a sample")
	require.Equal(t, 600, plan.Totals.Slices)
	require.Equal(t, 300, plan.Totals.Measurements)
	require.EqualValues(t, 1200, plan.Totals.Points)
	require.Equal(t, 300, plan.Moves[0].Measurements, "not once a policy")
	e.config.Now = nil
	e.requireMoved("db")
}

func TestRemovedBackendThatIsStillThere(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	raw := fmt.Sprintf(`{"circle_id":0,"operation":"rm","removed_backends":[{"name":"x","url":"%s/"}]}`, e.to)
	e.operation = operation.Operation{ID: "op", Kind: operation.KindRebalance, Parameters: json.RawMessage(raw)}
	_, err := e.mover().Plan(t.Context(), &e.operation, e.layout(), &job{env: e})
	var own *operation.Error
	require.ErrorAs(t, err, &own)
	require.Equal(t, "backend_not_removed", own.Code)
}

// TestPlanWaitsAreShown: of several backends that are waited for, one is shown at
// a time, and none when all have answered.
func TestPlanWaitsAreShown(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	loaded(e)
	e.config.Refused = 20 * time.Second
	source, destination := gated(t, e)
	blip := fault{status: 503, text: `{"error":"starting"}`}
	source.on(times(3, schema, blip))
	destination.on(times(2, schema, blip))
	var waits []operation.Wait
	e.planned = func(j *job) {
		waits = append(waits, j.waits...)
		require.Nil(t, j.current)
	}
	e.plan(e.mover())
	seen := map[string]bool{}
	for _, w := range waits {
		seen[w.Backend] = true
		require.Contains(t, w.Measured, "starting")
	}
	require.NotEmpty(t, seen)
	for url := range seen {
		require.Contains(t, []string{source.URL, destination.URL}, url)
	}
}

func TestPlanGivesUp(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	loaded(e)
	e.layout()
	source, _ := gated(t, e)
	source.on(times(1<<40, schema, fault{status: 503, text: `{"error":"starting"}`}))
	e.parameter["circle_id"], e.parameter["operation"] = 0, "rm"
	e.parameter["removed_backends"] = []any{map[string]any{"name": "gone", "url": e.from}}
	raw, err := json.Marshal(e.parameter)
	require.NoError(t, err)
	e.operation = operation.Operation{ID: "op", Kind: operation.KindRebalance, Parameters: raw}
	_, err = e.mover().Plan(t.Context(), &e.operation, e.layout(), &job{env: e})
	var own *operation.Error
	require.ErrorAs(t, err, &own)
	require.Equal(t, "backend_refuses", own.Code)
	require.Contains(t, own.Detail, "reading the schema of "+source.URL)
	require.Contains(t, own.Detail, "starting")
}

// TestManySeriesAreCountedBeforeTheyAreCut: a window of many series is not cut
// into parts of a point or two each.
func TestManySeriesAreCountedBeforeTheyAreCut(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.source.Exec("CREATE DATABASE db")
	const series = 40_000
	var b strings.Builder
	for i := range series {
		fmt.Fprintf(&b, "wide,k=%d v=1i %d\n", i, start+int64(i))
	}
	// As an estimate sees it: sixteen times the middle.
	for i := range 8_000 {
		fmt.Fprintf(&b, "long v=1i %d\n", start+int64(i)*int64(time.Millisecond))
		fmt.Fprintf(&b, "wide,k=%d v=1i %d\n", i, start+4_000*int64(time.Millisecond)+int64(i)*10_000)
	}
	fmt.Fprintf(&b, "wide,k=0 v=1i %d\nlong v=1i %d\n", start+8_000*int64(time.Millisecond), start+9_000*int64(time.Millisecond))
	e.source.WriteLines("db", "", b.String())
	// A survey may take seconds only; here its clock stands still, so that a slow
	// machine looks as closely as a fast one.
	now := time.Now()
	e.config.Now = func() time.Time { return now }
	e.plan(e.mover())
	parts := map[string]int{}
	for _, c := range e.chunks {
		for _, s := range c {
			parts[s.Measurement]++
		}
	}
	require.Equal(t, 1, parts["wide"], "by points alone, 128,000 would be two")
	require.Equal(t, 1, parts["long"])
}
