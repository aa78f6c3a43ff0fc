package statement

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/influxdata/influxql"
)

// lists names the databases of sources given by regular expressions, and those of
// which leftovers have to be told apart before they are counted.
func (s *Statement) lists() []string {
	if s.Class == ShowMerged {
		return s.listsOfShow()
	}
	var lists []string
	if s.Class == Read || s.Class == Into {
		for _, source := range s.Sources() {
			if source.Regex != nil && source.Database != "" {
				lists = append(lists, source.Database)
			}
		}
	}
	return lists
}

// placed says which measurements of one source which backend owns.
type placed struct {
	source *influxql.Measurement
	owned  map[string][]string // backend -> names, sorted
	// exact: the backend holds nothing else that the source matches, so that it
	// can be asked in the client's words.
	exact map[string]bool
}

// place finds the owners of the measurements of a source.
func (s *Statement) place(m *influxql.Measurement, c Circle) placed {
	db := s.databaseOf(m)
	p := placed{source: m, owned: map[string][]string{}, exact: map[string]bool{}}
	if m.Regex == nil {
		owner := c.Owner(db, m.Name)
		p.owned[owner] = []string{m.Name}
		p.exact[owner] = true
		return p
	}
	seen := map[string]bool{}
	for _, b := range c.Backends {
		p.exact[b] = true
		for _, name := range c.Measurements(b, db) {
			if !m.Regex.Val.MatchString(name) {
				continue
			}
			owner := c.Owner(db, name)
			if owner != b {
				p.exact[b] = false
			}
			if !seen[name] {
				seen[name] = true
				p.owned[owner] = append(p.owned[owner], name)
			}
		}
	}
	for _, names := range p.owned {
		slices.Sort(names)
	}
	return p
}

// split is a SELECT that several backends answer between them.
type split struct {
	s       *Statement
	ast     *influxql.SelectStatement // what the client asked, without INTO
	placed  []placed                  // by source, in the order of leaves
	owners  []string
	explain *influxql.ExplainStatement // of which ast is the statement, or nil
}

// planSelect plans a SELECT, alone or in an EXPLAIN.
func (s *Statement) planSelect(c Circle) (*Plan, error) {
	p := &split{s: s}
	switch ast := s.AST.(type) {
	case *influxql.SelectStatement:
		p.ast = ast
	case *influxql.ExplainStatement:
		p.ast, p.explain = ast.Statement, ast
	default:
		return nil, fmt.Errorf("%T is no SELECT", ast)
	}
	owners := map[string]bool{}
	exact := true
	for _, m := range leaves(p.ast.Sources) {
		at := s.place(m, c)
		p.placed = append(p.placed, at)
		for b := range at.owned {
			owners[b] = true
		}
	}
	for b := range owners {
		for _, at := range p.placed {
			exact = exact && (at.exact[b] || len(at.owned) == 0)
		}
	}
	p.owners = slices.DeleteFunc(slices.Clone(c.Backends), func(b string) bool { return !owners[b] })
	switch {
	case len(owners) == 0:
		// No measurement matches: any backend can say so, or what is wrong.
		return p.whole(c.Backends[0])
	case len(owners) == 1:
		// What the backend knows is all there is to know.
		if exact {
			return p.guarded(p.whole(slices.Collect(maps.Keys(owners))[0]))
		}
		return p.guarded(p.plan(nil))
	}
	if err := p.divisible(); err != nil {
		return nil, err
	}
	return p.probe()
}

// whole asks one backend for everything.
func (p *split) whole(backend string) (*Plan, error) {
	if p.s.Class != Into {
		return p.s.pass(backend), nil
	}
	read := reading(p.ast)
	p.s.fixNow(read)
	text, err := render(read)
	if err != nil {
		return nil, err
	}
	return &Plan{Parts: []Ask{{Backend: backend, Text: text}}}, nil
}

// divisible refuses what would need points of several backends in one series: a
// measurement of one name in two databases. A server reads both as one series.
func (p *split) divisible() error {
	type home struct{ backend, database string }
	homes := map[string]home{}
	for _, at := range p.placed {
		db := p.s.databaseOf(at.source)
		for b, names := range at.owned {
			for _, name := range names {
				h, ok := homes[name]
				if ok && h.backend != b {
					return refuse("%s of %s and %s of %s are on different backends, and InfluxDB would answer them as one series: "+
						"ask for one database at a time", quote(name), quote(h.database), quote(name), quote(db))
				}
				homes[name] = home{backend: b, database: db}
			}
		}
	}
	return nil
}

// plan makes the parts. known is nil if each backend knows all there is.
func (p *split) plan(known mapper) (*Plan, error) {
	read := reading(p.ast)
	if known != nil {
		var err error
		if read, err = expand(read, known); err != nil {
			return nil, err
		}
		if p.explain == nil || p.explain.Analyze {
			if err := guard(read, known); err != nil {
				return nil, err
			}
		}
	}
	p.s.fixNow(read)
	plan := &Plan{Merge: Merge{Kind: BySeries, Descending: !p.ast.TimeAscending()}}
	if p.explain != nil {
		plan.Merge = Merge{Kind: Lines}
	}
	if len(read.Fields) == 0 {
		return plan, nil // wildcards that match nothing: an empty result
	}
	for _, b := range p.owners {
		part := read.Clone()
		at := 0
		part.Sources = p.of(part.Sources, b, &at)
		var ast influxql.Statement = part
		if p.explain != nil {
			ast = &influxql.ExplainStatement{Statement: part, Analyze: p.explain.Analyze}
		}
		text, err := render(ast)
		if err != nil {
			return nil, err
		}
		plan.Parts = append(plan.Parts, Ask{Backend: b, Text: text})
	}
	if len(plan.Parts) == 1 {
		plan.Merge = Merge{}
	}
	return plan, nil
}

