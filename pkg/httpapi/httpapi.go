// Package httpapi is the ground floor of the HTTP side: one engine that every
// dialect is mounted on, and what all of them need once (request
// normalisation, refusals in the caller's dialect, body limits, recovery from
// panics, problem documents, event streams, the admin token).
//
// The contract is openapi.yaml, embedded here and served at /v1/openapi.yaml.
// The handlers live in one room a dialect below this package; they parse, call
// one service and render, and touch no backend.
package httpapi

import (
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
)

//go:embed openapi.yaml
var openAPI []byte

// OpenAPI returns the HTTP contract as YAML. The caller must not change it.
func OpenAPI() []byte { return openAPI }

// DefaultMaxBody bounds a request's body unless the configuration says
// otherwise.
const DefaultMaxBody = 1 << 20

// Config is what the engine itself needs to know.
type Config struct {
	// Prefix is the path below which everything is served, such as
	// "/ringmaster"; empty or "/" serves at the root.
	Prefix string
	// MaxBody bounds a request's body in bytes; 0 means DefaultMaxBody.
	MaxBody int64
	// TrustedProxies are the addresses or networks of reverse proxies whose
	// forwarding headers name the client. Without any, the client is whoever
	// holds the connection.
	TrustedProxies []string
	// Logger gets the access log (debug level) and the errors; nil drops them.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// NewRequestID makes the id of a request that brought none; nil means a
	// random one.
	NewRequestID func() string
}

// Dialect is one room's face towards the engine.
type Dialect struct {
	// Name is for logs.
	Name string
	// Claims are the path prefixes, each of whole segments, that decide whose
	// shape a refusal has; the longest claim wins. Exactly one dialect claims
	// "", the rest.
	Claims []string
	// Register mounts the dialect's routes. Paths are full paths without the
	// configured prefix. A GET route answers HEAD as well.
	Register func(r gin.IRouter)
	// Bodies are the routes, as they are registered, whose handlers bound what they
	// read of a body themselves: Config.MaxBody is not for them.
	Bodies []string
	// Refuse writes what no handler of the dialect got to say: 404, 405 (Allow
	// is set), 413 and 500. Nothing has been written before.
	Refuse func(w http.ResponseWriter, r *http.Request, p Problem)
}

// Route is one method and path that the engine serves.
type Route struct{ Method, Path string }

// Engine serves all dialects on one port.
type Engine struct {
	cfg      Config
	gin      *gin.Engine
	dialects []Dialect
	claims   []claim
	bodies   map[string]bool // the routes of Dialect.Bodies
}

// claim is one entry of the table that decides the shape of a refusal.
type claim struct {
	prefix  string
	dialect *Dialect
}

// New builds the engine. The error says what is wrong with the configuration
// or with the dialects' claims.
func New(cfg Config, dialects ...Dialect) (*Engine, error) {
	prefix, err := cleanPrefix(cfg.Prefix)
	if err != nil {
		return nil, err
	}
	cfg.Prefix = prefix
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = DefaultMaxBody
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.NewRequestID == nil {
		cfg.NewRequestID = rand.Text
	}

	e := &Engine{cfg: cfg, dialects: dialects, bodies: map[string]bool{}}
	if err := e.claim(); err != nil {
		return nil, err
	}
	// Debug mode, gin's default, prints to stdout.
	gin.SetMode(gin.ReleaseMode)
	e.gin = gin.New()
	e.gin.RedirectTrailingSlash = false
	e.gin.HandleMethodNotAllowed = true
	e.gin.UseRawPath = true
	e.gin.UnescapePathValues = true
	if err := e.gin.SetTrustedProxies(cfg.TrustedProxies); err != nil {
		return nil, fmt.Errorf("trusted proxies: %w", err)
	}
	e.gin.Use(e.observe, e.recover, e.limitBody)
	e.gin.NoRoute(e.notFound)
	e.gin.NoMethod(e.methodNotAllowed)
	for i := range dialects {
		dialects[i].Register(e.gin)
		for _, route := range dialects[i].Bodies {
			e.bodies[route] = true
		}
	}
	return e, nil
}

// claim builds the table of claims, longest first.
func (e *Engine) claim() error {
	seen := map[string]string{}
	for i := range e.dialects {
		d := &e.dialects[i]
		for _, prefix := range d.Claims {
			if other, taken := seen[prefix]; taken {
				return fmt.Errorf("dialects %s and %s both claim %q", other, d.Name, prefix)
			}
			seen[prefix] = d.Name
			e.claims = append(e.claims, claim{prefix, d})
		}
	}
	if _, ok := seen[""]; !ok {
		return errors.New(`no dialect claims "", the rest of all paths`)
	}
	slices.SortStableFunc(e.claims, func(a, b claim) int { return len(b.prefix) - len(a.prefix) })
	return nil
}

// dialectOf returns the dialect that a path, without the prefix, belongs to.
func (e *Engine) dialectOf(path string) *Dialect {
	for _, c := range e.claims {
		if rest, ok := strings.CutPrefix(path, c.prefix); ok && (rest == "" || rest[0] == '/' || c.prefix == "") {
			return c.dialect
		}
	}
	return nil // unreachable: "" is always claimed
}

// Routes lists what is served, without the HEAD routes that GET implies.
func (e *Engine) Routes() []Route {
	var routes []Route
	for _, r := range e.gin.Routes() {
		routes = append(routes, Route{Method: r.Method, Path: r.Path})
	}
	return routes
}

// notFound refuses a path that no dialect serves.
func (e *Engine) notFound(c *gin.Context) {
	e.refuse(c.Writer, c.Request, Problem{
		Status: http.StatusNotFound, Code: "no_such_route",
		Detail: "there is nothing at " + c.Request.URL.Path,
		Hint:   "GET /v1/openapi.yaml lists every route",
	})
}

// methodNotAllowed refuses a method; gin has set Allow, to which HEAD belongs
// wherever GET does.
func (e *Engine) methodNotAllowed(c *gin.Context) {
	allowed := strings.Split(c.Writer.Header().Get("Allow"), ", ")
	if slices.Contains(allowed, http.MethodGet) {
		allowed = append(allowed, http.MethodHead)
	}
	slices.Sort(allowed)
	allow := strings.Join(allowed, ", ")
	c.Header("Allow", allow)
	e.refuse(c.Writer, c.Request, Problem{
		Status: http.StatusMethodNotAllowed, Code: "method_not_allowed",
		Detail: "this path does not answer " + OriginalMethod(c.Request),
		Hint:   "use " + allow,
	})
}

// refuse answers in the shape of the path's dialect.
func (e *Engine) refuse(w http.ResponseWriter, r *http.Request, p Problem) {
	e.dialectOf(r.URL.Path).Refuse(w, r, p)
}
