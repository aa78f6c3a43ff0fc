// Command bench measures Ringmaster against a bare loop on the same machine, in
// the same run: a loop that reads msgpack from one InfluxDB and writes line
// protocol to another, with no engine, no checkpoint and no verification. It
// prints ratios; docs/performance.md says how to read and repeat them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"ringmaster/integration/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	measurements := fs.Int("measurements", 21, "measurements of the first set")
	points := fs.Int("points", 50_000, "points of each of them")
	large := fs.Int("large", 5_000_000, "points of the one large measurement; 0 leaves it out")
	many := fs.Int("many", 100_000, "measurements to plan; 0 leaves it out")
	rounds := fs.Int("rounds", 3, "how often each move is measured; the median counts")
	if err := fs.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ringmaster-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	bin := filepath.Join(dir, "bin")
	if err := harness.BuildPrograms(ctx, bin); err != nil {
		return err
	}
	b := &bench{ctx: ctx, out: out, dir: dir, bin: bin, rounds: *rounds}
	sets := []set{{name: fmt.Sprintf("%d measurements of %d points", *measurements, *points), measurements: *measurements, points: *points}}
	if *large > 0 {
		sets = append(sets, set{name: fmt.Sprintf("one measurement of %d points", *large), measurements: 1, points: *large})
	}
	for _, s := range sets {
		if err := b.moves(s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if *many > 0 {
		return b.planning(*many)
	}
	return nil
}
