package mover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
)

// Settlement is what clients have written between two backends while an operation
// copied: slices whose points have to be looked at once more.
type Settlement struct {
	// Source and Destination are backend URLs.
	Source, Destination string
	operation.Rule
	// Slices may reach over shard groups. An empty retention policy is the default
	// one of the source.
	Slices []operation.Slice
	// Held says that clients' writes of the slices wait meanwhile. Without it nothing is
	// brought to the source, whose values rule: a client may be writing what it lacks to
	// both ends, and would find an older value over its own. What it lacks is left.
	Held bool
}

// Settled is what became of a Settlement.
type Settled struct {
	// Compared counts the points that were compared, Repaired those that were
	// written.
	Compared, Repaired int64
	// Left are the slices in which the ends still differed after they had been
	// repaired: somebody is writing there.
	Left []operation.Slice
	// Example is of a difference that is left.
	Example string
}

// bystander is a Job for what is not a task: nobody's claim, nobody's record.
type bystander struct {
	Job
	op *operation.Operation
}

func (b bystander) Operation() *operation.Operation { return b.op }
func (b bystander) Alive()                          {}
func (b bystander) Wait(*operation.Wait)            {}
func (b bystander) Guard() error                    { return nil }

// Settle makes both ends of slices equal by the rule: they are compared by value,
// what differs is written, and what differed is compared again. It does not try
// again what fails.
func (m *Mover) Settle(ctx context.Context, op *operation.Operation, s Settlement) (Settled, error) {
	var done Settled
	source, err := m.backends.Client(ctx, op, s.Source, nil)
	if err != nil {
		return done, fmt.Errorf("opening source %s: %w", s.Source, err)
	}
	defer source.Close()
	destination, err := m.backends.Client(ctx, op, s.Destination, nil)
	if err != nil {
		return done, fmt.Errorf("opening destination %s: %w", s.Destination, err)
	}
	defer destination.Close()
	t := &transfer{
		Config: m.config, mover: m, job: bystander{op: op}, task: operation.Task{Rule: s.Rule, Source: s.Source, Destination: s.Destination},
		began: operation.Began(op), source: &end{Client: source, mover: m}, destination: &end{Client: destination, mover: m},
	}
	cut, err := t.cut(ctx, s.Slices)
	if err != nil {
		return done, err
	}
	for group := range chunksOfOnePolicy(cut, m.config.GroupSlices) {
		if err := t.settleGroup(ctx, group, s.Held, &done); err != nil {
			return done, err
		}
	}
	return done, nil
}

