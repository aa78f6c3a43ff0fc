package integration_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// diceOf are dice that always fall the same way in one test.
func diceOf(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(0)
	for _, r := range t.Name() {
		seed = seed*31 + uint64(r)
	}
	return rand.New(rand.NewPCG(seed, 1))
}

// usual is a scattering over several policies and shard groups.
func usual(values int) scattering {
	return scattering{
		db: "scattered", policies: []string{"daily", "three days", "five"}, values: values,
		groups: []int64{firstTime, firstTime + int64(day) - int64(20*time.Minute), firstTime + 40*int64(day), -int64(day)},
	}
}

// loadDataSet gives every circle of the site lines of the data set: some to all,
// some to one, some to a server that does not own them.
func (s *circleSite) loadDataSet(dice *rand.Rand, circles ...int) {
	s.t.Helper()
	samples := dataSet(time.Now())
	for _, circle := range circles {
		var some []sample
		for _, x := range samples {
			lines := x.lines[:0:0]
			for _, line := range x.lines {
				if dice.IntN(4) > 0 {
					lines = append(lines, line)
				}
			}
			if len(lines) > 0 {
				some = append(some, sample{x.db, x.rp, x.measurement, lines})
			}
		}
		for _, b := range s.members[circle] {
			b.createDatabases()
		}
		load(some, func(x sample) *backend {
			if dice.IntN(12) == 0 {
				return s.members[circle][dice.IntN(len(s.members[circle]))]
			}
			return s.ownerOf(circle, x.db, x.measurement)
		})
	}
}

// requireReplaced requires that the report counts and lists the points whose
// values gave way.
func requireReplaced(t testing.TB, want int64, r *operation.Report) {
	t.Helper()
	require.Equal(t, want, r.Replaced, asJSON(t, r))
	listed := int64(0)
	for _, p := range r.Problems {
		if p.Replaced > 0 {
			require.Equal(t, operation.ResolutionSourceWon, p.Resolution)
		}
		listed += p.Replaced
	}
	if r.Unreported == 0 {
		require.Equal(t, want, listed, asJSON(t, r))
	}
}

func TestRecoveryBringsEveryPointToTheOtherCircle(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 2, 2)
	s.start()
	dice := diceOf(t)
	s.scatter(dice, usual(1500))
	s.loadDataSet(dice, 0)
	// Databases and policies come with the points.
	s.members[1][0].exec("CREATE DATABASE " + metrics)
	// A measurement that is only where it does not belong, and one that the circle
	// to be filled alone has.
	stray := s.strayMeasurement(0)
	before := s.dump()
	want, replaced := s.recovered(before, 0, 1, everything)
	require.Greater(t, replaced, int64(50), "without disagreement this test means little")

	id := s.ask("/recovery?from_circle_id=0&to_circle_id=1")
	report := s.complete(id)
	after := s.dump()
	requireContents(t, want, after)
	requireReplaced(t, replaced, &report)
	require.Zero(t, report.Missing)
	require.Positive(t, report.Unchanged.Slices+int(report.Extra))
	require.NotEmpty(t, after[s.ownerOf(1, stray.Database, stray.Measurement).URL()][stray])
	for _, db := range []string{metrics, oddName} {
		require.ElementsMatch(t, s.members[0][0].policies(db), s.members[1][1].policies(db), db)
	}
	s.requireNothingToDo("/recovery?from_circle_id=0&to_circle_id=1", after)
}

// strayMeasurement writes a measurement to a server of a circle that does not own
// it, and nowhere else.
func (s *circleSite) strayMeasurement(circle int) harness.Place {
	s.t.Helper()
	at := harness.Place{Database: "scattered", RetentionPolicy: "five", Measurement: "stray"}
	owner := s.ownerOf(circle, at.Database, at.Measurement)
	for _, b := range s.members[circle] {
		if b != owner {
			b.write(at.Database, at.RetentionPolicy, fmt.Sprintf("stray,a=b v=7i,w=\"x\" %d\nstray v=8i %d\n", firstTime, firstTime+int64(day)*9))
			return at
		}
	}
	s.t.Fatal("every server of the circle owns it")
	return at
}

