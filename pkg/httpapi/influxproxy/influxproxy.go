// Package influxproxy is the dialect of influx-proxy, both generations of it:
// 2.4's /migrate/… and 2.5's /transfer/…. Its words and shapes are those of
// influx-proxy's own pages, so that scripts need nothing but another URL.
//
// Two answers differ on purpose. A circle that is busy is 409, where 2.4 said
// 202 and started nothing and 2.5 said 400; the sentence is the same. And a
// measurement counts as done when it has arrived, not when it was planned.
package influxproxy

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// Submitter accepts operations. A nil error means that the operation is durable.
// The errors that are refusals are *operation.InvalidError,
// *operation.ScopeHeldError, *operation.FlaggedError, *operation.NotImplementedError and
// operation.ErrKeyReused; they start nothing.
type Submitter interface {
	Submit(ctx context.Context, r operation.Request) (op operation.Operation, created bool, err error)
}

// Operations is the projection that states and statistics are served from. What
// this process has submitted is in it at once: a script that posts and then
// polls /migrate/state must not see a circle at rest in between.
type Operations interface {
	// Latest returns the newest operation of a kind that holds or held a scope.
	Latest(kind operation.Kind, scope string) (operation.Operation, bool)
	// Open returns the operations that are not terminal.
	Open() []operation.Operation
	AsOf() time.Time
}

// Topology is the topology that this process runs with; Current is nil until
// there is one.
type Topology interface {
	Current() *topology.Topology
}

// Prober knows what the last probe of each backend found, by URL.
type Prober interface {
	Backends(ctx context.Context) map[string]httpapi.BackendStatus
}

// Flags are the states that a person sets by hand with POST /migrate/state.
// All processes share them, and they outlive each.
type Flags interface {
	// Flags returns the circles that count as migrating, and whether the proxy
	// counts as resyncing.
	Flags(ctx context.Context) (migrating []int, resyncing bool, err error)
	SetMigrating(ctx context.Context, circle int, on bool) error
	SetResyncing(ctx context.Context, on bool) error
}

// Serving is what all processes that serve traffic agree on.
type Serving interface {
	View() *serving.View
}

