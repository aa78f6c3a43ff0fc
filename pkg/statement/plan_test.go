package statement_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/influxdata/influxql"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/statement"
)

// Where one backend has all that is asked for, it is asked in the client's words.
func TestOneOwnerIsAskedInTheWordsOfTheClient(t *testing.T) {
	t.Parallel()
	held := map[string][]string{"A": {"a", "a2"}, "B": {"b"}, "C": {"c"}}
	for q, backend := range map[string]string{
		`SELECT v FROM a`: "A", `SELECT v, "w" FROM a, a2 WHERE time > now() - 1h`: "A", `SELECT mean(v) FROM (SELECT v FROM b)`: "B",
		`SELECT * FROM /^a/`: "A", `SELECT * FROM /^nothing/`: "A", `EXPLAIN SELECT v FROM c`: "C",
		`SHOW TAG KEYS FROM a, a2`: "A", `SHOW SERIES FROM b`: "B", `SHOW FIELD KEYS FROM c LIMIT 1`: "C", `SHOW RETENTION POLICIES`: "A",
	} {
		plan, err := one(t, q).Plan(circle(held))
		require.NoError(t, err)
		require.True(t, plan.Pass(), q)
		require.Equal(t, []string{backend + ": " + q + " (original)"}, asks(plan.Parts), q)
	}
}

// A backend that holds what it doesn't own is asked by name.
func TestLeftoversAreNotAskedFor(t *testing.T) {
	t.Parallel()
	held := map[string][]string{"A": {"a", "a2", "b"}, "B": {"b"}}
	plan, err := one(t, `SELECT v FROM /^a|b$/`).Plan(circle(map[string][]string{"A": {"a", "a2", "b"}}))
	require.NoError(t, err)
	require.Len(t, plan.Probes, 2)
	require.Contains(t, plan.Probes[0].Text, "FROM a, a2, (")
	require.Contains(t, plan.Probes[1].Text, "FROM /^a|b$/, (", "all of it is its own")

	plan, err = one(t, `SELECT v FROM /^a/, a`).Plan(circle(held))
	require.NoError(t, err)
	require.Equal(t, []string{"A: SELECT v FROM /^a/, a (original)"}, asks(plan.Parts))

	for _, c := range []struct {
		q     string
		parts []string
		less  int64
	}{
		{`SHOW MEASUREMENT CARDINALITY`, []string{
			"A: SHOW MEASUREMENT CARDINALITY (original)", "B: SHOW MEASUREMENT CARDINALITY (original)",
			"C: SHOW MEASUREMENT CARDINALITY (original)",
		}, 1},
		{`SHOW SERIES CARDINALITY`, []string{
			"A: SHOW SERIES CARDINALITY (original)", "B: SHOW SERIES CARDINALITY (original)", "C: SHOW SERIES CARDINALITY (original)",
			"A: SHOW SERIES EXACT CARDINALITY ON d FROM b (subtract)",
		}, 0},
		{`SHOW MEASUREMENT EXACT CARDINALITY`, []string{
			"A: SHOW MEASUREMENT EXACT CARDINALITY FROM a, a2", "B: SHOW MEASUREMENT EXACT CARDINALITY FROM /.+/",
		}, 0},
	} {
		s := one(t, c.q)
		require.Equal(t, []string{"d"}, s.Lists())
		plan, err := s.Plan(circle(held))
		require.NoError(t, err)
		require.Equal(t, c.parts, asks(plan.Parts))
		require.Equal(t, c.less, plan.Merge.Less)
	}
}

// known is what the backends of circle say about their fields.
func known() map[string]string {
	return map[string]string{
		"A": "v::integer, w::float, host::tag",
		"B": "v::float, word::string, host::tag, zone::tag",
		"C": "v::string, up::boolean, zone::string",
	}
}

func resolved(t testing.TB, q string, held map[string][]string) *statement.Plan {
	t.Helper()
	plan, err := one(t, q).Plan(circle(held))
	require.NoError(t, err, q)
	var answers [][]string
	for _, p := range plan.Probes {
		lines := []string{"EXPRESSION: <nil>", "AUXILIARY FIELDS: " + known()[p.Backend], "NUMBER OF SHARDS: 1"}
		if strings.Contains(p.Text, `FROM "ringmaster`) && !strings.Contains(p.Text, ", (SELECT \"ringmaster") {
			lines = nil // on what doesn't exist
		}
		answers = append(answers, lines)
	}
	require.NoError(t, plan.Resolve(answers), q)
	return plan
}

