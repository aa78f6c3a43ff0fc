package mover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
)

// judgement is what verifying a group has found.
type judgement struct {
	operation.Verdict
	// verified counts the points proven to be at their owner, copied those that a
	// repair has copied.
	verified, copied int64
}

// verify checks the slices of another task, group by group. A copy is proven by
// counts when the destination was empty before it and the source has not changed
// since, every other slice by its points. What was dropped is gone, and its owner
// still holds as much as was proven.
func (t *transfer) verify(ctx context.Context) error {
	of, err := t.job.Of(ctx, t.task.Of)
	if err != nil {
		return fmt.Errorf("reading task %s: %w", t.task.Of, err)
	}
	t.slices, err = t.job.SlicesOf(ctx, &of)
	if err != nil {
		return fmt.Errorf("reading slices of task %s: %w", of.ID, err)
	}
	t.evidence = make(operation.Checkpoint, len(t.slices))
	copy(t.evidence, of.Checkpoint)
	// A checkpoint entry that is not pending has been judged.
	judged := make(operation.Checkpoint, len(t.slices))
	copy(judged, t.task.Checkpoint)
	judging := t.judge
	switch of.Phase {
	case operation.PhaseDrop:
		judging = t.judgeDropped
	case operation.PhaseCompare:
		c, err := t.newChecking()
		if err != nil {
			return err
		}
		judging = c.judgeRepaired
		for i := range judged {
			if !t.evidence[i].Repaired() {
				judged[i].State = operation.SliceUnchanged // it was judged when it was compared
			}
		}
	default:
	}
	pending := func(i int) bool { return !judged[i].State.Finished() }
	t.resumeWalks()
	for _, group := range t.groups(t.slices, pending) {
		found, err := t.judgeGroup(ctx, group, &of, 0, judging)
		if err != nil {
			return err
		}
		for _, i := range group {
			judged[i].State = operation.SliceCopied
		}
		t.forgetWalks(group)
		if err := t.settle(ctx, slices.Clone(judged), group, found); err != nil {
			return err
		}
	}
	if v := t.job.Task().Verdict; v != nil && v.NotVerified > 0 {
		return &operation.Error{
			Code: operation.CodeNotVerified, TaskID: t.task.ID,
			Detail: fmt.Sprintf("%d of %d slices of task %s could not be compared; the report says why", v.NotVerified, v.Slices.Total, of.ID),
		}
	}
	return nil
}

// settle stores a judgement of some slices, joined with those before it.
func (t *transfer) settle(ctx context.Context, judged operation.Checkpoint, group []int, found *judgement) error {
	read := t.read.take()
	timeouts := t.recordTimeouts(group)
	return t.store(ctx, judged, func(task *operation.Task) {
		timeouts(task)
		verdict := operation.Verdict{}
		if task.Verdict != nil {
			verdict.Extend(task.Verdict)
		}
		verdict.Extend(&found.Verdict)
		task.Checkpoint, task.Verdict = judged, &verdict
		task.Points.Verified += found.verified
		task.Bytes.Read += read
	})
}

