package statement

import (
	"slices"
	"strings"

	"github.com/influxdata/influxql"
)

// probe asks what the fields are before it plans: one backend whether the
// statement is one at all, and each owner for the schema of its part of each
// source.
func (p *split) probe() (*Plan, error) {
	plan := &Plan{Merge: Merge{Kind: BySeries}}
	if p.hides() {
		check, err := p.check()
		if err != nil {
			return nil, err
		}
		plan.Probes = append(plan.Probes, Ask{Backend: p.owners[0], Text: check, ignore: untyped})
	}
	checks := len(plan.Probes)
	known, probes, into, err := p.ask(p.bounds())
	if err != nil {
		return nil, err
	}
	plan.Probes = append(plan.Probes, probes...)
	plan.resolve = func(answers [][]string) error {
		if err := learn(into, answers[checks:]); err != nil {
			return err
		}
		done, err := p.plan(known)
		if err != nil {
			return err
		}
		plan.Parts, plan.Merge = done.Parts, done.Merge
		return nil
	}
	return plan, nil
}

// ask asks the owners of each source for its fields and tags, within bounds of
// time. into says for each probe where its answer belongs in known.
func (p *split) ask(bounds influxql.Expr) (known mapper, probes []Ask, into []*schema, err error) {
	known = mapper{}
	asked := map[string]bool{}
	for _, at := range p.placed {
		if asked[at.source.String()] {
			continue
		}
		asked[at.source.String()] = true
		for _, b := range p.owners {
			for _, from := range at.batches(b) {
				text, err := render(&influxql.ExplainStatement{Statement: &influxql.SelectStatement{
					Fields:    influxql.Fields{{Expr: &influxql.Wildcard{}}},
					Sources:   append(from, nothing()),
					Condition: and(bounds, equals(absentTag, "x")),
				}})
				if err != nil {
					return nil, nil, nil, err
				}
				probes = append(probes, Ask{Backend: b, Text: text})
				into = append(into, known.of(at.source))
			}
		}
	}
	return known, probes, into, nil
}

// hides reports whether what the parts ask could hide what is wrong with the
// statement: since its wildcards and types are written out, or since they are not
// asked.
func (p *split) hides() (found bool) {
	eachSelect(p.ast, func(s *influxql.SelectStatement) {
		onlyTime := !slices.ContainsFunc(s.Fields, func(f *influxql.Field) bool { return !isTime(f) })
		found = found || s.HasFieldWildcard() || onlyTime
		if s.Condition != nil {
			influxql.WalkFunc(s.Condition, func(n influxql.Node) {
				call, ok := n.(*influxql.Call)
				found = found || ok && !isNow(call)
			})
		}
	})
	return found || len(hazards(p.ast)) > 0
}

// probed is how many measurements are named in a probe: a plan repeats all fields
// for each of them.
const probed = 32

// batches are what to name in probes of a backend.
func (p *placed) batches(backend string) []influxql.Sources {
	names := p.owned[backend]
	if p.source.Regex != nil && p.exact[backend] && len(names) > 0 {
		return []influxql.Sources{{p.source.Clone()}}
	}
	var batches []influxql.Sources
	for some := range slices.Chunk(names, probed) {
		batches = append(batches, named(p.source, some))
	}
	return batches
}

// nothing is a query without rows that has a field of no type: tags are listed only
// beside fields.
func nothing() *influxql.SubQuery {
	return &influxql.SubQuery{Statement: &influxql.SelectStatement{
		Fields:  influxql.Fields{{Expr: &influxql.VarRef{Val: absentTag}}},
		Sources: influxql.Sources{&influxql.Measurement{Name: absentTag}},
	}}
}

// check asks for the plan of the statement on measurements that don't exist: what
// is wrong with the statement itself is answered in the server's words.
func (p *split) check() (string, error) {
	q := reading(p.ast)
	for _, m := range leaves(q.Sources) {
		m.Name, m.Regex = absentTag, nil
	}
	eachSelect(q, func(s *influxql.SelectStatement) {
		influxql.WalkFunc(s.Fields, func(n influxql.Node) {
			if ref, ok := n.(*influxql.VarRef); ok {
				ref.Type = influxql.Unknown
			}
		})
	})
	return render(&influxql.ExplainStatement{Statement: q})
}

// untyped are errors about types. Without data they are not what they will be
// with it; the parts will say.
func untyped(message string) bool {
	return strings.HasPrefix(message, "type error: ") || strings.HasPrefix(message, "unsupported ") && strings.Contains(message, "iterator type")
}

// guarded puts the question about types before a plan that needs none, if a
// backend could come to harm without it.
func (p *split) guarded(plan *Plan, err error) (*Plan, error) {
	if err != nil || p.explain != nil && !p.explain.Analyze || len(hazards(p.ast)) == 0 {
		return plan, err
	}
	known, probes, into, err := p.ask(p.bounds())
	if err != nil {
		return nil, err
	}
	plan.Probes = probes
	plan.resolve = func(answers [][]string) error {
		if err := learn(into, answers); err != nil {
			return err
		}
		expanded, err := expand(reading(p.ast), known)
		if err != nil {
			return nil //nolint:nilerr // the server says it in its own words
		}
		return guard(expanded, known)
	}
	return plan, nil
}

// learn takes the answers to probes.
func learn(into []*schema, answers [][]string) error {
	for i, lines := range answers {
		if err := into[i].add(lines); err != nil {
			return err
		}
	}
	return nil
}
