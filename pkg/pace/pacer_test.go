package pace_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/pace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// center is the process that grants, and the records, in one.
type center struct {
	mu       sync.Mutex
	table    *pace.Table
	limits   operation.Limits
	backends operation.BackendLimits
	revision uint64
	away     error
	asked    int
	read     int
	hints    chan bus.Entry
}

func newCenter() *center {
	return &center{table: pace.NewTable(time.Now().Add(-time.Minute)), revision: 1, hints: make(chan bus.Entry)}
}

func (c *center) Ask(_ context.Context, _ string, q []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if c.away != nil {
		return nil, c.away
	}
	var ask pace.Ask
	if err := json.Unmarshal(q, &ask); err != nil {
		return nil, err
	}
	return json.Marshal(c.table.Ask(time.Now(), &ask, pace.Applied{
		Operation: c.limits, Source: c.backends.Of(ask.Work.Source), Destination: c.backends.Of(ask.Work.Destination),
	}))
}

func (c *center) Operation(context.Context, string) (ledger.Versioned[operation.Operation], error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read++
	return ledger.Versioned[operation.Operation]{Value: operation.Operation{ID: "op", Limits: c.limits}, Revision: c.revision}, nil
}

func (c *center) BackendLimits(context.Context) (operation.BackendLimits, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.backends, nil
}

func (c *center) WatchOperations(ctx context.Context) (<-chan bus.Entry, error) {
	return silence(ctx), nil
}

func (c *center) WatchTopology(ctx context.Context) (<-chan bus.Entry, error) {
	return silence(ctx), nil
}

// silence is a watch that hints at nothing.
func silence(ctx context.Context) <-chan bus.Entry {
	out := make(chan bus.Entry)
	go func() {
		defer close(out)
		<-ctx.Done()
	}()
	return out
}

func (c *center) set(l operation.Limits) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limits = l
	c.revision++
}

func (c *center) leave(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = err
}

func (c *center) questions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

// board is where a task shows its waits.
type board struct {
	mu     sync.Mutex
	now    *operation.Wait
	shown  []operation.Wait
	turned int // how often it changed between a wait and none
	alive  int
}

func (b *board) Alive() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.alive++
}

func (b *board) Wait(w *operation.Wait) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if (w == nil) != (b.now == nil) {
		b.turned++
	}
	b.now = w
	if w != nil {
		b.shown = append(b.shown, *w)
	}
}

func (b *board) current() *operation.Wait {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

// process is a pacer with its book, which is kept up to date until the test ends.
func (c *center) process(t *testing.T) *pace.Pacer {
	t.Helper()
	book := pace.NewBook(c, nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = book.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	n := 0
	return pace.New(pace.Options{Asker: c, Book: book, NewID: func() string { n++; return fmt.Sprintf("%p-%d", book, n) }})
}

func (c *center) record() *operation.Operation {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &operation.Operation{ID: "op", Limits: c.limits}
}

func begin(t *testing.T, c *center, p *pace.Pacer, task string) (*pace.Pass, *board) {
	t.Helper()
	b := &board{}
	pass, err := p.Begin(t.Context(), c.record(), work("op", task), b)
	require.NoError(t, err)
	return pass, b
}

// until passes time.
func until(d time.Duration) { <-time.After(d) }

func TestWithoutALimitNothingIsAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCenter()
		pass, b := begin(t, c, c.process(t), "1")
		began := time.Now()
		for range 1000 {
			require.NoError(t, pass.Take(t.Context(), charge(5000, 1<<20), 5000))
			require.Equal(t, 5000, pass.Points(5000))
			require.Equal(t, 1<<20, pass.Bytes(1<<20))
		}
		require.Zero(t, time.Since(began))
		until(5 * time.Second)
		pass.End()
		require.Zero(t, c.questions())
		require.Empty(t, b.shown)
		require.LessOrEqual(t, c.read, 6, "the record is read once a second")

		var none *pace.Pacer
		pass, err := none.Begin(t.Context(), c.record(), work("op", "1"), b)
		require.NoError(t, err)
		require.NoError(t, pass.Take(t.Context(), charge(1, 1), 1))
		pass.Show("x", "y", "z", began)
		none.Observe("x", pace.Answered{})
		pass.End()
	})
}

