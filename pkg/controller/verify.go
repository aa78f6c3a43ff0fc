package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ringmaster/pkg/operation"
	"ringmaster/pkg/serving"
)

// A verification compares while it is running. Nothing is left to be proven then, so
// it passes through verifying without a task, unless it has repaired: what was copied
// is compared there once more.

// verification returns the parameters of a verification; ok is false for every other
// kind.
func (t *turn) verification() (p operation.Verify, ok bool) {
	if t.record.Value.Kind != operation.KindVerify {
		return p, false
	}
	p, err := operation.ParseVerify(t.record.Value.Parameters)
	return p, err == nil
}

// repairs reports whether the operation is a verification that copies what is
// missing.
func (t *turn) repairs() bool {
	p, ok := t.verification()
	return ok && p.Repair
}

// repaired reports whether a task of a verification has copied anything.
func repaired(task *operation.Task) bool {
	return slices.ContainsFunc(task.Checkpoint, func(e operation.Evidence) bool { return e.Repaired() })
}

// awaitRepair waits, after the last point has been copied, until all writes have ended
// that began before that: one of them may have come to the side that was repaired
// before the older value that was brought there, and to the other side after it was
// looked at. What is compared from here on shows it.
func (t *turn) awaitRepair(ctx context.Context) error {
	if !t.copies() {
		return nil
	}
	_, err := t.nextRound(ctx, false, nil)
	return err
}

// settles says how what a verification found is made right: from where to where, and
// by which rule.
func (t *turn) settles(of *operation.Task) (from, to string, rule operation.Rule) {
	p, ok := t.verification()
	switch {
	case !ok:
		return of.Source, of.Destination, of.Rule
	case p.RepairFrom == operation.SideAgainst:
		return of.Destination, of.Source, operation.Rule{Overrule: true}
	default:
		return of.Source, of.Destination, operation.Rule{Overrule: true}
	}
}

// concludeVerify ends a verification by what its tasks have found.
func (t *turn) concludeVerify(ctx context.Context, progress operation.Progress) error {
	verdict := t.verdictOfVerify(false)
	if t.copies() && t.unproven() > 0 && t.tasksFailed() == 0 {
		var own *operation.Error
		switch err := t.settleUnproven(ctx); {
		case err == nil:
			verdict = t.verdictOfVerify(true)
		case !errors.As(err, &own):
			return err
		}
	}
	state, failure := t.outcomeOfVerify(ctx, verdict)
	return t.finish(ctx, state, verdict, func(op *operation.Operation) {
		op.Progress = progress
		op.Error = failure
		if state == operation.Succeeded {
			op.Result = t.foundEqual(verdict)
		}
	})
}

// unproven counts the slices that differ after they have been repaired although they
// need not.
func (t *turn) unproven() int {
	n := 0
	for _, v := range t.of(operation.PhaseVerify, t.record.Value.Round) {
		if v.Verdict != nil {
			n += len(v.Verdict.Unproven)
		}
	}
	return n
}

// verdictOfVerify joins the verdicts of all tasks; settled says that what the last
// comparison found has been made right.
func (t *turn) verdictOfVerify(settled bool) *operation.Verdict {
	total, round := &operation.Verdict{}, t.record.Value.Round
	for _, task := range t.of(operation.PhaseCompare, round) {
		own := operation.Verdict{}
		if task.Verdict != nil {
			own.Extend(task.Verdict)
		}
		own.AddUncompared(task)
		total.Add(&own)
	}
	for _, task := range t.of(operation.PhaseVerify, round) {
		own := operation.Verdict{}
		if task.Verdict != nil {
			own.Extend(task.Verdict)
		}
		if settled {
			own = own.Settled()
		}
		of := t.tasks[task.Of].Value
		own.AddUnjudged(task, &of)
		total.Add(&own)
	}
	return total
}

// Codes of what a verification ends with.
const (
	// codeUnequal: both sides do not hold the same.
	codeUnequal = "unequal"
	// codeOwnersChanged: what was compared may not be what is read any more.
	codeOwnersChanged = "owners_changed"
)

// outcomeOfVerify decides how a verification ends: it succeeds only when every slice
// was compared and found equal.
func (t *turn) outcomeOfVerify(ctx context.Context, v *operation.Verdict) (operation.State, *operation.Error) {
	failed, first := t.shortcomings()
	p, _ := t.verification()
	differ := operation.Differences{Missing: v.Missing, Extra: v.Extra, Different: v.Different}
	if p.Repair {
		differ = v.Left
	}
	unequal := v.Slices.Unequal - v.NotVerified
	switch {
	case failed == 0 && v.Slices.Unequal == 0 && v.Slices.Equal == v.Slices.Total:
		return operation.Succeeded, nil
	case unequal > 0 && differ.Any():
		return operation.PartiallyFailed, t.unequal(ctx, p, v, differ)
	case first == nil:
		first = &operation.Error{Code: operation.CodeNotVerified, Detail: fmt.Sprintf("%d of %d slices could not be compared; the report says why", v.Slices.Total-v.Slices.Equal, v.Slices.Total)}
	}
	if v.Slices.Equal == 0 {
		return operation.Failed, first
	}
	return operation.PartiallyFailed, first
}

