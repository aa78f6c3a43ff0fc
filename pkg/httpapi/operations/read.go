package operations

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/progress"
)

func (rm *room) list(c *gin.Context) {
	q, err := httpapi.Query(c.Request, "state", "kind", "scope", "since", "until", "limit", "cursor")
	if err != nil {
		rm.fail(c, "", err)
		return
	}
	limit, cursor, err := httpapi.Page(q)
	f := operation.Filter{State: operation.State(q.Get("state")), Kind: operation.Kind(q.Get("kind")), Scope: q.Get("scope")}
	switch {
	case err != nil:
	case q.Has("state") && !f.State.Valid():
		err = &operation.InvalidError{Field: "state", Problem: "is not a state", Hint: fmt.Sprintf("use one of %v", operation.States())}
	case q.Has("kind") && !f.Kind.Valid():
		err = &operation.InvalidError{Field: "kind", Problem: "is not a kind", Hint: fmt.Sprintf("use one of %v", operation.Kinds())}
	case q.Has("scope") && f.Scope == "":
		err = &operation.InvalidError{Field: "scope", Problem: "is empty", Hint: "leave it out, or use one such as circle/0"}
	default:
		f.Since, f.Until, err = span(q)
	}
	if err != nil {
		rm.fail(c, "", err)
		return
	}
	// Read before the list, so that it never claims more than the list shows.
	asOf := rm.Operations.AsOf()
	if asOf.IsZero() {
		// Before the records have been read an empty list would be a lie.
		rm.fail(c, "listing operations", progress.ErrNotReady)
		return
	}
	ops, next, err := rm.Operations.List(f, cursor, limit)
	if errors.Is(err, progress.ErrCursor) {
		err = httpapi.BadCursor()
	}
	if err != nil {
		rm.fail(c, "listing operations", err)
		return
	}
	items := make([]operationView, len(ops))
	for i, op := range ops {
		items[i] = view(c.Request, op, asOf)
	}
	httpapi.JSON(c, http.StatusOK, newList(items, next, asOf))
}

// span reads since and until; a zero time is one that was not given.
func span(q url.Values) (since, until time.Time, err error) {
	if since, err = httpapi.Moment(q, "since"); err != nil {
		return since, until, err
	}
	until, err = httpapi.Moment(q, "until")
	if err == nil && !since.IsZero() && !until.IsZero() && !since.Before(until) {
		err = &operation.InvalidError{Field: "until", Problem: "is not later than since", Hint: "until is not included: give a later time"}
	}
	return since, until, err
}

func (rm *room) operation(c *gin.Context) {
	op, asOf, ok := rm.find(c)
	if !ok {
		return
	}
	httpapi.JSON(c, http.StatusOK, view(c.Request, op, asOf))
}

// find returns the operation that the path names, from the projection or, while
// that has not caught up with a submission, from the records. When there is
// none it has answered.
func (rm *room) find(c *gin.Context) (operation.Operation, time.Time, bool) {
	id := c.Param("id")
	if !validID(id) {
		rm.noID(c)
		return operation.Operation{}, time.Time{}, false
	}
	asOf := rm.Operations.AsOf()
	if op, ok := rm.Operations.Operation(id); ok {
		return op, asOf, true
	}
	now := rm.Now()
	op, err := rm.Records.Operation(c.Request.Context(), id)
	if err != nil {
		rm.fail(c, "reading an operation", err)
		return operation.Operation{}, time.Time{}, false
	}
	return op, now, true
}

// noID answers for a path that does not name an operation.
func (rm *room) noID(c *gin.Context) {
	httpapi.WriteProblem(c.Writer, httpapi.Problem{
		Status: http.StatusBadRequest, Code: "invalid", Field: "id",
		Detail: "id: is not the id of an operation", Hint: "an id is a UUID, as POST /v1/operations answers it",
	})
}

// validID admits the canonical form of a UUID and nothing else.
func validID(id string) bool {
	parsed, err := uuid.Parse(id)
	return err == nil && parsed.String() == id
}

// planView is a plan as it is shown: its durations have their unit in the name,
// and lists with nothing in them are empty.
type planView struct {
	operation.Plan
	Policies []policyView `json:"policies"`
	// Refusals is shown where somebody has looked for them, even if there are none.
	Refusals *[]operation.Refusal `json:"refusals,omitempty"`
}

type policyView struct {
	// Backend is an index in the plan's backends.
	Backend              int     `json:"backend"`
	Database             string  `json:"database"`
	Name                 string  `json:"name"`
	DurationSeconds      float64 `json:"duration_seconds"`
	ShardDurationSeconds float64 `json:"shard_duration_seconds"`
	Replication          int     `json:"replication"`
	Default              bool    `json:"default"`
}

