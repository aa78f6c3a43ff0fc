package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"ringmaster/integration/harness"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/operation"
)

// bench is one run of the benchmark.
type bench struct {
	ctx      context.Context //nolint:containedctx // of the whole program
	out      io.Writer
	dir, bin string
	rounds   int
	made     int
	// whole lets the operation of a million slices run to its end.
	whole bool
	// profiles is where profiles of the api are kept; empty keeps none.
	profiles string
}

// server starts a fresh InfluxDB.
func (b *bench) server() (*influxtest.Process, error) {
	b.made++
	return influxtest.Launch(b.ctx, influxtest.Config{Dir: filepath.Join(b.dir, "influx-"+strconv.Itoa(b.made))})
}

// result is one measured move.
type result struct {
	copy, whole time.Duration
	points      int64
	cpu         time.Duration
	rss         int64
}

func (r result) rate(d time.Duration) float64 { return float64(r.points) / d.Seconds() }

// moves measures the bare loop and the engine, by turns, on one source.
func (b *bench) moves(s set) error {
	source, err := b.server()
	if err != nil {
		return err
	}
	defer func() { _ = source.Stop() }() // its directory goes with the bench
	fmt.Fprintf(b.out, "\n%s (3 tags, 5 fields)\n", s.name)
	if err := s.load(b.ctx, source.URL()); err != nil {
		return err
	}
	var bare, count, digest []result
	for range b.rounds {
		for _, m := range []struct {
			into *[]result
			f    func(source, destination string) (result, error)
		}{
			{&bare, b.bare},
			{&count, func(from, to string) (result, error) { return b.engine(from, to, operation.DepthCount) }},
			{&digest, func(from, to string) (result, error) { return b.engine(from, to, operation.DepthDigest) }},
		} {
			destination, err := b.server()
			if err != nil {
				return err
			}
			r, err := m.f(source.URL(), destination.URL())
			if err = errors.Join(err, destination.Stop()); err != nil {
				return err
			}
			*m.into = append(*m.into, r)
		}
	}
	b.print(bare, count, digest)
	return nil
}

func (b *bench) bare(from, to string) (result, error) {
	took, points, err := bareLoop(b.ctx, from, to)
	return result{copy: took, whole: took, points: points}, err
}

// engine runs a rebalance that takes everything from a removed backend to the
// only one of the circle, with two workers.
func (b *bench) engine(from, to string, depth operation.Depth) (result, error) {
	c, op, err := b.operate(to, 2, map[string]any{
		"circle_id": 0, "operation": "rm", "depth": depth,
		"removed_backends": []map[string]string{{"name": "source", "url": from}},
	}, false)
	if c == nil {
		return result{}, err
	}
	r := result{}
	if err == nil {
		r, err = measured(b.ctx, c, &op)
	}
	return r, errors.Join(err, c.Close())
}

// operate starts a cluster whose circle is one backend, submits a rebalance and
// waits for its end.
func (b *bench) operate(backend string, workers int, parameters map[string]any, dryRun bool) (*harness.Cluster, operation.Operation, error) {
	c, err := b.cluster(workers, []string{backend})
	if err != nil {
		return nil, operation.Operation{}, err
	}
	op, err := b.perform(c, map[string]any{"kind": operation.KindRebalance, "parameters": parameters, "dry_run": dryRun}, operation.Succeeded, operation.Planned)
	return c, op, err
}

// cluster starts an api and workers for circles of servers that run.
func (b *bench) cluster(workers int, circles ...[]string) (*harness.Cluster, error) {
	return b.clusterOf(workers, nil, circles...)
}

