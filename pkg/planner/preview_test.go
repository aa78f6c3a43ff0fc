package planner_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/operation"
)

const week = 7 * 24 * time.Hour

func codes(p *operation.Plan) []string {
	var out []string
	for _, r := range p.Refusals {
		out = append(out, r.Code)
	}
	return out
}

// withoutBytes leaves out what a server decides for itself.
func withoutBytes(h operation.Holding) operation.Holding {
	h.Bytes = 0
	return h
}

// TestARebalanceIsPreviewed: what each backend holds now, with the copies, and once a
// clear has followed.
func TestARebalanceIsPreviewed(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	mine, yours := r.owned(0, 0, "db", 3), r.owned(0, 1, "db", 2)
	first := r.servers[0][0]
	first.Exec("CREATE DATABASE db; CREATE RETENTION POLICY daily ON db DURATION INF REPLICATION 1 SHARD DURATION 1d")
	for i, m := range mine {
		first.WriteLines("db", "", lines(m, 100*(i+1), week))
	}
	for i, m := range yours {
		first.WriteLines("db", "daily", lines(m, 1000*(i+1), 3*week))
		first.WriteLines("db", "", lines(m, 10, week))
	}
	r.servers[0][1].Exec("CREATE DATABASE other")
	plan, _ := r.dry(operation.KindRebalance, `{"circle_id":0,"operation":"add"}`)

	require.Len(t, plan.Balance, 2)
	a, b := plan.Balance[0], plan.Balance[1]
	require.Equal(t, []string{"b00", first.URL(), "b01"}, []string{a.Backend, a.URL, b.Backend})
	require.Equal(t, operation.Holding{Databases: 1, Measurements: 5, Points: 3620}, withoutBytes(a.Before))
	require.Equal(t, operation.Holding{Databases: 1}, b.Before, "an empty database takes nothing")
	require.Positive(t, a.Before.Bytes)
	require.Equal(t, a.Before, a.After, "a copy leaves its source as it is")
	require.Equal(t, operation.Holding{Databases: 2, Measurements: 2, Points: 3020}, withoutBytes(b.After))
	require.InDelta(t, float64(a.Before.Bytes)*3020/3620, b.After.Bytes, 2)
	require.Equal(t, operation.Holding{Databases: 1, Measurements: 3, Points: 600}, withoutBytes(*a.AfterClear))
	require.Equal(t, b.After, *b.AfterClear)
	require.InDelta(t, 2, plan.Skew.Before, 0.001)
	require.InDelta(t, 3620*2./6640, plan.Skew.After, 0.001)
	require.InDelta(t, 3020*2./3620, *plan.Skew.AfterClear, 0.001)

	require.Len(t, plan.TopMovers, 2)
	require.Equal(t, yours[1], plan.TopMovers[0].Measurement)
	require.EqualValues(t, 2010, plan.TopMovers[0].Points)
	require.EqualValues(t, 1010, plan.TopMovers[1].Points)
	require.Equal(t, []string{first.URL(), r.servers[0][1].URL()}, []string{plan.TopMovers[0].From, plan.TopMovers[0].To})
	require.EqualValues(t, 3020, plan.Totals.Points)
	require.Empty(t, plan.Refusals)
	require.Contains(t, plan.EstimateSource, "5 of 5 measurements counted")
	require.Nil(t, plan.Schema, "nobody can approve a dry run")

	op := r.operation(operation.KindRebalance, `{"circle_id":0,"operation":"add"}`)
	normal, _ := r.plan(op)
	require.Equal(t, operation.Preview{}, normal.Preview, "who asks for nothing waits for nothing")
	require.Equal(t, plan.Moves[0].Slices, normal.Moves[0].Slices)
}

