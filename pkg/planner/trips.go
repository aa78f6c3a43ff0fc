package planner

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
)

// checkedTypes bounds the measurements whose types a preview asks for.
const checkedTypes = 50

// trips finds what the operation would trip over.
func (v *preview) trips(ctx context.Context, plan *operation.Plan, found [][]look) error {
	if err := v.ambiguous(ctx, plan, found); err != nil {
		return err
	}
	if !v.copies() {
		return nil
	}
	v.expired(found)
	v.policies(plan)
	return v.conflicts(ctx)
}

// copies reports whether the operation brings points to where they are not.
func (v *preview) copies() bool {
	switch move := v.router.move.(type) {
	case operation.Clear:
		return false
	case operation.Verify:
		return move.Repair
	default:
		return true
	}
}

// unreadable tells of a measurement that a backend does not let anybody read, once.
func (v *preview) unreadable(url string, slice *operation.Slice, why error) {
	key := operation.Slice{Database: slice.Database, RetentionPolicy: url, Measurement: slice.Measurement}
	v.mu.Lock()
	told := v.unread[key]
	v.unread[key] = true
	v.mu.Unlock()
	if told {
		return
	}
	v.refuse(operation.Refusal{
		Code: operation.RefusalUnreadable, Backend: url, Detail: operation.Clip(why.Error()), Slice: slice,
		Hint: "it stays where it is and its slices fail, and all else goes on; write the points under another name",
	})
}

// expired tells of points that are older than retention admits.
func (v *preview) expired(found [][]look) {
	type total struct{ points, slices int64 }
	for i, s := range v.sources {
		totals := map[policyName]total{}
		for k := range found[i] {
			if c := s.candidate(&found[i][k]); c.Window.Expired {
				n := policyName{c.Database, c.RetentionPolicy}
				totals[n] = total{totals[n].points + c.Points, totals[n].slices + 1}
			}
		}
		for _, db := range s.databases {
			for _, p := range db.policies {
				if t := totals[policyName{db.name, p.Name}]; t.slices > 0 {
					v.refuse(operation.Refusal{
						Code: operation.RefusalExpired, Backend: s.url,
						Detail: fmt.Sprintf("about %d points in %d windows of retention policy %q of database %q are older than %s: no destination admits them, so they are counted and reported, and not copied",
							t.points, t.slices, p.Name, db.name, p.Duration),
						Hint: "lengthen the policy's duration first if they are to be kept",
					})
				}
			}
		}
	}
}

// policies tells which retention policies will not be as they are at the source.
func (v *preview) policies(plan *operation.Plan) {
	for i := range plan.Policies {
		p := &plan.Policies[i]
		s := v.sources[p.Backend]
		l := s.listed(p.Database)
		if s.lost || l == nil {
			continue
		}
		at := slices.IndexFunc(l.policies, func(held influx.RetentionPolicy) bool { return held.Name == p.Name })
		inUse, used := len(s.groups[policyName{p.Database, p.Name}]) > 0, false
		for _, held := range l.policies {
			used = used || len(s.groups[policyName{p.Database, held.Name}]) > 0
		}
		want := policyOf(p)
		if want.Default && used && (at < 0 || !l.policies[at].Default) {
			v.refuse(operation.Refusal{
				Code: operation.RefusalPolicy, Backend: s.url,
				Detail: fmt.Sprintf("retention policy %q of database %q is the default at the source and will not be here, where clients write to another already", p.Name, p.Database),
				Hint:   "make it the default by hand if clients mean it by writing without a policy",
			})
		}
		if at < 0 {
			continue
		}
		held := l.policies[at]
		will := reconciled(want, held, inUse)
		if will.Duration == want.Duration && will.ShardDuration == want.ShardDuration && will.Replication == want.Replication {
			continue
		}
		v.refuse(operation.Refusal{
			Code: operation.RefusalPolicy, Backend: s.url,
			Detail: fmt.Sprintf("retention policy %q of database %q cannot be made as it is at the source: %s there, %s here afterwards, since a duration is never shortened, and a policy that has points keeps its shard duration",
				p.Name, p.Database, attributes(&want), attributes(&will)),
			Hint: "the points arrive all the same; alter the policy by hand if it is to be equal",
		})
	}
}

func attributes(p *influx.RetentionPolicy) string {
	return fmt.Sprintf("duration %s, shard duration %s, replication %d", p.Duration, p.ShardDuration, p.Replication)
}

// end is one measurement of one policy at one backend.
type end struct {
	source                        int
	database, policy, measurement string
}