// clusterOf is cluster with flags for the workers.
func (b *bench) clusterOf(workers int, flags []string, circles ...[]string) (*harness.Cluster, error) {
	b.made++
	dir := filepath.Join(b.dir, "cluster-"+strconv.Itoa(b.made))
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	c, err := harness.NewCluster(dir, b.bin, nil)
	if err != nil {
		return nil, err
	}
	b.profilable(c)
	all := make([]harness.Circle, len(circles))
	for i, urls := range circles {
		all[i].Name = "circle-" + strconv.Itoa(i)
		for j, url := range urls {
			all[i].Backends = append(all[i].Backends, harness.Backend{Name: fmt.Sprintf("influxdb-%d-%d", i, j), URL: url})
		}
	}
	if err := c.WriteCircles(all...); err != nil {
		return nil, err
	}
	if err := c.StartAPI(b.ctx, "-slots", "0"); err != nil {
		return nil, err
	}
	for range workers {
		if _, err := c.StartWorker(b.ctx, flags...); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// perform submits a request and waits until its operation ends in one of some
// states.
func (b *bench) perform(c *harness.Cluster, request map[string]any, states ...operation.State) (operation.Operation, error) {
	op, err := c.Client.SubmitRequest(b.ctx, request)
	if err == nil {
		op, err = c.Client.Wait(b.ctx, op.ID, harness.Ended)
	}
	if err == nil && !slices.Contains(states, op.State) {
		raw, _ := json.Marshal(op)
		err = fmt.Errorf("the operation ended %s: %s", op.State, raw)
	}
	return op, err
}

// measured reads the durations from the records and the cost from the system.
func measured(ctx context.Context, c *harness.Cluster, op *operation.Operation) (result, error) {
	report, err := c.Client.Report(ctx, op.ID)
	if err != nil {
		return result{}, err
	}
	if !report.Equal {
		return result{}, fmt.Errorf("the report is not equal: %+v", report)
	}
	r := result{points: report.Points.Source, whole: op.FinishedAt.Sub(*op.StartedAt)}
	if r.copy, err = phase(ctx, c, op, operation.PhaseCopy); err != nil {
		return result{}, err
	}
	for _, w := range c.Workers {
		cpu, rss, err := usage(w.PID())
		if err != nil {
			return result{}, err
		}
		r.cpu += cpu
		r.rss = max(r.rss, rss)
	}
	return r, nil
}

// phase is how long the tasks of a phase took, from the first claim to the last
// end.
func phase(ctx context.Context, c *harness.Cluster, op *operation.Operation, p operation.Phase) (time.Duration, error) {
	tasks, err := c.Client.Tasks(ctx, op.ID)
	if err != nil {
		return 0, err
	}
	var first, last time.Time
	for _, t := range tasks {
		if t.Phase != p {
			continue
		}
		if first.IsZero() || t.StartedAt.Before(first) {
			first = *t.StartedAt
		}
		if t.FinishedAt.After(last) {
			last = *t.FinishedAt
		}
	}
	return last.Sub(first), nil
}

// ticksPerSecond is USER_HZ, which is 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// usage reads a process's CPU time and its largest resident size, in bytes.
func usage(pid int) (time.Duration, int64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The name in parentheses may hold spaces; the fields follow it.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, 0, err
		}
		ticks += n
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return time.Duration(ticks) * time.Second / ticksPerSecond, kib << 10, err
		}
	}
	return 0, 0, errors.New("no VmHWM in /proc")
}

// planning measures a dry run over many measurements.
func (b *bench) planning(n int) error {
	source, err := b.server()
	if err != nil {
		return err
	}
	defer func() { _ = source.Stop() }() // its directory goes with the bench
	destination, err := b.server()
	if err != nil {
		return err
	}
	defer func() { _ = destination.Stop() }() // its directory goes with the bench
	if err := manyMeasurements(b.ctx, source.URL(), n); err != nil {
		return err
	}
	c, op, err := b.operate(destination.URL(), 0, map[string]any{
		"circle_id": 0, "operation": "rm", "removed_backends": []map[string]string{{"name": "source", "url": source.URL()}},
	}, true)
	if err != nil {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
		return err
	}
	_, rss, err := usage(c.API.PID())
	if err == nil {
		_, err = fmt.Fprintf(b.out, "\nplanning %d measurements: %.1f s (goal < 15 s), api RSS %d MiB (goal ≤ 150)\n",
			n, op.FinishedAt.Sub(*op.StartedAt).Seconds(), rss>>20)
	}
	return errors.Join(err, c.Close())
}

// median is the middle one of what is measured.
func median[T any](all []T, of func(T) float64) float64 {
	values := make([]float64, len(all))
	for i, r := range all {
		values[i] = of(r)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// print shows the medians and their ratios to the bare loop.
func (b *bench) print(bare, count, digest []result) {
	copyRate := func(r result) float64 { return r.rate(r.copy) }
	wholeRate := func(r result) float64 { return r.rate(r.whole) }
	cpu := func(r result) float64 { return float64(r.cpu.Nanoseconds()) / float64(r.points) / 1000 }
	rss := func(r result) float64 { return float64(r.rss >> 20) }
	base := median(bare, copyRate)
	row := func(name string, rate float64, goal string) {
		fmt.Fprintf(b.out, "  %-34s %9.0f points/s  %5.2f × bare loop  %s\n", name, rate, rate/base, goal)
	}
	row("bare loop", base, "")
	row("copy phase, two workers", median(count, copyRate), "(goal ≥ 0.85)")
	row("whole, verified by counts", median(count, wholeRate), "(goal ≥ 0.80)")
	row("whole, verified by points", median(digest, wholeRate), "(goal ≥ 0.50)")
	fmt.Fprintf(b.out, "  workers: %.2f µs of CPU a point with counts (goal ≤ 1), %.2f with points; largest RSS %.0f MiB (goal ≤ 64)\n",
		median(count, cpu), median(digest, cpu), max(median(count, rss), median(digest, rss)))
}
