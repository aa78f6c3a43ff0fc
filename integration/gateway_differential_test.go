package integration_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/stretchr/testify/require"
	"github.com/tinylib/msgp/msgp"

	"ringmaster/integration/harness"
)

// twin is one InfluxDB with all the data, and the real api over two circles of three
// backends with the same data. Both get the same requests.
type twin struct {
	*installation

	one      *backend
	backends []*backend
	http     *http.Client
}

// startTwin starts both.
func startTwin(t testing.TB) *twin {
	t.Helper()
	const circles, members = 2, 3
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	w := &twin{
		installation: install(t), one: startBackend(t), backends: startBackends(t, circles*members),
		http: &http.Client{Transport: transport, Timeout: patience},
	}
	require.NoError(t, w.WriteCircles(circleOf("one", w.backends[:members]...), circleOf("two", w.backends[members:]...)))
	w.startAPI()
	return w
}

// exchange is one request, and what its answers have to have in common.
type exchange struct {
	method, path, query string
	contentType, body   string
	header              http.Header

	// loosely, if set, is what of a body has to be equal.
	loosely func(body string) any
	// differs is the difference that is meant: the first cell of a row of
	// docs/influxdb-differences.md. instead then says what the gateway has to answer.
	differs string
	instead func(t testing.TB, one, gateway reply)
}

// reply is an answer.
type reply struct {
	status int
	header http.Header
	body   string
}

// ask is a GET of /query in database d; more are parameters, name=value.
func ask(q string, more ...string) exchange {
	return exchange{method: http.MethodGet, path: "/query", query: parameters(q, more).Encode()}
}

// post is [ask] by POST, with the parameters in the body.
func post(q string, more ...string) exchange {
	return exchange{method: http.MethodPost, path: "/query", contentType: "application/x-www-form-urlencoded", body: parameters(q, more).Encode()}
}

func parameters(q string, more []string) url.Values {
	v := url.Values{"db": {"d"}, "q": {at(q)}}
	for _, m := range more {
		name, value, _ := strings.Cut(m, "=")
		v.Set(name, value)
	}
	return v
}

// write is a POST of line protocol.
func write(query, lines string) exchange {
	return exchange{method: http.MethodPost, path: "/write", query: query, contentType: "text/plain", body: at(lines)}
}

// with adds headers, name: value.
func (x exchange) with(header string) exchange {
	name, value, _ := strings.Cut(header, ": ")
	h := http.Header{}
	maps.Copy(h, x.header)
	h.Add(name, value)
	x.header = h
	return x
}

// zipped compresses the body.
func (x exchange) zipped() exchange {
	x.body = zipped(x.body)
	return x.with("Content-Encoding: gzip")
}

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text)) // into memory
	_ = z.Close()
	return b.String()
}

// equally has only a part of the bodies compared.
func (x exchange) equally(part func(body string) any) exchange {
	x.loosely = part
	return x
}

// except expects a difference that is documented.
func (x exchange) except(title string, instead func(t testing.TB, one, gateway reply)) exchange {
	x.differs, x.instead = title, instead
	return x
}

// answers is what the gateway answers instead of what InfluxDB does.
func answers(status int, parts ...string) func(t testing.TB, one, gateway reply) {
	return func(t testing.TB, _, gateway reply) {
		t.Helper()
		if gateway.status != status {
			t.Errorf("status %d, want %d", gateway.status, status)
		}
		for _, part := range parts {
			if !strings.Contains(gateway.body, part) {
				t.Errorf("the answer lacks %q", part)
			}
		}
	}
}

func (x exchange) String() string {
	text, body := x.method+" "+x.path, x.body
	if q, err := url.QueryUnescape(x.query); err == nil && q != "" {
		text += "?" + q
	}
	if u, err := url.QueryUnescape(body); err == nil && strings.Contains(x.contentType, "urlencoded") {
		body = u
	}
	if x.header != nil {
		text += fmt.Sprint(" ", x.header)
	}
	if body != "" {
		text += "\n  body " + clipped(strconv.Quote(body))
	}
	return text
}

