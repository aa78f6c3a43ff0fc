package dataset

import (
	"bufio"
	"fmt"
	"math"
	"strings"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
)

// FirstTime is where generated points begin: a Monday at midnight, where shard
// groups of a day and of a week begin too.
const FirstTime int64 = 1_699_833_600_000_000_000

// MetricsDatabase is the database of [Metrics] and [Hourly].
const MetricsDatabase = "metrics"

// hosts is the number of series of a generated measurement.
const hosts = 20

// Metrics returns generated measurements as monitoring agents send them: 3 tags,
// a float that wanders, a counter, a flag, a level and a short text, one point a
// minute of each of 20 hosts.
func Metrics(measurements, points int) Set {
	return Set{
		Name: "sensors", Source: "generated", Database: MetricsDatabase, Policy: kept("raw", day, true),
		read: func(_ *bufio.Reader, emit func(*Point) error) error {
			return metrics(measurements, points, time.Minute, emit)
		},
	}
}

// Hourly returns more points of the same measurements as [Metrics] in another
// policy, which keeps them for a century: one an hour.
func Hourly(measurements, points int) Set {
	hourly := influx.RetentionPolicy{Name: "hourly", Duration: 5200 * week, ShardDuration: 2 * week, Replication: 1}
	return Set{
		Name: "sensors by hour", Source: "generated", Database: MetricsDatabase, Policy: hourly,
		read: func(_ *bufio.Reader, emit func(*Point) error) error {
			return metrics(measurements, points, time.Hour, emit)
		},
	}
}

func metrics(measurements, points int, step time.Duration, emit func(*Point) error) error {
	p := Point{
		Fields: []string{"value", "count", "ok", "level", "state"},
		Values: make([]lineproto.Value, 5),
	}
	states := []string{"idle", "starting", "serving", "draining", "stopped"}
	for m := range measurements {
		for h := range hosts {
			p.Series = series(fmt.Sprintf("sensor_%03d", m),
				lineproto.Tag{Key: "host", Value: fmt.Sprintf("host-%02d", h)},
				lineproto.Tag{Key: "region", Value: fmt.Sprintf("region-%d", h%4)},
				lineproto.Tag{Key: "service", Value: fmt.Sprintf("service-%d", h%7)})
			for i := h; i < points; i += hosts {
				p.Values[0] = lineproto.FloatValue(50 + float64((i*7919+m*104729)%100_000)/1999)
				p.Values[1] = lineproto.IntegerValue(int64(i))
				p.Values[2] = lineproto.BooleanValue(i%3 != 0)
				p.Values[3] = lineproto.FloatValue(float64(i%40) + 0.5)
				p.Values[4] = lineproto.Value{Kind: lineproto.String, Str: append(p.Values[4].Str[:0], states[i%5]...)}
				p.Time = FirstTime + int64(i/hosts)*int64(step)
				if err := emit(&p); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Awkward returns a few measurements whose names, tags and values are legal and
// all the same often lost: quotes, commas, newlines, emoji, integers beyond what
// a float can hold, both ends of the floats, a long text, sparse fields.
func Awkward() Set {
	return Set{
		Name: "awkward values", Source: "generated", Database: "odds & ends", Policy: kept("for ever", week, true),
		read: func(_ *bufio.Reader, emit func(*Point) error) error { return awkward(emit) },
	}
}

func awkward(emit func(*Point) error) error {
	names := []string{`naïve "quotes", commas = 50 %`, "Gleis 9¾ 🚂", "plain", `C:\temp\a b`}
	values := []lineproto.Value{
		lineproto.StringValue("two\nlines, \"quotes\" and a \\"),
		lineproto.StringValue(""),
		lineproto.StringValue("🦆 = duck, canard, Ente"),
		lineproto.StringValue(strings.Repeat("long ", 13_000)),
		lineproto.IntegerValue(math.MaxInt64), lineproto.IntegerValue(math.MinInt64), lineproto.IntegerValue(1<<53 + 1),
		lineproto.FloatValue(math.MaxFloat64), lineproto.FloatValue(math.SmallestNonzeroFloat64),
		lineproto.FloatValue(math.Copysign(0, -1)), lineproto.FloatValue(0.1),
		lineproto.BooleanValue(true), lineproto.BooleanValue(false),
	}
	// A field of each type, of which a point has one, and one that all have.
	fields := []string{"text", "whole number", "number,decimal", "yes=no", "n"}
	for _, name := range names {
		s := series(name, lineproto.Tag{Key: "straße, nr", Value: "Hauptstraße 7, Haus \"b\""}, lineproto.Tag{Key: "ünit=", Value: name})
		for i, v := range values {
			p := &Point{Series: s, Fields: fields, Values: make([]lineproto.Value, len(fields)), Time: FirstTime + int64(i)}
			p.Values[columnOf(v.Kind)] = v
			p.Values[4] = lineproto.IntegerValue(int64(i))
			if err := emit(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// columnOf is the place of a kind among the fields of the awkward points.
func columnOf(k lineproto.Kind) int {
	switch k {
	case lineproto.Integer:
		return 1
	case lineproto.Float:
		return 2
	case lineproto.Boolean:
		return 3
	default:
		return 0
	}
}
