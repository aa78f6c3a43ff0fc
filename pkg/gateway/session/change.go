package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"ringmaster/pkg/ledger"
	"ringmaster/pkg/serving"
)

// Change applies a change to the shared state by compare-and-set, and returns the
// view in force in this process then. change gets the latest view, is called again
// when another process was first, and ends it with an error. A state that is
// returned as it was is not stored.
func (s *Session) Change(ctx context.Context, change func(*serving.View) (serving.State, error)) (*serving.View, error) {
	s.storing.Lock()
	defer s.storing.Unlock()
	for {
		was, err := s.options.Ledger.Topology(ctx)
		if err != nil {
			return nil, err
		}
		if was.Value.Current == nil {
			return nil, errNoTopology
		}
		view, err := s.open(was)
		if err != nil {
			return nil, err
		}
		next, err := change(view)
		if err != nil {
			return nil, err
		}
		same, err := equal(&view.State, &next)
		if err != nil {
			return nil, err
		}
		if same {
			return view, s.install(was)
		}
		sealed, err := next.Sealed(s.options.Sealer, ledger.SealContext)
		if err != nil {
			return nil, err
		}
		err = s.options.Ledger.StoreServing(ctx, was, sealed)
		if errors.Is(err, ledger.ErrConflict) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := s.refresh(ctx); err != nil {
			return nil, err
		}
		return s.View(), nil
	}
}

func equal(a, b *serving.State) (bool, error) {
	one, err := json.Marshal(a)
	if err != nil {
		return false, err
	}
	other, err := json.Marshal(b)
	return string(one) == string(other), err
}

// AwaitSends returns when no process stores anything at a backend, or among its
// hints, by the mode it had in a revision older than this one.
func (s *Session) AwaitSends(ctx context.Context, revision uint64) error {
	return s.await(ctx, revision, func(p presence) uint64 { return p.Sends })
}

// AwaitWrites returns when no write goes on that was routed by a revision older
// than this one, in any process whose session lives.
func (s *Session) AwaitWrites(ctx context.Context, revision uint64) error {
	return s.await(ctx, revision, func(p presence) uint64 { return p.Writes })
}

// AwaitReads is AwaitWrites for reads.
func (s *Session) AwaitReads(ctx context.Context, revision uint64) error {
	return s.await(ctx, revision, func(p presence) uint64 { return p.Reads })
}

// Sessions are looked at that often while they are waited for: at first at once,
// for most have left within a write's time.
const (
	firstLook = 2 * time.Millisecond
	lastLook  = 100 * time.Millisecond
)

func (s *Session) await(ctx context.Context, revision uint64, passed func(presence) uint64) error {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s to pass revision %d: %w", s.behind(ctx, revision, passed), revision, context.Cause(ctx))
		case <-pause.C:
		}
		behind, err := s.listBehind(ctx, revision, passed)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if err == nil && len(behind) == 0 {
			return nil
		}
		pause.Reset(wait)
	}
}

// behind names for a person who has not passed a revision.
func (s *Session) behind(ctx context.Context, revision uint64, passed func(presence) uint64) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	behind, err := s.listBehind(ctx, revision, passed)
	if err != nil || len(behind) == 0 {
		return "other processes"
	}
	return strings.Join(behind, ", ")
}

func (s *Session) listBehind(ctx context.Context, revision uint64, passed func(presence) uint64) ([]string, error) {
	var behind []string
	for e, err := range s.options.Leases.Bucket().List(ctx, ledger.ProcessLeases()) {
		if err != nil {
			return nil, fmt.Errorf("listing the sessions: %w", err)
		}
		p := presence{ID: e.Key}
		if err := json.Unmarshal(e.Value, &p); err != nil || passed(p) < revision {
			behind = append(behind, p.ID)
		}
	}
	return behind, nil
}
