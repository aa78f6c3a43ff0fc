package integration_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/operation"
)

// planOf is the plan of an operation as a client sees it.
func (s *circleSite) planOf(id string) (p struct {
	Moves          []operation.PlanMove        `json:"moves"`
	Measurements   []operation.PlanMeasurement `json:"measurements"`
	Totals         operation.PlanTotals        `json:"totals"`
	Balance        []operation.PlanBalance     `json:"balance"`
	Skew           *operation.PlanSkew         `json:"skew"`
	TopMovers      []operation.PlanMover       `json:"top_movers"`
	Duration       *operation.PlanDuration     `json:"duration"`
	Refusals       []operation.Refusal         `json:"refusals"`
	EstimateSource string                      `json:"estimate_source"`
	Schema         json.RawMessage             `json:"schema"`
},
) {
	s.t.Helper()
	res, shown := s.do(http.MethodGet, "/v1/operations/"+id+"/plan", nil, "")
	require.Equal(s.t, http.StatusOK, res.StatusCode, shown)
	require.NoError(s.t, json.Unmarshal([]byte(shown), &p))
	require.Nil(s.t, p.Schema)
	return p
}

// pointsOf counts the points of a server, and in how many measurements they are.
func pointsOf(held places) (points int64, measurements int) {
	type name struct{ database, measurement string }
	names := map[name]bool{}
	for place, of := range held {
		seen := map[string]bool{}
		for key := range of {
			seen[pointOf(key)] = true
		}
		points += int64(len(seen))
		names[name{place.Database, place.Measurement}] = true
	}
	return points, len(names)
}

// TestADryRunForetellsTheRun: of every kind. A dry run names the moves that the run then
// makes and what each server holds afterwards, and changes nothing anywhere.
func TestADryRunForetellsTheRun(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 2, 1)
	s.start()
	s.createDatabase("db")
	// Of each, the first circle holds a part at the owner and all at the other, and the
	// second has some that the first has not.
	for n, measurement := range []string{"cpu", "mem", "disk", "net", "load", "swap"} {
		owner := s.ownerOf(0, "db", measurement)
		other := s.members[0][0]
		if owner == other {
			other = s.members[0][1]
		}
		part, whole := generate(measurement, 40*n), generate(measurement, 100+80*n)
		if n > 0 {
			owner.write("db", "daily", part)
		}
		other.write("db", "daily", whole)
		if n%2 == 0 {
			s.members[1][0].write("db", "daily", generate(measurement, 10))
		}
	}
	s.members[1][0].write("db", "daily", generate("only_here", 33))

	for _, step := range []struct {
		call  string
		state operation.State
	}{
		{"/rebalance?circle_id=0&operation=add", operation.Succeeded},
		{"/recovery?from_circle_id=0&to_circle_id=1", operation.Succeeded},
		{"/clear?circle_id=0", operation.Succeeded},
		{"/resync?seconds=0", operation.Succeeded},
	} {
		before := s.dump()
		began := time.Now()
		dry := s.finish(s.ask(step.call+"&dry_run=true&reason=a+look"), operation.Planned)
		require.Equal(t, "a look", dry.Reason)
		requireContents(t, before, s.dump())
		foretold := s.planOf(dry.ID)
		require.Empty(t, foretold.Refusals, step.call)
		require.NotNil(t, foretold.Refusals, "looked for, and none found")
		require.NotEmpty(t, foretold.EstimateSource)
		require.NotEmpty(t, foretold.TopMovers)
		require.Equal(t, foretold.Totals.Tasks > 0, foretold.Duration.HighSeconds > 0)
		t.Logf("%s: dry run in %v, %.1f to %.1f s (%s)", step.call, time.Since(began), foretold.Duration.LowSeconds, foretold.Duration.HighSeconds, foretold.Duration.Basis)

		run := s.finish(s.ask(step.call), step.state)
		made := s.planOf(run.ID)
		require.Empty(t, made.Balance, "who runs at once waits for no preview")
		require.Nil(t, made.Refusals)
		after := s.dump()
		for i := range made.Moves {
			made.Moves[i].Bytes, foretold.Moves[i].Bytes = 0, 0
			made.Moves[i].Points, foretold.Moves[i].Points = 0, 0
		}
		require.Equal(t, made.Moves, foretold.Moves, step.call)
		require.Len(t, foretold.Measurements, len(made.Measurements))
		for i := range made.Measurements {
			a, b := made.Measurements[i], foretold.Measurements[i]
			require.Equal(t, []any{a.From, a.To, a.Database, a.Measurement, a.Slices}, []any{b.From, b.To, b.Database, b.Measurement, b.Slices})
		}
		requireForetold(t, s, foretold.Balance, before, after)
		took := run.FinishedAt.Sub(*run.StartedAt).Seconds()
		require.LessOrEqual(t, foretold.Duration.LowSeconds, took, foretold.Duration.Basis)
	}
}

