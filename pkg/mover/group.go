package mover

import (
	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
)

// selection is the part of a slice that a client reads.
func selection(s *operation.Slice) influx.Selection {
	return influx.Selection{
		Database: s.Database, RetentionPolicy: s.RetentionPolicy, Measurement: s.Measurement,
		Window: influx.Window{From: s.From, To: s.To, Last: s.Last},
	}
}

func selections(slices []operation.Slice) []influx.Selection {
	out := make([]influx.Selection, len(slices))
	for i := range slices {
		out[i] = selection(&slices[i])
	}
	return out
}

// groups divides the pending slices of a task into runs of one database and
// policy, each small enough to be read in one request; the indexes are the task's.
func (t *transfer) groups(slices []operation.Slice, pending func(i int) bool) [][]int {
	var groups [][]int
	var current []int
	var points int64
	for i := range slices {
		if !pending(i) {
			continue
		}
		s := &slices[i]
		if len(current) > 0 {
			first := &slices[current[0]]
			if t.alone(current[0]) || t.alone(i) || s.Database != first.Database || s.RetentionPolicy != first.RetentionPolicy ||
				len(current) >= t.GroupSlices || points+s.Points > t.GroupPoints {
				groups, current, points = append(groups, current), nil, 0
			}
		}
		current = append(current, i)
		points += s.Points
	}
	if len(current) > 0 {
		groups = append(groups, current)
	}
	return groups
}

// alone reports whether a slice is not asked for together with others: it has been
// too slow before.
func (t *transfer) alone(i int) bool {
	return i < len(t.slices) && t.slices[i].Halved > 0 || t.walks[i] != nil
}

func pick(slices []operation.Slice, indexes []int) []operation.Slice {
	out := make([]operation.Slice, len(indexes))
	for i, n := range indexes {
		out[i] = slices[n]
	}
	return out
}
