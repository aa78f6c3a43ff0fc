package influxproxy_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/httpapi/httpapitest"
	"ringmaster/pkg/operation"
)

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

// TestStatsOfEveryType: the newest operation of a type, running or ended, by any
// circle that it holds, and of its rows those of that circle.
func TestStatsOfEveryType(t *testing.T) {
	row := func(total, done int) operation.BackendProgress {
		return operation.BackendProgress{Measurements: operation.Done{Total: total, Done: done}, Moved: done}
	}
	everywhere := map[string]operation.BackendProgress{
		"http://127.0.0.1:8086": row(10, 1), "http://127.0.0.1:8087": row(20, 2),
		"http://127.0.0.1:8088": row(30, 3), "http://127.0.0.1:8089": row(40, 4),
	}
	for _, example := range []struct {
		call  string
		types []string
	}{
		{"/rebalance?circle_id=%&operation=add", []string{"rebalance"}},
		{"/recovery?from_circle_id=0&to_circle_id=1", []string{"recovery"}},
		{"/recovery?from_circle_id=1&to_circle_id=0", []string{"recovery"}},
		{"/resync", []string{"resync"}},
		{"/clear?circle_id=%", []string{"clear", "cleanup"}},
		{"/cleanup?circle_id=%", []string{"cleanup", "clear"}},
	} {
		for _, circle := range []string{"0", "1"} {
			call := strings.Replace(example.call, "%", circle, 1)
			b := httpapitest.NewBackend()
			c := serve(t, b)
			require.Equal(t, "accepted\n", c.Do("POST", call, "").Body)
			require.Equal(t, "accepted\n", c.Do("POST", call, "dry_run=true", httpapitest.Form()).Body, "which is not shown")
			b.Stored[0].Progress = operation.Progress{AsOf: httpapitest.Now().Add(-time.Minute), Backends: everywhere}
			for _, state := range []operation.State{operation.Running, operation.Succeeded, operation.PartiallyFailed, operation.Failed} {
				b.Stored[0].State, b.Stored[1].State = state, operation.Planned
				for _, kind := range example.types {
					w := c.Get("/migrate/stats?circle_id=" + circle + "&type=" + kind)
					require.Equal(t, httpapitest.ID(1), w.Header.Get("X-Operation-Id"), "%s: %s", call, kind)
					want := map[string]int{"http://127.0.0.1:8086": 1, "http://127.0.0.1:8087": 2}
					if circle == "1" {
						want = map[string]int{"http://127.0.0.1:8088": 3, "http://127.0.0.1:8089": 4}
					}
					var rows map[string]map[string]int
					require.NoError(t, json.Unmarshal([]byte(w.Body), &rows))
					require.Len(t, rows, len(want))
					for url, done := range want {
						require.Equal(t, done, rows[url]["measurement_done"])
						require.Equal(t, done*10, rows[url]["measurement_total"])
						require.Equal(t, done, rows[url]["migrate_count"])
					}
				}
			}
		}
	}
}

// TestStatsOfOtherTypesStayApart: an operation shows under its own type only.
func TestStatsOfOtherTypesStayApart(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)
	for _, call := range calls {
		c.Do("POST", call, "")
	}
	for kind, id := range map[string]string{
		"rebalance": httpapitest.ID(1), "recovery": httpapitest.ID(2), "resync": httpapitest.ID(3), "clear": httpapitest.ID(5), "cleanup": httpapitest.ID(5),
	} {
		require.Equal(t, id, c.Get("/migrate/stats?circle_id=0&type="+kind).Header.Get("X-Operation-Id"), kind)
		require.Equal(t, id, c.Get("/transfer/stats?circle_id=0&type="+kind).Header.Get("X-Operation-Id"), kind)
	}
	require.Equal(t, httpapitest.ID(2), c.Get("/migrate/stats?circle_id=1&type=recovery").Header.Get("X-Operation-Id"))
	require.Empty(t, c.Get("/migrate/stats?circle_id=1&type=clear").Header.Get("X-Operation-Id"))
}
