package mover

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/patience"
)

// batcher encodes points into bounded batches and keeps a few writes in
// flight. All its batches go to one database and policy.
type batcher struct {
	t        *transfer
	ctx      context.Context //nolint:containedctx // ends when a writer fails; the producer works under it
	to       *end
	database string
	policy   string
	encoder  lineproto.Encoder
	mask     mask
	// filled, when set, is the stream whose every row is written: what is sent counts
	// for it, too, as read. Otherwise what is sent has been counted when it was read.
	filled *influx.Stream
	// maxRows and maxBytes bound the batch being filled; readTo is where the stream
	// stood at the end of the one before.
	maxRows, maxBytes int
	readTo            int64
	// batch is the one being filled; full ones go to the writers and come back
	// by free, which holds all there are.
	batch   *batch
	full    chan *batch
	free    chan *batch
	writers *errgroup.Group
	once    sync.Once
	err     error

	// mu guards expired, the points that retention refused, by slice.
	mu      sync.Mutex
	expired map[int]int64
}

// batch is lines of one or several slices.
type batch struct {
	lines []byte
	rows  int
	// slice is that of the first row, mixed whether there are others.
	slice int
	mixed bool
	// ends are where the lines of each row end.
	ends []int32
	// read is how many bytes were read for it.
	read int64
}

func (b *batch) reset() { *b = batch{lines: b.lines[:0], ends: b.ends[:0]} }

// add counts the row that ends the lines.
func (b *batch) add(slice int, lines []byte) {
	if b.rows == 0 {
		b.slice = slice
	}
	b.mixed = b.mixed || slice != b.slice
	b.lines, b.rows = lines, b.rows+1
	b.ends = append(b.ends, int32(len(lines)))
}

// newBatcher starts the writers to one end. close must be called; it waits for
// them.
func (t *transfer) newBatcher(ctx context.Context, to *end, database, policy string) *batcher {
	b := &batcher{t: t, to: to, database: database, policy: policy, expired: map[int]int64{}, mask: mask{without: t.withheld.fields}}
	b.writers, b.ctx = errgroup.WithContext(ctx)
	n := t.Writers
	b.full = make(chan *batch)
	b.free = make(chan *batch, n+1)
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
		next.reset()
		b.free <- next // has room for all
	}
	return nil
}

// errMixedExpiry is the answer of retention to points of several slices: it
// says how many were refused and not which, so the slices are copied one by one.
var errMixedExpiry = errors.New("retention refused points of several slices")

// post writes one batch, in parts if limits ask for it.
func (b *batcher) post(next *batch) error {
	for sent := 0; sent < next.rows; {
		part, err := b.admit(next, sent)
		if err != nil {
			return err
		}
		if err := b.postPart(next, part); err != nil {
			return err
		}
		sent += part.rows
	}
	return nil
}

// postPart writes lines of a batch. A server that says that it has taken nothing and is to
// be asked again is obeyed for a short while; everything else is for whoever
// compares and tries again, since others may write there meanwhile.
func (b *batcher) postPart(next *batch, part span) error {
	lines := next.lines[part.from:part.to]
	pause := b.t.Backoff
	start := b.t.Now()
	for {
		began := b.t.Now()
		err := b.to.Write(b.ctx, b.database, b.policy, lines)
		b.t.mover.config.Pacer.Observe(b.to.URL(), answered(err, part.rows, b.t.Now().Sub(began)))
		dropped, expired := expiredPoints(err)
		switch {
		case err == nil, expired:
			b.t.mover.patience.Answered(b.to.URL(), patience.Writes)
			b.t.sent.Add(int64(len(lines)))
			return b.forget(next, dropped)
		case !tookNothing(err), b.t.mover.patience.GivenUp(b.to.URL(), patience.Writes, b.t.began):
			return &patience.WriteError{Err: err}
		}
		var refusal *influx.Error
		errors.As(err, &refusal)
		wait := max(pause, refusal.RetryAfter)
		if b.t.Now().Add(wait).Sub(start) > b.t.RetryInPlace {
			return &patience.WriteError{Err: err}
		}
		b.t.job.Alive()
		b.t.pass.Show(b.to.URL(), operation.Clip(refusal.Error()), "sent again for "+b.t.RetryInPlace.String(), start)
		if err := patience.Sleep(b.ctx, wait); err != nil {
			return err
		}
		pause = min(2*pause, b.t.MaxBackoff)
	}
}

