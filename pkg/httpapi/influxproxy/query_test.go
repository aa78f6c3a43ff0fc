package influxproxy_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/stretchr/testify/require"

	"ringmaster/pkg/gateway/query"
	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/httpapi/httpapitest"
	"ringmaster/pkg/httpapi/influxproxy"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// still is a session in which nothing ever changes, over backends that answer.
type still struct{ view *serving.View }

func (s still) BeginRead() (query.Pass, error) { return s, nil }
func (s still) Changed() <-chan struct{}       { return nil }
func (s still) View() *serving.View            { return s.view }
func (s still) End()                           {}
func (s still) Held() error                    { return nil }
func (s still) Active(string) bool             { return true }

func (s still) Open(b *topology.Backend) (*influx.Client, error) {
	return influx.New(influx.Endpoint{URL: b.URL}, influx.Options{})
}

// twoServers serves the dialect over two servers that share what one has.
func twoServers(t *testing.T, change ...func(*influxproxy.Deps)) (gateway string, one *influxtest.Server) {
	t.Helper()
	one = influxtest.Start(t)
	top := &topology.Topology{Epoch: 1, HashKey: "name", ShardKey: "%db,%mm", VNodes: 256, Circles: []topology.Circle{{Name: "circle-1"}}}
	servers := map[string]*influxtest.Server{}
	for _, name := range []string{"influxdb-1-1", "influxdb-1-2"} {
		s := influxtest.Start(t)
		servers[s.URL()] = s
		top.Circles[0].Backends = append(top.Circles[0].Backends, topology.Backend{Name: name, URL: s.URL()})
	}
	view, err := serving.NewView(1, top, serving.State{})
	require.NoError(t, err)
	for _, s := range append(slices.Collect(maps.Values(servers)), one) {
		s.Exec(`CREATE DATABASE d`)
	}
	for i := range 6 {
		lines := fmt.Sprintf("m%d,host=a,__name__=m%d value=%d 1600000000000000000\nm%d,host=b,__name__=m%d value=2.5 1600000060000000000\n", i, i, i, i, i)
		one.WriteLines("d", "", lines)
		servers[view.Reader(0, "d", fmt.Sprintf("m%d", i)).URL].WriteLines("d", "", lines)
	}
	require.NotEqual(t, view.Reader(0, "d", "m1").URL, view.Reader(0, "d", "m2").URL)
	session := still{view}
	pool := query.NewPool(session)
	t.Cleanup(pool.Close)
	b := httpapitest.NewBackend()
	d := influxproxy.Deps{
		Submitter: b, Operations: httpapitest.Operations{Backend: b}, Topology: b, Prober: b, Flags: b, Version: "2.5.12",
		Querier: query.New(query.Options{Session: session, Clients: pool, Health: session}),
	}
	for _, c := range change {
		c(&d)
	}
	engine, err := httpapi.New(httpapi.Config{}, influxproxy.New(d))
	require.NoError(t, err)
	server := httptest.NewServer(engine)
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	return server.URL, one
}

// question is a request of a client.
type question struct {
	method, target, body, contentType string
	header                            map[string]string
}

func (c question) to(t *testing.T, server string) (status int, header http.Header, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), c.method, server+c.target, strings.NewReader(c.body))
	require.NoError(t, err)
	if c.contentType != "" {
		req.Header.Set("Content-Type", c.contentType)
	}
	req.Header.Set("X-Request-Id", "the id of a client")
	req.Header.Set("Accept-Encoding", "identity")
	for name, value := range c.header {
		req.Header.Set(name, value)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	res.Header.Del("Date")
	return res.StatusCode, res.Header, string(b)
}

func form(values ...string) string {
	v := url.Values{}
	for i := 0; i+1 < len(values); i += 2 {
		v.Add(values[i], values[i+1])
	}
	return v.Encode()
}

const formType = "application/x-www-form-urlencoded"

