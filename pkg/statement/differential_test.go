package statement_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/influxdata/influxql"
	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/statement"
)

const (
	hour = int64(time.Hour)
	week = 7 * 24 * hour
)

// base is the beginning of the data: a Monday, when a shard group of a week begins.
func (r *rig) base() int64 {
	return r.start.Truncate(7 * 24 * time.Hour).Add(-14 * 24 * time.Hour).UnixNano()
}

// at writes times for {12h}: that many hours after the base.
func (r *rig) at(q string) string {
	return regexp.MustCompile(`\{(-?\d+)h\}`).ReplaceAllStringFunc(q, func(m string) string {
		n, err := strconv.ParseInt(strings.TrimSuffix(m[1:], "h}"), 10, 64)
		require.NoError(r.t, err)
		return "'" + time.Unix(0, r.base()+n*hour).UTC().Format(time.RFC3339) + "'"
	})
}

// fill gives the servers data that is awkward to divide.
func (r *rig) fill() {
	r.exec(`CREATE DATABASE d`)
	r.exec(`CREATE DATABASE e`)
	r.exec(`CREATE RETENTION POLICY other ON d DURATION INF REPLICATION 1`)
	base := r.base()
	l := lines{}
	r.fillPlain(l)
	r.fillTypes(l)
	// Names that need care.
	for _, m := range []string{
		"with space", "with,comma", "with!bang", "with", "with-x", `quo"te`, `single'q`, "Ünï", "select",
		"_under", "a.b", `back\slash`, "m=eq", "line/x",
	} {
		l.add(m, ",host=a", "value=1,n=2i", base)
		l.add(m, ",host=b", "value=2,n=3i", base+hour)
	}
	for i, v := range []string{`x\ y`, "x!y", `x\,y`, `x\=y`, "x"} {
		l.add("with space", ",host="+v+`,k\ ey=1`, "value=1", base+int64(i)*hour)
	}
	r.write("d", "", l)
	r.write("d", "other", lines{
		"cpu": {fmt.Sprintf("cpu,host=a,extra=x value=100 %d", base), fmt.Sprintf("cpu,host=b value=200i %d", base+5*week)},
		"own": {fmt.Sprintf("own,host=q value=5 %d", base)},
	})
	r.write("e", "", lines{
		"cpu": {fmt.Sprintf("cpu,host=a value=1 %d\ncpu,host=z value=2 %d", base, base+1000)},
		"job": {fmt.Sprintf("job,host=a value=9 %d", base)},
	})
	// What no operation has cleared yet.
	r.leave("d", "", "cpu", fmt.Sprintf("cpu,host=left,gone=yes value=666,lost=\"x\" %d", base))
	r.leave("d", "", "leftover", fmt.Sprintf("leftover,host=left value=1 %d", base))
	r.leave("d", "", "tfloat", fmt.Sprintf("tfloat,host=left v=\"string\" %d", base))
}

// lines are those of measurements.
type lines map[string][]string

func (l lines) add(m, tags, fields string, at int64) {
	name := strings.NewReplacer(",", `\,`, " ", `\ `).Replace(m)
	l[m] = append(l[m], fmt.Sprintf("%s%s %s %d", name, tags, fields, at))
}

// fillPlain: measurements of one shape.
func (r *rig) fillPlain(l lines) {
	base := r.base()
	for i, m := range []string{"cpu", "mem", "disk", "net", "swap"} {
		for h := range int64(6) {
			for _, host := range []string{"a", "b", "c"} {
				fields := fmt.Sprintf("value=%d.5,n=%di,up=%t,word=\"w%d\"", int64(i)+h, h*int64(i+1), h%2 == 0, h)
				l.add(m, ",host="+host+",zone=z"+host, fields, base+h*hour/2+int64(i)*1000)
			}
		}
		for h := range int64(3) { // a second shard group
			l.add(m, ",host=a", fmt.Sprintf("value=%d,late=%di", h, h), base+week+h*hour)
		}
	}
}

