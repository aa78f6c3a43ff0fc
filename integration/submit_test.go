package integration_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// busySite is an installation with one operation on circle 0 that is held up
// until the gate opens.
type busySite struct {
	*installation

	backends []*backend
	reads    *gate
	gone     harness.Backend
}

func newBusySite(t *testing.T) *busySite {
	t.Helper()
	s := &busySite{backends: startBackends(t, 3), reads: newGate()}
	s.backends[0].fill("db", 6, 300)
	source := s.backends[0].proxied()
	s.reads.hold(source, copies)
	s.installation = install(t)
	t.Cleanup(s.reads.release)
	s.gone = harness.Backend{Name: "gone", URL: source.URL()}
	require.NoError(t, s.WriteCircles(
		harness.Circle{Name: "one", Backends: []harness.Backend{s.backends[1].configured("a")}},
		harness.Circle{Name: "two", Backends: []harness.Backend{s.backends[2].configured("b")}},
	))
	s.startAPI()
	s.startWorker()
	return s
}

// copies tells the reading of what is copied from a look at the first points of
// some windows, by which a plan guesses at their size: that ends at a time which is
// included.
func copies(r *http.Request) bool {
	return harness.ReadsPoints(r) && !strings.Contains(harness.Statements(r), "time <= ")
}

// removeBody is a request to take everything from the source to circle 0.
func (s *busySite) removeBody(more string) string {
	return fmt.Sprintf(`{"kind":"rebalance","parameters":{"circle_id":0,"operation":"rm","removed_backends":[{"name":%q,"url":%q}]}%s}`, s.gone.Name, s.gone.URL, more)
}

// post submits by the native API.
func (in *installation) post(body, key string) (int, map[string]any) {
	in.t.Helper()
	header := http.Header{}
	if key != "" {
		header.Set("Idempotency-Key", key)
	}
	res, raw := in.do(http.MethodPost, "/v1/operations", header, body)
	answer := map[string]any{}
	require.NoError(in.t, json.Unmarshal([]byte(raw), &answer), raw)
	if id, ok := answer["id"]; ok {
		require.Equal(in.t, fmt.Sprint("/v1/operations/", id), res.Header.Get("Location"))
	} else {
		require.Equal(in.t, "application/problem+json", res.Header.Get("Content-Type"))
	}
	return res.StatusCode, answer
}

// listed returns the ids of all operations.
func (in *installation) listed() []string {
	in.t.Helper()
	var page struct {
		Items []operation.Operation `json:"items"`
		AsOf  string                `json:"as_of"`
	}
	require.NoError(in.t, in.Client.Get(in.context(), "/v1/operations?limit=1000", &page))
	require.NotEmpty(in.t, page.AsOf)
	ids := make([]string, len(page.Items))
	for i, op := range page.Items {
		ids[i] = op.ID
	}
	return ids
}

func TestSubmitWithAnIdempotencyKeyStartsOneOperation(t *testing.T) {
	t.Parallel()
	s := newBusySite(t)
	status, first := s.post(s.removeBody(`,"reason":"why not"`), "key-1")
	require.Equal(t, http.StatusAccepted, status, first)
	// The same again, also written otherwise, also while it holds its circle.
	again := strings.ReplaceAll(s.removeBody(` , "reason" : "why not"`), ":", " : ")
	again = strings.ReplaceAll(again, `http : //`, `http://`)
	again = strings.ReplaceAll(again, `127.0.0.1 : `, `127.0.0.1:`)
	for _, body := range []string{s.removeBody(`,"reason":"why not"`), again} {
		status, same := s.post(body, "key-1")
		require.Equal(t, http.StatusAccepted, status, same)
		require.Equal(t, first["id"], same["id"])
	}
	status, other := s.post(s.removeBody(`,"reason":"another"`), "key-1")
	require.Equal(t, http.StatusUnprocessableEntity, status, other)
	// A key whose request was refused is free again.
	status, busy := s.post(s.removeBody(""), "key-2")
	require.Equal(t, http.StatusConflict, status, busy)
	s.reads.release()
	s.succeed(fmt.Sprint(first["id"]))
	status, same := s.post(s.removeBody(`,"reason":"why not"`), "key-1")
	require.Equal(t, http.StatusAccepted, status, same)
	require.Equal(t, first["id"], same["id"], "also when it has ended")
	status, second := s.post(s.removeBody(""), "key-2")
	require.Equal(t, http.StatusAccepted, status, second)
	require.NotEqual(t, first["id"], second["id"])
	// By the dialect too, over a restart.
	s.finish(fmt.Sprint(second["id"]), operation.Succeeded)
	s.stopAPI()
	s.startAPI()
	header := http.Header{"Idempotency-Key": {"key-3"}}
	body := asJSON(t, map[string]any{"backends": []harness.Backend{s.gone}})
	res, answer := s.do(http.MethodPost, "/rebalance?circle_id=0&operation=rm", header, body)
	require.Equal(t, http.StatusAccepted, res.StatusCode, answer)
	third := res.Header.Get("X-Operation-Id")
	res, answer = s.do(http.MethodPost, "/rebalance?circle_id=0&operation=rm", header, body)
	require.Equal(t, http.StatusAccepted, res.StatusCode, answer)
	require.Equal(t, third, res.Header.Get("X-Operation-Id"))
	status, same = s.post(s.removeBody(`,"reason":"why not"`), "key-1")
	require.Equal(t, http.StatusAccepted, status, same)
	require.Equal(t, first["id"], same["id"])
	require.Len(t, s.listed(), 3)
}