// judgeGroup reaches a verdict on the slices of a group. A group that cannot be
// compared is judged slice by slice; a slice that cannot be is not verified.
func (t *transfer) judgeGroup(ctx context.Context, group []int, of *operation.Task, limit time.Duration,
	judging func(context.Context, []int, *operation.Task, *judgement) error,
) (*judgement, error) {
	var found judgement
	what := "verifying " + t.destination.URL() + " against " + t.source.URL()
	judge := func(ctx context.Context) error {
		found = judgement{}
		return judging(ctx, group, of, &found)
	}
	var err error
	if of.Phase == operation.PhaseDrop {
		err = t.patiently(ctx, what, limit, judge) // nothing but counts is asked for
	} else if err = t.walkThrough(ctx, group, what, limit); err == nil {
		err = t.timely(ctx, what, limit, group, judge)
	}
	switch {
	case err == nil:
		return &found, nil
	case !aboutSlices(ctx, err):
		return nil, err
	case len(group) > 1:
		found = judgement{}
		for i := range group {
			one, err := t.judgeGroup(ctx, group[i:i+1], of, t.limitAfter(err), judging)
			if err != nil {
				return nil, err
			}
			found.Extend(&one.Verdict)
			found.verified += one.verified
		}
		return &found, nil
	}
	if slow, ok := errors.AsType[*slowError](err); ok {
		further, err := t.narrow(ctx, group[0])
		if err != nil {
			return nil, err
		}
		if further {
			return t.judgeGroup(ctx, group, of, limit, judging)
		}
		w := t.walks[group[0]]
		s := w.part(w.slice, w.at)
		s.Halved = w.halvings
		found = judgement{}
		found.Forgo(t.problem(group[0]), errors.New(t.atFloor(slow, &s).Detail))
		return &found, nil
	}
	found = judgement{}
	found.Forgo(t.problem(group[0]), err)
	return &found, nil
}

// judge tries to reach a verdict on the slices of a group.
func (t *transfer) judge(ctx context.Context, group []int, of *operation.Task, v *judgement) error {
	if err := t.refuseNewOverlaps(ctx, group); err != nil {
		return err
	}
	var byCount, byDigest, byPoints []int
	digest := t.digest()
	for _, i := range group {
		e := &t.evidence[i]
		switch {
		case e.State == operation.SliceHandedOver:
			continue
		case t.slices[i].Expired:
			if err := t.countExpired(ctx, i, v); err != nil {
				return err
			}
			continue
		case e.State == operation.SliceUnchanged && e.Kept == 0, e.State == operation.SliceSameCounts:
			t.unchanged(i, v)
		case e.State != operation.SliceCopied && e.State != operation.SliceUnchanged:
			if err := t.notCopied(ctx, i, of, v); err != nil {
				return err
			}
		case !e.DestinationEmpty || e.Expired > 0 || t.walked(i):
			byPoints = append(byPoints, i)
		case digest:
			byDigest = append(byDigest, i)
		default:
			byCount = append(byCount, i)
		}
		v.Slices.Total++
	}
	before := v.Slices.Equal
	unproven, err := t.prove(ctx, byCount, v, t.countsAgree)
	if err != nil {
		return err
	}
	byPoints = append(byPoints, unproven...)
	proven := v.Slices.Equal - before
	if unproven, err = t.prove(ctx, byDigest, v, t.digestsAgree); err != nil {
		return err
	}
	v.Slices.ByCount += proven
	v.Slices.ByPoints += v.Slices.Equal - before - proven
	return t.comparePoints(ctx, append(byPoints, unproven...), v)
}

// unchanged counts a slice that the copy has compared and found in order; that
// was its proof.
func (t *transfer) unchanged(i int, v *judgement) {
	e := &t.evidence[i]
	v.Slices.Equal++
	if e.State == operation.SliceSameCounts {
		v.Slices.ByCount++
	} else {
		v.Slices.ByPoints++
	}
	v.verified += e.Rows
	found := operation.Findings{
		Points: operation.ReportPoints{Source: e.Rows, Destination: e.Rows + e.Extra}, Extra: e.Extra,
		Unchanged: operation.Amount{Slices: 1, Points: e.Rows},
	}
	v.Count(found)
	if e.Extra > 0 {
		problem := t.problem(i)
		problem.Source, problem.Destination, problem.Extra = e.Rows, e.Rows+e.Extra, e.Extra
		problem.Resolution = operation.ResolutionExtra
		v.AddProblem(problem)
	}
}

