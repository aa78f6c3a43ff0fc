package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/operation"
)

// What NATS cannot store is shown all the same: since when, and what there is to do.
func TestAnOutageOfNATSIsShown(t *testing.T) {
	t.Parallel()
	clock := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	var broken error
	o := &outage{probe: func(context.Context) error { return broken }, now: func() time.Time { return clock }}
	look := func(after time.Duration) *operation.Wait {
		clock = clock.Add(after)
		o.note(clock, o.probe(t.Context()))
		return o.wait()
	}
	require.Nil(t, look(0))
	require.NoError(t, o.check(t.Context()))
	broken = errors.New("no answer")
	require.Nil(t, look(outageEvery), "a new leader takes a moment")
	w := look(2 * outageEvery)
	require.Equal(t, gateNATS, w.Gate)
	require.Equal(t, "nothing has been stored for 6s: no answer", w.Measured)
	require.Contains(t, w.Limit, "restarted")
	require.Equal(t, clock.Add(-2*outageEvery), w.Since)
	require.ErrorContains(t, o.check(t.Context()), "until it is restarted")
	one := shown{waits: o.wait}.waiting(operation.Operation{State: operation.Running, Waits: []operation.Wait{{Gate: "limit"}}})
	require.Len(t, one.Waits, 2)
	require.Empty(t, shown{waits: o.wait}.waiting(operation.Operation{State: operation.Succeeded}).Waits)
	broken = nil
	require.Nil(t, look(outageEvery))
}