func TestSubmitToABusyCircleNamesTheHolder(t *testing.T) {
	t.Parallel()
	s := newBusySite(t)
	// Twenty at once: one is accepted, and the others are told which.
	var mu sync.Mutex
	var accepted []string
	holders := map[string]int{}
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			status, answer := s.post(s.removeBody(fmt.Sprintf(`,"reason":"number %d"`, i)), "")
			mu.Lock()
			defer mu.Unlock()
			switch status {
			case http.StatusAccepted:
				accepted = append(accepted, fmt.Sprint(answer["id"]))
			case http.StatusConflict:
				holders[fmt.Sprint(answer["operation_id"])]++
			default:
				t.Errorf("status %d: %v", status, answer)
			}
		})
	}
	all.Wait()
	require.Len(t, accepted, 1)
	require.Equal(t, map[string]int{accepted[0]: 19}, holders)
	require.Equal(t, accepted, s.listed(), "of the others nothing is left")

	res, answer := s.do(http.MethodPost, "/rebalance?circle_id=0&operation=add", nil, "")
	require.Equal(t, http.StatusConflict, res.StatusCode)
	require.True(t, strings.HasPrefix(answer, "circle 0 is migrating\n"), answer)
	require.Contains(t, answer, accepted[0])
	require.Equal(t, accepted[0], res.Header.Get("X-Operation-Id"))
	// Another circle is free.
	s.succeed(s.submitOld("circle_id=1&operation=add"))
	// A dry run disturbs nobody, and holds nothing.
	status, dry := s.post(s.removeBody(`,"dry_run":true`), "")
	require.Equal(t, http.StatusAccepted, status, dry)
	planned := s.finish(fmt.Sprint(dry["id"]), operation.Planned)
	require.Empty(t, planned.Scope)
	require.Equal(t, 6, planned.Plan.Totals.Measurements)
	res, answer = s.do(http.MethodGet, "/v1/operations/"+planned.ID+"/plan", nil, "")
	require.Equal(t, http.StatusOK, res.StatusCode, answer)
	require.Contains(t, answer, s.gone.URL)
	require.Empty(t, s.tasks(planned.ID), "nothing runs")
	s.reads.release()
	s.succeed(accepted[0])
	s.succeed(s.submitOld("circle_id=0&operation=add"))
}

func TestSubmitIsFoundAtOnce(t *testing.T) {
	t.Parallel()
	s := newBusySite(t)
	for i := range 30 {
		status, answer := s.post(s.removeBody(`,"dry_run":true`), "")
		require.Equal(t, http.StatusAccepted, status, answer)
		id := fmt.Sprint(answer["id"])
		op, err := s.Client.Operation(s.context(), id)
		require.NoError(t, err, "request %d", i)
		require.Equal(t, id, op.ID)
		require.Contains(t, s.listed(), id)
	}
	require.Empty(t, s.backends[1].databases(), "a dry run changes nothing")
}

