// Package integration_test shows the whole: the real programs, real InfluxDB
// servers and the embedded NATS, each in a process of its own.
package integration_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
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
