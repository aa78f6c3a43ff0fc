package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"ringmaster/integration/harness"
	"ringmaster/pkg/influx/influxtest"
)

// build makes the programs, and InfluxDB unless an earlier run has.
func (d *demo) build(ctx context.Context) error {
	builds, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	if d.bin == "" {
		root, err := harness.Root()
		if err != nil {
			return err
		}
		d.bin = filepath.Join(root, "bin")
		d.tell("building bin/api and bin/worker, and InfluxDB 1.8.3 unless an earlier run has")
		// With the flags of InfluxDB's build and of this program's, so that all
		// three share what they have in common.
		builds.Go(func() error { return harness.BuildPrograms(ctx, d.bin, "-trimpath") })
	}
	var server string
	builds.Go(func() (err error) {
		server, err = influxtest.Build(ctx)
		return err
	})
	if err := builds.Wait(); err != nil {
		return err
	}
	d.tell("ready after %.1f s; InfluxDB is kept as %s", time.Since(begin).Seconds(), server)
	return nil
}

// circle is the members of the circle, by index of the cluster's backends.
func (d *demo) circle() [][]int {
	members := make([]int, len(d.cluster.Backends))
	for i := range members {
		members[i] = i
	}
	return [][]int{members}
}

// backendName is the name that the configuration gives a backend.
func backendName(i int) string { return fmt.Sprintf("influxdb-0-%d", i) }

// start runs two InfluxDB servers, an api whose circle they are, and two workers.
func (d *demo) start(ctx context.Context) error {
	var log io.Writer
	if !d.keep {
		f, err := os.Create(d.logFile())
		if err != nil {
			return err
		}
		// It stays open for as long as the programs write to it: to the end.
		log = f
	}
	var err error
	if d.cluster, err = harness.NewCluster(d.dir, d.bin, log); err != nil {
		return err
	}
	d.cluster.Detach = d.keep
	d.owners = owners{client: d.cluster.Client}
	for range 2 {
		if err := d.addBackend(ctx); err != nil {
			return err
		}
	}
	if err := d.cluster.WriteConfig(d.circle(), nil); err != nil {
		return err
	}
	if err := d.startAPI(ctx); err != nil {
		return err
	}
	for range 2 {
		w, err := d.cluster.StartWorker(ctx, "-slots", "2")
		if err != nil {
			return err
		}
		d.tell("%-16s pid %-8d bin/worker -data … -slots 2", workerID(w), w.PID())
	}
	return d.awaitWorkers(ctx)
}

func (d *demo) addBackend(ctx context.Context) error {
	name := backendName(len(d.cluster.Backends))
	b, err := d.cluster.AddBackend(ctx)
	if err != nil {
		return err
	}
	d.tell("%-16s pid %-8d %s, InfluxDB 1.8.3", name, b.PID(), b.URL())
	return nil
}

// startAPI starts the api without task slots, so that the workers do all of the
// work.
func (d *demo) startAPI(ctx context.Context) error {
	if err := d.cluster.StartAPI(ctx, "-slots", "0", "-lease", d.lease.String()); err != nil {
		return err
	}
	var topology struct {
		Epoch   int `json:"epoch"`
		Circles []struct {
			Name     string `json:"name"`
			Backends []struct {
				Name string `json:"name"`
			} `json:"backends"`
		} `json:"circles"`
	}
	err := await(ctx, "the api to tell its topology", func() (bool, error) {
		err := d.cluster.Client.Get(ctx, "/v1/topology", &topology)
		return err == nil, err
	})
	if err != nil {
		return err
	}
	d.tell("%-16s pid %-8d bin/api -config …/proxy.json -slots 0 -lease %s", "api", d.cluster.API.PID(), d.lease)
	for _, c := range topology.Circles {
		var names []string
		for _, b := range c.Backends {
			names = append(names, b.Name)
		}
		d.tell("%-16s %s: %s = %s", "", fmt.Sprintf("topology epoch %d", topology.Epoch), c.Name, strings.Join(names, ", "))
	}
	return nil
}

// workerID is the id of a worker.
func workerID(w *harness.Program) string { return readyID(w.Output()) }

// readyID finds the id in the line that a worker prints when it is ready.
func readyID(output string) string {
	for line := range strings.Lines(output) {
		if words := strings.Fields(line); len(words) > 3 && words[0] == "ringmaster" && words[1] == "worker" && words[3] == "ready" {
			return words[2]
		}
	}
	return "worker"
}

// pollEvery is how often a condition is looked at.
const pollEvery = 100 * time.Millisecond

// awaitWorkers waits until the api sees every worker that runs.
func (d *demo) awaitWorkers(ctx context.Context) error {
	return await(ctx, "the workers to be seen", func() (bool, error) {
		var live struct {
			Items []struct {
				ID string `json:"id"`
			} `json:"items"`
		}
		if err := d.cluster.Client.Get(ctx, "/v1/workers", &live); err != nil {
			return false, err
		}
		return len(live.Items) >= len(d.cluster.Workers), nil
	})
}

// await looks at a condition until it holds or ctx ends.
func await(ctx context.Context, what string, holds func() (bool, error)) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		ok, err := holds()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, errors.Join(context.Cause(ctx), err))
		case <-ticker.C:
		}
	}
}

// grow adds a backend to the configuration and restarts the api, as an operator
// does.
func (d *demo) grow(ctx context.Context) error {
	if err := d.addBackend(ctx); err != nil {
		return err
	}
	if err := d.cluster.WriteConfig(d.circle(), nil); err != nil {
		return err
	}
	d.tell("it is added to proxy.json, and the api restarted; the workers run on")
	if _, err := d.cluster.API.Stop(); err != nil {
		return err
	}
	if err := d.startAPI(ctx); err != nil {
		return err
	}
	d.owners = owners{client: d.cluster.Client}
	return d.awaitWorkers(ctx)
}

// owners asks the api who owns a measurement, as a router in front of the circle
// would, and remembers it.
type owners struct {
	client harness.Client
	known  map[[2]string]string
}

// of returns the URL of the backend that owns a measurement.
func (o *owners) of(ctx context.Context, db, measurement string) (string, error) {
	key := [2]string{db, measurement}
	if url, ok := o.known[key]; ok {
		return url, nil
	}
	var where struct {
		Owners []struct {
			URL string `json:"url"`
		} `json:"owners"`
	}
	query := url.Values{"db": {db}, "measurement": {measurement}}
	if err := o.client.Get(ctx, "/v1/where?"+query.Encode(), &where); err != nil {
		return "", err
	}
	if len(where.Owners) != 1 {
		return "", fmt.Errorf("asking who owns %s of %s: %d owners in one circle", measurement, db, len(where.Owners))
	}
	if o.known == nil {
		o.known = map[[2]string]string{}
	}
	o.known[key] = where.Owners[0].URL
	return o.known[key], nil
}
