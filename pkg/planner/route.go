package planner

import (
	"cmp"
	"slices"
	"strings"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/topology"
)

// router decides where the measurements of each backend go, by the kind of move.
//
// What a circle has to say about a point is what its owner there holds. What lies
// elsewhere in the circle is a leftover: it fills what nobody holds, after the
// owners have had their say.
type router struct {
	move    operation.Move
	circles []CircleLayout
	sources []*survey
	// at are the surveys of each circle's backends, by URL.
	at []map[string]int
	// filled are the surveys that a recovery may write to.
	filled map[int]bool
}

func newRouter(move operation.Move, at Layout, sources []*survey) *router {
	r := &router{move: move, circles: at.Circles, sources: sources, at: make([]map[string]int, len(at.Circles)), filled: map[int]bool{}}
	for i := range r.at {
		r.at[i] = map[string]int{}
	}
	for _, s := range sources {
		if s.circle != noCircle {
			r.at[s.circle][s.url] = s.index
		}
	}
	if recovery, ok := move.(operation.Recovery); ok {
		for url, index := range r.at[1] {
			wanted := slices.ContainsFunc(recovery.BackendURLs, func(named string) bool { return topology.SameServer(named, url) })
			r.filled[index] = wanted || len(recovery.BackendURLs) == 0
		}
	}
	return r
}

// owner is the survey of the backend that owns a measurement in a circle.
func (r *router) owner(circle int, db, measurement string) int {
	return r.at[circle][r.circles[circle].Placement.Owner(db, measurement).URL]
}

// owns reports whether the backend owns the measurement in its circle.
func (r *router) owns(s *survey, db, measurement string) bool {
	return s.circle != noCircle && r.samePlace(s.index, r.owner(s.circle, db, measurement))
}

func (r *router) samePlace(a, b int) bool { return r.sources[a].place == r.sources[b].place }

// asks reports whether a backend has anything to do with the move.
func (r *router) asks(s *survey) bool {
	switch r.move.(type) {
	case operation.Recovery:
		return s.circle == 0 || r.filled[s.index]
	case operation.Clear:
		return s.circle == 0
	default:
		return true
	}
}

// ownedAnywhere reports whether the server of a backend owns the measurement in
// any circle.
func (r *router) ownedAnywhere(s *survey, db, measurement string) bool {
	for c := range r.circles {
		if r.samePlace(s.index, r.owner(c, db, measurement)) {
			return true
		}
	}
	return false
}

// goes returns the measurements of a backend that may have somewhere to go; nil
// when none has.
func (r *router) goes(s *survey) func(db, measurement string) bool {
	switch r.move.(type) {
	case operation.Recovery:
		if s.circle != 0 {
			return nil
		}
		return func(db, measurement string) bool {
			to := r.owner(1, db, measurement)
			return r.filled[to] && !r.samePlace(s.index, to)
		}
	case operation.Resync:
		return func(string, string) bool { return true }
	case operation.Clear:
		// What is a leftover in one circle may be the good copy of another.
		return func(db, measurement string) bool { return !r.ownedAnywhere(s, db, measurement) }
	case operation.Verify:
		return func(db, measurement string) bool { return r.compares(s, db, measurement) }
	default:
		return func(db, measurement string) bool { return !r.owns(s, db, measurement) }
	}
}

// measurementName is a measurement wherever it lies.
type measurementName struct{ database, measurement string }

// assign gives every measurement that was found its routes.
func (r *router) assign() {
	// Most measurements lie in one place only, so the others alone are gathered.
	count := map[measurementName]int{}
	r.each(func(_ *survey, n measurementName) { count[n]++ })
	holders := map[measurementName][]int{}
	r.each(func(s *survey, n measurementName) {
		if count[n] > 1 {
			holders[n] = append(holders[n], s.index)
			return
		}
		r.route(n, []int{s.index})
	})
	for n, all := range holders {
		r.route(n, all)
	}
	for _, s := range r.sources {
		for i := range s.databases {
			d := &s.databases[i]
			// In the order of names, whatever order the holders came in.
			slices.SortStableFunc(d.moving, func(a, b moving) int { return strings.Compare(a.measurement, b.measurement) })
			s.backend.InPlace += len(d.held) - distinct(d.moving)
			d.held = nil
		}
	}
	r.sharePolicies()
}

// each calls f for every measurement that a backend holds, in order.
func (r *router) each(f func(*survey, measurementName)) {
	for _, s := range r.sources {
		for i := range s.databases {
			for _, measurement := range s.databases[i].held {
				f(s, measurementName{s.databases[i].name, measurement})
			}
		}
	}
}

// distinct counts the measurements that go somewhere, which are sorted.
func distinct(all []moving) int {
	n := 0
	for i := range all {
		if i == 0 || all[i].measurement != all[i-1].measurement {
			n++
		}
	}
	return n
}

