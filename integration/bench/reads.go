package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// What is read: one measurement of the usual kind, and one of long texts that is
// named so often in a statement that the answer is about a gigabyte.
const (
	readPoints  = 200_000
	wideText    = 1000
	wideColumns = 16
	wideRows    = 64_000
	wideChunk   = 200 // rows: 3 MB
	// everythingChunk is what InfluxDB takes when it is not told.
	everythingChunk = 10_000
	smallClients    = 8
	smallFor        = 2 * time.Second
	firstByteAsks   = 15
)

// asked is what reading has achieved.
type asked struct {
	answers, bytes int64
	took           time.Duration
}

func (a asked) perSecond() float64 { return float64(a.answers) / a.took.Seconds() }
func (a asked) mebibytes() float64 { return float64(a.bytes) / a.took.Seconds() / (1 << 20) }

// queryHead is a whole request of a query.
func queryHead(at, q string, chunk int) []byte {
	values := url.Values{"db": {database}, "q": {q}, "epoch": {"ns"}}
	if chunk > 0 {
		values.Set("chunked", "true")
		values.Set("chunk_size", fmt.Sprint(chunk))
	}
	return fmt.Appendf(nil, "GET /query?%s HTTP/1.1\r\nHost: %s\r\n\r\n", values.Encode(), strings.TrimPrefix(at, "http://"))
}

// askOnce sends a query and reads the whole answer; first is when it began.
func (c *connection) askOnce(head []byte) (n int64, first time.Duration, err error) {
	start := time.Now()
	status, rest, err := c.ask(head, nil)
	if err != nil {
		return 0, 0, err
	}
	if status != http.StatusOK {
		return 0, 0, fmt.Errorf("a query was answered %d: %s", status, c.text(rest))
	}
	// The header alone is no answer.
	if _, err := c.reader.Peek(1); err != nil {
		return 0, 0, errors.Join(errCut, err)
	}
	first = time.Since(start)
	n, err = c.discard(rest)
	return n, first, err
}

// askMany sends queries from some connections for a while; with 0 of it each sends
// one.
func askMany(ctx context.Context, url string, connections int, d time.Duration, head func(n int64) []byte) (asked, error) {
	var answers, bytes, next atomic.Int64
	start := time.Now()
	clients, ctx := errgroup.WithContext(ctx)
	for range connections {
		clients.Go(func() error {
			c, err := connect(ctx, url)
			if err != nil {
				return err
			}
			defer c.close()
			for first := true; first || time.Since(start) < d; first = false {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				n, _, err := c.askOnce(head(next.Add(1)))
				if err != nil {
					return err
				}
				answers.Add(1)
				bytes.Add(n)
			}
			return nil
		})
	}
	err := clients.Wait()
	return asked{answers: answers.Load(), bytes: bytes.Load(), took: time.Since(start)}, err
}

// firstBytes is how long an answer takes to begin.
func firstBytes(ctx context.Context, url string, head []byte) (time.Duration, error) {
	c, err := connect(ctx, url)
	if err != nil {
		return 0, err
	}
	defer c.close()
	var all []time.Duration
	for range firstByteAsks {
		_, first, err := c.askOnce(head)
		if err != nil {
			return 0, err
		}
		all = append(all, first)
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

// readable is a gateway of one circle of two backends that hold something to read.
type readable struct {
	*gateway
	// owner holds the measurement, wide the one of long texts.
	owner, wide string
}

// readable starts it, and writes what is to be read to the owners.
func (b *bench) readable() (r *readable, err error) {
	g, err := b.gateway(2)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
		}
	}()
	r = &readable{gateway: g}
	s := set{measurements: 1, points: readPoints}
	if _, err = writeBatches(b.ctx, g.Client.URL, batchConnections, s.batches(batchLines), batchLines); err != nil {
		return nil, err
	}
	if r.owner, err = ownerOf(b.ctx, g, "m0000"); err != nil {
		return nil, err
	}
	var wide [][]byte
	for from := 0; from < wideRows; from += 1000 {
		var lines []byte
		for n := from; n < from+1000; n++ {
			lines = fmt.Appendf(lines, "wide text=\"%08d%s\" %d\n", n, strings.Repeat("x", wideText-8), int64(firstTime)+int64(n))
		}
		wide = append(wide, lines)
	}
	if _, err = writeBatches(b.ctx, g.Client.URL, batchConnections, wide, 1000); err != nil {
		return nil, err
	}
	r.wide, err = ownerOf(b.ctx, g, "wide")
	return r, err
}

// ownerOf asks which server holds a measurement.
func ownerOf(ctx context.Context, g *gateway, measurement string) (string, error) {
	var where struct {
		Owners []struct {
			URL string `json:"url"`
		} `json:"owners"`
	}
	err := g.Client.Get(ctx, fmt.Sprintf("/v1/where?db=%s&measurement=%s", database, measurement), &where)
	if err == nil && len(where.Owners) != 1 {
		err = fmt.Errorf("measurement %s has %d owners", measurement, len(where.Owners))
	}
	if err != nil {
		return "", err
	}
	return where.Owners[0].URL, nil
}

// dashboard is a statement as dashboards send them: means of an hour of one host.
func dashboard(n int64) string {
	return fmt.Sprintf("SELECT mean(value), max(count) FROM m0000 WHERE host = 'host-%02d' AND time >= %d AND time < %d GROUP BY time(1m)",
		n%seriesOf, int64(firstTime), int64(firstTime)+int64(time.Hour))
}

