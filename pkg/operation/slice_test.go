package operation_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/operation"
)

func TestSliceTimesAreRFC3339(t *testing.T) {
	t.Parallel()
	raw, err := json.Marshal(operation.Slice{Database: "d", RetentionPolicy: "p", Measurement: "m", From: 1, To: 1_700_000_000_000_000_000})
	require.NoError(t, err)
	require.JSONEq(t, `{"database":"d","retention_policy":"p","measurement":"m",
		"from":"1970-01-01T00:00:00.000000001Z","to":"2023-11-14T22:13:20Z"}`, string(raw))
}

func TestSliceSurvivesJSONAtAnyTime(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		times := rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{math.MinInt64, math.MinInt64 + 2, -1, 0, math.MaxInt64 - 1, math.MaxInt64}))
		want := operation.Slice{
			Database: "d", RetentionPolicy: "p", Measurement: rapid.String().Draw(t, "measurement"),
			From: times.Draw(t, "from"), To: times.Draw(t, "to"), Last: rapid.Bool().Draw(t, "last"),
			Points: rapid.Int64().Draw(t, "points"), Overlap: rapid.Bool().Draw(t, "overlap"), Expired: rapid.Bool().Draw(t, "expired"),
		}
		raw, err := json.Marshal(want)
		require.NoError(t, err)
		var have operation.Slice
		require.NoError(t, json.Unmarshal(raw, &have))
		require.Equal(t, want, have)
	})
}
