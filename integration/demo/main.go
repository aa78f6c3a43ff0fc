// Command demo shows what Ringmaster is for, on this machine and in a few
// minutes: real InfluxDB servers with real measurements, a circle that grows by a
// backend, a rebalance from which a worker is killed half-way, the verification
// report, and a check of the result that asks the servers without Ringmaster.
//
//	go run ./integration/demo
//	KEEP=1 go run ./integration/demo     leaves everything running
//
// Otherwise nothing is left behind, however it ends. The exit code is 0 only if
// the move succeeded and the check agrees.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	// SIGPIPE too: whoever reads the output may go before the end.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// options say how large the demonstration is and what stays.
type options struct {
	measurements, points int
	lease                time.Duration
	bin                  string
	keep                 bool
}

func parseOptions(args []string, getenv func(string) string) (options, error) {
	var o options
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	fs.IntVar(&o.measurements, "measurements", 60, "generated measurements beside the public data sets, `N`")
	fs.IntVar(&o.points, "points", 50_000, "points of each of them, `N`")
	fs.DurationVar(&o.lease, "lease", 3*time.Second, "how long the work of a dead worker lies idle, as a `DURATION`")
	fs.StringVar(&o.bin, "bin", "", "`DIR` with the programs api and worker (default: built into bin)")
	fs.BoolVar(&o.keep, "keep", false, "leave everything running (also: KEEP=1 in the environment)")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("%q is not a flag; -help lists them", fs.Arg(0))
	}
	if o.measurements < 1 || o.points < 1 {
		return o, errors.New("-measurements and -points: use positive numbers")
	}
	if text := getenv("KEEP"); text != "" {
		keep, err := strconv.ParseBool(text)
		if err != nil {
			return o, fmt.Errorf("KEEP=%q: use 1 or 0", text)
		}
		o.keep = o.keep || keep
	}
	return o, nil
}

// run is the program: its error decides the exit code.
func run(ctx context.Context, args []string, getenv func(string) string, out io.Writer) error {
	o, err := parseOptions(args, getenv)
	if err != nil {
		return err
	}
	d := &demo{options: o, out: out}
	return d.run(ctx)
}
