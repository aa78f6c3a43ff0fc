package influx

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/influxdata/influxql"
)

// Delete removes the points of a measurement in a window, in all retention
// policies of the database at once: InfluxDB knows no narrower delete. An empty
// window is no request at all.
//
// The request is sent once: never again by itself, since what it would remove
// then may be something else. [Options.Guard] is asked immediately before it goes
// out. An [Error] of class Transient leaves open what the server does: it may have
// removed nothing, be at it, or have removed everything.
//
// The error wraps [ErrUnaddressable] for a measurement that no statement can name
// alone.
func (c *Client) Delete(ctx context.Context, db, measurement string, w Window) error {
	op := "deleting points at " + c.URL()
	from, err := deletable(measurement)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", op, err)
	case db == "":
		// A server would take its own default.
		return fmt.Errorf("%s: no database is named", op)
	case w.empty():
		return nil
	}
	form := url.Values{
		"db":      {db},
		"q":       {"DELETE FROM " + from + w.where()},
		"chunked": {"true"},
	}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.String()+"/query", strings.NewReader(form))
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/x-msgpack")
	res, err := c.doOnce(c.writes, req)
	if err != nil {
		return c.brokeWrite(ctx, op, err)
	}
	if res.StatusCode != http.StatusOK {
		defer discard(res.Body)
		return refused(op, res, classifyQuery)
	}
	m := &meter{Reader: res.Body}
	a := &answer{decoder: newDecoder(m, 1), client: c, ctx: ctx, op: op, body: res.Body, meter: m}
	defer a.close()
	err = a.each(nil)
	// Told by its text, since the table of results is about what is read.
	if refusal, ok := errors.AsType[*Error](err); ok && strings.HasPrefix(refusal.Message, mixedIndexes) {
		refusal.Class = Permanent
	}
	return err
}

// mixedIndexes begins the refusal of a database of which some shards have the
// index inmem and others tsi1.
const mixedIndexes = "cannot delete data. DB contains shards using both"

// doOnce sends a request as do does, but without leave to repeat it.
func (c *Client) doOnce(t *http.Transport, req *http.Request) (*http.Response, error) {
	if c.username != "" {
		req.SetBasicAuth(c.username, c.password)
	}
	if c.userAgent != "" {
		req.Header.Set("User-Agent", c.userAgent)
	}
	return t.RoundTrip(req)
}

// empty reports whether no legal time lies in the window.
func (w Window) empty() bool {
	return w.To < w.From || w.To == w.From && !w.Last
}

// deletable names a measurement in the FROM clause of a DELETE, which takes
// neither database nor policy. It refuses what a pattern would match more than.
func deletable(measurement string) (string, error) {
	switch {
	case measurement == "":
		return "", fmt.Errorf("measurement \"\": %w", ErrUnaddressable)
	case !utf8.ValidString(measurement):
		// Its pattern matches every name with other such bytes in that place.
		return "", fmt.Errorf("measurement %q: %w", measurement, ErrUnaddressable)
	}
	if err := checkMeasurement(measurement); err != nil {
		return "", err
	}
	if addressable(measurement) {
		return influxql.QuoteIdent(measurement), nil
	}
	return pattern(measurement), nil
}
