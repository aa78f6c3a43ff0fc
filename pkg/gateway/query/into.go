package query

import (
	"context"
	"slices"
	"strconv"

	"github.com/influxdata/influxql"

	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/result"
	"ringmaster/pkg/statement"
)

// batchPoints and batchBytes are how much of SELECT … INTO is written at a time.
const (
	batchPoints = 10000
	batchBytes  = 4 << 20
)

// into reads what a statement selects and writes it through the write path.
func (x *execution) into(ctx context.Context, id int, s *statement.Statement) error {
	to := &target{x: x, ctx: ctx, Target: s.Target()}
	if err := x.readStatement(ctx, s, to.take); err != nil {
		return err
	}
	if err := to.flush(); err != nil {
		return err
	}
	r := &result.Result{Series: []result.Series{{
		Name: "result", Columns: []string{"time", "written"},
		Values: [][]result.Value{{result.TimeValue(0), result.IntegerValue(to.written)}},
	}}}
	if x.q.ReadOnly {
		warning, err := x.warning(ctx, s)
		if err != nil {
			return err
		}
		r.Messages = []result.Message{{Level: result.Warning, Text: warning}}
	}
	return x.writeAs(id, nil)(r) // the time of the row is in no zone
}

// warning is what InfluxDB says when it is asked to write by a GET.
func (x *execution) warning(ctx context.Context, s *statement.Statement) (string, error) {
	var failed error
	text := s.Warning(func(database string) string {
		policy, err := x.defaultPolicy(ctx, database)
		if err != nil {
			failed = err
		}
		return policy
	})
	return text, failed
}

// defaultPolicy asks for the default retention policy of a database.
func (x *execution) defaultPolicy(ctx context.Context, database string) (string, error) {
	policy := ""
	p, err := x.r.read(ctx, x.search(false), func(ctx context.Context, p *place) (string, error) {
		p.anyFirst()
		ask := statement.Ask{Backend: p.circle.Backends[0], Text: "SHOW RETENTION POLICIES ON " + influxql.QuoteIdent(database)}
		if reason := p.fits(ask); reason != "" {
			return reason, nil
		}
		parts, closeAll, err := x.ask(ctx, p, []statement.Ask{ask})
		if err != nil {
			return "", err
		}
		defer closeAll()
		r := &rows{part: parts[0]}
		for r.Next() {
			row := r.Values()
			if last := row[len(row)-1]; last.Kind == result.Boolean && last.Num != 0 {
				policy = row[0].Str
			}
		}
		return "", r.Err()
	})
	if p != nil {
		p.pass.End()
	}
	return policy, err
}

// target takes rows and writes them as points.
type target struct {
	*statement.Target

	x   *execution
	ctx context.Context //nolint:containedctx // the request's own

	lines   []byte
	points  int
	written int64

	encoder lineproto.Encoder
	values  []lineproto.Value
}

// take writes the rows of a result.
func (t *target) take(r *result.Result) error {
	for i := range r.Series {
		if t.NoTime != "" {
			return &saidError{t.NoTime}
		}
		if err := t.series(&r.Series[i]); err != nil {
			return err
		}
	}
	return nil
}

// series writes the rows of a series. A row that can't be a point is left out, as
// InfluxDB does: without a field, or with a value that is no number.
func (t *target) series(s *result.Series) error {
	if err := t.x.budget.rows(len(s.Values)); err != nil {
		return err
	}
	at, series := t.layout(s)
	if at.time < 0 {
		return &saidError{"error finding time index in result"}
	}
	placed := t.encoder.SetSeries(series, at.names) == nil
	for _, row := range s.Values {
		if len(at.tags) > 0 {
			tagged := &lineproto.Series{Measurement: series.Measurement, Tags: slices.Clone(series.Tags)}
			for _, tag := range at.tags {
				if v := row[tag]; v.Kind == result.String && v.Str != "" {
					tagged.Tags = setTag(tagged.Tags, s.Columns[tag], v.Str)
				}
			}
			placed = t.encoder.SetSeries(tagged, at.names) == nil
		}
		if !placed {
			continue
		}
		if err := t.row(at, row); err != nil {
			return err
		}
	}
	return nil
}

// layout says what each column of a series is.
type layout struct {
	time   int
	tags   []int
	fields []int
	names  []string // of fields
}

func (t *target) layout(s *result.Series) (layout, *lineproto.Series) {
	at := layout{time: -1}
	for i, c := range s.Columns {
		switch {
		case c == "time":
			at.time = i
		case slices.Contains(t.TagColumns, c):
			at.tags = append(at.tags, i)
		default:
			at.fields = append(at.fields, i)
			at.names = append(at.names, c)
		}
	}
	series := &lineproto.Series{Measurement: t.Measurement}
	if series.Measurement == "" {
		series.Measurement = s.Name
	}
	for _, tag := range s.Tags {
		if tag.Value != "" {
			series.Tags = append(series.Tags, lineproto.Tag{Key: tag.Key, Value: tag.Value})
		}
	}
	return at, series
}

// setTag keeps tags sorted.
func setTag(tags []lineproto.Tag, key, value string) []lineproto.Tag {
	i, found := slices.BinarySearchFunc(tags, key, func(t lineproto.Tag, key string) int {
		switch {
		case t.Key < key:
			return -1
		case t.Key > key:
			return 1
		}
		return 0
	})
	if found {
		tags[i].Value = value
		return tags
	}
	return slices.Insert(tags, i, lineproto.Tag{Key: key, Value: value})
}

func (t *target) row(at layout, row []result.Value) error {
	t.values = t.values[:0]
	for _, i := range at.fields {
		t.values = append(t.values, field(&row[i]))
	}
	before := len(t.lines)
	lines, err := t.encoder.AppendRow(t.lines, int64(row[at.time].Num), t.values)
	if err != nil || len(lines) == before {
		return nil //nolint:nilerr // left out
	}
	t.lines = lines
	if t.points++; t.points >= batchPoints || len(t.lines) >= batchBytes {
		return t.flush()
	}
	return nil
}

func field(v *result.Value) lineproto.Value {
	switch v.Kind {
	case result.Float:
		return lineproto.Value{Kind: lineproto.Float, Num: v.Num}
	case result.Integer, result.Time:
		return lineproto.Value{Kind: lineproto.Integer, Num: v.Num}
	case result.Unsigned:
		return lineproto.Value{Kind: lineproto.Unsigned, Num: v.Num}
	case result.Boolean:
		return lineproto.BooleanValue(v.Num != 0)
	case result.String:
		return lineproto.Value{Kind: lineproto.String, Str: []byte(v.Str)}
	default:
		return lineproto.Value{}
	}
}

// words are those of InfluxDB for what a write was refused with. It names a database
// that is not there without the quotes that it answers a client's own write with.
func (t *target) words(refusal string) string {
	const absent = "database not found: "
	if refusal == absent+strconv.Quote(t.Database) {
		return absent + t.Database
	}
	return refusal
}

// flush writes what has been gathered.
func (t *target) flush() error {
	if t.points == 0 {
		return nil
	}
	if t.x.r.o.Writer == nil {
		return &saidError{"SELECT … INTO is not possible: this process does not write"}
	}
	// Nothing is in the way of beginning again: the points will be the same.
	if err := t.x.r.o.Writer.WritePoints(t.ctx, t.Database, t.RetentionPolicy, t.lines); err != nil {
		if t.ctx.Err() != nil {
			return context.Cause(t.ctx)
		}
		return &saidError{t.words(err.Error())}
	}
	t.written += int64(t.points)
	t.lines, t.points = t.lines[:0], 0
	return nil
}