func clipped(s string) string {
	const most = 2500
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// send sends a request to a server.
func (w *twin) send(server string, x exchange) reply {
	w.t.Helper()
	target := server + x.path
	if x.query != "" {
		target += "?" + x.query
	}
	req, err := http.NewRequestWithContext(w.context(), x.method, target, strings.NewReader(x.body))
	require.NoError(w.t, err, "%s", x)
	maps.Copy(req.Header, x.header)
	if x.contentType != "" {
		req.Header.Set("Content-Type", x.contentType)
	}
	res, err := w.http.Do(req)
	require.NoError(w.t, err, "%s", x)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(w.t, err, "%s", x)
	if res.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(raw))
		require.NoError(w.t, err, "%s", x)
		raw, err = io.ReadAll(z)
		require.NoError(w.t, err, "%s", x)
	}
	return reply{res.StatusCode, res.Header, string(raw)}
}

// comparedHeaders are those that have to be equal. The ids of a request are random,
// unless the client gives them.
func comparedHeaders() []string {
	return []string{
		"Content-Type", "Content-Encoding", "X-Influxdb-Version", "X-Influxdb-Build", "X-Influxdb-Error", "Www-Authenticate", "Allow",
		"Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Access-Control-Expose-Headers",
	}
}

// differences says in what two answers to a request differ; nil if in nothing.
func (x exchange) differences(one, gateway reply) []string {
	var all []string
	if one.status != gateway.status {
		all = append(all, fmt.Sprintf("status %d instead of %d", gateway.status, one.status))
	}
	for _, name := range comparedHeaders() {
		o, g := one.header.Values(name), gateway.header.Values(name)
		if name == "Allow" { // InfluxDB lists the methods in a random order
			o, g = sortedList(o), sortedList(g)
		}
		if !slices.Equal(o, g) {
			all = append(all, fmt.Sprintf("header %s: %q instead of %q", name, g, o))
		}
	}
	for _, name := range []string{"Request-Id", "X-Request-Id"} {
		o, g := one.header.Get(name), gateway.header.Get(name)
		given := x.header.Get("Request-Id") + x.header.Get("X-Request-Id")
		if (o == "") != (g == "") || given != "" && o != g {
			all = append(all, fmt.Sprintf("header %s: %q instead of %q", name, g, o))
		}
	}
	if o, g := x.compared(one), x.compared(gateway); !reflect.DeepEqual(o, g) {
		all = append(all, "the body, "+firstDifference(fmt.Sprint(o), fmt.Sprint(g)))
	}
	return all
}

// firstDifference shows where two texts part.
func firstDifference(one, gateway string) string {
	const around = 150
	i := 0
	for i < len(one) && i < len(gateway) && one[i] == gateway[i] {
		i++
	}
	from := max(0, i-around)
	return fmt.Sprintf("from byte %d: %q instead of %q", i, gateway[from:min(len(gateway), i+around)], one[from:min(len(one), i+around)])
}

func sortedList(values []string) []string {
	all := strings.Split(strings.Join(values, ", "), ", ")
	slices.Sort(all)
	return all
}

// compared is what of a body has to be equal: all of it, unless there is a reason.
func (x exchange) compared(r reply) any {
	if x.loosely != nil {
		return x.loosely(r.body)
	}
	switch {
	case r.header.Get("Content-Type") == "application/x-msgpack":
		return unpacked(r.body)
	case r.header.Get("Content-Encoding") == "snappy":
		if raw, err := snappy.Decode(nil, []byte(r.body)); err == nil {
			return string(raw) // what is packed may be packed in several ways
		}
	}
	return r.body
}

// unpacked is a body of MessagePack, in which tags stand in no order.
func unpacked(body string) any {
	reader := msgp.NewReader(strings.NewReader(body))
	var all []any
	for {
		v, err := reader.ReadIntf()
		if err != nil {
			return append(all, err.Error())
		}
		all = append(all, v)
	}
}

// count is what is compared of statements about the clock: how much there is.
func count(body string) any { return strings.Count(body, "[") }

// anyTime is a body without what looks like the time of now.
func anyTime(body string) any { return clockTime.ReplaceAllString(body, "now") }

