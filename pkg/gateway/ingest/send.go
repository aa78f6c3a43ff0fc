package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"ringmaster/pkg/gateway/session"
	"ringmaster/pkg/hint"
	"ringmaster/pkg/influx"
)

// How a backend that fails is tried again before it is suspect.
const (
	mostAttempts  = 3
	firstPause    = 100 * time.Millisecond
	longestPause  = 2 * time.Second
	suspectLimit  = 10 * time.Second
	probeFrom     = 32 << 10
	mostPrepared  = 2
	hintPause     = 200 * time.Millisecond
	suspectGrace  = time.Second
	hintFrameSize = hint.MaxLines / 2
)

// deliver gives every part of a group the answer that it would have had alone. What
// is refused together is sent again in halves, in order: a point that is written
// twice is one point.
func (l *lane) deliver(parts []*part) {
	parts, o := l.send(parts)
	switch {
	case len(parts) == 0:
	case o.state != refused || len(parts) == 1 || o.everybodys():
		l.ingest.stats.count(o, parts)
		l.finish(parts, o)
	default:
		l.ingest.stats.split.Add(1)
		middle := len(parts) / 2
		l.deliver(parts[:middle:middle])
		l.deliver(parts[middle:])
	}
}

// send stores parts at the backend, or among its hints, whatever stands in the way,
// for as long as their requests have time. Those that had not have their answer
// already and are not among what is returned.
func (l *lane) send(parts []*part) (left []*part, o outcome) {
	t := trouble{}
	for {
		if parts = l.expire(parts); len(parts) == 0 {
			return nil, o
		}
		if wait := l.ingest.enter(l.db); wait != nil {
			if !l.pause(parts, longestPause, wait) {
				return parts, ending
			}
			continue
		}
		o, done := l.attempt(parts, &t)
		l.ingest.exit(l.db)
		if done {
			return parts, o
		}
		if !l.pause(parts, t.pause, t.wake) {
			return parts, ending
		}
	}
}

// ending is the answer to what is under way when the service is stopped.
var ending = outcome{state: lost, reason: "this process is ending"}

// trouble is what a group has met.
type trouble struct {
	attempts, prepared int
	pause              time.Duration   // before it is tried again
	wake               <-chan struct{} // ends the pause
}

// attempt does what the mode of the backend allows, once; done is false if it is to
// be tried again.
func (l *lane) attempt(parts []*part, t *trouble) (o outcome, done bool) {
	g := l.ingest
	t.wake = g.options.Session.Changed()
	// Of before the mode is asked for: a mode is good for that long at most.
	tenure := g.options.Session.Tenure()
	mode, end, err := g.options.Session.BeginSend(l.backend.url)
	if err != nil {
		return outcome{state: lost, reason: err.Error()}, true
	}
	switch {
	case mode.Sends():
		reply, err := l.post(parts, tenure)
		end()
		return l.judge(reply, err, t)
	case mode.Hints():
		err := l.hint(parts)
		end()
		return l.hinted(err, t)
	default:
		end()
		t.pause = longestPause
		return outcome{}, false
	}
}

// post sends parts to the backend. What the backend refuses as too large, since the
// times that lines were given have made it larger, is compressed: that it does not
// count.
func (l *lane) post(parts []*part, in *session.Tenure) (influx.Reply, error) {
	g := l.ingest
	poster, err := g.poster(l.backend, parts[0].target.of, in)
	if err != nil {
		return influx.Reply{}, err
	}
	l.slices = l.slices[:0]
	size := 0
	for _, p := range parts {
		l.slices = append(l.slices, p.lines.data)
		size += len(p.lines.data)
	}
	defer func() { clear(l.slices) }()
	g.stats.sent(len(parts), size)
	ctx, cancel := context.WithTimeoutCause(g.sending(l.backend), g.options.WriteTimeout, errSlow)
	defer cancel()
	large := int64(size) > DefaultMaxBody
	reply, err := poster.Post(ctx, l.db, l.rp, l.slices, large)
	if err == nil && reply.Status == statusTooLarge && !large {
		return poster.Post(ctx, l.db, l.rp, l.slices, true)
	}
	if err != nil && size >= probeFrom && !slow(err) {
		// A server that refuses without reading may have closed the connection
		// before its answer was seen.
		if refusal, asked := poster.Post(ctx, l.db, l.rp, nil, false); asked == nil && !refusal.Stored() {
			return refusal, nil
		}
	}
	return reply, err
}

