package influx_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
)

// The question whether a server knows unsigned integers leaves nothing behind.
func TestTakesUnsigned(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"stock": false, "unsigned": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var o []influxtest.Option
			if want {
				o = append(o, influxtest.WithUnsigned())
			}
			s := influxtest.Start(t, o...)
			s.Exec("CREATE DATABASE d")
			c, err := influx.New(influx.Endpoint{URL: s.URL()}, influx.Options{})
			require.NoError(t, err)
			t.Cleanup(c.Close)
			got, err := c.TakesUnsigned(t.Context(), "d")
			require.NoError(t, err)
			require.Equal(t, want, got)
			require.Empty(t, s.Query("SHOW MEASUREMENTS ON d")[0].Series)
			groups, err := c.ShardGroups(t.Context())
			require.NoError(t, err)
			require.Empty(t, groups)
			got, err = c.TakesUnsigned(t.Context(), "unknown")
			require.NoError(t, err)
			require.True(t, got, "nothing is known")
		})
	}
}
