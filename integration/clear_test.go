package integration_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// requireCleared requires that a clear has done what the model says, and said so.
func (s *circleSite) requireCleared(id string, want clearing) operation.Operation {
	s.t.Helper()
	state := operation.Succeeded
	if want.units > 0 {
		state = operation.PartiallyFailed
	}
	op := s.finish(id, state)
	requireContents(s.t, want.after, s.dump())
	report := s.report(id)
	require.Equal(s.t, want.units == 0, report.Equal, asJSON(s.t, report))
	require.Equal(s.t, want.dropped, report.Dropped.Points, asJSON(s.t, report))
	require.Equal(s.t, want.dropped, op.Progress.Points.Dropped, asJSON(s.t, op.Progress))
	require.Equal(s.t, want.units, report.Kept.Slices, asJSON(s.t, report))
	// Counted by the commonest field of each kept window.
	require.LessOrEqual(s.t, report.Kept.Points, want.kept)
	require.GreaterOrEqual(s.t, report.Kept.Points, int64(want.units))
	kept := 0
	for _, p := range report.Problems {
		if p.Resolution == operation.ResolutionKept {
			kept++
			require.NotEmpty(s.t, p.Code)
			require.NotEmpty(s.t, p.Detail)
		}
	}
	if report.Unreported == 0 {
		require.Equal(s.t, want.units, kept, "everything kept is listed with its reason: %s", asJSON(s.t, report))
	}
	return op
}

func TestClearDeletesOnlyWhatTheOwnersHold(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 3)
	s.start()
	dice := diceOf(t)
	s.scatter(dice, usual(1200))
	s.loadDataSet(dice, 0)
	before := s.dump()
	s.complete(s.ask("/rebalance?circle_id=0&operation=add"))
	requireContents(t, s.rebalanced(before, 0), s.dump())

	// What lies where it does not belong and is nowhere else: a measurement, a
	// policy, a point, a field, another value.
	stray := s.strayMeasurement(0)
	for n, line := range []string{"v=1i", "a=77777i", "never_seen=true", "b=-9.5"} {
		measurement := fmt.Sprintf("m%d", n)
		for _, b := range s.members[0] {
			if b != s.ownerOf(0, "scattered", measurement) {
				b.write("scattered", "three days", fmt.Sprintf("%s,host=h0 %s %d\n", measurement, line, int64(firstTime)))
			}
		}
	}
	alone := s.members[0][0]
	if s.ownerOf(0, "scattered", "policy") == alone {
		alone = s.members[0][1]
	}
	for _, b := range []*backend{alone, s.ownerOf(0, "scattered", "policy")} {
		b.write("scattered", "daily", fmt.Sprintf("policy v=1i %d\n", firstTime))
	}
	alone.exec(`CREATE RETENTION POLICY alone ON scattered DURATION INF REPLICATION 1 SHARD DURATION 1d`)
	alone.write("scattered", "alone", fmt.Sprintf("policy v=1i %d\npolicy v=2i %d\n", firstTime, firstTime+3*int64(day)))

	before = s.dump()
	want := s.cleared(before, 0, everything)
	require.Greater(t, want.dropped, int64(300))
	require.Greater(t, want.units, 5)
	require.NotEmpty(t, want.after[s.holderOf(before, stray).URL()][stray])

	// First what would go.
	plan := s.finish(s.ask("/clear?circle_id=0&dry_run=true"), operation.Planned)
	// Estimated: of points with different fields, those of the commonest field.
	require.LessOrEqual(t, plan.Plan.Totals.Points, want.dropped+want.kept)
	require.Greater(t, 2*plan.Plan.Totals.Points, want.dropped+want.kept)
	require.Positive(t, plan.Plan.Totals.Bytes)
	res, shown := s.do(http.MethodGet, "/v1/operations/"+plan.ID+"/plan", nil, "")
	require.Equal(t, http.StatusOK, res.StatusCode, shown)
	var told struct {
		Moves []operation.PlanMove `json:"moves"`
	}
	require.NoError(t, json.Unmarshal([]byte(shown), &told))
	require.NotEmpty(t, told.Moves)
	requireContents(t, before, s.dump())

	s.requireCleared(s.ask("/clear?circle_id=0"), want)

	// Once more: what was kept is kept, and nothing else is there.
	again := s.cleared(want.after, 0, everything)
	require.Zero(t, again.dropped)
	s.requireCleared(s.ask("/cleanup?circle_id=0"), again)

	// A rebalance brings the rest to its owners, and then it goes, but for what the
	// owners have other values of.
	s.complete(s.ask("/rebalance?circle_id=0&operation=add"))
	before = s.dump()
	want = s.cleared(before, 0, everything)
	require.Positive(t, want.dropped)
	require.Empty(t, want.after[alone.URL()][harness.Place{Database: "scattered", RetentionPolicy: "alone", Measurement: "policy"}])
	s.requireCleared(s.ask("/clear?circle_id=0"), want)
}

