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
// win; an empty variable counts as none. help is printed before the flags' own
// texts, in which case the error is ErrDone. It returns what is wrong, every
// mistake; what could be read has been, so that its caller can look for more.
func Parse(fs *flag.FlagSet, help string, args, environ []string, out io.Writer) (mistakes []string, err error) {
	fs.Init(fs.Name(), flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	known := map[string]string{}
	fs.VisitAll(func(f *flag.Flag) {
		known[EnvPrefix+strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))] = f.Name
	})
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		flagName, ok := known[name]
		if !ok || value == "" {
			continue
		}
		if err := fs.Set(flagName, value); err != nil {
			mistakes = append(mistakes, fmt.Sprintf("environment variable %s: %v", name, err))
		}
	}
	for {
		err := fs.Parse(args)
		args = fs.Args()
		switch {
		case errors.Is(err, flag.ErrHelp):
			fmt.Fprint(out, help, "\nFlags (each also in the environment as "+EnvPrefix+"<FLAG>):\n")
			fs.SetOutput(out)
			fs.PrintDefaults()
			return nil, ErrDone
		case err != nil:
			mistakes = append(mistakes, err.Error())
			// What follows a flag that is not known is most likely its value.
			if strings.Contains(err.Error(), "not defined") && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
				args = args[1:]
			}
		case len(args) > 0:
			mistakes = append(mistakes, fmt.Sprintf("%q is not a flag; -help lists them", args[0]))
			args = args[1:]
		default:
			return mistakes, nil
		}
	}
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
	stop()
	os.Exit(Exit(name, err, os.Stderr))
}

// Ended is how a program's work has ended. A clean stop, also that of a program
// which was told to stop while it was starting, is nil and logged.
func Ended(ctx context.Context, err error, logger *slog.Logger) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil
	}
	if err == nil {
		logger.InfoContext(ctx, "stopped")
	}
	return err
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
