package integration_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The random part of the suite. DIFFERENTIAL_SEED chooses what is asked, and
// DIFFERENTIAL_REQUESTS how many times.
const (
	differentialSeed     = 1
	differentialRequests = 400
)

func fromEnvironment(t testing.TB, name string, value uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return value
	}
	n, err := strconv.ParseUint(text, 10, 64)
	require.NoError(t, err, name)
	return n
}

// deadlyStatement is the error of a statement that ends the process of a server, which
// therefore is not asked.
var deadlyStatement = regexp.MustCompile(`unsupported \w+ iterator type: \*query\.\w+InterruptIterator`)

// TestGatewayAnswersAsOneInfluxDBAtRandom is the promise of the data plane for random
// line protocol and random statements: fields have types that differ between
// measurements, owners and shard groups, and some lines are bad.
func TestGatewayAnswersAsOneInfluxDBAtRandom(t *testing.T) {
	t.Parallel()
	seed := fromEnvironment(t, "DIFFERENTIAL_SEED", differentialSeed)
	n := int(fromEnvironment(t, "DIFFERENTIAL_REQUESTS", differentialRequests))
	t.Logf("DIFFERENTIAL_SEED=%d DIFFERENTIAL_REQUESTS=%d", seed, n)
	g := chance{rand.New(rand.NewPCG(seed, 0))}
	w := startTwin(t)
	w.try(post("CREATE DATABASE x"))
	for week := range weeks {
		w.try(write("db=x", g.everyField(week)))
	}
	w.requireSpread("x", chanceMeasurements()...)
	require.False(t, t.Failed(), "the fields could not be made")

	for range n / 3 {
		w.try(write("db=x", g.lines(g.IntN(weeks))))
	}
	for i := range n / 20 {
		db := fmt.Sprintf("torn%d", i)
		w.try(post("CREATE DATABASE " + db))
		w.try(write("db="+db, g.torn()))
		// What a refused write has named is not compared: see the documentation.
		w.try(ask("SELECT count(f0), count(f1), count(f2) FROM /.*/ WHERE t0 != 'z'", "db="+db))
	}
	require.False(t, t.Failed(), "the data differ")
	w.dumpsAgree()

	refused, failed, empty := 0, 0, 0
	for range n {
		x, statements := g.exchange()
		if w.keptFromServers(statements) {
			refused++
			continue
		}
		one, gateway := w.send(w.one.URL(), x), w.send(w.Client.URL, x)
		if found := x.differences(one, gateway); len(found) > 0 {
			t.Errorf("%s\n  differs: %s\n  InfluxDB %d %s\n  gateway  %d %s", x, strings.Join(found, "; "),
				one.status, clipped(one.body), gateway.status, clipped(gateway.body))
		}
		switch {
		case strings.Contains(one.body, `"error"`):
			failed++
		case !strings.Contains(one.body, `"series"`):
			empty++
		}
	}
	t.Logf("%d requests: %d refused alike, %d without rows or in another form, %d not asked of InfluxDB", n, failed, empty, refused)
	require.Less(t, failed+refused, n/2, "most statements are good ones")
}

// keptFromServers reports whether one of the statements would end a server, or is one
// that is refused as documented. They are asked one by one: InfluxDB hides the error of
// a statement behind that of the next one, and CSV shows none.
func (w *twin) keptFromServers(statements []string) (kept bool) {
	w.t.Helper()
	for _, q := range statements {
		x := ask(q, "db=x")
		told := w.send(w.Client.URL, x).body
		if !deadlyStatement.MatchString(told) && !strings.Contains(told, "ask for one database at a time") {
			continue
		}
		kept = true
		for _, b := range w.backends {
			res, err := w.http.Get(b.URL() + "/ping")
			require.NoError(w.t, err, "this has ended a backend: %s", x)
			require.NoError(w.t, res.Body.Close())
		}
	}
	return kept
}

// chance makes what is asked from a seed.
type chance struct{ *rand.Rand }

