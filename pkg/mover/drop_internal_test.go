package mover

import (
	"context"

	"ringmaster/pkg/operation"
)

// RunClear carries out the tasks of a clear as Run does, with the rules of this
// test.
func (m *Mover) RunClear(ctx context.Context, job Job, c Clearing) error {
	task := job.Task()
	source, err := m.backends.Client(ctx, job.Operation(), task.Source, job.Guard)
	if err != nil {
		return err
	}
	defer source.Close()
	destination, err := m.backends.Client(ctx, job.Operation(), task.Destination, job.Guard)
	if err != nil {
		return err
	}
	defer destination.Close()
	t := &transfer{Config: m.config, mover: m, job: job, task: task, source: &end{Client: source, mover: m}, destination: &end{Client: destination, mover: m}}
	if task.Phase == operation.PhaseVerify {
		return t.verifyDrop(ctx)
	}
	return t.drop(ctx, c)
}