// Only the named backends are filled, from whatever circle, and nothing else is
// written to.
func TestRecoveryOfNamedBackends(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 1, 3)
	s.start()
	s.scatter(diceOf(t), usual(800))
	lost := s.members[1][1]
	lost.exec("DROP DATABASE scattered")
	before := s.dump()
	want, _ := s.recovered(before, 0, 1, everything, lost)
	// With a slash at its end, as people write it.
	query := "/recovery?from_circle_id=0&to_circle_id=1&backend_urls=" + lost.URL() + "/&db=scattered"
	report := s.complete(s.ask(query))
	requireContents(t, want, s.dump())
	require.Zero(t, report.Replaced, "it held nothing")
	require.NotEmpty(t, want[lost.URL()])
	s.requireNothingToDo(query, want)

	// The others next, the other way round, and by counts.
	before = s.dump()
	want, replaced := s.recovered(before, 1, 0, everything)
	report = s.complete(s.ask("/recovery?from_circle_id=1&to_circle_id=0&days=0&cpus=2&batch=100"))
	requireContents(t, want, s.dump())
	requireReplaced(t, replaced, &report)
}

// edgePoints writes points around the beginning of a shard group, a quarter of a
// second apart and at the nanoseconds next to it.
func edgePoints(at time.Time, every int) string {
	var b strings.Builder
	for n := -120; n <= 120; n += every {
		fmt.Fprintf(&b, "edge,n=%d v=%di %d\n", n%3, n, at.Add(time.Duration(n)*250*time.Millisecond).UnixNano())
	}
	for n := -2; n <= 2; n++ {
		fmt.Fprintf(&b, "edge,n=ns v=%di %d\n", n, at.UnixNano()+int64(n))
	}
	return b.String()
}

// A move that is limited to recent points begins at the nanosecond it is told, also
// in the middle of a shard group and at its edge.
func TestTimeLimitsAtShardBoundaries(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 1, 1)
	s.start()
	edge := time.Now().Truncate(time.Hour).Add(-time.Hour)
	for i, b := range s.all() {
		for _, db := range []string{"since", "seconds", "recovery", "later"} {
			b.exec("CREATE DATABASE " + db + " WITH DURATION INF REPLICATION 1 SHARD DURATION 1h NAME hourly")
			b.write(db, "hourly", edgePoints(edge, 2+i))
		}
	}
	for _, c := range []struct {
		name, query string
		// limit is where the move begins, by the operation's record.
		limit func(*operation.Operation) int64
	}{
		{"since", fmt.Sprintf("/resync?db=since&since=%d", edge.Unix()), func(*operation.Operation) int64 { return edge.UnixNano() }},
		{"seconds", fmt.Sprintf("/resync?db=seconds&minutes=60&seconds=%d", int(time.Since(edge.Add(time.Hour)).Seconds())), func(op *operation.Operation) int64 {
			var p operation.Resync
			require.NoError(t, jsonInto(op.Parameters, &p))
			return op.CreatedAt.Add(-time.Duration(p.SinceSeconds) * time.Second).UnixNano()
		}},
		{"recovery", fmt.Sprintf("/recovery?from_circle_id=1&to_circle_id=0&db=recovery&since=%d", edge.Unix()-10), func(*operation.Operation) int64 {
			return edge.Add(-10 * time.Second).UnixNano()
		}},
		{"later", fmt.Sprintf("/resync?db=later&since=%d", edge.Unix()+3600), func(*operation.Operation) int64 { return edge.Add(time.Hour).UnixNano() }},
	} {
		before := s.dump()
		id := s.ask(c.query)
		op := s.finish(id, operation.Succeeded)
		limit := from(c.limit(&op))
		in := func(p harness.Place, key string) bool { return p.Database == c.name && limit(p, key) }
		want, _ := s.resynced(before, in)
		if c.name == "recovery" {
			want, _ = s.recovered(before, 1, 0, in)
		}
		if c.name == "later" {
			require.NotNil(t, op.Result, asJSON(t, op))
			require.Contains(t, op.Result.Note, "nothing to do")
		} else {
			require.NotEqual(t, want, before, c.name)
		}
		requireContents(t, want, s.dump())
	}
}
