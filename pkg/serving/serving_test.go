package serving_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// cluster has a circle for each number, of so many backends.
func cluster(epoch uint64, sizes ...int) *topology.Topology {
	t := &topology.Topology{Epoch: epoch, HashKey: "idx", ShardKey: "%db,%mm", VNodes: 256}
	for c, n := range sizes {
		circle := topology.Circle{ID: c, Name: fmt.Sprint("c", c)}
		for b := range n {
			circle.Backends = append(circle.Backends, topology.Backend{Name: fmt.Sprintf("b%d-%d", c, b), URL: fmt.Sprintf("http://b%d-%d:8086", c, b)})
		}
		t.Circles = append(t.Circles, circle)
	}
	t.Digest = t.ComputeDigest()
	return t
}

func view(t require.TestingT, topo *topology.Topology, s serving.State) *serving.View {
	v, err := serving.NewView(1, topo, s)
	require.NoError(t, err)
	return v
}

func urls(targets []serving.Target, circle int) []string {
	var all []string
	for _, t := range targets {
		if t.Circle == circle {
			all = append(all, t.Backend.URL)
		}
	}
	return all
}

// steps is a transition in every step, the last being that there is none.
func steps(t require.TestingT, s serving.State, circle int) []serving.State {
	all := []serving.State{s}
	for tr := s.In(circle); tr != nil; tr = s.In(circle) {
		var err error
		s, err = s.Stepped(circle, tr.Step, "operation", now)
		require.NoError(t, err)
		all = append(all, s)
	}
	return all
}

// TestNobodyReadsWhatANeighbouringStepDoesNotWrite: processes are at most one step
// apart, so whoever is read by one has to be written to by all of them. Before the
// new owners are read they have been proven, which begins with the second step.
func TestNobodyReadsWhatANeighbouringStepDoesNotWrite(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		before := rapid.IntRange(1, 6).Draw(t, "before")
		after := rapid.IntRange(1, 6).Draw(t, "after")
		m := rapid.StringMatching(`[a-z]{1,8}`).Draw(t, "measurement")
		was, is := cluster(1, before, 3), cluster(2, after, 3)
		state, err := serving.State{}.Changed(was, is, now)
		require.NoError(t, err)
		if before == after {
			require.Empty(t, state.Transitions)
			return
		}
		all := steps(t, state, 0)
		require.Len(t, all, 5)
		for i := range all {
			here := view(t, is, all[i])
			reader := here.Reader(0, "db", m).URL
			require.True(t, slices.ContainsFunc(here.Readers(0), func(b topology.Backend) bool { return b.URL == reader }))
			for _, j := range []int{i - 1, i, i + 1} {
				if j < 0 || j >= len(all) {
					continue
				}
				writers := view(t, is, all[j]).Writers(nil, "db", m)
				require.Contains(t, urls(writers, 0), reader, "read in step %d, not written in step %d", i, j)
				require.Len(t, urls(writers, 1), 1, "the other circle is as it was")
			}
		}
		// The ends are the old and the new ring.
		old, fresh := view(t, was, serving.State{}), view(t, is, serving.State{})
		require.Equal(t, urls(old.Writers(nil, "db", m), 0), urls(view(t, is, all[0]).Writers(nil, "db", m), 0))
		require.Equal(t, urls(fresh.Writers(nil, "db", m), 0), urls(view(t, is, all[4]).Writers(nil, "db", m), 0))
	})
}

