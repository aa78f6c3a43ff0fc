package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sync/errgroup"

	"ringmaster/cmd/internal/program"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/secrets"
)

const help = `worker carries out the tasks of Ringmaster's operations.

  worker -data /var/lib/ringmaster       beside an api on this host
  worker -nats nats://n1:4222,nats://n2:4222 -key-file /etc/ringmaster/key
  worker -data /var/lib/ringmaster -slots 4 -listen 127.0.0.1:9476
`

// options is what flags and environment say.
type options struct {
	nats           string
	data           string
	keyFile        string
	slots          int
	listen         string
	patience       time.Duration
	errorLimit     time.Duration
	backendTimeout time.Duration
	logLevel       slog.Level
}

func parseOptions(args, environ []string, out io.Writer) (*options, error) {
	o := &options{}
	var version bool
	fs := flag.NewFlagSet("worker", flag.ContinueOnError)
	fs.StringVar(&o.nats, "nats", "", "NATS `URL`s, separated by commas")
	fs.StringVar(&o.data, "data", "", "data `DIR` of an api on this host, which says how to reach its JetStream")
	fs.StringVar(&o.keyFile, "key-file", "", "`FILE` of the key that opens credentials in records (default DIR/key)")
	fs.IntVar(&o.slots, "slots", runtime.NumCPU(), "how many tasks run at once, `N`")
	fs.StringVar(&o.listen, "listen", "", "`ADDR` of health and metrics (default: none)")
	fs.DurationVar(&o.errorLimit, "error-limit", 0, program.ErrorLimitHelp)
	fs.DurationVar(&o.patience, "patience", 0, "how long a backend that refuses is tried again before its tasks fail, as a `DURATION` (default 2m; five times as long for one that does not answer)")
	fs.DurationVar(&o.backendTimeout, "backend-timeout", 0, "how long a backend may be silent in the middle of a request, as a `DURATION` (default 30s)")
	fs.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "`LEVEL` of the log: debug, info, warn or error")
	fs.BoolVar(&version, "version", false, "print the version and exit")
	mistakes, err := program.Parse(fs, help, args, environ, out)
	if err != nil {
		return nil, err
	}
	if version {
		fmt.Fprintln(out, "ringmaster worker", program.Version())
		return nil, program.ErrDone
	}
	usage := &program.UsageError{Mistakes: append(mistakes, program.DurationMistakes(fs, program.BackendBounds()...)...)}
	wrong := func(format string, a ...any) { usage.Mistakes = append(usage.Mistakes, fmt.Sprintf(format, a...)) }
	if o.nats == "" && o.data == "" {
		wrong("-nats or -data is missing: name the NATS servers, or the data directory of an api on this host")
	}
	if o.nats != "" {
		if m := program.NATSMistake(o.nats); m != "" {
			wrong("-nats: %s", m)
		}
	}
	if o.listen != "" {
		if m := program.ListenMistake(o.listen); m != "" {
			wrong("-listen: %s", m)
		}
	}
	if o.keyFile == "" {
		if o.data == "" {
			wrong("-key-file is missing: name a copy of the api's key file")
		}
		o.keyFile = filepath.Join(o.data, "key")
	}
	if o.slots < 1 || o.slots > maxSlots {
		wrong("-slots %d: use a number from 1 to %d", o.slots, maxSlots)
	}
	if len(usage.Mistakes) > 0 {
		return nil, usage
	}
	return o, nil
}

const maxSlots = 1024

// memoryLimit makes the collector work harder before the process grows beyond
// what a worker may take, 64 MiB for two slots.
func memoryLimit(slots int) int64 { return 40<<20 + int64(slots)*6<<20 }

// work connects, says so, and carries tasks out until ctx ends.
func work(ctx context.Context, o *options, logger *slog.Logger, out io.Writer) error {
	debug.SetMemoryLimit(memoryLimit(o.slots))
	keys, err := secrets.Open(o.keyFile)
	if err != nil {
		return fmt.Errorf("opening the key file %s: %w", o.keyFile, err)
	}
	to := bus.Options{URL: o.nats, Name: "worker"}
	if o.nats == "" {
		file, err := bus.ReadNATSFile(o.data)
		if err != nil {
			return fmt.Errorf("finding the api's JetStream in %s (is an api running there?): %w", o.data, err)
		}
		to.URL, to.Token = file.URL, file.Token
	}
	b, err := program.Connect(ctx, to, logger)
	if err != nil {
		return err
	}
	defer b.Close()
	engine, err := program.NewEngine(ctx, b, program.EngineOptions{
		Name: "worker", Keys: keys, Patience: o.patience, BackendTimeout: o.backendTimeout, ErrorLimit: o.errorLimit, Logger: logger,
	})
	if err != nil {
		return fmt.Errorf("joining (has an api prepared this NATS?): %w", program.Interrupted(ctx, err))
	}
	if err := verifyKey(ctx, engine.Ledger, keys, o.keyFile, logger); err != nil {
		return program.Interrupted(ctx, err)
	}
	services, ctx := errgroup.WithContext(ctx)
	if o.listen != "" {
		if err := serveHealth(ctx, services, o.listen, b, logger); err != nil {
			return err
		}
	}
	services.Go(func() error { return engine.Limits.Run(ctx) })
	services.Go(func() error { return engine.Worker(o.slots).Run(ctx) })
	fmt.Fprintf(out, "ringmaster worker %s ready with %d slots\n", engine.ID, o.slots)
	return services.Wait()
}

// verifyKey warns of a key that is not the cluster's. The worker works all the same:
// it leaves the tasks that need the key to others.
func verifyKey(ctx context.Context, l *ledger.Ledger, keys *secrets.Keyring, path string, logger *slog.Logger) error {
	err := l.VerifyKey(ctx, keys)
	if errors.Is(err, ledger.ErrOtherKey) {
		logger.WarnContext(ctx, "the key file is not the one that this cluster's records were sealed with; tasks that need the key are left to other workers: "+
			"give the api's with -key-file", "file", path, "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("checking the key: %w", err)
	}
	return nil
}

const (
	readTimeout     = 10 * time.Second
	shutdownTimeout = 5 * time.Second
)

// serveHealth answers /healthz, /readyz and /metrics until ctx ends.
func serveHealth(ctx context.Context, services *errgroup.Group, address string, b *bus.Bus, logger *slog.Logger) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		// A message that is stored and acknowledged proves more than a connection.
		if err := b.Probe(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", program.Metrics())
	logger.InfoContext(ctx, "serving health", "address", listener.Addr().String())
	server := &http.Server{Handler: mux, ReadTimeout: readTimeout, WriteTimeout: readTimeout}
	services.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving health: %w", err)
		}
		return nil
	})
	services.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		return server.Shutdown(stop)
	})
	return nil
}
