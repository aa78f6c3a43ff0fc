package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/influxdata/influxql"

	"ringmaster/integration/dataset"
	"ringmaster/pkg/lineproto"
)

// check asks the servers themselves, over plain HTTP and JSON: neither
// Ringmaster's client nor its report has a part in it.
func (d *demo) check(ctx context.Context) error {
	d.tell("asked of the servers over plain HTTP and JSON, without Ringmaster; compared with the files")
	files, err := dataset.Files()
	if err != nil {
		return err
	}
	c := &checker{}
	for _, part := range []struct {
		name    string
		compare func() (said string, err error)
	}{
		{"counts", func() (string, error) { return d.checkCounts(ctx, c) }},
		{"values", func() (string, error) { return d.checkValues(ctx, files, c) }},
		{"retention policies", func() (string, error) { return d.checkPolicies(ctx, c) }},
		{"nothing deleted", func() (string, error) { return d.checkKept(c), nil }},
	} {
		before := len(c.wrong)
		said, err := part.compare()
		if err != nil {
			return err
		}
		if n := len(c.wrong) - before; n > 0 {
			said = fmt.Sprintf("%d differences", n)
		}
		d.tell("%-20s %s", part.name, said)
	}
	return c.verdict()
}

// checker gathers what the check has found.
type checker struct{ wrong []string }

func (c *checker) found(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

func (c *checker) verdict() error {
	if len(c.wrong) == 0 {
		return nil
	}
	const most = 10
	shown := c.wrong[:min(most, len(c.wrong))]
	return fmt.Errorf("%d differences, the first of them:\n   %s", len(c.wrong), strings.Join(shown, "\n   "))
}

// checkCounts compares the number of values of every field with what was
// written.
func (d *demo) checkCounts(ctx context.Context, c *checker) (string, error) {
	var fields, values int64
	for i := range d.loaded {
		s := &d.loaded[i]
		for measurement, written := range s.tally {
			owner, err := d.owners.of(ctx, s.Database, measurement)
			if err != nil {
				return "", err
			}
			at := place{s.Database, s.Policy.Name, measurement}
			held := d.after[owner][at]
			for field, n := range written.Values {
				if held[field] != n {
					c.found("%s, field %q: %d values were written, %s has %d", at, field, n, owner, held[field])
				}
				fields++
				values += n
			}
			if len(held) > len(written.Values) {
				c.found("%s has fields that nobody wrote: %v", at, slices.Sorted(maps.Keys(held)))
			}
		}
	}
	return fmt.Sprintf("%s values in %s fields: every owner has as many as were written", group(values), group(fields)), nil
}

// checkValues compares every point of the smaller sets, those of files and the
// awkward one, with what its owner holds.
func (d *demo) checkValues(ctx context.Context, files fs.FS, c *checker) (string, error) {
	points := int64(0)
	for i := range d.loaded {
		s := &d.loaded[i]
		if s.Database == dataset.MetricsDatabase {
			continue
		}
		held := map[string]rows{}
		for p, err := range s.Points(files) {
			if err != nil {
				return "", err
			}
			m := p.Series.Measurement
			if held[m] == nil {
				owner, err := d.owners.of(ctx, s.Database, m)
				if err != nil {
					return "", err
				}
				if held[m], err = (server{owner}).rows(ctx, place{s.Database, s.Policy.Name, m}); err != nil {
					return "", err
				}
			}
			key := rowKey(tagMap(p.Series.Tags), p.Time)
			if diff := held[m].differ(key, p); diff != "" {
				c.found("%s of %s at %s: %s", m, s.Database, key, diff)
			}
			delete(held[m], key)
			points++
		}
		for m, rest := range held {
			if len(rest) > 0 {
				c.found("%s of %s has %d points that the file does not have", m, s.Database, len(rest))
			}
		}
	}
	return fmt.Sprintf("%s points of the public and awkward sets: the same types and values", group(points)), nil
}

// checkPolicies compares the retention policies of all backends with those of
// the first, where they were made before the move.
func (d *demo) checkPolicies(ctx context.Context, c *checker) (string, error) {
	policies := 0
	databases := map[string]bool{}
	for i := range d.loaded {
		databases[d.loaded[i].Database] = true
	}
	for db := range databases {
		var want map[string]string
		for _, b := range d.cluster.Backends {
			have, err := server{b.URL()}.policies(ctx, db)
			if err != nil {
				return "", err
			}
			if want == nil {
				want = have
				policies += len(want)
			}
			if !maps.Equal(want, have) {
				c.found("retention policies of %s at %s: %v, want %v", db, b.URL(), have, want)
			}
		}
	}
	return fmt.Sprintf("%d at each backend, with the same durations, shards, replication and default", policies), nil
}

// checkKept compares what the sources hold with what they held before.
func (d *demo) checkKept(c *checker) string {
	for url, before := range d.before {
		for at, fields := range before {
			if !maps.Equal(fields, d.after[url][at]) {
				c.found("%s held %v of %s and holds %v", url, fields, at, d.after[url][at])
			}
		}
	}
	return "the old backends hold what they held"
}

// rows are points as a server tells them: by series and time, the typed text of
// every field.
type rows map[string]map[string]string

// rowKey names a point of a measurement.
func rowKey(tags map[string]string, ns int64) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		if tags[k] != "" {
			fmt.Fprintf(&b, "%q=%q ", k, tags[k])
		}
	}
	return b.String() + strconv.FormatInt(ns, 10)
}

