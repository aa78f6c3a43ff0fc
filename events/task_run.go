package events

import "ringmaster/pkg/operation"

// TypeTaskRun is the type string of TaskRun.
const TypeTaskRun = "ringmaster.task.run.v1"

// TaskRun nudges the workers: a task may be free to be claimed. Whether it is,
// and what it is about, the task's record says.
type TaskRun struct {
	OperationID string `json:"operation_id"`
	TaskID      string `json:"task_id"`
	// Kind selects the workers that can carry the task out.
	Kind operation.Kind `json:"kind"`
	// Phase is what the task does.
	Phase operation.Phase `json:"phase"`
}

// EventType returns TypeTaskRun.
func (TaskRun) EventType() string { return TypeTaskRun }

// About returns the operation's and the task's id.
func (t TaskRun) About() string { return t.OperationID + "/" + t.TaskID }

func (t TaskRun) check() error {
	return missing("operation_id", t.OperationID, "task_id", t.TaskID,
		"kind", string(t.Kind), "phase", string(t.Phase))
}
