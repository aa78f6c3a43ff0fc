package influx_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDiskBytes: by database, over all policies and shards, of a running server and of
// one that has started again; what is nobody's data does not count.
func TestDiskBytes(t *testing.T) {
	t.Parallel()
	s, c := start(t)
	sizes, err := c.DiskBytes(t.Context())
	require.NoError(t, err)
	require.Empty(t, sizes)
	s.Exec("CREATE DATABASE small; CREATE DATABASE large; CREATE RETENTION POLICY other ON large DURATION INF REPLICATION 1; CREATE DATABASE _ringmaster; CREATE DATABASE empty")
	var b strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&b, "m,host=h%d v=%d.5,s=\"value %d\" %d\n", i%7, i, i*i, i*1000)
	}
	s.WriteLines("large", "", b.String())
	s.WriteLines("large", "other", b.String())
	s.WriteLines("small", "", "m v=1 1")
	s.WriteLines("_ringmaster", "", "m v=1 1")
	check := func() {
		sizes, err = c.DiskBytes(t.Context())
		require.NoError(t, err)
		require.Len(t, sizes, 2)
		require.Positive(t, sizes["small"])
		require.Greater(t, sizes["large"], 20*sizes["small"])
	}
	check()
	s.Kill()
	s.Restart()
	check()
}
