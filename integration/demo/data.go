package main

import (
	"context"
	"fmt"
	"time"

	"ringmaster/integration/dataset"
	"ringmaster/pkg/influx"
)

// loadedSet is a set and what was written of it.
type loadedSet struct {
	dataset.Set

	tally dataset.Tally
}

// sets are what is loaded: the public data sets, and generated series so that
// there is something to move.
func (d *demo) sets() []dataset.Set {
	return append(dataset.Public(),
		dataset.Awkward(), dataset.Metrics(d.measurements, d.points), dataset.Hourly(d.measurements, d.points/20))
}

// load writes every measurement to its owner.
func (d *demo) load(ctx context.Context) error {
	files, err := dataset.Files()
	if err != nil {
		return err
	}
	servers := map[string]*influx.Client{}
	for _, b := range d.cluster.Backends {
		c, err := influx.New(influx.Endpoint{URL: b.URL()}, influx.Options{})
		if err != nil {
			return err
		}
		defer c.Close()
		servers[b.URL()] = c
		// As behind influx-proxy, every backend has every database.
		if err := dataset.Prepare(ctx, c, d.sets()...); err != nil {
			return err
		}
	}
	owner := func(db, measurement string) (*influx.Client, error) {
		url, err := d.owners.of(ctx, db, measurement)
		return servers[url], err
	}
	d.tell("public data sets and generated series, each measurement at the backend that owns it")
	d.tell("%-16s %-20s %-26s %12s %11s", "set", "from", "database, policy", "measurements", "points")
	begin := time.Now()
	var points int64
	for _, s := range d.sets() {
		// The large sets take a while; their names say what is going on.
		fmt.Fprintf(d.out, "   %-16s %-20s %-26s ", s.Name, s.Source, s.Database+", "+s.Policy.Name)
		tally, err := dataset.Load(ctx, &s, files, owner)
		if err != nil {
			d.say("")
			return err
		}
		d.loaded = append(d.loaded, loadedSet{s, tally})
		points += tally.Points()
		d.say("%12d %11s", len(tally), group(tally.Points()))
	}
	took := time.Since(begin).Seconds()
	d.tell("%s points in %.1f s", group(points), took)
	if d.before, err = d.contents(ctx); err != nil {
		return err
	}
	rows, err := d.holdings(ctx, d.before)
	if err != nil {
		return err
	}
	d.balanceBefore = chart(rows)
	for _, line := range d.balanceBefore {
		d.tell("%s", line)
	}
	return nil
}

// contents asks every server for what it holds.
func (d *demo) contents(ctx context.Context) (map[string]contents, error) {
	all := map[string]contents{}
	for _, b := range d.cluster.Backends {
		held, err := server{b.URL()}.contents(ctx)
		if err != nil {
			return nil, fmt.Errorf("counting what %s holds: %w", b.URL(), err)
		}
		all[b.URL()] = held
	}
	return all, nil
}
