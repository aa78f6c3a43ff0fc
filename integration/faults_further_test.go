package integration_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// clearFaults are the faults of a clear: source is where something is deleted,
// destination its owner. Whatever happens, nothing is lost.
func clearFaults() []faultCase {
	read := harness.ReadsPoints
	kept := operation.PartiallyFailed
	return []faultCase{
		{name: "no fault", want: operation.Succeeded},
		// For good: what is not deleted or not proven is kept.
		{name: "deletes answered 500", source: only(deletes, refuse(500, "engine is busy")), want: kept, words: "engine is busy", waits: true, shown: "points left"},
		{name: "deletes answered 503", source: only(deletes, refuse(503, "nothing is deleted on Mondays")), want: kept, words: "on Mondays", waits: true, shown: "on Mondays"},
		{name: "deletes answered 429", source: only(deletes, refuse(429, "too many deletes")), want: kept, words: "too many deletes", waits: true, shown: "too many deletes"},
		{name: "deletes answered 403", source: only(deletes, refuse(403, "not authorized to delete")), want: kept, words: "not authorized to delete"},
		{name: "deletes are swallowed", source: only(deletes, swallow), want: kept, waits: true, words: "", shown: "points left"},
		{name: "deletes are acknowledged and forgotten", source: only(deletes, forget), want: kept, words: "points"},
		{name: "source is a black hole", source: only(asksPoints, swallow), want: operation.Failed, words: "no byte came or went", waits: true},
		{name: "destination is a black hole", destination: only(asksPoints, swallow), want: operation.Failed, words: "no byte came or went", waits: true},
		{name: "source answers 500 to everything", source: only(asksPoints, refuse(500, "disk i/o error")), want: operation.Failed, words: "disk i/o error", waits: true},
		{name: "reads of the owner answered 503", destination: only(read, refuse(503, "no more queries today")), want: kept, words: "no more queries today", waits: true},
		{name: "every read of the source carries an error half-way", source: only(read, errorHalfway("shard 7 went away")), want: kept, words: "shard 7 went away"},
		{name: "every read of the owner carries an error half-way", destination: only(read, errorHalfway("shard 8 went away")), want: kept, words: "shard 8 went away"},
		{name: "every read of the source ends early as if complete", source: only(read, truncate), want: kept},
		{name: "every read of the owner ends early as if complete", destination: only(read, truncate), want: kept},
		{name: "every read of the source is cut", source: only(read, cutAnswer(3000)), want: kept, waits: true, words: "it ends in the middle"},
		{name: "every counting of the owner fails half-way", destination: only(countsPoints, errorHalfway("counting is broken")), want: kept, words: "counting is broken"},
		// For a while: everything goes, and every count is exact.
		{name: "one delete answered 500", source: only(first(1, deletes), refuse(500, "a hiccup")), want: operation.Succeeded},
		{name: "one delete answered 503", source: only(first(1, deletes), refuse(503, "a hiccup")), want: operation.Succeeded},
		{name: "the answers of deletes are lost", source: only(deletes, cutAnswer(0)), want: operation.Succeeded},
		{name: "one delete is swallowed", source: only(first(1, deletes), swallow), want: operation.Succeeded},
		{name: "one read carries an error half-way", source: only(first(1, read), errorHalfway("a hiccup")), want: operation.Succeeded},
		{name: "one read of the source ends early as if complete", source: only(first(1, read), truncate), want: operation.Succeeded, or: kept},
		{name: "one read of the owner is cut", destination: only(first(1, read), cutAnswer(2000)), want: operation.Succeeded},
		{name: "one counting fails half-way", destination: only(first(1, countsPoints), errorHalfway("a hiccup")), want: operation.Succeeded},
	}
}

// asksPoints matches everything but the question who a server is, which every clear
// asks every server of all circles.
func asksPoints(r *http.Request) bool {
	return !strings.Contains(harness.Statements(r), "SHOW DIAGNOSTICS")
}

// forget is the fault of a server that says that it has deleted and has not.
func forget(*harness.Proxy) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(w, `{"results":[{"statement_id":0}]}`)
	}
}

