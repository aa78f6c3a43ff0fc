package influx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"time"

	"github.com/influxdata/influxql"

	"ringmaster/pkg/lineproto"
)

// internalDatabase holds a server's statistics about itself.
const internalDatabase = "_internal"

// ProbeDatabase is where Ringmaster writes a point and reads it back, to see
// whether a server still does both. Like _internal it is nobody's data: what
// lists databases or shard groups leaves it out, so that it is neither moved nor
// counted nor cleared.
const ProbeDatabase = "_ringmaster"

// reserved reports whether a database is none of the users'.
func reserved(db string) bool { return db == internalDatabase || db == ProbeDatabase }

// RetentionPolicy has all attributes of a retention policy.
type RetentionPolicy struct {
	Name string
	// Duration is how long points are kept, 0 for ever.
	Duration      time.Duration
	ShardDuration time.Duration
	Replication   int
	Default       bool
}

// Ping asks for the server's version.
func (c *Client) Ping(ctx context.Context) (version string, err error) {
	said, err := c.ping(ctx)
	return said.Get("X-Influxdb-Version"), err
}

// Clock asks what time it is at the server, to the second; the zero time if it does
// not say.
func (c *Client) Clock(ctx context.Context) (time.Time, error) {
	said, err := c.ping(ctx)
	if err != nil || said.Get("Date") == "" {
		return time.Time{}, err
	}
	at, err := http.ParseTime(said.Get("Date"))
	if err != nil {
		return time.Time{}, fmt.Errorf("reading the time of %s: %w", c.URL(), err)
	}
	return at, nil
}

// ping returns the headers of an answer to a ping.
func (c *Client) ping(ctx context.Context) (http.Header, error) {
	op := "pinging " + c.URL()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.String()+"/ping", nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	res, err := c.do(c.reads, req)
	if err != nil {
		return nil, c.broke(ctx, op, err)
	}
	defer discard(res.Body)
	if res.StatusCode != http.StatusNoContent && res.StatusCode != http.StatusOK {
		return nil, refused(op, res, classifyQuery)
	}
	return res.Header, nil
}

// Databases lists the databases of the users: without _internal and without
// [ProbeDatabase].
func (c *Client) Databases(ctx context.Context) ([]string, error) {
	var names []string
	err := c.run(ctx, "listing databases of", "SHOW DATABASES", 1, func(d *decoder) error {
		r := record{d: d}
		if name := r.text("name"); !reserved(name) {
			names = append(names, name)
		}
		return r.err
	})
	return names, err
}

// RetentionPolicies lists the retention policies of a database.
func (c *Client) RetentionPolicies(ctx context.Context, db string) ([]RetentionPolicy, error) {
	var all []RetentionPolicy
	q := "SHOW RETENTION POLICIES ON " + influxql.QuoteIdent(db)
	err := c.run(ctx, "listing retention policies of", q, 1, func(d *decoder) error {
		r := record{d: d}
		all = append(all, RetentionPolicy{
			Name:          r.text("name"),
			Duration:      r.duration("duration"),
			ShardDuration: r.duration("shardGroupDuration"),
			Replication:   int(r.integer("replicaN")),
			Default:       r.boolean("default"),
		})
		return r.err
	})
	return all, err
}

// CreateDatabase creates a database; one that exists is no error.
func (c *Client) CreateDatabase(ctx context.Context, db string) error {
	return c.run(ctx, "creating a database at", "CREATE DATABASE "+influxql.QuoteIdent(db), 1, nil)
}

// CreateRetentionPolicy creates a retention policy with exactly these
// attributes and makes sure that it has them. One that exists with the same
// attributes is no error, another one of that name is. A policy stops being the
// default only when another one becomes it, so that Default false asks nothing
// of a policy that is there already.
func (c *Client) CreateRetentionPolicy(ctx context.Context, db string, rp RetentionPolicy) error {
	return c.setRetentionPolicy(ctx, "creating a retention policy at", "CREATE", db, rp)
}

// AlterRetentionPolicy gives an existing retention policy exactly these
// attributes and makes sure that it has them, with Default as in
// [Client.CreateRetentionPolicy].
func (c *Client) AlterRetentionPolicy(ctx context.Context, db string, rp RetentionPolicy) error {
	return c.setRetentionPolicy(ctx, "altering a retention policy at", "ALTER", db, rp)
}

func (c *Client) setRetentionPolicy(ctx context.Context, op, verb, db string, rp RetentionPolicy) error {
	q := fmt.Sprintf("%s RETENTION POLICY %s ON %s DURATION %s REPLICATION %d SHARD DURATION %s", verb,
		influxql.QuoteIdent(rp.Name), influxql.QuoteIdent(db),
		influxql.FormatDuration(rp.Duration), rp.Replication, influxql.FormatDuration(rp.ShardDuration))
	if rp.Default {
		q += " DEFAULT"
	}
	if err := c.run(ctx, op, q, 1, nil); err != nil {
		return err
	}
	return c.checkRetentionPolicy(ctx, op, db, rp)
}