// ambiguous looks at windows under several shard groups for fields with several types:
// nobody can tell there what a value is.
func (v *preview) ambiguous(ctx context.Context, plan *operation.Plan, found [][]look) error {
	asked := map[end]bool{}
	left := 0
	for i, s := range v.sources {
		for k := range found[i] {
			c := s.candidate(&found[i][k])
			if !c.Window.Overlap || c.Window.Expired {
				continue
			}
			for _, e := range v.ends(i, &c) {
				if asked[e] {
					continue
				}
				if asked[e] = true; len(asked) > checkedTypes {
					left++
					continue
				}
				slice := operation.Slice{
					Database: c.Database, RetentionPolicy: e.policy, Measurement: c.Measurement,
					From: c.Window.From, To: c.Window.To, Last: c.Window.Last, Points: c.Points, Overlap: true,
				}
				if err := v.ambiguousAt(ctx, v.sources[e.source], &slice); err != nil {
					return err
				}
			}
		}
	}
	if left > 0 {
		plan.Notes = append(plan.Notes, fmt.Sprintf("the types of %d more measurements under overlapping shard groups have not been looked at", left))
	}
	return nil
}

// ends are what a candidate reads at its source and at its destination.
func (v *preview) ends(source int, c *operation.Candidate) []end {
	policies := []string{c.RetentionPolicy}
	if c.RetentionPolicy == "" {
		policies = policies[:0]
		for _, p := range v.sources[source].listed(c.Database).policies {
			policies = append(policies, p.Name)
		}
	}
	var out []end
	for _, policy := range policies {
		out = append(out, end{source, c.Database, policy, c.Measurement}, end{c.To, c.Database, policy, c.Measurement})
	}
	return out
}

func (v *preview) ambiguousAt(ctx context.Context, s *survey, slice *operation.Slice) error {
	l := s.listed(slice.Database)
	if s.lost || l == nil || !l.has(slice.Measurement) {
		return nil
	}
	fields, err := v.fields(ctx, s, slice.Database, slice.RetentionPolicy, slice.Measurement)
	if err != nil {
		return err
	}
	for _, name := range sortedKeys(fields) {
		if len(fields[name]) > 1 {
			v.refuse(operation.Refusal{
				Code: operation.RefusalAmbiguous, Backend: s.url, Slice: slice,
				Detail: fmt.Sprintf("several shard groups cover the same time, and field %q has the types %s in them: whether a value is lost or cast in reading cannot be told, so the slice is reported, and neither taken for equal nor cleared",
					name, kinds(fields[name])),
				Hint: "write these points again under one shard group, with one type",
			})
			break
		}
	}
	return nil
}

// conflicts compares the types of the largest measurements with those at their
// destinations.
func (v *preview) conflicts(ctx context.Context) error {
	for i := range v.largest {
		m := &v.largest[i]
		from, to := v.sources[m.From], v.sources[m.To]
		l := to.listed(m.Database)
		if to.lost || from.lost || l == nil || !l.has(m.Measurement) || from.listed(m.Database) == nil {
			continue
		}
		for _, p := range from.listed(m.Database).policies {
			have, err := v.fields(ctx, from, m.Database, p.Name, m.Measurement)
			if err != nil {
				return err
			}
			held, err := v.fields(ctx, to, m.Database, p.Name, m.Measurement)
			if err != nil {
				return err
			}
			for _, name := range sortedKeys(have) {
				if len(held[name]) == 0 || slices.ContainsFunc(have[name], func(k lineproto.Kind) bool { return slices.Contains(held[name], k) }) {
					continue
				}
				v.refuse(operation.Refusal{
					Code: operation.RefusalConflict, Backend: to.url,
					Detail: fmt.Sprintf("field %q of measurement %q in %q.%q is %s at %s and %s here: where it is so in one shard group the values stay as they are and are reported, and all else arrives",
						name, m.Measurement, m.Database, p.Name, kinds(have[name]), from.url, kinds(held[name])),
					Hint: "decide which type is right, and drop or rewrite the other",
				})
			}
		}
	}
	return nil
}

// fields are those of a measurement with all their types; nil where the server does
// not tell.
func (v *preview) fields(ctx context.Context, s *survey, db, policy, measurement string) (map[string][]lineproto.Kind, error) {
	if !slices.ContainsFunc(s.listed(db).policies, func(p influx.RetentionPolicy) bool { return p.Name == policy }) {
		return nil, nil
	}
	var fields map[string][]lineproto.Kind
	err := s.patiently(ctx, v.Planner, "asking for types at", s, func(ctx context.Context) (err error) {
		fields, err = s.client.FieldKeys(ctx, db, policy, measurement)
		return err
	})
	if refusedForGood(err) {
		return nil, nil
	}
	return fields, err
}

func kinds(all []lineproto.Kind) string {
	names := make([]string, len(all))
	for i, k := range all {
		names[i] = k.String()
	}
	return strings.Join(names, " and ")
}
