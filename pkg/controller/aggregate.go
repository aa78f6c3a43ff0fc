package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// measurement is one measurement at one source.
type measurement struct {
	from           int
	database, name string
}

// aggregate turns task records into the progress of their operation. It knows
// from the plan which measurements each task has a part of.
type aggregate struct {
	plan *operation.Plan
	// parts has, for each task of the plan, the measurements it is part of.
	parts [][]int32
	// measurements are those that move; pieces counts the tasks of each.
	measurements []measurement
	pieces       []int32

	tasks  operation.TaskCounts
	points operation.PointCounts
	// sources are the points by the URL of the backend they come from.
	sources  map[string]operation.PointCounts
	bytes    operation.ByteCounts
	finished []int32
	waits    []operation.Wait
	oldest   oldest
	phase    operation.Phase
	rate     rate
}

// emptyAggregate is the aggregate of a plan none of whose tasks has run.
func emptyAggregate(plan *operation.Plan) *aggregate {
	a := &aggregate{plan: plan, parts: make([][]int32, len(plan.Tasks)), phase: plan.Kind.Work()}
	a.tasks.Total = a.allTasks(len(plan.Tasks), 0)
	a.tasks.Waiting = a.tasks.Total
	a.points.Estimated = plan.Totals.Points
	a.sources = plannedPoints(plan)
	return a
}

// plannedPoints is what each backend has to give by the plan, by URL.
func plannedPoints(plan *operation.Plan) map[string]operation.PointCounts {
	sources := map[string]operation.PointCounts{}
	for i := range plan.Tasks {
		t := &plan.Tasks[i]
		if t.From < 0 || t.From >= len(plan.Backends) {
			continue
		}
		url := plan.Backends[t.From].URL
		p := sources[url]
		p.Estimated += t.Points
		sources[url] = p
	}
	return sources
}

// planProgress is the progress of an operation that has just been planned.
func planProgress(plan *operation.Plan, now time.Time) operation.Progress {
	return emptyAggregate(plan).progress(now)
}

// newAggregate returns the aggregate of a plan; chunk reads one of its chunks and
// is asked for one after the other.
func newAggregate(plan *operation.Plan, chunk func(n int) ([]operation.Slice, error)) (*aggregate, error) {
	a := emptyAggregate(plan)
	known := map[measurement]int32{}
	for i := range plan.Tasks {
		p := &plan.Tasks[i]
		all, err := chunk(p.Span.Chunk)
		if err != nil {
			return nil, err
		}
		end := p.Span.First + p.Span.Count
		if p.Span.First < 0 || end < p.Span.First || end > len(all) {
			return nil, fmt.Errorf("plan of operation %s: %w: task %d lies outside its chunk", plan.OperationID, ledger.ErrUnreadable, i)
		}
		last := int32(-1)
		for _, s := range all[p.Span.First:end] {
			key := measurement{p.From, s.Database, s.Measurement}
			n, ok := known[key]
			if !ok {
				n = int32(len(a.measurements))
				known[key] = n
				a.measurements = append(a.measurements, key)
				a.pieces = append(a.pieces, 0)
			}
			if !ok || n != last && !contains(a.parts[i], n) {
				a.parts[i] = append(a.parts[i], n)
				a.pieces[n]++
			}
			last = n
		}
	}
	a.finished = make([]int32, len(a.measurements))
	return a, nil
}

// contains looks back from the end: the slices of a task are sorted, so one
// measurement's lie together but for its retention policies.
func contains(all []int32, n int32) bool {
	for _, one := range slices.Backward(all) {
		if one == n {
			return true
		}
	}
	return false
}

// allTasks is how many tasks there will be: every copy is verified, so the
// verification is part of the whole from the beginning. A verification's own tasks
// are the whole of it, but for those that prove what it has repaired.
func (a *aggregate) allTasks(work, verifying int) int {
	if a.plan.Kind == operation.KindVerify {
		return work + verifying
	}
	return 2 * work
}

