package query_test

import (
	"errors"
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/serving"
)

func (g *rig) post(q string) answered {
	g.t.Helper()
	return ask(g.t, g.url, http.MethodPost, url.Values{"q": {q}, "db": {"d"}})
}

// both asks the runner and the one server to change something.
func (g *rig) both(method, q string) {
	g.t.Helper()
	v := url.Values{"q": {q}, "db": {"d"}}
	want, got := ask(g.t, g.one.URL(), method, v), ask(g.t, g.url, method, v)
	require.Equal(g.t, want.body, got.body, q)
	require.Equal(g.t, want.status, got.status, q)
}

func TestChangesReachEveryServer(t *testing.T) {
	g := newRig(t)
	load(g)
	for _, q := range []string{
		`CREATE DATABASE f`, `CREATE DATABASE f`, `CREATE DATABASE g WITH DURATION 30d NAME short`,
		`CREATE RETENTION POLICY p ON f DURATION 52w REPLICATION 1 SHARD DURATION 1w`,
		`CREATE RETENTION POLICY p ON f DURATION 51w REPLICATION 1`, `CREATE RETENTION POLICY p ON nodb DURATION 51w REPLICATION 1`,
		`CREATE RETENTION POLICY p ON f DURATION 10s REPLICATION 1`,
		`ALTER RETENTION POLICY p ON f DURATION 40w DEFAULT`, `SHOW RETENTION POLICIES ON f`,
		`DELETE FROM m1 WHERE host = 'h1'`, `DELETE FROM m2 WHERE time < 1600000600s`, `DELETE WHERE host = 'h2' AND time < now() - 1h`,
		`DROP SERIES FROM m3 WHERE host = 'h0'`, `DROP MEASUREMENT m4`, `DROP MEASUREMENT nothing`,
		`SHOW SERIES`, `SELECT * FROM /m[0-9]/`, `SHOW MEASUREMENTS`,
		`DROP RETENTION POLICY p ON f`, `DROP DATABASE f`, `DROP DATABASE f`, `SHOW DATABASES`,
		`DROP DATABASE e; SHOW DATABASES; SELECT v FROM e..x; SHOW DATABASES`,
	} {
		g.both(http.MethodPost, q)
	}
	for _, q := range []string{`CREATE DATABASE h`, `DROP DATABASE h`, `DROP MEASUREMENT m5`, `DELETE FROM m6`} {
		g.both(http.MethodGet, q)
	}
	require.Zero(t, g.session.open)
}

func TestIntoIsReadOnceAndWrittenByTheWritePath(t *testing.T) {
	g := newRig(t)
	load(g)
	for _, q := range []string{
		`SELECT * INTO copy FROM m1`,
		`SELECT mean(v) AS v, max(n) AS n INTO e..means FROM m1, m2, m3 GROUP BY time(10m), host`,
		`SELECT v INTO d.weekly.:MEASUREMENT FROM /m[0-9]/ GROUP BY *`,
		`SELECT v INTO d.nowhere.x FROM nothing`,
		`SELECT v AS "value" INTO "odd copy" FROM "odd name" GROUP BY *`,
		`SELECT * FROM copy GROUP BY *`, `SELECT * FROM e..means GROUP BY *`, `SELECT * FROM d.weekly./.*/ GROUP BY *`, `SELECT * FROM "odd copy" GROUP BY *`,
	} {
		g.both(http.MethodPost, q)
	}
	g.both(http.MethodGet, `SELECT v INTO copy2 FROM m1`)
}

