package controller_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
	"ringmaster/pkg/controller"
	"ringmaster/pkg/gateway/session"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/planner"
	"ringmaster/pkg/secrets"
	"ringmaster/pkg/topology"
	"ringmaster/pkg/worker"
)

// engine is a whole system in one process: embedded NATS, an intake, a
// controller and workers, on real InfluxDB servers.
type engine struct {
	t        *testing.T
	bus      *bus.Bus
	ledger   *ledger.Ledger
	intake   *controller.Intake
	backends []*influxtest.Server
}

// newEngine starts n backends in one circle; the first old of them are what the
// circle consisted of when the data was written.
func newEngine(t *testing.T, n int) *engine {
	t.Helper()
	ctx := t.Context()
	e := &engine{t: t}
	for range n {
		e.backends = append(e.backends, influxtest.Start(t))
	}
	e.bus = bustest.StartSystem(t, bus.WithLeaseTTL(2*time.Second)).Bus
	keys, err := secrets.OpenOrCreate(t.TempDir() + "/key")
	require.NoError(t, err)
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	e.ledger, err = ledger.New(ctx, e.bus, ledger.Options{Source: "test", Logger: log})
	require.NoError(t, err)
	configuration := controller.Configuration{Ledger: e.ledger, Sealer: keys, Logger: log, Now: time.Now}
	require.NoError(t, configuration.Start(ctx, e.config()))
	leases, err := e.bus.Leases(ctx)
	require.NoError(t, err)
	current, err := session.Open(ctx, session.Options{ID: "test", Ledger: e.ledger, Leases: leases, Sealer: keys, Logger: log})
	require.NoError(t, err)
	e.intake = &controller.Intake{Ledger: e.ledger, Topology: current, Sealer: keys, Now: time.Now, NewID: func() string { return uuid.Must(uuid.NewV7()).String() }}

	roster := mover.NewRoster(e.ledger, keys, ledger.SealContext, influx.Options{})
	queue, err := e.bus.Queue(ctx)
	require.NoError(t, err)
	move := mover.New(roster, mover.Config{Logger: log})
	ctl := controller.New(e.ledger, queue, leases, planner.New(roster, move.Patience(), time.Now), controller.Options{ID: "test", Logger: log})
	work := worker.New(e.ledger, queue, leases, move, worker.Options{ID: "w1", Slots: 2, Logger: log})
	run, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- ctl.Run(run) }()
	go func() { done <- work.Run(run) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, <-done)
	})
	return e
}

func (e *engine) config() *topology.Topology {
	var backends []string
	for i, b := range e.backends {
		backends = append(backends, fmt.Sprintf(`{"name":"b%d","url":%q}`, i, b.URL()))
	}
	c, err := topology.Parse("proxy.json", []byte(`{"circles":[{"name":"c0","backends":[`+strings.Join(backends, ",")+`]}]}`))
	require.NoError(e.t, err)
	return c.Topology()
}

// submit asks for an operation and waits until it has ended.
func (e *engine) submit(kind operation.Kind, parameters string) operation.Operation {
	e.t.Helper()
	op, created, err := e.intake.Submit(e.t.Context(), operation.Request{Kind: kind, Parameters: json.RawMessage(parameters), RequestedBy: "test"})
	require.NoError(e.t, err)
	require.True(e.t, created)
	require.Eventually(e.t, func() bool {
		v, err := e.ledger.Operation(e.t.Context(), op.ID)
		require.NoError(e.t, err)
		op = v.Value
		return op.State.Terminal()
	}, 60*time.Second, 50*time.Millisecond)
	return op
}

func (e *engine) report(op *operation.Operation) operation.Report {
	e.t.Helper()
	r, err := e.ledger.Report(e.t.Context(), op)
	require.NoError(e.t, err)
	return r
}

func TestRebalanceMovesEveryPointToItsOwner(t *testing.T) {
	t.Parallel()
	e := newEngine(t, 3)
	first := e.backends[0]
	first.Exec(`CREATE DATABASE db`)
	var lines strings.Builder
	const measurements, points = 30, 400
	for m := range measurements {
		for p := range points {
			fmt.Fprintf(&lines, "m%d,host=h%d v=%d,f=%d.5,s=\"x\" %d\n", m, p%4, p, p, 1_700_000_000_000_000_000+int64(p)*3_600_000_000_000)
		}
	}
	first.WriteLines("db", "", lines.String())

	op := e.submit(operation.KindRebalance, `{"circle_id":0,"operation":"add"}`)
	report := e.report(&op)
	require.Equal(t, operation.Succeeded, op.State, "%+v", op.Error)
	require.True(t, report.Equal, "%+v", report)
	require.Equal(t, report.Slices.Total, report.Slices.ByCount)
	require.Equal(t, op.Progress.Measurements.Total, op.Progress.Measurements.Done)
	require.Equal(t, op.Progress.Tasks.Total, op.Progress.Tasks.Done)
	require.Positive(t, report.Points.Source)

	placement, err := e.config().Placement(0)
	require.NoError(t, err)
	for m := range measurements {
		name := fmt.Sprintf("m%d", m)
		for i, b := range e.backends {
			if placement.Owner("db", name).URL != b.URL() {
				continue
			}
			r := e.backends[i].Query(`SELECT count(v), count(f), count(s) FROM db.autogen.` + name)
			require.Equal(t, []any{json.Number("0"), json.Number("400"), json.Number("400"), json.Number("400")}, r[0].Series[0].Values[0], name)
		}
	}

	again := e.submit(operation.KindRebalance, `{"circle_id":0,"operation":"add"}`)
	require.Equal(t, operation.Succeeded, again.State)
	require.True(t, e.report(&again).Equal)
}