// Deps is what the dialect is made of. Every field without a default is
// required.
type Deps struct {
	Submitter  Submitter
	Operations Operations
	Topology   Topology
	Prober     Prober
	Flags      Flags
	// Loads counts measurements for /health; nil shows none.
	Loads Loads
	// Serving says which backends have writes waiting for them; nil shows none.
	Serving Serving
	// Writer stores what clients write; nil serves no writes.
	Writer Writer
	// Querier runs what clients ask; nil serves no queries. MaxQueryBody bounds the
	// body of one in bytes; 0 means DefaultMaxQueryBody.
	Querier      Querier
	MaxQueryBody int64
	// Version is what X-Influxdb-Version says.
	Version string
	// Username and Password are the configuration's; without any the dialect
	// is open.
	Username, Password string
	// PingAuth asks for them at /ping too.
	PingAuth bool
	// Pprof serves Go's profiles at /debug/pprof to whoever has the dialect's
	// credentials or the admin's token; without credentials in the configuration
	// Admin decides alone. Both are needed.
	Pprof bool
	Admin *httpapi.AdminAuth
	// Logger gets the errors that clients are not told the words of; nil drops
	// them.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// room is the dialect at work.
type room struct {
	Deps
	auth *auth
}

// New returns the dialect.
func New(d Deps) httpapi.Dialect {
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	rm := &room{Deps: d, auth: newAuth(d.Username, d.Password)}
	return httpapi.Dialect{
		Name: "influx-proxy",
		// These three prefixes are InfluxDB's own, inside what other dialects claim.
		Claims:   []string{"", "/api/v2/write", "/api/v2/query", "/api/v1/prom"},
		Register: rm.register,
		Bodies:   slices.Concat(writeRoutes(), queryRoutes()),
		Refuse:   rm.refuse,
	}
}

func (rm *room) register(r gin.IRouter) {
	rm.registerWrites(r)
	rm.registerQueries(r)
	g := r.Group("", rm.version)
	if rm.PingAuth {
		g.GET("/ping", rm.require, noContent)
	} else {
		g.GET("/ping", noContent)
	}
	g.GET("/encrypt", rm.encrypt)
	g.GET("/decrypt", rm.decrypt)
	g.GET("/debug/pprof", rm.profiled, rm.profiles)
	g.GET("/debug/pprof/:profile", rm.profiled, rm.profile)

	g = g.Group("", rm.require)
	g.GET("/health", rm.health)
	g.GET("/replica", rm.replica)
	g.GET("/migrate/state", rm.state(generation24))
	g.POST("/migrate/state", rm.sameOrigin, rm.setState(generation24))
	g.GET("/migrate/stats", rm.stats(generation24))
	g.GET("/transfer/state", rm.state(generation25))
	g.POST("/transfer/state", rm.sameOrigin, rm.setState(generation25))
	g.GET("/transfer/stats", rm.stats(generation25))
	for path, v := range verbs() {
		g.POST(path, rm.sameOrigin, rm.start(v))
	}
}

func noContent(c *gin.Context) { c.Status(http.StatusNoContent) }

// version puts on every answer what InfluxDB's clients look for.
func (rm *room) version(c *gin.Context) { c.Header(versionHeader, rm.Version) }

const (
	versionHeader   = "X-Influxdb-Version"
	errorHeader     = "X-Influxdb-Error"
	operationHeader = "X-Operation-Id"
	asOfHeader      = "X-As-Of"
)

// refuse writes what the engine refuses, in the dialect's words.
func (rm *room) refuse(w http.ResponseWriter, r *http.Request, p httpapi.Problem) {
	if isData(r.URL.Path) {
		refuseData(w, p)
		return
	}
	w.Header().Set(versionHeader, rm.Version)
	text := p.Detail
	switch p.Status {
	case http.StatusNotFound:
		text = "404 page not found"
	case http.StatusMethodNotAllowed:
		text = "method not allow"
	case http.StatusRequestEntityTooLarge:
		text = "request body too large"
	case http.StatusInternalServerError:
		text = "internal error"
	}
	writeText(w, p.Status, text)
}

// sentence writes one line of text, as the dialect answers everything that is
// not JSON.
func sentence(c *gin.Context, status int, text string) { writeText(c.Writer, status, text) }

// fail refuses with a sentence.
func fail(c *gin.Context, status int, text string) {
	c.Header(errorHeader, text)
	sentence(c, status, text)
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n"))
}

// answer writes JSON, indented by four spaces for pretty=true, with a newline
// at the end.
func answer(c *gin.Context, v any) {
	body, err := json.Marshal(v)
	if c.Query("pretty") == "true" {
		body, err = json.MarshalIndent(v, "", "    ")
	}
	if err != nil {
		_ = c.Error(err)
		fail(c, http.StatusInternalServerError, "internal error")
		return
	}
	c.Data(http.StatusOK, "application/json", append(body, '\n'))
}

// unavailable answers an error that is no refusal.
func (rm *room) unavailable(c *gin.Context, doing string, err error) {
	httpapi.LogError(c.Request.Context(), rm.Logger, c.Request, doing, err)
	c.Header("Retry-After", "1")
	fail(c, http.StatusServiceUnavailable, "service unavailable: the records cannot be reached at the moment")
}

// errNotSeeded: the projection has not read the records yet. What it does not
// show may still be running.
var errNotSeeded = errors.New("the operations have not been read yet")

// current returns the topology, or answers that there is none yet.
func (rm *room) current(c *gin.Context) (*topology.Topology, bool) {
	t := rm.Topology.Current()
	if t == nil {
		rm.unavailable(c, "reading the topology", errors.New("no topology is known yet"))
	}
	return t, t != nil
}

// opened returns what every call begins with: the topology and the parameters. It
// answers when there is none, or when they cannot be read.
func (rm *room) opened(c *gin.Context) (*topology.Topology, params, bool) {
	t, ok := rm.current(c)
	if !ok {
		return nil, params{}, false
	}
	p, err := readParams(c.Request)
	if err != nil {
		refuseWith(c, err)
		return nil, params{}, false
	}
	return t, p, true
}
