package program

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/google/uuid"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/controller"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/pace"
	"ringmaster/pkg/planner"
	"ringmaster/pkg/secrets"
	"ringmaster/pkg/worker"
)

// Engine is what both servers build on the bus: the ledger, the queue, the
// leases and the mover that carries tasks out.
type Engine struct {
	ID      string
	Ledger  *ledger.Ledger
	Queue   *bus.Queue
	Leases  *bus.Leases
	Mover   *mover.Mover
	Planner *planner.Planner
	// Limits are those that apply to what this process does; its Run keeps them up to
	// date.
	Limits *pace.Book
	Logger *slog.Logger

	errorLimit time.Duration
}

// unreachable is how much longer a backend that does not answer is waited for
// than one that refuses.
const unreachable = 5

// EngineOptions say how an engine works. Zero durations mean the defaults of
// those who use them.
type EngineOptions struct {
	// Name is the program's; with a random part it names the process.
	Name string
	Keys *secrets.Keyring
	// Patience is how long a refusing backend is tried again.
	Patience time.Duration
	// BackendTimeout is how long a backend may be silent in the middle of a
	// request.
	BackendTimeout time.Duration
	// ErrorLimit is for how long attempts at a task may end with the same error.
	ErrorLimit time.Duration
	// Notices has notices made for a webhook.
	Notices bool
	Logger  *slog.Logger
}

// NewEngine opens the engine on a bus whose specs have been applied.
func NewEngine(ctx context.Context, b *bus.Bus, o EngineOptions) (*Engine, error) {
	name, logger := o.Name, o.Logger
	e := &Engine{ID: name + "-" + uuid.NewString()[:8], Logger: logger, errorLimit: o.ErrorLimit}
	var err error
	if e.Ledger, err = ledger.New(ctx, b, ledger.Options{Source: name + "/" + e.ID, Logger: logger, Notices: o.Notices}); err != nil {
		return nil, err
	}
	if e.Queue, err = b.Queue(ctx); err != nil {
		return nil, fmt.Errorf("opening the task queue: %w", err)
	}
	if e.Leases, err = b.Leases(ctx); err != nil {
		return nil, fmt.Errorf("opening the leases: %w", err)
	}
	roster := mover.NewRoster(e.Ledger, o.Keys, ledger.SealContext, influx.Options{UserAgent: "ringmaster", Timeout: o.BackendTimeout})
	e.Limits = pace.NewBook(e.Ledger, logger, nil)
	fence := &controller.Fence{Ledger: e.Ledger, Leases: e.Leases}
	e.Mover = mover.New(roster, mover.Config{
		Refused: o.Patience, Unreachable: unreachable * o.Patience, Logger: logger,
		Clearing: mover.Clearing{MayDrop: fence.MayDrop},
		Pacer:    pace.New(pace.Options{Asker: b, Book: e.Limits, NewID: uuid.NewString}),
	})
	e.Planner = planner.New(roster, e.Mover.Patience(), time.Now)
	return e, nil
}

// Worker returns a worker of this process.
func (e *Engine) Worker(slots int) *worker.Worker {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return worker.New(e.Ledger, e.Queue, e.Leases, e.Mover, worker.Options{
		ID: e.ID, Slots: slots, SameError: e.errorLimit, Logger: e.Logger,
		Info: worker.Info{Host: host, Version: Version(), StartedAt: time.Now().UTC()},
	})
}
