package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"ringmaster/pkg/serving"
)

// drainLimit is how long the points that were kept for a backend may take to reach
// it.
const drainLimit = 5 * time.Minute

// downRound is one round of a load with a backend down.
type downRound struct {
	wrote
	drained time.Duration
}

// down measures batches into two circles of two backends, once with all of them up,
// and once with one down for the whole load, which must have everything afterwards.
func (b *bench) down() error {
	fmt.Fprintf(b.out, "\nwrites of %d lines, %d at a time, into 2 circles × 2 backends, of which one is down\n", batchLines, batchConnections)
	s := batchSet()
	s.points /= 2
	all := s.batches(batchLines)
	warm := func(url string) (written, error) {
		return writeBatches(b.ctx, url, batchConnections, all[:batchWarm], batchLines)
	}
	load := func(url string) (written, error) {
		return writeBatches(b.ctx, url, batchConnections, all[batchWarm:], batchLines)
	}
	var up []wrote
	var down []downRound
	for range b.rounds {
		w, err := b.through(partDown+"-none", warm, load, 2, 2)
		if err != nil {
			return err
		}
		up = append(up, w)
		d, err := b.downRound(s, warm, load)
		if err != nil {
			return err
		}
		down = append(down, d)
	}
	base := median(up, wrote.writtenRate)
	b.compare("all are up", base, base, "points/s", "")
	b.costs(up, "point", "")
	b.compare("one is down", median(down, func(r downRound) float64 { return r.rate() }), base, "points/s", "(goal ≥ 0.7)")
	without := make([]wrote, len(down))
	for i, r := range down {
		without[i] = r.wrote
	}
	b.costs(without, "point", "")
	fmt.Fprintf(b.out, "  nothing is lost: %d points at each circle; the backend had them %.1f s after it came back\n",
		s.measurements*s.points, median(down, func(r downRound) float64 { return r.drained.Seconds() }))
	return nil
}

// downRound runs a load while a backend is down, has it come back, and counts.
func (b *bench) downRound(s set, warm, load func(url string) (written, error)) (r downRound, err error) {
	g, err := b.gateway(2, 2)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	lost := g.servers[0]
	lost.Kill()
	if _, err := warm(g.Client.URL); err != nil {
		return r, err
	}
	r.cost, err = b.during(g, partDown, func() (err error) {
		r.written, err = load(g.Client.URL)
		return err
	})
	if err != nil {
		return r, err
	}
	switch mode, err := modeOf(b, g, lost.URL()); {
	case err != nil:
		return r, err
	case mode == serving.Direct:
		return r, errors.New("the backend was down, and nothing was kept for it")
	}
	start := time.Now()
	if g.servers[0], err = lost.Restart(b.ctx); err != nil {
		return r, err
	}
	if err := b.drained(g, lost.URL()); err != nil {
		return r, err
	}
	r.drained = time.Since(start)
	return r, b.complete(g, s)
}

// modeOf asks how a backend gets its points.
func modeOf(b *bench, g *gateway, url string) (serving.Mode, error) {
	var shown struct {
		Circles []struct {
			Backends []struct {
				URL  string       `json:"url"`
				Mode serving.Mode `json:"mode"`
			} `json:"backends"`
		} `json:"circles"`
	}
	if err := g.Client.Get(b.ctx, "/v1/topology", &shown); err != nil {
		return "", err
	}
	for _, circle := range shown.Circles {
		for _, backend := range circle.Backends {
			if backend.URL == url {
				return backend.Mode, nil
			}
		}
	}
	return "", fmt.Errorf("the topology does not show %s", url)
}

// drained waits until a backend gets its points directly again.
func (b *bench) drained(g *gateway, url string) error {
	for end := time.Now().Add(drainLimit); time.Now().Before(end); {
		mode, err := modeOf(b, g, url)
		if err != nil || mode == serving.Direct {
			return err
		}
		if err := b.pause(50 * time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s has not got what was kept for it within %s", url, drainLimit)
}

// complete counts every measurement of a set at its owner in every circle.
func (b *bench) complete(g *gateway, s set) error {
	for m := range s.measurements {
		name := fmt.Sprintf("m%04d", m)
		var where struct {
			Owners []struct {
				URL string `json:"url"`
			} `json:"owners"`
		}
		if err := g.Client.Get(b.ctx, fmt.Sprintf("/v1/where?db=%s&measurement=%s", database, name), &where); err != nil {
			return err
		}
		if len(where.Owners) != 2 {
			return fmt.Errorf("%s has %d owners", name, len(where.Owners))
		}
		for _, owner := range where.Owners {
			n, err := b.count(owner.URL, name)
			if err != nil {
				return err
			}
			if n != s.points {
				return fmt.Errorf("%s has %d points of %s, not %d", owner.URL, n, name, s.points)
			}
		}
	}
	return nil
}

// count asks a server how many points it has of a measurement.
func (b *bench) count(at, measurement string) (int, error) {
	_, raw, err := post(b.ctx, at, "SELECT count(value) FROM "+measurement)
	if err != nil {
		return 0, err
	}
	var answer struct {
		Results []struct {
			Series []struct {
				Values [][]any `json:"values"`
			} `json:"series"`
		} `json:"results"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return 0, fmt.Errorf("counting %s: %w: %s", measurement, err, raw)
	}
	if len(answer.Results) != 1 || len(answer.Results[0].Series) != 1 {
		return 0, fmt.Errorf("counting %s: %s", measurement, raw)
	}
	if row := answer.Results[0].Series[0].Values; len(row) == 1 && len(row[0]) == 2 {
		if n, ok := row[0][1].(float64); ok {
			return int(n), nil
		}
	}
	return 0, fmt.Errorf("counting %s: %s", measurement, raw)
}
