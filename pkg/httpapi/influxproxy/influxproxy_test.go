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
	"ringmaster/pkg/operation"
	"ringmaster/pkg/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// contract is read once; reading it is what takes time.
var contract = sync.OnceValues(httpapitest.Load)

// serve starts the dialect over a faked system.
func serve(t *testing.T, b *httpapitest.Backend, change ...func(*influxproxy.Deps)) *httpapitest.Client {
	t.Helper()
	d := influxproxy.Deps{
		Submitter: b, Operations: httpapitest.Operations{Backend: b}, Topology: b, Prober: b, Flags: b,
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

const rmBody = `{"backends": [{"name": "influxdb-1-3", "url": "http://127.0.0.1:8090", "username": "u", "password": "p"}]}`

func rebalanceOf(t *testing.T, r operation.Request) operation.Rebalance {
	t.Helper()
	require.Equal(t, operation.KindRebalance, r.Kind)
	p, err := operation.ParseRebalance(r.Parameters)
	require.NoError(t, err)
	return p
}

// The answers that the seed page shows, byte for byte: its text has lost the
// indentation, which influx-proxy makes of four spaces.
func TestAnswersOfTheSeedPage(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)

	for _, example := range []struct{ name, method, target, want string }{
		{"health", "GET", "/health?pretty=true", `[
    {
        "backends": [
            {
                "active": true,
                "backlog": false,
                "load": {},
                "name": "influxdb-1-1",
                "rewrite": false,
                "url": "http://127.0.0.1:8086"
            },
            {
                "active": true,
                "backlog": false,
                "load": {},
                "name": "influxdb-1-2",
                "rewrite": false,
                "url": "http://127.0.0.1:8087"
            }
        ],
        "circle": "circle-1"
    },
    {
        "backends": [
            {
                "active": true,
                "backlog": false,
                "load": {},
                "name": "influxdb-2-1",
                "rewrite": false,
                "url": "http://127.0.0.1:8088"
            },
            {
                "active": true,
                "backlog": false,
                "load": {},
                "name": "influxdb-2-2",
                "rewrite": false,
                "url": "http://127.0.0.1:8089"
            }
        ],
        "circle": "circle-2"
    }
]
`},
		{"state", "GET", "/migrate/state?pretty=true", `{
    "circles": [
        {
            "circle_id": 0,
            "circle_name": "circle-1",
            "is_migrating": false
        },
        {
            "circle_id": 1,
            "circle_name": "circle-2",
            "is_migrating": false
        }
    ],
    "is_resyncing": false
}
`},
		{"stats", "GET", "/migrate/stats?circle_id=0&type=rebalance&pretty=true", `{
    "http://127.0.0.1:8086": {
        "database_total": 0,
        "database_done": 0,
        "measurement_total": 0,
        "measurement_done": 0,
        "migrate_count": 0,
        "inplace_count": 0
    },
    "http://127.0.0.1:8087": {
        "database_total": 0,
        "database_done": 0,
        "measurement_total": 0,
        "measurement_done": 0,
        "migrate_count": 0,
        "inplace_count": 0
    }
}
`},
		{"rebalance add", "POST", "/rebalance?circle_id=0&operation=add&ha_addrs=127.0.0.1:7076,127.0.0.1:7077", "accepted\n"},
		{"resyncing", "POST", "/migrate/state?resyncing=true&pretty=true", `{
    "resyncing": true
}
`},
		{"migrating", "POST", "/migrate/state?circle_id=0&migrating=true&pretty=true", `{
    "circle": {
        "circle_id": 0,
        "circle_name": "circle-1",
        "is_migrating": true
    }
}
`},
		{"one line", "GET", "/migrate/state", `{"circles":[{"circle_id":0,"circle_name":"circle-1","is_migrating":true},{"circle_id":1,"circle_name":"circle-2","is_migrating":false}],"is_resyncing":true}` + "\n"},
	} {
		t.Run(example.name, func(t *testing.T) {
			w := c.Do(example.method, example.target, "")
			require.Equal(t, example.want, w.Body)
			require.Equal(t, "2.5.12", w.Header.Get("X-Influxdb-Version"))
		})
	}
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
	require.Contains(t, c.Get("/health").Body, `{"active":false,"backlog":false,"load":{},"name":"influxdb-1-2"`)
	require.Contains(t, c.Get("/health?stats=true").Body, `"circle":{"active":false,"id":0`)
}

func TestRebalanceSubmitsWhatWasAsked(t *testing.T) {
	for _, example := range []struct {
		name, target, body string
		options            []httpapitest.Option
		want               operation.Rebalance
		dryRun             bool
	}{
		{
			name: "add", target: "/rebalance?circle_id=1&operation=add",
			want: operation.Rebalance{CircleID: 1, Operation: operation.RebalanceAdd},
		},
		{
			name: "add with everything", target: "/rebalance?circle_id=0&operation=add&db=db1,db2&cpus=3&batch=20000&ha_addrs=a:1,b-c.d:65535",
			want: operation.Rebalance{Operation: operation.RebalanceAdd, Tuning: operation.Tuning{Databases: []string{"db1", "db2"}, Workers: 3}},
		},
		{
			name: "names of 2.5", target: "/rebalance?circle_id=0&operation=add&dbs=db1&worker=5&limit=1000000",
			want: operation.Rebalance{Operation: operation.RebalanceAdd, Tuning: operation.Tuning{Databases: []string{"db1"}, Workers: 5}},
		},
		{
			name: "from the form", target: "/rebalance?circle_id=1", body: "circle_id=0&operation=add&db=%2C+db1+%2Cdb2%2C",
			options: []httpapitest.Option{httpapitest.Form()},
			want:    operation.Rebalance{Operation: operation.RebalanceAdd, Tuning: operation.Tuning{Databases: []string{"db1", "db2"}}},
		},
		{
			name: "from a multipart form", target: "/rebalance", body: "--x\r\nContent-Disposition: form-data; name=\"circle_id\"\r\n\r\n0\r\n--x\r\nContent-Disposition: form-data; name=operation\r\n\r\nadd\r\n--x--\r\n",
			options: []httpapitest.Option{httpapitest.Header("Content-Type", "multipart/form-data; boundary=x")},
			want:    operation.Rebalance{Operation: operation.RebalanceAdd},
		},
		{
			name: "rm", target: "/rebalance?circle_id=0&operation=rm&cpus=2", body: rmBody,
			options: []httpapitest.Option{httpapitest.JSON()},
			want: operation.Rebalance{Operation: operation.RebalanceRemove, Tuning: operation.Tuning{Workers: 2}, RemovedBackends: []operation.RemovedBackend{
				{Name: "influxdb-1-3", URL: "http://127.0.0.1:8090", Username: "u", Password: "p"},
			}},
		},
		{
			name: "rm with curl's default content type", target: "/rebalance?circle_id=0&operation=rm", body: rmBody,
			options: []httpapitest.Option{httpapitest.Form()},
			want: operation.Rebalance{Operation: operation.RebalanceRemove, RemovedBackends: []operation.RemovedBackend{
				{Name: "influxdb-1-3", URL: "http://127.0.0.1:8090", Username: "u", Password: "p"},
			}},
		},
		{
			name: "rm with an entry of a configuration of 2.5", target: "/rebalance?circle_id=0&operation=rm",
			body:    `{"backends":[{"name":"a","url":"http://h:1","username":"YgvEyuPZlDYAH8sGDkC!Ag","password":"YgvEyuPZlDYAH8sGDkC!Ag","auth_encrypt":true,"write_only":false}]}`,
			options: []httpapitest.Option{httpapitest.JSON()},
			want: operation.Rebalance{Operation: operation.RebalanceRemove, RemovedBackends: []operation.RemovedBackend{
				{Name: "a", URL: "http://h:1", Username: "admin", Password: "admin"},
			}},
		},
		{
			name: "dry run", target: "/rebalance?circle_id=0&operation=add&dry_run=true", dryRun: true,
			want: operation.Rebalance{Operation: operation.RebalanceAdd},
		},
	} {
		t.Run(example.name, func(t *testing.T) {
			b := httpapitest.NewBackend()
			c := serve(t, b)
			w := c.Do("POST", example.target, example.body, example.options...)
			require.Equal(t, http.StatusAccepted, w.Status)
			require.Equal(t, "accepted\n", w.Body)
			require.Equal(t, httpapitest.ID(1), w.Header.Get("X-Operation-Id"))
			require.Equal(t, "/v1/operations/"+httpapitest.ID(1), w.Header.Get("Location"))

			require.Len(t, b.Submitted(), 1)
			r := b.Submitted()[0]
			require.Equal(t, example.want, rebalanceOf(t, r))
			require.Equal(t, example.dryRun, r.DryRun)
			require.Equal(t, "anonymous", r.RequestedBy)
			require.Equal(t, "127.0.0.1", r.Origin)
		})
	}
}

// TestBadInputStartsNothing: the dialect's own sentence, and neither an
// operation nor a flag.
func TestBadInputStartsNothing(t *testing.T) {
	const rm = "/rebalance?circle_id=0&operation=rm"
	form, js := httpapitest.Form(), httpapitest.JSON()
	for _, example := range []struct {
		name, method, target, body string
		options                    []httpapitest.Option
		status                     int
		sentence                   string
	}{
		{name: "no circle", target: "/rebalance?operation=add", sentence: "invalid circle_id"},
		{name: "unknown circle", target: "/rebalance?circle_id=2&operation=add", sentence: "invalid circle_id"},
		{name: "negative circle", target: "/rebalance?circle_id=-1&operation=add", sentence: "invalid circle_id"},
		{name: "circle that is no number", target: "/rebalance?circle_id=one&operation=add", sentence: "invalid circle_id"},
		{name: "circle beyond all numbers", target: "/rebalance?circle_id=99999999999999999999&operation=add", sentence: "invalid circle_id"},
		{name: "no operation", target: "/rebalance?circle_id=0", sentence: "invalid operation"},
		{name: "bad operation", target: "/rebalance?circle_id=0&operation=move", sentence: "invalid operation"},
		{name: "rm without body", target: rm, sentence: "invalid backends from body"},
		{name: "rm with text", target: rm, body: "backends", options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with broken JSON", target: rm, body: `{"backends":[`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with an array", target: rm, body: `[]`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm without backends", target: rm, body: `{}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with no backends", target: rm, body: `{"backends":[]}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with null", target: rm, body: `{"backends":null}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with an unknown key", target: rm, body: `{"backends":[{"name":"a","url":"http://h:1"}],"force":true}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with an unknown key of a backend", target: rm, body: `{"backends":[{"name":"a","url":"http://h:1","user":"x"}]}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with a sealed credential", target: rm, body: `{"backends":[{"name":"a","url":"http://h:1","sealed":"x"}]}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with two objects", target: rm, body: `{"backends":[{"name":"a","url":"http://h:1"}]}{}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with a backend without name", target: rm, body: `{"backends":[{"url":"http://h:1"}]}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with a backend without URL", target: rm, body: `{"backends":[{"name":"a"}]}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with a URL of another kind", target: rm, body: `{"backends":[{"name":"a","url":"file:///etc/passwd"}]}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with credentials in the URL", target: rm, body: `{"backends":[{"name":"a","url":"http://u:p@h:1"}]}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with a backend twice", target: rm, body: `{"backends":[{"name":"a","url":"http://h:1"},{"name":"b","url":"http://h:1"}]}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with a wrong cipher text", target: rm, body: `{"backends":[{"name":"a","url":"http://h:1","username":"?","password":"?","auth_encrypt":true}]}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "no cpus", target: "/rebalance?circle_id=0&operation=add&cpus=0", sentence: "invalid cpus"},
		{name: "negative cpus", target: "/rebalance?circle_id=0&operation=add&cpus=-1", sentence: "invalid cpus"},
		{name: "cpus that are no number", target: "/rebalance?circle_id=0&operation=add&cpus=many", sentence: "invalid cpus"},
		{name: "too many cpus", target: "/rebalance?circle_id=0&operation=add&cpus=1025", sentence: "invalid cpus"},
		{name: "bad worker", target: "/rebalance?circle_id=0&operation=add&worker=0", sentence: "invalid worker, require positive integer"},
		{name: "bad batch", target: "/rebalance?circle_id=0&operation=add&batch=0", sentence: "invalid batch, require positive integer"},
		{name: "bad limit", target: "/rebalance?circle_id=0&operation=add&limit=x", sentence: "invalid limit, require positive integer"},
		{name: "one address", target: "/rebalance?circle_id=0&operation=add&ha_addrs=127.0.0.1:7076", sentence: "ha_addrs should contain two addrs at least"},
		{name: "one address and a comma", target: "/rebalance?circle_id=0&operation=add&ha_addrs=127.0.0.1:7076,", sentence: "ha_addrs should contain two addrs at least"},
		{name: "address without port", target: "/rebalance?circle_id=0&operation=add&ha_addrs=127.0.0.1,127.0.0.2", sentence: "invalid ha_addrs"},
		{name: "address with too large a port", target: "/rebalance?circle_id=0&operation=add&ha_addrs=a:1,b:65536", sentence: "invalid ha_addrs"},
		{name: "bad dry run", target: "/rebalance?circle_id=0&operation=add&dry_run=perhaps", sentence: "invalid dry_run"},
		{name: "empty database", target: "/rebalance?circle_id=0&operation=add&db=a,,b", sentence: "invalid db"},
		{name: "unreadable query", target: "/rebalance?circle_id=0&operation=add&db=%zz", sentence: "invalid query parameter"},
		{name: "unreadable form", target: "/rebalance?circle_id=0&operation=add", body: "db=%zz", options: []httpapitest.Option{form}, sentence: "invalid query parameter"},
		{name: "unreadable multipart form", target: "/rebalance?circle_id=0&operation=add", body: "x", options: []httpapitest.Option{httpapitest.Header("Content-Type", "multipart/form-data; boundary=b")}, sentence: "invalid query parameter"},
		{name: "multipart form without boundary", target: "/rebalance?circle_id=0&operation=add", body: "x", options: []httpapitest.Option{httpapitest.Header("Content-Type", "multipart/form-data")}, sentence: "invalid query parameter"},
		{name: "empty idempotency key", target: "/rebalance?circle_id=0&operation=add", options: []httpapitest.Option{httpapitest.Header("Idempotency-Key", "")}, sentence: "invalid idempotency key"},
		{name: "oversized body", target: rm, body: `{"backends":"` + strings.Repeat("x", 1<<20) + `"}`, options: []httpapitest.Option{js}, status: http.StatusRequestEntityTooLarge, sentence: "request body too large"},
		{name: "page of another site", target: "/rebalance?circle_id=0&operation=add", options: []httpapitest.Option{httpapitest.Header("Sec-Fetch-Site", "cross-site")}, status: http.StatusForbidden, sentence: "cross-origin request refused"},

		{name: "nothing to set", target: "/migrate/state", sentence: "missing query parameter"},
		{name: "bad resyncing", target: "/migrate/state?resyncing=perhaps", sentence: "illegal resyncing"},
		{name: "bad migrating", target: "/migrate/state?circle_id=0&migrating=perhaps", sentence: "illegal migrating"},
		{name: "no migrating", target: "/migrate/state?circle_id=0", sentence: "illegal migrating"},
		{name: "migrating without circle", target: "/migrate/state?migrating=true", sentence: "invalid circle_id"},
		{name: "migrating of an unknown circle", target: "/migrate/state?circle_id=7&migrating=true&resyncing=true", sentence: "invalid circle_id"},
		{name: "bad transferring", target: "/transfer/state?circle_id=0&transferring=perhaps", sentence: "illegal transferring"},
		{name: "migrating is a name of 2.4", target: "/transfer/state?migrating=true", sentence: "missing query parameter"},
		{name: "oversized state", target: "/migrate/state", body: "resyncing=true&x=" + strings.Repeat("x", 1<<20), options: []httpapitest.Option{form}, status: http.StatusRequestEntityTooLarge, sentence: "request body too large"},
		{name: "unreadable state", target: "/migrate/state?resyncing=true&x=%zz", sentence: "invalid query parameter"},

		{name: "stats without circle", method: "GET", target: "/migrate/stats?type=rebalance", sentence: "invalid circle_id"},
		{name: "stats of an unknown circle", method: "GET", target: "/migrate/stats?circle_id=9&type=rebalance", sentence: "invalid circle_id"},
		{name: "stats without type", method: "GET", target: "/migrate/stats?circle_id=0", sentence: "invalid stats type"},
		{name: "stats of an unknown type", method: "GET", target: "/transfer/stats?circle_id=0&type=reindex", sentence: "invalid stats type"},
		{name: "replica without db", method: "GET", target: "/replica?meas=cpu", sentence: "invalid db or meas"},
		{name: "replica without measurement", method: "GET", target: "/replica?db=db1", sentence: "invalid db or meas"},
		{name: "unreadable health", method: "GET", target: "/health?pretty=%zz", sentence: "invalid query parameter"},
		{name: "unreadable replica", method: "GET", target: "/replica?db=%zz", sentence: "invalid query parameter"},
		{name: "unreadable stats", method: "GET", target: "/migrate/stats?x=%zz", sentence: "invalid query parameter"},
		{name: "unreadable state query", method: "GET", target: "/transfer/state?x=%zz", sentence: "invalid query parameter"},

		{name: "recovery", target: "/recovery?from_circle_id=0&to_circle_id=1", status: http.StatusNotImplemented, sentence: "recovery is not carried out by this release yet; nothing was started"},
		{name: "resync", target: "/resync", status: http.StatusNotImplemented, sentence: "resync is not carried out by this release yet; nothing was started"},
		{name: "clear", target: "/clear?circle_id=0", status: http.StatusNotImplemented, sentence: "clear is not carried out by this release yet; nothing was started"},
		{name: "cleanup", target: "/cleanup?circle_id=0", status: http.StatusNotImplemented, sentence: "cleanup is not carried out by this release yet; nothing was started"},
		{name: "unknown path", method: "GET", target: "/nothing", status: http.StatusNotFound, sentence: "404 page not found"},
		{name: "InfluxDB's path inside another dialect's", method: "GET", target: "/api/v2/write", status: http.StatusNotFound, sentence: "404 page not found"},
	} {
		t.Run(example.name, func(t *testing.T) {
			b := httpapitest.NewBackend()
			c := serve(t, b)
			if example.method == "" {
				example.method = "POST"
			}
			if example.status == 0 {
				example.status = http.StatusBadRequest
			}
			w := c.Do(example.method, example.target, example.body, example.options...)
			require.Equal(t, example.status, w.Status)
			require.Equal(t, example.sentence+"\n", w.Body)
			require.Equal(t, "2.5.12", w.Header.Get("X-Influxdb-Version"))
			require.Empty(t, b.Submitted())
			require.Zero(t, b.FlagsSet)
		})
	}
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
		"/ping": get, "/health": get, "/replica": get, "/migrate/stats": get, "/transfer/stats": get,
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
	for _, target := range []string{"/health", "/replica?db=a&meas=b", "/migrate/state", "/migrate/stats?circle_id=0&type=clear", "/transfer/state"} {
		get, head := c.Get(target), c.Do("HEAD", target, "")
		require.Equal(t, get.Status, head.Status)
		require.Equal(t, get.Header.Get("Content-Type"), head.Header.Get("Content-Type"))
		require.Empty(t, head.Body)
	}
}

func TestBusyCircle(t *testing.T) {
	held := &operation.ScopeHeldError{
		Scope: "circle/0", HolderID: httpapitest.ID(7), Kind: operation.KindRebalance,
		State: operation.Running, Since: httpapitest.Now().Add(-time.Minute),
	}
	b := httpapitest.NewBackend()
	b.SubmitErr = held
	c := serve(t, b)

	w := c.Do("POST", "/rebalance?circle_id=0&operation=add", "")
	require.Equal(t, http.StatusConflict, w.Status)
	require.Equal(t, "circle 0 is migrating\noperation "+httpapitest.ID(7)+"\n", w.Body)
	require.Equal(t, httpapitest.ID(7), w.Header.Get("X-Operation-Id"))
	require.Equal(t, "/v1/operations/"+httpapitest.ID(7), w.Header.Get("Location"))
	require.NotContains(t, w.Body, "accepted")

	held.Kind = operation.KindResync
	w = c.Do("POST", "/rebalance?circle_id=0&operation=add", "")
	require.Equal(t, "proxy is resyncing\noperation "+httpapitest.ID(7)+"\n", w.Body)
}

func TestFlagsSetByHand(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)

	require.Equal(t, http.StatusOK, c.Do("POST", "/migrate/state", "circle_id=0&migrating=true", httpapitest.Form()).Status)
	w := c.Do("POST", "/rebalance?circle_id=0&operation=add", "")
	require.Equal(t, http.StatusConflict, w.Status)
	require.Equal(t, "circle 0 is migrating\n", w.Body)
	require.Empty(t, w.Header.Get("X-Operation-Id"))
	require.Empty(t, b.Submitted(), "a flagged circle starts nothing")

	require.Equal(t, http.StatusAccepted, c.Do("POST", "/rebalance?circle_id=0&operation=add&dry_run=true", "").Status,
		"a plan disturbs nobody")
	require.Equal(t, http.StatusAccepted, c.Do("POST", "/rebalance?circle_id=1&operation=add", "").Status)

	c.Do("POST", "/migrate/state?resyncing=1&circle_id=0&migrating=0", "")
	require.Equal(t, "proxy is resyncing\n", c.Do("POST", "/rebalance?circle_id=0&operation=add", "").Body)
	c.Do("POST", "/migrate/state?resyncing=f", "")
	require.Equal(t, "accepted\n", c.Do("POST", "/rebalance?circle_id=0&operation=add", "").Body)
}

func TestStateFollowsTheOperations(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)
	migrating := func() []bool {
		var state struct {
			Circles []struct {
				IsMigrating bool `json:"is_migrating"`
			}
		}
		require.NoError(t, json.Unmarshal([]byte(c.Get("/migrate/state").Body), &state))
		return []bool{state.Circles[0].IsMigrating, state.Circles[1].IsMigrating}
	}
	require.Equal(t, []bool{false, false}, migrating())
	c.Do("POST", "/rebalance?circle_id=1&operation=add", "")
	c.Do("POST", "/rebalance?circle_id=0&operation=add&dry_run=true", "")
	require.Equal(t, []bool{false, true}, migrating(), "from the 202 on, and not for a dry run")
	b.Stored[0].State = operation.Succeeded
	require.Equal(t, []bool{false, false}, migrating())

	b.Stored = append(b.Stored, operation.Operation{ID: httpapitest.ID(9), Kind: operation.KindResync, State: operation.Running, Scope: []string{"circle/0", "circle/1"}})
	require.Contains(t, c.Get("/migrate/state").Body, `"is_resyncing":true`)
	require.Equal(t, []bool{false, false}, migrating())
}

