// Package mover carries out the tasks that move time series between InfluxDB
// servers: it surveys the backends of a circle, prepares destinations, copies
// slices and proves them. It knows backends and slices; it knows nothing of
// messages, leases or HTTP.
package mover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
)

// Backends gives the clients that an operation's tasks work with. A client
// belongs to whoever asked for it, who closes it.
type Backends interface {
	// Client returns a client for one of the operation's backends, by URL, with
	// the credentials the operation has for it. guard is called before every
	// part of a write goes out; see influx.Options.
	Client(ctx context.Context, op *operation.Operation, url string, guard func() error) (*influx.Client, error)
}

// Job is one claimed task, as the worker hands it to a task handler. Every
// method that changes the record fails once the claim is lost; the handler then
// stops.
type Job interface {
	Operation() *operation.Operation
	// Task returns a copy of the record as last stored.
	Task() operation.Task
	// Slices returns the task's slices, by the indexes of its checkpoint.
	Slices(ctx context.Context) ([]operation.Slice, error)
	// Of returns the record of another task of the operation.
	Of(ctx context.Context, id string) (operation.Task, error)
	// SlicesOf returns the slices of another task.
	SlicesOf(ctx context.Context, t *operation.Task) ([]operation.Slice, error)
	// Checkpoint changes the record and stores it.
	Checkpoint(ctx context.Context, change func(*operation.Task)) error
	// HandOver stores new tasks that take the given slices over. It returns
	// their ids, which the caller then names in its checkpoint.
	HandOver(ctx context.Context, bundles [][]operation.Slice) ([]string, error)
	// Alive says that work is going on; without it the claim runs out.
	Alive()
	// Wait shows what the task is waiting for; nil means it goes on.
	Wait(w *operation.Wait)
	// Guard fails when the claim may have run out, by the clock of this process.
	Guard() error
}

