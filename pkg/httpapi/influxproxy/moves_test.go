package influxproxy_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/httpapi/httpapitest"
	"ringmaster/pkg/httpapi/influxproxy"
	"ringmaster/pkg/operation"
)

const rmBody = `{"backends": [{"name": "influxdb-1-3", "url": "http://127.0.0.1:8090", "username": "u", "password": "p"}]}`

// moveOf reads what was submitted.
func moveOf(t *testing.T, r operation.Request) operation.Move {
	t.Helper()
	move, err := operation.ParseMove(r.Kind, r.Parameters)
	require.NoError(t, err)
	return move
}

func TestMovesSubmitWhatWasAsked(t *testing.T) {
	november := time.Unix(1_700_000_000, 0).UTC()
	for _, example := range []struct {
		name, target, body string
		options            []httpapitest.Option
		want               operation.Move
		dryRun             bool
	}{
		{
			name: "add", target: "/rebalance?circle_id=1&operation=add",
			want: operation.Rebalance{CircleID: 1, Operation: operation.RebalanceAdd},
		},
		{
			name: "add with everything", target: "/rebalance?circle_id=0&operation=add&db=db1,db2&cpus=3&batch=20000&ha_addrs=a:1,b-c.d:65535",
			want: operation.Rebalance{Operation: operation.RebalanceAdd, Tuning: operation.Tuning{Databases: []string{"db1", "db2"}, Workers: 3, Batch: 20_000}},
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
		{
			name: "rebalance to the bit", target: "/rebalance?circle_id=0&operation=add&depth=digest&batch=999999999",
			want: operation.Rebalance{Operation: operation.RebalanceAdd, Tuning: operation.Tuning{Depth: operation.DepthDigest, Batch: operation.MaxBatch}},
		},
		{
			name: "a body that an add does not need", target: "/rebalance?circle_id=0&operation=add", body: rmBody,
			options: []httpapitest.Option{httpapitest.JSON()},
			want:    operation.Rebalance{Operation: operation.RebalanceAdd},
		},

		{name: "recovery", target: "/recovery?from_circle_id=1&to_circle_id=0", want: operation.Recovery{FromCircleID: 1}},
		{
			name:   "recovery with everything",
			target: "/recovery?from_circle_id=0&to_circle_id=1&db=db1&cpus=2&batch=500&backend_urls=http://127.0.0.1:8089,http://127.0.0.1:8088/,HTTP://127.0.0.1:8089&seconds=1&minutes=1&hours=1&days=1&depth=count&ha_addrs=a:1,b:2",
			want: operation.Recovery{
				ToCircleID: 1, BackendURLs: []string{"http://127.0.0.1:8089", "http://127.0.0.1:8088"},
				Since:  operation.Since{SinceSeconds: 86400 + 3600 + 60 + 1},
				Tuning: operation.Tuning{Databases: []string{"db1"}, Workers: 2, Batch: 500, Depth: operation.DepthCount},
			},
		},
		{
			name: "recovery from the form", target: "/recovery?dry_run=1", dryRun: true,
			body:    "from_circle_id=0&to_circle_id=1&dbs=db1,db2&worker=3&since=1700000000&backend_urls=http%3A%2F%2F127.0.0.1%3A8089",
			options: []httpapitest.Option{httpapitest.Form()},
			want: operation.Recovery{
				ToCircleID: 1, BackendURLs: []string{"http://127.0.0.1:8089"}, Since: operation.Since{Since: &november},
				Tuning: operation.Tuning{Databases: []string{"db1", "db2"}, Workers: 3},
			},
		},

		{name: "resync", target: "/resync", want: operation.Resync{}},
		{name: "resync with an empty object", target: "/resync", body: " { } ", options: []httpapitest.Option{httpapitest.JSON()}, want: operation.Resync{}},
		{name: "resync of all of time", target: "/resync?seconds=0&since=0&tick=0&days=", want: operation.Resync{}},
		{
			name: "resync of the last days", target: "/resync?days=2&hours=+3+&cpus=2&db=db1",
			want: operation.Resync{Since: operation.Since{SinceSeconds: 2*86400 + 3*3600}, Tuning: operation.Tuning{Databases: []string{"db1"}, Workers: 2}},
		},
		{name: "resync of a hundred years", target: "/resync?seconds=3162240000", want: operation.Resync{Since: operation.Since{SinceSeconds: operation.MaxSeconds}}},
		{name: "resync since a moment", target: "/resync?since=1700000000", want: operation.Resync{Since: operation.Since{Since: &november}}},
		{name: "resync since a tick", target: "/resync?tick=1700000000&worker=4&dry_run=true", dryRun: true, want: operation.Resync{
			Since: operation.Since{Since: &november}, Tuning: operation.Tuning{Workers: 4},
		}},

		{name: "clear", target: "/clear?circle_id=1", want: operation.Clear{CircleID: 1}},
		{
			name: "clear with everything", target: "/clear?circle_id=0&cpus=2&db=db1&older_than_seconds=3600&depth=digest&batch=7&limit=1&ha_addrs=a:1,b:2",
			want: operation.Clear{OlderThanSeconds: 3600, Tuning: operation.Tuning{Databases: []string{"db1"}, Workers: 2, Batch: 7, Depth: operation.DepthDigest}},
		},
		{
			name: "cleanup", target: "/cleanup", body: "circle_id=1&worker=2&dbs=db1&dry_run=true", dryRun: true, options: []httpapitest.Option{httpapitest.Form()},
			want: operation.Clear{CircleID: 1, Tuning: operation.Tuning{Databases: []string{"db1"}, Workers: 2}},
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
			require.Equal(t, example.want, moveOf(t, r))
			require.Equal(t, example.dryRun, r.DryRun)
			require.Equal(t, "anonymous", r.RequestedBy)
			require.Equal(t, "127.0.0.1", r.Origin)
		})
	}
}

