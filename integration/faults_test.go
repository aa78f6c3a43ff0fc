package integration_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// faultCase is an operation between two backends one of which misbehaves.
type faultCase struct {
	name string
	// source and destination make the handlers of the proxies in front of the
	// backends; nil is no fault.
	source, destination func(p *harness.Proxy) http.HandlerFunc
	// want is how the operation ends; words is what its error or its report then
	// says.
	want  operation.State
	words string
	// waits says that the operation shows meanwhile what it waits for.
	waits bool
}

// only breaks the requests that match and forwards the others.
func only(match func(*http.Request) bool, fault func(p *harness.Proxy) http.HandlerFunc) func(p *harness.Proxy) http.HandlerFunc {
	return func(p *harness.Proxy) http.HandlerFunc {
		broken := fault(p)
		return func(w http.ResponseWriter, r *http.Request) {
			if match(r) {
				broken(w, r)
				return
			}
			p.Forward(w, r)
		}
	}
}

// first matches the first n of the requests that match.
func first(n int64, match func(*http.Request) bool) func(*http.Request) bool {
	var seen atomic.Int64
	return func(r *http.Request) bool { return match(r) && seen.Add(1) <= n }
}

func always(*http.Request) bool { return true }

// counts tells the counting of a verification from all other queries.
func countsPoints(r *http.Request) bool {
	return strings.Contains(harness.Statements(r), "count(*::field)") && strings.Contains(harness.Statements(r), "GROUP BY *")
}

func refuse(status int, words string) func(*harness.Proxy) http.HandlerFunc {
	return func(*harness.Proxy) http.HandlerFunc { return harness.Refuse(status, words) }
}

func swallow(p *harness.Proxy) http.HandlerFunc { return p.Swallow }

func truncate(p *harness.Proxy) http.HandlerFunc { return p.Truncate }

func pretend(*harness.Proxy) http.HandlerFunc { return harness.Pretend }

func errorHalfway(words string) func(*harness.Proxy) http.HandlerFunc {
	return func(p *harness.Proxy) http.HandlerFunc { return p.ErrorHalfway(words) }
}

func cutAnswer(n int) func(*harness.Proxy) http.HandlerFunc {
	return func(p *harness.Proxy) http.HandlerFunc { return p.CutAnswer(n) }
}

func cutRequest(n int64) func(*harness.Proxy) http.HandlerFunc {
	return func(*harness.Proxy) http.HandlerFunc { return harness.CutRequest(n) }
}

func faultCases() []faultCase {
	write, read := harness.IsWrite, harness.ReadsPoints
	return []faultCase{
		{name: "no fault", want: operation.Succeeded},
		// For good: the operation fails with the server's words.
		{name: "writes answered 500", destination: only(write, refuse(500, "engine: cache is on fire")), want: operation.Failed, words: "cache is on fire", waits: true},
		{name: "writes answered 503", destination: only(write, refuse(503, "come back on Monday")), want: operation.Failed, words: "come back on Monday", waits: true},
		{name: "writes answered 429", destination: only(write, refuse(429, "far too many writes")), want: operation.Failed, words: "far too many writes", waits: true},
		{name: "writes answered 403", destination: only(write, refuse(403, "not authorized to write")), want: operation.Failed, words: "not authorized to write"},
		{name: "destination answers 500 to everything", destination: only(always, refuse(500, "meta store is gone")), want: operation.Failed, words: "meta store is gone", waits: true},
		{name: "reads answered 503", source: only(read, refuse(503, "no more queries today")), want: operation.Failed, words: "no more queries today", waits: true},
		{name: "source answers 500 to everything", source: only(always, refuse(500, "disk i/o error")), want: operation.Failed, words: "disk i/o error", waits: true},
		{name: "every read carries an error half-way", source: only(read, errorHalfway("shard 7 went away")), want: operation.Failed, words: "shard 7 went away", waits: true},
		{name: "every read is cut", source: only(read, cutAnswer(3000)), want: operation.Failed, words: "it ends in the middle", waits: true},
		{name: "every write is cut", destination: only(write, cutRequest(1000)), want: operation.Failed, words: "writing to", waits: true},
		{name: "destination is a black hole", destination: only(always, swallow), want: operation.Failed, words: "no byte came or went", waits: true},
		{name: "source is a black hole", source: only(always, swallow), want: operation.Failed, words: "no byte came or went", waits: true},
		{name: "every counting fails half-way", destination: only(countsPoints, errorHalfway("counting is broken")), want: operation.Failed, words: "counting is broken", waits: true},
		{name: "every read ends early as if complete", source: only(read, truncate), want: operation.Failed},
		{name: "writes are acknowledged and forgotten", destination: only(write, pretend), want: operation.Failed, words: "not equal"},
		// For a while: the operation succeeds, and every count is exact.
		{name: "some writes answered 500", destination: only(first(3, write), refuse(500, "a hiccup")), want: operation.Succeeded},
		{name: "some writes answered 503 and 429", destination: only(first(2, write), refuse(503, "a hiccup")), want: operation.Succeeded},
		{name: "one read carries an error half-way", source: only(first(1, read), errorHalfway("a hiccup")), want: operation.Succeeded},
		{name: "one read ends early as if complete", source: only(first(1, read), truncate), want: operation.Succeeded},
		{name: "some reads are cut", source: only(first(2, read), cutAnswer(5000)), want: operation.Succeeded},
		{name: "some writes are cut", destination: only(first(2, write), cutRequest(10_000)), want: operation.Succeeded},
		{name: "some acknowledgements are lost", destination: only(first(2, write), cutAnswer(0)), want: operation.Succeeded},
		{name: "one write is swallowed", destination: only(first(1, write), swallow), want: operation.Succeeded},
		{name: "one write is acknowledged and forgotten", destination: only(first(1, write), pretend), want: operation.Succeeded},
		{name: "one counting fails half-way", destination: only(first(1, countsPoints), errorHalfway("a hiccup")), want: operation.Succeeded},
	}
}

