// Command bench measures Ringmaster against something bare on the same machine, in
// the same run. For moves that is a loop that reads msgpack from one InfluxDB and
// writes line protocol to another, with no engine, no checkpoint and no verification;
// for the data plane it is one InfluxDB that is asked directly. It prints ratios;
// docs/performance.md says how to read and repeat them.
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
	"slices"
	"strings"
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
	tasks := fs.Int("tasks", 10_000, "empty tasks of the engine's overhead")
	rounds := fs.Int("rounds", 3, "how often each move is measured; the median counts")
	whole := fs.Bool("whole", false, "let the operation of ten slices for each of -many measurements run to its end")
	profiles := fs.String("profiles", "", "keep CPU profiles of the api under the loads of the data plane in `DIR`")
	only := fs.String("only", "", "the `PARTS` to measure, separated by commas: "+strings.Join(parts(), ", ")+" (default: all)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	chosen := parts()
	if *only != "" {
		chosen = strings.Split(*only, ",")
	}
	for _, part := range chosen {
		if !slices.Contains(parts(), part) {
			return fmt.Errorf("-only: there is no part %q; the parts are %s", part, strings.Join(parts(), ", "))
		}
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
	b := &bench{ctx: ctx, out: out, dir: dir, bin: bin, rounds: *rounds, whole: *whole, profiles: *profiles}
	usual := set{name: fmt.Sprintf("%d measurements of %d points", *measurements, *points), measurements: *measurements, points: *points}
	huge := set{name: fmt.Sprintf("one measurement of %d points", *large), measurements: 1, points: *large}
	for _, part := range chosen {
		var err error
		switch part {
		case partRebalance:
			err = b.moves(usual)
		case partLarge:
			if *large > 0 {
				err = b.moves(huge)
			}
		case partRecovery:
			err = b.recovery(usual)
		case partResync:
			err = b.resync(usual)
		case partClear:
			err = b.clearing(usual)
		case partPlanning:
			if *many > 0 {
				err = b.planning(*many)
			}
		case partOverhead:
			err = b.overhead(*tasks)
		case partWorkers:
			err = b.scale()
		case partMillion:
			err = b.million(*many)
		case partPollers:
			err = b.pollers(usual)
		case partLimit:
			err = b.limit(usual)
		case partWrite:
			err = b.write()
		case partLines:
			err = b.lines()
		case partConflicts:
			err = b.conflicts()
		case partQuery:
			err = b.query()
		case partDown:
			err = b.down()
		case partIdle:
			err = b.idle()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	return nil
}

// The parts of the benchmark.
const (
	partRebalance = "rebalance"
	partLarge     = "large"
	partRecovery  = "recovery"
	partResync    = "resync"
	partClear     = "clear"
	partPlanning  = "planning"
	partOverhead  = "overhead"
	partWorkers   = "workers"
	partMillion   = "million"
	partPollers   = "pollers"
	partLimit     = "limit"
	// Those of the data plane.
	partWrite     = "write"
	partLines     = "lines"
	partConflicts = "conflicts"
	partQuery     = "query"
	partDown      = "down"
	partIdle      = "idle"
)

// parts are all parts, in order.
func parts() []string {
	return []string{
		partRebalance, partLarge, partRecovery, partResync, partClear, partPlanning,
		partOverhead, partWorkers, partMillion, partPollers, partLimit,
		partWrite, partLines, partConflicts, partQuery, partDown, partIdle,
	}
}
