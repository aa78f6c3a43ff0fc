package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ringmaster/cmd/internal/program"
	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/controller"
	"ringmaster/pkg/gateway/ingest"
	"ringmaster/pkg/health"
	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/httpapi/influxproxy"
	"ringmaster/pkg/httpapi/operations"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/progress"
	"ringmaster/pkg/worker"
)

// newHandler connects the dialects to the engine.
func (s *system) newHandler(token string, intake *controller.Intake) (*httpapi.Engine, error) {
	submit := submitter{intake: intake, ledger: s.engine.Ledger, projection: s.projection}
	probes := prober{s.prober}
	admin := httpapi.NewAdminAuth(token)
	var waits func() *operation.Wait
	if s.disk != nil {
		waits = s.disk.wait
	} else {
		waits = s.outage.wait
	}
	native, err := operations.New(operations.Deps{
		Submitter: submit, Controls: controls{&controller.Controls{Ledger: s.engine.Ledger, Now: time.Now}, submit},
		Leases:     leases{&controller.Leasebook{Ledger: s.engine.Ledger, Leases: s.engine.Leases}},
		Operations: shown{s.projection, waits}, Records: records{s.engine.Ledger},
		Topology: s.atlas, Serving: s.session, Prober: probes, Flags: s.atlas, Workers: workers{s.engine.Leases},
		Feed: progress.NewFeed(s.bus.Log(events.StreamEvents)), Results: s.results,
		Checks:      s.checks(),
		DeadLetters: &controller.DeadLetters{Ledger: s.engine.Ledger, Queue: s.engine.Queue, Writer: pointWriter{s.data.ingest}},
		Doctor:      s.newDoctor(), Metrics: s.metrics(), AsyncAPI: events.AsyncAPI(), Auth: admin,
		Draining: s.draining, Logger: s.logger,
	})
	if err != nil {
		return nil, fmt.Errorf("building the native API: %w", err)
	}
	c := s.options.config
	proxy := influxproxy.New(influxproxy.Deps{
		Submitter: submit, Operations: s.projection, Topology: s.atlas, Prober: probes, Flags: s.atlas,
		Version: "ringmaster-" + program.Version(), Username: c.Credentials.Username, Password: c.Credentials.Password,
		PingAuth: c.PingAuthEnabled, Loads: census{s.census}, Serving: s.session, Pprof: c.PprofEnabled, Admin: admin, Logger: s.logger,
		Writer: s.data.ingest, Querier: s.data.runner,
	})
	return httpapi.New(httpapi.Config{Prefix: s.options.prefix, Logger: s.logger}, native, proxy)
}

// checks are what /readyz looks at.
func (s *system) checks() []operations.Check {
	all := []operations.Check{
		{Name: "nats", Run: s.bus.Probe},
		{Name: "projection", Run: func(context.Context) error { return s.projection.Ready() }},
	}
	if s.disk != nil {
		all = append(all, operations.Check{Name: "disk", Run: s.disk.check})
	} else {
		all[0].Run = s.outage.check
	}
	return all
}

// metrics serves what this process knows.
func (s *system) metrics() http.Handler {
	own := []prometheus.Collector{
		newOperationMetrics(s.projection.List), newBackendMetrics(s.atlas, s.prober, s.census, time.Now),
		newHintMetrics(s.data.store.Backlogs, time.Now), newHistoryMetrics(s.retention, s.sweeper),
	}
	if s.notifier != nil {
		own = append(own, newWebhookMetrics(s.notifier.Counts))
	}
	return program.Metrics(own...)
}

// submitter shows what it has accepted in this process's own view at once.
type submitter struct {
	intake     *controller.Intake
	ledger     *ledger.Ledger
	projection *progress.Projection
}

func (s submitter) Submit(ctx context.Context, r operation.Request) (operation.Operation, bool, error) {
	op, created, err := s.intake.Submit(ctx, r)
	if err != nil {
		return op, created, err
	}
	return s.show(ctx, op), created, nil
}

// show brings this process's own view of an operation up to date.
func (s submitter) show(ctx context.Context, op operation.Operation) operation.Operation {
	record, err := s.ledger.Operation(ctx, op.ID)
	if err != nil {
		return op
	}
	s.projection.Observe(record.Value, record.Revision)
	return record.Value
}

// controls shows what it has changed in this process's own view at once.
type controls struct {
	*controller.Controls
	submitter
}

func (c controls) shown(ctx context.Context, do func(context.Context, string, operation.Intent) (operation.Operation, error), id string, by operation.Intent) (operation.Operation, error) {
	op, err := do(ctx, id, by)
	if err != nil {
		return op, err
	}
	return c.show(ctx, op), nil
}

func (c controls) Approve(ctx context.Context, id string, by operation.Intent) (operation.Operation, error) {
	return c.shown(ctx, c.Controls.Approve, id, by)
}

func (c controls) Pause(ctx context.Context, id string, by operation.Intent) (operation.Operation, error) {
	return c.shown(ctx, c.Controls.Pause, id, by)
}

func (c controls) Resume(ctx context.Context, id string, by operation.Intent) (operation.Operation, error) {
	return c.shown(ctx, c.Controls.Resume, id, by)
}

func (c controls) Cancel(ctx context.Context, id string, by operation.Intent) (operation.Operation, error) {
	return c.shown(ctx, c.Controls.Cancel, id, by)
}

