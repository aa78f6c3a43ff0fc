package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// What a Sweeper repairs, as its metrics and the audit trail call it.
const (
	RepairLease     = "lease_without_task"
	RepairNudge     = "nudge_of_ended_operation"
	RepairLetter    = "nudge_without_task"
	RepairScope     = "scope_without_command"
	RepairTask      = "running_without_lease"
	RepairTasks     = "tasks_without_operation"
	RepairDocuments = "documents_without_operation"
	RepairNotes     = "notes_without_operation"
	RepairKey       = "key_without_operation"
	RepairChunks    = "chunks_without_document"
)

// Repairs lists them all.
func Repairs() []string {
	return []string{
		RepairLease, RepairNudge, RepairLetter, RepairScope, RepairTask,
		RepairTasks, RepairDocuments, RepairNotes, RepairKey, RepairChunks,
	}
}

const (
	sweepEvery = time.Minute
	// leftoversEvery is how often everything that is stored is looked through for what
	// belongs to no operation.
	leftoversEvery = time.Hour
	// leftoversAge is how old such a thing must be.
	leftoversAge = time.Hour
	// recentlyEnded is for how long after its end the tasks of an operation are looked at.
	recentlyEnded = 24 * time.Hour
	// sweepAuditor is who the audit trail says has repaired something.
	sweepAuditor = "ringmaster"
)

// Sweeper looks every minute for what does not fit together, since a process died in
// the middle of something or a message was lost, and repairs it, or keeps it among the
// dead letters with the reason:
//
//   - a task's lease whose task has ended or is no more, and whose holder has no lease
//     of its own any more, is given back
//   - a nudge whose operation has ended or is no more is removed; one whose operation
//     lives and has no such task becomes a dead letter
//   - a scope that is held without a command, by an operation that has ended or is no
//     more, is freed
//   - a task that counts as running though nobody has its lease, in an operation that
//     is paused or has ended, waits again
//   - tasks, plans, reports, notes and idempotency keys without an operation are
//     removed, every hour
//
// What is left of the same kind is the controller's: it nudges the tasks of operations
// that are under way again when nobody has their lease (publish.go), ends records
// without a command (sweep.go), and closes commands without a record (drive.go).
//
// Nothing is touched that was not found twice, a lease's time to live apart by this
// process's own clock: what is seen in the middle of a change is gone by then. Required
// are Ledger, Queue and Leases; any number of processes may run it, one at a time
// works.
type Sweeper struct {
	Ledger *ledger.Ledger
	Queue  *bus.Queue
	Leases *bus.Leases
	Scopes *bus.Scopes
	// ID names this process as the holder of the lease.
	ID string
	// Every is how often it looks (1 minute), Leftovers how often for what is found by
	// reading everything (1 hour).
	Every, Leftovers time.Duration
	Logger           *slog.Logger
	Now              func() time.Time

	// found are the findings of the last round with when each was first made, settled
	// the operations in which nothing was found, by the revision that was looked at.
	// Only one round goes on at a time.
	round   sync.Mutex
	found   map[string]time.Time
	seen    map[string]time.Time
	settled map[string]uint64
	swept   time.Time

	mu      sync.Mutex
	repairs map[string]int64
}

func (s *Sweeper) defaults() {
	s.Every = cmp.Or(s.Every, sweepEvery)
	s.Leftovers = cmp.Or(s.Leftovers, leftoversEvery)
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	if s.Now == nil {
		s.Now = time.Now
	}
}

// Repaired returns how often this process has repaired each of Repairs.
func (s *Sweeper) Repaired() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.repairs)
}

