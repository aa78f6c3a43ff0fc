package controller

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// history makes the task records of a made-up operation and counts along.
type history struct {
	T     *rapid.T
	tasks taskSet
	want  operation.Progress
	waits int
	phase int
}

func (h *history) put(t operation.Task, belongs bool) {
	h.tasks[t.ID] = ledger.Versioned[operation.Task]{Value: t, Revision: 1}
	if !belongs {
		return
	}
	if t.Phase == operation.PhaseCopy && t.Round == 1 {
		h.want.Points.Copied += t.Points.Copied
	}
	h.want.Points.Verified += t.Points.Verified
	h.want.Bytes.Read += t.Bytes.Read
	h.want.Bytes.Written += t.Bytes.Written
	switch t.State {
	case operation.TaskDone:
		h.want.Tasks.Done++
	case operation.TaskFailed:
		h.want.Tasks.Failed++
	case operation.TaskRunning:
		h.want.Tasks.Running++
		h.waits += len(t.Waits)
	case operation.TaskWaiting:
		h.waits += len(t.Waits)
	}
	if t.Phase == operation.PhaseCopy {
		h.want.Tasks.Total += 2
	}
	step := 2 * t.Round
	if t.Phase == operation.PhaseVerify {
		step++
	}
	if step > h.phase {
		h.phase, h.want.Phase = step, t.Phase
	}
}

func (h *history) task(id string, phase operation.Phase, round int) operation.Task {
	state := rapid.SampledFrom([]operation.TaskState{
		operation.TaskWaiting, operation.TaskRunning, operation.TaskFailed, operation.TaskDone, operation.TaskDone, operation.TaskDone, operation.TaskDone,
	}).Draw(h.T, "state of "+id)
	t := operation.Task{ID: id, Phase: phase, Round: round, State: state, Source: rapid.SampledFrom([]string{"a", "b"}).Draw(h.T, "source")}
	t.Points.Copied = rapid.Int64Range(0, 50).Draw(h.T, "copied")
	t.Points.Verified = rapid.Int64Range(0, 50).Draw(h.T, "verified")
	t.Bytes.Read, t.Bytes.Written = t.Points.Copied*7, t.Points.Verified*3
	if rapid.Bool().Draw(h.T, "waits") {
		t.Waits = []operation.Wait{{Gate: "g", TaskID: id}}
	}
	return t
}

// copied makes a copy task, what came of it and its verification, and reports
// whether all of it is proven.
func (h *history) copied(id string, round, depth int, belongs bool, parent string) bool {
	t := h.task(id, operation.PhaseCopy, round)
	t.Parent = parent
	proven := t.State == operation.TaskDone
	for i := range rapid.IntRange(0, 2).Draw(h.T, "children") * min(depth, 1) {
		child := fmt.Sprintf("%s-1-%d", id, i+1)
		named := rapid.Bool().Draw(h.T, "named")
		if named {
			t.Children = append(t.Children, child)
		}
		there := h.copied(child, round, depth-1, belongs && named, id)
		proven = proven && (there || !named)
	}
	h.put(t, belongs)
	if !t.State.Ended() || rapid.Bool().Draw(h.T, "not verified yet") {
		return false
	}
	v := h.task(verifyTaskID(round, id), operation.PhaseVerify, round)
	v.Of = id
	if v.State == operation.TaskDone {
		v.Verdict = &operation.Verdict{}
		if rapid.IntRange(0, 3).Draw(h.T, "unproven") == 0 {
			v.Verdict.Unproven = []int{0}
		}
	}
	// A verification is made for tasks of the operation only.
	if belongs {
		h.put(v, true)
	}
	proven = proven && belongs && v.State == operation.TaskDone
	if v.Verdict == nil || len(v.Verdict.Unproven) == 0 {
		return proven
	}
	if round == maxRounds || !belongs || rapid.Bool().Draw(h.T, "not copied again yet") {
		return false
	}
	return h.copied(recopyTaskID(round+1, id), round+1, depth, true, "") && proven
}

