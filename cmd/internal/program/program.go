// Package program is what Ringmaster's servers have in common: flags that can
// also be given in the environment, usage errors that name every mistake at
// once, a JSON log on stderr, and exit codes.
package program

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// Exit codes of both servers.
const (
	ExitStopped = 0
	ExitFailed  = 1
	ExitUsage   = 2
)

// UsageError is a wrong command line, environment or configuration. Its text
// names every mistake, one a line.
type UsageError struct{ Mistakes []string }

func (e *UsageError) Error() string { return strings.Join(e.Mistakes, "\n") }

// ErrDone ends a program that has done what it was asked for, such as -version.
var ErrDone = errors.New("done")

// EnvPrefix begins the environment variable of a flag: -nats-listen is
// RINGMASTER_NATS_LISTEN.
const EnvPrefix = "RINGMASTER_"

// Parse reads the flags of fs from the environment and then from args, which
// win. help is printed before the flags' own texts.
func Parse(fs *flag.FlagSet, help string, args, environ []string, out io.Writer) error {
	fs.Init(fs.Name(), flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	known := map[string]string{}
	fs.VisitAll(func(f *flag.Flag) {
		known[EnvPrefix+strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))] = f.Name
	})
	usage := &UsageError{}
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		flagName, ok := known[name]
		if !ok {
			continue
		}
		if err := fs.Set(flagName, value); err != nil {
			usage.Mistakes = append(usage.Mistakes, fmt.Sprintf("environment variable %s: %v", name, err))
		}
	}
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(out, help, "\nFlags (each also in the environment as "+EnvPrefix+"<FLAG>):\n")
		fs.SetOutput(out)
		fs.PrintDefaults()
		return ErrDone
	}
	if err != nil {
		usage.Mistakes = append(usage.Mistakes, err.Error())
	}
	if fs.NArg() > 0 {
		usage.Mistakes = append(usage.Mistakes, fmt.Sprintf("%q is not a flag; -help lists them", fs.Arg(0)))
	}
	if len(usage.Mistakes) > 0 {
		return usage
	}
	return nil
}

// Logger returns the program's log.
func Logger(w io.Writer, level slog.Level, name string) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})).With("program", name)
}

// Main runs a program until it ends or is told to stop by SIGTERM or SIGINT,
// and exits. A second signal ends it at once.
func Main(name string, run func(ctx context.Context, args, environ []string, out, log io.Writer) error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // told to stop while it was starting
	}
	stop()
	os.Exit(Exit(name, err, os.Stderr))
}

// Exit reports how a program ended and returns its exit code.
func Exit(name string, err error, w io.Writer) int {
	var usage *UsageError
	switch {
	case err == nil, errors.Is(err, ErrDone):
		return ExitStopped
	case errors.As(err, &usage):
		for _, m := range usage.Mistakes {
			fmt.Fprintf(w, "%s: %s\n", name, m)
		}
		return ExitUsage
	default:
		fmt.Fprintf(w, "%s: %v\n", name, err)
		return ExitFailed
	}
}
