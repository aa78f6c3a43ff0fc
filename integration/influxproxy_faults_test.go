package integration_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"ringmaster/integration/harness"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
)

// The tests of this file show that faults of influx-proxy are absent. Each is
// named after the fault and numbered as in the list that this project began with.

// statsRow is a backend in the answer of /migrate/stats.
type statsRow struct {
	DatabaseTotal    int `json:"database_total"`
	DatabaseDone     int `json:"database_done"`
	MeasurementTotal int `json:"measurement_total"`
	MeasurementDone  int `json:"measurement_done"`
	MigrateCount     int `json:"migrate_count"`
	InplaceCount     int `json:"inplace_count"`
}

// stats asks for the statistics of a circle's newest rebalance.
func (in *installation) stats(circle int) map[string]statsRow {
	in.t.Helper()
	res, body := in.do(http.MethodGet, fmt.Sprintf("/migrate/stats?circle_id=%d&type=rebalance", circle), nil, "")
	require.Equal(in.t, http.StatusOK, res.StatusCode, body)
	require.NotEmpty(in.t, res.Header.Get("X-As-Of"), "every answer says as of when it is")
	rows := map[string]statsRow{}
	require.NoError(in.t, json.Unmarshal([]byte(body), &rows))
	return rows
}

// gate holds requests until it is opened.
type gate struct {
	reached, open *latch
}

func newGate() *gate { return &gate{newLatch(), newLatch()} }

// hold makes a proxy hold the requests that match.
func (g *gate) hold(p *harness.Proxy, match func(*http.Request) bool) {
	p.Handle(func(w http.ResponseWriter, r *http.Request) {
		if match(r) {
			g.reached.open()
			select {
			case <-g.open.done:
			case <-r.Context().Done():
				harness.Hangup()
			}
		}
		p.Forward(w, r)
	})
}

// release lets everything through, also when a test fails early.
func (g *gate) release() { g.open.open() }

// 1. State and progress live in memory: a restart forgets the run; nothing
// resumes; two runs overwrite each other's statistics.
func TestInfluxProxyFault1RestartForgetsTheRun(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 4)
	writes := newGate()
	owner := b[1].proxied()
	seen := 0
	var mu sync.Mutex
	// The third write waits until the api has been restarted.
	writes.hold(owner, func(r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if harness.IsWrite(r) {
			seen++
		}
		return harness.IsWrite(r) && seen > 2
	})
	in := install(t)
	t.Cleanup(writes.release)
	in.behind[owner.URL()] = b[1].URL()
	for i, x := range []*backend{b[0], b[2]} {
		x.fill(fmt.Sprintf("first%d", i), 10, 600)
		x.fill(fmt.Sprintf("second%d", i), 5, 600)
	}
	require.NoError(t, in.WriteCircles(
		harness.Circle{Name: "one", Backends: []harness.Backend{{Name: "a", URL: owner.URL()}}},
		harness.Circle{Name: "two", Backends: []harness.Backend{b[3].configured("b")}},
	))
	in.startAPI()
	in.startWorker("-slots", "4")
	held := in.submitOld("circle_id=0&operation=rm", b[0].configured("gone"))
	writes.reached.await(t, "the first operation writes")
	other := in.submitOld("circle_id=1&operation=rm", b[2].configured("left"))
	in.succeed(other)

	// Both runs have their own statistics, and keep them over a restart.
	require.Equal(t, 15, in.stats(1)[b[2].URL()].MeasurementDone)
	require.Less(t, in.stats(0)[b[0].URL()].MeasurementDone, 15)
	in.stopAPI()
	in.startAPI()
	op := in.wait(held, func(op *operation.Operation) bool { return op.State == operation.Running })
	require.Equal(t, held, op.ID)
	require.Eventually(t, func() bool { return in.stats(0)[b[0].URL()].MeasurementTotal == 15 }, patience, 50*time.Millisecond)
	require.Less(t, in.stats(0)[b[0].URL()].MeasurementDone, 15)
	require.Equal(t, 15, in.stats(1)[b[2].URL()].MeasurementDone)
	res, state := in.do(http.MethodGet, "/migrate/state", nil, "")
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.JSONEq(t, `{"circles":[{"circle_id":0,"circle_name":"one","is_migrating":true},{"circle_id":1,"circle_name":"two","is_migrating":false}],"is_resyncing":false}`, state)
	res, busy := in.do(http.MethodPost, "/rebalance?circle_id=0&operation=add", nil, "")
	require.Equal(t, http.StatusConflict, res.StatusCode, "the run still holds its circle: %s", busy)
	require.Equal(t, held, res.Header.Get("X-Operation-Id"))

	writes.release()
	in.succeed(held)
	in.requireMoved(0, b[:1], b[1:2], "first0", "second0")
	in.requireMoved(1, b[2:3], b[3:], "first1", "second1")
	require.Equal(t, statsRow{2, 2, 15, 15, 15, 0}, in.stats(0)[b[0].URL()])
	require.Equal(t, statsRow{2, 2, 15, 15, 15, 0}, in.stats(1)[b[2].URL()])
}