var (
	errSlow = errors.New("no answer in time")
	// errGivenUp ends what is under way to a backend that is suspect.
	errGivenUp = errors.New("given up, since the backend is suspect")
)

// sending is the context of what is sent to a backend.
func (g *Ingest) sending(b *backend) context.Context {
	g.mu.Lock()
	defer g.mu.Unlock()
	if b.ctx == nil || b.ctx.Err() != nil {
		b.ctx, b.giveUp = context.WithCancelCause(g.ctx)
	}
	return b.ctx
}

// watch gives up what is under way to backends that have become suspect, after a
// moment: everybody waits for it, and a backend that hangs would take the whole of
// its time for each lane anew.
func (g *Ingest) watch() {
	for {
		changed := g.options.Session.Changed()
		var suspects []*backend
		if v := g.options.Session.View(); v != nil && len(v.State.Backlogs) > 0 {
			g.mu.Lock()
			for url, b := range g.backends {
				if b.giveUp != nil && !v.Mode(url).Sends() {
					suspects = append(suspects, b)
				}
			}
			g.mu.Unlock()
		}
		if len(suspects) > 0 {
			timer := time.NewTimer(suspectGrace)
			select {
			case <-timer.C:
			case <-g.ctx.Done():
				timer.Stop()
				return
			}
			g.giveUp(suspects)
		}
		select {
		case <-changed:
		case <-g.ctx.Done():
			return
		}
	}
}

// giveUp ends what is sent to backends that are still not to be sent to.
func (g *Ingest) giveUp(suspects []*backend) {
	v := g.options.Session.View()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range suspects {
		if b.giveUp != nil && !v.Mode(b.url).Sends() {
			b.giveUp(errGivenUp)
			b.giveUp = nil
		}
	}
}

