package integration_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// heldSite are three circles of one server each; what reads the first one waits.
type heldSite struct {
	*circleSite

	proxy *harness.Proxy
	reads *gate
}

func newHeldSite(t *testing.T) *heldSite {
	t.Helper()
	s := &heldSite{circleSite: newCircleSite(t, 1, 1, 1)}
	t.Cleanup(func() { s.reads.release() })
	s.proxy = s.circleSite.proxy(0, 0)
	s.hold()
	for _, b := range s.all() {
		b.fill("db", 3, 100)
	}
	s.members[0][0].write("db", "", generate("only", 100))
	s.start()
	return s
}

func (s *heldSite) hold() {
	s.reads = newGate()
	s.reads.hold(s.proxy, copies)
}

// requireBusy requires that a request is refused in influx-proxy's words, with the
// operation that is in the way.
func (s *heldSite) requireBusy(pathAndQuery, words, holder string) {
	s.t.Helper()
	res, answer := s.do(http.MethodPost, pathAndQuery, nil, "")
	require.Equal(s.t, http.StatusConflict, res.StatusCode, "%s: %s", pathAndQuery, answer)
	require.Regexp(s.t, "^"+regexp.QuoteMeta(words+"\noperation "+holder+"\n")+`\w+, \w+, submitted \S+ ago\n$`, answer, pathAndQuery)
	require.Equal(s.t, holder, res.Header.Get("X-Operation-Id"))
	require.Equal(s.t, "/v1/operations/"+holder, res.Header.Get("Location"))
	require.NotContains(s.t, answer, "accepted")
}

func TestOverlappingCirclesAreRefusedAndDisjointOnesRunSideBySide(t *testing.T) {
	t.Parallel()
	s := newHeldSite(t)
	held := s.ask("/recovery?from_circle_id=0&to_circle_id=1")
	s.reads.reached.await(t, "the recovery reads")
	for query, words := range map[string]string{
		"/rebalance?circle_id=0&operation=add":        "circle 0 is migrating",
		"/rebalance?circle_id=1&operation=add":        "circle 1 is migrating",
		"/clear?circle_id=0":                          "circle 0 is migrating",
		"/cleanup?circle_id=1":                        "circle 1 is migrating",
		"/recovery?from_circle_id=0&to_circle_id=1":   "circle 0 or 1 is migrating",
		"/recovery?from_circle_id=1&to_circle_id=2":   "circle 1 or 2 is migrating",
		"/recovery?from_circle_id=2&to_circle_id=0":   "circle 2 or 0 is migrating",
		"/recovery?from_circle_id=2&to_circle_id=1&x": "circle 2 or 1 is migrating",
		"/resync": "circle 0 is migrating",
	} {
		s.requireBusy(query, words, held)
	}
	for _, body := range []string{
		`{"kind":"clear","parameters":{"circle_id":1}}`,
		`{"kind":"recovery","parameters":{"from_circle_id":2,"to_circle_id":1}}`,
		`{"kind":"resync","parameters":{}}`,
	} {
		status, answer := s.post(body, "")
		require.Equal(t, http.StatusConflict, status, answer)
		require.Equal(t, held, answer["operation_id"], answer)
	}
	require.Equal(t, []string{held}, s.listed(), "nothing was started")
	res, state := s.do(http.MethodGet, "/migrate/state", nil, "")
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Contains(t, state, `"circle_id":0,"circle_name":"circle-0","is_migrating":true`)
	require.Contains(t, state, `"circle_id":1,"circle_name":"circle-1","is_migrating":true`)
	require.Contains(t, state, `"circle_id":2,"circle_name":"circle-2","is_migrating":false`)
	// The third circle is free, and dry runs disturb nobody.
	s.complete(s.ask("/clear?circle_id=2"))
	s.complete(s.ask("/rebalance?circle_id=2&operation=add"))
	s.finish(s.ask("/clear?circle_id=0&dry_run=true"), operation.Planned)
	op, err := s.Client.Operation(s.context(), held)
	require.NoError(t, err)
	require.False(t, op.State.Terminal())
	s.reads.release()
	s.succeed(held)
	s.complete(s.ask("/clear?circle_id=1"))
}

func TestResyncConflictsWithEverything(t *testing.T) {
	t.Parallel()
	s := newHeldSite(t)
	held := s.ask("/resync")
	s.reads.reached.await(t, "the resync reads")
	for _, query := range []string{
		"/resync", "/clear?circle_id=2", "/cleanup?circle_id=0", "/rebalance?circle_id=1&operation=add",
		"/recovery?from_circle_id=0&to_circle_id=1", "/recovery?from_circle_id=1&to_circle_id=2",
	} {
		s.requireBusy(query, "proxy is resyncing", held)
	}
	res, state := s.do(http.MethodGet, "/migrate/state", nil, "")
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Contains(t, state, `"is_resyncing":true`)
	require.Equal(t, []string{held}, s.listed(), "nothing was started")
	s.reads.release()
	s.succeed(held)
	s.hold()
	// Any move of any circle is in the way of the next one.
	other := s.ask("/recovery?from_circle_id=0&to_circle_id=2")
	s.requireBusy("/resync", "circle 0 is migrating", other)
	s.reads.release()
	s.succeed(other)
	s.succeed(s.ask("/resync"))
}

// Moves whose circles overlap two by two, asked for at once: the circles of one are
// taken all or none, so exactly one of each handful begins, and nothing stays taken.
func TestScopesAreTakenAllOrNone(t *testing.T) {
	t.Parallel()
	s := newHeldSite(t)
	var mu sync.Mutex
	var accepted []string
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			path := fmt.Sprintf("/recovery?from_circle_id=%d&to_circle_id=%d", i%3, (i+1)%3)
			if i%4 == 3 {
				path = "/resync"
			}
			res, raw, err := s.Client.Do(bounded(t), http.MethodPost, path, nil, nil)
			if err != nil {
				t.Errorf("%s: %v", path, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case res.StatusCode == http.StatusAccepted:
				accepted = append(accepted, res.Header.Get("X-Operation-Id"))
			case res.StatusCode != http.StatusConflict || !strings.Contains(string(raw), "operation "):
				t.Errorf("%s: %s: %s", path, res.Status, raw)
			}
		})
	}
	all.Wait()
	require.GreaterOrEqual(t, len(accepted), 1)
	s.reads.release()
	for _, id := range accepted {
		s.finish(id, operation.Succeeded)
	}
	require.ElementsMatch(t, accepted, s.listed())
	s.succeed(s.ask("/resync"))
}
