package session

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"

	"ringmaster/pkg/serving"
)

// Exclude keeps every process from writing to a database. It returns when no write
// to it goes on that was begun before, in any of them; from then on writes wait
// until end is called, or until this process's session has ended. The error wraps
// serving.ErrStep while another statement excludes the same database.
func (s *Session) Exclude(ctx context.Context, db string) (end func(), err error) {
	e := serving.Exclusive{ID: uuid.NewString(), Process: s.options.ID, Database: db, Since: time.Now().UTC()}
	s.mu.Lock()
	s.excluding[e.ID] = true
	s.mu.Unlock()
	end = sync.OnceFunc(func() {
		s.mu.Lock()
		delete(s.excluding, e.ID)
		s.mu.Unlock()
		// Whoever gave up waiting for the statement does not keep it at work. What
		// can't be stored now is taken back when the session is kept again.
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.options.Leases.TTL())
		defer cancel()
		if err := s.forgetStatements(call); err != nil {
			s.options.Logger.WarnContext(ctx, "letting writes pass after a statement", "database", db, "error", err)
		}
	})
	view, err := s.Change(ctx, func(v *serving.View) (serving.State, error) { return v.State.WithExclusive(e) })
	if err == nil {
		err = s.AwaitWrites(ctx, view.Revision)
	}
	if err != nil {
		end()
		return nil, err
	}
	return end, nil
}

// forgetStatements takes back this process's statements that are not at work.
func (s *Session) forgetStatements(ctx context.Context) error {
	_, err := s.Change(ctx, func(v *serving.View) (serving.State, error) {
		state := v.State
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, e := range v.State.Exclusive {
			if e.Process == s.options.ID && !s.excluding[e.ID] {
				state = state.WithoutExclusive(e.ID)
			}
		}
		return state, nil
	})
	return err
}

// leftStatements reports whether a statement of this process is not at work.
func (s *Session) leftStatements() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.generations[len(s.generations)-1].view.State.Exclusive {
		if e.Process == s.options.ID && !s.excluding[e.ID] {
			return true
		}
	}
	return false
}
