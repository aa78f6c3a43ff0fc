package patience_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/patience"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const server = "http://b1:8086"

// shown is a waiter that remembers.
type shown struct {
	all     []operation.Wait
	current *operation.Wait
	alive   int
}

func (s *shown) Alive() { s.alive++ }

func (s *shown) Wait(w *operation.Wait) {
	if s.current = w; w != nil {
		s.all = append(s.all, *w)
	}
}

// config is patient for 10 s with refusals and for a minute with silence.
func config() patience.Config {
	return patience.Config{Refused: 10 * time.Second, Unreachable: time.Minute, Backoff: time.Second, MaxBackoff: 4 * time.Second, Now: time.Now}
}

func call(t *testing.T) patience.Call {
	t.Helper()
	c, err := influx.New(influx.Endpoint{URL: server}, influx.Options{})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return patience.Call{What: "asking", Clients: []*influx.Client{c}}
}

func refusal(status int, class influx.Class) error {
	return &influx.Error{Class: class, Op: "querying " + server, Status: status, Message: "not now"}
}

// failing fails some times before it succeeds.
func failing(times int, err error) func(context.Context) error {
	return func(context.Context) error {
		if times--; times < 0 {
			return nil
		}
		return err
	}
}

func TestARefusalThatPassesIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, w, start := patience.New(config()), &shown{}, time.Now()
		require.NoError(t, p.Do(t.Context(), call(t), w, failing(3, refusal(http.StatusServiceUnavailable, influx.Transient))))
		require.Equal(t, 1+2+4, int(time.Since(start).Seconds()), "the pauses double")
		require.Len(t, w.all, 3)
		require.Equal(t, "backend_answers", w.all[0].Gate)
		require.Equal(t, server, w.all[0].Backend)
		require.Contains(t, w.all[0].Measured, "status 503: not now")
		require.Equal(t, "given up after 10s", w.all[0].Limit)
		require.Nil(t, w.current, "the wait is over")
		require.Equal(t, 4, w.alive)
	})
}

func TestWhatDoesNotPassEndsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, w, start := patience.New(config()), &shown{}, time.Now()
		for _, err := range []error{refusal(http.StatusBadRequest, influx.Permanent), errors.New("no backend's")} {
			require.ErrorIs(t, p.Do(t.Context(), call(t), w, failing(1, err)), err)
		}
		var ended *operation.Error
		err := p.Do(t.Context(), call(t), w, failing(1, refusal(http.StatusUnauthorized, influx.Transient)))
		require.ErrorAs(t, err, &ended)
		require.Equal(t, patience.CodeRefuses, ended.Code)
		require.Contains(t, ended.Detail, "check the credentials")
		require.Empty(t, w.all)
		require.Zero(t, time.Since(start))
	})
}

// TestPatienceEnds: for all calls of a process together, and for those that have
// little of it sooner.
func TestPatienceEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, start := patience.New(config()), time.Now()
		always := failing(1<<30, refusal(http.StatusServiceUnavailable, influx.Transient))
		little := call(t)
		little.Limit = 3 * time.Second
		var gaveUp *patience.GaveUpError
		require.ErrorAs(t, p.Do(t.Context(), little, &shown{}, always), &gaveUp)
		require.Equal(t, 3*time.Second, time.Since(start))
		require.False(t, gaveUp.Away)
		require.False(t, p.GivenUp(server, patience.Queries, time.Time{}))
		require.ErrorAs(t, p.Do(t.Context(), call(t), &shown{}, always), &gaveUp)
		require.Equal(t, 10*time.Second, time.Since(start), "the outage began with the first call")
		require.True(t, p.GivenUp(server, patience.Queries, time.Time{}))
		require.ErrorAs(t, p.Do(t.Context(), call(t), &shown{}, always), &gaveUp)
		require.Equal(t, 10*time.Second, time.Since(start), "every further call gets one try")
		require.NoError(t, p.Do(t.Context(), call(t), &shown{}, failing(0, nil)))
		require.False(t, p.GivenUp(server, patience.Queries, time.Time{}), "an answer ends the outage")
		require.False(t, p.GivenUp(server, patience.Writes, time.Time{}))
	})
}

// TestEveryOperationHasItsPatience: an outage that it did not see does not count.
func TestEveryOperationHasItsPatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := patience.New(config())
		always := failing(1<<30, refusal(http.StatusServiceUnavailable, influx.Transient))
		require.Error(t, p.Do(t.Context(), call(t), &shown{}, always))
		start := time.Now()
		next := call(t)
		next.Since = start
		require.False(t, p.GivenUp(server, patience.Queries, start))
		require.Error(t, p.Do(t.Context(), next, &shown{}, always))
		require.Equal(t, 10*time.Second, time.Since(start))
		require.True(t, p.GivenUp(server, patience.Queries, start))
	})
}

func TestWritesAndQueriesAreRefusedApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := patience.New(config())
		refused := &patience.WriteError{Err: refusal(http.StatusServiceUnavailable, influx.Transient)}
		require.Error(t, p.Do(t.Context(), call(t), &shown{}, failing(1<<30, refused)))
		require.True(t, p.GivenUp(server, patience.Writes, time.Time{}))
		require.False(t, p.GivenUp(server, patience.Queries, time.Time{}))
		require.NoError(t, p.Do(t.Context(), call(t), &shown{}, failing(0, nil)))
		require.True(t, p.GivenUp(server, patience.Writes, time.Time{}), "a query says nothing of writes")
		p.Answered(server, patience.Writes)
		require.False(t, p.GivenUp(server, patience.Writes, time.Time{}))
	})
}

func TestWhoIsToldToStopStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		p, w := patience.New(config()), &shown{}
		err := p.Do(ctx, call(t), w, failing(1<<30, refusal(http.StatusServiceUnavailable, influx.Transient)))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Nil(t, w.current)
	})
}

func TestOfSeveralTheOldestWaitIsShown(t *testing.T) {
	t.Parallel()
	w := &shown{}
	all := patience.Share(w)
	at := time.Now()
	all.Of("a").Wait(&operation.Wait{Gate: "a", Since: at})
	all.Of("b").Wait(&operation.Wait{Gate: "b", Since: at.Add(-time.Second)})
	require.Equal(t, "b", w.current.Gate)
	all.Of("b").Wait(nil)
	require.Equal(t, "a", w.current.Gate)
	all.Of("a").Wait(nil)
	require.Nil(t, w.current)
	all.Of("c").Alive()
	require.Equal(t, 1, w.alive)
}
