package query_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// load gives a rig data that reaches every server.
func load(g *rig) {
	g.everywhere(`CREATE DATABASE d; CREATE RETENTION POLICY weekly ON d DURATION INF REPLICATION 1 SHARD DURATION 7d; CREATE DATABASE e`)
	var lines strings.Builder
	for m := range 8 {
		for s := range 3 {
			for i := range 40 {
				fmt.Fprintf(&lines, "m%d,host=h%d,zone=z%d v=%d.5,n=%di,s=\"t%d\" %d\n", m, s, s%2, i*m, i, i, 1600000000000000000+int64(i)*60e9+int64(m))
			}
		}
	}
	lines.WriteString("odd\\ name,t=x v=1 1600000000000000000\nother,t=y w=true 1600000000000000000\n")
	g.write("d", "", lines.String())
	g.write("d", "weekly", "m1,host=h1 v=7 1600000000000000000\n")
	g.write("e", "", "m1,host=h9 v=9 1600000000000000000\nx v=1 5\n")
}

// reads are statements whose answers must be those of one server.
func reads() []string {
	return []string{
		`SELECT * FROM m1`,
		`SELECT v FROM m1 WHERE host = 'h1' LIMIT 3`,
		`SELECT * FROM m1, m2, m3`,
		`SELECT v, n FROM m0, m1, m2, m3, m4, m5, m6, m7 GROUP BY host`,
		`SELECT mean(v) FROM /m[0-9]/ GROUP BY host, zone`,
		`SELECT mean(v), max(n) FROM /.*/`,
		`SELECT * FROM /m[1-5]/ GROUP BY * ORDER BY time DESC LIMIT 2`,
		`SELECT count(v) FROM m1, m2 WHERE time >= 1600000000s AND time < 1600001200s GROUP BY time(5m) FILL(0)`,
		`SELECT mean(v) FROM m1, m2, m3 WHERE time >= 1600000000s AND time < 1600001200s GROUP BY time(5m), host tz('Europe/Berlin')`,
		`SELECT max(v) FROM (SELECT mean(v) AS v FROM m1, m2, m3 GROUP BY host)`,
		`SELECT v FROM m1 WHERE time > now()`,
		`SELECT v FROM m1, m2 WHERE time > now()`,
		`SELECT v FROM nothing`,
		`SELECT v FROM nothing, m1`,
		`SELECT v FROM /nothing/`,
		`SELECT v FROM d.weekly.m1`,
		`SELECT v FROM e..m1, e..x`,
		`SELECT v FROM nodb..m1, nodb..m2`,
		`SELECT nofunction(v) FROM m1, m2`,
		`SELECT v FROM m1; SELECT v FROM m2; SHOW MEASUREMENTS`,
		`SELECT v FROM m1, m2; SELECT v FROM nodb..m1, nodb..m2; SELECT v FROM m3; SELECT v FROM m4`,
		`SELECT v FROM nodb..m1; SELECT v FROM m3`,
		`SELECT v FROM m1 SLIMIT 1; SELECT v FROM m2 GROUP BY host SLIMIT 1 SOFFSET 1`,
		`SELECT v FROM m1, m2, m3 GROUP BY host SLIMIT 1 SOFFSET 1`,
		`SHOW DATABASES`,
		`SHOW MEASUREMENTS`,
		`SHOW MEASUREMENTS LIMIT 3 OFFSET 2`,
		`SHOW MEASUREMENTS OFFSET 100`,
		`SHOW MEASUREMENTS WITH MEASUREMENT =~ /m[2-4]/`,
		`SHOW MEASUREMENTS ON e`,
		`SHOW MEASUREMENTS ON nodb`,
		`SHOW TAG KEYS`,
		`SHOW TAG KEYS FROM m1, m2`,
		`SHOW TAG KEYS LIMIT 1`,
		`SHOW TAG VALUES WITH KEY = host`,
		`SHOW TAG VALUES FROM /m[12]/ WITH KEY IN (host, zone) LIMIT 2`,
		`SHOW FIELD KEYS`,
		`SHOW FIELD KEYS FROM m1`,
		`SHOW SERIES`,
		`SHOW SERIES FROM m1, m2 WHERE host = 'h1'`,
		`SHOW SERIES LIMIT 5 OFFSET 3`,
		`SHOW SERIES CARDINALITY`,
		`SHOW SERIES EXACT CARDINALITY`,
		`SHOW MEASUREMENT CARDINALITY`,
		`SHOW MEASUREMENT EXACT CARDINALITY`,
		`SHOW TAG KEY CARDINALITY`,
		`SHOW TAG VALUES CARDINALITY WITH KEY = host`,
		`SHOW FIELD KEY CARDINALITY`,
		`SHOW RETENTION POLICIES`,
		`SHOW RETENTION POLICIES ON nodb`,
		`SELECT`,
		`SHOW`,
		`;`,
		`SELECT v FROM m1 WHERE host = $host`,
		`EXPLAIN SELECT v FROM nothing`,
	}
}

func TestReadsAreThoseOfOneServer(t *testing.T) {
	g := newRig(t)
	load(g)
	for _, q := range reads() {
		for _, way := range []url.Values{
			{}, {"epoch": {"ms"}}, {"chunked": {"true"}}, {"chunked": {"true"}, "chunk_size": {"7"}}, {"pretty": {"true"}},
		} {
			for _, accept := range []string{"", "application/csv", "application/x-msgpack"} {
				v := url.Values{"q": {q}, "db": {"d"}, "params": {`{"host":"h1"}`}}
				maps.Copy(v, way)
				for _, method := range []string{http.MethodGet, http.MethodPost} {
					if accept == "application/x-msgpack" && strings.Contains(q, "GROUP BY") {
						continue // the order of tags is random
					}
					want := ask(t, g.one.URL(), method, v, "Accept", accept)
					got := ask(t, g.url, method, v, "Accept", accept)
					require.NoError(t, got.err)
					require.Equal(t, want.body, got.body, "%s %v %s", q, way, accept)
					require.Equal(t, want.status, got.status, "%s %v", q, way)
					require.Equal(t, want.header.Get("Content-Type"), got.header.Get("Content-Type"), "%s %v", q, way)
					require.Equal(t, want.header.Get("X-Influxdb-Error"), got.header.Get("X-Influxdb-Error"), "%s %v", q, way)
				}
			}
		}
	}
	require.Zero(t, g.session.open)
}
