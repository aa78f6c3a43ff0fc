package operations_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/httpapi/httpapitest"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// The topology shows how a circle changes, what that waits for, and how backends get
// their points; where shows the owners of before and now.
func TestTheTopologyShowsTransitionsAndBacklogs(t *testing.T) {
	b := httpapitest.NewBackend()
	b.Revision = 7
	before := b.Cluster.Clone()
	before.Circles[0].Backends = before.Circles[0].Backends[:1]
	var err error
	b.State, err = serving.State{}.Changed(before, b.Cluster, httpapitest.Now())
	require.NoError(t, err)
	url := b.Cluster.Circles[0].Backends[1].URL
	b.State, err = b.State.WithMode(url, serving.Direct, serving.Suspect, "connection refused", httpapitest.Now())
	require.NoError(t, err)
	b.State = b.State.WithIncomplete(1, "recovery o into it has not succeeded", httpapitest.Now())
	c := serve(t, b)

	type backend struct {
		Mode    string
		Backlog struct{ Reason string }
	}
	type cluster struct {
		Revision int
		Circles  []struct {
			Unreadable string
			Backends   []backend
			Transition *struct {
				Step     string
				Epoch    int
				WaitsFor string    `json:"waits_for"`
				Former   []backend `json:"former_backends"`
			}
		}
	}
	got := read[cluster](t, c.Get("/v1/topology"))
	require.Equal(t, 7, got.Revision)
	require.Equal(t, "opening", got.Circles[0].Transition.Step)
	require.Contains(t, got.Circles[0].Transition.WaitsFor, "databases")
	require.Len(t, got.Circles[0].Transition.Former, 1)
	require.Nil(t, got.Circles[1].Transition)
	require.Contains(t, got.Circles[1].Unreadable, "recovery o")
	require.Equal(t, "direct", got.Circles[0].Backends[0].Mode)
	require.Equal(t, "suspect", got.Circles[0].Backends[1].Mode)
	require.Equal(t, "connection refused", got.Circles[0].Backends[1].Backlog.Reason)

	type where struct {
		Owners []struct {
			CircleID      int `json:"circle_id"`
			URL           string
			Read, Written bool
		}
		Former []struct {
			CircleID      int `json:"circle_id"`
			URL           string
			Read, Written bool
		} `json:"former_owners"`
	}
	moved := ""
	p, err := b.Cluster.Placement(0)
	require.NoError(t, err)
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		if p.Owner("db", name).URL == url {
			moved = name
		}
	}
	require.NotEmpty(t, moved)
	for _, step := range []struct {
		leave                               serving.Step
		says                                string
		oldRead, oldWritten, read, isWriten bool
	}{
		{"", "databases", true, true, false, false},
		{serving.Opening, "a rebalance of circle 0", true, true, false, true},
		{serving.WriteBoth, "every read of the old owners", false, true, true, true},
		{serving.ReadNew, "every write to the old owners", false, false, true, true},
	} {
		if step.leave != "" {
			b.State, err = b.State.Stepped(0, step.leave, "o", httpapitest.Now())
			require.NoError(t, err)
		}
		require.Contains(t, read[cluster](t, c.Get("/v1/topology")).Circles[0].Transition.WaitsFor, step.says)
		at := read[where](t, c.Get("/v1/where?db=db&measurement="+moved))
		require.Len(t, at.Former, 1)
		require.Equal(t, before.Circles[0].Backends[0].URL, at.Former[0].URL)
		require.Equal(t, []bool{step.oldRead, step.oldWritten}, []bool{at.Former[0].Read, at.Former[0].Written}, step.says)
		require.Equal(t, url, at.Owners[0].URL)
		require.Equal(t, []bool{step.read, step.isWriten}, []bool{at.Owners[0].Read, at.Owners[0].Written}, step.says)
		require.False(t, at.Owners[1].Read, "an incomplete circle is not read")
	}

	fresh := b.Cluster.Clone()
	fresh.Circles = append(fresh.Circles, topology.Circle{ID: 2, Name: "new", Backends: []topology.Backend{{Name: "n", URL: "http://n:1"}}})
	b.State, err = serving.State{}.Changed(b.Cluster, fresh, httpapitest.Now())
	require.NoError(t, err)
	b.Cluster = fresh
	b.State, err = b.State.Stepped(2, serving.Opening, "", httpapitest.Now())
	require.NoError(t, err)
	got = read[cluster](t, c.Get("/v1/topology"))
	require.Contains(t, got.Circles[2].Transition.WaitsFor, "a recovery into circle 2")
	require.Empty(t, got.Circles[2].Transition.Former)
	require.NotEmpty(t, got.Circles[2].Unreadable)
}