// tookNothing reports whether a refusal says that the server did not even begin
// to store the batch.
func tookNothing(err error) bool {
	var refusal *influx.Error
	return errors.As(err, &refusal) && refusal.Class == influx.Transient &&
		(refusal.Status == http.StatusTooManyRequests || refusal.Status == http.StatusServiceUnavailable)
}

// expiredPoints reports how many points a write lost to retention, when that is
// all that was wrong with it.
func expiredPoints(err error) (int64, bool) {
	var refusal *influx.Error
	if !errors.As(err, &refusal) || refusal.Class != influx.PartialWrite || !refusal.StoredRest {
		return 0, false
	}
	return int64(refusal.Dropped), strings.HasPrefix(refusal.Message, "partial write: points beyond retention policy")
}

// forget counts points that retention no longer admits.
func (b *batcher) forget(of *batch, dropped int64) error {
	if dropped == 0 {
		return nil
	}
	if of.mixed {
		return errMixedExpiry
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expired[of.slice] += dropped
	return nil
}

// setSeries chooses the series of the rows that follow.
func (b *batcher) setSeries(s *lineproto.Series, fields []string) error {
	b.mask.setFields(fields)
	return b.encoder.SetSeries(s, fields)
}

// point adds a point that a comparison has found.
func (b *batcher) point(p *point) error {
	if p.newSeries {
		if err := b.setSeries(p.series, p.fields); err != nil {
			return err
		}
	}
	return b.row(p.slice, p.ns, p.values)
}

// row adds a point of a slice.
func (b *batcher) row(slice int, ns int64, values []lineproto.Value) error {
	if b.batch == nil {
		select {
		case b.batch = <-b.free:
			b.bound()
		case <-b.ctx.Done():
			return context.Cause(b.ctx)
		}
	}
	before := len(b.batch.lines)
	lines, err := b.encoder.AppendRow(b.batch.lines, ns, b.mask.apply(values))
	if err != nil || len(lines) == before {
		return err
	}
	if before > 0 && len(lines) > b.maxBytes {
		// No batch is larger than its bound or its one row: a server refuses a
		// large one as a whole.
		if lines, err = b.turnOver(lines, before); err != nil {
			return err
		}
	}
	b.batch.add(slice, lines)
	if b.batch.rows >= b.maxRows || len(lines) >= b.maxBytes {
		return b.send()
	}
	return nil
}

// turnOver sends what lines hold before the last row and returns that row, which
// begins the next batch.
func (b *batcher) turnOver(lines []byte, last int) ([]byte, error) {
	b.batch.lines = lines[:last]
	var next *batch
	select {
	case next = <-b.free:
	case <-b.ctx.Done():
		return nil, context.Cause(b.ctx)
	}
	row := append(next.lines, lines[last:]...)
	if err := b.send(); err != nil {
		b.t.buffers.give(next)
		return nil, err
	}
	b.batch = next
	b.bound()
	return row, nil
}

// send gives the batch to a writer.
func (b *batcher) send() error {
	if b.batch == nil || b.batch.rows == 0 {
		return nil
	}
	if b.filled != nil {
		to := b.filled.Bytes()
		b.batch.read, b.readTo = to-b.readTo, to
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
			b.batch = nil
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

// writing runs produce with a batcher to one end, for the slices of one database
// and policy, and returns only when every batch is acknowledged, or with the
// first error: a refused write counts before what it broke. refused gets the
// points of each slice that retention refused.
func (t *transfer) writing(ctx context.Context, to *end, of *operation.Slice, refused func(i int, points int64), produce func(context.Context, *batcher) error) error {
	out := t.newBatcher(ctx, to, of.Database, of.RetentionPolicy)
	err := produce(out.ctx, out)
	if err == nil {
		err = out.finish()
	}
	if broken := out.close(); broken != nil {
		return broken
	}
	if err != nil {
		return err
	}
	for i, n := range out.expired {
		refused(i, n)
	}
	return nil
}

// buffers keeps a task's batch memory from one group to the next.
type buffers struct{ idle []*batch }

// leastBatch is the least number of points of a batch that is made smaller because it
// took too long.
const leastBatch = 100

// bufferKept bounds the memory of a buffer that is kept: a single row may have
// taken 25 MB.
const bufferKept = 4 << 20

func (b *buffers) take() *batch {
	if n := len(b.idle); n > 0 {
		last := b.idle[n-1]
		b.idle = b.idle[:n-1]
		return last
	}
	return &batch{}
}

func (b *buffers) give(x *batch) {
	if cap(x.lines) > bufferKept {
		return
	}
	x.reset()
	b.idle = append(b.idle, x)
}
