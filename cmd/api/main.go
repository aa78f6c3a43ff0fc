// Command api serves all dialects on one port. Without a NATS URL it starts an
// embedded JetStream and a worker pool, so that one binary is a whole system.
package main

import (
	"context"
	"io"
	"log/slog"

	"ringmaster/cmd/internal/program"
)

func main() { program.Main("api", run) }

// run is the program: its errors decide the exit code.
func run(ctx context.Context, args, environ []string, out, log io.Writer) error {
	o, err := parseOptions(args, environ, out)
	if err != nil {
		return err
	}
	logger := program.Logger(log, o.logLevel, "api")
	for _, w := range o.config.Warnings {
		logger.WarnContext(ctx, "configuration", "warning", w.String())
	}
	for _, left := range leftovers(o.data, o.config.DataDir) {
		logger.WarnContext(ctx, "data directory", "warning", left)
	}
	s, err := newSystem(ctx, o, logger)
	if err == nil {
		err = s.serve(ctx, func(address string) {
			logger.Log(ctx, slog.LevelInfo, "ready", "address", address)
			o.sayReady(out, address)
		})
	}
	return program.Ended(ctx, err, logger)
}
