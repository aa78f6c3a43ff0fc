package mover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/patience"
)

// copy brings every pending slice of the task to its destination, group by
// group, with a checkpoint after each group. A slice that is refused for good
// fails the task at the end; the others go on.
func (t *transfer) copy(ctx context.Context) error {
	all, err := t.job.Slices(ctx)
	if err != nil {
		return fmt.Errorf("reading slices of task %s: %w", t.task.ID, err)
	}
	t.slices = all
	t.begun = map[int]bool{}
	t.evidence = make(operation.Checkpoint, len(all))
	copy(t.evidence, t.task.Checkpoint)
	pending := func(i int) bool { return !t.evidence[i].State.Finished() }
	if err := t.failBarred(ctx); err != nil {
		return err
	}
	for n, group := range t.groups(all, pending) {
		if n == 0 && t.task.Attempt > 1 {
			// Another attempt has begun this group, and may have written it.
			for _, i := range group {
				t.begun[i] = true
			}
		}
		if err := t.copyGroup(ctx, group, 0); err != nil {
			return err
		}
	}
	failed := 0
	for i := range t.evidence {
		if t.evidence[i].State == operation.SliceFailed {
			failed++
		}
	}
	if failed == 0 {
		return nil
	}
	failure := &operation.Error{
		Code: operation.CodeNotCopied, TaskID: t.task.ID, Detail: fmt.Sprintf("%d of %d slices were not copied", failed, len(all)),
	}
	if problems := t.job.Task().Problems; len(problems) > 0 {
		first := &problems[0]
		failure.Code = first.Code
		failure.Detail = operation.Clip(failure.Detail + "; the first, " + sliceName(&first.Slice) + ": " + first.Detail)
	}
	return failure
}

// failBarred ends the slices that are not to be copied.
func (t *transfer) failBarred(ctx context.Context) error {
	var problems []operation.SliceError
	for _, i := range t.task.Barred {
		if i < 0 || i >= len(t.slices) || t.evidence[i].State.Finished() {
			continue
		}
		t.evidence[i].State = operation.SliceFailed
		problems = append(problems, operation.SliceError{
			Index: i, Slice: t.slices[i], Code: operation.CodeEarlierFailed,
			Detail: "a copy of this measurement that was to come first has failed, and this one's values would stay in its place; mend that and start the operation again",
		})
	}
	if len(problems) == 0 {
		return nil
	}
	return t.checkpoint(ctx, nil, problems...)
}

// copyGroup copies the slices of one group and stores what came of it. A group
// that is refused is copied slice by slice, so that the refusal is that slice's
// alone; each then gets little patience more.
func (t *transfer) copyGroup(ctx context.Context, group []int, limit time.Duration) error {
	t.halved = t.slices[group[0]].Halved
	err := t.timely(ctx, "copying from "+t.source.URL()+" to "+t.destination.URL(), limit, group, func(ctx context.Context) error {
		return t.tryGroup(ctx, group)
	})
	var large *tooLargeError
	var slow *slowError
	switch {
	case err == nil && len(t.withheld.fields) > 0:
		t.evidence[group[0]].State = operation.SliceFailed
		return t.checkpoint(ctx, group, t.withheldProblem(group[0]))
	case err == nil:
		return t.checkpoint(ctx, group)
	case !aboutSlices(ctx, err):
		return err
	case len(group) > 1:
		for i := range group {
			if err := t.copyGroup(ctx, group[i:i+1], t.limitAfter(err)); err != nil {
				return err
			}
		}
		return nil
	case errors.As(err, &large):
		return t.handOver(ctx, group[0], large)
	case errors.As(err, &slow):
		return t.halve(ctx, group[0], slow)
	case t.withhold(&t.slices[group[0]], err):
		if len(t.withheld.fields) == 1 {
			defer func() { t.withheld = withheld{} }()
		}
		return t.copyGroup(ctx, group, limit)
	}
	t.evidence[group[0]].State = operation.SliceFailed
	return t.checkpoint(ctx, group, problemOf(group[0], &t.slices[group[0]], err))
}

// limitAfter returns how patient to be with single slices after their group has
// ended with err: when it was refused for long, not much.
func (t *transfer) limitAfter(err error) time.Duration {
	if _, ok := errors.AsType[*patience.GaveUpError](err); ok {
		return t.RetryInPlace
	}
	return 0
}

