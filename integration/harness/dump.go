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
	all := map[Place]Points{}
	databases, err := c.Databases(ctx)
	if err != nil {
		return nil, err
	}
	for _, db := range databases {
		for name, err := range c.Measurements(ctx, db) {
			if err != nil {
				return nil, err
			}
			for _, g := range groups {
				if g.Database != db {
					continue
				}
				place := Place{db, g.RetentionPolicy, name}
				err := dumpGroup(ctx, c, place, influx.Window{From: g.From, To: g.To, Last: g.ToInclusive}, all)
				if err != nil {
					return nil, err
				}
			}
		}
	}
	return all, nil
}

func dumpGroup(ctx context.Context, c *influx.Client, at Place, w influx.Window, all map[Place]Points) error {
	rows, err := c.Read(ctx, []influx.Selection{{Database: at.Database, RetentionPolicy: at.RetentionPolicy, Measurement: at.Measurement, Window: w}})
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var series strings.Builder
		for _, t := range rows.Series().Tags {
			fmt.Fprintf(&series, "%q=%q,", t.Key, t.Value)
		}
		for i, v := range rows.Values() {
			if v.Kind == lineproto.Null {
				continue
			}
			if all[at] == nil {
				all[at] = Points{}
			}
			key := fmt.Sprintf("%s %q %d", series.String(), rows.Fields()[i], rows.Time())
			all[at][key] = fmt.Sprintf("%s %x %q", v.Kind, v.Num, v.Str)
		}
	}
	return rows.Err()
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
