package mover

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
)

// copy brings every pending slice of the task to its destination, group by
// group, with a checkpoint after each group. A slice that is refused for good
// fails the task at the end; the others go on.
func (t *transfer) copy(ctx context.Context) error {
	slices, err := t.job.Slices(ctx)
	if err != nil {
		return fmt.Errorf("reading slices of task %s: %w", t.task.ID, err)
	}
	t.slices = slices
	t.evidence = make(operation.Checkpoint, len(slices))
	copy(t.evidence, t.task.Checkpoint)
	t.problems = t.task.Problems
	pending := func(i int) bool { return t.evidence[i].State == operation.SlicePending }
	for _, group := range t.groups(slices, pending) {
		if err := t.copyGroup(ctx, group); err != nil {
			return err
		}
	}
	if len(t.problems) == 0 {
		return nil
	}
	first, failed := t.problems[0], 0
	for _, e := range t.evidence {
		if e.State == operation.SliceFailed {
			failed++
		}
	}
	return &operation.Error{
		Code: first.Code, TaskID: t.task.ID,
		Detail: fmt.Sprintf("%d of %d slices were not copied; the first, %s: %s", failed, len(slices), sliceName(&first.Slice), first.Detail),
	}
}

// copyGroup copies the slices of one group and stores what came of it. A group
// that is refused is copied slice by slice, so that the refusal is that
// slice's alone.
func (t *transfer) copyGroup(ctx context.Context, group []int) error {
	err := t.patiently(ctx, "copying from "+t.task.Source+" to "+t.task.Destination, func(ctx context.Context) error {
		return t.tryGroup(ctx, group)
	})
	var large *tooLargeError
	switch {
	case err == nil:
		return t.checkpoint(ctx, group)
	case ends(ctx, err):
		return err
	case len(group) > 1:
		for _, i := range group {
			if err := t.copyGroup(ctx, []int{i}); err != nil {
				return err
			}
		}
		return nil
	case errors.As(err, &large):
		return t.handOver(ctx, group[0])
	}
	t.fail(group[0], err)
	return t.checkpoint(ctx, group)
}

// ends reports whether err is about the task and not about a slice: it is to
// stop, its claim is gone, or a backend has been away for too long.
func ends(ctx context.Context, err error) bool {
	if ctx.Err() != nil || errors.Is(err, influx.ErrGuard) {
		return true
	}
	var own *operation.Error
	if errors.As(err, &own) {
		return own.Code == codeBackendRefuses
	}
	var refusal *influx.Error
	var large *tooLargeError
	return !errors.As(err, &refusal) && !errors.As(err, &large) &&
		!errors.Is(err, lineproto.ErrUnrepresentable) && !errors.Is(err, influx.ErrUnaddressable)
}

// fail marks a slice as refused for good.
func (t *transfer) fail(i int, err error) {
	t.evidence[i].State = operation.SliceFailed
	problem := operation.SliceError{Index: i, Slice: t.slices[i], Code: "slice_refused", Detail: err.Error()}
	var own *operation.Error
	if errors.As(err, &own) {
		problem.Code, problem.Detail = own.Code, own.Detail
	}
	if len(t.problems) < operation.MaxSliceProblems {
		t.problems = append(t.problems, problem)
	}
}

// checkpoint stores the evidence of a group.
func (t *transfer) checkpoint(ctx context.Context, group []int) error {
	var points int64
	for _, i := range group {
		points += t.evidence[i].Rows
	}
	read, written := t.read, t.sent
	err := t.job.Checkpoint(ctx, func(task *operation.Task) {
		task.Checkpoint = t.evidence
		task.Problems = t.problems
		task.Points.Copied += points
		task.Bytes.Read += read
		task.Bytes.Written += written
	})
	t.read, t.sent = 0, 0
	return err
}

// tryGroup copies a group's slices, and leaves their evidence in t.evidence
// only when everything is acknowledged.
func (t *transfer) tryGroup(ctx context.Context, group []int) error {
	slices := pick(t.slices, group)
	for i := range slices {
		if slices[i].Expired {
			// Nothing is copied; the verification counts it.
			slices[i].Points = 0
		}
		if err := t.refuseAmbiguous(ctx, &slices[i]); err != nil {
			return err
		}
	}
	occupied, err := t.destination.Occupied(ctx, selections(slices))
	if err != nil {
		return err
	}
	found := make([]operation.Evidence, len(slices))
	var empty, held []int
	for i := range slices {
		found[i] = operation.Evidence{State: operation.SliceCopied, DestinationEmpty: !occupied[i]}
		switch {
		case slices[i].Expired:
		case occupied[i]:
			held = append(held, i)
		default:
			empty = append(empty, i)
		}
	}
	if len(empty) > 0 {
		if err := t.fill(ctx, slices, empty, found); err != nil {
			return err
		}
	}
	if len(held) > 0 {
		if err := t.complete(ctx, slices, held, found); err != nil {
			return err
		}
	}
	for i, n := range group {
		t.evidence[n] = found[i]
	}
	return nil
}

// fill copies slices whose destination is empty: everything that is read is
// written.
func (t *transfer) fill(ctx context.Context, slices []operation.Slice, which []int, found []operation.Evidence) error {
	chosen := pick(slices, which)
	evidence := make([]operation.Evidence, len(chosen))
	err := t.writing(ctx, &chosen[0], func(ctx context.Context, out *batcher) error {
		return t.stream(ctx, chosen, evidence, out)
	}, func(expired int64) { evidence[0].Expired += expired })
	if err != nil {
		return err
	}
	for i, n := range which {
		evidence[i].State, evidence[i].DestinationEmpty = operation.SliceCopied, true
		evidence[i].Written = evidence[i].Rows
		found[n] = evidence[i]
	}
	return nil
}

