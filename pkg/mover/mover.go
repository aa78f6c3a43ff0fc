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
	"sync/atomic"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/pace"
	"ringmaster/pkg/patience"
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
	Recorder
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

// Recorder keeps what a task has reached.
type Recorder interface {
	// Checkpoint changes the record and stores it.
	Checkpoint(ctx context.Context, change func(*operation.Task)) error
	// Finish is the last checkpoint of a task, which is stored together with its
	// end: one write less for each task. Task shows it at once.
	Finish(change func(*operation.Task)) error
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
	// RetryInPlace is how long a batch is sent again as it is when the server
	// says that it has taken nothing and is to be asked later (5 s); after that,
	// and after everything else, the destination is compared first, since others
	// may have written there meanwhile. So long, too, a slice alone is tried whose
	// group has been refused for all of Refused.
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
	// Lasting is for how long a verification has to see a point differ before it
	// counts, as long as nothing else comes right meanwhile (1 s): what a client
	// writes does not come to two circles at the same time.
	Lasting time.Duration
	// FloorWindow is the least window that a slice is cut to because it runs out of
	// time (1 s).
	FloorWindow time.Duration
	Clearing    Clearing
	// Pacer keeps tasks within limits; nil paces nothing.
	Pacer  *pace.Pacer
	Logger *slog.Logger
	Now    func() time.Time
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
	def(&c.Lasting, time.Second)
	def(&c.FloorWindow, time.Second)
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
	patience *patience.Patience
	unsigned unsigned
}

// New returns a mover that works on the given backends.
func New(b Backends, c Config) *Mover {
	c = c.withDefaults()
	p := patience.New(patience.Config{
		Refused: c.Refused, Unreachable: c.Unreachable, Backoff: c.Backoff, MaxBackoff: c.MaxBackoff, Now: c.Now,
	})
	return &Mover{backends: b, config: c, patience: p, unsigned: unsigned{known: map[string]unsignedAnswer{}}}
}

// Patience is what the mover remembers of backends that fail, for planners of the
// same process.
func (m *Mover) Patience() *patience.Patience { return m.patience }

// Run carries one task out: to its end (nil), to a failure of the task (an
// *operation.Error: the task has failed for good and other tasks go on), or to
// an interruption (any other error: another attempt continues where the
// checkpoint stands).
func (m *Mover) Run(ctx context.Context, job Job) error {
	task := job.Task()
	source, err := m.backends.Client(ctx, job.Operation(), task.Source, job.Guard)
	if err != nil {
		return fmt.Errorf("opening source %s: %w", task.Source, err)
	}
	defer source.Close()
	destination, err := m.backends.Client(ctx, job.Operation(), task.Destination, job.Guard)
	if err != nil {
		return fmt.Errorf("opening destination %s: %w", task.Destination, err)
	}
	defer destination.Close()
	pass, err := m.config.Pacer.Begin(ctx, job.Operation(), pace.Work{
		OperationID: task.OperationID, TaskID: task.ID, Source: task.Source, Destination: task.Destination,
	}, job)
	if err != nil {
		return err
	}
	defer pass.End()
	t := &transfer{Config: m.config, mover: m, job: job, task: task, pass: pass, began: operation.Began(job.Operation()), timeouts: task.Timeouts, walks: map[int]*walk{}, source: &end{Client: source, mover: m}, destination: &end{Client: destination, mover: m}}
	if p, err := operation.ParseMove(job.Operation().Kind, job.Operation().Parameters); err == nil && p.Tuned().Batch > 0 {
		t.BatchRows = p.Tuned().Batch
	}
	switch task.Phase {
	case operation.PhaseCopy:
		return t.copy(ctx)
	case operation.PhaseDrop:
		return t.drop(ctx, m.config.Clearing)
	case operation.PhaseCompare:
		return t.check(ctx)
	case operation.PhaseVerify:
		return t.verify(ctx)
	default:
		return &operation.Error{Code: "unknown_phase", Detail: fmt.Sprintf("task %s has phase %q, which this release does not know", task.ID, task.Phase)}
	}
}

// ErrHeld says that the operation is paused or is being cancelled: the task goes back
// to where its last checkpoint is.
var ErrHeld = errors.New("the operation is not carried on now")

// ErrClaimLost is what a Job's methods return, wrapped, when another worker has
// taken the task over.
var ErrClaimLost = errors.New("the claim of the task is lost")

// transfer is one task at work.
type transfer struct {
	Config
	mover *Mover
	job   Job
	task  operation.Task
	// pass is where the task waits for limits; nil where none are heeded.
	pass *pace.Pass
	// began is when the operation did.
	began       time.Time
	source      *end
	destination *end
	buffers     buffers

	// slices and evidence are the task's, by index; a copy changes the latter
	// only group by group.
	slices   []operation.Slice
	evidence operation.Checkpoint
	// begun are the slices that this process has begun to write to an empty
	// destination: what is found there later came from here.
	begun map[int]bool
	// withheld are the fields that are left out while a slice is copied alone.
	withheld withheld
	// whole is set while a slice is copied however large it is.
	whole bool
	// timeouts are the slices that have run out of time, as the record has them or is
	// about to; silent those of which not even the least part was answered in time.
	timeouts []operation.SliceTimeouts
	silent   map[int]bool
	// halved is how often the slices at hand have been halved: their batches are
	// smaller by as much.
	halved int
	// walks are the slices that are compared part by part.
	walks map[int]*walk
	// read and sent are the bytes since the last checkpoint.
	read, sent byteCount
}

// byteCount adds up what several goroutines have read or written.
type byteCount struct{ atomic.Int64 }

// take returns the count and begins anew.
func (b *byteCount) take() int64 { return b.Swap(0) }

// patiently is patience.Do for what the task does at both its ends.
func (t *transfer) patiently(ctx context.Context, what string, limit time.Duration, f func(context.Context) error) error {
	return t.mover.patience.Do(ctx, t.call(what, limit), t.job, f)
}