func TestChangesOfTheTopology(t *testing.T) {
	t.Parallel()
	open, err := serving.State{}.Changed(cluster(1, 2, 2), cluster(2, 3, 2), now)
	require.NoError(t, err)
	require.Len(t, open.Transitions, 1)
	require.Equal(t, serving.Opening, open.In(0).Step)
	require.Len(t, open.In(0).Old.Circles[0].Backends, 2)
	require.Nil(t, open.In(1))

	_, err = open.Changed(cluster(2, 3, 2), cluster(3, 4, 2), now)
	var still *serving.OpenError
	require.ErrorAs(t, err, &still)
	require.Equal(t, 0, still.Circle)
	require.Contains(t, still.Error(), "rebalance it")

	back, err := open.Changed(cluster(2, 3, 2), cluster(3, 2, 2), now)
	require.NoError(t, err)
	require.Empty(t, back.Transitions, "the old owners have everything")

	cut := steps(t, open, 0)[2]
	require.Equal(t, serving.ReadNew, cut.In(0).Step)
	_, err = cut.Changed(cluster(2, 3, 2), cluster(3, 2, 2), now)
	require.ErrorAs(t, err, &still, "after the cutover there is no way back")

	other, err := open.Changed(cluster(2, 3, 2), cluster(3, 3, 1), now)
	require.NoError(t, err, "another circle may change meanwhile")
	require.Len(t, other.Transitions, 2)

	gone, err := open.Changed(cluster(2, 3, 2), cluster(3, 3), now)
	require.NoError(t, err)
	require.Len(t, gone.Transitions, 1)

	keys := cluster(3, 3, 2)
	keys.HashKey = "exi"
	all, err := serving.State{}.Changed(cluster(2, 3, 2), keys, now)
	require.NoError(t, err)
	require.Len(t, all.Transitions, 2, "another key of the ring changes every circle")

	allowed := cluster(3, 3, 2)
	allowed.Databases = []string{"db"}
	none, err := serving.State{}.Changed(cluster(2, 3, 2), allowed, now)
	require.NoError(t, err)
	require.Empty(t, none.Transitions, "what is allowed places nothing")
}

// A circle that was not there is written to and not read until it has been filled.
func TestANewCircle(t *testing.T) {
	t.Parallel()
	is := cluster(2, 2, 2)
	state, err := serving.State{}.Changed(cluster(1, 2), is, now)
	require.NoError(t, err)
	require.True(t, state.In(1).New())
	all := steps(t, state, 1)
	require.NotEmpty(t, view(t, is, all[0]).Unreadable(1))
	require.Empty(t, urls(view(t, is, all[0]).Writers(nil, "db", "m"), 1), "its backends have no databases yet")
	require.Contains(t, view(t, is, all[1]).Unreadable(1), "recovery")
	require.Len(t, urls(view(t, is, all[1]).Writers(nil, "db", "m"), 1), 1)
	require.Empty(t, view(t, is, all[2]).Unreadable(1))
	require.Empty(t, view(t, is, all[0]).Unreadable(0))
}

func TestStepsFollowOneAnother(t *testing.T) {
	t.Parallel()
	state, err := serving.State{}.Changed(cluster(1, 2), cluster(2, 3), now)
	require.NoError(t, err)
	_, err = state.Stepped(0, serving.WriteBoth, "", now)
	require.ErrorIs(t, err, serving.ErrStep)
	_, err = state.Stepped(1, serving.Opening, "", now)
	require.ErrorIs(t, err, serving.ErrStep)
	next, err := state.Stepped(0, serving.Opening, "", now.Add(time.Hour))
	require.NoError(t, err)
	require.Equal(t, serving.Opening, state.In(0).Step, "what was stays")
	require.Equal(t, now.Add(time.Hour), next.In(0).SteppedAt)
	require.Equal(t, now, next.In(0).OpenedAt)
}

// TestModes walks every pair of modes.
func TestModes(t *testing.T) {
	t.Parallel()
	const url = "http://b"
	allowed := map[[2]serving.Mode]bool{
		{serving.Direct, serving.Suspect}: true, {serving.Suspect, serving.Hinting}: true,
		{serving.Hinting, serving.Draining}: true, {serving.Draining, serving.Hinting}: true,
		{serving.Draining, serving.Handover}: true, {serving.Handover, serving.Draining}: true,
		{serving.Handover, serving.Direct}: true,
	}
	modes := []serving.Mode{serving.Direct, serving.Suspect, serving.Hinting, serving.Draining, serving.Handover}
	for _, from := range modes {
		state := serving.State{}
		if from != serving.Direct {
			state.Backlogs = []serving.Backlog{{Backend: "http://a", Mode: serving.Hinting}, {Backend: url, Mode: from, Reason: "why", Since: now}}
		}
		require.Equal(t, from, state.ModeOf(url))
		require.Equal(t, from == serving.Direct, from.Sends())
		for _, to := range modes {
			next, err := state.WithMode(url, from, to, "", now.Add(time.Hour))
			if !allowed[[2]serving.Mode{from, to}] {
				require.ErrorIs(t, err, serving.ErrStep, "%s to %s", from, to)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, to, next.ModeOf(url))
			require.Equal(t, from, state.ModeOf(url), "what was stays")
			if to != serving.Direct && from != serving.Direct {
				require.Equal(t, serving.Backlog{Backend: url, Mode: to, Reason: "why", Since: now}, next.Backlogs[1])
			}
			for _, wrong := range modes {
				if wrong != from {
					_, err := state.WithMode(url, wrong, to, "", now)
					require.ErrorIs(t, err, serving.ErrStep)
				}
			}
		}
	}
}

