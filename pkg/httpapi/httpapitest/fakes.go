package httpapitest

import (
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"ringmaster/pkg/doctor"
	"ringmaster/pkg/gateway/ingest"
	"ringmaster/pkg/gateway/query"
	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/httpapi/operations"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/progress"
	"ringmaster/pkg/prom"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// Now is the moment at which everything in the fakes happens.
func Now() time.Time { return time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC) }

// ID returns the id of the fakes' n-th operation.
func ID(n int) string { return fmt.Sprintf("01980000-0000-7000-8000-%012d", n) }

// Cluster is the topology of the seed page: two circles of two backends.
func Cluster() *topology.Topology {
	t := &topology.Topology{
		Epoch: 1, HashKey: "idx", ShardKey: "%db,%mm", VNodes: 256,
		CreatedAt: Now(), Source: "proxy.json",
		Circles: []topology.Circle{
			{ID: 0, Name: "circle-1", Backends: []topology.Backend{
				{
					Name: "influxdb-1-1", URL: "http://127.0.0.1:8086", Sealed: Secret,
					Credentials: topology.Credentials{Username: Secret, Password: Secret},
				},
				{Name: "influxdb-1-2", URL: "http://127.0.0.1:8087"},
			}},
			{ID: 1, Name: "circle-2", Backends: []topology.Backend{
				{Name: "influxdb-2-1", URL: "http://127.0.0.1:8088"},
				{Name: "influxdb-2-2", URL: "http://127.0.0.1:8089"},
			}},
		},
	}
	t.Digest = t.ComputeDigest()
	return t
}

// Secret stands for every credential in the fakes; no answer may contain it.
const Secret = "s3cret-that-nobody-may-see"

// Backend is the system behind the handlers, faked. It is safe for concurrent
// use through its methods; tests set its fields before they ask.
type Backend struct {
	mu sync.Mutex

	// Requests are the submissions, in order.
	Requests []operation.Request
	// SubmitErr is what Submit returns instead of accepting.
	SubmitErr error
	// ControlErr is what every verb fails with.
	ControlErr error
	intents    map[string]operation.Intent
	// Stored are the operations, oldest first. Submit adds to them.
	Stored []operation.Operation
	// Unseen are the ids that the projection does not show yet.
	Unseen []string
	// At is the projection's AsOf.
	At time.Time
	// Plans, Reports, Task and Trail are what the records hold, the first two by
	// operation.
	Plans   map[string]operation.Plan
	Reports map[string]operation.Report
	Task    []operation.Task
	Trail   []operation.AuditEntry
	// RecordsErr is what reading the records returns.
	RecordsErr error

	Cluster *topology.Topology
	// State and Revision are how it is served.
	State    serving.State
	Revision uint64
	Probes   map[string]httpapi.BackendStatus
	Live     []operations.WorkerInfo
	LiveErr  error
	// Findings are what the doctor finds.
	Findings []doctor.Finding

	MigratingCircles []int
	ResyncingFlag    bool
	FlagsErr         error
	FlagsSet         int

	Stream     []progress.FeedEvent
	StreamErr  error
	Subscribed chan uint64
	More       chan progress.FeedEvent
	Messages   []progress.Message

	// Dead are the dead letters; RetryErr is what retrying one returns. Asked says who
	// has retried and dropped them.
	Dead     []operation.DeadLetter
	RetryErr error
	Asked    []operation.Intent

	// Written are the writes, their bodies read; WriteErr is what each returns.
	Written  []Written
	WriteErr error
}

// Written is a write that has been accepted.
type Written struct {
	ingest.Request

	Lines string
}

// Write keeps a write.
func (b *Backend) Write(_ context.Context, r ingest.Request) error {
	lines, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	r.Body = nil
	b.Written = append(b.Written, Written{Request: r, Lines: string(lines)})
	return b.WriteErr
}

// NewBackend returns a backend with the seed's cluster and nothing going on.
func NewBackend() *Backend {
	probes := map[string]httpapi.BackendStatus{}
	for _, circle := range Cluster().Circles {
		for _, b := range circle.Backends {
			probes[b.URL] = httpapi.BackendStatus{Active: true, Version: "1.8.3", CheckedAt: Now()}
		}
	}
	return &Backend{
		At: Now(), Cluster: Cluster(), Probes: probes,
		Plans: map[string]operation.Plan{}, Reports: map[string]operation.Report{},
		Subscribed: make(chan uint64, 16), More: make(chan progress.FeedEvent),
	}
}

