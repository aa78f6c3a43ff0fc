package planner

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"ringmaster/pkg/operation"
)

// way is one that a cohort's measurements go, by indexes into its places.
type way struct {
	from, to, wave int
	mutual         bool
}

// cohort has the measurements of one database that lie at the same places and go the
// same ways: what is sampled of some of them stands for the others.
type cohort struct {
	database string
	// at are the places that matter to it: the holders first, then those that the
	// points go to. ways are in the order of their waves.
	at      []int
	holders int
	ways    []way
	clears  bool
	// stays says, by at, where a clear that follows would drop nothing.
	stays []bool
	names []string
	large bool
	// grid are the windows that are counted of each of its measurements.
	grid []gridWindow

	sampled int
	// By at, summed over what has been sampled: points before and after, and after
	// a clear that follows, and how many of them have points then.
	before, after, left []float64
	held, kept          []int
}

// gridWindow is a window that is counted and that stands for some.
type gridWindow struct {
	policy string
	operation.Window
	weight float64
	// moves is unset where the operation leaves the window alone.
	moves bool
}

// add notes what has been counted of one of the cohort's measurements: points of each
// window of the grid, all of them, by holder.
func (g *cohort) add(counted [][]int64) {
	if g.sampled == 0 {
		n := len(g.at)
		g.before, g.after, g.left = make([]float64, n), make([]float64, n), make([]float64, n)
		g.held, g.kept = make([]int, n), make([]int, n)
	}
	g.sampled++
	points, now := make([]int64, len(g.at)), make([]int64, len(g.at))
	has, keeps := make([]bool, len(g.at)), make([]bool, len(g.at))
	for i, of := range counted {
		w := &g.grid[i]
		clear(points)
		copy(points, of)
		g.outcome(points, now, w.moves)
		for k := range g.at {
			g.before[k] += w.weight * float64(points[k])
			g.after[k] += w.weight * float64(now[k])
			left := g.remains(now, k)
			g.left[k] += w.weight * float64(left)
			has[k], keeps[k] = has[k] || now[k] > 0, keeps[k] || left > 0
		}
	}
	for k := range has {
		if has[k] {
			g.held[k]++
		}
		if keeps[k] {
			g.kept[k]++
		}
	}
}

// outcome writes to now what a window's points at each place become. Two places are
// taken to hold the same points as far as the smaller number goes: copies differ in
// what one of them lacks.
func (g *cohort) outcome(points, now []int64, moves bool) {
	copy(now, points)
	if !moves {
		return
	}
	for _, w := range g.ways {
		switch {
		case g.clears && points[w.to] >= points[w.from]:
			now[w.from] = 0
		case !g.clears:
			now[w.to] = max(now[w.to], now[w.from])
			if w.mutual {
				now[w.from] = now[w.to]
			}
		}
	}
}

// remains is what a clear that follows would leave of a window at a place: what the
// owner does not hold is not dropped.
func (g *cohort) remains(now []int64, k int) int64 {
	if len(g.ways) == 0 || g.clears || g.stays[k] || now[g.ways[0].to] < now[k] {
		return now[k]
	}
	return 0
}

// tally is what has been summed up for the places.
type tally struct {
	// points are by place and database.
	before, after, left map[int]map[string]float64
	// gained and lost are how many measurements come to be at a place or cease to,
	// leftover how many a clear that follows would drop.
	gained, lost, leftover map[int]int
}

// tallied sums cohorts up: what was sampled stands for the rest of its cohort, and of
// cohorts that nobody came to for the mean of their database.
func tallied(cohorts []*cohort) tally {
	t := tally{
		before: map[int]map[string]float64{}, after: map[int]map[string]float64{}, left: map[int]map[string]float64{},
		gained: map[int]int{}, lost: map[int]int{}, leftover: map[int]int{},
	}
	means := meansOf(cohorts)
	for _, g := range cohorts {
		sampled := g
		if g.sampled == 0 {
			sampled = g.assumed(means[g.database])
		}
		scale := float64(len(g.names)) / float64(sampled.sampled)
		for k, place := range g.at {
			plus(t.before, place, g.database, scale*sampled.before[k])
			plus(t.after, place, g.database, scale*sampled.after[k])
			plus(t.left, place, g.database, scale*sampled.left[k])
			with, kept := int(scale*float64(sampled.held[k])+0.5), int(scale*float64(sampled.kept[k])+0.5)
			switch {
			case k >= g.holders:
				t.gained[place] += with
			case g.clears && slices.ContainsFunc(g.ways, func(w way) bool { return w.from == k }):
				t.lost[place] += len(g.names) - with
			case len(g.ways) > 0 && !g.clears && !g.stays[k]:
				t.leftover[place] += len(g.names) - kept
			}
		}
	}
	return t
}

func plus(to map[int]map[string]float64, place int, database string, points float64) {
	if to[place] == nil {
		to[place] = map[string]float64{}
	}
	to[place][database] += points
}

