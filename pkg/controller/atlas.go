package controller

import (
	"context"
	"slices"
	"time"

	"ringmaster/pkg/ledger"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// Atlas answers for the topology this process works with, and keeps the flags
// that operators have set by hand.
type Atlas struct {
	ledger *ledger.Ledger
	shared Shared
}

// Shared is the part of the shared record that an atlas needs; see package session.
type Shared interface {
	Topology
	Change(ctx context.Context, change func(*serving.View) (serving.State, error)) (*serving.View, error)
}

// NewAtlas returns the atlas of a process whose session knows the shared record.
func NewAtlas(l *ledger.Ledger, shared Shared) *Atlas { return &Atlas{ledger: l, shared: shared} }

// Current returns the topology in force; nil before there is one. It must not be
// changed.
func (a *Atlas) Current() *topology.Topology { return a.shared.Current() }

// Flags returns the circles that operators have flagged as migrating by hand,
// and whether they have flagged the cluster as resyncing.
func (a *Atlas) Flags(ctx context.Context) (migrating []int, resyncing bool, err error) {
	v, err := a.ledger.Flags(ctx)
	return v.Value.Migrating, v.Value.Resyncing, err
}

// SetMigrating sets or releases a circle's flag, for all processes. Releasing it
// also says that the circle is complete, whatever a recovery has left of it.
func (a *Atlas) SetMigrating(ctx context.Context, circle int, on bool) error {
	if !on {
		_, err := a.shared.Change(ctx, func(v *serving.View) (serving.State, error) {
			return v.State.WithIncomplete(circle, "", time.Time{}), nil
		})
		if err != nil {
			return err
		}
	}
	return a.ledger.ChangeFlags(ctx, func(f *ledger.Flags) {
		f.Migrating = slices.DeleteFunc(f.Migrating, func(c int) bool { return c == circle })
		if on {
			f.Migrating = append(f.Migrating, circle)
		}
	})
}

// SetResyncing sets or releases the cluster's flag, for all processes.
func (a *Atlas) SetResyncing(ctx context.Context, on bool) error {
	return a.ledger.ChangeFlags(ctx, func(f *ledger.Flags) { f.Resyncing = on })
}
