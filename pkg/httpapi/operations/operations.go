// Package operations is the native dialect: /v1 and the health and metrics
// routes. Its words and shapes are those of API.md, section 2.
package operations

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
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
// operation.ErrKeyReused; they start nothing. created is false when the
// idempotency key belongs to an operation that existed already.
type Submitter interface {
	Submit(ctx context.Context, r operation.Request) (op operation.Operation, created bool, err error)
}

// Operations is the projection of all operations that lists are served from. It
// lags behind the records; AsOf says where it is.
type Operations interface {
	Operation(id string) (operation.Operation, bool)
	// List returns at most limit operations, newest first, and the cursor of the
	// next page, empty at the end. It returns progress.ErrCursor for a cursor it
	// did not make.
	List(f operation.Filter, cursor string, limit int) (items []operation.Operation, next string, err error)
	// Open returns the operations that are not terminal.
	Open() []operation.Operation
	AsOf() time.Time
}

// Records are the operations' durable records.
type Records interface {
	// Operation returns operation.ErrNotFound for an id that there is none of.
	Operation(ctx context.Context, id string) (operation.Operation, error)
	// Plan and Report return operation.ErrNotFound while there is none.
	Plan(ctx context.Context, id string) (operation.Plan, error)
	Report(ctx context.Context, id string) (operation.Report, error)
	// Tasks returns at most limit tasks of an operation, in a state or in any,
	// and the cursor of the next page, empty at the end. It returns an
	// *operation.InvalidError for a cursor it did not make.
	Tasks(ctx context.Context, id string, state operation.TaskState, cursor string, limit int) ([]operation.Task, string, error)
	Audit(ctx context.Context, id string) ([]operation.AuditEntry, error)
}