// of keeps of sources what a backend owns. n counts the measurements that have been
// passed, in the order of leaves.
//
// A server merges what several sources have of one field by the type of the first
// that has an answer, even if only that it has none. So where a query stands first,
// queries stay even if they have no rows here, and where a measurement does, those
// of this backend do.
func (p *split) of(sources influxql.Sources, backend string, n *int) influxql.Sources {
	var own, within influxql.Sources
	queryFirst, some := false, false
	for i, source := range sources {
		switch source := source.(type) {
		case *influxql.Measurement:
			at := p.placed[*n]
			names := at.owned[backend]
			if source.Regex != nil && at.exact[backend] && len(names) > 0 {
				own = append(own, source)
			} else {
				own = append(own, named(source, names)...)
			}
			*n++
		case *influxql.SubQuery:
			queryFirst = queryFirst || i == 0
			source.Statement.Sources = p.of(source.Statement.Sources, backend, n)
			switch {
			case len(source.Statement.Sources) > 0:
				some = true
			case !queryFirst:
				continue
			default:
				source.Statement.Sources = influxql.Sources{&influxql.Measurement{Name: absentTag}}
			}
			if !slices.ContainsFunc(source.Statement.Fields, func(f *influxql.Field) bool { return !isTime(f) }) {
				// Wildcards that match nothing.
				source.Statement.Fields = append(source.Statement.Fields, &influxql.Field{
					Expr: &influxql.Call{Name: "first", Args: []influxql.Expr{&influxql.VarRef{Val: absentTag}}}, Alias: absentTag,
				})
			}
			within = append(within, source)
		}
	}
	switch {
	case len(own) == 0 && !some:
		return nil
	case queryFirst:
		return append(within, own...)
	default:
		return append(own, within...)
	}
}

// named returns sources of the given names in place of a source.
func named(source *influxql.Measurement, names []string) influxql.Sources {
	sources := make(influxql.Sources, 0, len(names))
	for _, name := range names {
		m := &influxql.Measurement{Database: source.Database, RetentionPolicy: source.RetentionPolicy, Name: name}
		if influxql.IsSystemName(name) {
			// A server only takes such a name by an expression.
			m.Name, m.Regex = "", only(name)
		}
		sources = append(sources, m)
	}
	return sources
}

// reading is the part of a SELECT that reads.
func reading(ast *influxql.SelectStatement) *influxql.SelectStatement {
	read := ast.Clone()
	read.Target = nil
	if ast.Target != nil && read.Fill == influxql.NullFill && !read.IsRawQuery {
		read.Fill = influxql.NoFill // what is null is not written
	}
	return read
}

// expand writes out the wildcards of a SELECT and gives each name its type, as a
// server does with all the data.
func expand(read *influxql.SelectStatement, known mapper) (*influxql.SelectStatement, error) {
	read.RewriteDistinct() // as a server does, before it looks for fields
	var times, fields influxql.Fields
	for _, f := range read.Fields {
		if isTime(f) {
			times = append(times, f)
		} else {
			fields = append(fields, f)
		}
	}
	read.Fields = fields
	expanded, err := read.RewriteFields(known)
	if err != nil {
		return nil, err
	}
	for i, f := range expanded.Fields {
		if ref, ok := f.Expr.(*influxql.VarRef); ok && isTime(f) {
			// A wildcard has met a query that asks for time: a server answers with a
			// column of that name and nothing in it.
			expanded.Fields[i] = &influxql.Field{Expr: &influxql.VarRef{Val: absentTag, Type: ref.Type}, Alias: "time"}
		}
	}
	eachSelect(expanded, plainTime)
	if len(expanded.Fields) > 0 {
		expanded.Fields = append(times, expanded.Fields...)
	}
	return expanded, nil
}

// isTime reports whether a field asks for the time, which every row has anyway.
func isTime(f *influxql.Field) bool {
	ref, ok := f.Expr.(*influxql.VarRef)
	return ok && ref.Val == "time"
}

// plainTime takes the type off time, which can't be written with one.
func plainTime(s *influxql.SelectStatement) {
	plain := func(n influxql.Node) {
		if ref, ok := n.(*influxql.VarRef); ok && (strings.EqualFold(ref.Val, "time") || ref.Type == influxql.Time) {
			ref.Type = influxql.Unknown
		}
	}
	influxql.WalkFunc(s.Fields, plain)
	if s.Condition != nil {
		influxql.WalkFunc(s.Condition, plain)
	}
}

// and joins conditions, either of which may be nil.
func and(a, b influxql.Expr) influxql.Expr {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	default:
		return &influxql.BinaryExpr{Op: influxql.AND, LHS: group(a), RHS: group(b)}
	}
}

func group(e influxql.Expr) influxql.Expr {
	if b, ok := e.(*influxql.BinaryExpr); ok && (b.Op == influxql.OR || b.Op == influxql.AND) {
		return &influxql.ParenExpr{Expr: e}
	}
	return e
}

func equals(tag, value string) influxql.Expr {
	return &influxql.BinaryExpr{
		Op:  influxql.EQ,
		LHS: &influxql.VarRef{Val: tag, Type: influxql.Tag},
		RHS: &influxql.StringLiteral{Val: value},
	}
}

func compareTime(op influxql.Token, t time.Time) influxql.Expr {
	return &influxql.BinaryExpr{Op: op, LHS: &influxql.VarRef{Val: "time"}, RHS: &influxql.TimeLiteral{Val: t}}
}
