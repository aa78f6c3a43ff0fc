package integration_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/integration/harness"
	"ringmaster/pkg/bus"
)

// connectNATS connects as the user api, several times.
func connectNATS(t *testing.T, n *harness.NATS, connections int) (all []*bus.Bus) {
	t.Helper()
	for i := range connections {
		b, err := n.Connect(bounded(t), fmt.Sprint(t.Name(), i))
		require.NoError(t, err)
		t.Cleanup(b.Close)
		all = append(all, b)
	}
	return all
}

// killLeader kills the server that leads a stream, lets others lead, and starts it
// again.
func killLeader(t *testing.T, n *harness.NATS, stream string) {
	t.Helper()
	leader, err := n.Leader(bounded(t), stream)
	require.NoError(t, err)
	require.GreaterOrEqual(t, leader, 0, stream)
	n.Kill(leader)
	require.True(t, waitFor(t, func() bool {
		next, err := n.Leader(bounded(t), stream)
		return err == nil && next >= 0 && next != leader
	}), "nobody leads %s", stream)
	require.NoError(t, n.Start(leader))
	require.NoError(t, n.AwaitReady(bounded(t)))
}

// Locks, records, nudges and logs are what they are on one server while the servers
// that lead them are killed: locks are taken whole or not at all and by one only, a
// record is changed once by each who is told so, a nudge comes until it is
// acknowledged, and what was appended is there once.
func TestPromisesOfTheBusOutliveKilledLeaders(t *testing.T) {
	t.Parallel()
	n := startNATS(t)
	b := connectNATS(t, n, 3)
	require.NoError(t, b[0].Apply(bounded(t), 0))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()

	// Pairs of operations want overlapping scopes; exactly one of each gets them.
	var pairs atomic.Int64
	work.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if err := race(context.WithoutCancel(ctx), b[1], b[2], i); err != nil {
				t.Errorf("pair %d: %v", i, err)
				return
			}
			pairs.Add(1)
		}
	})
	// Two count in one record.
	var counted [2]atomic.Int64
	bucket := b[0].Bucket(events.BucketTasks)
	_, err := bucket.Create(bounded(t), "counter", []byte("0"))
	require.NoError(t, err)
	for i := range counted {
		work.Go(func() {
			for ctx.Err() == nil {
				if err := countUp(context.WithoutCancel(ctx), b[1+i].Bucket(events.BucketTasks)); err != nil {
					t.Errorf("counting: %v", err)
					return
				}
				counted[i].Add(1)
			}
		})
	}
	// One appends, and reads back at another.
	var appended atomic.Int64
	work.Go(func() {
		for ctx.Err() == nil {
			next := appended.Load()
			if err := appendAndRead(context.WithoutCancel(ctx), b[1], b[2], int(next)); err != nil {
				t.Errorf("record %d: %v", next, err)
				return
			}
			appended.Add(1)
		}
	})
	// One nudges, another acknowledges.
	var nudged atomic.Int64
	seen := map[string]bool{}
	work.Go(func() {
		for ctx.Err() == nil {
			subject := events.TaskSubject("rebalance", "op", fmt.Sprint(nudged.Load()))
			q, err := b[1].Queue(ctx)
			if err == nil {
				err = q.Publish(context.WithoutCancel(ctx), bus.Message{Subject: subject, Data: []byte(subject)})
			}
			if err == nil {
				nudged.Add(1)
			} else if ctx.Err() == nil && !errors.Is(err, bus.ErrUnavailable) {
				t.Errorf("nudging: %v", err)
				return
			}
		}
	})
	fetched := make(chan struct{})
	fetching, stopFetching := context.WithCancel(context.Background())
	defer stopFetching()
	go func() {
		defer close(fetched)
		q, err := b[2].Queue(fetching)
		for err == nil {
			var nudge *bus.Nudge
			if nudge, err = q.Fetch(fetching); err == nil {
				seen[nudge.Subject] = true
				_ = nudge.Ack(fetching) // else it comes again
			}
		}
	}()

	killed := []string{events.StreamCommands, "KV_" + events.BucketTasks, events.StreamTasks}
	for _, stream := range killed {
		killLeader(t, n, stream)
		before := []int64{pairs.Load(), counted[0].Load(), appended.Load(), nudged.Load()}
		require.True(t, waitFor(t, func() bool {
			return t.Failed() || pairs.Load() > before[0] && counted[0].Load() > before[1] && appended.Load() > before[2] && nudged.Load() > before[3]
		}), "something does not go on after the leader of %s was killed", stream)
	}
	cancel()
	work.Wait()
	require.False(t, t.Failed())
	e, err := bucket.Get(bounded(t), "counter")
	require.NoError(t, err)
	counter, err := strconv.ParseInt(string(e.Value), 10, 64)
	require.NoError(t, err)
	sum := counted[0].Load() + counted[1].Load()
	require.GreaterOrEqual(t, counter, sum, "what was acknowledged is there")
	// Whose answer was lost with a leader, and who finds that somebody has written since,
	// can't know of a count without a name that it was stored; see Bucket.Update.
	require.LessOrEqual(t, counter, sum+int64(len(counted)*len(killed)))
	q, err := b[0].Queue(bounded(t))
	require.NoError(t, err)
	require.True(t, waitFor(t, func() bool {
		depth, err := q.Depth(bounded(t))
		return err == nil && depth == 0
	}), "nudges are left over")
	stopFetching()
	<-fetched
	for i := range nudged.Load() {
		require.Contains(t, seen, events.TaskSubject("rebalance", "op", fmt.Sprint(i)))
	}
	t.Logf("%d pairs, %d and %d counted, %d appended, %d nudged", pairs.Load(), counted[0].Load(), counted[1].Load(), appended.Load(), nudged.Load())
}