// TestWhatIsThereAlreadyIsNotAdded: an owner that holds a part gets the rest only.
func TestWhatIsThereAlreadyIsNotAdded(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	m := r.owned(0, 1, "db", 1)[0]
	for i, n := range []int{500, 200} {
		r.servers[0][i].Exec("CREATE DATABASE db")
		r.servers[0][i].WriteLines("db", "", lines(m, n, time.Hour))
	}
	plan, _ := r.dry(operation.KindRebalance, `{"circle_id":0,"operation":"add"}`)
	require.EqualValues(t, 200, plan.Balance[1].Before.Points)
	require.EqualValues(t, 500, plan.Balance[1].After.Points)
	require.EqualValues(t, 500, plan.Balance[0].After.Points)
	require.EqualValues(t, 0, plan.Balance[0].AfterClear.Points)
	require.Equal(t, 0, plan.Balance[0].AfterClear.Measurements)
}

// TestARecoveryAndAResyncArePreviewed: a recovery fills one circle and only in the time
// asked for, a resync both.
func TestARecoveryAndAResyncArePreviewed(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, 1)
	both := []string{r.owned(0, 0, "db", 1)[0], r.owned(0, 1, "db", 1)[0]}
	for i, m := range both {
		s := r.servers[0][i]
		s.Exec("CREATE DATABASE db")
		s.WriteLines("db", "", lines(m, 300, 5*week))
		s.WriteLines("db", "", lines(m, 100, time.Hour))
	}
	second := r.servers[1][0]
	second.Exec("CREATE DATABASE db")
	second.WriteLines("db", "", lines("only", 50, time.Hour))
	second.WriteLines("db", "", lines(both[0], 20, time.Hour))

	plan, _ := r.dry(operation.KindRecovery, `{"from_circle_id":0,"to_circle_id":1}`)
	require.Len(t, plan.Balance, 3)
	for _, b := range plan.Balance[:2] {
		require.EqualValues(t, 400, b.Before.Points)
		require.Equal(t, b.Before, b.After)
		require.Nil(t, b.AfterClear)
	}
	require.Equal(t, operation.Holding{Databases: 1, Measurements: 2, Points: 70}, withoutBytes(plan.Balance[2].Before))
	require.Equal(t, operation.Holding{Databases: 1, Measurements: 3, Points: 850}, withoutBytes(plan.Balance[2].After))
	require.Equal(t, operation.PlanSkew{Before: 1, After: 1}, *plan.Skew, "of the circle that is filled")

	plan, _ = r.dry(operation.KindRecovery, `{"from_circle_id":0,"to_circle_id":1,"since_seconds":86400}`)
	require.EqualValues(t, 250, plan.Balance[2].After.Points, "the last day only")

	plan, _ = r.dry(operation.KindResync, `{}`)
	require.EqualValues(t, 850, plan.Balance[2].After.Points)
	before, after := int64(0), int64(0)
	for _, b := range plan.Balance[:2] {
		before, after = before+b.Before.Points, after+b.After.Points
	}
	require.EqualValues(t, 800, before)
	require.EqualValues(t, 850, after)
}

// TestAClearIsPreviewed: what the owner holds goes, what it lacks stays.
func TestAClearIsPreviewed(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	mine, yours := r.owned(0, 0, "db", 1)[0], r.owned(0, 1, "db", 2)
	for _, s := range r.servers[0] {
		s.Exec("CREATE DATABASE db")
	}
	a, b := r.servers[0][0], r.servers[0][1]
	a.WriteLines("db", "", lines(mine, 100, week))
	both := lines(yours[0], 400, week)
	a.WriteLines("db", "", both)
	b.WriteLines("db", "", both)
	a.WriteLines("db", "", lines(yours[1], 30, week))
	plan, _ := r.dry(operation.KindClear, `{"circle_id":0}`)
	require.Equal(t, operation.Holding{Databases: 1, Measurements: 3, Points: 530}, withoutBytes(plan.Balance[0].Before))
	require.Equal(t, operation.Holding{Databases: 1, Measurements: 2, Points: 130}, withoutBytes(plan.Balance[0].After))
	require.Less(t, plan.Balance[0].After.Bytes, plan.Balance[0].Before.Bytes/2)
	require.Equal(t, plan.Balance[1].Before, plan.Balance[1].After)
	require.InDelta(t, 530*2./930, plan.Skew.Before, 0.001)
	require.InDelta(t, 400*2./530, plan.Skew.After, 0.001)
}

