package mover_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/operation"
)

// monday begins a week, as the server's groups of seven days do.
func monday() int64 {
	const week = 7 * 24 * time.Hour
	return time.Unix(0, start).UTC().Truncate(week).UnixNano()
}

// overlap makes groups of a day where there are points, and then a group of the
// whole week around them.
func overlap(s *influxtest.Server, daily ...string) {
	s.Exec(`CREATE DATABASE db WITH DURATION INF SHARD DURATION 1d`)
	s.WriteLines("db", "", strings.Join(daily, "\n"))
	s.Exec(`ALTER RETENTION POLICY autogen ON db SHARD DURATION 7d`)
}

func at(d int, offset int64) int64 { return monday() + int64(d)*day + offset }

// TestAmbiguousTypesAreRefused: a window under two groups with different types
// of a field cannot be read truly; nothing of it is copied, the rest is.
func TestAmbiguousTypesAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ daily, weekly string }{
		"integer under float": {"1i", "1.5"},
		"float under integer": {"1.5", "1i"},
		"string under number": {`"text"`, "1i"},
		"boolean and string":  {"true", `"text"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			overlap(e.source,
				fmt.Sprintf("m v=%s %d", c.daily, at(2, 1)), fmt.Sprintf("plain v=1i %d", at(2, 1)))
			e.source.WriteLines("db", "", fmt.Sprintf("m v=%s %d\nplain v=1i %d", c.weekly, at(4, 1), at(4, 1)))
			r := e.run()
			require.Len(t, r.failed, 1)
			require.Equal(t, "type_ambiguous", r.failed[0].Code)
			require.Contains(t, r.failed[0].Detail, `field "v" has the types`)
			require.Contains(t, r.failed[0].Detail, "Rewrite the field with one type at "+e.source.URL())
			require.False(t, r.report.Equal)
			require.Equal(t, 1, r.report.Slices.Unequal)
			require.Equal(t, "type_ambiguous", r.report.Problems[0].Code)
			got := dump(t, e.destination.URL(), "db")
			require.Equal(t, []string{
				fmt.Sprintf("autogen m v=%s %d\n", c.weekly, at(4, 1)),
				fmt.Sprintf("autogen plain v=1i %d\n", at(2, 1)), fmt.Sprintf("autogen plain v=1i %d\n", at(4, 1)),
			}, got)
		})
	}
}

// TestTypesElsewhereAreNoReason: the field has other types in groups that do not
// cover the window, and the server's answers show it.
func TestTypesElsewhereAreNoReason(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ inside, outside string }{
		"integer": {"1i", "1.5"}, "string": {`"text"`, "1i"}, "boolean": {"true", `"text"`}, "float": {"1.5", `"text"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			overlap(e.source, fmt.Sprintf("m,k=a v=%s %d", c.inside, at(2, 1)))
			e.source.WriteLines("db", "", fmt.Sprintf("m,k=a v=%s %d\nm v=%s %d", c.inside, at(4, 1), c.outside, at(30, 1)))
			r := e.run()
			require.Empty(t, r.failed)
			require.True(t, r.report.Equal)
			require.Len(t, dump(t, e.destination.URL(), "db"), 3)
		})
	}
}

// TestFloatsBesideIntegersAreNotTrusted: where the policy has integers anywhere,
// floats under overlapping groups might be some of them, and the server does not
// tell. This refusal may be needless; it is never a wrong copy.
func TestFloatsBesideIntegersAreNotTrusted(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	overlap(e.source, fmt.Sprintf("m v=1.5 %d", at(2, 1)))
	e.source.WriteLines("db", "", fmt.Sprintf("m v=1.5 %d\nm v=1i %d", at(4, 1), at(30, 1)))
	r := e.run()
	require.Len(t, r.failed, 1)
	require.Equal(t, "type_ambiguous", r.failed[0].Code)
}

// twice writes to the last day of a week by its own group and then, since the
// group of the week comes first for the server, once more beside it.
func twice(s *influxtest.Server, first, second string) {
	overlap(s, first)
	s.WriteLines("db", "", fmt.Sprintf("opener v=1i %d", at(5, 0)))
	s.WriteLines("db", "", second)
}