func TestCopiesAndMarks(t *testing.T) {
	t.Parallel()
	topo := cluster(1, 2, 2, 2)
	m := serving.Measurement{Database: "db", Name: "m"}
	state := serving.State{}.WithCopy(serving.Copy{Operation: "o", Circles: []int{0, 1}, Round: 1, Fills: []int{1}, Avoid: []int{0}})
	v := view(t, topo, state)
	require.Len(t, v.Noting(0), 1)
	require.Empty(t, v.Noting(2))
	require.Contains(t, v.Unreadable(1), "operation o")
	require.Empty(t, v.Unreadable(0))
	require.True(t, v.Avoided(0))
	require.False(t, v.Avoided(2))
	require.False(t, v.Holds())
	held := state.WithCopy(serving.Copy{Operation: "o", Circles: []int{0, 1}, Round: 2, Hold: []serving.Measurement{m}})
	require.Len(t, held.Copies, 1, "an operation has one copy")
	require.True(t, view(t, topo, held).Held(m))
	require.False(t, view(t, topo, held).Held(serving.Measurement{Database: "db", Name: "other"}))
	require.True(t, view(t, topo, held.WithCopy(serving.Copy{Operation: "p", HoldAll: true})).Held(serving.Measurement{}))
	require.Empty(t, held.WithoutCopy("o").Copies)

	marked := held.WithIncomplete(2, "why", now)
	require.Contains(t, view(t, topo, marked).Unreadable(2), "why")
	again := marked.WithIncomplete(2, "more", now.Add(time.Hour))
	require.Equal(t, []serving.Incomplete{{Circle: 2, Reason: "more", Since: now}}, again.Incomplete)
	require.Empty(t, again.WithIncomplete(2, "", now).Incomplete)
	require.Empty(t, again.WithIncomplete(1, "", now).WithIncomplete(2, "", now).Incomplete)
}

func TestObstaclesAreNamed(t *testing.T) {
	t.Parallel()
	topo := cluster(2, 3)
	require.Empty(t, view(t, topo, serving.State{}).Obstacles())
	state, err := serving.State{}.Changed(cluster(1, 2), topo, now)
	require.NoError(t, err)
	state = state.WithCopy(serving.Copy{Operation: "o"})
	state, err = state.WithMode("http://b", serving.Direct, serving.Suspect, "connection refused", now)
	require.NoError(t, err)
	all := fmt.Sprint(view(t, topo, state).Obstacles())
	for _, what := range []string{"circle 0 is changing", "operation o is copying", "http://b", "connection refused"} {
		require.Contains(t, all, what)
	}
}

// A record is read as it was stored, and Backends names former ones, too.
func TestTheRecord(t *testing.T) {
	t.Parallel()
	state, err := serving.State{}.Changed(cluster(1, 4), cluster(2, 2), now)
	require.NoError(t, err)
	state = state.WithCopy(serving.Copy{Operation: "o", Circles: []int{0}, Round: 3}).WithIncomplete(0, "why", now)
	raw, err := json.Marshal(state)
	require.NoError(t, err)
	var read serving.State
	require.NoError(t, json.Unmarshal(raw, &read))
	again, err := json.Marshal(read)
	require.NoError(t, err)
	require.JSONEq(t, string(raw), string(again))
	require.Len(t, view(t, cluster(2, 2), read).Backends(), 4)
	require.Equal(t, []int{0}, view(t, cluster(2, 2), read).Circles())
	_, err = serving.NewView(1, &topology.Topology{HashKey: "nonsense", Circles: []topology.Circle{{}}}, serving.State{})
	require.Error(t, err)
}
