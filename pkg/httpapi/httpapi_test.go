package httpapi_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/httpapi/httpapitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dialect is a small dialect that writes its name into what it refuses.
func dialect(name string, register func(gin.IRouter), claims ...string) httpapi.Dialect {
	return httpapi.Dialect{
		Name: name, Claims: claims, Register: register,
		Refuse: func(w http.ResponseWriter, _ *http.Request, p httpapi.Problem) {
			w.WriteHeader(p.Status)
			_, _ = io.WriteString(w, name+" "+p.Code)
		},
	}
}

// echo answers with what a handler sees of the request.
func echo(c *gin.Context) {
	c.String(http.StatusOK, "%s %s %s %s", c.Request.Method, httpapi.OriginalMethod(c.Request), c.FullPath(), c.Param("id"))
}

func nothing(gin.IRouter) {}

func newEngine(t *testing.T, cfg httpapi.Config, dialects ...httpapi.Dialect) *httpapi.Engine {
	t.Helper()
	e, err := httpapi.New(cfg, dialects...)
	require.NoError(t, err)
	return e
}

func ask(h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, target, reader)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestTheConfigurationIsChecked(t *testing.T) {
	rest := dialect("rest", nothing, "")
	for _, bad := range []struct {
		cfg      httpapi.Config
		dialects []httpapi.Dialect
		want     string
	}{
		{httpapi.Config{}, nil, `no dialect claims ""`},
		{httpapi.Config{}, []httpapi.Dialect{dialect("a", nothing, "/v1")}, `no dialect claims ""`},
		{httpapi.Config{}, []httpapi.Dialect{rest, dialect("b", nothing, "")}, `dialects rest and b both claim ""`},
		{httpapi.Config{Prefix: "/a//b"}, []httpapi.Dialect{rest}, "is not a path"},
		{httpapi.Config{Prefix: "/../b"}, []httpapi.Dialect{rest}, "is not a path"},
		{httpapi.Config{Prefix: "/:id"}, []httpapi.Dialect{rest}, "is not a path"},
		{httpapi.Config{Prefix: "/a?b"}, []httpapi.Dialect{rest}, "is not a path"},
		{httpapi.Config{TrustedProxies: []string{"somewhere"}}, []httpapi.Dialect{rest}, "trusted proxies"},
	} {
		_, err := httpapi.New(bad.cfg, bad.dialects...)
		require.ErrorContains(t, err, bad.want)
	}
}

func TestPathsAreNormalised(t *testing.T) {
	routes := func(r gin.IRouter) {
		r.GET("/", echo)
		r.GET("/things", echo)
		r.GET("/things/:id", echo)
		r.POST("/things", echo)
	}
	for _, prefix := range []string{"", "/", "/a", "a/b/", "/~x-y"} {
		e := newEngine(t, httpapi.Config{Prefix: prefix}, dialect("rest", routes, ""))
		base := strings.TrimSuffix("/"+strings.Trim(prefix, "/"), "/")
		for target, want := range map[string]string{
			"/":                 "GET GET / ",
			"/things":           "GET GET /things ",
			"/things/":          "GET GET /things ",
			"/things///":        "GET GET /things ",
			"/thin%67s":         "GET GET /things ",
			"/things/7":         "GET GET /things/:id 7",
			"/things/7/":        "GET GET /things/:id 7",
			"/things/a%2Fb":     "GET GET /things/:id a/b",
			"/things/a%2fb%3F":  "GET GET /things/:id a/b?",
			"/things/%E2%82%AC": "GET GET /things/:id €",
			"/things/a+b":       "GET GET /things/:id a+b",
			"/things/a%2Bb":     "GET GET /things/:id a+b",
		} {
			w := ask(e, "GET", base+target, "")
			require.Equal(t, http.StatusOK, w.Code, "%s%s: %s", base, target, w.Body)
			require.Equal(t, want, w.Body.String(), "%s%s", base, target)
		}
		require.Equal(t, "POST POST /things ", ask(e, "POST", base+"/things/", "").Body.String(), "no redirect")
		require.Equal(t, "GET HEAD /things ", ask(e, "HEAD", base+"/things", "").Body.String(), "net/http drops the body")
		for _, target := range []string{"//things", "/things//7", "/./things", "/x/../things", "/nothing"} {
			require.Equal(t, http.StatusNotFound, ask(e, "GET", base+target, "").Code, "%s%s", base, target)
		}
		if base != "" {
			require.Equal(t, "GET GET / ", ask(e, "GET", base, "").Body.String())
			for _, target := range []string{"/", "/things", base + "x/things", "/x" + base + "/things"} {
				w := ask(e, "GET", target, "")
				require.Equal(t, http.StatusNotFound, w.Code, target)
				require.Equal(t, "rest no_such_route", w.Body.String())
			}
		}
	}
}

