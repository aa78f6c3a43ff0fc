package httpapi_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/httpapi/httpapitest"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/topology"
)

// serveOne asks the handler without a network. It reports a server error; a
// panic would be one, since the engine turns it into a 500.
func serveOne(t *testing.T, h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	t.Helper()
	r.RemoteAddr, r.Host = "127.0.0.1:1", "127.0.0.1"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code >= 500 && w.Code != http.StatusNotImplemented {
		t.Fatalf("%s %s: %d %s", r.Method, r.URL, w.Code, w.Body)
	}
	return w
}

func request(method, path, query, contentType, body string) *http.Request {
	r := httptest.NewRequest(method, "/", strings.NewReader(body))
	r.URL = &url.URL{Path: path, RawQuery: query}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return r
}

// checkAccepted: 202 and a submission go together, and what is submitted carries
// no sealed credentials of the client's making.
func checkAccepted(t *testing.T, b *httpapitest.Backend, w *httptest.ResponseRecorder) {
	t.Helper()
	accepted := len(b.Submitted())
	if (w.Code == http.StatusAccepted) != (accepted == 1) || accepted > 1 {
		t.Fatalf("answered %d, submitted %d", w.Code, accepted)
	}
	if accepted == 1 && strings.Contains(string(b.Submitted()[0].Parameters), `"sealed"`) {
		t.Fatalf("sealed credentials were let through: %s", b.Submitted()[0].Parameters)
	}
}

// FuzzMoves asks any verb for anything. What is accepted is what the kind's own
// parser takes, and a move that is refused leaves nothing behind.
func FuzzMoves(f *testing.F) {
	verbs := []string{"/rebalance", "/recovery", "/resync", "/clear", "/cleanup"}
	kinds := []operation.Kind{operation.KindRebalance, operation.KindRecovery, operation.KindResync, operation.KindClear, operation.KindClear}
	for verb := range verbs {
		n := uint8(verb)
		f.Add(n, "circle_id=0&operation=add&from_circle_id=0&to_circle_id=1", "", "")
		f.Add(n, "circle_id=0&operation=add&db=a,b&cpus=2&ha_addrs=a:1,b:2&dry_run=true&depth=digest", "", "")
		f.Add(n, "circle_id=0&operation=rm", "application/json", `{"backends":[{"name":"a","url":"http://h:1","username":"","password":""}]}`)
		f.Add(n, "", "application/x-www-form-urlencoded", "circle_id=1&operation=add&worker=5&batch=1&from_circle_id=1&to_circle_id=0")
		f.Add(n, "", "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"circle_id\"\r\n\r\n0\r\n--x--\r\n")
		f.Add(n, "circle_id=%zz;", "text/plain", "{")
		f.Add(n, "from_circle_id=0&to_circle_id=1&days=1&hours=2&minutes=3&seconds=4&backend_urls=http://127.0.0.1:8089/,http://127.0.0.1:8088", "", "")
		f.Add(n, "from_circle_id=1&to_circle_id=0&since=1700000000&tick=9223372036854775807", "", "")
		f.Add(n, "circle_id=1&older_than_seconds=3162240000&depth=count", "application/json", "{}")
		f.Add(n, "days=106751991167300&seconds=-1", "application/json", "null")
	}
	f.Fuzz(func(t *testing.T, n uint8, query, contentType, body string) {
		verb := int(n) % len(verbs)
		b := httpapitest.NewBackend()
		w := serveOne(t, whole(t, httpapi.Config{}, b), request("POST", verbs[verb], query, contentType, body))
		checkAccepted(t, b, w)
		if b.FlagsSet != 0 {
			t.Fatal("a flag was set")
		}
		for _, r := range b.Submitted() {
			if _, err := operation.ParseMove(kinds[verb], r.Parameters); r.Kind != kinds[verb] || err != nil {
				t.Fatalf("%s submitted %s %s: %v", verbs[verb], r.Kind, r.Parameters, err)
			}
		}
	})
}

