package mover

import (
	"context"
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
	// verified counts the points proven to be at their owner.
	verified int64
}

// verify proves the slices of a copy task, group by group. Counts prove a slice
// when the destination was empty before the copy and the source has not changed
// since; every other slice is proven by its points.
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
	pending := func(i int) bool { return judged[i].State == operation.SlicePending }
	for _, group := range t.groups(t.slices, pending) {
		found, err := t.judgeGroup(ctx, group, &of, 0)
		if err != nil {
			return err
		}
		for _, i := range group {
			judged[i].State = operation.SliceCopied
		}
		if err := t.settle(ctx, slices.Clone(judged), found); err != nil {
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

// settle stores a judgement, joined with those before it.
func (t *transfer) settle(ctx context.Context, judged operation.Checkpoint, found *judgement) error {
	read := t.read.take()
	return t.job.Checkpoint(ctx, func(task *operation.Task) {
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
func (t *transfer) judgeGroup(ctx context.Context, group []int, of *operation.Task, limit time.Duration) (*judgement, error) {
	var found judgement
	err := t.patiently(ctx, "verifying "+t.destination.URL()+" against "+t.source.URL(), limit, func(ctx context.Context) error {
		found = judgement{}
		return t.judge(ctx, group, of, &found)
	})
	switch {
	case err == nil:
		return &found, nil
	case !aboutSlices(ctx, err):
		return nil, err
	case len(group) > 1:
		found = judgement{}
		for i := range group {
			one, err := t.judgeGroup(ctx, group[i:i+1], of, t.limitAfter(err))
			if err != nil {
				return nil, err
			}
			found.Extend(&one.Verdict)
			found.verified += one.verified
		}
		return &found, nil
	}
	found = judgement{}
	found.Forgo(t.problem(group[0]), err)
	return &found, nil
}

// judge tries to reach a verdict on the slices of a group.
func (t *transfer) judge(ctx context.Context, group []int, of *operation.Task, v *judgement) error {
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
		case e.State != operation.SliceCopied:
			t.notCopied(i, of, v)
		case !e.DestinationEmpty || e.Expired > 0:
			byPoints = append(byPoints, i)
		case digest:
			byDigest = append(byDigest, i)
		default:
			byCount = append(byCount, i)
		}
		v.Slices.Total++
	}
	unproven, err := t.prove(ctx, byCount, v, t.countsAgree)
	if err != nil {
		return err
	}
	byPoints = append(byPoints, unproven...)
	proven := v.Slices.Equal
	if unproven, err = t.prove(ctx, byDigest, v, t.digestsAgree); err != nil {
		return err
	}
	v.Slices.ByCount, v.Slices.ByPoints = proven, v.Slices.Equal-proven
	return t.comparePoints(ctx, append(byPoints, unproven...), v)
}

// digest reports whether the operation wants the destination read back even
// where counts prove a slice. Parameters that cannot be read want it.
func (t *transfer) digest() bool {
	op := t.job.Operation()
	p, err := operation.ParseMove(op.Kind, op.Parameters)
	return err != nil || p.Tuned().Depth == operation.DepthDigest
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
	var here, there []uint64
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() (err error) {
		here, err = t.counts(ctx, t.source.Client, which)
		return err
	})
	both.Go(func() (err error) {
		there, err = t.counts(ctx, t.destination.Client, which)
		return err
	})
	if err := both.Wait(); err != nil {
		return nil, err
	}
	agree := make([]bool, len(which))
	for n, i := range which {
		agree[n] = here[n] == t.evidence[i].Counts && there[n] == t.evidence[i].Counts
	}
	return agree, nil
}

// counts returns, for each slice, the sum that Evidence.Counts is compared with.
func (t *transfer) counts(ctx context.Context, c *influx.Client, which []int) ([]uint64, error) {
	sums := make([]uint64, len(which))
	var h hasher
	n := 0
	err := c.Counts(ctx, selections(pick(t.slices, which)), func(sel int, s *lineproto.Series, field string, values int64) error {
		if n++; n%aliveEvery == 0 {
			t.job.Alive()
		}
		sums[sel] += fieldHash(h.series(s), field) * uint64(values)
		return nil
	})
	t.job.Alive()
	return sums, err
}

// digestsAgree reads the destination back and compares every point, by digest,
// with what the copy has read; the source's counts show that it has not changed.
func (t *transfer) digestsAgree(ctx context.Context, which []int) ([]bool, error) {
	found := make([]operation.Evidence, len(which))
	var here []uint64
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() (err error) {
		here, err = t.counts(ctx, t.source.Client, which)
		return err
	})
	both.Go(func() error { return t.readBack(ctx, which, found) })
	if err := both.Wait(); err != nil {
		return nil, err
	}
	agree := make([]bool, len(which))
	for n, i := range which {
		e := &t.evidence[i]
		agree[n] = here[n] == e.Counts && found[n].Counts == e.Counts &&
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
	var h hasher
	for n := 1; rows.Next(); n++ {
		if rows.NewSeries() {
			h.setSeries(rows.Series(), rows.Fields())
		}
		h.row(&found[rows.Statement()], rows.Time(), rows.Values())
		if n%aliveEvery == 0 {
			t.job.Alive()
		}
	}
	return rows.Err()
}

// comparePoints compares slices point by point.
func (t *transfer) comparePoints(ctx context.Context, which []int, v *judgement) error {
	if len(which) == 0 {
		return nil
	}
	slices.Sort(which)
	diffs, err := t.compare(ctx, pick(t.slices, which), &comparison{})
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
	problem := t.problem(i)
	problem.Source, problem.Destination, problem.Example = d.source, d.destination, d.example
	problem.Missing, problem.Extra, problem.Different = found.Missing, found.Extra, found.Different
	if found.Missing > 0 || found.Different > t.evidence[i].Kept {
		problem.Detail = fmt.Sprintf("%d points are missing at the owner and %d differ", found.Missing, found.Different)
		v.Reopen(i, found, problem)
		return nil
	}
	v.verified += d.source - found.Expired
	v.Count(found)
	switch {
	case found.Different > 0:
		v.Slices.Unequal++
		problem.Resolution = operation.ResolutionOwnerKept
		v.AddProblem(problem)
		return nil
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
// older than its retention admits by now, by the destination's own words during
// the copy or by the clock.
func (t *transfer) expiredMissing(ctx context.Context, i int, missing int64) (int64, error) {
	s := t.slices[i]
	refused := min(missing, t.evidence[i].Expired)
	policies, err := t.destination.RetentionPolicies(ctx, s.Database)
	if err != nil {
		return 0, err
	}
	at := slices.IndexFunc(policies, func(p influx.RetentionPolicy) bool { return p.Name == s.RetentionPolicy })
	if at < 0 || policies[at].Duration == 0 {
		return 0, nil
	}
	cutoff := t.Now().Add(-policies[at].Duration).UnixNano()
	if cutoff <= s.From {
		return refused, nil
	}
	if cutoff < s.To {
		s.To, s.Last = cutoff, false
	}
	diffs, err := t.compare(ctx, []operation.Slice{s}, &comparison{})
	if err != nil {
		return 0, err
	}
	return min(missing, max(refused, diffs[0].missing)), nil
}

// countExpired counts what was left out of the copy because retention no longer
// admits it at a destination.
func (t *transfer) countExpired(ctx context.Context, i int, v *judgement) error {
	n, err := t.source.Totals(ctx, selections(t.slices[i:i+1]))
	if err != nil {
		return err
	}
	v.Count(operation.Findings{Expired: n[0]})
	return nil
}

// notCopied reports a slice that the copy task could not finish.
func (t *transfer) notCopied(i int, of *operation.Task, v *judgement) {
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
	v.AddProblem(p)
}
