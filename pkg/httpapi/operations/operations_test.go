package operations_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/events"
	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/httpapi/httpapitest"
	"ringmaster/pkg/httpapi/operations"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/progress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// contract is read once; reading it is what takes time.
var contract = sync.OnceValues(httpapitest.Load)

const token = "the-admin-token"

// serve starts the native dialect over a faked system.
func serve(t *testing.T, b *httpapitest.Backend, change ...func(*operations.Deps)) *httpapitest.Client {
	t.Helper()
	spec, err := contract()
	require.NoError(t, err)
	return httpapitest.NewClient(t, spec, newEngine(t, b, change...))
}

func newEngine(t *testing.T, b *httpapitest.Backend, change ...func(*operations.Deps)) *httpapi.Engine {
	t.Helper()
	d := operations.Deps{
		Submitter: b, Controls: httpapitest.Controls{Backend: b}, Leases: b, DeadLetters: httpapitest.Letters{Backend: b}, Operations: httpapitest.Operations{Backend: b}, Records: httpapitest.Records{Backend: b},
		Topology: b, Serving: b, Prober: b, Flags: b, Workers: b, Doctor: b, Feed: b, Results: b,
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
			_, _ = w.Write([]byte("ringmaster_up 1\n"))
		}),
		AsyncAPI: events.AsyncAPI(), Auth: httpapi.NewAdminAuth(token), Now: httpapitest.Now,
		Heartbeat: func() (<-chan time.Time, func()) { return nil, func() {} },
	}
	for _, c := range change {
		c(&d)
	}
	native, err := operations.New(d)
	require.NoError(t, err)
	native.Claims = append(native.Claims, "")
	engine, err := httpapi.New(httpapi.Config{}, native)
	require.NoError(t, err)
	return engine
}

func problem(t *testing.T, w httpapitest.Response) httpapi.Problem {
	t.Helper()
	require.Equal(t, "application/problem+json", w.Header.Get("Content-Type"))
	var p httpapi.Problem
	require.NoError(t, json.Unmarshal([]byte(w.Body), &p))
	require.Equal(t, w.Status, p.Status)
	require.NotEmpty(t, p.Code)
	require.NotEmpty(t, p.Detail)
	return p
}

func read[T any](t *testing.T, w httpapitest.Response) T {
	t.Helper()
	var v T
	require.NoError(t, json.Unmarshal([]byte(w.Body), &v), w.Body)
	return v
}

const add = `{"kind":"rebalance","parameters":{"circle_id":0,"operation":"add"}}`

func TestSubmit(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)
	w := c.Do("POST", "/v1/operations", `{"kind":"rebalance","parameters":{"circle_id":1,"operation":"rm","databases":["db1"],"workers":4,"depth":"digest",
		"removed_backends":[{"name":"old","url":"http://127.0.0.1:8090","username":"`+httpapitest.Secret+`","password":"`+httpapitest.Secret+`"}]},
		"dry_run":false,"reason":"a node has left","limits":{}}`, httpapitest.JSON(), httpapitest.Header("Idempotency-Key", "key-1"))
	require.Equal(t, http.StatusAccepted, w.Status)
	require.Equal(t, "/v1/operations/"+httpapitest.ID(1), w.Header.Get("Location"))
	require.NotContains(t, w.Body, httpapitest.Secret)

	op := read[map[string]any](t, w)
	require.Equal(t, "queued", op["state"])
	require.Equal(t, []any{"circle/1"}, op["scope"])
	require.Equal(t, "2026-07-01T12:00:00Z", op["progress"].(map[string]any)["as_of"])
	require.Equal(t, "/v1/operations/"+httpapitest.ID(1)+"/tasks", op["links"].(map[string]any)["tasks"])

	require.Len(t, b.Submitted(), 1)
	r := b.Submitted()[0]
	require.Equal(t, "key-1", r.IdempotencyKey)
	require.Equal(t, "a node has left", r.Reason)
	require.Equal(t, httpapi.PrincipalLocal, r.RequestedBy)
	require.Equal(t, "127.0.0.1", r.Origin)
	p, err := operation.ParseRebalance(r.Parameters)
	require.NoError(t, err)
	require.Equal(t, httpapitest.Secret, p.RemovedBackends[0].Password, "the engine gets what no answer shows")

	w = c.Get("/v1/operations/" + httpapitest.ID(1))
	require.NotContains(t, w.Body, httpapitest.Secret)
}

// TestEqualRequestsAreEqual: the same request written otherwise is the same
// request to whoever compares bodies under an idempotency key.
func TestEqualRequestsAreEqual(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)
	c.Do("POST", "/v1/operations", add)
	c.Do("POST", "/v1/operations", "\n{ \"parameters\" : {\"operation\":\"add\", \"depth\":\"\",\"workers\":0,\"circle_id\":0},\t\"kind\":\"rebalance\" }\n")
	require.Len(t, b.Submitted(), 2)
	require.Equal(t, b.Submitted()[0], b.Submitted()[1])
}

