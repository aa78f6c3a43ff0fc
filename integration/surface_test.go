package integration_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/topology"
)

// health24 is /health in the shape of 2.4.
type health24 []struct {
	Circle   string `json:"circle"`
	Backends []struct {
		Name      string                    `json:"name"`
		Active    bool                      `json:"active"`
		Load      map[string]map[string]int `json:"load"`
		Error     string                    `json:"error"`
		LoadError string                    `json:"load_error"`
	} `json:"backends"`
}

// health25 is /health in the shape of 2.5.
type health25 struct {
	Status  string `json:"status"`
	Message string `json:"message"`
	Checks  []struct {
		Name    string `json:"name"`
		Message string `json:"message"`
	} `json:"checks"`
	Circles []struct {
		Backends []struct {
			Name    string                    `json:"name"`
			Active  bool                      `json:"active"`
			Healthy bool                      `json:"healthy"`
			Stats   map[string]map[string]int `json:"stats"`
			Error   string                    `json:"error"`
			Note    string                    `json:"note"`
		} `json:"backends"`
	} `json:"circles"`
}

// health asks for /health and returns how old its counts are.
func (in *installation) health(query string, into any) time.Duration {
	in.t.Helper()
	res, body := in.do(http.MethodGet, "/health"+query, nil, "")
	require.Equal(in.t, http.StatusOK, res.StatusCode, body)
	require.NoError(in.t, json.Unmarshal([]byte(body), into), body)
	require.NotEmpty(in.t, res.Header.Get("X-Influxdb-Version"))
	age, err := strconv.ParseFloat(res.Header.Get("X-Load-Age"), 64)
	require.NoError(in.t, err, body)
	return time.Duration(age * float64(time.Second))
}

// counted is a backend's line of counts.
func counted(measurements, inPlace int) map[string]int {
	return map[string]int{"measurements": measurements, "inplace": inPlace, "incorrect": measurements - inPlace}
}

// Backends that want credentials, which the file has encrypted: they are written
// to and read back, and their measurements are counted. The database of the probes
// is nobody's: it is neither counted nor moved.
func TestHealthOfBackendsWithEncryptedCredentials(t *testing.T) {
	t.Parallel()
	const user, password = "admin", "s3cret-of-backends"
	seal := func(text string) string {
		sealed, err := topology.EncryptCredential(topology.CipherKey, text)
		require.NoError(t, err)
		return sealed
	}
	b := []*backend{startGuarded(t, user, password), startGuarded(t, user, password)}
	for _, each := range b {
		each.fill("db", 30, 5)
	}
	in := install(t)
	in.Settings = map[string]any{"circles": []any{map[string]any{"name": "c", "backends": []any{
		map[string]any{"name": "plain", "url": b[0].URL(), "username": user, "password": password},
		map[string]any{"name": "encrypted", "url": b[1].URL(), "username": seal(user), "password": seal(password), "auth_encrypt": true},
	}}}}
	require.NoError(t, in.WriteCircles())
	in.startAPI()
	in.startWorker()

	var h health24
	in.health("", &h)
	require.Empty(t, h[0].Backends[0].LoadError+h[0].Backends[1].LoadError)
	first, second := h[0].Backends[0].Load, h[0].Backends[1].Load
	require.Equal(t, 30, first["db"]["measurements"])
	require.Equal(t, 30, second["db"]["measurements"])
	require.Equal(t, 30, first["db"]["inplace"]+second["db"]["inplace"], "each of both holds what one of them owns")
	require.Equal(t, 30-first["db"]["inplace"], first["db"]["incorrect"])

	var metrics string
	require.Eventually(t, func() bool {
		_, metrics = in.do(http.MethodGet, "/metrics", nil, "")
		return strings.Count(metrics, "ringmaster_backend_stores{") == 2
	}, patience, 100*time.Millisecond, "no write probe has come")
	require.Contains(t, metrics, `ringmaster_backend_stores{backend="encrypted",circle="0"} 1`)
	require.Contains(t, metrics, `ringmaster_backend_measurements{backend="plain",circle="0",place="right"}`)

	in.finish(in.submitOld("circle_id=0&operation=add"), "succeeded")
	require.Equal(t, []string{"db"}, b[0].databases())
	var later health25
	in.health("?stats=true", &later)
	require.Equal(t, "pass", later.Status)
	require.Empty(t, later.Checks)
	for _, each := range later.Circles[0].Backends {
		require.Len(t, each.Stats, 1, "nothing but db: %v", each.Stats)
		require.Empty(t, each.Error+each.Note)
		require.False(t, each.Healthy, "half of its measurements belong elsewhere")
	}
	for _, answer := range []string{metrics, in.API.Output()} {
		require.NotContains(t, answer, password)
	}
}

