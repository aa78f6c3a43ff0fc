package mover

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
)

// tooLargeError stops the copy of a slice that holds far more than its plan
// estimated; what has been written stays and is compared by those who go on.
type tooLargeError struct{}

func (*tooLargeError) Error() string { return "the slice is larger than estimated" }

// canSplit reports whether there is time to cut at.
func canSplit(s *operation.Slice) bool {
	return uint64(s.To)-uint64(s.From) > 1
}

// handOver cuts a slice by the real distribution of its points and gives the
// parts to new tasks, so that other slots can take their share.
func (t *transfer) handOver(ctx context.Context, i int) error {
	s := t.slices[i]
	var buckets []influx.Bucket
	width := histogramWidth(&s)
	err := t.patiently(ctx, "counting points at "+t.task.Source, func(ctx context.Context) error {
		var err error
		buckets, err = t.source.Histogram(ctx, selection(&s), width)
		return err
	})
	if err != nil {
		return err
	}
	parts := cutByHistogram(s, buckets, width, t.PartRows)
	if len(parts) < 2 {
		return &operation.Error{Code: "slice_too_large", Detail: sliceName(&s) + " cannot be cut by time any further"}
	}
	var bundles [][]operation.Slice
	var points int64
	for _, p := range parts {
		if n := len(bundles); n == 0 || points+p.Points > 5*t.PartRows/2 {
			bundles = append(bundles, nil)
			points = 0
		}
		last := len(bundles) - 1
		bundles[last] = append(bundles[last], p)
		points += p.Points
	}
	children, err := t.job.HandOver(ctx, bundles)
	if err != nil {
		return fmt.Errorf("handing %s over: %w", sliceName(&s), err)
	}
	t.evidence[i] = operation.Evidence{State: operation.SliceHandedOver}
	return t.job.Checkpoint(ctx, func(task *operation.Task) {
		task.Checkpoint = t.evidence
		for _, id := range children {
			if !slices.Contains(task.Children, id) {
				task.Children = append(task.Children, id)
			}
		}
	})
}

// histogramBuckets is how finely a slice is looked at before it is cut.
const histogramBuckets = 1000

func histogramWidth(s *operation.Slice) time.Duration {
	width := (uint64(s.To) - uint64(s.From)) / histogramBuckets
	return time.Duration(max(width, 1))
}

// cutByHistogram cuts a slice at bucket borders into parts of about the given
// number of rows. A single bucket with more than that becomes a part of its own
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
		n := max(1, int((p.Points+rows-1)/rows))
		if n > 1 {
			parts = append(parts, p.Split(n)...)
		} else {
			parts = append(parts, p)
		}
		open.From, open.Points = to, 0
	}
	for _, b := range buckets {
		if open.Points > 0 && open.Points+b.Rows > rows {
			closeAt(b.From)
		}
		open.Points += b.Rows
		if open.Points > rows {
			if end := b.From + int64(width); end > b.From {
				closeAt(end)
			}
		}
	}
	n := max(1, int((open.Points+rows-1)/rows))
	if n > 1 {
		return append(parts, open.Split(n)...)
	}
	return append(parts, open)
}

// sliceName names a slice for a person.
func sliceName(s *operation.Slice) string {
	return fmt.Sprintf("%q.%q.%q from %d to %d", s.Database, s.RetentionPolicy, s.Measurement, s.From, s.To)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}
