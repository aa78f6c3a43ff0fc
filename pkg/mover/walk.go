package mover

import (
	"context"
	"iter"
	"slices"
	"time"

	"ringmaster/pkg/operation"
)

// walk compares a slice that is too slow to be compared at once part by part, one
// after the other. It goes on where it was when a part has to be tried again.
type walk struct {
	slice operation.Slice
	// floor is the least window of a part.
	floor uint64
	// at is where the next part begins.
	at int64
	// halvings is how often the slice's window was halved for a part's.
	halvings int
	// slow is how long the request took that ran out of time last.
	slow time.Duration
	// sum is what the parts so far have come to.
	sum  difference
	done bool
}

func (t *transfer) newWalk(s *operation.Slice, halvings int) *walk {
	return &walk{slice: *s, floor: uint64(t.FloorWindow), at: s.From, halvings: halvings}
}

// width is how long a part's window is.
func (w *walk) width() uint64 {
	return max(windowOf(&w.slice)>>w.halvings, w.floor)
}

// narrow halves the parts to come. It reports false at the floor.
func (w *walk) narrow() bool {
	if w.width() < 2*w.floor || w.halvings >= maxHalvings {
		return false
	}
	w.halvings++
	return true
}

// part is the next part of a slice from a time on.
func (w *walk) part(s operation.Slice, at int64) operation.Slice {
	s.From = at
	if width := w.width(); windowOf(&s) > width {
		s.To, s.Last = at+int64(width), false
	}
	return s
}

// fast is by how much sooner than the slow ones a part has to be through for the next
// to be twice as long.
const fast = 8

// add takes in what a part has come to.
func (w *walk) add(part *operation.Slice, d *difference, took time.Duration) {
	w.sum.add(d)
	w.at = part.To
	w.done = part.To == w.slice.To && part.Last == w.slice.Last
	if took < w.slow/fast && w.halvings > 1 {
		w.halvings--
	}
}

// add joins what another part of the same slice has come to.
func (d *difference) add(o *difference) {
	d.source += o.source
	d.destination += o.destination
	d.missing += o.missing
	d.different += o.different
	d.extra += o.extra
	d.absent += o.absent
	d.alone += o.alone
	d.examples.Join(o.examples)
	if d.example == "" || o.telling && !d.telling {
		d.example, d.telling = o.example, o.telling
	}
}

// resumeWalks goes on with slices that were compared part by part before: the parts
// are as narrow as they were.
func (t *transfer) resumeWalks() {
	for _, e := range t.timeouts {
		if e.Halvings > 0 && e.Slices == 1 && e.First >= 0 && e.First < len(t.slices) {
			t.walks[e.First] = t.newWalk(&t.slices[e.First], e.Halvings)
		}
	}
}

// narrow has a slice compared in parts half as long as before. It reports false at
// the floor.
func (t *transfer) narrow(ctx context.Context, i int) (bool, error) {
	w := t.walks[i]
	if w == nil {
		w = t.newWalk(&t.slices[i], 0)
		t.walks[i] = w
	}
	if !w.narrow() {
		return false, nil
	}
	t.Logger.InfoContext(ctx, "slice is compared in parts", "operation", t.job.Operation().ID, "task", t.task.ID,
		"slice", sliceName(&t.slices[i]), "window", time.Duration(w.width()).String())
	t.timeoutsOf([]int{i}).Halvings = w.halvings
	return true, t.storeTimeouts(ctx)
}

// walkThrough compares the part of a group that is to be compared part by part: it is
// then one slice.
func (t *transfer) walkThrough(ctx context.Context, group []int, what string, limit time.Duration) error {
	w := t.walks[group[0]]
	if w == nil || len(group) > 1 || !t.byPoints(group[0]) {
		return nil
	}
	for !w.done {
		part := w.part(w.slice, w.at)
		var began time.Time
		var d difference
		err := t.timely(ctx, what, limit, group, func(ctx context.Context) error {
			began = t.Now()
			diffs, err := t.compare(ctx, []operation.Slice{part}, &comparison{})
			if err != nil {
				w.slow = t.Now().Sub(began)
				return err
			}
			d = diffs[0]
			return nil
		})
		if err != nil {
			return err
		}
		w.add(&part, &d, t.Now().Sub(began))
		t.forgetTimeouts(group)
	}
	return nil
}

// byPoints reports whether a slice is judged by comparing its points.
func (t *transfer) byPoints(i int) bool {
	e := &t.evidence[i]
	return !t.slices[i].Expired && (e.State == operation.SliceCopied || e.State == operation.SliceUnchanged && e.Kept > 0)
}

// compareSlice compares a slice of the task, or a part of one, in parts if it is too
// slow to be compared at once.
func (t *transfer) compareSlice(ctx context.Context, i int, s operation.Slice) (difference, error) {
	var sum difference
	for part := range t.windowsOf(i, s) {
		diffs, err := t.compare(ctx, []operation.Slice{part}, &comparison{})
		if err != nil {
			return sum, err
		}
		sum.add(&diffs[0])
	}
	return sum, nil
}

// windowsOf cuts a slice of the task, or a part of one, as narrow as that slice has to
// be asked for; for most that is as a whole.
func (t *transfer) windowsOf(i int, s operation.Slice) iter.Seq[operation.Slice] {
	return func(yield func(operation.Slice) bool) {
		w := t.walks[i]
		if w == nil {
			yield(s)
			return
		}
		for at := s.From; ; {
			part := w.part(s, at)
			if !yield(part) || part.To == s.To && part.Last == s.Last {
				return
			}
			at = part.To
		}
	}
}

// compareAll compares slices point by point. What has been compared part by part is
// not asked for again.
func (t *transfer) compareAll(ctx context.Context, which []int) ([]difference, error) {
	diffs := make([]difference, len(which))
	var at []int
	for n, i := range which {
		if w := t.walks[i]; w != nil && w.done {
			diffs[n] = w.sum
			continue
		}
		at = append(at, n)
	}
	if len(at) == 0 {
		return diffs, nil
	}
	chosen := make([]int, len(at))
	for k, n := range at {
		chosen[k] = which[n]
	}
	found, err := t.compare(ctx, pick(t.slices, chosen), &comparison{})
	if err != nil {
		return nil, err
	}
	for k, n := range at {
		diffs[n] = found[k]
	}
	return diffs, nil
}

// walked reports whether a slice is compared point by point because it has been too
// slow for anything else.
func (t *transfer) walked(i int) bool { return t.walks[i] != nil }

// forgetWalks ends the walks of slices that are judged.
func (t *transfer) forgetWalks(group []int) {
	for i := range t.walks {
		if slices.Contains(group, i) {
			delete(t.walks, i)
		}
	}
}
