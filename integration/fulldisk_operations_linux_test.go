package integration_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// The disk under the records runs nearly full, and then full, while an operation is
// under way: what is new is refused with the reason before it is too late, what is
// under way says what it waits for, also while NATS stores nothing, and goes on when
// there is room again.
func TestAFullDiskHoldsOperationsUpAndLosesNone(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 2)
	b[0].fill("db", 4, 1000)
	in := install(t)
	in.smallDisk("96m")
	owner := b[1].proxied()
	in.behind[owner.URL()] = b[1].URL()
	writes := newGate()
	t.Cleanup(writes.release)
	writes.hold(owner, harness.IsWrite)
	require.NoError(t, in.WriteConfigURLs(owner.URL()))
	in.startAPI()
	in.startWorker("-slots", "1")
	op := in.rebalanceRemove(0, []harness.Backend{b[0].configured("gone")})
	writes.reached.await(t, "the worker writes")

	said := func(words string) {
		t.Helper()
		var answer string
		require.True(t, waitFor(t, func() bool {
			res, body := in.do(http.MethodGet, "/readyz", nil, "")
			answer = body
			return res.StatusCode == http.StatusServiceUnavailable && strings.Contains(body, `"name":"disk","status":"failed"`)
		}), answer)
		require.True(t, waitFor(t, func() bool {
			now := in.operation(op.ID)
			return !now.State.Terminal() && slices.ContainsFunc(now.Waits, func(w operation.Wait) bool {
				return w.Gate == "nats_disk" && strings.Contains(w.Measured, words)
			})
		}), "it is not shown that the operation waits for the disk")
		res, body := in.do(http.MethodPost, "/v1/operations", nil, `{"kind":"rebalance","dry_run":true,"parameters":{"circle_id":0,"operation":"add"}}`)
		require.Equal(t, http.StatusInsufficientStorage, res.StatusCode, body)
		require.Contains(t, body, `"code":"disk_full"`)
		require.Contains(t, body, "nearly full")
		res, body = in.do(http.MethodPost, "/rebalance?circle_id=0&operation=add", nil, "")
		require.Equal(t, http.StatusInsufficientStorage, res.StatusCode, body)
	}
	release := in.fillDisk(3 << 20)
	said("nearly full")
	release()
	release = in.fillDisk(0)
	writes.release()
	said("NATS stores nothing")
	release()
	in.succeed(op.ID)
	in.requireMoved(0, b[:1], b[1:], "db")
	require.Empty(t, in.operation(op.ID).Waits)
	require.True(t, waitFor(t, func() bool {
		res, _ := in.do(http.MethodGet, "/readyz", nil, "")
		return res.StatusCode == http.StatusOK
	}))
	in.finish(in.rebalanceAdd(0).ID, operation.Succeeded)
}
