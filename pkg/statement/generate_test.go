package statement_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// generator writes statements that a server may or may not like, from a seed.
type generator struct{ *rand.Rand }

func (g generator) one(from ...string) string { return from[g.IntN(len(from))] }

// maybe returns a text one time in n.
func (g generator) maybe(n int, text func() string) string {
	if g.IntN(n) > 0 {
		return ""
	}
	return text()
}

func (g generator) list(most int, one func() string) string {
	var all []string
	for range 1 + g.IntN(most) {
		all = append(all, one())
	}
	return strings.Join(all, ", ")
}

func (g generator) measurement() string {
	return g.one("cpu", "mem", "disk", "net", "swap", "tfloat", "tint", "tint2", "tstring", "tbool", "tnone", "tmixed", "tmixed2",
		"ctag", "cfield", "cnum", `"with space"`, `"with,comma"`, `"select"`, "nosuch", "other.cpu", "other.own", "d..cpu")
}

func (g generator) source(depth int) string {
	switch n := g.IntN(10); {
	case n < 6 || depth == 0 && n < 8:
		return g.measurement()
	case n < 8 || depth == 0:
		return g.one("/t.*/", "/cpu|mem|disk/", "/^c/", "/^with/", "/.*/", "/nothing/", "other./.*/", "/net|swap/")
	default:
		for { // of the direction of the outer query, mostly
			if q := g.query(depth - 1); !strings.Contains(q, " DESC") || g.IntN(10) == 0 {
				return "(" + q + ")"
			}
		}
	}
}

func (g generator) name() string {
	return g.one("value", "value", "n", "v", "v", "w", "up", "word", "host", "kind", "zone", "x", "nosuch", "late", "a", "time",
		"v::integer", "v::float", "kind::tag", "kind::field", "v::field", "value::integer", "host::tag", "n::float", "word::string")
}

func (g generator) call() string {
	arg := g.one(g.name(), g.name(), g.name(), "*", "/v|w/", "*::field")
	switch g.IntN(12) {
	case 0:
		return fmt.Sprintf("percentile(%s, %s)", arg, g.one("50", "99.99", "0.001"))
	case 1:
		return fmt.Sprintf("%s(%s, %d)", g.one("top", "bottom"), g.name(), 1+g.IntN(3))
	case 2:
		return fmt.Sprintf("%s(%s, %s, %d)", g.one("top", "bottom"), g.name(), g.one("host", "kind", "zone"), 1+g.IntN(3))
	case 3:
		return g.one("count(distinct("+g.name()+"))", "distinct("+g.name()+")", "DISTINCT "+g.name())
	case 4:
		return fmt.Sprintf("%s(%s)", g.one("derivative", "difference", "non_negative_derivative", "cumulative_sum", "elapsed"), arg)
	case 5:
		return fmt.Sprintf("%s(%s)", g.one("derivative", "difference", "cumulative_sum"), g.one("mean", "max", "count", "first")+"("+arg+")")
	case 6:
		return fmt.Sprintf("moving_average(%s, 2)", g.one(arg, "mean("+arg+")"))
	case 7:
		return fmt.Sprintf("%s(%s)", g.one("abs", "round", "sqrt", "floor"), g.one(g.name(), "mean("+g.name()+")"))
	default:
		return fmt.Sprintf("%s(%s)", g.one("count", "sum", "mean", "max", "min", "first", "last", "mode", "median", "spread", "stddev"), arg)
	}
}

