package mover

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
)

// batcher encodes points into bounded batches and keeps a few writes in
// flight. All its batches go to one database and policy.
type batcher struct {
	t        *transfer
	ctx      context.Context
	database string
	policy   string
	encoder  lineproto.Encoder
	batch    *batch
	full     chan *batch
	free     chan *batch
	writers  *errgroup.Group
	once     sync.Once
	err      error
	// written and bytes count what has been handed to the writers.
	written, bytes int64
	expired        chan int64
}

type batch struct {
	lines []byte
	rows  int
}

// newBatcher starts the writers. close must be called; it waits for them.
func (t *transfer) newBatcher(ctx context.Context, database, policy string) *batcher {
	b := &batcher{t: t, database: database, policy: policy}
	b.writers, b.ctx = errgroup.WithContext(ctx)
	n := t.Writers
	b.full = make(chan *batch)
	b.free = make(chan *batch, n+1)
	b.expired = make(chan int64, 1)
	b.expired <- 0
	for range n + 1 {
		b.free <- t.buffers.take()
	}
	for range n {
		b.writers.Go(b.write)
	}
	return b
}

func (b *batcher) write() error {
	for next := range b.full {
		if err := b.post(next); err != nil {
			return err
		}
		next.lines, next.rows = next.lines[:0], 0
		b.free <- next
	}
	return nil
}

// post writes one batch. A refusal that says to come back is obeyed for a short
// while; everything else is for whoever compares and tries again. Points that
// retention no longer admits are counted.
func (b *batcher) post(next *batch) error {
	pause := b.t.Backoff
	start := b.t.Now()
	for {
		err := b.t.destination.Write(b.ctx, b.database, b.policy, next.lines)
		if err == nil {
			return nil
		}
		if dropped, ok := expiredPoints(err); ok {
			b.expired <- <-b.expired + dropped
			return nil
		}
		var refusal *influx.Error
		if !errors.As(err, &refusal) || refusal.Class != influx.Transient || refusal.Status == 0 ||
			b.t.Now().Sub(start) > b.t.RetryInPlace {
			return err
		}
		b.t.job.Alive()
		if err := sleep(b.ctx, max(pause, refusal.RetryAfter)); err != nil {
			return err
		}
		pause = min(2*pause, b.t.MaxBackoff)
	}
}

// setSeries chooses the series of the rows that follow.
func (b *batcher) setSeries(s *lineproto.Series, fields []string) error {
	return b.encoder.SetSeries(s, fields)
}

// row adds a point.
func (b *batcher) row(ns int64, values []lineproto.Value) error {
	if b.batch == nil {
		select {
		case b.batch = <-b.free:
		case <-b.ctx.Done():
			return context.Cause(b.ctx)
		}
	}
	before := len(b.batch.lines)
	lines, err := b.encoder.AppendRow(b.batch.lines, ns, values)
	if err != nil {
		return err
	}
	b.batch.lines = lines
	b.batch.rows++
	b.written++
	b.bytes += int64(len(lines) - before)
	if b.batch.rows >= b.t.BatchRows || len(lines) >= b.t.BatchBytes {
		return b.send()
	}
	return nil
}

func (b *batcher) send() error {
	if b.batch == nil || b.batch.rows == 0 {
		return nil
	}
	select {
	case b.full <- b.batch:
		b.batch = nil
		return nil
	case <-b.ctx.Done():
		return context.Cause(b.ctx)
	}
}

// finish sends the last batch and waits until every batch is acknowledged.
func (b *batcher) finish() error {
	err := b.send()
	if closed := b.close(); closed != nil {
		return closed
	}
	return err
}

// close stops the writers after what they have, and gives the buffers back. It
// returns the first refusal.
func (b *batcher) close() error {
	b.once.Do(func() {
		close(b.full)
		b.err = b.writers.Wait()
		if b.batch != nil {
			b.t.buffers.give(b.batch)
		}
		for {
			select {
			case free := <-b.free:
				b.t.buffers.give(free)
			default:
				return
			}
		}
	})
	return b.err
}

// buffers keeps a task's batch memory from one group to the next.
type buffers struct{ idle []*batch }

func (b *buffers) take() *batch {
	if n := len(b.idle); n > 0 {
		last := b.idle[n-1]
		b.idle = b.idle[:n-1]
		return last
	}
	return &batch{}
}

func (b *buffers) give(x *batch) {
	x.lines, x.rows = x.lines[:0], 0
	b.idle = append(b.idle, x)
}