func tagMap(tags []lineproto.Tag) map[string]string {
	all := make(map[string]string, len(tags))
	for _, t := range tags {
		all[t.Key] = t.Value
	}
	return all
}

// differ says how a point of a file differs from what a server holds.
func (r rows) differ(key string, p *dataset.Point) string {
	held, ok := r[key]
	if !ok {
		return "it is not there"
	}
	n := 0
	for i, v := range p.Values {
		if v.Kind == lineproto.Null {
			continue
		}
		n++
		if want := written(v); held[p.Fields[i]] != want {
			return fmt.Sprintf("field %q is %.80q, want %.80q", p.Fields[i], held[p.Fields[i]], want)
		}
	}
	if len(held) != n {
		return fmt.Sprintf("it has %d fields, want %d", len(held), n)
	}
	return ""
}

// written is the typed text of a value: the same text only for the same value.
func written(v lineproto.Value) string {
	if v.Kind == lineproto.String {
		return "string " + string(v.Str)
	}
	return fmt.Sprintf("%s %s", v.Kind, strings.TrimRight(v.String(), "iu"))
}

// rows reads all points of a place with their types. JSON does not tell an
// integer from a float, so types come from the field keys.
func (s server) rows(ctx context.Context, p place) (rows, error) {
	keys, err := s.query(ctx, "SHOW FIELD KEYS ON "+influxql.QuoteIdent(p.database)+" FROM "+influxql.QuoteIdent(p.policy, p.measurement))
	if err != nil {
		return nil, err
	}
	types := map[string]string{}
	for _, t := range keys {
		for _, row := range t.Values {
			types[fmt.Sprint(row[0])] = fmt.Sprint(row[1])
		}
	}
	tables, err := s.query(ctx, "SELECT *::field FROM "+p.from()+" GROUP BY *")
	if err != nil {
		return nil, err
	}
	all := rows{}
	for _, t := range tables {
		for _, row := range t.Values {
			at, values := int64(0), map[string]string{}
			for i, name := range t.Columns {
				switch {
				case i == 0:
					number, _ := row[i].(json.Number)
					if at, err = number.Int64(); err != nil {
						return nil, fmt.Errorf("reading %s: time %v: %w", p, row[i], err)
					}
				case row[i] != nil:
					if values[name], err = told(types[name], row[i]); err != nil {
						return nil, fmt.Errorf("reading %s: %w", p, err)
					}
				}
			}
			all[rowKey(t.Tags, at)] = values
		}
	}
	return all, nil
}

// told is the typed text of a value in an answer.
func told(kind string, v any) (string, error) {
	number, isNumber := v.(json.Number)
	switch kind {
	case "float":
		f, err := strconv.ParseFloat(string(number), 64)
		return "float " + strconv.FormatFloat(f, 'g', -1, 64), err
	case "integer":
		n, err := strconv.ParseInt(string(number), 10, 64)
		return "integer " + strconv.FormatInt(n, 10), err
	default:
		if isNumber {
			return "", fmt.Errorf("a number where the field is a %s", kind)
		}
		return fmt.Sprintf("%s %v", kind, v), nil
	}
}
