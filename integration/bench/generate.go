package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"ringmaster/pkg/influx"
)

// set is a generated data set: 3 tags, 5 fields, one point every ten seconds and
// series.
type set struct {
	name                 string
	measurements, points int
}

const (
	database  = "bench"
	seriesOf  = 50
	firstTime = 1_700_000_000_000_000_000
	stepNanos = 10_000_000_000
	batchRows = 5000
)

// load writes the set to a server.
func (s set) load(ctx context.Context, url string) error {
	c, err := influx.New(influx.Endpoint{URL: url}, influx.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.CreateDatabase(ctx, database); err != nil {
		return err
	}
	var lines []byte
	for m := range s.measurements {
		for p := range s.points {
			lines = s.line(lines, m, p)
			if (p+1)%batchRows == 0 || p == s.points-1 {
				if err := c.Write(ctx, database, "autogen", lines); err != nil {
					return err
				}
				lines = lines[:0]
			}
		}
	}
	return nil
}

// line appends one point: a gauge that wanders, a counter, a flag, a level and a
// short text, as monitoring agents send them.
func (s set) line(b []byte, m, p int) []byte {
	series, step := p%seriesOf, p/seriesOf
	b = fmt.Appendf(b, "m%04d,host=host-%02d,region=region-%d,service=service-%d ", m, series, series%5, series%7)
	b = append(b, "value="...)
	b = strconv.AppendFloat(b, 50+float64((p*7919+m*104729)%100_000)/1999, 'g', -1, 64)
	b = fmt.Appendf(b, ",count=%di,ok=%t,level=%d.5,state=\"state-%d\" %d\n", p, p%3 != 0, p%40, p%9,
		int64(firstTime)+int64(step)*stepNanos)
	return b
}

// manyMeasurements writes n measurements of one point each.
func manyMeasurements(ctx context.Context, url string, n int) error {
	return windowed(ctx, url, n, 1)
}

// week is the shard group of a policy that keeps everything.
const week = 7 * 24 * time.Hour

// scattered writes n measurements of four points to each of so many databases.
func scattered(ctx context.Context, url string, databases, n int) error {
	c, err := influx.New(influx.Endpoint{URL: url}, influx.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	for d := range databases {
		name := fmt.Sprintf("%s-%03d", database, d)
		if err := c.CreateDatabase(ctx, name); err != nil {
			return err
		}
		var lines []byte
		for m := range n {
			for p := range 4 {
				lines = fmt.Appendf(lines, "m%03d,host=a value=%d.5 %d\n", m, m, int64(firstTime)+int64(p)*stepNanos)
			}
		}
		if err := c.Write(ctx, name, "autogen", lines); err != nil {
			return err
		}
	}
	return nil
}

// windowed writes n measurements of one point in each of so many weeks, which are
// shard groups of their own.
func windowed(ctx context.Context, url string, n, windows int) error {
	c, err := influx.New(influx.Endpoint{URL: url}, influx.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.CreateDatabase(ctx, database); err != nil {
		return err
	}
	var lines []byte
	for w := range windows {
		for m := range n {
			lines = fmt.Appendf(lines, "measurement-%06d,host=a value=%d.5 %d\n", m, m, int64(firstTime)+int64(w)*int64(week))
			if (m+1)%batchRows == 0 || m == n-1 {
				if err := c.Write(ctx, database, "autogen", lines); err != nil {
					return err
				}
				lines = lines[:0]
			}
		}
	}
	return nil
}
