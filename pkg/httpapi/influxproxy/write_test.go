package influxproxy_test

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/stretchr/testify/require"

	"ringmaster/pkg/gateway/ingest"
	gatewaysession "ringmaster/pkg/gateway/session"
	"ringmaster/pkg/hint"
	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/httpapi/httpapitest"
	"ringmaster/pkg/httpapi/influxproxy"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// quiet is a session in which nothing ever changes, and hints that nobody needs.
type quiet struct{ view *serving.View }

func (q quiet) View() *serving.View              { return q.view }
func (q quiet) Changed() <-chan struct{}         { return nil }
func (q quiet) Tenure() *gatewaysession.Tenure   { return nil }
func (q quiet) BeginWrite() (ingest.Pass, error) { return quietPass(q), nil }

func (q quiet) Suspect(context.Context, string, string) error { return context.Canceled }

func (q quiet) BeginSend(string) (serving.Mode, func(), error)                      { return serving.Direct, func() {}, nil }
func (q quiet) Note(context.Context, *serving.View, []gatewaysession.Touched) error { return nil }
func (q quiet) Append(context.Context, string, *hint.Frame) error                   { return context.Canceled }

func (q quiet) Reserve(string, int64) (func(), error) { return func() {}, nil }

type quietPass quiet

func (p quietPass) View() *serving.View { return p.view }
func (p quietPass) Held() error         { return nil }
func (p quietPass) End()                {}

// gateway serves the dialect over one real server.
func gateway(t *testing.T, server string, maxBody int64, change ...func(*influxproxy.Deps)) string {
	t.Helper()
	topo := &topology.Topology{
		Epoch: 1, HashKey: "idx", ShardKey: "%db,%mm", VNodes: 256,
		Circles: []topology.Circle{{Name: "c", Backends: []topology.Backend{{Name: "b", URL: server}}}},
	}
	view, err := serving.NewView(1, topo, serving.State{})
	require.NoError(t, err)
	q := quiet{view}
	writer, err := ingest.New(ingest.Options{Session: q, Hints: q, Keeper: q, MaxBody: maxBody})
	require.NoError(t, err)
	b := httpapitest.NewBackend()
	d := influxproxy.Deps{
		Submitter: b, Operations: httpapitest.Operations{Backend: b}, Topology: b, Prober: b, Flags: b,
		Version: "2.5.12", Now: httpapitest.Now, Writer: writer,
	}
	for _, c := range change {
		c(&d)
	}
	engine, err := httpapi.New(httpapi.Config{}, influxproxy.New(d))
	require.NoError(t, err)
	s := httptest.NewServer(engine)
	t.Cleanup(func() {
		s.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, writer.Close(ctx))
	})
	return s.URL
}

// call is one request of the data plane.
type call struct {
	method, target string
	body           []byte
	header         http.Header
	chunked        bool
}

// ask returns everything of an answer that does not differ from one call to the
// next.
func (c call) ask(t *testing.T, url string) string {
	t.Helper()
	var body io.Reader = bytes.NewReader(c.body)
	if c.chunked {
		body = io.MultiReader(body)
	}
	r, err := http.NewRequestWithContext(t.Context(), c.method, url+c.target, body)
	require.NoError(t, err)
	maps.Copy(r.Header, c.header)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, res.Header.Get("Request-Id"), res.Header.Get("X-Request-Id"))
	if c.header.Get("X-Request-Id") == "" && c.header.Get("Request-Id") == "" && res.Header.Get("Request-Id") != "" {
		require.Regexp(t, `^[0-9a-f-]{36}$`, res.Header.Get("Request-Id"))
		res.Header.Del("Request-Id")
		res.Header.Del("X-Request-Id")
	}
	// InfluxDB names them in any order.
	allowed := strings.Split(res.Header.Get("Allow"), ", ")
	slices.Sort(allowed)
	res.Header.Set("Allow", strings.Join(allowed, ", "))
	for _, name := range []string{"Date", "Connection", "Content-Length"} {
		res.Header.Del(name)
	}
	var text strings.Builder
	fmt.Fprintln(&text, res.StatusCode)
	_ = res.Header.Write(&text)
	return text.String() + "\n" + string(raw)
}

func zipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.WriteString(z, text)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.Bytes()
}

func TestWritesAreAnsweredAsInfluxDBDoes(t *testing.T) {
	s := influxtest.Start(t)
	s.Exec("CREATE DATABASE db")
	g := gateway(t, s.URL(), 0)
	gz := http.Header{"Content-Encoding": {"gzip"}}
	for _, c := range []call{
		{method: "POST", target: "/write?db=db", body: []byte("m f=1 1")},
		{method: "POST", target: "/write?db=db", body: []byte("m f=1 1"), chunked: true},
		{method: "POST", target: "/write?db=db"},
		{method: "POST", target: "/write?db=db&rp=autogen&precision=ms&consistency=all", body: []byte("m f=1 1\n")},
		{method: "POST", target: "/write?db=nope", body: []byte("m f=1 1")},
		{method: "POST", target: "/write?db=nope&pretty=true", header: http.Header{"Origin": {"http://x"}}},
		{method: "POST", target: "/write?db=nope", header: http.Header{"Accept": {"text/csv"}}},
		{method: "POST", target: "/write?db=nope", header: http.Header{"Accept": {"application/x-msgpack"}}},
		{method: "POST", target: "/write?db=db", body: []byte("m f=1 1"), header: http.Header{"Accept": {"application/csv"}, "Accept-Encoding": {"gzip"}}},
		{method: "POST", target: "/write?db=nope", header: http.Header{"X-Request-Id": {"äö 1"}, "Request-Id": {"2"}}},
		{method: "POST", target: "/write?db=nope", header: http.Header{"Request-Id": {"2"}}},
		{method: "POST", target: "/write", body: []byte("m f=1 1")},
		{method: "POST", target: "/write?db=db&rp=nope", body: []byte("m f=1 1")},
		{method: "POST", target: "/write?db=db&precision=x", body: []byte("m f=1 1")},
		{method: "POST", target: "/write?db=db&precision=x", body: []byte("bad")},
		{method: "POST", target: "/write?db=db&precision=x&pretty=true", body: []byte("bad <&>")},
		{method: "POST", target: "/write?db=nope&precision=x"},
		{method: "POST", target: "/write?precision=x"},
		{method: "POST", target: "/write?db=db", body: []byte("bad\u2028 \xff line\nm f=1 1\nworse")},
		{method: "POST", target: "/write?db=db", body: []byte("long " + strings.Repeat("x", 2000))},
		{method: "POST", target: "/write?db=db", body: []byte(`m f="x" 1`)},
		{method: "POST", target: "/write?db=db", body: zipped(t, "m f=2 2"), header: gz},
		{method: "POST", target: "/write?db=db", body: []byte("no zip at all"), header: gz},
		{method: "POST", target: "/write?db=db", body: []byte("x"), header: gz},
		{method: "POST", target: "/write?db=db", header: gz},
		{method: "POST", target: "/write?db=nope", body: []byte("x"), header: gz},
		{method: "POST", target: "/write?db=db", body: zipped(t, "m f=2 2")[:20], header: gz},
		{method: "POST", target: "/write?db=db", body: append(zipped(t, "m f=2 2"), 'x'), header: gz},
		{method: "POST", target: "/write?db=db", body: append(zipped(t, "m f=3 3\n"), zipped(t, "m f=4 4")...), header: gz},
		{method: "POST", target: "/write?db=db", body: []byte("m f=1 1"), header: http.Header{"Content-Encoding": {"deflate"}}},
		{method: "GET", target: "/write?db=db"},
		{method: "HEAD", target: "/write?db=db"},
		{method: "DELETE", target: "/write"},
		{method: "OPTIONS", target: "/write"},
		{method: "OPTIONS", target: "/write", header: http.Header{"Origin": {"http://x"}}},
		{method: "POST", target: "/api/v2/write?bucket=db&org=any", body: []byte("m f=1 1")},
		{method: "POST", target: "/api/v2/write?bucket=db/autogen&precision=us", body: []byte("m f=1 1")},
		{method: "POST", target: "/api/v2/write?bucket=db/", body: []byte("m f=1 1")},
		{method: "POST", target: "/api/v2/write?bucket=db/nope&precision=ns", body: []byte("m f=1 1")},
		{method: "POST", target: "/api/v2/write?bucket=nope/x", body: []byte("m f=1 1")},
		{method: "POST", target: "/api/v2/write?precision=s"},
		{method: "POST", target: "/api/v2/write?bucket=/x"},
		{method: "POST", target: "/api/v2/write?bucket=/x&precision=u"},
		{method: "POST", target: "/api/v2/write?bucket=db&precision=u", body: []byte("m f=1 1")},
		{method: "POST", target: "/api/v2/write?bucket=db&precision=m", body: []byte("m f=1 1")},
		{method: "GET", target: "/api/v2/write"},
		{method: "OPTIONS", target: "/api/v2/write"},
	} {
		require.Equal(t, c.ask(t, s.URL()), c.ask(t, g), "%s %s %.60q %v", c.method, c.target, c.body, c.header)
	}
}

