package influxproxy

import (
	"slices"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/operation"
	"ringmaster/pkg/topology"
)

// generation is one of the two that are served, which differ in names only.
type generation uint8

const (
	// generation24 is influx-proxy 2.4: /migrate/…
	generation24 generation = iota
	// generation25 is influx-proxy 2.5: /transfer/…
	generation25
)

// migratingParameter is the name of the flag that POST …/state sets, and the
// refusal of a value that is none.
func (g generation) migratingParameter() (string, error) {
	if g == generation25 {
		return "transferring", errTransfer
	}
	return "migrating", errMigrating
}

// circleState24 and circleState25 are a circle's state; keys in the order the
// generation's own answers have them.
type circleState24 struct {
	CircleID    int    `json:"circle_id"`
	CircleName  string `json:"circle_name"`
	IsMigrating bool   `json:"is_migrating"`
}

type circleState25 struct {
	ID           int    `json:"id"`
	Name         string `json:"name"`
	Transferring bool   `json:"transferring"`
}

func (g generation) circleState(c *topology.Circle, migrating bool) any {
	if g == generation25 {
		return circleState25{c.ID, c.Name, migrating}
	}
	return circleState24{c.ID, c.Name, migrating}
}

type state24 struct {
	Circles     []any `json:"circles"`
	IsResyncing bool  `json:"is_resyncing"`
}

type state25 struct {
	Circles   []any `json:"circles"`
	Resyncing bool  `json:"resyncing"`
}

// state answers which circles are moving: those that an open operation holds,
// and those that a person has flagged.
func (rm *room) state(g generation) gin.HandlerFunc {
	return func(c *gin.Context) {
		t, _, ok := rm.opened(c)
		if !ok {
			return
		}
		flagged, resyncing, err := rm.Flags.Flags(c.Request.Context())
		if err != nil {
			rm.unavailable(c, "reading the flags", err)
			return
		}
		at := rm.Operations.AsOf()
		if at.IsZero() {
			rm.unavailable(c, "reading the operations", errNotSeeded)
			return
		}
		held, resync := rm.holding()
		circles := make([]any, len(t.Circles))
		for i := range t.Circles {
			circle := &t.Circles[i]
			migrating := slices.Contains(held, operation.CircleScope(circle.ID)) || slices.Contains(flagged, circle.ID)
			circles[i] = g.circleState(circle, migrating)
		}
		resyncing = resyncing || resync
		c.Header(asOfHeader, asOf(at))
		if g == generation25 {
			answer(c, state25{circles, resyncing})
			return
		}
		answer(c, state24{circles, resyncing})
	}
}

// holding returns the scopes that open operations hold, and whether one of them
// is a resync.
func (rm *room) holding() (scopes []string, resyncing bool) {
	for _, op := range rm.Operations.Open() {
		if op.Kind == operation.KindResync && len(op.Scope) > 0 {
			resyncing = true
			continue
		}
		scopes = append(scopes, op.Scope...)
	}
	return scopes, resyncing
}

type setState24 struct {
	Circle    any   `json:"circle,omitempty"`
	Resyncing *bool `json:"resyncing,omitempty"`
}

// setState sets flags by hand. Everything is checked before anything is set.
func (rm *room) setState(g generation) gin.HandlerFunc {
	name, illegal := g.migratingParameter()
	return func(c *gin.Context) {
		t, p, ok := rm.opened(c)
		if !ok {
			return
		}
		var (
			out       setState24
			circle    *topology.Circle
			migrating bool
			err       error
		)
		if text := p.get("resyncing"); text != "" {
			on, err := strconv.ParseBool(text)
			if err != nil {
				refuseWith(c, errResyncing)
				return
			}
			out.Resyncing = &on
		}
		if p.get("circle_id") != "" || p.get(name) != "" {
			if circle, err = p.circle("circle_id", t); err != nil {
				refuseWith(c, err)
				return
			}
			if migrating, err = strconv.ParseBool(p.get(name)); err != nil {
				refuseWith(c, illegal)
				return
			}
		}
		if out.Resyncing == nil && circle == nil {
			refuseWith(c, errNothing)
			return
		}
		ctx := c.Request.Context()
		if out.Resyncing != nil {
			if err := rm.Flags.SetResyncing(ctx, *out.Resyncing); err != nil {
				rm.unavailable(c, "setting the resyncing flag", err)
				return
			}
		}
		if circle != nil {
			if err := rm.Flags.SetMigrating(ctx, circle.ID, migrating); err != nil {
				rm.unavailable(c, "setting a circle's migrating flag", err)
				return
			}
			out.Circle = g.circleState(circle, migrating)
		}
		answer(c, out)
	}
}