// Run sweeps until ctx ends.
func (s *Sweeper) Run(ctx context.Context) error {
	s.defaults()
	ticker := time.NewTicker(s.Every)
	defer ticker.Stop()
	for {
		if err := s.Round(ctx); err != nil && ctx.Err() == nil {
			s.Logger.WarnContext(ctx, "sweeping; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Round looks once; it does nothing while another process is at it. One part that
// fails keeps no other from being looked at.
func (s *Sweeper) Round(ctx context.Context) error {
	s.round.Lock()
	defer s.round.Unlock()
	s.defaults()
	return alone(ctx, s.Leases, ledger.SweeperLease, s.ID, func(ctx context.Context, renew func() error) error {
		s.seen = map[string]time.Time{}
		all, err := s.survey(ctx)
		if err != nil {
			return err
		}
		parts := []func(context.Context, *survey, func() error) error{s.sweepLeases, s.sweepNudges, s.sweepScopes, s.sweepTasks}
		if now := s.Now(); s.swept.IsZero() || now.Sub(s.swept) >= s.Leftovers || now.Before(s.swept) {
			parts = append(parts, s.sweepLeftovers)
		}
		var failed error
		for _, part := range parts {
			failed = errors.Join(failed, renew())
			if failed == nil || !errors.Is(failed, bus.ErrLeaseLost) {
				failed = errors.Join(failed, part(ctx, all, renew))
			}
		}
		s.found = s.seen
		return failed
	})
}

// survey is where the operations stand, as far as a sweep has to know.
type survey struct {
	operations map[string]standing
	open       map[string]bool
}

type standing struct {
	state    operation.State
	revision uint64
	end      time.Time
}

func (s *Sweeper) survey(ctx context.Context) (*survey, error) {
	all := &survey{operations: map[string]standing{}, open: map[string]bool{}}
	err := s.Ledger.Operations(ctx, func(op operation.Operation, revision uint64) error {
		all.operations[op.ID] = standing{state: op.State, revision: revision, end: endOf(&op)}
		return nil
	})
	if err != nil {
		return nil, err
	}
	ids, err := s.Ledger.OpenOperations(ctx)
	for _, id := range ids {
		all.open[id] = true
	}
	return all, err
}

// fate is what has become of an operation.
type fate int

const (
	lives fate = iota // or cannot be told
	ended
	gone
)

// fate tells what has become of an operation, by its record as it is now wherever
// something may be repaired for it.
func (s *Sweeper) fate(ctx context.Context, all *survey, id string) (fate, error) {
	if at, ok := all.operations[id]; ok && !at.state.Terminal() {
		return lives, nil
	}
	v, err := s.Ledger.Operation(ctx, id)
	switch {
	case errors.Is(err, ledger.ErrRemoved):
		return ended, nil // who removes it removes the rest as well
	case errors.Is(err, operation.ErrNotFound):
		return gone, nil
	case errors.Is(err, ledger.ErrUnreadable):
		return lives, nil
	case err != nil:
		return lives, err
	case v.Value.State.Terminal():
		return ended, nil
	}
	return lives, nil
}

// again notes a finding, and reports whether it was made before, long enough ago.
func (s *Sweeper) again(finding ...string) bool {
	key := strings.Join(finding, " ")
	now := s.Now()
	since, ok := s.found[key]
	if !ok || now.Before(since) {
		since = now
	}
	s.seen[key] = since
	return now.Sub(since) >= s.Leases.TTL()
}

// repaired counts, logs and audits repairs.
func (s *Sweeper) repaired(ctx context.Context, what, id, detail string, n int) error {
	if n == 0 {
		return nil
	}
	s.mu.Lock()
	if s.repairs == nil {
		s.repairs = map[string]int64{}
	}
	s.repairs[what] += int64(n)
	s.mu.Unlock()
	s.Logger.WarnContext(ctx, "repaired", "what", what, "operation", id, "detail", detail, "times", n)
	return s.Ledger.Audit(ctx, operation.AuditEntry{
		At: s.Now().UTC(), OperationID: id, Action: "sweep", Who: sweepAuditor, Origin: s.ID,
		Reason: operation.Clip(fmt.Sprintf("%s: %s (%d)", what, detail, n)),
	})
}

// sweepLeases gives back the leases of tasks that nobody needs any more.
func (s *Sweeper) sweepLeases(ctx context.Context, all *survey, renew func() error) error {
	claims := s.Leases.Claims().Bucket()
	for e, err := range claims.List(ctx, "") {
		if err != nil {
			return fmt.Errorf("listing claims: %w", err)
		}
		if err := renew(); err != nil {
			return err
		}
		id, task := ledger.SubjectOfLease(e.Key)
		if task == "" {
			continue
		}
		idle, err := s.idle(ctx, all, id, task, &e)
		if err != nil {
			return err
		}
		if !idle || !s.again(RepairLease, e.Key) {
			continue
		}
		switch err := claims.Delete(ctx, e.Key, e.Revision); {
		case errors.Is(err, bus.ErrConflict), errors.Is(err, bus.ErrNotFound):
			continue
		case err != nil:
			return err
		}
		if err := s.repaired(ctx, RepairLease, id, "the lease of task "+task+" was held for nothing", 1); err != nil {
			return err
		}
	}
	return nil
}

// idle reports whether a task's lease is held for nothing, by nobody who lives.
func (s *Sweeper) idle(ctx context.Context, all *survey, id, task string, e *bus.Entry) (bool, error) {
	f, err := s.fate(ctx, all, id)
	if err != nil {
		return false, err
	}
	if f == lives {
		t, err := s.Ledger.Task(ctx, id, task)
		if err != nil && !errors.Is(err, ledger.ErrNoTask) || err == nil && !t.Value.State.Ended() {
			return false, ignoreUnreadable(err)
		}
	}
	var holder struct {
		Worker string `json:"worker"`
	}
	_ = json.Unmarshal(e.Value, &holder) // one that cannot be read names nobody
	if holder.Worker == "" {
		return true, nil
	}
	_, err = s.Leases.Holder(ctx, ledger.WorkerLease(holder.Worker))
	if errors.Is(err, bus.ErrNotFound) {
		return true, nil
	}
	return false, err // whoever lives gives it back himself
}

func ignoreUnreadable(err error) error {
	if errors.Is(err, ledger.ErrUnreadable) {
		return nil
	}
	return err
}

// sweepNudges removes nudges that nobody can do anything with.
func (s *Sweeper) sweepNudges(ctx context.Context, all *survey, renew func() error) error {
	removed := map[string]int{}
	for r, err := range s.Queue.Nudges(ctx) {
		if err != nil {
			return fmt.Errorf("listing nudges: %w", err)
		}
		if err := renew(); err != nil {
			return err
		}
		_, id, task, ok := events.ParseTaskSubject(r.Subject)
		if !ok {
			continue // of a later release perhaps; a worker that understands it decides
		}
		f, err := s.fate(ctx, all, id)
		if err != nil {
			return err
		}
		if f == lives {
			if err := s.sweepNudge(ctx, &r, id, task); err != nil {
				return err
			}
			continue
		}
		if !s.again(RepairNudge, r.Subject) {
			continue
		}
		if err := s.Queue.Remove(ctx, r.Sequence); err != nil {
			return err
		}
		removed[id]++
	}
	for id, n := range removed {
		if err := s.repaired(ctx, RepairNudge, id, "the operation of these nudges has ended or is no more", n); err != nil {
			return err
		}
	}
	return nil
}

// sweepNudge keeps the nudge of a task that a live operation does not have among the
// dead letters.
func (s *Sweeper) sweepNudge(ctx context.Context, r *bus.Record, id, task string) error {
	_, err := s.Ledger.Task(ctx, id, task)
	if !errors.Is(err, ledger.ErrNoTask) {
		return ignoreUnreadable(err)
	}
	if !s.again(RepairLetter, r.Subject) {
		return nil
	}
	reason := fmt.Sprintf("operation %s is under way and has no task %s", id, task)
	if err := s.Ledger.Reject(ctx, events.StreamTasks, r.Subject, r.Data, reason); err != nil {
		return err
	}
	if err := s.Queue.Remove(ctx, r.Sequence); err != nil {
		return err
	}
	return s.repaired(ctx, RepairLetter, id, reason, 1)
}

// sweepScopes frees scopes whose holder has ended and has no command any more. One that
// has not ended is ended first, as an operation without a command.
func (s *Sweeper) sweepScopes(ctx context.Context, all *survey, renew func() error) error {
	free := map[string][]string{}
	for r, err := range s.Scopes.Open(ctx, events.AllScopes) {
		if err != nil {
			return fmt.Errorf("listing scopes: %w", err)
		}
		id := string(r.Data)
		scope, ok := events.ParseScopeSubject(r.Subject)
		if !ok || all.open[id] {
			continue
		}
		f, err := s.fate(ctx, all, id)
		if err != nil {
			return err
		}
		if f == lives || !s.again(RepairScope, r.Subject, id) {
			continue
		}
		if err := errors.Join(renew(), s.Scopes.Release(ctx, []uint64{r.Sequence})); err != nil {
			return err
		}
		free[id] = append(free[id], scope)
	}
	for id, scopes := range free {
		if err := s.repaired(ctx, RepairScope, id, "freed "+strings.Join(scopes, ", ")+", whose holder has ended or is no more", len(scopes)); err != nil {
			return err
		}
	}
	return nil
}

// sweepTasks lets tasks wait again that count as running though nobody has their
// lease, where no controller does it: in operations that are paused or have ended. An
// operation in which there is none is looked at again only when its record has changed.
func (s *Sweeper) sweepTasks(ctx context.Context, all *survey, renew func() error) error {
	if s.settled == nil {
		s.settled = map[string]uint64{}
	}
	maps.DeleteFunc(s.settled, func(id string, _ uint64) bool { _, ok := all.operations[id]; return !ok })
	for id, at := range all.operations {
		over := at.state.Terminal() && !all.open[id] && s.Now().Sub(at.end) < recentlyEnded
		if at.state != operation.Paused && !over || s.settled[id] == at.revision {
			continue
		}
		if err := renew(); err != nil {
			return err
		}
		left, err := s.sweepTasksOf(ctx, id, at)
		if err != nil {
			return err
		}
		if left == 0 {
			s.settled[id] = at.revision
		}
	}
	return nil
}

// sweepTasksOf returns how many tasks count as running after it.
func (s *Sweeper) sweepTasksOf(ctx context.Context, id string, at standing) (left int, err error) {
	var running []ledger.Versioned[operation.Task]
	err = s.Ledger.Tasks(ctx, id, func(v ledger.Versioned[operation.Task]) error {
		if v.Value.State == operation.TaskRunning {
			running = append(running, v)
		}
		return nil
	})
	if err = ignoreUnreadable(err); err != nil {
		return 0, err
	}
	var waiting []string
	for _, v := range running {
		t := v.Value
		_, err := s.Leases.Claims().Holder(ctx, ledger.TaskLease(id, t.ID))
		if err != nil && !errors.Is(err, bus.ErrNotFound) {
			return 0, err
		}
		if err == nil || !s.again(RepairTask, id, t.ID) {
			left++
			continue
		}
		t.Remember(s.Now().UTC(), "worker "+t.Holder+" went away")
		t.State, t.Holder, t.Waits = operation.TaskWaiting, "", nil
		switch _, err := s.Ledger.UpdateTask(ctx, v, t); {
		case errors.Is(err, ledger.ErrConflict):
			left++
		case err != nil:
			return left, err
		default:
			waiting = append(waiting, t.ID)
		}
	}
	slices.Sort(waiting)
	return left, s.repaired(ctx, RepairTask, id, fmt.Sprintf("the workers of these tasks went away while the operation was %s: %s", at.state, strings.Join(waiting, ", ")), len(waiting))
}
