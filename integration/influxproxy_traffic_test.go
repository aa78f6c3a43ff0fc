package integration_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// The tests of this file show that influx-proxy's faults in what clients write and
// read are absent. What is right is what one InfluxDB answers that is asked the same.

// likeOne is a gateway over two circles of two backends, and one InfluxDB.
type likeOne struct {
	*circleSite

	one *backend
}

func newLikeOne(t *testing.T) *likeOne {
	t.Helper()
	l := &likeOne{circleSite: newCircleSite(t, 2, 2), one: startBackend(t)}
	l.Settings = map[string]any{"check_interval": 1}
	return l
}

// begin starts the programs and makes the database on both sides.
func (l *likeOne) begin(args ...string) {
	l.t.Helper()
	l.start(args...)
	l.both(http.MethodPost, "/query?q=CREATE+DATABASE+db", "")
}

// both asks both sides, and requires of the gateway the answer of the one.
func (l *likeOne) both(method, path, body string) (status int, answer string) {
	l.t.Helper()
	want, wanted, err := harness.Client{URL: l.one.URL()}.Do(l.context(), method, path, http.Header{"Content-Type": {"text/plain"}}, []byte(body))
	require.NoError(l.t, err)
	have, got := l.do(method, path, http.Header{"Content-Type": {"text/plain"}}, body)
	require.Equal(l.t, string(wanted), got, "%s %s %s", method, path, body)
	require.Equal(l.t, want.StatusCode, have.StatusCode, "%s %s %s", method, path, body)
	require.Equal(l.t, want.Header.Get("X-Influxdb-Error"), have.Header.Get("X-Influxdb-Error"), "%s %s %s", method, path, body)
	return have.StatusCode, got
}

// requireAlike requires that each circle holds what the one holds.
func (l *likeOne) requireAlike() {
	l.t.Helper()
	want, have := l.one.dump(), l.dump()
	for circle := range l.members {
		require.Equal(l.t, places(want), l.owned(have, circle), "circle %d", circle)
	}
}

// A write is answered when it is in the proxy's buffer: a crash loses what was
// acknowledged.
func TestInfluxProxyFaultACrashLosesWhatWasAcknowledged(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 1, 1)
	s.start()
	s.query("CREATE DATABASE db")
	for round := range 3 {
		s.store("db", fmt.Sprintf("m value=%di %d\n", round, int64(firstTime)+int64(round)))
		s.API.Kill() // at once
		for _, b := range s.all() {
			require.Len(t, b.dump()[harness.Place{Database: "db", RetentionPolicy: "autogen", Measurement: "m"}], round+1)
		}
		s.startAPI()
	}
	// And when it went to the disk since a backend was down.
	down := s.members[1][0]
	down.Kill()
	for n := range 5 {
		s.store("db", fmt.Sprintf("late value=%di %d\n", n, int64(firstTime)+int64(n)))
	}
	s.API.Kill()
	down.Restart()
	s.startAPI()
	s.awaitMode(down, "direct")
	require.Equal(t, s.members[0][0].dump(), down.dump())
	require.Len(t, down.dump()[harness.Place{Database: "db", RetentionPolicy: "autogen", Measurement: "late"}], 5)
}

// A 400 from a backend, for one bad line or a conflict of types, drops the whole
// batch, in which other clients' lines travel; 404 too. All of them saw 204.
func TestInfluxProxyFaultOneRefusedLineDropsTheBatchOfAll(t *testing.T) {
	t.Parallel()
	l := newLikeOne(t)
	l.begin()
	status, _ := l.both(http.MethodPost, "/write?db=db", fmt.Sprintf("m value=1i %d\n", int64(firstTime)))
	require.Equal(t, http.StatusNoContent, status)
	conflict := fmt.Sprintf("m value=\"text\" %d\n", int64(firstTime)+1)
	status, refusal := l.both(http.MethodPost, "/write?db=db", conflict)
	require.Equal(t, http.StatusBadRequest, status)
	require.Contains(t, refusal, "field type conflict")

	const clients, rounds = 12, 8
	var writers sync.WaitGroup
	problems := make(chan string, clients*rounds)
	for c := range clients {
		writers.Go(func() {
			for round := range rounds {
				lines, wanted := fmt.Sprintf("m,client=%d value=%di %d\n", c, round, int64(firstTime)+int64(round)), http.StatusNoContent
				if c%4 == 0 {
					lines, wanted = conflict, http.StatusBadRequest
				}
				res, body, err := l.Client.Do(l.context(), http.MethodPost, "/write?db=db", nil, []byte(lines))
				if err != nil || res.StatusCode != wanted || wanted == http.StatusBadRequest && string(body) != refusal {
					problems <- fmt.Sprint(c, round, " ", err, " ", string(body))
				}
			}
		})
	}
	writers.Wait()
	close(problems)
	for p := range problems {
		t.Error(p)
	}
	var good strings.Builder
	for c := range clients {
		for round := range rounds {
			if c%4 != 0 {
				fmt.Fprintf(&good, "m,client=%d value=%di %d\n", c, round, int64(firstTime)+int64(round))
			}
		}
	}
	l.one.write("db", "", good.String())
	l.requireAlike()

	// What is not there is not acknowledged either.
	status, answer := l.both(http.MethodPost, "/write?db=nowhere", "m value=1i 1\n")
	require.Equal(t, http.StatusNotFound, status, answer)
	status, answer = l.both(http.MethodPost, "/write?db=db&rp=nowhere", "m value=1i 1\n")
	require.Equal(t, http.StatusInternalServerError, status, answer)
	l.requireAlike()
}

