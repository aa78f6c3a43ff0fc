// Package integration_test shows the whole: the real programs, real InfluxDB
// servers and the embedded NATS, each in a process of its own.
package integration_test

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"ringmaster/integration/harness"
	"ringmaster/pkg/influx/influxtest"
)

// binDir holds the programs, built once for all tests.
var binDir string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "ringmaster-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binDir = dir
	var flags []string
	if raceEnabled {
		flags = append(flags, "-race")
	}
	if err := noteSources(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := harness.BuildPrograms(ctx, binDir, flags...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if _, err := influxtest.Build(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines are left over:", err)
			return 1
		}
	}
	return code
}

// noteSources looks at every source of the programs, so that the Go tool knows
// that the result of these tests rests on them and does not take it from its
// cache when one has changed.
func noteSources() error {
	root, err := harness.Root()
	if err != nil {
		return err
	}
	for _, dir := range []string{"cmd", "events", "pkg"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("looking at the sources: %w", err)
		}
	}
	return nil
}
