package controller_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

func keyed(key, parameters string) operation.Request {
	q := request(parameters)
	q.IdempotencyKey = key
	return q
}

// records counts the operations that have a record.
func (r *rig) records() (n int) {
	r.t.Helper()
	require.NoError(r.t, r.ledger.Operations(context.Background(), func(operation.Operation, uint64) error {
		n++
		return nil
	}))
	return n
}

func TestSubmitMakesEverythingDurable(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	op := r.submit(add)
	require.Equal(t, op.ID, r.read(op.ID).ID)
	require.Len(t, r.holds(op.ID), 2)
	trail, err := r.ledger.AuditTrail(t.Context(), op.ID)
	require.NoError(t, err)
	require.Equal(t, "submit", trail[0].Action)
	require.Equal(t, "127.0.0.1", trail[0].Origin)
	require.Len(t, r.events(op.ID, events.NounOperation), 1)

	// Refused, a request leaves nothing behind: neither record nor key.
	for range 2 {
		_, _, err = r.intake.Submit(t.Context(), keyed("k", add))
		var held *operation.ScopeHeldError
		require.ErrorAs(t, err, &held)
		require.Equal(t, op.ID, held.HolderID)
	}
	require.Equal(t, 1, r.records())
	require.NoError(t, r.ledger.Close(t.Context(), op.ID))
	second, created, err := r.intake.Submit(t.Context(), keyed("k", add))
	require.NoError(t, err)
	require.True(t, created)
	require.Len(t, r.holds(second.ID), 2)
}

func TestSubmitRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	limit := int64(0)
	for _, c := range []struct {
		name   string
		change func(*operation.Request)
		field  string
	}{
		{"unknown kind", func(q *operation.Request) { q.Kind = "move" }, "kind"},
		{"later kind", func(q *operation.Request) { q.Kind = operation.KindReindex }, ""},
		{"hold and dry run", func(q *operation.Request) { q.Hold, q.DryRun = true, true }, "hold"},
		{"limits", func(q *operation.Request) { q.Limits.PointsPerSecond = &limit }, "limits.points_per_second"},
		{"unknown key", func(q *operation.Request) {
			q.Parameters = []byte(`{"circle_id":0,"operation":"add","colour":1}`)
		}, "colour"},
		{"unknown circle", func(q *operation.Request) { q.Parameters = []byte(`{"circle_id":7,"operation":"add"}`) }, "circle_id"},
		{"not removed", func(q *operation.Request) {
			q.Parameters = []byte(`{"circle_id":0,"operation":"rm","removed_backends":[{"name":"x","url":"HTTP://B1:1/"}]}`)
		}, "removed_backends[0].url"},
	} {
		q := request(add)
		c.change(&q)
		_, _, err := r.intake.Submit(t.Context(), q)
		if c.field == "" {
			var later *operation.NotImplementedError
			require.ErrorAs(t, err, &later, c.name)
			continue
		}
		var invalid *operation.InvalidError
		require.ErrorAs(t, err, &invalid, c.name)
		require.Equal(t, c.field, invalid.Field, c.name)
	}
	require.Zero(t, r.records())
	unknown := *r.intake
	unknown.Topology = r.atlas0()
	_, _, err := unknown.Submit(t.Context(), request(add))
	require.ErrorContains(t, err, "no topology")
}

