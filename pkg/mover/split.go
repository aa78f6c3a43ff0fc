package mover

import (
	"context"
	"fmt"
	"slices"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
)

// tooLargeError stops the copy of a slice that holds far more than its plan
// estimated; what has been written stays and is compared by those who go on.
type tooLargeError struct {
	// rows is how many have been read of it.
	rows int64
	// there says that they lie at the destination.
	there bool
}

func (e *tooLargeError) Error() string {
	return fmt.Sprintf("the slice holds more than %d points, far more than estimated", e.rows)
}

// handOver cuts a slice of more than rows points by their real distribution and
// gives the parts to new tasks, so that other slots can take their share. Points
// of one time cannot be parted: they are copied here, however many there are.
func (t *transfer) handOver(ctx context.Context, i int, large *tooLargeError) error {
	parts, err := t.partsOf(ctx, i, large)
	switch {
	case err == nil:
	case aboutSlices(ctx, err):
		t.evidence[i].State = operation.SliceFailed
		return t.checkpoint(ctx, []int{i}, problemOf(i, &t.slices[i], err))
	default:
		return err
	}
	if len(parts) < 2 {
		t.whole = true
		defer func() { t.whole = false }()
		return t.copyGroup(ctx, []int{i}, 0)
	}
	return t.giveAway(ctx, i, bundles(parts, 5*t.PartRows/2))
}

// partsOf cuts a slice that is too large; what comes back is one part where there is
// no time to cut at.
func (t *transfer) partsOf(ctx context.Context, i int, large *tooLargeError) (parts []operation.Slice, err error) {
	at := t.source
	if large.there {
		at = t.destination
	}
	err = t.patiently(ctx, "counting points at "+at.URL(), 0, func(ctx context.Context) (err error) {
		parts, err = t.divideLarge(ctx, at, &t.slices[i], large.rows)
		return err
	})
	return parts, err
}

// giveAway gives the parts of a slice to new tasks.
func (t *transfer) giveAway(ctx context.Context, i int, bundles [][]operation.Slice) error {
	children, err := t.job.HandOver(ctx, bundles)
	if err != nil {
		return fmt.Errorf("handing %s over: %w", sliceName(&t.slices[i]), err)
	}
	t.evidence[i] = operation.Evidence{State: operation.SliceHandedOver}
	evidence := slices.Clone(t.evidence)
	read, written := t.read.take(), t.sent.take()
	timeouts := t.recordTimeouts([]int{i})
	return t.job.Checkpoint(ctx, func(task *operation.Task) {
		timeouts(task)
		task.Checkpoint = evidence
		task.Bytes.Read += read
		task.Bytes.Written += written
		for _, id := range children {
			if !slices.Contains(task.Children, id) {
				task.Children = append(task.Children, id)
			}
		}
	})
}

// divideLarge looks at how the points of a slice lie and cuts it accordingly; it
// returns one part when there is no time to cut at.
func (t *transfer) divideLarge(ctx context.Context, at *end, s *operation.Slice, rows int64) ([]operation.Slice, error) {
	sel := selection(s)
	extents, err := at.Extents(ctx, []influx.Selection{sel})
	if err != nil {
		return nil, err
	}
	first, last := extents[0].First, extents[0].Last
	if extents[0].Empty || first == last {
		return []operation.Slice{*s}, nil
	}
	width := histogramWidth(first, last)
	sel.Window = influx.Window{From: first, To: last, Last: true}
	buckets, err := at.Histogram(ctx, sel, width)
	if err != nil {
		return nil, err
	}
	return cutLarge(*s, first, last, buckets, width, rows, t.PartRows), nil
}

// bundles joins slices to runs of about so many points.
func bundles(parts []operation.Slice, points int64) [][]operation.Slice {
	var out [][]operation.Slice
	var sum int64
	for _, p := range parts {
		if n := len(out); n == 0 || sum+p.Points > points || len(out[n-1]) >= operation.MaxSlicesPerTask {
			out = append(out, nil)
			sum = 0
		}
		last := len(out) - 1
		out[last] = append(out[last], p)
		sum += p.Points
	}
	return out
}

// histogramBuckets is how finely a slice is looked at before it is cut.
const histogramBuckets = 1000

func histogramWidth(first, last int64) time.Duration {
	return time.Duration((uint64(last)-uint64(first))/histogramBuckets + 1)
}

// cutLarge cuts a slice that has been found to hold more than rows points, from
// first to last, into at least two parts of about partRows. The buckets count the
// values of one field, so a slice of sparse points holds more than they say: they
// then only tell how its points lie.
func cutLarge(s operation.Slice, first, last int64, buckets []influx.Bucket, width time.Duration, rows, partRows int64) []operation.Slice {
	var counted int64
	for _, b := range buckets {
		counted += b.Rows
	}
	rows = max(rows, 2)
	n := max(2, (rows-1)/partRows+1)
	if counted < rows {
		partRows = max(1, counted/n)
	}
	if parts := cutByHistogram(s, buckets, width, partRows); len(parts) > 1 {
		return parts
	}
	// All in one bucket, or none counted: by equal time between the points.
	return operation.Cut(operation.Candidate{
		Database: s.Database, RetentionPolicy: s.RetentionPolicy, Measurement: s.Measurement,
		Window: operation.Window{From: s.From, To: s.To, Last: s.Last, Overlap: s.Overlap},
		Points: rows, First: first, Last: last, Looked: true,
	}, (rows-1)/n+1)
}

// cutByHistogram cuts a slice at the borders of buckets into parts of about the
// given number of rows. A bucket with more than that is a part of its own,
// divided by equal time, to be looked at again if need be.
func cutByHistogram(s operation.Slice, buckets []influx.Bucket, width time.Duration, rows int64) []operation.Slice {
	var parts []operation.Slice
	open := s
	open.Points = 0
	closeAt := func(to int64) {
		if to <= open.From || to >= s.To {
			return
		}
		p := open
		p.To, p.Last = to, false
		parts = append(parts, divide(p, rows)...)
		open.From, open.Points = to, 0
	}
	for _, b := range buckets {
		if open.Points+b.Rows > rows && (open.Points > 0 || b.Rows > rows) {
			closeAt(b.From)
		}
		open.Points += b.Rows
		if end := b.From + int64(width); open.Points > rows && end > b.From {
			closeAt(end)
		}
	}
	return append(parts, divide(open, rows)...)
}

// divide cuts a slice by equal time into parts of about so many rows.
func divide(s operation.Slice, rows int64) []operation.Slice {
	return s.Split(int(min((s.Points+rows-1)/rows, histogramBuckets)))
}

// sliceName names a slice for a person.
func sliceName(s *operation.Slice) string {
	return fmt.Sprintf("%.*q.%.*q.%.*q from %d to %d", maxExample, s.Database, maxExample, s.RetentionPolicy, maxExample, s.Measurement, s.From, s.To)
}