func TestBadSubmissionsStartNothing(t *testing.T) {
	rebalance := func(parameters string) string { return `{"kind":"rebalance","parameters":` + parameters + `}` }
	header := httpapitest.Header
	for _, example := range []struct {
		name, body string
		options    []httpapitest.Option
		status     int
		field      string
	}{
		{name: "nothing", field: "body"},
		{name: "no object", body: `[]`, field: "body"},
		{name: "null", body: `null`, field: "body"},
		{name: "broken", body: `{"kind":`, field: "body"},
		{name: "two objects", body: add + add, field: "body"},
		{name: "unknown key", body: `{"kind":"rebalance","parameter":{}}`, field: "parameter"},
		{name: "key of the wrong type", body: `{"kind":7}`, field: "kind"},
		{name: "no kind", body: `{}`, field: "kind"},
		{name: "unknown kind", body: `{"kind":"shuffle"}`, field: "kind"},
		{name: "no parameters", body: `{"kind":"rebalance"}`, field: "parameters.circle_id"},
		{name: "null parameters", body: rebalance(`null`), field: "parameters.circle_id"},
		{name: "parameters that are no object", body: rebalance(`[]`), field: "parameters"},
		{name: "unknown parameter", body: rebalance(`{"circle_id":0,"operation":"add","dbs":[]}`), field: "parameters.dbs"},
		{name: "no circle", body: rebalance(`{"operation":"add"}`), field: "parameters.circle_id"},
		{name: "unknown circle", body: rebalance(`{"circle_id":2,"operation":"add"}`), field: "parameters.circle_id"},
		{name: "negative circle", body: rebalance(`{"circle_id":-1,"operation":"add"}`), field: "parameters.circle_id"},
		{name: "circle of the wrong type", body: rebalance(`{"circle_id":"0","operation":"add"}`), field: "parameters.circle_id"},
		{name: "no operation", body: rebalance(`{"circle_id":0}`), field: "parameters.operation"},
		{name: "bad operation", body: rebalance(`{"circle_id":0,"operation":"move"}`), field: "parameters.operation"},
		{name: "too many workers", body: rebalance(`{"circle_id":0,"operation":"add","workers":1025}`), field: "parameters.workers"},
		{name: "bad depth", body: rebalance(`{"circle_id":0,"operation":"add","depth":"deep"}`), field: "parameters.depth"},
		{name: "empty database", body: rebalance(`{"circle_id":0,"operation":"add","databases":[""]}`), field: "parameters.databases[0]"},
		{name: "rm without backends", body: rebalance(`{"circle_id":0,"operation":"rm"}`), field: "parameters.removed_backends"},
		{name: "add with backends", body: rebalance(`{"circle_id":0,"operation":"add","removed_backends":[{"name":"a","url":"http://h:1"}]}`), field: "parameters.removed_backends"},
		{name: "sealed credentials", body: rebalance(`{"circle_id":0,"operation":"rm","removed_backends":[{"name":"a","url":"http://h:1","sealed":"x"}]}`), field: "parameters.removed_backends[0].sealed"},
		{name: "credentials in a URL", body: rebalance(`{"circle_id":0,"operation":"rm","removed_backends":[{"name":"a","url":"http://u:p@h:1"}]}`), field: "parameters.removed_backends[0].url"},
		{name: "reason beyond the bound", body: `{"kind":"rebalance","reason":"` + strings.Repeat("x", 1001) + `"}`, field: "reason"},
		{name: "empty key", body: add, options: []httpapitest.Option{header("Idempotency-Key", "")}, field: "Idempotency-Key"},
		{name: "long key", body: add, options: []httpapitest.Option{header("Idempotency-Key", strings.Repeat("k", 256))}, field: "Idempotency-Key"},
		{name: "key that is not ASCII", body: add, options: []httpapitest.Option{header("Idempotency-Key", "clé")}, field: "Idempotency-Key"},
		{name: "two keys", body: add, options: []httpapitest.Option{func(r *http.Request) { r.Header["Idempotency-Key"] = []string{"a", "b"} }}, field: "Idempotency-Key"},
		{name: "oversized", body: `{"reason":"` + strings.Repeat("x", 1<<20) + `"}`, status: http.StatusRequestEntityTooLarge},
		{
			name: "oversized and chunked", body: `{"reason":"` + strings.Repeat("x", 1<<20) + `"}`, status: http.StatusRequestEntityTooLarge,
			options: []httpapitest.Option{func(r *http.Request) { r.ContentLength = -1 }},
		},

		{name: "recovery without circles", body: `{"kind":"recovery"}`, field: "parameters.from_circle_id"},
		{name: "recovery without a destination", body: `{"kind":"recovery","parameters":{"from_circle_id":0}}`, field: "parameters.to_circle_id"},
		{name: "recovery from an unknown circle", body: `{"kind":"recovery","parameters":{"from_circle_id":2,"to_circle_id":1}}`, field: "parameters.from_circle_id"},
		{name: "recovery to an unknown circle", body: `{"kind":"recovery","parameters":{"from_circle_id":1,"to_circle_id":2}}`, field: "parameters.to_circle_id"},
		{name: "recovery of a circle from itself", body: `{"kind":"recovery","parameters":{"from_circle_id":1,"to_circle_id":1}}`, field: "parameters.to_circle_id"},
		{name: "recovery of a path", body: `{"kind":"recovery","parameters":{"from_circle_id":0,"to_circle_id":1,"backend_urls":["/b"]}}`, field: "parameters.backend_urls[0]"},
		{name: "recovery since a word", body: `{"kind":"recovery","parameters":{"from_circle_id":0,"to_circle_id":1,"since":"yesterday"}}`, field: "parameters"},
		{name: "resync of the future", body: `{"kind":"resync","parameters":{"since_seconds":-1}}`, field: "parameters.since_seconds"},
		{name: "resync since two moments", body: `{"kind":"resync","parameters":{"since_seconds":1,"since":"2026-01-01T00:00:00Z"}}`, field: "parameters.since"},
		{name: "resync of a circle", body: `{"kind":"resync","parameters":{"circle_id":1}}`, field: "parameters.circle_id"},
		{name: "clear without circle", body: `{"kind":"clear"}`, field: "parameters.circle_id"},
		{name: "clear of an unknown circle", body: `{"kind":"clear","parameters":{"circle_id":2}}`, field: "parameters.circle_id"},
		{name: "clear by counts", body: `{"kind":"clear","parameters":{"circle_id":0,"depth":"count"}}`, field: "parameters.depth"},
		{name: "clear of younger points", body: `{"kind":"clear","parameters":{"circle_id":0,"older_than_seconds":-5}}`, field: "parameters.older_than_seconds"},
		{name: "reindex", body: `{"kind":"reindex"}`, status: http.StatusNotImplemented},
		{name: "delete_missing_segments", body: `{"kind":"delete_missing_segments"}`, status: http.StatusNotImplemented},
		{name: "archive", body: `{"kind":"archive"}`, status: http.StatusNotImplemented},
		{name: "verify", body: `{"kind":"verify"}`, status: http.StatusBadRequest, field: "parameters.circle_id"},
		{name: "a limit of nothing", body: `{"kind":"rebalance","limits":{"points_per_second":0},"parameters":{"circle_id":0,"operation":"add"}}`, field: "limits.points_per_second"},
		{name: "too large a limit", body: `{"kind":"rebalance","limits":{"slots_per_backend":10001},"parameters":{"circle_id":0,"operation":"add"}}`, field: "limits.slots_per_backend"},
		{name: "a part of a point", body: `{"kind":"rebalance","limits":{"points_per_second":0.5},"parameters":{"circle_id":0,"operation":"add"}}`, field: "limits.points_per_second"},
		{name: "an unknown limit", body: `{"kind":"rebalance","limits":{"rows_per_second":1},"parameters":{"circle_id":0,"operation":"add"}}`, field: "limits.rows_per_second"},
		{name: "limits of a number", body: `{"kind":"rebalance","limits":7,"parameters":{"circle_id":0,"operation":"add"}}`, field: "limits"},
	} {
		t.Run(example.name, func(t *testing.T) {
			b := httpapitest.NewBackend()
			c := serve(t, b)
			if example.status == 0 {
				example.status = http.StatusBadRequest
			}
			w := c.Do("POST", "/v1/operations", example.body, example.options...)
			require.Equal(t, example.status, w.Status, w.Body)
			p := problem(t, w)
			require.Equal(t, example.field, p.Field)
			require.Empty(t, b.Submitted())
		})
	}
}

