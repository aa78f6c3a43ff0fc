package pace

import (
	"fmt"
	"math/bits"
	"net/http"
	"time"
)

// The numbers of the back-off. A backend that refuses with 429 or 503 gets half of
// what it got, one that has become slow gets seven tenths; from then on it gets a
// twentieth of its former rate more each second, and is left alone when that has
// gone well for long enough.
const (
	cutRefused = 0.5
	cutSlow    = 0.7
	raise      = 0.05
	// liftAt is how far beyond its former rate a backend's bound rises before it is
	// lifted.
	liftAt = 1.5
	// leastRate bounds how far a backend is slowed down, in points a second.
	leastRate = 100
	// slowShare is the least part of its former rate that a slow backend gets: one
	// that is slow for another reason than our load is not starved.
	slowShare = 0.1
	// cutEvery is how often the rate is cut at most: what has been sent already
	// says nothing about the cut.
	cutEvery = time.Second
	// slowFactor and slowAtLeast say when a backend has become slow: when each of
	// its last few answers took that much longer than usual, and that long.
	slowFactor  = 4
	slowAtLeast = 250 * time.Millisecond
	// usualAfter is how many answers there must have been before any is usual.
	usualAfter = 8
	// usualWeight is the weight of a new answer in what is usual, and of one that
	// took far longer: that is to be noticed before it is usual.
	usualWeight   = 0.02
	unusualWeight = 0.004
	unusual       = 2
	lastFew       = 4
	// mostRetryAfter bounds what a backend may ask for.
	mostRetryAfter = time.Minute
	// unknownBatch is taken for a batch where nothing is known of any.
	unknownBatch = 1000
)

// Answered is how a backend has answered a request.
type Answered struct {
	// Points is how many were sent, 0 for a request that is as large as any other of
	// its kind; only requests of about equal size are compared.
	Points int
	Took   time.Duration
	// Status is the HTTP status, 0 when there was no answer at all.
	Status     int
	RetryAfter time.Duration
}

// governor slows one process down for one backend, by what it answers: additive
// increase, multiplicative decrease. It is not safe for concurrent use.
type governor struct {
	// meter is of what is taken to be sent or read.
	meter meter
	// usual are the answers' usual times, by the size of requests; last are those
	// of the last few requests, as multiples of what is usual, and as they were.
	usual  [sizes]average
	last   [lastFew]sample
	latest int

	// rate bounds the points per second, 0 is no bound; peak is what went by before
	// it was cut.
	rate, peak float64
	// free is when the next batch may go, until when none may.
	free, until time.Time
	since       time.Time
	cut         time.Time
	raised      time.Time
	why         string
}

// sizes is the number of classes of requests: by powers of two.
const sizes = 24

type average struct {
	seconds float64
	n       int
}

type sample struct {
	took  time.Duration
	ratio float64
}

// observe takes an answer in.
func (g *governor) observe(now time.Time, a Answered) {
	if a.Status == http.StatusTooManyRequests || a.Status == http.StatusServiceUnavailable {
		g.slowDown(now, a, cutRefused, leastRate, fmt.Sprintf("HTTP %d", a.Status))
		if d := min(a.RetryAfter, mostRetryAfter); d > 0 && now.Add(d).After(g.until) {
			g.until = now.Add(d)
		}
		return
	}
	if a.Status == 0 || a.Status >= http.StatusMultipleChoices {
		return
	}
	if slowest, usual, ok := g.slow(a); ok {
		why := fmt.Sprintf("latency %s, %.1f times the usual %s", round(slowest), slowest.Seconds()/usual.Seconds(), round(usual))
		g.slowDown(now, a, cutSlow, max(leastRate, slowShare*g.peak), why)
	}
}

func round(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// slow takes the time of an answer in, and reports whether the backend has become
// slow: how long the quickest of the last few took, and what is usual.
func (g *governor) slow(a Answered) (took, usual time.Duration, is bool) {
	u := &g.usual[min(bits.Len(uint(max(a.Points, 0))), sizes-1)]
	seconds := a.Took.Seconds()
	switch {
	case u.n < usualAfter:
		u.n++
		u.seconds += (seconds - u.seconds) / float64(u.n)
		return 0, 0, false
	default:
		g.last[g.latest%lastFew] = sample{took: a.Took, ratio: seconds / max(u.seconds, 1e-6)}
		g.latest++
	}
	usual = time.Duration(u.seconds * float64(time.Second))
	weight := usualWeight
	if seconds > unusual*u.seconds {
		weight = unusualWeight
	}
	u.seconds += weight * (seconds - u.seconds)
	if g.latest < lastFew {
		return 0, 0, false
	}
	quickest := g.last[0]
	for _, s := range g.last[1:] {
		if s.ratio < quickest.ratio {
			quickest = s
		}
	}
	if quickest.ratio < slowFactor || a.Took < slowAtLeast || quickest.took < slowAtLeast/2 {
		return 0, 0, false
	}
	return a.Took, usual, true
}

// slowDown cuts the rate.
func (g *governor) slowDown(now time.Time, a Answered, by, least float64, why string) {
	g.raise(now)
	if g.rate == 0 {
		g.since = now
	}
	g.why = why
	if !g.cut.IsZero() && now.Sub(g.cut) < cutEvery && g.rate != 0 {
		return
	}
	was := g.meter.perSecond(now)
	if was == 0 {
		// Nothing has come through yet: as if one batch had been sent every tenth.
		was = max(float64(a.Points), unknownBatch) / burst.Seconds()
	}
	if g.rate != 0 {
		was = min(max(was, least), g.rate)
	} else {
		g.peak = max(was, leastRate)
	}
	g.rate = max(by*was, least)
	g.cut, g.raised = now, now
}

// raise lets the bound rise by the time that has passed, and lifts it in the end.
func (g *governor) raise(now time.Time) {
	if g.rate == 0 || now.Before(g.until) {
		g.raised = now
		return
	}
	if d := now.Sub(g.raised); d > 0 {
		g.rate += raise * max(g.peak, leastRate) * d.Seconds()
		g.raised = now
	}
	if g.rate >= liftAt*g.peak && now.Sub(g.cut) > cutEvery {
		g.rate = 0
	}
}

// wait returns how long a batch of so many points has to wait; when it need not, it
// is taken to be sent.
func (g *governor) wait(now time.Time, points int64) time.Duration {
	if g.meter.began.IsZero() {
		g.meter.began = now
	}
	g.raise(now)
	if d := g.until.Sub(now); d > 0 {
		return d
	}
	if g.rate == 0 {
		g.meter.add(now, float64(points))
		return 0
	}
	if d := g.free.Sub(now); d > 0 {
		return d
	}
	g.meter.add(now, float64(points))
	took := time.Duration(min(float64(points)/g.rate, maxDebt.Seconds()) * float64(time.Second))
	if earliest := now.Add(-burst); g.free.Before(earliest) {
		g.free = earliest
	}
	g.free = g.free.Add(took)
	return 0
}

// maxDebt bounds what one batch, filled before the rate was cut, holds up.
const maxDebt = 5 * time.Second

// most bounds the next batch, 0 is no bound.
func (g *governor) most() int64 {
	if g.rate == 0 {
		return 0
	}
	return max(1, int64(g.rate*burst.Seconds()))
}