// Lines without valid format are dropped, and the client sees 204.
func TestInfluxProxyFaultInvalidLinesAreDroppedSilently(t *testing.T) {
	t.Parallel()
	l := newLikeOne(t)
	l.begin()
	for _, body := range []string{
		"good value=1 1\nthis is no line\nother value=2 2\n", "no fields 1\n", "m value= 1\n", "m value=1 1x\ngood value=3 3\n",
		"m,tag value=1 1\n", "=1 1\n", "good value=4 4\n\n# remark\r\nm value=5 5\r\n",
	} {
		status, answer := l.both(http.MethodPost, "/write?db=db", body)
		require.Equal(t, http.StatusBadRequest, status)
		require.Contains(t, answer, "unable to parse")
	}
	l.requireAlike()
}

// Several statements, several measurements, regular expressions, SELECT INTO and
// EXPLAIN are refused.
func TestInfluxProxyFaultOrdinaryQueriesAreRefused(t *testing.T) {
	t.Parallel()
	l := newLikeOne(t)
	l.begin()
	var lines strings.Builder
	for m := range 6 {
		for n := range 30 {
			fmt.Fprintf(&lines, "m%d,host=h%d,zone=z%d value=%d,count=%di %d\n", m, n%3, m%2, n*m, n, int64(firstTime)+int64(n)*int64(time.Minute))
		}
	}
	l.both(http.MethodPost, "/write?db=db", lines.String())
	const begin, end = "'2023-11-13T00:00:00Z'", "'2023-11-13T01:00:00Z'"
	for _, q := range []string{
		"SELECT value FROM m0 LIMIT 2; SELECT count FROM m1 LIMIT 2; SHOW MEASUREMENTS",
		"SELECT value FROM m0, m1, m2, m3 LIMIT 5",
		"SELECT mean(value) FROM m0, m5 WHERE time >= " + begin + " AND time < " + end + " GROUP BY time(10m), host",
		"SELECT * FROM /m[0-3]/ WHERE host = 'h1' ORDER BY time DESC LIMIT 3",
		"SELECT max(value) FROM /.*/ GROUP BY zone",
		"SELECT sum(v) FROM (SELECT max(value) AS v FROM m1, m2 GROUP BY host)",
		"EXPLAIN SELECT mean(value) FROM m2",
		"SHOW TAG VALUES FROM /m[1-4]/ WITH KEY IN (host, zone) WHERE zone = 'z1' LIMIT 4",
		"SHOW FIELD KEYS FROM m0, m1",
		"SHOW SERIES LIMIT 7 OFFSET 3",
		"SELECT nothing FROM m0; SELECT value FROM nowhere; SELECT value FROM other..m0",
	} {
		_, answer := l.both(http.MethodGet, "/query?"+url.Values{"db": {"db"}, "q": {q}}.Encode(), "")
		require.NotContains(t, answer, "forbidden", q)
	}
	for _, q := range []string{
		"SELECT * INTO copied FROM m0, m1 GROUP BY *", "SELECT mean(value) INTO means FROM /m[2-4]/ WHERE time >= " + begin + " AND time < " + end + " GROUP BY time(15m), host",
		"DELETE FROM m3 WHERE host = 'h0'; DROP SERIES FROM m4 WHERE zone = 'z0'; DROP MEASUREMENT m5",
	} {
		_, answer := l.both(http.MethodPost, "/query?"+url.Values{"db": {"db"}, "q": {q}}.Encode(), "")
		require.NotContains(t, answer, "error", q)
	}
	l.requireAlike()
	res, answer := l.do(http.MethodGet, "/query?"+url.Values{"db": {"db"}, "q": {"EXPLAIN ANALYZE SELECT mean(value) FROM m2"}}.Encode(), nil, "")
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Contains(t, answer, "execution_time")
}

// Clients read from a circle that is being filled, and see holes.
func TestInfluxProxyFaultACircleThatIsBeingFilledIsRead(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 1, 1)
	writes := newGate()
	target := s.proxy(1, 0)
	s.members[0][0].fill("db", 4, 300)
	s.members[1][0].exec("CREATE DATABASE db WITH DURATION INF REPLICATION 1 SHARD DURATION 1d NAME daily")
	writes.hold(target, harness.IsWrite)
	t.Cleanup(writes.release)
	s.start()
	id := s.ask("/recovery?from_circle_id=0&to_circle_id=1")
	writes.reached.await(t, "the recovery writes")
	count := func() string {
		_, answer := s.do(http.MethodGet, "/query?"+url.Values{"db": {"db"}, "q": {"SELECT count(value) FROM m000"}}.Encode(), nil, "")
		return answer
	}
	for range 20 {
		require.Contains(t, count(), ",300]", "it is always the complete circle that is asked")
	}
	writes.release()
	s.succeed(id)
	s.awaitComplete()
	for range 4 {
		require.Contains(t, count(), ",300]")
	}
	s.members[0][0].Kill() // the other one serves now
	require.True(t, waitFor(t, func() bool { return strings.Contains(count(), ",300]") }))
}

