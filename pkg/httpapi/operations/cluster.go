package operations

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/progress"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

type topologyView struct {
	Epoch uint64 `json:"epoch"`
	// Revision numbers the record of all this; every process works by it before
	// anybody relies on it.
	Revision  uint64       `json:"revision"`
	Parent    uint64       `json:"parent"`
	Digest    string       `json:"digest"`
	HashKey   string       `json:"hash_key"`
	ShardKey  string       `json:"shard_key"`
	VNodes    int          `json:"vnodes"`
	Databases []string     `json:"databases"`
	CreatedAt time.Time    `json:"created_at"`
	Source    string       `json:"source"`
	Circles   []circleView `json:"circles"`
	// ResyncingByHand: a person has flagged the cluster.
	ResyncingByHand bool      `json:"resyncing_by_hand"`
	AsOf            time.Time `json:"as_of"`
}

type circleView struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
	// OperationID is the open operation that holds the circle.
	OperationID string `json:"operation_id,omitempty"`
	// MigratingByHand: a person has flagged the circle.
	MigratingByHand bool `json:"migrating_by_hand"`
	// Unreadable says why nobody reads the circle; empty when it is read.
	Unreadable string `json:"unreadable,omitempty"`
	// Transition is how the circle changes from one epoch to the next.
	Transition *transitionView `json:"transition,omitempty"`
	Backends   []backendView   `json:"backends"`
}

type transitionView struct {
	Step  serving.Step `json:"step"`
	Epoch uint64       `json:"epoch"`
	// WaitsFor says what has to happen before the next step.
	WaitsFor    string        `json:"waits_for"`
	OpenedAt    time.Time     `json:"opened_at"`
	SteppedAt   time.Time     `json:"stepped_at"`
	OperationID string        `json:"operation_id,omitempty"`
	Former      []backendView `json:"former_backends"`
}

type backendView struct {
	Name      string `json:"name"`
	URL       string `json:"url"`
	WriteOnly bool   `json:"write_only"`
	State     string `json:"state"`
	// Mode says how it gets its points; Backlog why it is not direct.
	Mode      serving.Mode `json:"mode"`
	Backlog   *backlogView `json:"backlog,omitempty"`
	Version   string       `json:"version,omitempty"`
	CheckedAt *time.Time   `json:"checked_at"`
	Error     string       `json:"error,omitempty"`
}