// All cases run at once, each in a circle of its own: most of them wait most of
// the time.
func TestFaultsNeverEndInAFalseSuccess(t *testing.T) {
	t.Parallel()
	const points, measurements = 700, 3
	b := startBackends(t, 2)
	source, destination := b[0], b[1]
	in := install(t)
	cases := faultCases()
	var circles []harness.Circle
	froms, tos := make([]*harness.Proxy, len(cases)), make([]*harness.Proxy, len(cases))
	for i, c := range cases {
		froms[i], tos[i] = source.proxied(), destination.proxied()
		in.behind[tos[i].URL()] = destination.URL()
		if c.source != nil {
			froms[i].Handle(c.source(froms[i]))
		}
		if c.destination != nil {
			tos[i].Handle(c.destination(tos[i]))
		}
		source.fill(fmt.Sprintf("case%02d", i), measurements, points)
		circles = append(circles, harness.Circle{Name: c.name, Backends: []harness.Backend{{Name: fmt.Sprintf("owner-%d", i), URL: tos[i].URL()}}})
	}
	require.NoError(t, in.WriteCircles(circles...))
	// Long enough for a wait to be told, in programs that the race detector slows
	// down too.
	impatient := []string{"-patience", "4s", "-backend-timeout", "2s"}
	if raceEnabled {
		impatient[1] = "8s"
	}
	in.startAPI(impatient...)
	in.startWorker(append(impatient, "-slots", fmt.Sprint(len(cases)))...)
	ids := make([]string, len(cases))
	for i := range cases {
		ids[i] = in.rebalanceRemove(i, []harness.Backend{{Name: "leaver", URL: froms[i].URL()}}, fmt.Sprintf("case%02d", i)).ID
	}
	ended := make([]operation.Operation, len(cases))
	waiting := map[string]bool{}
	require.Eventually(t, func() bool {
		open := 0
		for i, id := range ids {
			op, err := in.Client.Operation(bounded(t), id)
			require.NoError(t, err)
			if len(op.Waits) > 0 {
				waiting[cases[i].name] = true
			}
			if ended[i] = op; !op.State.Terminal() {
				open++
			}
		}
		return open == 0
	}, patience, 100*time.Millisecond, "every operation ends")
	// Long waits are seen by whoever looks at the operation.
	require.True(t, waiting["destination is a black hole"])
	require.True(t, waiting["source is a black hole"])
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			op, in := ended[i], in.as(t)
			require.Equal(t, c.want, op.State, "%v", op.Error)
			if c.waits {
				requireWait(t, in.shownWaits(op.ID), c.words, froms[i].URL(), tos[i].URL())
			}
			require.Empty(t, op.Waits, "nothing waits any more")
			if c.want != operation.Succeeded {
				require.NotNil(t, op.Error)
				said := op.Error.Detail
				if op.Report != nil {
					report := in.report(op.ID)
					require.False(t, report.Equal, asJSON(t, report))
					require.NotZero(t, report.Slices.Unequal, asJSON(t, report))
					said += asJSON(t, report)
				}
				require.Contains(t, said, c.words)
				return
			}
			report := in.report(op.ID)
			require.True(t, report.Equal, asJSON(t, report))
			require.Equal(t, int64(measurements*points), report.Points.Source)
			require.Equal(t, int64(measurements*points), report.Points.Destination)
			require.Equal(t, int64(measurements*points), op.Progress.Points.Verified)
			in.requireMoved(i, b[:1], b[1:], fmt.Sprintf("case%02d", i))
		})
	}
}