func TestNothingIsTakenAwayWhileSomethingIsInTheWay(t *testing.T) {
	g := newRig(t)
	load(g)
	at := g.circles[0][1]
	for _, q := range []string{`DELETE FROM m1`, `DROP MEASUREMENT m1`, `DROP SERIES FROM m1`, `DROP DATABASE d`, `DROP RETENTION POLICY weekly ON d`, `ALTER RETENTION POLICY weekly ON d DURATION 60w`} {
		g.health.set(at, true)
		require.Contains(t, g.post(q).body, "backend "+at+" does not answer; nothing was done")
		g.health.set(at, false)
		g.state(serving.State{Backlogs: []serving.Backlog{{Backend: at, Mode: serving.Hinting, Reason: "gone"}}})
		require.Contains(t, g.post(q).body, "backend "+at+" has writes waiting for it")
		g.state(serving.State{Copies: []serving.Copy{{Operation: "op-1"}}})
		require.Contains(t, g.post(q).body, "operation op-1 is copying")
		g.state(serving.State{})
	}
	g.same(`SELECT * FROM m1`)
	// A server that is gone without anybody knowing is named, and so are those that
	// have done it.
	g.servers[at].Kill()
	got := g.post(`DELETE FROM m1`).body
	require.Contains(t, got, "not all backends have done it; done: ")
	require.Contains(t, got, "not done: "+at)
	got = g.post(`CREATE DATABASE z`).body
	require.Contains(t, got, "not done: "+at)
}

func TestOnlyAllowedDatabases(t *testing.T) {
	g := newRig(t)
	load(g)
	top := g.session.view.Topology.Clone()
	top.Databases = []string{"d"}
	g.set(top, serving.State{})
	g.same(`SELECT * FROM m1`)
	for _, q := range []string{`SELECT v FROM e..x`, `SELECT v INTO e..y FROM m1`, `SHOW MEASUREMENTS ON e`, `DROP DATABASE e`, `CREATE DATABASE e`} {
		got := g.post(q)
		require.Equal(t, http.StatusBadRequest, got.status, q)
		require.Equal(t, `{"error":"database forbidden: e"}`+"\n", got.body, q)
	}
}

func TestAProcessThatMustNotServeSaysSo(t *testing.T) {
	g := newRig(t)
	load(g)
	g.session.refuse = errors.New("this process has lost its session")
	for _, q := range []string{single, several, `CREATE DATABASE z`, `DROP DATABASE d`, `SHOW STATS`} {
		got := g.post(q)
		require.Equal(t, http.StatusServiceUnavailable, got.status, q)
		require.Contains(t, got.body, "this process has lost its session", q)
	}
}

// Whoever reads past the end of his session may read what there was before.
func TestWhatWasReadWithoutASessionIsNotGivenOut(t *testing.T) {
	g := newRig(t)
	load(g)
	g.session.lost = errors.New("its session has run out")
	for _, q := range []string{single, several, `SHOW MEASUREMENTS`, `SELECT * INTO copy FROM m1`} {
		got := g.post(q)
		require.Contains(t, got.body, "its session has run out", q)
		require.NotContains(t, got.body, "series", q)
	}
	require.Zero(t, g.session.open)
}

func TestWhatIsRefusedSaysWhy(t *testing.T) {
	g := newRig(t)
	load(g)
	for _, q := range []string{`CREATE USER u WITH PASSWORD 'p'`, `KILL QUERY 3`, `SHOW USERS`, `CREATE SUBSCRIPTION s ON d.autogen DESTINATIONS ALL 'http://x'`} {
		got := g.post(q)
		require.Equal(t, http.StatusOK, got.status)
		require.Contains(t, got.body, `{"results":[{"statement_id":0,"error":"`)
	}
}

func TestEachServerSpeaksForItself(t *testing.T) {
	g := newRig(t)
	load(g)
	for _, q := range []string{`SHOW DIAGNOSTICS`, `SHOW STATS`, `SHOW SHARDS`, `SHOW QUERIES`, `SHOW SHARD GROUPS`} {
		got := g.post(q)
		require.Equal(t, http.StatusOK, got.status)
		require.NotContains(t, got.body, "error")
	}
	g.health.set(g.circles[1][2], true)
	require.Contains(t, g.post(`SHOW STATS`).body, "backend "+g.circles[1][2]+" does not answer and is left out")
	// Nor one of which nobody knows that it is gone.
	g.servers[g.circles[0][2]].Kill()
	require.Contains(t, g.post(`SHOW STATS`).body, "backend "+g.circles[0][2]+" does not answer and is left out")
}
