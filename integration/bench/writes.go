package main

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// The load of batches: so many lines each, from so many connections, some of them
// before the clock runs.
const (
	batchLines       = 10_000
	batchConnections = 4
	batchWarm        = 8
	batchesMeasured  = 80
)

// batchSet is what the batches hold.
func batchSet() set {
	return set{measurements: 20, points: batchLines * (batchWarm + batchesMeasured) / 20}
}

// Single lines are sent for so long, and before the clock runs for a part of it.
const (
	linesWarm = time.Second
	linesFor  = 3 * time.Second
)

// wrote is one round of a load through the gateway.
type wrote struct {
	written
	cost
}

// perPoint is the CPU of the api for each point, in microseconds.
func (w wrote) perPoint() float64 {
	return float64(w.cpu.Nanoseconds()) / float64(w.points+w.refused) / 1000
}

// directly runs a load against one fresh InfluxDB.
func (b *bench) directly(load func(url string) (written, error)) (w written, err error) {
	server, err := b.server()
	if err != nil {
		return w, err
	}
	if err = createDatabase(b.ctx, server.URL()); err == nil {
		w, err = load(server.URL())
	}
	return w, errors.Join(err, server.Stop())
}

// through runs a load against a gateway with fresh servers behind it. warm is not
// measured.
func (b *bench) through(name string, warm, load func(url string) (written, error), backends ...int) (w wrote, err error) {
	g, err := b.gateway(backends...)
	if err != nil {
		return w, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	if _, err := warm(g.Client.URL); err != nil {
		return w, err
	}
	w.cost, err = b.during(g, name, func() (err error) {
		w.written, err = load(g.Client.URL)
		return err
	})
	return w, err
}

// write measures batches through one circle of two backends beside the same load at
// one InfluxDB.
func (b *bench) write() error {
	fmt.Fprintf(b.out, "\nwrites of %d lines, %d at a time: 1 circle × 2 backends beside one InfluxDB\n", batchLines, batchConnections)
	all := batchSet().batches(batchLines)
	warm := func(url string) (written, error) {
		return writeBatches(b.ctx, url, batchConnections, all[:batchWarm], batchLines)
	}
	load := func(url string) (written, error) {
		return writeBatches(b.ctx, url, batchConnections, all[batchWarm:], batchLines)
	}
	var direct []written
	var proxied []wrote
	for range b.rounds {
		d, err := b.directly(func(url string) (written, error) {
			if w, err := warm(url); err != nil {
				return w, err
			}
			return load(url)
		})
		if err != nil {
			return fmt.Errorf("directly: %w", err)
		}
		direct = append(direct, d)
		w, err := b.through(partWrite, warm, load, 2)
		if err != nil {
			return err
		}
		proxied = append(proxied, w)
	}
	base := median(direct, written.rate)
	b.compare("one InfluxDB", base, base, "points/s", "")
	b.compare("through the gateway", median(proxied, wrote.writtenRate), base, "points/s", "(goal ≥ 0.95)")
	b.costs(proxied, "point", "(goal ≤ 0.6)")
	return nil
}

func (w wrote) writtenRate() float64 { return w.written.rate() }

// costs prints what the api took.
func (b *bench) costs(all []wrote, unit, goal string) {
	fmt.Fprintf(b.out, "  api: %.2f µs of CPU a %s %s; largest RSS %.0f MiB\n",
		median(all, wrote.perPoint), unit, goal, median(all, func(w wrote) float64 { return float64(w.rss >> 20) }))
}

// linesLoad is the load of single lines, from some connections, of which one may
// send what is refused. The first seconds are a load of their own.
func (b *bench) linesLoad(connections int, may refusals) (warm, load func(url string) (written, error)) {
	warm = func(url string) (written, error) {
		return writeLines(b.ctx, url, connections, 0, linesWarm, noRefusals())
	}
	load = func(url string) (written, error) {
		return writeLines(b.ctx, url, connections, int64(time.Hour), linesFor, may)
	}
	return warm, load
}

// lines measures single lines through one circle of two backends beside the same at
// one InfluxDB.
func (b *bench) lines() error {
	for _, l := range []struct {
		connections int
		goal        string
	}{{50, "(goal ≥ 0.9)"}, {200, "(goal ≥ 1.3)"}} {
		fmt.Fprintf(b.out, "\nwrites of one line, %d connections: 1 circle × 2 backends beside one InfluxDB\n", l.connections)
		warm, load := b.linesLoad(l.connections, noRefusals())
		var direct []written
		var proxied []wrote
		for range b.rounds {
			d, err := b.directly(func(url string) (written, error) {
				if w, err := warm(url); err != nil {
					return w, err
				}
				return load(url)
			})
			if err != nil {
				return fmt.Errorf("directly: %w", err)
			}
			direct = append(direct, d)
			w, err := b.through(fmt.Sprintf("%s-%d", partLines, l.connections), warm, load, 2)
			if err != nil {
				return err
			}
			proxied = append(proxied, w)
		}
		base := median(direct, written.rate)
		b.compare("one InfluxDB", base, base, "lines/s", "")
		b.compare("through the gateway", median(proxied, wrote.writtenRate), base, "lines/s", l.goal)
		b.costs(proxied, "line", "")
	}
	return nil
}

// conflicts measures single lines through the gateway, all of them good, and with one
// client in fifty whose every line is of a wrong type.
func (b *bench) conflicts() error {
	const connections = 50
	fmt.Fprintf(b.out, "\nwrites of one line, %d connections, of which one sends wrong types: 1 circle × 2 backends\n", connections)
	warm, good := b.linesLoad(connections, noRefusals())
	_, mixed := b.linesLoad(connections, refusals{client: connections - 1, status: http.StatusBadRequest})
	var without, with []wrote
	for range b.rounds {
		w, err := b.through(partConflicts+"-none", warm, good, 2)
		if err != nil {
			return err
		}
		without = append(without, w)
		if w, err = b.through(partConflicts, warm, mixed, 2); err != nil {
			return err
		}
		with = append(with, w)
	}
	base := median(without, wrote.writtenRate)
	b.compare("all are good", base, base, "lines/s", "")
	b.costs(without, "line", "")
	b.compare("one is refused: lines of the others", median(with, wrote.writtenRate), base, "lines/s", "(goal ≥ 0.8)")
	fmt.Fprintf(b.out, "  %.0f refusals/s\n", median(with, func(w wrote) float64 { return float64(w.refused) / w.took.Seconds() }))
	b.costs(with, "request", "")
	return nil
}
