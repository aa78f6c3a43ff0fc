package ledger_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// env is what the contract runs on: two ledgers, as of two processes. In a
// cluster they are connected to two nodes.
type env struct {
	bus         *bus.Bus
	here, there *ledger.Ledger
	log         *lockedBuffer
	ids         *atomic.Int64
}

// TestContract runs the same tests on one embedded server and on a cluster of
// three.
func TestContract(t *testing.T) {
	t.Parallel()
	t.Run("one node", func(t *testing.T) {
		t.Parallel()
		b, s := bustest.Start(t)
		runContract(t, newEnv(t, b, bustest.Connect(t, bus.Options{URL: s.URL(), Token: s.Token()})))
	})
	t.Run("three nodes", func(t *testing.T) {
		t.Parallel()
		b, c := bustest.StartCluster(t, 3)
		runContract(t, newEnv(t, b, c.Connect(2)))
	})
}

func runContract(t *testing.T, e env) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(*testing.T, env)
	}{
		{"operations/compare and set", testOperationCompareAndSet},
		{"operations/removed", testOperationRemoved},
		{"operations/unreadable", testOperationUnreadable},
		{"tasks/compare and set", testTaskCompareAndSet},
		{"tasks/one claim of 40", testTaskOneClaim},
		{"tasks/pages", testTaskPages},
		{"tasks/children nobody names", testTaskOrphans},
		{"tasks/unreadable", testTaskUnreadable},
		{"tasks/events", testTaskEvents},
		{"documents/round trip", testDocuments},
		{"documents/damaged", testDocumentsDamaged},
		{"documents/spans", testSpans},
		{"idempotency/one winner of 100", testClaimKeyOneWinner},
		{"idempotency/released", testReleaseKey},
		{"audit/trail", testAudit},
		{"scopes/accept", testAccept},
		{"scopes/one winner of 40", testAcceptOneWinner},
		{"scopes/holders that have ended", testAcceptStaleHolders},
		{"scopes/unreadable holder", testAcceptUnreadableHolder},
		{"scopes/close", testClose},
		{"topology/race", testTopologyRace},
		{"topology/epochs", testTopologyEpochs},
		{"flags", testFlags},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, e) })
	}
}

func newEnv(t *testing.T, here, there *bus.Bus) env {
	t.Helper()
	e := env{bus: here, log: &lockedBuffer{}, ids: &atomic.Int64{}}
	e.here, e.there = e.open(t, here), e.open(t, there)
	return e
}

func (e env) open(t *testing.T, b *bus.Bus) *ledger.Ledger {
	t.Helper()
	l, err := ledger.New(t.Context(), b, ledger.Options{Source: "test", Logger: slog.New(slog.NewTextHandler(e.log, nil))})
	require.NoError(t, err)
	return l
}

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// operation returns a record with an id of its own that is not stored yet.
func (e env) operation(scope ...string) operation.Operation {
	return operation.Operation{
		ID: fmt.Sprintf("01980000-0000-7000-8000-%012d", e.ids.Add(1)), Kind: operation.KindRebalance, State: operation.Queued,
		Scope: append([]string{}, scope...), Conditions: []operation.Condition{}, Waits: []operation.Wait{},
		Parameters: json.RawMessage(`{"circle_id":0,"operation":"add"}`), CreatedAt: time.Now().UTC(), Epoch: 1, Attempt: 1, Round: 1,
	}
}

// stored returns a record that is stored.
func (e env) stored(t *testing.T, scope ...string) ledger.Versioned[operation.Operation] {
	t.Helper()
	v, err := e.here.CreateOperation(t.Context(), e.operation(scope...))
	require.NoError(t, err)
	return v
}

func (e env) task(op, id string) operation.Task {
	return operation.Task{
		ID: id, OperationID: op, Kind: operation.KindRebalance, Phase: operation.PhaseCopy, Round: 1,
		Source: "http://a", Destination: "http://b", State: operation.TaskWaiting,
	}
}

// events returns the events of an operation about a noun.
func (e env) events(t *testing.T, op, noun string) []events.Payload {
	t.Helper()
	records, err := e.bus.Log(events.StreamEvents).Page(t.Context(), 0, events.EventSubject(op, noun), bus.MaxPage)
	require.NoError(t, err)
	out := make([]events.Payload, 0, len(records))
	for _, r := range records {
		_, p, err := events.Decode(r.Data)
		require.NoError(t, err)
		out = append(out, p)
	}
	return out
}

// together runs f in n goroutines at once.
func together(n int, f func(i int)) {
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	all.Wait()
}

