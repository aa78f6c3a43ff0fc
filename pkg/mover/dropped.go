package mover

import (
	"context"
	"fmt"
	"slices"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
)

// codeWrittenSince: points are at the source again, or still.
const codeWrittenSince = "written_since"

// judgeDropped tries to reach a verdict on the units of a group, all of one
// database, by counting them at both ends.
func (t *transfer) judgeDropped(ctx context.Context, group []int, of *operation.Task, v *judgement) error {
	// What was given to other tasks is judged with them.
	group = slices.DeleteFunc(slices.Clone(group), func(i int) bool { return t.evidence[i].State == operation.SliceHandedOver })
	if len(group) == 0 {
		return nil
	}
	left, err := t.leftAt(ctx, group)
	if err != nil {
		return err
	}
	// A task that failed may have dropped what it has only recorded as proven.
	dropped := func(n int) bool {
		e := &t.evidence[group[n]]
		return e.State == operation.SliceDropped || e.State == operation.SliceProven && left[n] == 0
	}
	var proven []int
	for n, i := range group {
		if dropped(n) && t.evidence[i].Rows > 0 {
			proven = append(proven, i)
		}
	}
	lost, err := t.lostAt(ctx, proven)
	if err != nil {
		return err
	}
	for n, i := range group {
		e := t.evidence[i]
		v.Slices.Total++
		if !dropped(n) && e.State != operation.SliceKept {
			e = operation.Evidence{}
		}
		v.Count(operation.Findings{
			Points:  operation.ReportPoints{Source: e.Rows, Destination: e.Rows},
			Expired: e.Expired, Dropped: operation.Amount{Points: e.Rows},
		})
		switch loss := lost[i]; {
		case !dropped(n):
			t.tellKept(i, left[n], of, v)
			continue
		case left[n] > 0:
			p := t.problem(i)
			p.Code, p.Detail = codeWrittenSince, "points have come to the source since the window was dropped there"
			t.addKept(p, left[n], v)
		case loss != nil:
			v.Count(loss.findings)
			v.AddProblem(loss.problem)
			if loss.findings.Missing > 0 {
				v.Slices.Unequal++
				break
			}
			v.Slices.Equal++
			v.Slices.ByPoints++
			v.verified += e.Rows - loss.findings.Expired
		case e.Rows == 0:
			// There was nothing to drop, by count.
			v.Slices.Equal++
			v.Slices.ByCount++
			continue
		default:
			v.Slices.Equal++
			v.Slices.ByPoints++
			v.verified += e.Rows
		}
		v.Dropped.Slices++
	}
	return nil
}

// tellKept reports a unit that the drop task has kept or not come to.
func (t *transfer) tellKept(i int, left int64, of *operation.Task, v *judgement) {
	p := t.problem(i)
	p.Code, p.Detail = codeKept, "the task has kept more windows than it has room to give reasons for"
	if t.evidence[i].State != operation.SliceKept {
		p.Detail = "the task ended before it came to it"
		if of.Error != nil {
			p.Code, p.Detail = of.Error.Code, of.Error.Detail
		}
	}
	at := slices.IndexFunc(of.Problems, func(e operation.SliceError) bool { return e.Index == i })
	if at >= 0 {
		known := &of.Problems[at]
		p.Code, p.Detail, p.Missing, p.Different = known.Code, known.Detail, known.Missing, known.Different
		p.Destination = max(left-known.Missing, 0)
		v.Count(operation.Findings{Missing: known.Missing, Different: known.Different})
	}
	t.addKept(p, left, v)
}

// addKept counts a unit of which points are at the source.
func (t *transfer) addKept(p operation.Problem, left int64, v *judgement) {
	p.Source, p.Resolution = left, operation.ResolutionKept
	v.Slices.Unequal++
	v.Count(operation.Findings{Kept: operation.Amount{Slices: 1, Points: left}})
	v.AddProblem(p)
}

// leftAt counts what the source has of the units, over all its policies, without
// what retention no longer admits.
func (t *transfer) leftAt(ctx context.Context, group []int) ([]int64, error) {
	left := make([]int64, len(group))
	here, err := t.source.holding(ctx, t.slices[group[0]].Database)
	if err != nil {
		return nil, err
	}
	all, of := here.spread(pick(t.slices, group), t.cutoff)
	points, err := t.source.Totals(ctx, selections(all))
	for i, n := range points {
		left[of[i]] += n
	}
	return left, err
}

// spread returns units policy by policy, without what lies before the cutoff of
// each, and whose part each one is.
func (h *holding) spread(units []operation.Slice, before func(*influx.RetentionPolicy) cutoff) (all []operation.Slice, of []int) {
	for i := range units {
		for n := range h.policies {
			policy := &h.policies[n]
			if !h.mayHold(policy.Name, &units[i]) {
				continue
			}
			s := units[i]
			s.RetentionPolicy, s.Expired = policy.Name, false
			parts := cutExpired(s, before(policy))
			if last := parts[len(parts)-1]; !last.Expired {
				all, of = append(all, last), append(of, i)
			}
		}
	}
	return all, of
}

// loss is a unit of which the owner holds less than was proven.
type loss struct {
	findings operation.Findings
	problem  operation.Problem
}

// lostAt finds the units, of those that were proven and dropped, of which the
// owner now holds fewer values than were proven. Its retention may be the reason.
func (t *transfer) lostAt(ctx context.Context, proven []int) (map[int]*loss, error) {
	lost := map[int]*loss{}
	if len(proven) == 0 {
		return lost, nil
	}
	there, err := t.destination.holding(ctx, t.slices[proven[0]].Database)
	if err != nil {
		return nil, err
	}
	all, of := there.spread(pick(t.slices, proven), func(*influx.RetentionPolicy) cutoff { return cutoff{} })
	counted, err := t.takeCensus(ctx, t.destination, all, false)
	if err != nil {
		return nil, err
	}
	values := make([]int64, len(proven))
	for n := range counted {
		values[of[n]] += counted[n].values
	}
	for n, i := range proven {
		e := &t.evidence[i]
		if values[n] >= e.Values {
			continue
		}
		// A point has at least one value.
		points := min(e.Rows, e.Values-values[n])
		l := &loss{problem: t.problem(i)}
		l.problem.Source, l.problem.Destination = e.Rows, e.Rows-points
		l.problem.Detail = fmt.Sprintf("%d values were proven to be at the owner before the window was dropped, and it has %d of them now", e.Values, values[n])
		if t.expiresAt(&there, &t.slices[i]) {
			l.problem.Resolution = operation.ResolutionExpired
			l.findings = operation.Findings{Expired: points}
		} else {
			l.problem.Code, l.problem.Missing = operation.CodeUnequal, points
			l.findings = operation.Findings{Missing: points, Points: operation.ReportPoints{Destination: -points}}
		}
		lost[i] = l
	}
	return lost, nil
}

// expiresAt reports whether a policy of the owner no longer admits the beginning
// of a unit.
func (t *transfer) expiresAt(there *holding, s *operation.Slice) bool {
	return slices.ContainsFunc(there.policies, func(p influx.RetentionPolicy) bool {
		return p.Duration > 0 && t.Now().Add(-p.Duration).UnixNano() > s.From
	})
}