func TestBadQueriesAndPaths(t *testing.T) {
	id := "/v1/operations/" + httpapitest.ID(1)
	for target, want := range map[string]struct {
		status int
		field  string
	}{
		"/v1/operations?order=up":                          {400, "order"},
		"/v1/operations?state=":                            {400, "state"},
		"/v1/operations?state=done":                        {400, "state"},
		"/v1/operations?kind=shuffle":                      {400, "kind"},
		"/v1/operations?scope=":                            {400, "scope"},
		"/v1/operations?limit=0":                           {400, "limit"},
		"/v1/operations?limit=1001":                        {400, "limit"},
		"/v1/operations?limit=ten":                         {400, "limit"},
		"/v1/operations?limit=":                            {400, "limit"},
		"/v1/operations?limit=1&limit=2":                   {400, "limit"},
		"/v1/operations?cursor=x":                          {400, "cursor"},
		"/v1/operations?cursor=" + long:                    {400, "cursor"},
		"/v1/operations?a=%zz":                             {400, "query"},
		"/v1/operations?a;b":                               {400, "query"},
		"/v1/operations/1":                                 {400, "id"},
		"/v1/operations/" + upper:                          {400, "id"},
		"/v1/operations/a%2Fb":                             {400, "id"},
		"/v1/operations/%00":                               {400, "id"},
		"/v1/operations/" + httpapitest.ID(99):             {404, ""},
		id + "?pretty=true":                                {400, "pretty"},
		id + "/plan?x":                                     {400, "x"},
		id + "/report?x":                                   {400, "x"},
		id + "/audit?x":                                    {400, "x"},
		id + "/tasks?state=queued":                         {400, "state"},
		id + "/tasks?kind=rebalance":                       {400, "kind"},
		id + "/tasks?limit=-1":                             {400, "limit"},
		id + "/tasks?cursor=wrong":                         {400, "cursor"},
		id + "/events?state=done":                          {400, "state"},
		id + "/nothing":                                    {404, ""},
		"/v1/operations/" + httpapitest.ID(99) + "/plan":   {404, ""},
		"/v1/operations/" + httpapitest.ID(99) + "/tasks":  {404, ""},
		"/v1/operations/" + httpapitest.ID(99) + "/report": {404, ""},
		"/v1/operations/" + httpapitest.ID(99) + "/audit":  {404, ""},
		"/v1/operations/" + httpapitest.ID(99) + "/events": {404, ""},
		"/v1/operations/x/tasks":                           {400, "id"},
		"/v1/operations/x/events":                          {400, "id"},
		"/v1/kinds?x=1":                                    {400, "x"},
		"/v1/kinds/shuffle":                                {404, ""},
		"/v1/topology?epoch=1":                             {400, "epoch"},
		"/v1/where":                                        {400, "db"},
		"/v1/where?db=a":                                   {400, "measurement"},
		"/v1/where?db=a&measurement=":                      {400, "measurement"},
		"/v1/where?db=a&measurement=b&rp=c":                {400, "rp"},
		"/v1/workers?live":                                 {400, "live"},
		"/v1/feed?x":                                       {400, "x"},
		"/v1/events/results/-1":                            {404, ""},
		"/v1/events/results/x":                             {404, ""},
		"/v1/events/results/%2B1":                          {404, ""},
		"/v1/events/results/0?x":                           {400, "x"},
		"/v1/events":                                       {404, ""},
		"/v1/openapi.yaml?x":                               {400, "x"},
		"/v1/asyncapi.yaml?x":                              {400, "x"},
		"/healthz?x":                                       {400, "x"},
		"/readyz?x":                                        {400, "x"},
		"/v1":                                              {404, ""},
		"/v1/nothing":                                      {404, ""},
	} {
		t.Run(target, func(t *testing.T) {
			b := httpapitest.NewBackend()
			c := serve(t, b)
			c.Do("POST", "/v1/operations", add)
			w := c.Get(target)
			require.Equal(t, want.status, w.Status, w.Body)
			require.Equal(t, want.field, problem(t, w).Field)
		})
	}
}

var (
	long  = strings.Repeat("x", 300)
	upper = strings.ToUpper("01980000-0000-7000-8000-00000000000a")
)

func TestWrongMethod(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)
	id := "/v1/operations/" + httpapitest.ID(1)
	for target, want := range map[string]struct{ method, allow string }{
		"/v1/operations":       {"PUT", "GET, HEAD, POST"},
		id:                     {"DELETE", "GET, HEAD"},
		id + "/plan":           {"POST", "GET, HEAD"},
		id + "/tasks":          {"POST", "GET, HEAD"},
		id + "/report":         {"POST", "GET, HEAD"},
		id + "/audit":          {"POST", "GET, HEAD"},
		id + "/events":         {"POST", "GET, HEAD"},
		id + "/approve":        {"GET", "POST"},
		id + "/pause":          {"GET", "POST"},
		id + "/resume":         {"HEAD", "POST"},
		id + "/cancel":         {"DELETE", "POST"},
		id + "/retry":          {"PUT", "POST"},
		id + "/limits":         {"PUT", "PATCH"},
		"/v1/kinds":            {"POST", "GET, HEAD"},
		"/v1/kinds/rebalance":  {"POST", "GET, HEAD"},
		"/v1/topology":         {"PUT", "GET, HEAD"},
		"/v1/where":            {"POST", "GET, HEAD"},
		"/v1/workers":          {"POST", "GET, HEAD"},
		"/v1/feed":             {"POST", "GET, HEAD"},
		"/v1/events/results":   {"POST", "GET, HEAD"},
		"/v1/events/results/0": {"DELETE", "GET, HEAD"},
		"/v1/openapi.yaml":     {"POST", "GET, HEAD"},
		"/v1/asyncapi.yaml":    {"POST", "GET, HEAD"},
		"/healthz":             {"POST", "GET, HEAD"},
		"/readyz":              {"POST", "GET, HEAD"},
		"/metrics":             {"POST", "GET, HEAD"},
	} {
		w := c.Do(want.method, target, "")
		require.Equal(t, http.StatusMethodNotAllowed, w.Status, target)
		require.Equal(t, want.allow, w.Header.Get("Allow"), target)
		if want.method != "HEAD" {
			require.Equal(t, "method_not_allowed", problem(t, w).Code)
		}
	}
	require.Empty(t, b.Submitted())
}