func TestTheSameKeyIsTheSameOperation(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	var created atomic.Int64
	var mu sync.Mutex
	ids := map[string]int{}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			op, made, err := r.intake.Submit(context.Background(), keyed("key", add))
			if err != nil {
				t.Errorf("submitting: %v", err)
				return
			}
			if made {
				created.Add(1)
			}
			mu.Lock()
			defer mu.Unlock()
			ids[op.ID]++
		})
	}
	all.Wait()
	require.Len(t, ids, 1)
	require.Equal(t, int64(1), created.Load())
	require.Equal(t, 1, r.records())
	for id := range ids {
		require.Len(t, r.holds(id), 2)
		trail, err := r.ledger.AuditTrail(t.Context(), id)
		require.NoError(t, err)
		require.Len(t, trail, 1, "it was submitted once")
	}

	// Order and spacing do not matter; what is asked for does.
	_, made, err := r.intake.Submit(t.Context(), keyed("key", `{ "operation":"add", "circle_id":0 }`))
	require.NoError(t, err)
	require.False(t, made)
	for _, other := range []string{`{"circle_id":0,"operation":"add","workers":1}`, rm("secret")} {
		_, _, err = r.intake.Submit(t.Context(), keyed("key", other))
		require.ErrorIs(t, err, operation.ErrKeyReused)
	}
	q := keyed("key", add)
	q.DryRun = true
	_, _, err = r.intake.Submit(t.Context(), q)
	require.ErrorIs(t, err, operation.ErrKeyReused)
}

func rm(password string) string {
	return fmt.Sprintf(`{"circle_id":0,"operation":"rm","removed_backends":[{"name":"gone","url":"http://gone:1","username":"user-of-gone","password":%q}]}`, password)
}

// Whatever a submission has got done before its process died, the same request
// again finishes it under the same id.
func TestARepeatedRequestFinishesADeadSubmission(t *testing.T) {
	t.Parallel()
	for died := range 4 {
		t.Run(fmt.Sprintf("after step %d", died), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, ttl, work{0, 1, 0, named("a", 1)})
			first, _, err := r.intake.Submit(t.Context(), keyed("key", add))
			require.NoError(t, err)
			// Undo what would not have been done yet.
			v, err := r.ledger.Operation(t.Context(), first.ID)
			require.NoError(t, err)
			if died < 3 {
				require.NoError(t, r.ledger.Close(t.Context(), first.ID)) // the scopes
			}
			if died < 2 {
				require.NoError(t, r.ledger.RemoveOperation(t.Context(), v)) // the record
			}
			again, created, err := r.intake.Submit(t.Context(), keyed("key", add))
			require.NoError(t, err)
			require.Equal(t, first.ID, again.ID)
			require.Equal(t, died < 2, created)
			require.Len(t, r.holds(first.ID), 2)
			r.control()
			r.work(1)
			r.finish(first.ID, operation.Succeeded)
			ended, created, err := r.intake.Submit(t.Context(), keyed("key", add))
			require.NoError(t, err)
			require.False(t, created)
			require.Equal(t, operation.Succeeded, ended.State)
		})
	}
}

// A repeat that finds the first submission's record does not answer with it
// before it is accepted, and the first, which is being refused, does not take it
// away from under the repeat.
func TestRepeatsOfARefusedRequest(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	for round := range 15 {
		key := fmt.Sprint("key ", round)
		holder := r.submit(add)
		var mu sync.Mutex
		accepted := map[string]bool{}
		var all sync.WaitGroup
		for i := range 6 {
			all.Go(func() {
				if i == 3 { // in the middle of it the scope becomes free
					if err := r.ledger.Close(context.Background(), holder.ID); err != nil {
						t.Errorf("closing: %v", err)
					}
					return
				}
				op, _, err := r.intake.Submit(context.Background(), keyed(key, add))
				var held *operation.ScopeHeldError
				switch {
				case err == nil:
					mu.Lock()
					defer mu.Unlock()
					accepted[op.ID] = true
				case !errors.As(err, &held):
					t.Errorf("submitting: %v", err)
				}
			})
		}
		all.Wait()
		require.LessOrEqual(t, len(accepted), 1, "one key, one operation")
		for id := range accepted {
			require.Equal(t, operation.Queued, r.read(id).State, "what was accepted is there")
			require.Len(t, r.holds(id), 2)
			again, created, err := r.intake.Submit(t.Context(), keyed(key, add))
			require.NoError(t, err)
			require.False(t, created)
			require.Equal(t, id, again.ID)
			require.NoError(t, r.ledger.Close(t.Context(), id))
		}
	}
}

