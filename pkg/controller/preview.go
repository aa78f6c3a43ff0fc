package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/serving"
)

// preview adds what the records tell to a plan that a person is going to look at: how
// long it may take, and what in the cluster would be in its way. It changes nothing.
func (t *turn) preview(ctx context.Context, plan *operation.Plan) error {
	op := &t.record.Value
	if !op.DryRun && !op.Hold {
		return nil
	}
	var inTheWay []operation.Refusal
	add := func(all []operation.Refusal, err error) error {
		inTheWay = append(inTheWay, all...)
		return err
	}
	if err := errors.Join(add(t.claims(ctx)), add(t.unsettled(ctx)), add(t.strangers(ctx))); err != nil {
		return err
	}
	inTheWay = append(inTheWay, t.unhealthy(plan)...)
	// What refuses comes before what trips.
	found := plan.Refusals
	plan.Refusals = nil
	plan.Refuse(append(inTheWay, found...)...)
	duration, err := t.duration(ctx, plan)
	plan.Duration = &duration
	return err
}

// claims are what would refuse the request at this moment: operations that hold its
// circles, and flags that a person has set. Who is held has its circles already.
func (t *turn) claims(ctx context.Context) ([]operation.Refusal, error) {
	op := &t.record.Value
	if !op.DryRun {
		return nil, nil
	}
	scopes, err := t.wouldHold(ctx)
	if err != nil {
		return nil, err
	}
	var out []operation.Refusal
	for _, scope := range scopes {
		err := t.ledger.Holder(ctx, []string{scope})
		var held *operation.ScopeHeldError
		switch {
		case errors.As(err, &held):
			out = append(out, operation.Refusal{
				Code: "scope_held", Scope: scope,
				Detail: fmt.Sprintf("%s is held by operation %s (%s)", scope, held.HolderID, held.Holder(t.options.Now())),
				Hint:   held.Hint(),
			})
		case err != nil:
			return nil, err
		}
	}
	flags, err := t.ledger.Flags(ctx)
	if err != nil {
		return nil, err
	}
	flagged := func(scope string, e *operation.FlaggedError) {
		out = append(out, operation.Refusal{Code: "flagged_by_hand", Scope: scope, Detail: e.Error(), Hint: e.Hint()})
	}
	for _, circle := range flags.Value.Migrating {
		if scope := operation.CircleScope(circle); slices.Contains(scopes, scope) {
			flagged(scope, &operation.FlaggedError{Circle: circle})
		}
	}
	if flags.Value.Resyncing && len(scopes) > 0 {
		flagged("", &operation.FlaggedError{Resyncing: true})
	}
	return out, nil
}

// wouldHold are the scopes that the operation would take.
func (t *turn) wouldHold(ctx context.Context) ([]string, error) {
	epochs, err := t.ledger.Topology(ctx)
	if err != nil {
		return nil, err
	}
	if epochs.Value.Current == nil {
		return nil, errEpochChanged(t.record.Value.Epoch)
	}
	p, err := operation.ParseMove(t.record.Value.Kind, t.record.Value.Parameters)
	if err != nil {
		return nil, err
	}
	return operation.CircleScopes(p, len(epochs.Value.Current.Circles)), nil
}

// unsettled is what of the cluster's own state would hold the operation up or end it.
func (t *turn) unsettled(ctx context.Context) ([]operation.Refusal, error) {
	epochs, err := t.ledger.Topology(ctx)
	if err != nil {
		return nil, err
	}
	if epochs.Value.Current == nil {
		return nil, errEpochChanged(t.record.Value.Epoch)
	}
	p, err := operation.ParseMove(t.record.Value.Kind, t.record.Value.Parameters)
	if err != nil {
		return nil, err
	}
	circles := p.Circles(len(epochs.Value.Current.Circles))
	var out []operation.Refusal
	state := &epochs.Value.Serving
	clears := t.record.Value.Kind == operation.KindClear
	for i := range state.Transitions {
		tr := &state.Transitions[i]
		one := serving.State{Transitions: []serving.Transition{*tr}}
		refusal := operation.Refusal{Code: "transition_open", Scope: operation.CircleScope(tr.Circle)}
		var own *operation.Error
		switch err := t.transitionInTheWay(&one, circles); {
		case errors.As(err, &own):
			refusal.Code, refusal.Detail = own.Code, own.Detail
			refusal.Hint = "GET /v1/topology shows the transition and what it waits for"
		case clears:
			refusal.Detail = fmt.Sprintf("circle %d is still changing to epoch %d (%s), so its former owners are still written to or read: a clear deletes nothing meanwhile", tr.Circle, tr.Epoch, tr.Step)
			refusal.Hint = "wait until GET /v1/topology shows no transition"
		case tr.Step == serving.Opening && slices.Contains(circles, tr.Circle):
			refusal.Detail = fmt.Sprintf("circle %d is still changing to epoch %d (%s): the operation begins when every process writes to the new owners", tr.Circle, tr.Epoch, tr.Step)
			refusal.Hint = "GET /v1/topology shows what the transition waits for"
		default:
			continue
		}
		out = append(out, refusal)
	}
	for i := range state.Backlogs {
		b := &state.Backlogs[i]
		detail := fmt.Sprintf("writes wait for %s since %s (%s: %s): they are no part of what is planned", b.Backend, b.Since.UTC().Format(time.RFC3339), b.Mode, b.Reason)
		if !clears {
			detail += ", and the operation does not end before none wait for any backend"
		}
		out = append(out, operation.Refusal{
			Code: operation.RefusalBacklog, Backend: b.Backend, Detail: operation.Clip(detail),
			Hint: "make the backend take writes; GET /health shows its backlog",
		})
	}
	for _, mark := range state.Incomplete {
		if t.reads(circles, mark.Circle) {
			out = append(out, operation.Refusal{
				Code: "circle_incomplete", Scope: operation.CircleScope(mark.Circle),
				Detail: operation.Clip(fmt.Sprintf("circle %d lacks points since %s (%s): what it lacks cannot be copied from it", mark.Circle, mark.Since.UTC().Format(time.RFC3339), mark.Reason)),
				Hint:   "finish the recovery into it first",
			})
		}
	}
	return out, nil
}

