package integration_test

import (
	"math"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// limitSite is two circles, the second of which is to be filled through a proxy that
// counts what is stored.
type limitSite struct {
	*circleSite

	flow harness.Flow
	sink *harness.Proxy
}

func newLimitSite(t *testing.T, measurements, points int) *limitSite {
	t.Helper()
	s := &limitSite{circleSite: newCircleSite(t, 1, 1)}
	s.sink = s.proxy(1, 0)
	s.flow.Through(s.sink)
	s.members[0][0].fill("d", measurements, points)
	return s
}

// recover starts the filling of the second circle.
func (s *limitSite) recover(limits map[string]any) string {
	s.t.Helper()
	op, err := s.Client.SubmitRequest(s.context(), map[string]any{
		"kind": operation.KindRecovery, "limits": limits, "parameters": map[string]any{"from_circle_id": 0, "to_circle_id": 1},
	})
	require.NoError(s.t, err)
	return op.ID
}

// measure waits for a while and returns the points per second in it.
func (s *limitSite) measure(d time.Duration) float64 {
	s.t.Helper()
	rate, err := s.flow.Measure(s.context(), d)
	require.NoError(s.t, err)
	return rate
}

// requireRate requires that a limit is kept to and filled in one of a few windows, and
// exceeded in none by more than what was granted before it: on a machine that is busy
// with other tests, batches arrive later than they were granted.
func (s *limitSite) requireRate(limit float64, d time.Duration) {
	s.t.Helper()
	const tolerance, windows, late = 0.06, 5, 500 * time.Millisecond
	for n := 1; ; n++ {
		rate := s.measure(d)
		s.t.Logf("limit %.0f: %.0f points/s", limit, rate)
		require.LessOrEqual(s.t, rate, (1+tolerance+late.Seconds()/d.Seconds())*limit)
		if math.Abs(rate-limit) <= tolerance*limit {
			return
		}
		require.Less(s.t, n, windows, "the limit is not kept to, or not reached")
	}
}

// limit changes the limits of an operation.
func (s *limitSite) limit(id, patch string) {
	s.t.Helper()
	res, answer := s.do(http.MethodPatch, "/v1/operations/"+id+"/limits", nil, patch)
	require.Equal(s.t, http.StatusAccepted, res.StatusCode, answer)
}

// waits is whether an operation shows a wait at a gate.
func waits(gate string, also func(*operation.Wait) bool) func(*operation.Operation) bool {
	return func(op *operation.Operation) bool {
		return slices.ContainsFunc(op.Waits, func(w operation.Wait) bool { return w.Gate == gate && also(&w) })
	}
}

// Four workers of two slots each stay within the limit of an operation together, and
// fill it; a change holds for all of them at once, and so does lifting it.
func TestALimitHoldsForAllWorkersTogether(t *testing.T) {
	t.Parallel()
	const rows = 30_000
	s := newLimitSite(t, 12, rows)
	s.configure()
	s.startAPI()
	for range 4 {
		s.startWorker("-slots", "2")
	}
	id := s.recover(map[string]any{"points_per_second": 10_000})
	s.wait(id, func(*operation.Operation) bool { return s.flow.Total() > 10_000 })
	s.requireRate(10_000, 4*time.Second)
	s.wait(id, waits("limit", func(w *operation.Wait) bool {
		return strings.Contains(w.Limit, "10,000 points/s") && strings.Contains(w.Measured, "points/s") && !w.Since.IsZero()
	}))

	s.limit(id, `{"points_per_second": 20000, "reason": "the night is long"}`)
	changed := time.Now()
	s.measure(200 * time.Millisecond)
	require.LessOrEqual(t, s.flow.Largest(changed), 2_000, "a batch holds a tenth of a second")
	s.requireRate(20_000, 2*time.Second)

	s.limit(id, `{"points_per_second": 2000}`)
	s.measure(300 * time.Millisecond)
	s.requireRate(2_000, 3*time.Second)

	before := s.flow.Total()
	s.limit(id, `{"points_per_second": null}`)
	lifted := time.Now()
	s.wait(id, func(*operation.Operation) bool { return s.flow.Total() > before+60_000 || s.flow.Total() >= 12*rows })
	require.Less(t, time.Since(lifted), 20*time.Second, "at 2000 points a second it would have been half a minute")
	report := s.complete(id)
	require.True(t, report.Equal)
	require.EqualValues(t, 12*rows, report.Points.Destination)

	var trail struct {
		Items []operation.AuditEntry `json:"items"`
	}
	require.NoError(t, s.Client.Get(s.context(), "/v1/operations/"+id+"/audit", &trail))
	at := slices.IndexFunc(trail.Items, func(e operation.AuditEntry) bool { return e.Action == "limits" })
	require.GreaterOrEqual(t, at, 0)
	require.Equal(t, "points_per_second 10000 → points_per_second 20000", trail.Items[at].Change)
	require.Equal(t, "the night is long", trail.Items[at].Reason)
	res, answer := s.do(http.MethodPatch, "/v1/operations/"+id+"/limits", nil, `{"points_per_second": 1}`)
	require.Equal(t, http.StatusConflict, res.StatusCode, answer)
	require.Contains(t, answer, "succeeded")
}

// A limit on slots holds for all workers together, says what is waited for, and is
// changed live like the others.
func TestALimitOnSlotsHoldsForAllWorkersTogether(t *testing.T) {
	t.Parallel()
	s := newLimitSite(t, 8, 10_000)
	s.configure()
	s.startAPI()
	for range 3 {
		s.startWorker("-slots", "2")
	}
	id := s.recover(map[string]any{"points_per_second": 8_000, "slots_per_backend": 1})
	s.wait(id, waits("slots", func(w *operation.Wait) bool { return w.Measured == "1/1 used" && w.Backend != "" }))
	s.wait(id, func(*operation.Operation) bool {
		require.LessOrEqual(t, s.running(id), 1)
		return s.flow.Total() > 15_000
	})
	require.LessOrEqual(t, s.flow.Most(), 2, "a task has two batches under way")
	s.limit(id, `{"slots_per_backend": 3}`)
	s.wait(id, func(*operation.Operation) bool { return s.running(id) == 3 })
	s.limit(id, `{"slots_per_backend": 2}`)
	s.wait(id, waits("slots", func(w *operation.Wait) bool { return strings.HasSuffix(w.Measured, "/2 used") }))
	s.limit(id, `{"slots_per_backend": null, "points_per_second": null}`)
	require.True(t, s.complete(id).Equal)
}

// running counts the tasks of an operation that run.
func (s *limitSite) running(id string) int {
	s.t.Helper()
	n := 0
	for _, task := range s.tasks(id) {
		if task.State == operation.TaskRunning {
			n++
		}
	}
	return n
}

// What the configuration says holds for operations that have no limit of their own,
// and changes with the file.
func TestTheConfigurationLimitsBackends(t *testing.T) {
	t.Parallel()
	s := newLimitSite(t, 10, 10_000)
	s.Settings = map[string]any{"limits": map[string]any{"points_per_second": 5_000}}
	s.configure()
	s.startAPI()
	s.startWorker("-slots", "2")
	s.startWorker("-slots", "2")
	id := s.recover(nil)
	s.wait(id, func(*operation.Operation) bool { return s.flow.Total() > 5_000 })
	s.requireRate(5_000, 2*time.Second)
	s.wait(id, waits("limit", func(w *operation.Wait) bool {
		return w.Backend != "" && strings.Contains(w.Limit, "5,000 points/s for this backend")
	}))
	s.Settings = map[string]any{"limits": map[string]any{"points_per_second": 10_000}}
	s.configure()
	require.NoError(t, s.API.Signal(syscall.SIGHUP))
	s.measure(time.Second)
	s.requireRate(10_000, 2*time.Second)
	s.Settings = nil
	s.configure()
	require.NoError(t, s.API.Signal(syscall.SIGHUP))
	require.True(t, s.complete(id).Equal)
}

// The process that grants is killed: until another does those who are limited wait and
// say so, and then go on within the limit.
func TestGrantingIsTakenOver(t *testing.T) {
	t.Parallel()
	s := newLimitSite(t, 10, 10_000)
	if s.NATS == nil {
		s.NATS = startNATS(t)
	}
	s.configure()
	s.startAPI()
	s.awaitGrantor()
	peer := s.another( // with the same circles
		harness.Circle{Name: "circle-0", Backends: []harness.Backend{{Name: "influxdb-0-0", URL: s.urls[0][0]}}},
		harness.Circle{Name: "circle-1", Backends: []harness.Backend{{Name: "influxdb-1-0", URL: s.urls[1][0]}}},
	)
	s.startWorker("-slots", "2")
	s.startWorker("-slots", "2")
	id := s.recover(map[string]any{"points_per_second": 5_000})
	s.wait(id, func(*operation.Operation) bool { return s.flow.Total() > 5_000 })
	s.API.Kill()
	killed := time.Now()
	s.Client = peer.Client
	s.wait(id, waits("limit", func(w *operation.Wait) bool { return w.Measured == "no process grants" }))
	s.wait(id, func(*operation.Operation) bool { return s.flow.Between(killed.Add(time.Second), time.Now()) > 2_000 })
	require.Less(t, time.Since(killed), 30*time.Second)
	s.requireRate(5_000, 2*time.Second)
	s.limit(id, `{"points_per_second": null}`)
	require.True(t, s.complete(id).Equal)
}

// awaitGrantor waits until a process grants.
func (s *limitSite) awaitGrantor() {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return strings.Contains(s.API.Output(), "granting what limits admit") }, patience, 20*time.Millisecond)
}

// A backend that becomes slow, and one that refuses, gets less for a while; the
// operation says so and goes on.
func TestWorkersBackOffFromABackendThatSuffers(t *testing.T) {
	t.Parallel()
	const rows = 20_000
	s := newLimitSite(t, 20, rows)
	s.configure()
	s.startAPI()
	s.startWorker("-slots", "2")
	var suffering atomic.Bool
	suffering.Store(true)
	s.sink.Handle(func(w http.ResponseWriter, r *http.Request) {
		if harness.IsWrite(r) {
			defer s.flow.Begin(r)()
			if suffering.Load() && s.flow.Total() > 120_000 {
				select {
				case <-time.After(1500 * time.Millisecond):
				case <-r.Context().Done():
				}
			}
		}
		s.sink.Forward(w, r)
	})
	id := s.recover(nil)
	op := s.wait(id, waits("backoff", func(w *operation.Wait) bool { return strings.Contains(w.Measured, "times the usual") }))
	require.True(t, waits("backoff", func(w *operation.Wait) bool {
		return w.Backend == s.sink.URL() && strings.HasSuffix(w.Limit, "points/s, rising")
	})(&op), asJSON(t, op.Waits))
	suffering.Store(false)
	require.True(t, s.complete(id).Equal)
}