func testOperationCompareAndSet(t *testing.T, e env) {
	v := e.stored(t)
	_, err := e.there.CreateOperation(t.Context(), v.Value)
	require.ErrorIs(t, err, ledger.ErrConflict)

	read, err := e.there.Operation(t.Context(), v.Value.ID)
	require.NoError(t, err)
	require.Equal(t, v.Revision, read.Revision)
	require.Equal(t, v.Value.State, read.Value.State)

	next, err := v.Value.Move(operation.Planning)
	require.NoError(t, err)
	moved, err := e.here.UpdateOperation(t.Context(), v, next)
	require.NoError(t, err)
	require.Greater(t, moved.Revision, v.Revision)

	// The other process still has the old revision.
	cancelled, err := read.Value.Move(operation.Cancelled)
	require.NoError(t, err)
	_, err = e.there.UpdateOperation(t.Context(), read, cancelled)
	require.ErrorIs(t, err, ledger.ErrConflict)

	// What the state machine does not have is not stored.
	wrong := moved.Value
	wrong.State = operation.Verifying
	_, err = e.here.UpdateOperation(t.Context(), moved, wrong)
	var refused *operation.TransitionError
	require.ErrorAs(t, err, &refused)

	_, err = e.here.Operation(t.Context(), "01980000-0000-7000-8000-ffffffffffff")
	require.ErrorIs(t, err, operation.ErrNotFound)

	told := e.events(t, v.Value.ID, events.NounOperation)
	require.Len(t, told, 1)
	change := told[0].(events.OperationChange)
	require.Equal(t, operation.Queued, change.Previous)
	require.Equal(t, moved.Revision, change.Revision)
}

func testOperationRemoved(t *testing.T, e env) {
	v := e.stored(t)
	next, err := v.Value.Move(operation.Planning)
	require.NoError(t, err)
	moved, err := e.there.UpdateOperation(t.Context(), v, next)
	require.NoError(t, err)
	require.ErrorIs(t, e.here.RemoveOperation(t.Context(), v), ledger.ErrConflict, "somebody has taken it up")
	require.NoError(t, e.here.RemoveOperation(t.Context(), moved))
	require.NoError(t, e.here.RemoveOperation(t.Context(), moved), "gone already")
	_, err = e.there.Operation(t.Context(), v.Value.ID)
	require.ErrorIs(t, err, operation.ErrNotFound)
}

// One record that cannot be read must not take the list down.
func testOperationUnreadable(t *testing.T, e env) {
	good := e.stored(t)
	bucket := e.bus.Bucket(events.BucketOperations)
	id := e.operation().ID
	revision, err := bucket.Create(t.Context(), id, []byte(`{"id":"`+id+`","state":7`))
	require.NoError(t, err)
	better := e.stored(t)

	found := map[string]bool{}
	require.NoError(t, e.there.Operations(t.Context(), func(op operation.Operation, revision uint64) error {
		found[op.ID] = true
		require.NotZero(t, revision)
		return nil
	}))
	require.True(t, found[good.Value.ID] && found[better.Value.ID])
	require.False(t, found[id])
	require.Contains(t, e.log.String(), id)

	_, err = e.here.Operation(t.Context(), id)
	require.ErrorIs(t, err, ledger.ErrUnreadable)
	require.NoError(t, bucket.Delete(t.Context(), id, revision))
}

func testTaskCompareAndSet(t *testing.T, e env) {
	op := e.stored(t).Value.ID
	task := e.task(op, "c1-000001")
	require.NoError(t, e.here.CreateTask(t.Context(), task))
	first, err := e.here.Task(t.Context(), op, task.ID)
	require.NoError(t, err)
	claimed := first.Value
	claimed.State, claimed.Holder, claimed.Attempt = operation.TaskRunning, "w1", 1
	second, err := e.here.UpdateTask(t.Context(), first, claimed)
	require.NoError(t, err)
	require.False(t, second.Value.UpdatedAt.IsZero())
	_, err = e.there.UpdateTask(t.Context(), first, claimed)
	require.ErrorIs(t, err, ledger.ErrConflict)

	// Making it again changes nothing: fan-out may be done twice.
	require.NoError(t, e.there.CreateTask(t.Context(), task))
	read, err := e.there.Task(t.Context(), op, task.ID)
	require.NoError(t, err)
	require.Equal(t, second.Revision, read.Revision)

	_, err = e.here.Task(t.Context(), op, "c1-000002")
	require.ErrorIs(t, err, ledger.ErrNoTask)
}

func testTaskOneClaim(t *testing.T, e env) {
	op := e.stored(t).Value.ID
	require.NoError(t, e.here.CreateTask(t.Context(), e.task(op, "c1-000001")))
	free, err := e.here.Task(t.Context(), op, "c1-000001")
	require.NoError(t, err)
	var won atomic.Int64
	together(40, func(i int) {
		l := e.here
		if i%2 == 1 {
			l = e.there
		}
		claimed := free.Value
		claimed.State, claimed.Holder, claimed.Attempt = operation.TaskRunning, fmt.Sprintf("w%d", i), 1
		if _, err := l.UpdateTask(context.Background(), free, claimed); err == nil {
			won.Add(1)
		} else if !errorIs(err, ledger.ErrConflict) {
			t.Errorf("claiming: %v", err)
		}
	})
	require.Equal(t, int64(1), won.Load())
}