// Config tells a Mover how patient and how wide it is. Zero values mean the
// defaults in parentheses.
type Config struct {
	// Refused is how long a backend that answers with errors is tried again
	// (2 minutes), Unreachable one that does not answer at all (10 minutes).
	Refused, Unreachable time.Duration
	// Backoff is the first pause between tries (250 ms); it doubles up to
	// MaxBackoff (15 s).
	Backoff, MaxBackoff time.Duration
	// BatchRows and BatchBytes bound one write (5,000 points, 1 MiB).
	BatchRows, BatchBytes int
	// RetryInPlace is how long a batch that was answered with a refusal is sent
	// again as it is (5 s); after that, or without an answer, the destination is
	// compared first, since others may have written there meanwhile.
	RetryInPlace time.Duration
	// Writers is how many batches of one task are in flight (2).
	Writers int
	// GroupSlices and GroupPoints bound what is read in one request
	// (200 slices, 25,000 points).
	GroupSlices int
	GroupPoints int64
	// SliceRows is where a slice counts as mis-estimated and is handed over in
	// parts (400,000 points); PartRows is the size of those parts (100,000).
	SliceRows, PartRows int64
	Logger              *slog.Logger
	Now                 func() time.Time
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	num := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	def(&c.Refused, 2*time.Minute)
	def(&c.Unreachable, 10*time.Minute)
	def(&c.Backoff, 250*time.Millisecond)
	def(&c.MaxBackoff, 15*time.Second)
	def(&c.RetryInPlace, 5*time.Second)
	num(&c.BatchRows, 5000)
	num(&c.BatchBytes, 1<<20)
	num(&c.Writers, 2)
	num(&c.GroupSlices, 200)
	if c.GroupPoints == 0 {
		c.GroupPoints = 25_000
	}
	if c.SliceRows == 0 {
		c.SliceRows = 400_000
	}
	if c.PartRows == 0 {
		c.PartRows = 100_000
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Mover handles the tasks of data moves.
type Mover struct {
	backends Backends
	config   Config
	outages  outages
}

// New returns a mover that works on the given backends.
func New(b Backends, c Config) *Mover {
	return &Mover{backends: b, config: c.withDefaults(), outages: outages{since: map[string]time.Time{}}}
}

// Run carries one task out: to its end (nil), to a failure of the task (an
// *operation.Error: the task has failed for good and other tasks go on), or to
// an interruption (any other error: another attempt continues where the
// checkpoint stands).
func (m *Mover) Run(ctx context.Context, job Job) error {
	task := job.Task()
	source, err := m.backends.Client(ctx, job.Operation(), task.Source, nil)
	if err != nil {
		return fmt.Errorf("opening source %s: %w", task.Source, err)
	}
	defer source.Close()
	destination, err := m.backends.Client(ctx, job.Operation(), task.Destination, job.Guard)
	if err != nil {
		return fmt.Errorf("opening destination %s: %w", task.Destination, err)
	}
	defer destination.Close()
	t := &transfer{Config: m.config, mover: m, job: job, task: task, source: source, destination: destination}
	switch task.Phase {
	case operation.PhaseCopy:
		return t.copy(ctx)
	case operation.PhaseVerify:
		return t.verify(ctx)
	default:
		return &operation.Error{Code: "unknown_phase", Detail: fmt.Sprintf("task %s has phase %q, which this release does not know", task.ID, task.Phase)}
	}
}

// transfer is one task at work.
type transfer struct {
	Config
	mover       *Mover
	job         Job
	task        operation.Task
	source      *influx.Client
	destination *influx.Client
	buffers     buffers

	// slices, evidence and problems are the task's, by index; a copy changes
	// the latter two only group by group.
	slices   []operation.Slice
	evidence operation.Checkpoint
	problems []operation.SliceError
	// read and sent are bytes since the last checkpoint.
	read, sent int64
	// verified is the points proven since the last checkpoint.
	verified int64
}

// patiently runs f until it succeeds, fails for good, or its backend has
// refused or been away for too long. Every pause is shown as a wait.
func (t *transfer) patiently(ctx context.Context, what string, f func(context.Context) error) error {
	err := t.mover.patiently(ctx, what, t.job, f)
	if err == nil {
		t.mover.outages.end(t.task.Source)
		t.mover.outages.end(t.task.Destination)
	}
	return err
}

// Waiter shows what somebody waits for, and that they still do.
type Waiter interface {
	Alive()
	Wait(w *operation.Wait)
}

// codeBackendRefuses is the failure of a task whose backend stayed away.
const codeBackendRefuses = "backend_refuses"

func (m *Mover) patiently(ctx context.Context, what string, w Waiter, f func(context.Context) error) error {
	pause := m.config.Backoff
	waiting := false
	for {
		err := f(ctx)
		w.Alive()
		var refusal *influx.Error
		if err == nil || ctx.Err() != nil || !errors.As(err, &refusal) || refusal.Class != influx.Transient {
			if waiting {
				w.Wait(nil)
			}
			if err != nil && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		waiting = true
		patience := m.config.Refused
		if refusal.Status == 0 {
			patience = m.config.Unreachable
		}
		now := m.config.Now()
		since := m.outages.begin(refusal.Server(), now)
		if now.Sub(since) >= patience {
			w.Wait(nil)
			return &operation.Error{
				Code:   codeBackendRefuses,
				Detail: fmt.Sprintf("%s: %v (for %s; make the backend answer and start the operation again: what is copied stays copied)", what, err, now.Sub(since).Round(time.Second)),
			}
		}
		w.Wait(&operation.Wait{
			Gate: "backend_answers", Backend: refusal.Server(), Measured: refusal.Error(),
			Limit: "given up after " + patience.String(), Since: since.UTC(),
		})
		if err := sleep(ctx, max(pause, refusal.RetryAfter)); err != nil {
			return err
		}
		pause = min(2*pause, m.config.MaxBackoff)
	}
}

// sleep waits, or returns why it could not.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// selection is the part of a slice that a client reads.
func selection(s *operation.Slice) influx.Selection {
	return influx.Selection{
		Database: s.Database, RetentionPolicy: s.RetentionPolicy, Measurement: s.Measurement,
		Window: influx.Window{From: s.From, To: s.To, Last: s.Last},
	}
}

func selections(slices []operation.Slice) []influx.Selection {
	out := make([]influx.Selection, len(slices))
	for i := range slices {
		out[i] = selection(&slices[i])
	}
	return out
}

// group is a run of slices of one database and policy, small enough together
// to be read in one request; indexes are into the task.
func (t *transfer) groups(slices []operation.Slice, pending func(i int) bool) [][]int {
	var groups [][]int
	var current []int
	var points int64
	for i := range slices {
		if !pending(i) {
			continue
		}
		s := &slices[i]
		if len(current) > 0 {
			first := &slices[current[0]]
			if s.Database != first.Database || s.RetentionPolicy != first.RetentionPolicy ||
				len(current) >= t.GroupSlices || points+s.Points > t.GroupPoints {
				groups, current, points = append(groups, current), nil, 0
			}
		}
		current = append(current, i)
		points += s.Points
	}
	if len(current) > 0 {
		groups = append(groups, current)
	}
	return groups
}

func pick(slices []operation.Slice, indexes []int) []operation.Slice {
	out := make([]operation.Slice, len(indexes))
	for i, n := range indexes {
		out[i] = slices[n]
	}
	return out
}
