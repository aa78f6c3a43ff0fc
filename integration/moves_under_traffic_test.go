package integration_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/integration/traffic"
	"ringmaster/pkg/operation"
)

// circleOf names backends as one circle of a configuration.
func circleOf(name string, backends ...*backend) harness.Circle {
	c := harness.Circle{Name: name}
	for _, b := range backends {
		c.Backends = append(c.Backends, b.configured(fmt.Sprintf("%s-%d", name, b.port())))
	}
	return c
}

// port tells a test's backends apart by name, whatever circle they are in.
func (b *backend) port() int {
	b.t.Helper()
	u, err := url.Parse(b.URL())
	require.NoError(b.t, err)
	var port int
	_, err = fmt.Sscanf(u.Port(), "%d", &port)
	require.NoError(b.t, err)
	return port
}

// reconfigure has the running api read another configuration.
func (in *installation) reconfigure(circles ...harness.Circle) {
	in.t.Helper()
	require.NoError(in.t, in.WriteCircles(circles...))
	require.NoError(in.t, in.API.Signal(syscall.SIGHUP))
}

// circleState is a circle as /v1/topology shows it.
type circleState struct {
	ID         int
	Unreadable string
	Transition *struct {
		Step     string
		WaitsFor string `json:"waits_for"`
	}
	Backends []struct {
		URL, Mode string
		WriteOnly bool `json:"write_only"`
	}
}

// circles asks for the circles as they are served.
func (in *installation) circles() (epoch uint64, all []circleState) {
	in.t.Helper()
	var topology struct {
		Epoch   uint64
		Circles []circleState
	}
	require.NoError(in.t, in.Client.Get(in.context(), "/v1/topology", &topology))
	return topology.Epoch, topology.Circles
}

// awaitStep waits until a circle's transition has come to a step; "" means that there
// is none.
func (in *installation) awaitStep(epoch uint64, circle int, step string) {
	in.t.Helper()
	var last any
	if !waitFor(in.t, func() bool {
		now, all := in.circles()
		at := ""
		if all[circle].Transition != nil {
			at = all[circle].Transition.Step
		}
		last = all[circle]
		return now == epoch && at == step
	}) {
		in.t.Fatalf("circle %d does not come to step %q of epoch %d: %s", circle, step, epoch, asJSON(in.t, last))
	}
}

