package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
)

// Info is what a live worker tells about itself.
type Info struct {
	ID        string    `json:"id"`
	Host      string    `json:"host"`
	Version   string    `json:"version"`
	Slots     int       `json:"slots"`
	StartedAt time.Time `json:"started_at"`
	// Clock is what time it was by the worker's clock when it renewed its lease.
	Clock time.Time `json:"clock,omitzero"`
}

// present keeps the lease that says this worker is alive.
func (w *Worker) present(ctx context.Context) {
	var lease *bus.Lease
	defer func() {
		if lease != nil {
			done, cancel := context.WithTimeout(context.WithoutCancel(ctx), pause)
			defer cancel()
			_ = lease.Release(done) // it runs out by itself
		}
	}()
	for ctx.Err() == nil {
		now := w.options.Info
		now.Clock = time.Now().UTC()
		info, err := json.Marshal(now)
		if err != nil {
			w.options.Logger.ErrorContext(ctx, "describing this worker", "error", err)
			return
		}
		// Cut off in the middle, it would leave a lease that nobody gives back.
		call, done := context.WithTimeout(context.WithoutCancel(ctx), w.options.Drain)
		if lease == nil {
			lease, err = w.leases.Acquire(call, ledger.WorkerLease(w.options.ID), info)
		} else {
			err = lease.RenewWith(call, info)
		}
		done()
		if err != nil && ctx.Err() == nil {
			w.options.Logger.WarnContext(ctx, "announcing this worker", "error", err)
			if errors.Is(err, bus.ErrLeaseLost) {
				lease = nil
				continue
			}
		}
		w.rest(ctx, w.leases.TTL()/4)
	}
}

// Status is a live worker and what it does.
type Status struct {
	Info

	Busy int
	// Tasks are the tasks it holds, as `<operation>/<task>`.
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

// Live lists the workers whose leases live, by their ids, with the tasks they
// hold. What a lease says that cannot be read is left out.
func Live(ctx context.Context, leases *bus.Leases) ([]Status, error) {
	all := []Status{}
	held := map[string][]string{}
	for e, err := range leases.Bucket().List(ctx, ledger.WorkerLeases()) {
		if err != nil {
			return nil, fmt.Errorf("listing workers: %w", err)
		}
		if id, ok := ledger.WorkerOfLease(e.Key); ok {
			s := Status{SeenAt: e.Created}
			if json.Unmarshal(e.Value, &s.Info) != nil {
				s.Info = Info{}
			}
			s.ID = id
			all = append(all, s)
		}
	}
	for e, err := range leases.Claims().Bucket().List(ctx, "") {
		if err != nil {
			return nil, fmt.Errorf("listing what workers hold: %w", err)
		}
		var h holding
		if json.Unmarshal(e.Value, &h) == nil && h.TaskID != "" {
			held[h.Worker] = append(held[h.Worker], h.OperationID+"/"+h.TaskID)
		}
	}
	for i := range all {
		all[i].Tasks = slices.Sorted(slices.Values(held[all[i].ID]))
		all[i].Busy = len(all[i].Tasks)
	}
	slices.SortFunc(all, func(a, b Status) int { return strings.Compare(a.ID, b.ID) })
	return all, nil
}