// A caller that goes away in the middle leaves an operation or nothing.
func TestACallerThatGoesAway(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	op, created, err := r.intake.Submit(gone, request(add))
	require.NoError(t, err)
	require.True(t, created)
	require.Len(t, r.holds(op.ID), 2)
}

// A submission that was stopped for longer than anybody waits finds its record
// given up, and says so instead of promising what nobody carries out.
func TestASubmissionThatComesTooLate(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	op := r.submit(add)
	v, err := r.ledger.Operation(t.Context(), op.ID)
	require.NoError(t, err)
	require.NoError(t, r.ledger.Close(t.Context(), op.ID))
	next, err := v.Value.Move(operation.Cancelled)
	require.NoError(t, err)
	now := time.Now()
	next.Error, next.FinishedAt = &operation.Error{Code: "never_accepted"}, &now
	_, err = r.ledger.UpdateOperation(t.Context(), v, next)
	require.NoError(t, err)
	// It wakes up here, between its record and its scopes.
	require.NoError(t, r.ledger.Accept(t.Context(), &op))
	r.control()
	r.finish(op.ID, operation.Cancelled)
}

// No credential leaves the process but sealed, and sealed ones are in no record
// that is shown: neither in events nor in commands, tasks, plans or audit.
func TestCredentialsAreNowhere(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 1, 0, []string{"a", "refused"}})
	const password = "hunter2-plain-text"
	op, _, err := r.intake.Submit(t.Context(), keyed("the key", rm(password)))
	require.NoError(t, err)
	require.NotContains(t, string(op.Parameters), password)
	p, err := operation.ParseRebalance(r.read(op.ID).Parameters)
	require.NoError(t, err)
	sealed := p.RemovedBackends[0].Sealed
	require.NotEmpty(t, sealed)
	r.control()
	r.work(1)
	end := r.finish(op.ID, operation.PartiallyFailed)
	require.NotContains(t, string(end.Public().Parameters), sealed)
	require.NotEmpty(t, end.Public().Parameters)
	r.awaitQueue(0)

	streams := []string{
		events.StreamCommands, events.StreamTasks, events.StreamEvents, events.StreamAudit, events.StreamDeadLetters,
		"KV_" + events.BucketOperations, "KV_" + events.BucketTasks, "KV_" + events.BucketIdempotency, "KV_" + events.BucketTopology,
		"KV_" + events.BucketLeases, "OBJ_" + events.ObjectStorePlans,
	}
	looked := 0
	for _, stream := range streams {
		for from := uint64(0); ; {
			page, err := r.bus.Log(stream).Page(t.Context(), from, ">", bus.MaxPage)
			var gap *bus.GapError
			if err != nil {
				require.ErrorAs(t, err, &gap)
			}
			if len(page) == 0 {
				break
			}
			for _, m := range page {
				looked++
				from = m.Sequence + 1
				for _, secret := range []string{password, "user-of-gone", "pass-of-b1"} {
					require.NotContains(t, string(m.Data), secret, "%s holds %s", m.Subject, secret)
				}
				if stream != "KV_"+events.BucketOperations {
					require.NotContains(t, string(m.Data), sealed, "%s holds sealed credentials", m.Subject)
				}
			}
		}
	}
	require.Greater(t, looked, 10)
	// Plans and reports are packed.
	plan, err := r.ledger.Plan(t.Context(), &end)
	require.NoError(t, err)
	for _, shown := range []any{plan, r.report(&end), r.tasks(op.ID)} {
		require.NotContains(t, fmt.Sprintf("%+v", shown), sealed)
		require.NotContains(t, fmt.Sprintf("%+v", shown), password)
	}
}

