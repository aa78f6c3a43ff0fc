package mover_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/operation"
)

// some fills both ends: 3 measurements of 4 series over three weeks.
func some(c *clearEnv) (points int64) {
	c.both("CREATE DATABASE db", "", "")
	for i := range 3 {
		text := lines(fmt.Sprintf("m%d", i), 4, 50, start, int64(10*time.Hour))
		c.both("", "", text)
	}
	return 3 * 4 * 50
}

func TestClear(t *testing.T) {
	t.Parallel()
	c := newClearEnv(t)
	points := some(c)
	c.destination.WriteLines("db", "", "own,host=x v=1 1\nm1,host=more v=1 "+fmt.Sprint(start))
	r := c.requireCleared(points)
	require.Positive(t, r.task.Bytes.Read)
	require.Equal(t, map[operation.SliceState]int{operation.SliceDropped: len(r.task.Slices)}, r.states())
	// Once more there is nothing to do.
	again := c.clear(r.task.Slices...)
	require.NoError(t, again.err)
	require.Zero(t, again.task.Points.Dropped)
	require.Equal(t, operation.SliceTotals{Total: len(r.task.Slices), Equal: len(r.task.Slices), ByCount: len(r.task.Slices)}, again.report.Slices)
	require.Zero(t, again.report.Dropped)
}

// TestClearKeepsWhatTheOwnerLacks: one point, one field, one value, one type.
func TestClearKeepsWhatTheOwnerLacks(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]struct{ ours, owners, says string }{
		"a point":  {"m1,host=h0 v=1i 77", "", "of 1 points here 1 are missing"},
		"a field":  {"m1,k=x v=1i,w=2i 77", "m1,k=x v=1i 77", "of 1 points here 1 are missing"},
		"a value":  {"m1,k=x v=1i 77", "m1,k=x v=2i 77", "0 are missing at the owner"},
		"a type":   {"m1,k=x own=1i 77", "m1,k=x own=1 77", "and 1 differ"},
		"a string": {"m1,k=x s=\"a\" 77", "m1,k=x s=\"b\" 77", `"m1","k"="x" at 77`},
		"a series": {"m1,k=x v=1i 77", "m1,k=y v=1i 77", "of 1 points here 1 are missing"},
		"a tag":    {"m1,k=x v=1i 77", "m1 v=1i,k=\"x\" 77", "of 1 points here 1 are missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClearEnv(t)
			some(c)
			c.source.WriteLines("db", "", change.ours)
			if change.owners != "" {
				c.destination.WriteLines("db", "", change.owners)
			}
			r, p := c.requireKept("unproven")
			require.Contains(t, p.Detail, change.says)
			require.Contains(t, p.Detail, `retention policy "autogen"`)
			require.Equal(t, "m1", p.Slice.Measurement)
			require.Equal(t, []string{"m1"}, measurementsOf(t, c.source.URL()))
			require.EqualValues(t, 600, r.task.Points.Dropped)
		})
	}
}
