package operation_test

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/operation"
)

func evidence(t *rapid.T) operation.Evidence {
	e := operation.Evidence{
		State:            operation.SliceState(rapid.IntRange(int(operation.SlicePending), int(operation.SliceHandedOver)).Draw(t, "state")),
		DestinationEmpty: rapid.Bool().Draw(t, "empty"),
	}
	if e.State == operation.SlicePending {
		return e
	}
	number := rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{0, 1, -1, math.MaxInt64, math.MinInt64}))
	e.Rows, e.Values, e.Written = number.Draw(t, "rows"), number.Draw(t, "values"), number.Draw(t, "written")
	e.Kept, e.Expired = number.Draw(t, "kept"), number.Draw(t, "expired")
	e.Counts, e.Digest = rapid.Uint64().Draw(t, "counts"), rapid.Uint64().Draw(t, "digest")
	return e
}

func TestCheckpointSurvivesJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := operation.Checkpoint(rapid.SliceOf(rapid.Custom(evidence)).Draw(t, "checkpoint"))
		raw, err := json.Marshal(operation.Task{Checkpoint: c})
		require.NoError(t, err)
		var back operation.Task
		require.NoError(t, json.Unmarshal(raw, &back))
		if len(c) == 0 {
			require.Empty(t, back.Checkpoint)
			return
		}
		require.Equal(t, c, back.Checkpoint)
	})
}

func TestFullCheckpointFitsARecord(t *testing.T) {
	t.Parallel()
	c := make(operation.Checkpoint, operation.MaxSlicesPerTask)
	for i := range c {
		c[i] = operation.Evidence{
			State: operation.SliceCopied, DestinationEmpty: true, Rows: 100_000, Values: 1_000_000, Written: 100_000,
			Counts: math.MaxUint64, Digest: math.MaxUint64,
		}
	}
	raw, err := json.Marshal(c)
	require.NoError(t, err)
	require.Less(t, len(raw), 256<<10)
}

func TestCheckpointRefusesWhatItDidNotMake(t *testing.T) {
	t.Parallel()
	pack := func(b ...byte) string { return `"` + base64.RawStdEncoding.EncodeToString(b) + `"` }
	for name, raw := range map[string]string{
		"a number":             `7`,
		"not base64":           `"*"`,
		"nothing":              `""`,
		"another version":      pack(3, 0),
		"no count":             pack(2),
		"a count for nothing":  pack(2, 5),
		"an enormous count":    pack(2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1),
		"an entry cut off":     pack(2, 1, 2, 0, 0),
		"a hash cut off":       pack(2, 1, 2, 0, 0, 0, 0, 0, 1, 2, 3),
		"a state unheard of":   pack(2, 1, 0x80),
		"something at the end": pack(2, 1, 0, 0),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var c operation.Checkpoint
			require.Error(t, json.Unmarshal([]byte(raw), &c))
		})
	}
	c := operation.Checkpoint{{State: operation.SliceFailed}}
	require.NoError(t, json.Unmarshal([]byte(`null`), &c))
	require.Nil(t, c)
}

// FuzzCheckpoint: any bytes are refused or are a checkpoint that packs to
// something equal; and a few bytes never become many entries.
func FuzzCheckpoint(f *testing.F) {
	for _, c := range []operation.Checkpoint{
		{},
		{{}, {State: operation.SliceCopied, Rows: 1, Counts: 7, Digest: 9}},
		{{State: operation.SliceHandedOver, DestinationEmpty: true}},
	} {
		raw, err := json.Marshal(c)
		require.NoError(f, err)
		var text string
		require.NoError(f, json.Unmarshal(raw, &text))
		packed, err := base64.RawStdEncoding.DecodeString(text)
		require.NoError(f, err)
		f.Add(packed)
	}
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, packed []byte) {
		raw, err := json.Marshal(base64.RawStdEncoding.EncodeToString(packed))
		require.NoError(t, err)
		var c operation.Checkpoint
		if json.Unmarshal(raw, &c) != nil {
			return
		}
		require.LessOrEqual(t, len(c), len(packed))
		again, err := json.Marshal(c)
		require.NoError(t, err)
		var back operation.Checkpoint
		require.NoError(t, json.Unmarshal(again, &back))
		require.Equal(t, c, back)
	})
}
