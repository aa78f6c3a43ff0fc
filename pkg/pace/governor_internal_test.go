package pace

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// feed sends batches of a size through a governor for a while, each of which takes as
// long as it says, and returns how many points went by.
type feed struct {
	g     governor
	now   time.Time
	batch int64
}

func (f *feed) run(d time.Duration, answer func(at time.Time) Answered) (points int64) {
	for end := f.now.Add(d); f.now.Before(end); {
		size := f.batch
		if most := f.g.most(); most > 0 {
			size = min(size, most)
		}
		if wait := f.g.wait(f.now, size); wait > 0 {
			f.now = f.now.Add(min(wait, retryMost))
			continue
		}
		a := answer(f.now)
		a.Points = int(size)
		f.now = f.now.Add(max(a.Took, time.Millisecond))
		f.g.observe(f.now, a)
		if a.Status == http.StatusNoContent {
			points += size
		}
	}
	return points
}

func quick(time.Time) Answered {
	return Answered{Took: 50 * time.Millisecond, Status: http.StatusNoContent}
}

func TestABackendThatRefusesGetsHalfAndRisesAgain(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		f := &feed{now: start, batch: 1000}
		require.EqualValues(t, 200_000, f.run(10*time.Second, quick))
		require.Zero(t, f.g.rate, "nothing is bounded without a reason")
		f.g.observe(f.now, Answered{Points: 1000, Status: status})
		require.InEpsilon(t, 10_000, f.g.rate, 0.1)
		require.Equal(t, map[int]string{429: "HTTP 429", 503: "HTTP 503"}[status], f.g.why)
		require.Equal(t, f.now, f.g.since)
		first := f.run(2*time.Second, quick)
		require.InDelta(t, 2*11_000, first, 3_000)
		second := f.run(2*time.Second, quick)
		require.Greater(t, second, first, "additive increase")
		f.run(30*time.Second, quick)
		require.Zero(t, f.g.rate, "lifted when all has gone well for long")
		require.InEpsilon(t, 200_000, f.run(10*time.Second, quick), 0.01)
	}
}

func TestManyRefusalsOfOneMomentAreOneCut(t *testing.T) {
	t.Parallel()
	f := &feed{now: start, batch: 1000}
	f.run(10*time.Second, quick)
	for i := range 20 {
		f.g.observe(f.now.Add(time.Duration(i)*time.Millisecond), Answered{Points: 1000, Status: 503})
	}
	require.Greater(t, f.g.rate, 9_000.0)
	f.g.observe(f.now.Add(2*time.Second), Answered{Points: 1000, Status: 503})
	require.Less(t, f.g.rate, 6_000.0, "a later one is another")
}

func TestRetryAfterIsObeyed(t *testing.T) {
	t.Parallel()
	f := &feed{now: start, batch: 1000}
	f.run(2*time.Second, quick)
	f.g.observe(f.now, Answered{Points: 1000, Status: 429, RetryAfter: 3 * time.Second})
	require.Equal(t, 3*time.Second, f.g.wait(f.now, 1))
	require.Positive(t, f.g.wait(f.now.Add(2999*time.Millisecond), 1))
	require.Zero(t, f.g.wait(f.now.Add(3*time.Second), 1))
	f.g.observe(f.now, Answered{Points: 1000, Status: 429, RetryAfter: 24 * time.Hour})
	require.Equal(t, mostRetryAfter, f.g.wait(f.now, 1))
}

func TestABackendThatBecomesSlowGetsLess(t *testing.T) {
	t.Parallel()
	f := &feed{now: start, batch: 1000}
	f.run(10*time.Second, quick)
	slow := func(time.Time) Answered { return Answered{Took: 700 * time.Millisecond, Status: http.StatusNoContent} }
	f.run(3500*time.Millisecond, slow)
	require.NotZero(t, f.g.rate)
	require.Contains(t, f.g.why, "latency 700ms")
	require.Contains(t, f.g.why, "times the usual")
	f.run(60*time.Second, quick)
	require.Zero(t, f.g.rate)
}

func TestWhatIsNotSlow(t *testing.T) {
	t.Parallel()
	took := func(d time.Duration) func(time.Time) Answered {
		return func(time.Time) Answered { return Answered{Took: d, Status: http.StatusNoContent} }
	}
	// Far longer than usual, and still quick.
	f := &feed{now: start, batch: 1000}
	f.run(10*time.Second, took(2*time.Millisecond))
	f.run(10*time.Second, took(200*time.Millisecond))
	require.Zero(t, f.g.rate)
	// Slow from the beginning.
	f = &feed{now: start, batch: 1000}
	f.run(60*time.Second, took(2*time.Second))
	require.Zero(t, f.g.rate)
	// Now and then.
	f = &feed{now: start, batch: 1000}
	n := 0
	f.run(60*time.Second, func(time.Time) Answered {
		if n++; n%3 == 0 {
			return took(2 * time.Second)(start)
		}
		return quick(start)
	})
	require.Zero(t, f.g.rate)
	// Larger requests take longer.
	f = &feed{now: start, batch: 10}
	f.run(10*time.Second, took(20*time.Millisecond))
	f.batch = 5000
	f.run(10*time.Second, took(900*time.Millisecond))
	require.Zero(t, f.g.rate)
	// No answer is no latency; patience deals with it.
	f.g.observe(f.now, Answered{Points: 10, Took: time.Minute})
	f.g.observe(f.now, Answered{Points: 10, Took: time.Minute, Status: 500})
	require.Zero(t, f.g.rate)
}

// Whatever a backend answers, the rate neither runs away nor starves for ever, and
// once all is well it is lifted.
func TestWhateverIsAnsweredABackendIsLeftAloneInTheEnd(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f := &feed{now: start, batch: rapid.Int64Range(1, 5000).Draw(t, "batch")}
		for range rapid.IntRange(1, 60).Draw(t, "answers") {
			a := Answered{
				Took:   time.Duration(rapid.IntRange(1, 5000).Draw(t, "took")) * time.Millisecond,
				Status: rapid.SampledFrom([]int{0, 204, 204, 204, 204, 429, 500, 503}).Draw(t, "status"),
				Points: rapid.IntRange(0, 5000).Draw(t, "points"),
			}
			if rapid.IntRange(0, 9).Draw(t, "says") == 0 {
				a.RetryAfter = time.Duration(rapid.IntRange(0, 100).Draw(t, "after")) * time.Second
			}
			f.now = f.now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "pause")) * time.Millisecond)
			before := f.g.rate
			f.g.observe(f.now, a)
			if f.g.rate != 0 {
				require.GreaterOrEqual(t, f.g.rate, min(float64(leastRate), max(before, leastRate)))
			}
			require.LessOrEqual(t, f.g.wait(f.now, int64(a.Points)), max(maxDebt, mostRetryAfter))
		}
		f.run(5*time.Minute, quick)
		require.Zero(t, f.g.rate)
	})
}