// stats24 and stats25 are a backend's statistics; keys in the order the
// generation's own answers have them.
type stats24 struct {
	DatabaseTotal    int `json:"database_total"`
	DatabaseDone     int `json:"database_done"`
	MeasurementTotal int `json:"measurement_total"`
	MeasurementDone  int `json:"measurement_done"`
	MigrateCount     int `json:"migrate_count"`
	InplaceCount     int `json:"inplace_count"`
}

type stats25 struct {
	DatabaseTotal    int `json:"database_total"`
	DatabaseDone     int `json:"database_done"`
	MeasurementTotal int `json:"measurement_total"`
	MeasurementDone  int `json:"measurement_done"`
	TransferCount    int `json:"transfer_count"`
	InplaceCount     int `json:"inplace_count"`
}

func (g generation) stats(b operation.BackendProgress) any {
	if g == generation25 {
		return stats25{
			DatabaseTotal: b.Databases.Total, DatabaseDone: b.Databases.Done,
			MeasurementTotal: b.Measurements.Total, MeasurementDone: b.Measurements.Done,
			TransferCount: b.Moved, InplaceCount: b.InPlace,
		}
	}
	return stats24{
		DatabaseTotal: b.Databases.Total, DatabaseDone: b.Databases.Done,
		MeasurementTotal: b.Measurements.Total, MeasurementDone: b.Measurements.Done,
		MigrateCount: b.Moved, InplaceCount: b.InPlace,
	}
}

// statsKinds are the types of statistics, in the names of both generations.
func statsKinds() map[string]operation.Kind {
	return map[string]operation.Kind{
		"rebalance": operation.KindRebalance,
		"recovery":  operation.KindRecovery,
		"resync":    operation.KindResync,
		"clear":     operation.KindClear,
		"cleanup":   operation.KindClear,
	}
}

// stats answers with a row for every backend of the circle and for every
// backend that its newest operation of the type was told has left it. An
// operation of several circles has rows of the others too, which are not shown.
func (rm *room) stats(g generation) gin.HandlerFunc {
	kinds := statsKinds()
	return func(c *gin.Context) {
		t, p, ok := rm.opened(c)
		if !ok {
			return
		}
		circle, err := p.circle("circle_id", t)
		if err != nil {
			refuseWith(c, err)
			return
		}
		kind, ok := kinds[p.get("type")]
		if !ok {
			refuseWith(c, errStatsType)
			return
		}
		at := rm.Operations.AsOf()
		if at.IsZero() {
			rm.unavailable(c, "reading the operations", errNotSeeded)
			return
		}
		rows := map[string]any{}
		for i := range circle.Backends {
			rows[circle.Backends[i].URL] = g.stats(operation.BackendProgress{})
		}
		if op, found := rm.Operations.Latest(kind, operation.CircleScope(circle.ID)); found {
			for _, b := range removedOf(op) {
				rows[b.URL] = g.stats(operation.BackendProgress{})
			}
			for url := range rows {
				if b, told := op.Progress.Backends[url]; told {
					rows[url] = g.stats(b)
				}
			}
			at = latest(op.Progress.AsOf, at, op.State.Terminal())
			c.Header(operationHeader, op.ID)
		}
		c.Header(asOfHeader, asOf(at))
		answer(c, rows)
	}
}

// latest is the moment that an operation's statistics are true for: that of its
// progress while it moves, that of the projection once nothing can change.
func latest(progress, projection time.Time, terminal bool) time.Time {
	if progress.IsZero() || terminal {
		return projection
	}
	return progress
}

// removedOf returns the removed backends of an operation that names some.
func removedOf(op operation.Operation) []operation.RemovedBackend {
	if op.Kind != operation.KindRebalance {
		return nil
	}
	p, err := operation.ParseRebalance(op.Parameters)
	if err != nil {
		return nil
	}
	return p.RemovedBackends
}