// update reads the task records.
func (a *aggregate) update(tasks taskSet) *aggregate {
	a.tasks, a.bytes, a.waits = operation.TaskCounts{}, operation.ByteCounts{}, nil
	a.oldest.tasks = a.oldest.tasks[:0]
	a.points = operation.PointCounts{Estimated: a.plan.Totals.Points}
	a.sources = map[string]operation.PointCounts{}
	clear(a.finished)
	copies, verifying, planned, latest := 0, 0, 0, 0
	estimated := int64(0)
	a.phase = a.plan.Kind.Work()
	for id := range tasks {
		task := tasks[id].Value
		if !counts(&task, tasks) {
			continue
		}
		step := 2 * task.Round
		source := a.sources[task.Source]
		if task.Phase != operation.PhaseVerify {
			copies++
			if task.Round == 1 {
				a.points.Copied += task.Points.Copied
				a.points.Unchanged += task.Points.Unchanged
				a.points.Dropped += task.Points.Dropped
				estimated += expected(&task)
				source.Copied += task.Points.Copied
				source.Unchanged += task.Points.Unchanged
				source.Dropped += task.Points.Dropped
				source.Estimated += expected(&task)
				if task.Parent == "" {
					planned++
				}
			}
		} else {
			verifying++
			step++
		}
		if step > latest {
			latest, a.phase = step, task.Phase
		}
		source.Verified += task.Points.Verified
		a.sources[task.Source] = source
		a.points.Verified += task.Points.Verified
		a.bytes.Read += task.Bytes.Read
		a.bytes.Written += task.Bytes.Written
		a.count(&task)
	}
	if planned == len(a.plan.Tasks) {
		a.points.Estimated = estimated
	} else {
		for url, p := range plannedPoints(a.plan) {
			source := a.sources[url]
			source.Estimated = p.Estimated
			a.sources[url] = source
		}
	}
	// The oldest first, and always in the same order.
	slices.SortFunc(a.waits, func(x, y operation.Wait) int {
		return cmp.Or(x.Since.Compare(y.Since), strings.Compare(x.TaskID, y.TaskID))
	})
	a.tasks.Total = a.allTasks(max(copies, len(a.plan.Tasks)), verifying)
	a.tasks.Waiting = a.tasks.Total - a.tasks.Done - a.tasks.Failed - a.tasks.Running
	for i := range a.parts {
		if !proven(copyTaskID(i), 1, tasks) {
			continue
		}
		for _, n := range a.parts[i] {
			a.finished[n]++
		}
	}
	return a
}

// count adds a task by its state, and what an unfinished one waits for.
func (a *aggregate) count(task *operation.Task) {
	switch task.State {
	case operation.TaskDone:
		a.tasks.Done++
	case operation.TaskFailed:
		a.tasks.Failed++
	case operation.TaskRunning:
		a.tasks.Running++
	case operation.TaskWaiting:
	}
	if !task.State.Ended() {
		a.waits = append(a.waits, task.Waits...)
		a.oldest.add(task)
	}
}

// expected is how many points a task has: what it had once it is done, and until
// then what was estimated, unless that has proven too little.
func expected(task *operation.Task) int64 {
	if task.State == operation.TaskDone {
		return handled(task)
	}
	return max(task.Estimated, handled(task))
}

// handled is how many of its points a task is through with.
func handled(task *operation.Task) int64 {
	if task.Phase == operation.PhaseCompare {
		return task.Points.Verified
	}
	return task.Points.Copied + task.Points.Unchanged + task.Points.Dropped
}

// proven reports whether every slice of a copy task, of those it handed over
// and of those that were copied again is proven.
func proven(id string, round int, tasks taskSet) bool {
	copied, ok := tasks[id]
	if ok && copied.Value.Phase == operation.PhaseCompare {
		return treeEnded(id, tasks) // it was compared, whatever was found
	}
	if !ok || copied.Value.State != operation.TaskDone {
		return false
	}
	verified, ok := tasks[verifyTaskID(round, id)]
	if !ok || verified.Value.State != operation.TaskDone || verified.Value.Verdict == nil {
		return false
	}
	for _, child := range copied.Value.Children {
		if !begets(&copied.Value, child) || !proven(child, round, tasks) {
			return false
		}
	}
	return len(verified.Value.Verdict.Unproven) == 0 ||
		round < maxRounds && proven(recopyTaskID(round+1, id), round+1, tasks)
}

