package mover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
)

// proof is what is known of one unit of a clear: a measurement and a window of
// the source over all of its retention policies, since InfluxDB deletes over all
// of them.
type proof struct {
	// index is the unit's in the task.
	index int
	unit  operation.Slice
	parts []unitPart
	// shape is how the unit lay in the source's policies when it was divided.
	shape string
	// evidence is what is recorded: Rows, Values and Counts of what the owner is
	// proven to hold, Expired the points that retention no longer admits.
	evidence operation.Evidence
	// why is the reason why the unit may not be dropped; nil means that it may.
	// missing and different are the points that the owner lacks or has otherwise.
	why                *operation.Error
	missing, different int64

	// again counts how often the unit was proven anew because it had changed.
	again int
	// before is the evidence of an earlier proof after which the unit may have been
	// deleted; sentAt is when this process has last asked for that, or seen it go on.
	before operation.Evidence
	sentAt time.Time
}

// unitPart is what one retention policy may have of a unit, before or after the
// time from which on it keeps points.
type unitPart struct {
	operation.Slice
	// source is what the proof has seen there, owner what the owner had at that
	// time. They are empty for an expired part.
	source, owner census
	points        int64
}

// empty reports whether there is nothing in the unit to delete. What retention no
// longer admits is left to retention.
func (p *proof) empty() bool { return p.evidence.Rows == 0 }

// window is what is deleted: the unit from where the first policy has anything
// proven. What another one has expired after that goes with it, since a delete is
// of all policies.
func (p *proof) window() influx.Window {
	w := selection(&p.unit).Window
	w.From = w.To
	for i := range p.parts {
		if p.parts[i].points > 0 {
			w.From = min(w.From, p.parts[i].From)
		}
	}
	return w
}

// recorded is the evidence as it is stored. What an earlier proof has seen and is
// not there now was deleted after it.
func (p *proof) recorded(state operation.SliceState) operation.Evidence {
	e := p.evidence
	e.State = state
	if p.before.Rows > e.Rows {
		e.Counts, e.Digest = p.before.Counts, p.before.Digest
	}
	e.Rows, e.Values = max(e.Rows, p.before.Rows), max(e.Values, p.before.Values)
	e.Expired = max(e.Expired, p.before.Expired)
	return e
}

// gone is how many points must have been deleted since an earlier proof.
func (p *proof) gone() int64 { return max(0, p.before.Rows-p.evidence.Rows) }

// refuse keeps the unit; the first reason counts.
func (p *proof) refuse(code, format string, args ...any) {
	if p.why == nil {
		p.why = &operation.Error{Code: code, Detail: operation.Clip(fmt.Sprintf(format, args...))}
	}
}

// live returns the parts that are proven, as they are read.
func (p *proof) live() (all []operation.Slice, of []*unitPart) {
	for i := range p.parts {
		if part := &p.parts[i]; !part.Expired {
			all, of = append(all, part.Slice), append(of, part)
		}
	}
	return all, of
}

// proveGroup proves the units of a group. A group that cannot be read is proven
// unit by unit; a unit that cannot be is kept, and one that is too slow goes to
// another task in halves, without a proof of its own.
func (d *dropper) proveGroup(ctx context.Context, group []int, limit time.Duration) ([]*proof, error) {
	var found []*proof
	err := d.timely(ctx, "proving that "+d.destination.URL()+" holds what "+d.source.URL()+" has", limit, group, func(ctx context.Context) (err error) {
		found, err = d.proveUnits(ctx, group, false)
		return err
	})
	switch {
	case err == nil:
		return found, nil
	case !aboutSlices(ctx, err):
		return nil, err
	case len(group) > 1:
		found = nil
		for i := range group {
			one, err := d.proveGroup(ctx, group[i:i+1], d.limitAfter(err))
			if err != nil {
				return nil, err
			}
			found = append(found, one...)
		}
		return found, nil
	}
	if slow, ok := errors.AsType[*slowError](err); ok {
		// All policies of a unit are deleted together, so it is cut by time alone.
		unit := &d.slices[group[0]]
		if parts := d.halvesByTime(unit); len(parts) > 1 {
			return nil, d.giveAway(ctx, group[0], [][]operation.Slice{parts})
		}
		err = d.atFloor(slow, unit)
	}
	return []*proof{{index: group[0], unit: d.slices[group[0]], why: keptBecause(err)}}, nil
}

// keptBecause turns an error about a unit into the reason to keep it.
func keptBecause(err error) *operation.Error {
	if own, ok := errors.AsType[*operation.Error](err); ok {
		return own
	}
	code := "slice_refused"
	if errors.Is(err, influx.ErrUnaddressable) {
		code = "unaddressable"
	}
	return &operation.Error{Code: code, Detail: operation.Clip(err.Error())}
}

