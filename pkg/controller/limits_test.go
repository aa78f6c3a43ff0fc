package controller_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/controller"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/pace"
)

// grantor starts one on a connection of its own.
func (r *rig) grantor(id string) (*running, *bus.Bus) {
	r.t.Helper()
	b := r.system.Connect(r.t, time.Second)
	l, _, leases := parts(r.t, b, r.log)
	book := pace.NewBook(l, r.log, nil)
	g := &controller.Grantor{Server: b, Leases: leases, Book: book, ID: id, Logger: r.log, Now: time.Now}
	return r.run(id, func(ctx context.Context) error {
		reading, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = book.Run(reading)
		}()
		defer func() { stop(); <-done }()
		return g.Run(ctx)
	}), b
}

// ask asks whoever grants, until somebody does.
func (r *rig) ask(q pace.Ask) pace.Answer {
	r.t.Helper()
	raw, err := json.Marshal(q)
	require.NoError(r.t, err)
	var a pace.Answer
	require.Eventually(r.t, func() bool {
		raw, err := r.bus.Ask(context.Background(), events.SubjectGrants, raw)
		return err == nil && json.Unmarshal(raw, &a) == nil
	}, patience, tick)
	return a
}

func TestOneProcessGrantsAndTheNextTakesOver(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	op := r.submit(add)
	first, firstBus := r.grantor("first")
	q := pace.Ask{Work: pace.Work{OperationID: op.ID, TaskID: "1", Source: "http://b0:1", Destination: "http://b1:1"}, PassID: "1"}
	require.True(t, r.ask(q).Slots)
	second, _ := r.grantor("second")

	controls := &controller.Controls{Ledger: r.ledger, Now: time.Now}
	limit := int64(5)
	changed, err := controls.SetLimits(t.Context(), op.ID, operation.LimitsPatch{PointsPerSecond: operation.LimitChange{Given: true, To: &limit}}, intent())
	require.NoError(t, err)
	require.EqualValues(t, 5, *changed.Limits.PointsPerSecond)
	n := uint64(0)
	charge := pace.Charge{Operation: pace.Amount{Points: 1000}}
	require.Eventually(t, func() bool {
		n++
		q.Ticket, q.Charge = n, charge
		return !r.ask(q).Granted
	}, patience, tick, "the change is heeded")
	require.False(t, r.ask(q).Granted, "however often it is asked for")

	// The first dies without a word; who grants then knows nothing of before.
	firstBus.Close()
	first.stop()
	q.Ticket = 1000
	a := r.ask(q)
	require.True(t, a.Granted)
	require.EqualValues(t, 1, a.MaxPoints)
	q.Ticket++
	require.False(t, r.ask(q).Granted)
	second.stop()
	_, err = r.bus.Ask(t.Context(), events.SubjectGrants, nil)
	require.ErrorIs(t, err, bus.ErrUnavailable)
}

func intent() operation.Intent {
	return operation.Intent{At: time.Now().UTC(), Who: "ada", Origin: "192.0.2.1", Reason: "the night is over"}
}

func TestLimitsAreChangedAndNoted(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	op := r.submit(add)
	controls := &controller.Controls{Ledger: r.ledger, Now: time.Now}
	patch := func(raw string) operation.LimitsPatch {
		var p operation.LimitsPatch
		require.NoError(t, json.Unmarshal([]byte(raw), &p))
		return p
	}
	for _, step := range []struct{ patch, change string }{
		{`{"points_per_second":1000,"slots_per_backend":2}`, "none → points_per_second 1000, slots_per_backend 2"},
		{`{"points_per_second":1000}`, ""},
		{`{}`, ""},
		{`{"bytes_per_second":7,"slots_per_backend":null}`, "points_per_second 1000, slots_per_backend 2 → points_per_second 1000, bytes_per_second 7"},
		{`{"bytes_per_second":null,"points_per_second":null}`, "points_per_second 1000, bytes_per_second 7 → none"},
	} {
		before, err := r.ledger.AuditTrail(t.Context(), op.ID)
		require.NoError(t, err)
		got, err := controls.SetLimits(t.Context(), op.ID, patch(step.patch), intent())
		require.NoError(t, err)
		require.True(t, got.Limits.Equal(r.read(op.ID).Limits))
		trail, err := r.ledger.AuditTrail(t.Context(), op.ID)
		require.NoError(t, err)
		if step.change == "" {
			require.Len(t, trail, len(before))
			continue
		}
		require.Len(t, trail, len(before)+1)
		last := trail[len(trail)-1]
		require.Equal(t, "limits", last.Action)
		require.Equal(t, step.change, last.Change)
		require.Equal(t, "ada", last.Who)
		require.Equal(t, "192.0.2.1", last.Origin)
		require.Equal(t, "the night is over", last.Reason)
	}
	_, err := controls.SetLimits(t.Context(), op.ID, patch(`{"points_per_second":0}`), intent())
	var invalid *operation.InvalidError
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, "points_per_second", invalid.Field)
	_, err = controls.SetLimits(t.Context(), "nobody", patch(`{}`), intent())
	require.ErrorIs(t, err, operation.ErrNotFound)
	_, err = controls.Cancel(t.Context(), op.ID, intent())
	require.NoError(t, err)
	_, err = controls.SetLimits(t.Context(), op.ID, patch(`{"points_per_second":1}`), intent())
	var state *operation.StateError
	require.ErrorAs(t, err, &state)
	require.Equal(t, operation.Cancelled, state.State)
}

