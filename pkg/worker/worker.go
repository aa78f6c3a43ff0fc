// Package worker carries tasks out: it fetches one nudge per free slot, claims
// the task by compare-and-set on its record, keeps the claim alive while real
// progress is made, and stores checkpoints. What a task does is its handler's
// business.
package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/operation"
)

// ErrStop is the cause handlers see when the worker is draining.
var ErrStop = errors.New("the worker is stopping")

// Handler carries out one claimed task; see mover.Mover.Run for what its error
// means.
type Handler interface {
	Run(ctx context.Context, job mover.Job) error
}

// Options configure a worker. Zero durations mean the defaults in parentheses.
type Options struct {
	// ID names this worker in claims; it must be unique among live workers.
	ID string
	// Info is what the worker tells about itself.
	Info Info
	// Slots is how many tasks run at once; at least 1.
	Slots int
	// Stuck is how long a task may show no sign of life before its claim is
	// given up (3 minutes).
	Stuck time.Duration
	// Drain is how long a stopping worker waits for its tasks to store where
	// they are (20 s).
	Drain  time.Duration
	Logger *slog.Logger
	Now    func() time.Time
}

// Info is what a live worker tells about itself.
type Info struct {
	ID        string    `json:"id"`
	Host      string    `json:"host"`
	Version   string    `json:"version"`
	Slots     int       `json:"slots"`
	StartedAt time.Time `json:"started_at"`
}

// Worker is the service. Create it with New and let Run own it.
type Worker struct {
	ledger  *ledger.Ledger
	queue   *bus.Queue
	leases  *bus.Leases
	handler Handler
	options Options
}

