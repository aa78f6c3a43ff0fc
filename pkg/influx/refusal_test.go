package influx

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRefusalsOfWritesByStatusAndText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		text   string
		want   verdict
	}{
		{400, "partial write: field type conflict: input field \"v\" on measurement \"m\" is type string, already exists as type integer dropped=3", verdict{PartialWrite, 3, true}},
		{400, "partial write: points beyond retention policy dropped=12", verdict{PartialWrite, 12, true}},
		{400, "partial write: max-values-per-tag limit exceeded (100000/100000): measurement=\"m\" tag=\"t\" value=\"v\" dropped=1", verdict{PartialWrite, 1, true}},
		{400, "partial write: shard 7 is pending deletion dropped=5", verdict{Transient, 5, true}},
		{400, "partial write: unable to parse 'x': missing fields dropped=0", verdict{PartialWrite, 1, true}},
		{400, "partial write: unable to parse 'x': missing fields\nunable to parse 'y dropped=9': bad dropped=0", verdict{PartialWrite, 2, true}},
		{400, "partial write: something new", verdict{PartialWrite, 0, true}},
		{400, "partial write: something dropped=many", verdict{PartialWrite, 0, true}},
		{400, "field type conflict: input field \"v\" on measurement \"m\" is type float, already exists as type integer", verdict{class: Permanent}},
		{400, "unable to parse 'partial write: x dropped=3': missing fields", verdict{class: Permanent}},
		{400, "", verdict{class: Permanent}},
		{401, "authorization failed", verdict{class: Permanent}},
		{403, "user is required", verdict{class: Permanent}},
		{404, "database not found: \"d\"", verdict{class: Permanent}},
		{408, "", verdict{class: Transient}},
		{413, "Request Entity Too Large", verdict{class: Permanent}},
		{425, "", verdict{class: Transient}},
		{429, "", verdict{class: Transient}},
		{500, "retention policy not found: none", verdict{class: Permanent}},
		{500, "timeout", verdict{class: Transient}},
		{500, "engine: cache-max-memory-size exceeded: (1/2)", verdict{class: Transient}},
		{500, "partial write: in a 500 dropped=1", verdict{class: Transient}},
		{500, "[panic: retention policy not found]", verdict{class: Transient}},
		{501, "", verdict{class: Permanent}},
		{502, "retention policy not found: none", verdict{class: Transient}},
		{503, "", verdict{class: Transient}},
		{504, "", verdict{class: Transient}},
		{505, "", verdict{class: Permanent}},
		{302, "", verdict{class: Permanent}},
		{200, "", verdict{class: Permanent}},
	} {
		require.Equal(t, c.want, classifyWrite(c.status, c.text), "%d %s", c.status, c.text)
	}
}

func TestErrorsInsideAnswersByText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Class{
		"database not found: d":                              Permanent,
		"retention policy not found: none":                   Permanent,
		"error parsing query: found X":                       Permanent,
		"unable to use system source '_series': use SHOW":    Permanent,
		"max-select-series limit exceeded: (3/2)":            Permanent,
		"max-select-point limit exceeed: (3/2)":              Permanent,
		"query interrupted":                                  Transient,
		"query-timeout limit exceeded":                       Transient,
		"max-concurrent-queries limit exceeded(1, 1)":        Transient,
		"query engine shutdown":                              Transient,
		"timeout":                                            Transient,
		"engine is closed":                                   Transient,
		"SELECT v FROM m [panic:runtime error: nil pointer]": Transient,
	} {
		require.Equal(t, want, classifyResult(text), text)
	}
}

func TestLongWordsAreCut(t *testing.T) {
	t.Parallel()
	require.Equal(t, "short", clip("short"))
	long := clip("begin" + strings.Repeat("x", 1<<20) + "end")
	require.Less(t, len(long), maxMessage+100)
	require.True(t, strings.HasPrefix(long, "begin") && strings.HasSuffix(long, "end"))
	require.Contains(t, long, "left out")
}

func TestPatternsHaveNoMeaningOfTheirOwn(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"_name":     `/^_name$/`,
		"a/b.c":     `/^a\x{2f}b\x{2e}c$/`,
		"a\rb\x00":  `/^a\x{d}b\x{0}$/`,
		"é\xff":     `/^\x{e9}\x{fffd}+$/`,
		"$/; DROP ": `/^\x{24}\x{2f}\x{3b}\x{20}DROP\x{20}$/`,
	} {
		require.Equal(t, want, pattern(name))
	}
}
