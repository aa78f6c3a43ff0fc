package topology_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/topology"
)

func TestLimitsOfBackends(t *testing.T) {
	t.Parallel()

	c := parseFile(t, "limits.good.yaml")
	all := c.Limits.Of("http://h1")
	require.Equal(t, "points_per_second 50000, slots_per_backend 4", all.String())
	require.Equal(t, "points_per_second 20000", c.Limits.Of("http://h2").String(), "0 lifts what would hold otherwise")
	require.Equal(t, all, c.Limits.Of("http://h3"))
	require.Equal(t, all, c.Limits.Of("http://removed"))

	plain, err := topology.Parse("proxy.yaml", []byte(`circles: [{name: one, backends: [{name: a, url: "http://h1"}, {name: b, url: "http://h2"}, {name: c, url: "http://h3"}]}]`))
	require.NoError(t, err)
	require.True(t, plain.Limits.Of("http://h1").None())
	require.Equal(t, plain.Topology().Digest, c.Topology().Digest, "limits make no new epoch")
}
