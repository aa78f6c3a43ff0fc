package bus_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus/bustest"
)

func TestFactsOfAnEmbeddedServer(t *testing.T) {
	t.Parallel()
	b, s := bustest.Start(t)
	f, err := b.Facts(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, f.Version)
	require.Empty(t, f.Cluster)
	require.Positive(t, f.RTT)
	specs := events.All(1)
	require.Len(t, f.Streams, len(specs.Streams)+len(specs.Buckets)+len(specs.Objects))
	refusing := 0
	for _, one := range f.Streams {
		require.Equal(t, 1, one.Replicas, one.Name)
		require.Equal(t, 1, one.Current, one.Name)
		require.False(t, one.InMemory || one.Unsynced || one.Leaderless, one.Name)
		if one.Refuses {
			refusing++
		}
	}
	require.Positive(t, refusing)
	disk, err := s.Disk()
	require.NoError(t, err)
	require.Positive(t, disk.Free)
	require.Positive(t, disk.MinFree)
	require.Less(t, disk.Free, disk.Size)

	ahead, within, err := b.Clock(t.Context())
	require.NoError(t, err)
	require.LessOrEqual(t, ahead.Abs(), within+time.Millisecond, "it is the same clock")
}

func TestFactsOfAClusterThatLacksAServer(t *testing.T) {
	t.Parallel()
	_, cluster := bustest.StartCluster(t, 3)
	b := cluster.Connect(0)
	whole := func(replicas int) func() bool {
		return func() bool {
			f, err := b.Facts(t.Context())
			require.NoError(t, err)
			require.NotEmpty(t, f.Cluster)
			require.NotEmpty(t, f.Streams)
			for _, one := range f.Streams {
				require.Equal(t, 3, one.Replicas, one.Name)
				if one.Leaderless || one.Current != replicas || len(one.Behind) != 3-replicas {
					return false
				}
			}
			return true
		}
	}
	eventually(t, whole(3))
	cluster.StopNode(2)
	eventually(t, whole(2))
}
