package statement_test

import (
	"fmt"
	"net/url"
	"reflect"
	"testing"

	"github.com/influxdata/influxql"
	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/statement"
)

func TestEachStatementKeepsItsText(t *testing.T) {
	t.Parallel()
	r := parse(t, " ;; SELECT v\r\nFROM \"a;b\" -- it; is\n WHERE x = 'é;\\'';\tSHOW DATABASES ;SELECT w FROM /c;\\/d/;")
	var texts []string
	for _, s := range r.Statements {
		texts = append(texts, s.Text)
	}
	require.Equal(t, []string{
		"SELECT v\r\nFROM \"a;b\" -- it; is\n WHERE x = 'é;\\''", "SHOW DATABASES", `SELECT w FROM /c;\/d/`,
	}, texts)
	require.Empty(t, parse(t, " ; ").Statements)
}

// examples has a statement of every type, by its class.
func examples() map[statement.Class][]string {
	return map[statement.Class][]string{
		statement.Read: {`SELECT v FROM m`, `EXPLAIN SELECT v FROM m`, `EXPLAIN ANALYZE SELECT v FROM m`},
		statement.Into: {`SELECT v INTO n FROM m`},
		statement.ShowMerged: {
			`SHOW DATABASES`, `SHOW MEASUREMENTS`, `SHOW SERIES`, `SHOW TAG KEYS`, `SHOW TAG VALUES WITH KEY = k`, `SHOW FIELD KEYS`,
			`SHOW MEASUREMENT CARDINALITY`, `SHOW SERIES EXACT CARDINALITY`, `SHOW TAG KEY CARDINALITY`,
			`SHOW TAG VALUES CARDINALITY WITH KEY = k`, `SHOW FIELD KEY EXACT CARDINALITY`,
		},
		statement.ShowOne:          {`SHOW RETENTION POLICIES`},
		statement.ShowAll:          {`SHOW SHARDS`, `SHOW SHARD GROUPS`, `SHOW STATS`, `SHOW DIAGNOSTICS`, `SHOW QUERIES`},
		statement.CreateEverywhere: {`CREATE DATABASE x`, `CREATE RETENTION POLICY p ON x DURATION 1d REPLICATION 1`},
		statement.DropEverywhere: {
			`DELETE FROM m`, `DROP SERIES FROM m`, `DROP MEASUREMENT m`, `DROP DATABASE x`, `DROP RETENTION POLICY p ON x`,
			`ALTER RETENTION POLICY p ON x DURATION 2d`,
		},
		statement.Refused: {
			`CREATE USER u WITH PASSWORD 'p'`, `DROP USER u`, `SET PASSWORD FOR u = 'p'`, `GRANT READ ON d TO u`,
			`GRANT ALL PRIVILEGES TO u`, `REVOKE READ ON d FROM u`, `REVOKE ALL PRIVILEGES FROM u`, `SHOW USERS`, `SHOW GRANTS FOR u`,
			`CREATE CONTINUOUS QUERY c ON d BEGIN SELECT mean(v) INTO n FROM m GROUP BY time(1h) END`,
			`DROP CONTINUOUS QUERY c ON d`, `SHOW CONTINUOUS QUERIES`,
			`CREATE SUBSCRIPTION s ON d.p DESTINATIONS ANY 'udp://x:1'`, `DROP SUBSCRIPTION s ON d.p`, `SHOW SUBSCRIPTIONS`,
			`KILL QUERY 1`, `DROP SHARD 1`,
		},
	}
}

