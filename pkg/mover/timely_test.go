package mover_test

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/operation"
)

var windows = regexp.MustCompile(`FROM ("[^;]*?) WHERE time >= (-?\d+) AND time <=? (-?\d+)`)

// tooWide hangs on every query that asks for more time at once than a backend
// answers, of the measurements of which the name begins with prefix.
func tooWide(prefix string, most time.Duration) func(*asked) fault {
	return func(a *asked) fault {
		var sum float64
		for _, w := range windows.FindAllStringSubmatch(a.query, -1) {
			from, _ := strconv.ParseFloat(w[2], 64)
			to, _ := strconv.ParseFloat(w[3], 64)
			if strings.Contains(w[1], "."+prefix) {
				sum += to - from
			}
		}
		return fault{hole: sum > float64(most)}
	}
}

// slowly is patient enough for a backend that is silent for 200 ms at a time.
func slowly(e *env) {
	e.options.Timeout = 200 * time.Millisecond
	e.config.Refused, e.config.Unreachable = 3*time.Second, 10*time.Second
	e.config.Backoff, e.config.MaxBackoff = time.Millisecond, time.Millisecond
}

// holding hangs on every query for a measurement whose window has a time in it.
func holding(prefix string, at int64) func(*asked) fault {
	return func(a *asked) fault {
		for _, w := range windows.FindAllStringSubmatch(a.query, -1) {
			from, _ := strconv.ParseInt(w[2], 10, 64)
			to, _ := strconv.ParseInt(w[3], 10, 64)
			if strings.Contains(w[1], "."+prefix) && from <= at && at < to {
				return fault{hole: true}
			}
		}
		return fault{}
	}
}

// whileTasks has a gate do something as soon as tasks of a phase run.
func (e *env) whileTasks(g *gate, phase operation.Phase, rule func(*asked) fault) {
	e.watch = func(j *job) {
		if j.Task().Phase == phase {
			g.on(rule)
		}
	}
}

// TestSlicesThatTimeOutAreHalved: a backend that answers a part of a window in time
// and the whole never is copied from, and compared, part by part.
func TestSlicesThatTimeOutAreHalved(t *testing.T) {
	t.Parallel()
	for _, phase := range []operation.Phase{operation.PhaseCopy, operation.PhaseVerify} {
		for _, end := range []string{"source", "destination"} {
			t.Run(fmt.Sprint(phase, " ", end), func(t *testing.T) {
				t.Parallel()
				e := newEnv(t)
				e.source.Exec("CREATE DATABASE db")
				e.source.WriteLines("db", "", lines("slow", 5, 1000, start, int64(time.Minute)))
				e.source.WriteLines("db", "", lines("quick", 5, 100, start, int64(time.Minute)))
				slowly(e)
				source, destination := gated(t, e)
				g := source
				if end == "destination" {
					g = destination
				}
				e.whileTasks(g, phase, tooWide("slow", 50*time.Hour))
				r := e.requireMoved("db")
				require.Equal(t, 1, r.rounds)
				require.EqualValues(t, 5500, r.report.Points.Source)
				halved := 0
				for _, task := range append(e.tasksOf(operation.PhaseCopy, 1), e.tasksOf(operation.PhaseVerify, 1)...) {
					require.Empty(t, task.Timeouts, "what is through is not counted any more")
					for _, s := range e.slicesOf(&task) {
						halved = max(halved, s.Halved)
					}
				}
				require.Equal(t, phase == operation.PhaseCopy, halved > 0)
			})
		}
	}
}

