package mover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
)

// checking is a verification at work: a transfer that compares, and that writes
// only where it is asked to repair.
type checking struct {
	*transfer

	asked operation.Verify
	// verdict is that of the task so far.
	verdict operation.Verdict
	// doubtful are groups of slices that differed when they were looked at first;
	// held is how many points of theirs are remembered.
	doubtful []*doubt
	held     int
}

// doubt is a group of slices, by index, that is to be looked at again.
type doubt struct {
	group []int
	*looked
}

// mostDoubtful bounds the groups that are looked at again together.
const mostDoubtful = 64

func (t *transfer) newChecking() (*checking, error) {
	asked, err := operation.ParseVerify(t.job.Operation().Parameters)
	if err != nil {
		return nil, &operation.Error{Code: "invalid_parameters", Detail: err.Error()}
	}
	return &checking{transfer: t, asked: asked}, nil
}

// check compares both ends of every slice of the task, group by group, with a
// checkpoint and the verdict so far after each. With repair, what was found is
// stored before anything is copied: once it is there nobody can count it any more.
func (t *transfer) check(ctx context.Context) error {
	c, err := t.newChecking()
	if err != nil {
		return err
	}
	if t.slices, err = t.job.Slices(ctx); err != nil {
		return fmt.Errorf("reading slices of task %s: %w", t.task.ID, err)
	}
	t.evidence = make(operation.Checkpoint, len(t.slices))
	copy(t.evidence, t.task.Checkpoint)
	c.resume()
	pending := func(i int) bool { return !t.evidence[i].State.Finished() }
	for _, group := range t.groups(t.slices, pending) {
		if err := c.group(ctx, group); err != nil {
			return err
		}
	}
	if err := c.lookAtDoubtful(ctx); err != nil {
		return err
	}
	return c.ended()
}

// resume takes the verdict up where the last attempt left it.
func (c *checking) resume() {
	if c.task.Verdict != nil {
		c.verdict.Extend(c.task.Verdict)
	}
}

// ended fails the task when slices of it could not be compared or repaired.
func (c *checking) ended() error {
	failed := 0
	for i := range c.evidence {
		if c.evidence[i].State == operation.SliceFailed {
			failed++
		}
	}
	if failed == 0 {
		return nil
	}
	failure := &operation.Error{
		Code: operation.CodeNotVerified, TaskID: c.task.ID,
		Detail: fmt.Sprintf("%d of %d slices could not be compared or repaired", failed, len(c.slices)),
	}
	if problems := c.job.Task().Problems; len(problems) > 0 {
		first := &problems[0]
		failure.Code = first.Code
		failure.Detail = operation.Clip(failure.Detail + "; the first, " + sliceName(&first.Slice) + ": " + first.Detail)
	}
	return failure
}

// group compares the slices of a group, stores what came of it, and repairs. Slices
// that differ are put aside: many are looked at again after one pause.
func (c *checking) group(ctx context.Context, group []int) error {
	var fresh []int
	for _, i := range group {
		// What has been compared is only to be repaired.
		if c.evidence[i].State == operation.SlicePending {
			fresh = append(fresh, i)
		}
	}
	if len(fresh) > 0 {
		if err := c.compareGroup(ctx, fresh, 0, true); err != nil {
			return err
		}
	}
	if len(c.doubtful) >= mostDoubtful || c.held >= maxSuspects {
		if err := c.lookAtDoubtful(ctx); err != nil {
			return err
		}
	}
	return c.repair(ctx, group)
}

// lookAtDoubtful looks at what has differed until it is sure, and stores what comes of
// it. A group of which that cannot be told is compared from the beginning.
func (c *checking) lookAtDoubtful(ctx context.Context) error {
	all := c.doubtful
	c.doubtful, c.held = nil, 0
	failed := map[*looked]bool{}
	var some []*looked
	for _, d := range all {
		some = append(some, d.looked)
	}
	err := c.lookUntil(ctx, some, c.matters, func(ctx context.Context, l *looked, which []int) error {
		if failed[l] {
			return nil
		}
		again := c.patiently(ctx, "comparing "+c.source.URL()+" with "+c.destination.URL(), 0, func(ctx context.Context) error {
			if err := c.lookAtEnds(ctx, l.chosen); err != nil {
				return err
			}
			return c.lookAgain(ctx, l, which)
		})
		if aboutSlices(ctx, again) {
			failed[l] = true // it is compared from the beginning
			return nil
		}
		return again
	})
	if err != nil {
		return err
	}
	for _, d := range all {
		if failed[d.looked] {
			err = c.compareGroup(ctx, d.group, 0, false)
		} else {
			err = c.settleDoubt(ctx, d)
		}
		if err != nil {
			return err
		}
		if err := c.repair(ctx, d.group); err != nil {
			return err
		}
	}
	return nil
}

