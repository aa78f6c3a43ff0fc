package session_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
	"ringmaster/pkg/gateway/session"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/secrets"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ttl      = 2 * time.Second
	patience = time.Minute
	tick     = 5 * time.Millisecond
	backend  = "http://b:1"
)

// cluster is a shared record and the processes that serve by it.
type cluster struct {
	t      *testing.T
	bus    *bus.Bus
	ledger *ledger.Ledger
	leases *bus.Leases
	keys   *secrets.Keyring
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t}
	c.bus = bustest.StartSystem(t, bus.WithLeaseTTL(ttl)).Bus
	var err error
	c.ledger, err = ledger.New(t.Context(), c.bus, ledger.Options{Source: "test"})
	require.NoError(t, err)
	c.leases, err = c.bus.Leases(t.Context())
	require.NoError(t, err)
	c.keys, err = secrets.OpenOrCreate(t.TempDir() + "/key")
	require.NoError(t, err)
	topo := &topology.Topology{
		Epoch: 1, HashKey: "idx", ShardKey: "%db,%mm", VNodes: 256,
		Circles: []topology.Circle{{Backends: []topology.Backend{{Name: "b", URL: backend, Credentials: topology.Credentials{Username: "u", Password: "p"}}}}},
	}
	sealed, err := topo.Seal(c.keys, ledger.SealContext)
	require.NoError(t, err)
	require.NoError(t, c.ledger.StoreTopology(t.Context(), ledger.Versioned[ledger.Epochs]{}, sealed, serving.State{}))
	return c
}

// join opens a session that nobody keeps.
func (c *cluster) join(id string) *session.Session {
	c.t.Helper()
	s, err := session.Open(c.t.Context(), session.Options{ID: id, Ledger: c.ledger, Leases: c.leases, Sealer: c.keys, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(c.t, err)
	return s
}

// run opens a session and keeps it until stop.
func (c *cluster) run(id string) (_ *session.Session, stop func()) {
	c.t.Helper()
	s := c.join(id)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) })
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	c.t.Cleanup(stop)
	return s, stop
}

// mark is a change of the state that tells revisions apart.
func mark(ctx context.Context, s *session.Session, reason string) (*serving.View, error) {
	return s.Change(ctx, func(v *serving.View) (serving.State, error) {
		return v.State.WithIncomplete(0, reason, time.Now()), nil
	})
}

// waits returns what a barrier returns, once it does.
func waits(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

func passed(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(patience):
		t.Fatal("the barrier was not passed")
	}
}

func blocked(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("the barrier was passed: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
}

// TestBarriers: a change is in force in every process before its barrier is passed,
// and nothing that was begun before it goes on.
func TestBarriers(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	here, _ := c.run("here")
	there, _ := c.run("there")

	write, err := there.BeginWrite()
	require.NoError(t, err)
	read, err := there.BeginRead()
	require.NoError(t, err)
	view, err := mark(t.Context(), here, "one")
	require.NoError(t, err)
	require.Equal(t, view.Revision, here.View().Revision, "it is in force here at once")
	require.Less(t, write.View().Revision, view.Revision)

	writes := waits(func() error { return here.AwaitWrites(t.Context(), view.Revision) })
	reads := waits(func() error { return here.AwaitReads(t.Context(), view.Revision) })
	passed(t, waits(func() error { return here.AwaitSends(t.Context(), view.Revision) }))
	blocked(t, writes)
	require.Equal(t, view.Revision, there.View().Revision)
	later, err := there.BeginWrite()
	require.NoError(t, err)
	write.End()
	write.End()
	passed(t, writes)
	blocked(t, reads)
	read.End()
	passed(t, reads)

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	next, err := mark(t.Context(), there, "two")
	require.NoError(t, err)
	err = here.AwaitWrites(ctx, next.Revision)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "there", "who is waited for is named")
	later.End()
	passed(t, waits(func() error { return here.AwaitWrites(t.Context(), next.Revision) }))
}

// Only sends that the new mode forbids are waited for, and writes that wait for a
// mode are in nobody's way.
func TestSendsAreWaitedForByMode(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	here, _ := c.run("here")
	there, _ := c.run("there")
	write, err := there.BeginWrite()
	require.NoError(t, err)
	defer write.End()
	mode, end, err := there.BeginSend(backend)
	require.NoError(t, err)
	require.Equal(t, serving.Direct, mode)
	_, endOther, err := there.BeginSend("http://other:1")
	require.NoError(t, err)
	defer endOther()

	view, err := mark(t.Context(), here, "something else")
	require.NoError(t, err)
	passed(t, waits(func() error { return here.AwaitSends(t.Context(), view.Revision) }))
	view, err = here.Change(t.Context(), func(v *serving.View) (serving.State, error) {
		return v.State.WithMode(backend, serving.Direct, serving.Suspect, "connection refused", time.Now())
	})
	require.NoError(t, err)
	sends := waits(func() error { return here.AwaitSends(t.Context(), view.Revision) })
	blocked(t, sends)
	mode, endLater, err := there.BeginSend(backend)
	require.NoError(t, err)
	require.Equal(t, serving.Suspect, mode)
	endLater()
	end()
	end()
	passed(t, sends)
}

