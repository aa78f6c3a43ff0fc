//go:build unix

package replay_test

import (
	"os"
	"syscall"
	"testing"
)

// stopSignals stop a process and let it go on.
func stopSignals(*testing.T) (stop, cont os.Signal) { return syscall.SIGSTOP, syscall.SIGCONT }