// refuseNewOverlaps refuses a group in which a slice has come to lie under several
// shard groups of several types: counts and points are then not what they seem.
func (t *transfer) refuseNewOverlaps(ctx context.Context, group []int) error {
	all := pick(t.slices, group)
	if err := t.markOverlaps(ctx, all); err != nil {
		return err
	}
	for n, i := range group {
		copied := t.evidence[i].State.Finished() && t.evidence[i].State != operation.SliceFailed && t.evidence[i].State != operation.SliceHandedOver
		if all[n].Overlap && !all[n].Expired && copied {
			if err := t.refuseAmbiguous(ctx, &all[n]); err != nil {
				return err
			}
		}
	}
	return nil
}

// digest reports whether the operation wants the destination read back even
// where counts prove a slice.
func (t *transfer) digest() bool { return t.depth() == operation.DepthDigest }

// depth is the depth that the operation asks for; the deepest when its parameters
// cannot be read.
func (t *transfer) depth() operation.Depth {
	op := t.job.Operation()
	p, err := operation.ParseMove(op.Kind, op.Parameters)
	if err != nil {
		return operation.DepthDigest
	}
	return p.Tuned().Depth
}

// prove applies a sieve to slices that were copied to an empty destination and
// counts those it proves; it returns the others.
func (t *transfer) prove(ctx context.Context, which []int, v *judgement, agree func(context.Context, []int) ([]bool, error)) (unproven []int, err error) {
	if len(which) == 0 {
		return nil, nil
	}
	proven, err := agree(ctx, which)
	if err != nil {
		return nil, err
	}
	for n, i := range which {
		if !proven[n] {
			unproven = append(unproven, i)
			continue
		}
		rows := t.evidence[i].Rows
		v.Slices.Equal++
		v.verified += rows
		v.Count(operation.Findings{Points: operation.ReportPoints{Source: rows, Destination: rows}})
	}
	return unproven, nil
}

// countsAgree asks both ends for their counts per series and field and
// compares them with what the copy has read.
func (t *transfer) countsAgree(ctx context.Context, which []int) ([]bool, error) {
	here, there, err := t.talliesOfBoth(ctx, pick(t.slices, which))
	if err != nil {
		return nil, err
	}
	agree := make([]bool, len(which))
	for n, i := range which {
		agree[n] = here[n].sum == t.evidence[i].Counts && there[n].sum == t.evidence[i].Counts
	}
	return agree, nil
}

// tally is what a server says that it holds of a slice.
type tally struct {
	// sum is what Evidence.Counts is compared with.
	sum uint64
	// rows is at least how many points there are.
	rows int64
}

// talliesOfBoth asks both ends at once.
func (t *transfer) talliesOfBoth(ctx context.Context, chosen []operation.Slice) (here, there []tally, err error) {
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() (err error) {
		here, err = t.tallies(ctx, t.source, chosen)
		return err
	})
	both.Go(func() (err error) {
		there, err = t.tallies(ctx, t.destination, chosen)
		return err
	})
	err = both.Wait()
	return here, there, err
}

// tallies asks one end for its counts per series and field.
func (t *transfer) tallies(ctx context.Context, e *end, chosen []operation.Slice) ([]tally, error) {
	all := make([]tally, len(chosen))
	if e.void {
		return all, nil
	}
	var h hasher
	n, slice, series := 0, -1, uint64(0)
	var most int64
	err := e.Counts(ctx, selections(chosen), func(sel int, s *lineproto.Series, field string, values int64) error {
		if n++; n%aliveEvery == 0 {
			t.job.Alive()
		}
		key := h.series(s)
		if sel != slice || key != series {
			slice, series, most = sel, key, 0
		}
		// A series has as many points as its fullest field, at least.
		all[sel].rows += max(values-most, 0)
		most = max(most, values)
		all[sel].sum += fieldHash(key, field) * uint64(values)
		return nil
	})
	t.job.Alive()
	return all, err
}

