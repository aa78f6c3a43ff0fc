package operation_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/operation"
)

// outcome is what became of one slice.
type outcome struct {
	reopened bool
	findings operation.Findings
	problem  bool
}

func outcomes(t *rapid.T) outcome {
	n := rapid.Int64Range(0, 50)
	o := outcome{reopened: rapid.Bool().Draw(t, "reopened"), problem: rapid.Bool().Draw(t, "problem")}
	o.findings = operation.Findings{
		Points: operation.ReportPoints{Source: n.Draw(t, "source"), Destination: n.Draw(t, "destination")},
		Extra:  n.Draw(t, "extra"), Expired: n.Draw(t, "expired"),
	}
	if o.reopened {
		o.findings.Missing, o.findings.Different = n.Draw(t, "missing"), n.Draw(t, "different")
	}
	return o
}

func (o *outcome) add(v *operation.Verdict, i int) {
	v.Slices.Total++
	if o.reopened {
		v.Reopen(i, o.findings, operation.Problem{})
		return
	}
	v.Slices.Equal++
	v.Slices.ByPoints++
	v.Count(o.findings)
	if o.problem {
		v.AddProblem(operation.Problem{Resolution: operation.ResolutionExtra})
	}
}

// TestVerdictsAddUp: judged group by group, stored and read in between, a task's
// verdict without the slices to be copied again is that of the others alone.
func TestVerdictsAddUp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Custom(outcomes), 0, 300).Draw(t, "slices")
		var whole, others operation.Verdict
		unproven := []int{}
		for from := 0; from < len(all); {
			to := min(len(all), from+rapid.IntRange(1, 100).Draw(t, "group"))
			var group operation.Verdict
			for i := from; i < to; i++ {
				all[i].add(&group, i)
			}
			whole.Extend(&group)
			raw, err := json.Marshal(whole)
			require.NoError(t, err)
			whole = operation.Verdict{}
			require.NoError(t, json.Unmarshal(raw, &whole))
			from = to
		}
		for i := range all {
			if all[i].reopened {
				unproven = append(unproven, i)
			} else {
				all[i].add(&others, i)
			}
		}
		require.Equal(t, unproven, append([]int{}, whole.Unproven...))
		require.LessOrEqual(t, len(whole.Problems), operation.MaxReportProblems)
		got := whole.WithoutUnproven()
		require.Equal(t, others.Slices, got.Slices)
		require.Equal(t, others.Findings, got.Findings)
		require.Equal(t, len(others.Problems)+others.LeftOut, len(got.Problems)+got.LeftOut, "every problem is kept or counted")
		require.Empty(t, got.Unproven)
		report := got.Report("x", operation.DepthCount)
		require.True(t, report.Equal)
		require.Equal(t, len(unproven) == 0, whole.Report("x", operation.DepthCount).Equal)
	})
}

func TestReportIsEqualOnlyWhenEverySliceIs(t *testing.T) {
	t.Parallel()
	equal := func(change func(*operation.Verdict)) bool {
		v := operation.Verdict{Slices: operation.SliceTotals{Total: 2, Equal: 2, ByCount: 2}}
		change(&v)
		return v.Report("x", operation.DepthCount).Equal
	}
	require.True(t, equal(func(*operation.Verdict) {}))
	require.True(t, equal(func(v *operation.Verdict) { v.Extra, v.Expired = 3, 4 }))
	require.False(t, equal(func(v *operation.Verdict) { v.Missing = 1 }))
	require.False(t, equal(func(v *operation.Verdict) { v.Different = 1 }))
	require.False(t, equal(func(v *operation.Verdict) { v.Forgo(operation.Problem{}, errors.New("no answer")) }))
	require.False(t, equal(func(v *operation.Verdict) { v.Slices.Total++ }), "a slice nobody has judged")
	of := &operation.Task{ID: "c", Slices: make([]operation.Slice, 4), Checkpoint: operation.Checkpoint{{}, {}, {State: operation.SliceHandedOver}}}
	verify := &operation.Task{Checkpoint: operation.Checkpoint{{State: operation.SliceCopied}}, Error: &operation.Error{Detail: "no answer"}}
	require.False(t, equal(func(v *operation.Verdict) {
		v.AddUnjudged(verify, of)
		require.Equal(t, 4, v.Slices.Total)
		require.Equal(t, 2, v.Slices.Unequal)
		require.Contains(t, v.Problems[0].Detail, "2 slices of task c were not verified: no answer")
	}))
	require.True(t, equal(func(v *operation.Verdict) {
		done := &operation.Task{Checkpoint: operation.Checkpoint{{State: operation.SliceCopied}, {State: operation.SliceCopied}, {}, {State: operation.SliceCopied}}}
		v.AddUnjudged(done, of)
	}))
}

func TestProblemsAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	long := operation.Slice{Measurement: strings.Repeat("m", 60_000)}
	var v operation.Verdict
	task := operation.Task{}
	for range 50 {
		v.AddProblem(operation.Problem{Slice: long})
		task.AddProblem(operation.SliceError{Slice: long, Detail: strings.Repeat("x", 1<<20)})
	}
	require.Equal(t, 50, len(v.Problems)+v.LeftOut)
	raw, err := json.Marshal(v)
	require.NoError(t, err)
	require.Less(t, len(raw), operation.MaxProblemBytes+4096)
	require.NotEmpty(t, task.Problems)
	raw, err = json.Marshal(task)
	require.NoError(t, err)
	require.Less(t, len(raw), operation.MaxProblemBytes+4096)
}
