package topology

import "ringmaster/pkg/operation"

// limits are those that a mapping gives: 0 lifts a limit that would hold otherwise.
type limits struct {
	points, bytes, slots *int
}

// limits reads the mapping of limits, if there is one.
func (o *object) limits() limits {
	child := o.object("limits")
	if child == nil {
		return limits{}
	}

	read := func(key string, most int) *int {
		if n, ok := child.whole(key, most); ok {
			return &n
		}

		return nil
	}
	l := limits{
		points: read("points_per_second", operation.MaxPointsPerSecond),
		bytes:  read("bytes_per_second", operation.MaxBytesPerSecond),
		slots:  read("slots_per_backend", operation.MaxSlotsPerBackend),
	}

	child.finish()

	return l
}

// over returns the limits that hold where others hold otherwise.
func (l limits) over(others operation.Limits) operation.Limits {
	rate := func(n *int, other *int64) *int64 {
		switch {
		case n == nil:
			return other
		case *n == 0:
			return nil
		}

		wide := int64(*n)

		return &wide
	}
	out := operation.Limits{
		PointsPerSecond: rate(l.points, others.PointsPerSecond),
		BytesPerSecond:  rate(l.bytes, others.BytesPerSecond),
		SlotsPerBackend: others.SlotsPerBackend,
	}

	if l.slots != nil {
		out.SlotsPerBackend = nil
		if *l.slots > 0 {
			out.SlotsPerBackend = l.slots
		}
	}

	return out
}

// backendLimits joins the limits of every backend with those of some, by URL. An
// address that is given twice is one server: its last mapping counts.
func backendLimits(all limits, own map[string]limits) operation.BackendLimits {
	out := operation.BackendLimits{Default: all.over(operation.Limits{})}

	for url, l := range own {
		if out.Backends == nil {
			out.Backends = map[string]operation.Limits{}
		}

		out.Backends[url] = l.over(out.Default)
	}

	return out
}
