package influxproxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/httpapi/httpapitest"
	"ringmaster/pkg/httpapi/influxproxy"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// loads is what has been counted.
type loads map[string]influxproxy.BackendLoad

func (l loads) Loads(context.Context) map[string]influxproxy.BackendLoad { return l }

func with(l loads) func(*influxproxy.Deps) {
	return func(d *influxproxy.Deps) { d.Loads = l }
}

// The example of the seed page, byte for byte: its text has lost the indentation.
func TestHealthOfTheSeedPage(t *testing.T) {
	b := httpapitest.NewBackend()
	b.Cluster = &topology.Topology{
		Epoch: 1, HashKey: "idx", ShardKey: "%db,%mm", VNodes: 256,
		Circles: []topology.Circle{{Name: "circle-1", Backends: b.Cluster.Circles[0].Backends[:1]}},
	}
	c := serve(t, b, with(loads{"influxdb-1-1": {
		Databases: map[string]influxproxy.Count{"db1": {Measurements: 2, InPlace: 2}, "db2": {Measurements: 1, InPlace: 1}},
		TakenAt:   httpapitest.Now().Add(-1500 * time.Millisecond),
	}}))
	w := c.Get("/health?pretty=true")
	require.Equal(t, http.StatusOK, w.Status)
	require.Equal(t, `[
    {
        "backends": [
            {
                "active": true,
                "backlog": false,
                "load": {
                    "db1": {
                        "incorrect": 0,
                        "inplace": 2,
                        "measurements": 2
                    },
                    "db2": {
                        "incorrect": 0,
                        "inplace": 1,
                        "measurements": 1
                    }
                },
                "name": "influxdb-1-1",
                "rewrite": false,
                "url": "http://127.0.0.1:8086"
            }
        ],
        "circle": "circle-1"
    }
]
`, w.Body)
	require.Equal(t, "1.500", w.Header.Get("X-Load-Age"))
	require.Equal(t, "2.5.12", w.Header.Get("X-Influxdb-Version"))
}

func TestHealthShowsCountsAndWhyThereAreNone(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)
	require.NotContains(t, c.Get("/health").Header, "X-Load-Age", "nothing is counted")

	c = serve(t, b, with(loads{
		"influxdb-1-1": {
			Databases: map[string]influxproxy.Count{"db": {Measurements: 5, InPlace: 3}},
			TakenAt:   httpapitest.Now().Add(-time.Minute), Error: "its measurements could not be counted: it hangs",
		},
		"influxdb-1-2": {Databases: map[string]influxproxy.Count{"empty": {}}, TakenAt: httpapitest.Now()},
		"influxdb-2-1": {Error: "its measurements are being counted"},
	}))
	w := c.Get("/health")
	require.Equal(t, "60.000", w.Header.Get("X-Load-Age"), "the oldest")
	require.Contains(t, w.Body, `"load":{"db":{"incorrect":2,"inplace":3,"measurements":5}},"name":"influxdb-1-1"`)
	require.Contains(t, w.Body, `"load_error":"its measurements could not be counted: it hangs"`)
	require.Contains(t, w.Body, `"load":{"empty":{"incorrect":0,"inplace":0,"measurements":0}},"name":"influxdb-1-2"`)
	require.Contains(t, w.Body, `"load":{},"name":"influxdb-2-1","rewrite":false,"url":"http://127.0.0.1:8088","load_error":"its measurements are being counted"`)

	w = c.Get("/health?stats=true")
	require.Equal(t, "60.000", w.Header.Get("X-Load-Age"))
	require.Contains(t, w.Body, `"healthy":false,"name":"influxdb-1-1","rewriting":false,"stats":{"db":{"incorrect":2,"inplace":3,"measurements":5}}`)
	require.Contains(t, w.Body, `"stats_error":"its measurements could not be counted: it hangs"`)
	require.Contains(t, w.Body, `"healthy":true,"name":"influxdb-1-2"`)
	require.Contains(t, w.Body, `"checks":[]`, "a measurement at a wrong place keeps nobody from using a backend")
	require.Contains(t, w.Body, `"message":"ready for queries and writes","name":"influx-proxy","status":"pass"`)
}

func TestHealthSaysWhichBackendsCannotBeUsed(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)
	full := b.Probes["http://127.0.0.1:8086"]
	full.Unwritable, full.Error = true, "its disk is full: no space left on device"
	b.Probes["http://127.0.0.1:8086"] = full
	noted := b.Probes["http://127.0.0.1:8087"]
	noted.Note = "pinged only: db_list does not allow it"
	b.Probes["http://127.0.0.1:8087"] = noted

	type object struct {
		Checks []struct {
			Message, Name, Status string
		}
		Message, Status string
	}
	ask := func() (h object) {
		t.Helper()
		require.NoError(t, json.Unmarshal([]byte(c.Get("/health?stats=true").Body), &h))
		return h
	}
	h := ask()
	require.Equal(t, "pass", h.Status, "every circle answers")
	require.Len(t, h.Checks, 1)
	require.Equal(t, "influxdb-1-1", h.Checks[0].Name)
	require.Equal(t, "fail", h.Checks[0].Status)
	require.Equal(t, "its disk is full: no space left on device", h.Checks[0].Message)
	require.Equal(t, "1 of 4 backends cannot be used: influxdb-1-1: its disk is full: no space left on device", h.Message)
	body := c.Get("/health?stats=true").Body
	require.Contains(t, body, `"active":true,"backlog":false,"healthy":false,"name":"influxdb-1-1"`)
	require.Contains(t, body, `"note":"pinged only: db_list does not allow it"`)
	require.Contains(t, c.Get("/health").Body, `"error":"its disk is full: no space left on device"`)

	b.Probes["http://127.0.0.1:8088"] = httpapi.BackendStatus{CheckedAt: httpapitest.Now(), Error: "connection refused"}
	h = ask()
	require.Equal(t, "pass", h.Status, "the first circle still answers everything")
	require.Contains(t, h.Message, "2 of 4 backends cannot be used: influxdb-1-1: ")
	require.Contains(t, h.Message, "(and 1 more)")
	delete(b.Probes, "http://127.0.0.1:8087")
	h = ask()
	require.Equal(t, "fail", h.Status, "no circle has all its backends")
	require.Len(t, h.Checks, 3)
	require.Equal(t, "it has not been asked yet", h.Checks[1].Message)
}

// A backend that has writes waiting for it says so, and whether they are on their way.
func TestHealthShowsTheBacklog(t *testing.T) {
	b := httpapitest.NewBackend()
	url := b.Cluster.Circles[0].Backends[1].URL
	c := serve(t, b)
	shown := func(backlog, rewrite bool) {
		t.Helper()
		require.Contains(t, c.Get("/health").Body, fmt.Sprintf(`"backlog":%t,"load":{},"name":"influxdb-1-2","rewrite":%t`, backlog, rewrite))
		require.Contains(t, c.Get("/health?stats=true").Body, fmt.Sprintf(`"name":"influxdb-1-2","rewriting":%t`, rewrite))
	}
	shown(false, false)
	modes := []serving.Mode{serving.Direct, serving.Suspect, serving.Hinting, serving.Draining, serving.Handover, serving.Direct}
	for i, to := range modes[1:] {
		var err error
		b.State, err = b.State.WithMode(url, modes[i], to, "down", httpapitest.Now())
		require.NoError(t, err)
		shown(to != serving.Direct, to == serving.Draining || to == serving.Handover)
	}
}
