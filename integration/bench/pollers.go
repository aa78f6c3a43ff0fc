package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"ringmaster/pkg/operation"
)

// pollers measures a move with and without so many clients that look at it.
func (b *bench) pollers(s set) error {
	source, err := b.server()
	if err != nil {
		return err
	}
	defer func() { _ = source.Stop() }() // its directory goes with the bench
	fmt.Fprintf(b.out, "\n%s, moved while nobody and while %d clients look every %s\n", s.name, watchers, watchEvery)
	if err := s.load(b.ctx, source.URL()); err != nil {
		return err
	}
	var alone, watched []result
	for range b.rounds {
		for _, m := range []struct {
			into  *[]result
			watch bool
		}{{&alone, false}, {&watched, true}} {
			r, err := b.watchedMove(source.URL(), m.watch)
			if err != nil {
				return err
			}
			*m.into = append(*m.into, r)
			fmt.Fprintf(b.out, "  watched %t: %.2f s\n", m.watch, r.whole.Seconds())
		}
	}
	whole := func(r result) float64 { return r.whole.Seconds() }
	without, with := median(alone, whole), median(watched, whole)
	fmt.Fprintf(b.out, "  median of %d rounds: %.2f s alone, %.2f s watched: slower by %.1f %% (goal ≤ 3)\n",
		b.rounds, without, with, 100*(with/without-1))
	return nil
}

const (
	watchers   = 200
	watchEvery = time.Second
)

func (b *bench) watchedMove(from string, watch bool) (r result, err error) {
	destination, err := b.server()
	if err != nil {
		return result{}, err
	}
	defer func() { _ = destination.Stop() }() // its directory goes with the bench
	c, err := b.cluster(2, []string{destination.URL()})
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	ctx, stop := context.WithCancel(b.ctx)
	defer stop()
	looking := make(chan error, 1)
	if watch {
		go func() { looking <- watchAll(ctx, c.Client.URL) }()
	} else {
		looking <- nil
	}
	op, err := b.perform(c, map[string]any{"kind": operation.KindRebalance, "parameters": map[string]any{
		"circle_id": 0, "operation": "rm", "removed_backends": []map[string]string{{"name": "source", "url": from}},
	}}, operation.Succeeded)
	stop()
	if err := errors.Join(err, <-looking); err != nil {
		return result{}, err
	}
	return result{whole: op.FinishedAt.Sub(*op.StartedAt), points: op.Progress.Points.Copied}, nil
}

// watchAll has all clients ask for the list of operations and for the statistics of the
// circle, each at its own moment, until ctx ends.
func watchAll(ctx context.Context, url string) error {
	clients, ctx := errgroup.WithContext(ctx)
	for i := range watchers {
		clients.Go(func() error {
			if err := watchOne(ctx, url, time.Duration(i)*watchEvery/watchers); ctx.Err() == nil {
				return err
			}
			return nil
		})
	}
	return clients.Wait()
}

func watchOne(ctx context.Context, url string, after time.Duration) error {
	wait(ctx, after)
	c, err := connect(ctx, url)
	if err != nil {
		return err
	}
	defer c.close()
	defer context.AfterFunc(ctx, c.close)()
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		for _, path := range []string{"/v1/operations", "/migrate/stats?circle_id=0&type=rebalance"} {
			head := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, strings.TrimPrefix(url, "http://"))
			status, rest, err := c.ask(head, nil)
			if err != nil {
				return err
			}
			if status != http.StatusOK {
				return fmt.Errorf("GET %s: %d: %s", path, status, c.text(rest))
			}
			if _, err := c.discard(rest); err != nil {
				return err
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}