// hugePoints is the size of the measurement that no process can hold.
func hugePoints() int {
	if raceEnabled {
		return 300_000
	}
	return 2_000_000
}

// fillHuge writes one measurement of n points in weekly shard groups.
func fillHuge(t *testing.T, b *backend, n int) {
	t.Helper()
	b.exec(`CREATE DATABASE db`)
	c, err := influx.New(b.endpoint, influx.Options{})
	require.NoError(t, err)
	defer c.Close()
	const batch, hosts = 10_000, 10
	writers, ctx := errgroup.WithContext(bounded(t))
	writers.SetLimit(2)
	for from := 0; from < n; from += batch {
		writers.Go(func() error {
			var lines []byte
			for i := from; i < min(from+batch, n); i++ {
				lines = append(lines, "huge,host=h"...)
				lines = strconv.AppendInt(lines, int64(i%hosts), 10)
				lines = append(lines, " value="...)
				lines = strconv.AppendInt(lines, int64(i*7919%1_000_003), 10)
				lines = append(lines, ' ')
				lines = strconv.AppendInt(lines, int64(firstTime)+int64(i/hosts)*10_000_000_000, 10)
				lines = append(lines, '\n')
			}
			return c.Write(ctx, "db", "", lines)
		})
	}
	require.NoError(t, writers.Wait())
}

// largestMemory reads the largest resident size of a process, in bytes.
func largestMemory(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(status), "VmHWM:")
	require.True(t, ok)
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	require.NoError(t, err)
	return kib << 10
}

// 2. 2.4.7 loads a whole measurement into memory; both read one measurement with
// one goroutine, however large it is.
func TestInfluxProxyFault2OneMeasurementIsReadWholeByOneReader(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 2)
	in := install(t)
	points := hugePoints()
	fillHuge(t, b[0], points)
	require.NoError(t, in.WriteConfigURLs(b[1].URL()))
	in.startAPI()
	workers := []*harness.Program{in.startWorker("-slots", "2"), in.startWorker("-slots", "2")}
	op := in.submitOld("circle_id=0&operation=rm", b[0].configured("gone"))
	report := in.succeed(op)
	require.Equal(t, int64(points), report.Points.Source)
	require.Equal(t, int64(points), report.Points.Destination)
	answer := b[1].Query(`SELECT count(value) FROM db.autogen.huge`)
	require.Equal(t, strconv.Itoa(points), fmt.Sprint(answer[0].Series[0].Values[0][1]))

	var copies []operation.Task
	holders := map[string]bool{}
	for _, task := range in.tasks(op) {
		if task.Phase == operation.PhaseCopy {
			copies = append(copies, task)
			holders[task.Holder] = true
			require.LessOrEqual(t, task.Points.Copied, int64(points)/2, "no task has most of it")
		}
	}
	require.GreaterOrEqual(t, len(copies), max(3, points/330_000), "one measurement is many tasks")
	require.Len(t, holders, len(workers), "of all workers")
	atOnce := 0
	for i := range copies {
		for j := range copies[:i] {
			if copies[i].StartedAt.Before(*copies[j].FinishedAt) && copies[j].StartedAt.Before(*copies[i].FinishedAt) {
				atOnce++
			}
		}
	}
	require.Positive(t, atOnce, "which run at the same time")
	for _, w := range workers {
		size := largestMemory(t, w.PID())
		t.Logf("largest resident size of a worker: %.1f MiB", float64(size)/(1<<20))
		if !raceEnabled { // the race detector takes several times the memory
			require.LessOrEqual(t, size, int64(64<<20))
		}
	}
}