func TestRebalanceWithNothingToDoSaysSo(t *testing.T) {
	t.Parallel()
	s := newBusySite(t)
	s.backends[1].fill("db", 3, 10)
	op := s.finish(s.submitOld("circle_id=0&operation=add"), operation.Succeeded)
	require.NotNil(t, op.Result)
	require.Contains(t, op.Result.Note, "nothing to do: all 3 measurements")
	require.True(t, s.report(op.ID).Equal)
	require.Equal(t, statsRow{1, 1, 3, 3, 0, 3}, s.stats(0)[s.backends[1].URL()])
}

func TestRefusedRequestsStartNothing(t *testing.T) {
	t.Parallel()
	s := newBusySite(t)
	native := func(parameters string) string { return `{"kind":"rebalance","parameters":` + parameters + `}` }
	for name, c := range map[string]struct {
		body   string
		status int
		field  string
	}{
		"unknown circle":       {native(`{"circle_id":7,"operation":"add"}`), 400, "parameters.circle_id"},
		"no circle":            {native(`{"operation":"add"}`), 400, "parameters.circle_id"},
		"bad operation":        {native(`{"circle_id":0,"operation":"move"}`), 400, "parameters.operation"},
		"rm without backends":  {native(`{"circle_id":0,"operation":"rm"}`), 400, "parameters.removed_backends"},
		"unknown parameter":    {native(`{"circle_id":0,"operation":"add","speed":9}`), 400, "parameters.speed"},
		"unknown key":          {`{"kind":"rebalance","parameter":{}}`, 400, "parameter"},
		"unknown kind":         {`{"kind":"destroy","parameters":{}}`, 400, "kind"},
		"not JSON":             {`circle_id=0`, 400, "body"},
		"more than one object": {native(`{"circle_id":0,"operation":"add"}`) + `{}`, 400, "body"},
		"still in the circle": {
			native(fmt.Sprintf(`{"circle_id":0,"operation":"rm","removed_backends":[{"name":"a","url":%q}]}`, s.backends[1].URL())),
			400, "parameters.removed_backends[0].url",
		},
		"later kind":            {`{"kind":"reindex","parameters":{}}`, 501, ""},
		"recovery from nowhere": {`{"kind":"recovery","parameters":{}}`, 400, "parameters.from_circle_id"},
		"held dry run":          {s.removeBody(`,"hold":true,"dry_run":true`), 400, "hold"},
		"limit below one":       {s.removeBody(`,"limits":{"points_per_second":0}`), 400, "limits.points_per_second"},
		"unknown limit":         {s.removeBody(`,"limits":{"points":5}`), 400, "limits.points"},
		"large":                 {`{"kind":"rebalance","reason":"` + strings.Repeat("x", 12<<20) + `"}`, 413, ""},
	} {
		status, answer := s.post(c.body, "")
		require.Equal(t, c.status, status, "%s: %v", name, answer)
		require.NotEmpty(t, answer["code"], name)
		require.NotEmpty(t, answer["detail"], name)
		if c.field != "" {
			require.Equal(t, c.field, answer["field"], "%s: %v", name, answer)
		}
	}
	for query, words := range map[string]string{
		"circle_id=9&operation=add":                         "invalid circle_id",
		"operation=add":                                     "invalid circle_id",
		"circle_id=x&operation=add":                         "invalid circle_id",
		"circle_id=0":                                       "invalid operation",
		"circle_id=0&operation=move":                        "invalid operation",
		"circle_id=0&operation=rm":                          "invalid backends from body",
		"circle_id=0&operation=add&cpus=0":                  "invalid cpus",
		"circle_id=0&operation=add&cpus=many":               "invalid cpus",
		"circle_id=0&operation=add&ha_addrs=127.0.0.1:7076": "ha_addrs should contain two addrs at least",
		"circle_id=0&operation=add&ha_addrs=one,two":        "invalid ha_addrs",
	} {
		res, answer := s.do(http.MethodPost, "/rebalance?"+query, nil, "")
		require.Equal(t, http.StatusBadRequest, res.StatusCode, "%s: %s", query, answer)
		require.Equal(t, words+"\n", answer, query)
	}
	res, answer := s.do(http.MethodGet, "/rebalance?circle_id=0&operation=add", nil, "")
	require.Equal(t, http.StatusMethodNotAllowed, res.StatusCode, answer)
	require.Equal(t, http.MethodPost, res.Header.Get("Allow"))
	require.Empty(t, s.listed(), "nothing was started")
	// And nothing is held.
	s.succeed(s.submitOld("circle_id=0&operation=add"))
	require.Empty(t, s.backends[1].databases())
}
