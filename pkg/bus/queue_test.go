package bus_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
)

// queue opens the queue and empties it when the test is over, since all tests
// share its one consumer.
func queue(t *testing.T, b *bus.Bus) *bus.Queue {
	t.Helper()
	q, err := b.Queue(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, q.PurgeOperation(ctx, unique(t)))
	})
	return q
}

func nudge(t *testing.T, task string) bus.Message {
	return bus.Message{Subject: events.TaskSubject("rebalance", unique(t), task), Data: []byte(task)}
}

func fetch(t *testing.T, q *bus.Queue) *bus.Nudge {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n, err := q.Fetch(ctx)
	require.NoError(t, err)
	return n
}

func depth(t *testing.T, q *bus.Queue) uint64 {
	t.Helper()
	n, err := q.Depth(t.Context())
	require.NoError(t, err)
	return n
}

func testQueuePublishTwice(t *testing.T, e env) {
	ctx := t.Context()
	here, there := queue(t, e.here), queue(t, e.there)
	for range 3 {
		require.NoError(t, here.Publish(ctx, nudge(t, "1")))
		require.NoError(t, there.Publish(ctx, nudge(t, "1")))
	}
	require.EqualValues(t, 1, depth(t, here))
	n := fetch(t, there)
	require.NoError(t, here.Publish(ctx, nudge(t, "1")), "also while a worker has it")
	require.EqualValues(t, 1, depth(t, here))
	require.NoError(t, n.Ack(ctx))
	eventually(t, func() bool { return depth(t, here) == 0 }) // a little after the acknowledgement
	require.NoError(t, here.Publish(ctx, nudge(t, "1")), "and it can come again")
	require.NoError(t, fetch(t, here).Ack(ctx))
}

func testQueueAcknowledge(t *testing.T, e env) {
	ctx := t.Context()
	q := queue(t, e.here)
	require.NoError(t, q.Publish(ctx, nudge(t, "1")))
	n := fetch(t, q)
	require.Equal(t, nudge(t, "1").Subject, n.Subject)
	require.Equal(t, "1", string(n.Data))
	require.EqualValues(t, 1, n.Deliveries)
	kind, operation, task, ok := events.ParseTaskSubject(n.Subject)
	require.True(t, ok)
	require.Equal(t, []string{"rebalance", unique(t), "1"}, []string{kind, operation, task})
	require.NoError(t, n.Ack(ctx))
	eventually(t, func() bool { return depth(t, q) == 0 })
}

// What a silent worker holds goes to another one; what a working one holds
// does not.
func testQueueComesBack(t *testing.T, e env) {
	ctx := t.Context()
	here, there := queue(t, e.here), queue(t, e.there)
	require.NoError(t, here.Publish(ctx, nudge(t, "1")))
	first := fetch(t, here)
	start := time.Now()

	working, cancel := context.WithTimeout(ctx, 2*leaseTTL)
	defer cancel()
	beat := time.NewTicker(leaseTTL / 4)
	defer beat.Stop()
	go func() {
		for {
			select {
			case <-beat.C:
				if err := first.Working(); err != nil {
					t.Error(err)
				}
			case <-working.Done():
				return
			}
		}
	}()
	second := fetch(t, there)
	require.Greater(t, time.Since(start), 2*leaseTTL)
	require.EqualValues(t, 2, second.Deliveries)
	require.NoError(t, second.Ack(ctx))
}

func testQueueLater(t *testing.T, e env) {
	ctx := t.Context()
	q := queue(t, e.here)
	require.NoError(t, q.Publish(ctx, nudge(t, "1")))
	start := time.Now()
	require.NoError(t, fetch(t, q).Later(leaseTTL/2))
	again := fetch(t, q)
	require.GreaterOrEqual(t, time.Since(start), leaseTTL/2)
	require.EqualValues(t, 2, again.Deliveries)
	require.NoError(t, again.Later(0), "also at once")
	require.NoError(t, fetch(t, q).Ack(ctx))
}

func testQueueReject(t *testing.T, e env) {
	ctx := t.Context()
	q := queue(t, e.here)
	require.NoError(t, q.Publish(ctx, nudge(t, "1")))
	require.NoError(t, fetch(t, q).Reject("cannot be read"))
	eventually(t, func() bool { return depth(t, q) == 0 })
}

