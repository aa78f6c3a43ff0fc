package bus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
)

// flaky is a way to a server that breaks: whatever is on its way then is lost,
// requests as well as answers.
type flaky struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup
}

func newFlaky(t *testing.T, target string) *flaky {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f := &flaky{listener: l, target: strings.TrimPrefix(target, "nats://"), conns: map[net.Conn]struct{}{}}
	f.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.wg.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		f.cut()
		f.wg.Wait()
	})
	return f
}

func (f *flaky) url() string { return "nats://" + f.listener.Addr().String() }

func (f *flaky) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", f.target)
	if err != nil {
		return
	}
	defer server.Close()
	f.mu.Lock()
	f.conns[client], f.conns[server] = struct{}{}, struct{}{}
	f.mu.Unlock()
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
		f.wg.Go(func() {
			_, _ = io.Copy(pair[1], pair[0]) // ends when either breaks
			done <- struct{}{}
		})
	}
	<-done
	f.mu.Lock()
	delete(f.conns, client)
	delete(f.conns, server)
	f.mu.Unlock()
}

// cut breaks every connection.
func (f *flaky) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		_ = c.Close() // it is gone either way
	}
}

// cutAtRandom cuts until ctx ends.
func (f *flaky) cutAtRandom(ctx context.Context) {
	for {
		select {
		case <-time.After(time.Duration(30+rand.IntN(100)) * time.Millisecond):
			f.cut()
		case <-ctx.Done():
			return
		}
	}
}

// While connections break all the time, every call either has its effect once
// or says that it is unknown; with time to try again it has its effect once.
func TestCallsOverABreakingConnection(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	direct, s := bustest.Start(t)
	way := newFlaky(t, s.URL())
	b := bustest.Connect(t, bus.Options{URL: way.url(), Token: s.Token(), Timeout: patience})
	breaking, calm := context.WithCancel(ctx)
	defer calm()
	var cutter, workers sync.WaitGroup
	cutter.Go(func() { way.cutAtRandom(breaking) })

	const rounds = 60
	fail := func(what string, i int, err error) bool {
		if err != nil {
			t.Errorf("%s %d: %v", what, i, err)
		}
		return err != nil
	}
	k := b.Bucket(events.BucketTasks)
	workers.Go(func() { // a chain of compare-and-set never trips over itself
		revision, err := k.Create(ctx, "chain", []byte("0"))
		for i := 1; i <= rounds && !fail("update", i, err); i++ {
			revision, err = k.Update(ctx, "chain", text("%d", i), revision)
		}
		fail("update", rounds, err)
	})
	workers.Go(func() { // nor do creating and deleting
		for i := range rounds {
			revision, err := k.Create(ctx, "now-and-then", text("%d", i))
			if fail("create", i, err) || fail("delete", i, k.Delete(ctx, "now-and-then", revision)) {
				return
			}
		}
	})
	workers.Go(func() { // nor taking and releasing scopes
		for i := range rounds / 2 {
			sequences, err := take(t, b, fmt.Sprint("op-", i), "circle/0", "circle/1")
			if fail("take", i, err) || fail("release", i, b.Scopes().Release(ctx, sequences)) {
				return
			}
		}
	})
	workers.Go(func() { // and what has an id is stored once
		for i := range rounds {
			_, err := b.Log(events.StreamEvents).Append(ctx, events.EventSubject("op", "task"), fmt.Sprint("id-", i), text("%d", i))
			if fail("append", i, err) {
				return
			}
		}
	})
	workers.Go(func() {
		q, err := b.Queue(ctx)
		if fail("queue", 0, err) {
			return
		}
		for i := range rounds {
			if fail("publish", i, q.Publish(ctx, bus.Message{Subject: events.TaskSubject("rebalance", "op", fmt.Sprint(i))})) {
				return
			}
		}
	})
	workers.Go(func() { // a reader misses nothing and sees nothing twice
		next := 0
		for r, err := range b.Log(events.StreamEvents).Tail(ctx, 1, events.OperationEvents("op")) {
			if err != nil || string(r.Data) != fmt.Sprint(next) {
				t.Errorf("tail %d: %q, %v", next, r.Data, err)
				return
			}
			if next++; next == rounds {
				return
			}
		}
	})
	workers.Wait()
	calm()
	cutter.Wait()

	got, err := direct.Bucket(events.BucketTasks).Get(ctx, "chain")
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(rounds), string(got.Value))
	_, err = direct.Bucket(events.BucketTasks).Get(ctx, "now-and-then")
	require.ErrorIs(t, err, bus.ErrNotFound)
	for range direct.Scopes().Open(ctx, "ringmaster.>") {
		t.Fatal("a scope or a command was left behind")
	}
	records, err := direct.Log(events.StreamEvents).Page(ctx, 0, events.AllEvents, bus.MaxPage)
	require.NoError(t, err)
	require.Len(t, records, rounds)
	q, err := direct.Queue(ctx)
	require.NoError(t, err)
	require.EqualValues(t, rounds, depth(t, q))
}

// Workers over breaking connections still get every nudge; some come twice.
func TestQueueOverABreakingConnection(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	direct, s := bustest.Start(t, bus.WithLeaseTTL(leaseTTL))
	way := newFlaky(t, s.URL())
	b := bustest.Connect(t, bus.Options{URL: way.url(), Token: s.Token()})
	publisher, err := direct.Queue(ctx)
	require.NoError(t, err)
	const tasks = 60
	for i := range tasks {
		require.NoError(t, publisher.Publish(ctx, bus.Message{Subject: events.TaskSubject("rebalance", "op", fmt.Sprint(i))}))
	}
	breaking, calm := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { way.cutAtRandom(breaking) })
	q, err := b.Queue(ctx)
	require.NoError(t, err)
	seen := map[string]bool{}
	for len(seen) < tasks {
		n, err := q.Fetch(ctx)
		require.NoError(t, err)
		seen[n.Subject] = true
		if err := n.Ack(ctx); err != nil && !errors.Is(err, bus.ErrUnavailable) {
			require.NoError(t, err)
		}
	}
	calm()
	wg.Wait()
}
