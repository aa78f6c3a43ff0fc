package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
)

const (
	bareReaders = 2
	bareWriters = 2
)

// bareLoop copies everything from one server to another as plainly as it can be
// done: two readers, two writers, batches of 5,000 lines. It returns how long it
// took and how many points it read.
func bareLoop(ctx context.Context, from, to string) (time.Duration, int64, error) {
	source, err := influx.New(influx.Endpoint{URL: from}, influx.Options{})
	if err != nil {
		return 0, 0, err
	}
	defer source.Close()
	destination, err := influx.New(influx.Endpoint{URL: to}, influx.Options{})
	if err != nil {
		return 0, 0, err
	}
	defer destination.Close()
	if err := destination.CreateDatabase(ctx, database); err != nil {
		return 0, 0, err
	}
	work, err := barePieces(ctx, source)
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	points := &atomic.Int64{}
	pieces := make(chan influx.Selection)
	batches := make(chan []byte, bareWriters)
	free := make(chan []byte, bareReaders+2*bareWriters)
	for range cap(free) {
		free <- make([]byte, 0, 1<<20)
	}
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error {
		defer close(pieces)
		for _, p := range work {
			select {
			case pieces <- p:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	readers, reading := errgroup.WithContext(ctx)
	for range bareReaders {
		readers.Go(func() error {
			for p := range pieces {
				if err := bareRead(reading, source, p, batches, free, points); err != nil {
					return err
				}
			}
			return nil
		})
	}
	all.Go(func() error {
		defer close(batches)
		return readers.Wait()
	})
	for range bareWriters {
		all.Go(func() error {
			for b := range batches {
				if err := destination.Write(ctx, database, "autogen", b); err != nil {
					return err
				}
				free <- b[:0]
			}
			return nil
		})
	}
	err = all.Wait()
	return time.Since(start), points.Load(), err
}

// barePieces lists what to read: each measurement of each shard group, those of
// a single measurement cut in parts so that both readers have work.
func barePieces(ctx context.Context, source *influx.Client) ([]influx.Selection, error) {
	groups, err := source.ShardGroups(ctx)
	if err != nil {
		return nil, err
	}
	var pieces []influx.Selection
	for name, err := range source.Measurements(ctx, database) {
		if err != nil {
			return nil, err
		}
		for _, g := range groups {
			if g.Database == database {
				pieces = append(pieces, influx.Selection{
					Database: database, RetentionPolicy: "autogen", Measurement: name,
					Window: influx.Window{From: g.From, To: g.To, Last: g.ToInclusive},
				})
			}
		}
	}
	if len(pieces) == 0 {
		return nil, fmt.Errorf("nothing to copy")
	}
	return pieces, nil
}

func bareRead(ctx context.Context, source *influx.Client, p influx.Selection, batches chan<- []byte, free <-chan []byte, points *atomic.Int64) error {
	rows, err := source.Read(ctx, []influx.Selection{p})
	if err != nil {
		return err
	}
	defer rows.Close()
	var encoder lineproto.Encoder
	lines, n := <-free, 0
	send := func() error {
		n = 0
		select {
		case batches <- lines:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for rows.Next() {
		if rows.NewSeries() {
			if err := encoder.SetSeries(rows.Series(), rows.Fields()); err != nil {
				return err
			}
		}
		if lines, err = encoder.AppendRow(lines, rows.Time(), rows.Values()); err != nil {
			return err
		}
		points.Add(1)
		if n++; n == batchRows {
			if err := send(); err != nil {
				return err
			}
			select {
			case lines = <-free:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return send()
}
