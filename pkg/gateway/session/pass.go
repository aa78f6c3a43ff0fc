package session

import (
	"fmt"
	"sync"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/serving"
)

// Pass is a write or a read that goes on under one view.
type Pass struct {
	session *Session
	tenure  *Tenure
	in      *generation
	count   func(*generation) *int
	ended   sync.Once
}

// View is the view to route by.
func (p *Pass) View() *serving.View { return p.in.view }

// Held returns nil while the session has lived on end since the pass began. Once it
// has not, nobody has waited for what goes on under the pass: a write must not be
// acknowledged, and what was read may be what there was before.
func (p *Pass) Held() error { return p.tenure.Held() }

// Tenure is a time for which a session lives on end.
type Tenure struct {
	session *Session
	lease   *bus.Lease
}

// Tenure returns the present one, which is over if the session does not live.
func (s *Session) Tenure() *Tenure {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tenure
}

// Held returns nil while the tenure lasts, and then ErrNotServing with the reason. It
// is cheap and does not wait. A tenure that is nil does not end.
func (t *Tenure) Held() error {
	if t == nil {
		return nil
	}
	t.session.mu.Lock()
	defer t.session.mu.Unlock()
	if t.session.lease == t.lease {
		return t.session.serving()
	}
	return fmt.Errorf("%w: its session has run out in the meantime", ErrNotServing)
}

// End says that nothing of it goes on any more. It may be called more than once.
func (p *Pass) End() {
	p.ended.Do(func() {
		p.session.mu.Lock()
		defer p.session.mu.Unlock()
		*p.count(p.in)--
		p.session.left(p.in)
	})
}

// BeginWrite enters a write under the view in force. Its End must follow when
// every backend has answered, or has hints, or has failed. It returns ErrNotServing
// with the reason when this process must not serve.
func (s *Session) BeginWrite() (*Pass, error) {
	return s.begin(func(g *generation) *int { return &g.writes })
}

// BeginRead enters a read under the view in force; see BeginWrite.
func (s *Session) BeginRead() (*Pass, error) {
	return s.begin(func(g *generation) *int { return &g.reads })
}

func (s *Session) begin(count func(*generation) *int) (*Pass, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.serving(); err != nil {
		return nil, err
	}
	g := s.generations[len(s.generations)-1]
	*count(g)++
	return &Pass{session: s, tenure: s.tenure, in: g, count: count}, nil
}

// BeginSend is asked immediately before anything is stored at a backend or among
// its hints. It returns the mode in force: what does not fit it must not be done,
// and is tried again when Changed says so. end must be called when that one request
// is over.
func (s *Session) BeginSend(backend string) (mode serving.Mode, end func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.serving(); err != nil {
		return "", nil, err
	}
	g := s.generations[len(s.generations)-1]
	g.sends[backend]++
	var once sync.Once
	return g.view.Mode(backend), func() {
		once.Do(func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if g.sends[backend]--; g.sends[backend] == 0 {
				delete(g.sends, backend)
			}
			s.left(g)
		})
	}, nil
}

// left has others told when something of an older generation is over; mu is held.
func (s *Session) left(g *generation) {
	if g == s.generations[len(s.generations)-1] {
		return
	}
	s.forget()
	s.signal()
}
