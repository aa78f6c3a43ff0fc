package mover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/patience"
	"ringmaster/pkg/topology"
)

// Clearing tells a Mover how to delete. The zero Clearing is usable.
type Clearing struct {
	// DropsPerSecond bounds the deletes of one task (50). Each one makes the
	// server go over all shards of the database.
	DropsPerSecond float64
	// MayDrop, when not nil, is asked immediately before each delete. An
	// *operation.Error ends the task for good, any other error its attempt;
	// nothing more is deleted then.
	MayDrop func(ctx context.Context, op *operation.Operation) error
}

const defaultDropsPerSecond = 50

// The codes of units that are kept, and of tasks that keep some or all.
const (
	// codeKept is the failure of a task that had to keep units.
	codeKept = "kept"
	// codeUnproven: the owner lacks points of the source, or has other values.
	codeUnproven = "unproven"
	// codeChanging: the unit was another each time it was counted.
	codeChanging = "changing"
	// codeWrittenMeanwhile: points came while the unit was deleted.
	codeWrittenMeanwhile = "written_meanwhile"
	// codeSameServer: source and owner are one server.
	codeSameServer = "same_server"
	// codeIdentityUnknown: whether they are could not be found out.
	codeIdentityUnknown = "identity_unknown"
)

// maxProofs is how often a unit that keeps changing is proven anew.
const maxProofs = 3

// dropsPerCheckpoint is how many deletes may be known to this process only. What
// a crash makes it forget is found to be gone by the next attempt.
const dropsPerCheckpoint = 25

// dropper is a drop task at work. It deletes from the source what it has just
// proven the destination, its owner, to hold.
type dropper struct {
	*transfer

	clearing Clearing
	// next is when the next delete may go out.
	next time.Time
	// dropped counts the points since the last checkpoint.
	dropped  int64
	problems []operation.SliceError
}

// drop proves the units of the task, group by group, and deletes those that are
// proven one after another. A unit recorded as proven by an earlier attempt is
// proven again: an old proof deletes nothing. It ends with nil when every unit is
// dropped or was empty, and fails the task when some are kept.
func (t *transfer) drop(ctx context.Context, c Clearing) error {
	all, err := t.job.Slices(ctx)
	if err != nil {
		return fmt.Errorf("reading slices of task %s: %w", t.task.ID, err)
	}
	t.slices = all
	t.evidence = make(operation.Checkpoint, len(all))
	copy(t.evidence, t.task.Checkpoint)
	if c.DropsPerSecond <= 0 {
		c.DropsPerSecond = defaultDropsPerSecond
	}
	d := &dropper{transfer: t, clearing: c}
	pending := func(i int) bool { return !t.evidence[i].State.Finished() }
	groups := t.groups(all, pending)
	if len(groups) > 0 {
		if err := d.refuseOneServer(ctx); err != nil {
			return err
		}
	}
	for _, group := range groups {
		if err := d.dropGroup(ctx, group); err != nil {
			return err
		}
	}
	return d.kept()
}

// kept is the failure of a task that has kept units.
func (d *dropper) kept() error {
	kept := 0
	for i := range d.evidence {
		if d.evidence[i].State == operation.SliceKept {
			kept++
		}
	}
	if kept == 0 {
		return nil
	}
	failure := &operation.Error{
		Code: codeKept, TaskID: d.task.ID,
		Detail: fmt.Sprintf("%d of %d windows were kept at %s", kept, len(d.slices), d.source.URL()),
	}
	if problems := d.job.Task().Problems; len(problems) > 0 {
		first := &problems[0]
		failure.Detail = operation.Clip(fmt.Sprintf("%s; the first, %s: %s: %s", failure.Detail, unitName(&first.Slice), first.Code, first.Detail))
	}
	return failure
}

// unitName names a unit for a person.
func unitName(s *operation.Slice) string {
	return fmt.Sprintf("%.*q.%.*q from %d to %d", maxExample, s.Database, maxExample, s.Measurement, s.From, s.To)
}