// fields of one kind go together: what is mixed is mostly refused.
func (g generator) fields() string {
	one := g.field
	switch g.IntN(5) {
	case 0, 1:
		one = func() string {
			return g.one(g.name(), g.name(), g.name(), "*", "*::tag, value", "*::field", "/v/", "/host|kind/", g.name()+g.one(" + ", " * ", " / ", " - ")+g.one(g.name(), "2", "2.0001"))
		}
	case 2, 3:
		one = func() string {
			arg := g.one("value", "value", "n", "v", "v", "w", "x", "late", "a", "*", "/v|w/", "v::float", "b")
			text := g.one("count", "sum", "mean", "max", "min", "first", "last", "median", "spread", "stddev") + "(" + arg + ")"
			if arg != "*" && arg != "/v|w/" {
				text += g.maybe(4, func() string { return g.one(" + ", " * ", " / ") + g.one("2.00001", "count(value)", "max(v)") })
			}
			return text
		}
	}
	return g.list(2, func() string {
		return one() + g.maybe(4, func() string { return " AS " + g.one("a", "v", "value", "b") })
	})
}

func (g generator) field() string {
	switch g.IntN(10) {
	case 0, 1, 2:
		return g.name()
	case 3:
		return g.one("*", "*::tag", "*::field", "/v/", "/host|kind/")
	case 4:
		return g.name() + g.one(" + ", " * ", " / ", " - ") + g.one(g.name(), "2", "2.0001", "0.5")
	case 5:
		return "mean(" + g.name() + ")" + g.one(" + ", " * ", " / ") + g.one("max("+g.name()+")", "2.00001")
	default:
		return g.call()
	}
}

func (g generator) where() string {
	one := func() string {
		switch g.IntN(9) {
		case 0:
			return "time >= {0h} AND time < {" + g.one("4", "24", "200") + "h}"
		case 1:
			return "time < {" + g.one("3", "24", "169") + "h}"
		case 2:
			return "time > {" + g.one("-1", "2", "100", "169") + "h}"
		case 3:
			return "host " + g.one("=", "!=") + " '" + g.one("a", "b", "zz") + "'"
		case 4:
			return g.one("host", "kind", "zone") + g.one(" =~ ", " !~ ") + g.one("/a|b/", "/k1/", "/^$/", "/^a$/")
		case 5:
			return g.one("value", "v", "n", "x") + g.one(" > ", " < ", " = ", " != ") + g.one("2", "2.00001", "0", "'s1'")
		case 6:
			return "kind = '" + g.one("k1", "f1", "") + "'"
		case 7:
			return "up = " + g.one("true", "false")
		default:
			return "time >= {0h} AND time <= {6h}"
		}
	}
	return " WHERE " + one() + g.maybe(3, func() string { return g.one(" AND ", " AND ", " OR ") + one() })
}

func (g generator) groupBy() string {
	text := " GROUP BY " + g.list(2, func() string {
		return g.one("host", "host", "zone", "kind", "*", "/ho|ki/", "time(1h)", "time(2h)", "time(30m)", "time(100h)", "time(1h, 10m)", "nosuch")
	})
	return text + g.maybe(3, func() string {
		return " fill(" + g.one("none", "null", "0", "previous", "linear", "1.5", "0.00001") + ")"
	})
}

func (g generator) query(depth int) string {
	grouped := g.maybe(2, g.groupBy)
	where := g.maybe(2, g.where)
	if strings.Contains(grouped, "time(") && !strings.Contains(where, "time >= ") {
		// Or the rows are as many as the hours since the first point, at least.
		where = " WHERE time >= {0h} AND time < {" + g.one("5", "24", "180") + "h}"
	}
	return "SELECT " + g.fields() + " FROM " + g.list(3, func() string { return g.source(depth) }) +
		where + grouped +
		g.maybe(4, func() string { return " ORDER BY time " + g.one("DESC", "ASC") }) +
		g.maybe(5, func() string { return " LIMIT " + g.one("1", "2", "5") }) +
		g.maybe(8, func() string { return " OFFSET " + g.one("1", "2") }) +
		g.maybe(8, func() string { return " SLIMIT " + g.one("1", "2") }) +
		g.maybe(10, func() string { return " SOFFSET " + g.one("1", "2") }) +
		g.maybe(12, func() string { return " TZ('America/New_York')" })
}