// overview is a statement that reads all there is: the means of every host.
const overview = "SELECT mean(value), max(count) FROM m0000 GROUP BY host"

const (
	everything = "SELECT * FROM m0000"
	onlyFirst  = "SELECT * FROM m0000 LIMIT 10"
)

// reading is one round; the costs are the api's, nothing if it was not asked.
type reading struct {
	small, wide, large asked
	ofSmall            cost
}

// query measures queries that one owner answers beside the same queries asked there
// directly.
func (b *bench) query() error {
	fmt.Fprintf(b.out, "\nqueries of one owner: 1 circle × 2 backends beside that owner\n")
	r, err := b.readable()
	if err != nil {
		return err
	}
	return errors.Join(b.queries(r), r.close())
}

func (b *bench) queries(r *readable) error {
	read := func(at string) (round reading, err error) {
		round.ofSmall, err = b.during(r.gateway, partQuery+"-small", func() (err error) {
			round.small, err = askMany(b.ctx, at, smallClients, smallFor, func(n int64) []byte { return queryHead(at, dashboard(n), 0) })
			return err
		})
		if err == nil {
			round.wide, err = askMany(b.ctx, at, smallClients, smallFor, func(int64) []byte { return queryHead(at, overview, 0) })
		}
		if err == nil {
			round.large, err = askMany(b.ctx, at, 1, 0, func(int64) []byte { return queryHead(at, everything, everythingChunk) })
		}
		return round, err
	}
	var direct, proxied []reading
	for n := range b.rounds + 1 {
		d, err := read(r.owner)
		if err != nil {
			return fmt.Errorf("directly: %w", err)
		}
		p, err := read(r.Client.URL)
		if err != nil {
			return err
		}
		if d.large.bytes != p.large.bytes {
			return fmt.Errorf("the gateway's answer has %d bytes, the owner's %d", p.large.bytes, d.large.bytes)
		}
		if n > 0 { // the first round is for warming up
			direct, proxied = append(direct, d), append(proxied, p)
		}
	}
	small := func(r reading) float64 { return r.small.perSecond() }
	large := func(r reading) float64 { return r.large.mebibytes() }
	base := median(direct, small)
	b.compare(fmt.Sprintf("an hour of means, %d clients, directly", smallClients), base, base, "answers/s", "")
	b.compare("through the gateway", median(proxied, small), base, "answers/s", "(goal ≥ 0.97)")
	fmt.Fprintf(b.out, "  api: %.0f µs of CPU an answer\n", median(proxied, func(r reading) float64 {
		return float64(r.ofSmall.cpu.Microseconds()) / float64(r.small.answers)
	}))
	wide := func(r reading) float64 { return r.wide.perSecond() }
	base = median(direct, wide)
	b.compare(fmt.Sprintf("means of %d points, %d clients, directly", readPoints, smallClients), base, base, "answers/s", "")
	b.compare("through the gateway", median(proxied, wide), base, "answers/s", "(goal ≥ 0.97)")
	base = median(direct, large)
	b.compare(fmt.Sprintf("%d rows in chunks, directly", readPoints), base, base, "MiB/s", "")
	b.compare("through the gateway", median(proxied, large), base, "MiB/s", "(goal ≥ 0.97)")
	if err := b.firstByte(r); err != nil {
		return err
	}
	return b.gigabyte(r)
}

// firstByte measures when a short and a long answer begin.
func (b *bench) firstByte(r *readable) error {
	for _, q := range []struct{ name, text string }{{"10 rows", onlyFirst}, {fmt.Sprintf("%d rows", readPoints), everything}} {
		var direct, proxied time.Duration
		for _, at := range []struct {
			url  string
			into *time.Duration
		}{{r.owner, &direct}, {r.Client.URL, &proxied}} {
			first, err := firstBytes(b.ctx, at.url, queryHead(at.url, q.text, 1000))
			if err != nil {
				return err
			}
			*at.into = first
		}
		fmt.Fprintf(b.out, "  first byte of %-14s directly %6.2f ms, through the gateway %6.2f ms\n", q.name,
			float64(direct.Microseconds())/1000, float64(proxied.Microseconds())/1000)
	}
	return nil
}

// gigabyte measures what the api holds while an answer of a gigabyte goes through.
func (b *bench) gigabyte(r *readable) error {
	columns := strings.TrimSuffix(strings.Repeat("text, ", wideColumns), ", ")
	if err := resetPeak(r.API.PID()); err != nil {
		return err
	}
	_, before, err := usage(r.API.PID())
	if err != nil {
		return err
	}
	var got asked
	c, err := b.during(r.gateway, partQuery, func() (err error) {
		got, err = askMany(b.ctx, r.Client.URL, 1, 0, func(int64) []byte {
			return queryHead(r.Client.URL, "SELECT "+columns+" FROM wide", wideChunk)
		})
		return err
	})
	if err != nil {
		return err
	}
	if least := int64(wideText * wideColumns * wideRows); got.bytes < least {
		return fmt.Errorf("an answer of %d bytes came where at least %d were expected", got.bytes, least)
	}
	fmt.Fprintf(b.out, "  %.2f GB streamed: %.0f MiB/s, %.2f s of CPU; RSS of the api %d MiB before, at most %d MiB meanwhile (goal ≤ 64)\n",
		float64(got.bytes)/1e9, got.mebibytes(), c.cpu.Seconds(), before>>20, c.rss>>20)
	return nil
}
