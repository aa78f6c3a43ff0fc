package httpapi_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/httpapi/httpapitest"
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

func FuzzRebalance(f *testing.F) {
	f.Add("circle_id=0&operation=add", "", "")
	f.Add("circle_id=0&operation=add&db=a,b&cpus=2&ha_addrs=a:1,b:2&dry_run=true", "", "")
	f.Add("circle_id=0&operation=rm", "application/json", `{"backends":[{"name":"a","url":"http://h:1","username":"","password":""}]}`)
	f.Add("", "application/x-www-form-urlencoded", "circle_id=1&operation=add&worker=5&batch=1")
	f.Add("", "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"circle_id\"\r\n\r\n0\r\n--x--\r\n")
	f.Add("circle_id=%zz;", "text/plain", "{")
	f.Fuzz(func(t *testing.T, query, contentType, body string) {
		b := httpapitest.NewBackend()
		w := serveOne(t, whole(t, httpapi.Config{}, b), request("POST", "/rebalance", query, contentType, body))
		checkAccepted(t, b, w)
	})
}

func FuzzSubmit(f *testing.F) {
	f.Add("", `{"kind":"rebalance","parameters":{"circle_id":0,"operation":"add"}}`, "key")
	f.Add("", `{"kind":"rebalance","parameters":{"circle_id":0,"operation":"rm","removed_backends":[{"name":"a","url":"http://h:1","sealed":"x"}]}}`, "")
	f.Add("x=1", `{"kind":"resync","limits":{"points_per_second":null},"hold":true}`, "")
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
		"/ping", "/health", "/replica", "/migrate/state", "/migrate/stats", "/transfer/stats", "/recovery", "/v1/operations",
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