// progress returns the aggregate at a moment.
func (a *aggregate) progress(now time.Time) operation.Progress {
	p := operation.Progress{
		Phase: a.phase, Tasks: a.tasks, Points: a.points, Bytes: a.bytes, AsOf: now.UTC(),
		OldestTasks: slices.Clone(a.oldest.tasks),
		Backends:    map[string]operation.BackendProgress{},
	}
	type database struct {
		from int
		name string
	}
	// open has the databases of each backend, and which of them are not finished.
	open := map[database]bool{}
	moved := make([]int, len(a.plan.Backends))
	for i := range a.measurements {
		m := &a.measurements[i]
		if a.finished[i] == a.pieces[i] {
			moved[m.from]++
			p.Measurements.Done++
		}
		key := database{m.from, m.database}
		open[key] = open[key] || a.finished[i] != a.pieces[i]
	}
	p.Measurements.Total = a.plan.Totals.Measurements
	unfinished, databases := make([]int, len(a.plan.Backends)), make([]int, len(a.plan.Backends))
	openNames := map[string]bool{}
	for d, unfinishedThere := range open {
		databases[d.from]++
		if unfinishedThere {
			unfinished[d.from]++
			openNames[d.name] = true
		}
	}
	p.Databases.Total = a.plan.Totals.Databases
	if len(a.measurements) > 0 {
		p.Databases.Done = p.Databases.Total - len(openNames)
	}
	toMove := make([]int, len(a.plan.Backends))
	for _, mv := range a.plan.Moves {
		toMove[mv.From] += mv.Measurements
	}
	for i := range toMove {
		// One that goes to several destinations is in several moves.
		b := &a.plan.Backends[i]
		toMove[i] = min(toMove[i], b.Measurements-b.InPlace)
	}
	if len(a.measurements) > 0 {
		clear(toMove)
		for i := range a.measurements {
			toMove[a.measurements[i].from]++
		}
	}
	for i := range a.plan.Backends {
		b := &a.plan.Backends[i]
		row := operation.BackendProgress{Name: b.Name, InPlace: b.InPlace, Moved: moved[i], Points: a.sources[b.URL]}
		// A measurement without a point has nothing to move and is finished.
		empty := b.Measurements - b.InPlace - toMove[i]
		row.Measurements = operation.Done{Total: b.Measurements, Done: b.InPlace + empty + moved[i]}
		row.Databases = operation.Done{Total: b.Databases, Done: b.Databases - unfinished[i]}
		if a.plan.Kind == operation.KindVerify {
			// What is compared need not be held there.
			row.Measurements = operation.Done{Total: toMove[i], Done: moved[i]}
			row.Databases = operation.Done{Total: databases[i], Done: databases[i] - unfinished[i]}
		}
		if len(a.measurements) == 0 && toMove[i] > 0 {
			row.Databases.Done = 0
		}
		p.Backends[b.URL] = row
	}
	a.estimate(&p, now)
	return p
}

// estimate says how fast it goes, and how long that takes.
func (a *aggregate) estimate(p *operation.Progress, now time.Time) {
	done := a.points.Copied + a.points.Unchanged + a.points.Dropped
	if a.phase == operation.PhaseVerify || a.phase == operation.PhaseCompare {
		done = a.points.Verified
	}
	p.PointsPerSecond = a.rate.at(now, a.phase, done)
	left := max(float64(a.points.Estimated-done), 0)
	if a.phase != operation.PhaseVerify && a.phase != operation.PhaseCompare {
		left += verifyShare * float64(a.points.Estimated)
	}
	if p.PointsPerSecond > 0 {
		eta := left / p.PointsPerSecond
		p.ETASeconds = &eta
	}
}

// verifyShare is what proving a point takes of the time of copying it, roughly;
// it keeps the time left from forgetting the verification while points are
// copied.
const verifyShare = 0.4

// rate measures points per second over the last seconds of a phase.
type rate struct {
	phase   operation.Phase
	samples []sample
}

type sample struct {
	at     time.Time
	points int64
}

const (
	rateWindow  = 10 * time.Second
	rateSamples = 64
)

func (r *rate) at(now time.Time, phase operation.Phase, points int64) float64 {
	if phase != r.phase || points == 0 {
		// The time before the first point says nothing about the rate.
		r.phase, r.samples = phase, nil
	}
	r.samples = append(r.samples, sample{now, points})
	for len(r.samples) > 2 && (now.Sub(r.samples[0].at) > rateWindow || len(r.samples) > rateSamples) {
		r.samples = r.samples[1:]
	}
	first := r.samples[0]
	seconds := now.Sub(first.at).Seconds()
	if seconds <= 0 {
		return 0
	}
	return float64(points-first.points) / seconds
}

// newView reads the plan's chunks for the aggregate.
func (t *turn) newView(ctx context.Context) (*aggregate, error) {
	a, err := newAggregate(t.plan, func(n int) ([]operation.Slice, error) {
		return t.ledger.Chunk(ctx, t.plan.Chunks[n])
	})
	if err != nil {
		return nil, err
	}
	return a.update(t.tasks), nil
}

// maxWaits bounds the waits that are told: when a backend is away, every task
// says so.
const maxWaits = 100

// tellProgress publishes the progress, at most once a second.
func (t *turn) tellProgress(ctx context.Context) {
	now := t.options.Now()
	if now.Sub(t.told) < t.options.Tell {
		return
	}
	t.told = now
	t.view.update(t.tasks)
	t.tell(ctx, t.view.progress(now), t.waits())
}