// TestQueryAnswersAsOneServer compares whole answers, headers and all.
func TestQueryAnswersAsOneServer(t *testing.T) {
	gateway, one := twoServers(t)
	var parts bytes.Buffer
	m := multipart.NewWriter(&parts)
	require.NoError(t, m.WriteField("q", "SELECT value FROM m1"))
	require.NoError(t, m.WriteField("db", "nodb"))
	require.NoError(t, m.Close())
	var file bytes.Buffer
	f := multipart.NewWriter(&file)
	w, err := f.CreateFormFile("q", "statements")
	require.NoError(t, err)
	_, err = w.Write([]byte("SELECT value FROM m1, m2; SHOW MEASUREMENTS"))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	several := "SELECT value FROM m0, m1, m2, m3, m4, m5 GROUP BY host"
	for name, c := range map[string]question{
		"get":                    {method: "GET", target: "/query?" + form("db", "d", "q", "SELECT value FROM m1")},
		"get, several":           {method: "GET", target: "/query?" + form("db", "d", "q", several)},
		"post":                   {method: "POST", target: "/query", body: form("db", "d", "q", "SELECT value FROM m1"), contentType: formType},
		"post, pretty in body":   {method: "POST", target: "/query", body: form("db", "d", "q", several, "pretty", "true"), contentType: formType},
		"post, pretty":           {method: "POST", target: "/query?pretty=true", body: form("db", "d", "q", several), contentType: formType},
		"post, pretty, one":      {method: "POST", target: "/query?pretty=true", body: form("db", "d", "q", "SELECT value FROM m1"), contentType: formType},
		"body before query":      {method: "POST", target: "/query?" + form("q", "SHOW DATABASES", "db", "x"), body: form("q", "SHOW MEASUREMENTS", "db", "d"), contentType: formType},
		"query in the url":       {method: "POST", target: "/query?" + form("q", several, "db", "d")},
		"no content type":        {method: "POST", target: "/query", body: form("q", several)},
		"multipart":              {method: "POST", target: "/query?db=d", body: parts.String(), contentType: m.FormDataContentType()},
		"multipart file":         {method: "POST", target: "/query?db=d", body: file.String(), contentType: f.FormDataContentType()},
		"get with a form":        {method: "GET", target: "/query?db=d", body: form("q", several), contentType: formType},
		"no q":                   {method: "GET", target: "/query?db=d"},
		"empty q":                {method: "GET", target: "/query?q=++"},
		"bad params":             {method: "GET", target: "/query?" + form("q", "SHOW DATABASES", "params", "{")},
		"bad number":             {method: "GET", target: "/query?" + form("q", "SHOW DATABASES", "params", `{"a":1e3}`)},
		"bound":                  {method: "GET", target: "/query?" + form("db", "d", "q", "SELECT value FROM m1, m2 WHERE host = $h", "params", `{"h":"a"}`)},
		"bound, one":             {method: "GET", target: "/query?" + form("db", "d", "q", "SELECT value FROM m1 WHERE host = $h", "params", `{"h":"a"}`)},
		"not parsed":             {method: "GET", target: "/query?" + form("q", "SELEC")},
		"not parsed, csv":        {method: "GET", target: "/query?" + form("q", "SELEC"), header: map[string]string{"Accept": "text/csv"}},
		"not parsed, pretty":     {method: "GET", target: "/query?" + form("q", "SELEC", "pretty", "true")},
		"no database":            {method: "GET", target: "/query?" + form("q", "SELECT value FROM m1")},
		"chunked":                {method: "GET", target: "/query?" + form("db", "d", "q", several, "chunked", "true", "chunk_size", "1")},
		"chunked, bad size":      {method: "GET", target: "/query?" + form("db", "d", "q", several, "chunked", "true", "chunk_size", "-1")},
		"epoch":                  {method: "GET", target: "/query?" + form("db", "d", "q", several, "epoch", " ms ")},
		"csv":                    {method: "GET", target: "/query?" + form("db", "d", "q", several), header: map[string]string{"Accept": "application/csv"}},
		"an origin":              {method: "GET", target: "/query?" + form("db", "d", "q", several), header: map[string]string{"Origin": "http://x"}},
		"an origin, one":         {method: "GET", target: "/query?" + form("db", "d", "q", "SELECT value FROM m1"), header: map[string]string{"Origin": "http://x"}},
		"credentials of no use":  {method: "GET", target: "/query?" + form("db", "d", "q", several, "u", "a", "p", "b")},
		"options":                {method: "OPTIONS", target: "/query", header: map[string]string{"Origin": "http://x"}},
		"async":                  {method: "POST", target: "/query?async=true", body: form("db", "d", "q", "SELECT value FROM m1"), contentType: formType},
		"async, several":         {method: "POST", target: "/query?async=true", body: form("db", "d", "q", several), contentType: formType},
		"empty answer":           {method: "GET", target: "/query?" + form("db", "d", "q", "SELECT value FROM m1, m2 WHERE time > now()"), header: map[string]string{"Accept": "text/csv"}},
		"flux":                   {method: "POST", target: "/api/v2/query", body: `{"query":"from(bucket: \"d\")"}`, contentType: "application/json"},
		"flux, one":              {method: "POST", target: "/api/v2/query", body: `from(bucket: "d") |> filter(fn: (r) => r._measurement == "m1")`, contentType: "application/vnd.flux"},
		"flux, nothing":          {method: "POST", target: "/api/v2/query"},
		"prom, no payload":       {method: "POST", target: "/api/v1/prom/read?db=d", body: "x"},
		"prom, one":              {method: "POST", target: "/api/v1/prom/read?db=d", body: promRead(0, "m1")},
		"prom, several":          {method: "POST", target: "/api/v1/prom/read?db=d", body: promRead(2, "m[0-4]")},
		"prom, nothing":          {method: "POST", target: "/api/v1/prom/read?db=d", body: promRead(2, "x")},
		"prom, no such database": {method: "POST", target: "/api/v1/prom/read?db=nodb", body: promRead(2, "m.*")},
	} {
		t.Run(name, func(t *testing.T) {
			status, header, body := c.to(t, one.URL())
			gotStatus, gotHeader, gotBody := c.to(t, gateway)
			if header.Get("Content-Encoding") == "snappy" {
				body, gotBody = unpacked(t, body), unpacked(t, gotBody)
				header.Del("Content-Length")
				gotHeader.Del("Content-Length")
			}
			require.Equal(t, body, gotBody)
			require.Equal(t, status, gotStatus)
			require.Equal(t, header, gotHeader)
		})
	}
	for _, c := range []question{
		{method: "GET", target: "/query?" + form("db", "d", "q", "SELECT value FROM m1"), header: map[string]string{"Accept-Encoding": "gzip"}},
		{method: "GET", target: "/query?" + form("db", "d", "q", several), header: map[string]string{"Accept-Encoding": "gzip"}},
	} {
		_, header, _ := c.to(t, one.URL())
		_, got, body := c.to(t, gateway)
		require.Equal(t, header, got)
		require.Equal(t, "\x1f\x8b", body[:2])
	}
	for _, c := range []question{{method: "HEAD", target: "/query?q=SHOW+DATABASES"}, {method: "DELETE", target: "/query?q=SHOW+DATABASES"}} {
		status, _, body := c.to(t, one.URL())
		got, _, gotBody := c.to(t, gateway)
		require.Equal(t, status, got)
		require.Equal(t, body, gotBody)
	}
}