func TestFaultsOfAClearLoseNothing(t *testing.T) {
	t.Parallel()
	r := newFaultRig(t, clearFaults())
	var circles []harness.Circle
	for i := range r.cases {
		circles = append(circles, faultCircle(i, "circle", r.froms[i], r.tos[i]))
	}
	require.NoError(t, r.WriteCircles(circles...))
	r.startAPI(impatient()...)
	for i := range r.cases {
		db, names := faultDatabase(i), []string{}
		for n := 0; len(names) < faultMeasurements; n++ {
			if name := fmt.Sprintf("c%03d", n); r.owner(i, db, name) == r.tos[i].URL() {
				names = append(names, name)
			}
		}
		for _, b := range []*backend{r.source, r.destination} {
			b.exec("DROP DATABASE " + db)
			b.exec("CREATE DATABASE " + db)
			for _, name := range names {
				b.write(db, "", generate(name, faultPoints))
			}
		}
	}
	wrong, owned := r.source.dump(), r.destination.dump()
	nothingLost := func(t *testing.T, i int, report *operation.Report) {
		t.Helper()
		left, have := r.source.dump(), r.destination.dump()
		for place, points := range wrong {
			if place.Database != faultDatabase(i) {
				continue
			}
			requireHolds(t, "the owner", owned[place], have[place])
			for key, value := range points {
				require.True(t, left[place][key] == value || have[place][key] == value, "lost: %v %s", place, key)
			}
			if report != nil {
				require.Empty(t, left[place], "everything was dropped")
			}
		}
		if report != nil {
			require.EqualValues(t, faultMeasurements*faultPoints, report.Dropped.Points, asJSON(t, report))
			require.Zero(t, report.Kept, asJSON(t, report))
		}
	}
	r.run(operation.KindClear, func(i int) map[string]any { return map[string]any{"circle_id": i} }, nothingLost, nothingLost)
}

// resyncFaults are faults of a resync, in which both ends are written to.
func resyncFaults() []faultCase {
	write, read := harness.IsWrite, harness.ReadsPoints
	failed, partly := operation.Failed, operation.PartiallyFailed
	return []faultCase{
		{name: "no fault", want: operation.Succeeded},
		{name: "writes to the first circle answered 500", source: only(write, refuse(500, "cache is on fire")), want: failed, or: partly, words: "cache is on fire", waits: true},
		{name: "writes to the second circle answered 503", destination: only(write, refuse(503, "come back on Monday")), want: failed, or: partly, words: "come back on Monday", waits: true},
		{name: "source is a black hole", source: only(always, swallow), want: failed, words: "no byte came or went", waits: true},
		{name: "destination is a black hole", destination: only(always, swallow), want: failed, words: "no byte came or went", waits: true},
		{name: "every read carries an error half-way", destination: only(read, errorHalfway("shard 7 went away")), want: failed, or: partly, words: "shard 7 went away"},
		{name: "writes are acknowledged and forgotten", source: only(write, pretend), want: failed, or: partly},
		{name: "some writes to both answered 429", source: only(first(2, write), refuse(429, "a hiccup")), destination: only(first(2, write), refuse(429, "a hiccup")), want: operation.Succeeded},
		{name: "one write to the first circle is acknowledged and forgotten", source: only(first(1, write), pretend), want: operation.Succeeded},
		{name: "some reads are cut", source: only(first(2, read), cutAnswer(5000)), destination: only(first(1, read), truncate), want: operation.Succeeded},
	}
}

// A resync holds every circle, so each case has an installation of its own; all of
// them run at once.
func TestFaultsOfAResyncNeverEndInAFalseSuccess(t *testing.T) {
	t.Parallel()
	r := newFaultRig(t, resyncFaults())
	sites := make([]*installation, len(r.cases))
	ids := make([]string, len(r.cases))
	before := r.source.dump()
	for i := range r.cases {
		r.destination.fill(faultDatabase(i), 0, 0)
		r.destination.write(faultDatabase(i), "", generate("m001", faultPoints/2)+generate("there", faultPoints))
		sites[i] = install(t)
		require.NoError(t, sites[i].WriteCircles(faultCircle(i, "first", r.froms[i]), faultCircle(i, "second", r.tos[i])))
		sites[i].startAPI(impatient()...)
		sites[i].startWorker(impatient()...)
		op, err := sites[i].Client.Submit(sites[i].context(), operation.KindResync, map[string]any{"databases": []string{faultDatabase(i)}})
		require.NoError(t, err)
		ids[i] = op.ID
	}
	there := r.destination.dump()
	for i, c := range r.cases {
		t.Run(c.name, func(t *testing.T) {
			in := sites[i].as(t)
			op := in.wait(ids[i], harness.Ended)
			require.Contains(t, []operation.State{c.want, c.or}, op.State, "%v", op.Error)
			if c.waits {
				requireWait(t, in.shownWaits(op.ID), c.words, r.froms[i].URL(), r.tos[i].URL())
			}
			if op.State != operation.Succeeded {
				require.Contains(t, asJSON(t, op.Error), c.words)
				if op.Report != nil {
					require.False(t, in.report(op.ID).Equal)
				}
				return
			}
			require.True(t, in.report(op.ID).Equal)
			first, second := places(r.source.dump()), places(r.destination.dump())
			mine := func(p harness.Place, _ string) bool { return p.Database == faultDatabase(i) }
			want, ours, theirs := places{}, places{}, places{}
			want.fill(before, mine)
			want.fill(there, mine)
			ours.fill(first, mine)
			theirs.fill(second, mine)
			require.Equal(t, want, ours)
			require.Equal(t, want, theirs)
		})
	}
}