// unequal says how much differs and where to look.
func (t *turn) unequal(ctx context.Context, p operation.Verify, v *operation.Verdict, d operation.Differences) *operation.Error {
	op := &t.record.Value
	circles, changed := t.ownersChanged(ctx, p)
	against := fmt.Sprintf("circle %d", p.CircleID)
	other := against + "'s owners"
	if len(circles) == 2 {
		other = fmt.Sprintf("circle %d", circles[1])
	} else {
		against = "what lies in wrong places of " + against
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s and %s are not equal: %d points are missing at %s, %d are only there, %d have other values, in %d of %d slices",
		against, other, d.Missing, other, d.Extra, d.Different, v.Slices.Unequal, v.Slices.Total)
	if p.Repair {
		fmt.Fprintf(&b, " (%d were copied before)", v.Copied)
	}
	if v.NotVerified > 0 {
		fmt.Fprintf(&b, "; %d slices could not be compared", v.NotVerified)
	}
	at := slices.IndexFunc(v.Problems, func(p operation.Problem) bool { return p.Code == operation.CodeUnequal })
	if at >= 0 {
		first := &v.Problems[at]
		fmt.Fprintf(&b, "; the first slice is %q.%q.%q between %s and %s", first.Slice.Database, first.Slice.RetentionPolicy, first.Slice.Measurement, first.SourceURL, first.DestURL)
	}
	if waits := t.backlogs(); waits != "" {
		fmt.Fprintf(&b, "; writes still wait for %s, so points may be on their way", waits)
	}
	fmt.Fprintf(&b, "; GET /v1/operations/%s/report names the slices with examples", op.ID)
	failure := &operation.Error{Code: codeUnequal, Detail: operation.Clip(b.String())}
	if changed {
		failure.Code = codeOwnersChanged
		failure.Detail = operation.Clip("the owners that are read have changed while they were compared, so this may be of the former ones; start it again: " + failure.Detail)
	}
	return failure
}

// backlogs names the backends that writes wait for, as far as this process knows.
func (t *turn) backlogs() string {
	if t.options.Accord == nil {
		return ""
	}
	var names []string
	for _, b := range t.options.Accord.View().State.Backlogs {
		names = append(names, b.Backend)
	}
	return strings.Join(names, ", ")
}

// ownersChanged returns the circles that were compared, and whether one of them is not
// read any more from the owners that it was read from when it was planned.
func (t *turn) ownersChanged(ctx context.Context, p operation.Verify) (circles []int, changed bool) {
	epochs, err := t.ledger.Topology(ctx)
	if err != nil || epochs.Value.Current == nil {
		return []int{p.CircleID}, false
	}
	circles = p.Circles(len(epochs.Value.Current.Circles))
	for _, id := range t.plan.FormerOwners {
		tr := epochs.Value.Serving.In(id)
		changed = changed || tr == nil || tr.Step != serving.Opening && tr.Step != serving.WriteBoth
	}
	return circles, changed
}

// foundEqual says what a verification has proven.
func (t *turn) foundEqual(v *operation.Verdict) *operation.Result {
	p, _ := t.verification()
	how := "compared point by point"
	if v.Slices.ByCount > 0 {
		how = fmt.Sprintf("%d slices by their counts alone, as was asked for, %d point by point", v.Slices.ByCount, v.Slices.ByPoints)
	}
	note := fmt.Sprintf("equal: %d points in %d slices (%s)", max(v.Points.Source, v.Points.Destination), v.Slices.Total, how)
	if p.Repair && v.Copied > 0 {
		note += fmt.Sprintf("; %d points were missing and have been copied", v.Copied)
	}
	return &operation.Result{Note: note}
}

// nothingToCompare says why the plan of a verification has no tasks.
func nothingToCompare(plan *operation.Plan, measurements int) string {
	if measurements == 0 {
		return fmt.Sprintf("nothing to compare: no measurement was found on %d backends", len(plan.Backends))
	}
	return fmt.Sprintf("nothing to compare: of %d measurements on %d backends none has a point that is, or should be, in a second place, in the time asked for", measurements, len(plan.Backends))
}

// reopenComparison opens a task of a verification for another attempt, unless all that
// it is about was equal: what differed is compared anew, together with what it was
// found with.
func (t *turn) reopenComparison(ctx context.Context, task *operation.Task) error {
	v, proving := t.tasks[verifyTaskID(1, task.ID)]
	if settledBy(task) && (!proving || settledBy(&v.Value)) {
		return nil
	}
	if proving {
		if err := t.ledger.RemoveTask(ctx, v); err != nil {
			return err
		}
		delete(t.tasks, v.Value.ID)
	}
	if !settledBy(task) && !task.State.Ended() {
		return nil // it goes on where it was stopped
	}
	next := task.Renewed()
	// Parts that were handed over are found anew, too.
	next.Children, next.Points = nil, operation.TaskPoints{}
	return t.replace(ctx, next)
}