func TestStatsShowTheNewestOperation(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)
	c.Do("POST", "/rebalance?circle_id=0&operation=add", "")
	c.Do("POST", "/rebalance?circle_id=0&operation=rm", rmBody, httpapitest.JSON())

	rows := func(target string) (map[string]map[string]int, httpapitest.Response) {
		w := c.Get(target)
		var rows map[string]map[string]int
		require.NoError(t, json.Unmarshal([]byte(w.Body), &rows))
		return rows, w
	}
	got, w := rows("/migrate/stats?circle_id=0&type=rebalance")
	require.Len(t, got, 3, "the circle's backends and the removed one")
	require.Equal(t, 0, got["http://127.0.0.1:8090"]["measurement_total"])
	require.Equal(t, httpapitest.ID(2), w.Header.Get("X-Operation-Id"))

	b.Stored[1].State = operation.Running
	b.Stored[1].Progress = operation.Progress{AsOf: httpapitest.Now().Add(-time.Second), Backends: map[string]operation.BackendProgress{
		"http://127.0.0.1:8090": {
			Name: "influxdb-1-3", Databases: operation.Done{Total: 2, Done: 1},
			Measurements: operation.Done{Total: 10, Done: 4}, Moved: 3, InPlace: 1,
		},
	}}
	want := map[string]int{
		"database_total": 2, "database_done": 1, "measurement_total": 10, "measurement_done": 4,
		"migrate_count": 3, "inplace_count": 1,
	}
	got, w = rows("/migrate/stats?circle_id=0&type=rebalance")
	require.Equal(t, want, got["http://127.0.0.1:8090"])
	require.Equal(t, "2026-07-01T11:59:59Z", w.Header.Get("X-As-Of"))

	got, _ = rows("/transfer/stats?circle_id=0&type=rebalance")
	delete(want, "migrate_count")
	want["transfer_count"] = 3
	require.Equal(t, want, got["http://127.0.0.1:8090"])

	got, w = rows("/migrate/stats?circle_id=1&type=rebalance")
	require.Len(t, got, 2)
	require.Equal(t, "2026-07-01T12:00:00Z", w.Header.Get("X-As-Of"))
	require.Empty(t, w.Header.Get("X-Operation-Id"))
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

