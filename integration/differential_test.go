package integration_test

import (
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// The databases of the data set.
const (
	metrics = "metrics"
	oddName = `odd "db", with = ünï`
)

// sample is some lines of one measurement, without its name: tags, a space,
// fields, a space, a time.
type sample struct {
	db, rp, measurement string
	lines               []string
}

// quoteName writes an identifier for InfluxQL.
func quoteName(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// escapeName writes a measurement's name for line protocol.
func escapeName(s string) string { return strings.NewReplacer(",", `\,`, " ", `\ `).Replace(s) }

// escapeTag writes a tag's key or value for line protocol.
func escapeTag(s string) string {
	return strings.NewReplacer(",", `\,`, " ", `\ `, "=", `\=`).Replace(s)
}

// escapeString writes a field's text for line protocol.
func escapeString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// createDatabases makes the databases and policies of the data set as no default
// would make them.
func (b *backend) createDatabases() {
	b.t.Helper()
	b.exec(`CREATE DATABASE ` + metrics)
	b.exec(`CREATE RETENTION POLICY forever ON ` + metrics + ` DURATION INF REPLICATION 1 SHARD DURATION 24h DEFAULT`)
	b.exec(`CREATE RETENTION POLICY recent ON ` + metrics + ` DURATION 720h REPLICATION 1 SHARD DURATION 12h`)
	b.exec(`CREATE DATABASE ` + quoteName(oddName) + ` WITH DURATION INF REPLICATION 1 SHARD DURATION 2h NAME "policy 1"`)
	b.exec(`CREATE RETENTION POLICY "52 weeks" ON ` + quoteName(oddName) + ` DURATION 52w REPLICATION 1 SHARD DURATION 3d`)
}

// dataSet is everything that a move could get wrong.
func dataSet(now time.Time) []sample {
	recent := now.Add(-5 * day).Truncate(day).UnixNano()
	var all []sample
	add := func(db, rp, measurement string, lines ...string) {
		all = append(all, sample{db, rp, measurement, lines})
	}
	// One field with another type in every shard group of a policy.
	for i, value := range []string{"1i", "2.5", `"three"`, "true", "5i"} {
		at := firstTime + int64(i)*int64(day)
		for n := range 20 {
			add(metrics, "forever", "changing", fmt.Sprintf("host=a v=%s %d", value, at+int64(n)*int64(time.Hour)))
		}
	}
	// A tag and a field of one name, in every policy.
	for _, rp := range []string{"autogen", "forever"} {
		add(metrics, rp, "same name", fmt.Sprintf("v=tag v=1.5 %d", firstTime), fmt.Sprintf("v=other v=2.5,w=3i %d", firstTime))
	}
	add(metrics, "recent", "same name", fmt.Sprintf("v=tag v=1.5 %d", recent))
	for _, name := range []string{
		"plain", "with,comma and space=equals", `"double" and 'single'`, `back\slash`, "emoji 🙂 ünïcode",
		"_underscore", "semi;colon", "/regex.*/", "m/with.dots-and:colons", "SELECT", "日本語",
	} {
		for _, where := range [][2]string{{metrics, "forever"}, {metrics, "recent"}, {oddName, "policy 1"}, {oddName, "52 weeks"}} {
			for n := range 30 {
				add(where[0], where[1], name, fmt.Sprintf("%s=%s,host=h%d value=%d.25,n=%di %d",
					escapeTag("tag key, with = odd"), escapeTag("tag = value, 🙂"), n%3, n, n, recent+int64(n)*int64(time.Hour)))
			}
		}
	}
	add(metrics, "forever", "values", valueLines(firstTime)...)
	add(oddName, "policy 1", "values", valueLines(firstTime)...)
	add(metrics, "forever", "ends of time",
		fmt.Sprintf("end=first v=1i,f=%v %d", -math.MaxFloat64, math.MinInt64+2),
		fmt.Sprintf("end=last v=2i,s=\"last\" %d", math.MaxInt64-1), "end=zero v=0i 0", "end=before v=-1i -1")
	// Sparse series: each with fields of its own, and times that others lack.
	for n := range 400 {
		add(metrics, "forever", "sparse", fmt.Sprintf("series=s%d f%d=%d,common=%di %d", n, n%37, n, n, firstTime+int64(n)*int64(time.Minute)))
	}
	// One measurement large enough for several slices, and many tiny ones.
	for n := range 6000 {
		add(metrics, "autogen", "larger", fmt.Sprintf("host=h%d value=%d.5 %d", n%7, n, firstTime+int64(n/7)*int64(10*time.Second)))
	}
	for n := range 60 {
		add(metrics, "forever", fmt.Sprintf("tiny-%02d", n), fmt.Sprintf(" v=%di %d", n, firstTime))
	}
	return all
}

// valueLines holds every legal value that is easily lost.
func valueLines(at int64) []string {
	values := map[string]string{
		"int_max": "9223372036854775807i", "int_min": "-9223372036854775808i", "int_beyond_float": "9007199254740993i",
		"float_max": fmt.Sprint(math.MaxFloat64), "float_smallest": fmt.Sprint(math.SmallestNonzeroFloat64),
		"float_negative_zero": "-0", "float_whole": "42", "yes": "true", "no": "false",
		"text_empty":     escapeString(""),
		"text_quotes":    escapeString(`a "quoted" 'word'`),
		"text_lines":     escapeString("first\nsecond\n"),
		"text_backslash": escapeString(`C:\dir\"x"\`),
		"text_commas":    escapeString("a,b c=d,🙂"),
		"text_number":    escapeString("1i"),
		"text_64_kib":    escapeString(strings.Repeat("0123456789abcde\n", 4<<10)),
	}
	var lines []string
	for i, name := range slices.Sorted(maps.Keys(values)) {
		// Alone in a point, and with a neighbour in another.
		lines = append(lines,
			fmt.Sprintf("kind=alone %s=%s %d", name, values[name], at+int64(i)),
			fmt.Sprintf("kind=pair %s=%s,%s=1i %d", name, values[name], escapeTag("odd, field = name"), at+int64(i)))
	}
	return lines
}

// lines writes samples in line protocol.
func (s sample) text() string {
	var b strings.Builder
	for _, line := range s.lines {
		b.WriteString(escapeName(s.measurement))
		if !strings.HasPrefix(line, " ") {
			b.WriteByte(',')
		}
		b.WriteString(line)
		b.WriteByte('\n')
	}
	return b.String()
}

// load writes samples to the servers that a function chooses.
func load(samples []sample, at func(sample) *backend) {
	type target struct {
		b      *backend
		db, rp string
	}
	batches := map[target]*strings.Builder{}
	for _, s := range samples {
		t := target{at(s), s.db, s.rp}
		if batches[t] == nil {
			batches[t] = &strings.Builder{}
		}
		batches[t].WriteString(s.text())
	}
	for t, lines := range batches {
		t.b.write(t.db, t.rp, lines.String())
	}
}

// contents is what every backend held at one moment, by URL.
type contents map[string]map[harness.Place]harness.Points

func dumpAll(backends []*backend) contents {
	all := contents{}
	for _, b := range backends {
		all[b.URL()] = b.dump()
	}
	return all
}

// requireRebalanced compares, point by point, what every owner holds with what
// all sources held before: the value of the owner that was read until then, if the
// circle has changed under this cluster's eyes, or else the present owner's own
// value, or else that of the first source in the order of precedence. Nothing has
// been deleted anywhere, and nothing is anywhere else.
func (in *installation) requireRebalanced(before, after contents, former func(harness.Place) string, precedence func(harness.Place) []string) (moved int) {
	in.t.Helper()
	wanted := contents{}
	for url, places := range before {
		wanted[url] = map[harness.Place]harness.Points{}
		for place, points := range places {
			wanted[url][place] = maps.Clone(points)
		}
	}
	for url, places := range before {
		for place := range places {
			owner := in.owner(0, place.Database, place.Measurement)
			if owner == url {
				continue
			}
			if wanted[owner][place] == nil {
				wanted[owner][place] = harness.Points{}
			}
			for key, value := range before[former(place)][place] {
				if former(place) != owner {
					wanted[owner][place][key] = value
					moved++
				}
			}
			for _, source := range precedence(place) {
				for key, value := range before[source][place] {
					if _, held := wanted[owner][place][key]; !held {
						wanted[owner][place][key] = value
						moved++
					}
				}
			}
		}
	}
	for url, places := range after {
		for place, points := range places {
			requireHolds(in.t, fmt.Sprintf("%v at %s", place, url), wanted[url][place], points)
		}
		for place, points := range wanted[url] {
			requireHolds(in.t, fmt.Sprintf("%v at %s", place, url), points, places[place])
		}
	}
	return moved
}

// requireSameAnswers asks two servers for everything of one measurement, shard
// day by shard day, and compares their answers byte by byte. It shares no code
// with the mover.
func requireSameAnswers(t *testing.T, source, owner *backend, at harness.Place, days int) {
	t.Helper()
	for d := range days {
		from := firstTime + int64(d)*int64(day)
		statement := fmt.Sprintf("SELECT *::field FROM %s.%s.%s WHERE time >= %d AND time < %d GROUP BY *",
			quoteName(at.Database), quoteName(at.RetentionPolicy), quoteName(at.Measurement), from, from+int64(day))
		ask := func(b *backend) string {
			form := url.Values{"q": {statement}, "epoch": {"ns"}}
			req, err := http.NewRequestWithContext(bounded(t), http.MethodPost, b.URL()+"/query", strings.NewReader(form.Encode()))
			require.NoError(t, err)
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Accept", "application/x-msgpack")
			req.SetBasicAuth(b.endpoint.Username, b.endpoint.Password)
			res, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, res.StatusCode, "%s", body)
			return string(body)
		}
		want := ask(source)
		require.Contains(t, want, "series", "day %d", d)
		require.Equal(t, want, ask(owner), "day %d", d)
	}
}

func TestRebalanceAddBringsEveryPointToItsOwner(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 3)
	in := install(t)
	samples := dataSet(time.Now())
	for _, x := range b[:2] {
		x.createDatabases()
	}
	require.NoError(t, in.WriteConfigURLs(b[0].URL(), b[1].URL()))
	in.startAPI()
	in.startWorker()
	byURL := map[string]*backend{}
	for _, x := range b {
		byURL[x.URL()] = x
	}
	former := func(db, measurement string) *backend { return byURL[in.owner(0, db, measurement)] }
	formerly := map[string]string{}
	for _, s := range samples {
		formerly[s.db+"\x00"+s.measurement] = ""
	}
	for name := range formerly {
		db, measurement, _ := strings.Cut(name, "\x00")
		formerly[name] = former(db, measurement).URL()
	}
	load(samples, func(s sample) *backend { return byURL[formerly[s.db+"\x00"+s.measurement]] })

	// The circle grows. The new backend holds values of its own already, in a
	// database whose other policies it does not have yet.
	in.stopAPI()
	require.NoError(t, in.WriteConfigURLs(b[0].URL(), b[1].URL(), b[2].URL()))
	b[2].exec(`CREATE DATABASE ` + metrics)
	b[2].exec(`CREATE RETENTION POLICY forever ON ` + metrics + ` DURATION INF REPLICATION 1 SHARD DURATION 24h DEFAULT`)
	in.startAPI()
	moving := ""
	for n := range 60 {
		if name := fmt.Sprintf("tiny-%02d", n); in.owner(0, metrics, name) == b[2].URL() {
			moving = name
			break
		}
	}
	require.NotEmpty(t, moving)
	b[2].write(metrics, "forever", fmt.Sprintf("%s v=-1i %d\n%s,own=series v=7i,more=1 %d\n", moving, firstTime, moving, firstTime))
	// Leftovers: points at the backend that owns them under neither epoch, some
	// where the former owner holds another value.
	for _, s := range samples {
		if s.measurement != "changing" && s.measurement != "plain" {
			continue
		}
		wrong := b[0]
		if formerly[s.db+"\x00"+s.measurement] == b[0].URL() {
			wrong = b[1]
		}
		wrong.write(s.db, s.rp, sample{s.db, s.rp, s.measurement, s.lines[:1]}.text())
	}
	wrong := b[0]
	if formerly[metrics+"\x00larger"] == b[0].URL() {
		wrong = b[1]
	}
	wrong.write(metrics, "autogen", fmt.Sprintf("larger,host=h0 value=-1,left=1i %d\n", firstTime))

	before := dumpAll(b)
	op := in.rebalanceAdd(0)
	in.finish(op.ID, operation.Succeeded)
	after := dumpAll(b)
	rules := func(p harness.Place) string { return formerly[p.Database+"\x00"+p.Measurement] }
	moved := in.requireRebalanced(before, after, rules, func(harness.Place) []string {
		return []string{b[0].URL(), b[1].URL(), b[2].URL()}
	})
	require.Greater(t, moved, 1000, "most of the data set has to move for this test to mean anything")

	report := in.report(op.ID)
	require.Zero(t, report.Missing, asJSON(t, report))
	require.Zero(t, report.Expired, asJSON(t, report))
	require.Positive(t, report.Extra, "the new owner's own series is beyond the source: %s", asJSON(t, report))
	require.Positive(t, report.Replaced, "the value that was read until now counts: %s", asJSON(t, report))
	for _, problem := range report.Problems {
		require.NotEmpty(t, problem.Resolution, "%s", asJSON(t, problem))
	}
	for _, db := range []string{metrics, oddName} {
		require.Equal(t, b[0].policies(db), b[1].policies(db))
		require.ElementsMatch(t, b[0].policies(db), b[2].policies(db), db)
	}
	require.ElementsMatch(t, b[0].databases(), b[2].databases())
	if owner := in.owner(0, metrics, "changing"); owner != formerly[metrics+"\x00changing"] {
		requireSameAnswers(t, byURL[formerly[metrics+"\x00changing"]], byURL[owner], harness.Place{Database: metrics, RetentionPolicy: "forever", Measurement: "changing"}, 5)
	}

	// A second run finds the copies, compares them, and changes nothing.
	again := in.finish(in.rebalanceAdd(0).ID, operation.Succeeded)
	require.Equal(t, after, dumpAll(b))
	require.Zero(t, again.Progress.Points.Copied)
	require.Zero(t, again.Progress.Bytes.Written)
	report = in.report(again.ID)
	require.Positive(t, report.Slices.Total)
	require.Equal(t, report.Slices.Total, report.Unchanged.Slices, asJSON(t, report))
	require.Equal(t, report.Unchanged.Points, again.Progress.Points.Unchanged)
	require.NotNil(t, again.Result)
	require.True(t, strings.HasPrefix(again.Result.Note, "nothing to do"), again.Result.Note)
}

func TestRebalanceRemoveReadsTheRemovedBackendsWithTheirCredentials(t *testing.T) {
	t.Parallel()
	b := []*backend{
		startGuarded(t, "admin0", "pass0"), startGuarded(t, "admin1", "pass1"),
		startGuarded(t, "leaver", "pass of leaver"), startGuarded(t, "goner", `pass, "of" goner`),
	}
	in := install(t)
	samples := dataSet(time.Now())
	for i, x := range b[2:] {
		x.createDatabases()
		load(samples, func(s sample) *backend { return x })
		// Where both hold a point, the one named first counts.
		x.write(metrics, "forever", fmt.Sprintf("both,from=removed v=%di %d\n", i, firstTime))
		x.write(metrics, "forever", fmt.Sprintf("both,only=in-%d v=%di %d\n", i, i, firstTime))
	}
	require.NoError(t, in.WriteCircles(harness.Circle{Name: "circle", Backends: []harness.Backend{b[0].configured("stays-0"), b[1].configured("stays-1")}}))
	in.startAPI()
	in.startWorker()
	before := dumpAll(b)
	op := in.rebalanceRemove(0, []harness.Backend{b[2].configured("leaver"), b[3].configured("goner")})
	in.finish(op.ID, operation.Succeeded)
	nobody := func(harness.Place) string { return "" }
	moved := in.requireRebalanced(before, dumpAll(b), nobody, func(harness.Place) []string { return []string{b[2].URL(), b[3].URL()} })
	require.Greater(t, moved, 5000)
	for _, db := range []string{metrics, oddName} {
		for _, x := range b[:2] {
			require.ElementsMatch(t, b[2].policies(db), x.policies(db), "%s at %s", db, x.URL())
		}
	}
	changing := harness.Place{Database: metrics, RetentionPolicy: "forever", Measurement: "changing"}
	for _, x := range b[:2] {
		if x.URL() == in.owner(0, metrics, "changing") {
			requireSameAnswers(t, b[2], x, changing, 5)
		}
	}
	report := in.report(op.ID)
	require.Zero(t, report.Missing, asJSON(t, report))
	require.Equal(t, int64(1), report.Different, "the second source's value of the point both hold: %s", asJSON(t, report))
}
