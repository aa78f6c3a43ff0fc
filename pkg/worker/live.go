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
	// Draining says that it was told to stop: it takes no more tasks, and gives back
	// those it has.
	Draining bool `json:"draining,omitempty"`
	// Knows is what it carries out; see operation.Carried.
	Knows []string `json:"knows,omitempty"`
}

// present keeps the lease that says that this worker is alive until idle is closed,
// and from the end of ctx on that it is draining.
func (w *Worker) present(ctx context.Context, idle <-chan struct{}) {
	p := presence{worker: w}
	defer p.leave(context.WithoutCancel(ctx))
	told := ctx.Done()
	for {
		p.show(context.WithoutCancel(ctx), told == nil)
		timer := time.NewTimer(w.leases.TTL() / 4)
		select {
		case <-idle:
			timer.Stop()
			return
		case <-told:
			told = nil
		case <-timer.C:
		}
		timer.Stop()
	}
}

// presence is what others are told of a worker.
type presence struct {
	worker *Worker
	lease  *bus.Lease
}

// show says that the worker is alive.
func (p *presence) show(ctx context.Context, draining bool) {
	w := p.worker
	info := w.options.Info
	info.Clock, info.Draining = time.Now().UTC(), draining
	value, err := json.Marshal(info)
	if err != nil {
		w.options.Logger.ErrorContext(ctx, "describing this worker", "error", err)
		return
	}
	// Cut off in the middle, it would leave a lease that nobody gives back.
	ctx, cancel := context.WithTimeout(ctx, min(w.options.Drain, w.leases.TTL()))
	defer cancel()
	if p.lease != nil {
		err = p.lease.RenewWith(ctx, value)
		if errors.Is(err, bus.ErrLeaseLost) {
			p.lease = nil
		}
	}
	if p.lease == nil {
		p.lease, err = w.leases.Acquire(ctx, ledger.WorkerLease(w.options.ID), value)
	}
	if err != nil {
		w.options.Logger.WarnContext(ctx, "announcing this worker", "error", err)
	}
}

// leave ends it.
func (p *presence) leave(ctx context.Context) {
	if p.lease == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, pause)
	defer cancel()
	_ = p.lease.Release(ctx) // it runs out by itself
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