// Every type of statement that the parser knows is classified, so that none is
// forgotten.
func TestEveryStatementIsClassified(t *testing.T) {
	t.Parallel()
	seen := map[reflect.Type]bool{}
	for class, texts := range examples() {
		for _, q := range texts {
			s := one(t, q)
			require.Equal(t, class, s.Class, q)
			require.Equal(t, class == statement.Refused, s.Refusal != "", q)
			require.NotContains(t, s.Refusal, "not known", q)
			seen[reflect.TypeOf(s.AST)] = true
		}
	}
	for _, ast := range []influxql.Statement{
		&influxql.AlterRetentionPolicyStatement{}, &influxql.CreateContinuousQueryStatement{}, &influxql.CreateDatabaseStatement{},
		&influxql.CreateRetentionPolicyStatement{}, &influxql.CreateSubscriptionStatement{}, &influxql.CreateUserStatement{},
		&influxql.DeleteSeriesStatement{}, &influxql.DropContinuousQueryStatement{}, &influxql.DropDatabaseStatement{},
		&influxql.DropMeasurementStatement{}, &influxql.DropRetentionPolicyStatement{}, &influxql.DropSeriesStatement{},
		&influxql.DropSubscriptionStatement{}, &influxql.DropUserStatement{}, &influxql.ExplainStatement{}, &influxql.GrantStatement{},
		&influxql.GrantAdminStatement{}, &influxql.KillQueryStatement{}, &influxql.ShowContinuousQueriesStatement{},
		&influxql.ShowGrantsForUserStatement{}, &influxql.ShowDatabasesStatement{}, &influxql.ShowFieldKeyCardinalityStatement{},
		&influxql.ShowFieldKeysStatement{}, &influxql.ShowMeasurementCardinalityStatement{}, &influxql.ShowMeasurementsStatement{},
		&influxql.ShowQueriesStatement{}, &influxql.ShowRetentionPoliciesStatement{}, &influxql.ShowSeriesStatement{},
		&influxql.ShowSeriesCardinalityStatement{}, &influxql.ShowShardGroupsStatement{}, &influxql.ShowShardsStatement{},
		&influxql.ShowStatsStatement{}, &influxql.DropShardStatement{}, &influxql.ShowSubscriptionsStatement{},
		&influxql.ShowDiagnosticsStatement{}, &influxql.ShowTagKeyCardinalityStatement{}, &influxql.ShowTagKeysStatement{},
		&influxql.ShowTagValuesCardinalityStatement{}, &influxql.ShowTagValuesStatement{}, &influxql.ShowUsersStatement{},
		&influxql.RevokeStatement{}, &influxql.RevokeAdminStatement{}, &influxql.SelectStatement{}, &influxql.SetPasswordUserStatement{},
	} {
		require.True(t, seen[reflect.TypeOf(ast)], "%T has no example", ast)
	}
}

func TestDatabases(t *testing.T) {
	t.Parallel()
	for q, want := range map[string]string{
		`SHOW MEASUREMENTS`: "d", `SHOW MEASUREMENTS ON x`: "x", `SHOW TAG KEYS ON x`: "x", `SHOW SERIES CARDINALITY ON x`: "x",
		`CREATE DATABASE x`: "x", `DROP DATABASE x`: "x", `ALTER RETENTION POLICY p ON x DURATION 2d`: "x", `SHOW DATABASES`: "",
		`SHOW SHARDS`: "", `DELETE FROM m`: "d", `DROP MEASUREMENT m`: "d", `SHOW RETENTION POLICIES ON x`: "x",
	} {
		require.Equal(t, want, one(t, q).Database, q)
	}
	s := one(t, `SELECT v FROM m, x..n, x.p./r/, (SELECT v FROM (SELECT v FROM deep))`)
	var got []string
	for _, source := range s.Sources() {
		text := source.Database + "." + source.RetentionPolicy + "." + source.Name
		if source.Regex != nil {
			text += "/" + source.Regex.String() + "/"
		}
		got = append(got, text)
	}
	require.Equal(t, []string{"d..m", "x..n", "x.p./r/", "d..deep"}, got)
}

