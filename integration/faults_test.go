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
	// want, or or, is how the operation ends; words is what its error or its report then
	// says.
	want, or operation.State
	words    string
	// waits says that the operation shows meanwhile what it waits for, in these
	// words if they are not those of the end.
	waits bool
	shown string
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

func partly(words string) func(*harness.Proxy) http.HandlerFunc {
	return func(p *harness.Proxy) http.HandlerFunc { return p.PartialWrite(words) }
}

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
		{name: "every read carries an error half-way", source: only(read, errorHalfway("shard 7 went away")), want: operation.Failed, words: "shard 7 went away", waits: true, shown: "reading points from"},
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
		{name: "every write is partial", destination: only(write, partly("partial write: a line is odd dropped=1")), want: operation.Failed, or: operation.PartiallyFailed, words: "a line is odd"},
		{name: "one write is partial", destination: only(first(1, write), partly("partial write: a line is odd dropped=1")), want: operation.Succeeded},
		{name: "some acknowledgements are lost", destination: only(first(2, write), cutAnswer(0)), want: operation.Succeeded},
		{name: "one write is swallowed", destination: only(first(1, write), swallow), want: operation.Succeeded},
		{name: "one write is acknowledged and forgotten", destination: only(first(1, write), pretend), want: operation.Succeeded},
		{name: "one counting fails half-way", destination: only(first(1, countsPoints), errorHalfway("a hiccup")), want: operation.Succeeded},
	}
}

// faultRig runs the cases of one kind of operation.
type faultRig struct {
	*installation

	source, destination *backend
	cases               []faultCase
	// froms and tos are the proxies in front of source and destination, by case.
	froms, tos []*harness.Proxy
}

// The data of a fault case.
const faultPoints, faultMeasurements = 700, 3

func newFaultRig(t *testing.T, cases []faultCase) *faultRig {
	t.Helper()
	b := startBackends(t, 2)
	r := &faultRig{installation: install(t), source: b[0], destination: b[1], cases: cases}
	for i, c := range cases {
		from, to := r.source.proxied(), r.destination.proxied()
		r.behind[from.URL()], r.behind[to.URL()] = r.source.URL(), r.destination.URL()
		if c.source != nil {
			from.Handle(c.source(from))
		}
		if c.destination != nil {
			to.Handle(c.destination(to))
		}
		r.froms, r.tos = append(r.froms, from), append(r.tos, to)
		r.source.fill(faultDatabase(i), faultMeasurements, faultPoints)
	}
	return r
}

func faultDatabase(i int) string { return fmt.Sprintf("case%02d", i) }

// impatient is long enough for a wait to be told, in programs that the race
// detector slows down too.
func impatient() []string {
	patience := "3s"
	if raceEnabled {
		patience = "8s"
	}
	return []string{"-patience", patience, "-backend-timeout", "2s"}
}

// circle is a circle of one proxy.
func faultCircle(i int, which string, through ...*harness.Proxy) harness.Circle {
	c := harness.Circle{Name: fmt.Sprintf("%s-%d", which, i)}
	for j, p := range through {
		c.Backends = append(c.Backends, harness.Backend{Name: fmt.Sprintf("%s-%d-%d", which, i, j), URL: p.URL()})
	}
	return c
}

// run starts the programs, submits the operations of all cases, which run at once
// since most of them wait most of the time, and requires that each ends as it
// should. check looks at what is where after those that succeeded, and failed at
// what is there after the others.
func (r *faultRig) run(kind operation.Kind, parameters func(i int) map[string]any, check, failed func(t *testing.T, i int, report *operation.Report)) {
	r.t.Helper()
	r.startWorker(append(impatient(), "-slots", fmt.Sprint(len(r.cases)))...)
	ids := make([]string, len(r.cases))
	for i := range r.cases {
		p := parameters(i)
		p["databases"] = []string{faultDatabase(i)}
		op, err := r.Client.Submit(r.context(), kind, p)
		require.NoError(r.t, err)
		ids[i] = op.ID
	}
	ended := r.awaitAll(ids)
	for i, c := range r.cases {
		r.t.(*testing.T).Run(c.name, func(t *testing.T) {
			op, in := ended[i], r.as(t)
			require.Contains(t, []operation.State{c.want, c.or}, op.State, "%v", op.Error)
			if c.shown == "" {
				c.shown = c.words
			}
			if c.waits {
				requireWait(t, in.shownWaits(op.ID), c.shown, r.froms[i].URL(), r.tos[i].URL())
			}
			require.Empty(t, op.Waits, "nothing waits any more")
			if op.State == operation.Succeeded {
				report := in.report(op.ID)
				require.True(t, report.Equal, asJSON(t, report))
				check(t, i, &report)
				return
			}
			require.NotNil(t, op.Error)
			said := op.Error.Detail
			if op.Report != nil {
				report := in.report(op.ID)
				require.False(t, report.Equal, asJSON(t, report))
				require.NotZero(t, report.Slices.Unequal, asJSON(t, report))
				said += asJSON(t, report)
			}
			require.Contains(t, said, c.words)
			if failed != nil {
				failed(t, i, nil)
			}
		})
	}
}

