package controller

import (
	"strings"

	"ringmaster/pkg/operation"
)

// oldest keeps the oldest unfinished tasks of those it is given.
type oldest struct{ tasks []operation.OldestTask }

// add takes a task in if it is among the oldest so far.
func (o *oldest) add(t *operation.Task) {
	since := t.CreatedAt
	if t.StartedAt != nil {
		since = *t.StartedAt
	}
	one := operation.OldestTask{ID: t.ID, Attempt: t.Attempt, Since: since}
	at := len(o.tasks)
	for at > 0 && older(&one, &o.tasks[at-1]) {
		at--
	}
	if at == operation.MaxOldestTasks {
		return
	}
	one.Phase, one.State, one.Source, one.Destination = t.Phase, t.State, t.Source, t.Destination
	one.Waits = append([]operation.Wait{}, t.Waits...)
	if n := len(t.History); n > 0 {
		one.LastError = t.History[n-1].Detail
	}
	if len(o.tasks) < operation.MaxOldestTasks {
		o.tasks = append(o.tasks, operation.OldestTask{})
	}
	copy(o.tasks[at+1:], o.tasks[at:])
	o.tasks[at] = one
}

// older reports whether a task comes before another: one that has been tried before
// one that nobody has taken yet, and then by how long that has been.
func older(a, b *operation.OldestTask) bool {
	if (a.Attempt > 0) != (b.Attempt > 0) {
		return a.Attempt > 0
	}
	if c := a.Since.Compare(b.Since); c != 0 {
		return c < 0
	}
	return strings.Compare(a.ID, b.ID) < 0
}