// Submitted returns the requests that were submitted.
func (b *Backend) Submitted() []operation.Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.Requests)
}

// flagged is what a flag set by hand refuses; as the intake does, whether or not
// the flags can be read.
func (b *Backend) flagged(r operation.Request) error {
	if r.DryRun {
		return nil
	}
	p, unknown := operation.ParseMove(r.Kind, r.Parameters)
	if unknown != nil {
		return nil //nolint:nilerr // what is wrong with it, others say
	}
	if b.FlagsErr != nil {
		return b.FlagsErr
	}
	for _, circle := range p.Circles(len(b.Cluster.Circles)) {
		if slices.Contains(b.MigratingCircles, circle) {
			return &operation.FlaggedError{Circle: circle}
		}
	}
	if b.ResyncingFlag {
		return &operation.FlaggedError{Resyncing: true}
	}
	return nil
}

// Submit records the request and accepts it, unless SubmitErr or a flag is set.
func (b *Backend) Submit(_ context.Context, r operation.Request) (operation.Operation, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.flagged(r); err != nil {
		return operation.Operation{}, false, err
	}
	b.Requests = append(b.Requests, r)
	if b.SubmitErr != nil {
		return operation.Operation{}, false, b.SubmitErr
	}
	op := operation.Operation{
		ID: ID(len(b.Stored) + 1), Kind: r.Kind, State: operation.Queued, DryRun: r.DryRun, Limits: r.Limits,
		Parameters: r.Parameters, Reason: r.Reason, RequestedBy: r.RequestedBy,
		CreatedAt: Now(), Epoch: 1, Attempt: 1, Round: 1,
	}
	if p, err := operation.ParseMove(r.Kind, r.Parameters); err == nil && !r.DryRun {
		op.Scope = operation.CircleScopes(p, len(b.Cluster.Circles))
	}
	b.Stored = append(b.Stored, op)
	return op, true, nil
}

// Controls is the face of b that steers operations: verbs change states as the state
// machine has it, or fail with ControlErr.
type Controls struct{ *Backend }

// Approve lets a held operation run.
func (c Controls) Approve(_ context.Context, id string, by operation.Intent) (operation.Operation, error) {
	return c.steer(id, "approve", by, operation.AwaitingApproval, operation.Running)
}

// Pause pauses a running operation.
func (c Controls) Pause(_ context.Context, id string, by operation.Intent) (operation.Operation, error) {
	return c.steer(id, "pause", by, operation.Running, operation.Paused)
}

// Resume resumes a paused operation.
func (c Controls) Resume(_ context.Context, id string, by operation.Intent) (operation.Operation, error) {
	return c.steer(id, "resume", by, operation.Paused, operation.Running)
}

// Cancel cancels a running operation.
func (c Controls) Cancel(_ context.Context, id string, by operation.Intent) (operation.Operation, error) {
	return c.steer(id, "cancel", by, operation.Running, operation.Cancelled)
}

// Retry queues a cancelled operation.
func (c Controls) Retry(_ context.Context, id string, by operation.Intent) (operation.Operation, error) {
	return c.steer(id, "retry", by, operation.Cancelled, operation.Queued)
}

// SetLimits changes the limits of an operation that is not terminal.
func (c Controls) SetLimits(_ context.Context, id string, change operation.LimitsPatch, by operation.Intent) (operation.Operation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.Stored {
		op := &c.Stored[i]
		switch {
		case op.ID != id:
			continue
		case op.State.Terminal():
			return *op, &operation.StateError{ID: id, State: op.State, Verb: "limits"}
		}
		op.Limits = change.Apply(op.Limits)
		if c.intents == nil {
			c.intents = map[string]operation.Intent{}
		}
		c.intents["limits"] = by
		return *op, nil
	}
	return operation.Operation{}, operation.ErrNotFound
}

// Intents returns what was asked of operations, by verb.
func (b *Backend) Intents() map[string]operation.Intent {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.intents)
}

