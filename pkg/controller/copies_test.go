package controller_test

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/controller"
	"ringmaster/pkg/gateway/session"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/serving"
)

// settler is a Settler that keeps what it is given, and under which view.
type settler struct {
	session *session.Session
	// during is called for each settlement; what it returns is the answer.
	during func(call int, s mover.Settlement, v *serving.View) mover.Settled

	mu    sync.Mutex
	calls []mover.Settlement
	held  []bool
}

func (s *settler) Settle(_ context.Context, _ *operation.Operation, one mover.Settlement) (mover.Settled, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, one)
	s.held = append(s.held, s.session.View().Holds())
	if s.during == nil {
		return mover.Settled{}, nil
	}
	return s.during(len(s.calls), one, s.session.View()), nil
}

// under has controllers take part in serving.
func (s *settler) under(o *controller.Options) { o.Accord, o.Settler = s.session, s }

// change changes the shared state as another process would.
func (r *rig) change(f func(serving.State) (serving.State, error)) {
	r.t.Helper()
	_, err := r.session.Change(context.Background(), func(v *serving.View) (serving.State, error) { return f(v.State) })
	require.NoError(r.t, err)
}

// opened has circle 0 change from three backends to four, with writes going to both.
func (r *rig) opened() {
	r.t.Helper()
	r.adopt(config(r.t, 4))
	r.change(func(s serving.State) (serving.State, error) {
		return s.Stepped(0, serving.Opening, "", time.Now())
	})
}

// write notes what a client writes, as the write path does, for as long as an
// operation copies.
func (r *rig) write(measurement string) {
	r.t.Helper()
	pass, err := r.session.BeginWrite()
	require.NoError(r.t, err)
	defer pass.End()
	require.NoError(r.t, r.session.Note(context.Background(), pass.View(), []session.Touched{
		{Circle: 0, Measurement: serving.Measurement{Database: "db", Name: measurement}, From: 1, To: 2},
	}))
}

// moving returns the name of a measurement whose owner the transition changes.
func (r *rig) moving() string {
	r.t.Helper()
	v := r.session.View()
	for c := 'a'; c <= 'z'; c++ {
		if len(v.Writers(nil, "db", string(c))) == 2 {
			return string(c)
		}
	}
	r.t.Fatal("no measurement moves")
	return ""
}

// TestWhatIsWrittenMeanwhileIsSettledBeforeTheCutover: what clients wrote during the
// copy is compared from the owner that is read to the new one, for the last time
// while such writes wait, and reads move over in the same step that ends the copy.
func TestWhatIsWrittenMeanwhileIsSettledBeforeTheCutover(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 3, 0, named("a", 2)})
	r.run("session", r.session.Run)
	r.opened()
	moving := r.moving()
	s := &settler{session: r.session}
	first := true
	r.carrier.before = func(context.Context, operation.Task, *operation.Slice) error {
		if first { // after the copy has begun
			r.write(moving)
			first = false
		}
		return nil
	}
	r.control(s.under)
	r.work(1)
	op := r.submit(add)
	r.finish(op.ID, operation.Succeeded)

	state := r.session.View().State
	require.Equal(t, serving.ReadNew, state.In(0).Step)
	require.Equal(t, op.ID, state.In(0).Operation)
	require.Empty(t, state.Copies)
	require.Equal(t, []int{0}, state.Proven)
	s.mu.Lock()
	defer s.mu.Unlock()
	require.NotEmpty(t, s.calls)
	old, fresh := state.In(0).Old, r.session.Current()
	from, err := old.Placement(0)
	require.NoError(t, err)
	to, err := fresh.Placement(0)
	require.NoError(t, err)
	for _, c := range s.calls {
		require.Equal(t, from.Owner("db", moving).URL, c.Source)
		require.Equal(t, to.Owner("db", moving).URL, c.Destination)
		require.True(t, c.Overrule)
		require.Equal(t, moving, c.Slices[0].Measurement)
	}
	for round := 1; round < 4; round++ {
		notes, err := r.ledger.Notes(t.Context(), op.ID, round)
		require.NoError(t, err)
		require.Empty(t, notes, "they are forgotten with the operation")
	}
}

