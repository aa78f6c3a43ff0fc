package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// connection is one client of an HTTP server. It shares the machine with what is
// measured, so it does no more than it must: it sends what was made before, and
// reads of an answer only what it needs.
type connection struct {
	address string
	conn    net.Conn
	reader  *bufio.Reader
}

// requestTimeout bounds a request: what takes longer is a failure of the load.
const requestTimeout = time.Minute

func connect(ctx context.Context, url string) (*connection, error) {
	address := strings.TrimPrefix(url, "http://")
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &connection{address: address, conn: conn, reader: bufio.NewReaderSize(conn, 64<<10)}, nil
}

func (c *connection) close() { _ = c.conn.Close() } // nothing more is expected of it

// ask sends a request and returns the status of its answer, whose body is not read
// yet.
func (c *connection) ask(head, body []byte) (status int, rest answerBody, err error) {
	if err := c.conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return 0, rest, err
	}
	parts := net.Buffers{head, body}
	if _, err := parts.WriteTo(c.conn); err != nil {
		return 0, rest, err
	}
	line, err := c.reader.ReadSlice('\n')
	if err != nil {
		return 0, rest, err
	}
	if len(line) < len("HTTP/1.1 200") {
		return 0, rest, fmt.Errorf("%q is no answer", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, rest, fmt.Errorf("%q is no answer", line)
	}
	if rest, err = c.header(); status == http.StatusNoContent {
		rest = answerBody{}
	}
	return status, rest, err
}

// answerBody says how long a body is.
type answerBody struct {
	length  int64
	chunked bool
}

func (c *connection) header() (rest answerBody, err error) {
	for {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return rest, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return rest, nil
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch string(name) {
		case "Content-Length":
			if rest.length, err = strconv.ParseInt(string(value), 10, 64); err != nil {
				return rest, err
			}
		case "Transfer-Encoding":
			rest.chunked = true
		}
	}
}

// errCut is an answer that ended before it was whole.
var errCut = errors.New("the answer was cut off")

// discard reads a body and returns its length.
func (c *connection) discard(rest answerBody) (int64, error) {
	if !rest.chunked {
		n, err := c.reader.Discard(int(rest.length))
		return int64(n), err
	}
	total := int64(0)
	for {
		if err := c.conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
			return total, err
		}
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return total, errors.Join(errCut, err)
		}
		size, err := strconv.ParseInt(string(bytes.TrimRight(line, "\r\n")), 16, 64)
		if err != nil {
			return total, err
		}
		// What follows the chunk is the end of its line.
		if _, err := c.reader.Discard(int(size) + 2); err != nil {
			return total, errors.Join(errCut, err)
		}
		if total += size; size == 0 {
			return total, nil
		}
	}
}

// text reads a body that is expected to be short.
func (c *connection) text(rest answerBody) string {
	if rest.chunked {
		return "(an answer in parts)"
	}
	text, _ := io.ReadAll(io.LimitReader(c.reader, rest.length)) // for a message only
	return string(text)
}

// writeHead is the head of a write of a body.
func writeHead(url string, length int) []byte {
	return fmt.Appendf(nil, "POST /write?db=%s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n",
		database, strings.TrimPrefix(url, "http://"), length)
}

// refusals is what a load may be answered.
type refusals struct {
	// client is the connection whose lines are refused, -1 if there is none.
	client int
	status int
}

// noRefusals is a load of which everything is stored.
func noRefusals() refusals { return refusals{client: -1} }

// written is what a load has achieved.
type written struct {
	points, refused int64
	took            time.Duration
}

func (w written) rate() float64 { return float64(w.points) / w.took.Seconds() }

// writeBatches sends all batches to a server, from some connections at once.
func writeBatches(ctx context.Context, url string, connections int, all [][]byte, lines int) (written, error) {
	var next atomic.Int64
	start := time.Now()
	clients, ctx := errgroup.WithContext(ctx)
	for range connections {
		clients.Go(func() error {
			c, err := connect(ctx, url)
			if err != nil {
				return err
			}
			defer c.close()
			for ctx.Err() == nil {
				n := next.Add(1) - 1
				if n >= int64(len(all)) {
					return nil
				}
				status, rest, err := c.ask(writeHead(url, len(all[n])), all[n])
				if err != nil {
					return err
				}
				if status != http.StatusNoContent {
					return fmt.Errorf("a write was answered %d: %s", status, c.text(rest))
				}
			}
			return ctx.Err()
		})
	}
	err := clients.Wait()
	return written{points: int64(len(all) * lines), took: time.Since(start)}, err
}

// Single lines: so many measurements and hosts, and times in a row.
const (
	lineMeasurements = 20
	lineHosts        = 100
)

// lineOf appends a line of a fixed length. A wrong one brings text where all others
// bring a number.
func lineOf(b []byte, client int, n int64, wrong bool) []byte {
	b = append(b, "cpu"...)
	b = append2(b, int(n)%lineMeasurements)
	b = append(b, ",host=server"...)
	b = append2(b, client%lineHosts)
	b = append(b, ",client=c"...)
	b = append2(b, client/lineHosts)
	if wrong {
		b = append(b, ` value="abc" `...)
	} else {
		b = append(b, " value="...)
		b = append2(b, int(n)%lineHosts)
		b = append(b, ".5 "...)
	}
	return strconv.AppendInt(b, firstTime+n, 10)
}

// append2 appends a number as two digits.
func append2(b []byte, n int) []byte { return append(b, '0'+byte(n/10%10), '0'+byte(n%10)) }

// writeLines sends requests of one line from some connections for a while. from is
// the number of the first line of each, so that a second load writes other points.
func writeLines(ctx context.Context, url string, connections int, from int64, d time.Duration, may refusals) (written, error) {
	var points, refused atomic.Int64
	start := time.Now()
	clients, ctx := errgroup.WithContext(ctx)
	for i := range connections {
		clients.Go(func() error {
			c, err := connect(ctx, url)
			if err != nil {
				return err
			}
			defer c.close()
			wrong := i == may.client
			expected, count := http.StatusNoContent, &points
			if wrong {
				expected, count = may.status, &refused
			}
			line := lineOf(nil, i, 0, wrong)
			head := writeHead(url, len(line))
			n := from
			for ; time.Since(start) < d && ctx.Err() == nil; n++ {
				line = lineOf(line[:0], i, n, wrong)
				status, rest, err := c.ask(head, line)
				if err != nil {
					return err
				}
				if status != expected {
					return fmt.Errorf("%s was answered %d: %s", line, status, c.text(rest))
				}
				if _, err := c.discard(rest); err != nil {
					return err
				}
			}
			count.Add(n - from)
			return ctx.Err()
		})
	}
	err := clients.Wait()
	return written{points: points.Load(), refused: refused.Load(), took: time.Since(start)}, err
}

// batches makes batches of lines, all of them different points.
func (s set) batches(lines int) [][]byte {
	var all [][]byte
	var b []byte
	n := 0
	// By time, as agents send: each batch has lines of every measurement.
	for p := range s.points {
		for m := range s.measurements {
			b = s.line(b, m, p)
			if n++; n%lines == 0 {
				all = append(all, bytes.Clone(b))
				b = b[:0]
			}
		}
	}
	return all
}