func TestNamesGetTheirTypes(t *testing.T) {
	t.Parallel()
	for q, want := range map[string][]string{
		`SELECT v FROM a, b`:       {"A: SELECT v::float FROM a", "B: SELECT v::float FROM b"},
		`SELECT v, host FROM a, c`: {"A: SELECT v::integer, host::tag FROM a", "C: SELECT v::integer, host::tag FROM c"},
		`SELECT * FROM a, b`: {
			"A: SELECT host::tag, v::float, w::float, word::string, zone::tag FROM a",
			"B: SELECT host::tag, v::float, w::float, word::string, zone::tag FROM b",
		},
		`SELECT mean(*) FROM a, c GROUP BY *`: {
			"A: SELECT mean(v::integer) AS mean_v, mean(w::float) AS mean_w FROM a GROUP BY host",
			"C: SELECT mean(v::integer) AS mean_v, mean(w::float) AS mean_w FROM c GROUP BY host",
		},
		`SELECT v FROM a, c WHERE zone = 'x' ORDER BY time DESC LIMIT 3`: {
			"A: SELECT v::integer FROM a WHERE zone::string = 'x' ORDER BY time DESC LIMIT 3",
			"C: SELECT v::integer FROM c WHERE zone::string = 'x' ORDER BY time DESC LIMIT 3",
		},
		`SELECT count(v) FROM a, b WHERE time > now() - 1h GROUP BY time(10m, now())`: {
			"A: SELECT count(v::float) FROM a WHERE time > '2026-03-04T12:00:00Z' - 1h AND time <= '2026-03-04T12:00:00Z' GROUP BY time(10m, 0s)",
			"B: SELECT count(v::float) FROM b WHERE time > '2026-03-04T12:00:00Z' - 1h AND time <= '2026-03-04T12:00:00Z' GROUP BY time(10m, 0s)",
		},
		`SELECT mean(x) FROM (SELECT max(v) AS x FROM a, b GROUP BY time(1h))`: {
			"A: SELECT mean(x::float) FROM (SELECT max(v::float) AS x FROM a WHERE time <= '2026-03-04T12:00:00Z' GROUP BY time(1h))",
			"B: SELECT mean(x::float) FROM (SELECT max(v::float) AS x FROM b WHERE time <= '2026-03-04T12:00:00Z' GROUP BY time(1h))",
		},
		`SELECT v FROM a, b WHERE v > 0.00001 AND w < 100000000000000000000.0 fill(0.00001)`: {
			"A: SELECT v::float FROM a WHERE v::float > 0.00001 AND w::float < 100000000000000000000.0 fill(0.00001)",
			"B: SELECT v::float FROM b WHERE v::float > 0.00001 AND w::float < 100000000000000000000.0 fill(0.00001)",
		},
		`EXPLAIN SELECT v FROM a, b`: {"A: EXPLAIN SELECT v::float FROM a", "B: EXPLAIN SELECT v::float FROM b"},
	} {
		plan := resolved(t, q, nil)
		require.Equal(t, want, asks(plan.Parts), q)
		require.Equal(t, strings.Contains(q, "DESC"), plan.Merge.Descending, q)
	}
}

func TestNowIsFixedWherePartsAgree(t *testing.T) {
	t.Parallel()
	text, original, err := one(t, `DELETE FROM a WHERE time < now() - 1d AND h = 'x'`).Everywhere()
	require.NoError(t, err)
	require.False(t, original)
	require.Equal(t, `DELETE FROM a WHERE time < '2026-03-04T12:00:00Z' - 1d AND h = 'x'`, text)
	text, original, err = one(t, `DROP SERIES FROM a`).Everywhere()
	require.NoError(t, err)
	require.True(t, original)
	require.Equal(t, `DROP SERIES FROM a`, text)
	plan, err := one(t, `SHOW SERIES ON "my-db" WHERE time > now()`).Plan(circle(nil))
	require.NoError(t, err)
	require.Equal(t, `SHOW SERIES ON "my-db" WHERE time > '2026-03-04T12:00:00Z'`, plan.Parts[0].Text)
	plan, err = one(t, `SHOW MEASUREMENTS ON "my-db" LIMIT 3`).Plan(circle(nil))
	require.NoError(t, err)
	require.Equal(t, `SHOW MEASUREMENTS ON "my-db"`, plan.Parts[0].Text)
	require.Equal(t, 3, plan.Merge.Limit)
}

func TestRowsOfLeftoversAreNotKept(t *testing.T) {
	t.Parallel()
	keep := func(q string) *statement.Merge {
		plan, err := one(t, q).Plan(circle(nil))
		require.NoError(t, err)
		require.True(t, plan.Merge.Filters(), q)
		return &plan.Merge
	}
	for q, row := range map[string]string{`SHOW MEASUREMENTS`: "a", `SHOW SERIES`: "a,host=b"} {
		require.True(t, keep(q).Keep("A", "", []any{row}), q)
		require.False(t, keep(q).Keep("B", "", []any{row}), q)
	}
	require.True(t, keep(`SHOW TAG KEYS`).Keep("A", "a", nil))
	require.False(t, keep(`SHOW TAG KEYS`).Keep("B", "a", nil))
	require.False(t, keep(`SHOW DATABASES`).Keep("A", "databases", []any{statement.Hidden}))
	require.True(t, keep(`SHOW DATABASES`).Keep("B", "databases", []any{"d"}))
}

