package bus

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// ErrNoSpace says that the disk of the store is nearly full.
var ErrNoSpace = errors.New("the disk is nearly full")

// SpaceError says how nearly; it matches ErrNoSpace.
type SpaceError struct {
	Dir           string
	Free, MinFree int64
}

// Error names the directory, what is free and what must be.
func (e *SpaceError) Error() string {
	return fmt.Sprintf("%v: %d bytes are free in %s, %d must be", ErrNoSpace, e.Free, e.Dir, e.MinFree)
}

// Is makes errors.Is(err, ErrNoSpace) true.
func (e *SpaceError) Is(target error) bool { return target == ErrNoSpace }

const (
	maxMinFree  = 256 << 20
	minFreePart = 20

	// watchInterval is how often it is looked whether JetStream is frozen; it is
	// restarted when that was seen twice.
	watchInterval = 2 * time.Second
	// restartPause is the least time between two restarts.
	restartPause = 20 * time.Second
)

// Disk is the room on the disk of a directory.
type Disk struct {
	Dir        string
	Free, Size int64
	// MinFree is what has to stay free.
	MinFree int64
}

// DiskOf reads how much room there is in a directory.
func DiskOf(dir string) (Disk, error) {
	free, size, err := diskSpace(dir)
	if err != nil {
		return Disk{}, fmt.Errorf("reading the free space of %s: %w", dir, err)
	}
	return Disk{Dir: dir, Free: free, Size: size, MinFree: min(maxMinFree, size/minFreePart)}, nil
}

// Disk reads how much room the store has.
func (s *Server) Disk() (Disk, error) {
	d, err := DiskOf(filepath.Join(s.dir, "jetstream"))
	if s.minFree != 0 {
		d.MinFree = s.minFree
	}
	return d, err
}

// Space returns a *SpaceError when, after more bytes have been written, less of the
// store's disk would be free than has to be. Whoever stores much asks before: on a
// disk that is full JetStream acknowledges nothing, without saying so.
func (s *Server) Space(more int64) error {
	d, err := s.Disk()
	if err != nil {
		return err
	}
	if d.Free-more < d.MinFree {
		return &SpaceError{Dir: d.Dir, Free: d.Free, MinFree: d.MinFree + more}
	}
	return nil
}

// Frozen returns why JetStream stores nothing any more, nil if nothing speaks for
// that: a write to disk has failed once, for a full disk or another reason, and the
// server does not try again on its own. Publishes then time out.
func (s *Server) Frozen() error {
	health := s.current().Healthz(&natsserver.HealthzOptions{Details: true})
	for _, e := range health.Errors {
		if e.Type == natsserver.HealthzErrorJetStream || strings.Contains(e.Error, "write error") {
			return errors.New(e.Error)
		}
	}
	return nil
}

// Restart shuts the server down and starts it again on the same address. What was
// acknowledged is there afterwards; connections come back by themselves. If it does
// not start, it may be tried again.
func (s *Server) Restart(ctx context.Context) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("restarting NATS: %w", err)
	}
	shutDown(s.current())
	if err := s.start(ctx); err != nil {
		return fmt.Errorf("restarting NATS: %w", err)
	}
	return nil
}

// watch restarts JetStream when it is frozen and there is space, until ctx ends.
func (s *Server) watch(ctx context.Context) {
	var w watchman
	var next time.Time
	for pause(ctx, watchInterval) == nil {
		if !w.wants(ctx, s) || time.Now().Before(next) {
			continue
		}
		next = time.Now().Add(restartPause)
		s.logger.ErrorContext(ctx, "restarting JetStream")
		if err := s.Restart(ctx); err != nil {
			w.down = true
			s.logger.ErrorContext(ctx, "JetStream does not start", "error", err)
			continue
		}
		w = watchman{}
		s.logger.InfoContext(ctx, "JetStream was restarted")
	}
}

// watchman is what watching has seen so far.
type watchman struct {
	down bool // a restart has failed
	seen int  // how often it was frozen, on end
	told bool // that it waits for space
}

// wants reports whether the server should be restarted.
func (w *watchman) wants(ctx context.Context, s *Server) bool {
	if w.down {
		return true
	}
	frozen := s.Frozen()
	if frozen == nil {
		*w = watchman{}
		return false
	}
	if w.seen++; w.seen < 2 {
		return false
	}
	err := s.Space(0)
	if !w.told {
		s.logger.ErrorContext(ctx, "JetStream stores nothing any more", "error", frozen, "space", err)
		w.told = true
	}
	return err == nil
}
