// Command influxd runs the real InfluxDB 1.8.3 server for tests, benchmarks and
// the demonstration: one process, one directory, nothing but its HTTP port.
//
// When it is ready it prints one line to standard output, "ready ADDR", with the
// address it listens on. It stops on SIGTERM, on SIGINT, and, with
// -stop-with-stdin, when its standard input ends, so that it never outlives the
// process that started it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/influxdata/influxdb/cmd/influxd/run"
	"github.com/influxdata/influxdb/models"
	"github.com/influxdata/influxdb/services/httpd"
	"github.com/influxdata/influxdb/toml"
)

// version is what the server answers to /ping. It is the version in go.mod.
const version = "1.8.3"

type options struct {
	dir           string
	http          string
	unsigned      bool
	stopWithStdin bool
	config        *run.Config
}

func main() {
	if err := realMain(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "influxd:", err)
		os.Exit(1)
	}
}

func realMain(args []string) error {
	o, err := parseFlags(args)
	if err != nil {
		return err
	}
	if err := o.config.Validate(); err != nil {
		return fmt.Errorf("checking the configuration: %w", err)
	}
	if o.unsigned {
		models.EnableUintSupport()
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	gone := make(chan struct{})
	if o.stopWithStdin {
		go func() {
			defer close(gone)
			_, _ = io.Copy(io.Discard, os.Stdin)
		}()
	}

	server, err := run.NewServer(o.config, &run.BuildInfo{Version: version, Branch: "1.8", Commit: "unknown"})
	if err != nil {
		return fmt.Errorf("making the server: %w", err)
	}
	if server.Logger, err = o.config.Logging.New(os.Stderr); err != nil {
		return fmt.Errorf("making the logger: %w", err)
	}
	if err := server.Open(); err != nil {
		return fmt.Errorf("opening the server: %w", err)
	}
	addr, err := httpAddr(server)
	if err != nil {
		return errors.Join(err, server.Close())
	}
	fmt.Println("ready", addr)

	select {
	case <-stop:
	case <-gone:
	case err = <-server.Err():
	}
	return errors.Join(err, server.Close())
}

func parseFlags(args []string) (*options, error) {
	c := run.NewConfig()
	o := &options{config: c}
	fs := flag.NewFlagSet("influxd", flag.ContinueOnError)
	fs.StringVar(&o.dir, "dir", "", "directory of data, meta and wal (required)")
	fs.StringVar(&o.http, "http", "127.0.0.1:0", "address of the HTTP interface; port 0 takes a free one")
	fs.BoolVar(&o.unsigned, "unsigned", false, "accept unsigned integers, as a server built with their support does")
	fs.BoolVar(&o.stopWithStdin, "stop-with-stdin", false, "stop when standard input ends")
	fs.BoolVar(&c.HTTPD.AuthEnabled, "auth", false, "require credentials")
	fs.StringVar(&c.Data.Index, "index", c.Data.Index, "index of new shards: inmem or tsi1")
	fs.IntVar(&c.HTTPD.MaxBodySize, "max-body-size", c.HTTPD.MaxBodySize, "bytes of a write")
	fs.IntVar(&c.HTTPD.MaxConcurrentWriteLimit, "max-concurrent-writes", 0, "writes at a time (0: no limit)")
	fs.IntVar(&c.HTTPD.MaxEnqueuedWriteLimit, "max-enqueued-writes", 0, "writes that may wait for one (0: no limit)")
	fs.IntVar(&c.Coordinator.MaxConcurrentQueries, "max-concurrent-queries", 0, "queries at a time (0: no limit)")
	fs.IntVar(&c.Coordinator.MaxSelectSeriesN, "max-select-series", 0, "series of a SELECT (0: no limit)")
	fs.DurationVar((*time.Duration)(&c.Coordinator.QueryTimeout), "query-timeout", 0, "longest query (0: no limit)")
	fs.DurationVar((*time.Duration)(&c.Retention.CheckInterval), "retention-check", 30*time.Minute, "how often expired shards are dropped")
	level := fs.String("log", "error", "lowest level that is logged: debug, info, warn or error")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if o.dir == "" || fs.NArg() > 0 {
		return nil, errors.New("usage: influxd -dir DIR [flags]")
	}
	if err := c.Logging.Level.Set(*level); err != nil {
		return nil, fmt.Errorf("reading the log level: %w", err)
	}

	c.Meta.Dir = filepath.Join(o.dir, "meta")
	c.Data.Dir = filepath.Join(o.dir, "data")
	c.Data.WALDir = filepath.Join(o.dir, "wal")
	c.Data.QueryLogEnabled = false
	c.Data.CacheSnapshotWriteColdDuration = toml.Duration(10 * time.Minute)
	c.BindAddress = "127.0.0.1:0" // backup and restore; nobody asks for it here
	c.HTTPD.BindAddress = o.http
	c.HTTPD.LogEnabled = false
	c.HTTPD.PprofEnabled = false
	c.ReportingDisabled = true
	c.Monitor.StoreEnabled = false
	c.Subscriber.Enabled = false
	c.ContinuousQuery.Enabled = false
	c.GraphiteInputs, c.CollectdInputs, c.OpenTSDBInputs, c.UDPInputs = nil, nil, nil, nil
	return o, nil
}

// httpAddr finds the address that the HTTP service has taken.
func httpAddr(s *run.Server) (net.Addr, error) {
	for _, service := range s.Services {
		if h, ok := service.(*httpd.Service); ok && h.Addr() != nil {
			return h.Addr(), nil
		}
	}
	return nil, errors.New("the HTTP service has no address")
}