func (g chance) one(from ...string) string { return from[g.IntN(len(from))] }

func (g chance) in(n int) bool { return g.IntN(n) == 0 }

// What is not asked since InfluxDB itself answers it in more than one way: integral()
// and sample(), whose series and rows come in a random order, and one measurement as
// the source of a query and of a query within it, whose rows of one time do.

// some is a text one time in n.
func (g chance) some(n int, text string) string {
	if g.in(n) {
		return text
	}
	return ""
}

func (g chance) list(most int, one func() string) string {
	var all []string
	for range 1 + g.IntN(most) {
		all = append(all, one())
	}
	return strings.Join(all, ", ")
}

// The data: measurements with fields of one name in different types, in two weeks.
const (
	weeks      = 2
	someFields = 5
)

func chanceMeasurements() []string {
	return []string{"m0", "m1", "m2", "m3", "m4", "m5", "m6", "m 7", "m,8"}
}

func lineName(measurement string) string {
	return strings.NewReplacer(",", `\,`, " ", `\ `).Replace(measurement)
}

// kind is the type of a field in a week: mostly the same in both.
func kind(measurement, field, week int) int {
	k := (measurement*7 + field*3) % 11 % 4
	if week == 1 && (measurement+field)%9 == 0 {
		k++
	}
	return k % 4
}

func (g chance) value(kind int) string {
	switch kind {
	case 0:
		return g.one(strconv.Itoa(g.IntN(20)), fmt.Sprintf("%d.%d", g.IntN(9), g.IntN(9)), fmt.Sprintf("-%de-%d", g.IntN(9), g.IntN(5)), "1e3")
	case 1:
		return strconv.Itoa(g.IntN(40)-10) + "i"
	case 2:
		return strconv.Quote(g.one("s", "t", "two words", "", "a,b=c", "ü"))
	default:
		return g.one("true", "false", "T", "f")
	}
}

func (g chance) time(week int) string {
	return fmt.Sprintf("{%dh#}", week*7*24+g.IntN(72))
}

// everyField has a point with every field of every measurement in a week.
func (g chance) everyField(week int) string {
	var text strings.Builder
	for m, name := range chanceMeasurements() {
		var fields []string
		for f := range someFields {
			fields = append(fields, fmt.Sprintf("f%d=%s", f, g.value(kind(m, f, week))))
		}
		fmt.Fprintf(&text, "%s,t0=a,t1=x %s {%dh#}\n", lineName(name), strings.Join(fields, ","), week*7*24)
	}
	return text.String()
}

// lines are a request with points of one week, some of them bad.
func (g chance) lines(week int) string {
	var text strings.Builder
	trouble := g.IntN(4) == 0
	for range 1 + g.IntN(30) {
		m := g.IntN(len(chanceMeasurements()))
		fmt.Fprintf(&text, "%s", lineName(chanceMeasurements()[m]))
		for tag := range 3 {
			if g.in(2) {
				fmt.Fprintf(&text, ",t%d=%s", tag, g.one("a", "b", "c", "x", `v\ w`))
			}
		}
		var fields []string
		for _, f := range g.Perm(someFields)[:1+g.IntN(3)] {
			k := kind(m, f, week)
			if trouble && g.in(12) {
				k = g.IntN(4)
			}
			fields = append(fields, fmt.Sprintf("f%d=%s", f, g.value(k)))
		}
		fmt.Fprintf(&text, " %s %s%s", strings.Join(fields, ","), g.time(week), g.one("\n", "\n", "\n", "\n\n", "\r\n", "\n# remark\n"))
		if trouble && g.in(10) {
			text.WriteString(g.one("bad", "m0 f0", "m1,t0= f0=1", "m2 f0=1x", "m3 f1=\"open", "m4 f1=tru", "m5 f0=1y", ",t=a f=1", "m6,t0=a,t0=b f0=1i", "m0 time=1") + " " + g.time(week) + "\n")
		}
	}
	return text.String()
}

