package progress

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus/bustest"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// TestOverTheRealBus takes one operation through the real ledger and stream.
func TestOverTheRealBus(t *testing.T) {
	b := bustest.StartSystem(t).Bus
	ctx := t.Context()
	records, err := ledger.New(ctx, b, ledger.Options{Source: "test/1"})
	require.NoError(t, err)
	log := b.Log(events.StreamEvents)

	before, err := records.CreateOperation(ctx, op(1, operation.Queued))
	require.NoError(t, err)
	records.Announce(ctx, before, "")

	changes := make(chan operation.Operation, 16)
	p := New(records, log, Options{OnChange: func(o operation.Operation) { changes <- o }})
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- p.Run(running) }()
	defer func() { stop(); require.NoError(t, <-done) }()

	require.Equal(t, operation.Queued, (<-changes).State, "from the records")
	planning := before.Value
	planning.State = operation.Planning
	after, err := records.UpdateOperation(ctx, before, planning)
	require.NoError(t, err)
	require.Equal(t, operation.Planning, (<-changes).State, "from the events")
	records.Emit(ctx, "", events.OperationProgress{
		OperationID: id(1), Revision: after.Revision, Seq: 1,
		Progress: operation.Progress{Points: operation.PointCounts{Copied: 3}},
	})
	require.EqualValues(t, 3, (<-changes).Progress.Points.Copied)
	require.NoError(t, p.Ready())
	require.False(t, p.AsOf().IsZero())

	f := NewFeed(log)
	page, err := f.Page(ctx, id(1), 0, 10)
	require.NoError(t, err)
	require.Len(t, page.Events, 3)
	last, err := f.Last(ctx)
	require.NoError(t, err)
	require.Equal(t, page.Next, last)
	seen := 0
	reading, enough := context.WithCancel(ctx)
	defer enough()
	for e, err := range f.Subscribe(reading, id(1), 0) {
		require.NoError(t, err)
		require.Equal(t, page.Events[seen], e)
		if seen++; seen == len(page.Events) {
			enough()
		}
	}
	require.Equal(t, 3, seen)
	for e, err := range f.Subscribe(ctx, "", last+100) {
		require.NoError(t, err)
		require.Equal(t, TypeGap, e.Type)
		require.JSONEq(t, `{"after":103,"first":1}`, string(e.Data))
		break
	}
}