// cut gives every slice its policy and cuts it at the boundaries of the shard groups
// of both ends: beyond one, fields may have other types. What no group covers has
// no points.
func (t *transfer) cut(ctx context.Context, all []operation.Slice) ([]operation.Slice, error) {
	type policy struct{ database, name string }
	groups := map[policy][]influx.ShardGroup{}
	for _, e := range []*end{t.source, t.destination} {
		found, err := e.ShardGroups(ctx)
		if err != nil {
			return nil, err
		}
		for _, g := range found {
			p := policy{g.Database, g.RetentionPolicy}
			groups[p] = append(groups[p], g)
		}
	}
	defaults := map[string]string{}
	var out []operation.Slice
	for _, s := range all {
		if s.RetentionPolicy == "" {
			name, ok := defaults[s.Database]
			if !ok {
				var err error
				if name, err = t.defaultPolicy(ctx, s.Database); err != nil {
					return nil, err
				}
				defaults[s.Database] = name
			}
			s.RetentionPolicy = name
		}
		out = append(out, cutSlice(s, groups[policy{s.Database, s.RetentionPolicy}])...)
	}
	slices.SortFunc(out, func(a, b operation.Slice) int {
		return cmp.Or(
			strings.Compare(a.Database, b.Database), strings.Compare(a.RetentionPolicy, b.RetentionPolicy),
			strings.Compare(a.Measurement, b.Measurement), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	return slices.Compact(out), nil
}

// defaultPolicy is the source's; "" when it has no such database.
func (t *transfer) defaultPolicy(ctx context.Context, db string) (string, error) {
	databases, err := t.source.Databases(ctx)
	if err != nil || !slices.Contains(databases, db) {
		return "", err
	}
	policies, err := t.source.RetentionPolicies(ctx, db)
	if err != nil {
		return "", err
	}
	for _, p := range policies {
		if p.Default {
			return p.Name, nil
		}
	}
	return "", nil
}

// cutSlice returns the parts of a slice that lie within one group of each end.
func cutSlice(s operation.Slice, groups []influx.ShardGroup) []operation.Slice {
	var edges []int64
	covered := func(from int64) bool {
		return slices.ContainsFunc(groups, func(g influx.ShardGroup) bool {
			return g.From <= from && (from < g.To || g.ToInclusive && from == g.To)
		})
	}
	for _, g := range groups {
		for _, at := range []int64{g.From, g.To} {
			if s.From < at && at < s.To {
				edges = append(edges, at)
			}
		}
	}
	slices.Sort(edges)
	var out []operation.Slice
	from := s.From
	for _, to := range append(slices.Compact(edges), s.To) {
		part := s
		part.From, part.To, part.Last = from, to, s.Last && to == s.To
		if covered(from) {
			out = append(out, part)
		}
		from = to
	}
	return out
}

// chunksOfOnePolicy yields runs of slices of one database and policy, of at most
// n slices.
func chunksOfOnePolicy(all []operation.Slice, n int) func(yield func([]operation.Slice) bool) {
	return func(yield func([]operation.Slice) bool) {
		for len(all) > 0 {
			first := all[0]
			end := slices.IndexFunc(all, func(s operation.Slice) bool {
				return s.Database != first.Database || s.RetentionPolicy != first.RetentionPolicy
			})
			if end < 0 {
				end = len(all)
			}
			end = min(end, n)
			if !yield(all[:end]) {
				return
			}
			all = all[end:]
		}
	}
}

// settleGroup settles slices of one database and policy.
func (t *transfer) settleGroup(ctx context.Context, group []operation.Slice, held bool, done *Settled) error {
	diffs, err := t.mend(ctx, group, held, done)
	if errors.Is(err, errMixedExpiry) && len(group) > 1 {
		for i := range group {
			if err := t.settleGroup(ctx, group[i:i+1], held, done); err != nil {
				return err
			}
		}
		return nil
	}
	if err != nil {
		return err
	}
	differing := t.differing(group, diffs)
	if len(differing) == 0 {
		return nil
	}
	diffs, err = t.compare(ctx, differing, &comparison{overrule: t.task.Overrule})
	if err != nil {
		return err
	}
	left := t.differing(differing, diffs)
	done.Left = append(done.Left, left...)
	for i := range diffs {
		if done.Example == "" && len(left) > 0 {
			done.Example = diffs[i].example
		}
	}
	return nil
}

// differing are the slices in which something is amiss by the rule.
func (t *transfer) differing(group []operation.Slice, diffs []difference) []operation.Slice {
	var out []operation.Slice
	for i := range diffs {
		d := &diffs[i]
		if d.missing > 0 || t.task.Overrule && d.different > 0 || t.task.Mutual && d.extra > 0 {
			out = append(out, group[i])
		}
	}
	return out
}

// mend compares slices and writes what differs; to the source only while writes are held.
func (t *transfer) mend(ctx context.Context, group []operation.Slice, held bool, done *Settled) ([]difference, error) {
	var diffs []difference
	refused := func(int, int64) {} // retention takes it from the source as well
	write := func(to *end, produce func(context.Context, *batcher) error) error {
		return t.writing(ctx, to, &group[0], refused, produce)
	}
	both := func(ctx context.Context, out, back *batcher) error {
		c := &comparison{
			overrule: t.task.Overrule,
			missing: func(p *point) error {
				done.Repaired++
				return out.point(p)
			},
		}
		if back != nil {
			c.returned = func(p *point) error {
				done.Repaired++
				return back.point(p)
			}
		}
		var err error
		diffs, err = t.compare(ctx, group, c)
		return err
	}
	err := write(t.destination, func(ctx context.Context, out *batcher) error {
		if !t.task.Mutual || !held {
			return both(ctx, out, nil)
		}
		return write(t.source, func(ctx context.Context, back *batcher) error { return both(ctx, out, back) })
	})
	for i := range diffs {
		done.Compared += diffs[i].source
	}
	return diffs, err
}