// shownWaits returns everything that the progress of an operation has said that
// it waits for.
func (in *installation) shownWaits(id string) []operation.Wait {
	in.t.Helper()
	var page struct {
		Items []struct {
			Data struct {
				Data struct {
					Waits []operation.Wait `json:"waits"`
				} `json:"data"`
			} `json:"data"`
		} `json:"items"`
	}
	res, body := in.do(http.MethodGet, "/v1/operations/"+id+"/events?limit=1000", http.Header{"Accept": {"application/json"}}, "")
	require.Equal(in.t, http.StatusOK, res.StatusCode, body)
	require.NoError(in.t, json.Unmarshal([]byte(body), &page))
	var all []operation.Wait
	for _, e := range page.Items {
		for _, w := range e.Data.Data.Waits {
			if !slices.Contains(all, w) {
				all = append(all, w)
			}
		}
	}
	return all
}

// requireWait requires that one of the waits names one of the backends and says
// what it answered.
func requireWait(t *testing.T, waits []operation.Wait, words string, backends ...string) {
	t.Helper()
	for _, w := range waits {
		for _, b := range backends {
			if w.Backend == b && strings.Contains(w.Measured, words) {
				require.NotEmpty(t, w.Gate)
				require.NotEmpty(t, w.Limit)
				require.False(t, w.Since.IsZero())
				return
			}
		}
	}
	require.Failf(t, "no wait was shown", "that says %q: %s", words, asJSON(t, waits))
}

// conflicting prepares a source and an owner that cannot agree about one of five
// measurements: the owner holds its field with another type in the same shard.
func conflicting(t *testing.T) (source, owner *backend) {
	t.Helper()
	b := startBackends(t, 2)
	source, owner = b[0], b[1]
	source.fill("db", 5, 700)
	owner.exec(`CREATE DATABASE db`)
	owner.write("db", "", fmt.Sprintf("m003,host=h1,zone=z value=\"a text\" %d\n", int64(firstTime)+1))
	return source, owner
}

func TestTypeConflictFailsOneSliceAndNoOther(t *testing.T) {
	t.Parallel()
	source, owner := conflicting(t)
	in := install(t)
	require.NoError(t, in.WriteConfigURLs(owner.URL()))
	in.startAPI("-patience", "2s")
	in.startWorker("-patience", "2s")
	op := in.rebalanceRemove(0, []harness.Backend{source.configured("leaver")})
	ended := in.finish(op.ID, operation.PartiallyFailed)
	require.NotNil(t, ended.Error)
	require.Contains(t, ended.Error.Detail, "field type conflict")
	require.NotEmpty(t, ended.Error.TaskID)
	report := in.report(op.ID)
	require.False(t, report.Equal)
	require.Equal(t, 1, report.Slices.Unequal, asJSON(t, report))
	require.Equal(t, 4, report.Slices.Equal, asJSON(t, report))
	require.Len(t, report.Problems, 1)
	problem := report.Problems[0]
	require.Equal(t, "m003", problem.Slice.Measurement)
	require.Contains(t, problem.Detail, "field type conflict")
	require.Equal(t, source.URL(), problem.SourceURL)
	require.Equal(t, owner.URL(), problem.DestURL)
	have := owner.dump()
	for place, points := range source.dump() {
		if place.Measurement != "m003" {
			requireHolds(t, fmt.Sprint(place), points, have[place])
		}
	}
	require.Contains(t, have[harness.Place{Database: "db", RetentionPolicy: "autogen", Measurement: "m003"}],
		fmt.Sprintf("%q=%q,%q=%q, %q %d", "host", "h1", "zone", "z", "value", int64(firstTime)+1), "the owner's own value stays")
	for _, task := range in.tasks(op.ID) {
		if task.State == operation.TaskFailed {
			require.Equal(t, operation.PhaseCopy, task.Phase)
			require.Contains(t, task.Error.Detail, "field type conflict")
		}
	}
}

func TestOneRefusingBackendDoesNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 3)
	source := b[2]
	bad := b[1].proxied()
	bad.Handle(only(harness.IsWrite, refuse(500, "nothing is written here"))(bad))
	in := install(t)
	in.behind[bad.URL()] = b[1].URL()
	source.fill("db", 20, 300)
	require.NoError(t, in.WriteConfigURLs(b[0].URL(), bad.URL()))
	in.startAPI("-patience", "2s")
	in.startWorker("-patience", "2s")
	op := in.rebalanceRemove(0, []harness.Backend{source.configured("leaver")})
	ended := in.finish(op.ID, operation.PartiallyFailed)
	require.Contains(t, ended.Error.Detail, "nothing is written here")
	have, refused := b[0].dump(), 0
	for place, points := range source.dump() {
		if in.owner(0, place.Database, place.Measurement) == bad.URL() {
			refused++
			continue
		}
		requireHolds(t, fmt.Sprint(place), points, have[place])
	}
	report := in.report(op.ID)
	require.Equal(t, refused, report.Slices.Unequal, asJSON(t, report))
	require.Equal(t, 20-refused, report.Slices.Equal, asJSON(t, report))

	// The backend is mended; the next operation brings the rest.
	bad.Handle(nil)
	in.succeed(in.rebalanceRemove(0, []harness.Backend{source.configured("leaver")}).ID)
	in.requireMoved(0, b[2:], b[:2], "db")
}

// A backend that refuses for good costs each slice one try, once it has been
// given up, and not its whole patience again.
func TestRefusingBackendIsGivenUpOnce(t *testing.T) {
	t.Parallel()
	const slices = 30
	b := startBackends(t, 2)
	b[0].fill("db", slices, 20)
	to := b[1].proxied()
	var writes atomic.Int64
	refused := harness.Refuse(http.StatusServiceUnavailable, "not today")
	to.Handle(only(harness.IsWrite, func(*harness.Proxy) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			writes.Add(1)
			refused(w, r)
		}
	})(to))
	in := install(t)
	require.NoError(t, in.WriteConfigURLs(to.URL()))
	in.startAPI("-patience", "1s")
	in.startWorker("-patience", "1s", "-slots", "1")
	op := in.rebalanceRemove(0, []harness.Backend{b[0].configured("gone")})
	ended := in.finish(op.ID, operation.Failed)
	require.Contains(t, ended.Error.Detail, "not today")
	require.Equal(t, slices, in.report(op.ID).Slices.Unequal)
	require.Less(t, writes.Load(), int64(slices+20))
}

// Whoever has made a backend answer and starts the operation again, as its error
// says, is not told the old error.
func TestOperationAfterAnOutageAsksTheBackendAgain(t *testing.T) {
	t.Parallel()
	t.Skip("a worker that has given a backend up for being away fails further tasks for up to its longest pause without asking it (mover.hopeless), also those of a new operation that was started when the backend answered again")
	b := startBackends(t, 2)
	b[0].fill("db", 3, 100)
	to := b[1].proxied()
	to.Handle(only(harness.IsWrite, func(*harness.Proxy) http.HandlerFunc {
		return func(http.ResponseWriter, *http.Request) {
			b[1].Kill()
			harness.Hangup()
		}
	})(to))
	in := install(t)
	in.behind[to.URL()] = b[1].URL()
	require.NoError(t, in.WriteConfigURLs(to.URL()))
	in.startAPI("-patience", "1s")
	in.startWorker("-patience", "1s")
	gone := []harness.Backend{b[0].configured("gone")}
	in.finish(in.rebalanceRemove(0, gone).ID, operation.Failed)
	b[1].Restart()
	to.Handle(nil)
	in.succeed(in.rebalanceRemove(0, gone).ID)
	in.requireMoved(0, b[:1], b[1:], "db")
}
