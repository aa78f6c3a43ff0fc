package planner_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/patience"
	"ringmaster/pkg/planner"
	"ringmaster/pkg/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plain gives clients without credentials.
type plain struct{}

func (plain) Client(_ context.Context, _ *operation.Operation, url string, guard func() error) (*influx.Client, error) {
	return influx.New(influx.Endpoint{URL: url}, influx.Options{Guard: guard})
}

// job keeps the chunks of a plan.
type job struct {
	mu     sync.Mutex
	slices []operation.Slice
}

func (j *job) Alive()               {}
func (j *job) Wait(*operation.Wait) {}

func (j *job) PutChunk(_ context.Context, n int, part []operation.Slice) (operation.Document, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.slices = append(j.slices, part...)
	return operation.Document{Object: fmt.Sprint(n)}, nil
}

// rig is some circles of real servers.
type rig struct {
	t       testing.TB
	servers [][]*influxtest.Server
	top     *topology.Topology
	planner *planner.Planner
}

func newRig(t testing.TB, sizes ...int) *rig {
	t.Helper()
	r := &rig{t: t, planner: planner.New(plain{}, patience.New(patience.Config{
		Refused: 300 * time.Millisecond, Unreachable: 600 * time.Millisecond,
		Backoff: 5 * time.Millisecond, MaxBackoff: 50 * time.Millisecond, Now: time.Now,
	}), nil)}
	var circles []any
	for i, n := range sizes {
		var backends []any
		var own []*influxtest.Server
		for k := range n {
			s := influxtest.Start(t)
			own, backends = append(own, s), append(backends, map[string]any{"name": fmt.Sprintf("b%d%d", i, k), "url": s.URL()})
		}
		r.servers = append(r.servers, own)
		circles = append(circles, map[string]any{"name": fmt.Sprintf("c%d", i), "backends": backends})
	}
	raw, err := json.Marshal(map[string]any{"circles": circles})
	require.NoError(t, err)
	c, err := topology.Parse("proxy.json", raw)
	require.NoError(t, err)
	r.top = c.Topology()
	return r
}

// owner is the index of a measurement's owner in a circle.
func (r *rig) owner(circle int, db, measurement string) int {
	p, err := r.top.Placement(circle)
	require.NoError(r.t, err)
	url := p.Owner(db, measurement).URL
	for i, s := range r.servers[circle] {
		if s.URL() == url {
			return i
		}
	}
	r.t.Fatalf("nobody owns %s.%s", db, measurement)
	return 0
}

// owned returns n names of measurements that a backend owns.
func (r *rig) owned(circle, backend int, db string, n int) []string {
	var out []string
	for i := 0; len(out) < n; i++ {
		if name := fmt.Sprintf("m%03d", i); r.owner(circle, db, name) == backend {
			out = append(out, name)
		}
	}
	return out
}

// layout is that of a move.
func (r *rig) layout(move operation.Move) planner.Layout {
	at := planner.Layout{Epoch: 1}
	for _, id := range operation.Surveyed(move, len(r.top.Circles)) {
		circle, ok := r.top.Circle(id)
		require.True(r.t, ok)
		placement, err := r.top.Placement(id)
		require.NoError(r.t, err)
		at.Circles = append(at.Circles, planner.CircleLayout{Circle: circle, Placement: placement})
	}
	return at
}

// operation makes one of a kind.
func (r *rig) operation(kind operation.Kind, parameters string) *operation.Operation {
	return &operation.Operation{ID: "op", Kind: kind, Epoch: 1, Parameters: json.RawMessage(parameters), CreatedAt: time.Now()}
}

func (r *rig) at(op *operation.Operation) planner.Layout {
	move, err := operation.ParseMove(op.Kind, op.Parameters)
	require.NoError(r.t, err)
	return r.layout(move)
}

func (r *rig) plan(op *operation.Operation) (operation.Plan, []operation.Slice) {
	r.t.Helper()
	j := &job{}
	plan, err := r.planner.Plan(r.t.Context(), op, r.at(op), j)
	require.NoError(r.t, err)
	return plan, j.slices
}

// dry plans a dry run.
func (r *rig) dry(kind operation.Kind, parameters string) (operation.Plan, []operation.Slice) {
	r.t.Helper()
	op := r.operation(kind, parameters)
	op.DryRun = true
	return r.plan(op)
}

// lines are n points of a measurement, a second apart, that begin so long ago.
func lines(measurement string, n int, ago time.Duration) string {
	var b strings.Builder
	from := time.Now().Add(-ago).UnixNano()
	for i := range n {
		fmt.Fprintf(&b, "%s,host=h%d v=%di %d\n", measurement, i%3, i, from+int64(i)*int64(time.Second))
	}
	return b.String()
}