func TestLinksLieBelowThePrefix(t *testing.T) {
	e := newEngine(t, httpapi.Config{Prefix: "/a"}, dialect("rest", func(r gin.IRouter) {
		r.GET("/link", func(c *gin.Context) { c.String(http.StatusOK, "%s", httpapi.Link(c.Request, "/v1/x")) })
	}, ""))
	require.Equal(t, "/a/v1/x", ask(e, "GET", "/a/link", "").Body.String())
}

func TestTheLongestClaimShapesTheRefusal(t *testing.T) {
	e := newEngine(t, httpapi.Config{},
		dialect("native", func(r gin.IRouter) { r.GET("/v1/kinds", echo) }, "/v1"),
		dialect("cockroach", nothing, "/api/v2"),
		dialect("elastic", nothing, "/api"),
		dialect("influx", func(r gin.IRouter) { r.POST("/api/v2/write", echo); r.GET("/ping", echo) }, "", "/api/v2/write"),
	)
	for target, want := range map[string]string{
		"/v1":             "native no_such_route",
		"/v1/x":           "native no_such_route",
		"/v1x":            "influx no_such_route",
		"/api/v2/nodes":   "cockroach no_such_route",
		"/api/v2/write/x": "influx no_such_route",
		"/api/v2/writes":  "cockroach no_such_route",
		"/api/v2":         "cockroach no_such_route",
		"/api/v22":        "elastic no_such_route",
		"/api/x":          "elastic no_such_route",
		"/nothing":        "influx no_such_route",
		"/api/v2/write":   "influx method_not_allowed",
	} {
		require.Equal(t, want, ask(e, "GET", target, "").Body.String(), target)
	}
	w := ask(e, "DELETE", "/v1/kinds", "")
	require.Equal(t, "native method_not_allowed", w.Body.String())
	require.Equal(t, http.StatusMethodNotAllowed, w.Code)
	require.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
	require.Equal(t, "POST", ask(e, "HEAD", "/api/v2/write", "").Header().Get("Allow"))
}

func TestBodiesAreBounded(t *testing.T) {
	read := func(c *gin.Context) {
		n, err := io.Copy(io.Discard, c.Request.Body)
		c.String(http.StatusOK, "%d %v", n, err)
	}
	e := newEngine(t, httpapi.Config{MaxBody: 10}, dialect("rest", func(r gin.IRouter) { r.POST("/x", read) }, ""))
	require.Equal(t, "10 <nil>", ask(e, "POST", "/x", "0123456789").Body.String())
	w := ask(e, "POST", "/x", "0123456789a")
	require.Equal(t, http.StatusRequestEntityTooLarge, w.Code)
	require.Equal(t, "rest body_too_large", w.Body.String())

	// A body that does not say how long it is.
	r := httptest.NewRequest(http.MethodPost, "/x", io.MultiReader(strings.NewReader("0123456789a")))
	r.ContentLength = -1
	rec := httptest.NewRecorder()
	e.ServeHTTP(rec, r)
	require.Contains(t, rec.Body.String(), "too large")
}

// TestAPanicIsAnAnswer: the client learns nothing of it, the log everything.
func TestAPanicIsAnAnswer(t *testing.T) {
	var log bytes.Buffer
	e := newEngine(t, httpapi.Config{
		Logger: slog.New(slog.NewJSONHandler(&log, nil)), NewRequestID: func() string { return "id-1" },
	}, dialect("rest", func(r gin.IRouter) {
		r.GET("/panic", func(*gin.Context) { panic("the secret plan") })
		r.GET("/half", func(c *gin.Context) { c.String(http.StatusOK, "half"); panic("the secret plan") })
		r.GET("/abort", func(*gin.Context) { panic(http.ErrAbortHandler) })
	}, ""))
	w := ask(e, "GET", "/panic?u=admin&p=hush", "")
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.Equal(t, "rest internal", w.Body.String())
	require.Contains(t, log.String(), "the secret plan")
	require.Contains(t, log.String(), "id-1")
	require.NotContains(t, log.String(), "hush")

	require.PanicsWithError(t, http.ErrAbortHandler.Error(), func() { ask(e, "GET", "/half", "") },
		"half an answer must not look whole")
	require.PanicsWithError(t, http.ErrAbortHandler.Error(), func() { ask(e, "GET", "/abort", "") })
}

func TestRequestsHaveIds(t *testing.T) {
	e := newEngine(t, httpapi.Config{NewRequestID: func() string { return "made" }},
		dialect("rest", func(r gin.IRouter) { r.GET("/x", echo) }, ""))
	for given, want := range map[string]string{
		"": "made", "abc-1.2_3": "abc-1.2_3", "a b": "made", "ä": "made", "a\nb": "made", strings.Repeat("x", 65): "made",
	} {
		require.Equal(t, want, ask(e, "GET", "/x", "", "X-Request-Id", given).Header().Get("X-Request-Id"))
	}
	require.Equal(t, "nosniff", ask(e, "GET", "/nothing", "").Header().Get("X-Content-Type-Options"))
}