// aboutSlices reports whether err is about some slices and not about the whole
// task: it is not told to stop, its claim holds, and its backends are there.
func aboutSlices(ctx context.Context, err error) bool {
	var refused *patience.GaveUpError
	if ctx.Err() != nil || errors.Is(err, influx.ErrGuard) || errors.As(err, &refused) && refused.Away {
		return false
	}
	var refusal *influx.Error
	var own *operation.Error
	var large *tooLargeError
	var slow *slowError
	return errors.As(err, &refusal) || errors.As(err, &own) || errors.As(err, &large) || errors.As(err, &slow) ||
		errors.Is(err, lineproto.ErrUnrepresentable) || errors.Is(err, influx.ErrUnaddressable) ||
		errors.Is(err, errDisorder) || errors.Is(err, errMixedExpiry)
}

// problemOf says why a slice was not copied.
func problemOf(index int, s *operation.Slice, err error) operation.SliceError {
	p := operation.SliceError{Index: index, Slice: *s, Code: "slice_refused", Detail: err.Error()}
	if own, ok := errors.AsType[*operation.Error](err); ok {
		p.Code, p.Detail = own.Code, own.Detail
	}
	return p
}

// checkpoint stores the evidence of a group and the problems that came up.
func (t *transfer) checkpoint(ctx context.Context, group []int, problems ...operation.SliceError) error {
	var copied, unchanged int64
	for _, i := range group {
		e := &t.evidence[i]
		if e.State == operation.SliceUnchanged || e.State == operation.SliceSameCounts {
			unchanged += e.Rows
		} else {
			copied += e.Rows + e.Returned
		}
	}
	read, written := t.read.take(), t.sent.take()
	timeouts := t.recordTimeouts(group)
	// The record keeps what it is given, while this task goes on.
	evidence := slices.Clone(t.evidence)
	return t.store(ctx, evidence, func(task *operation.Task) {
		timeouts(task)
		task.Checkpoint = evidence
		for _, p := range problems {
			task.AddProblem(p)
		}
		task.Points.Copied += copied
		task.Points.Unchanged += unchanged
		task.Bytes.Read += read
		task.Bytes.Written += written
	})
}

// store stores a checkpoint, the last one with the end of the task.
func (t *transfer) store(ctx context.Context, reached operation.Checkpoint, change func(*operation.Task)) error {
	if slices.ContainsFunc(reached, func(e operation.Evidence) bool { return !e.State.Finished() }) {
		return t.job.Checkpoint(ctx, change)
	}
	return t.job.Finish(change)
}

// tryGroup copies a group's slices, and leaves their evidence in t.evidence
// only when everything is acknowledged.
func (t *transfer) tryGroup(ctx context.Context, group []int) (err error) {
	all := pick(t.slices, group)
	found := make([]operation.Evidence, len(all))
	defer func() {
		for i := range found {
			// What has been written is found there by the next try.
			t.begun[group[i]] = err != nil && (t.begun[group[i]] || found[i].Written+found[i].Returned > 0)
		}
	}()
	if err := t.markOverlaps(ctx, all); err != nil {
		return err
	}
	occupied, err := t.destination.Occupied(ctx, selections(all))
	if err != nil {
		return err
	}
	var empty, held []int
	for i := range all {
		found[i].State, found[i].DestinationEmpty = operation.SliceCopied, !occupied[i]
		// What an attempt has noted that ended before it was through.
		found[i].Replaced, found[i].Returned = t.evidence[group[i]].Replaced, t.evidence[group[i]].Returned
		if all[i].Expired {
			// Nothing is copied; the verification counts it.
			continue
		}
		if err := t.refuseAmbiguous(ctx, &all[i]); err != nil {
			return err
		}
		if occupied[i] {
			held = append(held, i)
		} else {
			empty = append(empty, i)
		}
	}
	if err := t.bring(ctx, all, empty, found, t.fill); err != nil {
		return err
	}
	if held, err = t.leaveSameCounts(ctx, group, all, held, found); err != nil {
		return err
	}
	if err := t.bring(ctx, all, held, found, t.complete); err != nil {
		return err
	}
	if err := t.settleDisputes(ctx, group, all, held, found); err != nil {
		return err
	}
	for i, n := range group {
		if t.begun[n] {
			found[i].State = operation.SliceCopied
		}
		t.evidence[n] = found[i]
	}
	return nil
}

// leaveSameCounts finds the slices of which both ends have the same counts per
// series and field, when the operation asks for no more than that, and returns
// the others.
func (t *transfer) leaveSameCounts(ctx context.Context, group []int, all []operation.Slice, held []int, found []operation.Evidence) ([]int, error) {
	if t.depth() != operation.DepthCount {
		return held, nil
	}
	var which, others []int
	for _, i := range held {
		// Once something has been written, equal counts are our own doing.
		if t.begun[group[i]] || t.evidence[group[i]].State == operation.SliceCompared {
			others = append(others, i)
		} else {
			which = append(which, i)
		}
	}
	if len(which) == 0 {
		return others, nil
	}
	chosen := pick(all, which)
	here, there, err := t.talliesOfBoth(ctx, chosen)
	if err != nil {
		return nil, err
	}
	for n, i := range which {
		if here[n] != there[n] {
			others = append(others, i)
			continue
		}
		found[i].State, found[i].Rows, found[i].Counts = operation.SliceSameCounts, here[n].rows, here[n].sum
	}
	return others, nil
}