// proveUnits compares every point that the source has in units of one database
// with their owner. byField has the owner's counts remembered field by field.
func (d *dropper) proveUnits(ctx context.Context, group []int, byField bool) ([]*proof, error) {
	here, there, err := d.holdings(ctx, d.slices[group[0]].Database)
	if err != nil {
		return nil, err
	}
	// What types there are is part of what has to be true at this moment.
	d.source.types, d.destination.types = influx.MixedTypes{}, influx.MixedTypes{}
	proofs := make([]*proof, len(group))
	for i, n := range group {
		proofs[i] = &proof{index: n, unit: d.slices[n]}
		d.divide(proofs[i], &here)
	}
	if err := d.countExpired(ctx, proofs); err != nil {
		return nil, err
	}
	for _, p := range proofs {
		if err := d.checkUnit(ctx, p, &here, &there); err != nil {
			return nil, err
		}
	}
	live, err := d.occupied(ctx, proofs)
	if err != nil {
		return nil, err
	}
	if err := d.refuseStrangers(ctx, live, &there); err != nil {
		return nil, err
	}
	return proofs, d.compareParts(ctx, live, byField)
}

// holdings asks both ends how they keep a database.
func (d *dropper) holdings(ctx context.Context, db string) (here, there holding, err error) {
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() (err error) {
		here, err = d.source.holding(ctx, db)
		return err
	})
	both.Go(func() (err error) {
		there, err = d.destination.holding(ctx, db)
		return err
	})
	err = both.Wait()
	return here, there, err
}

// divide finds the parts of a unit. What lies before a policy's duration, as it
// was at the operation's creation, is a part of its own.
func (d *dropper) divide(p *proof, here *holding) {
	p.shape, p.parts = here.shape(&p.unit), nil
	for i := range here.policies {
		policy := &here.policies[i]
		if !here.mayHold(policy.Name, &p.unit) {
			continue
		}
		s := p.unit
		s.RetentionPolicy, s.Overlap, s.Expired = policy.Name, false, false
		for _, s := range cutExpired(s, d.cutoff(policy)) {
			p.parts = append(p.parts, unitPart{Slice: s})
		}
	}
}

// cutoff is the time before which a policy, when the operation was created, kept
// nothing any more.
func (t *transfer) cutoff(p *influx.RetentionPolicy) cutoff {
	created := t.job.Operation().CreatedAt
	if p.Duration <= 0 || created.IsZero() {
		return cutoff{}
	}
	return cutoff{at: created.Add(-p.Duration).UnixNano(), set: true}
}

// cutoff is a time before which retention keeps nothing, unless it is not set.
type cutoff struct {
	at  int64
	set bool
}

// cutExpired divides a slice at a cutoff.
func cutExpired(s operation.Slice, c cutoff) []operation.Slice {
	switch {
	case !c.set || c.at <= s.From:
		return []operation.Slice{s}
	case c.at > s.To || c.at == s.To && !s.Last:
		s.Expired = true
		return []operation.Slice{s}
	}
	expired := s
	expired.To, expired.Last, expired.Expired = c.at, false, true
	s.From = c.at
	return []operation.Slice{expired, s}
}

// countExpired counts what is left out of the proofs.
func (d *dropper) countExpired(ctx context.Context, proofs []*proof) error {
	var all []operation.Slice
	var of []*proof
	for _, p := range proofs {
		for i := range p.parts {
			if p.parts[i].Expired {
				all, of = append(all, p.parts[i].Slice), append(of, p)
			}
		}
	}
	points, err := d.source.Totals(ctx, selections(all))
	if err != nil {
		return err
	}
	for i, p := range of {
		p.evidence.Expired += points[i]
	}
	return nil
}

