package controller_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/controller"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/serving"
)

// dry plans a dry run and returns its plan.
func (r *rig) dry(kind operation.Kind, parameters string) operation.Plan {
	r.t.Helper()
	op, _, err := r.intake.Submit(r.t.Context(), operation.Request{Kind: kind, Parameters: json.RawMessage(parameters), DryRun: true, RequestedBy: "test"})
	require.NoError(r.t, err)
	end := r.finish(op.ID, operation.Planned)
	require.Empty(r.t, end.Scope)
	plan, err := r.ledger.Plan(r.t.Context(), &end)
	require.NoError(r.t, err)
	return plan
}

// only are the refusals of one code.
func only(p *operation.Plan, code string) []operation.Refusal {
	var out []operation.Refusal
	for _, r := range p.Refusals {
		if r.Code == code {
			out = append(out, r)
		}
	}
	return out
}

// TestADryRunSaysWhatIsInItsWay: who holds its circle, since when and in what state,
// flags, backends that lose what is written; and it disturbs none of them.
func TestADryRunSaysWhatIsInItsWay(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 3)})
	r.control(func(o *controller.Options) {
		o.Slots = func(context.Context) (int, error) { return 7, nil }
		o.Trouble = func(url string) string {
			if url == "http://b1:1" {
				return "no space left on device"
			}
			return ""
		}
	})
	plan := r.dry(operation.KindRebalance, add)
	require.Len(t, plan.Refusals, 1)
	require.Equal(t, operation.RefusalUnhealthy, plan.Refusals[0].Code)
	require.Equal(t, "http://b1:1", plan.Refusals[0].Backend)
	require.Contains(t, plan.Refusals[0].Detail, "no space left on device")
	require.Contains(t, plan.Duration.Basis, "1 tasks at once (1 tasks)")
	require.Less(t, plan.Duration.LowSeconds, plan.Duration.HighSeconds)

	q := request(add)
	q.Hold = true
	holder, _, err := r.intake.Submit(t.Context(), q)
	require.NoError(t, err)
	held := r.reach(holder.ID, operation.AwaitingApproval)
	own, err := r.ledger.Plan(t.Context(), &held)
	require.NoError(t, err)
	require.NotNil(t, own.Duration)
	require.Len(t, own.Refusals, 1, "not its own scope")

	require.NoError(t, r.atlas.SetMigrating(t.Context(), 0, true))
	require.NoError(t, r.atlas.SetResyncing(t.Context(), true))
	plan = r.dry(operation.KindRebalance, add)
	require.Len(t, plan.Refusals, 4)
	require.Equal(t, "circle/0", plan.Refusals[0].Scope)
	require.Regexp(t, `circle/0 is held by operation `+holder.ID+` \(rebalance, awaiting_approval, submitted [0-9]+s ago\)`, plan.Refusals[0].Detail)
	require.Len(t, only(&plan, "flagged_by_hand"), 2)
	for _, refusal := range plan.Refusals {
		require.NotEmpty(t, refusal.Hint)
	}
	require.Equal(t, operation.AwaitingApproval, r.read(holder.ID).State)
	require.NoError(t, r.atlas.SetMigrating(t.Context(), 0, false))
	require.NoError(t, r.atlas.SetResyncing(t.Context(), false))
}

// TestADryRunPlansBesideATransition: what the transition would be in the way of is told
// with the plan, and hints and incomplete circles are, too.
func TestADryRunPlansBesideATransition(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 3)})
	require.NoError(t, r.configure(config(t, 4), false))
	r.run("session", r.session.Run)
	require.Eventually(t, func() bool { return r.atlas.Current().Epoch == 2 }, patience, tick)
	v, err := r.ledger.Topology(t.Context())
	require.NoError(t, err)
	state := v.Value.Serving.Clone()
	since := time.Now().Add(-time.Hour)
	state.Backlogs = append(state.Backlogs, serving.Backlog{Backend: "http://b2:1", Mode: serving.Hinting, Reason: "connection refused", Since: since})
	state.Incomplete = append(state.Incomplete, serving.Incomplete{Circle: 0, Reason: "a disk was lost", Since: since})
	require.NoError(t, r.ledger.StoreServing(t.Context(), v, state))
	r.control()

	plan := r.dry(operation.KindResync, `{}`)
	open := only(&plan, "transition_open")
	require.Len(t, open, 1)
	require.Equal(t, "circle/0", open[0].Scope)
	require.Contains(t, open[0].Detail, "circle 0 is still changing to epoch 2")
	require.Len(t, plan.Tasks, 1, "planned all the same")
	backlog := only(&plan, operation.RefusalBacklog)
	require.Len(t, backlog, 1)
	require.Equal(t, "http://b2:1", backlog[0].Backend)
	require.Contains(t, backlog[0].Detail, "hinting: connection refused")
	require.Contains(t, backlog[0].Detail, "does not end before")
	require.Contains(t, only(&plan, "circle_incomplete")[0].Detail, "a disk was lost")

	plan = r.dry(operation.KindClear, `{"circle_id":0}`)
	require.Len(t, only(&plan, "transition_open"), 1)

	plan = r.dry(operation.KindRebalance, add)
	require.Contains(t, only(&plan, "transition_open")[0].Detail, "begins when every process writes to the new owners")
}

// TestThePastTellsTheDuration: operations of the kind that ended here, and no others.
func TestThePastTellsTheDuration(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, named("a", 3)})
	ended := func(kind operation.Kind, change func(*operation.Operation)) {
		began, over := time.Now().Add(-time.Hour), time.Now().Add(-time.Hour+10*time.Second)
		op := operation.Operation{
			ID: newID(), Kind: kind, State: operation.Succeeded, Attempt: 1, StartedAt: &began, FinishedAt: &over, Scope: []string{},
			Plan: &operation.PlanRef{Totals: operation.PlanTotals{Points: 500_000, Tasks: 1}}, Parameters: json.RawMessage(`{}`),
		}
		if change != nil {
			change(&op)
		}
		_, err := r.ledger.CreateOperation(t.Context(), op)
		require.NoError(t, err)
	}
	r.control()
	plan := r.dry(operation.KindRebalance, add)
	require.Contains(t, plan.Duration.Basis, "no rebalance of this cluster has ended yet")
	ended(operation.KindClear, nil)
	ended(operation.KindRebalance, func(op *operation.Operation) { op.DryRun = true })
	ended(operation.KindRebalance, func(op *operation.Operation) { op.State = operation.Failed })
	ended(operation.KindRebalance, func(op *operation.Operation) { op.Limits.PointsPerSecond = new(int64(1)) })
	ended(operation.KindRebalance, func(op *operation.Operation) { op.Plan.Totals.Points = 10 })
	plan = r.dry(operation.KindRebalance, add)
	require.Contains(t, plan.Duration.Basis, "no rebalance of this cluster has ended yet")
	ended(operation.KindRebalance, nil)
	plan = r.dry(operation.KindRebalance, add)
	require.Contains(t, plan.Duration.Basis, "the last rebalance that ended, which handled 50000 to 50000 points a second")
}
