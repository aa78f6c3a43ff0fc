package ledger_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

func chunkOf(n int) []operation.Slice {
	all := make([]operation.Slice, n)
	for i := range all {
		all[i] = operation.Slice{Database: "db", RetentionPolicy: "rp", Measurement: fmt.Sprintf("m%d", i), From: int64(i), To: int64(i + 1), Points: int64(i)}
	}
	return all
}

func testDocuments(t *testing.T, e env) {
	op := e.stored(t).Value
	_, err := e.here.Plan(t.Context(), &op)
	require.ErrorIs(t, err, ledger.ErrNoDocument)
	_, err = e.here.Report(t.Context(), &op)
	require.ErrorIs(t, err, ledger.ErrNoDocument)

	plan := operation.Plan{OperationID: op.ID, Epoch: 3, Totals: operation.PlanTotals{Points: 5}}
	doc, err := e.here.PutDocument(t.Context(), op.ID, "plan", plan)
	require.NoError(t, err)
	objects, err := e.bus.Objects(t.Context(), events.ObjectStorePlans)
	require.NoError(t, err)
	stored := func() []string {
		all, err := objects.List(t.Context())
		require.NoError(t, err)
		var out []string
		for _, o := range all {
			if o.Name == doc.Object {
				out = append(out, o.Stored.String())
			}
		}
		return out
	}
	before := stored()
	require.Len(t, before, 1)
	again, err := e.there.PutDocument(t.Context(), op.ID, "plan", plan)
	require.NoError(t, err)
	require.Equal(t, doc, again)
	require.Equal(t, before, stored(), "it stays as it is under whoever reads it")

	op.Plan = &operation.PlanRef{Document: doc}
	read, err := e.there.Plan(t.Context(), &op)
	require.NoError(t, err)
	require.Equal(t, plan.Totals, read.Totals)

	report, err := e.here.PutDocument(t.Context(), op.ID, "report", operation.Report{OperationID: op.ID, Equal: true})
	require.NoError(t, err)
	op.Report = &report
	r, err := e.there.Report(t.Context(), &op)
	require.NoError(t, err)
	require.True(t, r.Equal)

	_, err = e.here.PutDocument(t.Context(), op.ID, "plan", make(chan int))
	require.ErrorContains(t, err, "storing plan of operation "+op.ID)
}

func testDocumentsDamaged(t *testing.T, e env) {
	op := e.stored(t).Value
	doc, err := e.here.PutDocument(t.Context(), op.ID, "plan", operation.Plan{OperationID: op.ID})
	require.NoError(t, err)
	objects, err := e.bus.Objects(t.Context(), events.ObjectStorePlans)
	require.NoError(t, err)
	packed, err := objects.GetBytes(t.Context(), doc.Object)
	require.NoError(t, err)

	op.Plan = &operation.PlanRef{Document: doc}
	_, err = objects.PutBytes(t.Context(), doc.Object, append([]byte{0}, packed...))
	require.NoError(t, err)
	_, err = e.here.Plan(t.Context(), &op)
	require.ErrorIs(t, err, ledger.ErrUnreadable, "another digest")

	// Storing it once more heals it.
	_, err = e.here.PutDocument(t.Context(), op.ID, "plan", operation.Plan{OperationID: op.ID})
	require.NoError(t, err)
	_, err = e.here.Plan(t.Context(), &op)
	require.NoError(t, err)

	require.NoError(t, objects.Delete(t.Context(), doc.Object))
	_, err = e.here.Plan(t.Context(), &op)
	require.ErrorIs(t, err, ledger.ErrUnreadable, "gone")
	require.NotErrorIs(t, err, ledger.ErrNoDocument, "it should be there")

	// What was stored as another type: its digest is right and nothing else.
	wrong, err := e.here.PutDocument(t.Context(), op.ID, "plan", []int{1})
	require.NoError(t, err)
	op.Plan = &operation.PlanRef{Document: wrong}
	_, err = e.here.Plan(t.Context(), &op)
	require.ErrorIs(t, err, ledger.ErrUnreadable)
}

func testSpans(t *testing.T, e env) {
	op := e.stored(t).Value
	all := chunkOf(10)
	chunk, err := e.here.PutDocument(t.Context(), op.ID, "slices-0", all)
	require.NoError(t, err)
	gone := chunk
	gone.Object += "x"
	plan, err := e.here.PutDocument(t.Context(), op.ID, "plan", operation.Plan{OperationID: op.ID, Chunks: []operation.Document{chunk, gone}})
	require.NoError(t, err)
	op.Plan = &operation.PlanRef{Document: plan}

	read := func(s *operation.Span, own ...operation.Slice) ([]operation.Slice, error) {
		return e.there.Slices(t.Context(), &op, &operation.Task{ID: "t", OperationID: op.ID, Span: s, Slices: own})
	}
	for _, span := range []operation.Span{{First: 0, Count: 10}, {First: 3, Count: 4}, {First: 9, Count: 1}, {First: 10, Count: 0}} {
		got, err := read(&span)
		require.NoError(t, err)
		require.Equal(t, all[span.First:span.First+span.Count], got)
	}
	own, err := read(nil, all[2:4]...)
	require.NoError(t, err)
	require.Equal(t, all[2:4], own)
	for _, span := range []operation.Span{
		{First: 3, Count: 8}, {First: -1, Count: 2}, {First: 5, Count: -1}, {Chunk: 2, Count: 1}, {Chunk: -1, Count: 1}, {Chunk: 1, Count: 1},
	} {
		_, err := read(&span)
		require.ErrorIs(t, err, ledger.ErrUnreadable, "%+v", span)
	}
	op.Plan = nil
	_, err = read(&operation.Span{Count: 1})
	require.ErrorIs(t, err, ledger.ErrNoDocument)
}
