package progress

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/operation"
)

func TestResultLogCollectsOnlyWhileWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewResultLog(nil)
		l.Observe(op(1, operation.Queued))
		end, messages := l.Read(0)
		require.Zero(t, end)
		require.Equal(t, []Message{}, messages, "an empty list, never null")

		l.Observe(op(1, operation.Planning))
		l.Observe(op(1, operation.Running))
		end, messages = l.Read(0)
		require.EqualValues(t, 2, end)
		require.Len(t, messages, 2)

		l.Observe(op(1, operation.Succeeded))
		end, messages = l.Read(end)
		require.EqualValues(t, 3, end)
		require.Len(t, messages, 1)
		end, messages = l.Read(end)
		require.EqualValues(t, 3, end)
		require.Empty(t, messages)
	})
}

func TestResultLogIsResetWhenNobodyAskedForFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewResultLog(nil)
		l.Read(0)
		for range 3 { // each request arms the log again
			pass(ResultLogIdle - time.Nanosecond)
			l.Observe(op(1, operation.Running))
			l.Read(0)
		}
		end, _ := l.Read(0)
		require.EqualValues(t, 3, end)

		pass(ResultLogIdle)
		l.Observe(op(1, operation.Running))
		require.Nil(t, l.messages, "what nobody reads is not kept")
		l.Read(0)
		l.Observe(op(2, operation.Running))
		end, messages := l.Read(3)
		require.EqualValues(t, 1, end)
		require.Len(t, messages, 1, "a counter beyond the end is of a log before the reset")
	})
}

func TestResultLogIsBounded(t *testing.T) {
	l := NewResultLog(func() time.Time { return epoch })
	l.Read(0)
	for range ResultLogEntries + 10 {
		l.Observe(op(1, operation.Running))
	}
	end, messages := l.Read(5)
	require.EqualValues(t, ResultLogEntries+10, end)
	require.Len(t, messages, ResultLogEntries, "the counter jumps over what was cut off")
	_, messages = l.Read(end - 1)
	require.Len(t, messages, 1)
	_, messages = l.Read(end + 1)
	require.Len(t, messages, ResultLogEntries)
}

func TestResultLogMessages(t *testing.T) {
	l := NewResultLog(func() time.Time { return epoch })
	l.Read(0)
	running := op(1, operation.Running)
	running.Progress = progressOf(1, 1, 1, 42).Progress
	l.Observe(running)
	failed := op(2, operation.Failed)
	failed.Error = &operation.Error{Code: "refused", Detail: "the backend does not want it"}
	l.Observe(failed)
	_, messages := l.Read(0)
	require.Len(t, messages, 2)

	require.Empty(t, messages[0].Error)
	var s Summary
	require.NoError(t, json.Unmarshal([]byte(messages[0].Value), &s))
	require.Equal(t, id(1), s.ID)
	require.Equal(t, operation.PhaseCopy, s.Phase)
	require.EqualValues(t, 42, s.Points.Copied)

	require.Equal(t, "refused: the backend does not want it", messages[1].Error)
	require.NoError(t, json.Unmarshal([]byte(messages[1].Value), &s))
	require.Equal(t, operation.Failed, s.State)
}