// digestsAgree reads the destination back and compares every point, by digest,
// with what the copy has read; the source's counts show that it has not changed.
func (t *transfer) digestsAgree(ctx context.Context, which []int) ([]bool, error) {
	found := make([]operation.Evidence, len(which))
	var here []tally
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() (err error) {
		here, err = t.tallies(ctx, t.source, pick(t.slices, which))
		return err
	})
	both.Go(func() error { return t.readBack(ctx, which, found) })
	if err := both.Wait(); err != nil {
		return nil, err
	}
	agree := make([]bool, len(which))
	for n, i := range which {
		e := &t.evidence[i]
		agree[n] = here[n].sum == e.Counts && found[n].Counts == e.Counts &&
			found[n].Digest == e.Digest && found[n].Rows == e.Rows
	}
	return agree, nil
}

// readBack takes the evidence of slices from the destination.
func (t *transfer) readBack(ctx context.Context, which []int, found []operation.Evidence) error {
	rows, err := t.destination.read(ctx, pick(t.slices, which))
	if err != nil {
		return err
	}
	defer t.closeStream(rows)
	tempo := t.newTempo(ctx, reading{t.destination, rows})
	var h hasher
	for n := 1; rows.Next(); n++ {
		if rows.NewSeries() {
			h.setSeries(rows.Series(), rows.Fields())
		}
		h.row(&found[rows.Statement()], rows.Time(), rows.Values())
		if n%aliveEvery == 0 {
			t.job.Alive()
		}
		if err := tempo.count(0); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return tempo.end()
}

// comparePoints compares slices point by point.
func (t *transfer) comparePoints(ctx context.Context, which []int, v *judgement) error {
	if len(which) == 0 {
		return nil
	}
	slices.Sort(which)
	diffs, err := t.compareAll(ctx, which)
	if err != nil {
		return err
	}
	for n, i := range which {
		if err := t.weigh(ctx, i, &diffs[n], v); err != nil {
			return err
		}
	}
	return nil
}

// weigh turns a difference into a verdict. The destination may hold more than
// the source, and other values where it held them before the copy: the owner's
// values win in a rebalance. Everything else is unproven.
func (t *transfer) weigh(ctx context.Context, i int, d *difference, v *judgement) error {
	found := operation.Findings{
		Points:  operation.ReportPoints{Source: d.source, Destination: d.destination},
		Missing: d.missing, Extra: d.extra, Different: d.different,
	}
	if d.missing > 0 {
		expired, err := t.expiredMissing(ctx, i, d.missing)
		if err != nil {
			return err
		}
		found.Expired, found.Missing = expired, d.missing-expired
	}
	if t.task.Mutual && d.extra > 0 {
		expired, err := t.expiredExtra(ctx, i, d.extra)
		if err != nil {
			return err
		}
		found.Expired += expired
		found.Extra -= expired
	}
	problem := t.problem(i)
	problem.Source, problem.Destination, problem.Example, problem.Examples = d.source, d.destination, d.example, d.examples
	problem.Missing, problem.Extra, problem.Different = found.Missing, found.Extra, found.Different
	e := &t.evidence[i]
	if found.Missing > 0 || found.Different > e.Kept || t.task.Mutual && found.Extra > 0 {
		problem.Detail = fmt.Sprintf("%d points are missing at the destination, %d differ and %d are there only", found.Missing, found.Different, found.Extra)
		v.Reopen(i, found, problem)
		return nil
	}
	proven := d.source
	if t.task.Mutual {
		proven = max(d.source, d.destination)
	}
	v.verified += proven - found.Expired
	found.Replaced, found.Returned = e.Replaced, e.Returned
	if e.State == operation.SliceUnchanged {
		found.Unchanged = operation.Amount{Slices: 1, Points: d.source}
	}
	v.Count(found)
	switch {
	case found.Different > 0:
		v.Slices.Unequal++
		problem.Resolution = operation.ResolutionOwnerKept
		v.AddProblem(problem)
		return nil
	case found.Replaced > 0:
		problem.Replaced, problem.Resolution = found.Replaced, operation.ResolutionSourceWon
		v.AddProblem(problem)
	case found.Extra > 0:
		problem.Resolution = operation.ResolutionExtra
		v.AddProblem(problem)
	case found.Expired > 0:
		problem.Resolution = operation.ResolutionExpired
		v.AddProblem(problem)
	}
	v.Slices.Equal++
	v.Slices.ByPoints++
	return nil
}

// problem begins the problem of a slice.
func (t *transfer) problem(i int) operation.Problem {
	return operation.Problem{Slice: t.slices[i], SourceURL: t.task.Source, DestURL: t.task.Destination}
}

// expiredMissing returns how many of the points missing at the destination are
// older than its retention admits by now, by its own words during the copy or by
// the clock.
func (t *transfer) expiredMissing(ctx context.Context, i int, missing int64) (int64, error) {
	return t.expiredAt(ctx, t.destination, i, missing, func(d *difference) int64 { return d.missing })
}

// expiredExtra is the same for points that only the destination has, and that the
// source does not admit.
func (t *transfer) expiredExtra(ctx context.Context, i int, extra int64) (int64, error) {
	return t.expiredAt(ctx, t.source, i, extra, func(d *difference) int64 { return d.extra })
}

func (t *transfer) expiredAt(ctx context.Context, at *end, i int, lacking int64, of func(*difference) int64) (int64, error) {
	s := t.slices[i]
	refused := min(lacking, t.evidence[i].Expired)
	policies, err := at.RetentionPolicies(ctx, s.Database)
	if err != nil {
		return 0, err
	}
	n := slices.IndexFunc(policies, func(p influx.RetentionPolicy) bool { return p.Name == s.RetentionPolicy })
	if n < 0 || policies[n].Duration == 0 {
		return 0, nil
	}
	cutoff := t.Now().Add(-policies[n].Duration).UnixNano()
	if cutoff <= s.From {
		return refused, nil
	}
	if cutoff < s.To {
		s.To, s.Last = cutoff, false
	}
	d, err := t.compareSlice(ctx, i, s)
	if err != nil {
		return 0, err
	}
	return min(lacking, max(refused, of(&d))), nil
}

// countExpired counts what was left out of the copy because retention no longer
// admits it at a destination.
func (t *transfer) countExpired(ctx context.Context, i int, v *judgement) error {
	var expired int64
	for part := range t.windowsOf(i, t.slices[i]) {
		n, err := t.source.Totals(ctx, selections([]operation.Slice{part}))
		if err != nil {
			return err
		}
		expired += n[0]
	}
	v.Count(operation.Findings{Expired: expired})
	return nil
}

// notCopied reports a slice that the copy task could not finish. Of one that lacks
// fields of another type only, it counts what that comes to.
func (t *transfer) notCopied(ctx context.Context, i int, of *operation.Task, v *judgement) error {
	v.Slices.Unequal++
	p := t.problem(i)
	p.Code, p.Detail = operation.CodeNotCopied, "its copy did not end"
	if of.Error != nil {
		p.Code, p.Detail = of.Error.Code, of.Error.Detail
	}
	at := slices.IndexFunc(of.Problems, func(e operation.SliceError) bool { return e.Index == i })
	if at >= 0 {
		p.Code, p.Detail = of.Problems[at].Code, of.Problems[at].Detail
	}
	// What was settled before it failed is settled.
	e := &t.evidence[i]
	found := operation.Findings{Replaced: e.Replaced, Returned: e.Returned}
	if p.Code == codeTypeConflict {
		d, err := t.compareSlice(ctx, i, t.slices[i])
		if err != nil {
			return err
		}
		found.Points = operation.ReportPoints{Source: d.source, Destination: d.destination}
		found.Missing, found.Different, found.Extra = d.missing, d.different, d.extra
		p.Source, p.Destination, p.Example, p.Examples = d.source, d.destination, d.example, d.examples
	}
	p.Missing, p.Different, p.Extra, p.Replaced = found.Missing, found.Different, found.Extra, found.Replaced
	v.Count(found)
	v.AddProblem(p)
	return nil
}