// torn is a request for a database that has nothing yet, whose fields may have two
// types within it.
func (g chance) torn() string {
	var text strings.Builder
	for range 2 + g.IntN(6) {
		fmt.Fprintf(&text, "%s,t0=%s f%d=%s %s\n", g.one("m0", "m1", "m2"), g.one("a", "b"), g.IntN(3), g.value(g.kindOf(0, 0, 0, 1, 2)), g.time(0))
	}
	return text.String()
}

func (g chance) kindOf(from ...int) int { return from[g.IntN(len(from))] }

// exchange is a request of one statement or of several, in some form.
func (g chance) exchange() (x exchange, statements []string) {
	statements = []string{g.statement()}
	for g.in(8) {
		statements = append(statements, g.statement())
	}
	v := url.Values{"db": {"x"}, "q": {at(strings.Join(statements, "; "))}}
	if g.in(3) {
		v.Set("epoch", g.one("ns", "u", "ms", "s", "m", "h"))
	}
	if g.in(5) {
		v.Set("chunked", "true")
		if g.in(2) {
			v.Set("chunk_size", g.one("1", "3", "10", "100"))
		}
	}
	x = exchange{method: http.MethodGet, path: "/query", query: v.Encode()}
	if g.in(3) {
		x = exchange{method: http.MethodPost, path: "/query", contentType: "application/x-www-form-urlencoded", body: v.Encode()}
	}
	if g.in(6) {
		x = x.with("Accept: " + g.one("application/csv", "application/x-msgpack", "application/json"))
	}
	if g.in(8) {
		x = x.with("Accept-Encoding: gzip")
	}
	return x, statements
}

func (g chance) statement() string {
	if g.IntN(10) < 7 {
		return g.selects(2)
	}
	from := g.some(2, " FROM "+g.list(2, g.namesOrPattern))
	where := g.some(3, " WHERE "+g.tagCondition())
	some := g.some(3, " LIMIT "+strconv.Itoa(1+g.IntN(5))) + g.some(4, " OFFSET "+strconv.Itoa(g.IntN(4)))
	on := g.some(6, " ON x")
	key := " WITH KEY " + g.one("= t0", "= t1", "IN (t0, t2)", "=~ /t[01]/", "!= t0", "= nosuch")
	exact := g.one(" EXACT", " EXACT", "")
	switch g.IntN(9) {
	case 0:
		return "SHOW MEASUREMENTS" + on + g.some(3, " WITH MEASUREMENT =~ /"+g.pattern()+"/") + where + some
	case 1:
		return "SHOW TAG KEYS" + on + from + where + some
	case 2:
		return "SHOW TAG VALUES" + on + from + key + where + some
	case 3:
		return "SHOW FIELD KEYS" + on + from + some
	case 4:
		return "SHOW SERIES" + on + from + where + some
	case 5:
		return "SHOW SERIES EXACT CARDINALITY" + on + from + where
	case 6:
		return "SHOW MEASUREMENT EXACT CARDINALITY" + on + from
	case 7:
		return "SHOW TAG VALUES" + exact + " CARDINALITY" + on + from + key
	default:
		return "SHOW " + g.one("TAG", "FIELD") + " KEY" + exact + " CARDINALITY" + on + from
	}
}

func (g chance) pattern() string {
	return g.one(".*", "m[0-3]", "m[246]", "^m", "m0|m5|m6", "nothing", "8$", "m.7")
}

func (g chance) names() string {
	return g.one(`m0`, `m1`, `m2`, `m3`, `m4`, `m5`, `m6`, `"m 7"`, `"m,8"`, `nosuch`, `x..m1`, `autogen.m2`)
}

func (g chance) namesOrPattern() string {
	if g.in(2) {
		return "/" + g.pattern() + "/"
	}
	return g.names()
}

func (g chance) sources(depth int) string {
	if depth > 0 && g.in(6) {
		return "(" + g.selects(depth-1) + ")"
	}
	return g.list(3, g.namesOrPattern)
}