// meansOf is the mean number of points that a measurement has at a place, by database.
func meansOf(cohorts []*cohort) map[string]int64 {
	points, n := map[string]float64{}, map[string]int{}
	for _, g := range cohorts {
		for k := range g.holders {
			if g.sampled > 0 {
				points[g.database] += g.before[k]
				n[g.database] += g.sampled
			}
		}
	}
	out := map[string]int64{}
	for db, sum := range points {
		out[db] = int64(sum / float64(n[db]))
	}
	return out
}

// assumed is the cohort as if one of its measurements had been counted and had the
// mean number of points at each holder.
func (g *cohort) assumed(mean int64) *cohort {
	guess := *g
	guess.grid = []gridWindow{{weight: 1, moves: true}}
	counted := make([]int64, g.holders)
	for k := range counted {
		counted[k] = max(mean, 1)
	}
	guess.add([][]int64{counted})
	return &guess
}

// cohortsOf finds the cohorts among everything that the sources have listed.
// Measurements that are known to be large are one each: they stand for nobody else.
func cohortsOf(sources []*survey, clears bool, large map[measurementName]bool) []*cohort {
	listers := map[int]*survey{}
	var databases []string
	for _, s := range sources {
		for i := range s.listings {
			databases = append(databases, s.listings[i].name)
		}
		if _, ok := listers[s.place]; !ok && len(s.listings) > 0 {
			listers[s.place] = s
		}
	}
	slices.Sort(databases)
	places := sortedKeys(listers)
	var out []*cohort
	for _, db := range slices.Compact(databases) {
		out = append(out, cohortsIn(db, places, listers, sources, clears, large)...)
	}
	return out
}

// routed walks what moves of a database from one source, in the order of names.
type routed struct {
	s    *survey
	d    *databaseSurvey
	rest []moving
}

func cohortsIn(db string, places []int, listers map[int]*survey, sources []*survey, clears bool, large map[measurementName]bool) []*cohort {
	rest := make([][]string, len(places))
	for i, place := range places {
		if l := listers[place].listed(db); l != nil {
			rest[i] = l.names
		}
	}
	var routes []*routed
	for _, s := range sources {
		if d := s.database(db); d != nil {
			routes = append(routes, &routed{s, d, d.moving})
		}
	}
	known := map[string]*cohort{}
	var out []*cohort
	for {
		name, ok := least(rest)
		if !ok {
			return out
		}
		g := &cohort{database: db, clears: clears}
		for i := range rest {
			if len(rest[i]) > 0 && rest[i][0] == name {
				g.at, rest[i] = append(g.at, places[i]), rest[i][1:]
			}
		}
		g.holders = len(g.at)
		for _, r := range routes {
			g.follow(r, name, sources)
		}
		slices.SortStableFunc(g.ways, func(a, b way) int { return cmp.Compare(a.wave, b.wave) })
		key := fmt.Sprint(g.at, g.holders, g.ways)
		if large[measurementName{db, name}] {
			key = name + " " + key
			g.large = true
		}
		if known[key] == nil {
			for k, place := range g.at {
				// A clear is of the backends of circles; the owner is where all goes.
				g.stays = append(g.stays, sources[place].circle == noCircle || len(g.ways) > 0 && g.ways[0].to == k)
			}
			known[key] = g
			out = append(out, g)
		}
		known[key].names = append(known[key].names, name)
	}
}

// least is the first name of all that are left.
func least(rest [][]string) (name string, ok bool) {
	for _, names := range rest {
		if len(names) > 0 && (!ok || names[0] < name) {
			name, ok = names[0], true
		}
	}
	return name, ok
}

// follow adds the ways that a measurement takes from a source.
func (g *cohort) follow(r *routed, name string, sources []*survey) {
	for len(r.rest) > 0 && r.rest[0].measurement < name {
		r.rest = r.rest[1:]
	}
	for ; len(r.rest) > 0 && r.rest[0].measurement == name; r.rest = r.rest[1:] {
		route := &r.d.routes[r.rest[0].route]
		if route.still {
			continue
		}
		from, to := r.s.place, sources[route.to].place
		if route.inward {
			from, to = to, from
		}
		g.ways = append(g.ways, way{from: g.index(from), to: g.index(to), wave: route.wave, mutual: route.rule.Mutual})
	}
}

// index is where a place is among those of the cohort; it is added when it is new.
func (g *cohort) index(place int) int {
	if k := slices.Index(g.at, place); k >= 0 {
		return k
	}
	g.at = append(g.at, place)
	return len(g.at) - 1
}

// shuffle orders the names of a cohort so that the first ones are a fair sample; it is
// always the same order.
func (g *cohort) shuffle() {
	slices.SortFunc(g.names, func(a, b string) int {
		return cmp.Or(cmp.Compare(xxhash.Sum64String(a), xxhash.Sum64String(b)), strings.Compare(a, b))
	})
}