// holdingIf asks how the destination keeps the database when a slice is disputed.
func (t *transfer) holdingIf(ctx context.Context, found []operation.Evidence, all []operation.Slice) (holding, error) {
	if !slices.ContainsFunc(found, func(e operation.Evidence) bool { return e.State == operation.SliceCompared }) {
		return holding{}, nil
	}
	return t.destination.holding(ctx, all[0].Database)
}

// settleDisputes lets the source's values replace those of the destination, in
// the slices where both have one. How many there are is stored first: once they
// are replaced nobody can count them any more.
func (t *transfer) settleDisputes(ctx context.Context, group []int, all []operation.Slice, held []int, found []operation.Evidence) error {
	var disputed []int
	noted := slices.Clone(t.evidence)
	there, err := t.holdingIf(ctx, found, all)
	if err != nil {
		return err
	}
	for _, i := range held {
		if found[i].State != operation.SliceCompared {
			continue
		}
		if there.overlaps(&all[i]) {
			return &operation.Error{Code: "overlapping_groups", Detail: fmt.Sprintf(
				"%d points have other values at %s, where several shard groups cover this window: InfluxDB would keep both values. All that was missing is copied; rewrite these points at one of the two ends and start the operation again",
				found[i].Replaced, t.destination.URL())}
		}
		disputed = append(disputed, i)
		n := group[i]
		noted[n] = operation.Evidence{State: operation.SliceCompared, Replaced: found[i].Replaced, Returned: found[i].Returned}
	}
	if len(disputed) == 0 {
		return nil
	}
	err = t.job.Checkpoint(ctx, func(task *operation.Task) { task.Checkpoint = slices.Clone(noted) })
	if err != nil {
		return err
	}
	copy(t.evidence, noted)
	return t.bring(ctx, all, disputed, found, t.overrule)
}

// bring runs fill, complete or overrule for some slices of a group and keeps their
// evidence in found, also when it fails.
func (t *transfer) bring(ctx context.Context, all []operation.Slice, which []int, found []operation.Evidence,
	by func(context.Context, *batcher, []operation.Slice, []operation.Evidence) error,
) error {
	if len(which) == 0 {
		return nil
	}
	chosen := pick(all, which)
	evidence := make([]operation.Evidence, len(which))
	for n, i := range which {
		evidence[n] = found[i]
	}
	refused := func(i int, points int64) {
		evidence[i].Expired += points
		evidence[i].Written -= points
	}
	err := t.writing(ctx, t.destination, &chosen[0], refused, func(ctx context.Context, out *batcher) error {
		return by(ctx, out, chosen, evidence)
	})
	for n, i := range which {
		found[i] = evidence[n]
	}
	return err
}

// fill copies slices whose destination is empty: everything that is read is
// written.
func (t *transfer) fill(ctx context.Context, out *batcher, chosen []operation.Slice, evidence []operation.Evidence) error {
	rows, err := t.source.read(ctx, chosen)
	if err != nil {
		return err
	}
	defer t.closeStream(rows)
	out.filled = rows
	var h hasher
	size := t.sizes(chosen)
	for rows.Next() {
		if rows.NewSeries() {
			if err := out.setSeries(rows.Series(), rows.Fields()); err != nil {
				return err
			}
			h.setSeries(rows.Series(), rows.Fields())
		}
		slice, ns, values := rows.Statement(), rows.Time(), rows.Values()
		if err := out.row(slice, ns, values); err != nil {
			return err
		}
		e := &evidence[slice]
		e.Written++
		h.row(e, ns, values)
		if err := size.check(e.Rows, rows.NewSeries()); err != nil {
			return err
		}
	}
	return rows.Err()
}

// complete copies slices of which the destination holds something already: the
// points are compared, and only what it lacks is written, and what the source
// lacks is given back where the task is mutual. No value is replaced; where that
// is to be done, the evidence says SliceCompared.
func (t *transfer) complete(ctx context.Context, out *batcher, chosen []operation.Slice, evidence []operation.Evidence) error {
	if !t.task.Mutual {
		return t.completeEnds(ctx, out, nil, nil, chosen, evidence)
	}
	refused := func(i int, points int64) {
		evidence[i].Expired += points
		evidence[i].Returned -= points
	}
	var given handedBack
	err := t.writing(ctx, t.source, &chosen[0], refused, func(ctx context.Context, back *batcher) error {
		return t.completeEnds(ctx, out, back, &given, chosen, evidence)
	})
	if err != nil {
		return err
	}
	return t.reconcile(ctx, chosen, evidence, &given)
}

