package planner_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/operation"
	"ringmaster/pkg/topology"
)

// TestAVerificationIsPlannedFromBothSides: what either side has is compared, whichever
// way round they are named, and what neither has is not.
func TestAVerificationIsPlannedFromBothSides(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, 1)
	here, there := r.servers[0][0], r.servers[1][0]
	for _, s := range r.servers {
		s[0].Exec("CREATE DATABASE db WITH DURATION INF SHARD DURATION 1d")
	}
	there.Exec("CREATE DATABASE other WITH DURATION INF SHARD DURATION 1d NAME own")
	day := int64(24 * time.Hour)
	base := time.Unix(0, 1_700_000_000_000_000_000).UTC().Truncate(24 * time.Hour).UnixNano()
	point := func(measurement string, days int64) string {
		return fmt.Sprintf("%s v=1i %d\n", measurement, base+days*day)
	}
	here.WriteLines("db", "", point("both", 0)+point("both", 2)+point("here", 4))
	there.WriteLines("db", "", point("both", 1)+point("both", 2)+point("there", 6))
	there.WriteLines("other", "own", point("both", 8))
	want := []string{"db.both 0", "db.both 1", "db.both 2", "db.here 4", "db.there 6", "other.both 8"}

	for raw, repairs := range map[string]bool{
		`{"circle_id":0}`: false, `{"circle_id":1}`: false, `{"circle_id":0,"depth":"count","databases":["db","other"]}`: false,
		`{"circle_id":0,"repair":true,"repair_from":"against"}`: true,
	} {
		plan, all := r.plan(r.operation(operation.KindVerify, raw))
		var have []string
		for _, s := range all {
			have = append(have, fmt.Sprintf("%s.%s %d", s.Database, s.Measurement, (s.From-base)/day))
			require.Equal(t, day, s.To-s.From)
		}
		slices.Sort(have)
		require.Equal(t, want, have, raw)
		first := plan.Tasks[0].From
		for _, task := range plan.Tasks {
			require.Equal(t, first, task.From, "one side is the source of all")
			require.NotEqual(t, first, task.To)
			require.Zero(t, task.Rule)
			require.Zero(t, task.Wave)
		}
		require.Equal(t, 0, first, "the circle that it is about comes first")
		require.Equal(t, repairs, len(plan.Policies) > 0, "nothing is made that is only compared")
		for _, p := range plan.Policies {
			require.Equal(t, 0, p.Backend, "what is made is made where it is lacking")
		}
	}
	plan, all := r.plan(r.operation(operation.KindVerify, `{"circle_id":0,"against_circle_id":0}`))
	require.Empty(t, all)
	require.Empty(t, plan.Tasks)
}

// TestAVerificationOfACircleThatChanges compares the former owners, which are read.
func TestAVerificationOfACircleThatChanges(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, 1)
	mine := r.owned(0, 1, "db", 3)
	first, joined, other := r.servers[0][0], r.servers[0][1], r.servers[1][0]
	for _, s := range slices.Concat(r.servers...) {
		s.Exec("CREATE DATABASE db")
	}
	for _, m := range mine {
		first.WriteLines("db", "", lines(m, 10, time.Hour))
		joined.WriteLines("db", "", lines(m, 1, time.Hour))
		other.WriteLines("db", "", lines(m, 10, time.Hour))
	}
	op := r.operation(operation.KindVerify, `{"circle_id":0}`)
	at := r.at(op)
	former := newPlacement(t, first.URL())
	at.Circles[0].Former, at.Circles[0].FormerRules = former, true
	j := &job{}
	plan, err := r.planner.Plan(t.Context(), op, at, j)
	require.NoError(t, err)
	require.Equal(t, []int{0}, plan.FormerOwners)
	require.NotEmpty(t, plan.Notes)
	require.NotEmpty(t, plan.Tasks)
	for _, task := range plan.Tasks {
		require.Equal(t, first.URL(), plan.Backends[task.From].URL)
		require.Equal(t, other.URL(), plan.Backends[task.To].URL)
	}

	// One server under two addresses is no second copy.
	both := newRig(t, 1)
	server := both.servers[0][0]
	server.Exec("CREATE DATABASE db")
	server.WriteLines("db", "", lines("m", 10, time.Hour))
	both.top = topologyOf(t, server.URL(), "http://localhost:"+portOf(t, server.URL()))
	plan, _ = both.plan(both.operation(operation.KindVerify, `{"circle_id":0}`))
	require.Empty(t, plan.Tasks)
	require.Contains(t, fmt.Sprint(plan.Notes), "one server")
}

// topologyOf has a circle for each of some servers.
func topologyOf(t *testing.T, urls ...string) *topology.Topology {
	t.Helper()
	var circles []any
	for i, u := range urls {
		circles = append(circles, map[string]any{"name": fmt.Sprint(i), "backends": []any{map[string]any{"name": fmt.Sprintf("b%d", i), "url": u}}})
	}
	raw, err := json.Marshal(map[string]any{"circles": circles})
	require.NoError(t, err)
	c, err := topology.Parse("proxy.json", raw)
	require.NoError(t, err)
	return c.Topology()
}

// newPlacement is that of a circle of one server.
func newPlacement(t *testing.T, server string) *topology.Placement {
	t.Helper()
	p, err := topologyOf(t, server).Placement(0)
	require.NoError(t, err)
	return p
}

func portOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	return u.Port()
}