// Without NATS a submission fails in bounded time, and is not half accepted when
// NATS is back.
func TestSubmitWithoutNATS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := &rig{t: t, planner: &plans{}, carrier: newCarrier(), log: newRigLog(t)}
	server := startNATS(t, dir)
	r.bus = bustest.Connect(t, bus.Options{URL: server.URL(), Token: server.Token()})
	bustest.Apply(t, r.bus, bus.WithLeaseTTL(ttl))
	r.open()
	hasty := bustest.Connect(t, bus.Options{URL: server.URL(), Token: server.Token(), Timeout: 2 * time.Second})
	impatient := *r.intake
	impatient.Ledger, _, _ = parts(t, hasty, r.log)
	require.NoError(t, server.Close(context.Background()))
	_, _, err := impatient.Submit(t.Context(), keyed("key", add))
	require.ErrorIs(t, err, bus.ErrUnavailable)
	server = startNATS(t, dir)
	require.Eventually(t, func() bool {
		_, _, err := r.intake.Submit(t.Context(), keyed("key", add))
		return err == nil
	}, patience, tick)
	open, err := r.ledger.OpenOperations(t.Context())
	require.NoError(t, err)
	require.Len(t, open, 1)
	require.NoError(t, server.Close(context.Background()))
}

func TestAReleasedKeyIsNotAnothers(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	_, mine, err := r.ledger.ClaimKey(t.Context(), "key", ledger.Claim{OperationID: newID(), Digest: "not sealed with this key"})
	require.NoError(t, err)
	require.True(t, mine)
	_, _, err = r.intake.Submit(t.Context(), keyed("key", add))
	require.ErrorContains(t, err, "opening the digest")
	require.Zero(t, r.records())
}

// TestFlagsSetByHandHoldOperationsUp, whichever way they are submitted; a dry run
// takes no scope and goes by.
func TestFlagsSetByHandHoldOperationsUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	require.NoError(t, r.atlas.SetMigrating(t.Context(), 0, true))
	q := request(add)
	q.IdempotencyKey = "again"
	var flagged *operation.FlaggedError
	_, _, err := r.intake.Submit(t.Context(), q)
	require.ErrorAs(t, err, &flagged)
	require.Equal(t, operation.FlaggedError{Circle: 0}, *flagged)
	require.Zero(t, r.records(), "a refused request leaves nothing")
	dry := q
	dry.DryRun, dry.IdempotencyKey = true, ""
	_, _, err = r.intake.Submit(t.Context(), dry)
	require.NoError(t, err)
	require.NoError(t, r.atlas.SetMigrating(t.Context(), 0, false))
	require.NoError(t, r.atlas.SetResyncing(t.Context(), true))
	_, _, err = r.intake.Submit(t.Context(), q)
	require.ErrorAs(t, err, &flagged)
	require.True(t, flagged.Resyncing)
	require.NoError(t, r.atlas.SetResyncing(t.Context(), false))
	_, created, err := r.intake.Submit(t.Context(), q)
	require.NoError(t, err)
	require.True(t, created, "the key was given back")
}

// TestAVerificationTakesNoScope: it is accepted beside whoever holds the circle, and one
// that repairs is not.
func TestAVerificationTakesNoScope(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	holder := r.submit(add)
	require.NoError(t, r.atlas.SetResyncing(t.Context(), true), "flags are of no interest either")
	q := request(`{"circle_id":0}`)
	q.Kind = operation.KindVerify
	op, created, err := r.intake.Submit(t.Context(), q)
	require.NoError(t, err)
	require.True(t, created)
	require.Empty(t, op.Scope)
	require.Len(t, r.holds(op.ID), 1, "its command alone")
	require.NoError(t, r.atlas.SetResyncing(t.Context(), false))
	for raw, field := range map[string]string{
		`{"circle_id":9}`:                       "circle_id",
		`{"circle_id":0,"against_circle_id":9}`: "against_circle_id",
		`{"circle_id":0,"against_circle_id":0,"repair":true,"repair_from":"circle"}`: "repair",
	} {
		q.Parameters = []byte(raw)
		_, _, err = r.intake.Submit(t.Context(), q)
		var invalid *operation.InvalidError
		require.ErrorAs(t, err, &invalid, raw)
		require.Equal(t, field, invalid.Field, raw)
	}
	require.NotEqual(t, holder.ID, op.ID)
}