func TestMeasurementOf(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"cpu": "cpu", "cpu,host=a": "cpu", `with\ space,host=a`: "with space", `with\,comma,a=b`: "with,comma", `back\slash,a=b`: `back\slash`,
		"": "", "m=eq,a=b": "m=eq",
	} {
		require.Equal(t, want, statement.MeasurementOf(key), key)
	}
}

// Whatever is asked: parts can be parsed, name only what their backend owns, and
// together name all that the statement does.
func TestPartsDivideWhatIsAsked(t *testing.T) {
	t.Parallel()
	names := []string{"cpu", "mem", "disk", "net", "swap", "tfloat", "tint", "tstring", "ctag", "cfield"}
	held := map[string][]string{"A": names, "B": names, "C": names}
	rapid.Check(t, func(t *rapid.T) {
		g := generator{rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2))}
		q := g.query(2)
		for hour := range 300 {
			q = strings.ReplaceAll(q, fmt.Sprintf("{%dh}", hour), "'2026-01-01'")
		}
		q = regexp.MustCompile(`\{-\d+h\}`).ReplaceAllString(q, "'2026-01-01'")
		request, err := statement.Parse(q, nil, statement.Defaults{Database: "d", Now: noon()})
		if err != nil {
			t.Skip(q)
		}
		c := circle(held)
		plan, err := request.Statements[0].Plan(c)
		if err != nil {
			t.Skip(err)
		}
		answers := make([][]string, len(plan.Probes))
		for i, p := range plan.Probes {
			if p.Ignore("type error: x") {
				continue
			}
			answers[i] = []string{"AUXILIARY FIELDS: " + known()[p.Backend]}
		}
		if err := plan.Resolve(answers); err != nil {
			t.Skip(err)
		}
		for _, part := range plan.Parts {
			ast, err := influxql.ParseStatement(part.Text)
			if err != nil {
				t.Fatalf("%s: %s: %v", q, part.Text, err)
			}
			if part.Original {
				continue
			}
			influxql.WalkFunc(ast, func(n influxql.Node) {
				m, ok := n.(*influxql.Measurement)
				if !ok || strings.HasPrefix(m.Name, "ringmaster: ") {
					return
				}
				if m.Regex != nil && slices.ContainsFunc(names, func(n string) bool {
					return m.Regex.Val.MatchString(n) && c.Owner("d", n) != part.Backend
				}) || m.Regex == nil && c.Owner("d", m.Name) != part.Backend {
					t.Fatalf("%s: %s is not of %s: %s", q, m, part.Backend, part.Text)
				}
			})
		}
	})
}

func FuzzRoute(f *testing.F) {
	for _, texts := range examples() {
		for _, q := range texts {
			f.Add(q)
		}
	}
	for _, file := range []string{"testdata/select.txt", "testdata/show.txt"} {
		for _, q := range statementsOf(f, file) {
			f.Add(strings.ReplaceAll(q, "{0h}", "'2026-01-01'"))
		}
	}
	held := map[string][]string{"A": {"a", "b"}, "B": {"b"}, "C": {"c"}}
	f.Fuzz(func(t *testing.T, q string) {
		d := statement.Defaults{Database: "d", Now: noon()}
		r, err := statement.Parse(q, nil, d)
		whole, wholeErr := influxql.ParseQuery(q)
		if err != nil {
			require.EqualError(t, err, "error parsing query: "+wholeErr.Error())
			return
		}
		require.NoError(t, wholeErr)
		require.Len(t, r.Statements, len(whole.Statements))
		for i, s := range r.Statements {
			require.Equal(t, whole.Statements[i].String(), s.AST.String())
			again, err := influxql.ParseQuery(s.Text)
			require.NoError(t, err)
			require.Equal(t, s.AST.String(), again.String(), "%q", s.Text)
			s.Target()
			s.Warning(func(string) string { return "p" })
			_, _, _ = s.Everywhere()
			if s.Class == statement.Refused || s.Class == statement.CreateEverywhere || s.Class == statement.DropEverywhere {
				continue
			}
			plan, err := s.Plan(circle(held))
			if err != nil {
				continue
			}
			answers := make([][]string, len(plan.Probes))
			for i, p := range plan.Probes {
				answers[i] = []string{"AUXILIARY FIELDS: " + known()[p.Backend]}
			}
			if plan.Resolve(answers) != nil {
				continue
			}
			for _, p := range plan.Parts {
				_, err := influxql.ParseQuery(p.Text)
				require.NoError(t, err, p.Text)
			}
		}
	})
}
