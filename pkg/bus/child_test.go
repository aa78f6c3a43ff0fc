package bus_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
)

// The test binary plays other processes: childRole says which, childDir is the
// data directory.
const (
	childRole = "BUS_TEST_CHILD"
	childDir  = "BUS_TEST_DIR"
)

func runChild(role string) int {
	if err := map[string]func(string) error{"start": childStart, "write": childWrite}[role](os.Getenv(childDir)); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

// childStart starts a server and stops it.
func childStart(dir string) error {
	s, err := bus.StartServer(context.Background(), bus.ServerOptions{Dir: dir})
	if err != nil {
		return err
	}
	return s.Close(context.Background())
}

// childWrite hosts a server and writes for ever, printing what was acknowledged.
func childWrite(dir string) error {
	ctx := context.Background()
	s, err := bus.StartServer(ctx, bus.ServerOptions{Dir: dir})
	if err != nil {
		return err
	}
	b, err := bus.Connect(ctx, bus.Options{Server: s})
	if err != nil {
		return err
	}
	if err := b.Apply(ctx, 0); err != nil {
		return err
	}
	for i := 0; ; i++ {
		sequence, err := b.Log(events.StreamAudit).Append(ctx, events.AuditSubject("op"), "", text("%d", i))
		if err != nil {
			return err
		}
		revision, err := b.Bucket(events.BucketOperations).Create(ctx, fmt.Sprintf("op.%d", i), text("%d", i))
		if err != nil {
			return err
		}
		operation := fmt.Sprint("op-", i)
		held, err := b.Scopes().Take(ctx, operation, bus.Message{Subject: events.CommandSubject("kind", operation)},
			[]string{fmt.Sprint("circle/", 2*i), fmt.Sprint("circle/", 2*i+1)})
		if err != nil {
			return err
		}
		fmt.Println(i, sequence, revision, held[0])
	}
}

// child prepares this binary to play a role.
func child(t *testing.T, role, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childRole+"="+role, childDir+"="+dir)
	return cmd
}

// lines reads a child's output line by line.
func lines(t *testing.T, cmd *exec.Cmd) *bufio.Scanner {
	t.Helper()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	return bufio.NewScanner(out)
}
