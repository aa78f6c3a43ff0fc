package query

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/result"
	"ringmaster/pkg/statement"
)

// part is the running answer of one backend, series by series.
type part struct {
	x       *execution
	watch   *watch
	backend string
	// subtract says that what it counts is taken off.
	subtract bool
	answer   *influx.Answer
	before   int64 // bytes of it that have been counted

	series   []result.Series // of the present chunk, that are to come
	messages []result.Message
	ended    bool
	read     bool // something of it, or that there is nothing
}

// ask asks backends and returns when all of them have begun to answer. close must
// be called.
func (x *execution) ask(ctx context.Context, p *place, asks []statement.Ask) (parts []*part, closeAll func(), err error) {
	backends := make([]string, len(asks))
	for i := range asks {
		backends[i] = asks[i].Backend
	}
	watch := x.r.watch(ctx, backends...)
	watch.pass = p.pass
	parts = make([]*part, len(asks))
	failed := make([]error, len(asks))
	closeAll = func() {
		settled := settle(parts)
		watch.stop()
		settled()
		for _, p := range parts {
			if p != nil && p.answer != nil {
				p.answer.Close()
			}
		}
	}
	var asking sync.WaitGroup
	slots := make(chan struct{}, maxAsking)
	for i := range asks {
		asking.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			parts[i], failed[i] = x.begin(watch, p, asks[i])
		})
	}
	asking.Wait()
	for _, err := range failed {
		if err != nil {
			closeAll()
			return nil, nil, err
		}
	}
	return parts, closeAll, nil
}

// settleTime is how long a server may take to begin with an answer that nobody wants.
const settleTime = 5 * time.Second

// settle waits, within bounds, until every server has begun to answer: InfluxDB 1.8.3
// says that a query is accepted before it opens what the query reads, and its process
// can end when it is interrupted in between. The function that it returns waits for
// the end of what it has begun, once the requests have been ended.
func settle(parts []*part) (settled func()) {
	var reading sync.WaitGroup
	for _, p := range parts {
		if p != nil && p.answer != nil && !p.read && !p.ended {
			reading.Go(func() { _, _ = p.answer.Next() }) // whatever it is
		}
	}
	begun := make(chan struct{})
	go func() {
		defer close(begun)
		reading.Wait()
	}()
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	select {
	case <-begun:
	case <-timer.C:
	}
	return func() { <-begun }
}

// maxChunk bounds how many rows of each backend are in memory at a time, whatever a
// client asks for.
const maxChunk = 100_000

// maxAsking is how many backends are asked at a time.
const maxAsking = 32

func (x *execution) begin(watch *watch, p *place, ask statement.Ask) (*part, error) {
	client, err := x.r.o.Clients.Client(p.backends[ask.Backend])
	if err != nil {
		return nil, &brokenError{ask.Backend, err}
	}
	question := influx.Question{
		Text: ask.Text, Database: x.q.Database, RetentionPolicy: x.q.RetentionPolicy,
		ReadOnly: x.q.ReadOnly, ChunkSize: min(x.q.chunkSize(), maxChunk),
	}
	if ask.Original {
		question.Params = x.q.Params
	}
	question.AsJSON = x.asJSON
	answer, err := client.Ask(watch.ctx, question)
	if err != nil {
		return nil, x.r.unanswered(watch.ctx, ask.Backend, err)
	}
	return &part{x: x, watch: watch, backend: ask.Backend, subtract: ask.Subtract, answer: answer}, nil
}

// next reads the next chunk; nil at the end. The failure of the statement is an
// error.
func (p *part) next() (*result.Result, error) {
	r, err := p.plainNext()
	if err == nil && r != nil && r.Err != "" {
		return nil, &saidError{r.Err}
	}
	return r, err
}

// plainNext reads the next chunk, also one that says that the statement has failed.
func (p *part) plainNext() (*result.Result, error) {
	if p.ended {
		return nil, nil
	}
	p.read = true
	r, err := p.answer.Next()
	n := p.answer.Bytes()
	p.watch.progressed(int(n - p.before))
	bound := p.x.budget.bytes(n - p.before)
	p.before = n
	if lost := p.watch.lost(); lost != nil {
		return nil, lost
	}
	switch {
	case errors.Is(err, io.EOF):
		p.ended = true
		return nil, nil
	case err != nil:
		return nil, p.x.r.failure(p.watch.ctx, p.backend, err)
	case bound != nil:
		return nil, bound
	}
	return r, nil
}

// peek returns the next series, or the next part of one; nil at the end. keep says
// which count.
func (p *part) peek(keep func(backend, series string) bool) (*result.Series, error) {
	for {
		for len(p.series) > 0 && !keep(p.backend, p.series[0].Name) {
			p.series = p.series[1:]
		}
		if len(p.series) > 0 {
			return &p.series[0], nil
		}
		r, err := p.next()
		if r == nil || err != nil {
			return nil, err
		}
		p.series = r.Series
		p.messages = append(p.messages, r.Messages...)
	}
}

func (p *part) take() result.Series {
	s := p.series[0]
	p.series = p.series[1:]
	return s
}

// rows reads the rows of a part as one stream.
type rows struct {
	part *part
	keep func(backend, series string, row []any) bool
	s    *result.Series // the present chunk
	head *result.Series
	at   int
	err  error
}

func (r *rows) Next() bool {
	for r.err == nil {
		for r.s != nil && r.at+1 < len(r.s.Values) {
			r.at++
			if r.keep == nil || r.keep(r.part.backend, r.s.Name, plain(r.s.Values[r.at])) {
				return true
			}
		}
		s, err := r.part.peek(keepAll)
		if err != nil || s == nil {
			r.err = err
			return false
		}
		chunk := r.part.take()
		r.s, r.at = &chunk, -1
		if r.head == nil || !r.head.Same(&chunk) {
			r.head = &result.Series{Name: chunk.Name, Tags: chunk.Tags, Columns: chunk.Columns}
		}
	}
	return false
}

func keepAll(string, string) bool { return true }

func (r *rows) Series() *result.Series { return r.head }
func (r *rows) Values() []result.Value { return r.s.Values[r.at] }
func (r *rows) Err() error             { return r.err }
func (r *rows) Close()                 {}

// plain gives a row as plain values.
func plain(row []result.Value) []any {
	all := make([]any, len(row))
	for i := range row {
		all[i] = row[i].Any()
	}
	return all
}

// probe asks backends and returns the first column of each answer. What they answer
// is of schemas and names.
func (x *execution) probe(ctx context.Context, p *place, asks []statement.Ask) ([][]string, error) {
	parts, closeAll, err := x.ask(ctx, p, asks)
	if err != nil {
		return nil, err
	}
	defer closeAll()
	all := make([][]string, len(parts))
	for i, part := range parts {
		r := &rows{part: part}
		for r.Next() {
			if values := r.Values(); len(values) > 0 {
				all[i] = append(all[i], values[0].Str)
			}
		}
		if err := r.Err(); err != nil {
			said, is := errors.AsType[*saidError](err)
			if !is || !asks[i].Ignore(said.text) {
				return nil, err
			}
			all[i] = nil
		}
	}
	return all, nil
}
