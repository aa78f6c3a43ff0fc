// Package worker carries tasks out: it fetches one nudge per free slot, claims
// the task by compare-and-set on its record, keeps the claim alive while real
// progress is made, and stores checkpoints. What a task does is its handler's
// business.
package worker

import (
	"context"
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
// means. When ctx ends it returns soon: its slot is not free before that.
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
	// SameError is for how long attempts at a task may end with the same error, in
	// whatever processes, before the task fails (10 minutes).
	SameError time.Duration
	// Drain is how long a stopping worker waits for a task whose handler has
	// returned to store where it is (20 s).
	Drain time.Duration
	// Knows says whether the handler carries out tasks of a kind in a phase; nil means
	// operation.Kind.Carries. A task that it does not know is left to other workers.
	Knows  func(operation.Kind, operation.Phase) bool
	Logger *slog.Logger
	Now    func() time.Time
}

// Worker is the service. Create it with New and let Run own it.
type Worker struct {
	ledger  *ledger.Ledger
	queue   *bus.Queue
	leases  *bus.Leases
	handler Handler
	options Options
	// desk tells the claims of changed operations.
	desk desk
	// door has the operations that were admitted a moment ago.
	door door
}

// New returns a worker that has not started.
func New(l *ledger.Ledger, q *bus.Queue, leases *bus.Leases, h Handler, o Options) *Worker {
	if o.Stuck == 0 {
		o.Stuck = 3 * time.Minute
	}
	if o.SameError == 0 {
		o.SameError = 10 * time.Minute
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
	if o.Knows == nil {
		o.Knows, o.Info.Knows = operation.Kind.Carries, operation.Carried()
	}
	o.Slots = max(o.Slots, 1)
	o.Info.ID, o.Info.Slots = o.ID, o.Slots
	return &Worker{ledger: l, queue: q, leases: leases, handler: h, options: o, desk: desk{waiting: map[string]map[chan struct{}]bool{}}}
}

// Run works until ctx ends, and then until every handler has returned and its
// task's record says where it stands.
func (w *Worker) Run(ctx context.Context) error {
	var all, slots sync.WaitGroup
	idle := make(chan struct{})
	all.Go(func() { w.present(ctx, idle) })
	all.Go(func() { w.watchOperations(ctx) })
	for range w.options.Slots {
		slots.Go(func() { w.slot(ctx) })
	}
	slots.Wait()
	close(idle)
	all.Wait()
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), pause)
	defer cancel()
	w.ledger.Flush(flush)
	return nil
}

const (
	// pause is how long a slot rests after an error that was not a task's, and
	// after how long a task that could not be carried out now is looked at again.
	pause = time.Second
	// longPause is the same for what waiting is unlikely to mend.
	longPause = time.Minute
)

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
	switch {
	case errors.Is(err, events.ErrUnknownType), errors.Is(err, events.ErrUnknownField):
		return w.pass(ctx, nudge, err.Error())
	case err != nil || !ok:
		return w.reject(ctx, nudge, err)
	case !w.options.Knows(run.Kind, run.Phase):
		return w.pass(ctx, nudge, "this worker does not know tasks of "+run.Kind.TaskName(run.Phase))
	}
	op, err := w.admitted(ctx, run.OperationID)
	if err != nil {
		return w.leave(ctx, nudge, &run, err)
	}
	task, err := w.ledger.Task(ctx, run.OperationID, run.TaskID)
	if err == nil && task.Value.State.Ended() {
		err = errOver
	}
	if err != nil {
		return w.leave(ctx, nudge, &run, err)
	}
	if t := &task.Value; !w.options.Knows(t.Kind, t.Phase) {
		return w.pass(ctx, nudge, "this worker does not know tasks of "+t.Kind.TaskName(t.Phase))
	}
	c, err := w.claim(ctx, op, task, nudge)
	if err != nil || c == nil {
		return err
	}
	return c.carryOut(ctx)
}

var (
	// errOver: nothing is left to be done for the task's operation.
	errOver = errors.New("the operation has ended")
	// errEpoch: nobody may write for the operation. Its controller ends it.
	errEpoch = errors.New("the topology has another epoch than the operation")
)

// admit returns the operation if its tasks may be carried out now; else errOver,
// mover.ErrHeld, errEpoch, or why it cannot tell.
func (w *Worker) admit(ctx context.Context, id string) (operation.Operation, error) {
	op, err := w.ledger.Operation(ctx, id)
	if errors.Is(err, operation.ErrNotFound) || err == nil && op.Value.State.Terminal() {
		return op.Value, errOver
	}
	if err != nil {
		return op.Value, err
	}
	if op.Value.Cancel != nil || op.Value.State != operation.Running && op.Value.State != operation.Verifying {
		return op.Value, mover.ErrHeld
	}
	epochs, err := w.ledger.Topology(ctx)
	if err != nil {
		return op.Value, err
	}
	if current := epochs.Value.Current; current == nil || current.Epoch != op.Value.Epoch {
		return op.Value, errEpoch
	}
	return op.Value, nil
}

// leave gives a nudge back whose task is not to be carried out now, or ever. It
// returns an error only for what is likely to meet the next nudge as well.
func (w *Worker) leave(ctx context.Context, nudge *bus.Nudge, run *events.TaskRun, why error) error {
	log := w.options.Logger.With("operation", run.OperationID, "task", run.TaskID)
	switch {
	case errors.Is(why, errOver), errors.Is(why, mover.ErrHeld):
		// What is held is nudged again when it goes on.
		return nudge.Ack(ctx)
	case errors.Is(why, ledger.ErrNoTask) && nudge.Deliveries < missingAfter:
		// A retry may be about to make it.
		return nudge.Later(pause)
	case errors.Is(why, ledger.ErrNoTask):
		return w.reject(ctx, nudge, fmt.Errorf("the operation is under way and has no such task: %w", why))
	case errors.Is(why, errEpoch):
		log.WarnContext(ctx, "task left alone", "reason", why)
		return nudge.Later(pause)
	case errors.Is(why, ledger.ErrUnreadable):
		// The tasks of other operations are not to wait for this one.
		log.ErrorContext(ctx, "task left alone", "reason", why)
		return nudge.Later(longPause)
	case ctx.Err() != nil:
		return nudge.Later(0)
	default:
		return errors.Join(why, nudge.Later(pause))
	}
}

const (
	// missingAfter is at which delivery the task of a nudge counts as missing.
	missingAfter = 3
	// firstPass and longestPass bound for how long a nudge is put aside that this
	// worker does not understand: long enough not to keep the slot busy, short enough
	// for a worker that does.
	firstPass   = 250 * time.Millisecond
	longestPass = 8 * time.Second
)

// pass leaves a nudge to workers of other releases, which may understand it.
func (w *Worker) pass(ctx context.Context, nudge *bus.Nudge, why string) error {
	w.options.Logger.WarnContext(ctx, "task left to other workers", "subject", nudge.Subject, "reason", why, "deliveries", nudge.Deliveries)
	return nudge.Later(min(firstPass<<min(max(nudge.Deliveries, 1)-1, 10), longestPass))
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