// refuseOneServer makes sure that source and owner are two servers: on one, the
// comparison would prove everything, and the delete take the only copy.
func (d *dropper) refuseOneServer(ctx context.Context) error {
	one := topology.SameServer(d.task.Source, d.task.Destination)
	id := ""
	if !one {
		err := d.patiently(ctx, "telling "+d.source.URL()+" from "+d.destination.URL(), 0, func(ctx context.Context) (err error) {
			one, id, err = d.oneServer(ctx)
			return err
		})
		if err != nil {
			return err
		}
	}
	if !one {
		return nil
	}
	return &operation.Error{Code: codeSameServer, TaskID: d.task.ID, Detail: fmt.Sprintf(
		"%s and its owner %s are one server%s: what is there is the only copy, and nothing was dropped. Give each backend of a circle a server of its own",
		d.task.Source, d.task.Destination, id)}
}

// oneServer reports whether both ends are answered by one process, and names it.
func (d *dropper) oneServer(ctx context.Context) (one bool, id string, err error) {
	for range identityTries {
		before, err := d.identity(ctx, d.source)
		if err != nil {
			return false, "", err
		}
		owner, err := d.identity(ctx, d.destination)
		if err != nil {
			return false, "", err
		}
		after, err := d.identity(ctx, d.source)
		switch {
		case err != nil:
			return false, "", err
		case owner.Same(before), owner.Same(after):
			return true, " (" + owner.String() + ")", nil
		case before.Same(after):
			return false, "", nil
		}
		// It was started anew in between, so that the two questions may have been
		// answered by two processes of one server.
	}
	return false, "", &operation.Error{Code: codeIdentityUnknown, TaskID: d.task.ID, Detail: fmt.Sprintf(
		"%s is answered by another process each time, so whether it and %s are two servers is not known, and nothing was dropped; give each backend an address of its own",
		d.task.Source, d.task.Destination)}
}

// identityTries is how often a server may have been started anew while it is asked
// who it is.
const identityTries = 5

// identity asks an end who it is. One that does not tell is not dropped from:
// nothing else proves two addresses to be two servers without writing.
func (d *dropper) identity(ctx context.Context, e *end) (influx.Identity, error) {
	id, err := e.Identity(ctx)
	var refusal *influx.Error
	if errors.As(err, &refusal) && refusal.Class != influx.Transient {
		return id, &operation.Error{Code: codeIdentityUnknown, TaskID: d.task.ID, Detail: operation.Clip(fmt.Sprintf(
			"whether %s and %s are two servers is not known, so nothing was dropped: %v (SHOW DIAGNOSTICS needs an administrator's account)",
			d.task.Source, d.task.Destination, err))}
	}
	return id, err
}

// dropGroup proves the units of a group, records the proofs and deletes.
func (d *dropper) dropGroup(ctx context.Context, group []int) error {
	proofs, err := d.proveGroup(ctx, group, 0)
	if err != nil {
		return err
	}
	for _, p := range proofs {
		d.note(p)
	}
	if err := d.save(ctx); err != nil {
		return err
	}
	var limit time.Duration
	unsaved := 0
	for _, p := range proofs {
		if d.evidence[p.index].State != operation.SliceProven {
			continue
		}
		err := d.dropUnit(ctx, p, limit)
		if stop, ok := errors.AsType[*fencedError](err); ok || err != nil && !aboutSlices(ctx, err) {
			return d.stop(ctx, err, stop)
		}
		limit = 0
		if err != nil {
			limit = d.limitAfter(err)
		}
		d.finish(p, err)
		if unsaved++; unsaved == dropsPerCheckpoint {
			if err := d.save(ctx); err != nil {
				return err
			}
			unsaved = 0
		}
	}
	if unsaved == 0 {
		return nil
	}
	return d.save(ctx)
}

// stop ends the task with what stopped it, after what has been deleted is on
// record: a task that fails for good has no other attempt that would find out.
func (d *dropper) stop(ctx context.Context, err error, fenced *fencedError) error {
	if fenced != nil {
		err = fenced.error
	}
	if _, fails := errors.AsType[*operation.Error](err); !fails {
		return err
	}
	if saved := d.save(ctx); saved != nil {
		return saved
	}
	return err
}