// awaitComplete waits until all circles may be read.
func (in *installation) awaitComplete() {
	in.t.Helper()
	require.True(in.t, waitFor(in.t, func() bool {
		_, all := in.circles()
		for _, c := range all {
			if c.Unreadable != "" {
				return false
			}
		}
		return true
	}), "a circle stays unreadable")
}

// A circle of which one backend is down is not read at all, so that two such
// backends end all reading, whatever they own.
func TestInfluxProxyFaultOneBackendDownEndsReadingFromItsCircle(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 2, 2)
	s.Settings = map[string]any{"check_interval": 1}
	s.start()
	s.query("CREATE DATABASE db")
	s.store("db", lateLines("early"))
	ask := func(i int) (status int, answer string) {
		q := url.Values{"db": {"db"}, "q": {fmt.Sprintf("SELECT value FROM \"early-%02d\"", i)}}
		res, answer := s.do(http.MethodGet, "/query?"+q.Encode(), nil, "")
		return res.StatusCode, answer
	}
	// One of each circle: all that they own is owned by somebody else who is there.
	first, second := s.members[0][0], s.members[1][1]
	first.Kill()
	second.Kill()
	for i := range lateCount {
		status, answer := ask(i)
		require.Equal(t, http.StatusOK, status, answer)
		require.Contains(t, answer, fmt.Sprintf(",%d]", i))
	}
	// One more: only what it alone could answer is not answered.
	third := s.members[1][0]
	third.Kill()
	seen := map[string]int{}
	for i := range lateCount {
		if s.ownerOf(0, "db", fmt.Sprintf("early-%02d", i)) != first {
			seen["there"]++
			status, answer := ask(i)
			require.Equal(t, http.StatusOK, status, answer)
			require.Contains(t, answer, fmt.Sprintf(",%d]", i))
			continue
		}
		if seen["lost"]++; seen["lost"] > 1 {
			continue // it waits for a while
		}
		status, answer := ask(i)
		require.Equal(t, http.StatusServiceUnavailable, status, answer)
		require.Contains(t, answer, "no circle can answer this completely")
		require.Contains(t, answer, first.URL())
		require.Contains(t, answer, third.URL())
	}
	require.Positive(t, seen["there"])
	require.Positive(t, seen["lost"])
	// Nothing can be done everywhere now, and who is in the way is named.
	for _, q := range []string{`DROP DATABASE db`, `DELETE FROM "early-01"`, `ALTER RETENTION POLICY autogen ON db DURATION 52w`} {
		said := s.said("db", q)
		require.Contains(t, said, first.URL(), q)
		require.Contains(t, said, second.URL(), q)
	}
}

// DELETE goes to the owner alone: a leftover copy on another backend brings the
// points back with the next rebalance.
func TestInfluxProxyFaultDeletedPointsComeBackFromLeftovers(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 2)
	s.start()
	s.query("CREATE DATABASE db")
	s.store("db", lateLines("early"))
	for i := range lateCount {
		m := fmt.Sprintf("early-%02d", i)
		s.wrongPlace("db", m).write("db", "", fmt.Sprintf("%s value=%di %d\n", m, i, int64(firstTime)))
	}
	require.True(t, waitFor(t, func() bool { return s.said("db", `DELETE FROM /early-.*/`) == "" }))
	for _, b := range s.all() {
		require.Empty(t, b.dump())
	}
	s.finish(s.rebalanceAdd(0).ID, operation.Succeeded)
	for _, b := range s.all() {
		require.Empty(t, b.dump())
	}
}

// An error inside of an answer with status 200 is never looked at: a part counts as
// the whole.
func TestInfluxProxyFaultAnErrorInsideAnAnswerIsTakenForItsEnd(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 2)
	bad := s.proxy(0, 0)
	s.start()
	s.query("CREATE DATABASE db")
	s.store("db", lateLines("early"))
	bad.Handle(only(func(r *http.Request) bool {
		return strings.Contains(harness.Statements(r), "early")
	}, errorHalfway("half of it is missing"))(bad))
	for _, q := range []string{`SELECT * FROM /early-.*/`, `SELECT * INTO copied FROM /early-.*/`} {
		res, answer := s.do(http.MethodPost, "/query?"+url.Values{"db": {"db"}, "q": {q}}.Encode(), nil, "")
		require.Contains(t, answer, "half of it is missing", "%d %s", res.StatusCode, q)
		require.NotContains(t, answer, "written", q)
	}
}
