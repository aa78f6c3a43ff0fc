package mover

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
)

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
	t.problems = of.Problems
	verdict := operation.Verdict{}
	if t.task.Verdict != nil {
		verdict = *t.task.Verdict
	}
	// A checkpoint entry that is not pending has been judged.
	judged := make(operation.Checkpoint, len(t.slices))
	copy(judged, t.task.Checkpoint)
	pending := func(i int) bool { return judged[i].State == operation.SlicePending }
	for _, group := range t.groups(t.slices, pending) {
		var found operation.Verdict
		err := t.patiently(ctx, "verifying "+t.task.Destination, func(ctx context.Context) error {
			found, t.verified = operation.Verdict{}, 0
			return t.judge(ctx, group, of.Error, &found)
		})
		if err != nil {
			return err
		}
		verdict.Add(&found)
		verdict.Unproven = append(verdict.Unproven, found.Unproven...)
		for _, i := range group {
			judged[i].State = operation.SliceCopied
		}
		stored := verdict
		err = t.job.Checkpoint(ctx, func(task *operation.Task) {
			task.Checkpoint = judged
			task.Verdict = &stored
			task.Points.Verified += t.verified
			task.Bytes.Read += t.read
		})
		t.read, t.verified = 0, 0
		if err != nil {
			return err
		}
	}
	return nil
}

// judge reaches a verdict on the slices of a group.
func (t *transfer) judge(ctx context.Context, group []int, failed *operation.Error, v *operation.Verdict) error {
	var byCount, byDigest, byPoints []int
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
			v.Slices.Total++
			t.notCopied(i, failed, v)
			continue
		case !e.DestinationEmpty || e.Expired > 0:
			byPoints = append(byPoints, i)
		case t.depth() == operation.DepthDigest:
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
	unproven, err = t.prove(ctx, byDigest, v, t.digestsAgree)
	if err != nil {
		return err
	}
	return t.comparePoints(ctx, append(byPoints, unproven...), v)
}

func (t *transfer) depth() operation.Depth {
	p, err := operation.ParseRebalance(t.job.Operation().Parameters)
	if err != nil {
		return operation.DepthDigest
	}
	return p.Depth
}

// prove applies a sieve to slices that were copied to an empty destination and
// counts those it proves; it returns the others.
func (t *transfer) prove(ctx context.Context, which []int, v *operation.Verdict, agree func(context.Context, []int) ([]bool, error)) (unproven []int, err error) {
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
		e := &t.evidence[i]
		v.Slices.Equal++
		if t.depth() == operation.DepthDigest {
			v.Slices.ByPoints++
		} else {
			v.Slices.ByCount++
		}
		t.verified += e.Rows
		v.Points.Source += e.Rows
		v.Points.Destination += e.Rows
	}
	return unproven, nil
}

// countsAgree asks both ends for their counts per series and field and
// compares them with what the copy has read.
func (t *transfer) countsAgree(ctx context.Context, which []int) ([]bool, error) {
	var here, there []uint64
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() (err error) {
		here, err = t.counts(ctx, t.source, which)
		return err
	})
	both.Go(func() (err error) {
		there, err = t.counts(ctx, t.destination, which)
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
	err := c.Counts(ctx, selections(pick(t.slices, which)), func(sel int, s *lineproto.Series, field string, n int64) error {
		sums[sel] += fieldHash(h.series(s), field) * uint64(n)
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
		here, err = t.counts(ctx, t.source, which)
		return err
	})
	both.Go(func() error {
		rows, err := t.destination.Read(ctx, selections(pick(t.slices, which)))
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
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
	})
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

// comparePoints compares slices point by point.
func (t *transfer) comparePoints(ctx context.Context, which []int, v *operation.Verdict) error {
	if len(which) == 0 {
		return nil
	}
	chosen := pick(t.slices, which)
	diffs, err := t.compare(ctx, chosen, &comparison{})
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
func (t *transfer) weigh(ctx context.Context, i int, d *difference, v *operation.Verdict) error {
	s := &t.slices[i]
	v.Points.Source += d.source
	v.Points.Destination += d.destination
	v.Extra += d.extra
	if d.missing > 0 {
		expired, err := t.expiredMissing(ctx, s, d.missing)
		if err != nil {
			return err
		}
		v.Expired += expired
		d.missing -= expired
	}
	v.Missing += d.missing
	v.Different += d.different
	problem := operation.Problem{
		Slice: *s, SourceURL: t.task.Source, DestURL: t.task.Destination,
		Source: d.source, Destination: d.destination,
		Missing: d.missing, Extra: d.extra, Different: d.different, Example: d.example,
	}
	if d.missing == 0 && d.different <= t.evidence[i].Kept {
		t.verified += d.source
	}
	switch {
	case d.missing > 0 || d.different > t.evidence[i].Kept:
		v.Slices.Unequal++
		v.Unproven = append(v.Unproven, i)
		problem.Code = operation.CodeUnequal
		problem.Detail = fmt.Sprintf("%d points are missing at the owner and %d differ", d.missing, d.different)
		v.AddProblem(problem)
	case d.different > 0:
		v.Slices.Unequal++
		problem.Resolution = operation.ResolutionOwnerKept
		v.AddProblem(problem)
	default:
		v.Slices.Equal++
		v.Slices.ByPoints++
		if d.extra > 0 {
			problem.Resolution = operation.ResolutionExtra
			v.AddProblem(problem)
		}
	}
	return nil
}

// expiredMissing returns how many of the points missing at the destination are
// older than its retention admits by now.
func (t *transfer) expiredMissing(ctx context.Context, s *operation.Slice, missing int64) (int64, error) {
	policies, err := t.destination.RetentionPolicies(ctx, s.Database)
	if err != nil {
		return 0, err
	}
	for _, p := range policies {
		if p.Name != s.RetentionPolicy || p.Duration == 0 {
			continue
		}
		cutoff := t.Now().Add(-p.Duration).UnixNano()
		if cutoff <= s.From {
			return 0, nil
		}
		old := *s
		if cutoff < old.To {
			old.To, old.Last = cutoff, false
		}
		diffs, err := t.compare(ctx, []operation.Slice{old}, &comparison{})
		if err != nil {
			return 0, err
		}
		return min(missing, diffs[0].missing), nil
	}
	return 0, nil
}

// countExpired counts what was left out of the copy because retention no longer
// admits it at a destination.
func (t *transfer) countExpired(ctx context.Context, i int, v *operation.Verdict) error {
	n, err := t.source.Totals(ctx, selections(t.slices[i:i+1]))
	if err != nil {
		return err
	}
	v.Expired += n[0]
	return nil
}

// notCopied reports a slice that the copy task could not finish.
func (t *transfer) notCopied(i int, failed *operation.Error, v *operation.Verdict) {
	v.Slices.Unequal++
	problem := operation.Problem{
		Slice: t.slices[i], SourceURL: t.task.Source, DestURL: t.task.Destination,
		Code: "not_copied", Detail: "its copy did not end",
	}
	if failed != nil {
		problem.Code, problem.Detail = failed.Code, failed.Detail
	}
	for _, p := range t.problems {
		if p.Index == i {
			problem.Code, problem.Detail = p.Code, p.Detail
		}
	}
	v.AddProblem(problem)
}

// ErrClaimLost is what a Job's methods return, wrapped, when another worker has
// taken the task over.
var ErrClaimLost = errors.New("the claim of the task is lost")
