package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// move starts the rebalance in influx-proxy's dialect and watches it to its end.
func (d *demo) move(ctx context.Context) error {
	const path = "/rebalance?circle_id=0&operation=add"
	d.tell("$ curl -i -X POST '%s%s'", d.cluster.Client.URL, path)
	res, body, err := d.cluster.Client.Do(ctx, http.MethodPost, path, nil, nil)
	if err != nil {
		return err
	}
	d.tell("%s", res.Status)
	id := res.Header.Get("X-Operation-Id")
	d.tell("X-Operation-Id: %s", id)
	d.tell("%s", strings.TrimSpace(string(body)))
	if res.StatusCode != http.StatusAccepted || id == "" {
		return fmt.Errorf("the rebalance was not accepted: %s: %s", res.Status, body)
	}
	d.say("")
	d.operation, err = d.watch(ctx, id)
	if err != nil {
		return err
	}
	if d.operation.State != operation.Succeeded {
		return fmt.Errorf("operation %s ended %s: %w", id, d.operation.State, errors.Join(errorOf(&d.operation), ctx.Err()))
	}
	took := d.operation.FinishedAt.Sub(*d.operation.StartedAt)
	p := d.operation.Progress.Points
	d.tell("%s after %.1f s: %s points of %d measurements copied and verified", d.operation.State, took.Seconds(),
		group(p.Verified), d.operation.Progress.Measurements.Done)
	return nil
}

func errorOf(op *operation.Operation) error {
	if op.Error == nil {
		return errors.New("it names no error")
	}
	return op.Error
}

// watch shows the operation's progress until it has ended, and kills a worker on
// the way.
func (d *demo) watch(ctx context.Context, id string) (operation.Operation, error) {
	show := newDisplay(d.out)
	defer show.close()
	w := &watcher{client: d.cluster.Client, workers: d.cluster.Workers, id: id, show: show}
	var last operation.Operation
	err := await(ctx, "the operation to end", func() (bool, error) {
		op, err := w.client.Operation(ctx, id)
		if err != nil {
			return false, err
		}
		last = op
		err = w.look(ctx, &op)
		show.update(&op)
		return err == nil && op.State.Terminal(), err
	})
	if err != nil {
		return last, err
	}
	return last, w.conclude(ctx)
}

// watcher follows one operation for what its progress does not show: which
// worker was killed, and who took its tasks over.
type watcher struct {
	client  harness.Client
	workers []*harness.Program
	id      string
	show    display

	planned bool
	victim  string
	killed  time.Time
	// orphans are the tasks that the victim held.
	orphans map[string]operation.Task
}

// look does what there is to do at this moment of the operation.
func (w *watcher) look(ctx context.Context, op *operation.Operation) error {
	if !w.planned && op.Plan != nil {
		w.planned = true
		t := op.Plan.Totals
		w.show.say("planned: about %s points of %d measurements in %d databases, as %d slices in %d tasks",
			group(t.Points), t.Measurements, t.Databases, t.Slices, t.Tasks)
	}
	if op.Plan == nil || op.State.Terminal() || w.victim != "" && len(w.orphans) == 0 {
		return nil
	}
	// The tasks say more than the progress, which is up to a second old.
	tasks, err := w.client.Tasks(ctx, w.id)
	switch {
	case err != nil:
		return err
	case w.victim == "":
		return w.killHalfWay(ctx, op, tasks)
	default:
		w.follow(tasks)
		return nil
	}
}

// killHalfWay ends the worker that holds most tasks, once half of the points are
// copied. When none holds a task, it waits for the next look.
func (w *watcher) killHalfWay(ctx context.Context, op *operation.Operation, tasks []operation.Task) error {
	copied, estimated := int64(0), op.Progress.Points.Estimated
	held := map[string]int{}
	for i := range tasks {
		copied += tasks[i].Points.Copied
		if tasks[i].State == operation.TaskRunning {
			held[tasks[i].Holder]++
		}
	}
	victim := w.workers[0]
	for _, other := range w.workers[1:] {
		if held[workerID(other)] > held[workerID(victim)] {
			victim = other
		}
	}
	if 2*copied < estimated || held[workerID(victim)] == 0 {
		return nil
	}
	victim.Kill()
	w.victim, w.killed = workerID(victim), time.Now()
	when := fmt.Sprintf("at %.0f %% of the copy", percent(copied, estimated))
	if op.State == operation.Verifying { // a small move is quicker than a look
		when = "during the verification"
	}
	w.show.say("kill -9 %d: %s dies %s", victim.PID(), w.victim, when)
	// What it held when it died stays its own until its lease has run out.
	tasks, err := w.client.Tasks(ctx, w.id)
	if err != nil {
		return err
	}
	w.orphans = map[string]operation.Task{}
	for _, t := range tasks {
		if t.State == operation.TaskRunning && t.Holder == w.victim {
			w.orphans[t.ID] = t
			w.show.say("  it held task %s with %s of about %s points done", t.ID, group(t.Points.Copied+t.Points.Verified), group(t.Estimated))
		}
	}
	return nil
}

// follow tells which of the victim's tasks another worker has taken over.
func (w *watcher) follow(tasks []operation.Task) {
	for _, t := range tasks {
		before, ok := w.orphans[t.ID]
		if !ok || t.Attempt == before.Attempt || t.Holder == w.victim {
			continue
		}
		delete(w.orphans, t.ID)
		w.show.say("  %s takes task %s over after %.1f s, as attempt %d", t.Holder, t.ID, time.Since(w.killed).Seconds(), t.Attempt)
	}
}

// conclude requires that what the victim held has been taken over.
func (w *watcher) conclude(ctx context.Context) error {
	if w.victim == "" {
		w.show.say("the move was over before a worker could be killed")
		return nil
	}
	if len(w.orphans) == 0 {
		return nil
	}
	tasks, err := w.client.Tasks(ctx, w.id)
	if err != nil {
		return err
	}
	w.follow(tasks)
	for id := range w.orphans {
		return fmt.Errorf("the operation ended although nobody took task %s over", id)
	}
	return nil
}