// route routes one measurement from all that hold it, who come in the order of
// their indexes.
func (r *router) route(n measurementName, holders []int) {
	switch move := r.move.(type) {
	case operation.Resync:
		r.routeResync(n, holders)
		return
	case operation.Verify:
		r.routeVerify(n, holders, move)
		return
	default:
	}
	r.rank(n, holders)
	for wave, i := range holders {
		s := r.sources[i]
		way := route{wave: wave}
		switch r.move.(type) {
		case operation.Recovery:
			way.to = r.owner(1, n.database, n.measurement)
			way.rule.Overrule = r.owns(s, n.database, n.measurement)
		case operation.Clear:
			// Each backend is cleared of what it holds, whoever else holds it.
			way.to, way.wave = r.owner(s.circle, n.database, n.measurement), 0
			way.rule.Superseded = r.circles[s.circle].Proven
		default:
			way.to = r.owner(0, n.database, n.measurement)
			way.rule.Overrule = r.rules(s, n)
		}
		r.send(s, n, way)
	}
}

// send adds a route, unless it leads to where the points are.
func (r *router) send(s *survey, n measurementName, way route) {
	if !r.samePlace(s.index, way.to) {
		s.database(n.database).add(n.measurement, way)
	}
}

// rank orders the holders of a measurement: its owner first, then its former
// owner, then removed backends, then the others as they are configured. Each goes
// a wave after the one before it, so that the first value to arrive is the one
// that stays.
func (r *router) rank(n measurementName, holders []int) {
	rank := func(i int) int {
		s := r.sources[i]
		former := r.former(s, n)
		switch {
		case r.rules(s, n):
			return -1
		case r.owns(s, n.database, n.measurement):
			return 0
		case former != "" && former == s.url:
			return 1
		case s.backend.Removed:
			return 2
		default:
			return 3
		}
	}
	slices.SortStableFunc(holders, func(a, b int) int { return cmp.Compare(rank(a), rank(b)) })
}

// rules reports whether a backend is the owner that is read until the circle's
// transition has been cut over: its values count, whatever the new owner holds.
func (r *router) rules(s *survey, n measurementName) bool {
	at := &r.circles[max(s.circle, 0)]
	return at.FormerRules && r.former(s, n) == s.url && !r.owns(s, n.database, n.measurement)
}

// former is the address of the measurement's owner in the epoch before.
func (r *router) former(s *survey, n measurementName) string {
	p := r.circles[max(s.circle, 0)].Former
	if p == nil {
		return ""
	}
	return p.Owner(n.database, n.measurement).URL
}

// routeResync makes the owners of a measurement equal in all circles. The lowest
// circle that holds it is joined with each of the others, in order, so that of
// two values that of the lower circle stays; then it gives what came together to
// those that have not seen all of it. What lies in wrong places fills what is
// missing then.
func (r *router) routeResync(n measurementName, holders []int) {
	var owners, leftovers []int
	for _, i := range holders {
		if r.owns(r.sources[i], n.database, n.measurement) {
			owners = append(owners, i)
		} else {
			leftovers = append(leftovers, i)
		}
	}
	wave := 0
	if len(owners) > 0 {
		base := r.sources[owners[0]]
		for i, other := range owners[1:] {
			// By then the base has what those before this one hold, too.
			r.send(base, n, route{to: other, wave: wave, rule: operation.Rule{Overrule: true, Mutual: true}, ends: owners[1 : i+2]})
			wave++
		}
		// The base and the last one joined have seen everything.
		last := r.sources[owners[len(owners)-1]]
		for c := range r.circles {
			to := r.owner(c, n.database, n.measurement)
			if r.samePlace(to, last.index) {
				continue
			}
			r.send(base, n, route{to: to, wave: wave, rule: operation.Rule{Overrule: true}, ends: owners[1:]})
		}
		wave++
	}
	r.rank(n, leftovers)
	for _, i := range leftovers {
		for c := range r.circles {
			r.send(r.sources[i], n, route{to: r.owner(c, n.database, n.measurement), wave: wave})
		}
		wave++
	}
}

// sharePolicies lets every source know the policies of the backends whose points
// its routes have to cover.
func (r *router) sharePolicies() {
	for _, s := range r.sources {
		for i := range s.databases {
			d := &s.databases[i]
			for _, way := range d.routes {
				for _, end := range way.ends {
					d.know(r.sources[end].database(d.name).policies)
				}
			}
		}
	}
}

// know adds the policies that the database has elsewhere only, and the longest
// durations.
func (d *databaseSurvey) know(others []influx.RetentionPolicy) {
	for _, p := range others {
		at := slices.IndexFunc(d.policies, func(known influx.RetentionPolicy) bool { return known.Name == p.Name })
		switch {
		case at < 0:
			p.Default = false
			d.policies = append(d.policies, p)
		case keepsLonger(p.Duration, d.policies[at].Duration):
			d.policies[at].Duration = p.Duration
		}
	}
}