// What is wrong with a request, one server says in the same words.
func TestErrorsAreThoseOfAServer(t *testing.T) {
	t.Parallel()
	r := &rig{t: t, whole: influxtest.Start(t), http: client()}
	r.whole.Exec(`CREATE DATABASE d`)
	for _, q := range []string{
		`SELEC v FROM m`, `SELECT v FROM m SHOW DATABASES`, `SELECT v FROM`, `SELECT v FROM m;;SHOW`, `SHOW TAG VALUES`,
		"SELECT v\nFROM m\n\tWHERE", `SELECT v FROM m WHERE x = $p`, `SELECT past, future, verbose FROM m LIMIT`, `DELETE`,
		`SELECT v FROM m GROUP BY time(1h) fill(x)`, `SELECT v INTO FROM m`, `ALTER RETENTION POLICY p ON d`,
		`SELECT v FROM m; FROM`, `CREATE DATABASE d WITH`, `SELECT v FROM m TZ('Nowhere')`,
		`SELECT v FROM m WHERE time > '`, `SELECT "v FROM m`, `SHOW MEASUREMENTS WITH MEASUREMENT != x`, `SELECT v FROM m WHERE x =~ /[/`,
	} {
		want := r.ask(r.whole, q, statement.Defaults{Database: "d"})
		_, err := statement.Parse(q, nil, statement.Defaults{Database: "d"})
		require.EqualError(t, err, want[0].Err, q)
	}
	for _, q := range []string{
		`SELECT v FROM m`, `SHOW MEASUREMENTS`, `SHOW SERIES`, `SHOW TAG KEYS`, `SHOW TAG VALUES WITH KEY = k`, `SHOW FIELD KEYS`,
		`SHOW SERIES CARDINALITY`, `SHOW MEASUREMENT EXACT CARDINALITY`, `SHOW TAG KEY CARDINALITY`, `SHOW FIELD KEY CARDINALITY FROM m`,
		`SHOW MEASUREMENTS WHERE time > 1`, `SHOW SERIES CARDINALITY WHERE time > 1`, `SHOW TAG KEY CARDINALITY WHERE time > 1`,
		`SHOW FIELD KEY CARDINALITY WHERE time > 1`, `SHOW MEASUREMENT CARDINALITY WHERE time > 1`,
		`SHOW RETENTION POLICIES`, `SELECT v INTO n FROM d..m`, `SELECT v FROM (SELECT v FROM d..m, m)`, `SELECT v FROM _tags`,
		`SELECT v FROM d.._series`, `EXPLAIN SELECT v FROM m`, `SHOW SERIES FROM m, d..m`,
	} {
		request, err := statement.Parse(q, nil, statement.Defaults{})
		require.NoError(t, err, q)
		require.NotNil(t, request.Statements[0].Fault, q)
		require.Equal(t, r.ask(r.whole, q, statement.Defaults{})[0].Err, request.Statements[0].Fault.Message, q)
	}
}

// Parameters are read and bound as one server does it.
func TestParamsAreThoseOfAServer(t *testing.T) {
	t.Parallel()
	s := influxtest.Start(t)
	s.Exec(`CREATE DATABASE d`)
	r := &rig{t: t, whole: s, http: client()}
	for _, c := range []struct{ q, params string }{
		{`SELECT v FROM m WHERE x = $p`, `{"p":1}`},
		{`SELECT v FROM m WHERE x = $p`, `{"p":1.5}`},
		{`SELECT v FROM m WHERE x = $p`, `{"p":"it's"}`},
		{`SELECT v FROM m WHERE x = $p`, `{"p":true}`},
		{`SELECT v FROM m WHERE x = $p`, `{"q":1}`},
		{`SELECT v FROM m WHERE x = $p`, `{"p":null}`},
		{`SELECT v FROM m WHERE x = $p`, `{"p":[1]}`},
		{`SELECT v FROM m WHERE x = $p`, `{"p":1e3}`},
		{`SELECT v FROM m WHERE x = $p`, `{"p":99999999999999999999}`},
		{`SELECT v FROM m WHERE x = $p`, `{"p":{"integer":3}}`},
		{`SELECT v FROM m WHERE x = $p`, `{"p":{"nothing":3}}`},
		{`SELECT v FROM $p`, `{"p":{"identifier":"m"}}`},
		{`SELECT v FROM m WHERE h =~ $p`, `{"p":{"regex":"^a"}}`},
		{`SELECT v FROM m WHERE time > now() - $p`, `{"p":{"duration":"1h"}}`},
		{`SELECT v FROM m WHERE x = $p`, `{"p":`},
		{`SELECT v FROM m WHERE x = $p`, `[]`},
		{`SELECT v FROM m`, ``},
	} {
		body, err := r.post(s, url.Values{"q": {c.q}, "params": {c.params}, "db": {"d"}})
		require.NoError(t, err)
		want := decode(t, c.q, body)[0].Err
		params, err := statement.Params(c.params)
		if err == nil {
			_, err = statement.Parse(c.q, params, statement.Defaults{Database: "d"})
		}
		if err != nil {
			require.Equal(t, want, err.Error(), "%s %s", c.q, c.params)
			continue
		}
		require.Empty(t, want, "%s %s", c.q, c.params)
	}
}