func TestLimitsOfAConfigurationThatWasNotAppliedAreNot(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	c := controller.Configuration{Ledger: r.ledger, Sealer: r.keys, Logger: r.log, Now: time.Now}
	one, other := int64(1), int64(2)
	limits := func(n *int64) operation.BackendLimits {
		return operation.BackendLimits{Default: operation.Limits{PointsPerSecond: n}}
	}
	stored := func() operation.BackendLimits {
		l, err := r.ledger.BackendLimits(t.Context())
		require.NoError(t, err)
		return l
	}
	require.True(t, stored().Default.None())
	require.NoError(t, c.Limit(t.Context(), config(t, 3), limits(&one)))
	require.Equal(t, limits(&one), stored())
	require.NoError(t, c.Limit(t.Context(), config(t, 2), limits(&other)))
	require.Equal(t, limits(&one), stored())
	before, err := r.ledger.Topology(t.Context())
	require.NoError(t, err)
	require.NoError(t, c.Limit(t.Context(), config(t, 3), operation.BackendLimits{}))
	require.True(t, stored().Default.None())
	after, err := r.ledger.Topology(t.Context())
	require.NoError(t, err)
	require.Equal(t, before.Value.Current.Epoch, after.Value.Current.Epoch)
}

// backendLimits are those of a configuration.
type backendLimits map[string]int

func (b backendLimits) Backend(_ context.Context, url string) (operation.Limits, error) {
	if n, ok := b[url]; ok {
		return operation.Limits{SlotsPerBackend: &n}, nil
	}
	return operation.Limits{}, nil
}

// No worker gets a task that would wait for a slot, at its source or its destination,
// whosever the limit; what waits says so.
func TestALimitOnSlotsIsRespected(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		own     *int
		limits  backendLimits
		most    int64
		backend string
	}{
		"of the operation":          {own: new(2), most: 2, backend: "http://b2:1"},
		"of the destination":        {limits: backendLimits{"http://b2:1": 3}, most: 3, backend: "http://b2:1"},
		"the smaller one":           {own: new(4), limits: backendLimits{"http://b2:1": 1}, most: 1, backend: "http://b2:1"},
		"of both sources, together": {limits: backendLimits{"http://b0:1": 1, "http://b1:1": 2}, most: 3, backend: "http://b0:1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var tasks []work
			for i := range 10 {
				tasks = append(tasks, work{i % 2, 2, 0, named(fmt.Sprintf("m%d", i), 2)})
			}
			r := newRig(t, time.Minute, tasks...)
			var running, most atomic.Int64
			full := make(chan struct{})
			r.carrier.before = func(_ context.Context, task operation.Task, s *operation.Slice) error {
				if task.Phase != operation.PhaseCopy || !strings.HasSuffix(s.Measurement, "0") {
					return nil
				}
				if n := running.Add(1); n > most.Load() {
					most.Store(n)
					if n == c.most {
						close(full)
					}
				}
				await(t, full, "as many run as may")
				running.Add(-1)
				return nil
			}
			q := request(add)
			q.Limits.SlotsPerBackend = c.own
			op, _, err := r.intake.Submit(t.Context(), q)
			require.NoError(t, err)
			r.control(func(o *controller.Options) { o.Limits = c.limits })
			r.work(8)
			r.finish(op.ID, operation.Succeeded)
			require.Equal(t, c.most, most.Load())
			shown := false
			for _, e := range r.events(op.ID, events.NounProgress) {
				for _, w := range e.(events.OperationProgress).Waits {
					shown = shown || w.Gate == "slots" && w.Backend == c.backend && strings.HasSuffix(w.Measured, " used") && !w.Since.IsZero()
				}
			}
			require.True(t, shown)
		})
	}
}
