package operation_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/operation"
)

// moves is the table of the API's documentation, written out once more.
var moves = map[operation.State][]operation.State{
	operation.Queued:           {operation.Planning, operation.Cancelled},
	operation.Planning:         {operation.Planned, operation.AwaitingApproval, operation.Running, operation.Succeeded, operation.Failed, operation.Paused, operation.Cancelled},
	operation.AwaitingApproval: {operation.Running, operation.Failed, operation.Paused, operation.Cancelled},
	operation.Running:          {operation.Verifying, operation.Paused, operation.PartiallyFailed, operation.Failed, operation.Cancelled},
	operation.Verifying:        {operation.Running, operation.Paused, operation.Succeeded, operation.PartiallyFailed, operation.Failed, operation.Cancelled},
	operation.Paused:           {operation.Cancelled},
	operation.PartiallyFailed:  {operation.Queued},
	operation.Failed:           {operation.Queued},
	operation.Cancelled:        {operation.Queued},
}

func TestOnlyTheMovesOfTheTable(t *testing.T) {
	t.Parallel()
	for _, from := range operation.States() {
		for _, to := range append(operation.States(), "", "unheard_of") {
			for _, pausedIn := range append(operation.States(), "") {
				if from != operation.Paused && pausedIn != "" {
					continue
				}
				o := operation.Operation{ID: "x", State: from, PausedIn: pausedIn, Reason: "kept"}
				got, err := o.Move(to)
				resumes := from == operation.Paused && to == pausedIn && slices.Contains(moves[to], operation.Paused)
				if !slices.Contains(moves[from], to) && !resumes {
					var refused *operation.TransitionError
					require.ErrorAs(t, err, &refused, "%s to %s", from, to)
					require.Equal(t, operation.TransitionError{From: from, To: to}, *refused)
					require.Equal(t, o, got, "a refused move changes nothing")
					continue
				}
				require.NoError(t, err, "%s to %s", from, to)
				want := o
				want.State, want.PausedIn = to, ""
				if to == operation.Paused {
					want.PausedIn = from
				}
				require.Equal(t, want, got)
			}
		}
	}
}

func TestStatesAreWhatTheySay(t *testing.T) {
	t.Parallel()
	require.Len(t, operation.States(), 11)
	for _, s := range operation.States() {
		require.True(t, s.Valid())
		leaves := len(moves[s]) > 0 && !slices.Equal(moves[s], []operation.State{operation.Queued})
		require.Equal(t, !leaves, s.Terminal(), "%s: a terminal state is left by a retry only", s)
	}
	require.False(t, operation.State("").Valid())
	require.False(t, operation.State("done").Valid())
}

func TestAnyWalkStaysInTheTable(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o := operation.Operation{State: operation.Queued}
		steps := rapid.SliceOfN(rapid.SampledFrom(operation.States()), 0, 60).Draw(t, "steps")
		for _, to := range steps {
			next, err := o.Move(to)
			if err != nil {
				continue
			}
			if o.State == operation.Paused && to != operation.Cancelled {
				require.Equal(t, o.PausedIn, to, "a paused operation goes on where it was")
			}
			if o.State.Terminal() {
				require.Equal(t, operation.Queued, to)
			}
			require.Equal(t, next.State == operation.Paused, next.PausedIn != "")
			o = next
		}
	})
}
