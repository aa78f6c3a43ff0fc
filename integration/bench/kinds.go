package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ringmaster/integration/harness"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/operation"
)

// recovery measures the bare loop and the recovery of a lost backend, by turns.
func (b *bench) recovery(s set) error {
	source, err := b.server()
	if err != nil {
		return err
	}
	defer func() { _ = source.Stop() }() // its directory goes with the bench
	fmt.Fprintf(b.out, "\nrecovery of a lost backend: %s\n", s.name)
	if err := s.load(b.ctx, source.URL()); err != nil {
		return err
	}
	var bare, engine []result
	for range b.rounds {
		r, err := b.into(func(to string) (result, error) { return b.bare(source.URL(), to) })
		if err != nil {
			return err
		}
		bare = append(bare, r)
		if r, err = b.into(func(to string) (result, error) { return b.recover(source.URL(), to) }); err != nil {
			return err
		}
		engine = append(engine, r)
	}
	copied := func(r result) float64 { return r.rate(r.copy) }
	whole := func(r result) float64 { return r.rate(r.whole) }
	base := median(bare, copied)
	b.row("bare loop", base, base, "")
	b.row("copy phase, two workers", median(engine, copied), base, "(goal ≥ 0.85)")
	b.row("whole, verified by counts", median(engine, whole), base, "")
	return nil
}

// into runs f with a fresh server.
func (b *bench) into(f func(to string) (result, error)) (result, error) {
	to, err := b.server()
	if err != nil {
		return result{}, err
	}
	r, err := f(to.URL())
	return r, errors.Join(err, to.Stop())
}

// row prints a rate and its ratio to another.
func (b *bench) row(name string, rate, base float64, goal string) {
	fmt.Fprintf(b.out, "  %-34s %9.0f points/s  %5.2f × bare loop  %s\n", name, rate, rate/base, goal)
}

// recover fills an empty circle of one backend from another circle.
func (b *bench) recover(from, to string) (result, error) {
	c, err := b.cluster(2, []string{from}, []string{to})
	if err != nil {
		return result{}, err
	}
	op, err := b.perform(c, move(operation.KindRecovery, map[string]any{"from_circle_id": 0, "to_circle_id": 1}), operation.Succeeded)
	r := result{}
	if err == nil {
		r, err = measured(b.ctx, c, &op)
	}
	return r, errors.Join(err, c.Close())
}

// move is a request for an operation.
func move(kind operation.Kind, parameters map[string]any) map[string]any {
	return map[string]any{"kind": kind, "parameters": parameters}
}

// slicesOf is how many slices the set of a resync has.
const slicesOf = 100

// finer is a set of as many points in 100 measurements, each of which is a slice.
func (s set) finer() set {
	s.points = s.measurements * s.points / slicesOf
	s.measurements = slicesOf
	s.name = fmt.Sprintf("%d measurements of %d points", s.measurements, s.points)
	return s
}

// resyncs are the times of one round.
type resyncs struct{ all, points, counts, same time.Duration }

// resync measures a resync that has to copy everything, and resyncs of two circles
// that differ in one slice of a hundred.
func (b *bench) resync(s set) error {
	s = s.finer()
	source, err := b.server()
	if err != nil {
		return err
	}
	defer func() { _ = source.Stop() }() // its directory goes with the bench
	fmt.Fprintf(b.out, "\nresync of two circles: %s, one of which differs\n", s.name)
	if err := s.load(b.ctx, source.URL()); err != nil {
		return err
	}
	var rounds []resyncs
	for n := range b.rounds {
		var r resyncs
		_, err := b.into(func(to string) (result, error) {
			var err error
			r, err = b.resyncRound(s, source.URL(), to, n)
			return result{}, err
		})
		if err != nil {
			return err
		}
		rounds = append(rounds, r)
	}
	base := median(rounds, func(r resyncs) float64 { return r.all.Seconds() })
	row := func(name string, of func(resyncs) time.Duration, goal string) {
		took := median(rounds, func(r resyncs) float64 { return of(r).Seconds() })
		fmt.Fprintf(b.out, "  %-34s %9.2f s         %5.2f × copying all  %s\n", name, took, took/base, goal)
	}
	row("copying all", func(r resyncs) time.Duration { return r.all }, "")
	row("points are compared", func(r resyncs) time.Duration { return r.points }, "(goal ≤ 0.80)")
	row("counts are compared", func(r resyncs) time.Duration { return r.counts }, "(goal ≤ 0.30)")
	row("points, nothing differs", func(r resyncs) time.Duration { return r.same }, "")
	return nil
}

// resyncRound runs the resyncs of one round between two servers, the second of
// which is empty at first.
func (b *bench) resyncRound(s set, first, second string, round int) (resyncs, error) {
	var r resyncs
	c, err := b.cluster(2, []string{first}, []string{second})
	if err != nil {
		return r, err
	}
	run := func(into *time.Duration, parameters map[string]any, unchanged int) {
		if err != nil {
			return
		}
		var op operation.Operation
		if op, err = b.perform(c, move(operation.KindResync, parameters), operation.Succeeded); err != nil {
			return
		}
		*into = op.FinishedAt.Sub(*op.StartedAt)
		var report operation.Report
		if report, err = c.Client.Report(b.ctx, op.ID); err == nil && (!report.Equal || report.Unchanged.Slices != unchanged) {
			err = fmt.Errorf("%d of %d slices were left alone, not %d: equal %t", report.Unchanged.Slices, report.Slices.Total, unchanged, report.Equal)
		}
	}
	differ := func(n int) {
		if err == nil {
			err = s.differ(b.ctx, second, 2*round+n)
		}
	}
	run(&r.all, nil, 0)
	differ(0)
	run(&r.points, nil, slicesOf-1)
	run(&r.same, nil, slicesOf)
	differ(1)
	run(&r.counts, map[string]any{"depth": operation.DepthCount}, slicesOf-1)
	return r, errors.Join(err, c.Close())
}

// differ writes points to one measurement: some that are nowhere else, and some
// with other values.
func (s set) differ(ctx context.Context, url string, n int) error {
	c, err := influx.New(influx.Endpoint{URL: url}, influx.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	var lines []byte
	for p := range 100 {
		lines = s.line(lines, n, s.points+seriesOf*n+p)
		lines = fmt.Appendf(lines, "m%04d,host=host-%02d,region=region-%d,service=service-%d value=-1 %d\n", n, p%seriesOf, p%seriesOf%5, p%seriesOf%7, int64(firstTime))
	}
	return c.Write(ctx, database, "autogen", lines)
}

// servers starts some servers; stop ends them.
func (b *bench) servers(n int) (all []*influxtest.Process, stop func(), err error) {
	stop = func() {
		for _, s := range all {
			_ = s.Stop() // its directory goes with the bench
		}
	}
	for range n {
		s, err := b.server()
		if err != nil {
			stop()
			return nil, nil, err
		}
		all = append(all, s)
	}
	return all, stop, nil
}

// owners asks who of two servers owns the measurements of a set.
func owners(ctx context.Context, c *harness.Cluster, s set) ([]string, error) {
	all := make([]string, s.measurements)
	for m := range all {
		var where struct {
			Owners []struct {
				URL string `json:"url"`
			} `json:"owners"`
		}
		if err := c.Client.Get(ctx, fmt.Sprintf("/v1/where?db=%s&measurement=m%04d", database, m), &where); err != nil {
			return nil, err
		}
		if len(where.Owners) != 1 {
			return nil, fmt.Errorf("measurement %d has %d owners", m, len(where.Owners))
		}
		all[m] = where.Owners[0].URL
	}
	return all, nil
}