// TestOnlyWhatIsHeldIsSaidToBe: what the settler may bring to the end that rules is said
// slice by slice, and is true: a measurement that was first written to after the hold
// was asked for is not held yet.
func TestOnlyWhatIsHeldIsSaidToBe(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 3, 0, named("a", 2)})
	r.run("session", r.session.Run)
	r.opened()
	moving := r.moving()
	heldOnce := false
	s := &settler{session: r.session}
	s.during = func(call int, one mover.Settlement, v *serving.View) mover.Settled {
		for i := range one.Slices {
			of := serving.Measurement{Database: one.Slices[i].Database, Name: one.Slices[i].Measurement}
			if one.Held && !v.Held(of) || !one.Held && v.Held(of) {
				t.Errorf("call %d: %s is said to be held: %v", call, of.Name, one.Held)
			}
			heldOnce = heldOnce || one.Held
		}
		if !one.Held {
			return mover.Settled{Left: one.Slices, Example: "it lacks some"}
		}
		return mover.Settled{}
	}
	first := true
	r.carrier.before = func(context.Context, operation.Task, *operation.Slice) error {
		if first {
			r.write(moving)
			first = false
		}
		return nil
	}
	r.control(s.under)
	r.work(1)
	r.finish(r.submit(add).ID, operation.Succeeded)
	s.mu.Lock()
	defer s.mu.Unlock()
	require.True(t, heldOnce)
	require.False(t, s.calls[0].Held, "writes pass in the first round")
}

// meddler changes an operation as soon as its copy has been settled, which whoever
// drives it finds out when it is to end.
type meddler struct {
	controller.Accord
	meddle func(operation string)

	mu      sync.Mutex
	copying string
}

func (m *meddler) Change(ctx context.Context, change func(*serving.View) (serving.State, error)) (*serving.View, error) {
	v, err := m.Accord.Change(ctx, change)
	if err != nil {
		return v, err
	}
	m.mu.Lock()
	was, copying := m.copying, ""
	for _, c := range v.State.Copies {
		if !c.Settled {
			copying = c.Operation
		}
	}
	m.copying = copying
	m.mu.Unlock()
	if was != "" && copying == "" {
		m.meddle(was)
	}
	return v, err
}

// What was cut over stays so when the operation cannot be ended in the same moment.
func TestSettlingIsDoneOnce(t *testing.T) {
	t.Parallel()
	limit := int64(5)
	for name, meddle := range map[string]func(*rig, string){
		"limits": func(r *rig, id string) {
			_, err := r.controls().SetLimits(t.Context(), id, operation.LimitsPatch{PointsPerSecond: operation.LimitChange{Given: true, To: &limit}}, by(""))
			require.NoError(r.t, err)
		},
		"a pause": func(r *rig, id string) {
			_, err := r.controls().Pause(t.Context(), id, by(""))
			require.NoError(r.t, err)
			_, err = r.controls().Resume(t.Context(), id, by(""))
			require.NoError(r.t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, ttl, work{0, 1, 0, named("a", 2)})
			r.opened()
			s := &settler{session: r.session}
			met := make(chan string, 1)
			r.control(s.under, func(o *controller.Options) {
				o.Accord = &meddler{Accord: r.session, meddle: func(id string) {
					meddle(r, id)
					met <- id
				}}
			})
			r.work(1)
			op := r.submit(add)
			end := r.finish(op.ID, operation.Succeeded)
			require.Equal(t, op.ID, await(t, met, "somebody has come between"))
			require.Nil(t, end.Error)
			require.Eventually(t, func() bool { return len(r.session.View().State.Copies) == 0 }, patience, tick, "nothing is left of the copy")
		})
	}
}

// What keeps differing while writes wait is compared again, and in the end not
// believed: the old owners go on being read, and nothing is held any more.
func TestWhatCannotBeSettledIsNotCutOver(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 3, 0, named("a", 2)})
	r.run("session", r.session.Run)
	r.opened()
	moving := r.moving()
	s := &settler{session: r.session, during: func(_ int, one mover.Settlement, _ *serving.View) mover.Settled {
		return mover.Settled{Left: one.Slices, Example: "different: m"}
	}}
	first := true
	r.carrier.before = func(context.Context, operation.Task, *operation.Slice) error {
		if first {
			r.write(moving)
			first = false
		}
		return nil
	}
	r.control(s.under)
	r.work(1)
	op := r.finish(r.submit(add).ID, operation.PartiallyFailed)
	require.Equal(t, "not_settled", op.Error.Code)
	require.Contains(t, op.Error.Detail, "different: m")
	view := r.session.View()
	require.Equal(t, serving.WriteBoth, view.State.In(0).Step)
	require.Empty(t, view.State.Copies)
	require.False(t, view.Holds())
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Contains(t, s.held, true, "it was tried while writes waited")
	require.False(t, s.held[0], "and before that while they went on")
}

// A circle of which nothing has to be moved is cut over all the same; one of which
// only a part was asked for is not.
func TestNothingToMoveIsCutOver(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	r.run("session", r.session.Run)
	r.opened()
	s := &settler{session: r.session}
	r.control(s.under)
	r.work(1)
	r.finish(r.submit(`{"circle_id":0,"operation":"add","databases":["db"]}`).ID, operation.Succeeded)
	require.Equal(t, serving.WriteBoth, r.session.View().State.In(0).Step, "other databases have not been looked at")
	r.finish(r.submit(add).ID, operation.Succeeded)
	require.Equal(t, serving.ReadNew, r.session.View().State.In(0).Step)
}

