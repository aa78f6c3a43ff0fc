package influx_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
)

// Two addresses of one process have one identity, two processes on one machine
// have two, and so have two lives of one server.
func TestIdentity(t *testing.T) {
	t.Parallel()
	s, c := start(t)
	target, err := url.Parse(s.URL())
	require.NoError(t, err)
	detour := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{DisableKeepAlives: true},
	})
	t.Cleanup(detour.Close)
	_, other := start(t)
	ctx := t.Context()

	one, err := c.Identity(ctx)
	require.NoError(t, err)
	host, err := os.Hostname()
	require.NoError(t, err)
	require.Equal(t, host, one.Hostname)
	require.WithinDuration(t, time.Now(), one.Started, time.Minute)
	require.NotZero(t, one.Started.Nanosecond()%1000, "it is told to the nanosecond")
	again, err := client(t, detour.URL, influx.Options{}).Identity(ctx)
	require.NoError(t, err)
	require.True(t, one.Same(again))
	second, err := other.Identity(ctx)
	require.NoError(t, err)
	require.False(t, one.Same(second))
	require.Contains(t, one.String(), host)

	s.Kill()
	_, err = c.Identity(ctx)
	requireError(t, err, influx.Transient, 0)
	s.Restart()
	reborn, err := c.Identity(ctx)
	require.NoError(t, err)
	require.False(t, one.Same(reborn))
}

// An account that is not an administrator's learns nothing, and an answer that
// does not identify a server is none.
func TestIdentityThatIsNotTold(t *testing.T) {
	t.Parallel()
	s := influxtest.Start(t, influxtest.WithAuth())
	s.Exec(`CREATE USER admin WITH PASSWORD 'secret' WITH ALL PRIVILEGES`)
	admin, err := influx.New(influx.Endpoint{URL: s.URL(), Username: "admin", Password: "secret"}, influx.Options{})
	require.NoError(t, err)
	defer admin.Close()
	require.NoError(t, admin.CreateDatabase(t.Context(), "d"))
	run(t, s.URL(), `CREATE USER reader WITH PASSWORD 'secret'; GRANT ALL ON d TO reader`)
	reader, err := influx.New(influx.Endpoint{URL: s.URL(), Username: "reader", Password: "secret"}, influx.Options{})
	require.NoError(t, err)
	defer reader.Close()
	_, err = reader.Identity(t.Context())
	requireError(t, err, influx.Permanent, 403)

	for name, answer := range map[string]string{
		"text":        "hello",
		"nothing":     `{"results":[{"statement_id":0}]}`,
		"no start":    `{"results":[{"series":[{"name":"system","columns":["PID"],"values":[[1]]},{"name":"network","columns":["hostname"],"values":[["h"]]}]}]}`,
		"short start": `{"results":[{"series":[{"name":"system","columns":["PID","started"],"values":[[1]]},{"name":"network","columns":["hostname"],"values":[["h"]]}]}]}`,
		"zero start":  `{"results":[{"series":[{"name":"system","columns":["PID","started"],"values":[[1,"0001-01-01T00:00:00Z"]]},{"name":"network","columns":["hostname"],"values":[["h"]]}]}]}`,
		"odd start":   `{"results":[{"series":[{"name":"system","columns":["PID","started"],"values":[[1,"today"]]},{"name":"network","columns":["hostname"],"values":[["h"]]}]}]}`,
		"an error":    `{"results":[{"error":"error parsing query: no"}]}`,
	} {
		f := fake(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(answer)) })
		_, err := client(t, f.URL, influx.Options{}).Identity(t.Context())
		requireError(t, err, influx.Permanent, 200)
		require.ErrorContains(t, err, f.URL, name)
	}
}

// run executes statements as the administrator of the tests.
func run(t testing.TB, base, q string) {
	t.Helper()
	target := base + "/query?" + url.Values{"q": {q}, "u": {"admin"}, "p": {"secret"}}.Encode()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, nil)
	require.NoError(t, err)
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NotContains(t, string(body), "error", "%d", res.StatusCode)
}
