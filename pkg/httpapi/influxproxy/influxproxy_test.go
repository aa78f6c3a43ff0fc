package influxproxy_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/httpapi/httpapitest"
	"ringmaster/pkg/httpapi/influxproxy"
	"ringmaster/pkg/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// contract is read once; reading it is what takes time.
var contract = sync.OnceValues(httpapitest.Load)

// serve starts the dialect over a faked system.
func serve(t *testing.T, b *httpapitest.Backend, change ...func(*influxproxy.Deps)) *httpapitest.Client {
	t.Helper()
	d := influxproxy.Deps{
		Submitter: b, Operations: httpapitest.Operations{Backend: b}, Topology: b, Serving: b, Prober: b, Flags: b,
		Version: "2.5.12", Now: httpapitest.Now,
	}
	for _, c := range change {
		c(&d)
	}
	engine, err := httpapi.New(httpapi.Config{}, influxproxy.New(d))
	require.NoError(t, err)
	spec, err := contract()
	require.NoError(t, err)
	return httpapitest.NewClient(t, spec, engine)
}

func TestReplicaNamesTheOwners(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)
	owners := make([]*topology.Backend, 2)
	for i := range owners {
		p, err := b.Cluster.Placement(i)
		require.NoError(t, err)
		owners[i] = p.Owner("db1", "cpu1")
	}

	w := c.Get("/replica?db=db1&meas=cpu1&pretty=true")
	require.Equal(t, `[
    {
        "circle": "circle-1",
        "name": "`+owners[0].Name+`",
        "url": "`+owners[0].URL+`"
    },
    {
        "circle": "circle-2",
        "name": "`+owners[1].Name+`",
        "url": "`+owners[1].URL+`"
    }
]
`, w.Body)

	w = c.Get("/replica?db=db1&mm=cpu1")
	require.Equal(t, `[{"backend":{"name":"`+owners[0].Name+`","url":"`+owners[0].URL+`"},"circle":{"id":0,"name":"circle-1"}},`+
		`{"backend":{"name":"`+owners[1].Name+`","url":"`+owners[1].URL+`"},"circle":{"id":1,"name":"circle-2"}}]`+"\n", w.Body)
}

func TestTheNamesOfTheSecondGeneration(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)

	require.Equal(t, `{"circle":{"id":1,"name":"circle-2","transferring":true},"resyncing":true}`+"\n",
		c.Do("POST", "/transfer/state?circle_id=1&transferring=true&resyncing=true", "").Body)
	require.Equal(t, `{"circles":[{"id":0,"name":"circle-1","transferring":false},{"id":1,"name":"circle-2","transferring":true}],"resyncing":true}`+"\n",
		c.Get("/transfer/state").Body)
	require.Contains(t, c.Get("/transfer/stats?circle_id=0&type=cleanup").Body, `"transfer_count":0,"inplace_count":0`)

	w := c.Get("/health?stats=true")
	var health struct {
		Name, Status, Version string
		Circles               []struct {
			Circle   struct{ Active bool }
			Backends []struct{ Name string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(w.Body), &health))
	require.Equal(t, "influx-proxy", health.Name)
	require.Len(t, health.Circles, 2)
	require.Len(t, health.Circles[1].Backends, 2)
	require.True(t, health.Circles[0].Circle.Active)
}

func TestPing(t *testing.T) {
	c := serve(t, httpapitest.NewBackend())
	for _, method := range []string{"GET", "HEAD"} {
		w := c.Do(method, "/ping", "")
		require.Equal(t, http.StatusNoContent, w.Status)
		require.Equal(t, "2.5.12", w.Header.Get("X-Influxdb-Version"))
	}
}

func TestHealthShowsWhatTheProbesFound(t *testing.T) {
	b := httpapitest.NewBackend()
	b.Probes["http://127.0.0.1:8087"] = httpapi.BackendStatus{CheckedAt: httpapitest.Now(), Error: "connection refused"}
	c := serve(t, b)
	require.Contains(t, c.Get("/health").Body, `{"active":false,"backlog":false,"load":{},"name":"influxdb-1-2","rewrite":false,"url":"http://127.0.0.1:8087","error":"connection refused"}`)
	require.Contains(t, c.Get("/health?stats=true").Body, `"circle":{"active":false,"id":0`)
}

func TestABodyThatDoesNotSayHowLongItIs(t *testing.T) {
	b := httpapitest.NewBackend()
	w := serve(t, b).Do("POST", "/rebalance?circle_id=0&operation=rm", rmBody+strings.Repeat(" ", 1<<20),
		func(r *http.Request) { r.ContentLength = -1 })
	require.Equal(t, http.StatusRequestEntityTooLarge, w.Status)
	require.Equal(t, "request body too large\n", w.Body)
	require.Empty(t, b.Submitted())
}

func TestTheIdempotencyKeyIsPassedOn(t *testing.T) {
	b := httpapitest.NewBackend()
	serve(t, b).Do("POST", "/rebalance?circle_id=0&operation=add", "", httpapitest.Header("Idempotency-Key", "key-1"))
	require.Equal(t, "key-1", b.Submitted()[0].IdempotencyKey)
}

