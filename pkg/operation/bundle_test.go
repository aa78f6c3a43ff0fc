package operation_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/operation"
)

var update = flag.Bool("update", false, "write the golden files anew")

// store keeps chunks as a plan's owner does.
type store struct{ chunks [][]operation.Slice }

func (s *store) put(n int, part []operation.Slice) (operation.Document, error) {
	if n != len(s.chunks) {
		return operation.Document{}, fmt.Errorf("chunk %d after %d", n, len(s.chunks))
	}
	s.chunks = append(s.chunks, slices.Clone(part))
	return operation.Document{Object: fmt.Sprintf("slices-%d", n), Bytes: int64(len(part))}, nil
}

func bundle(t require.TestingT, b operation.Budget, all []operation.Candidate) (operation.Plan, [][]operation.Slice) {
	var total int64
	for _, c := range all {
		total += c.Points
	}
	var s store
	bundler := operation.NewBundler(b, total, s.put)
	for _, c := range all {
		require.NoError(t, bundler.Add(c))
	}
	var p operation.Plan
	require.NoError(t, bundler.Finish(&p))
	return p, s.chunks
}

func candidates(t *rapid.T) []operation.Candidate {
	all := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) operation.Candidate {
		c := operation.Candidate{
			From: rapid.IntRange(0, 2).Draw(t, "from"), To: rapid.IntRange(0, 2).Draw(t, "to"), Wave: rapid.IntRange(0, 1).Draw(t, "wave"),
			Database:        rapid.SampledFrom([]string{"a", "b"}).Draw(t, "db"),
			RetentionPolicy: rapid.SampledFrom([]string{"r", "s"}).Draw(t, "rp"),
			Measurement:     rapid.SampledFrom([]string{"m", "n", "o"}).Draw(t, "m"),
			Window:          operation.Window{From: rapid.Int64Range(0, 5).Draw(t, "window") * 1000},
			Points:          rapid.Int64Range(1, 400).Draw(t, "points"),
			Series:          rapid.Int64Range(0, 60).Draw(t, "series"),
		}
		c.Window.To = c.Window.From + 1000
		return c
	}), 0, 60).Draw(t, "candidates")
	slices.SortStableFunc(all, func(a, b operation.Candidate) int {
		return cmp.Or(cmp.Compare(a.Wave, b.Wave), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	return all
}

func budgets(t *rapid.T) operation.Budget {
	tasks := rapid.IntRange(1, 8).Draw(t, "task slices")
	return operation.Budget{
		SlicePoints: rapid.Int64Range(10, 200).Draw(t, "slice points"),
		TaskPoints:  rapid.Int64Range(50, 1000).Draw(t, "task points"),
		SliceCost:   rapid.Int64Range(0, 50).Draw(t, "slice cost"),
		SeriesCost:  rapid.Int64Range(0, 3).Draw(t, "series cost"), SeriesPoints: rapid.Int64Range(0, 5).Draw(t, "series points"),
		SpreadTasks: rapid.IntRange(0, 20).Draw(t, "spread"), MinTaskPoints: rapid.Int64Range(0, 2000).Draw(t, "min"),
		TaskSlices: tasks, ChunkSlices: rapid.IntRange(1, 30).Draw(t, "chunk slices"),
		TaskBytes: rapid.IntRange(1, 3000).Draw(t, "bytes"),
	}
}

// TestBundlesKeepToTheirBounds checks the whole of a plan against what it was
// made from.
func TestBundlesKeepToTheirBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b, all := budgets(t), candidates(t)
		plan, chunks := bundle(t, b, all)

		again, same := bundle(t, b, all)
		require.Equal(t, plan, again, "a plan is deterministic")
		require.Equal(t, chunks, same)

		// The tasks, one after another, hold exactly what the candidates are cut into.
		var want []operation.Slice
		var of []operation.Candidate
		for _, c := range all {
			parts := operation.Cut(c, max(b.SlicePoints, c.Series*b.SeriesPoints))
			requireCover(t, c.Window, parts)
			want = append(want, parts...)
			for range parts {
				of = append(of, c)
			}
		}
		var got []operation.Slice
		at := operation.Span{}
		for i, task := range plan.Tasks {
			require.Positive(t, task.Span.Count)
			require.LessOrEqual(t, task.Span.Count, b.TaskSlices)
			if task.Span.Chunk != at.Chunk {
				require.Equal(t, at.Chunk+1, task.Span.Chunk)
				at = operation.Span{Chunk: task.Span.Chunk}
			}
			require.Equal(t, at.First, task.Span.First, "spans follow one another")
			at.First += task.Span.Count
			part := chunks[task.Span.Chunk][task.Span.First : task.Span.First+task.Span.Count]
			var points, cost int64
			for j, s := range part {
				c := of[len(got)+j]
				require.Equal(t, [3]int{c.From, c.To, c.Wave}, [3]int{task.From, task.To, task.Wave}, "task %d mixes", i)
				points += s.Points
				cost += s.Points + b.SliceCost + b.SeriesCost*c.Series
			}
			require.Equal(t, points, task.Points)
			require.True(t, cost <= b.TaskPoints || len(part) == 1, "task %d costs %d", i, cost)
			got = append(got, part...)
		}
		require.Len(t, got, len(want))
		for i := range want {
			require.Equal(t, want[i], got[i])
		}
		stored := 0
		for _, c := range chunks {
			require.LessOrEqual(t, len(c), max(b.ChunkSlices, b.TaskSlices))
			stored += len(c)
		}
		require.Equal(t, len(want), stored)
		requireTotals(t, &plan, all, want)
	})
}

