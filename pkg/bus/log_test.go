package bus_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
)

func testLogAppend(t *testing.T, e env) {
	ctx, name := t.Context(), unique(t)
	l := e.here.Log(events.StreamEvents)
	subject := events.EventSubject(name, "task")
	first, err := l.Append(ctx, subject, name+"/1", []byte("1"))
	require.NoError(t, err)
	again, err := e.there.Log(events.StreamEvents).Append(ctx, subject, name+"/1", []byte("1"))
	require.NoError(t, err)
	require.Equal(t, first, again, "an id is stored once")
	second, err := l.Append(ctx, subject, "", []byte("2"))
	require.NoError(t, err)
	third, err := l.Append(ctx, subject, "", []byte("2"))
	require.NoError(t, err)
	require.Less(t, first, second)
	require.Less(t, second, third)
	_, next, err := l.Bounds(ctx)
	require.NoError(t, err)
	require.Equal(t, third+1, next)

	_, err = l.Append(ctx, events.AuditSubject(name), "", nil)
	require.Error(t, err, "not this log's subject")
}

func testLogPage(t *testing.T, e env) {
	ctx, name := t.Context(), unique(t)
	l := e.here.Log(events.StreamEvents)
	var sequences []uint64
	for i := range 30 {
		s, err := l.Append(ctx, events.EventSubject(name, []string{"task", "operation"}[i%2]), "", text("%d", i))
		require.NoError(t, err)
		sequences = append(sequences, s)
	}
	var got []bus.Record
	eventually(t, func() bool { // any replica answers
		var err error
		got, err = e.there.Log(events.StreamEvents).Page(ctx, 0, events.OperationEvents(name), 1000)
		require.NoError(t, err)
		return len(got) == 30
	})
	for i, r := range got {
		require.Equal(t, sequences[i], r.Sequence)
		require.Equal(t, fmt.Sprint(i), string(r.Data))
		require.False(t, r.Time.IsZero())
	}
	page, err := l.Page(ctx, sequences[3]+1, events.EventSubject(name, "operation"), 2)
	require.NoError(t, err)
	require.Len(t, page, 2)
	require.Equal(t, []string{"5", "7"}, []string{string(page[0].Data), string(page[1].Data)})
	page, err = l.Page(ctx, sequences[29]+1, events.OperationEvents(name), 10)
	require.NoError(t, err)
	require.Empty(t, page)
	page, err = l.Page(ctx, 0, events.OperationEvents(name), 0)
	require.NoError(t, err)
	require.Len(t, page, 1)
}

func testLogLast(t *testing.T, e env) {
	ctx, name := t.Context(), unique(t)
	l := e.here.Log(events.StreamEvents)
	subject := events.EventSubject(name, "task")
	_, err := e.there.Log(events.StreamEvents).Last(ctx, subject)
	require.ErrorIs(t, err, bus.ErrNotFound)
	var sequence uint64
	for i := range 3 {
		sequence, err = l.Append(ctx, subject, "", text("%d", i))
		require.NoError(t, err)
		_, err = l.Append(ctx, events.EventSubject(name, "operation"), "", nil)
		require.NoError(t, err)
	}
	got, err := e.there.Log(events.StreamEvents).Last(ctx, subject)
	require.NoError(t, err)
	require.Equal(t, sequence, got.Sequence)
	require.Equal(t, subject, got.Subject)
	require.Equal(t, "2", string(got.Data))
	require.False(t, got.Time.IsZero())
}

func testLogTail(t *testing.T, e env) {
	name := unique(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := e.here.Log(events.StreamEvents)
	subject := events.EventSubject(name, "task")
	const old, fresh = 300, 100
	var from uint64
	for i := range old {
		s, err := l.Append(ctx, subject, "", text("%d", i))
		require.NoError(t, err)
		if i == 10 {
			from = s
		}
	}
	appended := make(chan error, 1)
	next := 10
	for r, err := range e.there.Log(events.StreamEvents).Tail(ctx, from, events.OperationEvents(name)) {
		if errors.Is(err, context.Canceled) {
			break
		}
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(next), string(r.Data))
		next++
		switch next {
		case old:
			go func() {
				for i := old; i < old+fresh; i++ {
					other := events.EventSubject(name+"-other", "task")
					_, err1 := l.Append(t.Context(), other, "", nil)
					_, err2 := l.Append(t.Context(), subject, "", text("%d", i))
					if err := errors.Join(err1, err2); err != nil {
						appended <- err
						return
					}
				}
				appended <- nil
			}()
		case old + fresh:
			cancel()
		}
	}
	require.Equal(t, old+fresh, next)
	require.NoError(t, <-appended)
}

// Whoever reads a log after a record was acknowledged finds it, whichever server
// answers: notes of what clients have written are read so, and decided by.
func testLogReadYourWrites(t *testing.T, e env) {
	operation := unique(t)
	subject := events.EventSubject(operation, "task")
	from := uint64(0)
	for i := range 200 {
		writer, reader := e.here, e.there
		if i%2 == 1 {
			writer, reader = reader, writer
		}
		sequence, err := writer.Log(events.StreamEvents).Append(t.Context(), subject, fmt.Sprint(operation, i), text("%d", i))
		require.NoError(t, err)
		page, err := reader.Log(events.StreamEvents).Page(t.Context(), from, subject, 10)
		require.NoError(t, err)
		require.Len(t, page, 1, "record %d", i)
		require.Equal(t, sequence, page[0].Sequence)
		from = sequence + 1
		page, err = reader.Log(events.StreamEvents).Page(t.Context(), from, subject, 10)
		require.NoError(t, err)
		require.Empty(t, page)
	}
}
