// Command worker carries out tasks. Start as many as wanted, anywhere, with the
// same NATS servers and the same key file.
package main

import (
	"context"
	"io"

	"ringmaster/cmd/internal/program"
)

func main() { program.Main("worker", run) }

// run is the program: its errors decide the exit code.
func run(ctx context.Context, args, environ []string, out, log io.Writer) error {
	o, err := parseOptions(args, environ, out)
	if err != nil {
		return err
	}
	logger := program.Logger(log, o.logLevel, "worker")
	return program.Ended(ctx, work(ctx, o, logger, out), logger)
}