type backlogView struct {
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// States of a backend: what its last probe found.
const (
	backendActive      = "active"
	backendUnreachable = "unreachable"
	backendUnknown     = "unknown"
)

func (rm *room) topology(c *gin.Context) {
	view := rm.Serving.View()
	if view == nil {
		rm.fail(c, "reading the topology", errNoTopology)
		return
	}
	t := view.Topology
	asOf := rm.Operations.AsOf()
	if asOf.IsZero() {
		rm.fail(c, "reading the operations", progress.ErrNotReady)
		return
	}
	migrating, resyncing, err := rm.flags(c.Request.Context())
	if err != nil {
		rm.fail(c, "reading the flags", err)
		return
	}
	holders := map[string]string{}
	for _, op := range rm.Operations.Open() {
		for _, s := range op.Scope {
			holders[s] = op.ID
		}
	}
	status := rm.Prober.Backends(c.Request.Context())
	v := topologyView{
		Epoch: t.Epoch, Revision: view.Revision, Parent: t.Parent, Digest: t.Digest,
		HashKey: t.HashKey, ShardKey: t.ShardKey, VNodes: t.VNodes,
		Databases: append([]string{}, t.Databases...),
		CreatedAt: t.CreatedAt, Source: t.Source,
		Circles:         make([]circleView, len(t.Circles)),
		ResyncingByHand: resyncing,
		AsOf:            asOf.UTC(),
	}
	for i, circle := range t.Circles {
		cv := circleView{ID: circle.ID, Name: circle.Name, Backends: make([]backendView, len(circle.Backends))}
		cv.OperationID = holders[operation.CircleScope(circle.ID)]
		cv.MigratingByHand = slices.Contains(migrating, circle.ID)
		cv.Unreadable = view.Unreadable(circle.ID)
		for j, b := range circle.Backends {
			cv.Backends[j] = newBackendView(view, b, status[b.URL])
		}
		if tr := view.State.In(circle.ID); tr != nil {
			cv.Transition = newTransitionView(view, tr, cv.OperationID, status)
		}
		v.Circles[i] = cv
	}
	httpapi.JSON(c, http.StatusOK, v)
}

// flags returns what a person has set by hand.
func (rm *room) flags(ctx context.Context) (migrating []int, resyncing bool, err error) {
	if rm.Flags == nil {
		return nil, false, nil
	}
	return rm.Flags.Flags(ctx)
}

// newTransitionView says where a transition stands; operation is the one that holds
// its circle.
func newTransitionView(view *serving.View, t *serving.Transition, operation string, status map[string]httpapi.BackendStatus) *transitionView {
	v := &transitionView{
		Step: t.Step, Epoch: t.Epoch, OpenedAt: t.OpenedAt, SteppedAt: t.SteppedAt, OperationID: t.Operation, Former: []backendView{},
	}
	for _, b := range t.Old.Circles[0].Backends {
		v.Former = append(v.Former, newBackendView(view, b, status[b.URL]))
	}
	switch t.Step {
	case serving.Opening:
		v.WaitsFor = "the new owners to have their databases, and every process to have left epochs before this one"
	case serving.WriteBoth:
		switch {
		case operation != "":
			v.WaitsFor = "operation " + operation + " to have proven the new owners"
		case t.New():
			v.WaitsFor = fmt.Sprintf("a recovery into circle %d, which is new and has nothing to be read yet", t.Circle)
		default:
			v.WaitsFor = fmt.Sprintf("a rebalance of circle %d, of all databases, to prove the new owners; the old ones are read until then", t.Circle)
		}
	case serving.ReadNew:
		v.WaitsFor = "every read of the old owners to have ended"
	case serving.WriteNew:
		v.WaitsFor = "every write to the old owners to have ended"
	}
	return v
}

func newBackendView(view *serving.View, b topology.Backend, s httpapi.BackendStatus) backendView {
	v := backendView{Name: b.Name, URL: b.URL, WriteOnly: b.WriteOnly, Mode: view.Mode(b.URL), Version: s.Version, Error: s.Error}
	for _, l := range view.State.Backlogs {
		if l.Backend == b.URL {
			v.Backlog = &backlogView{Reason: l.Reason, Since: l.Since}
		}
	}
	switch {
	case s.CheckedAt.IsZero():
		v.State = backendUnknown
		return v
	case s.Active:
		v.State = backendActive
	default:
		v.State = backendUnreachable
	}
	at := s.CheckedAt.UTC()
	v.CheckedAt = &at
	return v
}

type whereView struct {
	Database    string `json:"database"`
	Measurement string `json:"measurement"`
	Epoch       uint64 `json:"epoch"`
	// Owners are those of the epoch, FormerOwners those of circles that are
	// changing still: both get what is written until the transition is over.
	Owners       []ownerView `json:"owners"`
	FormerOwners []ownerView `json:"former_owners"`
	AsOf         time.Time   `json:"as_of"`
}

type ownerView struct {
	CircleID   int    `json:"circle_id"`
	CircleName string `json:"circle_name"`
	Backend    string `json:"backend"`
	URL        string `json:"url"`
	// Read and Written say whether it is at this moment.
	Read    bool `json:"read"`
	Written bool `json:"written"`
}

func (rm *room) where(c *gin.Context) {
	q, err := httpapi.Query(c.Request, "db", "measurement")
	for _, name := range []string{"db", "measurement"} {
		if err == nil && q.Get(name) == "" {
			err = &operation.InvalidError{Field: name, Problem: "is missing", Hint: "give db and measurement"}
		}
	}
	if err != nil {
		rm.fail(c, "", err)
		return
	}
	view := rm.Serving.View()
	if view == nil {
		rm.fail(c, "reading the topology", errNoTopology)
		return
	}
	v := whereView{
		Database: q.Get("db"), Measurement: q.Get("measurement"), Epoch: view.Topology.Epoch,
		Owners: []ownerView{}, FormerOwners: []ownerView{}, AsOf: rm.Now().UTC(),
	}
	for _, circle := range view.Topology.Circles {
		if err := v.add(&v.Owners, view, view.Topology, circle.ID, circle.Name); err != nil {
			rm.fail(c, "placing a measurement", err)
			return
		}
		tr := view.State.In(circle.ID)
		if tr == nil || tr.New() {
			continue
		}
		if err := v.add(&v.FormerOwners, view, tr.Old, circle.ID, circle.Name); err != nil {
			rm.fail(c, "placing a measurement", err)
			return
		}
	}
	httpapi.JSON(c, http.StatusOK, v)
}

// add adds the owner that a topology gives the measurement in a circle.
func (v *whereView) add(to *[]ownerView, view *serving.View, t *topology.Topology, circle int, name string) error {
	p, err := t.Placement(circle)
	if err != nil {
		return err
	}
	b := p.Owner(v.Database, v.Measurement)
	if b == nil {
		return nil
	}
	owner := ownerView{CircleID: circle, CircleName: name, Backend: b.Name, URL: b.URL}
	owner.Read = view.Unreadable(circle) == "" && view.Reader(circle, v.Database, v.Measurement).URL == b.URL
	for _, w := range view.Writers(nil, v.Database, v.Measurement) {
		owner.Written = owner.Written || w.Circle == circle && w.Backend.URL == b.URL
	}
	*to = append(*to, owner)
	return nil
}

func (rm *room) workers(c *gin.Context) {
	now := rm.Now()
	workers, err := rm.Workers.Workers(c.Request.Context())
	if err != nil {
		rm.fail(c, "listing workers", err)
		return
	}
	for i := range workers {
		if workers[i].Tasks == nil {
			workers[i].Tasks = []string{}
		}
	}
	httpapi.JSON(c, http.StatusOK, newList(workers, "", now))
}
