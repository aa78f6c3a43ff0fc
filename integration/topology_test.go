package integration_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/secrets"
)

// An operation that was planned for one topology must not bring anything
// anywhere, and much less succeed, under another.
func TestOperationEndsWhenTheTopologyChanges(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 3)
	b[0].fill("db", 12, 300)
	owner := b[1].proxied()
	writes := newGate()
	in := install(t)
	t.Cleanup(writes.release)
	in.behind[owner.URL()] = b[1].URL()
	writes.hold(owner, harness.IsWrite)
	require.NoError(t, in.WriteConfigURLs(owner.URL()))
	in.startAPI()
	in.startWorker()
	old := in.rebalanceRemove(0, []harness.Backend{b[0].configured("gone")})
	writes.reached.await(t, "the operation writes")
	in.stopAPI()
	require.NoError(t, in.WriteConfigURLs(owner.URL(), b[2].URL()))
	in.startAPI()
	ended := in.finish(old.ID, operation.Failed)
	require.Equal(t, "epoch_changed", ended.Error.Code)
	require.Contains(t, ended.Error.Detail, "start it again")
	writes.release()
	op := in.rebalanceRemove(0, []harness.Backend{b[0].configured("gone")})
	require.Greater(t, op.Epoch, old.Epoch)
	in.finish(op.ID, operation.Succeeded)
	in.requireMoved(0, b[:1], b[1:], "db")
}

// epoch asks for the epoch that the api works with.
func (in *installation) epoch() uint64 {
	in.t.Helper()
	var topology struct {
		Epoch   uint64 `json:"epoch"`
		Circles []struct {
			Backends []struct {
				URL string `json:"url"`
			} `json:"backends"`
		} `json:"circles"`
	}
	require.NoError(in.t, in.Client.Get(in.context(), "/v1/topology", &topology))
	return topology.Epoch
}

// A process that is restarted with an old file must not take the cluster back.
func TestEarlierConfigurationIsNotApplied(t *testing.T) {
	t.Parallel()
	in := install(t)
	one := func() { require.NoError(t, in.WriteConfigURLs("http://127.0.0.1:1")) }
	two := func() { require.NoError(t, in.WriteConfigURLs("http://127.0.0.1:1", "http://127.0.0.1:2")) }
	restart := func(args ...string) uint64 {
		if in.API != nil {
			in.stopAPI()
		}
		in.startAPI(args...)
		return in.epoch()
	}
	one()
	require.Equal(t, uint64(1), restart())
	require.Equal(t, uint64(1), restart(), "the same file is the same epoch")
	two()
	require.Equal(t, uint64(2), restart())
	one()
	require.Equal(t, uint64(2), restart(), "the earlier file is not applied")
	require.Contains(t, in.API.Output(), "-accept-config applies it", "and this is said")
	require.Equal(t, uint64(3), restart("-accept-config"), "unless somebody means it")
}

// A worker with another key file cannot open the credentials of the backends. It
// leaves the tasks to those who can.
func TestWorkerWithAnotherKeyLeavesTheTasksThatNeedIt(t *testing.T) {
	t.Parallel()
	source := startGuarded(t, "admin", "password")
	owner := startGuarded(t, "admin", "password")
	in := install(t)
	source.fill("db", 4, 300)
	require.NoError(t, in.WriteCircles(harness.Circle{Name: "one", Backends: []harness.Backend{owner.configured("a")}}))
	in.startAPI()
	key := filepath.Join(t.TempDir(), "key")
	_, err := secrets.Create(key)
	require.NoError(t, err)
	wrong := in.startWorker("-slots", "2", "-key-file", key)
	op := in.rebalanceRemove(0, []harness.Backend{source.configured("gone")})
	require.Eventually(t, func() bool {
		return strings.Count(wrong.Output(), "sealed with another key") > 2
	}, patience, 50*time.Millisecond)
	for _, task := range in.tasks(op.ID) {
		require.Empty(t, task.History, "trying is no attempt")
	}
	now := in.wait(op.ID, func(op *operation.Operation) bool {
		return slices.ContainsFunc(op.Waits, func(w operation.Wait) bool { return strings.Contains(w.Measured, "another key") })
	})
	require.Equal(t, operation.Running, now.State)
	in.startWorker()
	in.succeed(op.ID)
	in.requireMoved(0, []*backend{source}, []*backend{owner}, "db")
}

// Reads and commands need the admin's token unless they come from this machine.
func TestAdminToken(t *testing.T) {
	t.Parallel()
	in := install(t)
	require.NoError(t, in.WriteConfigURLs("http://127.0.0.1:1"))
	in.startAPI()
	raw, err := os.ReadFile(filepath.Join(in.DataDir(), "admin-token"))
	require.NoError(t, err)
	token := strings.TrimSpace(string(raw))
	for header, want := range map[string]int{
		"Bearer nonsense":                http.StatusUnauthorized,
		"Bearer " + token:                http.StatusOK,
		"Basic bm9uc2Vuc2U6bm9uc2Vuc2U=": http.StatusUnauthorized,
		"Bearer " + token + "nonsense":   http.StatusUnauthorized,
	} {
		res, body := in.do(http.MethodGet, "/v1/operations", http.Header{"Authorization": {header}}, "")
		require.Equal(t, want, res.StatusCode, body)
	}
	// What a proxy on this machine forwards does not come from this machine.
	res, body := in.do(http.MethodGet, "/v1/operations", http.Header{"X-Forwarded-For": {"192.0.2.1"}}, "")
	require.Equal(t, http.StatusUnauthorized, res.StatusCode, body)
}
