package pace_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/operation"
	"ringmaster/pkg/pace"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func pointsLimit(n int64) operation.Limits { return operation.Limits{PointsPerSecond: &n} }

func slotsLimit(n int) operation.Limits { return operation.Limits{SlotsPerBackend: &n} }

func work(op, task string) pace.Work {
	return pace.Work{OperationID: op, TaskID: task, Source: "http://a", Destination: "http://b"}
}

func charge(points, bytes int64) pace.Charge {
	a := pace.Amount{Points: points, Bytes: bytes}
	return pace.Charge{Operation: a, Source: a, Destination: a}
}

// client asks like a pass: for one batch after another, by what it is answered.
type client struct {
	work   pace.Work
	pass   string
	ticket uint64
	batch  int64
	bytes  int64
	next   time.Time
	sent   int64
}

func (c *client) turn(table *pace.Table, now time.Time, by pace.Applied) (granted bool) {
	a := table.Ask(now, &pace.Ask{Work: c.work, PassID: c.pass, Ticket: c.ticket, Charge: charge(c.batch, c.bytes)}, by)
	if !a.Granted {
		c.next = now.Add(max(time.Duration(a.RetryMillis*float64(time.Millisecond)), time.Microsecond))
		return false
	}
	c.sent += c.batch
	c.ticket++
	if a.MaxPoints > 0 {
		c.batch = a.MaxPoints
	}
	c.next = now.Add(time.Millisecond)
	return true
}

// earliest is the client whose turn comes first.
func earliest(clients []*client) *client {
	first := clients[0]
	for _, c := range clients {
		if c.next.Before(first.next) {
			first = c
		}
	}
	return first
}

func newClients(n int, batch int64) []*client {
	clients := make([]*client, n)
	for i := range clients {
		clients[i] = &client{work: work("op", fmt.Sprint(i)), pass: fmt.Sprint("pass-", i), ticket: 1, batch: batch, next: start.Add(time.Duration(i) * time.Microsecond)}
	}
	return clients
}

// However many ask, and whatever the batches they have in hand, what is granted
// together is the limit, exactly on the average, and evenly.
func TestManyTogetherGetTheLimitAndNoMore(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Int64Range(50, 2_000_000).Draw(t, "limit")
		n := rapid.IntRange(1, 40).Draw(t, "tasks")
		batch := rapid.Int64Range(1, 5000).Draw(t, "first batch")
		table := pace.NewTable(start)
		clients := newClients(n, batch)
		by := pace.Applied{Operation: pointsLimit(limit)}
		end := start.Add(10 * time.Second)
		var sent int64
		for asked := 0; ; asked++ {
			c := earliest(clients)
			if !c.next.Before(end) {
				break
			}
			require.Less(t, asked, 2_000_000, "nobody asks for ever")
			size, now := c.batch, c.next
			if c.turn(table, now, by) {
				sent += size
				most := float64(limit)*(now.Sub(start).Seconds()+0.1) + float64(size) + 1
				require.LessOrEqual(t, float64(sent), most, "after %s", now.Sub(start))
			}
		}
		// Whoever is busy gets all of it, but for the batches that wait.
		least := 10 * float64(limit) * 0.99
		if n > 1 || limit < 1_000_000 {
			require.GreaterOrEqual(t, float64(sent), least-float64(batch)*float64(n)-float64(limit)/10)
		}
	})
}

func TestOneLimitOfABackendIsForAllOperations(t *testing.T) {
	t.Parallel()
	table := pace.NewTable(start)
	clients := newClients(6, 5000)
	for i, c := range clients {
		c.work.OperationID = fmt.Sprint("op-", i%3)
	}
	by := pace.Applied{Destination: pointsLimit(30_000), Operation: pointsLimit(1_000_000)}
	sent := run(table, clients, start.Add(10*time.Second), by)
	require.InEpsilon(t, 300_000, sent, 0.02)
	for _, c := range clients {
		require.InEpsilon(t, 50_000, c.sent, 0.25, "the line is fair")
	}
}

func run(table *pace.Table, clients []*client, end time.Time, by pace.Applied) int64 {
	var before, after int64
	for _, c := range clients {
		before += c.sent
	}
	for c := earliest(clients); c.next.Before(end); c = earliest(clients) {
		c.turn(table, c.next, by)
	}
	for _, c := range clients {
		after += c.sent
	}
	return after - before
}