// The aggregate of any set of tasks is what counting them one by one gives.
func TestAggregateCountsWhatIsThere(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		h := &history{T: rt, tasks: taskSet{}}
		h.want.Phase = operation.PhaseCopy
		n := rapid.IntRange(1, 6).Draw(rt, "tasks")
		plan := &operation.Plan{Backends: []operation.PlanBackend{{Name: "a", URL: "a", Databases: 3, Measurements: 20}, {Name: "b", URL: "b", Databases: 3, Measurements: 20}}}
		chunks := make([][]operation.Slice, 2)
		type place struct {
			from         int
			db, measured string
		}
		open, all := map[place]bool{}, map[place]bool{}
		moving := map[int]int{}
		planned := 0
		for i := range n {
			task := operation.PlanTask{From: i % 2, To: 1 - i%2, Span: operation.Span{Chunk: i % 2, First: len(chunks[i%2])}}
			var places []place
			for range rapid.IntRange(1, 4).Draw(rt, "slices") {
				p := place{task.From, rapid.SampledFrom([]string{"d1", "d2"}).Draw(rt, "db"), rapid.SampledFrom([]string{"m1", "m2", "m3"}).Draw(rt, "m")}
				places = append(places, p)
				chunks[i%2] = append(chunks[i%2], operation.Slice{Database: p.db, Measurement: p.measured})
				task.Span.Count++
			}
			task.Points = rapid.Int64Range(0, 1000).Draw(rt, "points")
			plan.Tasks = append(plan.Tasks, task)
			plan.Totals.Points += task.Points
			proven := false
			if rapid.IntRange(0, 5).Draw(rt, "made") > 0 {
				proven = h.copied(copyTaskID(i), 1, 2, true, "")
				planned++
			}
			for _, p := range places {
				if !all[p] {
					all[p] = true
					moving[p.from]++
				}
				open[p] = open[p] || !proven
			}
		}
		plan.Totals.Measurements = len(all)
		names := map[string]bool{}
		for p := range all {
			names[p.db] = true
		}
		plan.Totals.Databases = len(names)
		for from, m := range moving {
			plan.Moves = append(plan.Moves, operation.PlanMove{From: from, To: 1 - from, Measurements: m})
			plan.Backends[from].InPlace = 20 - m
		}
		a, err := newAggregate(plan, func(i int) ([]operation.Slice, error) { return chunks[i], nil })
		require.NoError(rt, err)
		for range 2 { // counting again counts nothing twice
			got := a.update(h.tasks).progress(time.Unix(1, 0))
			h.want.Tasks.Total = max(h.want.Tasks.Total, 2*n)
			h.want.Tasks.Waiting = h.want.Tasks.Total - h.want.Tasks.Done - h.want.Tasks.Failed - h.want.Tasks.Running
			require.Equal(rt, h.want.Tasks, got.Tasks)
			require.Equal(rt, h.want.Phase, got.Phase)
			require.Equal(rt, h.want.Bytes, got.Bytes)
			// Once every task is there, what they had or still expect counts; here
			// none expects more than it had.
			estimated := plan.Totals.Points
			if planned == n {
				estimated = h.want.Points.Copied
			}
			require.Equal(rt, operation.PointCounts{Estimated: estimated, Copied: h.want.Points.Copied, Verified: h.want.Points.Verified}, got.Points)
			require.Len(rt, a.waits, h.waits)

			// A database that moves from several backends is one.
			done, databases := 0, map[string]bool{}
			moved := map[int]int{}
			for p := range all {
				databases[p.db] = databases[p.db] || open[p]
				if !open[p] {
					done++
					moved[p.from]++
				}
			}
			doneDatabases := 0
			for _, stillOpen := range databases {
				if !stillOpen {
					doneDatabases++
				}
			}
			require.Equal(rt, operation.Done{Total: len(all), Done: done}, got.Measurements)
			require.Equal(rt, operation.Done{Total: len(databases), Done: doneDatabases}, got.Databases)
			var sum operation.PointCounts
			for i := range plan.Backends {
				row := got.Backends[plan.Backends[i].URL]
				sum.Estimated += row.Points.Estimated
				sum.Copied += row.Points.Copied
				sum.Verified += row.Points.Verified
				require.Equal(rt, moved[i], row.Moved)
				require.Equal(rt, 20, row.Measurements.Total)
				require.Equal(rt, 20-moving[i]+moved[i], row.Measurements.Done)
			}
			require.Equal(rt, got.Points, sum, "every point comes from a backend")
		}
		require.LessOrEqual(rt, planned, n)
	})
}

