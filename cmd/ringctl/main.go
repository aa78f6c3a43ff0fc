// Command ringctl is the command line of Ringmaster: a thin client of the native
// HTTP API that shows beforehand what an operation will do, follows it, steers it
// and tells what came of it.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program; it returns the exit code, which exit.go explains.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	command, code := parse(args, stdout, stderr)
	if command == nil {
		return code
	}
	a, err := newApp(ctx, command.globals(), stdin, stdout, stderr)
	if err == nil {
		err = command.run(a)
	}
	return conclude(ctx, err, command.globals().Output, stderr)
}