func requireTotals(t require.TestingT, plan *operation.Plan, all []operation.Candidate, cut []operation.Slice) {
	type name struct {
		from, to              int
		database, measurement string
	}
	names, databases, perMove := map[name]bool{}, map[string]bool{}, map[[2]int]int{}
	atSource := map[name]bool{} // wherever they go
	var points int64
	for _, c := range all {
		n := name{c.From, c.To, c.Database, c.Measurement}
		if !names[n] {
			perMove[[2]int{c.From, c.To}]++
		}
		names[n], databases[c.Database] = true, true
		n.to = 0
		atSource[n] = true
		points += c.Points
	}
	require.Equal(t, operation.PlanTotals{
		Databases: len(databases), Measurements: len(atSource), Slices: len(cut), Tasks: len(plan.Tasks), Points: points,
	}, plan.Totals)
	require.Len(t, plan.Moves, len(perMove))
	sum := operation.PlanMove{}
	for _, m := range plan.Moves {
		require.Equal(t, perMove[[2]int{m.From, m.To}], m.Measurements, "a measurement moves once, whatever its policies")
		sum.Slices += m.Slices
		sum.Points += m.Points
	}
	require.Equal(t, operation.PlanMove{Slices: len(cut), Points: points}, sum)
}

func TestTasksAreOfAboutEqualCost(t *testing.T) {
	t.Parallel()
	var all []operation.Candidate
	for i := range 3000 {
		all = append(all, operation.Candidate{
			To: 1, Database: "db", RetentionPolicy: "rp", Measurement: fmt.Sprintf("m%04d", i),
			Window: operation.Window{From: 0, To: 1 << 40}, Points: int64(1000 + 97*(i%40)),
		})
	}
	budget := operation.DefaultBudget()
	plan, _ := bundle(t, budget, all)
	require.Greater(t, len(plan.Tasks), 30)
	for _, task := range plan.Tasks[:len(plan.Tasks)-1] {
		cost := task.Points + int64(task.Span.Count)*budget.SliceCost
		require.InEpsilon(t, budget.TaskPoints, cost, 0.05)
	}
}

