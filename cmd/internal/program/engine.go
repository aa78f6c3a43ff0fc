package program

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/google/uuid"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/secrets"
	"ringmaster/pkg/worker"
)

// Engine is what both servers build on the bus: the ledger, the queue, the
// leases and the mover that carries tasks out.
type Engine struct {
	ID     string
	Ledger *ledger.Ledger
	Queue  *bus.Queue
	Leases *bus.Leases
	Mover  *mover.Mover
	Logger *slog.Logger
}

// unreachable is how much longer a backend that does not answer is waited for
// than one that refuses.
const unreachable = 5

// NewEngine opens the engine on a bus whose specs have been applied. patience is
// how long a refusing backend is tried again; 0 means the mover's default.
func NewEngine(ctx context.Context, name string, b *bus.Bus, keys *secrets.Keyring, patience time.Duration, logger *slog.Logger) (*Engine, error) {
	e := &Engine{ID: name + "-" + uuid.NewString()[:8], Logger: logger}
	var err error
	if e.Ledger, err = ledger.New(ctx, b, ledger.Options{Source: name + "/" + e.ID, Logger: logger}); err != nil {
		return nil, err
	}
	if e.Queue, err = b.Queue(ctx); err != nil {
		return nil, fmt.Errorf("opening the task queue: %w", err)
	}
	if e.Leases, err = b.Leases(ctx); err != nil {
		return nil, fmt.Errorf("opening the leases: %w", err)
	}
	roster := mover.NewRoster(e.Ledger, keys, ledger.SealContext, influx.Options{UserAgent: "ringmaster"})
	e.Mover = mover.New(roster, mover.Config{Refused: patience, Unreachable: unreachable * patience, Logger: logger})
	return e, nil
}

// Worker returns a worker of this process.
func (e *Engine) Worker(slots int) *worker.Worker {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return worker.New(e.Ledger, e.Queue, e.Leases, e.Mover, worker.Options{
		ID: e.ID, Slots: slots, Logger: e.Logger,
		Info: worker.Info{Host: host, Version: Version(), StartedAt: time.Now().UTC()},
	})
}
