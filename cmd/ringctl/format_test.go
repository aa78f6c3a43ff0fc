package main

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

func TestNumbersAsAPersonReadsThem(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1k", 1500: "1.5k", 12_345: "12.3k", 123_456: "123k", 999_999: "1M", 2_000_000_000: "2G", math.MaxInt64: "9223372T"} {
		require.Equal(t, want, amount(n))
	}
	for n, want := range map[int64]string{0: "0B", 512: "512B", 1024: "1 KiB", 1536: "1.5 KiB", 1 << 30: "1 GiB"} {
		require.Equal(t, want, size(n))
	}
	for s, want := range map[float64]string{0: "0s", 0.2: "<1s", 59: "59s", 60: "1m", 61: "1m1s", 3600: "1h", 7500: "2h5m", 90000: "1d1h", -1: "-", math.Inf(1): "-"} {
		require.Equal(t, want, seconds(s))
	}
	require.Empty(t, share(1, 0))
	require.Equal(t, "99%", share(999, 1000), "it is not all")
	require.Equal(t, "100%", share(1000, 1000))
	require.Equal(t, "-", cell(" \n"))
	require.Equal(t, "a b [31m", cell("a\nb\t\x1b[31m"), "what comes from elsewhere does not steer the terminal")
}

func TestSpansAndMoments(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"90m": 90 * time.Minute, "3d": 72 * time.Hour, "1s": time.Second} {
		got, ok := span(text)
		require.True(t, ok, text)
		require.Equal(t, want, got)
	}
	for _, text := range []string{"", "d", "-3d", "0d", "1ms", "2026-11-21", "99999999d"} {
		_, ok := span(text)
		require.False(t, ok, text)
	}
	now := time.Date(2026, 11, 21, 18, 0, 0, 0, time.UTC)
	at, err := moment("--since", "1h", now)
	require.NoError(t, err)
	require.Equal(t, now.Add(-time.Hour), at)
}

// YAML says what JSON says, whatever that is.
func TestYAMLIsTheSameDocument(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var value func(depth int) any
		value = func(depth int) any {
			kinds := 5
			if depth > 0 {
				kinds = 7
			}
			switch rapid.IntRange(0, kinds-1).Draw(rt, "kind") {
			case 0:
				return nil
			case 1:
				return rapid.Bool().Draw(rt, "bool")
			case 2:
				return rapid.Float64Range(-1e15, 1e15).Draw(rt, "number")
			case 3:
				return rapid.SampledFrom([]string{"true", "null", "1", "1e3", "~", "yes", "a: b", "# c", "- d", "2026-11-21", "", "x\ny", "\"", "'", "\t", "😀", "0x10"}).Draw(rt, "odd")
			case 4:
				return rapid.String().Draw(rt, "text")
			case 5:
				all := []any{}
				for range rapid.IntRange(0, 3).Draw(rt, "length") {
					all = append(all, value(depth-1))
				}
				return all
			default:
				all := map[string]any{}
				for range rapid.IntRange(0, 3).Draw(rt, "size") {
					all[rapid.SampledFrom([]string{"a", "true", "1", "b c", "null", "y"}).Draw(rt, "key")] = value(depth - 1)
				}
				return all
			}
		}
		want, err := json.Marshal(map[string]any{"v": value(3)})
		require.NoError(rt, err)
		text, err := toYAML(want)
		require.NoError(rt, err)
		var back any
		require.NoError(rt, yaml.Unmarshal(text, &back), "%s", text)
		got, err := json.Marshal(back)
		require.NoError(rt, err)
		require.JSONEq(rt, string(want), string(got), "%s", text)
	})
	_, err := toYAML([]byte(`{"a":`))
	require.Error(t, err)
}

func TestKeysKeepTheirOrder(t *testing.T) {
	t.Parallel()
	text, err := toYAML([]byte(`{"z": 1, "a": {"y": [], "b": {}}, "n": 9223372036854775807, "s": "1"}`))
	require.NoError(t, err)
	require.Equal(t, "z: 1\na:\n  y: []\n  b: {}\nn: 9223372036854775807\ns: \"1\"\n", string(text))
}