// stream reads the slices and hands every point to out.
func (t *transfer) stream(ctx context.Context, chosen []operation.Slice, evidence []operation.Evidence, out *batcher) error {
	rows, err := t.source.Read(ctx, selections(chosen))
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	var h hasher
	n := int64(0)
	for rows.Next() {
		if rows.NewSeries() {
			if err := out.setSeries(rows.Series(), rows.Fields()); err != nil {
				return err
			}
			h.setSeries(rows.Series(), rows.Fields())
		}
		e := &evidence[rows.Statement()]
		ns, values := rows.Time(), rows.Values()
		if err := out.row(ns, values); err != nil {
			return err
		}
		h.row(e, ns, values)
		if n++; n%aliveEvery == 0 {
			t.job.Alive()
			if e.Rows > t.SliceRows && canSplit(&chosen[rows.Statement()]) {
				return &tooLargeError{}
			}
		}
	}
	return rows.Err()
}

// aliveEvery is how many rows pass between two signs of life.
const aliveEvery = 10_000

// complete copies slices of which the destination holds something already: the
// points are compared, and only what it lacks is written. A value it holds is
// never replaced.
func (t *transfer) complete(ctx context.Context, slices []operation.Slice, which []int, found []operation.Evidence) error {
	chosen := pick(slices, which)
	evidence := make([]operation.Evidence, len(chosen))
	var diffs []difference
	err := t.writing(ctx, &chosen[0], func(ctx context.Context, out *batcher) error {
		var h hasher
		c := &comparison{
			seen: func(p *point) error {
				if p.newSeries {
					h.setSeries(p.series, p.fields)
				}
				e := &evidence[p.slice]
				h.row(e, p.ns, p.values)
				if e.Rows > t.SliceRows && canSplit(&chosen[p.slice]) {
					return &tooLargeError{}
				}
				return nil
			},
			missing: func(p *point) error {
				if p.newSeries {
					if err := out.setSeries(p.series, p.fields); err != nil {
						return err
					}
				}
				evidence[p.slice].Written++
				return out.row(p.ns, p.values)
			},
		}
		var err error
		diffs, err = t.compare(ctx, chosen, c)
		return err
	}, func(expired int64) { evidence[0].Expired += expired })
	if err != nil {
		return err
	}
	for i, n := range which {
		evidence[i].State = operation.SliceCopied
		evidence[i].Kept = diffs[i].different
		found[n] = evidence[i]
	}
	return nil
}

// compare opens the slices at both ends and compares them.
func (t *transfer) compare(ctx context.Context, chosen []operation.Slice, c *comparison) ([]difference, error) {
	sels := selections(chosen)
	source, err := t.source.Read(ctx, sels)
	if err != nil {
		return nil, err
	}
	defer func() { _ = source.Close() }()
	destination, err := t.destination.Read(ctx, sels)
	if err != nil {
		return nil, err
	}
	defer func() { _ = destination.Close() }()
	c.alive = t.job.Alive
	return c.run(source, destination, len(chosen))
}

// writing runs produce with a batcher and returns only when every batch is
// acknowledged, or with the first error: a refused write counts before what it
// broke.
func (t *transfer) writing(ctx context.Context, of *operation.Slice, produce func(context.Context, *batcher) error, expired func(int64)) error {
	out := t.newBatcher(ctx, of.Database, of.RetentionPolicy)
	err := produce(out.ctx, out)
	if err == nil {
		err = out.finish()
	}
	if refused := out.close(); refused != nil {
		return refused
	}
	if err != nil {
		return err
	}
	if n := <-out.expired; n > 0 {
		expired(n)
	}
	t.sent += out.bytes
	return nil
}

// expiredPoints reports how many points a write lost to retention, when that is
// all that was wrong with it.
func expiredPoints(err error) (int64, bool) {
	var refusal *influx.Error
	if !errors.As(err, &refusal) || refusal.Class != influx.PartialWrite || !refusal.StoredRest {
		return 0, false
	}
	return int64(refusal.Dropped), strings.Contains(refusal.Message, "points beyond retention policy")
}

// refuseAmbiguous checks the types in a window that several shard groups cover.
// There the server casts integers to floats and hides booleans or strings, so a
// field with several types cannot be read truly.
func (t *transfer) refuseAmbiguous(ctx context.Context, s *operation.Slice) error {
	if !s.Overlap || s.Expired {
		return nil
	}
	fields, err := t.source.FieldKeys(ctx, s.Database, s.RetentionPolicy, s.Measurement)
	if err != nil {
		return err
	}
	for _, name := range sortedKeys(fields) {
		if len(fields[name]) > 1 {
			return &operation.Error{
				Code: "type_ambiguous",
				Detail: fmt.Sprintf("type_ambiguous: field %q has the types %v in shard groups that overlap in this window, and InfluxDB reads them as one; "+
					"nothing of the slice was copied. Rewrite the field with one type at %s (for example with SELECT … INTO another measurement for each type) and start the operation again",
					name, fields[name], t.task.Source),
			}
		}
	}
	return nil
}