// calls are one good call of every verb.
var calls = []string{
	"/rebalance?circle_id=0&operation=add", "/recovery?from_circle_id=0&to_circle_id=1", "/resync?seconds=60",
	"/clear?circle_id=0", "/cleanup?circle_id=0",
}

// TestBusy: 409 with influx-proxy's sentence and the operation that is in the way.
func TestBusy(t *testing.T) {
	const resyncing = "proxy is resyncing"
	for _, example := range []struct {
		target, scope string
		kind          operation.Kind
		want          string
	}{
		{"/rebalance?circle_id=0&operation=add", "circle/0", operation.KindRebalance, "circle 0 is migrating"},
		{"/rebalance?circle_id=1&operation=add", "circle/1", operation.KindClear, "circle 1 is migrating"},
		{"/rebalance?circle_id=0&operation=add", "circle/0", operation.KindResync, resyncing},
		{"/recovery?from_circle_id=1&to_circle_id=0", "circle/1", operation.KindRebalance, "circle 1 or 0 is migrating"},
		{"/recovery?from_circle_id=1&to_circle_id=0", "circle/0", operation.KindRecovery, "circle 1 or 0 is migrating"},
		{"/recovery?from_circle_id=1&to_circle_id=0", "circle/0", operation.KindResync, resyncing},
		{"/resync", "circle/1", operation.KindRebalance, "circle 1 is migrating"},
		{"/resync", "circle/0", operation.KindRecovery, "circle 0 is migrating"},
		{"/resync", "circle/0", operation.KindResync, resyncing},
		{"/clear?circle_id=1", "circle/1", operation.KindRecovery, "circle 1 is migrating"},
		{"/cleanup?circle_id=1", "circle/1", operation.KindResync, resyncing},
		{"/cleanup?circle_id=1", "unheard of", operation.KindRebalance, "circle 1 is migrating"},
	} {
		b := httpapitest.NewBackend()
		b.SubmitErr = &operation.ScopeHeldError{
			Scope: example.scope, HolderID: httpapitest.ID(7), Kind: example.kind,
			State: operation.Running, Since: httpapitest.Now().Add(-time.Minute),
		}
		w := serve(t, b).Do("POST", example.target, "")
		require.Equal(t, http.StatusConflict, w.Status, example.target)
		require.Equal(t, example.want+"\noperation "+httpapitest.ID(7)+"\n"+string(example.kind)+", running, submitted 1m0s ago\n", w.Body)
		require.Equal(t, example.want, w.Header.Get("X-Influxdb-Error"))
		require.Equal(t, httpapitest.ID(7), w.Header.Get("X-Operation-Id"))
		require.Equal(t, "/v1/operations/"+httpapitest.ID(7), w.Header.Get("Location"))
		require.NotContains(t, w.Body, "accepted")
	}
}