func TestVerbs(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)
	c.Do("POST", "/v1/operations", add)
	path := "/v1/operations/" + httpapitest.ID(1)
	b.Stored[0].State = operation.AwaitingApproval
	for _, v := range []struct {
		verb string
		to   operation.State
	}{
		{"approve", operation.Running},
		{"pause", operation.Paused},
		{"resume", operation.Running},
		{"cancel", operation.Cancelled},
		{"retry", operation.Queued},
	} {
		w := c.Do("POST", path+"/"+v.verb, `{"reason":"because of `+v.verb+`"}`)
		require.Equal(t, http.StatusAccepted, w.Status, w.Body)
		require.Equal(t, path, w.Header.Get("Location"))
		var op operation.Operation
		require.NoError(t, json.Unmarshal([]byte(w.Body), &op))
		require.Equal(t, v.to, op.State)
		by := b.Intents()[v.verb]
		require.Equal(t, "because of "+v.verb, by.Reason)
		require.NotEmpty(t, by.Who)
		require.NotEmpty(t, by.Origin)
		require.Equal(t, httpapitest.Now(), by.At)

		// The state now forbids it, and says so; a body is not needed.
		w = c.Do("POST", path+"/"+v.verb, "")
		require.Equal(t, http.StatusConflict, w.Status, w.Body)
		p := problem(t, w)
		require.Equal(t, "state_conflict", p.Code)
		require.Contains(t, p.Detail, string(v.to))
		require.Equal(t, httpapitest.ID(1), p.OperationID)

		require.Equal(t, http.StatusBadRequest, c.Do("POST", "/v1/operations/7/"+v.verb, "").Status)
		require.Equal(t, http.StatusNotFound, c.Do("POST", "/v1/operations/"+httpapitest.ID(9)+"/"+v.verb, "").Status)
		w = c.Do("POST", path+"/"+v.verb, `{"why":"x"}`)
		require.Equal(t, http.StatusBadRequest, w.Status)
		require.Equal(t, "why", problem(t, w).Field)
		w = c.Do("POST", path+"/"+v.verb, `{"reason":"`+strings.Repeat("x", 1001)+`"}`)
		require.Equal(t, "reason", problem(t, w).Field)
	}
	b.ControlErr = &operation.OutdatedError{ID: httpapitest.ID(1), Code: operation.CodeSchemaChanged, Detail: "a measurement is new"}
	w := c.Do("POST", path+"/approve", "")
	require.Equal(t, http.StatusConflict, w.Status)
	require.Equal(t, "schema_changed", problem(t, w).Code)
	b.ControlErr = errors.New("nats: no responders at 10.0.0.7")
	w = c.Do("POST", path+"/pause", "")
	require.Equal(t, http.StatusServiceUnavailable, w.Status)
	require.NotContains(t, w.Body, "10.0.0.7")
}

func TestLeases(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)
	w := c.Get("/v1/leases")
	require.Equal(t, http.StatusOK, w.Status)
	require.Contains(t, w.Body, `"expires_at"`)
	path := "/v1/leases/operation." + httpapitest.ID(1) + "/break"
	require.Equal(t, http.StatusNoContent, c.Do("POST", path, `{"reason":"its host is on fire"}`).Status)
	require.Equal(t, "its host is on fire", b.Intents()["break"].Reason)
	w = c.Do("POST", "/v1/leases/operation."+httpapitest.ID(2)+"/break", "")
	require.Equal(t, http.StatusNotFound, w.Status)
	require.Equal(t, "no_such_lease", problem(t, w).Code)
	b.ControlErr = &operation.InvalidError{Field: "key", Problem: "is not the lease of an operation or a task"}
	require.Equal(t, http.StatusBadRequest, c.Do("POST", path, "").Status)
}

func TestLimitsAreChanged(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)
	w := c.Do("POST", "/v1/operations", `{"kind":"rebalance","limits":{"points_per_second":1000,"slots_per_backend":2},"parameters":{"circle_id":0,"operation":"add"}}`)
	require.Equal(t, http.StatusAccepted, w.Status, w.Body)
	limits := func(body string) string {
		var op struct {
			Limits json.RawMessage `json:"limits"`
		}
		require.NoError(t, json.Unmarshal([]byte(body), &op))
		return string(op.Limits)
	}
	require.JSONEq(t, `{"points_per_second":1000,"slots_per_backend":2}`, limits(w.Body))
	path := "/v1/operations/" + httpapitest.ID(1) + "/limits"
	for _, step := range []struct{ patch, want string }{
		{`{"points_per_second":50000,"reason":"the night is over"}`, `{"points_per_second":50000,"slots_per_backend":2}`},
		{`{"slots_per_backend":null,"bytes_per_second":1048576}`, `{"points_per_second":50000,"bytes_per_second":1048576}`},
		{`{}`, `{"points_per_second":50000,"bytes_per_second":1048576}`},
		{`{"points_per_second":null,"bytes_per_second":null,"slots_per_backend":null}`, `{}`},
	} {
		w := c.Do("PATCH", path, step.patch)
		require.Equal(t, http.StatusAccepted, w.Status, w.Body)
		require.Equal(t, "/v1/operations/"+httpapitest.ID(1), w.Header.Get("Location"))
		require.JSONEq(t, step.want, limits(w.Body), step.patch)
	}
	for _, wrong := range []struct{ patch, field string }{
		{``, "body"},
		{`[]`, "body"},
		{`{"points_per_second":0}`, "points_per_second"},
		{`{"points_per_second":-1}`, "points_per_second"},
		{`{"points_per_second":1.5}`, "points_per_second"},
		{`{"points_per_second":"fast"}`, "points_per_second"},
		{`{"bytes_per_second":1000000000001}`, "bytes_per_second"},
		{`{"slots_per_backend":99999999999999999999}`, "slots_per_backend"},
		{`{"workers":2}`, "workers"},
		{`{"reason":"` + strings.Repeat("x", 1001) + `"}`, "reason"},
	} {
		w := c.Do("PATCH", path, wrong.patch)
		require.Equal(t, http.StatusBadRequest, w.Status, w.Body)
		require.Equal(t, wrong.field, problem(t, w).Field, wrong.patch)
	}
	require.Equal(t, http.StatusNotFound, c.Do("PATCH", "/v1/operations/"+httpapitest.ID(2)+"/limits", `{}`).Status)
	b.Stored[0].State = operation.Succeeded
	w = c.Do("PATCH", path, `{"points_per_second":1}`)
	require.Equal(t, http.StatusConflict, w.Status)
	require.Equal(t, "state_conflict", problem(t, w).Code)
}

