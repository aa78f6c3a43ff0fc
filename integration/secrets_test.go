package integration_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// disguises lists the forms in which a secret could lie somewhere: as it is, as
// JSON or a URL writes it, in hexadecimal, and inside any base64 text.
func disguises(t *testing.T, secret string) [][]byte {
	t.Helper()
	quoted, err := json.Marshal(secret)
	require.NoError(t, err)
	all := [][]byte{
		[]byte(secret), bytes.Trim(quoted, `"`), []byte(url.QueryEscape(secret)), []byte(url.PathEscape(secret)),
		[]byte(hex.EncodeToString([]byte(secret))),
	}
	for shift := range 3 {
		raw := append(make([]byte, shift), secret...)
		raw = raw[:len(raw)-len(raw)%3]
		for _, e := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			text := e.EncodeToString(raw)
			// The first characters also hold what stands before the secret.
			all = append(all, []byte(text[4:]))
		}
	}
	return all
}

// evidence is everything that came out of the programs, by where.
type evidence struct {
	t  *testing.T
	mu sync.Mutex
	by map[string][]byte
}

func (e *evidence) add(where string, what []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.by[where] = append(e.by[where], what...)
}

// requireNone requires that none of the secrets is anywhere.
func (e *evidence) requireNone(secrets map[string]string) {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, secret := range secrets {
		for _, form := range disguises(e.t, secret) {
			for where, what := range e.by {
				if at := bytes.Index(what, form); at >= 0 {
					from, to := max(0, at-200), min(len(what), at+200)
					e.t.Errorf("the %s is in %s as %q: …%q…", name, where, form, what[from:to])
				}
			}
		}
	}
}

// follow collects a feed until the test ends.
func (in *installation) follow(path string, into *evidence) {
	in.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, in.Client.URL+path, nil)
	require.NoError(in.t, err)
	req.Header.Set("Accept", "text/event-stream")
	res, err := http.DefaultClient.Do(req)
	require.NoError(in.t, err)
	require.Equal(in.t, http.StatusOK, res.StatusCode)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer res.Body.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := res.Body.Read(buf)
			into.add("the feed "+path, buf[:n])
			if err != nil {
				return
			}
		}
	}()
	in.t.Cleanup(func() {
		cancel()
		<-done
	})
}

// getRoutes lists the GET routes of the contract that the api itself serves.
func (in *installation) getRoutes() []string {
	in.t.Helper()
	res, contract := in.do(http.MethodGet, "/v1/openapi.yaml", nil, "")
	require.Equal(in.t, http.StatusOK, res.StatusCode)
	var routes []string
	path := ""
	for line := range strings.Lines(contract) {
		switch line = strings.TrimRight(line, "\n"); {
		case strings.HasPrefix(line, "  /"):
			path = strings.TrimSuffix(strings.TrimSpace(line), ":")
		case line == "    get:" && path != "":
			routes = append(routes, path)
		case line == "components:":
			path = ""
		}
	}
	require.Greater(in.t, len(routes), 20, "the routes of the contract: %v", routes)
	return routes
}

// collect asks every GET route about some operations.
func (in *installation) collect(into *evidence, login http.Header, ids ...string) {
	in.t.Helper()
	for _, id := range ids {
		fill := strings.NewReplacer("{id}", id, "{kind}", "rebalance", "{counter}", "0")
		for _, route := range in.getRoutes() {
			path := fill.Replace(route)
			switch route {
			case "/v1/dead-letters/{id}":
				path = "/v1/dead-letters/1"
			case "/v1/where":
				path += "?db=db&measurement=m000"
			case "/replica":
				path += "?db=db&meas=m000"
			case "/encrypt":
				path += "?msg=text"
			case "/decrypt":
				path += "?key=consistentcipher&msg=YgvEyuPZlDYAH8sGDkC!Ag"
			case "/migrate/stats", "/transfer/stats":
				path += "?circle_id=0&type=rebalance"
			}
			header := http.Header{"Accept": {"application/json"}}
			if !strings.HasPrefix(path, "/v1/") && path != "/metrics" {
				header.Set("Authorization", login.Get("Authorization"))
			}
			res, body := in.do(http.MethodGet, path, header, "")
			if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusNoContent && !strings.HasPrefix(route, "/debug/pprof") {
				require.Contains(in.t, body, "no_", "GET %s: %s: %s", path, res.Status, body)
			}
			var all bytes.Buffer
			require.NoError(in.t, res.Header.Write(&all))
			all.WriteString(body)
			into.add("GET "+route, all.Bytes())
		}
	}
}

// collectFiles reads every file below a directory.
func collectFiles(t *testing.T, dir string, into *evidence) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		files++
		into.add(path, raw)
		return err
	})
	require.NoError(t, err)
	require.Greater(t, files, 20, "the store of JetStream is among them")
}

