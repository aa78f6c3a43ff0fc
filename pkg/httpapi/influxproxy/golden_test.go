package influxproxy_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/httpapi/httpapitest"
	"ringmaster/pkg/httpapi/influxproxy"
)

// TestAnswersOfTheSeedPage asks for every example of influx-proxy's page and
// compares the answer byte for byte with what it shows. The page's text has lost
// the indentation, which influx-proxy makes of four spaces.
func TestAnswersOfTheSeedPage(t *testing.T) {
	unused := map[string]bool{}
	files, err := filepath.Glob("testdata/seed/*.golden")
	require.NoError(t, err)
	for _, file := range files {
		unused[file] = true
	}
	for _, example := range []struct {
		name, golden, method, target, body string
		options                            []httpapitest.Option
		status                             int
		// oneBackend: the page's example has no more.
		oneBackend bool
	}{
		{name: "health", method: "GET", target: "/health?pretty=true", oneBackend: true},
		{name: "replica", method: "GET", target: "/replica?db=db1&meas=cpu1&pretty=true"},
		{name: "encrypt", method: "GET", target: "/encrypt?msg=admin"},
		{name: "decrypt", method: "GET", target: "/decrypt?key=consistentcipher&msg=YgvEyuPZlDYAH8sGDkC!Ag"},
		{name: "state", method: "GET", target: "/migrate/state?pretty=true"},
		{name: "resyncing", method: "POST", target: "/migrate/state?resyncing=true&pretty=true"},
		{name: "migrating", method: "POST", target: "/migrate/state?circle_id=0&migrating=true&pretty=true"},
		{name: "stats", method: "GET", target: "/migrate/stats?circle_id=0&type=rebalance&pretty=true"},
		{name: "stats of a recovery", golden: "stats", method: "GET", target: "/migrate/stats?circle_id=0&type=recovery&pretty=true"},
		{name: "stats of a resync", golden: "stats", method: "GET", target: "/migrate/stats?circle_id=0&type=resync&pretty=true"},
		{name: "stats of a clear", golden: "stats", method: "GET", target: "/migrate/stats?circle_id=0&type=clear&pretty=true"},
		{
			name: "rebalance after adding", golden: "accepted", method: "POST", status: http.StatusAccepted,
			target: "/rebalance?circle_id=0&operation=add&ha_addrs=127.0.0.1:7076,127.0.0.1:7077",
		},
		{
			name: "rebalance after removing", golden: "accepted", method: "POST", status: http.StatusAccepted,
			target: "/rebalance?circle_id=0&operation=rm&cpus=2", options: []httpapitest.Option{httpapitest.JSON()},
			body: `{
    "backends": [
        {
            "name": "influxdb-1-2",
            "url": "http://127.0.0.1:8087",
            "username": "",
            "password": ""
        }
    ]
}`,
		},
		{name: "recovery", golden: "accepted", method: "POST", status: http.StatusAccepted, target: "/recovery?from_circle_id=0&to_circle_id=1"},
		{
			name: "recovery of one backend", golden: "accepted", method: "POST", status: http.StatusAccepted,
			target: "/recovery?from_circle_id=0&to_circle_id=1&backend_urls=http://127.0.0.1:8089",
		},
		{name: "resync", golden: "accepted", method: "POST", status: http.StatusAccepted, target: "/resync?cpus=2"},
		{name: "clear", golden: "accepted", method: "POST", status: http.StatusAccepted, target: "/clear?circle_id=0&cpus=2"},
	} {
		t.Run(example.name, func(t *testing.T) {
			if example.golden == "" {
				example.golden = example.name
			}
			if example.status == 0 {
				example.status = http.StatusOK
			}
			b := httpapitest.NewBackend()
			// By their names, the backends of the page own what it says they do.
			b.Cluster.HashKey = "name"
			if example.oneBackend {
				b.Cluster.Circles = b.Cluster.Circles[:1]
				b.Cluster.Circles[0].Backends = b.Cluster.Circles[0].Backends[:1]
			}
			counted := func(d *influxproxy.Deps) {
				d.Loads = counts{"influxdb-1-1": {TakenAt: httpapitest.Now(), Databases: map[string]influxproxy.Count{
					"db1": {Measurements: 2, InPlace: 2}, "db2": {Measurements: 1, InPlace: 1},
				}}}
			}
			w := serve(t, b, counted).Do(example.method, example.target, example.body, example.options...)
			file := filepath.Join("testdata", "seed", example.golden+".golden")
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, example.status, w.Status)
			require.Equal(t, string(want), w.Body)
			require.Equal(t, "2.5.12", w.Header.Get("X-Influxdb-Version"))
			delete(unused, file)
		})
	}
	require.Empty(t, unused, "every file is an answer")
}

// counts are what has been counted at the backends, by name.
type counts map[string]influxproxy.BackendLoad

func (c counts) Loads(context.Context) map[string]influxproxy.BackendLoad { return c }

// TestAnswersInOneLine: without pretty=true, the same answers in one line.
func TestAnswersInOneLine(t *testing.T) {
	c := serve(t, httpapitest.NewBackend())
	for target, want := range map[string]string{
		"/migrate/state":  `{"circles":[{"circle_id":0,"circle_name":"circle-1","is_migrating":false},{"circle_id":1,"circle_name":"circle-2","is_migrating":false}],"is_resyncing":false}`,
		"/transfer/state": `{"circles":[{"id":0,"name":"circle-1","transferring":false},{"id":1,"name":"circle-2","transferring":false}],"resyncing":false}`,
		"/migrate/stats?circle_id=1&type=clear": `{"http://127.0.0.1:8088":{"database_total":0,"database_done":0,"measurement_total":0,"measurement_done":0,"migrate_count":0,"inplace_count":0},` +
			`"http://127.0.0.1:8089":{"database_total":0,"database_done":0,"measurement_total":0,"measurement_done":0,"migrate_count":0,"inplace_count":0}}`,
		"/transfer/stats?circle_id=1&type=cleanup": `{"http://127.0.0.1:8088":{"database_total":0,"database_done":0,"measurement_total":0,"measurement_done":0,"transfer_count":0,"inplace_count":0},` +
			`"http://127.0.0.1:8089":{"database_total":0,"database_done":0,"measurement_total":0,"measurement_done":0,"transfer_count":0,"inplace_count":0}}`,
	} {
		require.Equal(t, want+"\n", c.Get(target).Body, target)
	}
}