// TestPointsInSeveralRows: where groups overlap a server may answer one point in
// several rows, each with other fields. It is one point for the other end.
func TestPointsInSeveralRows(t *testing.T) {
	t.Parallel()
	first, second := fmt.Sprintf("m,k=a a=1i,s=\"one\" %d\nm,k=b a=1i %d", at(6, 1), at(6, 1)), fmt.Sprintf("m,k=a b=2i,t=\"two\" %d", at(6, 1))
	whole := fmt.Sprintf("m,k=a a=1i,b=2i,s=\"one\",t=\"two\" %d\nm,k=b a=1i %d", at(6, 1), at(6, 1))
	t.Run("source", func(t *testing.T) {
		t.Parallel()
		e := newEnv(t)
		twice(e.source, first, second)
		require.Len(t, dump(t, e.source.URL(), "db"), 2*3+1, "the test does what it says")
		r := e.run()
		require.True(t, r.report.Equal)
		again := e.run() // now by points
		require.True(t, again.report.Equal)
		require.Empty(t, again.report.Problems)
		require.EqualValues(t, 3, again.report.Points.Source)
		require.Equal(t, again.report.Points.Source, again.report.Points.Destination)
		require.Equal(t, "autogen "+strings.Split(whole, "\n")[0]+"\n", dump(t, e.destination.URL(), "db")[0])
	})
	t.Run("destination", func(t *testing.T) {
		t.Parallel()
		e := newEnv(t)
		twice(e.destination, first, second)
		e.source.Exec(`CREATE DATABASE db`)
		e.source.WriteLines("db", "", whole)
		before := dump(t, e.destination.URL(), "db")
		r := e.run()
		require.True(t, r.report.Equal, "%+v", r.report)
		require.Empty(t, r.report.Problems)
		require.Equal(t, before, dump(t, e.destination.URL(), "db"), "nothing was missing")
	})
	t.Run("both", func(t *testing.T) {
		t.Parallel()
		e := newEnv(t)
		twice(e.source, first, second)
		twice(e.destination, first, second)
		r := e.run()
		require.True(t, r.report.Equal, "%+v", r.report)
		require.EqualValues(t, 3, r.report.Points.Destination)
	})
}

// TestTwoValuesOfOnePoint: the server itself holds two; the owner can hold one of
// them only, and the report says that they differ.
func TestTwoValuesOfOnePoint(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	twice(e.source, fmt.Sprintf("m v=1i %d", at(6, 1)), fmt.Sprintf("m v=2i %d", at(6, 1)))
	r := e.run()
	require.Empty(t, r.failed)
	require.False(t, r.report.Equal)
	require.EqualValues(t, 1, r.report.Different)
	require.EqualValues(t, 0, r.report.Missing)
	require.Equal(t, operation.ResolutionOwnerKept, r.report.Problems[0].Resolution)
}

// TestBoundariesOfTheOwnerCount: what the owner holds of its own in groups of a
// day is not read over their boundaries, where its values would look different.
func TestBoundariesOfTheOwnerCount(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.source.Exec(`CREATE DATABASE db WITH DURATION INF SHARD DURATION 7d`)
	e.source.WriteLines("db", "", fmt.Sprintf("m,k=a v=1i %d\nm,k=a v=2i %d", at(1, 1), at(3, 1)))
	e.destination.Exec(`CREATE DATABASE db WITH DURATION INF SHARD DURATION 1d`)
	e.destination.WriteLines("db", "", fmt.Sprintf("m,k=a v=1i %d\nm,k=own v=1.5 %d", at(1, 1), at(2, 1)))
	r := e.run()
	require.Empty(t, r.failed)
	require.True(t, r.report.Equal, "%+v", r.report)
	require.Empty(t, r.report.Problems)
	arrived := e.destination.Query(fmt.Sprintf("SELECT v FROM db..m WHERE time >= %d", at(3, 0)))
	require.Equal(t, json.Number("2"), arrived[0].Series[0].Values[0][1])
}
