package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// candidate is the topology of a configuration with n backends.
func candidate(source string, n int) *topology.Topology {
	t := &topology.Topology{HashKey: "idx", ShardKey: "%db,%mm", VNodes: 256, Source: source, Circles: []topology.Circle{{Name: "c"}}}
	for i := range n {
		t.Circles[0].Backends = append(t.Circles[0].Backends, topology.Backend{
			Name: fmt.Sprintf("%s-%d", source, i), URL: fmt.Sprintf("http://%s:%d", source, i),
		})
	}
	return t
}

// Several processes start at once, each with a configuration of its own. One
// epoch follows the other, and what is read of an epoch later is what it was when
// it was the current one.
func testTopologyRace(t *testing.T, e env) {
	first, err := e.here.Topology(t.Context())
	require.NoError(t, err)
	require.Nil(t, first.Value.Current)
	require.Zero(t, first.Revision)

	var mu sync.Mutex
	won := map[uint64]*topology.Topology{}
	together(12, func(i int) {
		l := e.here
		if i%2 == 1 {
			l = e.there
		}
		for {
			was, err := l.Topology(context.Background())
			if err != nil {
				t.Errorf("reading the topology: %v", err)
				return
			}
			_, next := topology.Decide(was.Value.Current, was.Value.Earlier, candidate(fmt.Sprintf("h%d", i), i+1), false, time.Now())
			err = l.StoreTopology(context.Background(), was, next, serving.State{})
			if errors.Is(err, ledger.ErrConflict) {
				continue
			}
			if err != nil {
				t.Errorf("storing the topology: %v", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if won[next.Epoch] != nil {
				t.Errorf("epoch %d was adopted twice", next.Epoch)
			}
			won[next.Epoch] = next
			return
		}
	})
	require.Len(t, won, 12)
	for epoch, adopted := range won {
		read, err := e.there.TopologyAt(t.Context(), epoch)
		require.NoError(t, err)
		require.Equal(t, adopted.Digest, read.Digest, "epoch %d", epoch)
		require.Equal(t, adopted.Source, read.Source)
	}
	last, err := e.here.Topology(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(12), last.Value.Current.Epoch)
	require.Len(t, last.Value.Earlier, 11)
	for _, a := range last.Value.Earlier {
		require.Equal(t, won[a.Epoch].Digest, a.Digest)
	}
}

func testTopologyEpochs(t *testing.T, e env) {
	was, err := e.here.Topology(t.Context())
	require.NoError(t, err)
	current := was.Value.Current
	require.NotNil(t, current)

	// A revision of the current epoch is what its readers see from then on.
	revised := current.Clone()
	revised.Circles[0].Backends[0].Sealed = "new"
	require.NoError(t, e.here.StoreTopology(t.Context(), was, revised, serving.State{}))
	require.ErrorIs(t, e.there.StoreTopology(t.Context(), was, revised, serving.State{}), ledger.ErrConflict)
	read, err := e.there.TopologyAt(t.Context(), current.Epoch)
	require.NoError(t, err)
	require.Equal(t, "new", read.Circles[0].Backends[0].Sealed)

	was, err = e.here.Topology(t.Context())
	require.NoError(t, err)
	require.Len(t, was.Value.Earlier, int(current.Epoch)-1, "a revision is no epoch")
	_, next := topology.Decide(was.Value.Current, was.Value.Earlier, candidate("next", 2), false, time.Now())
	require.NoError(t, e.here.StoreTopology(t.Context(), was, next, serving.State{}))
	read, err = e.there.TopologyAt(t.Context(), current.Epoch)
	require.NoError(t, err)
	require.Equal(t, "new", read.Circles[0].Backends[0].Sealed, "an epoch that has passed is kept as it was last")

	_, err = e.here.TopologyAt(t.Context(), next.Epoch+1)
	require.ErrorIs(t, err, bus.ErrNotFound)
}
