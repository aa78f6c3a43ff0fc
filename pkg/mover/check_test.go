package mover_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/operation"
)

// newVerification starts two circles of one server each that know a database.
func newVerification(t testing.TB, parameters map[string]any) (e *env, here, there *influxtest.Server) {
	t.Helper()
	e, s := newCircles(t, operation.KindVerify, 1, 1)
	e.parameter = map[string]any{"circle_id": 0}
	maps.Copy(e.parameter, parameters)
	for i := range s {
		s[i][0].Exec("CREATE DATABASE db WITH DURATION INF SHARD DURATION 1d")
	}
	return e, s[0][0], s[1][0]
}

// compareAll compares and, where that is asked for, repairs as the controller has it
// done.
func (e *env) compareAll() result {
	e.t.Helper()
	m := e.mover()
	plan := e.plan(m)
	require.NoError(e.t, m.Prepare(e.t.Context(), &e.operation, &plan, &job{env: e}))
	for i, p := range plan.Tasks {
		e.store(operation.Task{
			ID: fmt.Sprintf("c%04d", i), Phase: operation.PhaseCompare, Round: 1, Rule: p.Rule, Span: &p.Span, Estimated: p.Points,
			Source: plan.Backends[p.From].URL, Destination: plan.Backends[p.To].URL, State: operation.TaskWaiting,
		})
	}
	r := result{plan: plan, rounds: 1}
	e.runPhase(m, operation.PhaseCompare, &r)
	total := operation.Verdict{}
	for _, task := range e.tasksOf(operation.PhaseCompare, 1) {
		if task.Verdict != nil {
			total.Add(task.Verdict)
		}
		for i := range task.Checkpoint {
			if task.Checkpoint[i].Written > 0 {
				e.store(operation.Task{
					ID: "v-" + task.ID, Of: task.ID, Phase: operation.PhaseVerify, Round: 1, Rule: task.Rule,
					Source: task.Source, Destination: task.Destination, State: operation.TaskWaiting,
				})
			}
		}
	}
	e.runPhase(m, operation.PhaseVerify, &r)
	for _, task := range e.tasksOf(operation.PhaseVerify, 1) {
		total.Add(task.Verdict)
	}
	p, err := operation.ParseVerify(e.operation.Parameters)
	require.NoError(e.t, err)
	r.report = total.VerifyReport("op", p)
	return r
}

func differences(r *operation.Report) operation.Differences {
	return operation.Differences{Missing: r.Missing, Extra: r.Extra, Different: r.Different}
}

