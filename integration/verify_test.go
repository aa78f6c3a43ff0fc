package integration_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// compared says what the owners of one circle hold against those of another, value by
// value: the points that the other lacks or lacks a field of, those of which it holds
// more, and those of which it holds other values.
func (s *circleSite) compared(c contents, circle, against int) operation.Differences {
	s.t.Helper()
	here, there := s.owned(c, circle), s.owned(c, against)
	missing, extra, different := map[string]bool{}, map[string]bool{}, map[string]bool{}
	note := func(all map[string]bool, p harness.Place, key string) { all[fmt.Sprint(p, pointOf(key))] = true }
	for place, points := range here {
		for key, value := range points {
			switch other, held := there[place][key]; {
			case !held:
				note(missing, place, key)
			case other != value:
				note(different, place, key)
			}
		}
	}
	for place, points := range there {
		for key := range points {
			if _, held := here[place][key]; !held {
				note(extra, place, key)
			}
		}
	}
	return operation.Differences{Missing: int64(len(missing)), Extra: int64(len(extra)), Different: int64(len(different))}
}

// filled is what a repair makes of what there was: one circle gets what it lacks from
// the other, and keeps what it has.
func (s *circleSite) filled(before contents, from, to int) contents {
	s.t.Helper()
	after := before.clone()
	all := s.owned(before, to)
	all.fill(s.owned(before, from), everything)
	s.set(after, to, all)
	return after
}

// verify runs a verification to its end.
func (s *circleSite) verify(state operation.State, parameters map[string]any) (operation.Operation, operation.Report) {
	s.t.Helper()
	op := s.kind(operation.KindVerify, parameters)
	op = s.finish(op.ID, state)
	return op, s.report(op.ID)
}

func found(r *operation.Report) operation.Differences {
	return operation.Differences{Missing: r.Missing, Extra: r.Extra, Different: r.Different}
}

// requireExamples requires one example of each kind there is.
func requireExamples(t testing.TB, d operation.Differences, e operation.Examples) {
	t.Helper()
	require.Equal(t, d.Missing > 0, e.Missing != nil)
	require.Equal(t, d.Extra > 0, e.Extra != nil)
	require.Equal(t, d.Different > 0, e.Different != nil)
	if e.Missing != nil {
		require.NotEmpty(t, e.Missing.Series)
		require.NotEmpty(t, e.Missing.Source)
		require.Empty(t, e.Missing.Destination)
	}
	if e.Extra != nil {
		require.Empty(t, e.Extra.Source)
		require.NotEmpty(t, e.Extra.Destination)
	}
	if e.Different != nil {
		require.NotEmpty(t, e.Different.Field)
		require.NotEmpty(t, e.Different.Source)
		require.NotEmpty(t, e.Different.Destination)
		require.NotEqual(t, e.Different.Source, e.Different.Destination)
		require.NotZero(t, e.Different.Time)
	}
}

// schemas are the databases and policies of all servers.
func (s *circleSite) schemas() map[string]any {
	s.t.Helper()
	out := map[string]any{}
	for _, b := range s.all() {
		for place := range b.dump() {
			out[b.URL()+" "+place.Database] = b.policies(place.Database)
		}
	}
	return out
}

// awkward are points of one circle alone, with names that have to be quoted, in a
// database that nobody else has.
func awkward() string {
	return `odd\ name\,x,tag\ key=a\,b\=c,ü=\"q\" v=1i,s="line one
line two, \"quoted\" \\" 1699833600000000000
odd\ name\,x,tag\ key=🙂 v=2i,f=1e300,b=true 1699833600000000001
_odd v=-9223372036854775808i 1699920000000000000
`
}