// TestManySeriesAreCutLess: each window costs the server all series.
func TestManySeriesAreCutLess(t *testing.T) {
	t.Parallel()
	c := operation.Candidate{
		To: 1, Database: "db", RetentionPolicy: "rp", Measurement: "m",
		Window: operation.Window{From: 0, To: 1 << 40}, Points: 10_000_000, Series: 1_000_000,
	}
	plan, _ := bundle(t, operation.DefaultBudget(), []operation.Candidate{c})
	require.Equal(t, 3, plan.Totals.Slices)
	require.Len(t, plan.Tasks, 3)
	c.Series = 100
	plan, _ = bundle(t, operation.DefaultBudget(), []operation.Candidate{c})
	require.Equal(t, 100, plan.Totals.Slices)
}

func TestSmallPlansAreSpread(t *testing.T) {
	t.Parallel()
	var all []operation.Candidate
	for i := range 1000 {
		all = append(all, operation.Candidate{
			To: 1, Database: "db", RetentionPolicy: "rp", Measurement: fmt.Sprintf("m%04d", i),
			Window: operation.Window{From: 0, To: 1 << 40}, Points: 2000,
		})
	}
	plan, _ := bundle(t, operation.DefaultBudget(), all)
	require.InDelta(t, 32, len(plan.Tasks), 8)
	plan, _ = bundle(t, operation.DefaultBudget(), all[:5])
	require.Len(t, plan.Tasks, 1, "tiny ones share a task")
}

func TestPlanThatCannotBeStored(t *testing.T) {
	t.Parallel()
	full := errors.New("full")
	b := operation.NewBundler(operation.DefaultBudget(), 1, func(int, []operation.Slice) (operation.Document, error) { return operation.Document{}, full })
	require.NoError(t, b.Add(operation.Candidate{Window: operation.Window{To: 1}}))
	require.ErrorIs(t, b.Finish(&operation.Plan{}), full)
}

// TestGoldenPlan pins the form in which plans are stored.
func TestGoldenPlan(t *testing.T) {
	t.Parallel()
	budget := operation.DefaultBudget()
	budget.ChunkSlices, budget.TaskSlices = 8, 4
	day := int64(24 * time.Hour)
	var all []operation.Candidate
	for i, m := range []string{"cpu", "disk", "mem, total", "größe"} {
		for d := range int64(2) {
			all = append(all, operation.Candidate{
				From: 0, To: 1 + i%2, Wave: i / 3, Database: "metrics", RetentionPolicy: "autogen", Measurement: m,
				Window: operation.Window{From: d * day, To: (d + 1) * day, Overlap: i == 1, Expired: i == 2 && d == 0},
				Points: int64(120_000 * (i + 1)), First: d*day + int64(time.Hour), Last: (d+1)*day - int64(time.Hour), Looked: true,
			})
		}
	}
	slices.SortStableFunc(all, func(a, b operation.Candidate) int {
		return cmp.Or(cmp.Compare(a.Wave, b.Wave), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	plan, chunks := bundle(t, budget, all)
	plan.OperationID, plan.Epoch = "0190c0de-0000-7000-8000-000000000001", 3
	plan.CreatedAt = time.Date(2024, 7, 1, 12, 0, 0, 0, time.UTC)
	plan.Backends = []operation.PlanBackend{
		{Name: "a", URL: "http://a:8086", Databases: 1, Measurements: 6, InPlace: 2}, {Name: "b", URL: "http://b:8086"}, {Name: "c", URL: "http://c:8086", Removed: true},
	}
	plan.Policies = []operation.PlanPolicy{{Backend: 1, Database: "metrics", Name: "autogen", ShardDuration: 24 * time.Hour, Replication: 1, Default: true}}
	got, err := json.MarshalIndent(map[string]any{"plan": plan, "chunks": chunks}, "", "  ")
	require.NoError(t, err)
	got = append(got, '\n')
	const golden = "testdata/plan.golden.json"
	if *update {
		require.NoError(t, os.WriteFile(golden, got, 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}
