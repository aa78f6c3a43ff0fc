package ledger

import (
	"context"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/bus"
)

// Events are stored once and in their order, however many add and flush at once, and
// what was added before a flush is stored after it.
func TestOutbox(t *testing.T) {
	t.Parallel()
	const writers, each = 8, 2000 // more than it has room for
	var mu sync.Mutex
	next := map[string]int{}
	stored := 0
	o := newOutbox(func(messages []bus.Message) {
		mu.Lock()
		defer mu.Unlock()
		for _, m := range messages {
			if n, err := strconv.Atoi(m.ID); err != nil || n != next[m.Subject] {
				t.Errorf("%s has %s, not %d", m.Subject, m.ID, next[m.Subject])
			}
			next[m.Subject]++
			stored++
		}
		if len(messages) > outboxBound {
			t.Errorf("%d events were kept", len(messages))
		}
	})
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				if err := o.add(t.Context(), bus.Message{Subject: strconv.Itoa(w), ID: strconv.Itoa(i)}); err != nil {
					t.Error(err)
				}
				if i%500 != 0 {
					continue
				}
				if err := o.flush(t.Context()); err != nil {
					t.Error(err)
				}
				mu.Lock()
				if next[strconv.Itoa(w)] != i+1 {
					t.Errorf("%d of %d are stored after a flush", next[strconv.Itoa(w)], i+1)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	require.NoError(t, o.flush(t.Context()))
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, writers*each, stored)
}

// Nobody waits for room longer than he wants to.
func TestOutboxWithoutRoom(t *testing.T) {
	t.Parallel()
	open, began := make(chan struct{}), make(chan struct{}, 100)
	o := newOutbox(func([]bus.Message) {
		began <- struct{}{}
		<-open
	})
	require.NoError(t, o.add(t.Context(), bus.Message{}))
	<-began
	for range outboxBound {
		require.NoError(t, o.add(t.Context(), bus.Message{}))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, o.add(ctx, bus.Message{}), context.Canceled)
	require.ErrorIs(t, o.flush(ctx), context.Canceled)
	close(open)
	require.NoError(t, o.flush(t.Context()))
}