func (c Controls) steer(id, verb string, by operation.Intent, from, to operation.State) (operation.Operation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ControlErr != nil {
		return operation.Operation{}, c.ControlErr
	}
	for i := range c.Stored {
		op := &c.Stored[i]
		switch {
		case op.ID != id:
			continue
		case op.State != from:
			return *op, &operation.StateError{ID: id, State: op.State, Verb: verb}
		}
		op.State = to
		if c.intents == nil {
			c.intents = map[string]operation.Intent{}
		}
		c.intents[verb] = by
		return *op, nil
	}
	return operation.Operation{}, operation.ErrNotFound
}

// Leases implements operations.Leases with one lease of operation 1.
func (b *Backend) Leases(context.Context) ([]operations.Lease, error) {
	return []operations.Lease{{Key: "operation." + ID(1), Holder: "api-1", OperationID: ID(1), RenewedAt: Now(), ExpiresAt: Now().Add(10 * time.Second)}}, nil
}

// Break breaks that lease.
func (b *Backend) Break(_ context.Context, key string, by operation.Intent) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ControlErr != nil {
		return false, b.ControlErr
	}
	if b.intents == nil {
		b.intents = map[string]operation.Intent{}
	}
	b.intents["break"] = by
	return key == "operation."+ID(1), nil
}

// WritePrometheus is Write: nothing is read of the body but its bytes.
func (b *Backend) WritePrometheus(ctx context.Context, r ingest.Request) error {
	return b.Write(ctx, r)
}

// Querier answers every query with nothing found.
type Querier struct{}

// Serve implements influxproxy.Querier.
func (Querier) Serve(_ context.Context, w query.Reply, _ *query.Request) error {
	w.Header().Set("Content-Type", "application/json")
	_, err := io.WriteString(w, `{"results":[{"statement_id":0}]}`+"\n")
	return err
}

// Hand implements influxproxy.Querier.
func (q Querier) Hand(ctx context.Context, w query.Reply, _ *query.Handed) error {
	return q.Serve(ctx, w, nil)
}

// ReadProm implements influxproxy.Querier.
func (Querier) ReadProm(_ context.Context, w query.Reply, _ *query.Handed, _ *prom.Read, _ string) error {
	w.Header().Set("Content-Type", prom.ContentType)
	return nil
}

// Operations is the projection's face of b.
type Operations struct{ *Backend }

// Operation finds an operation that the projection shows.
func (o Operations) Operation(id string) (operation.Operation, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if slices.Contains(o.Unseen, id) {
		return operation.Operation{}, false
	}
	return o.find(id)
}

func (b *Backend) find(id string) (operation.Operation, bool) {
	for _, op := range b.Stored {
		if op.ID == id {
			return op, true
		}
	}
	return operation.Operation{}, false
}

// List pages through the operations, newest first; a cursor is an id.
func (o Operations) List(f operation.Filter, cursor string, limit int) ([]operation.Operation, string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	started := cursor == ""
	var items []operation.Operation
	for _, op := range slices.Backward(o.Stored) {
		if !started {
			started = op.ID == cursor
			continue
		}
		if !f.Match(&op) {
			continue
		}
		if len(items) == limit {
			return items, items[limit-1].ID, nil
		}
		items = append(items, op)
	}
	if !started {
		return nil, "", progress.ErrCursor
	}
	return items, "", nil
}

// Latest finds the newest operation of a kind and scope.
func (o Operations) Latest(kind operation.Kind, scope string) (operation.Operation, bool) {
	items, _, _ := o.List(operation.Filter{Kind: kind, Scope: scope}, "", 1)
	if len(items) == 0 {
		return operation.Operation{}, false
	}
	return items[0], true
}

// Open lists what is not terminal.
func (o Operations) Open() []operation.Operation {
	items, _, _ := o.List(operation.Filter{}, "", 1000)
	return slices.DeleteFunc(items, func(op operation.Operation) bool { return op.State.Terminal() })
}

// AsOf returns At.
func (o Operations) AsOf() time.Time { return o.At }

// Records is the ledger's face of b.
type Records struct{ *Backend }

// Operation finds any operation.
func (r Records) Operation(_ context.Context, id string) (operation.Operation, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.RecordsErr != nil {
		return operation.Operation{}, r.RecordsErr
	}
	if op, ok := r.find(id); ok {
		return op, nil
	}
	return operation.Operation{}, operation.ErrNotFound
}

// Plan returns one of Plans.
func (r Records) Plan(_ context.Context, id string) (operation.Plan, error) {
	if p, ok := r.Plans[id]; ok {
		return p, r.RecordsErr
	}
	return operation.Plan{}, operation.ErrNotFound
}

