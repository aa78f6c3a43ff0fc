package harness

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
)

// Place is one measurement of one retention policy.
type Place struct{ Database, RetentionPolicy, Measurement string }

// Points maps each field value, as "series field time", to its typed value.
type Points map[string]string

// Dump reads everything a server holds, window by window between its shard-group
// boundaries, so that every value keeps its type.
func Dump(ctx context.Context, url string) (map[Place]Points, error) {
	return DumpEndpoint(ctx, influx.Endpoint{URL: url})
}

// DumpEndpoint is [Dump] for a server that wants credentials.
func DumpEndpoint(ctx context.Context, e influx.Endpoint) (map[Place]Points, error) {
	c, err := influx.New(e, influx.Options{})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	groups, err := c.ShardGroups(ctx)
	if err != nil {
		return nil, err
	}
	held := map[Place]Points{}
	databases, err := c.Databases(ctx)
	if err != nil {
		return nil, err
	}
	for _, db := range databases {
		for name, err := range c.Measurements(ctx, db) {
			if err != nil {
				return nil, err
			}
			var all []influx.Selection
			for _, g := range groups {
				if g.Database == db {
					all = append(all, influx.Selection{
						Database: db, RetentionPolicy: g.RetentionPolicy, Measurement: name,
						Window: influx.Window{From: g.From, To: g.To, Last: g.ToInclusive},
					})
				}
			}
			for some := range slices.Chunk(all, statementsAtOnce) {
				if err := dumpSelections(ctx, c, some, held); err != nil {
					return nil, err
				}
			}
		}
	}
	return held, nil
}

// statementsAtOnce is how many windows one request reads.
const statementsAtOnce = 200

func dumpSelections(ctx context.Context, c *influx.Client, some []influx.Selection, held map[Place]Points) error {
	rows, err := c.Read(ctx, some)
	if err != nil {
		return err
	}
	defer rows.Close()
	series := ""
	for rows.Next() {
		if rows.NewSeries() {
			series = seriesKey(rows.Series())
		}
		from := &some[rows.Statement()]
		at := Place{from.Database, from.RetentionPolicy, from.Measurement}
		for i, v := range rows.Values() {
			if v.Kind == lineproto.Null {
				continue
			}
			if held[at] == nil {
				held[at] = Points{}
			}
			key := fmt.Sprintf("%s %q %d", series, rows.Fields()[i], rows.Time())
			held[at][key] = fmt.Sprintf("%s %x %q", v.Kind, v.Num, v.Str)
		}
	}
	return rows.Err()
}

// seriesKey writes the tags of a series.
func seriesKey(s *lineproto.Series) string {
	var b strings.Builder
	for _, t := range s.Tags {
		fmt.Fprintf(&b, "%q=%q,", t.Key, t.Value)
	}
	return b.String()
}

// Diff lists, up to a bound, what the points of want lack or differ in at have.
func Diff(want, have Points) []string {
	const bound = 10
	var out []string
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if have[k] != want[k] {
			out = append(out, fmt.Sprintf("%s: want %s, have %q", k, want[k], have[k]))
			if len(out) == bound {
				break
			}
		}
	}
	return out
}
