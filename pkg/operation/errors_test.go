package operation_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/operation"
)

// Who waits for a person is not to be waited for.
func TestAConflictSaysWhatCanBeDone(t *testing.T) {
	t.Parallel()
	for state, hint := range map[operation.State]string{
		operation.Running: "GET /v1/operations/x ", operation.Paused: "/x/resume", operation.AwaitingApproval: "/x/approve", "": "wait for",
	} {
		require.Contains(t, (&operation.ScopeHeldError{Scope: "circle/0", HolderID: "x", State: state}).Hint(), hint)
	}
}
