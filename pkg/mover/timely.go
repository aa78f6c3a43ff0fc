package mover

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/patience"
)

// maxTimeouts is how often the request for some slices may run out of time before
// less is asked for at once: first single slices, then halves of them.
const maxTimeouts = 2

// maxHalvings bounds how often one slice is halved: a window of 30 years comes to the
// floor before.
const maxHalvings = 32

// lookTime is how long finding out how the points of a slice lie may take before it
// is cut by time alone: that, too, is asked of a server that is slow.
const lookTime = 5 * time.Second

// codeTimedOut: not even the smallest part of the slice was answered in time.
const codeTimedOut = "timed_out"

// slowError ends the attempt at slices that have run out of time too often, while
// their backends answer other requests.
type slowError struct {
	// last is what was met last.
	last error
}

func (e *slowError) Error() string {
	return fmt.Sprintf("out of time %d times: %v", maxTimeouts, e.last)
}

// atFloor is the failure of a slice that is not cut any further.
func (t *transfer) atFloor(slow *slowError, s *operation.Slice) *operation.Error {
	return &operation.Error{Code: codeTimedOut, Detail: operation.Clip(fmt.Sprintf(
		"%v; a window of %v, after %d halvings, is not cut any further (the floor is %v); %s",
		slow, time.Duration(min(windowOf(s), math.MaxInt64)), s.Halved, t.FloorWindow,
		operation.PersonMustAct("find out why the backend is so slow there, or allow it more time (-backend-timeout), and retry the operation: what is copied stays copied")))}
}

// windowOf is how long a slice's window is.
func windowOf(s *operation.Slice) uint64 { return uint64(s.To) - uint64(s.From) }

// call is what the patience is asked to do for the task at both its ends.
func (t *transfer) call(what string, limit time.Duration) patience.Call {
	return patience.Call{What: what, Clients: []*influx.Client{t.source.Client, t.destination.Client}, Limit: limit, Since: t.began}
}

// timely is patiently for some slices of the task: when they run out of time too
// often it ends with a *slowError.
func (t *transfer) timely(ctx context.Context, what string, limit time.Duration, group []int, f func(context.Context) error) error {
	c := t.call(what, limit)
	c.TimedOut = func(ctx context.Context, err error) error { return t.timedOut(ctx, group, err) }
	err := t.mover.patience.Do(ctx, c, t.job, f)
	if gaveUp, ok := errors.AsType[*patience.GaveUpError](err); ok && len(group) == 1 && t.silent[group[0]] {
		return gaveUp.Because(fmt.Sprintf("not even %v of this slice is answered in time, so cutting it is of no use", t.FloorWindow))
	}
	return err
}

// timedOut counts that the request for some slices has run out of time. It returns a
// *slowError when less is to be asked for.
func (t *transfer) timedOut(ctx context.Context, group []int, err error) error {
	n := t.countTimeout(group)
	if stored := t.storeTimeouts(ctx); stored != nil {
		return stored
	}
	if n < maxTimeouts {
		return nil
	}
	// A write is not asked for once more, and smaller, to find out: it may be what
	// does the harm.
	_, write := errors.AsType[*patience.WriteError](err)
	if len(group) == 1 && !write {
		if t.silent == nil {
			t.silent = map[int]bool{}
		}
		if t.silent[group[0]] = !t.answersLess(ctx, &t.slices[group[0]]); t.silent[group[0]] {
			return nil // the backend is slow, not the slice large
		}
		t.mover.patience.Answered(t.source.URL(), patience.Queries)
		t.mover.patience.Answered(t.destination.URL(), patience.Queries)
	}
	t.forgetTimeouts(group)
	return &slowError{err}
}

// answersLess asks for the smallest part of a slice that there can be. Whether the
// ends answer that in time tells a slice that is too large from a backend that is too
// slow. What is at the floor already has no smaller part.
func (t *transfer) answersLess(ctx context.Context, s *operation.Slice) bool {
	if windowOf(s) < 2*uint64(t.FloorWindow) {
		return true
	}
	least := *s
	least.To, least.Last = s.From+int64(t.FloorWindow), false
	_, err := t.compare(ctx, []operation.Slice{least}, &comparison{})
	var refusal *influx.Error
	return !errors.As(err, &refusal) || !refusal.OutOfTime()
}

// timeoutsOf returns the entry of some slices, and adds one if there is none.
func (t *transfer) timeoutsOf(group []int) *operation.SliceTimeouts {
	for i := range t.timeouts {
		if e := &t.timeouts[i]; e.First == group[0] && e.Slices == len(group) {
			return e
		}
	}
	if over := len(t.timeouts) + 1 - operation.MaxTaskTimeouts; over > 0 {
		t.timeouts = slices.Delete(t.timeouts, 0, over)
	}
	t.timeouts = append(t.timeouts, operation.SliceTimeouts{First: group[0], Slices: len(group)})
	return &t.timeouts[len(t.timeouts)-1]
}

func (t *transfer) countTimeout(group []int) int {
	e := t.timeoutsOf(group)
	e.Count++
	return e.Count
}