// FuzzState sets flags: a refused request sets none, and an accepted one only
// those of circles there are.
func FuzzState(f *testing.F) {
	f.Add("resyncing=true&circle_id=1&migrating=0&transferring=1", "")
	f.Add("circle_id=0", "migrating=t")
	f.Add("circle_id=9&transferring=true&resyncing=1", "")
	f.Fuzz(func(t *testing.T, query, body string) {
		for _, path := range []string{"/migrate/state", "/transfer/state"} {
			b := httpapitest.NewBackend()
			w := serveOne(t, whole(t, httpapi.Config{}, b), request("POST", path, query, "application/x-www-form-urlencoded", body))
			if (w.Code == http.StatusOK) != (b.FlagsSet > 0) {
				t.Fatalf("answered %d, set %d", w.Code, b.FlagsSet)
			}
			for _, circle := range b.MigratingCircles {
				if _, ok := b.Cluster.Circle(circle); !ok {
					t.Fatalf("circle %d was flagged", circle)
				}
			}
		}
	})
}

// FuzzCipher: whatever is encrypted comes back, and whatever else is asked to be
// decrypted does no harm.
func FuzzCipher(f *testing.F) {
	f.Add("admin")
	f.Add("YgvEyuPZlDYAH8sGDkC!Ag")
	f.Add("\x00\xff\n")
	f.Fuzz(func(t *testing.T, message string) {
		h := whole(t, httpapi.Config{}, httpapitest.NewBackend())
		ask := func(path string, q url.Values) string {
			return strings.TrimSuffix(serveOne(t, h, request("GET", path, q.Encode(), "", "")).Body.String(), "\n")
		}
		key := []string{topology.CipherKey}
		ask("/decrypt", url.Values{"key": key, "msg": {message}})
		text := ask("/encrypt", url.Values{"msg": {message}})
		if got := ask("/decrypt", url.Values{"key": key, "msg": {text}}); got != strings.TrimRight(message, "\x00") {
			t.Fatalf("%q came back as %q", message, got)
		}
	})
}

func FuzzSubmit(f *testing.F) {
	f.Add("", `{"kind":"rebalance","parameters":{"circle_id":0,"operation":"add"}}`, "key")
	f.Add("", `{"kind":"rebalance","parameters":{"circle_id":0,"operation":"rm","removed_backends":[{"name":"a","url":"http://h:1","sealed":"x"}]}}`, "")
	f.Add("x=1", `{"kind":"resync","limits":{"points_per_second":null},"hold":true}`, "")
	f.Add("", `{"kind":"recovery","parameters":{"from_circle_id":0,"to_circle_id":1,"since":"2026-07-01T12:00:00Z"}}`, "")
	f.Add("", `{"kind":"clear","parameters":{"circle_id":1,"older_than_seconds":60}}`, "k")
	f.Add("", `[[[[`, "\x00")
	f.Fuzz(func(t *testing.T, query, body, key string) {
		b := httpapitest.NewBackend()
		r := request("POST", "/v1/operations", query, "application/json", body)
		if key != "" {
			r.Header["Idempotency-Key"] = []string{key}
		}
		checkAccepted(t, b, serveOne(t, whole(t, httpapi.Config{}, b), r))
	})
}

// FuzzRequest asks anything of anything that answers and does not stream.
func FuzzRequest(f *testing.F) {
	for _, path := range []string{
		"/ping", "/health", "/replica", "/migrate/state", "/migrate/stats", "/transfer/stats", "/recovery", "/encrypt", "/decrypt", "/v1/operations", "/v1/topology",
		"/v1/operations/" + httpapitest.ID(1), "/v1/operations/" + httpapitest.ID(1) + "/tasks", "/v1/where", "/v1/kinds/rebalance",
		"/v1/events/results/18446744073709551615", "/v1/operations/%2F", "//", "/a/../b", "/readyz/",
	} {
		f.Add("GET", path, "db=a&meas=b&circle_id=0&type=clear&limit=1&cursor=x&pretty=true", "")
		f.Add("POST", path, "resyncing=true&circle_id=1&migrating=0", "a=b")
	}
	f.Fuzz(func(t *testing.T, method, path, query, body string) {
		// Only a request that net/http would have let through.
		if _, err := http.NewRequest(method, "http://h/", nil); err != nil || !strings.HasPrefix(path, "/") {
			return
		}
		b := httpapitest.NewBackend()
		r := request(method, path, query, "application/x-www-form-urlencoded", body)
		r.Header.Set("Accept", "application/json")
		serveOne(t, whole(t, httpapi.Config{}, b), r)
	})
}