// A disk that is full and a server that is read-only answer pings. They are told
// from those that are well, with the reason, and so is their recovery.
func TestHealthOfABackendThatDoesNotStore(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 2)
	var words atomic.Pointer[string]
	say := func(text string) { words.Store(&text) }
	say("engine: error writing WAL entry: write /wal/db/autogen/1/_00001.wal: no space left on device")
	target, err := url.Parse(b[0].URL())
	require.NoError(t, err)
	forward := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true},
	}
	full := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body) // whole, so that no answer comes before it
		if err != nil {
			harness.Hangup()
		}
		if said := *words.Load(); said != "" && harness.IsWrite(r) {
			harness.Refuse(http.StatusInternalServerError, said)(w, r)
			return
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(full.Close)
	in := install(t)
	require.NoError(t, in.WriteConfigURLs(full.URL, b[1].URL()))
	in.startAPI()

	until := func(what string, reached func(health25) bool) (h health25) {
		t.Helper()
		require.Eventually(t, func() bool {
			h = health25{}
			in.health("?stats=true", &h)
			return reached(h)
		}, patience, 100*time.Millisecond, what)
		return h
	}
	h := until("the full disk is noticed", func(h health25) bool { return len(h.Checks) == 1 })
	require.Equal(t, "influxdb-0-0", h.Checks[0].Name)
	require.Contains(t, h.Checks[0].Message, "its disk is full: ")
	require.Contains(t, h.Message, "1 of 2 backends cannot be used")
	require.True(t, h.Circles[0].Backends[0].Active)
	require.False(t, h.Circles[0].Backends[0].Healthy)
	require.True(t, h.Circles[0].Backends[1].Healthy)
	_, shown := in.do(http.MethodGet, "/v1/topology", nil, "")
	require.Contains(t, shown, "its disk is full: ")
	require.Contains(t, in.API.Output(), "its disk is full: ")

	say("open /wal/_00002.wal: read-only file system")
	until("the read-only disk is noticed", func(h health25) bool {
		return len(h.Checks) == 1 && strings.Contains(h.Checks[0].Message, "it is read-only: ")
	})
	say("")
	h = until("it is well again", func(h health25) bool { return len(h.Checks) == 0 })
	require.Equal(t, "ready for queries and writes", h.Message)
	require.Equal(t, []string{}, append([]string{}, b[0].databases()...), "the probes' database is nobody's")
	var direct []string
	for _, row := range b[0].Query("SHOW DATABASES")[0].Series[0].Values {
		direct = append(direct, fmt.Sprint(row[0]))
	}
	require.Contains(t, direct, influx.ProbeDatabase)
}

// The figures of /health: 100,000 measurements on six backends.
func TestHealthFigures(t *testing.T) {
	const (
		each    = 100_000
		circles = 2
	)
	b := startBackends(t, 6)
	in := install(t)
	config := make([]harness.Circle, circles)
	for i, x := range b {
		config[i/3].Name = fmt.Sprintf("circle-%d", i/3)
		config[i/3].Backends = append(config[i/3].Backends, x.configured(fmt.Sprintf("b%d", i)))
	}
	require.NoError(t, in.WriteCircles(config...))
	in.startAPI()
	// Every circle holds all measurements, each of them at its owner.
	placements := make([]*topology.Placement, circles)
	parsed, err := os.ReadFile(in.ConfigFile())
	require.NoError(t, err)
	known, err := topology.Parse("proxy.json", parsed)
	require.NoError(t, err)
	owned := map[string]int{}
	for i := range placements {
		placements[i], err = known.Topology().Placement(i)
		require.NoError(t, err)
		lines := map[string]*strings.Builder{}
		for _, x := range config[i].Backends {
			lines[x.Name] = &strings.Builder{}
		}
		for n := range each {
			name := fmt.Sprintf("measurement-%06d", n)
			owner := placements[i].Owner("db", name).Name
			owned[owner]++
			fmt.Fprintf(lines[owner], "%s f=1i 1\n", name)
		}
		for j, x := range config[i].Backends {
			at := b[3*i+j]
			at.exec(`CREATE DATABASE "db"`)
			at.write("db", "autogen", lines[x.Name].String())
		}
	}
	var before health24
	in.do(http.MethodGet, "/ping", nil, "")
	resting := residentOf(t, in.API.PID())

	began := time.Now()
	in.health("", &before)
	first := time.Since(began)
	working := peakOf(t, in.API.PID())
	for i := range before {
		for _, x := range before[i].Backends {
			require.Empty(t, x.LoadError)
			require.Equal(t, counted(owned[x.Name], owned[x.Name]), x.Load["db"], x.Name)
		}
	}
	best := time.Hour
	for range 20 {
		began = time.Now()
		var again health24
		require.Less(t, in.health("", &again), time.Minute)
		best = min(best, time.Since(began))
	}
	t.Logf("%d measurements in each of %d circles on %d backends: first answer %v, cached %v (best of 20), resident %.1f MiB before, %.1f MiB at most after",
		each, circles, len(b), first.Round(time.Millisecond), best.Round(10*time.Microsecond), resting, working)
	if raceEnabled {
		t.Log("not judged: built with the race detector")
		return
	}
	require.Less(t, first, 5*time.Second)
	require.Less(t, best, 5*time.Millisecond)
	require.Less(t, working-resting, 30.0)
}

// residentOf and peakOf are the memory of a process now and at most, in MiB.
func residentOf(t *testing.T, pid int) float64 { return memoryOf(t, pid, "VmRSS:") }
func peakOf(t *testing.T, pid int) float64     { return memoryOf(t, pid, "VmHWM:") }

func memoryOf(t *testing.T, pid int, key string) float64 {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skipf("the memory of a process cannot be read here: %v", err)
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			require.NoError(t, err)
			return kib / 1024
		}
	}
	t.Fatalf("no %s in the status of process %d", key, pid)
	return 0
}