func TestVerifyFindsAndRepairsWhatDiffers(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 2, 2)
	s.start()
	s.scatter(diceOf(t), usual(1500))
	s.strayMeasurement(0)
	for circle, db := range []string{"left only", "right only"} {
		s.members[circle][0].exec(`CREATE DATABASE "` + db + `" WITH DURATION INF REPLICATION 1 SHARD DURATION 1d NAME "own"`)
		s.members[circle][1].exec(`CREATE DATABASE "` + db + `" WITH DURATION INF REPLICATION 1 SHARD DURATION 1d NAME "own"`)
		for _, line := range strings.SplitAfter(strings.ReplaceAll(awkward(), "line one\n", "line one|"), "\n") {
			if line == "" {
				continue
			}
			measurement := "odd name,x"
			if strings.HasPrefix(line, "_") {
				measurement = "_odd"
			}
			s.ownerOf(circle, db, measurement).write(db, "own", strings.ReplaceAll(line, "line one|", "line one\n"))
		}
	}
	before, schemas := s.dump(), s.schemas()
	want := s.compared(before, 0, 1)
	require.Greater(t, want.Missing, int64(100))
	require.Greater(t, want.Extra, int64(100))
	require.Greater(t, want.Different, int64(100))

	// By value, both ways round.
	op, report := s.verify(operation.PartiallyFailed, map[string]any{"circle_id": 0})
	require.Equal(t, want, found(&report), asJSON(t, report.Problems))
	require.False(t, report.Equal)
	require.Equal(t, operation.DepthDigest, report.Depth)
	require.Equal(t, report.Slices.Total, report.Slices.Equal+report.Slices.Unequal)
	require.Positive(t, report.Slices.Unequal)
	require.Zero(t, report.Slices.ByCount)
	requireExamples(t, want, report.Examples)
	require.Nil(t, report.Repair)
	require.Empty(t, op.Scope)
	require.Equal(t, "unequal", op.Error.Code)
	require.Contains(t, op.Error.Detail, fmt.Sprintf("%d points are missing at circle 1", want.Missing))
	require.Contains(t, op.Error.Detail, "/report")
	require.Equal(t, op.Progress.Tasks.Total, op.Progress.Tasks.Done)
	require.Equal(t, op.Progress.Points.Estimated, op.Progress.Points.Verified)
	require.Equal(t, op.Progress.Measurements.Total, op.Progress.Measurements.Done)
	require.Zero(t, op.Progress.Bytes.Written)
	listed := operation.Differences{}
	for _, p := range report.Problems {
		listed.Missing += p.Missing
		listed.Extra += p.Extra
		listed.Different += p.Different
		requireExamples(t, operation.Differences{Missing: p.Missing, Extra: p.Extra, Different: p.Different}, p.Examples)
	}
	if report.Unreported == 0 {
		require.Equal(t, want, listed)
	}
	_, report = s.verify(operation.PartiallyFailed, map[string]any{"circle_id": 1, "against_circle_id": 0, "depth": "digest"})
	require.Equal(t, operation.Differences{Missing: want.Extra, Extra: want.Missing, Different: want.Different}, found(&report))
	requireContents(t, before, s.dump())
	require.Equal(t, schemas, s.schemas(), "nothing is written, policies neither")

	// What is missing is copied from the side that is named, and nothing replaced.
	op, report = s.verify(operation.PartiallyFailed, map[string]any{"circle_id": 0, "repair": true, "repair_from": "circle"})
	require.Equal(t, []string{"circle/0", "circle/1"}, op.Scope)
	require.Equal(t, want, found(&report))
	after := s.filled(before, 0, 1)
	requireContents(t, after, s.dump())
	left := s.compared(after, 0, 1)
	require.Zero(t, left.Missing)
	require.Equal(t, &operation.Repair{From: operation.SideCircle, Copied: want.Missing, Left: left}, report.Repair)
	require.Equal(t, "unequal", op.Error.Code)

	_, report = s.verify(operation.PartiallyFailed, map[string]any{"circle_id": 0, "repair": true, "repair_from": "against"})
	require.Equal(t, left, found(&report))
	after = s.filled(after, 1, 0)
	requireContents(t, after, s.dump())
	require.Equal(t, &operation.Repair{From: operation.SideAgainst, Copied: left.Extra, Left: s.compared(after, 0, 1)}, report.Repair)
	require.Equal(t, operation.Differences{Different: left.Different}, report.Repair.Left)

	// Only values differ now, which counts don't see.
	_, report = s.verify(operation.Succeeded, map[string]any{"circle_id": 0, "depth": "count"})
	require.True(t, report.Equal)
	require.Equal(t, report.Slices.Total, report.Slices.ByCount)
	require.NotEmpty(t, report.Notes)
	_, report = s.verify(operation.PartiallyFailed, map[string]any{"circle_id": 0})
	require.Equal(t, operation.Differences{Different: left.Different}, found(&report))

	s.complete(s.ask("/resync"))
	op, report = s.verify(operation.Succeeded, map[string]any{"circle_id": 0})
	require.True(t, report.Equal)
	require.Contains(t, op.Result.Note, "equal: ")
	require.Empty(t, report.Problems)
	require.Zero(t, report.Examples)
}