var clockTime = regexp.MustCompile(`20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z|\b1[6-9]\d{17}\b`)

// try sends a request to both and reports every difference that is not meant, and
// every one that is meant and is none any more.
func (w *twin) try(x exchange) {
	w.t.Helper()
	one, gateway := w.send(w.one.URL(), x), w.send(w.Client.URL, x)
	found := x.differences(one, gateway)
	show := func(what string) {
		w.t.Helper()
		w.t.Errorf("%s\n  %s\n  InfluxDB %d %s\n  gateway  %d %s", x, what, one.status, clipped(one.body), gateway.status, clipped(gateway.body))
	}
	switch {
	case x.differs == "" && len(found) > 0:
		show("differs: " + strings.Join(found, "; "))
	case x.differs != "" && len(found) == 0:
		show("differs no more, so take it off: " + x.differs)
	case x.differs != "":
		x.instead(recorder{w.t, func() { show(x.differs) }}, one, gateway)
	}
}

// recorder shows the request whenever something is reported about it.
type recorder struct {
	testing.TB

	show func()
}

func (r recorder) Errorf(format string, args ...any) {
	r.Helper()
	r.TB.Errorf(format, args...)
	r.show()
}

// base is the beginning of the data: a Monday, when a shard group of a week begins.
var base = time.Date(2024, time.January, 1, 0, 0, 0, 0, time.UTC)

// at writes times for {12h}: so many hours after the base; {12h#} is in nanoseconds.
func at(q string) string {
	return hours.ReplaceAllStringFunc(q, func(m string) string {
		text := strings.Trim(m, "{}")
		plain := strings.HasSuffix(text, "#")
		d, err := time.ParseDuration(strings.TrimSuffix(text, "#"))
		if err != nil {
			return m
		}
		if plain {
			return strconv.FormatInt(base.Add(d).UnixNano(), 10)
		}
		return "'" + base.Add(d).Format(time.RFC3339) + "'"
	})
}

var hours = regexp.MustCompile(`\{-?\d+h#?\}`)

// theData is what the reads of the suite are about, as requests that store it.
func theData() []exchange {
	all := []exchange{
		post("CREATE DATABASE d"), post("CREATE DATABASE e"), post(`CREATE DATABASE "odd name"`),
		post("CREATE RETENTION POLICY weekly ON d DURATION INF REPLICATION 1 SHARD DURATION 7d"),
	}
	add := func(query, lines string) { all = append(all, write(query, lines)) }
	for i, m := range []string{"cpu", "mem", "disk", "net", "swap", "load"} {
		var lines strings.Builder
		for h := range 6 {
			for n, host := range []string{"a", "b", "c"} {
				fmt.Fprintf(&lines, "%s,host=%s,zone=z%d value=%d.5,n=%di,up=%t,word=\"w%d\" %d\n", m, host, n%2, i+h, h*(i+1), h%2 == 0, h,
					base.Add(time.Duration(h)*30*time.Minute+time.Duration(i)*time.Microsecond).UnixNano())
			}
		}
		for h := range 3 { // a second shard group
			fmt.Fprintf(&lines, "%s,host=a value=%d,late=%di {%dh#}\n", m, h, h, 7*24+h)
		}
		add("db=d", lines.String())
	}
	var lines strings.Builder
	for h := range 4 {
		fmt.Fprintf(&lines, "tfloat,host=a v=%d.25,w=%d {%dh#}\n", h, h, h)
		fmt.Fprintf(&lines, "tint,host=b v=%di,w=%di {%dh#}\n", h*10, h, h)
		fmt.Fprintf(&lines, "tstring,host=c v=\"s%d\" {%dh#}\n", h, h)
		fmt.Fprintf(&lines, "tbool,host=d v=%t {%dh#}\n", h%2 == 0, h)
		fmt.Fprintf(&lines, "tnone,host=f x=%di {%dh#}\n", h, h)
		fmt.Fprintf(&lines, "ctag,kind=k%d,host=a v=%di {%dh#}\n", h%2, h, h)
		fmt.Fprintf(&lines, "cfield,host=a v=%di,kind=\"f%d\" {%dh#}\n", h, h, h)
		fmt.Fprintf(&lines, "cnum,host=b v=%di,kind=%di {%dh#}\n", h, h, h)
	}
	lines.WriteString("tmixed,host=a v=7i,old=1i {0h#}\ntmixed,host=a v=7.5,new=1i {170h#}\n")
	add("db=d", lines.String())
	lines.Reset()
	for _, m := range []string{`with\ space`, `with\,comma`, "with", "with-x", `quo"te`, "single'q", "Ünï", "select", "_under", "a.b", "m=eq", "line/x"} {
		fmt.Fprintf(&lines, "%s,host=a value=1,n=2i {0h#}\n%s,host=x\\ y\\=z value=2,n=3i {1h#}\n", m, m)
	}
	add("db=d", lines.String())
	add("db=d&rp=weekly", "cpu,host=a,extra=x value=100 {0h#}\nown,host=q value=5 {0h#}\ncpu,host=b value=200 {500h#}\n")
	add("db=e", "cpu,host=a value=1 {0h#}\ncpu,host=z value=2 {1h#}\njob,host=a value=9 {0h#}\n")
	add("db=odd+name", "m value=1 {0h#}\n")
	return all
}