// holderOf is the server that holds something.
func (s *circleSite) holderOf(c contents, p harness.Place) *backend {
	s.t.Helper()
	all := s.all()
	i := slices.IndexFunc(all, func(b *backend) bool { return len(c[b.URL()][p]) > 0 })
	require.GreaterOrEqual(s.t, i, 0, "nobody holds %v", p)
	return all[i]
}

func TestClearOfACircleWithNothingToClear(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 2)
	s.start()
	s.createDatabase("db")
	for n := range 5 {
		name := fmt.Sprintf("m%d", n)
		s.ownerOf(0, "db", name).write("db", "daily", generate(name, 50))
	}
	before := s.dump()
	op := s.finish(s.ask("/clear?circle_id=0"), operation.Succeeded)
	require.Contains(t, op.Result.Note, "nothing to do: all 5 measurements")
	requireContents(t, before, s.dump())
}

// Only what is older than asked for goes, to the nanosecond, also in the middle of
// a shard group.
func TestClearOfOldPoints(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 2)
	s.start()
	edge := time.Now().Truncate(time.Hour).Add(-time.Hour)
	for _, b := range s.all() {
		b.exec("CREATE DATABASE old WITH DURATION INF REPLICATION 1 SHARD DURATION 1h NAME hourly")
		b.write("old", "hourly", edgePoints(edge, 2)+edgePoints(edge.Add(-2*time.Hour), 20))
	}
	before := s.dump()
	id := s.ask(fmt.Sprintf("/clear?circle_id=0&db=old&older_than_seconds=%d", int(time.Since(edge).Seconds())))
	op := s.finish(id, operation.Succeeded)
	var p operation.Clear
	require.NoError(t, json.Unmarshal(op.Parameters, &p))
	limit := op.CreatedAt.Add(-time.Duration(p.OlderThanSeconds) * time.Second).UnixNano()
	want := s.cleared(before, 0, func(_ harness.Place, key string) bool { return timeOf(key) < limit }, limit)
	require.Positive(t, want.dropped)
	require.NotEmpty(t, want.after[s.wrongPlace("old", "edge").URL()])
	s.requireCleared(id, want)
}

// wrongPlace is a server of the first circle that does not own a measurement.
func (s *circleSite) wrongPlace(db, measurement string) *backend {
	s.t.Helper()
	owner := s.ownerOf(0, db, measurement)
	return s.members[0][slices.IndexFunc(s.members[0], func(b *backend) bool { return b != owner })]
}

// clearSite is a circle of two servers, each behind a proxy. Measurements of
// several windows and policies lie at both.
type clearSite struct {
	*circleSite

	proxies []*harness.Proxy
	// wrong holds what its owner, the other server, holds too; wrongProxy and
	// ownerProxy stand before them.
	wrong, owner           *backend
	wrongProxy, ownerProxy *harness.Proxy
	measurement            string
}

// newClearSite starts the site; what is to be cleared is one measurement of three
// windows in two policies.
func newClearSite(t *testing.T, args ...string) *clearSite {
	t.Helper()
	s := &clearSite{circleSite: newCircleSite(t, 2), measurement: "left"}
	s.proxies = []*harness.Proxy{s.proxy(0, 0), s.proxy(0, 1)}
	s.start(args...)
	s.owner, s.wrong = s.ownerOf(0, "db", s.measurement), s.wrongPlace("db", s.measurement)
	at := slices.Index(s.members[0], s.owner)
	s.ownerProxy, s.wrongProxy = s.proxies[at], s.proxies[1-at]
	for _, b := range s.all() {
		b.exec("CREATE DATABASE db WITH DURATION INF REPLICATION 1 SHARD DURATION 1d NAME daily")
		b.exec("CREATE RETENTION POLICY more ON db DURATION INF REPLICATION 1 SHARD DURATION 1d")
		for _, rp := range []string{"daily", "more"} {
			b.write("db", rp, s.lines(rp))
		}
	}
	return s
}

// lines are the points of a policy.
func (s *clearSite) lines(rp string) string {
	var b strings.Builder
	for d := range 3 {
		for n := range 50 {
			fmt.Fprintf(&b, "%s,host=h%d,rp=%s v=%di,w=%d.5 %d\n", s.measurement, n%5, rp, n, d, s.at(d, n))
		}
	}
	return b.String()
}