// A process that is stopped for longer than its session lives is not waited for,
// and serves nothing until it has come back.
func TestASessionThatIsNotKeptRunsOut(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	here, _ := c.run("here")
	stopped := c.join("stopped")
	pass, err := stopped.BeginWrite()
	require.NoError(t, err)
	view, err := mark(t.Context(), here, "one")
	require.NoError(t, err)
	done := waits(func() error { return here.AwaitWrites(t.Context(), view.Revision) })
	blocked(t, done)
	passed(t, done)
	_, err = stopped.BeginWrite()
	require.ErrorIs(t, err, session.ErrNotServing)
	_, err = stopped.BeginRead()
	require.ErrorIs(t, err, session.ErrNotServing)
	_, _, err = stopped.BeginSend(backend)
	require.ErrorIs(t, err, session.ErrNotServing, "what was begun before sends nothing more")
	tenure := stopped.Tenure()
	require.ErrorIs(t, tenure.Held(), session.ErrNotServing)
	require.ErrorIs(t, pass.Held(), session.ErrNotServing, "and is not relied on")

	ctx, cancel := context.WithCancel(t.Context())
	over := waits(func() error { return stopped.Run(ctx) })
	require.Eventually(t, func() bool { return stopped.Serving() == nil }, patience, tick)
	require.Equal(t, view.Revision, stopped.View().Revision)
	require.ErrorIs(t, pass.Held(), session.ErrNotServing, "not even when the session is there again")
	require.ErrorIs(t, tenure.Held(), session.ErrNotServing)
	require.NotSame(t, tenure, stopped.Tenure())
	require.NoError(t, stopped.Tenure().Held())
	pass.End()
	again, err := stopped.BeginWrite()
	require.NoError(t, err)
	require.NoError(t, again.Held())
	again.End()
	cancel()
	require.NoError(t, <-over)
	require.ErrorIs(t, stopped.Serving(), session.ErrNotServing)
}

// A process that cannot read the record does not go on serving by what it knows.
func TestARecordThatIsGoneEndsServing(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	here, _ := c.run("here")
	bucket := c.bus.Bucket(events.BucketTopology)
	e, err := bucket.Get(t.Context(), "current")
	require.NoError(t, err)
	require.NoError(t, bucket.Delete(t.Context(), "current", e.Revision))
	require.Eventually(t, func() bool { return here.Serving() != nil }, patience, tick)
	require.ErrorContains(t, here.Serving(), "record is gone")
	require.Equal(t, uint64(1), here.Current().Epoch, "what was last known goes on to be shown")
}

func TestChangesOfSeveralProcessesAllHappen(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	var all sync.WaitGroup
	const each = 10
	for p := range 3 {
		s, _ := c.run(fmt.Sprint(p))
		all.Go(func() {
			for i := range each {
				_, err := s.Change(context.Background(), func(v *serving.View) (serving.State, error) {
					return v.State.WithCopy(serving.Copy{Operation: fmt.Sprintf("%d-%d", p, i)}), nil
				})
				if err != nil {
					t.Errorf("changing: %v", err)
				}
			}
		})
	}
	all.Wait()
	v, err := c.ledger.Topology(t.Context())
	require.NoError(t, err)
	require.Len(t, v.Value.Serving.Copies, 3*each)

	s := c.join("last")
	before := s.View().Revision
	view, err := s.Change(t.Context(), func(v *serving.View) (serving.State, error) { return v.State, nil })
	require.NoError(t, err)
	require.Equal(t, before, view.Revision, "nothing to change is no revision")
	_, err = s.Change(t.Context(), func(*serving.View) (serving.State, error) { return serving.State{}, serving.ErrStep })
	require.ErrorIs(t, err, serving.ErrStep)
	require.Equal(t, "p", s.Current().Circles[0].Backends[0].Credentials.Password, "credentials are open in memory only")
}

// TestNotes: what is written while an operation copies is durable before it is
// acknowledged, once a round.
func TestNotes(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	here, _ := c.run("here")
	copying := func(round int) *serving.View {
		v, err := here.Change(t.Context(), func(v *serving.View) (serving.State, error) {
			return v.State.WithCopy(serving.Copy{Operation: "o", Circles: []int{0}, Round: round}), nil
		})
		require.NoError(t, err)
		return v
	}
	cpu := serving.Measurement{Database: "db", RetentionPolicy: "rp", Name: "cpu"}
	minute := int64(time.Minute)
	write := func(v *serving.View, circle int, from, to int64) {
		require.NoError(t, here.Note(t.Context(), v, []session.Touched{{Circle: circle, Measurement: cpu, From: from, To: to}}))
	}
	write(here.View(), 0, 0, 1) // nobody copies
	first := copying(1)
	write(first, 0, 10*minute+5, 11*minute+5)
	write(first, 0, 11*minute, 11*minute+7) // known
	write(first, 1, 50*minute, 50*minute)   // another circle
	notes, err := c.ledger.Notes(t.Context(), "o", 1)
	require.NoError(t, err)
	require.Equal(t, []ledger.Note{{Database: "db", RetentionPolicy: "rp", Measurement: "cpu", From: 10 * minute, To: 12*minute - 1}}, notes)

	second := copying(2)
	write(second, 0, 10*minute+5, 10*minute+5)
	notes, err = c.ledger.Notes(t.Context(), "o", 2)
	require.NoError(t, err)
	require.Len(t, notes, 1, "a new round is noted anew")

	require.NoError(t, c.ledger.ForgetNotes(t.Context(), "o"))
	for round := 1; round <= 2; round++ {
		notes, err = c.ledger.Notes(t.Context(), "o", round)
		require.NoError(t, err)
		require.Empty(t, notes)
	}
}