// remote is a remote write request of one series: name, host=a, and one sample.
func remote(name string, value float64, ms int64) []byte {
	sized := func(field byte, value []byte) []byte {
		return append([]byte{field<<3 | 2, byte(len(value))}, value...)
	}
	label := func(name, value string) []byte {
		return sized(1, append(sized(1, []byte(name)), sized(2, []byte(value))...))
	}
	sample := binary.LittleEndian.AppendUint64([]byte{1<<3 | 1}, math.Float64bits(value))
	sample = binary.AppendUvarint(append(sample, 2<<3), uint64(ms))
	series := slices.Concat(label("__name__", name), label("host", "a"), sized(2, sample))
	return snappy.Encode(nil, sized(1, series))
}

func TestPrometheusIsAnsweredAsInfluxDBDoes(t *testing.T) {
	s, mine := influxtest.Start(t), influxtest.Start(t)
	for _, server := range []*influxtest.Server{s, mine} {
		server.Exec("CREATE DATABASE db")
	}
	g := gateway(t, mine.URL(), 0)
	now := int64(1_715_774_400_000)
	for _, c := range []call{
		{target: "?db=db", body: remote("up", 1, now)},
		{target: "?db=db&rp=autogen&consistency=all", body: remote("up", 2, now+1), chunked: true},
		{target: "?db=db", body: remote("up", math.Inf(1), now)},
		{target: "?db=db", body: remote("up", math.NaN(), now), header: http.Header{"Accept": {"text/csv"}}},
		{target: "?db=db&rp=nope", body: remote("up", math.NaN(), now)},
		{target: "?db=db&rp=nope", body: remote("up", 1, now)},
		{target: "?db=db&consistency=x", body: remote("up", 1, now)},
		{target: "?db=db"},
		{target: "?db=db", body: []byte("no snappy")},
		{target: "?db=db", body: snappy.Encode(nil, []byte("no message"))},
		{target: "?db=nope", body: []byte("no snappy")},
		{target: "?db=nope", body: remote("up", 1, now)},
		{target: "", body: remote("up", 1, now)},
		{target: "?db=db", body: remote("up", 1, now), header: http.Header{"Content-Encoding": {"gzip"}}},
		{method: "GET", target: "?db=db"},
	} {
		c.method, c.target = cmp.Or(c.method, "POST"), "/api/v1/prom/write"+c.target
		require.Equal(t, c.ask(t, s.URL()), c.ask(t, g), "%s %s %.60q %v", c.method, c.target, c.body, c.header)
	}
	const all = `SELECT * FROM db../.*/ GROUP BY *`
	require.Equal(t, s.Query(all), mine.Query(all))
	require.Len(t, s.Query(all)[0].Series, 1)
}