// note puts what a proof has found into the evidence. A unit that an earlier
// attempt has proven may have been deleted since, in part or as a whole.
func (d *dropper) note(p *proof) {
	if before := d.evidence[p.index]; before.State == operation.SliceProven {
		p.before = before
	}
	switch {
	case p.why != nil:
		d.keep(p, p.gone())
	case p.empty():
		d.evidence[p.index] = p.recorded(operation.SliceDropped)
		d.dropped += p.before.Rows
	default:
		d.evidence[p.index] = p.recorded(operation.SliceProven)
	}
}

// keep records that a unit stays, of which some points are gone all the same.
func (d *dropper) keep(p *proof, gone int64) {
	d.evidence[p.index] = operation.Evidence{State: operation.SliceKept, Rows: gone}
	d.dropped += gone
	d.problems = append(d.problems, operation.SliceError{Index: p.index, Slice: p.unit, Code: p.why.Code, Detail: p.why.Detail, Missing: p.missing, Different: p.different})
}

// finish records what became of a unit that was to be deleted.
func (d *dropper) finish(p *proof, err error) {
	if err == nil {
		e := p.recorded(operation.SliceDropped)
		d.evidence[p.index] = e
		d.dropped += e.Rows
		return
	}
	gone := p.gone()
	if _, ok := errors.AsType[*remainderError](err); ok {
		gone = p.recorded(operation.SliceKept).Rows
	}
	p.why = keptBecause(err)
	d.keep(p, gone)
}

// save stores the evidence and the problems since it was stored last.
func (d *dropper) save(ctx context.Context) error {
	// The record keeps what it is given, while this task goes on.
	evidence := slices.Clone(d.evidence)
	problems, dropped, read := d.problems, d.dropped, d.read.take()
	d.problems, d.dropped = nil, 0
	return d.job.Checkpoint(ctx, func(task *operation.Task) {
		task.Checkpoint = evidence
		for _, p := range problems {
			task.AddProblem(p)
		}
		task.Points.Dropped += dropped
		task.Bytes.Read += read
	})
}

// fencedError is what MayDrop said.
type fencedError struct{ error }

// remainderError keeps a unit in which points are after the server has said that
// all are deleted.
type remainderError struct{ own operation.Error }

func (e *remainderError) Error() string { return e.own.Error() }
func (e *remainderError) Unwrap() error { return &e.own }

// dropUnit deletes a proven unit. nil means that it is gone.
func (d *dropper) dropUnit(ctx context.Context, p *proof, limit time.Duration) error {
	what := "dropping from " + d.source.URL() + " what " + d.destination.URL() + " holds"
	return d.patiently(ctx, what, limit, func(ctx context.Context) error { return d.tryDrop(ctx, p) })
}

func (d *dropper) tryDrop(ctx context.Context, p *proof) error {
	if !p.sentAt.IsZero() {
		// The end of the delete before has not been seen. When it does not come,
		// what is there now is proven.
		if gone, err := d.awaitGone(ctx, p); err != nil || gone {
			return err
		}
		if err := d.proveAgain(ctx, p); err != nil || p.empty() {
			return err
		}
	}
	if err := d.pace(ctx); err != nil {
		return err
	}
	for {
		same, err := d.unchanged(ctx, p)
		if err != nil {
			return err
		}
		if same {
			return d.remove(ctx, p)
		}
		if p.again++; p.again > maxProofs {
			return &operation.Error{Code: codeChanging, Detail: fmt.Sprintf(
				"its points, here or at the owner %s, have changed between proof and delete %d times; clear it when nobody writes there",
				d.destination.URL(), p.again)}
		}
		if err := d.proveAgain(ctx, p); err != nil || p.empty() {
			return err
		}
	}
}