// 3. A batch that fails after its retries is logged and the run still ends as
// done. Per-result query errors are never read: a truncated copy counts as a
// full one.
func TestInfluxProxyFault3FailedBatchesAndReadsEndAsDone(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 2)
	in := install(t)
	b[0].fill("db", 3, 700)
	from, to := b[0].proxied(), b[1].proxied()
	in.behind[to.URL()] = b[1].URL()
	require.NoError(t, in.WriteConfigURLs(to.URL()))
	in.startAPI("-patience", "1s")
	in.startWorker("-patience", "1s")
	gone := harness.Backend{Name: "gone", URL: from.URL()}

	to.Handle(only(harness.IsWrite, refuse(500, "this batch is refused"))(to))
	op := in.finish(in.submitOld("circle_id=0&operation=rm", gone), operation.Failed)
	require.Contains(t, op.Error.Detail, "this batch is refused")
	require.False(t, in.report(op.ID).Equal)
	require.Zero(t, in.stats(0)[from.URL()].MeasurementDone, "done is what is finished, not what was planned")

	to.Handle(nil)
	from.Handle(only(harness.ReadsPoints, errorHalfway("half of it is missing"))(from))
	op = in.finish(in.submitOld("circle_id=0&operation=rm", gone), operation.Failed)
	require.Contains(t, op.Error.Detail, "half of it is missing")
	require.False(t, in.report(op.ID).Equal)
	require.Zero(t, in.stats(0)[from.URL()].MeasurementDone)

	from.Handle(nil)
	in.succeed(in.submitOld("circle_id=0&operation=rm", gone))
	in.requireMoved(0, b[:1], b[1:], "db")
	require.Equal(t, 3, in.stats(0)[from.URL()].MeasurementDone)
}

// 4. clear drops a measurement because the ring says so, without checking that the
// owner holds the data, in all retention policies.
func TestInfluxProxyFault4ClearDropsBecauseTheRingSaysSo(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 2)
	s.start()
	s.createDatabase("db")
	for _, b := range s.all() {
		b.exec(`CREATE RETENTION POLICY long ON db DURATION INF REPLICATION 1 SHARD DURATION 1d`)
	}
	wrong := func(measurement string) *backend { return s.wrongPlace("db", measurement) }
	at := func(d int) int64 { return int64(firstTime) + int64(d)*int64(day) }
	// The ring says of all of these that they belong elsewhere.
	for n := range 12 {
		name := fmt.Sprintf("m%02d", n)
		owner, other := s.ownerOf(0, "db", name), wrong(name)
		other.write("db", "daily", fmt.Sprintf("%s v=1i %d\n%s v=2i %d\n", name, at(0), name, at(1)))
		switch n % 4 {
		case 0: // nowhere else
		case 1: // the owner lacks a point of the second day
			owner.write("db", "daily", fmt.Sprintf("%s v=1i %d\n", name, at(0)))
		case 2: // the owner holds all of one policy and nothing of the other
			owner.write("db", "daily", fmt.Sprintf("%s v=1i %d\n%s v=2i %d\n", name, at(0), name, at(1)))
			other.write("db", "long", fmt.Sprintf("%s v=7i %d\n", name, at(1)))
		case 3: // the owner holds all of it
			owner.write("db", "daily", fmt.Sprintf("%s v=1i %d\n%s v=2i %d\n", name, at(0), name, at(1)))
		}
	}
	before := s.dump()
	want := s.cleared(before, 0, everything)
	require.Equal(t, 3*2+3+3, want.units)
	require.EqualValues(t, 3+3+3*2, want.dropped)
	op := s.requireCleared(s.ask("/clear?circle_id=0"), want)
	require.Contains(t, op.Error.Detail, "were kept")
	// Every value that there was is still with somebody.
	after := s.dump()
	for _, places := range before {
		for place, points := range places {
			for key := range points {
				owner := s.ownerOf(0, "db", place.Measurement)
				held := after[owner.URL()][place][key] != "" || after[wrong(place.Measurement).URL()][place][key] != ""
				require.True(t, held, "lost: %v %s", place, key)
			}
		}
	}
}

