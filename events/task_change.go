package events

import (
	"errors"

	"ringmaster/pkg/operation"
)

// TypeTaskChange is the type string of TaskChange.
const TypeTaskChange = "ringmaster.task.change.v1"

// TaskChange tells that a task has been made, claimed, given back or ended.
type TaskChange struct {
	OperationID string `json:"operation_id"`
	TaskID      string `json:"task_id"`
	// Revision is the revision of the task's record; of two events the higher
	// one is the later.
	Revision uint64              `json:"revision"`
	Phase    operation.Phase     `json:"phase"`
	Round    int                 `json:"round"`
	State    operation.TaskState `json:"state"`
	// Attempt counts the claims of the task.
	Attempt int `json:"attempt"`
	// Holder is the worker that has claimed it; empty when none has.
	Holder string `json:"holder,omitempty"`
	// Source and Destination are backend URLs without credentials.
	Source      string `json:"source"`
	Destination string `json:"destination"`
	// Estimated is the plan's estimate of points.
	Estimated int64                `json:"estimated"`
	Points    operation.TaskPoints `json:"points"`
	Bytes     operation.ByteCounts `json:"bytes"`
	// Error is why a failed task failed; null otherwise.
	Error *operation.Error `json:"error"`
	Waits []operation.Wait `json:"waits"`
}

// TaskChanged returns the event about a task's record at a revision.
func TaskChanged(t operation.Task, revision uint64) TaskChange {
	return TaskChange{
		OperationID: t.OperationID, TaskID: t.ID, Revision: revision,
		Phase: t.Phase, Round: t.Round, State: t.State, Attempt: t.Attempt, Holder: t.Holder,
		Source: t.Source, Destination: t.Destination, Estimated: t.Estimated,
		Points: t.Points, Bytes: t.Bytes, Error: t.Error, Waits: waits(t.Waits),
	}
}

// EventType returns TypeTaskChange.
func (TaskChange) EventType() string { return TypeTaskChange }

// About returns the operation's and the task's id.
func (t TaskChange) About() string { return t.OperationID + "/" + t.TaskID }

func (t TaskChange) check() error {
	if t.Revision == 0 {
		return errors.New("revision is missing")
	}
	return missing("operation_id", t.OperationID, "task_id", t.TaskID, "state", string(t.State))
}

// waits keeps an empty list from being written as null.
func waits(w []operation.Wait) []operation.Wait {
	if w == nil {
		return []operation.Wait{}
	}
	return w
}