func TestBoundParamsAreInTheTextOfParts(t *testing.T) {
	t.Parallel()
	params, err := statement.Params(`{"n":0.0004,"m":{"identifier":"b;x"}}`)
	require.NoError(t, err)
	r, err := statement.Parse(`SELECT v FROM a, $m WHERE v > $n`, params, statement.Defaults{Database: "d", Now: noon()})
	require.NoError(t, err)
	plan, err := r.Statements[0].Plan(circle(nil))
	require.NoError(t, err)
	require.NoError(t, plan.Resolve(make([][]string, len(plan.Probes))))
	require.Equal(t, []string{`A: SELECT v FROM a WHERE v > 0.0004`, `B: SELECT v FROM "b;x" WHERE v > 0.0004`}, asks(plan.Parts))
}

func asks(parts []statement.Ask) (texts []string) {
	for _, p := range parts {
		text := p.Backend + ": " + p.Text
		if p.Original {
			text += " (original)"
		}
		if p.Subtract {
			text += " (subtract)"
		}
		texts = append(texts, text)
	}
	return texts
}

// A GET that changes something is answered with a message, in the words of one
// server.
func TestWarningsAreThoseOfAServer(t *testing.T) {
	t.Parallel()
	s := influxtest.Start(t)
	s.Exec(`CREATE DATABASE d`)
	s.WriteLines("d", "", "m v=1 1\nm v=2 2")
	r := &rig{t: t, whole: s, http: client()}
	for _, q := range []string{
		`CREATE DATABASE x WITH SHARD DURATION 2d NAME p`, `CREATE RETENTION POLICY q ON x DURATION 90m REPLICATION 1 SHARD DURATION 1h`,
		`ALTER RETENTION POLICY q ON x DURATION 3h`, `SELECT v INTO n FROM m WHERE v > 1.00004`,
		`SELECT v INTO x.p.:MEASUREMENT FROM (SELECT v FROM /m/)`, `DELETE FROM m WHERE time < 0`, `DROP SERIES FROM m WHERE a = 'b'`,
		`DROP MEASUREMENT m`, `DROP RETENTION POLICY q ON x`, `DROP DATABASE x`, `SHOW DATABASES`, `SELECT v FROM d..m`,
	} {
		body, err := r.get(s, url.Values{"q": {q}, "db": {"d"}})
		require.NoError(t, err)
		a := decode(t, q, body)[0]
		require.Empty(t, a.Err, q)
		request, err := statement.Parse(q, nil, statement.Defaults{Database: "d"})
		require.NoError(t, err)
		got := request.Statements[0].Warning(func(database string) string {
			return map[string]string{"d": "autogen", "x": "p"}[database]
		})
		require.Equal(t, fmt.Sprint(a.Messages), fmt.Sprint(notEmpty(got)), q)
	}
}

func notEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}
