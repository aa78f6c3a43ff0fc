package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
)

// serve answers questions until the returned function is called.
func serve(t *testing.T, b *bus.Bus, answer func([]byte) []byte) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, events.SubjectGrants, answer) }()
	return sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
}

func TestQuestionsAreAnsweredOneAfterTheOther(t *testing.T) {
	t.Parallel()
	b, s := bustest.Start(t)
	other := bustest.Connect(t, bus.Options{Server: s})
	_, err := other.Ask(t.Context(), events.SubjectGrants, nil)
	require.ErrorIs(t, err, bus.ErrNobody)
	require.ErrorIs(t, err, bus.ErrUnavailable)
	at := 0 // without a lock: one after the other
	stop := serve(t, b, func(q []byte) []byte {
		at++
		return append([]byte("re: "), q...)
	})
	require.Eventually(t, func() bool {
		_, err := other.Ask(t.Context(), events.SubjectGrants, []byte("anybody?"))
		return err == nil
	}, patience, time.Millisecond)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			q := fmt.Appendf(nil, "question %d", i)
			a, err := other.Ask(t.Context(), events.SubjectGrants, q)
			if err != nil || !bytes.Equal(a, append([]byte("re: "), q...)) {
				t.Errorf("%s: %q, %v", q, a, err)
			}
		})
	}
	all.Wait()
	stop()
	require.GreaterOrEqual(t, at, 51)
	require.Eventually(t, func() bool {
		_, err = other.Ask(t.Context(), events.SubjectGrants, nil)
		return errors.Is(err, bus.ErrNobody)
	}, patience, time.Millisecond)
}

func TestAQuestionThatIsNotAnsweredIsLost(t *testing.T) {
	t.Parallel()
	b, _ := bustest.Start(t)
	asked := make(chan struct{}, 16)
	stop := serve(t, b, func([]byte) []byte { asked <- struct{}{}; return nil })
	defer stop()
	ctx, cancel := context.WithCancel(t.Context())
	require.Eventually(t, func() bool {
		_, err := b.Ask(ctx, events.SubjectGrants, nil)
		return err != nil && len(asked) > 0
	}, patience, time.Millisecond)
	cancel()
	_, err := b.Ask(ctx, events.SubjectGrants, nil)
	require.ErrorIs(t, err, context.Canceled)
}

// Whoever serves goes on when the server has been restarted.
func TestServingOutlivesAConnection(t *testing.T) {
	t.Parallel()
	b, s := bustest.Start(t)
	stop := serve(t, b, func(q []byte) []byte { return append([]byte{'>'}, q...) })
	defer stop()
	answered := func() bool {
		a, err := b.Ask(t.Context(), events.SubjectGrants, []byte("x"))
		return err == nil && string(a) == ">x"
	}
	require.Eventually(t, answered, patience, time.Millisecond)
	require.NoError(t, s.Restart(t.Context()))
	require.Eventually(t, answered, patience, time.Millisecond)
}
