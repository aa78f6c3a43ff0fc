package ingest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"

	"ringmaster/pkg/gateway/session"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/serving"
)

// Request is a write as a client asks for it.
type Request struct {
	// Database is required; an empty RetentionPolicy is the default one.
	Database, RetentionPolicy string
	// Precision is that of the times.
	Precision lineproto.Precision
	// Consistency is InfluxDB's parameter of that name, which must be one of its
	// words and changes nothing.
	Consistency string
	// Client tells one client from others, so that one that is refused again and
	// again does not slow them: the address of its connection will do.
	Client string
	// Body is the line protocol; nil is an empty one. Length is how long it says it
	// is, less than 0 if it does not say. Gzip is whether it is compressed.
	Body   io.Reader
	Length int64
	Gzip   bool
}

// Write stores a request. nil says that every circle has every point, for good; any
// other answer is a *Refusal, except that of a context that has ended.
func (g *Ingest) Write(ctx context.Context, r Request) error {
	if err := g.admits(r.Database); err != nil {
		return err
	}
	w, err := g.open(ctx, r.Database, r.RetentionPolicy, r.Client)
	if err != nil {
		return err
	}
	defer w.leave()
	if err := w.read(&r); err != nil {
		return g.unread(ctx, w, err)
	}
	return g.run(ctx, w, &r)
}

// WritePoints stores points that the gateway has made itself. lines is line
// protocol with a time in nanoseconds on each line; it belongs to the caller again
// when WritePoints returns. Its errors are those of Write.
func (g *Ingest) WritePoints(ctx context.Context, db, rp string, lines []byte) error {
	return g.Write(ctx, Request{Database: db, RetentionPolicy: rp, Body: bytes.NewReader(lines), Length: int64(len(lines))})
}

// write is a request under way. It is used again when the handler and all parts
// have left it.
type write struct {
	ingest *Ingest
	ctx    context.Context //nolint:containedctx // the request's own

	db, rp, client string
	deadline       time.Time

	body    buffer
	unzip   *gzip.Reader
	scanner lineproto.Scanner
	parts   []part  // by slot
	batch   []*part // those that are sent together
	points  int
	suspect bool // it should be refused, by what is known
	touched map[touch]*session.Touched
	shapes  shapes
	torn    bool
	name    []byte // of the line before
	last    int    // the length of the last line that was appended
	timer   *time.Timer

	pass     Pass
	releases []func()

	pending  atomic.Int32 // parts without an answer
	users    atomic.Int32 // those parts, and the handler
	answered chan struct{}
}

// part is what one backend has to get of a request, for one circle.
type part struct {
	write   *write
	target  *target
	lines   buffer
	points  int
	torn    bool // it has what tears the request
	outcome outcome
}

// touch is a measurement in a circle.
type touch struct {
	circle int
	name   string
}

// open begins a request.
func (g *Ingest) open(ctx context.Context, db, rp, client string) (*write, error) {
	g.mu.Lock()
	closed := g.closed
	g.mu.Unlock()
	if closed {
		return nil, unavailable("this process is ending")
	}
	w, _ := g.writes.Get().(*write)
	w.ctx, w.db, w.rp, w.client = ctx, db, rp, client
	w.deadline = time.Now().Add(g.options.Deadline)
	if at, ok := ctx.Deadline(); ok && at.Before(w.deadline) {
		w.deadline = at
	}
	w.users.Store(1)
	g.stats.requests.Add(1)
	return w, nil
}

// leave says that the handler or a part needs the write no more.
func (w *write) leave() {
	if w.users.Add(-1) > 0 {
		return
	}
	g := w.ingest
	w.drop()
	g.budget.free(&w.body)
	w.ctx, w.db, w.rp, w.client = nil, "", "", ""
	w.scanner.Reset(nil, lineproto.Nanoseconds, 0)
	select {
	case <-w.answered:
	default:
	}
	g.writes.Put(w)
}

// drop gives back what the parts hold, and ends the pass.
func (w *write) drop() {
	for i := range w.parts {
		w.ingest.budget.free(&w.parts[i].lines)
		w.parts[i] = part{}
	}
	clear(w.batch)
	w.parts, w.points, w.suspect, w.torn, w.touched = w.parts[:0], 0, false, false, nil
	for _, release := range w.releases {
		release()
	}
	clear(w.releases)
	w.releases = w.releases[:0]
	if w.pass != nil {
		w.pass.End()
		w.pass = nil
	}
}