// TestEveryKindOfDifferenceIsShown: what differs, and both values of it.
func TestEveryKindOfDifferenceIsShown(t *testing.T) {
	t.Parallel()
	at := time.Unix(0, start).UTC()
	for name, c := range map[string]struct {
		here, there string
		want        operation.Differences
		field       string
		values      [2]string
	}{
		"a point is missing":      {"m,a=x v=1i", "", operation.Differences{Missing: 1}, "v", [2]string{"1i", ""}},
		"a point is extra":        {"", "m,a=x v=1.5", operation.Differences{Extra: 1}, "v", [2]string{"", "1.5"}},
		"a field is missing":      {`m,a=x v=1i,w="t"`, "m,a=x v=1i", operation.Differences{Missing: 1}, "w", [2]string{`"t"`, ""}},
		"a field is extra":        {"m,a=x v=1i", "m,a=x u=false,v=1i", operation.Differences{Extra: 1}, "u", [2]string{"", "false"}},
		"an integer differs":      {"m,a=x v=1i", "m,a=x v=2i", operation.Differences{Different: 1}, "v", [2]string{"1i", "2i"}},
		"a float differs":         {"m,a=x v=0.1", "m,a=x v=0.10000000000000002", operation.Differences{Different: 1}, "v", [2]string{"0.1", "0.10000000000000002"}},
		"a sign of zero differs":  {"m,a=x v=0", "m,a=x v=-0", operation.Differences{Different: 1}, "v", [2]string{"0", "-0"}},
		"a boolean differs":       {"m,a=x v=true", "m,a=x v=false", operation.Differences{Different: 1}, "v", [2]string{"true", "false"}},
		"a string differs":        {`m,a=x v="a \"b\""`, `m,a=x v="a b"`, operation.Differences{Different: 1}, "v", [2]string{`"a \"b\""`, `"a b"`}},
		"a type differs":          {"m,a=x v=1i", "m,a=x v=1", operation.Differences{Different: 1}, "v", [2]string{"1i", "1"}},
		"a type is another":       {`m,a=x v="1"`, "m,a=x v=1", operation.Differences{Different: 1}, "v", [2]string{`"1"`, "1"}},
		"one of each, in a point": {"m,a=x u=1i,v=1i", "m,a=x v=2i,w=3i", operation.Differences{Missing: 1, Extra: 1, Different: 1}, "", [2]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, here, there := newVerification(t, nil)
			for s, line := range map[*influxtest.Server]string{here: c.here, there: c.there} {
				s.WriteLines("db", "", fmt.Sprintf("equal v=1i %d", start))
				if line != "" {
					s.WriteLines("db", "", fmt.Sprintf("%s %d", line, start))
				}
			}
			r := e.compareAll()
			require.Empty(t, r.failed)
			require.False(t, r.report.Equal)
			require.Equal(t, c.want, differences(&r.report))
			require.Equal(t, operation.SliceTotals{Total: 2, Equal: 1, Unequal: 1, ByPoints: 1}, r.report.Slices)
			require.Len(t, r.report.Problems, 1)
			problem := &r.report.Problems[0]
			require.Equal(t, operation.CodeUnequal, problem.Code)
			require.Equal(t, here.URL(), problem.SourceURL)
			require.Equal(t, there.URL(), problem.DestURL)
			require.Equal(t, problem.Examples, r.report.Examples)
			shown := 0
			for _, x := range []*operation.Example{problem.Examples.Missing, problem.Examples.Extra, problem.Examples.Different} {
				if x == nil {
					continue
				}
				shown++
				require.Equal(t, at, x.Time)
				require.Equal(t, `"m","a"="x"`, x.Series)
				require.Equal(t, "db", x.Database)
				require.Equal(t, "autogen", x.RetentionPolicy)
				if c.field != "" {
					require.Equal(t, c.field, x.Field)
					require.Equal(t, c.values[0], x.Source)
					require.Equal(t, c.values[1], x.Destination)
				}
			}
			require.EqualValues(t, c.want.Missing+c.want.Extra+c.want.Different, shown)
		})
	}
}

// TestVerifyUnderOverlappingGroups: a window that several shard groups of either end
// cover is compared as long as its types are plain, and reported where they are not.
func TestVerifyUnderOverlappingGroups(t *testing.T) {
	t.Parallel()
	e, s := newCircles(t, operation.KindVerify, 1, 1)
	e.parameter = map[string]any{"circle_id": 0}
	here, there := s[0][0], s[1][0]
	overlap(here, fmt.Sprintf("m,k=a v=1i %d", at(2, 1)), fmt.Sprintf("odd v=1i %d", at(2, 1)), fmt.Sprintf("m,k=b v=1i,w=true %d", at(3, 1)))
	here.WriteLines("db", "", fmt.Sprintf("m,k=a v=1i %d\nodd v=1.5 %d\nm,k=a v=5i %d", at(4, 1), at(4, 1), at(2, 2)))
	overlap(there, fmt.Sprintf("m,k=a v=2i %d", at(2, 1)), fmt.Sprintf("odd v=1i %d", at(2, 1)), fmt.Sprintf("m,k=b v=1i %d", at(3, 1)))
	there.WriteLines("db", "", fmt.Sprintf("m,k=a v=1i %d\nm,k=a v=1i %d", at(4, 1), at(5, 1)))
	before := [][]string{dump(t, here.URL(), "db"), dump(t, there.URL(), "db")}
	r := e.compareAll()
	require.False(t, r.report.Equal)
	// Missing: v at (2, 2) and w at (3, 1). Of what is odd, only the days under one
	// group can be told.
	require.Equal(t, operation.Differences{Missing: 3, Extra: 1, Different: 1}, differences(&r.report), "%+v", r.report.Problems)
	ambiguous := 0
	for _, p := range r.report.Problems {
		if p.Code == "type_ambiguous" {
			require.Equal(t, "odd", p.Slice.Measurement)
			ambiguous++
		}
	}
	require.Positive(t, ambiguous)
	require.NotEmpty(t, r.failed)
	require.Equal(t, "type_ambiguous", r.failed[0].Code)
	require.Equal(t, before[0], dump(t, here.URL(), "db"))
	require.Equal(t, before[1], dump(t, there.URL(), "db"))
}

