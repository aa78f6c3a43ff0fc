package operation

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Past is what an operation that has ended took.
type Past struct {
	// Work is its points and what its slices cost beside them; see WorkOf.
	Work    int64
	Seconds float64
}

// WorkOf is how much a plan is to do, in points: a slice costs some beside its own.
func WorkOf(t *PlanTotals) int64 {
	return t.Points + DefaultBudget().SliceCost*int64(t.Slices)
}

// Bounds of what tells something about speed: what is smaller or shorter is mostly
// starting up.
const (
	PastWork    = 20_000
	PastSeconds = 1.0
	// MaxPast is how many of the last operations count.
	MaxPast = 5
)

// Pace is what the speed of an operation depends on.
type Pace struct {
	Kind   Kind
	Totals PlanTotals
	// Sources is how many backends are read, PerSource how many tasks of one may run
	// at once; 0 means any number.
	Sources, PerSource int
	// Slots are those of all live workers.
	Slots  int
	Limits Limits
	// Bounded are the backends that have limits of their own, and what of the plan is
	// read from or written to each.
	Bounded []Bounded
	// Past are earlier operations of the kind, the latest first.
	Past []Past
}

// Bounded is a backend with limits for all operations together.
type Bounded struct {
	URL           string
	Points, Bytes int64
	Limits        Limits
}

// speeds are the rates, by kind, that are assumed of one slot where no earlier
// operation says better: points and slices a second.
type speeds struct {
	lowPoints, highPoints float64
	lowSlices, highSlices float64
}

// speedsOf has what was measured on two cores that the servers shared, and twice to
// four times that.
func speedsOf(k Kind) speeds {
	if k == KindClear {
		return speeds{30_000, 250_000, 4, 200}
	}
	return speeds{30_000, 300_000, 25, 400}
}

// Seconds that an operation takes whatever it does, and that a task does.
const (
	leastSeconds, mostSeconds         = 0.1, 5.0
	leastTaskSeconds, mostTaskSeconds = 0.002, 0.1
)

// Duration estimates how long an operation takes from beginning to verified end.
func (p *Pace) Duration() PlanDuration {
	if p.Totals.Tasks == 0 {
		return PlanDuration{Basis: "nothing to do"}
	}
	parallel, said := p.parallel()
	d := PlanDuration{}
	var basis []string
	if len(p.Past) > 0 {
		slow, fast := math.Inf(1), 0.0
		past := p.Past[:min(len(p.Past), MaxPast)]
		for _, o := range past {
			rate := float64(o.Work) / o.Seconds
			slow, fast = min(slow, rate), max(fast, rate)
		}
		work := float64(WorkOf(&p.Totals))
		d.LowSeconds, d.HighSeconds = leastSeconds+0.7*work/fast, mostSeconds+1.5*work/slow
		basis = append(basis, fmt.Sprintf("%s, which handled %.0f to %.0f points a second, a slice counted as %d more points; a third less and half as much again is allowed for",
			lastOnes(len(past), p.Kind), slow, fast, DefaultBudget().SliceCost))
	} else {
		s, n := speedsOf(p.Kind), float64(parallel)
		points, slices, tasks := float64(p.Totals.Points), float64(p.Totals.Slices), float64(p.Totals.Tasks)
		d.LowSeconds = leastSeconds + (points/s.highPoints+slices/s.highSlices+tasks*leastTaskSeconds)/n
		d.HighSeconds = mostSeconds + (points/s.lowPoints+slices/s.lowSlices+tasks*mostTaskSeconds)/n
		basis = append(basis, fmt.Sprintf("no %s of this cluster has ended yet that tells its speed; assumed are %.0f to %.0f points and %.0f to %.0f slices a second for each of %d tasks at once (%s)",
			p.Kind, s.lowPoints, s.highPoints, s.lowSlices, s.highSlices, parallel, said))
	}
	basis = append(basis, p.limit(&d)...)
	d.LowSeconds, d.HighSeconds = rounded(d.LowSeconds), rounded(d.HighSeconds)
	d.Basis = strings.Join(basis, "; ")
	return d
}

func lastOnes(n int, k Kind) string {
	if n == 1 {
		return fmt.Sprintf("the last %s that ended", k)
	}
	return fmt.Sprintf("the last %d operations of kind %s that ended", n, k)
}

// parallel is how many tasks run at once, and what makes it so few.
func (p *Pace) parallel() (n int, said string) {
	type bound struct {
		n    int
		said string
	}
	slots := bound{p.Slots, fmt.Sprintf("%d live task slots", p.Slots)}
	if p.Slots <= 0 {
		slots = bound{1, "no worker is live, one slot is assumed"}
	}
	all := []bound{slots, {p.Totals.Tasks, fmt.Sprintf("%d tasks", p.Totals.Tasks)}}
	if p.PerSource > 0 {
		all = append(all, bound{p.PerSource * max(p.Sources, 1), fmt.Sprintf("%d at each of %d sources", p.PerSource, p.Sources)})
	}
	if l := p.Limits.SlotsPerBackend; l != nil && *l > 0 {
		all = append(all, bound{*l * max(p.Sources, 1), fmt.Sprintf("a limit of %d slots at each of %d backends", *l, p.Sources)})
	}
	least := slices.MinFunc(all, func(a, b bound) int { return a.n - b.n })
	return max(least.n, 1), least.said
}

// limit keeps the duration to what the limits admit, and says so.
func (p *Pace) limit(d *PlanDuration) (basis []string) {
	bounds := append([]Bounded{{Points: p.Totals.Points, Bytes: p.Totals.Bytes, Limits: p.Limits}}, p.Bounded...)
	for i := range bounds {
		b := &bounds[i]
		where := ""
		if b.URL != "" {
			where = " at " + b.URL
		}
		for _, l := range []struct {
			limit *int64
			of    int64
			what  string
		}{{b.Limits.PointsPerSecond, b.Points, "points"}, {b.Limits.BytesPerSecond, b.Bytes, "bytes"}} {
			if l.limit == nil || *l.limit <= 0 {
				continue
			}
			least := float64(l.of) / float64(*l.limit)
			if least > d.LowSeconds {
				basis = append(basis, fmt.Sprintf("a limit of %d %s a second%s makes it %.0f seconds at least", *l.limit, l.what, where, math.Ceil(least)))
			}
			// What is compared is read more than once, and counted each time.
			d.LowSeconds, d.HighSeconds = max(d.LowSeconds, least), max(d.HighSeconds, 3*least+mostSeconds)
		}
	}
	return basis
}

// rounded leaves an estimate no more digits than it deserves.
func rounded(seconds float64) float64 {
	if seconds < 100 {
		return math.Round(seconds*10) / 10
	}
	return math.Round(seconds)
}
