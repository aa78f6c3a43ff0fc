package statement_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/statement"
)

// What is read by a plan and written by the rules of Target is what one server
// writes.
func TestIntoWritesWhatAServerWrites(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill()
	for i, q := range []string{
		`SELECT value INTO %s FROM cpu, mem`,
		`SELECT * INTO %s FROM cpu, mem, tstring, tbool, tint`,
		`SELECT * INTO %s FROM cpu, mem, tstring, tbool, tint GROUP BY *`,
		`SELECT mean(*) INTO %s FROM /c.*|mem/ GROUP BY time(1h), host`,
		`SELECT mean(value) AS m, count(n) INTO %s FROM cpu, mem WHERE time >= {0h} AND time < {12h} GROUP BY time(1h), *`,
		`SELECT mean(value) INTO %s FROM cpu, mem WHERE time >= {0h} AND time < {12h} GROUP BY time(1h) fill(7)`,
		`SELECT top(value, host, 2) INTO %s FROM cpu, mem`,
		`SELECT top(value, host, zone, 2), n INTO %s FROM cpu, mem`,
		`SELECT bottom(value, 2) INTO %s FROM cpu, mem GROUP BY host`,
		`SELECT v, v AS v2, host INTO %s FROM tint, tfloat`,
		`SELECT time AS t, value INTO %s FROM cpu, mem`,
		`SELECT time, value INTO %s FROM cpu, mem`,
		`SELECT nosuch INTO %s FROM cpu, mem`,
		`SELECT value INTO %s FROM /nothing/`,
		`SELECT max(m) INTO %s FROM (SELECT mean(value) AS m FROM cpu, mem GROUP BY host)`,
		`SELECT value INTO %s FROM (SELECT * FROM "with space", cpu) GROUP BY *`,
	} {
		for _, name := range []string{"one", ":MEASUREMENT"} {
			want, got := fmt.Sprintf("want%d%t", i, name == "one"), fmt.Sprintf("got%d%t", i, name == "one")
			r.whole.Exec("CREATE DATABASE " + want)
			r.whole.Exec("CREATE DATABASE " + got)
			d := statement.Defaults{Database: "d"}
			direct := r.ask(r.whole, r.at(fmt.Sprintf(q, want+".autogen."+name)), d)[0]
			ours := r.at(fmt.Sprintf(q, got+".autogen."+name))
			target := one(t, ours).Target()
			require.Equal(t, got, target.Database)
			require.Equal(t, "autogen", target.RetentionPolicy)
			if target.NoTime != "" {
				require.Equal(t, direct.Err, target.NoTime, q)
				continue
			}
			require.Empty(t, direct.Err, q)
			read, trace := r.merged(ours, d)
			require.Empty(t, read.Err, "%s: %v", q, trace)
			text, written := into(target, read)
			require.Equal(t, fmt.Sprint(direct.Series[0].Values[0][1]), strconv.Itoa(written), q)
			if written > 0 {
				r.whole.WriteLines(got, "", text)
			}
			for _, show := range []string{"SELECT * FROM %s../.*/ GROUP BY *", "SHOW FIELD KEYS ON %s", "SHOW SERIES ON %s"} {
				require.Equal(t, r.ask(r.whole, fmt.Sprintf(show, want), d), r.ask(r.whole, fmt.Sprintf(show, got), d), "%s\n%v", q, trace)
			}
		}
	}
}

// into turns what was read into lines.
func into(target *statement.Target, read answer) (text string, written int) {
	escape := strings.NewReplacer(",", `\,`, " ", `\ `, "=", `\=`)
	var b strings.Builder
	for _, s := range read.Series {
		name := target.Measurement
		if name == "" {
			name = s.Name
		}
		for _, row := range s.Values {
			tags, fields, at := "", []string(nil), any(nil)
			for _, k := range keys(s.Tags) {
				if s.Tags[k] != "" {
					tags += "," + escape.Replace(k) + "=" + escape.Replace(s.Tags[k])
				}
			}
			for i, column := range s.Columns {
				v, tag := row[i], slices.Contains(target.TagColumns, column)
				switch text, isText := v.(string); {
				case column == "time":
					at = v
				case v == nil:
				case tag && isText:
					tags += "," + escape.Replace(column) + "=" + escape.Replace(text)
				case isText:
					fields = append(fields, escape.Replace(column)+"="+strconv.Quote(text))
				case fmt.Sprintf("%T", v) == "int64":
					fields = append(fields, fmt.Sprintf("%s=%di", escape.Replace(column), v))
				default:
					fields = append(fields, fmt.Sprintf("%s=%v", escape.Replace(column), v))
				}
			}
			if len(fields) > 0 {
				fmt.Fprintf(&b, "%s%s %s %d\n", escape.Replace(name), tags, strings.Join(fields, ","), at)
				written++
			}
		}
	}
	return b.String(), written
}
