package pace

import (
	"math"
	"slices"
	"time"
)

const (
	// burst is for how long an unused limit adds up, and how much of a pass's share
	// a batch may hold.
	burst = 100 * time.Millisecond
	// saving is for how long what a stall has left unused is made good, and catchUp how
	// much faster than the limit that goes: all together, a limit is never exceeded by
	// more than burst and saving in however long a time.
	saving  = 250 * time.Millisecond
	catchUp = 0.05
	// fresh is for how long a pass that has asked for something shares a limit.
	fresh = time.Second
)

// bucket is one limit on points or bytes, for all who ask. Whoever is first in line
// is admitted as soon as nothing is owed, and then owes what it has taken: a batch
// of any size is admitted, and the rate holds on the average.
type bucket struct {
	rate float64
	// level is what may be taken at the time at; below 0 it is owed.
	level float64
	at    time.Time
	// saved is what was left unused beyond a burst.
	saved float64
	queue []place
	// asked is when each pass last asked for something.
	asked map[string]time.Time
	meter meter
	why   Why
}

// place is a charge that waits in line.
type place struct {
	ticket *ticket
	amount float64
}

func newBucket(now time.Time, rate int64, why Why) *bucket {
	return &bucket{rate: float64(rate), at: now, asked: map[string]time.Time{}, meter: meter{began: now}, why: why}
}

// advance admits those in line whose turn has come.
func (b *bucket) advance(now time.Time) {
	if now.Before(b.at) {
		return
	}
	for len(b.queue) > 0 {
		if wait := b.owed(0); wait > 0 {
			due := b.at.Add(wait)
			if due.After(now) {
				break
			}
			b.pass(wait)
			// The rest of a nanosecond is given away.
			b.level, b.at = 0, due
		}
		first := b.queue[0]
		b.queue = b.queue[1:]
		b.level -= first.amount
		b.meter.add(b.at, first.amount)
		first.ticket.open--
	}
	if len(b.queue) == 0 {
		b.queue = nil
	}
	b.pass(now.Sub(b.at))
	if over := b.level - b.rate*burst.Seconds(); over > 0 {
		b.level -= over
		b.saved = min(b.saved+over, b.rate*saving.Seconds())
	}
	b.at = now
}

// pass adds what comes in a time.
func (b *bucket) pass(d time.Duration) {
	more := min(b.saved, catchUp*b.rate*d.Seconds())
	b.saved -= more
	b.level += b.rate*d.Seconds() + more
}

// pace is how much comes in a second.
func (b *bucket) pace() float64 {
	if b.saved > 0 {
		return b.rate * (1 + catchUp)
	}
	return b.rate
}

// owed is how long it takes until nothing is owed any more, when so much is taken
// before that.
func (b *bucket) owed(ahead float64) time.Duration {
	if b.level-ahead >= 0 {
		return 0
	}
	seconds := (ahead - b.level) / b.pace()
	return time.Duration(math.Ceil(min(seconds, maxOwed.Seconds()) * float64(time.Second)))
}

// maxOwed bounds what is reckoned with, so that no arithmetic overflows.
const maxOwed = 1000 * time.Hour

// set changes the rate. What is owed stays owed for as long as it would have been.
func (b *bucket) set(now time.Time, rate int64) {
	b.why.Limit = rate
	if float64(rate) == b.rate {
		return
	}
	b.advance(now)
	b.level *= float64(rate) / b.rate
	b.saved *= float64(rate) / b.rate
	b.rate = float64(rate)
}

// lift admits all that wait in line.
func (b *bucket) lift() {
	for _, p := range b.queue {
		p.ticket.open--
	}
	b.queue = nil
}

// line puts a charge at the end of the line.
func (b *bucket) line(now time.Time, t *ticket, amount int64) {
	b.queue = append(b.queue, place{ticket: t, amount: float64(amount)})
	t.open++
	b.advance(now)
}

// wait is how long a ticket waits from now on, 0 if it is not in line.
func (b *bucket) wait(t *ticket) time.Duration {
	ahead := 0.0
	for _, p := range b.queue {
		if p.ticket == t {
			return b.owed(ahead)
		}
		ahead += p.amount
	}
	return 0
}

// leave takes those out of the line that have left.
func (b *bucket) leave(left func(*ticket) bool) {
	b.queue = slices.DeleteFunc(b.queue, func(p place) bool { return left(p.ticket) })
}

// sharing counts the passes that have asked lately.
func (b *bucket) sharing(now time.Time) int {
	n := 0
	for pass, at := range b.asked {
		if now.Sub(at) > fresh {
			delete(b.asked, pass)
			continue
		}
		n++
	}
	return n
}

// share is how much of the limit one batch may hold.
func (b *bucket) share(now time.Time) int64 {
	return max(1, int64(b.rate*burst.Seconds())/int64(max(1, b.sharing(now))))
}

// meter measures what goes by, second by second.
type meter struct {
	began     time.Time
	sum, rate float64
}

func (m *meter) add(now time.Time, n float64) {
	m.turn(now)
	m.sum += n
}

// turn ends a second that is over.
func (m *meter) turn(now time.Time) {
	if d := now.Sub(m.began); d >= time.Second {
		m.rate = m.sum / d.Seconds()
		m.began, m.sum = now, 0
	}
}

// perSecond is the rate of the last full second, or of the running one before
// there was any.
func (m *meter) perSecond(now time.Time) float64 {
	m.turn(now)
	if m.rate == 0 {
		if d := now.Sub(m.began).Seconds(); d > 0.1 {
			return m.sum / d
		}
	}
	return m.rate
}