// at is the time of the n-th point of a day.
func (*clearSite) at(d, n int) int64 {
	return int64(firstTime) + int64(d)*int64(day) + int64(n)*int64(time.Second)
}

func deletes(r *http.Request) bool { return strings.Contains(harness.Statements(r), "DELETE") }

// recounts matches the first counting after points have been read: what was proven
// is counted again before it is deleted.
func recounts() func(*http.Request) bool {
	proven := newLatch()
	return func(r *http.Request) bool {
		if harness.ReadsPoints(r) {
			proven.open()
			return false
		}
		select {
		case <-proven.done:
			return countsPoints(r)
		default:
			return false
		}
	}
}

// requireNothingLost requires that each value of before is somewhere still, with
// one server or the other, and that whatever the wrong place has lost its owner has.
func (s *clearSite) requireNothingLost(before contents) {
	s.t.Helper()
	after := s.dump()
	for place, points := range before[s.wrong.URL()] {
		for key, value := range points {
			if after[s.wrong.URL()][place][key] != value {
				require.Equal(s.t, value, after[s.owner.URL()][place][key], "lost: %v %s", place, key)
			}
		}
	}
	for place, points := range before[s.owner.URL()] {
		requireHolds(s.t, fmt.Sprintf("%v at its owner", place), points, after[s.owner.URL()][place])
	}
}

// once makes a handler do something before the first request that matches is sent
// on, while all others wait.
func once(p *harness.Proxy, match func(*http.Request) bool, do func()) {
	done := newLatch()
	matched := first(1, match)
	p.Handle(func(w http.ResponseWriter, r *http.Request) {
		if matched(r) {
			do()
			done.open()
		}
		p.Forward(w, r)
	})
}

// A write that arrives between proof and recount is seen: the window is proven
// anew. A point that the owner does not have keeps it; one that it has does not.
func TestClearSeesAWriteBetweenProofAndRecount(t *testing.T) {
	t.Parallel()
	for name, both := range map[string]bool{"only there": false, "at the owner too": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newClearSite(t)
			line := fmt.Sprintf("%s,host=h0,rp=more v=-1i %d\n", s.measurement, s.at(1, 7))
			once(s.wrongProxy, recounts(), func() {
				s.wrong.write("db", "more", line)
				if both {
					s.owner.write("db", "more", line)
				}
			})
			id := s.ask("/clear?circle_id=0")
			want := operation.PartiallyFailed
			if both {
				want = operation.Succeeded
			}
			s.finish(id, want)
			after := s.dump()
			place := harness.Place{Database: "db", RetentionPolicy: "more", Measurement: s.measurement}
			report := s.report(id)
			if both {
				require.Empty(t, after[s.wrong.URL()])
				require.EqualValues(t, 301, report.Dropped.Points, asJSON(t, report))
				return
			}
			require.Equal(t, operation.Amount{Slices: 1, Points: 101}, report.Kept, asJSON(t, report))
			require.EqualValues(t, 200, report.Dropped.Points, asJSON(t, report))
			require.Len(t, after[s.wrong.URL()][place], 101, "the written point has one value, the others two")
		})
	}
}

// The owner loses a point between proof and recount: the window stays.
func TestClearSeesAnOwnerThatLosesPointsBetweenProofAndRecount(t *testing.T) {
	t.Parallel()
	s := newClearSite(t)
	once(s.wrongProxy, recounts(), func() {
		s.owner.execIn("db", fmt.Sprintf(`DELETE FROM %s WHERE time = %d`, s.measurement, s.at(1, 3)))
	})
	before := s.dump()
	id := s.ask("/clear?circle_id=0")
	s.finish(id, operation.PartiallyFailed)
	report := s.report(id)
	require.Equal(t, operation.Amount{Slices: 1, Points: 100}, report.Kept, asJSON(t, report))
	after := s.dump()
	for place, points := range before[s.wrong.URL()] {
		for key, value := range points {
			held := after[s.wrong.URL()][place][key] == value || after[s.owner.URL()][place][key] == value
			require.True(t, held, "lost: %v %s", place, key)
		}
	}
}

