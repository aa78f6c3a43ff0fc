package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// SealContext binds the credentials sealed in topology records to these records.
const SealContext = "ringmaster.topology"

const (
	keyCurrent = "current"
	keyFlags   = "flags"
)

// Epochs is the current topology and those before it, and how traffic is served
// while it changes: one record, so that a change of one is never seen without
// that of the other.
type Epochs struct {
	Current *topology.Topology  `json:"current"`
	Earlier []topology.Ancestor `json:"earlier"`
	Serving serving.State       `json:"serving"`
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
	epochs, err := l.Topology(ctx)
	if err != nil {
		return nil, err
	}
	if current := epochs.Value.Current; current != nil && current.Epoch == epoch {
		return current, nil
	}
	e, err := l.topology.Get(ctx, epochKey(epoch))
	if err != nil {
		return nil, fmt.Errorf("reading topology epoch %d: %w", epoch, err)
	}
	v, err := decode[*topology.Topology](e)
	return v.Value, err
}

func epochKey(epoch uint64) string { return "epoch." + strconv.FormatUint(epoch, 10) }

// StoreTopology makes next, whose credentials must be sealed, the current
// topology over the revision that was read, with the state of serving that follows
// from it; ErrConflict when another process was first. An epoch gets a record of
// its own when it is about to be followed by another: until then several processes
// may still disagree about what it is.
func (l *Ledger) StoreTopology(ctx context.Context, was Versioned[Epochs], next *topology.Topology, state serving.State) error {
	epochs := Epochs{Current: next, Earlier: was.Value.Earlier, Serving: state}
	if current := was.Value.Current; current != nil && current.Epoch != next.Epoch {
		raw, err := json.Marshal(current)
		if err != nil {
			return fmt.Errorf("storing topology epoch %d: %w", current.Epoch, err)
		}
		if err := l.put(ctx, l.topology, epochKey(current.Epoch), raw); err != nil {
			return fmt.Errorf("storing topology epoch %d: %w", current.Epoch, err)
		}
		epochs.Earlier = append(slices.Clone(was.Value.Earlier), topology.Ancestor{Epoch: current.Epoch, Digest: current.Digest})
	}
	return l.storeEpochs(ctx, was.Revision, epochs)
}

// StoreServing replaces the state of serving, whose credentials must be sealed, over
// the revision that was read; ErrConflict when another process was first.
func (l *Ledger) StoreServing(ctx context.Context, was Versioned[Epochs], state serving.State) error {
	epochs := was.Value
	epochs.Serving = state
	return l.storeEpochs(ctx, was.Revision, epochs)
}

func (l *Ledger) storeEpochs(ctx context.Context, was uint64, epochs Epochs) error {
	raw, err := json.Marshal(epochs)
	if err != nil {
		return fmt.Errorf("storing the topology: %w", err)
	}
	if was == 0 {
		_, err = l.topology.Create(ctx, keyCurrent, raw)
	} else {
		_, err = l.topology.Update(ctx, keyCurrent, raw, was)
	}
	if err != nil {
		return fmt.Errorf("storing the topology: %w", conflict(err))
	}
	return nil
}

// WatchTopology delivers a hint whenever the record of Topology, or the flags,
// have changed, until ctx ends and the channel is closed. Whoever relies on a
// change polls as well; see bus.Bucket.Watch.
func (l *Ledger) WatchTopology(ctx context.Context) (<-chan bus.Entry, error) {
	return l.topology.Watch(ctx, "")
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