// Serving is what all processes that serve traffic agree on; View is nil until the
// shared record has been read.
type Serving interface {
	View() *serving.View
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

// Flags are the states that a person sets by hand with POST /migrate/state of the
// influx-proxy dialect. All processes share them.
type Flags interface {
	// Flags returns the circles that count as migrating, and whether the cluster
	// counts as resyncing.
	Flags(ctx context.Context) (migrating []int, resyncing bool, err error)
}

// WorkerInfo is one live process that carries tasks out.
type WorkerInfo struct {
	ID      string `json:"id"`
	Host    string `json:"host"`
	Version string `json:"version"`
	// Slots is how many tasks it carries out at once, Busy how many it does now.
	Slots int `json:"slots"`
	Busy  int `json:"busy"`
	// Draining says that it was told to stop: it takes no more tasks.
	Draining bool `json:"draining"`
	// Tasks are the ids of the tasks it holds.
	Tasks     []string  `json:"tasks"`
	StartedAt time.Time `json:"started_at,omitzero"`
	// SeenAt is its last sign of life.
	SeenAt time.Time `json:"seen_at,omitzero"`
}

// Workers lists the live workers.
type Workers interface {
	Workers(ctx context.Context) ([]WorkerInfo, error)
}

// Check is one part that readiness depends on. Run returns nil when the part
// works; it must end when its context does.
type Check struct {
	Name string
	Run  func(ctx context.Context) error
}

// Deps is what the native dialect is made of. Every field without a default is
// required.
type Deps struct {
	Submitter  Submitter
	Controls   Controls
	Leases     Leases
	Operations Operations
	Records    Records
	Topology   Topology
	Serving    Serving
	Prober     Prober
	// Flags are shown with the topology; nil means that nobody can set any.
	Flags   Flags
	Workers Workers
	// DeadLetters are what could not be carried out.
	DeadLetters DeadLetters
	Feed        Feed
	Results     ResultLog
	Checks      []Check
	Doctor      Doctor
	// Metrics serves /metrics.
	Metrics http.Handler
	// AsyncAPI is the contract of the messages, in YAML.
	AsyncAPI []byte
	Auth     *httpapi.AdminAuth
	// Draining is closed when the process is about to stop: streams end then. A
	// nil channel never ends them.
	Draining <-chan struct{}
	// Logger gets the errors that clients are not told the words of; nil drops
	// them.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Heartbeat starts a ticker for a stream; nil means one of 15 seconds.
	Heartbeat func() (tick <-chan time.Time, stop func())
	// MaxStreams bounds the event streams that are open at once; 0 means 256.
	MaxStreams int
}

const (
	heartbeatEvery    = 15 * time.Second
	defaultMaxStreams = 256
)

// room is the native dialect at work.
type room struct {
	Deps
	kinds []kindView
	// streams holds a token for every open stream.
	streams chan struct{}
}

// New returns the native dialect.
func New(d Deps) (httpapi.Dialect, error) {
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Heartbeat == nil {
		d.Heartbeat = func() (<-chan time.Time, func()) {
			t := time.NewTicker(heartbeatEvery)
			return t.C, t.Stop
		}
	}
	if d.MaxStreams <= 0 {
		d.MaxStreams = defaultMaxStreams
	}
	kinds, err := kindViews()
	if err != nil {
		return httpapi.Dialect{}, err
	}
	rm := &room{Deps: d, kinds: kinds, streams: make(chan struct{}, d.MaxStreams)}
	return httpapi.Dialect{
		Name:     "native",
		Claims:   []string{"/v1", "/healthz", "/readyz", "/metrics"},
		Register: rm.register,
		Refuse: func(w http.ResponseWriter, _ *http.Request, p httpapi.Problem) {
			httpapi.WriteProblem(w, p)
		},
	}, nil
}

func (rm *room) register(r gin.IRouter) {
	// Probes of an orchestrator have no token.
	r.GET("/healthz", httpapi.NoQuery, rm.alive)
	r.GET("/readyz", httpapi.NoQuery, rm.ready)

	r.GET("/metrics", rm.Auth.Require, rm.metrics)
	v1 := r.Group("/v1", rm.Auth.Require)
	v1.GET("/openapi.yaml", httpapi.NoQuery, contract(httpapi.OpenAPI()))
	v1.GET("/asyncapi.yaml", httpapi.NoQuery, contract(rm.AsyncAPI))
	v1.GET("/kinds", httpapi.NoQuery, rm.listKinds)
	v1.GET("/kinds/:kind", httpapi.NoQuery, rm.kind)
	v1.GET("/topology", httpapi.NoQuery, rm.topology)
	v1.GET("/where", rm.where)
	v1.GET("/workers", httpapi.NoQuery, rm.workers)
	v1.GET("/leases", httpapi.NoQuery, rm.leases)
	v1.POST("/leases/:key/break", httpapi.NoQuery, rm.breakLease)
	v1.GET("/doctor", httpapi.NoQuery, rm.doctor)
	v1.GET("/dead-letters", rm.listLetters)
	v1.GET("/dead-letters/:id", httpapi.NoQuery, rm.letter)
	v1.POST("/dead-letters/:id/retry", httpapi.NoQuery, rm.retryLetter)
	v1.DELETE("/dead-letters/:id", rm.dropLetter)
	v1.GET("/feed", rm.feed)
	v1.GET("/events/results", httpapi.NoQuery, rm.results)
	v1.GET("/events/results/:counter", httpapi.NoQuery, rm.results)

	v1.POST("/operations", httpapi.NoQuery, rm.submit)
	v1.GET("/operations", rm.list)
	one := v1.Group("/operations/:id")
	one.GET("", httpapi.NoQuery, rm.operation)
	one.GET("/plan", httpapi.NoQuery, rm.plan)
	one.GET("/tasks", rm.tasks)
	one.GET("/report", httpapi.NoQuery, rm.report)
	one.GET("/audit", httpapi.NoQuery, rm.audit)
	one.GET("/events", rm.operationEvents)
	one.POST("/approve", httpapi.NoQuery, rm.control("approval", rm.Controls.Approve))
	one.POST("/pause", httpapi.NoQuery, rm.control("pause", rm.Controls.Pause))
	one.POST("/resume", httpapi.NoQuery, rm.control("resumption", rm.Controls.Resume))
	one.POST("/cancel", httpapi.NoQuery, rm.control("cancellation", rm.Controls.Cancel))
	one.POST("/retry", httpapi.NoQuery, rm.control("retry", rm.Controls.Retry))
	one.PATCH("/limits", httpapi.NoQuery, rm.setLimits)
}

func contract(doc []byte) gin.HandlerFunc {
	return func(c *gin.Context) { c.Data(http.StatusOK, "application/yaml", doc) }
}

// fail answers an error: a refusal in its own words, anything else as
// unavailable, with its words in the log only.
func (rm *room) fail(c *gin.Context, doing string, err error) {
	p, refusal := httpapi.ProblemOf(err, rm.Now())
	if !refusal {
		httpapi.LogError(c.Request.Context(), rm.Logger, c.Request, doing, err)
		p = httpapi.Unavailable()
		c.Header("Retry-After", "1")
	}
	httpapi.WriteProblem(c.Writer, p)
}

// listView is the shape of every list.
type listView[T any] struct {
	Items      []T       `json:"items"`
	NextCursor string    `json:"next_cursor,omitempty"`
	AsOf       time.Time `json:"as_of"`
}

func newList[T any](items []T, next string, asOf time.Time) listView[T] {
	if items == nil {
		items = []T{}
	}
	return listView[T]{Items: items, NextCursor: next, AsOf: asOf.UTC()}
}

// operationView is an operation as it is shown.
type operationView struct {
	operation.Operation
	Links map[string]string `json:"links"`
}

// view renders an operation for the request: without credentials, its lists
// never null, its links below the prefix. asOf stands in where the operation's
// progress carries no time of its own.
func view(r *http.Request, op operation.Operation, asOf time.Time) operationView {
	op = op.Public()
	if op.Scope == nil {
		op.Scope = []string{}
	}
	if op.Conditions == nil {
		op.Conditions = []operation.Condition{}
	}
	if op.Waits == nil {
		op.Waits = []operation.Wait{}
	}
	if len(op.Parameters) == 0 {
		op.Parameters = json.RawMessage("{}")
	}
	if op.Progress.AsOf.IsZero() {
		op.Progress.AsOf = asOf.UTC()
	}
	if op.Progress.Phase == "" {
		op.Progress.Phase = operation.PhasePlan
	}
	self := httpapi.Link(r, location(op.ID))
	links := map[string]string{"self": self}
	for _, sub := range []string{"plan", "tasks", "report", "audit", "events"} {
		links[sub] = self + "/" + sub
	}
	return operationView{Operation: op, Links: links}
}

func location(id string) string { return fmt.Sprintf("/v1/operations/%s", id) }