// forgetTimeouts begins to count anew.
func (t *transfer) forgetTimeouts(group []int) {
	t.timeouts = slices.DeleteFunc(t.timeouts, func(e operation.SliceTimeouts) bool {
		return e.First == group[0] && e.Slices == len(group) && e.Halvings == 0
	})
	for i := range t.timeouts {
		if e := &t.timeouts[i]; e.First == group[0] && e.Slices == len(group) {
			e.Count = 0
		}
	}
}

// storeTimeouts puts the count on record at once: whoever goes on with the task goes
// on counting.
func (t *transfer) storeTimeouts(ctx context.Context) error {
	return t.job.Checkpoint(ctx, t.recordTimeouts(nil))
}

// recordTimeouts returns the part of a checkpoint that is about time. What is finished
// is not counted any more: some slices, and whatever the evidence says.
func (t *transfer) recordTimeouts(finished []int) func(*operation.Task) {
	t.timeouts = slices.DeleteFunc(t.timeouts, func(e operation.SliceTimeouts) bool {
		done := t.task.Phase != operation.PhaseVerify && e.First < len(t.evidence) && t.evidence[e.First].State.Finished()
		return done || slices.Contains(finished, e.First)
	})
	timeouts := slices.Clone(t.timeouts)
	return func(task *operation.Task) { task.Timeouts = timeouts }
}

// halve gives the two halves of a slice that is too slow to new tasks, or fails it at
// the floor.
func (t *transfer) halve(ctx context.Context, i int, slow *slowError) error {
	s := &t.slices[i]
	parts := t.halves(ctx, s)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(parts) < 2 {
		t.evidence[i].State = operation.SliceFailed
		return t.checkpoint(ctx, []int{i}, problemOf(i, s, t.atFloor(slow, s)))
	}
	t.Logger.InfoContext(ctx, "slice halved", "operation", t.job.Operation().ID, "task", t.task.ID, "slice", sliceName(s), "reason", slow)
	// One task has both: a backend that is slow is not to be asked for both at once.
	return t.giveAway(ctx, i, [][]operation.Slice{parts})
}

// halves cuts a slice in two, in turn by time and by how its points lie, if that is
// told in time: nobody knows which of the two takes the backend so long. At the floor
// it returns the slice itself.
func (t *transfer) halves(ctx context.Context, s *operation.Slice) []operation.Slice {
	if s.Halved >= maxHalvings || windowOf(s) < 2*uint64(t.FloorWindow) {
		return []operation.Slice{*s}
	}
	if s.Halved%2 == 1 {
		if at, ok := t.middle(ctx, s); ok {
			return cutAt(*s, at)
		}
	}
	return t.halvesByTime(s)
}

// halvesByTime cuts a slice in two of equal time; at the floor it returns the slice
// itself.
func (t *transfer) halvesByTime(s *operation.Slice) []operation.Slice {
	if s.Halved >= maxHalvings || windowOf(s) < 2*uint64(t.FloorWindow) {
		return []operation.Slice{*s}
	}
	return cutAt(*s, s.Split(2)[1].From)
}

// cutAt cuts a slice at a time that lies inside its window.
func cutAt(s operation.Slice, at int64) []operation.Slice {
	s.Halved++
	first, second := s, s
	first.To, first.Last = at, false
	second.From = at
	first.Points = s.Points / 2
	second.Points = s.Points - first.Points
	return []operation.Slice{first, second}
}

// middle finds the time that has half of a slice's points before it, if that can be
// found out soon.
func (t *transfer) middle(ctx context.Context, s *operation.Slice) (at int64, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	sel := selection(s)
	extents, err := t.source.Extents(ctx, []influx.Selection{sel})
	t.job.Alive()
	if err != nil || extents[0].Empty {
		// The destination may have points where the source has none.
		return 0, false
	}
	first, last := extents[0].First, extents[0].Last
	if uint64(last)-uint64(first) < uint64(t.FloorWindow) {
		return beside(s, first, last)
	}
	width := histogramWidth(first, last)
	sel.Window = influx.Window{From: first, To: last, Last: true}
	buckets, err := t.source.Histogram(ctx, sel, width)
	t.job.Alive()
	if err != nil {
		buckets = nil
	}
	return median(first, last, buckets), true
}

// beside finds a time that parts the points of a slice, which lie so close together
// that they are not to be parted themselves, from a window without any.
func beside(s *operation.Slice, first, last int64) (at int64, ok bool) {
	switch {
	case first > s.From:
		return first, true
	case last < s.To-1:
		return last + 1, true
	default:
		return 0, false
	}
}

// median is a time between the first and the last point that has half of the points
// before it, as far as the buckets tell.
func median(first, last int64, buckets []influx.Bucket) int64 {
	var all, before int64
	for _, b := range buckets {
		all += b.Rows
	}
	for _, b := range buckets {
		// Both halves have a point: the first one has the first, the second the last.
		if 2*before >= all && b.From > first && b.From <= last {
			return b.From
		}
		before += b.Rows
	}
	return first + int64((uint64(last)-uint64(first))/2) + 1
}