func TestManyProcessesStayWithinALimitAndHeedItsChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCenter()
		c.set(pointsLimit(20_000))
		var mu sync.Mutex
		sent := 0
		take := func() int { mu.Lock(); defer mu.Unlock(); n := sent; sent = 0; return n }
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		boards := make([]*board, 8)
		for i := range boards {
			pass, b := begin(t, c, c.process(t), fmt.Sprint(i))
			boards[i] = b
			for range 2 {
				all.Go(func() {
					for {
						n := pass.Points(5000)
						switch err := pass.Take(ctx, charge(int64(n), 0), n); {
						case errors.Is(err, pace.ErrSmaller):
							continue
						case err != nil:
							return
						}
						mu.Lock()
						sent += n
						mu.Unlock()
						until(2 * time.Millisecond)
					}
				})
			}
			t.Cleanup(pass.End)
		}
		until(time.Second)
		take()
		until(10 * time.Second)
		require.InEpsilon(t, 200_000, take(), 0.02)
		for _, b := range boards {
			w := b.current()
			require.NotNil(t, w)
			require.Equal(t, "limit", w.Gate)
			require.Equal(t, "20,000 points/s for the operation", w.Limit)
			require.Regexp(t, `^(19,[5-9]|20,[0-4])\d\d points/s granted to 8 tasks$`, w.Measured)
			require.Equal(t, 1, b.turned, "it is shown once: each time costs a write")
		}
		c.set(pointsLimit(100_000))
		until(1100 * time.Millisecond)
		take()
		until(10 * time.Second)
		require.InEpsilon(t, 1_000_000, take(), 0.02)
		c.set(operation.Limits{})
		until(1100 * time.Millisecond)
		asked := c.questions()
		take()
		until(5 * time.Second)
		require.Greater(t, take(), 10_000_000)
		require.InDelta(t, asked, c.questions(), 16)
		for _, b := range boards {
			require.Nil(t, b.current())
		}
		c.set(pointsLimit(5_000))
		until(1100 * time.Millisecond)
		take()
		until(10 * time.Second)
		require.InEpsilon(t, 50_000, take(), 0.02, "also the batches that were in hand")
		stop()
		all.Wait()
	})
}

func TestWhoGrantsIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCenter()
		c.set(pointsLimit(1_000))
		pass, b := begin(t, c, c.process(t), "1")
		defer pass.End()
		require.NoError(t, pass.Take(t.Context(), charge(100, 0), 1))
		c.leave(bus.ErrNobody)
		done := make(chan error, 1)
		began := time.Now()
		go func() { done <- pass.Take(t.Context(), charge(100, 0), 1) }()
		until(3 * time.Second)
		w := b.current()
		require.NotNil(t, w)
		require.Equal(t, "limit", w.Gate)
		require.Equal(t, "no process grants", w.Measured)
		require.Equal(t, began.UTC(), w.Since)
		b.mu.Lock()
		require.Greater(t, b.alive, 5, "and shows signs of life")
		b.mu.Unlock()
		c.leave(nil)
		require.NoError(t, <-done)
		require.Less(t, time.Since(began), 4*time.Second)

		c.leave(bus.ErrUnavailable)
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { done <- pass.Take(ctx, charge(100, 0), 1) }()
		until(time.Second)
		paused := errors.New("paused")
		cancel(paused)
		require.ErrorIs(t, <-done, paused)

		// Lifted, nobody need grant.
		go func() { done <- pass.Take(t.Context(), charge(100, 0), 1) }()
		until(time.Second)
		c.set(operation.Limits{})
		require.NoError(t, <-done)
	})
}

func TestATaskWaitsForItsSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCenter()
		c.set(slotsLimit(1))
		one, other := c.process(t), c.process(t)
		first, _ := begin(t, c, one, "1")
		waiting := &board{}
		got := make(chan *pace.Pass, 1)
		go func() {
			pass, err := other.Begin(t.Context(), c.record(), work("op", "2"), waiting)
			if err == nil {
				got <- pass
			}
		}()
		until(10 * time.Second) // in which the first sends nothing
		require.Empty(t, got)
		w := waiting.current()
		require.NotNil(t, w)
		require.Equal(t, operation.Wait{Gate: "slots", Backend: "http://a", Measured: "1/1 used", Limit: "1 slot for the operation on this backend", Since: w.Since}, *w)
		require.NoError(t, first.Take(t.Context(), charge(5000, 0), 1), "nothing but slots is limited")
		first.End()
		second := <-got
		until(5 * time.Second)
		require.Nil(t, waiting.current())
		second.End()

		// A pass that begins and is told to stop leaves nothing behind.
		holder, _ := begin(t, c, one, "3")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := other.Begin(ctx, c.record(), work("op", "4"), &board{})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		holder.End()
		last, _ := begin(t, c, one, "5")
		last.End()
	})
}

// A worker that dies without a word frees its slots in a few seconds.
func TestSlotsOfTheDeadAreFree(t *testing.T) {
	t.Parallel()
	table := pace.NewTable(start.Add(-time.Minute))
	by := pace.Applied{Operation: slotsLimit(1)}
	require.True(t, table.Ask(start, &pace.Ask{Work: work("op", "1"), PassID: "dead"}, by).Slots)
	require.False(t, table.Ask(start.Add(2*time.Second), &pace.Ask{Work: work("op", "2"), PassID: "next"}, by).Slots)
	require.True(t, table.Ask(start.Add(4*time.Second), &pace.Ask{Work: work("op", "2"), PassID: "next"}, by).Slots)
}

func TestABatchThatIsTooLargeIsToBeDivided(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCenter()
		pass, _ := begin(t, c, c.process(t), "1")
		defer pass.End()
		require.NoError(t, pass.Take(t.Context(), charge(5000, 1<<20), 5000))
		c.set(pointsLimit(1_000))
		until(1100 * time.Millisecond)
		require.ErrorIs(t, pass.Take(t.Context(), charge(5000, 0), 5000), pace.ErrSmaller)
		require.Equal(t, 100, pass.Points(5000))
		require.NoError(t, pass.Take(t.Context(), charge(100, 0), 100))
		// What has been read cannot be divided: it is waited for.
		began := time.Now()
		require.NoError(t, pass.Take(t.Context(), charge(3000, 0), 1))
		require.NoError(t, pass.Take(t.Context(), charge(100, 0), 100))
		require.GreaterOrEqual(t, time.Since(began), 2900*time.Millisecond)
		require.Less(t, time.Since(began), 3500*time.Millisecond)
	})
}

func TestABackendThatRefusesIsShown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := pace.New(pace.Options{}) // without limits of people
		b := &board{}
		pass, err := p.Begin(t.Context(), &operation.Operation{ID: "op"}, work("op", "1"), b)
		require.NoError(t, err)
		defer pass.End()
		send := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); {
				n := pass.Points(1000)
				require.NoError(t, pass.Take(t.Context(), charge(int64(n), 0), 1))
				until(20 * time.Millisecond)
				p.Observe("http://b", pace.Answered{Points: n, Took: 20 * time.Millisecond, Status: http.StatusNoContent})
			}
		}
		send(3 * time.Second)
		require.Empty(t, b.shown)
		at := time.Now()
		p.Observe("http://b", pace.Answered{Points: 1000, Status: http.StatusServiceUnavailable})
		send(2 * time.Second)
		w := b.current()
		require.NotNil(t, w)
		require.Equal(t, "backoff", w.Gate)
		require.Equal(t, "http://b", w.Backend)
		require.Equal(t, "HTTP 503", w.Measured)
		require.Regexp(t, `^\d\d,\d{3} points/s, rising$`, w.Limit)
		require.Equal(t, at.UTC(), w.Since)
		send(time.Minute)
		require.Nil(t, b.current())
	})
}