// TestVerifyRunsBesideOthers: it takes no scope, so a rebalance of the circle it is
// comparing runs meanwhile, and clients write; it waits for nobody and finds nothing
// that is not so.
func TestVerifyRunsBesideOthers(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 2, 1)
	p := s.proxy(1, 0)
	s.start()
	s.createDatabase("db")
	for n := range 8 {
		name := fmt.Sprintf("m%d", n)
		for circle := range s.members {
			s.ownerOf(circle, "db", name).write("db", "", generate(name, 500))
		}
	}
	// One read of the verification hangs until the rebalance is through.
	reading, released := make(chan struct{}), make(chan struct{})
	var once sync.Once
	p.Handle(func(w http.ResponseWriter, r *http.Request) {
		if harness.ReadsPoints(r) {
			once.Do(func() { close(reading) })
			<-released
		}
		p.Forward(w, r)
	})
	free := sync.OnceFunc(func() { close(released) })
	defer free()
	op := s.kind(operation.KindVerify, map[string]any{"circle_id": 0})
	require.Empty(t, op.Scope)
	select {
	case <-reading:
	case <-s.context().Done():
		t.Fatal("it does not begin to compare")
	}
	other := s.rebalanceAdd(0)
	s.finish(other.ID, operation.Succeeded)
	again := s.kind(operation.KindVerify, map[string]any{"circle_id": 0, "against_circle_id": 0})
	s.finish(again.ID, operation.Succeeded)
	now := s.wait(op.ID, func(o *operation.Operation) bool { return o.State == operation.Running })
	require.Empty(t, now.Scope)
	free()
	s.finish(op.ID, operation.Succeeded)
	require.True(t, s.reportOf(op.ID).Equal)
}

func (in *installation) reportOf(id string) *operation.Report {
	in.t.Helper()
	r := in.report(id)
	return &r
}

// TestVerifyUnderLiveWrites: points that clients write and overwrite while both circles
// are compared are not taken for a difference, however hot; one that is missing is.
func TestVerifyUnderLiveWrites(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 1, 1)
	s.start()
	s.createDatabase("db")
	var writing sync.WaitGroup
	stop := make(chan struct{})
	for w := range 3 {
		writing.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				var b strings.Builder
				for i := range 20 {
					// Some are new, some are written again and again.
					fmt.Fprintf(&b, "hot,w=%d v=%di,s=\"%d\" %d\n", w, n, n, firstTime+int64(n*20+i)*1e6)
					fmt.Fprintf(&b, "hot,w=%d v=%di %d\n", w, n, firstTime-int64(i+1))
				}
				res, body := s.do(http.MethodPost, "/write?db=db&rp=daily", nil, b.String())
				if res.StatusCode != http.StatusNoContent {
					t.Errorf("writing: %d %s", res.StatusCode, body)
					return
				}
			}
		})
	}
	require.True(t, waitFor(t, func() bool { return len(s.dump()[s.members[1][0].URL()]) > 0 }))
	for _, depth := range []string{"digest", "count", "digest"} {
		op, report := s.verify(operation.Succeeded, map[string]any{"circle_id": 0, "depth": depth})
		require.True(t, report.Equal, asJSON(t, report))
		require.Positive(t, op.Progress.Points.Verified)
		require.Positive(t, report.Points.Source)
	}
	s.members[1][0].write("db", "daily", fmt.Sprintf("hot,w=9 v=1i %d\n", firstTime+5))
	op, report := s.verify(operation.PartiallyFailed, map[string]any{"circle_id": 0})
	require.Equal(t, operation.Differences{Extra: 1}, found(&report), asJSON(t, report))
	require.Contains(t, report.Examples.Extra.Series, `"w"="9"`)
	require.Equal(t, "unequal", op.Error.Code)
	_, report = s.verify(operation.Succeeded, map[string]any{"circle_id": 0, "repair": true, "repair_from": "against"})
	require.EqualValues(t, 1, report.Repair.Copied, asJSON(t, report))
	close(stop)
	writing.Wait()
	s.verify(operation.Succeeded, map[string]any{"circle_id": 0})
	before := s.dump()
	require.Equal(t, before[s.members[0][0].URL()], before[s.members[1][0].URL()])
}

