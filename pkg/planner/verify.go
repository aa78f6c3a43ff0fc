package planner

import (
	"fmt"
	"slices"

	"ringmaster/pkg/operation"
	"ringmaster/pkg/topology"
)

// reader is the survey of the backend that a measurement is read from in a circle:
// its owner, or the former one as long as the circle's transition has not been cut
// over.
func (r *router) reader(circle int, db, measurement string) int {
	at := &r.circles[circle]
	if !at.FormerRules {
		return r.owner(circle, db, measurement)
	}
	url := at.Former.Owner(db, measurement).URL
	if i, ok := r.at[circle][url]; ok {
		return i
	}
	for known, i := range r.at[circle] {
		if topology.SameServer(known, url) {
			return i
		}
	}
	return r.owner(circle, db, measurement)
}

// compares reports whether a backend holds one side of what a verification compares:
// what it is read for, or, within one circle, what it is not.
func (r *router) compares(s *survey, db, measurement string) bool {
	reads := r.samePlace(s.index, r.reader(s.circle, db, measurement))
	return reads != (len(r.circles) == 1)
}

// routeVerify joins both sides of a measurement, whichever of them holds it.
func (r *router) routeVerify(n measurementName, holders []int, v operation.Verify) {
	if len(r.circles) == 1 {
		for _, i := range holders {
			r.send(r.sources[i], n, route{to: r.reader(0, n.database, n.measurement), still: true, rule: operation.Rule{HoldsMore: true}})
		}
		return
	}
	side, against := r.reader(0, n.database, n.measurement), r.reader(1, n.database, n.measurement)
	here, there := slices.Contains(holders, side), slices.Contains(holders, against)
	way := route{to: against, still: !v.Repair, inward: v.RepairFrom == operation.SideAgainst}
	switch {
	case here && there:
		way.ends = []int{against}
		r.send(r.sources[side], n, way)
	case here:
		r.send(r.sources[side], n, way)
	case there:
		way.to, way.back, way.inward = side, true, !way.inward
		r.send(r.sources[against], n, way)
	}
}

// describe says in the plan what a person has to know about what is compared.
func (r *router) describe(plan *operation.Plan) {
	if _, ok := r.move.(operation.Verify); !ok {
		return
	}
	for i := range r.circles {
		if c := &r.circles[i]; c.FormerRules {
			plan.FormerOwners = append(plan.FormerOwners, c.Circle.ID)
			plan.Notes = append(plan.Notes, fmt.Sprintf("circle %d is changing: its former owners are compared, which are the ones that are read", c.Circle.ID))
		}
	}
	if len(r.circles) < 2 {
		return
	}
	for _, s := range r.sources {
		if first := r.sources[s.place]; first.circle != s.circle {
			plan.Notes = append(plan.Notes, fmt.Sprintf("%s and %s are one server: what both circles keep there is held once and compared with nothing", first.url, s.url))
		}
	}
}