func testTaskPages(t *testing.T, e env) {
	op := e.stored(t).Value.ID
	const n = 23
	var ids []string
	for i := range n {
		task := e.task(op, fmt.Sprintf("c1-%06d", (i*7)%n))
		if i%2 == 0 {
			task.State = operation.TaskDone
		}
		require.NoError(t, e.here.CreateTask(t.Context(), task))
	}
	for i := range n {
		ids = append(ids, fmt.Sprintf("c1-%06d", i))
	}
	for _, limit := range []int{1, 5, n - 1, n, n + 1, 1000} {
		require.Equal(t, ids, e.allPages(t, op, "", limit), "limit %d", limit)
	}
	require.Len(t, e.allPages(t, op, operation.TaskDone, 4), (n+1)/2)
	require.Len(t, e.allPages(t, op, operation.TaskWaiting, 4), n/2)
	require.Empty(t, e.allPages(t, op, operation.TaskFailed, 4))

	_, _, err := e.here.TaskPage(t.Context(), op, "", "no cursor!", 10)
	var invalid *operation.InvalidError
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, "cursor", invalid.Field)
}

// allPages follows the cursors to the end and returns the ids of all tasks.
func (e env) allPages(t *testing.T, op string, state operation.TaskState, limit int) []string {
	t.Helper()
	var ids []string
	for cursor := ""; ; {
		page, next, err := e.there.TaskPage(t.Context(), op, state, cursor, limit)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page), limit)
		for _, task := range page {
			ids = append(ids, task.ID)
		}
		if next == "" {
			return ids
		}
		require.NotEqual(t, cursor, next)
		cursor = next
	}
}

// A child belongs to the operation when a checkpoint names it. One whose worker
// died before that is not shown as if it waited for ever.
func testTaskOrphans(t *testing.T, e env) {
	op := e.stored(t).Value.ID
	parent := e.task(op, "c1-000001")
	parent.Children = []string{"c1-000001-2-1"}
	child := e.task(op, "c1-000001-2-1")
	child.Parent, child.Children = parent.ID, []string{"c1-000001-2-1-1-1"}
	grandchild := e.task(op, "c1-000001-2-1-1-1")
	grandchild.Parent = child.ID
	orphan := e.task(op, "c1-000001-1-1")
	orphan.Parent, orphan.Children = parent.ID, []string{"c1-000001-1-1-1-1"}
	orphans := e.task(op, "c1-000001-1-1-1-1")
	orphans.Parent = orphan.ID
	lost := e.task(op, "c1-000009-1-1")
	lost.Parent = "c1-000009"
	circle := e.task(op, "c1-7")
	circle.Parent, circle.Children = "c1-7", []string{"c1-7"}
	for _, task := range []operation.Task{grandchild, child, parent, orphan, orphans, lost, circle} {
		require.NoError(t, e.here.CreateTask(t.Context(), task))
	}
	want := []string{parent.ID, child.ID, grandchild.ID}
	for _, limit := range []int{1, 2, 100} {
		require.Equal(t, want, e.allPages(t, op, "", limit))
	}
}

func testTaskUnreadable(t *testing.T, e env) {
	op := e.stored(t).Value.ID
	require.NoError(t, e.here.CreateTask(t.Context(), e.task(op, "c1-000001")))
	_, err := e.bus.Bucket(events.BucketTasks).Create(t.Context(), op+".c1-000002", []byte(`{"checkpoint":"AQ"}`))
	require.NoError(t, err)
	require.NoError(t, e.here.CreateTask(t.Context(), e.task(op, "c1-000003")))

	var seen []string
	err = e.here.Tasks(t.Context(), op, func(v ledger.Versioned[operation.Task]) error {
		seen = append(seen, v.Value.ID)
		return nil
	})
	require.ErrorIs(t, err, ledger.ErrUnreadable, "the set is not whole")
	require.ElementsMatch(t, []string{"c1-000001", "c1-000003"}, seen)
	require.Equal(t, []string{"c1-000001", "c1-000003"}, e.allPages(t, op, "", 10))
	require.Contains(t, e.log.String(), "c1-000002")
	_, err = e.here.Task(t.Context(), op, "c1-000002")
	require.ErrorIs(t, err, ledger.ErrUnreadable)
}

