package mover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
)

// holding is how one end keeps a database at one moment: its retention policies
// and their shard groups.
type holding struct {
	policies []influx.RetentionPolicy
	groups   map[string][]influx.ShardGroup
}

// holding asks an end how it keeps a database; one without the database has no
// policies.
func (e *end) holding(ctx context.Context, db string) (h holding, err error) {
	began := e.mover.config.Now()
	defer func() { e.observe(began, err) }()
	h.groups = map[string][]influx.ShardGroup{}
	policies, err := e.RetentionPolicies(ctx, db)
	if err != nil {
		return h, e.unlessWithout(ctx, db, err)
	}
	h.policies = policies
	groups, err := e.ShardGroups(ctx)
	if err != nil {
		return h, err
	}
	for _, g := range groups {
		if g.Database == db {
			h.groups[g.RetentionPolicy] = append(h.groups[g.RetentionPolicy], g)
		}
	}
	return h, nil
}

// unlessWithout forgives a refusal whose reason is that there is no such
// database.
func (e *end) unlessWithout(ctx context.Context, db string, err error) error {
	var refusal *influx.Error
	if !errors.As(err, &refusal) || refusal.Class != influx.Permanent {
		return err
	}
	known, asked := e.Databases(ctx)
	if asked != nil || slices.Contains(known, db) {
		return err
	}
	return nil
}

func (h *holding) has(policy string) bool {
	return slices.ContainsFunc(h.policies, func(p influx.RetentionPolicy) bool { return p.Name == policy })
}

// groupSlack is how much later a shard group may end than the server tells; see
// influx.ShardGroup.
const groupSlack = uint64(time.Second)

// mayHold reports whether a policy may have points in a slice's window: without
// a shard group it has none.
func (h *holding) mayHold(policy string, s *operation.Slice) bool {
	return slices.ContainsFunc(h.groups[policy], func(g influx.ShardGroup) bool { return meets(&g, s, groupSlack) })
}

// several reports whether more than one shard group of a policy has to do with a
// window, so that reading it may cast values or hide them.
func (h *holding) several(policy string, s *operation.Slice) bool {
	n := 0
	for i := range h.groups[policy] {
		if meets(&h.groups[policy][i], s, 0) {
			n++
		}
	}
	return n > 1
}

// overlaps reports whether two shard groups of a slice's policy have a time in
// common that lies in its window: a point that is written there again need not
// come to where it was.
func (h *holding) overlaps(s *operation.Slice) bool {
	groups := h.groups[s.RetentionPolicy]
	for i := range groups {
		for j := range i {
			common := *s
			common.From = max(s.From, groups[i].From, groups[j].From)
			common.To = min(s.To, groups[i].To, groups[j].To)
			if common.From < common.To && meets(&groups[i], s, 0) && meets(&groups[j], s, 0) {
				return true
			}
		}
	}
	return false
}

// meets reports whether a shard group, which may end by some slack later, and a
// window have a time in common.
func meets(g *influx.ShardGroup, s *operation.Slice, slack uint64) bool {
	begins := g.From < s.To || s.Last && g.From == s.To
	ends := g.To > s.From || g.ToInclusive && g.To == s.From
	if !ends && slack > 0 {
		ends = uint64(s.From)-uint64(g.To) <= slack
	}
	return begins && ends
}

// shape is all that decides how a slice's window lies in the policies. While it
// stays the same, what was found out about the window by it holds.
func (h *holding) shape(s *operation.Slice) string {
	var b strings.Builder
	for i := range h.policies {
		p := &h.policies[i]
		fmt.Fprintf(&b, "%q %d:", p.Name, p.Duration)
		for n := range h.groups[p.Name] {
			if g := &h.groups[p.Name][n]; meets(g, s, groupSlack) {
				fmt.Fprintf(&b, " %d", g.ID)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// census is how many values a server counts in a slice.
type census struct {
	// sum is comparable with Evidence.Counts, values with Evidence.Values.
	sum    uint64
	values int64
	// fields has the counts of each (series, field), where they were asked for
	// and are not too many.
	fields map[uint64]int64
}

// maxCensusFields bounds what one census remembers, to about 16 MiB.
const maxCensusFields = 200_000

// atLeast reports whether no field of any series has fewer values than before.
// Where the fields are not known, their number must be the same.
func (c *census) atLeast(before *census) bool {
	if c.sum == before.sum && c.values == before.values {
		return true
	}
	if c.fields == nil || before.fields == nil {
		return false
	}
	for field, n := range before.fields {
		if c.fields[field] < n {
			return false
		}
	}
	return true
}

// takeCensus asks an end to count the values of slices.
func (t *transfer) takeCensus(ctx context.Context, e *end, all []operation.Slice, byField bool) ([]census, error) {
	out := make([]census, len(all))
	if len(all) == 0 {
		return out, nil
	}
	if byField {
		for i := range out {
			out[i].fields = map[uint64]int64{}
		}
	}
	var h hasher
	seen := 0
	err := e.Counts(ctx, selections(all), func(sel int, s *lineproto.Series, field string, values int64) error {
		if seen++; seen%aliveEvery == 0 {
			t.job.Alive()
		}
		key, c := fieldHash(h.series(s), field), &out[sel]
		c.sum += key * uint64(values)
		c.values += values
		switch {
		case c.fields == nil:
		case seen > maxCensusFields:
			c.fields = nil
		default:
			c.fields[key] += values
		}
		return nil
	})
	t.job.Alive()
	return out, err
}
