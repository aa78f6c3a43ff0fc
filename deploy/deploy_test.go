// Package deploy_test checks the examples in this directory; the configuration
// of NATS is checked in pkg/bus, which alone knows NATS.
package deploy_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/topology"
)

func TestExampleConfigurationIsValid(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("proxy.json")
	require.NoError(t, err)
	c, err := topology.Parse("proxy.json", raw)
	require.NoError(t, err)
	require.Empty(t, c.Warnings)
	require.Len(t, c.Circles, 2)
	for _, circle := range c.Circles {
		require.Len(t, circle.Backends, 2)
	}
}