// TestMoreThanCanBeCountedIsScaled: a sample stands for the others.
func TestMoreThanCanBeCountedIsScaled(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	s := r.servers[0][0]
	s.Exec("CREATE DATABASE db")
	var b strings.Builder
	const n = 3000
	mine := 0
	for i := range n {
		name := fmt.Sprintf("x%04d", i)
		mine += 1 - r.owner(0, "db", name)
		fmt.Fprintf(&b, "%s v=1 1\n%s v=2 2\n", name, name)
	}
	s.WriteLines("db", "", b.String())
	// One that is much larger than the others, and that no sample of some would tell of.
	giant := ""
	for i := range n {
		if name := fmt.Sprintf("x%04d", i); r.owner(0, "db", name) == 1 {
			giant = name
		}
	}
	s.WriteLines("db", "", lines(giant, 15_000, time.Hour*24))
	plan, _ := r.dry(operation.KindRebalance, `{"circle_id":0,"operation":"add"}`)
	require.Equal(t, giant, plan.TopMovers[0].Measurement)
	require.EqualValues(t, 15_002, plan.TopMovers[0].Points)
	require.Equal(t, operation.Holding{Databases: 1, Measurements: n, Points: 2*n + 15_000}, withoutBytes(plan.Balance[0].Before))
	require.Equal(t, operation.Holding{Databases: 1, Measurements: n - mine, Points: int64(2*(n-mine)) + 15_000}, withoutBytes(plan.Balance[1].After))
	require.Equal(t, mine, plan.Balance[0].AfterClear.Measurements)
	require.Regexp(t, `[0-9]+ of 3000 measurements counted`, plan.EstimateSource)
	require.Contains(t, plan.EstimateSource, "taken for like those that lie at the same places")
	require.Len(t, plan.TopMovers, operation.MaxTopMovers)
}

// TestADryRunSaysWhatItWouldTripOver: expired points, policies that stay other ones,
// types, names that cannot be read.
func TestADryRunSaysWhatItWouldTripOver(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	m := r.owned(0, 1, "db", 3)
	a, b := r.servers[0][0], r.servers[0][1]
	a.Exec("CREATE DATABASE db; CREATE RETENTION POLICY short ON db DURATION 20w REPLICATION 1 SHARD DURATION 1d")
	a.WriteLines("db", "short", lines(m[0], 10, 10*week))
	a.WriteLines("db", "short", lines(m[0], 10, time.Hour))
	// The duration is shortened; the server keeps what it has until it looks.
	a.Exec("ALTER RETENTION POLICY short ON db DURATION 8w SHARD DURATION 1d")
	// Overlapping groups with two types.
	a.WriteLines("db", "", fmt.Sprintf("%s v=1i %d", m[1], time.Now().Add(-time.Hour).UnixNano()))
	a.Exec("ALTER RETENTION POLICY autogen ON db SHARD DURATION 2w")
	b.Exec("CREATE DATABASE db; ALTER RETENTION POLICY autogen ON db DURATION INF SHARD DURATION 1d; CREATE RETENTION POLICY own ON db DURATION 52w REPLICATION 1 DEFAULT")
	b.WriteLines("db", "autogen", fmt.Sprintf("%s v=1.5 %d", m[1], time.Now().Add(-time.Hour).UnixNano()))
	b.WriteLines("db", "own", "other v=1 "+fmt.Sprint(time.Now().UnixNano()))
	a.WriteLines("db", "", "_tagKeys v=1i 1\n"+lines(m[2], 5, time.Hour))

	plan, _ := r.dry(operation.KindRebalance, `{"circle_id":0,"operation":"add"}`)
	require.Subset(t, codes(&plan), []string{operation.RefusalExpired, operation.RefusalPolicy, operation.RefusalConflict})
	said := map[string][]string{}
	for _, refusal := range plan.Refusals {
		said[refusal.Code] = append(said[refusal.Code], refusal.Detail)
		require.NotEmpty(t, refusal.Hint)
	}
	require.Contains(t, strings.Join(said[operation.RefusalExpired], "\n"), `about 10 points in`)
	require.Contains(t, strings.Join(said[operation.RefusalPolicy], "\n"), `is the default at the source and will not be here`)
	require.Contains(t, strings.Join(said[operation.RefusalPolicy], "\n"), `shard duration 336h0m0s, replication 1 there, duration 0s, shard duration 24h0m0s`)
	require.Contains(t, strings.Join(said[operation.RefusalConflict], "\n"), `is integer at `+a.URL()+` and float here`)
	if r.owner(0, "db", "_tagKeys") == 1 {
		require.Contains(t, strings.Join(said[operation.RefusalUnreadable], "\n"), "_tagKeys")
	}
}

