package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/planner"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// Accord is what all processes that serve traffic agree on; see package session.
type Accord interface {
	View() *serving.View
	// Change applies a change by compare-and-set and returns the view that holds then.
	Change(ctx context.Context, change func(*serving.View) (serving.State, error)) (*serving.View, error)
	// AwaitWrites and AwaitReads return when no write, or read, goes on in any
	// process by a revision older than this one.
	AwaitWrites(ctx context.Context, revision uint64) error
	AwaitReads(ctx context.Context, revision uint64) error
}

// Transitions is the service that takes each changing circle from step to step.
// Only the step from the old to the new owners' reads is not its own: that belongs
// to the operation that proves them.
type Transitions struct {
	Accord Accord
	Leases *bus.Leases
	// Open returns a client of a backend, which the caller closes.
	Open func(b *topology.Backend) (*influx.Client, error)
	// ID names this process as the holder of leases.
	ID     string
	Logger *slog.Logger
	Now    func() time.Time
	// Waits, when not nil, is told what a circle's transition waits for; nil for nothing.
	Waits func(circle int, err error)
}

// stepEvery is how often transitions are looked at; each step costs at least one
// barrier anyway.
const stepEvery = 200 * time.Millisecond

// Run steps transitions until ctx ends.
func (s *Transitions) Run(ctx context.Context) error {
	ticker := time.NewTicker(stepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		view := s.Accord.View()
		if view == nil {
			continue
		}
		s.forgetStatements(ctx, view)
		for i := range view.State.Transitions {
			t := &view.State.Transitions[i]
			if t.Step == serving.WriteBoth {
				continue // an operation's move
			}
			err := s.stepUnder(ctx, t)
			if err != nil && ctx.Err() == nil {
				s.Logger.WarnContext(ctx, "stepping a transition", "circle", t.Circle, "step", t.Step, "error", err)
			}
			if s.Waits != nil {
				s.Waits(t.Circle, err)
			}
		}
	}
}

// forgetStatements takes back statements whose processes have gone: writes would wait
// for them.
func (s *Transitions) forgetStatements(ctx context.Context, view *serving.View) {
	for _, e := range view.State.Exclusive {
		_, err := s.Leases.Holder(ctx, ledger.ProcessLease(e.Process))
		if !errors.Is(err, bus.ErrNotFound) {
			continue
		}
		_, err = s.Accord.Change(ctx, func(v *serving.View) (serving.State, error) { return v.State.WithoutExclusive(e.ID), nil })
		if err != nil && ctx.Err() == nil {
			s.Logger.WarnContext(ctx, "letting writes pass after a statement whose process is gone", "database", e.Database, "error", err)
		}
	}
}

// stepTimeout bounds one step, so that a lease is not outlived by far.
const stepTimeout = time.Minute

// stepUnder takes one step under the transition's lease, unless another process
// has it.
func (s *Transitions) stepUnder(ctx context.Context, t *serving.Transition) error {
	lease, err := s.Leases.Acquire(ctx, ledger.TransitionLease(t.Circle), []byte(s.ID))
	if errors.Is(err, bus.ErrHeld) {
		return nil
	}
	if err != nil {
		return err
	}
	stepping, cancel := context.WithTimeout(ctx, min(stepTimeout, s.Leases.TTL()))
	defer cancel()
	err = s.step(stepping, t)
	done, end := context.WithTimeout(context.WithoutCancel(ctx), stepEvery*5)
	defer end()
	return errors.Join(err, lease.Release(done))
}

// step does what the step asks for and leaves it. Everything before the
// compare-and-set is harmless when two processes do it.
func (s *Transitions) step(ctx context.Context, t *serving.Transition) error {
	view := s.Accord.View()
	switch t.Step {
	case serving.Opening:
		if err := s.equip(ctx, view, t); err != nil {
			return fmt.Errorf("preparing the new owners of circle %d: %w", t.Circle, err)
		}
		// Nobody routes by an epoch before this one any more.
		if err := s.Accord.AwaitWrites(ctx, view.Revision); err != nil {
			return err
		}
	case serving.ReadNew:
		// Who has begun to read an old owner goes on to read what is written.
		if err := s.Accord.AwaitReads(ctx, view.Revision); err != nil {
			return err
		}
		if err := s.Accord.AwaitWrites(ctx, view.Revision); err != nil {
			return err
		}
	case serving.WriteNew:
		if err := s.Accord.AwaitWrites(ctx, view.Revision); err != nil {
			return err
		}
		if err := s.Accord.AwaitReads(ctx, view.Revision); err != nil {
			return err
		}
	default:
		return nil
	}
	_, err := s.Accord.Change(ctx, func(v *serving.View) (serving.State, error) {
		return v.State.Stepped(t.Circle, t.Step, "", s.Now())
	})
	if errors.Is(err, serving.ErrStep) {
		return nil // another process was first
	}
	if err == nil {
		s.Logger.InfoContext(ctx, "transition stepped", "circle", t.Circle, "left", t.Step)
	}
	return err
}

// equip makes the databases of the circle's former backends, or of another circle
// when there were none, exist at the present ones.
func (s *Transitions) equip(ctx context.Context, view *serving.View, t *serving.Transition) error {
	circle, ok := view.Topology.Circle(t.Circle)
	if !ok {
		return nil
	}
	var from []topology.Backend
	if t.New() {
		for i := range view.Topology.Circles {
			if c := &view.Topology.Circles[i]; c.ID != t.Circle && view.State.In(c.ID) == nil {
				from = append(from, c.Backends...)
			}
		}
	} else {
		from = t.Old.Circles[0].Backends
	}
	for i := range circle.Backends {
		to := &circle.Backends[i]
		if onURL(from, to.URL) {
			continue
		}
		for j := range from {
			if err := s.equipOne(ctx, &from[j], to); err != nil {
				return err
			}
		}
	}
	return nil
}

func onURL(all []topology.Backend, url string) bool {
	for i := range all {
		if all[i].URL == url {
			return true
		}
	}
	return false
}

func (s *Transitions) equipOne(ctx context.Context, from, to *topology.Backend) error {
	source, err := s.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	destination, err := s.Open(to)
	if err != nil {
		return err
	}
	defer destination.Close()
	return planner.Equip(ctx, source, destination)
}