func TestCredentialsAppearNowhere(t *testing.T) {
	t.Parallel()
	secrets := map[string]string{
		"name at the circle's backends":     "circle-user-Zq7wPk",
		"password of the circle's backends": "circle-Password-9fTtXa21",
		"name at the removed backend":       "removed-user-Yv3kLm",
		"password of the removed backend":   `removed & "Pass" <word> Kp4+Rz/8`,
		"wrong password":                    "wrong-Password-Hh2sWq77",
		"password of the dialect":           "dialect-Password-Mm5jBn33",
	}
	circle := func() *backend {
		return startGuarded(t, secrets["name at the circle's backends"], secrets["password of the circle's backends"])
	}
	b := []*backend{circle(), circle(), startGuarded(t, secrets["name at the removed backend"], secrets["password of the removed backend"])}
	b[2].fill("db", 10, 300)
	in := install(t)
	in.Settings = map[string]any{"username": "operator", "password": secrets["password of the dialect"]}
	require.NoError(t, in.WriteCircles(harness.Circle{Name: "circle", Backends: []harness.Backend{b[0].configured("a"), b[1].configured("b")}}))
	found := &evidence{t: t, by: map[string][]byte{}}
	said, err := exec.CommandContext(bounded(t), filepath.Join(in.Bin, "api"), "-config", in.ConfigFile(), "-check").CombinedOutput()
	require.NoError(t, err, "%s", said)
	found.add("api -check", said)

	in.startAPI("-log-level", "debug", "-patience", "1s")
	in.startWorker("-log-level", "debug", "-patience", "1s")
	in.follow("/v1/feed", found)
	gone := b[2].configured("gone")
	op := in.rebalanceRemove(0, []harness.Backend{gone})
	in.follow("/v1/operations/"+op.ID+"/events", found)
	in.succeed(op.ID)
	in.requireMoved(0, b[2:], b[:2], "db")

	// By the dialect, with a password that is wrong.
	login := http.Header{}
	login.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("operator:"+secrets["password of the dialect"])))
	wrong := gone
	wrong.Password = secrets["wrong password"]
	res, answer := in.do(http.MethodPost, "/rebalance?circle_id=0&operation=rm", login, asJSON(t, map[string]any{"backends": []harness.Backend{wrong}}))
	require.Equal(t, http.StatusAccepted, res.StatusCode, answer)
	failed := in.finish(res.Header.Get("X-Operation-Id"), operation.Failed)
	require.Contains(t, failed.Error.Detail, "401")
	found.add("the error of a wrong password", []byte(failed.Error.Detail))

	// Requests that are refused, with credentials in them.
	inURL := gone
	inURL.URL = strings.Replace(gone.URL, "http://", "http://"+url.UserPassword(gone.Username, secrets["wrong password"]).String()+"@", 1)
	backends := asJSON(t, map[string]any{"backends": []harness.Backend{inURL}})
	native := func(removed string) string {
		return `{"kind":"rebalance","parameters":{"circle_id":0,"operation":"rm","removed_backends":` + removed + `}}`
	}
	array := asJSON(t, []harness.Backend{inURL})
	for path, bodies := range map[string][]string{
		"/rebalance?circle_id=0&operation=rm": {backends, backends[:len(backends)-20], `{"backends":[{"password":["` + wrong.Password + `"]}]}`, wrong.Password},
		"/v1/operations": {
			native(array), native(array[:len(array)-20]), native(`[{"name":"x","url":"` + inURL.URL + `"}]`),
			native(`["` + wrong.Password + `"]`), native(`"` + wrong.Password + `"`), wrong.Password, `"` + wrong.Password + `"`,
		},
	} {
		for _, body := range bodies {
			header := http.Header{}
			if strings.HasPrefix(path, "/rebalance") {
				header = login.Clone()
			}
			header.Set("Content-Type", "application/json")
			res, answer := in.do(http.MethodPost, path, header, body)
			require.Equal(t, http.StatusBadRequest, res.StatusCode, "%s: %s", body, answer)
			found.add("the refusal of a body at "+path, []byte(answer))
		}
	}
	bad := http.Header{}
	bad.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("operator:"+wrong.Password)))
	res, answer = in.do(http.MethodGet, "/migrate/state", bad, "")
	require.Equal(t, http.StatusUnauthorized, res.StatusCode)
	found.add("the refusal of a login", []byte(answer))

	in.collect(found, login, op.ID, failed.ID)
	collectFiles(t, in.DataDir(), found)
	for _, p := range in.programs() {
		_, err := p.Stop()
		require.NoError(t, err)
		found.add(fmt.Sprintf("the output of process %d", p.PID()), []byte(p.Output()))
	}
	collectFiles(t, in.DataDir(), found)
	found.requireNone(secrets)

	// The search finds what is there.
	found.add("a place", []byte("Basic "+base64.StdEncoding.EncodeToString([]byte("me:"+wrong.Password))))
	require.True(t, slices.ContainsFunc(disguises(t, wrong.Password), func(form []byte) bool { return bytes.Contains(found.by["a place"], form) }))
	require.Contains(t, string(found.by["the feed /v1/feed"]), op.ID)
	require.Contains(t, string(found.by["GET /v1/operations/{id}/plan"]), gone.URL)
}