func TestAChangedLimitHoldsFromTheNextBatchOn(t *testing.T) {
	t.Parallel()
	table := pace.NewTable(start)
	clients := newClients(8, 5000)
	at := start
	for _, limit := range []int64{50_000, 500_000, 1_000, 20_000} {
		at = at.Add(time.Second) // in which the change settles
		for _, c := range clients {
			a := table.Ask(at.Add(-time.Second), &pace.Ask{Work: c.work, PassID: c.pass, Drop: c.ticket}, pace.Applied{Operation: pointsLimit(limit)})
			c.batch, c.ticket, c.next = a.MaxPoints, c.ticket+1, at.Add(-time.Second)
		}
		run(table, clients, at, pace.Applied{Operation: pointsLimit(limit)})
		at = at.Add(10 * time.Second)
		sent := run(table, clients, at, pace.Applied{Operation: pointsLimit(limit)})
		require.InEpsilon(t, 10*limit, sent, 0.03, "limit %d", limit)
	}
	// Lifted: whoever asks is admitted at once, also those who wait.
	waiting := newClients(8, 5000)
	for _, c := range waiting {
		c.next, c.pass = at, c.pass+"-new"
		c.turn(table, at, pace.Applied{Operation: pointsLimit(1)})
	}
	for _, c := range waiting {
		require.True(t, c.turn(table, at, pace.Applied{}) || c.sent > 0)
	}
}

// What nobody could use for a moment is made good, slowly: over seconds the limit is
// reached, and never is it exceeded by much.
func TestAStallIsMadeGood(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		table := pace.NewTable(start)
		limit := rapid.Int64Range(1_000, 500_000).Draw(t, "limit")
		by := pace.Applied{Operation: pointsLimit(limit)}
		clients := newClients(8, 1)
		at := start.Add(time.Second)
		run(table, clients, at, by)
		began, sent := at, int64(0)
		for range 10 {
			stall := time.Duration(rapid.IntRange(0, 250).Draw(t, "stall")) * time.Millisecond
			for _, c := range clients {
				c.next = later(c.next, at.Add(stall))
			}
			at = at.Add(6 * time.Second)
			sent += run(table, clients, at, by)
			most := float64(limit)*(at.Sub(began).Seconds()+0.35) + float64(limit)/10
			require.LessOrEqual(t, float64(sent), most)
		}
		require.GreaterOrEqual(t, float64(sent), float64(limit)*at.Sub(began).Seconds()*0.985)
	})
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func TestBytesAreALimitToo(t *testing.T) {
	t.Parallel()
	table := pace.NewTable(start)
	limit := int64(1 << 20)
	clients := newClients(4, 100)
	for _, c := range clients {
		c.bytes = 10_000
	}
	by := pace.Applied{Operation: operation.Limits{BytesPerSecond: &limit}}
	sent := run(table, clients, start.Add(10*time.Second), by)
	require.InEpsilon(t, 10*limit, sent/100*10_000, 0.03)
	a := table.Ask(start.Add(11*time.Second), &pace.Ask{Work: work("op", "x"), PassID: "x"}, by)
	require.Positive(t, a.MaxBytes)
	require.LessOrEqual(t, a.MaxBytes, limit/10)
	require.Zero(t, a.MaxPoints)
}

func TestABatchHoldsATenthOfASecondOfItsShare(t *testing.T) {
	t.Parallel()
	table := pace.NewTable(start)
	by := pace.Applied{Operation: pointsLimit(50_000), Destination: pointsLimit(20_000)}
	a := table.Ask(start, &pace.Ask{Work: work("op", "1"), PassID: "1"}, by)
	require.True(t, a.Granted)
	require.EqualValues(t, 2_000, a.MaxPoints, "of the tighter limit")
	a = table.Ask(start, &pace.Ask{Work: work("op", "2"), PassID: "2"}, by)
	require.EqualValues(t, 1_000, a.MaxPoints)
	a = table.Ask(start.Add(2*time.Second), &pace.Ask{Work: work("op", "2"), PassID: "2"}, by)
	require.EqualValues(t, 2_000, a.MaxPoints, "the other has not asked for a while")
}

func TestATicketIsGrantedOnce(t *testing.T) {
	t.Parallel()
	table := pace.NewTable(start)
	by := pace.Applied{Operation: pointsLimit(1_000)}
	ask := pace.Ask{Work: work("op", "1"), PassID: "1", Ticket: 1, Charge: charge(100, 0)}
	require.True(t, table.Ask(start, &ask, by).Granted)
	require.True(t, table.Ask(start, &ask, by).Granted, "the answer was lost")
	ask.Ticket = 2
	a := table.Ask(start, &ask, by)
	require.False(t, a.Granted)
	require.InDelta(t, 100, a.RetryMillis, 1, "and costs once")
	require.Equal(t, "points", string(a.Why.Unit))
	require.EqualValues(t, 1_000, a.Why.Limit)
	require.True(t, a.Why.OfOperation)
	require.True(t, table.Ask(start.Add(101*time.Millisecond), &ask, by).Granted)
}