// Several workers with a request open each share the nudges.
func testQueueEachOnce(t *testing.T, e env) {
	ctx := t.Context()
	here, there := queue(t, e.here), queue(t, e.there)
	const tasks, workers = 60, 4
	fetched := make(chan string, tasks)
	working, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i := range workers {
		q := []*bus.Queue{here, there}[i%2]
		wg.Go(func() {
			for {
				n, err := q.Fetch(working)
				if err != nil {
					return
				}
				if err := n.Ack(ctx); err != nil {
					t.Error(err)
				}
				fetched <- string(n.Data)
			}
		})
	}
	for i := range tasks {
		require.NoError(t, here.Publish(ctx, nudge(t, fmt.Sprint(i))))
	}
	seen := map[string]bool{}
	for range tasks {
		select {
		case task := <-fetched:
			require.False(t, seen[task], "task %s came twice", task)
			seen[task] = true
		case <-time.After(patience):
			t.Fatalf("%d of %d", len(seen), tasks)
		}
	}
	stop()
	wg.Wait()
}

func testQueuePurge(t *testing.T, e env) {
	ctx := t.Context()
	q := queue(t, e.here)
	for i := range 5 {
		require.NoError(t, q.Publish(ctx, nudge(t, fmt.Sprint(i))))
	}
	other := bus.Message{Subject: events.TaskSubject("rebalance", unique(t)+"-other", "1")}
	require.NoError(t, q.Publish(ctx, other))
	require.NoError(t, q.PurgeOperation(ctx, unique(t)))
	require.EqualValues(t, 1, depth(t, q))
	for { // a replica that is behind may still give what is purged
		n := fetch(t, q)
		require.NoError(t, n.Ack(ctx))
		if n.Subject == other.Subject {
			return
		}
	}
}

func testQueueFetchEnds(t *testing.T, e env) {
	q := queue(t, e.here)
	cause := fmt.Errorf("draining")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() {
		_, err := q.Fetch(ctx)
		done <- err
	}()
	cancel(cause)
	require.ErrorIs(t, <-done, cause)
	short, cancelShort := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancelShort()
	_, err := q.Fetch(short)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// What other operations have in the queue comes back to the workers whatever is
// removed meanwhile.
func TestRemovingAnOperationDisturbsNoOther(t *testing.T) {
	t.Parallel()
	const operations, tasks = 40, 5
	b, _ := bustest.Start(t, bus.WithLeaseTTL(time.Second))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	q, err := b.Queue(ctx)
	require.NoError(t, err)
	name := func(operation int) string { return fmt.Sprintf("operation-%02d", operation) }
	subject := func(operation, task int) string {
		return events.TaskSubject("rebalance", name(operation), fmt.Sprint(task))
	}
	var mu sync.Mutex
	all, deliveries, done := 0, map[string]int{}, map[string]bool{}
	// Workers give a nudge back, at once or for later, or fall silent about it,
	// before they acknowledge it. Now and then an operation of odd number ends.
	work := func(n *bus.Nudge) {
		mu.Lock()
		count, seen := all, deliveries[n.Subject]
		all++
		deliveries[n.Subject]++
		mu.Unlock()
		switch turn := (count + seen) % 4; {
		case seen > 2 || turn == 3:
			if n.Ack(ctx) == nil {
				mu.Lock()
				done[n.Subject] = true
				mu.Unlock()
			}
		case turn == 2: // silent
		default:
			_ = n.Later(time.Duration(turn) * 300 * time.Millisecond) // it comes back either way
		}
		if count%4 == 0 {
			if err := q.PurgeOperation(ctx, name(count/4*2%operations+1)); err != nil {
				t.Error(err)
			}
		}
	}
	var workers sync.WaitGroup
	working, stop := context.WithCancel(ctx)
	for range 10 {
		workers.Go(func() {
			for {
				n, err := q.Fetch(working)
				if err != nil {
					return
				}
				work(n)
			}
		})
	}
	var publishers sync.WaitGroup
	for operation := range operations {
		publishers.Go(func() {
			for task := range tasks {
				if err := q.Publish(ctx, bus.Message{Subject: subject(operation, task), Data: []byte("x")}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	publishers.Wait()
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		for operation := 0; operation < operations; operation += 2 {
			for task := range tasks {
				if !done[subject(operation, task)] {
					return false
				}
			}
		}
		return true
	}, patience, 20*time.Millisecond, "every nudge that was not removed is delivered until it is acknowledged")
	stop()
	workers.Wait()
}