// TestFlagsAreInTheWay: what a person has set by hand stops what touches it, and
// no plan.
func TestFlagsAreInTheWay(t *testing.T) {
	for _, example := range []struct {
		migrating []int
		resyncing bool
		busy      map[string]string
	}{
		{migrating: []int{0}, busy: map[string]string{
			"/rebalance?circle_id=0&operation=add": "circle 0 is migrating", "/recovery?from_circle_id=0&to_circle_id=1": "circle 0 or 1 is migrating",
			"/recovery?from_circle_id=1&to_circle_id=0": "circle 1 or 0 is migrating", "/resync": "circle 0 is migrating",
			"/clear?circle_id=0": "circle 0 is migrating", "/cleanup?circle_id=0": "circle 0 is migrating",
			"/rebalance?circle_id=1&operation=add": "", "/clear?circle_id=1": "",
		}},
		{migrating: []int{1}, busy: map[string]string{"/resync": "circle 1 is migrating", "/clear?circle_id=0": "", "/cleanup?circle_id=1": "circle 1 is migrating"}},
		{resyncing: true, busy: map[string]string{
			"/rebalance?circle_id=0&operation=add": "proxy is resyncing", "/recovery?from_circle_id=0&to_circle_id=1": "proxy is resyncing",
			"/resync": "proxy is resyncing", "/clear?circle_id=1": "proxy is resyncing", "/cleanup?circle_id=0": "proxy is resyncing",
		}},
		{migrating: []int{1}, resyncing: true, busy: map[string]string{"/resync": "circle 1 is migrating", "/clear?circle_id=0": "proxy is resyncing"}},
	} {
		for target, want := range example.busy {
			b := httpapitest.NewBackend()
			b.MigratingCircles, b.ResyncingFlag = example.migrating, example.resyncing
			c := serve(t, b)
			w := c.Do("POST", target, "")
			if want == "" {
				require.Equal(t, "accepted\n", w.Body, target)
				continue
			}
			require.Equal(t, http.StatusConflict, w.Status, target)
			require.Equal(t, want+"\n", w.Body)
			require.Empty(t, w.Header.Get("X-Operation-Id"))
			require.Empty(t, b.Submitted(), "what is flagged starts nothing")
			require.Equal(t, "accepted\n", c.Do("POST", target, "dry_run=true", httpapitest.Form()).Body, "a plan disturbs nobody")
		}
	}
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
		{&operation.InvalidError{Field: "batch"}, 400, "invalid batch, require positive integer\n"},
		{&operation.InvalidError{Field: "depth"}, 400, "invalid depth\n"},
		{&operation.InvalidError{Field: "from_circle_id"}, 400, "invalid from_circle_id\n"},
		{&operation.InvalidError{Field: "to_circle_id"}, 400, "invalid to_circle_id\n"},
		{&operation.InvalidError{Field: "backend_urls[0]", Problem: "is gone"}, 400, "invalid backend_urls, is gone\n"},
		{&operation.InvalidError{Field: "since_seconds"}, 400, "invalid days, hours, minutes or seconds\n"},
		{&operation.InvalidError{Field: "since"}, 400, "invalid since, require non-negative integer\n"},
		{&operation.InvalidError{Field: "older_than_seconds"}, 400, "invalid older_than_seconds, require non-negative integer\n"},
		{&operation.InvalidError{Field: "scope", Problem: "is odd"}, 400, "scope: is odd\n"},
	} {
		b := httpapitest.NewBackend()
		b.SubmitErr = example.err
		w := serve(t, b).Do("POST", target, "")
		require.Equal(t, example.status, w.Status, "%v", example.err)
		require.Equal(t, example.want, w.Body)
	}
}

