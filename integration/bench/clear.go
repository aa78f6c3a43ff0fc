package main

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
)

// cleared is what one round of clears has measured.
type cleared struct {
	points  int64
	deletes int
	// reading is the time of reading what a proof compares, at both servers, and
	// nothing else; proof that of a clear that proves everything and may delete
	// nothing; drop that of one that deletes everything; own that of InfluxDB's DELETE
	// of the same windows.
	reading, proof, drop, own time.Duration
}

func (r cleared) pointsIn(d time.Duration) float64  { return float64(r.points) / d.Seconds() }
func (r cleared) deletesIn(d time.Duration) float64 { return float64(r.deletes) / d.Seconds() }

// small is a set that is proven in no time, so that clearing it is deleting.
func small() set { return set{name: "100 measurements of 100 points", measurements: 100, points: 100} }

// clearing measures how fast a clear proves, and how fast it deletes beside
// InfluxDB's own DELETE.
func (b *bench) clearing(s set) error {
	rounds, err := b.clears(s)
	if err != nil {
		return err
	}
	reading := median(rounds, func(r cleared) float64 { return r.pointsIn(r.reading) })
	row := func(name string, rate float64, goal string) {
		fmt.Fprintf(b.out, "  %-34s %9.0f points/s  %5.2f × reading  %s\n", name, rate, rate/reading, goal)
	}
	row("reading both, two at once", reading, "")
	row("proof alone, two workers", median(rounds, func(r cleared) float64 { return r.pointsIn(r.proof) }), "(goal ≥ 250,000 points/s)")
	row("proof, recount and delete", median(rounds, func(r cleared) float64 { return r.pointsIn(r.drop) }), "")
	if rounds, err = b.clears(small()); err != nil {
		return err
	}
	own := median(rounds, func(r cleared) float64 { return r.deletesIn(r.own) })
	rate := median(rounds, func(r cleared) float64 { return r.deletesIn(r.drop) })
	fmt.Fprintf(b.out, "  %-34s %9.1f deletes/s\n", "InfluxDB's own DELETE", own)
	fmt.Fprintf(b.out, "  %-34s %9.1f deletes/s %5.2f × InfluxDB's own  (at most 50 a task)\n", "proof, recount and delete", rate, rate/own)
	return nil
}

// clears measures some rounds with one set.
func (b *bench) clears(s set) (rounds []cleared, err error) {
	fmt.Fprintf(b.out, "\nclear of a circle of two backends: %s at both\n", s.name)
	for range b.rounds {
		r, err := b.clearRound(s)
		if err != nil {
			return nil, err
		}
		rounds = append(rounds, r)
	}
	return rounds, nil
}

// clearRound measures one round on four fresh servers: two of a circle, and two
// that hold the same and are deleted from directly.
func (b *bench) clearRound(s set) (r cleared, err error) {
	all, stop, err := b.servers(4)
	if err != nil {
		return r, err
	}
	defer stop()
	for _, server := range all {
		if err := s.load(b.ctx, server.URL()); err != nil {
			return r, err
		}
	}
	c, err := b.cluster(2, []string{all[0].URL(), all[1].URL()})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	owner, err := owners(b.ctx, c, s)
	if err != nil {
		return r, err
	}
	at := map[string]int{all[0].URL(): 0, all[1].URL(): 1}
	lines := [2][]byte{}
	wrong := [2][]string{}
	for m, url := range owner {
		other := 1 - at[url]
		lines[other] = fmt.Appendf(lines[other], "m%04d,host=here-alone value=1 %d\n", m, int64(firstTime))
		wrong[other] = append(wrong[other], fmt.Sprintf("m%04d", m))
	}
	write := func(i int, lines []byte) error {
		client, err := influx.New(influx.Endpoint{URL: all[i].URL()}, influx.Options{})
		if err != nil {
			return err
		}
		defer client.Close()
		return client.Write(b.ctx, database, "autogen", lines)
	}
	if r.reading, err = b.readBoth(all[0].URL(), all[1].URL()); err != nil {
		return r, err
	}
	request := move(operation.KindClear, map[string]any{"circle_id": 0})

	// Every window has a point that its owner lacks: all is proven, and kept.
	for i := range lines {
		if err := write(i, lines[i]); err != nil {
			return r, err
		}
	}
	op, err := b.perform(c, request, operation.PartiallyFailed)
	if err != nil {
		return r, err
	}
	if r.proof, err = phase(b.ctx, c, &op, operation.PhaseDrop); err != nil {
		return r, err
	}
	if op.Progress.Points.Dropped != 0 {
		return r, fmt.Errorf("%d points were dropped that are nowhere else", op.Progress.Points.Dropped)
	}
	// The owners get those points: all is deleted.
	for i := range lines {
		if err := write(1-i, lines[i]); err != nil {
			return r, err
		}
	}
	if op, err = b.perform(c, request, operation.Succeeded); err != nil {
		return r, err
	}
	if r.drop, err = phase(b.ctx, c, &op, operation.PhaseDrop); err != nil {
		return r, err
	}
	report, err := c.Client.Report(b.ctx, op.ID)
	if err != nil {
		return r, err
	}
	r.points, r.deletes = report.Dropped.Points, report.Dropped.Slices
	r.own, err = b.deleteDirectly(all[2].URL(), all[3].URL(), wrong)
	return r, err
}

// readBoth reads everything that two servers hold, window by window at both at
// once, two windows at a time.
func (b *bench) readBoth(first, second string) (time.Duration, error) {
	var clients [2]*influx.Client
	for i, url := range []string{first, second} {
		c, err := influx.New(influx.Endpoint{URL: url}, influx.Options{})
		if err != nil {
			return 0, err
		}
		defer c.Close()
		clients[i] = c
	}
	pieces, err := barePieces(b.ctx, clients[0])
	if err != nil {
		return 0, err
	}
	start := time.Now()
	all, ctx := errgroup.WithContext(b.ctx)
	all.SetLimit(2 * len(clients))
	for _, p := range pieces {
		for _, c := range clients {
			all.Go(func() error {
				rows, err := c.Read(ctx, []influx.Selection{p})
				if err != nil {
					return err
				}
				for rows.Next() {
				}
				return errors.Join(rows.Err(), rows.Close())
			})
		}
	}
	err = all.Wait()
	return time.Since(start), err
}

// deleteDirectly deletes measurements from two servers at once, one after another
// at each.
func (b *bench) deleteDirectly(first, second string, measurements [2][]string) (time.Duration, error) {
	start := time.Now()
	both, ctx := errgroup.WithContext(b.ctx)
	for i, url := range []string{first, second} {
		both.Go(func() error {
			c, err := influx.New(influx.Endpoint{URL: url}, influx.Options{})
			if err != nil {
				return err
			}
			defer c.Close()
			for _, m := range measurements[i] {
				window := influx.Window{From: firstTime, To: firstTime + int64(100*24*time.Hour)}
				if err := c.Delete(ctx, database, m, window); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := both.Wait()
	return time.Since(start), err
}