// TestATypeUnderTwoGroupsIsTold: after the shard duration was altered, one time may lie
// in two groups.
func TestATypeUnderTwoGroupsIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	m := r.owned(0, 1, "db", 1)[0]
	a := r.servers[0][0]
	a.Exec("CREATE DATABASE db WITH DURATION INF REPLICATION 1 SHARD DURATION 1d NAME autogen")
	base := time.Date(2020, 1, 6, 0, 0, 0, 0, time.UTC)
	a.WriteLines("db", "", fmt.Sprintf("%s v=1i %d", m, base.UnixNano()))
	a.Exec("ALTER RETENTION POLICY autogen ON db SHARD DURATION 7d")
	a.WriteLines("db", "", fmt.Sprintf("%s v=1.5 %d", m, base.Add(48*time.Hour).UnixNano()))
	plan, slices := r.dry(operation.KindRebalance, `{"circle_id":0,"operation":"add"}`)
	overlaps := 0
	for _, s := range slices {
		if s.Overlap {
			overlaps++
		}
	}
	require.Positive(t, overlaps)
	require.Equal(t, []string{operation.RefusalAmbiguous}, codes(&plan))
	require.Equal(t, m, plan.Refusals[0].Slice.Measurement)
	require.Contains(t, plan.Refusals[0].Detail, `field "v" has the types`)
}

// TestADryRunGoesOnWithoutABackend: it says which, and plans the rest; anything else
// waits for it and fails.
func TestADryRunGoesOnWithoutABackend(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	m := r.owned(0, 1, "db", 2)
	for _, i := range []int{0, 2} {
		r.servers[0][i].Exec("CREATE DATABASE db")
		r.servers[0][i].WriteLines("db", "", lines(m[i/2], 10, week))
	}
	gone := r.servers[0][2]
	gone.Stop()
	plan, _ := r.dry(operation.KindRebalance, `{"circle_id":0,"operation":"add"}`)
	require.Equal(t, []string{operation.RefusalUnreachable}, codes(&plan))
	require.Equal(t, gone.URL(), plan.Refusals[0].Backend)
	require.Len(t, plan.Balance, 2)
	require.Equal(t, 1, plan.Totals.Measurements)
	require.EqualValues(t, 10, plan.Totals.Points)
	held := r.operation(operation.KindRebalance, `{"circle_id":0,"operation":"add"}`)
	held.Hold = true
	_, err := r.planner.Plan(t.Context(), held, r.at(held), &job{})
	var own *operation.Error
	require.ErrorAs(t, err, &own)

	for _, kind := range []operation.Kind{operation.KindClear, operation.KindResync} {
		parameters := map[operation.Kind]string{operation.KindClear: `{"circle_id":0}`, operation.KindResync: `{}`}[kind]
		plan, _ = r.dry(kind, parameters)
		require.Equal(t, []string{operation.RefusalUnreachable}, codes(&plan))
	}
}

