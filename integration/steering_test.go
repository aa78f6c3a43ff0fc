package integration_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// How soon a verb has to be effective. The race detector and other tests on the same
// machine take their share of it.
const (
	pausedWithin    = 2 * time.Second
	cancelledWithin = 5 * time.Second
	busyMachine     = 5
	quiet           = 400 * time.Millisecond
)

// steer asks a verb of an operation and returns the status of the answer.
func (in *installation) steer(id, verb string) int {
	in.t.Helper()
	res, answer := in.do(http.MethodPost, "/v1/operations/"+id+"/"+verb, nil, `{"reason":"the test wants it"}`)
	require.Contains(in.t, []int{http.StatusAccepted, http.StatusConflict}, res.StatusCode, answer)
	return res.StatusCode
}

// disturb arms the wire for a random moment of an operation, asks the verb then and
// reports whether the operation was still there to take it.
func (s *crashSite) disturb(id string, kind operation.Kind, verb string) bool {
	s.t.Helper()
	status := make(chan int, 1)
	ask := func() { status <- s.steer(id, verb) }
	m := s.moment(kind)
	s.t.Logf("round %d: %s, %s %s", s.round, kind, verb, m)
	s.await(id, m, s.wire.arm(m, ask), ask)
	return <-status == http.StatusAccepted
}

// quieten waits until no request has come to any backend for a while, and returns
// when the last one came.
func (s *crashSite) quieten() time.Time {
	s.t.Helper()
	seen, since := s.wire.seen(), time.Now()
	require.Eventually(s.t, func() bool {
		if now := s.wire.seen(); now != seen {
			seen, since = now, time.Now()
		}
		return time.Since(since) > quiet
	}, patience, 10*time.Millisecond, "nobody works for it any more")
	return since
}

// An operation of any kind is paused at a random moment, survives the death of every
// process while it is, goes on, is cancelled at another, and a retry completes it:
// value by value what an undisturbed one would have come to.
func TestSteeringAnOperation(t *testing.T) {
	t.Parallel()
	s := newCrashSite(t)
	for i, c := range crashCases() {
		db := s.prepare(&c)
		before := dumpAll(s.servers())
		want := c.want(s, before)
		want[s.leaver.URL()] = before[s.leaver.URL()]
		parameters := c.parameters(s)
		parameters["databases"] = []string{db}
		op, err := s.Client.Submit(s.context(), c.kind, parameters)
		require.NoError(t, err)

		if began := time.Now(); s.disturb(op.ID, c.kind, "pause") {
			last := s.quieten()
			paused, err := s.Client.Operation(s.context(), op.ID)
			require.NoError(t, err)
			require.Equal(t, operation.Paused, paused.State)
			require.Less(t, last.Sub(began), busyMachine*pausedWithin+quiet)
			s.API.Kill()
			s.Workers[len(s.Workers)-1].Kill()
			s.startAPI()
			s.startWorker()
			s.requireHeld(&c, parameters, op.ID)
			require.Equal(t, http.StatusAccepted, s.steer(op.ID, "resume"))
		}
		s.cancelAndRetry(&c, op.ID, before)
		s.finish(op.ID, c.state)
		require.Equal(t, c.state == operation.Succeeded, s.report(op.ID).Equal)
		requireContents(t, want, dumpAll(s.servers()))
		s.drop(db)
		if i == 1 && testing.Short() {
			break
		}
	}
}

// requireHeld requires that a paused operation keeps its scope and says so.
func (s *crashSite) requireHeld(c *crashCase, parameters map[string]any, id string) {
	s.t.Helper()
	status, answer := s.post(asJSON(s.t, map[string]any{"kind": c.kind, "parameters": parameters}), "")
	require.Equal(s.t, http.StatusConflict, status, answer)
	require.Equal(s.t, id, answer["operation_id"])
	require.Equal(s.t, "paused", answer["holder"].(map[string]any)["state"])
	op := s.wait(id, func(op *operation.Operation) bool { return op.State == operation.Paused })
	require.Len(s.t, op.Conditions, 1)
	require.Contains(s.t, op.Conditions[0].Reason, "stays taken")
}

// cancelAndRetry cancels an operation at a random moment. Nothing is gone by that
// which another server does not hold, and the report tells what is where.
func (s *crashSite) cancelAndRetry(c *crashCase, id string, before contents) {
	s.t.Helper()
	if !s.disturb(id, c.kind, "cancel") {
		return
	}
	asked := time.Now()
	op := s.wait(id, harness.Ended)
	require.Less(s.t, time.Since(asked), busyMachine*cancelledWithin)
	if op.State != operation.Cancelled {
		return // it had done its last step
	}
	s.quieten()
	if c.kind != operation.KindClear {
		now := dumpAll(s.servers())
		for url, all := range before {
			for place, points := range all {
				for key := range points {
					require.Contains(s.t, now[url][place], key, "%s %v", url, place)
				}
			}
		}
	}
	if op.Plan != nil {
		report := s.report(id)
		require.False(s.t, report.Equal)
		require.NotEmpty(s.t, report.Moves)
		require.NotEmpty(s.t, report.Notes)
	}
	require.Equal(s.t, http.StatusAccepted, s.steer(id, "retry"))
}

// What was held for approval carries out exactly its plan, or nothing once the schema
// has changed.
func TestApprovalBindsThePlan(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 2)
	for _, b := range s.members[0] {
		b.exec(`CREATE DATABASE held WITH DURATION INF REPLICATION 1 SHARD DURATION 1d NAME first`)
	}
	s.start()
	for i := range 6 {
		name := "m" + string(rune('0'+i))
		at := s.ownerOf(0, "held", name)
		other := s.members[0][0]
		if at == other {
			other = s.members[0][1]
		}
		other.write("held", "first", generate(name, 300))
	}
	before := s.dump()
	hold := func() operation.Operation {
		op, err := s.Client.SubmitRequest(s.context(), map[string]any{
			"kind": "rebalance", "hold": true, "parameters": map[string]any{"circle_id": 0, "operation": "add"},
		})
		require.NoError(t, err)
		return s.wait(op.ID, func(op *operation.Operation) bool { return op.State == operation.AwaitingApproval })
	}
	// Whoever changes the schema meanwhile has it said to them who approve.
	op := hold()
	s.members[0][0].write("held", "first", "surprise v=1 1700000000000000000\n")
	res, answer := s.do(http.MethodPost, "/v1/operations/"+op.ID+"/approve", nil, "")
	require.Equal(t, http.StatusConflict, res.StatusCode, answer)
	require.Contains(t, answer, "schema_changed")
	require.Contains(t, answer, "surprise")
	s.finish(op.ID, operation.Failed)
	s.members[0][0].execIn("held", `DROP MEASUREMENT surprise`)
	requireContents(t, before, s.dump())

	op = hold()
	require.NotNil(t, op.Plan)
	requireContents(t, before, s.dump())
	require.Equal(t, http.StatusAccepted, s.steer(op.ID, "approve"))
	end := s.finish(op.ID, operation.Succeeded)
	require.Equal(t, op.Plan.SHA256, end.Plan.SHA256)
	require.Equal(t, op.Plan.Totals.Slices, s.report(op.ID).Slices.Total)
	requireContents(t, s.rebalanced(before, 0), s.dump())
	require.Equal(t, http.StatusConflict, s.steer(op.ID, "approve"))
}