// pace waits for the time of the next delete.
func (d *dropper) pace(ctx context.Context) error {
	interval := time.Duration(float64(time.Second) / d.clearing.DropsPerSecond)
	now := d.Now()
	// However the clock goes, no wait is longer than the interval.
	if err := patience.Rest(ctx, d.job, min(d.next.Sub(now), interval)); err != nil {
		return err
	}
	if d.next.Before(now) {
		d.next = now
	}
	d.next = d.next.Add(interval)
	return nil
}

// proveAgain proves a unit as it is now and records the proof.
func (d *dropper) proveAgain(ctx context.Context, p *proof) error {
	found, err := d.proveUnits(ctx, []int{p.index}, true)
	if err != nil {
		return err
	}
	now := found[0]
	p.parts, p.shape, p.evidence = now.parts, now.shape, now.evidence
	if now.why != nil {
		return now.why
	}
	d.evidence[p.index] = p.recorded(operation.SliceProven)
	return d.save(ctx)
}

// remove deletes a unit that has just been counted, and sees to it that it is
// gone.
func (d *dropper) remove(ctx context.Context, p *proof) error {
	if d.clearing.MayDrop != nil {
		if err := d.clearing.MayDrop(ctx, d.job.Operation()); err != nil {
			return &fencedError{err}
		}
	}
	if err := d.job.Guard(); err != nil {
		return err
	}
	err := d.source.Delete(ctx, p.unit.Database, p.unit.Measurement, p.window())
	if err != nil && !influx.IsTransient(err) {
		return err
	}
	p.before, p.sentAt = p.recorded(operation.SliceProven), d.Now()
	if tookNothing(err) {
		// It is sent again soon, unless it was a lie.
		left, counted := d.left(ctx, p)
		if counted != nil || left == 0 {
			return counted
		}
		p.sentAt = time.Time{}
		return &patience.WriteError{Err: err}
	}
	if err != nil {
		gone, waited := d.awaitGone(ctx, p)
		if waited != nil || gone {
			return waited
		}
		return &patience.WriteError{Err: err}
	}
	d.mover.patience.Answered(d.source.URL(), patience.Writes)
	left, err := d.left(ctx, p)
	if err != nil || left == 0 {
		return err
	}
	return &remainderError{operation.Error{Code: codeWrittenMeanwhile, Detail: fmt.Sprintf(
		"%d points were dropped, and after that %d points are there, which came meanwhile", p.before.Rows, left)}}
}

// left counts what the source has of a unit and retention admits.
func (d *dropper) left(ctx context.Context, p *proof) (int64, error) {
	all, _ := p.live()
	points, err := d.source.Totals(ctx, selections(all))
	sum := int64(0)
	for _, n := range points {
		sum += n
	}
	return sum, err
}

// awaitGone waits for the end of a delete whose answer has not come: a server goes
// on with it, however long that takes, when nobody listens any more. It says no
// when nothing happens for long.
func (d *dropper) awaitGone(ctx context.Context, p *proof) (bool, error) {
	long := d.Refused
	if d.mover.patience.GivenUp(d.source.URL(), patience.Writes, d.began) {
		long = d.RetryInPlace
	}
	before := int64(-1)
	for pause := d.Backoff; ; pause = min(2*pause, d.MaxBackoff) {
		left, err := d.left(ctx, p)
		if err != nil {
			return false, err
		}
		now := d.Now()
		switch {
		case left == 0:
			d.job.Wait(nil)
			d.mover.patience.Answered(d.source.URL(), patience.Writes)
			return true, nil
		case left < before:
			p.sentAt = now // it is at it
		case now.Sub(p.sentAt) >= long:
			d.job.Wait(nil)
			return false, nil
		}
		before = left
		d.job.Alive()
		d.job.Wait(&operation.Wait{
			Gate: "delete_ends", Backend: d.source.URL(), Measured: fmt.Sprintf("%d points left", left),
			Limit: "proven and sent again after " + long.String(), Since: p.sentAt.UTC(),
		})
		if err := patience.Rest(ctx, d.job, pause); err != nil {
			return false, err
		}
	}
}