// checkRetentionPolicy makes sure that a policy is as it was asked for: the
// server rounds some durations without a word.
func (c *Client) checkRetentionPolicy(ctx context.Context, op, db string, rp RetentionPolicy) error {
	all, err := c.RetentionPolicies(ctx, db)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(is RetentionPolicy) bool { return is.Name == rp.Name })
	if i < 0 {
		return &Error{Class: Transient, Op: op + " " + c.URL(), Message: fmt.Sprintf("%q is gone again", rp.Name)}
	}
	is := all[i]
	if !rp.Default {
		is.Default = false
	}
	if is != rp {
		return &Error{Class: Permanent, Op: op + " " + c.URL(), Message: fmt.Sprintf("%+v was asked for, the server has %+v", rp, is)}
	}
	return nil
}

// Measurements streams the names of the measurements of a database, in constant
// memory. After an error there are no more.
func (c *Client) Measurements(ctx context.Context, db string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		a, err := c.ask(ctx, "listing measurements of", "SHOW MEASUREMENTS ON "+influxql.QuoteIdent(db), 1)
		if err != nil {
			yield("", err)
			return
		}
		defer a.close()
		for {
			err := a.next()
			if errors.Is(err, io.EOF) {
				return
			}
			r := record{d: a.decoder}
			var name string
			if err == nil {
				name = r.text("name")
				err = r.err
			}
			if !yield(name, err) || err != nil {
				return
			}
		}
	}
}

// FieldKeys returns the fields of a measurement with every type that any shard
// of the retention policy has for them.
func (c *Client) FieldKeys(ctx context.Context, db, rp, measurement string) (map[string][]lineproto.Kind, error) {
	fields := map[string][]lineproto.Kind{}
	q := "SHOW FIELD KEYS ON " + influxql.QuoteIdent(db) + " FROM " + source(db, rp, measurement)
	err := c.run(ctx, "listing fields of", q, 1, func(d *decoder) error {
		if d.current.Measurement != measurement {
			return nil
		}
		r := record{d: d}
		name, typ := r.text("fieldKey"), r.text("fieldType")
		if r.err != nil {
			return r.err
		}
		kind, ok := lineproto.ParseKind(typ)
		if !ok {
			return fmt.Errorf("listing fields of %s: field %q has type %.64q", c.URL(), name, typ)
		}
		if !slices.Contains(fields[name], kind) {
			fields[name] = append(fields[name], kind)
		}
		return nil
	})
	return fields, err
}

// TagKeys lists the tag keys of a measurement.
func (c *Client) TagKeys(ctx context.Context, db, rp, measurement string) ([]string, error) {
	var keys []string
	q := "SHOW TAG KEYS ON " + influxql.QuoteIdent(db) + " FROM " + source(db, rp, measurement)
	a, err := c.ask(ctx, "listing tags of", q, 1)
	if err != nil {
		return nil, err
	}
	defer a.close()
	a.loose = true
	err = a.each(func(d *decoder) error {
		if d.current.Measurement != measurement {
			return nil
		}
		r := record{d: d}
		keys = append(keys, r.text("tagKey"))
		return r.err
	})
	return keys, err
}

// record reads the current row of a SHOW statement by the names of its columns.
// The first column that is missing or of another type is kept as err.
type record struct {
	d   *decoder
	err error
}

func (r *record) cell(column string, kind lineproto.Kind) lineproto.Value {
	i := slices.Index(r.d.columns, column)
	if i >= 0 && r.d.cells[i].Kind == kind {
		return r.d.cells[i]
	}
	if r.err == nil {
		r.err = fmt.Errorf("reading a table with columns %q: no column %q of type %s", r.d.columns, column, kind)
	}
	return lineproto.Value{}
}

func (r *record) text(column string) string { return string(r.cell(column, lineproto.String).Str) }
func (r *record) boolean(column string) bool {
	return r.cell(column, lineproto.Boolean).Num != 0
}

// integer reads a number of either sign; ids are unsigned, and the small ones
// come as signed.
func (r *record) integer(column string) uint64 {
	if i := slices.Index(r.d.columns, column); i >= 0 && r.d.cells[i].Kind == lineproto.Unsigned {
		return r.d.cells[i].Num
	}
	return r.cell(column, lineproto.Integer).Num
}

// duration reads one as Go writes it, such as 168h0m0s.
func (r *record) duration(column string) time.Duration {
	text := r.text(column)
	if r.err != nil {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		r.err = fmt.Errorf("reading column %q: %w", column, err)
	}
	return d
}

// time reads one in RFC 3339; an empty one is the zero time.
func (r *record) time(column string) time.Time {
	text := r.text(column)
	if r.err != nil || text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		r.err = fmt.Errorf("reading column %q: %w", column, err)
	}
	return t
}
