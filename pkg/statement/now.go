package statement

import (
	"regexp"
	"time"

	"github.com/influxdata/influxql"
)

// only matches one name.
func only(name string) *influxql.RegexLiteral {
	return &influxql.RegexLiteral{Val: regexp.MustCompile("^" + regexp.QuoteMeta(name) + "$")}
}

// everything matches every name.
func everything() *influxql.RegexLiteral {
	return &influxql.RegexLiteral{Val: regexp.MustCompile(`.+`)}
}

// fixNow writes the request's time for now() wherever a server would take its own
// clock: in conditions, in the offset of GROUP BY time, and as the end of what is
// grouped by time and has no end.
func (s *Statement) fixNow(ast *influxql.SelectStatement) { s.fixNowWithin(ast, false) }

// ended says that a query around this one has an end already.
func (s *Statement) fixNowWithin(ast *influxql.SelectStatement, ended bool) {
	now := s.defaults.Now.UTC()
	_, r, err := influxql.ConditionExpr(ast.Condition, &influxql.NowValuer{Now: now, Location: ast.Location})
	ended = ended || err == nil && !r.Max.IsZero()
	grouped := false
	for _, d := range ast.Dimensions {
		call, ok := d.Expr.(*influxql.Call)
		if !ok || call.Name != "time" || len(call.Args) == 0 {
			continue
		}
		every, ok := call.Args[0].(*influxql.DurationLiteral)
		if !ok || every.Val == 0 {
			continue
		}
		grouped = true
		if len(call.Args) == 2 && isNow(call.Args[1]) {
			call.Args[1] = &influxql.DurationLiteral{Val: now.Sub(now.Truncate(every.Val))}
		}
	}
	ast.Condition = withNow(ast.Condition, now)
	if grouped && !ended {
		ast.Condition = and(ast.Condition, compareTime(influxql.LTE, now))
		ended = true
	}
	for _, source := range ast.Sources {
		if sub, ok := source.(*influxql.SubQuery); ok {
			s.fixNowWithin(sub.Statement, ended)
		}
	}
}

// withNow writes a time for now() in a condition.
func withNow(e influxql.Expr, now time.Time) influxql.Expr {
	return rewriteExpr(e, func(e influxql.Expr) influxql.Expr {
		if isNow(e) {
			return &influxql.TimeLiteral{Val: now}
		}
		return e
	})
}

func isNow(e influxql.Expr) bool {
	call, ok := e.(*influxql.Call)
	return ok && call.Name == "now" && len(call.Args) == 0
}

// bounds is the condition on time that a server looks for shards with when it
// finds out about fields; nil if there is none.
func (p *split) bounds() influxql.Expr {
	now := p.s.defaults.Now.UTC()
	_, r, err := influxql.ConditionExpr(p.ast.Condition, &influxql.NowValuer{Now: now, Location: p.ast.Location})
	if err != nil {
		return nil // the server will say so
	}
	interval, err := p.ast.GroupByInterval()
	if err != nil {
		return nil
	}
	if r.Max.IsZero() && interval != 0 {
		r.Max = now
	}
	if more := time.Duration(extraIntervals(p.ast)) * interval; more > 0 {
		// Some functions look at what comes before the first interval.
		if p.ast.TimeAscending() && !r.Min.IsZero() {
			r.Min = r.Min.Add(-more)
		} else if !p.ast.TimeAscending() && !r.Max.IsZero() {
			r.Max = r.Max.Add(more)
		}
	}
	var bounds influxql.Expr
	if !r.Min.IsZero() && !r.Min.Before(time.Unix(0, influxql.MinTime)) {
		bounds = compareTime(influxql.GTE, r.Min)
	}
	if !r.Max.IsZero() && !r.Max.After(time.Unix(0, influxql.MaxTime)) {
		bounds = and(bounds, compareTime(influxql.LTE, r.Max))
	}
	return bounds
}

// extraIntervals is how many intervals the functions of a query look beyond its
// range.
func extraIntervals(ast *influxql.SelectStatement) int64 {
	var most int64
	influxql.WalkFunc(ast.Fields, func(n influxql.Node) {
		call, ok := n.(*influxql.Call)
		if !ok {
			return
		}
		switch call.Name {
		case "derivative", "non_negative_derivative", "difference", "non_negative_difference", "elapsed", "cumulative_sum":
			most = max(most, 1)
		case "moving_average", "exponential_moving_average", "double_exponential_moving_average",
			"triple_exponential_moving_average", "relative_strength_index", "triple_exponential_derivative",
			"kaufmans_efficiency_ratio", "kaufmans_adaptive_moving_average", "chande_momentum_oscillator":
			if len(call.Args) > 1 {
				if n, ok := call.Args[1].(*influxql.IntegerLiteral); ok {
					most = max(most, n.Val)
				}
			}
		}
	})
	return most
}
