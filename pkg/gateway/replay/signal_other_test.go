//go:build !unix

package replay_test

import (
	"os"
	"testing"
)

func stopSignals(t *testing.T) (stop, cont os.Signal) {
	t.Helper()
	t.Skip("a process can be stopped on Unix only")
	return nil, nil
}
