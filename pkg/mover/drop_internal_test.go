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

// RunProofs proves all units of a drop task and deletes none. It returns the
// points that are proven.
func (m *Mover) RunProofs(ctx context.Context, job Job) (points int64, err error) {
	task := job.Task()
	source, err := m.backends.Client(ctx, job.Operation(), task.Source, nil)
	if err != nil {
		return 0, err
	}
	defer source.Close()
	destination, err := m.backends.Client(ctx, job.Operation(), task.Destination, nil)
	if err != nil {
		return 0, err
	}
	defer destination.Close()
	t := &transfer{Config: m.config, mover: m, job: job, task: task, source: &end{Client: source, mover: m}, destination: &end{Client: destination, mover: m}}
	d := &dropper{transfer: t}
	t.slices = task.Slices
	for _, group := range t.groups(t.slices, func(int) bool { return true }) {
		proofs, err := d.proveGroup(ctx, group, 0)
		if err != nil {
			return 0, err
		}
		for _, p := range proofs {
			if p.why != nil {
				return 0, p.why
			}
			points += p.evidence.Rows
		}
	}
	return points, nil
}