// awaitAll waits until all operations have ended.
func (r *faultRig) awaitAll(ids []string) []operation.Operation {
	r.t.Helper()
	ended := make([]operation.Operation, len(ids))
	waiting := map[string]bool{}
	require.Eventually(r.t, func() bool {
		open := 0
		for i, id := range ids {
			op, err := r.Client.Operation(bounded(r.t), id)
			require.NoError(r.t, err)
			if len(op.Waits) > 0 {
				waiting[r.cases[i].name] = true
			}
			if ended[i] = op; !op.State.Terminal() {
				open++
			}
		}
		return open == 0
	}, patience, 100*time.Millisecond, "every operation ends")
	// Long waits are seen by whoever looks at the operation.
	require.True(r.t, waiting["destination is a black hole"])
	require.True(r.t, waiting["source is a black hole"])
	return ended
}

// verified requires that everything was proven to be at its owner.
func (r *faultRig) verified(t *testing.T, report *operation.Report) {
	t.Helper()
	require.Equal(t, int64(faultMeasurements*faultPoints), report.Points.Source)
	require.Equal(t, int64(faultMeasurements*faultPoints), report.Points.Destination)
	require.Zero(t, report.Missing)
}

func TestFaultsOfARebalanceNeverEndInAFalseSuccess(t *testing.T) {
	t.Parallel()
	r := newFaultRig(t, faultCases())
	var circles []harness.Circle
	for i := range r.cases {
		circles = append(circles, faultCircle(i, "owner", r.tos[i]))
	}
	require.NoError(t, r.WriteCircles(circles...))
	r.startAPI(impatient()...)
	r.run(operation.KindRebalance, func(i int) map[string]any {
		return map[string]any{"circle_id": i, "operation": "rm", "removed_backends": []harness.Backend{{Name: "leaver", URL: r.froms[i].URL()}}}
	}, func(t *testing.T, i int, report *operation.Report) {
		r.verified(t, report)
		r.as(t).requireMoved(i, []*backend{r.source}, []*backend{r.destination}, faultDatabase(i))
	}, nil)
}

// The destination of a recovery holds some of it already, with other values.
func TestFaultsOfARecoveryNeverEndInAFalseSuccess(t *testing.T) {
	t.Parallel()
	cases := faultCases()
	for i := range cases {
		if cases[i].want == operation.Failed {
			cases[i].or = operation.PartiallyFailed
		}
	}
	r := newFaultRig(t, cases)
	var circles []harness.Circle
	for i := range r.cases {
		circles = append(circles, faultCircle(i, "from", r.froms[i]), faultCircle(i, "to", r.tos[i]))
		r.destination.fill(faultDatabase(i), 0, 0)
		r.destination.write(faultDatabase(i), "", strings.ReplaceAll(generate("m001", faultPoints-7), " value=", " value=-"))
	}
	require.NoError(t, r.WriteCircles(circles...))
	r.startAPI(impatient()...)
	r.run(operation.KindRecovery, func(i int) map[string]any {
		return map[string]any{"from_circle_id": 2 * i, "to_circle_id": 2*i + 1}
	}, func(t *testing.T, i int, report *operation.Report) {
		r.verified(t, report)
		require.Positive(t, report.Replaced, asJSON(t, report))
		r.as(t).requireMoved(2*i+1, []*backend{r.source}, []*backend{r.destination}, faultDatabase(i))
	}, nil)
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
