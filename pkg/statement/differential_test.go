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

	"ringmaster/pkg/statement"
)

const hour = int64(time.Hour)

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

func fill(r *rig) {
	base := r.base()
	r.exec(`CREATE DATABASE d`)
	r.exec(`CREATE DATABASE e`)
	r.exec(`CREATE RETENTION POLICY other ON d DURATION INF REPLICATION 1`)
	lines := map[string][]string{}
	add := func(m, tags, fields string, at int64) {
		lines[m] = append(lines[m], escape(m)+tags+" "+fields+fmt.Sprintf(" %d", at))
	}
	week := 7 * 24 * hour
	// Plain ones of one shape.
	for i, m := range []string{"cpu", "mem", "disk", "net", "swap"} {
		for h := range int64(6) {
			for _, host := range []string{"a", "b", "c"} {
				at := base + h*hour/2 + int64(i)*1000
				add(m, ",host="+host+",zone=z"+host, fmt.Sprintf("value=%d.5,n=%di,up=%t,word=\"w%d\"", int64(i)+h, h*int64(i+1), h%2 == 0, h), at)
			}
		}
		for h := range int64(3) { // a second shard group
			add(m, ",host=a", fmt.Sprintf("value=%d,late=%di", h, h), base+week+h*hour)
		}
	}
	// Types that differ between measurements.
	for h := range int64(4) {
		at := base + h*hour
		add("tfloat", ",host=a", fmt.Sprintf("v=%d.25,w=%d", h, h), at)
		add("tint", ",host=b", fmt.Sprintf("v=%di,w=%di", h*10, h), at)
		add("tstring", ",host=c", fmt.Sprintf("v=\"s%d\"", h), at)
		add("tbool", ",host=d", fmt.Sprintf("v=%t", h%2 == 0), at)
		add("tint2", ",host=e", fmt.Sprintf("v=%di", h), at)
		add("tnone", ",host=f", fmt.Sprintf("x=%di", h), at)
	}
	// Types that differ between the shard groups of one measurement.
	add("tmixed", ",host=a", "v=7i,old=1i", base)
	add("tmixed", ",host=a", "v=7.5,new=1i", base+week)
	add("tmixed2", ",host=a", "v=3i", base)
	add("tmixed2", ",host=b", "v=true", base+week)
	// A tag here, a field there.
	for h := range int64(3) {
		add("ctag", ",kind=k1,host=a", fmt.Sprintf("v=%di", h), base+h*hour)
		add("ctag", ",kind=k2,host=a", fmt.Sprintf("v=%di", h*2), base+h*hour)
		add("cfield", ",host=a", fmt.Sprintf("v=%di,kind=\"f%d\"", h, h), base+h*hour)
		add("cnum", ",host=b", fmt.Sprintf("v=%di,kind=%di", h, h), base+h*hour)
	}
	// Names that need care.
	for _, m := range []string{"with space", "with,comma", "with!bang", "with", "with-x", `quo"te`, `single'q`, "Ünï", "select", "_under", "a.b", `back\slash`, "m=eq", "line/x"} {
		add(m, ",host=a", "value=1,n=2i", base)
		add(m, ",host=b", "value=2,n=3i", base+hour)
	}
	for i, v := range []string{"x y", "x!y", `x\,y`, "x=y", "x"} {
		v = strings.ReplaceAll(v, " ", `\ `)
		add("with space", `,host=`+strings.ReplaceAll(v, "=", `\=`)+`,k\ ey=1`, "value=1", base+int64(i)*hour)
	}
	r.write("d", "", lines)
	r.write("d", "other", map[string][]string{
		"cpu": {fmt.Sprintf("cpu,host=a,extra=x value=100 %d", base), fmt.Sprintf("cpu,host=b value=200i %d", base+5*week)},
		"own": {fmt.Sprintf("own,host=q value=5 %d", base)},
	})
	r.write("e", "", map[string][]string{
		"cpu": {fmt.Sprintf("cpu,host=a value=1 %d\ncpu,host=z value=2 %d", base, base+1000)},
		"job": {fmt.Sprintf("job,host=a value=9 %d", base)},
	})
	// What an operation has not cleared yet.
	r.leave("d", "", "cpu", fmt.Sprintf("cpu,host=left,gone=yes value=666,lost=\"x\" %d", base))
	r.leave("d", "", "leftover", fmt.Sprintf("leftover,host=left value=1 %d", base))
	r.leave("d", "", "tfloat", fmt.Sprintf("tfloat,host=left v=\"string\" %d", base))
}

