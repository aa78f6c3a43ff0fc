package mover

import (
	"context"
	"errors"
	"net/http"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/pace"
)

// charge is what a batch counts for where limits apply. A row that is read to be
// written counts once for the operation; one that a comparison has read has been
// counted by then, and only burdens the backend that it is written to.
func (b *batcher) charge(next *batch, part span) pace.Charge {
	sent := pace.Amount{Points: int64(part.rows), Bytes: int64(part.to - part.from)}
	var c pace.Charge
	if b.to == b.t.source {
		c.Source = sent
	} else {
		c.Destination = sent
	}
	if b.filled != nil {
		c.Operation = sent
		c.Source = pace.Amount{Points: sent.Points, Bytes: next.read * sent.Points / int64(next.rows)}
	}
	return c
}

// span is a part of a batch: some rows of it, and where their lines are.
type span struct{ rows, from, to int }

// admit waits until the next part of a batch may be sent, whose first rows have been:
// all of it, unless a limit has become much smaller since the batch was filled.
func (b *batcher) admit(next *batch, sent int) (span, error) {
	part := next.part(sent, next.rows)
	for {
		err := b.t.pass.Take(b.ctx, b.charge(next, part), part.rows)
		if !errors.Is(err, pace.ErrSmaller) {
			return part, err
		}
		part = next.part(sent, sent+b.t.pass.Points(max(1, part.rows/2)))
		for most := b.t.pass.Bytes(part.to - part.from); part.rows > 1 && part.to-part.from > most; {
			part = next.part(sent, sent+part.rows/2)
		}
	}
}

// part is the rows of a batch from one on and before another.
func (b *batch) part(from, to int) span {
	p := span{rows: to - from, to: int(b.ends[to-1])}
	if from > 0 {
		p.from = int(b.ends[from-1])
	}
	return p
}

// bound bounds the batch that begins by what limits admit.
func (b *batcher) bound() {
	rows := max(b.t.BatchRows>>b.t.halved, min(b.t.BatchRows, leastBatch))
	b.maxRows, b.maxBytes = b.t.pass.Points(rows), b.t.pass.Bytes(b.t.BatchBytes)
}

// observe tells how an end has answered what it is asked before each group, which is
// as much whatever the group holds.
func (e *end) observe(began time.Time, err error) {
	e.mover.config.Pacer.Observe(e.URL(), answered(err, 0, e.mover.config.Now().Sub(began)))
}

// answered is how a backend has answered a request.
func answered(err error, rows int, took time.Duration) pace.Answered {
	a := pace.Answered{Points: rows, Took: took, Status: http.StatusNoContent}
	if err == nil {
		return a
	}
	var refusal *influx.Error
	if a.Status = 0; errors.As(err, &refusal) {
		a.Status, a.RetryAfter = refusal.Status, refusal.RetryAfter
	}
	return a
}

// reading is a stream from one end.
type reading struct {
	of   *end
	rows *influx.Stream
}

// tempo counts the rows that are read from one end or from two side by side, and
// waits for limits now and then. A nil one does not.
type tempo struct {
	t    *transfer
	ctx  context.Context //nolint:containedctx // that of the reads
	ends []reading
	// left is how many rows may be read until the next wait; rows counts those
	// since the last one, by end, bytes is up to where they were counted.
	left  int
	rows  [2]int64
	bytes [2]int64
}

// newTempo returns the tempo of some reads, at most two.
func (t *transfer) newTempo(ctx context.Context, ends ...reading) *tempo {
	if t.pass == nil {
		return nil
	}
	return &tempo{t: t, ctx: ctx, ends: ends, left: t.pass.Points(t.BatchRows)}
}

// count counts a row of one end.
func (p *tempo) count(end int) error {
	if p == nil {
		return nil
	}
	p.rows[end]++
	if p.left--; p.left > 0 {
		return nil
	}
	return p.end()
}

// end waits for what has been read since the last wait.
func (p *tempo) end() error {
	if p == nil || p.rows == [2]int64{} {
		return nil
	}
	var c pace.Charge
	for i, e := range p.ends {
		if e.rows == nil {
			continue // it holds nothing
		}
		to := e.rows.Bytes()
		a := pace.Amount{Points: p.rows[i], Bytes: to - p.bytes[i]}
		p.rows[i], p.bytes[i] = 0, to
		if e.of == p.t.source {
			c.Source = a
		} else {
			c.Destination = a
		}
		c.Operation.Points = max(c.Operation.Points, a.Points)
		c.Operation.Bytes = max(c.Operation.Bytes, a.Bytes)
	}
	if err := p.t.pass.Take(p.ctx, c, 1); err != nil {
		return err
	}
	p.left = p.t.pass.Points(p.t.BatchRows)
	return nil
}