func TestRefusalsOfTheEngine(t *testing.T) {
	since := httpapitest.Now().Add(-90 * time.Second)
	for _, example := range []struct {
		err    error
		status int
		code   string
	}{
		{&operation.ScopeHeldError{Scope: "circle/0", HolderID: httpapitest.ID(7), Kind: operation.KindRebalance, State: operation.Running, Since: since}, 409, "scope_held"},
		{operation.ErrKeyReused, 422, "idempotency_key_reused"},
		{&operation.StoreFullError{Bytes: 99, MaxBytes: 100}, 507, "store_full"},
		{&operation.DiskFullError{Free: 1, MinFree: 2}, 507, "disk_full"},
		{&operation.NotImplementedError{What: "this"}, 501, "not_implemented"},
		{&operation.InvalidError{Field: "circle_id", Problem: "is gone"}, 400, "invalid"},
		{errors.New("nats: no responders at 10.0.0.7"), 503, "unavailable"},
	} {
		b := httpapitest.NewBackend()
		b.SubmitErr = example.err
		w := serve(t, b).Do("POST", "/v1/operations", add)
		require.Equal(t, example.status, w.Status)
		p := problem(t, w)
		require.Equal(t, example.code, p.Code)
		require.NotContains(t, w.Body, "10.0.0.7")
		if example.status == 409 {
			require.Equal(t, httpapitest.ID(7), p.OperationID)
			age := 90.0
			require.Equal(t, &httpapi.Holder{
				Scope: "circle/0", OperationID: httpapitest.ID(7), Kind: operation.KindRebalance, State: operation.Running, Since: since, AgeSeconds: &age,
			}, p.Holder)
			require.Equal(t, "circle/0 is held by operation "+httpapitest.ID(7)+" (rebalance, running, submitted 1m30s ago)", p.Detail)
		}
	}
}

// TestAHolderThatCannotBeRead: what is not known of it is not made up.
func TestAHolderThatCannotBeRead(t *testing.T) {
	b := httpapitest.NewBackend()
	b.SubmitErr = &operation.ScopeHeldError{Scope: "circle/0", HolderID: httpapitest.ID(7)}
	w := serve(t, b).Do("POST", "/v1/operations", add)
	require.Equal(t, 409, w.Status)
	p := problem(t, w)
	require.Equal(t, &httpapi.Holder{Scope: "circle/0", OperationID: httpapitest.ID(7)}, p.Holder)
	require.Contains(t, p.Detail, "cannot be read")
	require.NotContains(t, w.Body, "0001")
}

// TestOperationsAreFilteredByTime: both bounds, and what is no time.
func TestOperationsAreFilteredByTime(t *testing.T) {
	b := httpapitest.NewBackend()
	for i := range 3 {
		op := full()
		op.ID, op.CreatedAt = httpapitest.ID(i+1), httpapitest.Now().Add(time.Duration(i)*time.Hour)
		b.Stored = append(b.Stored, op)
	}
	c := serve(t, b)
	for query, want := range map[string][]string{
		"":                           {httpapitest.ID(3), httpapitest.ID(2), httpapitest.ID(1)},
		"since=2026-07-01T13:00:00Z": {httpapitest.ID(3), httpapitest.ID(2)},
		"until=2026-07-01T13:00:00Z": {httpapitest.ID(1)},
		"since=2026-07-01T14:30:00%2B01:00&until=2026-07-01T14:00:00.000000001Z": {httpapitest.ID(3)},
		"since=2026-07-01T16:00:00+02:00":                                        {httpapitest.ID(3)},
		"since=2027-01-01T00:00:00Z":                                             nil,
	} {
		w := c.Get("/v1/operations?" + query)
		require.Equal(t, 200, w.Status, w.Body)
		var ids []string
		for _, op := range read[struct{ Items []operation.Operation }](t, w).Items {
			ids = append(ids, op.ID)
		}
		require.Equal(t, want, ids, query)
	}
	for query, field := range map[string]string{
		"since=": "since", "until=yesterday": "until", "since=2026-07-01": "since", "until=0001-01-01T00:00:00Z": "until",
		"since=2026-07-01T13:00:00Z&until=2026-07-01T13:00:00Z": "until",
		"since=2026-07-01T13:00:00Z&since=2026-07-01T13:00:00Z": "since",
		"before=2026-07-01T13:00:00Z":                           "before",
	} {
		w := c.Get("/v1/operations?" + query)
		require.Equal(t, 400, w.Status, query)
		require.Equal(t, field, problem(t, w).Field, query)
	}
}

func TestWhatIsNoJSONIsNoAnswer(t *testing.T) {
	b := httpapitest.NewBackend()
	op := full()
	op.Progress.PointsPerSecond = math.NaN()
	b.Stored = []operation.Operation{op}
	w := serve(t, b).Get("/v1/operations")
	require.Equal(t, 500, w.Status)
	require.Equal(t, "internal", problem(t, w).Code)
}