// Report returns one of Reports.
func (r Records) Report(_ context.Context, id string) (operation.Report, error) {
	if p, ok := r.Reports[id]; ok {
		return p, r.RecordsErr
	}
	return operation.Report{}, operation.ErrNotFound
}

// Tasks returns Task; the only cursor it knows is "next".
func (r Records) Tasks(_ context.Context, _ string, state operation.TaskState, cursor string, limit int) ([]operation.Task, string, error) {
	if r.RecordsErr != nil {
		return nil, "", r.RecordsErr
	}
	if cursor != "" && cursor != "next" {
		return nil, "", httpapi.BadCursor()
	}
	items := slices.DeleteFunc(slices.Clone(r.Task), func(t operation.Task) bool { return state != "" && t.State != state })
	if len(items) > limit {
		return items[:limit], "next", nil
	}
	return items, "", nil
}

// Audit returns Trail.
func (r Records) Audit(context.Context, string) ([]operation.AuditEntry, error) {
	return r.Trail, r.RecordsErr
}

// Current returns the topology.
func (b *Backend) Current() *topology.Topology { return b.Cluster }

// View returns the topology with State; nil without a topology, or with one that
// cannot be.
func (b *Backend) View() *serving.View {
	if b.Cluster == nil {
		return nil
	}
	v, err := serving.NewView(b.Revision, b.Cluster, b.State)
	if err != nil {
		return nil
	}
	return v
}

// Backends returns Probes.
func (b *Backend) Backends(context.Context) map[string]httpapi.BackendStatus { return b.Probes }

// Workers returns Live.
func (b *Backend) Workers(context.Context) ([]operations.WorkerInfo, error) {
	return slices.Clone(b.Live), b.LiveErr
}

// Examine returns Findings.
func (b *Backend) Examine(context.Context) []doctor.Finding { return slices.Clone(b.Findings) }

// Flags returns the flags set so far.
func (b *Backend) Flags(context.Context) ([]int, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.MigratingCircles), b.ResyncingFlag, b.FlagsErr
}

// SetMigrating sets or clears a circle's flag.
func (b *Backend) SetMigrating(_ context.Context, circle int, on bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.FlagsSet++
	if b.FlagsErr != nil {
		return b.FlagsErr
	}
	b.MigratingCircles = slices.DeleteFunc(b.MigratingCircles, func(c int) bool { return c == circle })
	if on {
		b.MigratingCircles = append(b.MigratingCircles, circle)
	}
	return nil
}

// SetResyncing sets or clears the proxy's flag.
func (b *Backend) SetResyncing(_ context.Context, on bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.FlagsSet++
	b.ResyncingFlag = on
	return b.FlagsErr
}

// Last returns the sequence of the last event of Stream.
func (b *Backend) Last(context.Context) (uint64, error) {
	if b.StreamErr != nil || len(b.Stream) == 0 {
		return 0, b.StreamErr
	}
	return b.Stream[len(b.Stream)-1].Sequence, nil
}

// Subscribe yields Stream and then what is sent to More; it tells Subscribed
// where it began.
func (b *Backend) Subscribe(ctx context.Context, operationID string, after uint64) iter.Seq2[progress.FeedEvent, error] {
	return func(yield func(progress.FeedEvent, error) bool) {
		b.Subscribed <- after
		for _, e := range b.Stream {
			if e.Sequence > after && (operationID == "" || e.OperationID == operationID) && !yield(e, nil) {
				return
			}
		}
		for {
			select {
			case e, open := <-b.More:
				if !open {
					yield(progress.FeedEvent{}, b.StreamErr)
					return
				}
				if !yield(e, nil) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// Page returns a part of Stream.
func (b *Backend) Page(_ context.Context, operationID string, after uint64, limit int) (progress.FeedPage, error) {
	page := progress.FeedPage{Next: after}
	for _, e := range b.Stream {
		if e.Sequence > after && (operationID == "" || e.OperationID == operationID) && len(page.Events) < limit {
			page.Events = append(page.Events, e)
			page.Next = e.Sequence
		}
	}
	return page, b.StreamErr
}

// Read returns Messages from a position on.
func (b *Backend) Read(counter uint64) (uint64, []progress.Message) {
	end := uint64(len(b.Messages))
	if counter > end {
		counter = 0
	}
	return end, b.Messages[counter:]
}
