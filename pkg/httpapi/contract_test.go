package httpapi_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/httpapi/httpapitest"
	"ringmaster/pkg/httpapi/influxproxy"
	"ringmaster/pkg/httpapi/operations"
)

// whole is everything this release serves, over a faked system.
func whole(t testing.TB, cfg httpapi.Config, b *httpapitest.Backend) *httpapi.Engine {
	t.Helper()
	native, err := operations.New(operations.Deps{
		Submitter: b, Controls: httpapitest.Controls{Backend: b}, Leases: b, DeadLetters: httpapitest.Letters{Backend: b}, Operations: httpapitest.Operations{Backend: b}, Records: httpapitest.Records{Backend: b},
		Topology: b, Serving: b, Prober: b, Flags: b, Workers: b, Doctor: b, Feed: b, Results: b,
		Metrics: textHandler("ringmaster_up 1\n"), AsyncAPI: events.AsyncAPI(),
		Auth: httpapi.NewAdminAuth("token"), Now: httpapitest.Now,
	})
	require.NoError(t, err)
	proxy := influxproxy.New(influxproxy.Deps{
		Submitter: b, Operations: httpapitest.Operations{Backend: b}, Topology: b, Prober: b, Flags: b,
		Writer: b, Querier: httpapitest.Querier{}, Version: "2.5.12", Now: httpapitest.Now,
	})
	e, err := httpapi.New(cfg, native, proxy)
	require.NoError(t, err)
	return e
}

func TestTheContractIsValidOpenAPI(t *testing.T) {
	c, err := contract()
	require.NoError(t, err)
	c.CheckDocument(t)
}

// TestRoutesAndContractAreTheSame: every route is in the contract, and
// everything in the contract is served.
func TestRoutesAndContractAreTheSame(t *testing.T) {
	c, err := contract()
	require.NoError(t, err)
	var promised, served []string
	for path, item := range c.Model.Paths.PathItems.FromOldest() {
		for method := range item.GetOperations().FromOldest() {
			promised = append(promised, strings.ToUpper(method)+" "+path)
		}
	}
	parameter := regexp.MustCompile(`:(\w+)`)
	for _, r := range whole(t, httpapi.Config{}, httpapitest.NewBackend()).Routes() {
		served = append(served, r.Method+" "+parameter.ReplaceAllString(r.Path, "{$1}"))
	}
	slices.Sort(promised)
	slices.Sort(served)
	require.Equal(t, promised, served)
}

// TestEverythingLiesBelowThePrefix asks every route there, and the same one
// beside it.
func TestEverythingLiesBelowThePrefix(t *testing.T) {
	c, err := contract()
	require.NoError(t, err)
	b := httpapitest.NewBackend()
	client := httpapitest.NewClient(t, c, whole(t, httpapi.Config{Prefix: "/ring/master"}, b))

	beside := client.Stream(client.Request("POST", "/v1/operations", `{"kind":"rebalance","parameters":{"circle_id":0,"operation":"add"}}`))
	require.NoError(t, beside.Body.Close())
	require.Equal(t, 404, beside.StatusCode)
	require.Empty(t, b.Submitted())

	client.Prefix = "/ring/master"
	w := client.Do("POST", "/v1/operations/", `{"kind":"rebalance","parameters":{"circle_id":0,"operation":"add"}}`)
	require.Equal(t, 202, w.Status)
	require.Equal(t, "/ring/master/v1/operations/"+httpapitest.ID(1), w.Header.Get("Location"))
	require.Contains(t, w.Body, `"self":"/ring/master/v1/operations/`+httpapitest.ID(1)+`"`)
	w = client.Do("POST", "/rebalance?circle_id=1&operation=add", "")
	require.Equal(t, "/ring/master/v1/operations/"+httpapitest.ID(2), w.Header.Get("Location"))

	for path, item := range c.Model.Paths.PathItems.FromOldest() {
		if item.Get == nil || strings.HasSuffix(path, "/feed") || strings.HasSuffix(path, "/{id}/events") {
			continue
		}
		target := strings.NewReplacer("{id}", httpapitest.ID(1), "{kind}", "rebalance", "{counter}", "0").Replace(path)
		w := client.Get(target + "/")
		require.NotEqual(t, 405, w.Status, target)
		if w.Status == 404 {
			require.Contains(t, w.Body, "has no ", "only a document that is not there yet")
		}
	}
}

// TestTheDialectsDoNotMix: each path's refusal has the shape of its dialect.
func TestTheDialectsDoNotMix(t *testing.T) {
	c, err := contract()
	require.NoError(t, err)
	client := httpapitest.NewClient(t, c, whole(t, httpapi.Config{}, httpapitest.NewBackend()))
	for _, target := range []string{"/v1", "/v1/nothing", "/healthz/x", "/metrics/x"} {
		require.Equal(t, "application/problem+json", client.Get(target).Header.Get("Content-Type"), target)
	}
	for _, target := range []string{"/", "/nothing", "/migrate", "/api/v2/query/x", "/api/v1/prom"} {
		w := client.Get(target)
		require.Equal(t, "404 page not found\n", w.Body, target)
		require.Equal(t, "2.5.12", w.Header.Get("X-Influxdb-Version"), target)
	}
}