// completeEnds writes what the destination lacks to out, and what the source
// lacks to back, unless that is nil, with a note of it in given.
func (t *transfer) completeEnds(ctx context.Context, out, back *batcher, given *handedBack, chosen []operation.Slice, evidence []operation.Evidence) error {
	var h hasher
	size := t.sizes(chosen)
	c := &comparison{
		seen: func(p *point) error {
			if p.newSeries {
				h.setSeries(p.series, p.fields)
			}
			e := &evidence[p.slice]
			h.row(e, p.ns, p.values)
			return size.check(e.Rows, p.newSeries)
		},
		missing: func(p *point) error {
			evidence[p.slice].Written++
			return out.point(p)
		},
	}
	if back != nil {
		c.returned = func(p *point) error {
			evidence[p.slice].Returned++
			given.add(p)
			return back.point(p)
		}
	}
	diffs, err := t.compare(ctx, chosen, c)
	if err != nil {
		return err
	}
	for i := range diffs {
		t.note(&evidence[i], &diffs[i])
	}
	return nil
}

// note keeps of a comparison what the evidence is to say.
func (t *transfer) note(e *operation.Evidence, d *difference) {
	switch {
	case !t.task.Overrule:
		e.Kept = d.different
	case d.different > 0:
		e.State, e.Replaced = operation.SliceCompared, max(e.Replaced, d.different)
	}
	if !t.task.Mutual {
		e.Extra = d.extra
	}
	lacking := d.missing > 0 || t.task.Mutual && d.extra > 0
	// Where values have been replaced before, it is a copy that has ended since.
	if e.State != operation.SliceCompared && !lacking && e.Replaced == 0 {
		e.State, e.Rows = operation.SliceUnchanged, d.source
	}
}

// overrule writes the source's values where the destination has others. Its
// evidence has the rows already.
func (t *transfer) overrule(ctx context.Context, out *batcher, chosen []operation.Slice, evidence []operation.Evidence) error {
	_, err := t.compare(ctx, chosen, &comparison{
		overrule: true,
		missing: func(p *point) error {
			evidence[p.slice].Written++
			return out.point(p)
		},
	})
	for i := range evidence {
		evidence[i].State = operation.SliceCopied
	}
	return err
}

// compare opens the slices at both ends and compares them.
func (t *transfer) compare(ctx context.Context, chosen []operation.Slice, c *comparison) ([]difference, error) {
	return t.compareEnds(ctx, t.source, t.destination, chosen, c)
}

// compareEnds is compare with either end as the source.
func (t *transfer) compareEnds(ctx context.Context, from, to *end, chosen []operation.Slice, c *comparison) ([]difference, error) {
	source, err := from.read(ctx, chosen)
	if err != nil {
		return nil, err
	}
	defer t.closeStream(source)
	destination, err := to.read(ctx, chosen)
	if err != nil {
		return nil, err
	}
	defer t.closeStream(destination)
	c.alive = t.job.Alive
	c.tempo = t.newTempo(ctx, reading{from, source}, reading{to, destination})
	diffs, err := c.run(source, destination, len(chosen))
	for i := range diffs {
		diffs[i].explain(&chosen[i])
	}
	return diffs, err
}

// closeStream ends a read and counts its bytes.
func (t *transfer) closeStream(s *influx.Stream) {
	if s == nil {
		return
	}
	t.read.Add(s.Bytes())
	_ = s.Close() // nothing is lost with it
}

// aliveEvery is how many rows pass between two signs of life.
const aliveEvery = 10_000

// sizes watches over the true size of slices while they are read.
type sizes struct {
	t *transfer
	// several slices are read; rows and series count those of all of them.
	several      bool
	rows, series int64
}

func (t *transfer) sizes(all []operation.Slice) *sizes { return &sizes{t: t, several: len(all) > 1} }

// minPerSeries is how many points each series of a slice has at least when it is
// cut: a server goes over all series for every part.
const minPerSeries = 4

// check is called for every row with the rows of its slice so far. It stops
// what is far larger than its plan estimated, where cutting is of any use.
func (s *sizes) check(rows int64, newSeries bool) error {
	if newSeries {
		s.series++
	}
	if s.rows++; s.rows%aliveEvery == 0 {
		s.t.job.Alive()
	}
	switch {
	case s.rows <= s.t.SliceRows:
		return nil
	case s.several, rows > s.t.SliceRows && rows >= minPerSeries*s.series && !s.t.whole:
		return &tooLargeError{rows: rows}
	default:
		return nil
	}
}
