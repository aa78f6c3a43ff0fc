package session

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"ringmaster/pkg/ledger"
	"ringmaster/pkg/serving"
)

// Touched is what a write is about to change in one circle.
type Touched struct {
	Circle      int
	Measurement serving.Measurement
	// From and To bound the times in nanoseconds; To is included.
	From, To int64
}

// Note makes durable, for every operation that copies in the circles, that these
// slices are being written. It returns at once for what was noted in the same
// round already. It must come before anything is sent.
func (s *Session) Note(ctx context.Context, v *serving.View, touched []Touched) error {
	for i := range v.State.Copies {
		c := &v.State.Copies[i]
		if err := s.notes.note(ctx, c, touched); err != nil {
			return err
		}
	}
	return nil
}

// The widths of the spans that are noted: the first in which what a write touches
// is few spans.
const (
	minute = int64(time.Minute)
	hour   = 60 * minute
	day    = 24 * hour
	month  = 30 * day
	era    = 1000 * month

	fewSpans = 16
)

// span is what is noted: a stretch of a measurement's time, for one round of an
// operation.
type span struct {
	operation string
	round     int
	of        serving.Measurement
	width     int64
	index     int64
}

// spans appends the spans that a write touches, of the first width of which it
// touches few.
func spans(to []span, c *serving.Copy, t *Touched) []span {
	width := minute
	for _, wider := range []int64{hour, day, month, era} {
		if floor(t.To, width)-floor(t.From, width) < fewSpans {
			break
		}
		width = wider
	}
	for i := floor(t.From, width); i <= floor(t.To, width); i++ {
		to = append(to, span{operation: c.Operation, round: c.Round, of: t.Measurement, width: width, index: i})
	}
	return to
}

// floor divides towards the past.
func floor(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// noter remembers what has been noted, and has what is new stored in batches.
type noter struct {
	store func(ctx context.Context, operation string, round int, notes []ledger.Note) error

	mu    sync.Mutex
	noted map[span]*batch
	open  *batch // takes spans in

	// storing is held while a batch is stored; those who come meanwhile are in the
	// next one.
	storing sync.Mutex
}

// batch is notes on their way to the disk.
type batch struct {
	operation string
	round     int
	spans     []span
	stored    bool
	err       error
}

// mostNoted bounds what is remembered: to note something twice is harmless.
const mostNoted = 1 << 18

// storeTimeout bounds how long a write waits for its notes.
const storeTimeout = 10 * time.Second

// note makes the spans durable that a write touches in the circles of a copy.
func (n *noter) note(ctx context.Context, c *serving.Copy, touched []Touched) error {
	var all []span
	for i := range touched {
		if slices.Contains(c.Circles, touched[i].Circle) {
			all = spans(all, c, &touched[i])
		}
	}
	for _, b := range n.enter(c, all) {
		if err := n.land(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// enter returns the batches that the spans are in and that are not stored yet.
func (n *noter) enter(c *serving.Copy, all []span) []*batch {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.noted == nil || len(n.noted) > mostNoted {
		n.noted = map[span]*batch{}
	}
	var wait []*batch
	for _, s := range all {
		b := n.noted[s]
		if b == nil {
			if n.open == nil || n.open.operation != c.Operation || n.open.round != c.Round {
				n.open = &batch{operation: c.Operation, round: c.Round}
			}
			b = n.open
			b.spans = append(b.spans, s)
			n.noted[s] = b
		}
		if !b.stored && !slices.Contains(wait, b) {
			wait = append(wait, b)
		}
	}
	return wait
}

// land has a batch stored, unless somebody else has done so.
func (n *noter) land(ctx context.Context, b *batch) error {
	n.storing.Lock()
	defer n.storing.Unlock()
	n.mu.Lock()
	if n.open == b {
		n.open = nil
	}
	n.mu.Unlock()
	if b.stored || b.err != nil {
		return b.err
	}
	// Others wait for it, too: it does not end with this one's request.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	err := n.store(ctx, b.operation, b.round, notesOf(b.spans))
	n.mu.Lock()
	defer n.mu.Unlock()
	b.stored, b.err = err == nil, err
	if err != nil {
		for _, s := range b.spans {
			delete(n.noted, s)
		}
	}
	b.spans = nil
	return err
}

// notesOf joins spans that follow one another.
func notesOf(all []span) []ledger.Note {
	slices.SortFunc(all, func(a, b span) int {
		return cmp.Or(
			strings.Compare(a.of.Database, b.of.Database), strings.Compare(a.of.RetentionPolicy, b.of.RetentionPolicy),
			strings.Compare(a.of.Name, b.of.Name), cmp.Compare(a.width, b.width), cmp.Compare(a.index, b.index))
	})
	var notes []ledger.Note
	for i := range all {
		s := &all[i]
		from, to := clamp(s.index, s.width), clamp(s.index+1, s.width)-1
		if i > 0 && all[i-1].of == s.of && all[i-1].width == s.width && all[i-1].index == s.index-1 {
			notes[len(notes)-1].To = to
			continue
		}
		notes = append(notes, ledger.Note{
			Database: s.of.Database, RetentionPolicy: s.of.RetentionPolicy, Measurement: s.of.Name, From: from, To: to,
		})
	}
	return notes
}

// clamp is the beginning of a span, within what a time can be.
func clamp(index, width int64) int64 {
	const limit = math.MaxInt64
	switch {
	case index > limit/width:
		return limit
	case index < -(limit / width):
		return -limit
	default:
		return index * width
	}
}
