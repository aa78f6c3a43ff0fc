package bus_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
)

const (
	patience = 20 * time.Second
	tick     = 5 * time.Millisecond
	// leaseTTL is short, because tests wait for leases to run out.
	leaseTTL = 1500 * time.Millisecond
)

func TestMain(m *testing.M) {
	if role := os.Getenv(childRole); role != "" {
		os.Exit(runChild(role))
	}
	goleak.VerifyTestMain(m)
}

// env is what the contract runs on: two connections to one system. In a
// cluster they are to two nodes.
type env struct {
	here, there *bus.Bus
}

// TestContract runs the same tests on one embedded server and on a cluster of
// three: what the rest of the program relies on holds on both.
func TestContract(t *testing.T) {
	t.Parallel()
	t.Run("one node", func(t *testing.T) {
		t.Parallel()
		b, s := bustest.Start(t, bus.WithLeaseTTL(leaseTTL))
		runContract(t, env{here: b, there: bustest.Connect(t, bus.Options{URL: s.URL(), Token: s.Token()})})
	})
	t.Run("three nodes", func(t *testing.T) {
		t.Parallel()
		b, c := bustest.StartCluster(t, 3, bus.WithLeaseTTL(leaseTTL))
		runContract(t, env{here: b, there: c.Connect(2)})
	})
}

func runContract(t *testing.T, e env) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, env)
	}{
		{"probe", testProbe},
		{"bucket/compare and set", testBucketCompareAndSet},
		{"bucket/one winner", testBucketOneWinner},
		{"bucket/read your writes", testBucketReadYourWrites},
		{"bucket/list", testBucketList},
		{"bucket/list while written", testBucketListWhileWritten},
		{"bucket/watch", testBucketWatch},
		{"bucket/invalid keys", testBucketInvalidKeys},
		{"batch/all or nothing", testBatchAllOrNothing},
		{"batch/sequences", testBatchSequences},
		{"batch/size", testBatchSize},
		{"scopes/take and release", testScopes},
		{"scopes/take again", testScopesTakeAgain},
		{"scopes/left behind", testScopesLeftBehind},
		{"scopes/newest released", testScopesNewestReleased},
		{"scopes/one winner of 400", testScopesOneWinner},
		{"leases/held, released, taken", testLeaseHandover},
		{"leases/runs out", testLeaseRunsOut},
		{"leases/kept", testLeaseIsKeptWhile},
		{"leases/lost meanwhile", testLeaseIsLostMeanwhile},
		{"leases/renewed", testLeaseRenewed},
		{"leases/overtaken", testLeaseOvertaken},
		{"leases/claim taken again", testClaimIsTakenAgain},
		{"buckets/many", testManyAreStoredOnce},
		{"buckets/some", testSomeKeys},
		{"queue/publish many", testNudgesTogether},
		{"queue/publish twice", testQueuePublishTwice},
		{"queue/acknowledge", testQueueAcknowledge},
		{"queue/comes back", testQueueComesBack},
		{"queue/later", testQueueLater},
		{"queue/reject", testQueueReject},
		{"queue/each once", testQueueEachOnce},
		{"queue/purge operation", testQueuePurge},
		{"queue/fetch ends with its context", testQueueFetchEnds},
		{"log/append", testLogAppend},
		{"log/page", testLogPage},
		{"log/page shows what was written", testLogReadYourWrites},
		{"log/last", testLogLast},
		{"log/tail", testLogTail},
		{"hints", testHints},
		{"objects/put and get", testObjects},
		{"objects/replace and delete", testObjectsReplace},
		{"objects/failed put", testObjectsFailedPut},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, e) })
	}
}

func testProbe(t *testing.T, e env) {
	require.NoError(t, e.here.Probe(t.Context()))
	require.NoError(t, e.there.Probe(t.Context()))
}

// unique makes names for a test that shares its system with others.
func unique(t *testing.T) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(t.Name()))
}

// eventually polls until the condition holds.
func eventually(t *testing.T, condition func() bool, about ...any) {
	t.Helper()
	require.Eventually(t, condition, patience, tick, about...)
}

func text(format string, a ...any) []byte { return fmt.Appendf(nil, format, a...) }