// New returns a worker that has not started.
func New(l *ledger.Ledger, q *bus.Queue, leases *bus.Leases, h Handler, o Options) *Worker {
	if o.Stuck == 0 {
		o.Stuck = 3 * time.Minute
	}
	if o.Drain == 0 {
		o.Drain = 20 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Slots = max(o.Slots, 1)
	o.Info.ID, o.Info.Slots = o.ID, o.Slots
	return &Worker{ledger: l, queue: q, leases: leases, handler: h, options: o}
}

// Run works until ctx ends, and then until every task has stored where it is.
func (w *Worker) Run(ctx context.Context) error {
	var all sync.WaitGroup
	all.Go(func() { w.present(ctx) })
	for range w.options.Slots {
		all.Go(func() { w.slot(ctx) })
	}
	all.Wait()
	return nil
}

// pause is how long a slot rests after an error that was not a task's.
const pause = time.Second

// slot carries out one task after another.
func (w *Worker) slot(ctx context.Context) {
	for ctx.Err() == nil {
		nudge, err := w.queue.Fetch(ctx)
		if err == nil {
			err = w.take(ctx, nudge)
		}
		if err != nil && ctx.Err() == nil {
			w.options.Logger.WarnContext(ctx, "fetching tasks", "error", err)
			w.rest(ctx, pause)
		}
	}
}

func (w *Worker) rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// take decides by the records what a nudge is worth, and carries its task out
// if it can be claimed.
func (w *Worker) take(ctx context.Context, nudge *bus.Nudge) error {
	_, payload, err := events.Decode(nudge.Data)
	run, ok := payload.(events.TaskRun)
	if err != nil || !ok {
		return w.reject(ctx, nudge, err)
	}
	op, err := w.ledger.Operation(ctx, run.OperationID)
	if errors.Is(err, operation.ErrNotFound) || err == nil && op.Value.State.Terminal() {
		return nudge.Ack(ctx)
	}
	if err != nil {
		return errors.Join(err, nudge.Later(pause))
	}
	epochs, err := w.ledger.Topology(ctx)
	if err != nil {
		return errors.Join(err, nudge.Later(pause))
	}
	if current := epochs.Value.Current; current == nil || current.Epoch != op.Value.Epoch {
		// The operation's controller ends it; until then nobody writes for it.
		w.options.Logger.WarnContext(ctx, "the topology has another epoch than the operation; its task is left alone",
			"operation", op.Value.ID, "task", run.TaskID, "epoch", op.Value.Epoch)
		return nudge.Later(pause)
	}
	task, err := w.ledger.Task(ctx, run.OperationID, run.TaskID)
	if errors.Is(err, ledger.ErrNoTask) || err == nil && task.Value.State.Ended() {
		return nudge.Ack(ctx)
	}
	if err != nil {
		return errors.Join(err, nudge.Later(pause))
	}
	c, err := w.claim(ctx, op.Value, task, nudge)
	if err != nil || c == nil {
		return err
	}
	return c.carryOut(ctx)
}

// reject moves a message nobody can carry out to the dead letters.
func (w *Worker) reject(ctx context.Context, nudge *bus.Nudge, cause error) error {
	reason := "not a task"
	if cause != nil {
		reason = cause.Error()
	}
	w.options.Logger.ErrorContext(ctx, "message rejected", "subject", nudge.Subject, "reason", reason)
	if err := w.ledger.Reject(ctx, events.StreamTasks, nudge.Subject, nudge.Data, reason); err != nil {
		return errors.Join(err, nudge.Later(pause))
	}
	return nudge.Reject(reason)
}

// TaskLease is the key of a task's lease.
func TaskLease(op, task string) string {
	return "task." + events.EscapeToken(op) + "." + events.EscapeToken(task)
}

const presencePrefix = "worker."

// present keeps the lease that says this worker is alive.
func (w *Worker) present(ctx context.Context) {
	info, err := json.Marshal(w.options.Info)
	if err != nil {
		w.options.Logger.ErrorContext(ctx, "describing this worker", "error", err)
		return
	}
	key := presencePrefix + events.EscapeToken(w.options.ID)
	var lease *bus.Lease
	defer func() {
		if lease != nil {
			done, cancel := context.WithTimeout(context.WithoutCancel(ctx), pause)
			defer cancel()
			_ = lease.Release(done) // it runs out by itself
		}
	}()
	for ctx.Err() == nil {
		if lease == nil {
			lease, err = w.leases.Acquire(ctx, key, info)
		} else {
			err = lease.Renew(ctx)
		}
		if err != nil && ctx.Err() == nil {
			w.options.Logger.WarnContext(ctx, "announcing this worker", "error", err)
			if errors.Is(err, bus.ErrLeaseLost) {
				lease = nil
				continue
			}
		}
		w.rest(ctx, w.leases.TTL()/3)
	}
}

// Status is a live worker and what it does.
type Status struct {
	Info
	Busy  int
	Tasks []string
	// SeenAt is when it last renewed its lease.
	SeenAt time.Time
}

// holding is the value of a task's lease.
type holding struct {
	Worker      string `json:"worker"`
	OperationID string `json:"operation_id"`
	TaskID      string `json:"task_id"`
}

// Live lists the workers whose leases live, with the tasks they hold.
func Live(ctx context.Context, leases *bus.Leases) ([]Status, error) {
	var all []Status
	held := map[string][]string{}
	for e, err := range leases.Bucket().List(ctx, "") {
		if err != nil {
			return nil, fmt.Errorf("listing workers: %w", err)
		}
		switch {
		case len(e.Key) > len(presencePrefix) && e.Key[:len(presencePrefix)] == presencePrefix:
			s := Status{SeenAt: e.Created}
			if err := json.Unmarshal(e.Value, &s.Info); err != nil {
				return nil, fmt.Errorf("reading lease %s: %w", e.Key, err)
			}
			all = append(all, s)
		default:
			var h holding
			if json.Unmarshal(e.Value, &h) == nil && h.TaskID != "" {
				held[h.Worker] = append(held[h.Worker], h.OperationID+"/"+h.TaskID)
			}
		}
	}
	for i := range all {
		all[i].Tasks = held[all[i].ID]
		all[i].Busy = len(all[i].Tasks)
	}
	return all, nil
}