// fillTypes: fields whose type is not the same everywhere.
func (r *rig) fillTypes(l lines) {
	base := r.base()
	for h := range int64(4) {
		at := base + h*hour
		l.add("tfloat", ",host=a", fmt.Sprintf("v=%d.25,w=%d", h, h), at)
		l.add("tint", ",host=b", fmt.Sprintf("v=%di,w=%di", h*10, h), at)
		l.add("tstring", ",host=c", fmt.Sprintf("v=\"s%d\"", h), at)
		l.add("tbool", ",host=d", fmt.Sprintf("v=%t", h%2 == 0), at)
		l.add("tint2", ",host=e", fmt.Sprintf("v=%di", h), at)
		l.add("tnone", ",host=f", fmt.Sprintf("x=%di", h), at)
	}
	// Between the shard groups of one measurement.
	l.add("tmixed", ",host=a", "v=7i,old=1i", base)
	l.add("tmixed", ",host=a", "v=7.5,new=1i", base+week)
	l.add("tmixed2", ",host=a", "v=3i", base)
	l.add("tmixed2", ",host=b", "v=true", base+week)
	// A tag here, a field there.
	for h := range int64(3) {
		l.add("ctag", ",kind=k1,host=a", fmt.Sprintf("v=%di", h), base+h*hour)
		l.add("ctag", ",kind=k2,host=a", fmt.Sprintf("v=%di", h*2), base+h*hour)
		l.add("cfield", ",host=a", fmt.Sprintf("v=%di,kind=\"f%d\"", h, h), base+h*hour)
		l.add("cnum", ",host=b", fmt.Sprintf("v=%di,kind=%di", h, h), base+h*hour)
	}
}

// TestAnswersAreThoseOfOneServer asks one server with all the data and three that
// hold it between them the same.
func TestAnswersAreThoseOfOneServer(t *testing.T) {
	t.Parallel()
	for _, index := range []string{"inmem", "tsi1"} {
		t.Run(index, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, influxtest.WithIndex(index))
			r.fill()
			for _, file := range []string{"testdata/select.txt", "testdata/show.txt"} {
				for _, q := range statementsOf(t, file) {
					r.same(q)
				}
			}
			g := generator{rand.New(rand.NewPCG(seed(t), 1))}
			for range 400 {
				r.same(g.query(2))
			}
		})
	}
}

// seed is that of the random statements: the same one always, unless
// STATEMENT_SEED names another.
func seed(t *testing.T) uint64 {
	t.Helper()
	given := os.Getenv("STATEMENT_SEED")
	if given == "" {
		return 7
	}
	n, err := strconv.ParseUint(given, 10, 64)
	require.NoError(t, err)
	return n
}

func statementsOf(t testing.TB, file string) (all []string) {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	in := bufio.NewScanner(f)
	for in.Scan() {
		if q := strings.TrimSpace(in.Text()); q != "" && !strings.HasPrefix(q, "#") {
			all = append(all, q)
		}
	}
	require.NoError(t, in.Err())
	return all
}

// same asks both sides and compares.
func (r *rig) same(q string) {
	r.t.Helper()
	q = r.at(q)
	d := statement.Defaults{Database: "d"}
	got, trace := r.merged(q, d)
	if deadly(got) {
		return // what it is about is tested where nothing else comes to harm
	}
	want := r.ask(r.whole, q, d)[0]
	if reflect.DeepEqual(want, got) || mixes(q) {
		return
	}
	if r.overlaps(q, d) && reflect.DeepEqual(heads(want), heads(got)) {
		return
	}
	r.t.Errorf("%s\n  want %s\n  got  %s\n  by\n  %s", q, show(want), show(got), strings.Join(trace, "\n  "))
}

// deadly reports whether a statement must not reach a server.
func deadly(a answer) bool {
	return strings.HasPrefix(a.Err, "unsupported ") && strings.HasSuffix(a.Err, "InterruptIterator")
}