func TestList(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)
	type page struct {
		Items      []struct{ ID, State string }
		NextCursor *string `json:"next_cursor"`
		AsOf       string  `json:"as_of"`
	}
	require.Contains(t, c.Get("/v1/operations").Body, `"items":[]`)
	for range 3 {
		c.Do("POST", "/v1/operations", add)
	}
	b.Stored[0].State = operation.Succeeded

	got := read[page](t, c.Get("/v1/operations?limit=2"))
	require.Equal(t, []string{httpapitest.ID(3), httpapitest.ID(2)}, []string{got.Items[0].ID, got.Items[1].ID})
	require.Equal(t, "2026-07-01T12:00:00Z", got.AsOf)
	got = read[page](t, c.Get("/v1/operations?limit=2&cursor="+*got.NextCursor))
	require.Len(t, got.Items, 1)
	require.Nil(t, got.NextCursor, "absent at the end")

	got = read[page](t, c.Get("/v1/operations?state=succeeded&kind=rebalance&scope=circle/0"))
	require.Len(t, got.Items, 1)

	b.At = time.Time{}
	require.Equal(t, 503, c.Get("/v1/operations").Status, "nothing is claimed before the records have been read")
}

func TestAnOperationIsFoundBeforeTheProjectionHasIt(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)
	c.Do("POST", "/v1/operations", add)
	b.Unseen = []string{httpapitest.ID(1)}
	w := c.Get("/v1/operations/" + httpapitest.ID(1))
	require.Equal(t, http.StatusOK, w.Status)
	require.Contains(t, w.Body, `"as_of":"2026-07-01T12:00:00Z"`)

	b.RecordsErr = errors.New("no quorum")
	require.Equal(t, 503, c.Get("/v1/operations/"+httpapitest.ID(1)).Status)
	b.Unseen = nil
	require.Equal(t, 200, c.Get("/v1/operations/"+httpapitest.ID(1)).Status)
	require.Equal(t, 503, c.Get("/v1/operations/"+httpapitest.ID(1)+"/tasks").Status)
	require.Equal(t, 503, c.Get("/v1/operations/"+httpapitest.ID(1)+"/audit").Status)
	b.Plans[httpapitest.ID(1)] = operation.Plan{}
	require.Equal(t, 503, c.Get("/v1/operations/"+httpapitest.ID(1)+"/plan").Status)
}

// full is an operation with everything an operation can have.
func full() operation.Operation {
	at := httpapitest.Now()
	eta := 12.5
	limit := int64(1000)
	return operation.Operation{
		ID: httpapitest.ID(1), Kind: operation.KindRebalance, Scope: []string{"circle/0"}, State: operation.PartiallyFailed,
		PausedIn: operation.Running, Conditions: []operation.Condition{{Type: "stalled", Reason: "no progress", Since: at}},
		Hold:       true,
		Parameters: json.RawMessage(`{"circle_id":0,"operation":"rm","removed_backends":[{"name":"a","url":"http://h:1","sealed":"` + httpapitest.Secret + `"}]}`),
		Limits:     operation.Limits{PointsPerSecond: &limit}, Reason: "r", RequestedBy: "admin",
		CreatedAt: at, StartedAt: &at, FinishedAt: &at, Epoch: 1, Attempt: 1, Round: 2,
		Progress: operation.Progress{
			Phase: operation.PhaseVerify, Tasks: operation.TaskCounts{Total: 2, Done: 1, Failed: 1}, ETASeconds: &eta, AsOf: at, PointsPerSecond: 1.5,
			Backends: map[string]operation.BackendProgress{"http://127.0.0.1:8086": {Name: "influxdb-1-1"}},
		},
		Waits:  []operation.Wait{{Gate: "backend", Backend: "http://127.0.0.1:8086", Measured: "503", Limit: "204", Since: at, TaskID: "t"}},
		Error:  &operation.Error{Code: "field_type_conflict", Detail: "d", TaskID: "t"},
		Result: &operation.Result{Note: "n"},
		Plan:   &operation.PlanRef{Document: operation.Document{Object: "o", SHA256: "s", Bytes: 1}},
		Report: &operation.Document{Object: "o", SHA256: "s", Bytes: 1},
	}
}