func escape(m string) string { return strings.NewReplacer(",", `\,`, " ", `\ `).Replace(m) }

// TestDifferentialScratch asks what a file names.
func TestDifferentialScratch(t *testing.T) {
	path := os.Getenv("STATEMENTS")
	if path == "" {
		t.Skip()
	}
	r := newRig(t)
	fill(r)
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	n, bad := 0, 0
	for in := bufio.NewScanner(f); in.Scan(); {
		q := strings.TrimSpace(in.Text())
		if q == "" || strings.HasPrefix(q, "#") {
			continue
		}
		n++
		if !same(t, r, q, os.Getenv("VERBOSE") != "") {
			bad++
		}
	}
	t.Logf("%d statements, %d differ", n, bad)
}

var mixed int

func same(t *testing.T, r *rig, q string, verbose bool) bool {
	q = r.at(q)
	d := statement.Defaults{Database: "d"}
	got, trace := r.merged(q, d)
	if deadly(got) {
		return true
	}
	want := r.ask(r.whole, q, d)[0]
	ok := reflect.DeepEqual(normal(want), normal(got))
	if !ok && mixes(q) {
		mixed++
		return true // see there
	}
	if !ok && overlaps(r, q, d) {
		// Which of two rows of one series and time comes first, nobody decides.
		ok = reflect.DeepEqual(heads(want), heads(got))
	}
	if !ok || verbose {
		mark := "same"
		if !ok {
			mark = "DIFFERENT"
		}
		t.Logf("%s %s\n  want %s\n  got  %s\n  %s", mark, q, show(want), show(got), strings.Join(trace, "\n  "))
	}
	return ok
}

// overlaps reports whether a statement reads a measurement twice.
func overlaps(r *rig, q string, d statement.Defaults) bool {
	request, err := statement.Parse(q, nil, d)
	if err != nil {
		return false
	}
	seen := map[string]bool{}
	for _, source := range request.Statements[0].Sources() {
		names := []string{source.Name}
		if source.Regex != nil {
			names = nil
			for _, b := range r.keys {
				for _, name := range r.circle().Measurements(b, source.Database) {
					if source.Regex.MatchString(name) && r.owner(source.Database, name) == b {
						names = append(names, name)
					}
				}
			}
		}
		for _, name := range names {
			if seen[name] {
				return true
			}
			seen[name] = true
		}
	}
	return false
}

// mixes reports whether a query reads measurements and queries side by side. A
// server then drops what has another type than the first of them that answers, if
// only that it has nothing; and which one that is depends on all the data.
func mixes(q string) (mixed bool) {
	ast, err := influxql.ParseStatement(q)
	if err != nil {
		return false
	}
	influxql.WalkFunc(ast, func(n influxql.Node) {
		sources, ok := n.(influxql.Sources)
		if !ok {
			return
		}
		queries := 0
		for _, s := range sources {
			if _, ok := s.(*influxql.SubQuery); ok {
				queries++
			}
		}
		mixed = mixed || queries > 0 && len(sources) > 1
	})
	return mixed
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

// deadly reports whether a statement must not reach a server.
func deadly(a answer) bool {
	return strings.HasPrefix(a.Err, "unsupported ") && strings.HasSuffix(a.Err, "InterruptIterator")
}

func normal(a answer) answer {
	if len(a.Series) == 0 {
		a.Series = nil
	}
	return a
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

func TestRandomScratch(t *testing.T) {
	seed, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64)
	if err != nil {
		t.Skip()
	}
	r := newRig(t)
	fill(r)
	g := generator{rand.New(rand.NewPCG(seed, 1))}
	bad, errs, empty, guarded := 0, 0, 0, 0
	const n = 1500
	for range n {
		q := g.query(2)
		if !same(t, r, q, false) {
			bad++
		}
		if a, _ := r.merged(r.at(q), statement.Defaults{Database: "d"}); deadly(a) {
			guarded++
			continue
		}
		a := r.ask(r.whole, r.at(q), statement.Defaults{Database: "d"})[0]
		switch {
		case a.Err != "":
			errs++
		case len(a.Series) == 0:
			empty++
		}
	}
	t.Logf("mixed %d", mixed)
	t.Logf("%d statements, %d errors, %d empty, %d guarded, %d differ", n, errs, empty, guarded, bad)
}