// TestVerifyOfOneCircleAndOfOneThatChanges: within a circle leftovers are compared with
// their owners; while it changes, those that are read are compared with the other's.
func TestVerifyOfOneCircleAndOfOneThatChanges(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 1, 1)
	joins := startBackend(t)
	s.start()
	s.createDatabase("db")
	for n := range 12 {
		for _, b := range s.all() {
			b.write("db", "", generate(fmt.Sprintf("m%02d", n), 100))
		}
	}
	op, _ := s.verify(operation.Succeeded, map[string]any{"circle_id": 0, "against_circle_id": 0})
	require.Contains(t, op.Result.Note, "nothing to compare")

	first, other := s.members[0][0], s.members[1][0]
	s.reconfigure(circleOf("circle-0", first, joins), circleOf("circle-1", other))
	s.awaitStep(2, 0, "write_both_read_old")
	_, report := s.verify(operation.Succeeded, map[string]any{"circle_id": 0})
	require.True(t, report.Equal, "the former owner is read, and has everything")
	require.EqualValues(t, 1200, report.Points.Source)
	// Nobody repairs a circle whose owners are changing.
	op = s.kind(operation.KindVerify, map[string]any{"circle_id": 1, "repair": true, "repair_from": "circle"})
	op = s.finish(op.ID, operation.Failed)
	require.Equal(t, "transition_open", op.Error.Code)

	s.finish(s.rebalanceAdd(0).ID, operation.Succeeded)
	s.awaitStep(2, 0, "")
	_, report = s.verify(operation.Succeeded, map[string]any{"circle_id": 0})
	require.EqualValues(t, 1200, report.Points.Source)
	_, report = s.verify(operation.Succeeded, map[string]any{"circle_id": 0, "against_circle_id": 0})
	left := report.Slices.Total
	require.Positive(t, left, "the former owner still has what went to the new one")
	require.Equal(t, left, report.Slices.Equal)

	// An owner may hold more than a leftover, and must not hold less.
	moved := ""
	for place := range joins.dump() {
		moved = place.Measurement
	}
	joins.write("db", "", fmt.Sprintf("%s,host=new value=1 %d\n", moved, firstTime))
	_, report = s.verify(operation.Succeeded, map[string]any{"circle_id": 0, "against_circle_id": 0})
	require.EqualValues(t, 1, report.Extra)
	require.True(t, report.Equal)
	first.write("db", "", fmt.Sprintf("%s,host=h1,zone=z value=-5 %d\n%s,host=old value=1 %d\n", moved, firstTime, moved, firstTime))
	_, report = s.verify(operation.PartiallyFailed, map[string]any{"circle_id": 0, "against_circle_id": 0})
	require.Equal(t, operation.Differences{Missing: 1, Extra: 1, Different: 1}, found(&report))
	res, body := s.do(http.MethodPost, "/v1/operations", http.Header{"Content-Type": {"application/json"}},
		`{"kind":"verify","parameters":{"circle_id":0,"against_circle_id":0,"repair":true,"repair_from":"circle"}}`)
	require.Equal(t, http.StatusBadRequest, res.StatusCode, body)
	require.Contains(t, body, "rebalance")
}

// TestAVerificationIsRetried: another attempt compares anew what was not equal, and what
// was keeps its verdict.
func TestAVerificationIsRetried(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 1, 1)
	s.start()
	op, report := s.verify(operation.Succeeded, map[string]any{"circle_id": 0, "repair": true, "repair_from": "circle"})
	require.Contains(t, op.Result.Note, "nothing to compare")
	require.True(t, report.Equal)
	s.createDatabase("db")
	line := fmt.Sprintf("late v=1i %d\n", firstTime)
	for _, b := range s.all() {
		b.write("db", "", generate("m", 1000))
	}
	s.members[0][0].write("db", "", line)
	op, report = s.verify(operation.PartiallyFailed, map[string]any{"circle_id": 0})
	require.Equal(t, operation.Differences{Missing: 1}, found(&report))
	s.members[1][0].write("db", "", line)
	require.Equal(t, http.StatusAccepted, s.steer(op.ID, "retry"))
	op = s.finish(op.ID, operation.Succeeded)
	require.Equal(t, 2, op.Attempt)
	report = s.report(op.ID)
	require.True(t, report.Equal)
	require.Empty(t, report.Problems)
	require.EqualValues(t, 1001, report.Points.Source)
	require.EqualValues(t, 1001, op.Progress.Points.Verified)

	// A dry run compares nothing and says what it would.
	res, body := s.do(http.MethodPost, "/v1/operations", http.Header{"Content-Type": {"application/json"}},
		`{"kind":"verify","dry_run":true,"parameters":{"circle_id":0}}`)
	require.Equal(t, http.StatusAccepted, res.StatusCode, body)
	var planned operation.Operation
	require.NoError(t, jsonInto([]byte(body), &planned))
	s.finish(planned.ID, operation.Planned)
	var plan operation.Plan
	require.NoError(t, s.Client.Get(s.context(), "/v1/operations/"+planned.ID+"/plan", &plan))
	require.Positive(t, plan.Totals.Slices)
	for _, b := range plan.Balance {
		require.Equal(t, b.Before, b.After)
	}
}