func newPlanView(p operation.Plan) planView {
	// What an approval is held against is nothing to look at.
	p.Schema = nil
	v := planView{Plan: p, Policies: make([]policyView, len(p.Policies))}
	for i, policy := range p.Policies {
		v.Policies[i] = policyView{
			Backend: policy.Backend, Database: policy.Database, Name: policy.Name,
			DurationSeconds: policy.Duration.Seconds(), ShardDurationSeconds: policy.ShardDuration.Seconds(),
			Replication: policy.Replication, Default: policy.Default,
		}
	}
	if p.EstimateSource != "" {
		v.Refusals = new(append([]operation.Refusal{}, p.Refusals...))
	}
	v.Backends = append([]operation.PlanBackend{}, p.Backends...)
	v.Moves = append([]operation.PlanMove{}, p.Moves...)
	v.Measurements = append([]operation.PlanMeasurement{}, p.Measurements...)
	v.Tasks = append([]operation.PlanTask{}, p.Tasks...)
	v.Chunks = append([]operation.Document{}, p.Chunks...)
	return v
}

func (rm *room) plan(c *gin.Context) {
	document(rm, c, "plan", func(ctx context.Context, id string) (planView, error) {
		p, err := rm.Records.Plan(ctx, id)
		return newPlanView(p), err
	})
}

func (rm *room) report(c *gin.Context) {
	document(rm, c, "report", rm.Records.Report)
}

// document answers with something that an operation gets as it goes.
func document[T any](rm *room, c *gin.Context, what string, read func(context.Context, string) (T, error)) {
	op, _, ok := rm.find(c)
	if !ok {
		return
	}
	doc, err := read(c.Request.Context(), op.ID)
	if errors.Is(err, operation.ErrNotFound) {
		httpapi.WriteProblem(c.Writer, httpapi.Problem{
			Status: http.StatusNotFound, Code: "no_" + what, OperationID: op.ID,
			Detail: fmt.Sprintf("the operation, which is %s, has no %s", op.State, what),
		})
		return
	}
	if err != nil {
		rm.fail(c, "reading a "+what, err)
		return
	}
	c.Header("X-As-Of", rm.Now().UTC().Format(time.RFC3339))
	httpapi.JSON(c, http.StatusOK, doc)
}

// taskView is a task as it is shown: its slices are counted, its evidence stays
// in the record.
type taskView struct {
	operation.Task
	Slices     sliceCounts `json:"slices"`
	Checkpoint *struct{}   `json:"checkpoint,omitempty"`
}

type sliceCounts struct {
	Total      int `json:"total"`
	Finished   int `json:"finished"`
	Failed     int `json:"failed"`
	HandedOver int `json:"handed_over"`
	// Kept are those that a clear has left where they are.
	Kept int `json:"kept"`
}

func newTaskView(t operation.Task) taskView {
	v := taskView{Task: t, Slices: sliceCounts{Total: t.SliceCount()}}
	for _, e := range t.Checkpoint {
		switch {
		case e.State == operation.SliceFailed:
			v.Slices.Failed++
		case e.State == operation.SliceHandedOver:
			v.Slices.HandedOver++
		case e.State == operation.SliceKept:
			v.Slices.Kept++
		case e.State.Finished():
			v.Slices.Finished++
		}
	}
	return v
}

func (rm *room) tasks(c *gin.Context) {
	q, err := httpapi.Query(c.Request, "state", "limit", "cursor")
	if err != nil {
		rm.fail(c, "", err)
		return
	}
	limit, cursor, err := httpapi.Page(q)
	state := operation.TaskState(q.Get("state"))
	if err == nil && q.Has("state") && !validTaskState(state) {
		err = &operation.InvalidError{Field: "state", Problem: "is not a task's state", Hint: "use waiting, running, done or failed"}
	}
	if err != nil {
		rm.fail(c, "", err)
		return
	}
	op, _, ok := rm.find(c)
	if !ok {
		return
	}
	now := rm.Now()
	tasks, next, err := rm.Records.Tasks(c.Request.Context(), op.ID, state, cursor, limit)
	if err != nil {
		rm.fail(c, "reading tasks", err)
		return
	}
	items := make([]taskView, len(tasks))
	for i, t := range tasks {
		items[i] = newTaskView(t)
	}
	httpapi.JSON(c, http.StatusOK, newList(items, next, now))
}

func validTaskState(s operation.TaskState) bool {
	switch s {
	case operation.TaskWaiting, operation.TaskRunning, operation.TaskDone, operation.TaskFailed:
		return true
	default:
		return false
	}
}

func (rm *room) audit(c *gin.Context) {
	op, _, ok := rm.find(c)
	if !ok {
		return
	}
	now := rm.Now()
	entries, err := rm.Records.Audit(c.Request.Context(), op.ID)
	if err != nil {
		rm.fail(c, "reading the audit trail", err)
		return
	}
	httpapi.JSON(c, http.StatusOK, newList(entries, "", now))
}
