package influx_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
)

func TestCardinality(t *testing.T) {
	t.Parallel()
	for _, index := range []string{"inmem", "tsi1"} {
		t.Run(index, func(t *testing.T) {
			t.Parallel()
			s := influxtest.Start(t, influxtest.WithIndex(index))
			s.Exec("CREATE DATABASE d; CREATE RETENTION POLICY other ON d DURATION INF REPLICATION 1")
			s.WriteLines("d", "", "m,k=a v=1 1\nm,k=b v=1 1\nm,k=a v=1 1600000000000000000\n_x,k=a v=1 1\n_xy,k=a v=1 1")
			s.WriteLines("d", "other", "m,k=c v=1 1")
			c, err := influx.New(influx.Endpoint{URL: s.URL()}, influx.Options{})
			require.NoError(t, err)
			t.Cleanup(c.Close)
			for _, want := range []struct {
				policy, measurement string
				series              int64
			}{{"autogen", "m", 2}, {"other", "m", 1}, {"autogen", "_x", 1}, {"autogen", "none", 0}} {
				n, err := c.Cardinality(t.Context(), influx.Selection{Database: "d", RetentionPolicy: want.policy, Measurement: want.measurement})
				require.NoError(t, err)
				require.Equal(t, want.series, n, "%+v", want)
			}
		})
	}
}
