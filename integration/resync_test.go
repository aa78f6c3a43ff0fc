package integration_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

func jsonInto(raw []byte, v any) error { return json.Unmarshal(raw, v) }

func TestResyncMakesAllCirclesEqual(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 2, 2, 1)
	s.start()
	dice := diceOf(t)
	s.scatter(dice, usual(1500))
	s.loadDataSet(dice, 0, 2)
	stray := s.strayMeasurement(1)
	before := s.dump()
	want, replaced := s.resynced(before, everything)
	require.Greater(t, replaced, int64(100), "without disagreement this test means little")

	report := s.complete(s.ask("/resync"))
	after := s.dump()
	requireContents(t, want, after)
	requireReplaced(t, replaced, &report)
	for i := range s.members {
		require.NotEmpty(t, after[s.ownerOf(i, stray.Database, stray.Measurement).URL()][stray])
	}
	// All circles are the same now.
	for i := range s.members {
		require.Equal(t, s.owned(after, 0), s.owned(after, i))
	}
	s.requireNothingToDo("/resync?cpus=4", after)
}

// manySeries is how many series one measurement of a test has.
const manySeries = 100_000

// One measurement of many series, of which each circle lacks some and has others
// with other values.
func TestResyncOfAMeasurementOfManySeries(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 1, 1)
	s.start()
	s.createDatabase("wide")
	for circle, b := range s.all() {
		var lines strings.Builder
		for n := range manySeries {
			switch {
			case n%7 == circle: // a gap
			case n%1000 == 500:
				fmt.Fprintf(&lines, "wide,s=%d,t=%d v=%di %d\n", n, n%10, circle, int64(firstTime))
			default:
				fmt.Fprintf(&lines, "wide,s=%d,t=%d v=5i %d\n", n, n%10, int64(firstTime))
			}
		}
		b.write("wide", "daily", lines.String())
	}
	before := s.dump()
	want, replaced := s.resynced(before, everything)
	report := s.complete(s.ask("/resync?db=wide"))
	after := s.dump()
	requireContents(t, want, after)
	requireReplaced(t, replaced, &report)
	place := harness.Place{Database: "wide", RetentionPolicy: "daily", Measurement: "wide"}
	require.Len(t, after[s.members[1][0].URL()][place], manySeries)
}

// conflictsOf finds the fields that two servers hold with different types in one
// shard group of a day.
func conflictsOf(a, b places) func(harness.Place, string) bool {
	type spot struct {
		place harness.Place
		field string
		group int64
	}
	at := func(p harness.Place, key string) spot {
		group := timeOf(key) / int64(day)
		if timeOf(key) < 0 {
			group--
		}
		return spot{p, fieldOf(key), group}
	}
	kinds := map[spot]string{}
	for place, points := range a {
		for key, value := range points {
			kinds[at(place, key)], _, _ = strings.Cut(value, " ")
		}
	}
	conflicts := map[spot]bool{}
	for place, points := range b {
		for key, value := range points {
			kind, _, _ := strings.Cut(value, " ")
			if other, ok := kinds[at(place, key)]; ok && other != kind {
				conflicts[at(place, key)] = true
			}
		}
	}
	return func(p harness.Place, key string) bool { return !conflicts[at(p, key)] }
}

// typedLines are points of several days of which the circles hold one field with
// different types on some days.
func typedLines(circle int) string {
	var lines strings.Builder
	for d := range 4 {
		value := "1i"
		if d%2 == 1 && circle == 1 {
			value = []string{"", "2.5", "", `"text"`}[d]
		}
		at := int64(firstTime) + int64(d)*int64(day)
		for n := range 60 {
			if n%5 == circle {
				continue
			}
			fmt.Fprintf(&lines, "typed,host=h%d v=%s,own%d=%di,same=7i %d\n", n%3, value, circle, n, at+int64(n))
			fmt.Fprintf(&lines, "other,host=h%d v=%di %d\n", n%3, n, at+int64(n))
		}
	}
	return lines.String()
}

