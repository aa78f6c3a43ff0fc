package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"

	"ringmaster/pkg/influx/influxtest"
)

// Cluster is a whole installation on this machine: InfluxDB servers, one api
// with embedded JetStream, and workers.
type Cluster struct {
	// Dir holds everything the cluster writes; Bin the programs.
	Dir, Bin string
	// Log, if set, gets what our programs print.
	Log io.Writer
	// Detach lets every process outlive this one. Each then logs to a file in
	// LogDir instead of Log.
	Detach   bool
	Backends []*influxtest.Process
	API      *Program
	Workers  []*Program
	Client   Client
	// NATS, if set, is what api and workers work on in place of the embedded one. It
	// is not the cluster's own: Close leaves it.
	NATS *NATS
	// Settings are further keys of the configurations that are written.
	Settings map[string]any

	address string
}

// NewCluster prepares a cluster below dir with the programs in bin; nothing runs
// yet.
func NewCluster(dir, bin string, log io.Writer) (*Cluster, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("choosing a port: %w", err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, fmt.Errorf("choosing a port: %w", err)
	}
	return &Cluster{Dir: dir, Bin: bin, Log: log, address: address, Client: Client{URL: "http://" + address}}, nil
}

// DataDir is the api's data directory.
func (c *Cluster) DataDir() string { return filepath.Join(c.Dir, "data") }

// LogDir holds a log of each process if the cluster is detached.
func (c *Cluster) LogDir() string { return filepath.Join(c.Dir, "log") }

func (c *Cluster) logFile(name string) string { return filepath.Join(c.LogDir(), name+".log") }

// ConfigFile is the api's configuration, in influx-proxy's format.
func (c *Cluster) ConfigFile() string { return filepath.Join(c.Dir, "proxy.json") }

// AddBackend starts one more InfluxDB server.
func (c *Cluster) AddBackend(ctx context.Context) (*influxtest.Process, error) {
	name := fmt.Sprintf("influx-%d", len(c.Backends))
	config := influxtest.Config{Dir: filepath.Join(c.Dir, name), Detach: c.Detach}
	if c.Detach {
		log, err := openLog(c.logFile(name))
		if err != nil {
			return nil, err
		}
		defer log.Close()
		config.Log = log
	}
	p, err := influxtest.Launch(ctx, config)
	if err != nil {
		return nil, err
	}
	c.Backends = append(c.Backends, p)
	return p, nil
}

// WriteConfigURLs writes a configuration of one circle with backends that are
// not the cluster's own.
func (c *Cluster) WriteConfigURLs(urls ...string) error {
	one := Circle{Name: "circle-0"}
	for i, url := range urls {
		one.Backends = append(one.Backends, Backend{Name: fmt.Sprintf("influxdb-0-%d", i), URL: url})
	}
	return c.WriteCircles(one)
}

// Circle is a circle of a configuration.
type Circle struct {
	Name     string    `json:"name"`
	Backends []Backend `json:"backends"`
}

// Backend is a backend of a configuration, or of the body of a rebalance.
type Backend struct {
	Name     string `json:"name"`
	URL      string `json:"url"`
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	// WriteOnly takes it out of the reads.
	WriteOnly bool `json:"write_only,omitempty"`
}

// WriteConfig writes a configuration whose circles consist of the given
// backends, by index. A URL in place of a backend's own goes through replace.
func (c *Cluster) WriteConfig(circles [][]int, replace map[int]string) error {
	var all []Circle
	for i, members := range circles {
		one := Circle{Name: fmt.Sprintf("circle-%d", i)}
		for _, n := range members {
			url := c.Backends[n].URL()
			if other, ok := replace[n]; ok {
				url = other
			}
			one.Backends = append(one.Backends, Backend{Name: fmt.Sprintf("influxdb-%d-%d", i, n), URL: url})
		}
		all = append(all, one)
	}
	return c.WriteCircles(all...)
}

// WriteCircles writes a configuration of the given circles.
func (c *Cluster) WriteCircles(all ...Circle) error {
	config := map[string]any{"circles": all, "listen_addr": c.address, "data_dir": c.DataDir()}
	maps.Copy(config, c.Settings)
	raw, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	if err := os.WriteFile(c.ConfigFile(), raw, 0o600); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	return nil
}

// StartAPI starts the api on the configuration; args are further flags.
func (c *Cluster) StartAPI(ctx context.Context, args ...string) error {
	p, err := c.start(ctx, "api", "api", append(c.onNATS("api", "-config", c.ConfigFile()), args...))
	if err != nil {
		return err
	}
	c.API = p
	return nil
}

// StartWorker starts one more worker; args are further flags.
func (c *Cluster) StartWorker(ctx context.Context, args ...string) (*Program, error) {
	name := fmt.Sprintf("worker-%d", len(c.Workers))
	p, err := c.start(ctx, "worker", name, append(c.onNATS("worker", "-data", c.DataDir()), args...))
	if err != nil {
		return nil, err
	}
	c.Workers = append(c.Workers, p)
	return p, nil
}

// onNATS adds the flag that names the NATS servers, if they are not the embedded one.
func (c *Cluster) onNATS(user string, args ...string) []string {
	if c.NATS != nil {
		args = append(args, "-nats", c.NATS.URL(user))
	}
	return args
}

// start starts one of our programs; name is that of its log.
func (c *Cluster) start(ctx context.Context, program, name string, args []string) (*Program, error) {
	binary := filepath.Join(c.Bin, program)
	var env []string
	if c.NATS != nil {
		env = c.NATS.Env()
	}
	if c.Detach {
		return StartDetached(ctx, c.logFile(name), binary, args...)
	}
	return StartProgramWith(ctx, c.Log, env, binary, args...)
}

// Close stops everything that still runs, our programs first.
func (c *Cluster) Close() error {
	var errs []error
	for _, w := range c.Workers {
		_, err := w.Stop()
		errs = append(errs, err)
	}
	if c.API != nil {
		_, err := c.API.Stop()
		errs = append(errs, err)
	}
	for _, b := range c.Backends {
		errs = append(errs, b.Stop())
	}
	return errors.Join(errs...)
}

// Kill ends everything that still runs at once, as a crash does.
func (c *Cluster) Kill() {
	for _, w := range c.Workers {
		w.Kill()
	}
	if c.API != nil {
		c.API.Kill()
	}
	for _, b := range c.Backends {
		b.Kill()
	}
}