func TestWhatCannotBeRecordedIsNotAccepted(t *testing.T) {
	const target = "/rebalance?circle_id=0&operation=add"
	for _, example := range []struct {
		err    error
		status int
		want   string
	}{
		{errors.New("nats: timeout at 10.0.0.7"), 503, "service unavailable: the records cannot be reached at the moment\n"},
		{&operation.NotImplementedError{What: "this"}, 501, "this is not carried out by this release yet; nothing was started\n"},
		{operation.ErrKeyReused, 422, operation.ErrKeyReused.Error() + "\n"},
		{&operation.InvalidError{Field: "circle_id", Problem: "is gone"}, 400, "invalid circle_id\n"},
		{&operation.InvalidError{Field: "operation"}, 400, "invalid operation\n"},
		{&operation.InvalidError{Field: "removed_backends[0].url"}, 400, "invalid backends from body\n"},
		{&operation.InvalidError{Field: "workers"}, 400, "invalid cpus\n"},
		{&operation.InvalidError{Field: "databases[1]"}, 400, "invalid db\n"},
		{&operation.InvalidError{Field: "scope", Problem: "is odd"}, 400, "scope: is odd\n"},
	} {
		b := httpapitest.NewBackend()
		b.SubmitErr = example.err
		w := serve(t, b).Do("POST", target, "")
		require.Equal(t, example.status, w.Status, "%v", example.err)
		require.Equal(t, example.want, w.Body)
	}
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