// mixes reports whether a query reads several sources with queries among them. A
// server then drops what has another type than the first of them that answers, if
// only that it has nothing; and which one that is depends on all the data.
func mixes(q string) (mixed bool) {
	ast, err := influxql.ParseStatement(q)
	if err != nil {
		return false
	}
	influxql.WalkFunc(ast, func(n influxql.Node) {
		sources, ok := n.(influxql.Sources)
		if !ok || len(sources) < 2 {
			return
		}
		kinds := map[bool]bool{}
		for _, s := range sources {
			_, query := s.(*influxql.SubQuery)
			kinds[query] = true
		}
		mixed = mixed || len(kinds) == 2
	})
	return mixed
}

// overlaps reports whether a statement reads a measurement twice: which of two rows
// of one series and time comes first, nobody decides.
func (r *rig) overlaps(q string, d statement.Defaults) bool {
	request, err := statement.Parse(q, nil, d)
	if err != nil {
		return false
	}
	seen := map[string]bool{}
	for _, source := range request.Statements[0].Sources() {
		for _, name := range r.names(source) {
			if seen[name] {
				return true
			}
			seen[name] = true
		}
	}
	return false
}

func (r *rig) names(source statement.Source) []string {
	if source.Regex == nil {
		return []string{source.Name}
	}
	var names []string
	for _, b := range r.keys {
		for _, name := range r.circle().Measurements(b, source.Database) {
			if source.Regex.MatchString(name) && r.owner(source.Database, name) == b {
				names = append(names, name)
			}
		}
	}
	return names
}

// heads are the series without their rows.
func heads(a answer) answer {
	heads := answer{Err: a.Err}
	for _, s := range a.Series {
		s.Values = nil
		heads.Series = append(heads.Series, s)
	}
	return heads
}

func show(a answer) string {
	if a.Err != "" {
		return "error " + a.Err
	}
	text := ""
	for _, s := range a.Series {
		text += fmt.Sprintf("%s%v%q%v; ", s.Name, s.Tags, s.Columns, s.Values)
	}
	if len(text) > 1500 {
		text = text[:1500] + "…"
	}
	return text
}

// What differs and has to: two databases on different backends.
func TestOneNameOfTwoDatabasesIsRefused(t *testing.T) {
	t.Parallel()
	s := one(t, `SELECT value FROM e..cpu, cpu`)
	_, err := s.Plan(circle(nil))
	var refused *statement.RefusedError
	require.ErrorAs(t, err, &refused)
	require.Contains(t, refused.Reason, "ask for one database at a time")
}

// The statements that the guard keeps from servers do end one.
func TestWhatTheGuardKeepsEndsAServer(t *testing.T) {
	t.Parallel()
	s := influxtest.Start(t)
	s.Exec(`CREATE DATABASE d`)
	s.WriteLines("d", "", "a v=1 1\nb v=1,word=\"x\" 1\nb v=2,word=\"y\" 2")
	r := &rig{t: t, whole: s, http: client()}
	q := `SELECT mean(word) FROM nosuch, b`
	d := statement.Defaults{Database: "d"}
	body, err := r.try(s, q, d)
	require.Eventually(t, func() bool {
		_, err := r.try(s, "SHOW DATABASES", d)
		return err != nil
	}, 10*time.Second, 10*time.Millisecond, "the server lives, the guard is not needed any more: %s %v", body, err)

	c := circle(nil)
	c.Backends = c.Backends[:1]
	c.Owner = func(_, _ string) string { return c.Backends[0] }
	plan, err := one(t, q).Plan(c)
	require.NoError(t, err)
	require.NotEmpty(t, plan.Probes)
	answers := make([][]string, len(plan.Probes))
	answers[1] = []string{`AUXILIARY FIELDS: v::float, word::string`}
	require.EqualError(t, plan.Resolve(answers), "unsupported mean iterator type: *query.stringInterruptIterator")
}