// TestWhatClientsBringIsApproved: in a transition they write to the new owner, too,
// before the operation that was held does.
func TestWhatClientsBringIsApproved(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	moves := r.owned(0, 1, "db", 3)
	from, to := r.servers[0][0], r.servers[0][1]
	for _, s := range r.servers[0] {
		s.Exec("CREATE DATABASE db")
	}
	for _, m := range moves[:2] {
		from.WriteLines("db", "", m+" v=1 1")
	}
	op := r.operation(operation.KindRebalance, `{"circle_id":0,"operation":"add"}`)
	op.Hold = true
	plan, _ := r.plan(op)
	changed := func(writing bool) string {
		at := r.at(op)
		at.Circles[0].FormerRules = writing
		plan.Schema.Circles[0].FormerRules = writing
		difference, err := r.planner.Changed(t.Context(), op, at, &plan, &job{})
		require.NoError(t, err)
		return difference
	}
	to.WriteLines("db", "", moves[0]+" v=2 2")
	require.Empty(t, changed(true))
	require.Equal(t, "measurement db."+moves[0]+" is new on "+to.URL(), changed(false), "nobody is expected to write to both")
	to.WriteLines("db", "", moves[2]+" v=2 2")
	require.Equal(t, "measurement db."+moves[2]+" is new on "+to.URL(), changed(true))
	from.WriteLines("db", "", moves[2]+" v=2 2")
	require.NotEmpty(t, changed(true), "the plan does not have it")
}

// TestAnApprovalIsHeldAgainstTheSchema: new points and fields are none of its business,
// new names are.
func TestAnApprovalIsHeldAgainstTheSchema(t *testing.T) {
	t.Parallel()
	for kind, parameters := range map[operation.Kind]string{
		operation.KindRebalance: `{"circle_id":0,"operation":"add","databases":["db","later"]}`,
		operation.KindRecovery:  `{"from_circle_id":0,"to_circle_id":1,"databases":["db","later"]}`,
		operation.KindResync:    `{"databases":["db","later"]}`,
		operation.KindClear:     `{"circle_id":0,"databases":["db","later"]}`,
	} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 2, 1)
			s := r.servers[0][0]
			s.Exec("CREATE DATABASE db; CREATE DATABASE elsewhere")
			s.WriteLines("db", "", lines("m", 10, time.Hour))
			op := r.operation(kind, parameters)
			op.Hold = true
			plan, _ := r.plan(op)
			require.NotEmpty(t, plan.Balance)
			changed := func() string {
				difference, err := r.planner.Changed(t.Context(), op, r.at(op), &plan, &job{})
				require.NoError(t, err)
				return difference
			}
			require.Empty(t, changed())
			s.WriteLines("db", "", lines("m", 10, 10*week))
			s.WriteLines("db", "", "m other=1i")
			s.WriteLines("elsewhere", "", "m v=1")
			s.Exec("CREATE DATABASE _ringmaster")
			require.Empty(t, changed())
			s.WriteLines("db", "", "n v=1")
			require.Equal(t, "measurement db.n is new on "+s.URL(), changed())
			s.Exec("ALTER RETENTION POLICY autogen ON db DURATION 52w; CREATE DATABASE later")
			require.Equal(t, "retention policy db.autogen on "+s.URL()+" was duration 0s, shard duration 168h0m0s, replication 1, the default and is duration 8736h0m0s, shard duration 168h0m0s, replication 1, the default; "+
				"measurement db.n is new on "+s.URL()+"; database later is new on "+s.URL(), changed())
			s.Stop()
			_, err := r.planner.Changed(t.Context(), op, r.at(op), &plan, &job{})
			require.Error(t, err)
		})
	}
}