// leaveBehind writes points to backends that do not own them, as an operation leaves
// them that has not been followed by a clear.
func (w *twin) leaveBehind(db, measurement, lines string) {
	w.t.Helper()
	owners := map[string]bool{w.owner(0, db, measurement): true, w.owner(1, db, measurement): true}
	for _, b := range w.backends {
		if !owners[b.URL()] {
			b.write(db, "", at(lines))
		}
	}
}

// TestGatewayAnswersAsOneInfluxDB is the promise of the data plane: what one InfluxDB
// with all the data would answer, the gateway answers, over two circles of three
// backends; status, headers and body. What differs is meant, and documented.
func TestGatewayAnswersAsOneInfluxDB(t *testing.T) {
	t.Parallel()
	w := startTwin(t)
	for _, x := range theData() {
		w.try(x)
	}
	require.False(t, t.Failed(), "the data could not be written")
	w.requireSpread("d", "cpu", "mem", "disk", "net", "swap", "load", "tfloat", "tint", "tstring", "tbool", "ctag", "cfield", "cnum")
	w.leaveBehind("d", "cpu", "cpu,host=left,gone=yes value=666,lost=\"x\" {0h#}")
	w.leaveBehind("d", "tfloat", "tfloat,host=left v=\"string\" {0h#}")
	w.leaveBehind("d", "leftover", "leftover,host=left value=1 {0h#}")
	total := 0
	for _, table := range tables() {
		for _, x := range table {
			w.try(x)
		}
		total += len(table)
	}
	require.GreaterOrEqual(t, total, 300, "requests")
	t.Logf("%d requests", total)
}

// tables are the requests of the suite, in the order in which they are sent.
func tables() [][]exchange {
	return [][]exchange{
		protocolExchanges(), readExchanges(), schemaExchanges(), formExchanges(), severalExchanges(), promReadExchanges(),
		writeExchanges(), writeV2Exchanges(), promWriteExchanges(), intoExchanges(), changeExchanges(), refusedExchanges(), statusExchanges(),
	}
}

// requireSpread makes sure that the measurements do not all lie on one backend.
func (w *twin) requireSpread(db string, measurements ...string) {
	w.t.Helper()
	for circle := range 2 {
		owners := map[string]bool{}
		for _, m := range measurements {
			owners[w.owner(circle, db, m)] = true
		}
		require.Len(w.t, owners, 3, "owners of the measurements of circle %d", circle)
	}
}

// dumpsAgree requires that the circles hold what the one server holds.
func (w *twin) dumpsAgree() {
	w.t.Helper()
	want := w.one.dump()
	held := map[string]map[harness.Place]harness.Points{}
	for _, b := range w.backends {
		held[b.URL()] = b.dump()
	}
	for place, points := range want {
		for circle := range 2 {
			owner := w.owner(circle, place.Database, place.Measurement)
			requireHolds(w.t, fmt.Sprintf("%v in circle %d", place, circle), points, held[owner][place])
		}
	}
}