// run routes a request that has been read, sends it, and puts the answers together.
func (g *Ingest) run(ctx context.Context, w *write, r *Request) error {
	now := g.options.Now().UnixNano()
	if err := w.route(ctx, r.Precision, now); err != nil {
		return err
	}
	words, bad := w.scanner.Refused()
	consistent := knownConsistency(r.Consistency)
	if w.points == 0 || !consistent {
		return g.nothing(ctx, w, words, bad, consistent)
	}
	if err := w.prepare(ctx); err != nil {
		return err
	}
	if w.torn {
		// What tears it goes ahead.
		if err := w.send(ctx, true); err != nil {
			return err
		}
		if w.denied() {
			return w.answer(words, bad)
		}
	}
	if err := w.send(ctx, false); err != nil {
		return err
	}
	// Whoever has not waited for this write may have moved on without its points.
	if err := w.pass.Held(); err != nil {
		return perhaps(err.Error())
	}
	return w.answer(words, bad)
}

// send has the parts sent that tear the request, or the others, and waits for their
// answers.
func (w *write) send(ctx context.Context, torn bool) error {
	w.batch = w.batch[:0]
	for i := range w.parts {
		if p := &w.parts[i]; p.points > 0 && p.torn == torn {
			w.batch = append(w.batch, p)
		}
	}
	if len(w.batch) == 0 {
		return nil
	}
	if err := w.ingest.enqueue(w, w.batch); err != nil {
		return err
	}
	return w.wait(ctx)
}

// denied reports whether a server has stored nothing at all since the request is
// torn.
func (w *write) denied() bool {
	return slices.ContainsFunc(w.batch, func(p *part) bool { return p.outcome.state == refused && p.outcome.means == conflict })
}

