package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/topology"
)

// SealContext binds the credentials sealed in topology records to these records.
const SealContext = "ringmaster.topology"

const (
	keyCurrent = "current"
	keyFlags   = "flags"
)

// Epochs is the current topology and those before it.
type Epochs struct {
	Current *topology.Topology  `json:"current"`
	Earlier []topology.Ancestor `json:"earlier"`
}

// Topology reads the current epoch, with its credentials sealed. Before the
// first one is adopted Current is nil and the revision 0.
func (l *Ledger) Topology(ctx context.Context) (Versioned[Epochs], error) {
	e, err := l.topology.Get(ctx, keyCurrent)
	if errors.Is(err, bus.ErrNotFound) {
		return Versioned[Epochs]{}, nil
	}
	if err != nil {
		return Versioned[Epochs]{}, fmt.Errorf("reading the topology: %w", err)
	}
	return decode[Epochs](e)
}

// TopologyAt reads the topology of one epoch, or bus.ErrNotFound.
func (l *Ledger) TopologyAt(ctx context.Context, epoch uint64) (*topology.Topology, error) {
	e, err := l.topology.Get(ctx, epochKey(epoch))
	if err != nil {
		return nil, fmt.Errorf("reading topology epoch %d: %w", epoch, err)
	}
	v, err := decode[*topology.Topology](e)
	return v.Value, err
}

func epochKey(epoch uint64) string { return "epoch." + strconv.FormatUint(epoch, 10) }

// StoreTopology makes next, whose credentials must be sealed, the current
// topology over the revision that was read; ErrConflict when another process
// was first. An epoch's own record is written before it becomes current, so
// that whoever sees an epoch can read it.
func (l *Ledger) StoreTopology(ctx context.Context, was Versioned[Epochs], next *topology.Topology) error {
	raw, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("storing the topology: %w", err)
	}
	if err := l.put(ctx, l.topology, epochKey(next.Epoch), raw); err != nil {
		return fmt.Errorf("storing topology epoch %d: %w", next.Epoch, err)
	}
	epochs := Epochs{Current: next, Earlier: was.Value.Earlier}
	if current := was.Value.Current; current != nil && current.Epoch != next.Epoch {
		epochs.Earlier = append(epochs.Earlier, topology.Ancestor{Epoch: current.Epoch, Digest: current.Digest})
	}
	if raw, err = json.Marshal(epochs); err != nil {
		return fmt.Errorf("storing the topology: %w", err)
	}
	if was.Revision == 0 {
		_, err = l.topology.Create(ctx, keyCurrent, raw)
	} else {
		_, err = l.topology.Update(ctx, keyCurrent, raw, was.Revision)
	}
	if err != nil {
		return fmt.Errorf("storing the topology: %w", conflict(err))
	}
	return nil
}

// put stores a key whatever it holds.
func (l *Ledger) put(ctx context.Context, b *bus.Bucket, key string, value []byte) error {
	for {
		_, err := b.Create(ctx, key, value)
		if !errors.Is(err, bus.ErrExists) {
			return err
		}
		held, err := b.Get(ctx, key)
		if errors.Is(err, bus.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if _, err = b.Update(ctx, key, value, held.Revision); !errors.Is(err, bus.ErrConflict) {
			return err
		}
	}
}

// Flags are what operators set by hand through POST /migrate/state: the circles
// that count as migrating, and whether the cluster counts as resyncing.
type Flags struct {
	Migrating []int `json:"migrating"`
	Resyncing bool  `json:"resyncing"`
}

// Flags reads the flags set by hand.
func (l *Ledger) Flags(ctx context.Context) (Versioned[Flags], error) {
	e, err := l.topology.Get(ctx, keyFlags)
	if errors.Is(err, bus.ErrNotFound) {
		return Versioned[Flags]{}, nil
	}
	if err != nil {
		return Versioned[Flags]{}, fmt.Errorf("reading the flags: %w", err)
	}
	return decode[Flags](e)
}

// ChangeFlags applies a change to the flags and stores them.
func (l *Ledger) ChangeFlags(ctx context.Context, change func(*Flags)) error {
	for {
		v, err := l.Flags(ctx)
		if err != nil {
			return err
		}
		change(&v.Value)
		raw, err := json.Marshal(v.Value)
		if err != nil {
			return fmt.Errorf("storing the flags: %w", err)
		}
		if v.Revision == 0 {
			_, err = l.topology.Create(ctx, keyFlags, raw)
		} else {
			_, err = l.topology.Update(ctx, keyFlags, raw, v.Revision)
		}
		if err == nil {
			return nil
		}
		if !errors.Is(conflict(err), ErrConflict) {
			return fmt.Errorf("storing the flags: %w", err)
		}
	}
}