func TestDocumentsOfAnOperation(t *testing.T) {
	b := httpapitest.NewBackend()
	b.Stored = []operation.Operation{full()}
	c := serve(t, b)
	id := "/v1/operations/" + httpapitest.ID(1)

	w := c.Get(id)
	require.Equal(t, 200, w.Status)
	require.NotContains(t, w.Body, httpapitest.Secret)
	require.NotContains(t, w.Body, "locks")

	for _, what := range []string{"plan", "report"} {
		p := problem(t, c.Get(id+"/"+what))
		require.Equal(t, "no_"+what, p.Code)
		require.Equal(t, httpapitest.ID(1), p.OperationID)
		require.Contains(t, p.Detail, "partially_failed")
	}
	slice := operation.Slice{Database: "db", RetentionPolicy: "autogen", Measurement: "m", From: -1, To: 1, Last: true, Points: 3, Overlap: true, Expired: true}
	document := operation.Document{Object: "o", SHA256: "s", Bytes: 1}
	b.Plans[httpapitest.ID(1)] = operation.Plan{
		OperationID: httpapitest.ID(1), Kind: operation.KindClear, Epoch: 1, CreatedAt: httpapitest.Now(),
		Backends: []operation.PlanBackend{{Name: "a", URL: "http://h:1", Removed: true}},
		Policies: []operation.PlanPolicy{{Database: "db", Name: "autogen", Duration: time.Hour}},
		Moves:    []operation.PlanMove{{From: 0, To: 1}},
		Tasks:    []operation.PlanTask{{From: 0, To: 1, Wave: 1, Rule: operation.Rule{Overrule: true, Mutual: true}}},
		Chunks:   []operation.Document{document}, Notes: []string{"note"},
	}
	require.Contains(t, c.Get(id+"/plan").Body, `"duration_seconds":3600`)
	b.Plans[httpapitest.ID(1)] = operation.Plan{OperationID: httpapitest.ID(1), Kind: operation.KindResync}
	require.Equal(t, 200, c.Get(id+"/plan").Status, "a plan of nothing")

	verdict := operation.Verdict{Unproven: []int{1}, LeftOut: 1}
	verdict.AddProblem(operation.Problem{
		Slice: slice, SourceURL: "http://h:1", DestURL: "http://h:2", Example: "e",
		Resolution: operation.ResolutionExtra, Code: "c", Detail: "d",
	})
	b.Reports[httpapitest.ID(1)] = verdict.Report(httpapitest.ID(1), operation.DepthCount)
	w = c.Get(id + "/report")
	require.Equal(t, 200, w.Status)
	require.Equal(t, "2026-07-01T12:00:00Z", w.Header.Get("X-As-Of"))

	at := httpapitest.Now()
	b.Task = []operation.Task{
		{
			ID: "t1", OperationID: httpapitest.ID(1), Kind: operation.KindRebalance, Phase: operation.PhaseCopy, Round: 1, Wave: 1,
			Source: "http://h:1", Destination: "http://h:2", Of: "t0", Parent: "t0", Children: []string{"t2"},
			Slices: []operation.Slice{slice, slice, slice, slice}, State: operation.TaskFailed, Holder: "w",
			Checkpoint: operation.Checkpoint{{State: operation.SliceCopied}, {State: operation.SliceFailed}, {State: operation.SliceHandedOver}, {}},
			Waits:      full().Waits, Verdict: &verdict, Error: full().Error,
			History:   []operation.TaskError{{Attempt: 1, At: at, Detail: "d"}},
			Problems:  []operation.SliceError{{Slice: slice, Code: "c", Detail: "d"}},
			CreatedAt: at, StartedAt: &at, UpdatedAt: at, FinishedAt: &at,
		},
		{ID: "t2", Kind: operation.KindRebalance, Phase: operation.PhaseCopy, Span: &operation.Span{Count: 5}, State: operation.TaskWaiting, CreatedAt: at, UpdatedAt: at},
	}
	w = c.Get(id + "/tasks?limit=1")
	require.Contains(t, w.Body, `"slices":{"total":4,"finished":1,"failed":1,"handed_over":1,"kept":0}`)
	require.NotContains(t, w.Body, "checkpoint")
	require.Contains(t, w.Body, `"next_cursor":"next"`)
	require.Contains(t, c.Get(id+"/tasks?state=waiting&cursor=next").Body, `"slices":{"total":5,`)

	require.Contains(t, c.Get(id+"/audit").Body, `"items":[]`)
	b.Trail = []operation.AuditEntry{{At: at, OperationID: httpapitest.ID(1), Action: "submit", Who: "admin", Origin: "127.0.0.1", Reason: "r"}}
	require.Contains(t, c.Get(id+"/audit").Body, `"action":"submit"`)
}

func TestKinds(t *testing.T) {
	c := serve(t, httpapitest.NewBackend())
	type kind struct {
		Kind        operation.Kind
		Implemented bool
		Parameters  json.RawMessage
	}
	kinds := read[struct{ Items []kind }](t, c.Get("/v1/kinds")).Items
	require.Len(t, kinds, len(operation.Kinds()))
	for i, k := range kinds {
		require.Equal(t, operation.Kinds()[i], k.Kind)
		require.Equal(t, k.Kind.Implemented(), k.Implemented)
		one := read[kind](t, c.Get("/v1/kinds/"+string(k.Kind)))
		require.JSONEq(t, string(k.Parameters), string(one.Parameters))
		require.NotContains(t, string(k.Parameters), "sealed")
	}
}

func TestTopology(t *testing.T) {
	b := httpapitest.NewBackend()
	b.Probes["http://127.0.0.1:8087"] = httpapi.BackendStatus{CheckedAt: httpapitest.Now(), Error: "connection refused"}
	delete(b.Probes, "http://127.0.0.1:8088")
	c := serve(t, b)
	c.Do("POST", "/v1/operations", add)
	w := c.Get("/v1/topology")
	require.NotContains(t, w.Body, httpapitest.Secret)
	type cluster struct {
		Epoch           int
		ResyncingByHand bool `json:"resyncing_by_hand"`
		Circles         []struct {
			OperationID     string `json:"operation_id"`
			MigratingByHand bool   `json:"migrating_by_hand"`
			Backends        []struct{ Name, State, Error, Version string }
		}
	}
	got := read[cluster](t, w)
	require.Equal(t, httpapitest.ID(1), got.Circles[0].OperationID)
	require.Empty(t, got.Circles[1].OperationID)
	require.Equal(t, "active", got.Circles[0].Backends[0].State)
	require.Equal(t, "1.8.3", got.Circles[0].Backends[0].Version)
	require.Equal(t, "unreachable", got.Circles[0].Backends[1].State)
	require.Equal(t, "connection refused", got.Circles[0].Backends[1].Error)
	require.Equal(t, "unknown", got.Circles[1].Backends[0].State)

	require.False(t, got.ResyncingByHand)
	require.False(t, got.Circles[1].MigratingByHand)

	b.MigratingCircles, b.ResyncingFlag = []int{1}, true
	got = read[cluster](t, c.Get("/v1/topology"))
	require.True(t, got.ResyncingByHand)
	require.False(t, got.Circles[0].MigratingByHand)
	require.True(t, got.Circles[1].MigratingByHand)
	b.FlagsErr = errors.New("no quorum")
	require.Equal(t, 503, c.Get("/v1/topology").Status, "whether somebody has flagged a circle is not known")
	b.FlagsErr = nil

	w = c.Get("/v1/where?db=db1&measurement=cpu%2F1")
	for i, circle := range b.Cluster.Circles {
		p, err := b.Cluster.Placement(i)
		require.NoError(t, err)
		owner := p.Owner("db1", "cpu/1")
		require.Contains(t, w.Body, `"circle_name":"`+circle.Name+`","backend":"`+owner.Name+`","url":"`+owner.URL+`"`)
	}

	b.At = time.Time{}
	require.Equal(t, 503, c.Get("/v1/topology").Status, "who holds a circle is not known yet")
	b.Cluster.HashKey = "unheard of"
	require.Equal(t, 503, c.Get("/v1/where?db=a&measurement=b").Status)
	b.Cluster = nil
	require.Equal(t, 503, c.Get("/v1/topology").Status)
	require.Equal(t, 503, c.Get("/v1/where?db=a&measurement=b").Status)
	require.Equal(t, 503, c.Do("POST", "/v1/operations", add).Status)
}