func testTaskEvents(t *testing.T, e env) {
	op := e.stored(t).Value.ID
	require.NoError(t, e.here.CreateTask(t.Context(), e.task(op, "c1-000001")))
	require.NoError(t, e.here.CreateTask(t.Context(), e.task(op, "c1-000001")))
	v, err := e.here.Task(t.Context(), op, "c1-000001")
	require.NoError(t, err)
	for _, change := range []func(*operation.Task){
		func(t *operation.Task) { t.State, t.Attempt = operation.TaskRunning, 1 },
		func(t *operation.Task) { t.Points.Copied = 7 }, // a checkpoint is told as progress
		func(t *operation.Task) { t.Attempt = 2 },
		func(t *operation.Task) { t.State = operation.TaskDone },
	} {
		next := v.Value
		change(&next)
		v, err = e.here.UpdateTask(t.Context(), v, next)
		require.NoError(t, err)
	}
	e.here.Flush(t.Context())
	var states []operation.TaskState
	for _, p := range e.events(t, op, events.NounTask) {
		states = append(states, p.(events.TaskChange).State)
	}
	require.Equal(t, []operation.TaskState{operation.TaskWaiting, operation.TaskRunning, operation.TaskRunning, operation.TaskDone}, states)
}

func testClaimKeyOneWinner(t *testing.T, e env) {
	key := t.Name()
	var won atomic.Int64
	var mu sync.Mutex
	answers := map[ledger.Claim]int{}
	together(100, func(i int) {
		l := e.here
		if i%2 == 1 {
			l = e.there
		}
		c, mine, err := l.ClaimKey(context.Background(), key, ledger.Claim{OperationID: fmt.Sprint(i), Digest: "d"})
		if err != nil {
			t.Errorf("claiming the key: %v", err)
			return
		}
		if mine {
			won.Add(1)
		}
		mu.Lock()
		defer mu.Unlock()
		c.StoredAt = time.Time{}
		answers[c]++
	})
	require.Equal(t, int64(1), won.Load())
	require.Len(t, answers, 1, "everybody is told the same operation")
}

func testReleaseKey(t *testing.T, e env) {
	key := t.Name() + " / any text \x00"
	first, second := ledger.Claim{OperationID: "a", Digest: "x"}, ledger.Claim{OperationID: "b", Digest: "x"}
	require.NoError(t, e.here.ReleaseKey(t.Context(), key, first), "nobody has it")
	_, mine, err := e.here.ClaimKey(t.Context(), key, first)
	require.NoError(t, err)
	require.True(t, mine)
	require.NoError(t, e.there.ReleaseKey(t.Context(), key, second))
	held, mine, err := e.there.ClaimKey(t.Context(), key, second)
	require.NoError(t, err)
	require.False(t, mine, "another's release does nothing")
	require.Equal(t, [2]string{first.OperationID, first.Digest}, [2]string{held.OperationID, held.Digest})
	require.WithinDuration(t, time.Now(), held.StoredAt, time.Minute)
	require.NoError(t, e.here.ReleaseKey(t.Context(), key, held))
	_, mine, err = e.there.ClaimKey(t.Context(), key, second)
	require.NoError(t, err)
	require.True(t, mine)
}

func testAudit(t *testing.T, e env) {
	id := e.operation().ID
	at := time.Now().UTC()
	entry := operation.AuditEntry{At: at, OperationID: id, Action: "submit", Who: "a", Origin: "127.0.0.1", Reason: "why"}
	require.NoError(t, e.here.Audit(t.Context(), entry))
	require.NoError(t, e.there.Audit(t.Context(), entry), "the same again is one entry")
	_, err := e.bus.Log(events.StreamAudit).Append(t.Context(), events.AuditSubject(id), "", []byte("{torn"))
	require.NoError(t, err)
	later := entry
	later.Action = "pause"
	require.NoError(t, e.here.Audit(t.Context(), later))

	require.Eventually(t, func() bool { // a replica may be milliseconds behind
		trail, err := e.there.AuditTrail(t.Context(), id)
		require.NoError(t, err)
		return len(trail) == 2 && trail[0] == entry && trail[1] == later
	}, 5*time.Second, 5*time.Millisecond)
	require.Contains(t, e.log.String(), "audit entry left out")
	trail, err := e.here.AuditTrail(t.Context(), e.operation().ID)
	require.NoError(t, err)
	require.Empty(t, trail)
}

func TestLeaseKeysAreReversible(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"c1-000001", "", "A.b c/é", "*", ">", strings.Repeat("x", 300)} {
		task, ok := ledger.TaskOfLease("op.1", ledger.TaskLease("op.1", id))
		require.True(t, ok)
		require.Equal(t, id, task)
		worker, ok := ledger.WorkerOfLease(ledger.WorkerLease(id))
		require.True(t, ok)
		require.Equal(t, id, worker)
		_, ok = ledger.TaskOfLease("op.2", ledger.TaskLease("op.1", id))
		require.False(t, ok)
		_, ok = ledger.WorkerOfLease(ledger.OperationLease(id))
		require.False(t, ok)
	}
}
