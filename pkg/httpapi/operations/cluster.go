package operations

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/progress"
	"ringmaster/pkg/topology"
)

type topologyView struct {
	Epoch     uint64       `json:"epoch"`
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
	MigratingByHand bool          `json:"migrating_by_hand"`
	Backends        []backendView `json:"backends"`
}

type backendView struct {
	Name      string     `json:"name"`
	URL       string     `json:"url"`
	WriteOnly bool       `json:"write_only"`
	State     string     `json:"state"`
	Version   string     `json:"version,omitempty"`
	CheckedAt *time.Time `json:"checked_at"`
	Error     string     `json:"error,omitempty"`
}

// States of a backend: what its last probe found.
const (
	backendActive      = "active"
	backendUnreachable = "unreachable"
	backendUnknown     = "unknown"
)

func (rm *room) topology(c *gin.Context) {
	t := rm.Topology.Current()
	if t == nil {
		rm.fail(c, "reading the topology", errNoTopology)
		return
	}
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
		Epoch: t.Epoch, Parent: t.Parent, Digest: t.Digest,
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
		for j, b := range circle.Backends {
			cv.Backends[j] = newBackendView(b, status[b.URL])
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

func newBackendView(b topology.Backend, s httpapi.BackendStatus) backendView {
	v := backendView{Name: b.Name, URL: b.URL, WriteOnly: b.WriteOnly, Version: s.Version, Error: s.Error}
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
	Database    string      `json:"database"`
	Measurement string      `json:"measurement"`
	Epoch       uint64      `json:"epoch"`
	Owners      []ownerView `json:"owners"`
	AsOf        time.Time   `json:"as_of"`
}

type ownerView struct {
	CircleID   int    `json:"circle_id"`
	CircleName string `json:"circle_name"`
	Backend    string `json:"backend"`
	URL        string `json:"url"`
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
	t := rm.Topology.Current()
	if t == nil {
		rm.fail(c, "reading the topology", errNoTopology)
		return
	}
	v := whereView{
		Database: q.Get("db"), Measurement: q.Get("measurement"), Epoch: t.Epoch,
		Owners: make([]ownerView, 0, len(t.Circles)), AsOf: rm.Now().UTC(),
	}
	for _, circle := range t.Circles {
		p, err := t.Placement(circle.ID)
		if err != nil {
			rm.fail(c, "placing a measurement", err)
			return
		}
		if b := p.Owner(v.Database, v.Measurement); b != nil {
			v.Owners = append(v.Owners, ownerView{CircleID: circle.ID, CircleName: circle.Name, Backend: b.Name, URL: b.URL})
		}
	}
	httpapi.JSON(c, http.StatusOK, v)
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
