package ingest

import (
	"ringmaster/pkg/gateway/session"
)

// Join returns the session of a process as the write path sees it.
func Join(s *session.Session) Session { return joined{s} }

type joined struct{ *session.Session }

// BeginWrite implements Session.
func (j joined) BeginWrite() (Pass, error) {
	p, err := j.Session.BeginWrite()
	if err != nil {
		return nil, err
	}
	return p, nil
}