func slow(err error) bool {
	return errors.Is(err, errSlow) || errors.Is(err, errGivenUp) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

// judge decides by a backend's answer, or by its absence, what is next.
func (l *lane) judge(reply influx.Reply, err error, t *trouble) (o outcome, done bool) {
	if errors.Is(err, influx.ErrGuard) { // nothing is wrong with the backend
		return outcome{state: lost, reason: err.Error()}, true
	}
	if err == nil {
		o = judged(reply)
		if o.state == refused && o.means.missing() && t.prepared < mostPrepared && l.misses(o, t) {
			return o, false
		}
		if o.state != failed {
			return o, true
		}
	} else {
		o = outcome{state: failed, reason: err.Error()}
	}
	t.attempts++
	if t.attempts < mostAttempts && !slow(err) {
		t.pause = firstPause << (2 * (t.attempts - 1))
		if t.attempts == 1 && err != nil {
			t.pause = 0 // a connection that was closed while it was idle
		}
		t.pause = min(max(t.pause, reply.RetryAfter), longestPause)
		t.wake = nil
		return o, false
	}
	l.suspect(o.reason, t)
	return o, false
}

// suspect tells that the backend can't be written to, so that its hints take over.
func (l *lane) suspect(reason string, t *trouble) {
	g := l.ingest
	ctx, cancel := context.WithTimeout(g.ctx, suspectLimit)
	defer cancel()
	t.wake, t.pause, t.attempts = g.options.Session.Changed(), 0, 0
	if err := g.options.Keeper.Suspect(ctx, l.backend.url, reason); err != nil && g.ctx.Err() == nil {
		g.options.Logger.WarnContext(ctx, "a backend can't be written to, and its hints don't take over",
			"backend", l.backend.url, "reason", reason, "error", err)
		t.pause, t.wake = longestPause/2, nil
	}
}

// misses deals with a backend that lacks a database, or a retention policy, that
// others have: it has lost it, and no client can be told that it is not there. It
// returns false when nobody has it.
func (l *lane) misses(o outcome, t *trouble) bool {
	g := l.ingest
	ctx, cancel := context.WithTimeout(g.ctx, suspectLimit)
	defer cancel()
	if !g.elsewhere(ctx, l.db, l.rp, l.backend.url) {
		return false
	}
	t.prepared++
	t.pause, t.wake = 0, nil
	reason := "it lacks what other backends have: " + o.reply.Text
	if g.options.Preparer != nil && t.prepared < mostPrepared {
		err := g.options.Preparer.Prepare(ctx, l.backend.url, l.db)
		if err == nil {
			return true
		}
		reason += fmt.Sprintf(" (making it again: %v)", err)
	}
	l.suspect(reason, t)
	t.prepared = 0
	return true
}

// hint puts parts among the backend's hints, one frame for those that were routed
// alike.
func (l *lane) hint(parts []*part) error {
	g := l.ingest
	ctx, cancel := context.WithTimeout(g.ctx, g.options.WriteTimeout)
	defer cancel()
	var joined buffer
	defer func() { g.budget.pools.put(joined.data) }()
	for len(parts) > 0 {
		n, size, points := 0, 0, 0
		for n < len(parts) && sameFrame(parts[0], parts[n]) && (n == 0 || size+len(parts[n].lines.data) <= hintFrameSize) {
			size += len(parts[n].lines.data)
			points += parts[n].points
			n++
		}
		lines := parts[0].lines.data
		if n > 1 {
			if cap(joined.data) < size {
				g.budget.pools.put(joined.data)
				joined.data = g.budget.pools.get(size)
			}
			joined.data = joined.data[:0]
			for _, p := range parts[:n] {
				joined.data = append(joined.data, p.lines.data...)
			}
			lines = joined.data
		}
		if err := l.append(ctx, parts[0], lines, points); err != nil {
			return err
		}
		parts = parts[n:]
	}
	return nil
}

// sameFrame reports whether two parts were routed alike, as a frame says of all that
// it holds.
func sameFrame(a, b *part) bool {
	return a.target.circle == b.target.circle && a.write.pass.View().Topology.Epoch == b.write.pass.View().Topology.Epoch
}

// append stores lines as one frame, or as several if they are too long for one.
func (l *lane) append(ctx context.Context, first *part, lines []byte, points int) error {
	w := first.write
	for len(lines) > 0 {
		piece := lines
		if len(piece) > hintFrameSize {
			piece = lines[:bytes.LastIndexByte(lines[:hintFrameSize], '\n')+1]
			if len(piece) == 0 {
				return hint.ErrTooLarge
			}
		}
		frame := &hint.Frame{
			Epoch: w.pass.View().Topology.Epoch, Circles: []int{first.target.circle},
			Database: l.db, RetentionPolicy: l.rp, Points: points, Lines: piece, WrittenAt: l.ingest.options.Now(),
		}
		if len(piece) < len(lines) {
			frame.Points = bytes.Count(piece, []byte{'\n'})
			points -= frame.Points
		}
		if err := l.ingest.options.Hints.Append(ctx, l.backend.url, frame); err != nil {
			return err
		}
		lines = lines[len(piece):]
	}
	return nil
}

// hinted decides what is next after hints have taken parts, or have not.
func (l *lane) hinted(err error, t *trouble) (o outcome, done bool) {
	if err == nil {
		return outcome{state: hinted}, true
	}
	t.attempts++
	reason := fmt.Sprintf("backend %s can't be written to, and its hints don't take what is written: %v", l.backend.url, err)
	if t.attempts >= mostAttempts || slow(err) {
		return outcome{state: lost, reason: reason}, true
	}
	t.pause, t.wake = hintPause, nil
	return outcome{}, false
}
