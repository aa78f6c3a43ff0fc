package integration_test

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// smallDisk mounts a disk of its own below the data directory of an installation.
func (in *installation) smallDisk(size string) {
	in.t.Helper()
	in.embedded()
	if os.Geteuid() != 0 {
		in.t.Skip("a disk that can be filled has to be mounted, which needs root")
	}
	require.NoError(in.t, os.MkdirAll(in.DataDir(), 0o750))
	if err := syscall.Mount("tmpfs", in.DataDir(), "tmpfs", 0, "mode=0750,size="+size); err != nil {
		in.t.Skipf("a disk that can be filled can't be mounted here: %v", err)
	}
	in.t.Cleanup(func() {
		in.close() // what uses it ends first
		require.NoError(in.t, syscall.Unmount(in.DataDir(), 0))
	})
}

// free is how much room there is.
func (in *installation) free() int64 {
	in.t.Helper()
	var s syscall.Statfs_t
	require.NoError(in.t, syscall.Statfs(in.DataDir(), &s))
	return int64(s.Bavail) * s.Bsize
}

// fill leaves that much room, and returns what makes room again.
func (in *installation) fillDisk(leave int64) (release func()) {
	in.t.Helper()
	path := filepath.Join(in.DataDir(), "ballast")
	f, err := os.Create(path)
	require.NoError(in.t, err)
	defer f.Close()
	for in.free() > leave {
		_, err := io.CopyN(f, zeros{}, min(in.free()-leave, 1<<20))
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		require.NoError(in.t, err)
	}
	return func() { require.NoError(in.t, os.Remove(path)) }
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// The disk under the hints runs full, to the margin that is kept free or to its last
// byte, while a backend is down and its points pile up there.
func TestCrashOfADiskFullOfHintsUnderWrites(t *testing.T) {
	t.Parallel()
	s := newDurable(t)
	s.smallDisk("96m")
	s.begin()
	s.rounds(func() {
		down := s.victim()
		down.Kill()
		s.awaitMode(down, "hinting")
		s.doom()
		s.writes(1 + s.dice.IntN(20))
		leave := int64(3 << 20)
		if s.dice.IntN(2) == 0 {
			leave = 0
		}
		release := s.fillDisk(leave)
		// Whatever else it does, it refuses what it has no room for.
		requireNoRoom(s, down)
		s.passes(2 * time.Second)
		if s.dice.IntN(3) == 0 {
			s.API.Kill()
			release()
			s.startAPI()
		} else {
			release()
		}
		if s.dice.IntN(2) == 0 {
			s.writes(1 + s.dice.IntN(20))
		}
		down.Restart()
	})
}

// requireNoRoom waits until a write for the backend is refused, with the reason.
func requireNoRoom(s *durable, down *backend) {
	s.t.Helper()
	var last string
	require.True(s.t, waitFor(s.t, func() bool {
		var lines strings.Builder
		for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			lines.WriteString("room-" + name + " value=1i 1\n") // one of them is the backend's
		}
		var status int
		status, last = s.writeOnce(durableDB, lines.String())
		return status == http.StatusServiceUnavailable && (strings.Contains(last, "the disk is nearly full") || strings.Contains(last, "its session has run out"))
	}), "%s is down, the disk is full, and nobody says so: %s", down.URL(), last)
}