// kill -9 of the worker between proof and drop. Its proof is not believed by who
// takes over: meanwhile a point came that only the wrong place has.
func TestClearIsProvenAnewAfterAKillBetweenProofAndDrop(t *testing.T) {
	t.Parallel()
	s := newClearSite(t)
	killed := newLatch()
	caught := first(1, deletes)
	s.wrongProxy.Handle(func(w http.ResponseWriter, r *http.Request) {
		if caught(r) {
			s.Workers[0].Kill()
			killed.open()
			harness.Hangup()
		}
		s.wrongProxy.Forward(w, r)
	})
	id := s.ask("/clear?circle_id=0")
	killed.await(t, "the worker is about to delete")
	// All three windows were proven by now.
	s.wrong.write("db", "more", fmt.Sprintf("%s,host=new v=-1i %d\n", s.measurement, s.at(2, 9)))
	before := s.dump()
	s.startWorker()
	s.finish(id, operation.PartiallyFailed)
	s.requireNothingLost(before)
	report := s.report(id)
	require.Equal(t, operation.Amount{Slices: 1, Points: 101}, report.Kept, asJSON(t, report))
	require.EqualValues(t, 200, report.Dropped.Points, asJSON(t, report))
}

// kill -9 of the worker when the server has deleted and nobody has heard of it:
// what is gone counts as dropped, once.
func TestClearAfterAKillBetweenDropAndItsAnswer(t *testing.T) {
	t.Parallel()
	s := newClearSite(t)
	killed := newLatch()
	caught := first(1, deletes)
	s.wrongProxy.Handle(func(w http.ResponseWriter, r *http.Request) {
		if caught(r) {
			if _, _, err := s.wrongProxy.Fetch(r); err != nil {
				t.Errorf("deleting: %v", err)
			}
			s.Workers[0].Kill()
			killed.open()
			harness.Hangup()
		}
		s.wrongProxy.Forward(w, r)
	})
	before := s.dump()
	want := s.cleared(before, 0, everything)
	id := s.ask("/clear?circle_id=0")
	killed.await(t, "the worker has deleted a window")
	s.startWorker()
	s.requireCleared(id, want)
	require.Equal(t, want.dropped, int64(300))
}

// The owner dies between proof and drop. While it is away nothing more is deleted;
// it comes back with what it had.
func TestClearWhenTheOwnerDiesBetweenProofAndDrop(t *testing.T) {
	t.Parallel()
	for name, when := range map[string]func() func(*http.Request) bool{
		"before the recount": recounts,
		// The delete is on its way already, and the owner's points are on its disk.
		"after the recount": func() func(*http.Request) bool { return deletes },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newClearSite(t)
			died := newLatch()
			once(s.wrongProxy, when(), func() {
				s.owner.Kill()
				died.open()
			})
			before := s.dump()
			id := s.ask("/clear?circle_id=0")
			died.await(t, "the owner dies")
			s.wait(id, func(op *operation.Operation) bool { return len(op.Waits) > 0 })
			s.owner.Restart()
			s.requireNothingLost(before)
			s.finish(id, operation.Succeeded)
			s.requireNothingLost(before)
			require.Empty(t, s.wrong.dump())
		})
	}
}

// The owner dies between proof and drop and stays away: what it was proven to hold
// is kept where it is.
func TestClearKeepsWhatAnOwnerThatStaysAwayHeld(t *testing.T) {
	t.Parallel()
	s := newClearSite(t, "-patience", "1s", "-backend-timeout", "2s")
	once(s.wrongProxy, recounts(), s.owner.Kill)
	before := s.dump()
	id := s.ask("/clear?circle_id=0")
	op := s.wait(id, harness.Ended)
	require.NotEqual(t, operation.Succeeded, op.State)
	require.Equal(t, before[s.wrong.URL()], s.wrong.dump())
	s.owner.Restart()
	s.requireNothingLost(before)
	// When it is back the rest goes.
	code, err := s.Workers[0].Stop()
	require.NoError(t, err)
	require.Zero(t, code)
	s.startWorker("-patience", "1s")
	s.finish(s.ask("/clear?circle_id=0"), operation.Succeeded)
	s.requireNothingLost(before)
	require.Empty(t, s.wrong.dump())
}

// A delete that the server has refused, and not begun, is sent again soon, as a
// write is.
func TestClearSendsARefusedDeleteAgainSoon(t *testing.T) {
	t.Parallel()
	s := newClearSite(t)
	s.wrongProxy.Handle(only(first(2, deletes), refuse(http.StatusTooManyRequests, "too many deletes"))(s.wrongProxy))
	began := time.Now()
	s.finish(s.ask("/clear?circle_id=0"), operation.Succeeded)
	require.Less(t, time.Since(began), 30*time.Second)
	require.Empty(t, s.wrong.dump())
}