// race has two operations take scopes of which they share one, and gives them back.
func race(ctx context.Context, one, other *bus.Bus, i int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	type outcome struct {
		bus       *bus.Bus
		operation string
		held      []uint64
		err       error
	}
	results := make(chan outcome, 2)
	for k, b := range []*bus.Bus{one, other} {
		go func() {
			o := outcome{bus: b, operation: fmt.Sprintf("op-%d-%d", i, k)}
			scopes := []string{fmt.Sprintf("circle/%d", i), fmt.Sprintf("index/%d/%d", i, k)}
			for {
				o.held, o.err = b.Scopes().Take(ctx, o.operation, bus.Message{Subject: events.CommandSubject("kind", o.operation)}, scopes)
				if !errors.Is(o.err, bus.ErrUnavailable) || ctx.Err() != nil {
					break // what is not known is asked for again, as a submission is
				}
			}
			results <- o
		}()
	}
	won := 0
	for range 2 {
		o := <-results
		switch {
		case o.err == nil && len(o.held) == 3:
			won++
			defer func() { _ = o.bus.Scopes().Release(ctx, o.held) }() // of no further use
		case errors.Is(o.err, bus.ErrScopeHeld):
			held, err := o.bus.Scopes().HeldBy(ctx, o.operation)
			if err != nil {
				return err
			}
			if len(held) > 0 {
				return fmt.Errorf("%s was refused and holds %v", o.operation, held)
			}
		default:
			return fmt.Errorf("%s has %v: %w", o.operation, o.held, o.err)
		}
	}
	if won != 1 {
		return fmt.Errorf("%d have the scope", won)
	}
	return nil
}

// countUp adds one to the record, whoever else does.
func countUp(ctx context.Context, k *bus.Bucket) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		e, err := k.Get(ctx, "counter")
		if err == nil {
			var was int
			if was, err = strconv.Atoi(string(e.Value)); err != nil {
				return err
			}
			_, err = k.Update(ctx, "counter", fmt.Append(nil, was+1), e.Revision)
		}
		if err == nil || !errors.Is(err, bus.ErrConflict) || ctx.Err() != nil {
			return err
		}
	}
}

// appendAndRead appends a record through one connection and finds it through another.
func appendAndRead(ctx context.Context, writer, reader *bus.Bus, i int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	subject := events.AuditSubject("op")
	sequence, err := writer.Log(events.StreamAudit).Append(ctx, subject, "id-"+fmt.Sprint(i), fmt.Append(nil, i))
	if err != nil {
		return err
	}
	page, err := reader.Log(events.StreamAudit).Page(ctx, sequence, subject, 2)
	if err != nil {
		return err
	}
	if len(page) != 1 || string(page[0].Data) != fmt.Sprint(i) {
		return fmt.Errorf("from %d on there are %v", sequence, page)
	}
	all, err := reader.Log(events.StreamAudit).Page(ctx, max(sequence, 5)-5, subject, bus.MaxPage)
	if err != nil {
		return err
	}
	for k, r := range all {
		if want := fmt.Sprint(i - len(all) + 1 + k); string(r.Data) != want {
			return fmt.Errorf("record %d is %s, want %s", r.Sequence, r.Data, want)
		}
	}
	return nil
}

// What a server was sent before it was stopped, and gave no answer to, is not stored
// behind what was appended when others had taken over: a hint that is replayed late
// would turn back what was written over it.
func TestWhatAStoppedServerWasSentIsNotAppendedLate(t *testing.T) {
	t.Parallel()
	n := startNATS(t)
	through, err := bus.Connect(bounded(t), bus.Options{URL: n.URLs("api", n.Line(0).Address()), TLS: n.TLS, Name: "through"})
	require.NoError(t, err)
	t.Cleanup(through.Close)
	other := connectNATS(t, n, 1)[0]
	require.NoError(t, through.Apply(bounded(t), 0))
	const backend = "http://a:8086"
	late, err := through.Hints(bounded(t), backend, 1<<20)
	require.NoError(t, err)
	hints, err := other.Hints(bounded(t), backend, 1<<20)
	require.NoError(t, err)
	require.NoError(t, late.Append(bounded(t), [][]byte{[]byte("first")}))
	for round := range 3 {
		old, next := fmt.Sprint("old ", round), fmt.Sprint("new ", round)
		require.NoError(t, n.Pause(0))
		brief, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		require.Error(t, late.Append(brief, [][]byte{[]byte(old)}))
		cancel()
		// Whoever wrote it is told so, and writes something newer.
		require.True(t, waitFor(t, func() bool {
			brief, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			return hints.Append(brief, [][]byte{[]byte(next)}) == nil
		}))
		require.NoError(t, n.Resume(0))
		require.NoError(t, n.AwaitReady(bounded(t)))
		// The server has gone on when it answers what it was asked later.
		require.True(t, waitFor(t, func() bool {
			brief, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			return late.Append(brief, [][]byte{[]byte("mark")}) == nil
		}))
		records, err := hints.Read(bounded(t), 0, 100)
		require.NoError(t, err)
		seen := false
		for _, r := range records {
			seen = seen || string(r.Data) == next
			require.False(t, seen && string(r.Data) == old, "%s was stored behind %s", old, next)
		}
		require.True(t, seen)
	}
}