func TestBodiesAreBoundedAsInfluxDBDoes(t *testing.T) {
	const limit = 4000
	s := influxtest.Start(t, influxtest.WithArgs("-max-body-size", strconv.Itoa(limit)))
	s.Exec("CREATE DATABASE db")
	g := gateway(t, s.URL(), limit)
	body := bytes.Repeat([]byte("m f=1 1\n"), limit/8+1)
	for _, db := range []string{"db", "nope"} {
		for _, size := range []int{limit - 8, limit, limit + 1, limit + 8} {
			for _, chunked := range []bool{false, true} {
				c := call{method: "POST", target: "/write?db=" + db, body: body[:size], chunked: chunked}
				require.Equal(t, c.ask(t, s.URL()), c.ask(t, g), "%s %d %v", db, size, chunked)
			}
		}
	}
}

func TestWritesAskForCredentialsAsInfluxDBDoes(t *testing.T) {
	s := influxtest.Start(t, influxtest.WithAuth())
	s.Exec(`CREATE USER "user" WITH PASSWORD 'pass' WITH ALL PRIVILEGES`)
	open := influxtest.Start(t)
	open.Exec("CREATE DATABASE db")
	create := call{method: "POST", target: "/query?u=user&p=pass&q=CREATE+DATABASE+db"}
	require.Contains(t, create.ask(t, s.URL()), "200")
	g := gateway(t, open.URL(), 0, func(d *influxproxy.Deps) { d.Username, d.Password = "user", "pass" })
	basic := func(text string) http.Header {
		return http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(text))}}
	}
	for _, c := range []call{
		{target: "/write?db=db"},
		{target: "/write?db=db&u=user&p=pass"},
		{target: "/write?db=db&u=user&p=wrong"},
		{target: "/write?db=db&u=user"},
		{target: "/write?db=db", header: basic("user:pass")},
		{target: "/write?db=db", header: basic("user:wrong")},
		{target: "/write?db=db", header: basic(":pass")},
		{target: "/write?db=db&pretty=true", header: http.Header{"Authorization": {"Bearer abc"}}},
		{target: "/api/v2/write?bucket=db", header: http.Header{"Authorization": {"Token user:pass"}}},
		{target: "/api/v2/write?bucket=db", header: http.Header{"Authorization": {"Token user:wrong"}}},
		{target: "/api/v2/write?bucket=db", header: http.Header{"Authorization": {"Token :x"}}},
		{target: "/api/v2/write?bucket=db", header: http.Header{"Authorization": {"Token abc"}, "Accept": {"text/csv"}}},
	} {
		c.method, c.body = "POST", []byte("m f=1 1")
		require.Equal(t, c.ask(t, s.URL()), c.ask(t, g), "%s %v", c.target, c.header)
	}
}

func TestWhatTheWriterIsAskedFor(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b, func(d *influxproxy.Deps) { d.Writer = b })
	require.Equal(t, 204, c.Do("POST", "/write?db=a&rp=b&precision=ms&consistency=any", "lines").Status)
	require.Equal(t, 204, c.Do("POST", "/api/v2/write?bucket=a/b/c&precision=us", "more").Status)
	b.WriteErr = &ingest.Refusal{Status: 503, Message: "why", RetryAfter: 1500 * time.Millisecond}
	w := c.Do("POST", "/write?db=a", "")
	require.Equal(t, 503, w.Status)
	require.Equal(t, "2", w.Header.Get("Retry-After"))
	require.Equal(t, `{"error":"why"}`+"\n", w.Body)

	require.Len(t, b.Written, 3)
	require.NotEmpty(t, b.Written[0].Client)
	require.Equal(t, "lines", b.Written[0].Lines)
	require.Equal(t, ingest.Request{
		Database: "a", RetentionPolicy: "b", Precision: lineproto.Milliseconds, Consistency: "any",
		Client: b.Written[0].Client, Length: 5,
	}, b.Written[0].Request)
	require.Equal(t, "b/c", b.Written[1].RetentionPolicy)
	require.Equal(t, lineproto.Microseconds, b.Written[1].Precision)
}
