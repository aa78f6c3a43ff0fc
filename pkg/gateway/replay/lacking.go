package replay

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/influxdata/influxdb1-client/models"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
)

// wanted is a point that is looked for.
type wanted struct {
	point  models.Point
	series string
	at     int64
	has    map[string]bool // the fields that the server has
}

// Lacking returns those lines whose points the server does not have. Of a point that
// it has some fields of, the line has the others.
func (s *server) Lacking(ctx context.Context, db, rp string, lines []byte) ([]byte, error) {
	parsed, err := models.ParsePointsWithPrecision(lines, time.Unix(0, 0), "n")
	if err != nil {
		return nil, fmt.Errorf("reading lines of a hint: %w", err)
	}
	if rp, err = s.policy(ctx, db, rp); err != nil {
		return nil, err
	}
	bounds, err := s.bounds(ctx, db, rp)
	if err != nil {
		return nil, err
	}
	all := make([]*wanted, len(parsed))
	groups := map[string]map[int][]*wanted{} // by measurement and span between bounds
	for i, p := range parsed {
		w := &wanted{point: p, series: seriesOf(p), at: p.UnixNano(), has: map[string]bool{}}
		all[i] = w
		name := string(p.Name())
		if groups[name] == nil {
			groups[name] = map[int][]*wanted{}
		}
		span, _ := slices.BinarySearch(bounds, w.at+1)
		groups[name][span] = append(groups[name][span], w)
	}
	for name, spans := range groups {
		for _, group := range spans {
			if err := s.find(ctx, db, rp, name, group); err != nil {
				return nil, err
			}
		}
	}
	var lacking []byte
	for _, w := range all {
		if lacking, err = w.appendLacking(lacking); err != nil {
			return nil, err
		}
	}
	return lacking, nil
}

// policy resolves the default retention policy, which a read has to name.
func (s *server) policy(ctx context.Context, db, rp string) (string, error) {
	if rp != "" {
		return rp, nil
	}
	policies, err := s.client.RetentionPolicies(ctx, db)
	if err != nil {
		return "", err
	}
	for _, p := range policies {
		if p.Default {
			return p.Name, nil
		}
	}
	return "", fmt.Errorf("database %s has no default retention policy", db)
}

// bounds are the times at which shard groups begin and end: a read must not reach
// over one.
func (s *server) bounds(ctx context.Context, db, rp string) ([]int64, error) {
	groups, err := s.client.ShardGroups(ctx)
	if err != nil {
		return nil, err
	}
	var all []int64
	for _, g := range groups {
		if g.Database == db && g.RetentionPolicy == rp {
			all = append(all, g.From, g.To)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// find marks which fields of a group the server has. The group lies in one span.
func (s *server) find(ctx context.Context, db, rp, name string, group []*wanted) error {
	byTime := func(a, b *wanted) int { return cmp.Compare(a.at, b.at) }
	first, last := slices.MinFunc(group, byTime).at, slices.MaxFunc(group, byTime).at
	window := influx.Window{From: first, To: last + 1}
	if last == lineproto.MaxTime {
		window.To, window.Last = last, true
	}
	sought := map[string][]*wanted{}
	for _, w := range group {
		sought[w.key()] = append(sought[w.key()], w)
	}
	stream, err := s.client.Read(ctx, []influx.Selection{{Database: db, RetentionPolicy: rp, Measurement: name, Window: window}})
	if errors.Is(err, influx.ErrUnaddressable) {
		return nil // nobody can read it
	}
	if err != nil {
		return err
	}
	defer stream.Close()
	series := ""
	for stream.Next() {
		if stream.NewSeries() {
			series = keyOf(stream.Series())
		}
		for _, w := range sought[series+"\x00"+strconv.FormatInt(stream.Time(), 10)] {
			for i, v := range stream.Values() {
				if v.Kind != lineproto.Null {
					w.has[stream.Fields()[i]] = true
				}
			}
		}
	}
	if err := stream.Err(); err != nil && !errors.Is(err, influx.ErrUnaddressable) {
		return err
	}
	return nil
}

func (w *wanted) key() string { return w.series + "\x00" + strconv.FormatInt(w.at, 10) }

// appendLacking appends the fields of the point that the server does not have.
func (w *wanted) appendLacking(dst []byte) ([]byte, error) {
	if len(w.has) == 0 {
		return append(w.point.AppendString(dst), '\n'), nil
	}
	fields, err := w.point.Fields()
	if err != nil {
		return nil, fmt.Errorf("reading a line of a hint: %w", err)
	}
	for name := range w.has {
		delete(fields, name)
	}
	if len(fields) == 0 {
		return dst, nil
	}
	rest, err := models.NewPoint(string(w.point.Name()), w.point.Tags(), fields, w.point.Time())
	if err != nil {
		return nil, fmt.Errorf("making a line of the fields that are lacking: %w", err)
	}
	return append(rest.AppendString(dst), '\n'), nil
}

// seriesOf and keyOf name a series alike.
func seriesOf(p models.Point) string {
	var b strings.Builder
	b.Write(p.Name())
	tags := slices.Clone(p.Tags())
	slices.SortFunc(tags, func(a, b models.Tag) int { return bytes.Compare(a.Key, b.Key) })
	for _, t := range tags {
		if len(t.Value) > 0 {
			fmt.Fprintf(&b, "\x00%q=%q", t.Key, t.Value)
		}
	}
	return b.String()
}

func keyOf(s *lineproto.Series) string {
	var b strings.Builder
	b.WriteString(s.Measurement)
	for _, t := range s.Tags {
		fmt.Fprintf(&b, "\x00%q=%q", t.Key, t.Value)
	}
	return b.String()
}