func TestSlotsGoToTheOldestAndAreFreeWhenTheirPassIsGone(t *testing.T) {
	t.Parallel()
	table := pace.NewTable(start.Add(-time.Minute))
	by := pace.Applied{Operation: slotsLimit(2)}
	ask := func(at time.Time, pass string) pace.Answer {
		return table.Ask(at, &pace.Ask{Work: work("op", pass), PassID: pass}, by)
	}
	require.True(t, ask(start, "1").Slots)
	require.True(t, ask(start, "2").Slots)
	third := ask(start, "3")
	require.False(t, third.Slots)
	require.Equal(t, pace.Why{Backend: "http://a", OfOperation: true, Unit: "slots", Limit: 2, Used: 2}, *third.Why)
	require.False(t, ask(start, "4").Slots)
	table.Ask(start, &pace.Ask{Work: work("op", "1"), PassID: "1", Left: true}, by)
	require.False(t, ask(start, "4").Slots, "the third came first")
	require.True(t, ask(start, "3").Slots)
	// The second is never heard of again.
	require.True(t, ask(start.Add(2*time.Second), "3").Slots)
	require.False(t, ask(start.Add(2*time.Second), "4").Slots)
	require.True(t, ask(start.Add(4*time.Second), "4").Slots)
	// Fewer: the newest waits, and goes on when there are more again.
	require.True(t, ask(start.Add(4*time.Second), "3").Slots)
	by.Operation = slotsLimit(1)
	require.False(t, ask(start.Add(4*time.Second), "4").Slots)
	require.True(t, ask(start.Add(4*time.Second), "3").Slots)
	by.Operation = operation.Limits{}
	require.True(t, ask(start.Add(4*time.Second), "4").Slots)
}

func TestSlotsOfABackendAreForAllOperations(t *testing.T) {
	t.Parallel()
	table := pace.NewTable(start.Add(-time.Minute))
	by := pace.Applied{Destination: slotsLimit(1)}
	require.True(t, table.Ask(start, &pace.Ask{Work: work("op-1", "1"), PassID: "1"}, by).Slots)
	a := table.Ask(start, &pace.Ask{Work: work("op-2", "1"), PassID: "2"}, by)
	require.False(t, a.Slots)
	require.Equal(t, "http://b", a.Why.Backend)
	require.False(t, a.Why.OfOperation)
	other := work("op-2", "2")
	other.Destination = "http://c"
	require.True(t, table.Ask(start, &pace.Ask{Work: other, PassID: "3"}, pace.Applied{}).Slots)
}

// Who grants now does not know whom the one before has given slots; those say so.
func TestANewTableGivesSlotsFirstToThoseWhoHaveThem(t *testing.T) {
	t.Parallel()
	table := pace.NewTable(start)
	by := pace.Applied{Operation: slotsLimit(1)}
	fresh := pace.Ask{Work: work("op", "1"), PassID: "new"}
	had := pace.Ask{Work: work("op", "2"), PassID: "had", Held: true}
	require.False(t, table.Ask(start, &fresh, by).Slots)
	require.True(t, table.Ask(start.Add(time.Second), &had, by).Slots)
	for s := range 10 {
		at := start.Add(time.Second + time.Duration(s)*time.Second)
		require.True(t, table.Ask(at, &had, by).Slots)
		require.False(t, table.Ask(at, &fresh, by).Slots)
	}
	had.Left = true
	at := start.Add(11 * time.Second)
	table.Ask(at, &had, by)
	require.True(t, table.Ask(at, &fresh, by).Slots)
}

// Nothing that is ever asked makes a limit give more than it may, or slots to more.
func TestWhateverIsAskedTheLimitsHold(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		table := pace.NewTable(start)
		now := start.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "age")) * time.Millisecond)
		rate, most := rapid.Int64Range(1, 100_000).Draw(t, "rate"), rapid.IntRange(1, 4).Draw(t, "slots")
		limits := pointsLimit(rate)
		limits.SlotsPerBackend = &most
		by := pace.Applied{Operation: limits}
		began, granted, largest := now, 0.0, 0.0
		seen := map[string]time.Time{}
		tickets := map[string]bool{}
		for range rapid.IntRange(1, 200).Draw(t, "questions") {
			now = now.Add(time.Duration(rapid.IntRange(0, 1500).Draw(t, "pause")) * time.Millisecond)
			pass := fmt.Sprint(rapid.IntRange(0, 7).Draw(t, "pass"))
			q := pace.Ask{Work: work("op", pass), PassID: pass, Ticket: rapid.Uint64Range(0, 6).Draw(t, "ticket"), Left: rapid.IntRange(0, 9).Draw(t, "left") == 0}
			q.Charge = charge(rapid.Int64Range(0, 5000).Draw(t, "points"), 0)
			a := table.Ask(now, &q, by)
			delete(seen, pass)
			if q.Left {
				continue
			}
			id := fmt.Sprint(pass, "/", q.Ticket)
			if a.Granted && q.Ticket != 0 && !tickets[id] {
				tickets[id] = true
				granted += float64(q.Charge.Operation.Points)
				largest = max(largest, float64(q.Charge.Operation.Points))
			}
			if a.Slots {
				seen[pass] = now
			}
			active := 0
			for _, at := range seen {
				if now.Sub(at) <= 2*time.Second {
					active++
				}
			}
			require.LessOrEqual(t, active, most)
			require.False(t, math.IsNaN(a.RetryMillis) || math.IsInf(a.RetryMillis, 0))
		}
		require.LessOrEqual(t, granted, float64(rate)*(now.Sub(began).Seconds()+0.1)+largest*8)
	})
}
