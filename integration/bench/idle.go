package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"ringmaster/integration/harness"
)

// How long an api without work is watched, and how long it may settle before.
const (
	idleSettle = 5 * time.Second
	idleFor    = 30 * time.Second
)

// idle measures what an api with all its parts takes while nobody asks for anything:
// embedded JetStream, task slots, the data plane and two backends that are probed.
func (b *bench) idle() error {
	fmt.Fprintf(b.out, "\nan idle api with embedded JetStream, 1 circle × 2 backends, over %s\n", idleFor)
	servers, stop, err := b.servers(2)
	if err != nil {
		return err
	}
	defer stop()
	b.made++
	dir := filepath.Join(b.dir, "cluster-"+strconv.Itoa(b.made))
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	c, err := harness.NewCluster(dir, b.bin, nil)
	if err != nil {
		return err
	}
	b.profilable(c)
	if err := c.WriteConfigURLs(servers[0].URL(), servers[1].URL()); err != nil {
		return err
	}
	if err := c.StartAPI(b.ctx); err != nil {
		return err
	}
	err = b.watchIdle(c)
	return errors.Join(err, c.Close())
}

func (b *bench) watchIdle(c *harness.Cluster) error {
	if err := b.pause(idleSettle); err != nil {
		return err
	}
	before, _, err := usage(c.API.PID())
	if err != nil {
		return err
	}
	start := time.Now()
	watch := func() error { return b.pause(idleFor) }
	if b.profiles != "" {
		watch = func() error { return b.profile(b.ctx, c, partIdle, idleFor) }
	}
	if err := watch(); err != nil {
		return err
	}
	after, peak, err := usage(c.API.PID())
	if err != nil {
		return err
	}
	rss, err := resident(c.API.PID())
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "  CPU %.2f %% (goal ≤ 0.5); RSS %d MiB (goal ≤ 60), at most %d MiB since it began\n",
		100*(after-before).Seconds()/time.Since(start).Seconds(), rss>>20, peak>>20)
	return nil
}

// pause waits for a while.
func (b *bench) pause(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
}

// resident reads the resident size of a process, in bytes.
func resident(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/statm: %q", pid, text)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}