// Where circles hold a field with different types, that field stays as it is in
// both and its slices are reported; everything else is merged.
func TestResyncKeepsFieldsOfDifferentTypesAndMergesTheRest(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 1, 1)
	s.start()
	s.createDatabase("types")
	for i, b := range s.all() {
		b.write("types", "daily", typedLines(i))
	}
	before := s.dump()
	wanted := conflictsOf(before[s.members[0][0].URL()], before[s.members[1][0].URL()])
	want, _ := s.resynced(before, wanted)
	id := s.ask("/resync")
	ended := s.finish(id, operation.PartiallyFailed)
	requireContents(t, want, s.dump())
	require.Contains(t, ended.Error.Detail, "another type")
	report := s.report(id)
	requireConflicts(t, &report, "typed", 2)

	// A recovery the other way: the same fields stay.
	s.members[0][0].write("types", "daily", fmt.Sprintf("typed,host=new v=5i,w=1i %d\n", int64(firstTime)+int64(day)))
	s.members[1][0].write("types", "daily", fmt.Sprintf("typed,host=newer v=5.5,w=1i %d\n", int64(firstTime)+int64(day)))
	before = s.dump()
	want, _ = s.recovered(before, 1, 0, conflictsOf(before[s.members[0][0].URL()], before[s.members[1][0].URL()]))
	id = s.ask("/recovery?from_circle_id=1&to_circle_id=0")
	s.finish(id, operation.PartiallyFailed)
	requireContents(t, want, s.dump())
	report = s.report(id)
	requireConflicts(t, &report, "typed", 2)
}

// requireConflicts requires that exactly some slices of one measurement are
// reported as unequal because of a type.
func requireConflicts(t testing.TB, r *operation.Report, measurement string, unequal int) {
	t.Helper()
	require.False(t, r.Equal)
	require.Equal(t, unequal, r.Slices.Unequal, asJSON(t, r))
	require.Equal(t, r.Slices.Total-unequal, r.Slices.Equal, asJSON(t, r))
	found := 0
	for _, p := range r.Problems {
		if p.Resolution != "" {
			continue
		}
		found++
		require.Equal(t, measurement, p.Slice.Measurement)
		require.Contains(t, p.Detail, `"v"`)
		require.NotEmpty(t, p.Code)
	}
	require.Equal(t, unequal, found, asJSON(t, r))
}

// Of three circles two hold a field with different types. The third gets nothing of
// that measurement yet, which is reported; every other measurement is merged in all
// three, and that one, too, when it is mended.
func TestTypeConflictOfTwoCirclesHoldsBackNoOtherMeasurementFromTheThird(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 1, 1, 1)
	s.start()
	s.createDatabase("types")
	for i, b := range s.all() {
		b.write("types", "daily", fmt.Sprintf("other,only=c%d v=%di %d\n", i, i, int64(firstTime)))
		if i < 2 {
			b.write("types", "daily", typedLines(i)+fmt.Sprintf("pair,only=c%d v=%di %d\n", i, i, int64(firstTime)))
		}
	}
	before := s.dump()
	id := s.ask("/resync")
	s.finish(id, operation.PartiallyFailed)
	after := s.dump()
	want, _ := s.resynced(before, conflictsOf(before[s.members[0][0].URL()], before[s.members[1][0].URL()]))
	third := s.members[2][0]
	for _, b := range s.all() {
		for place, points := range want[b.URL()] {
			if place.Measurement != "typed" || b != third {
				requireHolds(t, fmt.Sprint(place), points, after[b.URL()][place])
			}
		}
	}
	report := s.report(id)
	require.True(t, slices.ContainsFunc(report.Problems, func(p operation.Problem) bool {
		return p.DestURL == third.URL() && p.Slice.Measurement == "typed" && p.Resolution == ""
	}), asJSON(t, report))

	// One of the two gives its values up.
	s.members[1][0].execIn("types", "DROP MEASUREMENT typed")
	before = s.dump()
	want, _ = s.resynced(before, everything)
	s.complete(s.ask("/resync"))
	requireContents(t, want, s.dump())
}

// By counts alone, when that is asked for, and said so.
func TestResyncByCountsSaysSo(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 1, 1)
	s.start()
	s.createDatabase("db")
	for i, b := range s.all() {
		b.write("db", "daily", generate("same", 500)+generate("gap", 400-100*i))
		b.write("db", "daily", fmt.Sprintf("differs v=%di %d\n", i, int64(firstTime)))
	}
	before := s.dump()
	id := s.ask("/resync?depth=count")
	report := s.complete(id)
	want, _ := s.resynced(before, func(p harness.Place, _ string) bool { return p.Measurement != "differs" })
	requireContents(t, want, s.dump())
	require.Equal(t, operation.DepthCount, report.Depth)
	require.Equal(t, operation.Amount{Slices: 2, Points: 501}, report.Unchanged, asJSON(t, report))
	require.GreaterOrEqual(t, report.Slices.ByCount, 2)

	id = s.ask("/resync?depth=count")
	s.complete(id)
	op := s.finish(id, operation.Succeeded)
	require.Contains(t, op.Result.Note, "nothing to do")
	require.Contains(t, op.Result.Note, "by their counts alone, as was asked for")

	// Without that, the points are compared.
	before = s.dump()
	want, _ = s.resynced(before, everything)
	report = s.complete(s.ask("/resync"))
	requireContents(t, want, s.dump())
	require.EqualValues(t, 1, report.Replaced)
	s.requireNothingToDo("/resync", want)
}