// scatterOver writes about n points, the same or not, to either or both, and returns how
// they differ.
func scatterOver(rng *rand.Rand, n int, here, there *influxtest.Server) operation.Differences {
	var want operation.Differences
	var left, right strings.Builder
	for i := range n {
		line := fmt.Sprintf("m%d,host=h%d a=%di,b=%d.5", i%3, i%7, i, i)
		when := start + int64(i)*int64(time.Minute)
		switch rng.IntN(8) {
		case 0:
			want.Missing++
			fmt.Fprintf(&left, "%s %d\n", line, when)
		case 1:
			want.Extra++
			fmt.Fprintf(&right, "%s %d\n", line, when)
		case 2:
			want.Different++
			fmt.Fprintf(&left, "%s %d\n", line, when)
			fmt.Fprintf(&right, "%s7 %d\n", line, when)
		case 3:
			want.Missing++
			fmt.Fprintf(&left, "%s,c=\"more\" %d\n", line, when)
			fmt.Fprintf(&right, "%s %d\n", line, when)
		default:
			fmt.Fprintf(&left, "%s %d\n", line, when)
			fmt.Fprintf(&right, "%s %d\n", line, when)
		}
	}
	here.WriteLines("db", "", left.String())
	there.WriteLines("db", "", right.String())
	return want
}

// TestLargeSlicesAreComparedInParts: what holds more than was estimated at either end
// is cut, and its parts count once.
func TestLargeSlicesAreComparedInParts(t *testing.T) {
	t.Parallel()
	for _, side := range []operation.Side{"", operation.SideCircle, operation.SideAgainst} {
		t.Run(string(side), func(t *testing.T) {
			t.Parallel()
			e, here, there := newVerification(t, map[string]any{"repair": side != "", "repair_from": side})
			e.config.SliceRows, e.config.PartRows, e.config.GroupSlices = 120, 60, 3
			want := scatterOver(rand.New(rand.NewPCG(5, 5)), 3000, here, there)
			r := e.compareAll()
			require.Empty(t, r.failed)
			require.Equal(t, want, differences(&r.report))
			children := 0
			for _, task := range e.tasksOf(operation.PhaseCompare, 1) {
				if task.Parent != "" {
					children++
				}
			}
			require.Positive(t, children)
			switch side {
			case operation.SideCircle:
				require.Equal(t, &operation.Repair{From: side, Copied: want.Missing, Left: operation.Differences{Extra: want.Extra, Different: want.Different}}, r.report.Repair)
			case operation.SideAgainst:
				require.Equal(t, &operation.Repair{From: side, Copied: want.Extra, Left: operation.Differences{Missing: want.Missing, Different: want.Different}}, r.report.Repair)
			default:
				require.Nil(t, r.report.Repair)
			}
		})
	}
}

// TestRepairsAreTakenUp: an attempt that ends between any two checkpoints changes
// nothing of what is found, copied and reported.
func TestRepairsAreTakenUp(t *testing.T) {
	t.Parallel()
	e, here, there := newVerification(t, map[string]any{"repair": true, "repair_from": "circle"})
	e.config.GroupSlices = 2
	want := scatterOver(rand.New(rand.NewPCG(9, 9)), 2000, here, there)
	stops := 0
	e.watch = func(j *job) {
		n := 0
		j.before = func(*operation.Task) error {
			// Each attempt stores one checkpoint and loses the next.
			if n++; n > 1 && stops < 40 {
				stops++
				return errStopped
			}
			return nil
		}
	}
	r := e.compareAll()
	require.Empty(t, r.failed)
	require.Greater(t, stops, 5)
	require.Equal(t, want, differences(&r.report))
	left := operation.Differences{Extra: want.Extra, Different: want.Different}
	require.Equal(t, &operation.Repair{From: "circle", Copied: want.Missing, Left: left}, r.report.Repair)
	require.Equal(t, r.report.Slices.Total, r.plan.Totals.Slices)

	// Nothing is lacking any more, and nothing was replaced.
	e.watch, e.parameter = nil, map[string]any{"circle_id": 0}
	r = e.compareAll()
	require.Equal(t, left, differences(&r.report))
}

