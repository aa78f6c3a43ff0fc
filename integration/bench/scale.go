package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"ringmaster/integration/harness"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/operation"
)

const (
	// farLatency is what is added to every round trip to a backend.
	farLatency = 20 * time.Millisecond
	// Many databases of few measurements: a task of the smallest size then has several
	// groups, each of which waits for some answers and is little work.
	farDatabases    = 256
	farMeasurements = 15
)

// scale measures how much faster more workers are where waiting for backends takes
// the time: each is a process with one slot.
func (b *bench) scale() error {
	fmt.Fprintf(b.out, "\nworkers of one slot, backends %s away: %d databases of %d measurements\n", farLatency, farDatabases, farMeasurements)
	source, err := b.server()
	if err != nil {
		return err
	}
	defer func() { _ = source.Stop() }() // its directory goes with the bench
	if err := scattered(b.ctx, source.URL(), farDatabases, farMeasurements); err != nil {
		return err
	}
	from, err := far(source)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	goals := map[int]float64{2: 1.9, 4: 3.7, 8: 7}
	best := map[int]time.Duration{}
	for range b.rounds {
		for _, workers := range []int{1, 2, 4, 8} {
			took, err := b.scaled(from, workers)
			if err != nil {
				return err
			}
			if known, ok := best[workers]; !ok || took.whole < known {
				best[workers] = took.whole
			}
			fmt.Fprintf(b.out, "  %d workers: %.1f s (CPU of the workers %.1f s)\n", workers, took.whole.Seconds(), took.cpu.Seconds())
		}
	}
	for _, workers := range []int{2, 4, 8} {
		fmt.Fprintf(b.out, "  %d workers, best of %d rounds: %5.2f × one (goal ≥ %.1f)\n",
			workers, b.rounds, best[1].Seconds()/best[workers].Seconds(), goals[workers])
	}
	return nil
}

func far(p *influxtest.Process) (*harness.Far, error) {
	return harness.NewFar(strings.TrimPrefix(p.URL(), "http://"), farLatency)
}

// scaled moves everything to a fresh backend, and returns how long the copy and the
// verification took, each from the first claim to the last end.
func (b *bench) scaled(from *harness.Far, workers int) (took result, err error) {
	destination, err := b.server()
	if err != nil {
		return took, err
	}
	defer func() { _ = destination.Stop() }() // its directory goes with the bench
	to, err := far(destination)
	if err != nil {
		return took, err
	}
	defer func() { _ = to.Close() }()
	c, err := b.clusterOf(workers, []string{"-slots", "1"}, []string{"http://" + to.Address()})
	if err != nil {
		return took, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	op, err := b.perform(c, map[string]any{"kind": operation.KindRebalance, "parameters": map[string]any{
		"circle_id": 0, "operation": "rm", "depth": operation.DepthCount,
		"removed_backends": []map[string]string{{"name": "source", "url": "http://" + from.Address()}},
	}}, operation.Succeeded)
	if err != nil {
		return took, err
	}
	for _, p := range []operation.Phase{operation.PhaseCopy, operation.PhaseVerify} {
		d, err := phase(b.ctx, c, &op, p)
		if err != nil {
			return took, err
		}
		took.whole += d
	}
	for _, w := range c.Workers {
		cpu, _, err := usage(w.PID())
		if err != nil {
			return took, err
		}
		took.cpu += cpu
	}
	return took, nil
}
