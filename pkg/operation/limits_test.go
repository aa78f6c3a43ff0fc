package operation_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/operation"
)

func TestAPatchChangesWhatItGives(t *testing.T) {
	t.Parallel()
	number := func(most int64) *rapid.Generator[*int64] { return rapid.Ptr(rapid.Int64Range(1, most), true) }
	rapid.Check(t, func(t *rapid.T) {
		slots := func(name string) *int {
			return rapid.Ptr(rapid.IntRange(1, operation.MaxSlotsPerBackend), true).Draw(t, name)
		}
		was := operation.Limits{
			PointsPerSecond: number(operation.MaxPointsPerSecond).Draw(t, "points"),
			BytesPerSecond:  number(operation.MaxBytesPerSecond).Draw(t, "bytes"), SlotsPerBackend: slots("slots"),
		}
		want, keys := was, map[string]any{}
		if rapid.Bool().Draw(t, "points given") {
			want.PointsPerSecond = number(operation.MaxPointsPerSecond).Draw(t, "new points")
			keys["points_per_second"] = want.PointsPerSecond
		}
		if rapid.Bool().Draw(t, "bytes given") {
			want.BytesPerSecond = number(operation.MaxBytesPerSecond).Draw(t, "new bytes")
			keys["bytes_per_second"] = want.BytesPerSecond
		}
		if rapid.Bool().Draw(t, "slots given") {
			want.SlotsPerBackend = slots("new slots")
			keys["slots_per_backend"] = want.SlotsPerBackend
		}
		raw, err := json.Marshal(keys)
		require.NoError(t, err)
		var p operation.LimitsPatch
		require.NoError(t, json.Unmarshal(raw, &p))
		require.NoError(t, p.Check())
		require.Equal(t, len(keys) == 0, p.None())
		got := p.Apply(was)
		require.True(t, got.Equal(want), "%s patched by %s is %s", was, raw, got)
		require.NoError(t, got.Check(""))
		require.Equal(t, want, got)
		require.Equal(t, was.Equal(want), was.String() == want.String())
	})
}

func TestLimitsHaveBounds(t *testing.T) {
	t.Parallel()
	for raw, field := range map[string]string{
		`{"points_per_second":0}`:              "limits.points_per_second",
		`{"points_per_second":1000000001}`:     "limits.points_per_second",
		`{"bytes_per_second":-1}`:              "limits.bytes_per_second",
		`{"bytes_per_second":1000000000001}`:   "limits.bytes_per_second",
		`{"slots_per_backend":0}`:              "limits.slots_per_backend",
		`{"slots_per_backend":10001}`:          "limits.slots_per_backend",
		`{"points_per_second":1}`:              "",
		`{"bytes_per_second":1000000000000}`:   "",
		`{"slots_per_backend":10000}`:          "",
		`{"points_per_second":null}`:           "",
		`{"points_per_second":1000000000}`:     "",
		`{"points_per_second":1, "x": "none"}`: "",
	} {
		var l operation.Limits
		require.NoError(t, json.Unmarshal([]byte(raw), &l))
		err := l.Check("limits.")
		var p operation.LimitsPatch
		require.NoError(t, json.Unmarshal([]byte(raw), &p))
		if field == "" {
			require.NoError(t, err, raw)
			require.NoError(t, p.Check(), raw)
			continue
		}
		var invalid *operation.InvalidError
		require.ErrorAs(t, err, &invalid, raw)
		require.Equal(t, field, invalid.Field)
		require.Error(t, p.Check(), raw)
	}
}

func TestABackendWithoutLimitsOfItsOwnHasTheDefault(t *testing.T) {
	t.Parallel()
	one, two := int64(1), int64(2)
	b := operation.BackendLimits{
		Default:  operation.Limits{PointsPerSecond: &one},
		Backends: map[string]operation.Limits{"http://b": {BytesPerSecond: &two}},
	}
	require.Equal(t, operation.Limits{PointsPerSecond: &one}, b.Of("http://a"))
	require.Equal(t, operation.Limits{BytesPerSecond: &two}, b.Of("http://b"), "complete, not added")
	same := b
	require.True(t, b.Equal(same))
	require.False(t, b.Equal(operation.BackendLimits{Default: b.Default}))
	require.Equal(t, "none", operation.Limits{}.String())
}