func (c controls) Retry(ctx context.Context, id string, by operation.Intent) (operation.Operation, error) {
	return c.shown(ctx, c.Controls.Retry, id, by)
}

// prober gives the dialects what the health service knows.
type prober struct{ health *health.Prober }

func (p prober) Backends(ctx context.Context) map[string]httpapi.BackendStatus {
	out := map[string]httpapi.BackendStatus{}
	for url, s := range p.health.Backends(ctx) {
		out[url] = httpapi.BackendStatus{
			Active: s.Active, Version: s.Version, CheckedAt: s.CheckedAt, Error: s.Error,
			Unwritable: s.Writes == health.WritesFailed, WroteAt: s.WroteAt, Note: s.Note,
		}
	}
	return out
}

// pointWriter writes points again that were refused.
type pointWriter struct{ ingest *ingest.Ingest }

// WritePoints implements controller.PointWriter.
func (w pointWriter) WritePoints(ctx context.Context, database, retentionPolicy string, lines []byte) error {
	err := w.ingest.WritePoints(ctx, database, retentionPolicy, lines)
	if refusal, ok := errors.AsType[*ingest.Refusal](err); ok {
		return &operation.PointsRefusedError{Status: refusal.Status, Words: refusal.Message}
	}
	return err
}

// census gives the dialect of influx-proxy what has been counted.
type census struct{ health *health.Census }

func (c census) Loads(ctx context.Context) map[string]influxproxy.BackendLoad {
	out := map[string]influxproxy.BackendLoad{}
	for name, l := range c.health.Backends(ctx) {
		counts := make(map[string]influxproxy.Count, len(l.Databases))
		for db, n := range l.Databases {
			counts[db] = influxproxy.Count(n)
		}
		out[name] = influxproxy.BackendLoad{Databases: counts, TakenAt: l.TakenAt, Error: l.Error}
	}
	return out
}

// trouble says why a backend that answers does not store what is written to it.
func (p prober) trouble(url string) string {
	if s := p.health.Backends(context.Background())[url]; s.Active && s.Writes == health.WritesFailed {
		return s.Error
	}
	return ""
}

// workers lists the workers whose leases live.
type workers struct{ leases *bus.Leases }

func (w workers) Workers(ctx context.Context) ([]operations.WorkerInfo, error) {
	live, err := worker.Live(ctx, w.leases)
	if err != nil {
		return nil, err
	}
	out := make([]operations.WorkerInfo, len(live))
	for i, l := range live {
		out[i] = operations.WorkerInfo{
			ID: l.ID, Host: l.Host, Version: l.Version, Slots: l.Slots, Busy: l.Busy, Draining: l.Draining,
			Tasks: l.Tasks, StartedAt: l.StartedAt, SeenAt: l.SeenAt,
		}
	}
	return out, nil
}

// leases shows the native API who holds what.
type leases struct{ book *controller.Leasebook }

func (l leases) Leases(ctx context.Context) ([]operations.Lease, error) {
	all, err := l.book.List(ctx)
	out := make([]operations.Lease, len(all))
	for i, one := range all {
		out[i] = operations.Lease{
			Key: one.Key, Holder: one.Holder, OperationID: one.OperationID, TaskID: one.TaskID,
			RenewedAt: one.RenewedAt.UTC(), ExpiresAt: one.ExpiresAt.UTC(),
		}
	}
	return out, err
}

func (l leases) Break(ctx context.Context, key string, by operation.Intent) (bool, error) {
	err := l.book.Break(ctx, key, by)
	if errors.Is(err, controller.ErrNoLease) {
		return false, nil
	}
	return err == nil, err
}

// slots counts the task slots of the workers whose leases live and that take tasks.
func (w workers) slots(ctx context.Context) (int, error) {
	live, err := worker.Live(ctx, w.leases)
	n := 0
	for _, l := range live {
		if !l.Draining {
			n += l.Slots
		}
	}
	return n, err
}

// records reads the ledger for the native API.
type records struct{ ledger *ledger.Ledger }

func (r records) Operation(ctx context.Context, id string) (operation.Operation, error) {
	v, err := r.ledger.Operation(ctx, id)
	return v.Value, err
}

func (r records) Plan(ctx context.Context, id string) (operation.Plan, error) {
	v, err := r.ledger.Operation(ctx, id)
	if err != nil {
		return operation.Plan{}, err
	}
	p, err := r.ledger.Plan(ctx, &v.Value)
	return p, notFound(err)
}

func (r records) Report(ctx context.Context, id string) (operation.Report, error) {
	v, err := r.ledger.Operation(ctx, id)
	if err != nil {
		return operation.Report{}, err
	}
	report, err := r.ledger.Report(ctx, &v.Value)
	return report, notFound(err)
}

// notFound says in the API's terms that there is no document yet.
func notFound(err error) error {
	if errors.Is(err, ledger.ErrNoDocument) {
		return operation.ErrNotFound
	}
	return err
}

func (r records) Tasks(ctx context.Context, id string, state operation.TaskState, cursor string, limit int) ([]operation.Task, string, error) {
	return r.ledger.TaskPage(ctx, id, state, cursor, limit)
}

func (r records) Audit(ctx context.Context, id string) ([]operation.AuditEntry, error) {
	return r.ledger.AuditTrail(ctx, id)
}