// unpacked is what snappy has packed, which it can do in several ways.
func unpacked(t *testing.T, packed string) string {
	t.Helper()
	b, err := snappy.Decode(nil, []byte(packed))
	require.NoError(t, err)
	return string(b)
}

// promRead makes the payload of a remote read by the name of a metric.
func promRead(kind uint64, name string) string {
	field := func(n int, value string) []byte {
		b := binary.AppendUvarint(nil, uint64(n<<3|2))
		return append(binary.AppendUvarint(b, uint64(len(value))), value...)
	}
	matcher := binary.AppendUvarint([]byte{1 << 3}, kind)
	matcher = append(matcher, field(2, "__name__")...)
	matcher = append(matcher, field(3, name)...)
	q := binary.AppendUvarint([]byte{1 << 3}, 1500000000000)
	q = binary.AppendUvarint(append(q, 2<<3), 1700000000000)
	q = append(q, field(3, string(matcher))...)
	return string(snappy.Encode(nil, field(1, string(q))))
}

func TestQueryAsksForTheUser(t *testing.T) {
	gateway, _ := twoServers(t, func(d *influxproxy.Deps) { d.Username, d.Password = "u", "p" })
	target := "/query?" + form("q", "SHOW DATABASES")
	status, header, body := question{method: "GET", target: target}.to(t, gateway)
	require.Equal(t, http.StatusUnauthorized, status)
	require.Equal(t, `{"error":"unable to parse authentication credentials"}`+"\n", body)
	require.Equal(t, `Basic realm="InfluxDB"`, header.Get("WWW-Authenticate"))
	for _, c := range []question{
		{method: "GET", target: target + "&u=u&p=p"},
		{method: "GET", target: target, header: map[string]string{"Authorization": "Token u:p"}},
		{method: "GET", target: target, header: map[string]string{"Authorization": "Basic dTpw"}},
	} {
		status, _, body := c.to(t, gateway)
		require.Equal(t, http.StatusOK, status, body)
	}
}