// reads reports whether the operation takes a circle's points for what there is.
func (t *turn) reads(circles []int, circle int) bool {
	if t.record.Value.Kind == operation.KindRecovery {
		return len(circles) > 0 && circles[0] == circle
	}
	return slices.Contains(circles, circle)
}

// strangers are processes that serve requests by another epoch than the operation's.
func (t *turn) strangers(ctx context.Context) ([]operation.Refusal, error) {
	var out []operation.Refusal
	epoch := t.record.Value.Epoch
	for e, err := range t.leases.Bucket().List(ctx, ledger.ProcessLeases()) {
		if err != nil {
			return nil, fmt.Errorf("listing the processes: %w", err)
		}
		p := process{ID: e.Key}
		if err := json.Unmarshal(e.Value, &p); err == nil && p.Epoch == epoch {
			continue
		}
		out = append(out, operation.Refusal{
			Code:   "other_epoch",
			Detail: fmt.Sprintf("process %s works with epoch %d, the plan with epoch %d: what it writes meanwhile may go elsewhere, so the operation waits for it, and a clear gives up", p.ID, p.Epoch, epoch),
			Hint:   "bring it up to date or stop it",
		})
	}
	return out, nil
}

// unhealthy are the plan's backends that answer and do not store what is written.
func (t *turn) unhealthy(plan *operation.Plan) []operation.Refusal {
	if t.options.Trouble == nil {
		return nil
	}
	var out []operation.Refusal
	for i := range plan.Backends {
		url := plan.Backends[i].URL
		if trouble := t.options.Trouble(url); trouble != "" {
			out = append(out, operation.Refusal{
				Code: operation.RefusalUnhealthy, Backend: url,
				Detail: operation.Clip("a point written to it could not be read back: " + trouble),
				Hint:   "see to its disk and its log; GET /health shows when it is well again",
			})
		}
	}
	return out
}

// duration estimates how long the plan takes, by how long others of its kind took.
func (t *turn) duration(ctx context.Context, plan *operation.Plan) (operation.PlanDuration, error) {
	op := &t.record.Value
	pace := operation.Pace{Kind: op.Kind, Totals: plan.Totals, Limits: op.Limits}
	sources := map[int]bool{}
	for i := range plan.Moves {
		sources[plan.Moves[i].From] = true
	}
	pace.Sources = len(sources)
	var err error
	if pace.PerSource, err = t.workers(); err != nil {
		return operation.PlanDuration{}, err
	}
	if t.options.Slots != nil {
		if pace.Slots, err = t.options.Slots(ctx); err != nil {
			return operation.PlanDuration{}, err
		}
	}
	if pace.Bounded, err = t.bounded(ctx, plan); err != nil {
		return operation.PlanDuration{}, err
	}
	if pace.Past, err = t.past(ctx); err != nil {
		return operation.PlanDuration{}, err
	}
	return pace.Duration(), nil
}

// bounded are the plan's backends that have limits of their own.
func (t *turn) bounded(ctx context.Context, plan *operation.Plan) ([]operation.Bounded, error) {
	limits, err := t.ledger.BackendLimits(ctx)
	if err != nil {
		return nil, err
	}
	var out []operation.Bounded
	for i := range plan.Backends {
		b := operation.Bounded{URL: plan.Backends[i].URL, Limits: limits.Of(plan.Backends[i].URL)}
		if b.Limits.None() {
			continue
		}
		for _, m := range plan.Moves {
			if m.From == i || m.To == i {
				b.Points, b.Bytes = b.Points+m.Points, b.Bytes+m.Bytes
			}
		}
		out = append(out, b)
	}
	return out, nil
}

// past are the latest operations of the kind that tell how fast they go here: run to
// their end at once, without a limit, and large enough.
func (t *turn) past(ctx context.Context) ([]operation.Past, error) {
	type ended struct {
		at time.Time
		operation.Past
	}
	var all []ended
	kind := t.record.Value.Kind
	err := t.ledger.Operations(ctx, func(op operation.Operation, _ uint64) error {
		over := op.State == operation.Succeeded || op.State == operation.PartiallyFailed
		if !over || op.Kind != kind || op.DryRun || op.Hold || op.Attempt > 1 || op.Limits != (operation.Limits{}) ||
			op.Plan == nil || op.StartedAt == nil || op.FinishedAt == nil {
			return nil
		}
		p := operation.Past{Work: operation.WorkOf(&op.Plan.Totals), Seconds: op.FinishedAt.Sub(*op.StartedAt).Seconds()}
		if p.Work >= operation.PastWork && p.Seconds >= operation.PastSeconds {
			all = append(all, ended{*op.FinishedAt, p})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b ended) int { return cmp.Compare(b.at.UnixNano(), a.at.UnixNano()) })
	var out []operation.Past
	for _, e := range all[:min(len(all), operation.MaxPast)] {
		out = append(out, e.Past)
	}
	return out, nil
}
