package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// maxNudged bounds the tasks of one operation that are in the queue at one time,
// so that others get their turn.
const maxNudged = 256

// publish nudges the workers to every task that may run and that nobody runs:
// those that wait, and those whose worker is gone. A nudge that may have been
// lost is published again after a while; one that lies in the queue already
// stays the only one. Tasks of a later wave wait for the earlier ones, a limit
// on workers bounds the tasks of one source, and one on slots those at one backend.
func (t *turn) publish(ctx context.Context) error {
	workers, err := t.workers()
	if err != nil {
		return err
	}
	alive, err := t.liveTasks(ctx)
	if err != nil {
		return err
	}
	current := t.current()
	wave, busy, running, waiting := -1, map[string]int{}, 0, 0
	room := t.newRoom()
	for _, task := range current {
		if task.State.Ended() {
			continue // whatever its lease says, which is given back a moment later
		}
		if wave < 0 || task.Wave < wave {
			wave = task.Wave
		}
		if alive[task.ID] {
			busy[task.Source]++
			room.take(task)
			running++
		}
	}
	t.heldBack = false
	if err := t.barBehindFailures(ctx, current, wave, alive); err != nil {
		return err
	}
	now := t.options.Now()
	var nudges []bus.Message
	for _, task := range current {
		if task.State.Ended() || alive[task.ID] {
			continue
		}
		if task.Wave != wave || waiting >= maxNudged || workers > 0 && busy[task.Source] >= workers {
			t.heldBack = true
			continue
		}
		if has, err := room.has(ctx, task); err != nil {
			return err
		} else if !has {
			t.heldBack = true
			continue
		}
		busy[task.Source]++
		room.take(task)
		waiting++
		if last, ok := t.published[task.ID]; ok && now.Sub(last) < t.leases.TTL() {
			continue
		}
		nudge, err := t.ledger.Nudge(task)
		if err != nil {
			return err
		}
		nudges = append(nudges, nudge)
		t.published[task.ID] = now
	}
	if err := t.queue.PublishMany(ctx, nudges); err != nil {
		return fmt.Errorf("publishing tasks: %w", err) // this turn ends, and with it what it thinks it has published
	}
	t.noteFull(room)
	return t.noteIdle(ctx, running, waiting, firstWaiting(current, wave))
}

// noteIdle notes since when tasks have been waiting while none runs, and after a while
// who there is to take them.
func (t *turn) noteIdle(ctx context.Context, running, waiting int, wanted string) (err error) {
	switch now := t.options.Now(); {
	case running > 0 || waiting == 0:
		t.idle, t.crew = time.Time{}, ""
	case t.idle.IsZero():
		t.idle = now
	case now.Sub(t.idle) > t.leases.TTL():
		t.crew, err = t.workersAlive(ctx, wanted)
	}
	return err
}

// firstWaiting names the tasks of the wave that wait; they are all of one kind.
func firstWaiting(current []*operation.Task, wave int) string {
	for _, task := range current {
		if !task.State.Ended() && task.Wave == wave {
			return task.Kind.TaskName(task.Phase)
		}
	}
	return ""
}

// workersAlive says how many workers there are and how much they have to do, or that
// none of them knows the tasks that wait.
func (t *turn) workersAlive(ctx context.Context, wanted string) (string, error) {
	workers, slots, busy, capable := 0, 0, 0, false
	for e, err := range t.leases.Bucket().List(ctx, ledger.WorkerLeases()) {
		if err != nil {
			return "", fmt.Errorf("listing workers: %w", err)
		}
		var info struct {
			Slots int      `json:"slots"`
			Knows []string `json:"knows"`
		}
		err := json.Unmarshal(e.Value, &info) // one that cannot be read has none
		workers++
		slots += info.Slots
		// One that does not say what it knows is of an earlier release, and may.
		capable = capable || err != nil || len(info.Knows) == 0 || slices.Contains(info.Knows, wanted)
	}
	if workers > 0 && !capable {
		return fmt.Sprintf("no live worker (of %d) knows tasks of %s", workers, wanted), nil
	}
	for _, err := range t.leases.Claims().Bucket().List(ctx, "") {
		if err != nil {
			return "", fmt.Errorf("listing claims: %w", err)
		}
		busy++
	}
	return fmt.Sprintf("%d workers are alive, %d of their %d slots are busy", workers, busy, slots), nil
}

// workers is how many tasks of one source may run at once; 0 means any number.
func (t *turn) workers() (int, error) {
	op := &t.record.Value
	p, err := operation.ParseMove(op.Kind, op.Parameters)
	if err != nil {
		return 0, err
	}
	if workers := p.Tuned().Workers; workers > 0 || op.Kind != operation.KindClear {
		return workers, nil
	}
	// What is dropped cannot be brought back, and a server that drops answers
	// nobody else quickly.
	return 1, nil
}

// liveTasks returns the tasks of the operation whose claims live.
func (t *turn) liveTasks(ctx context.Context) (map[string]bool, error) {
	alive := map[string]bool{}
	op := t.record.Value.ID
	for e, err := range t.leases.Claims().Bucket().List(ctx, ledger.TaskLeases(op)) {
		if err != nil {
			return nil, fmt.Errorf("listing claims: %w", err)
		}
		if id, ok := ledger.TaskOfLease(op, e.Key); ok {
			alive[id] = true
		}
	}
	return alive, nil
}

// idleWait says that no worker has taken a task for longer than a lease, which
// is how long the work of a dead one lies idle; nil while one has.
func (t *turn) idleWait() *operation.Wait {
	if t.crew == "" {
		return nil
	}
	return &operation.Wait{Gate: "worker", Measured: "no worker has taken a task: " + t.crew, Limit: "one with a free slot", Since: t.idle.UTC()}
}