// settleDoubt reaches a verdict on slices that have been looked at for the last time.
func (c *checking) settleDoubt(ctx context.Context, d *doubt) error {
	var found judgement
	states := make([]operation.Evidence, len(d.group))
	err := c.patiently(ctx, "comparing "+c.source.URL()+" with "+c.destination.URL(), 0, func(ctx context.Context) error {
		found = judgement{}
		if err := c.lookAtEnds(ctx, d.chosen); err != nil {
			return err
		}
		for n, i := range d.group {
			if err := c.weigh(ctx, i, &d.diffs[n], &found, &states[n]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && aboutSlices(ctx, err) {
		return c.compareGroup(ctx, d.group, 0, false)
	}
	if err != nil {
		return err
	}
	for n, i := range d.group {
		c.evidence[i] = states[n]
	}
	return c.keep(ctx, &found)
}

// repair copies what was found to be lacking in a group.
func (c *checking) repair(ctx context.Context, group []int) error {
	var lacking []int
	for _, i := range group {
		if c.evidence[i].State == operation.SliceCompared {
			lacking = append(lacking, i)
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	return c.repairGroup(ctx, lacking, 0)
}

// compareGroup reaches a verdict on the slices of a group and stores it. With aside,
// those that differ are put aside. A group that cannot be compared is compared slice by
// slice; a slice that cannot be is reported.
func (c *checking) compareGroup(ctx context.Context, group []int, limit time.Duration, aside bool) error {
	var found judgement
	var states []operation.Evidence
	var left *doubt
	err := c.timely(ctx, "comparing "+c.source.URL()+" with "+c.destination.URL(), limit, group, func(ctx context.Context) (err error) {
		found, states = judgement{}, make([]operation.Evidence, len(group))
		left, err = c.compareOnce(ctx, group, &found, states, aside)
		return err
	})
	var large *tooLargeError
	var slow *slowError
	switch {
	case err == nil:
		for n, i := range group {
			c.evidence[i] = states[n]
		}
		if left != nil {
			c.doubtful, c.held = append(c.doubtful, left), c.held+len(left.found.points)
			if len(left.group) == len(group) {
				return nil // nothing is to be stored
			}
		}
		return c.keep(ctx, &found)
	case !aboutSlices(ctx, err):
		return err
	case len(group) > 1:
		for i := range group {
			if err := c.compareGroup(ctx, group[i:i+1], c.limitAfter(err), aside); err != nil {
				return err
			}
		}
		return nil
	case errors.As(err, &large):
		return c.handOver(ctx, group[0], large)
	case errors.As(err, &slow):
		return c.halve(ctx, group[0], slow)
	default:
		return c.forgo(ctx, group[0], err)
	}
}

// halve gives the halves of a slice that is too slow to a new task, or reports it at
// the floor.
func (c *checking) halve(ctx context.Context, i int, slow *slowError) error {
	parts := c.halves(ctx, &c.slices[i])
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case len(parts) < 2:
		return c.forgo(ctx, i, c.atFloor(slow, &c.slices[i]))
	default:
		return c.giveAway(ctx, i, [][]operation.Slice{parts})
	}
}

// handOver gives a slice that is far too large to new tasks, in parts.
func (c *checking) handOver(ctx context.Context, i int, large *tooLargeError) error {
	parts, err := c.partsOf(ctx, i, large)
	switch {
	case err == nil && len(parts) > 1:
		return c.giveAway(ctx, i, bundles(parts, 5*c.PartRows/2))
	case err == nil:
		c.whole = true
		defer func() { c.whole = false }()
		return c.compareGroup(ctx, []int{i}, 0, false)
	case aboutSlices(ctx, err):
		return c.forgo(ctx, i, err)
	default:
		return err
	}
}

// forgo reports a slice that cannot be compared.
func (c *checking) forgo(ctx context.Context, i int, err error) error {
	var found judgement
	found.Forgo(c.problem(i), err)
	why := problemOf(i, &c.slices[i], err)
	// A type that cannot be read truly is a finding of its own.
	found.Problems[0].Code, found.Problems[0].Detail = why.Code, operation.Clip(why.Detail)
	c.evidence[i] = operation.Evidence{State: operation.SliceFailed}
	return c.keep(ctx, &found, why)
}

// keep stores the evidence of all slices and a verdict joined with those before it.
func (c *checking) keep(ctx context.Context, found *judgement, problems ...operation.SliceError) error {
	c.verdict.Extend(&found.Verdict)
	evidence, read, written := slices.Clone(c.evidence), c.read.take(), c.sent.take()
	timeouts := c.recordTimeouts(nil)
	return c.transfer.store(ctx, evidence, func(task *operation.Task) {
		timeouts(task)
		verdict := operation.Verdict{}
		verdict.Extend(&c.verdict)
		task.Checkpoint, task.Verdict = evidence, &verdict
		for _, p := range problems {
			task.AddProblem(p)
		}
		task.Points.Verified += found.verified
		task.Points.Copied += found.copied
		task.Bytes.Read += read
		task.Bytes.Written += written
	})
}

// compareOnce tries to reach a verdict on the slices of a group; states is what
// their evidence is to be then. With aside it returns those that differ instead.
func (c *checking) compareOnce(ctx context.Context, group []int, v *judgement, states []operation.Evidence, aside bool) (*doubt, error) {
	all := pick(c.slices, group)
	if err := c.lookAtEnds(ctx, all); err != nil {
		return nil, err
	}
	var which []int
	for n := range all {
		if all[n].Expired {
			if err := c.countLeavingOut(ctx, &all[n], v); err != nil {
				return nil, err
			}
			states[n].State = operation.SliceUnchanged
			continue
		}
		if err := c.refuseAmbiguous(ctx, &all[n]); err != nil {
			return nil, err
		}
		which = append(which, n)
	}
	which, err := c.sameCounts(ctx, all, which, v, states)
	if err != nil || len(which) == 0 {
		return nil, err
	}
	chosen := pick(all, which)
	l, err := c.look(ctx, chosen, c.firstLook(chosen))
	if err == nil && !aside {
		err = c.lookUntil(ctx, []*looked{l}, c.matters, c.lookAgain)
	}
	if err != nil {
		return nil, err
	}
	var doubtful, indexes []int
	for k, n := range which {
		if aside && c.matters(&l.diffs[k]) {
			doubtful, indexes = append(doubtful, k), append(indexes, group[n])
			continue
		}
		if err := c.weigh(ctx, group[n], &l.diffs[k], v, &states[n]); err != nil {
			return nil, err
		}
	}
	if len(doubtful) == 0 {
		return nil, nil
	}
	return &doubt{indexes, l.only(doubtful)}, nil
}

// lookAtEnds finds out which end knows the policy of the slices at all, and marks
// the slices that several shard groups cover.
func (c *checking) lookAtEnds(ctx context.Context, all []operation.Slice) error {
	for _, e := range []*end{c.source, c.destination} {
		h, err := e.holding(ctx, all[0].Database)
		if err != nil {
			return err
		}
		e.void = !h.has(all[0].RetentionPolicy)
		for i := range all {
			all[i].Overlap = all[i].Overlap || h.several(all[i].RetentionPolicy, &all[i])
		}
	}
	return nil
}

// countLeavingOut counts what is not compared because it is about to go.
func (c *checking) countLeavingOut(ctx context.Context, s *operation.Slice, v *judgement) error {
	most := int64(0)
	for _, e := range []*end{c.source, c.destination} {
		if e.void {
			continue
		}
		n, err := e.Totals(ctx, []influx.Selection{selection(s)})
		if err != nil {
			return err
		}
		most = max(most, n[0])
	}
	v.Count(operation.Findings{Expired: most})
	return nil
}

// sameCounts takes those for equal, of some slices, of which both ends have the same
// counts, if the operation asks for no more; it returns the others.
func (c *checking) sameCounts(ctx context.Context, all []operation.Slice, which []int, v *judgement, states []operation.Evidence) ([]int, error) {
	if c.asked.Depth != operation.DepthCount || len(which) == 0 {
		return which, nil
	}
	here, there, err := c.talliesOfBoth(ctx, pick(all, which))
	if err != nil {
		return nil, err
	}
	var others []int
	for k, n := range which {
		if here[k] != there[k] {
			others = append(others, n)
			continue
		}
		rows := here[k].rows
		states[n] = operation.Evidence{State: operation.SliceSameCounts, Rows: rows, Counts: here[k].sum}
		v.Slices.Total++
		v.Slices.Equal++
		v.Slices.ByCount++
		v.verified += rows
		v.Count(operation.Findings{Points: operation.ReportPoints{Source: rows, Destination: rows}})
	}
	return others, nil
}

// firstLook is a comparison that stops at what is far larger than it was planned.
func (c *checking) firstLook(chosen []operation.Slice) *comparison {
	here, there := make([]int64, len(chosen)), make([]int64, len(chosen))
	sizeHere, sizeThere := c.sizes(chosen), c.sizes(chosen)
	return &comparison{
		seen: func(p *point) error {
			here[p.slice]++
			return sizeHere.check(here[p.slice], p.newSeries)
		},
		passed: func(slice int, newSeries bool) error {
			there[slice]++
			err := sizeThere.check(there[slice], newSeries)
			if large, ok := errors.AsType[*tooLargeError](err); ok {
				large.there = true
			}
			return err
		},
	}
}

// matters reports whether a slice is not simply equal.
func (c *checking) matters(d *difference) bool {
	return d.missing > 0 || d.different > 0 || d.extra > 0 && !c.task.HoldsMore
}

// weigh turns a difference into a verdict on a slice.
func (c *checking) weigh(ctx context.Context, i int, d *difference, v *judgement, e *operation.Evidence) error {
	left, expired, err := c.withoutExpired(ctx, i, d)
	if err != nil {
		return err
	}
	found := operation.Findings{
		Points:  operation.ReportPoints{Source: d.source, Destination: d.destination},
		Missing: left.Missing, Extra: left.Extra, Different: left.Different, Expired: expired,
	}
	v.verified += max(d.source, d.destination)
	*e = operation.Evidence{State: operation.SliceUnchanged, Rows: d.source, Extra: left.Extra, Kept: left.Different}
	problem := c.differing(i, d, left)
	switch {
	case left.Missing == 0 && left.Different == 0 && (left.Extra == 0 || c.task.HoldsMore):
		v.Slices.Total++
		v.Slices.Equal++
		v.Slices.ByPoints++
		v.Count(found)
		if left.Extra > 0 {
			problem.Resolution = operation.ResolutionExtra
			v.AddProblem(problem)
		} else if expired > 0 {
			problem.Resolution = operation.ResolutionExpired
			v.AddProblem(problem)
		}
	case c.asked.Repair && c.lacking(left) > 0:
		// What is left after it is for the verification to say.
		e.State, e.Written = operation.SliceCompared, c.lacking(left)
		v.Count(found)
		problem.Resolution = operation.ResolutionRepaired
		v.AddProblem(problem)
	default:
		e.State = operation.SliceDiffers
		v.Slices.Total++
		if c.asked.Repair {
			found.Left = left
		}
		problem.Detail = c.inWords(left)
		v.Reopen(i, found, problem)
	}
	return nil
}

// lacking is what a repair would copy.
func (c *checking) lacking(d operation.Differences) int64 {
	if c.asked.RepairFrom == operation.SideAgainst {
		return d.Extra
	}
	return d.Missing
}

// differing is the problem of a slice whose ends differ.
func (c *checking) differing(i int, d *difference, left operation.Differences) operation.Problem {
	p := c.problem(i)
	p.Source, p.Destination, p.Example, p.Examples = d.source, d.destination, d.example, d.examples
	p.Missing, p.Extra, p.Different = left.Missing, left.Extra, left.Different
	return p
}

func (c *checking) inWords(d operation.Differences) string {
	return fmt.Sprintf("%d points of %s are missing at %s or lack fields there, %d differ, and of %d it holds more",
		d.Missing, c.source.URL(), c.destination.URL(), d.Different, d.Extra)
}

// withoutExpired takes out of a difference the points that are so old that both ends
// drop them: one may have done so a moment earlier.
func (c *checking) withoutExpired(ctx context.Context, i int, d *difference) (left operation.Differences, expired int64, err error) {
	left = operation.Differences{Missing: d.missing, Extra: d.extra, Different: d.different}
	if d.missing == 0 && d.extra == 0 {
		return left, 0, nil
	}
	s := c.slices[i]
	cutoff, err := c.cutoff(ctx, &s)
	if err != nil || cutoff <= s.From {
		return left, 0, err
	}
	if cutoff < s.To {
		s.To, s.Last = cutoff, false
	}
	diffs, err := c.compare(ctx, []operation.Slice{s}, &comparison{})
	if err != nil {
		return left, 0, err
	}
	missing, extra := min(left.Missing, diffs[0].missing), min(left.Extra, diffs[0].extra)
	left.Missing -= missing
	left.Extra -= extra
	return left, missing + extra, nil
}

// cutoff is the time before which neither end keeps points of a slice's policy by
// now; the beginning of the slice when one of them keeps them for ever.
func (c *checking) cutoff(ctx context.Context, s *operation.Slice) (int64, error) {
	longest := time.Duration(0)
	for _, e := range []*end{c.source, c.destination} {
		if e.void {
			continue
		}
		policies, err := e.RetentionPolicies(ctx, s.Database)
		if err != nil {
			return 0, err
		}
		n := slices.IndexFunc(policies, func(p influx.RetentionPolicy) bool { return p.Name == s.RetentionPolicy })
		if n < 0 || policies[n].Duration == 0 {
			return s.From, nil
		}
		longest = max(longest, policies[n].Duration)
	}
	if longest == 0 {
		return s.From, nil
	}
	return c.Now().Add(-longest).UnixNano(), nil
}