// TestTimeoutsAreCountedOn: whoever goes on with a task goes on counting, and goes on
// in parts as small as they were.
func TestTimeoutsAreCountedOn(t *testing.T) {
	t.Parallel()
	for _, phase := range []operation.Phase{operation.PhaseCopy, operation.PhaseVerify} {
		t.Run(string(phase), func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.source.Exec("CREATE DATABASE db")
			e.source.WriteLines("db", "", lines("slow", 5, 1000, start, int64(time.Minute)))
			slowly(e)
			source, _ := gated(t, e)
			var counts []operation.SliceTimeouts
			e.watch = func(j *job) {
				if j.Task().Phase != phase {
					return
				}
				source.on(tooWide("slow", 50*time.Hour))
				j.before = func(next *operation.Task) error {
					if len(next.Timeouts) == 0 || next.Timeouts[0].Count > 2 || slices.Contains(counts, next.Timeouts[0]) {
						return nil
					}
					counts = append(counts, next.Timeouts[0])
					j.env.store(*next)
					return errStopped // this attempt ends with what is new
				}
			}
			e.requireMoved("db")
			require.NotEmpty(t, counts)
			most, halvings := 0, 0
			for _, c := range counts {
				most, halvings = max(most, c.Count), max(halvings, c.Halvings)
			}
			require.Equal(t, 2, most)
			require.Equal(t, phase == operation.PhaseVerify, halvings > 0)
		})
	}
}

// TestTheFloorOfHalving: what is never answered in time fails with the sentence for a
// person, and nothing else with it.
func TestTheFloorOfHalving(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		rule func(*asked) fault
		code string
		says string
	}{
		{"not even a part is answered", tooWide("slow", 0), "backend_refuses", "not even 10m0s of this slice is answered in time"},
		{"no part is small enough", holding("slow", start+int64(12*time.Minute)), "timed_out", "is not cut any further"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.source.Exec("CREATE DATABASE db WITH SHARD DURATION 1h")
			e.source.WriteLines("db", "", lines("slow", 1, 3, start, int64(12*time.Minute)))
			e.source.WriteLines("db", "", lines("quick", 5, 10, start, int64(time.Minute)))
			slowly(e)
			e.options.Timeout = 300 * time.Millisecond
			e.config.Refused, e.config.FloorWindow = 2*time.Second, 10*time.Minute
			source, _ := gated(t, e)
			e.whileTasks(source, operation.PhaseCopy, c.rule)
			r := e.run()
			require.NotEmpty(t, r.failed)
			require.Contains(t, r.failed[0].Detail, "a person must act: ")
			require.Contains(t, r.failed[0].Detail, c.says)
			require.Equal(t, c.code, r.failed[0].Code)
			require.False(t, r.report.Equal)
			quick := func(all []string) []string {
				return slices.DeleteFunc(all, func(line string) bool { return !strings.Contains(line, "quick") })
			}
			require.Equal(t, quick(dump(t, e.source.URL(), "db")), quick(dump(t, e.destination.URL(), "db")))
		})
	}
}

// TestUnitsThatTimeOutAreHalved: a clear that cannot prove a window in time proves and
// drops its halves, each by itself.
func TestUnitsThatTimeOutAreHalved(t *testing.T) {
	t.Parallel()
	c := newClearEnv(t)
	c.both("CREATE DATABASE db", "", lines("slow", 5, 100, start, int64(time.Hour)))
	c.both("", "", lines("quick", 5, 10, start, int64(time.Minute)))
	slowly(c.env)
	_, destination := gated(t, c.env)
	destination.on(tooWide("slow", 50*time.Hour))
	c.store(operation.Task{ID: "d", Kind: operation.KindClear, Phase: operation.PhaseDrop, Round: 1, Source: c.from, Destination: c.to, Slices: c.units(), State: operation.TaskWaiting})
	m, r := c.mover(), result{rounds: 1}
	c.runPhase(m, operation.PhaseDrop, &r)
	require.Empty(t, r.failed)
	var dropped int64
	tasks := c.tasksOf(operation.PhaseDrop, 1)
	require.Greater(t, len(tasks), 1)
	for _, task := range tasks {
		dropped += task.Points.Dropped
		c.store(operation.Task{
			ID: "v-" + task.ID, Of: task.ID, Kind: operation.KindClear, Phase: operation.PhaseVerify, Round: 1,
			Source: c.from, Destination: c.to, State: operation.TaskWaiting,
		})
	}
	require.EqualValues(t, 550, dropped)
	destination.on(nil)
	c.runPhase(m, operation.PhaseVerify, &r)
	require.Empty(t, r.failed)
	report := c.env.report(1)
	require.True(t, report.Equal, "%+v", report)
	require.EqualValues(t, 550, report.Dropped.Points)
	require.Empty(t, dump(t, c.source.URL(), "db"))
	require.Len(t, dump(t, c.destination.URL(), "db"), 550)
}