// checkUnit refuses a unit of which one end would cast values or hide them when
// it is read. That is looked at now, since shard groups may have come up after
// the plan was made.
func (d *dropper) checkUnit(ctx context.Context, p *proof, here, there *holding) error {
	live, _ := p.live()
	for i := range live {
		s := &live[i]
		s.Overlap = true
		err := d.checkPart(ctx, s, here, there)
		if own, ok := errors.AsType[*operation.Error](err); ok {
			p.refuse(own.Code, "%s: %s", inPolicy(s), own.Detail)
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *dropper) checkPart(ctx context.Context, s *operation.Slice, here, there *holding) error {
	if here.several(s.RetentionPolicy, s) {
		if err := d.source.checkTypes(ctx, s); err != nil {
			return err
		}
	}
	if there.has(s.RetentionPolicy) && there.several(s.RetentionPolicy, s) {
		return d.destination.checkTypes(ctx, s)
	}
	return nil
}

// inPolicy names a part for a person who knows the unit.
func inPolicy(s *operation.Slice) string {
	return fmt.Sprintf("retention policy %.*q", maxExample, s.RetentionPolicy)
}

// livePart is a part in which the source has points that are to be proven.
type livePart struct {
	*unitPart

	of *proof
}

// occupied returns the parts of units not refused, other than expired ones, in
// which the source has points.
func (d *dropper) occupied(ctx context.Context, proofs []*proof) ([]livePart, error) {
	var candidates []livePart
	var all []operation.Slice
	for _, p := range proofs {
		if p.why != nil {
			continue
		}
		slices, parts := p.live()
		all = append(all, slices...)
		for _, part := range parts {
			candidates = append(candidates, livePart{part, p})
		}
	}
	occupied, err := d.source.Occupied(ctx, selections(all))
	if err != nil {
		return nil, err
	}
	var live []livePart
	for i, c := range candidates {
		if occupied[i] {
			live = append(live, c)
		}
	}
	return live, nil
}

// refuseStrangers refuses the units of which the source has points in a policy
// that the owner does not know.
func (d *dropper) refuseStrangers(ctx context.Context, live []livePart, there *holding) error {
	for _, l := range live {
		if l.of.why != nil || there.has(l.RetentionPolicy) {
			continue
		}
		points, err := d.source.Totals(ctx, []influx.Selection{selection(&l.Slice)})
		if err != nil {
			return err
		}
		l.of.missing += points[0]
		l.of.refuse(codeUnproven, "%s: the owner %s does not have it, and %d points are in it here",
			inPolicy(&l.Slice), d.destination.URL(), points[0])
	}
	return nil
}

// compareParts compares the points of units that are not refused, and keeps what
// it has seen of them.
func (d *dropper) compareParts(ctx context.Context, live []livePart, byField bool) error {
	var chosen []livePart
	var all []operation.Slice
	for _, l := range live {
		if l.of.why == nil {
			chosen, all = append(chosen, l), append(all, l.Slice)
		}
	}
	if len(chosen) == 0 {
		return nil
	}
	seen, owner, diffs, err := d.lookAtBoth(ctx, all, byField)
	if err != nil {
		return err
	}
	for i, l := range chosen {
		l.owner = owner[i]
		l.source = census{sum: seen[i].Counts, values: seen[i].Values}
		l.points = diffs[i].source
		e := &l.of.evidence
		e.Rows += diffs[i].source
		e.Values += seen[i].Values
		// Equal counts in other policies are not the same.
		e.Counts += mix(policyHash(l.RetentionPolicy), seen[i].Counts)
		e.Digest += mix(policyHash(l.RetentionPolicy), seen[i].Digest)
		if diff := &diffs[i]; diff.missing > 0 || diff.different > 0 && !d.task.Superseded {
			l.of.missing, l.of.different = l.of.missing+diff.missing, l.of.different+diff.different
			l.of.refuse(codeUnproven, "%s: of %d points here %d are missing at the owner %s and %d differ; %s",
				inPolicy(&l.Slice), diff.source, diff.missing, d.destination.URL(), diff.different, diff.example)
		}
	}
	return nil
}

// lookAtBoth compares slices point by point. It returns what it has seen at the
// source, and what the owner has, either by what the comparison has seen there,
// which holds when nothing differs, or, field by field, by a count of its own.
func (d *dropper) lookAtBoth(ctx context.Context, all []operation.Slice, byField bool) ([]operation.Evidence, []census, []difference, error) {
	seen, more := make([]operation.Evidence, len(all)), make([]operation.Evidence, len(all))
	c := comparison{seen: addTo(seen), returned: addTo(more)}
	var owner []census
	if byField {
		// Counted first, so that whatever it loses from now on is noticed when it is
		// counted again.
		var err error
		if owner, err = d.takeCensus(ctx, d.destination, all, true); err != nil {
			return nil, nil, nil, err
		}
		c.returned = nil
	}
	diffs, err := d.compare(ctx, all, &c)
	if err != nil || byField {
		return seen, owner, diffs, err
	}
	owner = make([]census, len(all))
	for i := range owner {
		owner[i] = census{sum: seen[i].Counts + more[i].Counts, values: seen[i].Values + more[i].Values}
	}
	return seen, owner, diffs, nil
}

// addTo returns what adds points to the evidence of their slices.
func addTo(evidence []operation.Evidence) func(*point) error {
	var h hasher
	return func(p *point) error {
		if p.newSeries {
			h.setSeries(p.series, p.fields)
		}
		h.row(&evidence[p.slice], p.ns, p.values)
		return nil
	}
}

// policyHash sets the evidence of policies apart.
func policyHash(policy string) uint64 { return fieldHash(0, policy) }

// unchanged counts a unit again at both ends: the source must have exactly what
// was proven, in the same policies, and the owner no less than it had.
func (d *dropper) unchanged(ctx context.Context, p *proof) (bool, error) {
	live, parts := p.live()
	var ours []operation.Slice
	var owned []*unitPart
	for i, part := range parts {
		if part.points > 0 {
			ours, owned = append(ours, live[i]), append(owned, part)
		}
	}
	byField := len(owned) > 0 && owned[0].owner.fields != nil
	var here holding
	var now, there []census
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() (err error) {
		here, err = d.source.holding(ctx, p.unit.Database)
		return err
	})
	both.Go(func() (err error) {
		now, err = d.takeCensus(ctx, d.source, live, false)
		return err
	})
	both.Go(func() (err error) {
		there, err = d.takeCensus(ctx, d.destination, ours, byField)
		return err
	})
	if err := both.Wait(); err != nil {
		return false, err
	}
	if here.shape(&p.unit) != p.shape {
		return false, nil
	}
	for i, part := range parts {
		if now[i].sum != part.source.sum || now[i].values != part.source.values {
			return false, nil
		}
	}
	for i, part := range owned {
		if !there[i].atLeast(&part.owner) {
			return false, nil
		}
	}
	return true, nil
}