// 5. 2.4.7 copies only the default retention policy; 2.5.12 creates missing
// policies as infinite. Shard durations, the default flag and the policy of each
// point must survive a move exactly.
func TestInfluxProxyFault5RetentionPoliciesAreLost(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 2)
	in := install(t)
	b[0].exec(`CREATE DATABASE db WITH DURATION 1000w REPLICATION 1 SHARD DURATION 5w NAME "the default"`)
	b[0].exec(`CREATE RETENTION POLICY hours ON db DURATION 30h REPLICATION 1 SHARD DURATION 1h`)
	b[0].exec(`CREATE RETENTION POLICY ever ON db DURATION INF REPLICATION 1 SHARD DURATION 100d`)
	b[0].exec(`CREATE RETENTION POLICY unused ON db DURATION 7d REPLICATION 1 SHARD DURATION 2h`)
	now := time.Now().Truncate(time.Hour).UnixNano()
	for i, rp := range []string{"the default", "hours", "ever"} {
		// One measurement at the same time in every policy, with another value.
		b[0].write("db", rp, fmt.Sprintf("m,rp=same v=%di %d\nm,rp=%d v=7i %d\n", i, now, i, now))
	}
	require.NoError(t, in.WriteConfigURLs(b[1].URL()))
	in.startAPI()
	in.startWorker()
	in.succeed(in.submitOld("circle_id=0&operation=rm", b[0].configured("gone")))
	require.ElementsMatch(t, b[0].policies("db"), b[1].policies("db"), "also the policy that holds no point")
	require.Len(t, b[1].policies("db"), 4, "and no other")
	require.Equal(t, b[0].dump(), b[1].dump())
}

// 6. A field whose type differs between shards is cast to one type. A tag and a
// field of the same name are confused. Schema look-ups that fail count as "no
// tags".
func TestInfluxProxyFault6TypesAreCastAndTagsAreLost(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 2)
	in := install(t)
	b[0].exec(`CREATE DATABASE db WITH DURATION INF REPLICATION 1 SHARD DURATION 1d NAME daily`)
	for i, value := range []string{"1i", "2.5", `"three"`, "true"} {
		b[0].write("db", "", fmt.Sprintf("types,host=a v=%s %d\n", value, int64(firstTime)+int64(i)*int64(day)))
	}
	b[0].write("db", "", fmt.Sprintf("both,v=tag v=1.5 %d\nboth,v=other v=\"field\",w=1i %d\n", int64(firstTime), int64(firstTime)+int64(day)))
	from := b[0].proxied()
	lookups := 0
	var mu sync.Mutex
	from.Handle(only(func(r *http.Request) bool {
		s := harness.Statements(r)
		lookup := strings.Contains(s, "SHOW FIELD KEYS") || strings.Contains(s, "SHOW TAG KEYS")
		mu.Lock()
		defer mu.Unlock()
		if lookup {
			lookups++
		}
		return lookup
	}, refuse(500, "no schema today"))(from))
	require.NoError(t, in.WriteConfigURLs(b[1].URL()))
	in.startAPI("-patience", "1s")
	in.startWorker("-patience", "1s")
	in.succeed(in.submitOld("circle_id=0&operation=rm", harness.Backend{Name: "gone", URL: from.URL()}))
	require.Equal(t, b[0].dump(), b[1].dump())
	mu.Lock()
	defer mu.Unlock()
	require.Zero(t, lookups, "types and tags come with the points, never from a look-up")
	place := harness.Place{Database: "db", RetentionPolicy: "daily", Measurement: "types"}
	requireSameAnswers(t, b[0], b[1], place, 4)
}