// route scans the body into parts under a view in which nothing of it is held.
func (w *write) route(ctx context.Context, p lineproto.Precision, now int64) error {
	g := w.ingest
	// Who holds writes gives up before the limit; after it they go on whatever the
	// record says. A hold that follows another one begins anew.
	var limit <-chan time.Time
	var holder uint64
	pressing := false
	for {
		changed := g.options.Session.Changed()
		pass, err := g.options.Session.BeginWrite()
		if err != nil {
			return unavailable(err.Error())
		}
		w.pass = pass
		v := pass.View()
		if v.Excluded(w.db) {
			w.drop()
			if err := w.waitFor(ctx, changed); err != nil {
				return err
			}
			continue
		}
		held, err := w.scan(g.routerOf(v), p, now, pressing && v.Revision == holder)
		if err != nil {
			return err
		}
		if !held {
			return nil
		}
		w.drop()
		if v.Revision != holder {
			timer := time.NewTimer(serving.HoldLimit)
			defer timer.Stop()
			limit, holder, pressing = timer.C, v.Revision, false
		}
		select {
		case <-changed:
		case <-limit:
			pressing = true
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// waitFor waits for another view while a statement is at work on the database, for as
// long as the request has time.
func (w *write) waitFor(ctx context.Context, changed <-chan struct{}) error {
	timer := time.NewTimer(time.Until(w.deadline))
	defer timer.Stop()
	select {
	case <-changed:
		return nil
	case <-timer.C:
		return unavailable("a statement that removes data is at work on the database, and writes wait for its end")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// scan appends each line to the part of every target. It stops at a measurement
// that has to wait, unless the write has waited long enough.
func (w *write) scan(r *router, p lineproto.Precision, now int64, pressing bool) (held bool, err error) {
	s, m, look := &w.scanner, r.database(w.db), several(w.body.data)
	if look {
		w.shapes.reset()
	}
	var to *owners
	for s.Reset(w.body.data, p, now); s.Next(); {
		name := s.Measurement()
		if to == nil || !bytes.Equal(name, w.name) {
			to = r.owners(m, w.db, name)
			w.name = append(w.name[:0], name...)
			if r.holds && !pressing && holds(r.view, w.db, w.rp, string(name)) {
				return true, nil
			}
			if len(to.targets) == 0 {
				return false, unavailable("no circle has a backend")
			}
		}
		w.points++
		size := s.LineLen()
		for _, t := range to.targets {
			if err := w.append(t, size); err != nil {
				return false, err
			}
			if t.noted {
				w.touch(t.circle)
			}
		}
		first := w.parts[to.targets[0].slot].lines.data
		if look && w.shapes.tears(s, name, first, len(first)-w.last) {
			w.tear(to)
		}
		if to.watch != nil && !w.suspect {
			w.suspect = to.watch.expects(w.rp, first[len(first)-w.last:], len(s.Key()))
		}
	}
	return false, nil
}

// tear marks the parts that have what tears the request. It travels alone.
func (w *write) tear(to *owners) {
	w.torn, w.suspect = true, true
	for _, t := range to.targets {
		w.parts[t.slot].torn = true
	}
}

// append adds the scanner's line to the part for a target.
func (w *write) append(t *target, size int) error {
	for len(w.parts) <= t.slot {
		w.parts = append(w.parts, part{})
	}
	p := &w.parts[t.slot]
	if cap(p.lines.data)-len(p.lines.data) < size {
		// A part is about a share of the body, or small.
		if !w.ingest.budget.grow(&p.lines, max(size, len(w.body.data)/2)) {
			return w.ingest.full()
		}
	}
	if p.points == 0 {
		p.write, p.target = w, t
	}
	was := len(p.lines.data)
	p.lines.data = w.scanner.AppendLine(p.lines.data)
	p.points++
	w.last = len(p.lines.data) - was
	return nil
}

// touch keeps in mind that the scanner's line is written to a circle.
func (w *write) touch(circle int) {
	if w.touched == nil {
		w.touched = map[touch]*session.Touched{}
	}
	key, at := touch{circle, string(w.name)}, w.scanner.Time()
	if t := w.touched[key]; t != nil {
		t.From, t.To = min(t.From, at), max(t.To, at)
		return
	}
	w.touched[key] = &session.Touched{
		Circle: circle, From: at, To: at,
		Measurement: serving.Measurement{Database: w.db, RetentionPolicy: w.rp, Name: key.name},
	}
}

// holds reports whether writes of a measurement have to wait. The default policy
// has no name here, so that of a name and that of none may be the same.
func holds(v *serving.View, db, rp, name string) bool {
	for i := range v.State.Copies {
		c := &v.State.Copies[i]
		if c.HoldAll || slices.ContainsFunc(c.Hold, func(m serving.Measurement) bool {
			return m.Database == db && m.Name == name && (m.RetentionPolicy == rp || m.RetentionPolicy == "" || rp == "")
		}) {
			return true
		}
	}
	return false
}

// prepare does what has to be durable, or certain, before anything is sent.
func (w *write) prepare(ctx context.Context) error {
	o := &w.ingest.options
	if len(w.touched) > 0 {
		all := make([]session.Touched, 0, len(w.touched))
		for _, t := range w.touched {
			all = append(all, *t)
		}
		if err := o.Session.Note(ctx, w.pass.View(), all); err != nil {
			return unavailable("noting what is written while an operation copies: " + err.Error())
		}
	}
	v := o.Session.View()
	if len(v.State.Backlogs) == 0 {
		return nil
	}
	for i := range w.parts {
		p := &w.parts[i]
		if p.points == 0 || v.Mode(p.target.url).Sends() {
			continue
		}
		release, err := o.Hints.Reserve(p.target.url, int64(len(p.lines.data)))
		if err != nil {
			return unavailable(fmt.Sprintf("backend %s can't be written to, and its hints take no more: %v", p.target.url, err))
		}
		w.releases = append(w.releases, release)
	}
	return nil
}

// wait returns when every part has an answer, or when the request has no time left.
func (w *write) wait(ctx context.Context) error {
	if w.timer == nil {
		w.timer = time.NewTimer(time.Until(w.deadline))
	} else {
		w.timer.Reset(time.Until(w.deadline))
	}
	defer w.timer.Stop()
	select {
	case <-w.answered:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-w.timer.C:
		return perhaps("not every circle has answered in time")
	}
}