func TestTheAccessLogHasNoQueries(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	e := newEngine(t, httpapi.Config{Logger: logger, Prefix: "/a"}, dialect("rest", func(r gin.IRouter) { r.GET("/x", echo) }, ""))
	ask(e, "HEAD", "/a/x/?u=admin&p=hush", "", "Authorization", "Bearer hush", "X-Forwarded-For", "192.0.2.7")
	var line map[string]any
	require.NoError(t, json.Unmarshal(log.Bytes(), &line))
	require.Equal(t, "HEAD", line["method"])
	require.Equal(t, "/x", line["path"])
	require.EqualValues(t, 200, line["status"])
	require.Equal(t, "192.0.2.1", line["client"], "httptest's own address: forwarding headers are not believed")
	require.NotContains(t, log.String(), "hush")
}

func TestTrustedProxiesNameTheClient(t *testing.T) {
	e := newEngine(t, httpapi.Config{TrustedProxies: []string{"192.0.2.1"}}, dialect("rest", func(r gin.IRouter) {
		r.GET("/x", func(c *gin.Context) { c.String(http.StatusOK, "%s", c.ClientIP()) })
	}, ""))
	require.Equal(t, "198.51.100.9", ask(e, "GET", "/x", "", "X-Forwarded-For", "198.51.100.9").Body.String())
}

func TestAdminAuth(t *testing.T) {
	request := func(peer, host string, headers ...string) *http.Request {
		r := httptest.NewRequest(http.MethodPost, "http://"+host+"/v1/operations", nil)
		r.RemoteAddr = peer
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		return r
	}
	auth := httpapi.NewAdminAuth("token")
	const local, far = "127.0.0.1:5000", "192.0.2.1:5000"
	for _, example := range []struct {
		name string
		r    *http.Request
		want string
	}{
		{"token from afar", request(far, "h", "Authorization", "Bearer token"), httpapi.PrincipalAdmin},
		{"token in another case", request(far, "h", "Authorization", "bearer token"), httpapi.PrincipalAdmin},
		{"wrong token from afar", request(far, "h", "Authorization", "Bearer tokem"), ""},
		{"longer token", request(far, "h", "Authorization", "Bearer token2"), ""},
		{"no scheme", request(far, "h", "Authorization", "token"), ""},
		{"basic", request(far, "h", "Authorization", "Basic dG9rZW4="), ""},
		{"nothing from afar", request(far, "127.0.0.1"), ""},
		{"nothing on the same machine", request(local, "127.0.0.1:7076"), httpapi.PrincipalLocal},
		{"by name", request(local, "localhost:7076"), httpapi.PrincipalLocal},
		{"IPv6", request("[::1]:5000", "[::1]:7076"), httpapi.PrincipalLocal},
		{"IPv4 in IPv6", request("[::ffff:127.0.0.1]:5000", "127.0.0.1"), httpapi.PrincipalLocal},
		{"token on the same machine", request(local, "127.0.0.1", "Authorization", "Bearer token"), httpapi.PrincipalAdmin},
		{"wrong token on the same machine", request(local, "127.0.0.1", "Authorization", "Bearer x"), ""},
		{"empty token on the same machine", request(local, "127.0.0.1", "Authorization", "Bearer "), ""},
		{"through a proxy", request(local, "127.0.0.1", "X-Forwarded-For", "192.0.2.9"), ""},
		{"through another proxy", request(local, "127.0.0.1", "Forwarded", "for=192.0.2.9"), ""},
		{"a stranger's name for loopback", request(local, "evil.example:7076"), ""},
		{"a page of another site", request(local, "127.0.0.1:7076", "Sec-Fetch-Site", "cross-site"), ""},
		{"a page of another origin", request(local, "127.0.0.1:7076", "Origin", "http://evil.example"), ""},
		{"a page of this origin", request(local, "127.0.0.1:7076", "Origin", "http://127.0.0.1:7076"), httpapi.PrincipalLocal},
		{"no address", request("", "127.0.0.1"), ""},
	} {
		got, ok := auth.Check(example.r)
		require.Equal(t, example.want, got, example.name)
		require.Equal(t, example.want != "", ok, example.name)
	}
	_, ok := httpapi.NewAdminAuth("").Check(request(far, "h", "Authorization", "Bearer "))
	require.False(t, ok, "no token is not the empty token")
}

// contract is read once; reading it is what takes time.
var contract = sync.OnceValues(httpapitest.Load)

// textHandler answers everything with a text.
func textHandler(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, text)
	})
}