func (g chance) field() string {
	return g.one("f0", "f0", "f1", "f1", "f2", "f3", "f4", "t0", "nosuch", "f0::float", "f1::integer", "f2::string", "t0::tag", "f1::field")
}

// fieldsOf are what is selected. Raw columns and functions are not mixed, mostly: that
// is refused.
func (g chance) fieldsOf() string {
	alias := func(text string) string { return text + g.some(5, " AS "+g.one("f0", "a", "b")) }
	switch g.IntN(4) {
	case 0:
		return g.list(3, func() string {
			return alias(g.one(g.field(), g.field(), g.field()+" "+g.one("+", "-", "*", "/")+" "+g.one("2", "0.5", g.field())))
		})
	case 1:
		return g.one("*", "*::field", "*, f0", "/f[01]/", "f0, *::tag")
	case 2:
		return g.list(3, func() string {
			arg := g.one(g.field(), g.field(), "*", "/f[02]/")
			return alias(g.one("count", "sum", "mean", "max", "min", "first", "last", "median", "spread", "stddev", "mode", "distinct") + "(" + arg + ")")
		})
	default:
		return g.one(
			"percentile("+g.field()+", "+g.one("1", "50", "99.9")+")", "top("+g.field()+", 2)", "bottom("+g.field()+", t0, 2)", "count(distinct("+g.field()+"))",
			"difference("+g.field()+")", "derivative(mean("+g.field()+"), 1h)", "moving_average("+g.field()+", 2)", "cumulative_sum("+g.field()+")",
			"elapsed("+g.field()+", 1m)", "abs("+g.field()+")", "round(mean("+g.field()+")) + max("+g.field()+")", "mean("+g.field()+"), f0",
		)
	}
}

func (g chance) tagCondition() string {
	return g.one("t0 = 'a'", "t0 != 'b'", "t1 =~ /x|b/", "t2 = ''", "t0 = 'v w'", "t0 =~ /^$/", "nosuch = 'a'", "t0 = 'a' AND t1 = 'x'", "t0 = 'a' OR t1 = 'b'")
}

func (g chance) condition() string {
	switch g.IntN(4) {
	case 0:
		return g.tagCondition()
	case 1:
		return g.one("f0", "f1", "f4") + g.one(" > ", " < ", " = ", " != ") + g.one("2", "0.5", "'s'", "true", "-1")
	default:
		from := g.IntN(80)
		return g.one("time >= ", "time > ") + fmt.Sprintf("{%dh} AND time < {%dh}", from, from+1+g.IntN(200))
	}
}

func (g chance) selects(depth int) string {
	where, group := "", ""
	if g.in(2) {
		where = " WHERE " + g.condition() + g.some(3, g.one(" AND ", " AND ", " OR ")+g.condition())
	}
	if g.in(2) {
		dimensions := []string{g.one("t0", "t1", "t2", "*", "/t[01]/", "nosuch")}
		if g.in(2) {
			dimensions = append(dimensions, "time("+g.one("1h", "10h", "7d", "2h, 30m")+")")
			where = " WHERE time >= {0h} AND time < {" + g.one("20", "60", "200") + "h}"
		}
		if g.in(3) {
			slices.Reverse(dimensions)
		}
		group = " GROUP BY " + strings.Join(dimensions, ", ") + g.some(3, " fill("+g.one("none", "null", "0", "previous", "linear", "1.5")+")")
	}
	return "SELECT " + g.fieldsOf() + " FROM " + g.sources(depth) + where + group +
		g.some(4, " ORDER BY time "+g.one("DESC", "ASC")) + g.some(4, " LIMIT "+g.one("1", "3", "10")) + g.some(8, " OFFSET "+g.one("1", "2")) +
		g.some(8, " SLIMIT "+g.one("1", "2")) + g.some(10, " SOFFSET "+g.one("1", "2")) + g.some(12, " TZ('America/New_York')")
}