// Whatever the times, the notes cover them, and they are few.
func TestNotesCoverWhatIsWritten(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	here, _ := c.run("here")
	const last = math.MaxInt64 - 1
	spans := [][2]int64{
		{-last, last},
		{-last, -last},
		{last, last},
		{-1, 0},
		{0, 0},
		{-1, -1},
		{1_700_000_000_000_000_000, 1_700_000_000_000_000_001},
		{0, 40 * int64(24*time.Hour)},
		{-int64(time.Hour), int64(time.Hour)},
	}
	for i, s := range spans {
		v, err := here.Change(t.Context(), func(v *serving.View) (serving.State, error) {
			return v.State.WithCopy(serving.Copy{Operation: "o", Circles: []int{0}, Round: i + 1}), nil
		})
		require.NoError(t, err)
		require.NoError(t, here.Note(t.Context(), v, []session.Touched{{Measurement: serving.Measurement{Name: "m"}, From: s[0], To: s[1]}}))
		notes, err := c.ledger.Notes(t.Context(), "o", i+1)
		require.NoError(t, err)
		require.Len(t, notes, 1, "spans that follow one another are one note")
		require.LessOrEqual(t, notes[0].From, s[0])
		require.GreaterOrEqual(t, notes[0].To, s[1])
	}
}

// Many writers of the same slices wait for one note, and a note that cannot be kept
// fails all of them.
func TestNotesAreStoredInBatches(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	here, _ := c.run("here")
	v, err := here.Change(t.Context(), func(v *serving.View) (serving.State, error) {
		return v.State.WithCopy(serving.Copy{Operation: "o", Circles: []int{0}, Round: 1}), nil
	})
	require.NoError(t, err)
	var all sync.WaitGroup
	for w := range 32 {
		all.Go(func() {
			for m := range 8 {
				touched := []session.Touched{{Measurement: serving.Measurement{Name: fmt.Sprint("m", (w+m)%8)}}}
				if err := here.Note(context.Background(), v, touched); err != nil {
					t.Errorf("noting: %v", err)
				}
			}
		})
	}
	all.Wait()
	notes, err := c.ledger.Notes(t.Context(), "o", 1)
	require.NoError(t, err)
	require.Len(t, notes, 8, "each is noted once")
}

// A statement waits for the writes of its database, and they wait for it, in every
// process; one whose end cannot be stored, or whose process is gone, holds nobody up.
func TestAStatementExcludesWritesEverywhere(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	here, _ := c.run("here")
	there, _ := c.run("there")
	write, err := there.BeginWrite()
	require.NoError(t, err)
	ended := make(chan func(), 1)
	begun := waits(func() error {
		end, err := here.Exclude(t.Context(), "db")
		ended <- end
		return err
	})
	require.Eventually(t, func() bool { return there.View().Excluded("db") }, patience, tick)
	require.False(t, there.View().Excluded("other"))
	blocked(t, begun)
	write.End()
	passed(t, begun)
	end := <-ended

	_, err = there.Exclude(t.Context(), "db")
	require.ErrorIs(t, err, serving.ErrStep, "one at a time")
	other, err := there.Exclude(t.Context(), "other")
	require.NoError(t, err)
	end()
	end()
	require.Eventually(t, func() bool { return !there.View().Excluded("db") }, patience, tick)
	require.True(t, there.View().Excluded("other"))
	other()

	ctx, cancel := context.WithCancel(t.Context())
	write, err = there.BeginWrite()
	require.NoError(t, err)
	begun = waits(func() error {
		_, err := here.Exclude(ctx, "db")
		return err
	})
	require.Eventually(t, func() bool { return there.View().Excluded("db") }, patience, tick)
	cancel()
	require.ErrorIs(t, <-begun, context.Canceled)
	require.Eventually(t, func() bool { return !there.View().Excluded("db") }, patience, tick, "who gives up holds nobody up")
	write.End()

	// What a process has left behind is taken back when its session is kept again.
	_, err = there.Change(t.Context(), func(v *serving.View) (serving.State, error) {
		return v.State.WithExclusive(serving.Exclusive{ID: "left", Process: "here", Database: "db"})
	})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return !there.View().Excluded("db") }, patience, tick)
}