// TestWhatIsUnderWayDoesNotDiffer: a client's points come to one circle a moment
// later than to the other.
func TestWhatIsUnderWayDoesNotDiffer(t *testing.T) {
	t.Parallel()
	e, here, there := newVerification(t, nil)
	var first, early strings.Builder
	for i := range 50 {
		fmt.Fprintf(&first, "m,host=h%d v=%di %d\n", i%3, i, start+int64(i))
		if i%2 == 1 {
			fmt.Fprintf(&early, "m,host=h%d v=%di %d\n", i%3, i, start+int64(i))
		}
	}
	here.WriteLines("db", "", first.String()+fmt.Sprintf("m,host=h0 v=1i %d", start+1000))
	there.WriteLines("db", "", strings.ReplaceAll(early.String(), "v=3i", "v=4i"))
	e.config.Lasting = time.Second
	var writing sync.WaitGroup
	timer := time.AfterFunc(100*time.Millisecond, func() {
		writing.Go(func() { there.WriteLines("db", "", first.String()) })
	})
	defer timer.Stop()
	r := e.compareAll()
	writing.Wait()
	require.Equal(t, operation.Differences{Missing: 1}, differences(&r.report), "%+v", r.report.Problems)
	require.Equal(t, operation.ReportPoints{Source: 51, Destination: 50}, r.report.Points)
	require.NotNil(t, r.report.Examples.Missing)
	require.Equal(t, start+1000, r.report.Examples.Missing.Time.UnixNano())
}

// TestRepairWithAConflictOfTypes: a field that one server holds with another type stays
// away, all else arrives.
func TestRepairWithAConflictOfTypes(t *testing.T) {
	t.Parallel()
	e, here, there := newVerification(t, map[string]any{"repair": true, "repair_from": "against"})
	there.WriteLines("db", "", fmt.Sprintf("m a=1i,b=2i %d\nm a=3i %d", start, start+1))
	here.WriteLines("db", "", fmt.Sprintf("m a=1.5 %d", start+2))
	r := e.compareAll()
	require.Len(t, r.failed, 1)
	require.Equal(t, "type_conflict", r.failed[0].Code)
	require.False(t, r.report.Equal)
	require.Equal(t, operation.Differences{Missing: 1, Extra: 2}, differences(&r.report))
	require.Contains(t, dump(t, here.URL(), "db"), fmt.Sprintf("autogen m b=2i %d\n", start))
	require.EqualValues(t, 2, r.report.Repair.Left.Extra)
	require.Zero(t, r.report.Repair.Copied, "no point has arrived whole")
}

// TestNoDatabaseOnOneSide: what one side alone has is missing at the other, whatever it
// is that is not there, and a repair makes it.
func TestNoDatabaseOnOneSide(t *testing.T) {
	t.Parallel()
	e, here, there := newVerification(t, map[string]any{"depth": "count"})
	there.Exec("CREATE DATABASE other WITH DURATION INF SHARD DURATION 1d NAME own; CREATE RETENTION POLICY rp ON db DURATION INF REPLICATION 1")
	there.WriteLines("other", "own", fmt.Sprintf("m v=1i %d", start))
	there.WriteLines("db", "rp", fmt.Sprintf("m v=1i %d", start))
	here.WriteLines("db", "", fmt.Sprintf("m v=1i %d", start))
	r := e.compareAll()
	require.Empty(t, r.failed)
	require.Equal(t, operation.Differences{Missing: 1, Extra: 2}, differences(&r.report))
	require.Equal(t, operation.SliceTotals{Total: 3, Unequal: 3}, r.report.Slices)
	require.Empty(t, r.plan.Policies)

	e.parameter = map[string]any{"circle_id": 0, "repair": true, "repair_from": "against"}
	r = e.compareAll()
	require.Empty(t, r.failed)
	require.EqualValues(t, 2, r.report.Repair.Copied)
	require.Equal(t, operation.Differences{Missing: 1}, r.report.Repair.Left)
	require.Equal(t, dump(t, there.URL(), "other"), dump(t, here.URL(), "other"))
}