// requireForetold compares a balance with what servers held and hold.
func requireForetold(t testing.TB, s *circleSite, balance []operation.PlanBalance, before, after contents) {
	t.Helper()
	for _, b := range balance {
		points, measurements := pointsOf(before[b.URL])
		require.Equal(t, points, b.Before.Points, b.URL)
		require.Equal(t, measurements, b.Before.Measurements, b.URL)
		points, measurements = pointsOf(after[b.URL])
		require.InEpsilon(t, float64(points), float64(b.After.Points), 0.05, b.URL)
		require.Equal(t, measurements, b.After.Measurements, b.URL)
		require.Positive(t, b.Before.Bytes)
		require.Positive(t, b.After.Bytes)
	}
}

// TestADryRunBesideAnOperation: it takes no scope and is refused nothing, and says what
// would be; what is approved later runs as it was planned, unless something is new.
func TestADryRunBesideAnOperation(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 2)
	s.start()
	s.createDatabase("db")
	for n, measurement := range []string{"cpu", "mem", "disk"} {
		s.members[0][0].write("db", "daily", generate(measurement, 50+n))
		s.members[0][1].write("db", "daily", generate(measurement, 20+n))
	}
	held := s.ask("/rebalance?circle_id=0&operation=add&hold=true&reason=the+new+node")
	s.wait(held, func(op *operation.Operation) bool { return op.State == operation.AwaitingApproval })
	plan := s.planOf(held)
	require.Len(t, plan.Balance, 2)
	require.Empty(t, plan.Refusals)

	dry := s.finish(s.ask("/clear?circle_id=0&dry_run=true"), operation.Planned)
	refusals := s.planOf(dry.ID).Refusals
	require.Len(t, refusals, 1)
	require.Equal(t, "scope_held", refusals[0].Code)
	require.Equal(t, "circle/0", refusals[0].Scope)
	require.Contains(t, refusals[0].Detail, held)
	require.Contains(t, refusals[0].Detail, "rebalance, awaiting_approval, submitted")

	s.members[0][1].write("db", "daily", "new v=1 1")
	res, answer := s.do(http.MethodPost, "/v1/operations/"+held+"/approve", nil, "")
	require.Equal(t, http.StatusConflict, res.StatusCode, answer)
	require.Contains(t, answer, "measurement db.new is new on "+s.members[0][1].URL())
	s.finish(held, operation.Failed)

	before := s.dump()
	held = s.ask("/rebalance?circle_id=0&operation=add&hold=true")
	s.wait(held, func(op *operation.Operation) bool { return op.State == operation.AwaitingApproval })
	requireContents(t, before, s.dump())
	plan = s.planOf(held)
	res, answer = s.do(http.MethodPost, "/v1/operations/"+held+"/approve", nil, "")
	require.Equal(t, http.StatusAccepted, res.StatusCode, answer)
	s.finish(held, operation.Succeeded)
	require.Equal(t, plan, s.planOf(held))
	requireForetold(t, s, plan.Balance, before, s.dump())
}