func TestRateAndETA(t *testing.T) {
	t.Parallel()
	var r rate
	at := time.Unix(1000, 0)
	require.Zero(t, r.at(at, operation.PhaseCopy, 500), "what was copied before it began to look says nothing")
	require.InDelta(t, 100, r.at(at.Add(time.Second), operation.PhaseCopy, 600), 1e-9)
	require.InDelta(t, 200, r.at(at.Add(2*time.Second), operation.PhaseCopy, 900), 1e-9)
	// Only the last seconds count.
	for i := range 100 {
		require.Positive(t, r.at(at.Add(time.Duration(2+i)*time.Second), operation.PhaseCopy, int64(900+10*i)))
	}
	require.InDelta(t, 10, r.at(at.Add(102*time.Second), operation.PhaseCopy, 900+10*100), 1e-9)
	require.LessOrEqual(t, len(r.samples), rateSamples+1)
	// A standstill shows.
	for i := range 20 {
		r.at(at.Add(time.Duration(103+i)*time.Second), operation.PhaseCopy, 1900)
	}
	require.Zero(t, r.at(at.Add(124*time.Second), operation.PhaseCopy, 1900))
	require.Zero(t, r.at(at.Add(125*time.Second), operation.PhaseVerify, 0), "a phase begins anew")
	// A clock that stands still or goes back gives no rate, rather than a wrong one.
	require.Zero(t, r.at(at.Add(125*time.Second), operation.PhaseVerify, 100))
	require.Zero(t, r.at(at, operation.PhaseVerify, 100))

	a := emptyAggregate(&operation.Plan{Totals: operation.PlanTotals{Points: 1000}})
	require.Nil(t, a.progress(at).ETASeconds)
	a.points.Copied = 100
	p := a.progress(at.Add(time.Second))
	require.InDelta(t, 100, p.PointsPerSecond, 1e-9)
	require.InDelta(t, 9+10*verifyShare, *p.ETASeconds, 1e-9, "the verification is to come")
	a.points.Copied = 5000 // far more than was estimated
	require.InDelta(t, 1000*verifyShare/2500, *a.progress(at.Add(2 * time.Second)).ETASeconds, 1e-9)
}

// What a plan says that cannot be is found before anything rests on it.
func TestAggregateOfAPlanThatIsDamaged(t *testing.T) {
	t.Parallel()
	for _, span := range []operation.Span{{First: 1, Count: 2}, {First: -1, Count: 1}, {First: 1, Count: -1}} {
		_, err := newAggregate(&operation.Plan{Tasks: []operation.PlanTask{{Span: span}}}, func(int) ([]operation.Slice, error) {
			return make([]operation.Slice, 2), nil
		})
		require.ErrorIs(t, err, ledger.ErrUnreadable)
	}
	for _, p := range []operation.Plan{
		{Tasks: []operation.PlanTask{{From: 1}}, Backends: make([]operation.PlanBackend, 1), Chunks: make([]operation.Document, 1)},
		{Tasks: []operation.PlanTask{{Span: operation.Span{Chunk: 1}}}, Backends: make([]operation.PlanBackend, 1), Chunks: make([]operation.Document, 1)},
		{Moves: []operation.PlanMove{{To: -1}}, Backends: make([]operation.PlanBackend, 1)},
		{Policies: []operation.PlanPolicy{{}}},
	} {
		require.ErrorIs(t, checkPlan(&p), ledger.ErrUnreadable)
	}
}

// Records that refer to each other in a circle end nothing and hang nothing.
func TestCirclesOfTasks(t *testing.T) {
	t.Parallel()
	tasks := taskSet{}
	for _, ids := range [][2]string{{"a", "b"}, {"b", "a"}, {"c", "c"}} {
		tasks[ids[0]] = ledger.Versioned[operation.Task]{Value: operation.Task{
			ID: ids[0], Parent: ids[1], Children: []string{ids[1]}, State: operation.TaskDone, Phase: operation.PhaseCopy, Round: 1,
		}}
	}
	turn := &turn{tasks: tasks, wanted: map[string]*operation.Task{"a": {ID: "a"}, "c": {ID: "c"}}}
	require.Empty(t, turn.of(operation.PhaseCopy, 1))
	require.True(t, turn.allEnded())
	require.Len(t, turn.current(), 2)
	require.True(t, slices.IsSortedFunc(turn.current(), func(a, b *operation.Task) int { return len(a.ID) - len(b.ID) }))
	require.False(t, proven("a", 1, tasks))
}
