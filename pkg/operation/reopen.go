package operation

import "slices"

// Reopened is a work task as another attempt of its operation begins with it: what
// it has finished stays finished, what has failed, was left or was not proven is to
// be done. latest has the evidence of slices, by index, that a later round did
// again. It reports whether anything is to be done.
func (t Task) Reopened(unproven []int, latest map[int]Evidence) (Task, bool) {
	t.Checkpoint = slices.Clone(t.Checkpoint)
	open := len(t.Checkpoint) < t.SliceCount()
	for i := range t.Checkpoint {
		e := &t.Checkpoint[i]
		if later, ok := latest[i]; ok {
			*e = later
		}
		again := e.State == SliceFailed || e.State == SliceKept || slices.Contains(unproven, i)
		if _, ok := latest[i]; ok && e.State == SliceHandedOver {
			// Its parts belong to a round that is not kept.
			again = true
		}
		if again {
			*e = Evidence{State: SliceCompared, Replaced: e.Replaced, Returned: e.Returned}
		}
		open = open || !e.State.Finished()
	}
	t.Barred = nil
	t.recount()
	return t.renewed(open), open
}

// Renewed is a verify task as another attempt begins with it: everything is to be
// judged once more.
func (t Task) Renewed() Task {
	t.Checkpoint, t.Verdict = nil, nil
	t.Points.Verified = 0
	return t.renewed(true)
}

// renewed is the task without how it ended, for somebody to claim if it is open.
func (t Task) renewed(open bool) Task {
	if t.Error != nil {
		t.Remember(t.UpdatedAt, t.Error.Detail)
	}
	t.Error, t.Problems, t.Waits = nil, nil, nil
	t.Holder, t.Timeouts = "", nil
	t.Advanced()
	t.State = TaskDone
	if open {
		t.State, t.FinishedAt = TaskWaiting, nil
	}
	return t
}

// recount makes the points of a copy what its evidence says.
func (t *Task) recount() {
	if t.Phase != PhaseCopy {
		return
	}
	t.Points.Copied, t.Points.Unchanged = 0, 0
	for i := range t.Checkpoint {
		switch e := &t.Checkpoint[i]; e.State {
		case SliceCopied:
			t.Points.Copied += e.Rows + e.Returned
		case SliceUnchanged, SliceSameCounts:
			t.Points.Unchanged += e.Rows
		default:
		}
	}
}
