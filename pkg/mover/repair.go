package mover

import (
	"context"
	"fmt"
	"time"

	"ringmaster/pkg/operation"
)

// ends are where a repair copies from and where to.
func (c *checking) ends() (from, to *end) {
	if c.asked.RepairFrom == operation.SideAgainst {
		return c.destination, c.source
	}
	return c.source, c.destination
}

// repairGroup copies what one end lacks of some slices, and stores that it has. A
// group that is refused is repaired slice by slice; a field that is refused for its
// type is left out. What is left is for the verification to say.
func (c *checking) repairGroup(ctx context.Context, group []int, limit time.Duration) error {
	from, to := c.ends()
	err := c.patiently(ctx, "copying what is missing from "+from.URL()+" to "+to.URL(), limit, func(ctx context.Context) error {
		return c.repairOnce(ctx, group)
	})
	switch {
	case err == nil:
		return c.repaired(ctx, group)
	case !aboutSlices(ctx, err):
		return err
	case len(group) > 1:
		for i := range group {
			if err := c.repairGroup(ctx, group[i:i+1], c.limitAfter(err)); err != nil {
				return err
			}
		}
		return nil
	case c.withhold(&c.slices[group[0]], err):
		if len(c.withheld.fields) == 1 {
			defer func() { c.withheld = withheld{} }()
		}
		return c.repairGroup(ctx, group, limit)
	}
	c.evidence[group[0]].State = operation.SliceFailed
	return c.keep(ctx, &judgement{}, problemOf(group[0], &c.slices[group[0]], err))
}

// repaired stores that slices have been repaired, or what had to be left out.
func (c *checking) repaired(ctx context.Context, group []int) error {
	var problems []operation.SliceError
	copied := int64(0)
	for _, i := range group {
		c.evidence[i].State = operation.SliceCopied
		copied += c.evidence[i].Written
	}
	if len(c.withheld.fields) > 0 {
		c.evidence[group[0]].State = operation.SliceFailed
		problems = append(problems, c.withheldProblem(group[0]))
	}
	return c.keep(ctx, &judgement{copied: copied}, problems...)
}

// repairOnce writes to one end what only the other holds, and replaces nothing. A
// client may write such a point at the same time, to both ends: what was brought is
// looked at again until it is as the other end has it.
func (c *checking) repairOnce(ctx context.Context, group []int) error {
	chosen := pick(c.slices, group)
	if err := c.lookAtEnds(ctx, chosen); err != nil {
		return err
	}
	for i := range chosen {
		if err := c.refuseAmbiguous(ctx, &chosen[i]); err != nil {
			return err
		}
	}
	from, to := c.ends()
	if to.void {
		return &operation.Error{Code: "policy_missing", Detail: fmt.Sprintf("%s has no retention policy %q of database %q, which was made before; start the operation again", to.URL(), chosen[0].RetentionPolicy, chosen[0].Database)}
	}
	var given handedBack
	brought := make([]bool, len(chosen))
	refused := func(int, int64) {} // retention takes it from where it came as well
	err := c.writing(ctx, to, &chosen[0], refused, func(ctx context.Context, out *batcher) error {
		_, err := c.compareEnds(ctx, from, to, chosen, &comparison{missing: func(p *point) error {
			brought[p.slice] = true
			given.add(p)
			return out.point(p)
		}})
		return err
	})
	if err != nil {
		return err
	}
	var which []int
	for i := range brought {
		if brought[i] {
			which = append(which, i)
		}
	}
	if len(which) == 0 {
		return nil
	}
	return c.reconcileEnds(ctx, from, to, chosen, which, &given)
}

// judgeRepaired compares what a repair has copied once more, by value: what is left
// then is left.
func (c *checking) judgeRepaired(ctx context.Context, group []int, of *operation.Task, v *judgement) error {
	all := pick(c.slices, group)
	if err := c.lookAtEnds(ctx, all); err != nil {
		return err
	}
	for i := range all {
		if err := c.refuseAmbiguous(ctx, &all[i]); err != nil {
			return err
		}
	}
	var diffs []difference
	if len(group) == 1 && c.walked(group[0]) {
		diffs = []difference{c.walks[group[0]].sum} // it was too slow to be compared at once
	} else {
		var err error
		if diffs, err = c.compareLasting(ctx, all, &comparison{}, c.matters); err != nil {
			return err
		}
	}
	for n, i := range group {
		left, _, err := c.withoutExpired(ctx, i, &diffs[n])
		if err != nil {
			return err
		}
		c.weighRepaired(i, of, &diffs[n], left, v)
	}
	return nil
}

func (c *checking) weighRepaired(i int, of *operation.Task, d *difference, left operation.Differences, v *judgement) {
	e := &c.evidence[i]
	copied := max(e.Written-c.lacking(left), 0)
	v.Slices.Total++
	v.Count(operation.Findings{Copied: copied})
	if !left.Any() {
		v.Slices.Equal++
		v.Slices.ByPoints++
		return
	}
	problem := c.differing(i, d, left)
	problem.Copied = copied
	problem.Detail = c.inWords(left) + ", after the repair"
	for _, p := range of.Problems {
		if p.Index == i {
			problem.Detail = operation.Clip(problem.Detail + ": " + p.Detail)
		}
	}
	found := operation.Findings{Left: left}
	// Where nothing differed before, what does now was written by clients while it
	// was copied; who settles that may take the value of where it came from.
	stale := c.lacking(left) > 0 || left.Different > e.Kept
	only := left.Missing+left.Extra == c.lacking(left)
	if stale && only && e.Kept == 0 && e.State == operation.SliceCopied {
		v.Reopen(i, found, problem)
		return
	}
	v.Slices.Unequal++
	v.Count(found)
	problem.Code = operation.CodeUnequal
	v.AddProblem(problem)
}