// TestWhatStandsBeforeEveryVerb: who may not ask, cannot be heard or has no known
// cluster to ask for starts nothing.
func TestWhatStandsBeforeEveryVerb(t *testing.T) {
	for _, call := range calls {
		ask := func(b *httpapitest.Backend, want int, sentence string, options ...httpapitest.Option) {
			t.Helper()
			closed := func(d *influxproxy.Deps) { d.Username, d.Password = "admin", "hush" }
			w := serve(t, b, closed).Do("POST", call+"&u=admin&p=hush", "", options...)
			require.Equal(t, want, w.Status, call)
			require.Equal(t, sentence+"\n", w.Body)
			require.Equal(t, "2.5.12", w.Header.Get("X-Influxdb-Version"))
			require.Empty(t, b.Submitted())
		}
		as := func(query string) httpapitest.Option { return func(r *http.Request) { r.URL.RawQuery = query } }
		ask(httpapitest.NewBackend(), http.StatusUnauthorized, "authentication failed", as("circle_id=0&operation=add"))
		ask(httpapitest.NewBackend(), http.StatusUnauthorized, "authentication failed", as("u=admin&p=hush1"))
		ask(httpapitest.NewBackend(), http.StatusForbidden, "cross-origin request refused", httpapitest.Header("Sec-Fetch-Site", "cross-site"))

		const unavailable = "service unavailable: the records cannot be reached at the moment"
		b := httpapitest.NewBackend()
		b.Cluster = nil
		ask(b, http.StatusServiceUnavailable, unavailable)
		b = httpapitest.NewBackend()
		b.FlagsErr = errors.New("no quorum")
		ask(b, http.StatusServiceUnavailable, unavailable)

		b = httpapitest.NewBackend()
		w := serve(t, b).Do("POST", call, strings.Repeat("x", 1<<20+1))
		require.Equal(t, http.StatusRequestEntityTooLarge, w.Status)
		require.Equal(t, "request body too large\n", w.Body)
		require.Empty(t, b.Submitted())

		path, query, _ := strings.Cut(call, "?")
		w = serve(t, b).Do("POST", path+"//?"+query, "", httpapitest.Header("Idempotency-Key", "key-1"))
		require.Equal(t, "accepted\n", w.Body, "with slashes at the end")
		require.Equal(t, "key-1", b.Submitted()[0].IdempotencyKey)
	}
}

// TestEveryMoveCanBeHeldAndHasAReason: in the query or in the form, whatever the call.
func TestEveryMoveCanBeHeldAndHasAReason(t *testing.T) {
	t.Parallel()
	for _, call := range []string{
		"/rebalance?circle_id=0&operation=add", "/recovery?from_circle_id=0&to_circle_id=1", "/resync?seconds=0", "/clear?circle_id=0", "/cleanup?circle_id=0",
	} {
		b := httpapitest.NewBackend()
		c := serve(t, b)
		w := c.Do("POST", call+"&hold=true&reason=the+disk+is+full", "")
		require.Equal(t, http.StatusAccepted, w.Status, call)
		require.Equal(t, "accepted\n", w.Body)
		require.Equal(t, httpapitest.ID(1), w.Header.Get("X-Operation-Id"))
		require.Equal(t, "/v1/operations/"+httpapitest.ID(1), w.Header.Get("Location"))
		c.Do("POST", call, "dry_run=true&reason=look", httpapitest.Form())
		all := b.Submitted()
		require.Len(t, all, 2)
		require.True(t, all[0].Hold)
		require.False(t, all[0].DryRun)
		require.Equal(t, "the disk is full", all[0].Reason)
		require.True(t, all[1].DryRun)
		require.False(t, all[1].Hold)
		require.Equal(t, "look", all[1].Reason)
	}
}
