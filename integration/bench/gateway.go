package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"ringmaster/integration/harness"
	"ringmaster/pkg/influx/influxtest"
)

// gateway is an api without task slots, in front of circles of fresh servers.
type gateway struct {
	*harness.Cluster
	servers []*influxtest.Process
	close   func() error
}

// gateway starts circles of so many backends each, and makes the database.
func (b *bench) gateway(backends ...int) (*gateway, error) {
	g := &gateway{}
	circles := make([][]string, len(backends))
	stop := func() {
		for _, s := range g.servers {
			_ = s.Stop() // its directory goes with the bench
		}
	}
	for i, n := range backends {
		servers, _, err := b.servers(n)
		if err != nil {
			stop()
			return nil, err
		}
		for _, s := range servers {
			circles[i] = append(circles[i], s.URL())
		}
		g.servers = append(g.servers, servers...)
	}
	c, err := b.cluster(0, circles...)
	if err != nil {
		stop()
		return nil, err
	}
	g.Cluster = c
	g.close = func() error {
		defer stop()
		return c.Close()
	}
	if err := createDatabase(b.ctx, c.Client.URL); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

// createDatabase asks a server, or the gateway, for the database.
func createDatabase(ctx context.Context, url string) error {
	_, raw, err := post(ctx, url, "CREATE DATABASE "+database)
	if err == nil && string(raw) != `{"results":[{"statement_id":0}]}`+"\n" {
		err = fmt.Errorf("making the database: %s", raw)
	}
	return err
}

// post runs statements at a server, or at the gateway.
func post(ctx context.Context, at, q string) (*http.Response, []byte, error) {
	return harness.Client{URL: at}.Do(ctx, http.MethodPost, "/query?"+url.Values{"db": {database}, "q": {q}}.Encode(), nil, nil)
}

// cost is what the api took for a load.
type cost struct {
	cpu time.Duration
	rss int64 // the largest since the process began, or since it was set back
}

// during measures what the api takes while f runs, and keeps a profile of it if one
// is asked for.
func (b *bench) during(g *gateway, name string, f func() error) (cost, error) {
	before, _, err := usage(g.API.PID())
	if err != nil {
		return cost{}, err
	}
	profiled := make(chan error, 1)
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	if b.profiles != "" {
		go func() { profiled <- b.profile(ctx, g.Cluster, name, profileFor) }()
	} else {
		profiled <- nil
	}
	err = f()
	after, rss, readErr := usage(g.API.PID())
	if err != nil {
		cancel()
	}
	return cost{cpu: after - before, rss: rss}, errors.Join(err, readErr, <-profiled)
}

// profilable has the api serve profiles if they are to be kept.
func (b *bench) profilable(c *harness.Cluster) {
	if b.profiles != "" {
		c.Settings = map[string]any{"pprof_enabled": true}
	}
}

// profileFor is how long a profile lasts: about as long as a load.
const profileFor = 4 * time.Second

// profile keeps a CPU profile of the api.
func (b *bench) profile(ctx context.Context, c *harness.Cluster, name string, d time.Duration) error {
	b.made++
	path := fmt.Sprintf("/debug/pprof/profile?seconds=%.0f", d.Seconds())
	res, raw, err := c.Client.Do(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("profiling the api: %s: %s", res.Status, raw)
	}
	return os.WriteFile(filepath.Join(b.profiles, fmt.Sprintf("%s-%d.pprof", name, b.made)), raw, 0o600)
}

// resetPeak sets the largest resident size of a process back to what it is now.
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0o600)
}

// compare prints a rate of the gateway beside that of the baseline.
func (b *bench) compare(name string, rate, base float64, unit, goal string) {
	fmt.Fprintf(b.out, "  %-44s %10.0f %s  %5.2f ×  %s\n", name, rate, unit, rate/base, goal)
}