func TestWrongMethod(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)
	const get, post = "GET, HEAD", "POST"
	for path, allow := range map[string]string{
		"/ping": get, "/encrypt": get, "/decrypt": get, "/health": get, "/replica": get, "/migrate/stats": get, "/transfer/stats": get,
		"/migrate/state": "GET, HEAD, POST", "/transfer/state": "GET, HEAD, POST",
		"/rebalance": post, "/recovery": post, "/resync": post, "/clear": post, "/cleanup": post,
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
			if slices.Contains(strings.Split(allow, ", "), method) {
				continue
			}
			w := c.Do(method, path+"?circle_id=0&operation=add", "")
			require.Equal(t, http.StatusMethodNotAllowed, w.Status, "%s %s", method, path)
			require.Equal(t, allow, w.Header.Get("Allow"), "%s %s", method, path)
			if method != "HEAD" {
				require.Equal(t, "method not allow\n", w.Body)
			}
		}
	}
	require.Empty(t, b.Submitted())
}

func TestHeadIsAnsweredLikeGet(t *testing.T) {
	c := serve(t, httpapitest.NewBackend())
	for _, target := range []string{
		"/ping", "/health", "/replica?db=a&meas=b", "/migrate/state", "/migrate/stats?circle_id=0&type=clear", "/transfer/state",
		"/transfer/stats?circle_id=0&type=cleanup", "/encrypt?msg=a", "/decrypt?key=consistentcipher", "/decrypt", "/migrate/stats", "/nothing",
	} {
		get, head := c.Get(target), c.Do("HEAD", target, "")
		require.Equal(t, get.Status, head.Status)
		require.Equal(t, get.Header.Get("Content-Type"), head.Header.Get("Content-Type"))
		require.Equal(t, "2.5.12", head.Header.Get("X-Influxdb-Version"))
		require.Empty(t, head.Body)
	}
}

func TestAuthentication(t *testing.T) {
	b := httpapitest.NewBackend()
	closed := func(d *influxproxy.Deps) { d.Username, d.Password = "admin", "hush hush" }
	c := serve(t, b, closed)

	basic := func(u, p string) httpapitest.Option {
		return func(r *http.Request) { r.SetBasicAuth(u, p) }
	}
	for _, example := range []struct {
		name, query string
		options     []httpapitest.Option
		want        int
	}{
		{name: "nothing", want: 401},
		{name: "query", query: "u=admin&p=hush+hush", want: 200},
		{name: "wrong password", query: "u=admin&p=hush", want: 401},
		{name: "wrong user", query: "u=root&p=hush+hush", want: 401},
		{name: "swapped", query: "u=hush+hush&p=admin", want: 401},
		{name: "basic", options: []httpapitest.Option{basic("admin", "hush hush")}, want: 200},
		{name: "wrong basic", options: []httpapitest.Option{basic("admin", "")}, want: 401},
		{name: "token", options: []httpapitest.Option{httpapitest.Header("Authorization", "Token admin:hush hush")}, want: 200},
		{name: "wrong token", options: []httpapitest.Option{httpapitest.Header("Authorization", "Token admin")}, want: 401},
		{name: "bearer", options: []httpapitest.Option{httpapitest.Header("Authorization", "Bearer x")}, want: 401},
	} {
		t.Run(example.name, func(t *testing.T) {
			w := c.Get("/health?"+example.query, example.options...)
			require.Equal(t, example.want, w.Status)
			if example.want == 401 {
				require.Equal(t, "authentication failed\n", w.Body)
			}
		})
	}
	require.Equal(t, 401, c.Do("POST", "/rebalance?circle_id=0&operation=add", "").Status)
	require.Empty(t, b.Submitted())
	require.Equal(t, 202, c.Do("POST", "/rebalance?circle_id=0&operation=add&u=admin&p=hush+hush", "").Status)
	require.Equal(t, "admin", b.Submitted()[0].RequestedBy)

	require.Equal(t, 204, c.Get("/ping").Status)
	c = serve(t, b, closed, func(d *influxproxy.Deps) { d.PingAuth = true })
	require.Equal(t, 401, c.Get("/ping").Status)
	require.Equal(t, 204, c.Get("/ping?u=admin&p=hush+hush").Status)
}

func TestNothingIsClaimedBeforeItIsKnown(t *testing.T) {
	b := httpapitest.NewBackend()
	b.At = time.Time{}
	c := serve(t, b)
	require.Equal(t, 503, c.Get("/migrate/state").Status)
	require.Equal(t, 503, c.Get("/migrate/stats?circle_id=0&type=rebalance").Status)

	b = httpapitest.NewBackend()
	b.FlagsErr = errors.New("no quorum")
	c = serve(t, b)
	require.Equal(t, 503, c.Get("/migrate/state").Status)
	require.Equal(t, 503, c.Do("POST", "/migrate/state?resyncing=true", "").Status)
	require.Equal(t, 503, c.Do("POST", "/migrate/state?circle_id=0&migrating=true", "").Status)
	require.Equal(t, 503, c.Do("POST", "/rebalance?circle_id=0&operation=add", "").Status)
	require.Empty(t, b.Submitted())

	b = httpapitest.NewBackend()
	b.Cluster = nil
	c = serve(t, b)
	for _, target := range []string{"/health", "/replica?db=a&meas=b", "/migrate/state", "/migrate/stats?circle_id=0&type=clear"} {
		require.Equal(t, 503, c.Get(target).Status, target)
	}
	require.Equal(t, 503, c.Do("POST", "/rebalance?circle_id=0&operation=add", "").Status)
	require.Equal(t, 503, c.Do("POST", "/migrate/state?resyncing=true", "").Status)
	require.Equal(t, 204, c.Get("/ping").Status)
}
