package events

import (
	"errors"

	"ringmaster/pkg/operation"
)

// TypeTaskProgress is the type string of TaskProgress.
const TypeTaskProgress = "ringmaster.task.progress.v1"

// TaskProgress tells how far a running task is, at most once a second. Its
// totals are absolute.
type TaskProgress struct {
	OperationID string `json:"operation_id"`
	TaskID      string `json:"task_id"`
	// Attempt and Seq order the events of a task: the higher attempt is the
	// later, and within one attempt the higher seq.
	Attempt int                  `json:"attempt"`
	Seq     uint64               `json:"seq"`
	Phase   operation.Phase      `json:"phase"`
	Holder  string               `json:"holder"`
	Points  operation.TaskPoints `json:"points"`
	Bytes   operation.ByteCounts `json:"bytes"`
	// Slices counts the slices that are finished.
	Slices operation.Done   `json:"slices"`
	Waits  []operation.Wait `json:"waits"`
}

// TaskProgressed returns the event about a running task. Finished slices are
// counted from its checkpoint.
func TaskProgressed(t operation.Task, seq uint64) TaskProgress {
	done := 0
	for _, e := range t.Checkpoint {
		if e.State != operation.SlicePending {
			done++
		}
	}
	return TaskProgress{
		OperationID: t.OperationID, TaskID: t.ID, Attempt: t.Attempt, Seq: seq,
		Phase: t.Phase, Holder: t.Holder, Points: t.Points, Bytes: t.Bytes,
		Slices: operation.Done{Total: t.SliceCount(), Done: done}, Waits: waits(t.Waits),
	}
}

// EventType returns TypeTaskProgress.
func (TaskProgress) EventType() string { return TypeTaskProgress }

// About returns the operation's and the task's id.
func (t TaskProgress) About() string { return t.OperationID + "/" + t.TaskID }

func (t TaskProgress) check() error {
	if t.Seq == 0 {
		return errors.New("seq is missing")
	}
	return missing("operation_id", t.OperationID, "task_id", t.TaskID)
}