func TestWorkers(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)
	require.Contains(t, c.Get("/v1/workers").Body, `"items":[]`)
	b.Live = []operations.WorkerInfo{{ID: "w1", Host: "h", Version: "v", Slots: 2, Busy: 1, Draining: true, Tasks: []string{"t"}, StartedAt: httpapitest.Now(), SeenAt: httpapitest.Now()}, {ID: "w2"}}
	w := c.Get("/v1/workers")
	require.Contains(t, w.Body, `"id":"w1"`)
	require.Contains(t, w.Body, `"tasks":[]`)
	require.Contains(t, w.Body, `"draining":true`)
	require.Contains(t, w.Body, `"draining":false`)
	b.LiveErr = errors.New("no quorum")
	require.Equal(t, 503, c.Get("/v1/workers").Status)
}

func TestHealth(t *testing.T) {
	broken := errors.New("nats: timeout at 10.0.0.7")
	c := serve(t, httpapitest.NewBackend(), func(d *operations.Deps) {
		d.Checks = []operations.Check{
			{Name: "bus", Run: func(context.Context) error { return broken }},
			{Name: "projection", Run: func(context.Context) error { return nil }},
		}
	})
	require.JSONEq(t, `{"status":"ok"}`, c.Get("/healthz").Body)
	w := c.Get("/readyz")
	require.Equal(t, 503, w.Status)
	require.JSONEq(t, `{"status":"failed","checks":[{"name":"bus","status":"failed","error":"nats: timeout at 10.0.0.7"},
		{"name":"projection","status":"ok"}],"as_of":"2026-07-01T12:00:00Z"}`, w.Body)
	require.NotContains(t, c.Get("/readyz", httpapitest.Header("X-Forwarded-For", "192.0.2.1")).Body, "10.0.0.7",
		"strangers see which part, not why")
	broken = nil
	w = c.Get("/readyz")
	require.Equal(t, 200, w.Status)
}

func TestTheTokenGuardsTheNativeAPI(t *testing.T) {
	stranger := httpapitest.Header("X-Forwarded-For", "192.0.2.1")
	b := httpapitest.NewBackend()
	c := serve(t, b)
	for _, target := range []string{
		"/v1/operations", "/v1/operations/x", "/v1/operations/x/plan", "/v1/operations/x/tasks", "/v1/operations/x/report",
		"/v1/operations/x/audit", "/v1/operations/x/events", "/v1/kinds", "/v1/kinds/x", "/v1/topology", "/v1/where",
		"/v1/workers", "/v1/feed", "/v1/events/results", "/v1/events/results/0", "/metrics", "/v1/openapi.yaml", "/v1/asyncapi.yaml",
	} {
		w := c.Get(target, stranger)
		require.Equal(t, 401, w.Status, target)
		require.Equal(t, `Bearer realm="ringmaster"`, w.Header.Get("WWW-Authenticate"))
		require.Equal(t, "unauthorized", problem(t, w).Code)
	}
	require.Equal(t, 401, c.Do("POST", "/v1/operations", add, stranger).Status)
	require.Equal(t, 401, c.Do("POST", "/v1/operations/x/cancel", "", stranger).Status)
	require.Equal(t, 401, c.Do("PATCH", "/v1/operations/x/limits", "{}", stranger).Status)
	require.Empty(t, b.Submitted())
	require.Equal(t, 200, c.Get("/healthz", stranger).Status)
	require.Equal(t, 200, c.Get("/readyz", stranger).Status)

	require.Equal(t, 202, c.Do("POST", "/v1/operations", add, stranger, httpapitest.Header("Authorization", "Bearer "+token)).Status)
	require.Equal(t, httpapi.PrincipalAdmin, b.Submitted()[0].RequestedBy)
	require.Equal(t, 401, c.Get("/v1/kinds", httpapitest.Header("Authorization", "Bearer wrong")).Status, "even on the same machine")
}

func TestContractsAreServed(t *testing.T) {
	c := serve(t, httpapitest.NewBackend())
	w := c.Get("/v1/openapi.yaml")
	require.Equal(t, string(httpapi.OpenAPI()), w.Body)
	require.Equal(t, "application/yaml", w.Header.Get("Content-Type"))
	require.Equal(t, string(events.AsyncAPI()), c.Get("/v1/asyncapi.yaml").Body)
	require.Contains(t, c.Get("/metrics").Body, "ringmaster_up 1")
}

func TestResultsLog(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)
	require.JSONEq(t, `{"counter":0,"messages":[]}`, c.Get("/v1/events/results/0").Body)
	b.Messages = []progress.Message{{Value: "{}"}, {Error: "e", Value: "{}"}}
	require.JSONEq(t, `{"counter":2,"messages":[{"error":"","value":"{}"},{"error":"e","value":"{}"}]}`, c.Get("/v1/events/results").Body)
	require.JSONEq(t, `{"counter":2,"messages":[{"error":"e","value":"{}"}]}`, c.Get("/v1/events/results/1").Body)
	require.JSONEq(t, `{"counter":2,"messages":[]}`, c.Get("/v1/events/results/2").Body)
}

func TestHeadIsAnsweredLikeGet(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)
	c.Do("POST", "/v1/operations", add)
	for _, target := range []string{
		"/v1/operations", "/v1/operations/" + httpapitest.ID(1), "/v1/operations/" + httpapitest.ID(1) + "/tasks", "/v1/kinds",
		"/v1/topology", "/v1/where?db=a&measurement=b", "/v1/workers", "/v1/events/results/0", "/healthz", "/readyz", "/metrics",
		"/v1/openapi.yaml", "/v1/nothing", "/v1/operations?x", "/v1/feed", "/v1/operations/" + httpapitest.ID(1) + "/events",
	} {
		head := c.Do("HEAD", target, "")
		require.Empty(t, head.Body)
		if strings.HasSuffix(target, "feed") || strings.HasSuffix(target, "events") {
			require.Equal(t, "text/event-stream", head.Header.Get("Content-Type"))
			continue
		}
		get := c.Get(target)
		require.Equal(t, get.Status, head.Status, target)
		require.Equal(t, get.Header.Get("Content-Type"), head.Header.Get("Content-Type"))
	}
}