// An operation that would take new owners for complete waits until they are written
// to, and one that is no rebalance is refused.
func TestOperationsInATransition(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 3, 0, named("a", 1)})
	r.run("session", r.session.Run)
	r.adopt(config(t, 4))
	require.Eventually(t, func() bool { return r.session.Current().Epoch == 2 }, patience, tick)
	s := &settler{session: r.session}
	r.control(s.under)
	r.work(1)
	op := r.submit(add)
	wait := r.awaitWait(op.ID, "transition")
	require.Contains(t, wait.Measured, "opening")
	r.change(func(s serving.State) (serving.State, error) { return s.Stepped(0, serving.Opening, "", time.Now()) })
	r.finish(op.ID, operation.Succeeded)
	again, _, err := r.intake.Submit(t.Context(), operation.Request{Kind: operation.KindClear, Parameters: json.RawMessage(`{"circle_id":0}`), RequestedBy: "test", Origin: "127.0.0.1"})
	require.NoError(t, err)
	ended := r.finish(again.ID, operation.Failed)
	require.Equal(t, "transition_open", ended.Error.Code)
}

// A controller that dies while it settles takes nothing with it: the next one looks
// at what was noted in every round.
func TestSettlingIsTakenOver(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 3, 0, named("a", 2)})
	r.run("session", r.session.Run)
	r.opened()
	moving := r.moving()
	reached := make(chan struct{})
	s := &settler{session: r.session}
	dying := &stopped{reached: reached}
	first := true
	r.carrier.before = func(context.Context, operation.Task, *operation.Slice) error {
		if first {
			r.write(moving)
			first = false
		}
		return nil
	}
	dead := r.control(func(o *controller.Options) { o.Accord, o.Settler = r.session, dying })
	r.work(1)
	op := r.submit(add)
	await(t, reached, "the settlement begins")
	dead.stop()
	r.control(s.under)
	r.finish(op.ID, operation.Succeeded)
	require.Equal(t, serving.ReadNew, r.session.View().State.In(0).Step)
	s.mu.Lock()
	defer s.mu.Unlock()
	require.NotEmpty(t, s.calls, "what the first controller had begun is not forgotten")
	require.Equal(t, moving, s.calls[0].Slices[0].Measurement)
}

// stopped is a Settler that does not come to an end by itself.
type stopped struct {
	reached chan struct{}
	once    sync.Once
}

func (s *stopped) Settle(ctx context.Context, _ *operation.Operation, _ mover.Settlement) (mover.Settled, error) {
	s.once.Do(func() { close(s.reached) })
	<-ctx.Done()
	return mover.Settled{}, context.Cause(ctx)
}

// A backend that gets writes waiting for it while it is compared has not been
// compared with what was acknowledged: reads move over when it has been again.
func TestNothingIsCutOverBesideABacklog(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl, work{0, 3, 0, named("a", 2)})
	r.run("session", r.session.Run)
	r.opened()
	moving := r.moving()
	const down = "http://b0:1"
	held := make(chan struct{})
	s := &settler{session: r.session}
	s.during = func(_ int, _ mover.Settlement, v *serving.View) mover.Settled {
		if v.Holds() && v.Mode(down) == serving.Direct && len(s.calls) < 4 {
			r.change(func(s serving.State) (serving.State, error) {
				return s.WithMode(down, serving.Direct, serving.Suspect, "down", time.Now())
			})
			close(held)
		}
		return mover.Settled{}
	}
	writes := 0
	r.carrier.before = func(context.Context, operation.Task, *operation.Slice) error {
		if writes++; writes == 1 {
			r.write(moving)
		}
		return nil
	}
	// Something has to be left for the round that holds writes.
	first := s.during
	s.during = func(call int, one mover.Settlement, v *serving.View) mover.Settled {
		if call == 1 {
			return mover.Settled{Left: one.Slices}
		}
		return first(call, one, v)
	}
	r.control(s.under)
	r.work(1)
	op := r.submit(add)
	await(t, held, "writes are held")
	r.awaitWait(op.ID, "hints")
	require.Equal(t, serving.WriteBoth, r.session.View().State.In(0).Step)
	for _, step := range [][2]serving.Mode{
		{serving.Suspect, serving.Hinting}, {serving.Hinting, serving.Draining}, {serving.Draining, serving.Handover}, {serving.Handover, serving.Direct},
	} {
		r.change(func(s serving.State) (serving.State, error) {
			return s.WithMode(down, step[0], step[1], "", time.Now())
		})
	}
	r.finish(op.ID, operation.Succeeded)
	require.Equal(t, serving.ReadNew, r.session.View().State.In(0).Step)
}