// waitFor waits for a condition; false when it does not come true.
func waitFor(t testing.TB, condition func() bool) bool {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for ctx := bounded(t); ; {
		if condition() {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
}

// query sends a statement through the gateway.
func (in *installation) query(statement string) string {
	in.t.Helper()
	res, body := in.do(http.MethodPost, "/query", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, url.Values{"q": {statement}}.Encode())
	require.Equal(in.t, http.StatusOK, res.StatusCode, body)
	require.NotContains(in.t, body, `"error"`)
	return body
}

// requireAcknowledged requires of the owners in every circle what was acknowledged,
// and that all circles hold the same.
func (in *installation) requireAcknowledged(tr *traffic.Traffic, db string, backends []*backend) {
	in.t.Helper()
	_, circles := in.circles()
	held := map[string]map[harness.Place]harness.Points{}
	for _, b := range backends {
		held[b.URL()] = b.dump()
	}
	for _, m := range tr.Measurements() {
		place := harness.Place{Database: db, RetentionPolicy: "autogen", Measurement: m}
		var first harness.Points
		for c := range circles {
			owner := in.owner(c, db, m)
			if through, ok := in.behind[owner]; ok {
				owner = through
			}
			values, err := valuesOf(held[owner][place])
			require.NoError(in.t, err)
			require.Empty(in.t, tr.Missed(m, values), "circle %d, %s", c, owner)
			if c == 0 {
				first = held[owner][place]
				continue
			}
			requireHolds(in.t, fmt.Sprintf("%s in circle %d, against circle 0", m, c), first, held[owner][place])
		}
	}
}

// valuesOf turns the points of one measurement with a whole number each into values
// by time; see harness.Points for how it names them.
func valuesOf(points harness.Points) (map[int64]int64, error) {
	values := map[int64]int64{}
	for key, value := range points {
		var at, v int64
		fields := strings.Fields(key)
		if _, err := fmt.Sscanf(fields[len(fields)-1], "%d", &at); err != nil {
			return nil, fmt.Errorf("reading the time of %q: %w", key, err)
		}
		if _, err := fmt.Sscanf(value, "integer %x", &v); err != nil {
			return nil, fmt.Errorf("reading the value %q: %w", value, err)
		}
		values[at] = v
	}
	return values, nil
}

// TestMovesUnderTraffic is the promise of the data plane: clients that write,
// overwrite and read without pause never see a hole, an old value or an error, while
// circles grow and shrink, are filled and made equal and cleaned up.
func TestMovesUnderTraffic(t *testing.T) {
	t.Parallel()
	const db = "traffic"
	b := startBackends(t, 6)
	one, two := b[:2], b[2:4]
	in := install(t)
	require.NoError(t, in.WriteCircles(circleOf("one", one...), circleOf("two", two...)))
	in.startAPI()
	in.startWorker()
	in.query("CREATE DATABASE " + db)
	tr := traffic.Start(traffic.Options{
		Targets: []string{in.Client.URL}, Database: db, Writers: 4, Measurements: 6, Readers: 3, Batch: 20,
		Begin: time.Now().Add(-20 * 24 * time.Hour), Step: 97 * time.Second, Seed: 1,
	})
	stopped := false
	defer func() {
		if !stopped {
			tr.Stop()
		}
	}()
	moves := func(atLeast int) {
		t.Helper()
		writes, _, reads := tr.Counts()
		require.True(t, waitFor(t, func() bool {
			w, _, r := tr.Counts()
			return w >= writes+atLeast && r >= reads+atLeast
		}), "the clients have come to a halt")
	}
	moves(50)

	// add
	in.reconfigure(circleOf("one", b[0], b[1], b[4]), circleOf("two", two...))
	in.awaitStep(2, 0, "write_both_read_old")
	moves(20)
	in.finish(in.rebalanceAdd(0).ID, operation.Succeeded)
	in.awaitStep(2, 0, "")
	moves(20)
	in.finish(in.kind(operation.KindClear, map[string]any{"circle_id": 0}).ID, operation.Succeeded)
	moves(20)

	// rm
	in.reconfigure(circleOf("one", b[1], b[4]), circleOf("two", two...))
	in.awaitStep(3, 0, "write_both_read_old")
	in.finish(in.rebalanceRemove(0, []harness.Backend{b[0].configured("gone")}).ID, operation.Succeeded)
	in.awaitStep(3, 0, "")
	moves(20)

	// recovery: a backend of circle two is replaced by an empty one, which is only
	// written to until it has been filled. Its name and place stay.
	replaced := circleOf("two", two...)
	replaced.Backends[0].URL = b[5].URL()
	replaced.Backends[0].WriteOnly = true
	in.reconfigure(circleOf("one", b[1], b[4]), replaced)
	in.awaitStep(4, 1, "write_both_read_old")
	in.finish(in.rebalanceAdd(1).ID, operation.Succeeded)
	in.awaitStep(4, 1, "")
	in.finish(in.kind(operation.KindRecovery, map[string]any{"from_circle_id": 0, "to_circle_id": 1}).ID, operation.Succeeded)
	replaced = circleOf("two", two...)
	replaced.Backends[0].URL = b[5].URL()
	in.reconfigure(circleOf("one", b[1], b[4]), replaced)
	moves(20)

	// resync
	in.finish(in.kind(operation.KindResync, map[string]any{}).ID, operation.Succeeded)
	moves(20)

	stopped = true
	require.Empty(t, tr.Stop())
	writes, failures, reads := tr.Counts()
	require.Zero(t, failures)
	t.Logf("%d writes, %d reads", writes, reads)
	in.requireAcknowledged(tr, db, []*backend{b[1], b[4], b[5], b[3]})
	for _, m := range tr.Measurements() {
		require.False(t, slices.Contains([]string{b[0].URL(), b[2].URL()}, in.owner(0, db, m)))
	}
}

// kind submits an operation of any kind.
func (in *installation) kind(kind operation.Kind, parameters map[string]any) operation.Operation {
	in.t.Helper()
	op, err := in.Client.Submit(in.context(), kind, parameters)
	require.NoError(in.t, err)
	return op
}
